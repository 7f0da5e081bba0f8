//! The cable of a card. On qemu:///session, QEMU listens on a Unix socket, and frames go both ways by one connection
//! to it; by an interface of the host, each is one message of a packet socket.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as Socket,
    },
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, recv, send, socket};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
    sync::Notify,
    time::sleep,
};

use super::{
    Cable, Mac,
    framing::{self, Unsent},
    packet, taps,
};

/// How many bytes wait for a guest that is slow, before the next frames are lost: 512 of the longest frames, which is
/// as much as a virtio card's own queue.
const WAITING: usize = 512 * 1536;

/// After how many milliseconds it is tried again, if QEMU has made its socket and does not listen on it yet. Nothing
/// tells when it does.
const BEGINS: [u64; 8] = [2, 4, 8, 16, 32, 64, 128, 256];

/// The same, if its QEMU is stopped, or has not seen that a connection has ended.
const STOPPED: u64 = 250;

const EXTENSION_OF_QEMU: &str = "card";

/// The socket on which the QEMU of a card listens, in its folder.
pub fn socket_of_qemu(folder: &Path, mac: Mac) -> PathBuf {
    folder.join(format!("{}.{EXTENSION_OF_QEMU}", mac.word()))
}

/// Whether a QEMU has the socket of this name. One that has ended leaves the name.
pub(super) fn is_qemus(path: &Path) -> bool {
    let is_there = || match connected(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    path.extension().is_some_and(|it| it == EXTENSION_OF_QEMU) && is_there()
}

/// Removes the socket of a card that is no more, unless a QEMU still has it.
pub(super) fn forget(folder: &Path, mac: Mac) {
    let card = socket_of_qemu(folder, mac);
    if !is_qemus(&card) {
        let _ = fs::remove_file(card);
    }
}

/// A socket of a card, by which frames come and go.
pub(super) enum Port {
    Stream(UnixStream),
    Packets(AsyncFd<OwnedFd>),
}

impl Port {
    /// Connects to QEMU, if it listens.
    pub(super) fn connect(path: &Path) -> io::Result<Rc<Self>> {
        let socket = connected(path)?;
        Ok(Rc::new(Port::Stream(UnixStream::from_std(socket)?)))
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Port::Stream(socket) => socket.readable().await,
            // Its readiness stays until `try_recv` finds nothing.
            Port::Packets(socket) => socket
                .readable()
                .await
                .map(|mut guard| guard.retain_ready()),
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Port::Stream(socket) => socket.writable().await,
            Port::Packets(socket) => socket
                .writable()
                .await
                .map(|mut guard| guard.retain_ready()),
        }
    }

    /// Reads a part of a stream, or one frame.
    pub(super) fn try_recv(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Port::Stream(socket) => socket.try_read(bytes),
            Port::Packets(socket) => socket.try_io(Interest::READABLE, |socket| {
                Ok(recv(socket.as_raw_fd(), bytes, MsgFlags::empty())?)
            }),
        }
    }

    /// Sends some of these frames, each of which is behind its length. Returns how many bytes are done with.
    fn try_send(&self, frames: &[u8]) -> io::Result<usize> {
        match self {
            Port::Stream(socket) => socket.try_write(frames),
            Port::Packets(socket) => {
                let Some((frame, rest)) = framing::first(frames) else {
                    return Ok(frames.len());
                };
                let sent = socket.try_io(Interest::WRITABLE, |socket| {
                    Ok(send(socket.as_raw_fd(), frame, MsgFlags::empty())?)
                });
                match sent {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                    // The kernel is out of memory for it; or the interface is down, or its QEMU is gone, and it stays
                    // the same interface. The frame is lost.
                    Ok(_) | Err(_) => Ok(frames.len() - rest.len()),
                }
            }
        }
    }
}

/// Connects to a socket at once or not at all: a QEMU that is stopped takes no connection, and others must not wait for
/// it. `WouldBlock`: it listens, and enough connections wait for it.
fn connected(path: &Path) -> io::Result<Socket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

/// The cable of a card.
pub(super) enum Laid {
    /// The socket of its QEMU, and a connection if that is there already.
    Socket(PathBuf, Option<Rc<Port>>),
    Tap(Rc<Port>),
}

pub(super) fn lay(cable: Cable, folder: &Path, mac: Mac) -> io::Result<Laid> {
    match cable {
        Cable::Sockets => {
            let path = socket_of_qemu(folder, mac);
            let port = Port::connect(&path).ok();
            Ok(Laid::Socket(path, port))
        }
        Cable::Taps => {
            let socket = packet::open(&taps::tap_of(mac))?;
            Ok(Laid::Tap(Rc::new(Port::Packets(socket))))
        }
    }
}

/// Waits until QEMU listens on this socket, and connects. `appeared` tells that a file of that folder is another one.
pub(super) async fn connect(path: &Path, appeared: &Notify) -> Rc<Port> {
    loop {
        let mut next = pin!(appeared.notified());
        next.as_mut().enable();
        let mut pauses = BEGINS.into_iter();
        loop {
            let pause = match Port::connect(path) {
                Ok(port) => return port,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => Some(STOPPED),
                    // It is bound and not listened on. It may also be what a QEMU that was killed has left.
                    io::ErrorKind::ConnectionRefused => pauses.next(),
                    _ => None,
                },
            };
            let Some(pause) = pause else { break };
            sleep(Duration::from_millis(pause)).await;
        }
        next.await;
    }
}

/// The way to a card.
pub(super) struct Outlet {
    port: Option<Rc<Port>>,
    unsent: Unsent,
    pub(super) sent: u64,
    pub(super) lost: u64,
}

impl Outlet {
    pub(super) fn new(port: Option<Rc<Port>>) -> Self {
        Outlet {
            port,
            unsent: Unsent::default(),
            sent: 0,
            lost: 0,
        }
    }

    /// Puts a frame behind those that wait: [`Outlet::flush`] sends it. Returns whether it is not lost.
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        let has_room = self.unsent.len() + frame.len() <= WAITING;
        let is_taken = self.port.is_some() && has_room;
        if is_taken {
            self.unsent.push(frame);
            self.sent += 1;
        } else {
            self.lost += 1;
        }
        is_taken
    }

    /// Sends what waits, as far as QEMU takes it. Returns the port if frames are left, which wait for room in it.
    pub(super) fn flush(&mut self) -> Option<Rc<Port>> {
        let port = self.port.clone()?;
        match self.unsent.flush(|frames| port.try_send(frames)) {
            Ok(true) => None,
            Ok(false) => Some(port),
            // QEMU has ended.
            Err(_) => {
                self.plug(None);
                None
            }
        }
    }

    /// Has another port from now on, or none. A new connection begins with a whole frame.
    pub(super) fn plug(&mut self, port: Option<Rc<Port>>) {
        self.port = port;
        self.unsent.clear();
    }

    /// Whether a QEMU has this card, which has this MAC.
    pub(super) fn is_there(&self, mac: Mac) -> bool {
        match self.port.as_deref() {
            None => false,
            Some(Port::Stream(_)) => true,
            Some(Port::Packets(_)) => taps::is_taken(mac),
        }
    }
}
