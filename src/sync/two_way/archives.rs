//! unison's archives of a folder, on the host.

use std::{fs, path::PathBuf};

use crate::{
    guest::Remote,
    host::{digest::name_of, file, paths::CLOSED},
    machinefile::SyncFolder,
};

use super::error::{TwoWayError, io};

const CONNECTION: &str = include_str!("../../../provisioners/host/two-way-connection");

/// unison's archives of a folder, on the host.
pub(super) struct Archives {
    pub folder: PathBuf,
}

impl Archives {
    pub(super) fn of(folder: &SyncFolder, remote: &Remote) -> Result<Self, TwoWayError> {
        let name = name_of(&folder.to, 4);
        let archives = Archives {
            folder: remote.files.unison().join(name),
        };
        archives.make(remote)?;
        Ok(archives)
    }

    /// Makes the folder, with the program in it that unison runs in place of ssh.
    pub(super) fn make(&self, remote: &Remote) -> Result<(), TwoWayError> {
        let root = Self::new_root(remote);
        for folder in [&self.folder, &root] {
            file::create_folder(folder, CLOSED).map_err(io("make", folder))?;
        }
        let program = self.connection();
        // A file that is still open for writing cannot be run (ETXTBSY); this one is closed.
        file::ensure(&program, CONNECTION.as_bytes(), 0o700).map_err(io("write", &program))
    }

    pub(super) fn connection(&self) -> PathBuf {
        self.folder.join("connection")
    }

    /// An empty folder that is the root of the sandbox: a file system is mounted over it there.
    pub(super) fn new_root(remote: &Remote) -> PathBuf {
        remote.files.unison().join("root")
    }

    /// Whether the two sides were synced before: there is an archive.
    pub(super) fn exist(&self) -> bool {
        (fs::read_dir(&self.folder).into_iter().flatten().flatten())
            .any(|entry| entry.file_name().to_string_lossy().starts_with("ar"))
    }

    pub(super) fn remove(&self) -> std::io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}
