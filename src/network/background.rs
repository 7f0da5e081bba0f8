//! Starts, tells and ends the process that is a project's network.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    host::{
        file, lock,
        paths::CLOSED,
        process::{Process, ProgramError, Start},
        remedy,
        socket_folder::{self, SocketFolderError},
    },
    report::clean::{Shown, words},
};

use super::{
    Cable, GuestPorts, Mac, Probed, Unopened, WayIn, Wiring,
    control::{FORMAT, LONGEST_LINE, Reply, Request, SOCKET},
    orders::{look, probe},
    serve::{BUSY, READY, Task},
    state::NetworkFiles,
    taps,
};

/// How long the process may take to answer. It answers between two frames; one that is stopped never does.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How long a process may take to start or to end.
const STARTS: Duration = Duration::from_secs(10);

/// The size in bytes at which the log is emptied.
const LOG_LIMIT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum NetworkError {
    #[error("cannot {doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error(transparent)]
    #[diagnostic(transparent)]
    SocketFolder(#[from] SocketFolderError),
    #[error("the network of the project cannot start: {said}")]
    Start {
        said: String,
        #[help]
        hint: String,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Program(#[from] ProgramError),
    #[error("a newer stead runs the network of the project")]
    #[diagnostic(help("use that stead, or stop the machines with it first"))]
    Newer,
    #[error("an older stead runs the network of the project")]
    #[diagnostic(help("run `stead up`: it replaces the program, and guests keep their links"))]
    Older,
    #[error("the network of the project does not answer: {0}")]
    #[diagnostic(help("run `stead up`: it starts the program again"))]
    NoAnswer(io::Error),
    #[error("the network of the project refuses: {said}")]
    Refused { said: String },
}

fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let doing = doing.into();
    move |source| NetworkError::Io { doing, source }
}

/// Makes the process be this network: tells the one that runs, or starts one with `command`. Returns whether it was
/// started.
pub fn ensure(
    files: &NetworkFiles,
    wiring: &Wiring,
    command: &mut Command,
) -> Result<bool, NetworkError> {
    if files.cable() == Cable::Taps {
        // A newer one may have other interfaces.
        if let Err(error @ NetworkError::Newer) = look(files) {
            return Err(error);
        }
        let cards = wiring.networks.iter().flat_map(|network| &network.cards);
        let macs: Vec<Mac> = cards.map(|card| card.mac).collect();
        taps::make(files.project(), &macs)?;
    }
    let deadline = Instant::now() + STARTS;
    loop {
        if tell(files, &Request::Wire(wiring.clone()))?.is_some() {
            return Ok(false);
        }
        if start(files, wiring, command)? {
            return Ok(true);
        }
        // Another command starts it just now, or it is about to end because its last machine has ended.
        if Instant::now() > deadline {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    let lock = lock::path(&files.data().locks(), files.lock());
    let holder = std::fs::read_to_string(lock).unwrap_or_default();
    let said = match words(holder.trim()) {
        holder if holder.is_empty() => "another process holds its lock".to_string(),
        holder => format!("{holder} does not answer"),
    };
    let hint = "end that process, and run the same command again".to_string();
    Err(NetworkError::Start { said, hint })
}

/// What starts the process again while a command waits for its machines. Clones are one.
#[derive(Clone, Debug)]
pub struct Keeper {
    files: NetworkFiles,
    wiring: Arc<Mutex<Wiring>>,
    program: PathBuf,
}

impl Keeper {
    pub fn new(files: NetworkFiles, wiring: Wiring, program: PathBuf) -> Self {
        Keeper {
            files,
            wiring: Arc::new(Mutex::new(wiring)),
            program,
        }
    }

    /// Tells the process that a machine has booted, so that its ports appear.
    pub fn reached(&self, machine: &str) -> Result<(), NetworkError> {
        let mut wiring = self.wiring.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(guest) = wiring.guests.iter_mut().find(|it| it.machine == machine) else {
            return Ok(());
        };
        guest.is_reached = true;
        drop(wiring);
        tell(&self.files, &Request::Reached(machine.to_string())).map(drop)
    }

    /// Has ports of this computer lead to a machine that is about to start. Returns those that cannot be opened.
    pub fn lead(&self, way: WayIn) -> Result<Vec<Unopened>, NetworkError> {
        let mut wiring = self.wiring.lock().unwrap_or_else(PoisonError::into_inner);
        wiring.ways_in.retain(|it| it.machine != way.machine);
        wiring.ways_in.push(way.clone());
        wiring.starting.retain(|it| *it != way.machine);
        drop(wiring);
        let machine = way.machine.clone();
        let mac = way.mac;
        let mut reply = match tell(&self.files, &Request::Lead(way))? {
            Some(reply) if reply.counts.contains_key(&mac) => reply,
            // It was ended or told something else meanwhile.
            _ => {
                self.tell()?;
                look(&self.files)?.unwrap_or_default()
            }
        };
        Ok(reply.unopened.remove(&machine).unwrap_or_default())
    }

    /// Asks the guest with this card whether it takes connections at a TCP port; `None` if no process runs.
    pub fn probe(&self, mac: Mac, port: u16) -> Result<Option<Probed>, NetworkError> {
        probe(&self.files, mac, port)
    }

    /// Returns whether the guest with this card has asked for an address; `None` if that is not known.
    pub fn has_asked(&self, mac: Mac) -> Option<bool> {
        let reply = look(&self.files).ok().flatten()?;
        reply.counts.get(&mac).map(|counts| counts.has_asked)
    }

    /// Returns the ports of a machine that appear on this computer; `None` if none of its ports do.
    pub fn ports_of(&self, machine: &str) -> Result<Option<GuestPorts>, NetworkError> {
        let wiring = self.wiring.lock().unwrap_or_else(PoisonError::into_inner);
        let appears = wiring.guests.iter().any(|it| it.machine == machine);
        drop(wiring);
        if !appears {
            return Ok(None);
        }
        let ports = look(&self.files)?.and_then(|mut it| it.ports.remove(machine));
        Ok(Some(ports.unwrap_or_default()))
    }

    /// Starts the process if none runs. Returns whether it did.
    pub fn keep(&self) -> Result<bool, NetworkError> {
        match look(&self.files) {
            Ok(Some(_)) => Ok(false),
            _ => self.tell(),
        }
    }

    /// Makes the process be this network, as [`ensure`] does.
    #[expect(
        clippy::disallowed_methods,
        reason = "it keeps running after stead ends"
    )]
    pub fn tell(&self) -> Result<bool, NetworkError> {
        let wiring = self.wiring.lock().unwrap_or_else(PoisonError::into_inner);
        let wiring = wiring.clone();
        ensure(&self.files, &wiring, &mut Command::new(&self.program))
    }
}

/// Ends the process, if one runs, and waits for its end. Returns whether one ran.
pub fn stop(files: &NetworkFiles) -> Result<bool, NetworkError> {
    let Some(state) = files.read() else {
        return Ok(false);
    };
    let is_alive = state.process.is_alive();
    if is_alive {
        end(&state.process, Signal::SIGTERM)?;
    }
    files.clear(&files.sockets());
    Ok(is_alive)
}

/// The sockets at which the process may listen. Its file may be lost or damaged while it runs.
pub(super) fn controls(files: &NetworkFiles) -> Vec<PathBuf> {
    let told = files.read().filter(|state| state.process.is_alive());
    let mut controls: Vec<PathBuf> = told.map(|state| state.control).into_iter().collect();
    controls.push(files.sockets().join(SOCKET));
    controls.dedup();
    controls
}

/// `None`: no process runs, or it had to be ended.
fn tell(files: &NetworkFiles, request: &Request) -> Result<Option<Reply>, NetworkError> {
    let state = files.read().filter(|state| state.process.is_alive());
    let mut answered = Err(io::ErrorKind::NotFound.into());
    for control in controls(files) {
        answered = ask(&control, request, PATIENCE);
        if answered.is_ok() {
            break;
        }
    }
    match answered {
        Ok(reply) if reply.format > FORMAT => Err(NetworkError::Newer),
        Ok(Reply {
            format: FORMAT,
            error: Some(said),
            ..
        }) => Err(NetworkError::Start {
            hint: hint(files, &said),
            said,
        }),
        Ok(reply) if reply.format == FORMAT => Ok(Some(reply)),
        // An older one, or one that does not answer. The guests keep their links while another one starts.
        answered => {
            if let Some(state) = state {
                tracing::debug!("the network of the project is replaced: {answered:?}");
                end(&state.process, Signal::SIGKILL)?;
            }
            Ok(None)
        }
    }
}

pub(super) fn ask(control: &Path, request: &Request, patience: Duration) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&request.line()?)?;
    let mut line = String::new();
    BufReader::new(stream)
        .take(LONGEST_LINE)
        .read_line(&mut line)?;
    Ok(Reply::read(line.as_bytes())?)
}

/// Ends a process, and waits for its end: not for its lock, which another one may have taken meanwhile.
fn end(process: &Process, signal: Signal) -> Result<(), NetworkError> {
    let send = |signal: Signal| {
        // An error means that it has just ended, which is what we want.
        let _ = i32::try_from(process.pid).map(|pid| kill(Pid::from_raw(pid), signal));
    };
    send(signal);
    let deadline = Instant::now() + STARTS;
    while process.is_alive() {
        // It would not hear of another one.
        if process.is_stopped() {
            send(Signal::SIGKILL);
        }
        if Instant::now() > deadline {
            let said = format!("the process of before (pid {}) does not end", process.pid);
            let hint = "end that process, and run the same command again".to_string();
            return Err(NetworkError::Start { said, hint });
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Returns whether it was started; if not, another process was faster.
fn start(
    files: &NetworkFiles,
    wiring: &Wiring,
    command: &mut Command,
) -> Result<bool, NetworkError> {
    let sockets = files.sockets();
    for folder in (sockets.parent().into_iter()).chain([sockets.as_path()]) {
        socket_folder::make(folder, "the sockets of the network")?;
    }
    let log = open_log(files)?;
    let task = Task {
        format: FORMAT,
        data: std::path::absolute(files.data().root()).map_err(io_error("find the data folder"))?,
        project: files.project().to_string(),
        cable: files.cable(),
        sockets,
        wiring: wiring.clone(),
    };
    let program = Path::new(command.get_program()).shown();
    let mut child = command
        // glibc raises this by itself (mallopt(3), M_MMAP_THRESHOLD). Buffers of connections would then use their memory
        // before they are filled, and not give it back.
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        // The working folder may be removed or unmounted meanwhile.
        .current_dir("/")
        .stdin(written(&task).map_err(io_error("write what the network is"))?)
        .stdout(Stdio::piped())
        .stderr(log)
        .start()
        .map_err(io_error(format!("start {program}")))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out)
            .take(LONGEST_LINE)
            .read_line(&mut line)
            .map_err(io_error(format!("read from {program}")))?;
    }
    let said = match line.trim_end() {
        READY => return Ok(true),
        BUSY => return Ok(false),
        "" => format!("{program} ended immediately"),
        said => said.to_string(),
    };
    let hint = hint(files, &said);
    Err(NetworkError::Start { said, hint })
}

/// Returns what to do about what the process says.
fn hint(files: &NetworkFiles, said: &str) -> String {
    remedy::of_words(said).map_or_else(
        || format!("{} may show why", files.log().shown()),
        str::to_string,
    )
}

fn open_log(files: &NetworkFiles) -> Result<File, NetworkError> {
    let path = files.log();
    let doing = || format!("write to {}", path.shown());
    file::create_folder(&files.data().networks(), CLOSED).map_err(io_error(doing()))?;
    let log = File::options()
        .create(true)
        .append(true)
        .mode(file::PRIVATE)
        .open(&path)
        .map_err(io_error(doing()))?;
    if log.metadata().is_ok_and(|it| it.len() > LOG_LIMIT) {
        log.set_len(0).map_err(io_error(doing()))?;
    }
    Ok(log)
}

/// Writes what to do into a file without a name.
fn written(task: &Task) -> io::Result<Stdio> {
    Ok(file::without_name(&serde_json::to_vec(task)?)?.into())
}
