//! Recording frames: stead-net sends copies of them to a command. A command that is slow misses some, and the network
//! never waits for it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    path::Path,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::Notify,
};

use super::{
    Mac,
    control::{LONGEST_LINE, Reply, Request},
};

/// How much waits for a command, in bytes.
const WAITING: usize = 4 << 20;

/// How much is sent at a time, in bytes.
const BATCH: usize = 64 << 10;

/// The longest frame that a command believes, in bytes.
const LONGEST: usize = 1 << 16;

/// What a frame begins with: its length, seconds and nanoseconds since 1970, and how many frames were missed so far. A
/// length of 0 is no frame.
const HEADER: usize = 4 + 8 + 4 + 8;

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The frames of some cards, for one command.
#[derive(Clone)]
pub(super) struct Recorder {
    pub macs: Rc<[Mac]>,
    queue: Rc<RefCell<Queue>>,
    wake: Rc<Notify>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(SystemTime, Box<[u8]>)>,
    bytes: usize,
    missed: u64,
    is_closed: bool,
}

impl Recorder {
    pub(super) fn new(macs: Vec<Mac>) -> Self {
        Recorder {
            macs: macs.into(),
            queue: Rc::default(),
            wake: Rc::default(),
        }
    }

    pub(super) fn take(&self, frame: &[u8]) {
        // Nothing is recorded of it.
        if frame.is_empty() {
            return;
        }
        let mut queue = self.queue.borrow_mut();
        if queue.is_closed {
            return;
        }
        if queue.bytes + frame.len() > WAITING {
            queue.missed += 1;
            return;
        }
        queue.bytes += frame.len();
        queue.frames.push_back((SystemTime::now(), frame.into()));
        self.wake.notify_one();
    }

    /// Ends the recording after what waits.
    pub(super) fn close(&self) {
        self.queue.borrow_mut().is_closed = true;
        self.wake.notify_one();
    }

    pub(super) fn is(&self, other: &Recorder) -> bool {
        Rc::ptr_eq(&self.queue, &other.queue)
    }

    /// Sends frames until the command closes its side, or the recording is closed.
    pub(super) async fn send(
        &self,
        mut read: impl AsyncRead + Unpin,
        mut write: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut batch = BytesMut::new();
        loop {
            let is_closed = self.fill(&mut batch);
            if !batch.is_empty() {
                write.write_all(&batch).await?;
                batch.clear();
            } else if is_closed {
                break;
            } else {
                let mut nothing = [0; 16];
                tokio::select! {
                    () = self.wake.notified() => {}
                    got = read.read(&mut nothing) => match got {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => self.close(),
                    },
                }
            }
        }
        let missed = self.queue.borrow().missed;
        put_header(&mut batch, 0, SystemTime::now(), missed);
        write.write_all(&batch).await?;
        write.shutdown().await
    }

    /// Takes what waits, up to a batch. Returns whether the recording is closed.
    fn fill(&self, batch: &mut BytesMut) -> bool {
        let mut queue = self.queue.borrow_mut();
        while batch.len() < BATCH
            && let Some((at, frame)) = queue.frames.pop_front()
        {
            queue.bytes -= frame.len();
            put_header(batch, frame.len(), at, queue.missed);
            batch.put_slice(&frame);
        }
        queue.is_closed
    }
}

fn put_header(batch: &mut BytesMut, length: usize, at: SystemTime, missed: u64) {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    batch.put_u32(u32::try_from(length).unwrap_or_default());
    batch.put_u64(at.as_secs());
    batch.put_u32(at.subsec_nanos());
    batch.put_u64(missed);
}

/// A recording in progress, as the command has it.
pub struct Recording {
    stream: UnixStream,
    buffer: BytesMut,
    /// How many frames were missed because this reader was slow.
    pub missed: u64,
}

/// A recorded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub at: SystemTime,
    pub frame: Vec<u8>,
}

impl Recording {
    /// Connects to the process, and returns its answer too.
    pub(super) async fn begin(control: &Path, macs: Vec<Mac>) -> io::Result<(Self, Reply)> {
        let begin = async {
            let mut stream = UnixStream::connect(control).await?;
            stream.write_all(&Request::Record(macs).line()?).await?;
            let mut recording = Recording {
                stream,
                buffer: BytesMut::new(),
                missed: 0,
            };
            let reply = recording.line().await?;
            Ok((recording, Reply::read(&reply)?))
        };
        tokio::time::timeout(PATIENCE, begin).await?
    }

    async fn line(&mut self) -> io::Result<BytesMut> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return Ok(line);
            }
            let is_too_long = self.buffer.len() as u64 > LONGEST_LINE;
            if is_too_long || self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Returns the next frame; `None` at the end. It can be cancelled.
    pub async fn next(&mut self) -> io::Result<Option<Recorded>> {
        loop {
            if let Some(recorded) = self.parse()? {
                return Ok(Some(recorded));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn parse(&mut self) -> io::Result<Option<Recorded>> {
        loop {
            let Some(mut header) = self.buffer.get(..HEADER) else {
                return Ok(None);
            };
            let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
            if length > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.buffer.len() < HEADER + length {
                return Ok(None);
            }
            let mut whole = self.buffer.split_to(HEADER + length);
            whole.advance(4);
            let at = Duration::new(whole.get_u64(), whole.get_u32() % 1_000_000_000);
            self.missed = whole.get_u64();
            if length > 0 {
                return Ok(Some(Recorded {
                    at: UNIX_EPOCH.checked_add(at).unwrap_or(UNIX_EPOCH),
                    frame: whole.to_vec(),
                }));
            }
        }
    }

    /// Asks the process to end it; [`Self::next`] returns what is left.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    fn reader(stream: UnixStream) -> Recording {
        Recording {
            stream,
            buffer: BytesMut::new(),
            missed: 0,
        }
    }

    /// A command that reads nothing misses frames, and is told how many.
    #[tokio::test(flavor = "current_thread")]
    async fn a_slow_command_is_not_waited_for() {
        let recorder = Recorder::new(vec![MAC]);
        for _ in 0..WAITING / 1000 + 100 {
            recorder.take(&[7; 1000]);
        }
        recorder.take(&[]);
        let (here, there) = UnixStream::pair().unwrap();
        let mut recording = reader(here);
        let (read, write) = there.into_split();
        recording.finish().await.unwrap();
        let read_all = async {
            let mut frames = 0;
            while let Some(recorded) = recording.next().await.unwrap() {
                assert_eq!(recorded.frame, [7; 1000]);
                frames += 1;
            }
            frames
        };
        let (sent, frames) = tokio::join!(recorder.send(read, write), read_all);
        sent.unwrap();
        assert_eq!(frames, WAITING / 1000);
        assert_eq!(recording.missed, 100);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn damage_is_an_error() {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(&[0xff; 64]).await.unwrap();
        let error = reader(here).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
