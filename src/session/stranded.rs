//! Machines of a project whose folder was moved.

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

/// Whether nothing is left where it was, or what is there is this project by another name.
pub fn is_moved(old: &Owner, new: &Owner) -> bool {
    old.is_gone() || old.path().canonicalize().ok() == new.path().canonicalize().ok()
}

/// What to say where machines are not there whose namesakes wait in a project that was moved here, and the
/// way out.
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
                "if the project was moved here, `stead adopt` takes its machines over, with their disks; `stead destroy --project {root}` removes them; a project of its own needs another name"
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

/// Fails where `up` would make such machines anew: whoever moves a folder means the machines that they have.
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

/// Says it where a command finds nothing to do.
pub fn say_stranded(session: &Session, survey: &Survey, targets: &[Target]) {
    if let Some((message, hint)) = stranded(session, survey, &absent(targets)) {
        warn(&format!("{message}; {hint}"));
    }
}
