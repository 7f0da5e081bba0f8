//! The process that is a project's network: it runs until its last machine has ended.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use jiff::Timestamp;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{getsockopt, sockopt::SockType as SocketType},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::Mutex,
    task::{LocalSet, spawn_local},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    host::{
        lock::{Attempt, Lock},
        paths::DataDir,
        process::{Process, inherited},
        runtime::blocking,
    },
    report::{
        clean::{Shown, words},
        stdio,
    },
};

use super::{
    Cable, Wiring,
    control::{FORMAT, LONGEST_LINE, Reply, Request, SOCKET},
    inward::{WaysIn, probe::probe},
    outward,
    ports::{Ports, Ssh},
    state::{NetworkFiles, State},
    switch::Switch,
};

/// What the process prints: it serves, or another process does already. Any other line is the reason why it cannot.
pub(super) const READY: &str = "ready";
pub(super) const BUSY: &str = "busy";

/// How often it looks whether its machines still run. It ends when none did twice.
const LOOK: Duration = Duration::from_secs(60);

/// How many files the process may need, for every card of the largest project.
const FILES: u64 = 1 << 14;

/// How long a command may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the process is started with, on its standard input.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    pub format: u32,
    pub data: PathBuf,
    /// The 6 hex digits of the project.
    pub project: String,
    pub cable: Cable,
    /// The folder for all sockets.
    pub sockets: PathBuf,
    pub wiring: Wiring,
}

/// Runs the program stead-net.
pub fn serve_main(ssh: Ssh) -> ExitCode {
    inherited::close();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [what] if what == outward::ARGUMENT && is_socket() => return outward::run_child(false),
        [what, how] if what == outward::ARGUMENT && how == outward::CHECK => {
            return outward::run_child(true);
        }
        _ => {}
    }
    if !arguments.is_empty() || io::stdin().is_terminal() {
        let version = env!("CARGO_PKG_VERSION");
        answer(&format!(
            "stead-net {version} cannot be used by hand: `stead up` starts it, for machines with networks"
        ));
        return ExitCode::from(2);
    }
    match read_task().and_then(|task| run(task, ssh)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(said) => {
            answer(&said);
            ExitCode::FAILURE
        }
    }
}

/// Whether standard input is a socket: stead-net has started itself once more.
fn is_socket() -> bool {
    getsockopt(&io::stdin(), SocketType).is_ok()
}

fn read_task() -> Result<Task, String> {
    let mut text = String::new();
    let read = io::stdin().take(LONGEST_LINE).read_to_string(&mut text);
    read.map_err(|error| format!("cannot read what to do: {error}"))?;
    let task: Task = serde_json::from_str(&text).map_err(|error| {
        format!("cannot read what to do: {error}; `stead up` starts this program, and both must be of the same release")
    })?;
    match task.format == FORMAT {
        true => Ok(task),
        false => Err("stead and stead-net are of different releases: install both again".into()),
    }
}

fn run(task: Task, ssh: Ssh) -> Result<(), String> {
    // In a session of its own it outlives the terminal, and no Ctrl-C reaches it.
    let _ = nix::unistd::setsid();
    let files = NetworkFiles::of(&DataDir::at(&task.data), &task.project, task.cable);
    let holder = format!(
        "the network of {} (pid {})",
        words(&task.wiring.domain),
        std::process::id()
    );
    raise_limit();
    let locks = files.data().locks();
    let _held = match Lock::try_acquire(&locks, files.lock(), &holder) {
        Ok(Attempt::Held(lock)) => lock,
        Ok(Attempt::Busy { .. }) => {
            answer(BUSY);
            return Ok(());
        }
        Err(error) => return Err(format!("cannot lock {}: {error}", files.lock())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the async runtime: {error}"))?;
    let local = LocalSet::new();
    let served = local.block_on(&runtime, serve(&files, &task, ssh));
    drop(local);
    files.clear(&task.sockets);
    served
}

async fn serve(files: &NetworkFiles, task: &Task, ssh: Ssh) -> Result<(), String> {
    let failed = |doing: &str, error: io::Error| format!("cannot {doing}: {error}");
    let switch = Switch::new();
    if task.cable == Cable::Sockets {
        switch.watch(&task.sockets);
    }
    let control = task.sockets.join(SOCKET);
    let served = Rc::new(Served {
        ports: Ports::new(ssh, switch.clone()),
        ways_in: WaysIn::new(switch.clone(), task.cable),
        switch,
        cable: task.cable,
        sockets: task.sockets.clone(),
        files: files.clone(),
        state: State {
            process: Process::own().ok_or("cannot read from /proc when this process started")?,
            since: Timestamp::now(),
            control: control.clone(),
            conditions: Vec::new(),
        },
        writing: Mutex::new(()),
    });
    served
        .rewire(task.wiring.clone())
        .await
        .map_err(|error| failed("make the sockets of the network", error))?;
    let listener = listen(&control).map_err(|error| failed("listen for commands", error))?;
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| failed("wait for the signal to end", error))?;
    // A process that was killed has left what it was told. Where no machine has a card, it was told by machines that
    // have ended since.
    if let Some(before) = files.read()
        && served.switch.is_used()
    {
        served.switch.set_all(before.conditions);
    }
    (served.write().await).map_err(|error| {
        let folder = files.data().networks();
        failed(&format!("write in {}", folder.shown()), error)
    })?;
    answer(READY);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // At once.
    look.tick().await;
    let mut was_used = true;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let served = Rc::clone(&served);
                    spawn_local(async move {
                        let _ = served.obey(stream).await;
                    });
                }
            }
            _ = look.tick() => {
                served.switch.look_again();
                served.ways_in.open_again().await;
                let is_used = served.switch.is_used();
                if !is_used && !was_used {
                    return Ok(());
                }
                was_used = is_used;
            }
            _ = terminate.recv() => return Ok(()),
        }
    }
}

/// Each card takes three files, and the usual limit is 1024.
fn raise_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most.min(FILES), most);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// What the process is, and says about itself.
struct Served {
    switch: Switch,
    ports: Ports,
    ways_in: WaysIn,
    cable: Cable,
    sockets: PathBuf,
    files: NetworkFiles,
    /// Without conditions, which change.
    state: State,
    /// Held while the file is written.
    writing: Mutex<()>,
}

impl Served {
    async fn rewire(&self, wiring: Wiring) -> io::Result<()> {
        self.switch
            .rewire(wiring.clone(), self.cable, &self.sockets)?;
        self.ways_in.set(&wiring.ways_in, &wiring.starting).await;
        self.ports.rewire(&wiring, &self.sockets);
        Ok(())
    }

    /// Writes the file, on another thread: that waits for the disk.
    async fn write(&self) -> io::Result<()> {
        let _held = self.writing.lock().await;
        let state = State {
            conditions: self.switch.by_hand(),
            ..self.state.clone()
        };
        let files = self.files.clone();
        (blocking(move || files.write(&state)).await).map_err(io::Error::other)?
    }

    /// Whether the file says what is so. It may have been lost or damaged.
    fn is_written(&self) -> bool {
        self.files.read().is_some_and(|it| {
            it.process == self.state.process
                && it.control == self.state.control
                && it.conditions == self.switch.by_hand()
        })
    }

    /// Does what a command says on this connection.
    async fn obey(&self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let recorded = timeout(PATIENCE, async {
            let mut line = String::new();
            (&mut read).take(LONGEST_LINE).read_line(&mut line).await?;
            let mut links = None;
            let mut probed = None;
            let mut recorded = None;
            let done = match Request::read(line.as_bytes()) {
                Ok(Request::Look) => Ok(()),
                Ok(Request::Reached(machine)) => {
                    self.ports.reached(&machine);
                    Ok(())
                }
                Ok(Request::Probe(mac, port)) => {
                    probed = Some(probe(&self.switch, mac, port).await);
                    Ok(())
                }
                Ok(Request::Links) => {
                    links = Some(self.switch.links());
                    Ok(())
                }
                Ok(Request::Lead(way)) => {
                    self.ways_in.lead(&way).await;
                    Ok(())
                }
                Ok(Request::Wire(wiring)) => (self.rewire(wiring).await)
                    .map_err(|error| format!("cannot make the sockets of the network: {error}")),
                // It holds again after a `kill -9` once the command knows that it holds.
                Ok(Request::Set(rule)) => match self.switch.set(rule) {
                    Ok(()) => (self.write().await)
                        .map_err(|error| format!("cannot write what is set: {error}")),
                    refused => refused,
                },
                Ok(Request::Record(macs)) => self.switch.record(macs).map(|it| recorded = Some(it)),
                Err(said) => Err(said),
            };
            let reply = Reply {
                format: FORMAT,
                error: done.err(),
                counts: self.switch.counts(),
                ports: self.ports.shown(),
                refusals: self.switch.refusals(),
                ways_out: self.switch.ways_out(),
                led: self.ways_in.led(),
                unopened: self.ways_in.unopened(),
                probed,
                links,
            };
            let mut line = serde_json::to_vec(&reply)?;
            line.push(b'\n');
            write.write_all(&line).await?;
            Ok::<_, io::Error>(recorded)
        })
        .await;
        if let Ok(Ok(Some(recorded))) = recorded {
            return recorded.recorder.send(read, write).await;
        }
        if !self.is_written() {
            self.write().await?;
        }
        Ok(())
    }
}

/// Prints a line for the process that started this one.
fn answer(line: &str) {
    // That process may have ended already.
    let _ = stdio::data(&format!("{}\n", words(line)));
}
