//! Records size, inode and time of files when they are hashed. If those are unchanged, so is the content.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::host::{file, paths::DataDir};

/// Size, inode and modification time of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// In bytes.
    pub size: u64,
    inode: u64,
    mtime_seconds: i64,
    mtime_nanoseconds: i64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(Stamp::from)
    }

    pub(super) fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(Stamp::from)
    }
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Self {
        Stamp {
            size: metadata.len(),
            inode: metadata.ino(),
            mtime_seconds: metadata.mtime(),
            mtime_nanoseconds: metadata.mtime_nsec(),
        }
    }
}

/// The stamps of files in the store, by their sha256.
#[derive(Clone, Debug)]
pub(super) struct Stamps {
    folder: PathBuf,
}

impl Stamps {
    pub(super) fn open(data: &DataDir) -> Self {
        Stamps {
            folder: data.verified(),
        }
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{sha256}.json"))
    }

    fn read(&self, sha256: &str) -> Option<Stamp> {
        // If a stamp cannot be read, the file is hashed again.
        serde_json::from_slice(&fs::read(self.path(sha256)).ok()?).ok()
    }

    /// Whether the file is unchanged since it had that sha256.
    pub(super) fn is_unchanged(&self, sha256: &str, path: &Path) -> bool {
        self.read(sha256)
            .zip(Stamp::of(path).ok())
            .is_some_and(|(then, now)| then == now)
    }

    pub(super) fn write(&self, sha256: &str, stamp: &Stamp) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        file::replace(
            &self.path(sha256),
            &serde_json::to_vec(stamp)?,
            file::PRIVATE,
        )
    }

    pub(super) fn forget(&self, sha256: &str) {
        let _ = fs::remove_file(self.path(sha256));
    }
}
