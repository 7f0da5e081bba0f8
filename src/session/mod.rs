//! What most commands start from: the project, the connection, and what there is.

pub mod admission;
pub mod adopt;
pub mod agreement;
pub mod capture;
pub mod condition;
pub mod destroy;
pub mod elsewhere;
pub mod halt;
pub mod handover;
pub mod in_use;
pub mod invocation;
pub mod leftover;
pub mod locate;
pub mod look;
pub mod operation;
pub mod pack;
pub mod prepare;
pub mod project_runs;
pub mod provision;
pub mod reach;
pub mod restart;
pub mod run;
pub mod selection;
pub mod stranded;
pub mod target;
pub mod up;
pub mod watch;

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

use locate::{connect, data_dir, load_project};

pub use elsewhere::Elsewhere;
pub use invocation::Invocation;
pub use operation::Operation;
pub use selection::Selection;
pub use target::Target;

pub struct Session {
    pub project: Project,
    pub data: DataDir,
    pub store: Store,
    pub lock_file: LockFile,
    pub catalogues: Catalogues,
    pub connection: Connection,
    pub looks: Looks,
    /// The one machine that `--domain` names.
    pub only: Option<String>,
}

/// What is asked of machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looks {
    /// All that the Machinefile wants of them, against what there is.
    Wanted,
    /// The same, as far as that can be known: what cannot is said, and no error.
    Shown,
    /// What there is; of the Machinefile what `halt` and `destroy` need: hooks and order. A box that
    /// is away, a script or a file that cannot be read is no matter then.
    There,
    /// What there is alone: the Machinefile is gone, or cannot be read. It names these machines, as
    /// far as that can be known.
    Recorded { named: Option<Vec<String>> },
}

impl Session {
    pub fn open(invocation: &Invocation) -> Result<Self, Failure> {
        let project = load_project(invocation)?;
        let data = data_dir()?;
        let connection = connect(invocation, Some(&project))?;
        Ok(Session {
            store: Store::open(&data),
            lock_file: LockFile::read(&project.root)?,
            catalogues: Catalogues::open(&data, Some(&project))?,
            project,
            data,
            connection,
            looks: Looks::Wanted,
            only: None,
        })
    }

    /// What decides which box, kernel and folder a name of this project means.
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

    /// Gets the project's catalogue from its URL.
    pub fn get_catalogue(&mut self) -> Result<(), Failure> {
        Catalogues::refresh(&self.data, &self.project)?;
        self.catalogues = Catalogues::open(&self.data, Some(&self.project))?;
        Ok(())
    }

    /// Which domain the machine of that name is, or is to be.
    pub fn identity(&self, machine: &str) -> Result<Identity, Failure> {
        Ok(self.connection.identify(&self.owner(), machine)?)
    }

    /// The machine of that name as libvirt has it now.
    pub fn observe(&self, machine: &str) -> Result<Option<Observed>, Failure> {
        Ok(self.connection.observe(&self.identity(machine)?)?)
    }

    /// Fails where a machine that is off or away, as libvirt says here, runs all the same.
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
