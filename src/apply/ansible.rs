//! The project's inventory as it is now.

use std::sync::Arc;

use crate::{
    guest::{GuestError, MachineFiles, SshTarget},
    host::paths::DataDir,
    hypervisor::{Connection, Observed, Owner},
    machinefile::{Machine, Project, Provisioner, ProvisionerKind},
    provision::{Inventory, Reach},
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

/// The inventory of all machines, with how to reach those that run, and their names. Writes
/// OpenSSH's files of those, where they differ.
///
/// # Errors
/// When libvirt does not answer, or a file cannot be written.
pub fn reachable_inventory(
    project: &Project,
    connection: &Connection,
    data: &DataDir,
) -> Result<(Inventory, Vec<String>), ApplyError> {
    let mut inventory = Inventory::of(project);
    let mut up = Vec::new();
    let survey = connection.survey()?;
    let owner = Owner::of(project);
    for observed in &survey.machines {
        let name = &observed.record.machine;
        // One machine of each name, and the same as everywhere else.
        let ours =
            inventory.host(name).is_some() && observed.identity == survey.identify(&owner, name);
        if ours && observed.is_up() {
            let reach = reach(observed, data);
            write_ssh_files(observed, &reach.files)?;
            inventory.reach(name, &reach);
            up.push(name.clone());
        }
    }
    Ok((inventory, up))
}

fn reach(observed: &Observed, data: &DataDir) -> Reach {
    Reach {
        user: observed.record.login_user.clone(),
        port: observed.record.ssh_port,
        files: MachineFiles::new(data, &observed.identity.uuid),
        forwards: observed.record.spec.forwards.clone(),
    }
}

fn write_ssh_files(observed: &Observed, files: &MachineFiles) -> Result<(), GuestError> {
    // Of one that is on its way, keys may not be there yet; its own steps write all of it.
    if !files.host_public_key().exists() {
        return Ok(());
    }
    SshTarget {
        machine: observed.record.machine.clone(),
        domain: observed.identity.domain.clone(),
        user: observed.record.login_user.clone(),
        port: observed.record.ssh_port,
    }
    .write(files)
}

impl Steps<'_> {
    /// What a provisioner of this machine sees of the project.
    pub(super) async fn inventory(
        &self,
        provisioner: &Provisioner,
    ) -> Result<Inventory, ApplyError> {
        let wanted = &self.job.wanted;
        let project = with_stand_in(
            &self.context.project,
            &wanted.machine,
            wanted.run_of.as_deref(),
        );
        match provisioner.kind {
            ProvisionerKind::Ansible { .. } => {
                let context = Arc::clone(self.context);
                blocking(move || {
                    let found = reachable_inventory(&project, &context.connection, &context.data)?;
                    Ok(found.0)
                })
                .await
            }
            _ => {
                let mut inventory = Inventory::of(&project);
                inventory.is_local(self.name());
                Ok(inventory)
            }
        }
    }
}

/// The project as one of its machines is to see it that stands in for another: a machine of a
/// `stead run`, which is in no Machinefile.
fn with_stand_in(project: &Project, machine: &Machine, stands_for: Option<&str>) -> Project {
    let mut project = project.clone();
    let Some(original) = stands_for else {
        return project;
    };
    project.machines.retain(|it| it.name != original);
    project.machines.push(Machine {
        one_of: (machine.one_of.clone()).filter(|name| name != &machine.name),
        ..machine.clone()
    });
    for group in &mut project.groups {
        for name in &mut group.machines {
            if name == original {
                name.clone_from(&machine.name);
            }
        }
    }
    project
}
