//! The two sockets of a card on the host: QEMU sends frames to one, and gets them from the other.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
};

use tokio::net::UnixDatagram;

use super::Mac;

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

/// Binds the socket to which QEMU sends. A socket of that name that a killed process has left is replaced.
pub(super) fn bind(path: &Path) -> io::Result<UnixDatagram> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixDatagram::bind(path),
    }
}

/// The way to a card.
pub(super) struct Outlet {
    path: PathBuf,
    /// Connected to QEMU's socket, so that the kernel says when there is room in it (unix(7)). It has no name, and so
    /// nobody can send to it.
    socket: Option<Rc<UnixDatagram>>,
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
    pub(super) fn new(path: PathBuf) -> Self {
        Outlet {
            path,
            socket: None,
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
        self.socket = None;
        self.connect().is_ok()
    }

    fn connect(&mut self) -> io::Result<()> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.connect(&self.path)?;
            self.socket = Some(Rc::new(socket));
        }
        Ok(())
    }

    fn try_send(&mut self, frame: &[u8]) -> Sent {
        // A second time with a new connection: the QEMU of before may have ended, and another begun.
        for _ in 0..2 {
            if self.connect().is_err() {
                return Sent::Never;
            }
            match self.socket.as_ref().map(|socket| socket.try_send(frame)) {
                Some(Ok(_)) => return Sent::Yes,
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Sent::Later;
                }
                // The kernel is out of memory for it, and that passes.
                Some(Err(error)) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    return Sent::Never;
                }
                _ => self.socket = None,
            }
        }
        Sent::Never
    }

    /// The socket, to wait until there is room in it.
    pub(super) fn socket(&self) -> Option<Rc<UnixDatagram>> {
        self.socket.clone()
    }
}

enum Sent {
    Yes,
    Later,
    Never,
}
