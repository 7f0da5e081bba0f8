//! A file that is imported. It is opened once, because its name may lead to another file later, and hashed
//! again while it is read, so that what is imported is what was verified.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use sha2::{Digest as _, Sha256};

use crate::{
    host::{digest::hex, open},
    unpack::{Compression, decompress},
};

use super::{
    error::BoxError,
    image::{self, Kind},
};

pub(super) struct Opened {
    path: PathBuf,
    file: File,
    /// The expected sha256, and the hash of what has been read.
    wanted: Option<(String, Rc<RefCell<Sha256>>)>,
}

impl Opened {
    /// Opens a file. `sha256` is the verified digest of its content, if others may write to it.
    pub(super) fn open(path: &Path, sha256: Option<&str>) -> Result<Self, BoxError> {
        let file = File::options()
            .read(true)
            // Opening a pipe would wait for its other end, perhaps for ever.
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)
            .map_err(BoxError::io("open", path))?;
        let metadata = file.metadata().map_err(BoxError::io("read", path))?;
        if !metadata.is_file() {
            return Err(BoxError::NotABox {
                path: path.to_path_buf(),
                message: format!(
                    "it is {}, not a file",
                    open::in_place_of_file(path).unwrap_or_else(|| "something else".into())
                ),
            });
        }
        Ok(Opened {
            path: path.to_path_buf(),
            file,
            wanted: sha256.map(|sha256| (sha256.to_string(), Rc::default())),
        })
    }

    /// The path as it was opened, for errors.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    pub(super) fn probe(&self) -> Result<(Compression, Option<Kind>), BoxError> {
        image::probe(&self.file).map_err(BoxError::io("read", &self.path))
    }

    /// Returns a reader of the file as it is, from its start.
    pub(super) fn reader(&self) -> io::Result<impl Read + use<>> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let hash = self.wanted.as_ref().map(|(_, hash)| {
            *hash.borrow_mut() = Sha256::new();
            Rc::clone(hash)
        });
        Ok(Hashing { file, hash })
    }

    /// Returns a reader of the unpacked file, from its start.
    pub(super) fn unpacked(&self, compression: Compression) -> io::Result<Box<dyn Read>> {
        decompress(compression, self.reader()?)
    }

    /// Fails unless what the last reader yielded is what was verified.
    pub(super) fn finish(&self) -> Result<(), BoxError> {
        let Some((wanted, hash)) = &self.wanted else {
            return Ok(());
        };
        // The reader may have stopped before the end of the file.
        let rest = || -> io::Result<u64> {
            let mut rest = Hashing {
                file: self.file.try_clone()?,
                hash: Some(Rc::clone(hash)),
            };
            io::copy(&mut rest, &mut io::sink())
        };
        rest().map_err(BoxError::io("read", &self.path))?;
        if hex(hash.take().finalize()) != *wanted {
            return Err(BoxError::Changed {
                path: self.path.clone(),
            });
        }
        Ok(())
    }
}

struct Hashing {
    file: File,
    hash: Option<Rc<RefCell<Sha256>>>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        if let Some(hash) = &self.hash {
            hash.borrow_mut().update(&buffer[..n]);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::digest::sha256_of;

    #[test]
    fn a_file_that_is_written_meanwhile_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let content = vec![7u8; 3 << 20];
        std::fs::write(&path, &content).unwrap();
        let sha256 = sha256_of(&content);
        let opened = Opened::open(&path, Some(&sha256)).unwrap();
        let mut start = [0; 1000];
        opened.reader().unwrap().read_exact(&mut start).unwrap();
        opened.finish().unwrap();
        // Its name now leads to another file, but the first one is read.
        std::fs::rename(&path, folder.path().join("first")).unwrap();
        std::fs::write(&path, b"another").unwrap();
        let mut read = Vec::new();
        opened.reader().unwrap().read_to_end(&mut read).unwrap();
        opened.finish().unwrap();
        assert_eq!(read, content);
        // Change one byte of the first file, behind what was read.
        let mut reader = opened.reader().unwrap();
        reader.read_exact(&mut start).unwrap();
        let mut altered = content;
        altered[2 << 20] = 8;
        std::fs::write(folder.path().join("first"), &altered).unwrap();
        let error = opened.finish().unwrap_err();
        assert!(error.to_string().contains("changed while"), "{error}");
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [folder.path(), &pipe, Path::new("/dev/zero")] {
            let error = Opened::open(path, None).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("not a file"), "{error}");
        }
    }
}
