//! Runs one provisioner, of any kind.

use crate::{
    guest::Remote,
    host::{paths::DataDir, shell::shell_quote},
    machinefile::{Playbook, Provisioner, ProvisionerKind},
    report::Reporter,
    sync::{RsyncTarget, push},
};

use super::{
    Inventory,
    ansible::{self, GuestRun, HostRun},
    asking::{Asking, Who},
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
    pub reporter: &'a Reporter,
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
            .await
            .map_err(ProvisionError::copying(
                &provisioner.name,
                &again(&remote.machine, &provisioner.name),
            ))?;
            Ok(())
        }
        ProvisionerKind::Ansible { playbook } => {
            let asking = Asking {
                reporter: ansible.reporter,
                who: Who::Machine(&remote.machine),
                by: asks_by(&provisioner.name, playbook),
            };
            let run = HostRun {
                answers: &asking,
                name: &provisioner.name,
                playbook,
                inventory: ansible.inventory.file(),
                limit: vec![&remote.machine],
                data: ansible.data,
                color: ansible.reporter.color(),
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
                color: ansible.reporter.color(),
                again: again(&remote.machine, &provisioner.name),
            };
            let mut line = |stderr, line: &str| each(ProvisionMessage::Line { stderr, line });
            Ok(ansible::run_in_guest(&run, remote, &mut line).await?)
        }
    }
}

/// Names a provisioner with a playbook that asks something.
pub fn asks_by(provisioner: &str, playbook: &Playbook) -> String {
    let path = ansible::below(playbook, &playbook.playbook);
    format!("provisioner {provisioner} ({path})")
}

fn again(machine: &str, provisioner: &str) -> String {
    format!(
        "stead provision {machine} --from {}",
        shell_quote(provisioner)
    )
}

#[cfg(test)]
mod tests {
    use miette::Diagnostic;

    use super::*;
    use crate::sync::SyncError;

    #[test]
    fn a_file_that_is_not_copied_advises_no_sync() {
        let from = || "/shop/motd".into();
        let (to, machine) = ("/etc/motd".to_string(), "web".to_string());
        let said = "x".to_string();
        for error in [
            SyncError::Gone { from: from() },
            SyncError::Failed {
                from: from(),
                to: to.clone(),
                machine: machine.clone(),
                code: "exit code 23".into(),
                said: said.clone(),
            },
            SyncError::Lost {
                machine: machine.clone(),
                from: from(),
                to: to.clone(),
                said: said.clone(),
            },
            SyncError::GuestDenied {
                to: to.clone(),
                machine: machine.clone(),
                said: said.clone(),
            },
            SyncError::GuestFull { said: said.clone() },
            SyncError::Spawn(std::io::ErrorKind::NotFound.into()),
        ] {
            let error = ProvisionError::copying("the motd", &again("web", "the motd"))(error);
            let hint = error.help().unwrap().to_string();
            assert!(error.to_string().starts_with("provisioner the motd: "));
            let is_about_sync = hint.contains("stead sync") || hint.contains("`sync");
            assert!(!is_about_sync, "{error}: {hint}");
        }
    }
}
