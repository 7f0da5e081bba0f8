//! The use cases, and the session that they start from: the project and the connection.

pub mod admission;
pub mod adopt;
pub mod agreement;
pub mod bridges;
pub mod capture;
mod cards;
pub mod certificates;
pub mod closed_folder;
pub mod condition;
pub mod console;
pub mod destroy;
pub mod exec;
pub mod existing;
pub mod firmware;
pub mod halt;
pub mod handover;
pub mod hosts;
pub mod invocation;
pub mod jobs;
pub mod leftover;
pub mod links;
pub mod locate;
pub mod long_sockets;
pub mod networks;
pub mod operation;
pub mod other_project;
pub mod pack;
pub mod ports;
pub mod prepare;
pub mod project_runs;
pub mod provision;
pub mod reach;
pub mod rebooting;
pub mod restart;
pub mod run;
pub mod selection;
pub mod ssh_include;
pub mod store_users;
pub mod stranded;
pub mod target;
pub mod targets;
pub mod up;
pub mod watch;

use std::sync::OnceLock;

use crate::{
    boxes::Store,
    failure::Failure,
    guest::MachineFiles,
    host::paths::DataDir,
    hypervisor::{Connection, Qemus, Runtime},
    machine::{Identity, Observed, Owner},
    machinefile::Project,
    resolve::{Resolver, catalogues::Catalogues, lockfile::LockFile},
};

use locate::{connect, data_dir, load_with_warnings};

pub use invocation::Invocation;
pub use operation::Operation;
pub use other_project::OtherProject;
pub use selection::Selection;
pub use target::Target;

pub struct Session {
    pub project: Project,
    pub data: DataDir,
    pub store: Store,
    pub lock_file: LockFile,
    pub catalogues: Catalogues,
    pub connection: Connection,
    pub detail: Detail,
    /// The machine that `--domain` names.
    pub only: Option<String>,
    /// Whether networks can have a way out here, once that is known.
    way_out: OnceLock<Result<(), Failure>>,
}

/// How much a command needs to know of machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything that the Machinefile describes, compared with what exists.
    Wanted,
    /// The same, but what cannot be found out is reported, and is not an error.
    Shown,
    /// What exists, and of the Machinefile only what `halt` and `destroy` need: hooks and order. A
    /// missing box, or a script or file that cannot be read, is not an error.
    Existing,
    /// Only what exists: the Machinefile is gone or cannot be read. `named` are the machines that it
    /// names, as far as that is known.
    Recorded { named: Option<Vec<String>> },
}

impl Session {
    pub fn open(invocation: &Invocation) -> Result<Self, Failure> {
        let project = load_with_warnings(invocation)?;
        let data = data_dir()?;
        let connection = connect(invocation, Some(&project))?;
        Ok(Session {
            store: Store::open(&data),
            lock_file: LockFile::read(&project.root)?,
            catalogues: Catalogues::open(&data, Some(&project))?,
            project,
            data,
            connection,
            detail: Detail::Wanted,
            only: None,
            way_out: OnceLock::new(),
        })
    }

    /// Returns the resolver of this project's names of boxes, kernels and folders.
    pub fn resolver(&self) -> Resolver<'_> {
        Resolver {
            project: &self.project,
            data: &self.data,
            store: &self.store,
            lock_file: &self.lock_file,
            catalogues: &self.catalogues,
        }
    }

    pub fn owner(&self) -> Owner {
        Owner::of(&self.project)
    }

    /// Fetches the project's catalogue from its URL.
    pub fn get_catalogue(&mut self) -> Result<(), Failure> {
        Catalogues::refresh(&self.data, &self.project)?;
        self.catalogues = Catalogues::open(&self.data, Some(&self.project))?;
        Ok(())
    }

    /// Returns the domain that the machine of that name has, or will have.
    pub fn identity(&self, machine: &str) -> Result<Identity, Failure> {
        Ok(self.connection.identify(&self.owner(), machine)?)
    }

    /// Returns the machine of that name as libvirt has it now.
    pub fn observe(&self, machine: &str) -> Result<Option<Observed>, Failure> {
        Ok(self.connection.observe(&self.identity(machine)?)?)
    }

    /// Fails if a machine that is off or absent for this libvirt runs under another one.
    pub fn check_not_elsewhere(
        &self,
        machine: &str,
        identity: &Identity,
        found: Option<&Observed>,
        qemus: &mut Option<Qemus>,
    ) -> Result<(), Failure> {
        if found.is_some_and(Observed::is_up) {
            return Ok(());
        }
        let noted = self.files(identity).noted_runtime();
        let started: Option<Runtime> = noted.and_then(|text| serde_json::from_str(&text).ok());
        Ok(self.connection.check_not_elsewhere(
            machine,
            &identity.uuid,
            started.as_ref(),
            qemus.get_or_insert_with(Qemus::find),
        )?)
    }

    pub fn files(&self, identity: &Identity) -> MachineFiles {
        MachineFiles::new(&self.data, &identity.uuid)
    }
}
