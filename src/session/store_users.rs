//! Finds what uses a file of the store: machines on every libvirt of this host that answers, foreign
//! domains, and images that are backed by it. A used file is not removed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    boxes::{Backing, Store, StoredBox},
    failure::Failure,
    host::{
        lock::{Lock, LockName, own_holder},
        paths::DataDir,
    },
    hypervisor::{Connection, Definition, Survey},
    kernel::{KernelStore, StoredKernel},
    machine::Observed,
    report::clean::Shown,
};

use super::{invocation::Invocation, locate::connect};

/// The local libvirts, which are asked in addition to the connection of the command.
const LOCAL: [&str; 2] = ["qemu:///session", "qemu:///system"];

/// Everything that may use a file, at one moment.
pub struct InUse {
    machines: Vec<Observed>,
    definitions: Vec<Definition>,
    backing: Backing,
}

impl InUse {
    /// Takes the lock under which domains are defined and files of the store are removed.
    pub fn lock(data: &DataDir) -> Result<Lock, Failure> {
        Lock::acquire(&data.locks(), LockName::Defining, &own_holder()).map_err(|error| {
            Failure::in_data(
                format!("lock {} in {}", LockName::Defining, data.locks().shown()),
                &error,
            )
        })
    }

    /// Collects all uses. Fails if a record or image cannot be read, because it may use any file.
    pub fn observe(invocation: &Invocation, data: &DataDir) -> Result<Self, Failure> {
        let mut found = Self::of_images(data)?;
        let first = connect(invocation, None)?;
        let own = first.uri().uri.clone();
        found.ask(&first)?;
        for uri in LOCAL {
            if uri != own
                && let Some(connection) = Connection::open_to_look(uri)
            {
                found.ask(&connection)?;
            }
        }
        Ok(found)
    }

    /// Collects the uses by images alone, without libvirt.
    pub fn of_images(data: &DataDir) -> Result<Self, Failure> {
        Ok(InUse {
            machines: Vec::new(),
            definitions: Vec::new(),
            backing: Backing::survey(&data.images())?,
        })
    }

    fn ask(&mut self, connection: &Connection) -> Result<(), Failure> {
        let Survey {
            machines,
            unreadable,
        } = connection.survey()?;
        if let Some(unreadable) = unreadable.into_iter().next() {
            return Err(unreadable.error.into());
        }
        for machine in machines {
            if !(self.machines.iter()).any(|it| it.identity == machine.identity) {
                self.machines.push(machine);
            }
        }
        self.definitions.extend(connection.definitions()?);
        Ok(())
    }

    /// Counts the machines that are backed by a box.
    pub fn machines_of(&self, digest: &str) -> usize {
        (self.machines.iter())
            .filter(|machine| machine.record.spec.box_digest == digest)
            .count()
    }

    /// Counts the machines that boot a kernel.
    pub fn machines_on(&self, stored: &StoredKernel) -> usize {
        let digest = stored.digest.to_string();
        (self.machines.iter())
            .filter(|machine| {
                let kernel = machine.record.spec.kernel.as_ref();
                kernel.and_then(|kernel| kernel.digest.as_ref()) == Some(&digest)
            })
            .count()
    }

    /// Lists what uses a box: "machine web of project shop (/home/me/shop)".
    pub fn of_box(&self, store: &Store, stored: &StoredBox) -> Result<Vec<String>, Failure> {
        let digest = stored.digest.to_string();
        let own = |machine: &&Observed| machine.record.spec.box_digest == digest;
        let files = store.sole_files(stored)?;
        let machines = self.machines.iter().filter(own);
        Ok(self.needing(stored.digest.hex(), machines, &files))
    }

    /// Lists what uses a kernel.
    pub fn of_kernel(
        &self,
        store: &KernelStore,
        stored: &StoredKernel,
    ) -> Result<Vec<String>, Failure> {
        let digest = stored.digest.to_string();
        let own = |machine: &&Observed| {
            let kernel = machine.record.spec.kernel.as_ref();
            kernel.and_then(|kernel| kernel.digest.as_ref()) == Some(&digest)
        };
        let files = store.sole_files(stored)?;
        let machines = self.machines.iter().filter(own);
        Ok(self.needing(stored.digest.hex(), machines, &files))
    }

    fn needing<'a>(
        &'a self,
        digest: &str,
        machines: impl Iterator<Item = &'a Observed>,
        files: &[PathBuf],
    ) -> Vec<String> {
        let mut known = BTreeSet::new();
        let mut users = Vec::new();
        for machine in machines {
            known.insert(machine.identity.domain.clone());
            users.push(format!(
                "machine {} of project {} ({})",
                machine.record.machine,
                machine.record.project,
                machine.record.root.shown()
            ));
        }
        for definition in &self.definitions {
            let needs = definition.names(digest) || files.iter().any(|it| names(definition, it));
            if needs && known.insert(definition.domain.clone()) {
                users.push(format!(
                    "domain {} on {}",
                    definition.domain, definition.uri
                ));
            }
        }
        for image in files.iter().filter_map(|it| self.backing.image_on(it)) {
            let domain = image.strip_suffix(".qcow2").unwrap_or(image);
            if known.insert(domain.to_string()) {
                users.push(format!("the disk image {image} in the store"));
            }
        }
        users
    }

    /// Whether anything uses this file.
    pub fn needs(&self, file: &Path) -> bool {
        self.backing.image_on(file).is_some()
            || (self.definitions.iter()).any(|definition| names(definition, file))
    }
}

/// Whether a definition has the file's name, which contains its digest.
fn names(definition: &Definition, file: &Path) -> bool {
    file.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| definition.names(name))
}
