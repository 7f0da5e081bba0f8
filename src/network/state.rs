//! The files of a project's network, by which commands find the process that is it.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixDatagram},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::line::EXTENSION_OF_QEMU;

use crate::host::{file, lock::LockName, paths::DataDir, process::Process, socket_folder};

/// The files of a project's network.
#[derive(Clone, Debug)]
pub struct NetworkFiles {
    data: DataDir,
    /// Such as `stead-net-1a2b3c`. It does not change when the project is renamed.
    name: String,
}

impl NetworkFiles {
    /// `project` are the 6 hex digits of the project.
    pub fn of(data: &DataDir, project: &str) -> Self {
        NetworkFiles {
            data: data.clone(),
            name: format!("stead-net-{project}"),
        }
    }

    pub(super) fn data(&self) -> &DataDir {
        &self.data
    }
    pub(super) fn lock(&self) -> LockName<'_> {
        LockName::Network(&self.name)
    }
    pub fn log(&self) -> PathBuf {
        self.data.networks().join(format!("{}.log", self.name))
    }
    fn state(&self) -> PathBuf {
        self.data.networks().join(format!("{}.json", self.name))
    }

    /// The folder for the sockets of new machines. Machines record theirs.
    pub fn sockets(&self) -> PathBuf {
        socket_folder::of_user().join(&self.name)
    }

    /// Reads what the process has written; `None` if there is none.
    pub fn read(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.state()).ok()?).ok()
    }

    pub(super) fn write(&self, state: &State) -> io::Result<()> {
        file::create_folder(&self.data.networks(), crate::host::paths::CLOSED)?;
        file::replace(&self.state(), &serde_json::to_vec(state)?, file::PRIVATE)
    }

    /// Removes the state, and the sockets that nobody listens on any more. The log is kept, so that people can still
    /// read it.
    pub(super) fn clear(&self, sockets: &Path) {
        let _ = fs::remove_file(self.state());
        let Ok(entries) = fs::read_dir(sockets) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_socket = entry.file_type().is_ok_and(|it| it.is_socket());
            let is_qemus = path.extension().is_some_and(|it| it == EXTENSION_OF_QEMU);
            if is_socket && !(is_qemus && is_bound(&path)) {
                let _ = fs::remove_file(path);
            }
        }
        // It stays if a QEMU still has its socket there.
        let _ = fs::remove_dir(sockets);
    }
}

/// Whether a process has the datagram socket of this name.
fn is_bound(path: &Path) -> bool {
    UnixDatagram::unbound().is_ok_and(|socket| socket.connect(path).is_ok())
}

/// What the process says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub process: Process,
    pub since: Timestamp,
    /// The socket on which it takes orders.
    pub control: PathBuf,
}
