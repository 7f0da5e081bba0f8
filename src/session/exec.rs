//! Runs a command of the user's in a machine. It lives no longer than this process.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::OwnedFd,
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Child,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use crate::{
    failure::Failure,
    guest::{LINGER, Listener, Output, Remote, SILENT, SSH_FAILED, UserCommand, Word, exec_script},
    host::{digest::nonce, interrupt::before_end, runtime::runtime, unread::Input},
    machine::Observed,
    report::{clean::words, stdio},
};

use super::{
    Session,
    reach::{Reboots, answered, not_logged_in, until_lost},
};

/// How much output is passed on at a time, in bytes.
const PIECE: usize = 1 << 17;

/// A shell's code for a program that wrote to a pipe which nobody reads.
pub(super) const NO_READER: u8 = 128 + Signal::SIGPIPE as u8;

/// How a command of the user's ended.
pub enum ExecEnd {
    Code(u8),
    /// It was not started, or the connection was lost.
    Failed(Failure),
}

/// Gets the pieces of a stream.
pub type Pass = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// The streams of a command, on this side.
pub struct Streams {
    pub(super) input: Input,
    pub(super) out: Pass,
    pub(super) err: Pass,
}

impl Streams {
    /// Those of this process.
    ///
    /// # Errors
    /// If standard input cannot be looked at.
    pub fn own() -> Result<Self, Failure> {
        let input =
            Input::standard().map_err(|error| Failure::io("read standard input", &error))?;
        Ok(Streams {
            input,
            out: Box::new(|bytes| match stdio::raw(bytes)? {
                true => Ok(()),
                false => Err(ErrorKind::BrokenPipe.into()),
            }),
            err: Box::new(|bytes| {
                stdio::raw_talk(bytes);
                Ok(())
            }),
        })
    }
}

/// Runs the command without a terminal.
///
/// # Errors
/// If this side fails.
pub fn exec(
    session: &Session,
    observed: &Observed,
    remote: &Remote,
    command: UserCommand<'_>,
    streams: Streams,
) -> Result<ExecEnd, Failure> {
    let machine = &remote.machine;
    let nonce = nonce().map_err(|error| Failure::io("read random bytes", &error))?;
    let mark = format!("stead-{nonce}");
    let script = exec_script(command, &mark, !streams.input.is_nothing());
    let runtime = runtime()?;
    let started = runtime.block_on(async {
        tokio::select! {
            started = start(session, observed, remote, &script) => started,
            lost = until_lost(session, observed, machine, Reboots::Pass) => Ok(Err(lost.failure)),
        }
    });
    let child = match started? {
        Ok(child) => child,
        Err(failure) => return Ok(ExecEnd::Failed(failure)),
    };
    // Without its ssh, the command ends.
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let _killed = before_end(move || {
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    });
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = follow(child, streams, &mark) => Ok(ended),
            failure = until_gone(session, observed, machine) => Err(failure),
        }
    });
    // A read of standard input may never end.
    runtime.shutdown_background();
    let ended = match ended {
        Ok(ended) => ended,
        Err(failure) => return Ok(ExecEnd::Failed(failure)),
    };
    Ok(match ended {
        Ok(Some(code)) => ExecEnd::Code(code),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExecEnd::Code(NO_READER),
        Err(error) => {
            let doing = "pass on what the command reads or prints";
            return Err(Failure::io(doing, &error));
        }
        Ok(None) => ExecEnd::Failed(Failure::error(
            format!("the connection to {machine} was lost"),
            format!("`stead status {machine}` shows whether it still runs"),
        )),
    })
}

/// Ends when the command cannot go on. A paused machine's can, so people are told once what it waits for.
async fn until_gone(session: &Session, observed: &Observed, machine: &str) -> Failure {
    let mut is_told = false;
    loop {
        let lost = until_lost(session, observed, machine, Reboots::End).await;
        if !lost.is_paused {
            return lost.failure;
        }
        if !is_told {
            let hint = lost.failure.hint().unwrap_or_default();
            stdio::talk(&format!(
                "waiting: {}\nhint: {hint}\n",
                lost.failure.message()
            ));
        }
        is_told = true;
    }
}

/// Starts the script. If that takes seconds, people are told what it waits for.
pub(super) async fn start(
    session: &Session,
    observed: &Observed,
    remote: &Remote,
    script: &str,
) -> Result<Result<Child, Failure>, Failure> {
    if !observed.has_booted()
        && let Err(failure) = answered(session, observed, remote).await
    {
        return Ok(Err(failure));
    }
    let started = remote.start_typed(script);
    tokio::pin!(started);
    let early = timeout(SILENT, &mut started).await;
    let started = match early {
        Ok(started) => started,
        Err(_) => {
            if stdio::stderr_is_terminal() {
                stdio::talk(&format!("waiting for SSH on {}\n", remote.machine));
            }
            started.await
        }
    };
    Ok(started?.map_err(|output| not_started(remote, &output)))
}

fn not_started(remote: &Remote, output: &Output) -> Failure {
    let machine = &remote.machine;
    // `stead dial` says why there is no connection, and ssh that it has none.
    let dialled = output.stderr.split_once("error: ").map(|(_, said)| said);
    if let Some((message, hint)) = dialled.and_then(|said| said.split_once("\n\nhint: ")) {
        let hint = hint.lines().next().unwrap_or_default();
        return Failure::error(message, hint);
    }
    match output.status.code() {
        // It has no end of its own.
        None => Failure::error(
            format!(
                "cannot log in to {machine}: {}",
                words(&output.last_words())
            ),
            format!(
                "in ~/.bashrc, ~/.zshenv and the like of its login user, put what is for people behind `[ -t 0 ] &&`; `stead ssh {machine}` logs in at a terminal"
            ),
        ),
        Some(SSH_FAILED) => not_logged_in(machine, output),
        Some(_) => Failure::error(
            format!(
                "the login shell of {machine} ends before it runs `sh`: {}",
                words(&output.last_words())
            ),
            format!(
                "`stead logs {machine}` shows its console; as root, `chsh -s /bin/sh USER` gives the login user another shell"
            ),
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

enum Event {
    Said(Stream, Word),
    Failed(io::Error),
}

/// What was heard of the command.
#[derive(Default)]
struct Heard {
    code: Option<u8>,
    /// All of its output has come.
    is_whole: bool,
    /// How many bytes of its input it has not read.
    left: Option<u64>,
}

impl Heard {
    fn has_ended(&self) -> bool {
        self.code.is_some() && self.is_whole
    }

    /// # Errors
    /// If the output could not be passed on.
    fn note(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Said(Stream::Err, Word::Ended(code)) => self.code = code,
            Event::Said(Stream::Out, Word::Ended(_)) => self.is_whole = true,
            Event::Said(_, Word::Left(left)) => self.left = Some(left),
            Event::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Notes events until one says how much of the input is left.
    async fn hear_rest(&mut self, events: &mut UnboundedReceiver<Event>) -> io::Result<()> {
        while self.left.is_none()
            && let Some(event) = events.recv().await
        {
            self.note(event)?;
        }
        Ok(())
    }

    /// Notes what is on its way when ssh has ended. A ControlMaster that it left behind keeps its stderr open.
    async fn hear_last(
        &mut self,
        events: &mut UnboundedReceiver<Event>,
        needs_left: bool,
    ) -> io::Result<()> {
        while !(self.has_ended() && (self.left.is_some() || !needs_left))
            && let Ok(Some(event)) = timeout(LINGER, events.recv()).await
        {
            self.note(event)?;
        }
        Ok(())
    }
}

/// Joins the streams until the command has ended. Returns its exit code; `None` if that is not known.
async fn follow(mut child: Child, streams: Streams, mark: &str) -> io::Result<Option<u8>> {
    let (tell, mut events) = unbounded_channel();
    let mut input = streams.input;
    let has_input = !input.is_nothing();
    let mut to = child.stdin.take();
    if let Some(out) = child.stdout.take() {
        let out = out.into_owned_fd()?;
        listen(Stream::Out, out, streams.out, mark, tell.clone());
    }
    if let Some(err) = child.stderr.take() {
        let err = err.into_owned_fd()?;
        listen(Stream::Err, err, streams.err, mark, tell);
    }
    let mut heard = Heard::default();
    let mut passes = has_input;
    let mut of_shell = None;
    while !heard.has_ended() && of_shell.is_none() {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => heard.note(event)?,
                None => of_shell = Some(child.wait().await?),
            },
            // A command that reads no more has ended, or will.
            _ = async { match &mut to {
                Some(to) => input.pass_on(to).await,
                None => Ok(()),
            } }, if passes => {
                passes = false;
                // The end of its input.
                to = None;
            }
            status = child.wait() => of_shell = Some(status?),
        }
    }
    // The script counts what the command has not read, once it has all.
    drop(to);
    if of_shell.is_none() && input.can_be_left() {
        tokio::select! {
            heard = heard.hear_rest(&mut events) => heard?,
            status = child.wait() => of_shell = Some(status?),
        }
    }
    if of_shell.is_some() {
        let needs_left = input.can_be_left();
        heard.hear_last(&mut events, needs_left).await?;
    }
    if input.can_be_left() {
        input.leave(heard.left.unwrap_or(0))?;
    }
    // The script itself may have been killed.
    let of_shell = of_shell.and_then(|status| status.code());
    let of_shell = of_shell.filter(|code| *code != SSH_FAILED);
    Ok(heard
        .code
        .or(of_shell.and_then(|code| u8::try_from(code).ok())))
}

/// Passes on a stream in a thread, which ends with the stream or with the process.
fn listen(stream: Stream, from: OwnedFd, mut pass: Pass, mark: &str, tell: UnboundedSender<Event>) {
    let mut listener = Listener::new(mark);
    thread::spawn(move || {
        let mut from = File::from(from);
        let mut piece = vec![0; PIECE];
        let ended = loop {
            let words = match from.read(&mut piece) {
                Ok(0) => break listener.end(&mut pass),
                Ok(read) => listener.take(&piece[..read], &mut pass),
                Err(error) => break Err(error),
            };
            match words {
                Ok(words) => {
                    for word in words {
                        let _ = tell.send(Event::Said(stream, word));
                    }
                }
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = ended {
            let _ = tell.send(Event::Failed(error));
        }
    });
}
