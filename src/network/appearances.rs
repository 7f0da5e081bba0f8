//! Tells that files appear in a folder, by inotify(7).

#![expect(unsafe_code, reason = "a file descriptor that AsyncFd registers")]

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Notify,
};

/// A watch on a folder.
pub(super) struct Appearances {
    inotify: Inotify,
    /// The same descriptor, to wait for.
    ready: AsyncFd<OwnedFd>,
}

impl Appearances {
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(
            folder,
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO,
        )?;
        let descriptor = inotify.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is owned, and nobody closes or replaces it while the runtime waits for it.
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Appearances { inotify, ready })
    }

    /// Tells whenever files have appeared. It ends only with an error.
    pub(super) async fn tell(&self, appeared: &Notify) -> io::Result<()> {
        loop {
            let mut guard = self.ready.readable().await?;
            match self.inotify.read_events() {
                Ok(_) => appeared.notify_waiters(),
                Err(Errno::EAGAIN) => guard.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
