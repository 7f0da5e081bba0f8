//! The way out of a network: a child process in which libslirp makes connections for guests.
//!
//! libslirp is C code that reads what guests send, so it is in no other process. The child is this program once more,
//! at the other end of a pair of sockets, by which messages go: first it gets what to do, then each is one IPv4 packet. It
//! knows no MACs and no cards, so that it runs on when machines come and go.

mod child;
mod slirp;

use std::{
    cell::RefCell,
    env, io,
    net::Ipv4Addr,
    os::{fd::OwnedFd, unix::net::UnixStream as Socket},
    path::Path,
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{net::UnixStream, process::Child, sync::Notify, time::timeout};

use crate::{
    host::process::{self, Limits, ProgramError, Start},
    report::clean::words,
};

use super::{
    Subnet,
    framing::{Cutter, PART, Unsent},
};

#[cfg(any(fuzzing, test))]
pub(super) use child::read;
pub(super) use child::run as run_child;

/// The argument with which stead-net is the way out of a network, and the one with which it only looks whether it could
/// be.
pub(super) const ARGUMENT: &str = "way-out";
pub(super) const CHECK: &str = "--check";

/// This program once more, even if its file was replaced meanwhile.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// What to do if libslirp is missing.
pub const HINT: &str = "install libslirp: `apt install libslirp0` (Debian, Ubuntu), `dnf install libslirp` (Fedora), `zypper install libslirp0` (openSUSE)";

/// What the child says when it begins. Anything else is the reason why it cannot.
const READY: &str = "ready";

/// What begins a message that is no packet: the address of a guest follows. Packets begin with 0x4, their version.
const RESTART: u8 = b'R';

/// How long the child may take to begin.
const STARTS: Duration = Duration::from_secs(10);

/// How many bytes of packets may wait for the child, before the next are dropped.
const WAITING: usize = 256 << 10;

/// Says where libraries are.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// What the child is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub subnet: Subnet,
    /// Whether the network's own address leads to 127.0.0.1 of this computer, by TCP.
    pub host_loopback: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum OutwardError {
    #[error("cannot {doing}: {source}")]
    Io {
        doing: &'static str,
        source: io::Error,
    },
    #[error("the way out of a network cannot start: {0}")]
    Refused(String),
    #[error("the way out of a network did not start within {} s", STARTS.as_secs())]
    Late,
}

/// The way out of a network. Its child ends with it.
#[derive(Debug)]
pub struct Outward {
    socket: UnixStream,
    child: Child,
    unsent: RefCell<Unsent>,
    /// Something waits to be sent.
    more: Notify,
    received: RefCell<Received>,
}

#[derive(Debug)]
struct Received {
    part: Vec<u8>,
    cutter: Cutter,
}

impl Outward {
    /// Starts the child, which is `program`: [`OWN_PROGRAM`] in stead-net itself.
    ///
    /// # Errors
    /// If it cannot start, with the reason, or does not within 10 s.
    pub async fn start(program: &Path, task: &Task) -> Result<Self, OutwardError> {
        let failed = |doing| move |source| OutwardError::Io { doing, source };
        let (own, theirs) = pair().map_err(failed("make a pair of sockets"))?;
        let child = start(program, theirs).map_err(failed("start stead-net"))?;
        let outward = Outward {
            socket: own,
            child,
            unsent: RefCell::default(),
            more: Notify::new(),
            received: RefCell::new(Received {
                part: vec![0; PART],
                cutter: Cutter::default(),
            }),
        };
        let task = serde_json::to_vec(task).map_err(io::Error::other);
        outward.push(&task.map_err(failed("write what to do"))?);
        let answer = async {
            let mut answer = None;
            while answer.is_none() {
                let turn = outward.turn(|said| {
                    answer.get_or_insert_with(|| words(&String::from_utf8_lossy(said)));
                });
                match turn.await {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                    done => done?,
                }
            }
            Ok(answer.unwrap_or_default())
        };
        match timeout(STARTS, answer).await {
            Err(_) => Err(OutwardError::Late),
            Ok(Err(source)) => Err(failed("speak with stead-net")(source)),
            Ok(Ok(said)) => match said.as_str() {
                READY => Ok(outward),
                "" => Err(OutwardError::Refused("it ended immediately".into())),
                _ => Err(OutwardError::Refused(said)),
            },
        }
    }

    /// Gives it an IPv4 packet of a guest, which was checked to be from that guest: [`Outward::turn`] sends it. Returns
    /// whether it is not dropped, as it is if too many others wait.
    pub fn send(&self, packet: &[u8]) -> bool {
        self.push(packet)
    }

    fn push(&self, message: &[u8]) -> bool {
        let mut unsent = self.unsent.borrow_mut();
        let has_room = unsent.len() + message.len() <= WAITING;
        if has_room {
            unsent.push(message);
            self.more.notify_one();
        }
        has_room
    }

    /// Tells it that a guest has begun anew, so that it ends the connections that the guest has forgotten.
    pub fn restart(&self, guest: Ipv4Addr) {
        let [a, b, c, d] = guest.octets();
        // If others wait, these end later, by themselves.
        self.push(&[RESTART, a, b, c, d]);
    }

    /// Waits until there is something to do, and does it: sends what waits, or gives the IPv4 packets for guests that
    /// have come.
    ///
    /// A packet is for a machine's address of the subnet, and not from another one. Who sent it is not known: UDP
    /// comes from whoever finds the port.
    ///
    /// # Errors
    /// If the child has ended, or sends what is no packet.
    pub async fn turn(&self, each: impl FnMut(&[u8])) -> io::Result<()> {
        let has_unsent = !self.unsent.borrow().is_empty();
        tokio::select! {
            ready = self.socket.readable() => {
                ready?;
                self.receive(each)
            }
            ready = self.socket.writable(), if has_unsent => {
                ready?;
                let mut unsent = self.unsent.borrow_mut();
                unsent.flush(|bytes| self.socket.try_write(bytes)).map(drop)
            }
            () = self.more.notified(), if !has_unsent => Ok(()),
        }
    }

    fn receive(&self, each: impl FnMut(&[u8])) -> io::Result<()> {
        let Received { part, cutter } = &mut *self.received.borrow_mut();
        cutter.read(part, |part| self.socket.try_read(part), each)
    }

    /// The child's pid; `None` if it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

/// The guest that has begun anew, if a message says so.
fn restarted(message: &[u8]) -> Option<Ipv4Addr> {
    match *message {
        [RESTART, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

/// Whether there can be a way out on this computer: whether `program`, which is stead-net, can load libslirp.
///
/// # Errors
/// Why not, in words. [`HINT`] says what to do.
pub fn is_available(program: &Path) -> Result<(), String> {
    let mut check = process::Command::new(program, "stead")
        .args([ARGUMENT, CHECK])
        .environment(process::Environment::Plain)
        .limits(Limits::ANSWER.within(STARTS));
    if let Some(path) = env::var_os(LIBRARY_PATH) {
        check = check.env(LIBRARY_PATH, path);
    }
    let output = check
        .run()
        .map_err(|error: ProgramError| error.to_string())?;
    let said = words(&String::from_utf8_lossy(&output.stdout));
    match said.as_str() {
        READY if output.status.success() => Ok(()),
        "" => Err(format!("stead-net cannot try it: {}", output.status)),
        _ => Err(said),
    }
}

/// Makes a pair of connected sockets.
fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (own, theirs) = Socket::pair()?;
    own.set_nonblocking(true)?;
    Ok((UnixStream::from_std(own)?, theirs.into()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "it runs for as long as the network, and what it says comes by its standard input"
)]
fn start(program: &Path, input: OwnedFd) -> io::Result<Child> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg0("stead-net")
        .arg(ARGUMENT)
        .env_clear()
        .envs(env::var_os(LIBRARY_PATH).map(|path| (LIBRARY_PATH, path)))
        .current_dir("/")
        .stdin(input)
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command.start()
}
