//! Why stead does not run what a project asks for.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::report::clean::Shown;

#[derive(Debug, Error, Diagnostic)]
pub enum TrustError {
    #[error("cannot read {}: {source}", path.shown())]
    #[diagnostic(help(
        "stead reads every file before it runs on this computer; restore the file, or change the Machinefile"
    ))]
    Read { path: PathBuf, source: io::Error },
    #[error("nobody has agreed that this project {what}")]
    #[diagnostic(help("`stead trust` shows what it would do to this computer, and asks"))]
    NotAgreed { what: String },
    #[error("{what}: files changed after you agreed to them: {}", files.join(", "))]
    #[diagnostic(help(
        "check what changed, and re-run the command, which asks again; `stead trust --edits` also agrees to later edits"
    ))]
    Changed { what: String, files: Vec<String> },
    #[error("cannot {doing} {}: {source}", path.shown())]
    #[diagnostic(help("stead keeps your agreements there; it must be a folder of your own"))]
    Store {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} {why}", path.shown())]
    #[diagnostic(help("stead keeps your agreements there; remove it, and stead asks again"))]
    Unusable { path: PathBuf, why: String },
}
