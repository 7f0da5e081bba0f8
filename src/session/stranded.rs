//! Stranded machines: those of a project whose folder was moved.

use std::path::Path;

use crate::{
    failure::Failure,
    hypervisor::Survey,
    machine::{Observed, Owner},
    report::{clean::Shown, warn},
    session::{Session, operation::Operation, target::Target},
};

pub fn fits(observed: &Observed, new: &Owner, from: Option<&Path>) -> bool {
    let old = Owner::of_record(&observed.record);
    if new.owns(&observed.record) || old.path() == new.path() {
        return false;
    }
    match from {
        Some(path) => old.root == *path || old.path() == *path,
        None => old.project == new.project && is_moved(&old, new),
    }
}

/// Whether the old Machinefile is gone, or is this project under another path.
pub fn is_moved(old: &Owner, new: &Owner) -> bool {
    old.is_gone() || old.path().canonicalize().ok() == new.path().canonicalize().ok()
}

/// Returns an error and its fix if absent machines exist in a project of the same name whose folder
/// is gone.
pub fn stranded(session: &Session, survey: &Survey, absent: &[&str]) -> Option<(String, String)> {
    let new = session.owner();
    let found = (survey.machines.iter()).find(|observed| {
        absent.contains(&observed.record.machine.as_str()) && fits(observed, &new, None)
    });
    found.map(|observed| {
        let record = &observed.record;
        let root = record.root.shown();
        (
            format!(
                "machine {} of project {} was made in {root}, which is gone",
                record.machine, record.project
            ),
            format!(
                "if the project was moved here, take over its machines and disks with `stead adopt`; otherwise remove them with `stead destroy --project {root}`, or give this project another name"
                        ),
        )
    })
}

fn absent(targets: &[Target]) -> Vec<&str> {
    (targets.iter())
        .filter(|target| target.existing.observed.is_none())
        .map(|target| target.wanted.machine.name.as_str())
        .collect()
}

/// Fails if `up` would make new machines in place of stranded ones.
pub fn check_stranded(operation: &Operation) -> Result<(), Failure> {
    match stranded(
        &operation.session,
        &operation.survey,
        &absent(&operation.targets),
    ) {
        Some((message, hint)) => Err(Failure::error(message, hint)),
        None => Ok(()),
    }
}

/// Warns of stranded machines when a command finds nothing to do.
pub fn say_stranded(session: &Session, survey: &Survey, targets: &[Target]) {
    if let Some((message, hint)) = stranded(session, survey, &absent(targets)) {
        warn(&format!("{message}; {hint}"));
    }
}
