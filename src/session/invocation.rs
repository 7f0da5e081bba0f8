//! How stead was called: where to work, and how to report.

use std::path::PathBuf;

use crate::report::{ColorChoice, Style};

/// Options of every command.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The folder to run in.
    pub directory: Option<PathBuf>,
    /// The Machinefile. `None`: search for one.
    pub file: Option<PathBuf>,
    /// libvirt's URI. `None`: the project's, or the default.
    pub connect: Option<String>,
    /// The hash that `--trust` agrees to.
    pub trust: Option<String>,
    pub style: Style,
    pub color: ColorChoice,
}
