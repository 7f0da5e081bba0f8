//! The cable of a card: by Unix sockets, QEMU sends frames to one and gets them from another; by an interface of the
//! host, one socket does both.

use std::{
    collections::VecDeque,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::sys::socket::{MsgFlags, recv, send};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixDatagram,
};

use super::{Cable, Mac, packet, taps};

/// How many frames wait for a guest that is slow, before the next are lost. As much as a virtio card's own queue.
const WAITING: usize = 512;

pub(super) const EXTENSION_OF_QEMU: &str = "card";

/// Names of the sockets in their folder: that of QEMU, and that of the switch.
pub fn socket_of_qemu(folder: &Path, mac: Mac) -> PathBuf {
    folder.join(format!("{}.{EXTENSION_OF_QEMU}", mac.word()))
}

pub fn socket_of_switch(folder: &Path, mac: Mac) -> PathBuf {
    folder.join(format!("{}.wire", mac.word()))
}

/// A socket of a card, by which whole frames come or go.
pub(super) enum Port {
    Datagrams(UnixDatagram),
    Packets(AsyncFd<OwnedFd>),
}

impl Port {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Port::Datagrams(socket) => socket.readable().await,
            // Its readiness stays until `try_recv` finds nothing.
            Port::Packets(socket) => socket
                .readable()
                .await
                .map(|mut guard| guard.retain_ready()),
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Port::Datagrams(socket) => socket.writable().await,
            Port::Packets(socket) => socket
                .writable()
                .await
                .map(|mut guard| guard.retain_ready()),
        }
    }

    pub(super) fn try_recv(&self, frame: &mut [u8]) -> io::Result<usize> {
        match self {
            Port::Datagrams(socket) => socket.try_recv(frame),
            Port::Packets(socket) => socket.try_io(Interest::READABLE, |socket| {
                Ok(recv(socket.as_raw_fd(), frame, MsgFlags::empty())?)
            }),
        }
    }

    fn try_send(&self, frame: &[u8]) -> io::Result<usize> {
        match self {
            Port::Datagrams(socket) => socket.try_send(frame),
            Port::Packets(socket) => socket.try_io(Interest::WRITABLE, |socket| {
                Ok(send(socket.as_raw_fd(), frame, MsgFlags::empty())?)
            }),
        }
    }
}

/// Opens the ends of a card's cable: the port from which its frames come, and the way to it. A socket that a killed
/// process has left is replaced.
pub(super) fn open(cable: Cable, folder: &Path, mac: Mac) -> io::Result<(Rc<Port>, Outlet)> {
    match cable {
        Cable::Sockets => {
            let path = socket_of_switch(folder, mac);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let port = Rc::new(Port::Datagrams(UnixDatagram::bind(path)?));
            Ok((
                port,
                Outlet::new(End::Socket(socket_of_qemu(folder, mac)), None),
            ))
        }
        Cable::Taps => {
            let port = Rc::new(Port::Packets(packet::open(&taps::tap_of(mac))?));
            Ok((Rc::clone(&port), Outlet::new(End::Tap(mac), Some(port))))
        }
    }
}

/// The other end of a card's cable.
enum End {
    Socket(PathBuf),
    Tap(Mac),
}

/// The way to a card.
pub(super) struct Outlet {
    end: End,
    /// A Unix socket is connected to QEMU's, so that the kernel says when there is room in it (unix(7)). It has no name,
    /// and so nobody can send to it.
    port: Option<Rc<Port>>,
    waiting: VecDeque<Box<[u8]>>,
    pub(super) sent: u64,
    pub(super) lost: u64,
}

/// What [`Outlet::send`] and [`Outlet::flush`] leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// Frames wait until QEMU has taken others.
    Waiting,
}

impl Outlet {
    fn new(end: End, port: Option<Rc<Port>>) -> Self {
        Outlet {
            end,
            port,
            waiting: VecDeque::new(),
            sent: 0,
            lost: 0,
        }
    }

    pub(super) fn send(&mut self, frame: &[u8]) -> Left {
        if !self.waiting.is_empty() {
            if self.waiting.len() < WAITING {
                self.waiting.push_back(frame.into());
            } else {
                self.lost += 1;
            }
            return Left::Waiting;
        }
        match self.try_send(frame) {
            Sent::Yes => {
                self.sent += 1;
                Left::Nothing
            }
            Sent::Later => {
                self.waiting.push_back(frame.into());
                Left::Waiting
            }
            Sent::Never => {
                self.lost += 1;
                Left::Nothing
            }
        }
    }

    /// Sends what waits, as far as QEMU takes it.
    pub(super) fn flush(&mut self) -> Left {
        while let Some(frame) = self.waiting.pop_front() {
            match self.try_send(&frame) {
                Sent::Yes => self.sent += 1,
                Sent::Never => self.lost += 1,
                Sent::Later => {
                    self.waiting.push_front(frame);
                    return Left::Waiting;
                }
            }
        }
        Left::Nothing
    }

    /// Whether a QEMU has this card.
    pub(super) fn is_there(&mut self) -> bool {
        match self.end {
            End::Tap(mac) => taps::is_taken(mac),
            End::Socket(_) => {
                self.port = None;
                self.connect().is_ok()
            }
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        if self.port.is_none()
            && let End::Socket(path) = &self.end
        {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            self.port = Some(Rc::new(Port::Datagrams(socket)));
        }
        Ok(())
    }

    fn try_send(&mut self, frame: &[u8]) -> Sent {
        // A second time with a new connection: the QEMU of before may have ended, and another begun.
        for _ in 0..2 {
            if self.connect().is_err() {
                return Sent::Never;
            }
            match self.port.as_ref().map(|port| port.try_send(frame)) {
                Some(Ok(_)) => return Sent::Yes,
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Sent::Later;
                }
                // The kernel is out of memory for it, and that passes.
                Some(Err(error)) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    return Sent::Never;
                }
                // An interface that is down, or whose QEMU is gone, stays the same interface.
                _ if matches!(self.end, End::Tap(_)) => return Sent::Never,
                _ => self.port = None,
            }
        }
        Sent::Never
    }

    /// The port, to wait until there is room in it.
    pub(super) fn port(&self) -> Option<Rc<Port>> {
        self.port.clone()
    }
}

enum Sent {
    Yes,
    Later,
    Never,
}
