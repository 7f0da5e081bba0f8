//! Runs one provisioner, of any kind.

use std::{path::PathBuf, time::Duration};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    guest::{GuestError, Remote},
    host::{paths::DataDir, shell::shell_quote},
    machinefile::{Provisioner, ProvisionerKind},
    report::{clean::Shown, elapsed},
    sync::{Progress, RsyncTarget, SyncError, push},
};

use super::{
    Inventory,
    ansible::{self, AnsibleError, GuestRun, HostRun},
    file,
    shell::{self, Task},
};

#[derive(Debug, Error, Diagnostic)]
pub enum ProvisionError {
    #[error("cannot read {path}: {source}", path = path.shown())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// `detail` is empty, or starts with a space or `; `.
    #[error("{what} ended with exit code {code}{}{detail}", by_signal(*code))]
    #[diagnostic(help("{hint}"))]
    Script {
        what: String,
        code: i32,
        detail: String,
        hint: String,
    },
    #[error(
        "{what} timed out after {}, and was killed with everything that it had started", elapsed(*limit)
    )]
    #[diagnostic(help("{hint}; a longer `timeout` gives it more time"))]
    TimedOut {
        what: String,
        limit: Duration,
        hint: String,
    },
    #[error("{what} cannot run as user {user}: machine {machine} has no such user")]
    #[diagnostic(help(
        "create the user in an earlier provisioner (`useradd`), or correct `user` in the Machinefile"
    ))]
    NoUser {
        what: String,
        machine: String,
        user: String,
    },
    #[error(
        "{what} cannot run in {workdir}: machine {machine} has no such folder, or its user may not enter it"
    )]
    #[diagnostic(help(
        "create the folder first, by a `sync` or in an earlier provisioner, or correct `workdir` in the Machinefile"
    ))]
    NoWorkdir {
        what: String,
        machine: String,
        workdir: String,
    },
    #[error("{what} needs {interpreter}, which machine {machine} does not have")]
    #[diagnostic(help(
        "install it in an earlier provisioner, or correct the script's first line or its `interpreter`"
    ))]
    NoInterpreter {
        what: String,
        machine: String,
        interpreter: String,
    },
    #[error("cannot start {what} in machine {machine}{}", because(said))]
    #[diagnostic(help("{hint}"))]
    NotStarted {
        what: String,
        machine: String,
        said: String,
        hint: String,
    },
    #[error("lost the connection to {machine} while {what} ran")]
    #[diagnostic(help(
        "`stead status` shows whether the machine still runs; `stead logs {machine}` shows its console"
    ))]
    ScriptCutOff { what: String, machine: String },
    #[error("provisioner {name}: machine {machine} has no {kind} {owner}")]
    #[diagnostic(help(
        "create it in an earlier provisioner, or correct `owner` in the Machinefile"
    ))]
    NoOwner {
        name: String,
        machine: String,
        kind: &'static str,
        owner: String,
    },
    #[error("provisioner {name} cannot copy {wanted} to {to}: in machine {machine} that is {is}")]
    #[diagnostic(help("choose another `to`, or remove {to} in the machine"))]
    InTheWay {
        name: String,
        machine: String,
        to: String,
        is: &'static str,
        wanted: &'static str,
    },
    #[error("provisioner {name} cannot create {to} in machine {machine}: {said}")]
    #[diagnostic(help(
        "inspect it with `stead ssh {machine}`, or correct `to` in the Machinefile"
    ))]
    NoPlace {
        name: String,
        machine: String,
        to: String,
        said: String,
    },
    #[error(
        "{what}: cannot find {program}, neither as a program in PATH nor as a file of the project"
    )]
    #[diagnostic(help("install it on this host, or correct the Machinefile"))]
    NoProgram { what: String, program: String },
    #[error("{what}: cannot start {program}: {source}")]
    Start {
        what: String,
        program: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ansible(#[from] AnsibleError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sync(#[from] SyncError),
}

/// Names the signal that may have ended a command: shells return 128 plus its number (POSIX, "Exit Status for
/// Commands").
fn by_signal(code: i32) -> String {
    match code - 128 {
        signal @ 1..=64 => format!(" (128 + signal {signal})"),
        _ => String::new(),
    }
}

fn because(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

/// What a provisioner reports while it runs.
pub enum ProvisionMessage<'a> {
    Line { stderr: bool, line: &'a str },
    Copied(Progress),
}

impl ProvisionError {
    /// Whether the reason is only that the connection was lost.
    pub fn is_cut_off(&self) -> bool {
        matches!(
            self,
            ProvisionError::ScriptCutOff { .. }
                | ProvisionError::Ansible(AnsibleError::CutOff { .. })
        )
    }
}

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
