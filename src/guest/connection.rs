//! Chooses the connection to a guest by which a script runs.
//!
//! An SSH server takes ten commands at a time by one connection (`MaxSessions`) and drops logins when ten are under way
//! (`MaxStartups`, sshd_config(5)). So commands that are too many for one connection get another one, which stays for
//! those to come, and processes log in one after the other.

use std::{
    fs::File,
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::Child,
    time::{Instant, sleep},
};

use super::{
    command::Remote,
    error::GuestError,
    files::MachineFiles,
    login::{Begun, LOGIN, Opening, begin},
    output::{Output, SSH_FAILED},
    ssh::start,
};

/// How many connections a machine has at most. With ten commands each, more processes would run on the host.
const MOST: usize = 40;

/// How long a process waits for others to log in, before it does so beside them: one that is stopped keeps its turn.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A script that was to be started.
#[derive(Debug)]
pub(super) enum Opened {
    /// With what the login has printed.
    Runs(Child, String),
    /// Nothing of the script has run.
    Not(Output),
}

impl Opened {
    pub(super) fn into_result(self) -> Result<Child, Output> {
        match self {
            Opened::Runs(child, _) => Ok(child),
            Opened::Not(output) => Err(output),
        }
    }
}

/// Starts a script in the guest, as the login user, with pipes for its three streams.
pub(super) async fn open(
    remote: &Remote,
    options: &[&str],
    script: &str,
) -> Result<Opened, GuestError> {
    let mut nth = 0;
    loop {
        let socket = remote.files.nth_control_socket(nth);
        if is_open(&socket) {
            let not = match by(remote, options, &socket, &ONLY_SHARED, script).await? {
                Opened::Not(not) if not.status.code() == Some(SSH_FAILED) => not,
                opened => return Ok(opened),
            };
            if nth == MOST {
                return Ok(Opened::Not(not));
            }
            // If the connection is gone, its place is free.
            nth += usize::from(is_open(&socket));
            continue;
        }
        let _turn = turn_to_log_in(&remote.files, Some(PATIENCE)).await;
        if !is_open(&socket) {
            return by(remote, options, &socket, &[], script).await;
        }
    }
}

/// By these options, ssh makes no connection of its own where the shared one takes no more commands.
const ONLY_SHARED: [&str; 6] = [
    "-o",
    "ControlMaster=no",
    "-o",
    "ProxyUseFdpass=no",
    "-o",
    "ProxyCommand=false",
];

async fn by(
    remote: &Remote,
    options: &[&str],
    socket: &Path,
    sharing: &[&str],
    script: &str,
) -> Result<Opened, GuestError> {
    let mut ssh = remote.ssh();
    ssh.arg("-S").arg(socket);
    ssh.args(["-T", "-o", "BatchMode=yes"])
        .args(sharing)
        .args(options);
    ssh.args(["--", &remote.machine, LOGIN]);
    let mut child = start(ssh, Stdio::piped())?;
    let opening = Opening::new(script)?;
    // The socket is there once the guest has let ssh in.
    let is_connected = || is_open(socket);
    let begun = begin(&remote.machine, &mut child, &opening, is_connected).await?;
    Ok(match begun {
        Begun::Runs { printed } => Opened::Runs(child, printed),
        Begun::Not(output) => Opened::Not(output),
    })
}

/// Whether a ControlMaster listens there.
pub(super) fn is_open(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// The right to be the only process that connects to a machine without being logged in. It ends when this is dropped.
#[derive(Debug)]
pub struct LoginTurn {
    /// Locked. `None` if there are no locks, or the others took too long: then this process connects beside them.
    _file: Option<File>,
}

/// Waits for the turn to connect to a machine. `None`: there is a connection now, so nobody has to. `patience` is the longest
/// wait for other processes.
pub async fn turn_unless_connected(
    files: &MachineFiles,
    patience: Option<Duration>,
) -> Option<LoginTurn> {
    let socket = files.control_socket();
    tokio::select! {
        biased;
        () = until_open(socket) => None,
        turn = turn_to_log_in(files, patience) => Some(turn),
    }
}

async fn until_open(socket: &Path) {
    while !is_open(socket) {
        sleep(PAUSE).await;
    }
}

/// Waits until no other process connects to the machine.
async fn turn_to_log_in(files: &MachineFiles, patience: Option<Duration>) -> LoginTurn {
    let beside = LoginTurn { _file: None };
    let opened = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(files.login_turn());
    let Ok(file) = opened else { return beside };
    let begun = Instant::now();
    while patience.is_none_or(|patience| begun.elapsed() < patience) {
        match file.try_lock() {
            Ok(()) => return LoginTurn { _file: Some(file) },
            Err(std::fs::TryLockError::WouldBlock) => sleep(PAUSE).await,
            Err(std::fs::TryLockError::Error(_)) => break,
        }
    }
    beside
}
