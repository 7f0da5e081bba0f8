//! Why a guest cannot be reached or used.

use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    host::{process::ProgramError, socket_folder::SocketFolderError},
    report::{bytes, clean::Shown},
};

#[derive(Debug, Error, Diagnostic)]
pub enum GuestError {
    #[error("cannot {doing} {path}: {source}", path = path.shown())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    SocketFolder(#[from] SocketFolderError),
    #[error("{program} is not installed")]
    #[diagnostic(help("install it (Debian: `apt install {package}`)"))]
    MissingProgram {
        program: &'static str,
        package: &'static str,
    },
    #[error("{program} failed: {message}")]
    Program {
        program: &'static str,
        message: String,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Run(#[from] ProgramError),
    #[error("{machine} printed more than {}, but a few lines were expected", bytes(*limit))]
    #[diagnostic(help(
        "something in the guest prints at every login (for example a shell's start-up file), or the guest is hostile; `stead ssh {machine}` shows what it prints"
    ))]
    TooMuch { machine: String, limit: u64 },
    #[error("cannot write the cloud-init seed: {0}")]
    SeedDisk(String),
    #[error("cannot use the user-data {path}: {message}", path = path.shown())]
    #[diagnostic(help("{}", crate::machinefile::USER_DATA_FORMS))]
    UserData { path: PathBuf, message: String },
}

impl GuestError {
    pub(super) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| GuestError::File {
            doing,
            path,
            source,
        }
    }

    /// Wraps an error of starting ssh, or of waiting for its end.
    pub(super) fn ssh(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => GuestError::MissingProgram {
                program: "ssh",
                package: "openssh-client",
            },
            _ => GuestError::Program {
                program: "ssh",
                message: error.to_string(),
            },
        }
    }
}
