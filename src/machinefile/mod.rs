//! Reads a `Machinefile` (KDL v2) into a [`Project`], with each error at its span.
//!
//! `syntax` reads files into nodes, `decode` turns nodes into drafts, and `check` joins drafts into machines and
//! checks them together. All errors are collected and reported at once.

mod ansible;
mod block;
mod check;
mod cpu_set;
mod decode;
mod diagnostics;
mod format;
mod interpolate;
mod inventory;
mod misread;
pub mod model;
mod names;
mod paths;
mod syntax;
mod template;
mod tuning;
mod units;
mod user_data;
mod variables;

use std::path::{Path, PathBuf};

pub use ansible::{ALL, AnsibleInstall, Group, Playbook, Vars, VaultPassword, group_name};
pub use check::Outline;
pub use cpu_set::CpuSet;
pub use diagnostics::{MachinefileError, MachinefileErrors, Span};
pub use format::{format, read as read_to_format};
pub use inventory::implied_groups;
pub use model::{
    Accel, Bytes, Cmdline, Cpu, CpuLike, Forward, Hook, HookRuns, HostCommand, HostSource,
    Invocation, Kernel, KernelBoot, KernelSource, Libvirt, Machine, Moment, Project,
    ProjectProvisioner, Provisioner, ProvisionerKind, Ready, RunPolicy, ScriptSource, Shell,
    SyncFolder, SyncKind, Text,
};
pub use template::template;
pub use tuning::{
    CpuTuning, DEFAULT_SHARES, DiskTuning, HostReserve, MemoryTuning, Spans, Topology, Tuning,
    is_default,
};
pub use units::duration;
pub use user_data::{FORMS as USER_DATA_FORMS, Form, UserData, read as read_user_data};
pub use variables::Variable;

/// The name of a project's file.
pub const MACHINEFILE: &str = "Machinefile";

/// A user's own additions, beside the Machinefile and not under version control.
pub const LOCAL: &str = "Machinefile.local";

pub use syntax::LARGEST;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a Machinefile, the files that it includes, and the Machinefile.local beside it.
///
/// # Errors
/// All mistakes, each at its span.
pub fn load(file: &Path, env: Environment<'_>) -> Result<Project, MachinefileErrors> {
    let mut errors = Vec::new();
    let variables = variables::Variables::new(env);
    let project = syntax::read(file, &mut errors).and_then(|files| {
        if misread::check(&files, &mut errors) {
            return None;
        }
        let drafts = decode::decode(&files, &variables, &mut errors);
        // What seems to be missing may be in the part that could not be read.
        files.whole.then_some(())?;
        check::check(&files, drafts, &mut errors)
    });
    match project {
        Some(mut project) if errors.is_empty() => {
            project.variables = variables.taken();
            Ok(project)
        }
        _ => Err(MachinefileErrors::new(errors)),
    }
}

/// What a Machinefile names that [`load`] refuses; `None` where not even that can be read, since
/// something of it is no KDL or cannot be included.
pub fn outline(file: &Path, env: Environment<'_>) -> Option<Outline> {
    let mut errors = Vec::new();
    let files = syntax::read(file, &mut errors).filter(|files| files.whole)?;
    let variables = variables::Variables::new(env);
    Some(check::outline(&decode::decode(
        &files,
        &variables,
        &mut errors,
    )))
}

/// The nearest Machinefile in a folder or above it, whatever lies there under that name; but folders, which
/// above may be called like it.
pub fn find(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|folder| folder.join(MACHINEFILE))
        .enumerate()
        .find(|(above, path)| path.symlink_metadata().is_ok() && (*above == 0 || !path.is_dir()))
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests;
