//! The watcher of a project as a process of its own: one per project, started by `up`, and ended when no
//! machine needs it.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    rc::Rc,
};

use jiff::Timestamp;
use miette::Diagnostic;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    host::{
        file, lock,
        lock::{Attempt, Lock},
        paths::{DATA_DIR_VARIABLE, DataDir},
        process::{Process, Start},
    },
    report::{
        clean::{Shown, words},
        stdio,
    },
    sync::{error::SyncError, outcome::Changes},
};

use super::{Last, Listener, State, WatchReporter, Watched, WatcherFiles, watch};

/// The size in bytes at which the log is emptied.
const LOG_LIMIT: u64 = 4 << 20;

/// The first line that the process prints: it watches, or another process does already. Any other line is
/// the reason why it cannot start.
const READY: &str = "ready";
const BUSY: &str = "busy";

/// Whether the watcher was running already, or was started just now.
#[derive(Debug, PartialEq, Eq)]
pub enum WatcherStart {
    WasRunning,
    Started,
}

/// Starts the watcher if none runs; one that watches something else is replaced. The inner `Err` is the
/// reason that the process gave for not starting.
pub fn ensure(
    data: &DataDir,
    watched: &Watched,
    command: &mut Command,
) -> Result<Result<WatcherStart, String>, SyncError> {
    let place = WatcherFiles::of(data, &watched.owner);
    if let Some(state) = place.read().filter(|state| state.process.is_alive()) {
        if state.digest == watched.digest() {
            return Ok(Ok(WatcherStart::WasRunning));
        }
        stop(&place)?;
    }
    let folder = data.watch();
    fs::create_dir_all(&folder).map_err(SyncError::file("create", &folder))?;
    let log = place.log();
    let shown = log.shown();
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(SyncError::io(format!("write to {shown}")))?;
    let data = std::path::absolute(data.root()).map_err(SyncError::file("find", data.root()))?;
    let program = Path::new(command.get_program()).shown();
    let mut child = command
        .env(DATA_DIR_VARIABLE, data)
        // The working folder may be removed or unmounted meanwhile.
        .current_dir("/")
        .stdin(written(watched)?)
        .stdout(Stdio::piped())
        .stderr(log)
        .start()
        .map_err(SyncError::io(format!("start {program}")))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out)
            .read_line(&mut line)
            .map_err(SyncError::io("read from the watcher"))?;
    }
    match line.trim_end() {
        READY => Ok(Ok(WatcherStart::Started)),
        BUSY => Ok(Ok(WatcherStart::WasRunning)),
        "" => Ok(Err(format!(
            "the watcher of folders ended immediately; {shown} may show why"
        ))),
        said => Ok(Err(said.to_string())),
    }
}

/// Writes the watcher's input to a file without a name.
pub fn written(watched: &Watched) -> Result<Stdio, SyncError> {
    serde_json::to_vec(watched)
        .map_err(io::Error::other)
        .and_then(|list| file::without_name(&list))
        .map(Stdio::from)
        .map_err(SyncError::io("write the list of watched folders"))
}

/// Ends the watcher, if one runs, and waits for its end. Returns whether one ran.
pub fn stop(place: &WatcherFiles) -> Result<bool, SyncError> {
    let Some(state) = place.read() else {
        return Ok(false);
    };
    let alive = state.process.is_alive();
    if alive {
        // An error means that it has just ended, which is what we want.
        let _ =
            i32::try_from(state.process.pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        lock::wait(&place.locks(), place.lock())
            .map_err(SyncError::io("wait for the watcher to end"))?;
    }
    place.remove();
    Ok(alive)
}

/// Ends the watcher if none of its machines is running.
pub fn stop_if_unneeded(
    place: &WatcherFiles,
    is_up: impl Fn(&str) -> bool,
) -> Result<bool, SyncError> {
    match place.read() {
        Some(state) if !state.machines.keys().any(|machine| is_up(machine)) => stop(place),
        _ => Ok(false),
    }
}

/// Runs as the watcher until SIGTERM or SIGINT. Returns the exit code.
pub async fn run_in_background(data: &DataDir, watched: Watched, reporter: WatchReporter) -> u8 {
    let place = WatcherFiles::of(data, &watched.owner);
    let holder = format!(
        "the watcher of {} (pid {})",
        watched.owner.project,
        std::process::id()
    );
    // In a session of its own it outlives the terminal, and no Ctrl-C reaches it.
    let _ = nix::unistd::setsid();
    let _held = match Lock::try_acquire(&place.locks(), place.lock(), &holder) {
        Ok(Attempt::Held(lock)) => lock,
        Ok(Attempt::Busy { .. }) => {
            answer(BUSY);
            return 0;
        }
        Err(error) => {
            answer(&format!("cannot lock {}: {error}", place.lock()));
            return 1;
        }
    };
    let Some(process) = Process::own() else {
        answer("cannot read from /proc when this process started");
        return 1;
    };
    let state = State {
        process,
        since: Timestamp::now(),
        digest: watched.digest(),
        folders: 0,
        machines: watched
            .machines
            .iter()
            .map(|machine| (machine.machine.clone(), Default::default()))
            .collect(),
        ended: None,
    };
    let listener = Rc::new(Background {
        reporter,
        state: RefCell::new(state),
        place: place.clone(),
    });
    let ended = tokio::select! {
        ended = watch(data, &watched, Rc::clone(&listener) as Rc<dyn Listener>) => ended,
        () = terminated() => {
            place.remove();
            return 0;
        }
    };
    let Err(error) = ended else { return 0 };
    let mut said = error.to_string();
    if let Some(help) = error.help() {
        said.push_str(&format!("; {help}"));
    }
    answer(&said);
    listener.change(|state| state.ended = Some(said));
    1
}

/// Prints a line for the process that started this one.
fn answer(line: &str) {
    // That process may have ended already.
    let _ = stdio::data(&format!("{}\n", words(line)));
}

/// Waits for SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

struct Background {
    reporter: WatchReporter,
    state: RefCell<State>,
    place: WatcherFiles,
}

impl Background {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.borrow_mut();
        change(&mut state);
        // The state is only for `status` and `up`, so an error does not end the watcher.
        if let Err(error) = self.place.write(&state) {
            stdio::talk(&format!("cannot write the watcher's state: {error}\n"));
        }
        let log = self.place.log();
        if fs::metadata(&log).is_ok_and(|it| it.len() > LOG_LIMIT) {
            let _ = File::options()
                .write(true)
                .open(&log)
                .and_then(|it| it.set_len(0));
        }
    }
}

impl Listener for Background {
    fn watching(&self, folders: usize) {
        self.reporter.watching(folders);
        self.change(|state| state.folders = folders);
        answer(READY);
    }

    fn away(&self, machine: &str, reason: &str) {
        self.reporter.away(machine, reason);
        self.change(|state| {
            state.machines.entry(machine.into()).or_default().away = Some(reason.into());
        });
    }

    fn sent(&self, machine: &str, to: &str, changes: Changes, whole: bool, seconds: f64) {
        self.reporter.sent(machine, to, changes, whole, seconds);
        self.change(|state| {
            let machine = state.machines.entry(machine.into()).or_default();
            machine.away = None;
            machine.trouble.remove(to);
            machine.last = Some(Last::now(to, changes));
        });
    }

    fn notice(&self, machine: &str, message: String) {
        self.reporter.notice(machine, message);
    }

    fn well(&self, machine: &str, to: &str) {
        self.change(|state| {
            if let Some(machine) = state.machines.get_mut(machine) {
                machine.trouble.remove(to);
            }
        });
    }

    fn trouble(&self, machine: &str, to: &str, error: &SyncError) {
        self.reporter.trouble(machine, to, error);
        self.change(|state| {
            let machine = state.machines.entry(machine.into()).or_default();
            machine.trouble.insert(to.into(), error.to_string());
        });
    }
}
