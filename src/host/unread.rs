//! Standard input that is passed on, of which what nobody has read stays there for the next reader.
//!
//! A shell's `while read` and a command within it have one input. A command that does not read takes nothing of it; one
//! that passes all of it on, because another one might read, does. So this passes on what it sees, and takes it off only
//! when it is known how much was read. Where that is impossible (a terminal, a socket, more of a pipe than it can show),
//! it takes what it passes on.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, FileTypeExt, MetadataExt},
    },
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, tee},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{getpgrp, pipe2, tcgetpgrp},
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, Interest, unix::AsyncFd},
    sync::mpsc,
    time::timeout,
};

/// What a pipe is asked to hold, in bytes: what every user may have (pipe(7), pipe-max-size).
const ROOM: i32 = 1 << 20;

/// How much of a file is read at a time, in bytes.
const PIECE: usize = 1 << 16;

/// How long a pipe is waited for, should its kernel not tell of more beside what is there already (Linux 5.5 to 5.13).
const LOOK: Duration = Duration::from_millis(100);

/// Standard input.
pub enum Input {
    /// There is none, or it has nothing.
    Nothing,
    /// A file, from this place on.
    File {
        from: File,
        start: u64,
        sent: u64,
    },
    Pipe(Pipe),
    /// What can only be taken, and what reads it once that has begun.
    Other(File, Option<mpsc::Receiver<io::Result<Vec<u8>>>>),
}

pub struct Pipe {
    from: File,
    /// What is in the pipe is seen in this one, whose ends are to write and to read.
    mirror: (OwnedFd, File),
    /// How many bytes may be seen before they are taken.
    most: usize,
    sent: u64,
    taken: u64,
}

impl Input {
    /// This process's standard input.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn standard() -> io::Result<Self> {
        match io::stdin().as_fd().try_clone_to_owned() {
            Ok(from) => Self::of(File::from(from)),
            // It was closed.
            Err(_) => Ok(Input::Nothing),
        }
    }

    fn of(mut from: File) -> io::Result<Self> {
        let metadata = from.metadata()?;
        let kind = metadata.file_type();
        if kind.is_file() {
            let start = from.stream_position()?;
            return Ok(match start < metadata.len() {
                true => Input::File {
                    from,
                    start,
                    sent: 0,
                },
                false => Input::Nothing,
            });
        }
        if kind.is_fifo() {
            return Pipe::new(from).map(Input::Pipe);
        }
        // A terminal is not ours in the background: to read from it would stop this process.
        let in_background = || tcgetpgrp(&from).is_ok_and(|group| group != getpgrp());
        Ok(
            match kind.is_char_device() && (is_null(metadata.rdev()) || in_background()) {
                true => Input::Nothing,
                false => Input::Other(from, None),
            },
        )
    }

    pub fn is_nothing(&self) -> bool {
        matches!(self, Input::Nothing)
    }

    /// Whether some of it was passed on that can be left to the next reader.
    pub fn can_be_left(&self) -> bool {
        match self {
            Input::Nothing | Input::Other(..) => false,
            Input::File { sent, .. } => *sent > 0,
            Input::Pipe(pipe) => pipe.sent > pipe.taken,
        }
    }

    /// Passes it on to its end. This may be broken off at any time.
    ///
    /// # Errors
    /// If it cannot be read, or the other side does not read on.
    pub async fn pass_on(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        match self {
            Input::Nothing => Ok(()),
            Input::File { from, start, sent } => {
                let mut piece = vec![0; PIECE];
                loop {
                    let read = from.read_at(&mut piece, *start + *sent)?;
                    let mut rest = &piece[..read];
                    if rest.is_empty() {
                        return Ok(());
                    }
                    while !rest.is_empty() {
                        let written = to.write(rest).await?;
                        *sent += written as u64;
                        rest = &rest[written..];
                    }
                }
            }
            Input::Pipe(pipe) => pipe.pass_on(to).await,
            Input::Other(from, reader) => {
                let pieces = match reader {
                    Some(pieces) => pieces,
                    None => reader.insert(pieces(from.try_clone()?)),
                };
                while let Some(piece) = pieces.recv().await {
                    to.write_all(&piece?).await?;
                }
                Ok(())
            }
        }
    }

    /// Leaves the last `left` bytes of what was passed on to the next reader.
    ///
    /// # Errors
    /// If it can be neither read nor positioned.
    pub fn leave(self, left: u64) -> io::Result<()> {
        match self {
            Input::Nothing | Input::Other(..) => Ok(()),
            Input::File {
                mut from,
                start,
                sent,
            } => {
                let read = sent.saturating_sub(left);
                from.seek(SeekFrom::Start(start + read)).map(drop)
            }
            Input::Pipe(mut pipe) => {
                let more = pipe.sent.saturating_sub(left).saturating_sub(pipe.taken);
                pipe.take(more)
            }
        }
    }
}

impl Pipe {
    fn new(from: File) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // More is better, and whoever has too many pipes gets no more.
        for pipe in [from.as_fd(), write.as_fd()] {
            let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(ROOM));
        }
        let room = |pipe| fcntl(pipe, FcntlArg::F_GETPIPE_SZ);
        let most = room(from.as_fd())?.min(room(write.as_fd())?) / 2;
        Ok(Pipe {
            from,
            mirror: (write, File::from(read)),
            most: usize::try_from(most).unwrap_or(0),
            sent: 0,
            taken: 0,
        })
    }

    async fn pass_on(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "the file is open for as long as this is: it is its own"
        )]
        let news = AsyncFd::with_interest(self.from.try_clone()?, Interest::READABLE)?;
        loop {
            // Before the look, so that what comes after it is news.
            let is_closed = self.is_closed()?;
            let (seen, at_end) = self.look()?;
            let ahead = usize::try_from(self.sent - self.taken).unwrap_or(usize::MAX);
            let mut new = seen.get(ahead..).unwrap_or_default();
            if new.is_empty() && (at_end || is_closed) {
                return Ok(());
            }
            if new.is_empty()
                && let Ok(ready) = timeout(LOOK, news.readable()).await
            {
                ready?.clear_ready();
            }
            while !new.is_empty() {
                let written = to.write(new).await?;
                self.sent += written as u64;
                new = &new[written..];
            }
            let ahead = self.sent - self.taken;
            if ahead > self.most as u64 {
                self.take(ahead)?;
                // It is long, and the command reads it.
                self.most = 0;
            }
        }
    }

    /// Returns all that is in the pipe, which stays there, and whether it is empty for good.
    fn look(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        let seen = match tee(&self.from, &self.mirror.0, ROOM as usize, flags) {
            Ok(0) => return Ok((Vec::new(), true)),
            Ok(seen) => seen,
            Err(nix::errno::Errno::EAGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut bytes = vec![0; seen];
        self.mirror.1.read_exact(&mut bytes)?;
        Ok((bytes, false))
    }

    /// Whether nobody writes to the pipe any more.
    fn is_closed(&self) -> io::Result<bool> {
        let mut asked = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO)?;
        Ok(asked[0]
            .revents()
            .is_some_and(|it| it.contains(PollFlags::POLLHUP)))
    }

    /// Takes bytes off the pipe that were seen.
    fn take(&mut self, mut count: u64) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        while count > 0 {
            let most = usize::try_from(count).map_or(PIECE, |count| count.min(PIECE));
            let taken = self.from.read(&mut piece[..most])?;
            if taken == 0 {
                break;
            }
            count -= taken as u64;
            self.taken += taken as u64;
        }
        Ok(())
    }
}

/// Reads in a thread, which ends with the process.
fn pieces(mut from: File) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (to, pieces) = mpsc::channel(1);
    thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let read = from.read(&mut piece).map(|read| {
                piece.truncate(read);
                piece
            });
            let is_last = !matches!(&read, Ok(piece) if !piece.is_empty());
            if to.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    pieces
}

/// Whether a device is /dev/null (null(4)).
fn is_null(device: u64) -> bool {
    (nix::sys::stat::major(device), nix::sys::stat::minor(device)) == (1, 3)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Passes on what there is, of which the command leaves so much. Returns what was passed on and what is left.
    async fn passed(from: File, left: u64) -> (Vec<u8>, Vec<u8>) {
        let mut rest = from.try_clone().unwrap();
        let mut input = Input::of(from).unwrap();
        let mut to = Vec::new();
        input.pass_on(&mut to).await.unwrap();
        input.leave(left).unwrap();
        let mut after = Vec::new();
        rest.read_to_end(&mut after).unwrap();
        (to, after)
    }

    #[tokio::test]
    async fn what_is_not_read_is_left() {
        for left in [0, 3, 11] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"before hello world").unwrap();
            file.seek(SeekFrom::Start(7)).unwrap();
            let (to, after) = passed(file, left).await;
            assert_eq!(to, b"hello world");
            assert_eq!(after, &to[to.len() - left as usize..]);
            let (read, mut write) = io::pipe().unwrap();
            write.write_all(b"hello world").unwrap();
            drop(write);
            let (to, after) = passed(OwnedFd::from(read).into(), left).await;
            assert_eq!(to, b"hello world");
            assert_eq!(after, &to[to.len() - left as usize..]);
        }
    }

    #[tokio::test]
    async fn what_comes_later_and_what_is_long_is_passed_on() {
        let (read, mut write) = io::pipe().unwrap();
        let long: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        let given = long.clone();
        thread::spawn(move || {
            for piece in [&given[..10], &given[10..20], &given[20..]] {
                thread::sleep(Duration::from_millis(30));
                write.write_all(piece).unwrap();
            }
        });
        let (to, after) = passed(OwnedFd::from(read).into(), 0).await;
        assert!(to == long && after.is_empty());
    }

    #[tokio::test]
    async fn nothing_is_known() {
        for nothing in [
            File::open("/dev/null").unwrap(),
            tempfile::tempfile().unwrap(),
        ] {
            assert!(Input::of(nothing).unwrap().is_nothing());
        }
    }
}
