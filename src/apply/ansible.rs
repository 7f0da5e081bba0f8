//! Makes the project's inventory, with how to reach the machines that run now.

use std::sync::Arc;

use crate::{
    guest::{GuestError, MachineFiles, SshTarget},
    host::paths::DataDir,
    hypervisor::Connection,
    machine::{Observed, Owner},
    machinefile::{Machine, Project, Provisioner},
    provision::{Inventory, Reach},
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

/// Returns the inventory of all machines, with how to reach the running ones, and the names of those. Updates
/// the running machines' files for OpenSSH.
///
/// # Errors
/// If libvirt does not answer, or a file cannot be written.
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
        // Only one machine has the name here: the same one as in all commands.
        let ours =
            inventory.host(name).is_some() && observed.identity == survey.identify(&owner, name);
        if ours && observed.is_up() {
            let reach = reach(observed, data);
            write_ssh_files(observed, &reach.files, &connection.uri().uri)?;
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
        addresses: (observed.record.spec.cards.iter())
            .map(|card| (card.network.clone(), card.address))
            .collect(),
    }
}

fn write_ssh_files(observed: &Observed, files: &MachineFiles, uri: &str) -> Result<(), GuestError> {
    // A machine that is being made may have no keys yet; its own steps write these files.
    if !files.host_public_key().exists() {
        return Ok(());
    }
    SshTarget::of(&observed.record, &observed.identity.domain, uri).write(files)
}

impl Steps<'_> {
    /// Returns the inventory for a provisioner of this machine.
    pub(super) async fn inventory(
        &self,
        provisioner: &Provisioner,
    ) -> Result<Inventory, ApplyError> {
        let wanted = &self.job.wanted;
        let project = with_replacement(
            &self.context.project,
            &wanted.machine,
            wanted.run_of.as_deref(),
        );
        if provisioner.kind.runs_on_host() {
            let context = Arc::clone(self.context);
            return blocking(move || {
                let found = reachable_inventory(&project, &context.connection, &context.data)?;
                Ok(found.0)
            })
            .await;
        }
        let mut inventory = Inventory::of(&project);
        inventory.is_local(self.name());
        Ok(inventory)
    }
}

/// Returns the project for a machine of a `stead run`, which is not in the Machinefile: it takes the place of
/// the machine `original`.
fn with_replacement(project: &Project, machine: &Machine, original: Option<&str>) -> Project {
    let mut project = project.clone();
    let Some(original) = original else {
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
