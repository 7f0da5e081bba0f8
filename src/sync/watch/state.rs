//! What the watcher of a project says of itself, to `status` and to the next `up`: a file that it
//! writes, and a lock that it holds for as long as it lives.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use uuid::Uuid;

use crate::{
    host::{file, paths::DataDir, process::Process},
    hypervisor::Owner,
    machinefile::{Project, SyncFolder, SyncKind},
};

use super::super::outcome::Changes;

/// What is to be watched.
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
    /// The folders of these machines that `which` picks; `None` where there are none. `uuid_of`
    /// gives a machine's UUID.
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

    /// All that the project has watched by itself, `watch=#true`.
    pub fn by_itself<E>(
        project: &Project,
        uuid_of: impl Fn(&str) -> Result<Uuid, E>,
    ) -> Result<Option<Self>, E> {
        Self::of(project, uuid_of, &project.machines, |folder| folder.watch)
    }

    /// Changes with everything that makes a difference to the watcher.
    pub fn digest(&self) -> String {
        // What was read from a Machinefile can be written as JSON; a path that is no UTF-8 cannot,
        // and then counts as changed.
        let text = serde_json::to_vec(self).unwrap_or_default();
        crate::boxes::hex(&Sha256::digest(text))
    }
}

/// What is copied can always be watched. What is shared is there without, and its events are
/// forwarded where that is asked for; not where the guest may write nothing, since it cannot.
fn is_watched(folder: &SyncFolder) -> bool {
    match folder.kind {
        SyncKind::Rsync | SyncKind::TwoWay | SyncKind::Auto => true,
        SyncKind::Virtiofs | SyncKind::NineP => folder.watch && !folder.readonly,
    }
}

/// Where a project's watcher keeps its files.
#[derive(Clone, Debug)]
pub struct Place {
    data: DataDir,
    /// `stead-watch-1a2b3c`: the same, whatever the project is called.
    name: String,
}

impl Place {
    pub fn of(data: &DataDir, owner: &Owner) -> Self {
        Place {
            data: data.clone(),
            name: format!("stead-watch-{}", owner.short()),
        }
    }

    pub fn locks(&self) -> PathBuf {
        self.data.locks()
    }
    pub fn lock_name(&self) -> &str {
        &self.name
    }
    fn state(&self) -> PathBuf {
        self.data.watch().join(format!("{}.json", self.name))
    }
    pub fn log(&self) -> PathBuf {
        self.data.watch().join(format!("{}.log", self.name))
    }

    /// What the watcher last said; `None` where there never was one, or it ended as it should.
    pub fn read(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.state()).ok()?).ok()
    }

    pub fn write(&self, state: &State) -> io::Result<()> {
        let folder = self.data.watch();
        fs::create_dir_all(&folder)?;
        file::replace(&self.state(), &serde_json::to_vec(state)?, file::PRIVATE)
    }

    /// The log stays, for who wants to know how it was.
    pub fn remove(&self) {
        let _ = fs::remove_file(self.state());
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub process: Process,
    pub since: Timestamp,
    /// Of [`Watched`].
    pub digest: String,
    /// Watched folders of the host.
    pub folders: usize,
    pub machines: BTreeMap<String, MachineState>,
    /// Why it had to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MachineState {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// Why it cannot be reached, where it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// Why something does not go, by the folder in the guest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trouble: BTreeMap<String, String>,
}

/// The last that was sent.
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
