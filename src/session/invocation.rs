//! How stead was called: where to work, and how to report.

use std::path::PathBuf;

use crate::report::{ColorChoice, Style};

/// Options that every command takes.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Work as if started in this folder.
    pub directory: Option<PathBuf>,
    /// The Machinefile, where it is not searched for.
    pub file: Option<PathBuf>,
    /// libvirt's URI, where neither the project nor the default counts.
    pub connect: Option<String>,
    /// The hash of what is agreed to for this once.
    pub trust: Option<String>,
    pub style: Style,
    pub color: ColorChoice,
}
