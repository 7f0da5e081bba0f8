//! Why a provisioner or a hook fails.

use std::{path::PathBuf, time::Duration};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    guest::GuestError,
    host::process::ProgramError,
    report::{clean::Shown, elapsed},
    sync::SyncError,
};

use super::{ansible::AnsibleError, asking::NOBODY};

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
    #[error(
        "{what} was not started: an earlier run of a provisioner has not ended in machine {machine}"
    )]
    #[diagnostic(help(
        "`stead exec {machine} -- ps -ef` shows what runs there; `stead restart {machine}` ends it"
    ))]
    Busy { what: String, machine: String },
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
    #[error("{what} asks {words}, {NOBODY}")]
    #[diagnostic(help(
        "give it what it needs beforehand (a key in your agent, git's credential helper, a rule for sudo), or run stead on a terminal, and answer; {hint}"
    ))]
    Asks {
        what: String,
        words: String,
        hint: String,
    },
    #[error("{what}: {source}")]
    Program { what: String, source: ProgramError },
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
    /// A `file` that could not be copied.
    #[error("provisioner {name}: {source}")]
    #[diagnostic(help("{hint}"))]
    Copy {
        name: String,
        source: Box<SyncError>,
        hint: String,
    },
}

const SIGTERM: i32 = nix::libc::SIGTERM;

/// Names the signal that may have ended a command: shells return 128 plus its number (POSIX, "Exit Status for
/// Commands").
fn by_signal(code: i32) -> String {
    match code - 128 {
        signal @ 1..=64 => format!(" (128 + signal {signal})"),
        _ => String::new(),
    }
}

fn is_about_sync(hint: &str) -> bool {
    ["stead sync", "`sync`", "`sync "]
        .iter()
        .any(|words| hint.contains(words))
}

fn because(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

impl ProvisionError {
    /// Wraps the error of copying a `file`, whose hint must not be about a `sync`. `again`: the command that continues.
    pub(super) fn copying(name: &str, again: &str) -> impl FnOnce(SyncError) -> Self {
        move |source| ProvisionError::Copy {
            name: name.to_string(),
            hint: match &source {
                SyncError::Gone { .. } | SyncError::Swapped { .. } => {
                    "put it back, or correct `file` in the Machinefile".into()
                }
                SyncError::HostUnreadable { user, .. } => {
                    format!("let {user} read them (`ls -l` shows who may), then run `{again}`")
                }
                SyncError::GuestFull { .. } => {
                    format!("free space in the guest, then run `{again}`")
                }
                SyncError::GuestDenied { to, machine, .. } => format!(
                    "`stead exec {machine} -- ls -ld {to}` shows whose it is; then run `{again}`"
                ),
                SyncError::Lost { machine, .. } => format!(
                    "`stead status` shows whether it still runs; `stead up {machine}` boots it and continues"
                ),
                _ => match source.help() {
                    Some(help) if !is_about_sync(&help.to_string()) => help.to_string(),
                    _ => format!("`{again}` tries again; rsync(1) lists the exit codes"),
                },
            },
            source: Box::new(source),
        }
    }

    /// Whether the reason is only that the connection was lost.
    pub fn is_cut_off(&self) -> bool {
        match self {
            ProvisionError::ScriptCutOff { .. }
            | ProvisionError::Ansible(AnsibleError::CutOff { .. }) => true,
            ProvisionError::Copy { source, .. } => source.is_cut_off(),
            // A guest that goes down ends what runs in it.
            ProvisionError::Script { code, .. } => *code == 128 + SIGTERM,
            _ => false,
        }
    }
}
