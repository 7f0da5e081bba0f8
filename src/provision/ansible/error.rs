use std::{fmt, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{guest::GuestError, host::process::ProgramError, report::clean::Shown};

use super::output::Watch;

#[derive(Debug, Error, Diagnostic)]
pub enum AnsibleError {
    #[error("{at}: `ansible` runs {program} of this host, and that is not installed")]
    #[diagnostic(help(
        "install it (Debian: `apt install ansible-core`; elsewhere: `pipx install ansible-core`), or write `ansible-local`, which runs Ansible in the machine"
    ))]
    Missing { at: String, program: &'static str },
    #[error("{at}: Ansible is {version} here, and stead needs 2.14 or newer")]
    #[diagnostic(help(
        "`pipx install ansible-core` gets a newer one; or write `ansible-local`, which runs Ansible in the machine"
    ))]
    TooOld { at: String, version: String },
    #[error("{at}: the vault password file {path} cannot be read: {source}", path = path.shown())]
    #[diagnostic(help("put the password there, or change `vault-password-file`"))]
    VaultFile {
        at: String,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot {doing} {path}: {source}", path = path.shown())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Run(#[from] ProgramError),
    #[error("the requirements {file} could not be installed: {said}", file = file.shown())]
    #[diagnostic(help(
        "nothing was changed; what ansible-galaxy said is above; `ansible-galaxy install -r {file}` tries it by hand", file = file.shown()
    ))]
    Requirements { file: PathBuf, said: String },
    #[error("{0}")]
    #[diagnostic(help("{}", .0.hint()))]
    Failed(Box<Ended>),
    #[error("provisioner {name} was cut off: the connection to {machine} broke")]
    #[diagnostic(help(
        "`stead status` says whether the machine still runs; `stead logs {machine}` shows its console"
    ))]
    CutOff { name: String, machine: String },
    #[error("{at}: there is no Ansible in {machine}")]
    #[diagnostic(help(
        "write install=\"package\" (the guest's packages) or install=\"pip\", install it by a provisioner before this one, or use a box that has it"
    ))]
    NotInGuest { at: String, machine: String },
    #[error("{at}: Ansible is {version} in {machine}, and stead needs 2.14 or newer")]
    #[diagnostic(help(
        "install=\"pip\" gets a newer one into a folder of its own; so does a newer box"
    ))]
    TooOldInGuest {
        at: String,
        machine: String,
        version: String,
    },
    #[error("Ansible could not be installed in {machine}: {said}")]
    #[diagnostic(help(
        "the machine is up: look around with `stead ssh {machine}`; {again} tries again"
    ))]
    NotInstalled {
        machine: String,
        said: String,
        again: String,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
}

/// How a run of ansible-playbook ended that did not end well.
#[derive(Debug)]
pub struct Ended {
    /// The provisioner's name.
    pub name: String,
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub watch: Watch,
    /// The command that tries it again.
    pub again: String,
    /// The machine to look around in, where it is one alone.
    pub look: Option<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.code {
            Some(code) => format!("ansible-playbook ended with exit code {code}"),
            None => "ansible-playbook was killed".into(),
        };
        let name = &self.name;
        match (self.watch.failed(), self.watch.error()) {
            (Some(failure), _) if failure.unreachable => {
                let host = &failure.host;
                write!(f, "provisioner {name}: {host} could not be reached ({how})")
            }
            (Some(failure), _) => {
                let host = &failure.host;
                match &failure.task {
                    Some(task) => {
                        write!(
                            f,
                            "provisioner {name}: task {task:?} failed on {host} ({how})"
                        )
                    }
                    None => write!(f, "provisioner {name} failed on {host} ({how})"),
                }
            }
            (None, Some(error)) => write!(f, "provisioner {name}: {error} ({how})"),
            (None, None) => write!(f, "provisioner {name}: {how}"),
        }
    }
}

impl Ended {
    fn hint(&self) -> String {
        let again = format!("`{}` runs it again", self.again);
        let said = self.watch.error().unwrap_or_default();
        if said.contains("vault") || said.contains("Decryption failed") {
            return format!(
                "see that `vault-password-file` names the file with the password that these were encrypted with; {again}"
            );
        }
        let Some(failed) = self.watch.failed() else {
            return format!("what Ansible said is above; {again}");
        };
        if self.watch.lacks_python() {
            return format!(
                "Ansible needs Python 3 with all of its standard library in {}: install it by a provisioner of the machine's own that comes first (Debian: `apt-get install python3`); {again}",
                failed.host
            );
        }
        let machine = self.look.as_ref().unwrap_or(&failed.host);
        format!("{again}; `stead ssh {machine}` looks around")
    }
}
