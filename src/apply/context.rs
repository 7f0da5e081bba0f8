//! What steps work with: the project, the connection, the store, and a job for each machine.

use std::{fs, path::PathBuf};

use crate::{
    boxes::{Store, StoredBox},
    guest::{MachineFiles, Remote},
    host::{
        lock::{Lock, LockName, own_holder},
        paths::DataDir,
    },
    hypervisor::{Connection, LifecycleEvents},
    machinefile::Project,
    network::Keeper,
    plan::{MachinePlan, WantedMachine},
    report::clean::Shown,
    trust::Agreement,
};

use super::error::ApplyError;

/// Everything that steps need.
pub struct Context {
    pub project: Project,
    pub data: DataDir,
    pub connection: Connection,
    pub store: Store,
    pub events: LifecycleEvents,
    /// Starts the project's network again if it ends meanwhile.
    pub network: Option<Keeper>,
    /// What the user allows the project to do to the host.
    pub agreement: Agreement,
}

/// One machine's part of a plan, with the data for its steps.
pub struct Job {
    pub plan: MachinePlan,
    pub wanted: WantedMachine,
    /// The machine's box; `None` for jobs that need none.
    pub stored_box: Option<StoredBox>,
}

impl Job {
    pub fn files(&self, data: &DataDir) -> MachineFiles {
        MachineFiles::new(data, &self.wanted.identity.uuid)
    }

    pub fn remote(&self, data: &DataDir) -> Remote {
        Remote {
            machine: self.wanted.machine.name.clone(),
            files: self.files(data),
        }
    }
}

/// Takes a lock that is held only briefly: for choosing ports, or for creating and removing the pool.
pub(super) fn lock(context: &Context, name: LockName<'_>) -> Result<Lock, ApplyError> {
    Lock::acquire(&context.data.locks(), name, &own_holder()).map_err(|source| ApplyError::Io {
        doing: format!("lock {name} in {}", context.data.locks().shown()),
        source,
    })
}

/// Returns the pool's folder, and makes it if it is missing.
pub(super) fn images(context: &Context) -> Result<PathBuf, ApplyError> {
    let folder = context.data.images();
    fs::create_dir_all(&folder).map_err(|source| ApplyError::Io {
        doing: format!("create {}", folder.shown()),
        source,
    })?;
    Ok(folder)
}
