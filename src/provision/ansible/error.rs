//! Why Ansible cannot run, and which of its tasks failed.

use std::{fmt, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    guest::GuestError,
    host::process::{Asked, ProgramError},
    provision::asking::NOBODY,
    report::clean::Shown,
};

use super::output::{Lack, Watch};

#[derive(Debug, Error, Diagnostic)]
pub enum AnsibleError {
    #[error("{at}: `ansible` needs {program} on this host, but it is not installed")]
    #[diagnostic(help(
        "install it (Debian: `apt install ansible-core`; elsewhere: `pipx install ansible-core`), or use `ansible-local`, which runs Ansible in the machine"
    ))]
    Missing { at: String, program: &'static str },
    #[error("{at}: stead needs Ansible 2.14 or newer, but this host has {version}")]
    #[diagnostic(help(
        "install a newer one with `pipx install ansible-core`, or use `ansible-local`, which runs Ansible in the machine"
    ))]
    TooOld { at: String, version: String },
    #[error("{at}: cannot read the vault password file {path}: {source}", path = path.shown())]
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
    #[error("cannot install the requirements in {file}: {said}", file = file.shown())]
    #[diagnostic(help(
        "nothing was changed; the output of ansible-galaxy is above; to try it by hand, run `ansible-galaxy install -r {file}`", file = file.shown()
    ))]
    Requirements { file: PathBuf, said: String },
    #[error("{0}")]
    #[diagnostic(help("{}", .0.hint()))]
    Failed(Box<FailedRun>),
    /// Without the provisioner, which is added where it is known.
    #[error("nobody answers {:?}", .0.words)]
    Unanswered(Box<Asked>),
    #[error("provisioner {name}: {program} asks {words:?} for {playbook}, {NOBODY}")]
    #[diagnostic(help("{hint}"))]
    Asks {
        name: String,
        program: &'static str,
        /// Its path in the project.
        playbook: String,
        words: String,
        hint: String,
    },
    #[error(
        "provisioner {name}: Ansible in machine {machine} asks {words:?} for {playbook}, but nobody can answer there"
    )]
    #[diagnostic(help("{hint}"))]
    AsksInGuest {
        name: String,
        playbook: String,
        machine: String,
        words: String,
        hint: String,
    },
    #[error("lost the connection to {machine} while provisioner {name} ran")]
    #[diagnostic(help(
        "`stead status` shows whether the machine still runs; `stead logs {machine}` shows its console"
    ))]
    CutOff { name: String, machine: String },
    #[error("{at}: Ansible is not installed in machine {machine}")]
    #[diagnostic(help(
        "set install=\"package\" (the guest's packages) or install=\"pip\", install it with an earlier provisioner, or use a box that has it"
    ))]
    NotInGuest { at: String, machine: String },
    #[error("{at}: stead needs Ansible 2.14 or newer, but machine {machine} has {version}")]
    #[diagnostic(help(
        "set install=\"pip\" to install a newer one in a folder of its own, or use a newer box"
    ))]
    TooOldInGuest {
        at: String,
        machine: String,
        version: String,
    },
    #[error("cannot install Ansible in machine {machine}: {said}")]
    #[diagnostic(help(
        "the machine is running: inspect it with `stead ssh {machine}`; {again} tries again"
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

/// A run of ansible-playbook that failed.
#[derive(Debug)]
pub struct FailedRun {
    /// The provisioner's name.
    pub name: String,
    /// `None`: killed by a signal.
    pub code: Option<i32>,
    pub watch: Watch,
    /// The command that runs it again.
    pub again: String,
    /// The machine to inspect, if the run was over one machine alone.
    pub inspect: Option<String>,
}

impl fmt::Display for FailedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.code {
            Some(code) => format!("ansible-playbook ended with exit code {code}"),
            None => "ansible-playbook was killed".into(),
        };
        let name = &self.name;
        match (self.watch.failed(), self.watch.error()) {
            (Some(failure), _) if failure.unreachable => {
                let host = &failure.host;
                write!(f, "provisioner {name}: cannot reach {host} ({how})")
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

impl FailedRun {
    fn hint(&self) -> String {
        let again = format!("`{}` runs it again", self.again);
        let said = self.watch.error().unwrap_or_default();
        if said.contains("vault") || said.contains("Decryption failed") {
            return format!(
                "check that `vault-password-file` has the password that the files were encrypted with; {again}"
            );
        }
        let Some(failed) = self.watch.failed() else {
            return format!("the output of Ansible is above; {again}");
        };
        let host = &failed.host;
        match self.watch.lacks() {
            Some(Lack::Python) => {
                return format!(
                    "Ansible needs Python 3 with its whole standard library in {host}: install it with an earlier provisioner of the machine (Debian: `apt-get install python3`); {again}"
                );
            }
            Some(Lack::NewerPython) => {
                return format!(
                    "the Python of {host} is too old for this Ansible: use an older one (`pipx install 'ansible-core==2.16.*'` works with Python 2.7 and from 3.6 on), or set `vars ansible_python_interpreter=\"/usr/bin/python3.X\"` to a newer Python of the machine; {again}"
                );
            }
            Some(Lack::Silence) => {
                return format!(
                    "the login files of {host} print text by themselves (.bashrc, config.fish, /etc/profile.d), and Ansible cannot find Python in it: have them print at a terminal only (`[ -t 1 ]`), or set `vars ansible_python_interpreter=\"/usr/bin/python3\"`; {again}"
                );
            }
            None => {}
        }
        let machine = self.inspect.as_ref().unwrap_or(&failed.host);
        format!("inspect the machine with `stead ssh {machine}`; {again}")
    }
}
