//! The state of a project's watcher, for `status` and the next `up`: a file that it writes, and a lock
//! that it holds for as long as it lives.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use uuid::Uuid;

use crate::{
    host::{file, lock::LockName, paths::DataDir, process::Process},
    machine::Owner,
    machinefile::{Project, SyncFolder, SyncKind},
};

use super::super::outcome::Changes;

/// The machines and folders that a watcher watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    pub owner: Owner,
    pub machines: Vec<WatchedMachine>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchedMachine {
    pub machine: String,
    pub uuid: Uuid,
    pub folders: Vec<SyncFolder>,
}

impl Watched {
    /// Collects the folders of these machines that `which` picks; `None` if there are none. `uuid_of`
    /// returns a machine's UUID.
    pub fn of<'a, E>(
        project: &Project,
        uuid_of: impl Fn(&str) -> Result<Uuid, E>,
        machines: impl IntoIterator<Item = &'a crate::machinefile::Machine>,
        which: impl Fn(&SyncFolder) -> bool,
    ) -> Result<Option<Self>, E> {
        let mut watched = Vec::new();
        for machine in machines {
            let folders: Vec<SyncFolder> = (machine.syncs.iter())
                .filter(|folder| is_watched(folder) && which(folder))
                .cloned()
                .collect();
            if !folders.is_empty() {
                watched.push(WatchedMachine {
                    machine: machine.name.clone(),
                    uuid: uuid_of(&machine.name)?,
                    folders,
                });
            }
        }
        Ok((!watched.is_empty()).then(|| Watched {
            owner: Owner::of(project),
            machines: watched,
        }))
    }

    /// Collects the folders with `watch=#true`, which `up` watches without being asked.
    pub fn by_itself<E>(
        project: &Project,
        uuid_of: impl Fn(&str) -> Result<Uuid, E>,
    ) -> Result<Option<Self>, E> {
        Self::of(project, uuid_of, &project.machines, |folder| folder.watch)
    }

    /// A digest that changes with everything that makes a difference to the watcher.
    pub fn digest(&self) -> String {
        // Everything from a Machinefile can be written as JSON. A path that is not UTF-8 cannot, and
        // counts as changed.
        let text = serde_json::to_vec(self).unwrap_or_default();
        crate::host::digest::sha256_of(text)
    }
}

/// Copied folders can always be watched. Shared folders need no copying, but their events are forwarded
/// if the Machinefile says so; not for read-only ones, where the guest cannot touch files.
fn is_watched(folder: &SyncFolder) -> bool {
    match folder.kind {
        SyncKind::Rsync | SyncKind::TwoWay | SyncKind::Auto => true,
        SyncKind::Virtiofs | SyncKind::NineP => folder.watch && !folder.readonly,
    }
}

/// The files of a project's watcher.
#[derive(Clone, Debug)]
pub struct WatcherFiles {
    data: DataDir,
    /// Such as `stead-watch-1a2b3c`. It does not change when the project is renamed.
    name: String,
}

impl WatcherFiles {
    pub fn of(data: &DataDir, owner: &Owner) -> Self {
        WatcherFiles {
            data: data.clone(),
            name: format!("stead-watch-{}", owner.short()),
        }
    }

    pub fn locks(&self) -> PathBuf {
        self.data.locks()
    }
    pub fn lock(&self) -> LockName<'_> {
        LockName::Watcher(&self.name)
    }
    fn state(&self) -> PathBuf {
        self.data.watch().join(format!("{}.json", self.name))
    }
    pub fn log(&self) -> PathBuf {
        self.data.watch().join(format!("{}.log", self.name))
    }

    /// Reads the watcher's last state; `None` if there never was a watcher, or it ended as it should.
    pub fn read(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.state()).ok()?).ok()
    }

    pub fn write(&self, state: &State) -> io::Result<()> {
        let folder = self.data.watch();
        fs::create_dir_all(&folder)?;
        file::replace(&self.state(), &serde_json::to_vec(state)?, file::PRIVATE)
    }

    /// Removes the state. The log is kept, so that people can still read it.
    pub fn remove(&self) {
        let _ = fs::remove_file(self.state());
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub process: Process,
    pub since: Timestamp,
    /// The digest of its [`Watched`].
    pub digest: String,
    /// How many folders of the host are watched.
    pub folders: usize,
    pub machines: BTreeMap<String, MachineState>,
    /// Why it ended, if it ended by an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MachineState {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// Why the machine cannot be reached, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// Why folders cannot be synced, by their path in the guest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trouble: BTreeMap<String, String>,
}

/// The last batch that was sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Last {
    pub at: Timestamp,
    pub to: String,
    pub sent: u64,
    pub deleted: u64,
}

impl Last {
    pub fn now(to: &str, changes: Changes) -> Self {
        Last {
            at: Timestamp::now(),
            to: to.to_string(),
            sent: changes.sent,
            deleted: changes.deleted,
        }
    }
}
