//! Machines in states that stead did not cause: paused, saved, on a foreign disk, or with foreign
//! devices.

use crate::{
    apply,
    failure::Failure,
    guest::MachineFiles,
    machine::{Additions, ForeignDisk, Identity, Observed, Power, ShareKind},
    plan::{Plan, Step},
    report::{Event, EventKind, clean::Shown},
    sync::virtiofs::{self, SharePaths},
};

use super::{Session, operation::Operation, target::Target};

/// Fails with the reason unless the machine is running.
pub fn need_running<'a>(
    name: &str,
    observed: Option<&'a Observed>,
) -> Result<&'a Observed, Failure> {
    let Some(observed) = observed else {
        return Err(Failure::error(
            format!("machine {name} has not been made yet"),
            format!("`stead up {name}` makes and boots it"),
        ));
    };
    match (observed.power, &observed.condition.pause) {
        (Power::Running, _) => Ok(observed),
        (Power::Paused, Some(pause)) => Err(Failure::error(
            format!("machine {name} is paused: {pause}"),
            apply::remedy(name, pause, &resumes(name)),
        )),
        (Power::Paused, None) => Err(Failure::error(
            format!("machine {name} is paused"),
            resumes(name),
        )),
        (Power::Stopping, _) => Err(Failure::error(
            format!("machine {name} is shutting down"),
            format!("`stead up {name}` boots it again once it is off"),
        )),
        (Power::Off, _) if observed.condition.saved => Err(Failure::error(
            format!("machine {name} is not running: it is saved (`virsh managedsave`)"),
            format!("`stead up {name}` continues from there"),
        )),
        (Power::Off, _) => Err(Failure::error(
            format!("machine {name} is not running"),
            format!("`stead up {name}` boots it"),
        )),
    }
}

/// Returns an error and its fix if the keys of a running machine are lost.
fn lost_keys(session: &Session, name: &str, identity: &Identity) -> Option<(String, String)> {
    (!session.files(identity).has_keys()).then(|| {
        (
            format!("the keys of machine {name} are lost, so stead cannot log in to it"),
            format!(
                "`stead restart {name}` makes new keys; its next boot installs them if its box can"
            ),
        )
    })
}

/// Fails if the machine's keys are lost.
pub fn need_keys(session: &Session, name: &str, identity: &Identity) -> Result<(), Failure> {
    match lost_keys(session, name, identity) {
        Some((message, hint)) => Err(Failure::error(message, hint)),
        None => Ok(()),
    }
}

fn resumes(name: &str) -> String {
    format!("`stead up {name}` resumes it")
}

/// Returns the machine's disk if it is a foreign one, now or at the next boot.
fn foreign_disk<'a>(
    session: &Session,
    observed: &'a Observed,
) -> Option<(ForeignDisk, &'a Observed)> {
    let images = session.data.images();
    (observed.condition.live.iter())
        .chain(&observed.condition.next)
        .find_map(|definition| definition.foreign_disk(&observed.identity, &images))
        .map(|found| (found, observed))
}

/// Returns what is wrong with a machine's disk, and the fix.
pub fn disk_trouble(session: &Session, observed: &Observed) -> Option<(String, String)> {
    let (foreign, observed) = foreign_disk(session, observed)?;
    let machine = &observed.record.machine;
    let images = session.data.images();
    Some(apply::foreign_disk(
        machine,
        &observed.identity,
        &foreign,
        &images,
    ))
}

/// Fails if one of the machines would boot from a disk that lacks its last writes.
pub fn need_own_disks<'a>(
    session: &Session,
    targets: impl IntoIterator<Item = &'a Target>,
) -> Result<(), Failure> {
    for target in targets {
        if let Some(observed) = &target.existing.observed
            && let Some((message, hint)) = disk_trouble(session, observed)
        {
            return Err(Failure::error(message, hint));
        }
    }
    Ok(())
}

/// As [`need_own_disks`], for machines that the plan defines again.
pub fn need_own_disks_to_boot(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    let boots = (plan.machines.iter())
        .filter(|machine| (machine.steps.iter()).any(|step| matches!(step, Step::Define { .. })))
        .map(|machine| machine.machine.as_str());
    let names: Vec<&str> = boots.collect();
    let concerned = (operation.targets.iter())
        .filter(|target| names.contains(&target.wanted.machine.name.as_str()));
    need_own_disks(&operation.session, concerned)
}

/// Reports what to do before the next boot of machines that were halted on such a disk.
pub fn say_foreign_disks(operation: &Operation) {
    for target in &operation.targets {
        if let Some(observed) = (target.existing.observed.as_ref()).filter(|it| it.is_up())
            && let Some((message, remedy)) = disk_trouble(&operation.session, observed)
        {
            operation.reporter.event(&Event::now(
                &target.wanted.machine.name,
                EventKind::Notice {
                    message: format!("{message}; before its next boot: {remedy}"),
                },
            ));
        }
    }
}

/// Returns a line about what happens to a snapshot's file when the machine is destroyed.
pub fn snapshots_go(session: &Session, observed: &Observed) -> Option<String> {
    let (foreign, _) = foreign_disk(session, observed)?;
    let source = foreign.source?;
    let machine = &observed.record.machine;
    let ours = (source.file_name())
        .is_some_and(|name| observed.identity.owns(&name.to_string_lossy()))
        && source.parent() == Some(&session.data.images());
    let source = source.shown();
    Some(match (ours, foreign.over_own) {
        (true, _) => format!("{machine} has a snapshot, whose file is deleted too: {source}"),
        (false, true) => format!(
            "{machine} has a snapshot in {source}, which is outside stead's folder: the file is kept, but is useless without the machine's disk"
        ),
        (false, false) => {
            format!("the disk of {machine} is {source}, which stead did not make: the file is kept")
        }
    })
}

fn additions(session: &Session, observed: &Observed) -> Additions {
    let files = session.files(&observed.identity);
    (observed.condition.next.clone())
        .map(|next| apply::additions(next, &observed.identity, &session.data.images(), &files))
        .unwrap_or_default()
}

/// Reports foreign additions to the domains of machines that the plan boots.
pub fn say_additions(operation: &Operation, plan: &Plan) {
    for machine in plan.machines.iter().filter(|machine| machine.boots()) {
        let target =
            (operation.targets.iter()).find(|target| target.wanted.machine.name == machine.machine);
        let Some(observed) = target.and_then(|it| it.existing.observed.as_ref()) else {
            continue;
        };
        for message in added_notes(&additions(&operation.session, observed)) {
            operation
                .reporter
                .event(&Event::now(&machine.machine, EventKind::Notice { message }));
        }
    }
}

fn added_notes(additions: &Additions) -> Vec<String> {
    let mut kept: Vec<String> = (additions.devices.iter())
        .map(|device| device.words.clone())
        .collect();
    if !additions.arguments.is_empty() {
        kept.push(format!("QEMU's {}", additions.arguments.join(" ")));
    }
    let mut notes = Vec::new();
    if !kept.is_empty() {
        notes.push(format!(
            "keeps what was added to its domain by hand: {}",
            kept.join(", ")
        ));
    }
    if !additions.left_out.is_empty() {
        notes.push(format!(
            "loses at its next boot what was added to its domain by hand: {} (stead keeps only devices, arguments of QEMU, metadata and the description)",
            additions.left_out.join(", ")
        ));
    }
    notes
}

/// Returns the notes of `status` about such states.
pub fn notes(session: &Session, observed: &Observed) -> Vec<String> {
    let machine = &observed.record.machine;
    let condition = &observed.condition;
    let mut notes = Vec::new();
    if let Some(pause) = &condition.pause {
        let remedy = apply::remedy(machine, pause, &resumes(machine));
        notes.push(format!("is paused: {pause}; {remedy}"));
    }
    if condition.rebooting {
        notes.push(format!(
            "does not answer any more: its guest reboots or shuts down by itself; `stead logs {machine} --follow` shows its console, and `stead up {machine}` waits for it"
        ));
    }
    if condition.saved {
        notes.push(format!(
            "is saved with its memory (`virsh managedsave`); `stead up {machine}` continues from there"
        ));
    }
    if condition.failed {
        notes.push(format!(
            "ended without a shutdown: QEMU was killed or crashed; `stead up {machine}` boots it again"
        ));
    }
    if let Some((message, remedy)) = disk_trouble(session, observed) {
        notes.push(format!("{message}; {remedy}"));
    }
    if observed.is_up()
        && let Some((message, remedy)) = lost_keys(session, machine, &observed.identity)
    {
        notes.push(format!("{message}; {remedy}"));
    }
    notes.extend(added_notes(&additions(session, observed)));
    notes
}

/// Returns a line for each shared folder whose virtiofsd has ended while the machine runs.
pub fn cut_off(observed: &Observed, files: &MachineFiles) -> Vec<String> {
    if !observed.is_up() {
        return Vec::new();
    }
    (observed.record.spec.shares.iter())
        .filter(|share| share.kind == ShareKind::Virtiofs)
        .filter(|share| !virtiofs::is_served(&SharePaths::of(share, files)))
        .map(|share| {
            format!(
                "{} is cut off from the host: its virtiofsd has ended (see the end of {}); `stead restart {}` fixes it",
                share.to,
                files.share_log(&share.tag()).shown(),
                observed.record.machine
            )
        })
        .collect()
}
