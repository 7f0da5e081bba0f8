//! `box pack`: makes the copy of a machine that becomes a box.

use std::path::Path;

use crate::{
    boxes::{Destination, Manifest, Packing, StoredBox, ensure_room},
    failure::Failure,
    machine::{Observed, Phase, Power},
    plan::{self, Existing},
    report::reporter,
    session::{
        Session, condition::need_own_disks, invocation::Invocation, operation::Operation,
        target::Target,
    },
};

/// Returns the copy to make of the packed machine, and the box that both are made from.
pub fn prepare(operation: &Operation, packing: &Packing) -> Result<(Target, StoredBox), Failure> {
    let target = operation
        .targets
        .first()
        .ok_or_else(|| Failure::error("no machine to pack", crate::report::BUG))?;
    let machine = target.wanted.machine.name.clone();
    let there = match &target.existing.observed {
        Some(observed) if observed.record.phase == Phase::Created => observed.clone(),
        Some(_) => {
            return Err(Failure::error(
                format!(
                    "machine {machine} is incomplete: an `up` or `destroy` of it was interrupted"
                ),
                format!("`stead up {machine}` completes it"),
            ));
        }
        None => {
            return Err(Failure::error(
                format!("machine {machine} has not been made yet"),
                format!("`stead up {machine}` makes and boots it"),
            ));
        }
    };
    if let Some(failure) = &target.no_box {
        return Err(failure.clone());
    }
    let identity = operation.session.identity(&plan::copy_name(&machine))?;
    let wanted = plan::copy_of(&target.wanted, &target.existing, identity);
    let (Some(wanted), Some(parent)) = (wanted, target.stored_box.clone()) else {
        return Err(Failure::error(
            format!("the box that machine {machine} was made from is not in the store"),
            "add the same box again with `stead box add`",
        ));
    };
    one_disk(&parent.manifest)?;
    need_own_disks(&operation.session, &operation.targets)?;
    let session = &operation.session;
    ensure_enough_room(session, &there, &parent, packing)?;
    let disk = session.data.images().join(wanted.identity.overlay());
    let existing = Existing {
        observed: session.connection.observe(&wanted.identity)?,
        disk: disk.exists(),
        needs_certificate: false,
    };
    let copy = Target {
        stored_box: Some(parent.clone()),
        ..Target::without_boot(wanted, existing, true)
    };
    Ok((copy, parent))
}

/// Fails unless there is enough space: the disk of a running machine is copied with its box, and the
/// new box is as large again.
pub fn ensure_enough_room(
    session: &Session,
    there: &Observed,
    parent: &StoredBox,
    packing: &Packing,
) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let images = session.data.images();
    let own = std::fs::metadata(images.join(there.identity.overlay()))
        .map_or(0, |metadata| metadata.blocks() * 512);
    let whole = session.store.disk_use(parent).saturating_add(own);
    let copies = if there.power == Power::Off { 1 } else { 2 };
    ensure_room(&images, whole.saturating_mul(copies))?;
    if let Destination::Image(format, out) = &packing.to
        && !format.is_compressed()
    {
        ensure_room(folder_of(out), whole)?;
    }
    Ok(())
}

/// Removes the copy, however packing ended. Returns false if that failed, after reporting it.
pub fn remove_copy(invocation: &Invocation, operation: &mut Operation) -> Result<bool, Failure> {
    for target in &mut operation.targets {
        let observed = operation
            .session
            .connection
            .observe(&target.wanted.identity)?;
        target.existing.disk = observed.is_some();
        target.existing.observed = observed;
    }
    if !invocation.style.verbose && !invocation.style.json {
        let style = crate::report::Style {
            quiet: true,
            ..invocation.style
        };
        operation.reporter = reporter(style, &[]);
    }
    let summary = operation.clear_away(plan::destroy(&operation.pairs()))?;
    Ok(summary.all_done())
}

pub fn folder_of(file: &Path) -> &Path {
    file.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Fails unless the box has a single disk, because the result is a single image.
pub fn one_disk(manifest: &Manifest) -> Result<(), Failure> {
    if manifest.more_disks.is_empty() {
        return Ok(());
    }
    Err(Failure::error(
        format!(
            "box {} has {} disks, but only a box with a single disk can be packed or exported",
            manifest.name,
            manifest.disks().count()
        ),
        "move the box with `stead box push`, or data with `stead copy`",
    ))
}
