//! Runs one provisioner, of any kind.

use crate::{
    guest::Remote,
    host::{paths::DataDir, shell::shell_quote},
    machinefile::{Provisioner, ProvisionerKind},
    sync::{RsyncTarget, push},
};

use super::{
    Inventory,
    ansible::{self, GuestRun, HostRun},
    error::ProvisionError,
    file,
    message::ProvisionMessage,
    shell::{self, Task},
};

/// What Ansible needs in addition to its playbook.
pub struct AnsibleContext<'a> {
    pub data: &'a DataDir,
    /// With how to reach machines, for a run on the host; without it, for a run in a guest.
    pub inventory: Inventory,
    pub color: bool,
}

/// Runs one provisioner to its end. Only Ansible uses `ansible`.
///
/// # Errors
/// If it fails or cannot be started.
pub async fn run(
    provisioner: &Provisioner,
    remote: &Remote,
    ansible: &AnsibleContext<'_>,
    each: &mut (dyn FnMut(ProvisionMessage<'_>) + Send),
) -> Result<(), ProvisionError> {
    match &provisioner.kind {
        ProvisionerKind::Shell(shell) => {
            let (name, machine) = (&provisioner.name, &remote.machine);
            let task = Task {
                what: format!("provisioner {name}"),
                name,
                hint: format!(
                    "the machine is running: inspect it with `stead ssh {machine}`; `stead provision {machine} --from {}` continues with this provisioner",
                    shell_quote(name)
                ),
            };
            shell::run(&task, shell, remote, each).await
        }
        ProvisionerKind::File {
            from,
            to,
            mode,
            owner,
        } => {
            let is_folder = from.is_dir();
            let owner = file::prepare(
                &provisioner.name,
                remote,
                to,
                owner.as_deref().unwrap_or("root:root"),
                is_folder,
            )
            .await?;
            let target = RsyncTarget {
                from,
                to,
                contents: is_folder,
                exclude: &[],
                delete: false,
                as_root: Some(&owner),
                mode: *mode,
                progress: true,
            };
            push(&target, remote, &mut |progress| {
                each(ProvisionMessage::Copied(progress));
            })
            .await?;
            Ok(())
        }
        ProvisionerKind::Ansible { playbook } => {
            let run = HostRun {
                name: &provisioner.name,
                playbook,
                inventory: ansible.inventory.file(),
                limit: vec![&remote.machine],
                data: ansible.data,
                color: ansible.color,
                again: again(&remote.machine, &provisioner.name),
                inspect: Some(remote.machine.clone()),
            };
            let mut line = |stderr, line: &str| each(ProvisionMessage::Line { stderr, line });
            Ok(ansible::run_on_host(&run, &mut line).await?)
        }
        ProvisionerKind::AnsibleLocal { playbook, install } => {
            let run = GuestRun {
                name: &provisioner.name,
                playbook,
                install: *install,
                inventory: ansible.inventory.file(),
                color: ansible.color,
                again: again(&remote.machine, &provisioner.name),
            };
            let mut line = |stderr, line: &str| each(ProvisionMessage::Line { stderr, line });
            Ok(ansible::run_in_guest(&run, remote, &mut line).await?)
        }
    }
}

fn again(machine: &str, provisioner: &str) -> String {
    format!(
        "stead provision {machine} --from {}",
        shell_quote(provisioner)
    )
}
