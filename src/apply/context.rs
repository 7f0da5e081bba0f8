use crate::{
    boxes::{Store, StoredBox},
    guest::{MachineFiles, Remote},
    host::paths::DataDir,
    hypervisor::{Connection, LifecycleEvents},
    machinefile::Project,
    plan::{MachinePlan, WantedMachine},
    trust::Agreement,
};

/// Everything that steps need.
pub struct Context {
    pub project: Project,
    pub data: DataDir,
    pub connection: Connection,
    pub store: Store,
    pub events: LifecycleEvents,
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
