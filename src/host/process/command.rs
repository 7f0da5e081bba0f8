//! The one way to run a program that does its work and ends: it is described first, then run within limits,
//! in a process group that is killed as a whole.

#![expect(unsafe_code, reason = "a system call between fork and exec")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ffi::OsString,
    fmt, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::getppid,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot},
};

use super::{
    error::ProgramError,
    find::find,
    output::{Collected, Pipes, Said, Sink, Split, Stop},
    question::Answers,
    start::{Start, line},
    terminal::Terminal,
    tree::Tree,
};
use crate::host::interrupt::before_end;

/// The limits of a program.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `None`: no limit, for work whose duration depends on its input.
    pub time: Option<Duration>,
    /// The most bytes on stdout. Of stderr the last [`super::output::STDERR_KEPT`] bytes are kept, however much there is.
    pub output: usize,
}

impl Limits {
    /// For a program that answers a question.
    pub const ANSWER: Limits = Limits {
        time: Some(Duration::from_secs(60)),
        output: 16 << 20,
    };
    /// For work on files as large as disks.
    pub const WORK: Limits = Limits {
        time: None,
        output: 16 << 20,
    };

    pub const fn within(self, time: Duration) -> Self {
        Limits {
            time: Some(time),
            ..self
        }
    }
}

/// Runs a program in the foreground of its terminal, and takes the terminal back before it ends: the end of a session's
/// leader ends all programs in the foreground (setsid(2)), but what a program leaves running was meant to stay.
///
/// A program that was stopped has failed. The first `exit` only warns of it.
const LEADER: &str = "\"$@\"; it=$?; exit $it; exit $it";

/// Which part of stead's environment a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// All of it: for programs that need the user's settings, such as the agent of ssh.
    Whole,
    /// Only what a program needs to find its files, and `LC_ALL=C.UTF-8`.
    Plain,
}

/// Where a program may ask, if it may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// On the terminal alone (/dev/tty); its standard input is empty.
    OnTerminal,
    /// Its standard input is the terminal.
    OnInput,
}

/// The variables of [`Environment::Plain`].
const PLAIN: [&str; 7] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
];

/// A program to run, with all its settings.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    package: &'static str,
    arguments: Vec<OsString>,
    environment: Environment,
    without: Vec<&'static str>,
    variables: BTreeMap<OsString, OsString>,
    folder: Option<PathBuf>,
    user: Option<(u32, u32)>,
    input: Vec<u8>,
    asks: Option<Asks>,
    limits: Limits,
    grace: Option<Duration>,
}

/// The result of a program.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    /// The end of stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Returns stderr as text, for an error.
    pub fn message(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_string()
    }
}

impl Command {
    /// `package` is Debian's package with the program, for the hint if it is missing.
    pub fn new(program: impl Into<OsString>, package: &'static str) -> Self {
        Command {
            program: program.into(),
            package,
            arguments: Vec::new(),
            environment: Environment::Plain,
            without: Vec::new(),
            variables: BTreeMap::new(),
            folder: None,
            user: None,
            input: Vec::new(),
            asks: None,
            limits: Limits::ANSWER,
            grace: None,
        }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Removes the variables of stead's environment whose names start with this.
    #[must_use]
    pub fn without(mut self, prefix: &'static str) -> Self {
        self.without.push(prefix);
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets the working folder; the default is stead's own.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Runs it as another user and group, which only root can. Root's supplementary groups are dropped.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Sets its standard input; the default is empty.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Has it asked to end when its time is up, and killed after `grace`.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Gives it a terminal of its own, in a session of its own, for [`Self::conversation`].
    #[must_use]
    pub fn asks(mut self, asks: Asks) -> Self {
        self.asks = Some(asks);
        self
    }

    /// Runs it to its end. The caller must check the exit status.
    pub fn run(&self) -> Result<Output, ProgramError> {
        // The thread has its own runtime, so this can also be called from within another.
        let (_go_on, stop) = oneshot::channel();
        self.in_thread(stop, Collected::new(self.limits.output))
            .join()
            .unwrap_or_else(|_| Err(self.panicked()))
    }

    /// Like [`Self::run`], but an exit status other than 0 is an error with the end of stderr.
    pub fn succeed(&self) -> Result<Output, ProgramError> {
        self.judge(self.run()?)
    }

    /// Like [`Self::run`], for async callers. If the future is dropped, the program is killed with everything
    /// that it started.
    pub async fn output(&self) -> Result<Output, ProgramError> {
        let (_go_on, stop) = oneshot::channel();
        let thread = self.in_thread(stop, Collected::new(self.limits.output));
        joined(thread).await.unwrap_or_else(|| Err(self.panicked()))
    }

    /// Runs it to its end and passes each line of its output to `each` (whether it is from stderr, and the
    /// line without its end). If the future is dropped, the program is killed with everything that it started.
    pub async fn lines(
        &self,
        each: &mut (dyn FnMut(bool, &str) + Send),
    ) -> Result<ExitStatus, ProgramError> {
        let (_go_on, stop) = oneshot::channel();
        let (sender, mut receiver) = mpsc::channel(64);
        let thread = self.in_thread(stop, Split::new(sender));
        while let Some(said) = receiver.recv().await {
            if let Said::Line(is_error, line) = said {
                each(is_error, &String::from_utf8_lossy(&line));
            }
        }
        joined(thread).await.unwrap_or_else(|| Err(self.panicked()))
    }

    /// Like [`Self::lines`], for a program that [may ask](Self::asks): `answers` answers it.
    ///
    /// # Errors
    /// [`ProgramError::Unanswered`] if nobody answers; the program is killed then.
    pub async fn conversation(
        &self,
        each: &mut (dyn FnMut(bool, &str) + Send),
        answers: &dyn Answers,
    ) -> Result<ExitStatus, ProgramError> {
        let (_go_on, stop) = oneshot::channel();
        let (sender, mut receiver) = mpsc::channel(64);
        let thread = self.in_thread(stop, Split::new(sender));
        while let Some(said) = receiver.recv().await {
            match said {
                Said::Line(is_error, line) => each(is_error, &String::from_utf8_lossy(&line)),
                Said::Asks(asked, mut reply) => {
                    tokio::select! {
                        answer = answers.answer(&asked) => {
                            // An error means that the program has ended meanwhile.
                            let _ = reply.send(answer);
                        }
                        () = reply.closed() => {}
                    }
                }
            }
        }
        joined(thread).await.unwrap_or_else(|| Err(self.panicked()))
    }

    /// Like [`Self::lines`], for callers that block.
    pub fn run_lines(&self, each: &mut dyn FnMut(bool, &str)) -> Result<ExitStatus, ProgramError> {
        let (_go_on, stop) = oneshot::channel();
        let (sender, mut receiver) = mpsc::channel(64);
        let thread = self.in_thread(stop, Split::new(sender));
        while let Some(said) = receiver.blocking_recv() {
            if let Said::Line(is_error, line) = said {
                each(is_error, &String::from_utf8_lossy(&line));
            }
        }
        thread.join().unwrap_or_else(|_| Err(self.panicked()))
    }

    fn judge(&self, output: Output) -> Result<Output, ProgramError> {
        if output.status.success() {
            return Ok(output);
        }
        Err(ProgramError::Failed {
            program: self.name(),
            status: output.status.to_string(),
            message: output.message(),
        })
    }

    /// Runs the program in a thread of its own. The kernel kills the program when the thread that started it
    /// ends (prctl(2), PR_SET_PDEATHSIG), and threads of a pool may end at any time.
    fn in_thread<S: Sink>(
        &self,
        stop: oneshot::Receiver<Infallible>,
        sink: S,
    ) -> Started<S::Result> {
        let command = self.clone();
        let span = tracing::Span::current();
        std::thread::spawn(move || {
            let _span = span.enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()
                .map_err(|source| command.start(source))?;
            runtime.block_on(command.drive(stop, sink))
        })
    }

    async fn drive<S: Sink>(
        &self,
        stop: oneshot::Receiver<Infallible>,
        mut sink: S,
    ) -> Result<S::Result, ProgramError> {
        let started = std::time::Instant::now();
        let (mut child, terminal) = self.spawn()?;
        let group = child.id();
        // It is closed after the tree is killed: its end takes the leader, by which processes in other sessions are found.
        let mut terminal = terminal.zip(group);
        let _killed = before_end(move || drop(Tree::of(group)));
        let tree = Tree::of(group);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let input = child.stdin.take();
        let feed = async {
            if let Some(mut input) = input {
                // If the program does not read all of it, its exit status shows why.
                let _ = input.write_all(&self.input).await;
            }
            std::future::pending::<Infallible>().await
        };
        let work = async {
            let mut pipes = Pipes {
                out,
                err,
                terminal: &mut terminal,
            };
            let ended = {
                let (has_ended, end) = oneshot::channel();
                let mut read = std::pin::pin!(pipes.read(&mut sink, end));
                tokio::select! {
                    status = child.wait() => {
                        let _ = has_ended.send(());
                        match read.await {
                            Err(Stop::Full) => Err(Stop::Full),
                            _ => Ok(status),
                        }
                    }
                    read = &mut read => match read {
                        Ok(()) => Ok(child.wait().await),
                        Err(stop) => Err(stop),
                    },
                }
            };
            match ended {
                Ok(status) => status.map_err(|source| self.start(source)),
                Err(Stop::Full) => Err(ProgramError::TooMuch {
                    program: self.name(),
                    limit: self.limits.output,
                }),
                Err(Stop::Unanswered(asked)) => Err(ProgramError::Unanswered {
                    program: self.name(),
                    asked,
                }),
            }
        };
        let limit = async {
            match self.limits.time {
                Some(limit) => {
                    tokio::time::sleep(limit).await;
                    limit
                }
                None => std::future::pending().await,
            }
        };
        // An error drops the tree, and so kills it.
        let status = tokio::select! {
            biased;
            // The sender was dropped: nobody waits for the program any more.
            _ = stop => return Err(ProgramError::Interrupted { program: self.name() }),
            ended = work => ended?,
            limit = limit => {
                if let Some(grace) = self.grace {
                    tree.end(grace).await;
                }
                return Err(ProgramError::TimedOut {
                    program: self.name(),
                    limit,
                });
            }
            never = feed => match never {},
        };
        // The program has ended. Processes that it left running were meant to stay, such as ssh's
        // ControlMaster.
        tree.let_go();
        tracing::debug!(
            "{} ended after {:.3} s: {status}",
            self.name(),
            started.elapsed().as_secs_f64()
        );
        Ok(sink.end(status).await)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one to use instead")]
    fn spawn(&self) -> Result<(tokio::process::Child, Option<Terminal>), ProgramError> {
        if let Some(folder) = self.folder.as_ref().filter(|folder| !folder.is_dir()) {
            return Err(ProgramError::NoFolder {
                program: self.name(),
                folder: folder.clone(),
            });
        }
        let terminal = match self.asks {
            None => None,
            Some(_) => Some(self.terminal().map_err(|source| self.start(source))?),
        };
        let mut command = match &terminal {
            None => tokio::process::Command::new(&self.program),
            Some(terminal) => {
                let mut leader = tokio::process::Command::new("sh");
                leader.args(["-mc", LEADER, "sh"]).arg(&self.program);
                terminal.lead(&mut leader);
                leader
            }
        };
        command.args(&self.arguments);
        if self.environment == Environment::Plain {
            command.env_clear();
            for name in PLAIN {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
            command.env("LC_ALL", "C.UTF-8");
        }
        for prefix in &self.without {
            for (name, _) in std::env::vars_os() {
                if name.as_bytes().starts_with(prefix.as_bytes()) {
                    command.env_remove(name);
                }
            }
        }
        command.envs(&self.variables);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let input = match (&terminal, self.asks) {
            (Some(terminal), Some(Asks::OnInput)) => {
                Stdio::from(terminal.input().map_err(|source| self.start(source))?)
            }
            _ if self.input.is_empty() => Stdio::null(),
            _ => Stdio::piped(),
        };
        command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C only goes to stead, which decides what to do. The leader of a session leads a group of its own.
        if terminal.is_none() {
            command.process_group(0);
        }
        let stead = nix::unistd::getpid();
        // SAFETY: between fork and exec this only makes system calls that are safe there (fork(2),
        // signal-safety(7)): prctl(2) and getppid(2).
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                // stead may have died before that call.
                if getppid() == stead {
                    Ok(())
                } else {
                    Err(io::ErrorKind::Interrupted.into())
                }
            });
        }
        let child = command.start().map_err(|source| self.start(source))?;
        Ok((child, terminal))
    }

    /// Makes a terminal for the program, which must exist: its session's leader would not tell otherwise.
    fn terminal(&self) -> io::Result<Terminal> {
        let program = match self.program.to_str() {
            Some(name) if !name.contains('/') => {
                find(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?
            }
            _ => PathBuf::from(&self.program),
        };
        let program = match &self.folder {
            Some(folder) => folder.join(program),
            None => program,
        };
        nix::unistd::access(&program, nix::unistd::AccessFlags::X_OK)?;
        Terminal::new()
    }

    fn name(&self) -> String {
        Path::new(&self.program)
            .file_name()
            .unwrap_or(&self.program)
            .to_string_lossy()
            .into_owned()
    }

    fn start(&self, source: io::Error) -> ProgramError {
        match source.kind() {
            io::ErrorKind::NotFound => ProgramError::NotInstalled {
                program: self.name(),
                package: self.package,
            },
            _ => ProgramError::Start {
                program: self.name(),
                source,
            },
        }
    }

    fn panicked(&self) -> ProgramError {
        self.start(io::Error::other("the thread that runs it panicked"))
    }
}

/// The command line, for logs.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(
            &self.program,
            self.arguments.iter().map(OsString::as_os_str),
        ))
    }
}

type Started<R> = std::thread::JoinHandle<Result<R, ProgramError>>;

/// Waits for the thread without blocking the runtime. `None`: it panicked.
async fn joined<R: Send + 'static>(thread: Started<R>) -> Option<Result<R, ProgramError>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        // An error means that nobody waits for it any more.
        let _ = sender.send(thread.join());
    });
    receiver.await.ok()?.ok()
}

#[cfg(test)]
mod tests;
