//! The files of a project's network, by which commands find the process that is it.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Cable, conditions::ByHand, line, taps};

use crate::host::{file, lock::LockName, paths::DataDir, process::Process, socket_folder};

/// The files of a project's network.
#[derive(Clone, Debug)]
pub struct NetworkFiles {
    data: DataDir,
    /// The 6 hex digits of the project, which do not change when it is renamed.
    project: String,
    cable: Cable,
    /// Such as `stead-net-1a2b3c`. A project may have machines on both connections of libvirt.
    name: String,
}

impl NetworkFiles {
    /// `project` are the 6 hex digits of the project.
    pub fn of(data: &DataDir, project: &str, cable: Cable) -> Self {
        let end = match cable {
            Cable::Sockets => "",
            Cable::Taps => "-system",
        };
        NetworkFiles {
            data: data.clone(),
            project: project.to_string(),
            cable,
            name: format!("stead-net-{project}{end}"),
        }
    }

    pub(super) fn project(&self) -> &str {
        &self.project
    }
    pub(super) fn cable(&self) -> Cable {
        self.cable
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

    /// Removes the state, and the sockets and interfaces that nobody uses any more. The log is kept, so that people can
    /// still read it.
    pub(super) fn clear(&self, sockets: &Path) {
        let _ = fs::remove_file(self.state());
        if self.cable == Cable::Taps
            && let Err(error) = taps::remove(&self.project)
        {
            tracing::debug!("the interfaces of the network stay: {error}");
        }
        let Ok(entries) = fs::read_dir(sockets) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_socket = entry.file_type().is_ok_and(|it| it.is_socket());
            if is_socket && !line::is_qemus(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Removes the folder of the sockets, once the project has no machine any more: QEMU makes none, and needs it whoever
    /// starts a machine.
    pub fn forget(&self) {
        // It stays if a QEMU still has its socket there.
        let _ = fs::remove_dir(self.sockets());
    }
}

/// What the process says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub process: Process,
    pub since: Timestamp,
    /// The socket on which it takes orders.
    pub control: PathBuf,
    /// What `stead link` has set, for the process that is started in place of this one if it is killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ByHand>,
}
