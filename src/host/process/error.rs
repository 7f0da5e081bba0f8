//! Errors of programs that stead runs.

use std::{io, path::PathBuf, time::Duration};

use miette::Diagnostic;
use thiserror::Error;

use super::question::Asked;
use crate::report::clean::Shown;

/// Why a program failed.
#[derive(Debug, Error, Diagnostic)]
pub enum ProgramError {
    #[error("{program} is not installed")]
    #[diagnostic(help("install it (Debian: `apt install {package}`)"))]
    NotInstalled {
        program: String,
        package: &'static str,
    },
    #[error("cannot run {program} in {folder}: the folder does not exist", folder = folder.shown())]
    NoFolder { program: String, folder: PathBuf },
    #[error("cannot run {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error(
        "{program} timed out after {limit:?}, and was killed with everything that it had started"
    )]
    TimedOut { program: String, limit: Duration },
    #[error(
        "{program} printed more than {limit} bytes, and was killed with everything that it had started"
    )]
    TooMuch { program: String, limit: usize },
    #[error("stead cannot read what `{program}` printed: {why}")]
    #[diagnostic(help("update stead, or report it with the output of that command"))]
    Unreadable { program: String, why: String },
    #[error("{program} asks {:?}, and nobody answers", asked.words)]
    Unanswered { program: String, asked: Box<Asked> },
    #[error("{program} was interrupted")]
    Interrupted { program: String },
    #[error("{program} failed ({status}){message}", message = said(message))]
    Failed {
        program: String,
        /// Such as "exit status: 1".
        status: String,
        /// The end of stderr.
        message: String,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}
