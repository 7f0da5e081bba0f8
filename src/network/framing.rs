//! Frames in a stream, as QEMU's `stream` netdev has them: each behind its length, in 4 bytes, the first of which is the
//! most significant one.

use std::io;

use bytes::{Buf, BufMut, BytesMut};

const HEADER: usize = 4;

/// The most that QEMU sends as one frame, in bytes (`NET_BUFSIZE` in its include/net/net.h).
const MOST: usize = 4096 + 65536;

/// How much of a stream is read at once, in bytes.
pub(super) const PART: usize = 64 << 10;

/// A length is none, so that nobody knows where the next frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// How much memory is kept when nothing waits, in bytes.
const KEPT: usize = 256 << 10;

/// Frames that wait to be sent. The first may have gone in part.
#[derive(Debug, Default)]
pub(super) struct Unsent(BytesMut);

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts a frame behind those that wait.
    pub(super) fn push(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.0.reserve(HEADER + frame.len());
        self.0.put_u32(length);
        self.0.put_slice(frame);
    }

    /// Sends what waits. `send` is given a stream, and returns how many bytes of it went. Returns whether all went:
    /// otherwise there is no room for more now.
    pub(super) fn flush(
        &mut self,
        mut send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        while !self.0.is_empty() {
            match send(&self.0) {
                Ok(sent) => self.0.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if self.0.capacity() > KEPT {
            self.clear();
        }
        Ok(true)
    }

    pub(super) fn clear(&mut self) {
        self.0 = BytesMut::new();
    }
}

/// The first frame of a stream, and what is behind it; `None` if it is not whole.
pub(super) fn first(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = stream.split_first_chunk::<HEADER>()?;
    rest.split_at_checked(length(*header))
}

fn length(header: [u8; HEADER]) -> usize {
    usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX)
}

/// Cuts a stream into its frames.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// The beginning of a frame whose end has not come yet.
    begun: Vec<u8>,
}

impl Cutter {
    /// Reads the next part of a stream into `part`, and gives each frame that is whole: none if nothing has come.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the stream, `InvalidData` if it is no stream of frames, and what `read` returns.
    pub(super) fn read(
        &mut self,
        part: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        match read(part) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => (self.take(&part[..length], each))
                .map_err(|Broken| io::ErrorKind::InvalidData.into()),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes the next part of a stream, and gives each frame that is whole.
    ///
    /// # Errors
    /// If this is no stream of frames. Nothing more can be read from it then.
    pub(super) fn take(
        &mut self,
        mut part: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Broken> {
        while !self.begun.is_empty() {
            let wanted = wanted(&self.begun)?;
            if wanted == 0 {
                each(&self.begun[HEADER..]);
                self.begun.clear();
                break;
            }
            if part.is_empty() {
                return Ok(());
            }
            let (taken, rest) = part.split_at(wanted.min(part.len()));
            self.begun.extend_from_slice(taken);
            part = rest;
        }
        while let Some((frame, rest)) = first(part) {
            if frame.len() > MOST {
                return Err(Broken);
            }
            each(frame);
            part = rest;
        }
        self.begun.extend_from_slice(part);
        wanted(part).map(drop)
    }
}

/// How many bytes are wanted next for the frame that begins so: the rest of its header, or of the frame.
fn wanted(begun: &[u8]) -> Result<usize, Broken> {
    let Some((header, rest)) = begun.split_first_chunk::<HEADER>() else {
        return Ok(HEADER - begun.len());
    };
    let length = length(*header);
    match length > MOST {
        true => Err(Broken),
        false => Ok(length.saturating_sub(rest.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(lengths: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let frames: Vec<Vec<u8>> = (lengths.iter().enumerate())
            .map(|(n, length)| vec![u8::try_from(n).unwrap(); *length])
            .collect();
        let mut unsent = Unsent::default();
        for frame in &frames {
            unsent.push(frame);
        }
        (unsent.0.to_vec(), frames)
    }

    #[test]
    fn what_does_not_go_waits() {
        let mut unsent = Unsent::default();
        unsent.push(b"one");
        unsent.push(b"three");
        let mut room = 9;
        let mut sent = Vec::new();
        let mut send = |bytes: &[u8]| {
            let part = &bytes[..bytes.len().min(room).min(4)];
            room -= part.len();
            sent.extend_from_slice(part);
            match part.is_empty() {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(part.len()),
            }
        };
        assert!(!unsent.flush(&mut send).unwrap());
        assert_eq!(unsent.len(), 7);
        assert!(unsent.flush(|bytes| Ok(bytes.len())).unwrap());
        assert!(unsent.is_empty());
        assert_eq!(sent, b"\0\0\0\x03one\0\0");
        unsent.push(b"x");
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(unsent.flush(|_| Err(gone())).is_err());
    }

    #[test]
    fn frames_come_out_however_the_stream_is_parted() {
        let (bytes, frames) = stream(&[60, 0, 1514, 1, MOST, 42]);
        for size in [1, 2, 3, 4, 5, 63, 64, 65, 1500, 4096, bytes.len()] {
            let mut cutter = Cutter::default();
            let mut got = Vec::new();
            for part in bytes.chunks(size) {
                cutter.take(part, |frame| got.push(frame.to_vec())).unwrap();
            }
            assert_eq!(got, frames, "by {size} bytes");
            assert_eq!(cutter.begun, b"", "by {size} bytes");
        }
    }

    #[test]
    fn a_length_that_qemu_never_sends_ends_the_stream() {
        let length = u32::try_from(MOST + 1).unwrap().to_be_bytes();
        assert_eq!(Cutter::default().take(&length, drop_it), Err(Broken));
        let mut bytewise = Cutter::default();
        for byte in &length[..3] {
            bytewise.take(&[*byte], drop_it).unwrap();
        }
        assert_eq!(bytewise.take(&length[3..], drop_it), Err(Broken));
        let mut whole = length.to_vec();
        whole.resize(HEADER + MOST + 1, 0);
        assert_eq!(Cutter::default().take(&whole, drop_it), Err(Broken));
    }

    fn drop_it(_: &[u8]) {}

    #[test]
    fn what_is_read_is_cut_or_says_why_not() {
        let (bytes, frames) = stream(&[3]);
        let mut part = [0; 16];
        let mut cutter = Cutter::default();
        let mut got = Vec::new();
        let mut read = |said: io::Result<&[u8]>| {
            let read = |part: &mut [u8]| {
                said.map(|bytes| {
                    part[..bytes.len()].copy_from_slice(bytes);
                    bytes.len()
                })
            };
            let done = cutter.read(&mut part, read, |frame| got.push(frame.to_vec()));
            done.map_err(|error| error.kind())
        };
        assert_eq!(read(Ok(&bytes[..5])), Ok(()));
        for nothing in [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted] {
            assert_eq!(read(Err(nothing.into())), Ok(()));
        }
        assert_eq!(read(Ok(&bytes[5..])), Ok(()));
        for (said, error) in [
            (Ok(&b""[..]), io::ErrorKind::UnexpectedEof),
            (Ok(&[0xff; 4][..]), io::ErrorKind::InvalidData),
            (
                Err(io::ErrorKind::ConnectionReset.into()),
                io::ErrorKind::ConnectionReset,
            ),
        ] {
            assert_eq!(read(said), Err(error));
        }
        assert_eq!(got, frames);
    }

    #[test]
    fn the_first_frame_is_whole_or_none() {
        let (bytes, frames) = stream(&[3, 2]);
        for short in 0..7 {
            assert_eq!(first(&bytes[..short]), None);
        }
        let (frame, rest) = first(&bytes).unwrap();
        assert_eq!(frame, frames[0]);
        assert_eq!(first(rest).unwrap(), (&frames[1][..], &b""[..]));
    }
}
