use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::report::clean::Shown;

#[derive(Debug, Error, Diagnostic)]
pub enum TrustError {
    #[error("cannot read {}: {source}", path.shown())]
    #[diagnostic(help(
        "what a project runs on this computer is looked at before it runs; put the file back, or change the Machinefile"
    ))]
    Read { path: PathBuf, source: io::Error },
    #[error("nobody has agreed that this project {what}")]
    #[diagnostic(help("`stead trust` shows what it would do to this computer, and asks"))]
    NotAgreed { what: String },
    #[error("{what}: this changed after you agreed to it: {}", files.join(", "))]
    #[diagnostic(help(
        "look at what changed, and run the command again, which asks again; `stead trust --edits` agrees to edits too"
    ))]
    Changed { what: String, files: Vec<String> },
    #[error("cannot {doing} {}: {source}", path.shown())]
    #[diagnostic(help("what you agreed to is kept there; it has to be a folder of your own"))]
    Store {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} {why}", path.shown())]
    #[diagnostic(help("what you agreed to is kept there; remove it, and stead asks again"))]
    Unusable { path: PathBuf, why: String },
}
