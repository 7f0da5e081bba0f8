//! Machines in states that stead did not bring about: paused, saved, on a disk that is not theirs,
//! with devices of others.

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

/// Fails, and says why, when nothing in the machine would answer now.
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
            format!("`stead up {name}` goes on from there"),
        )),
        (Power::Off, _) => Err(Failure::error(
            format!("machine {name} is not running"),
            format!("`stead up {name}` boots it"),
        )),
    }
}

/// Why nobody can log in to a machine that runs, and the way out; `None` where its keys are there.
fn lost_keys(session: &Session, name: &str, identity: &Identity) -> Option<(String, String)> {
    (!session.files(identity).has_keys()).then(|| {
        (
            format!("the keys of machine {name} are lost, so nobody can log in to it"),
            format!(
                "`stead restart {name}` makes new ones, and its next boot takes them where its box can"
            ),
        )
    })
}

/// Fails when nobody can log in to the machine, however well it runs.
pub fn need_keys(session: &Session, name: &str, identity: &Identity) -> Result<(), Failure> {
    match lost_keys(session, name, identity) {
        Some((message, hint)) => Err(Failure::error(message, hint)),
        None => Ok(()),
    }
}

fn resumes(name: &str) -> String {
    format!("`stead up {name}` resumes it")
}

/// The disk of a machine that is not its own, as it runs or as it would be booted.
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

/// What is wrong with a machine's disk, and the way out.
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

/// Fails when one of the machines would be booted from a disk that is older than what it has
/// written.
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

/// As [`need_own_disks`], of machines that the plan defines anew.
pub fn need_own_disks_to_boot(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    let boots = (plan.machines.iter())
        .filter(|machine| (machine.steps.iter()).any(|step| matches!(step, Step::Define { .. })))
        .map(|machine| machine.machine.as_str());
    let names: Vec<&str> = boots.collect();
    let concerned = (operation.targets.iter())
        .filter(|target| names.contains(&target.wanted.machine.name.as_str()));
    need_own_disks(&operation.session, concerned)
}

/// Says of machines that are halted on such a disk what has to be done before the next boot.
pub fn say_foreign_disks(operation: &Operation) {
    for target in &operation.targets {
        if let Some(observed) = (target.existing.observed.as_ref()).filter(|it| it.is_up())
            && let Some((message, remedy)) = disk_trouble(&operation.session, observed)
        {
            operation.reporter.event(&Event::now(
                &target.wanted.machine.name,
                EventKind::Notice {
                    message: format!("{message}; before it is booted again: {remedy}"),
                },
            ));
        }
    }
}

/// What becomes of snapshots' files when a machine is destroyed, as lines.
pub fn snapshots_go(session: &Session, observed: &Observed) -> Option<String> {
    let (foreign, _) = foreign_disk(session, observed)?;
    let source = foreign.source?;
    let machine = &observed.record.machine;
    let ours = (source.file_name())
        .is_some_and(|name| observed.identity.owns(&name.to_string_lossy()))
        && source.parent() == Some(&session.data.images());
    let source = source.shown();
    Some(match (ours, foreign.over_own) {
        (true, _) => format!("{machine} has a snapshot; its file goes too: {source}"),
        (false, true) => format!(
            "{machine} has a snapshot in {source}, which is not where stead keeps disks: that file stays, and is worth nothing without the machine's disk"
        ),
        (false, false) => {
            format!("the disk of {machine} is {source}, which stead did not make: that file stays")
        }
    })
}

fn additions(session: &Session, observed: &Observed) -> Additions {
    let files = session.files(&observed.identity);
    (observed.condition.next.clone())
        .map(|next| apply::additions(next, &observed.identity, &session.data.images(), &files))
        .unwrap_or_default()
}

/// What others put into the domains of machines that the plan boots: said before it is kept.
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
            "loses at its next boot what was added to its domain by hand: {} (stead keeps devices, arguments of QEMU, metadata and the description)",
            additions.left_out.join(", ")
        ));
    }
    notes
}

/// What `status` says of such a state.
pub fn notes(session: &Session, observed: &Observed) -> Vec<String> {
    let machine = &observed.record.machine;
    let condition = &observed.condition;
    let mut notes = Vec::new();
    if let Some(pause) = &condition.pause {
        let remedy = apply::remedy(machine, pause, &resumes(machine));
        notes.push(format!("is paused: {pause}; {remedy}"));
    }
    if condition.saved {
        notes.push(format!(
            "is saved, with what was in its memory (`virsh managedsave`); `stead up {machine}` goes on from there, as it was then"
        ));
    }
    if condition.failed {
        notes.push(format!(
            "went down without a shutdown: QEMU was killed or crashed; `stead up {machine}` boots it again"
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

/// Folders of a running machine that it has lost, because whoever served them has ended.
pub fn cut_off(observed: &Observed, files: &MachineFiles) -> Vec<String> {
    if !observed.is_up() {
        return Vec::new();
    }
    (observed.record.spec.shares.iter())
        .filter(|share| share.kind == ShareKind::Virtiofs)
        .filter(|share| !virtiofs::is_served(&SharePaths::of(share, files)))
        .map(|share| {
            format!(
                "{} is cut off from the host: its virtiofsd has ended ({} has its last words); `stead restart {}` mends it",
                share.to,
                files.share_log(&share.tag()).shown(),
                observed.record.machine
            )
        })
        .collect()
}
