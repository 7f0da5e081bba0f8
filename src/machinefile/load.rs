//! Reads a project, or only its outline, with all mistakes.

use std::path::Path;

use super::{
    Outline, Project, check, decode,
    diagnostics::{Errors, MachinefileErrors},
    misread, syntax,
    variables::{Environment, Variables},
};

/// Reads a Machinefile, the files that it includes, and the Machinefile.local beside it.
///
/// # Errors
/// All mistakes, each at its span.
pub fn load(file: &Path, env: Environment<'_>) -> Result<Project, MachinefileErrors> {
    let mut errors = Errors::default();
    let variables = Variables::new(env);
    let project = syntax::read(file, &mut errors).and_then(|files| {
        if misread::check(&files, &mut errors) {
            return None;
        }
        let drafts = decode::decode(&files, &variables, &mut errors);
        // A node that seems to be missing may be in a part that was not read.
        files.whole.then_some(())?;
        check::check(&files, drafts, &mut errors)
    });
    match project {
        Some(mut project) if errors.is_empty() => {
            project.variables = variables.taken();
            project.warnings = errors.warnings();
            Ok(project)
        }
        _ => Err(MachinefileErrors::of(errors, &variables.taken())),
    }
}

/// Returns the names in a Machinefile that [`load`] rejects. `None` if it is not valid KDL, or if a file that it
/// includes cannot be read.
pub fn outline(file: &Path, env: Environment<'_>) -> Option<Outline> {
    let mut errors = Errors::default();
    let files = syntax::read(file, &mut errors).filter(|files| files.whole)?;
    let variables = Variables::new(env);
    Some(check::outline(&decode::decode(
        &files,
        &variables,
        &mut errors,
    )))
}
