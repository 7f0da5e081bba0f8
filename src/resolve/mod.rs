//! Resolves the names in a Machinefile to bytes and settings: boxes, kernels, CPUs, shared folders.
//! Fetches what is missing, and pins what a name resolved to in the lock file.

pub mod box_fetch;
pub mod box_pins;
pub mod boxes;
pub mod catalogues;
pub mod cmdline;
pub mod cpu;
pub mod firmware;
pub mod kernel;
pub mod kernel_pins;
pub mod lockfile;
pub mod package;
pub mod request;
pub mod shares;

use crate::{boxes::Store, host::paths::DataDir, machinefile::Project};

use catalogues::Catalogues;
use lockfile::LockFile;

/// Everything that decides what names of a project resolve to.
#[derive(Clone, Copy)]
pub struct Resolver<'a> {
    pub project: &'a Project,
    pub data: &'a DataDir,
    pub store: &'a Store,
    pub lock_file: &'a LockFile,
    pub catalogues: &'a Catalogues,
}
