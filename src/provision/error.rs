//! Why a provisioner or a hook fails.

use std::{path::PathBuf, time::Duration};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    guest::GuestError,
    report::{clean::Shown, elapsed},
    sync::SyncError,
};

use super::ansible::AnsibleError;

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
