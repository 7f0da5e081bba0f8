//! The boxes of a project: fetched where they are missing, pinned in its lock file.

use std::path::Path;

use crate::{
    boxes::{Origin, Source, StoredBox},
    lockfile::{Entry, LOCK_FILE, NamedBox},
    report::clean::Shown,
};

use super::{
    Failure,
    fetch::fetch,
    kernels::{kernels_are_pinned, pin_kernels},
    session::{Session, origin_key},
    wanted::{Wanted, wanted},
    work::Work,
};

/// Fetches the boxes of machines that have to be made or booted, where they are not here. Says
/// whether there were any.
pub fn fetch_missing(work: &mut Work, machines: &[String]) -> Result<bool, Failure> {
    let mut missing: Vec<Wanted> = Vec::new();
    for subject in &work.subjects {
        let machine = &subject.wanted.machine;
        if subject.leftover || subject.stored_box.is_some() || !machines.contains(&machine.name) {
            continue;
        }
        if let Some(wanted) = wanted(&work.session, machine)?
            && !missing.iter().any(|other| other.key == wanted.key)
        {
            missing.push(wanted);
        }
    }
    if missing.is_empty() {
        return Ok(false);
    }
    fetch(
        &work.session.store,
        &work.session.data,
        missing,
        &work.reporter,
    )?;
    Ok(true)
}

/// Fails where the lock file is not what it would be after `pin`.
pub fn need_pinned(session: &Session) -> Result<(), Failure> {
    let arch = std::env::consts::ARCH;
    let project = &session.project;
    let pinned = project.machines.iter().all(|machine| {
        let reference = &machine.box_ref;
        if session.is_named(reference) {
            return session.lock_file.named(reference, arch).is_some();
        }
        let entry = session.lock_file.get(&machine.box_key, arch);
        let named = match Source::parse(reference, &project.root) {
            Ok(Source::Name) => !session.is_listed(reference),
            Ok(_) => false,
            Err(_) => true,
        };
        match entry {
            None => named,
            Some(entry) => {
                !named && (machine.box_sha256.as_ref()).is_none_or(|it| *it == entry.sha256)
            }
        }
    });
    let mut named = session.lock_file.clone();
    named.retain(|key| project.machines.iter().any(|m| m.box_key == key));
    named.retain_named(|reference| {
        let ours = project.machines.iter().any(|m| m.box_ref == reference);
        ours && session.is_named(reference)
    });
    pin_kernels(session, &mut named)?;
    if pinned && named == session.lock_file && kernels_are_pinned(session)? {
        return Ok(());
    }
    Err(Failure::error(
        format!(
            "{} would change, and --locked forbids it",
            place(&project.root)
        ),
        "run the same without --locked, and commit what it writes",
    ))
}

/// Pins what the project's boxes are.
pub fn pin(work: &mut Work) -> Result<(), Failure> {
    let arch = std::env::consts::ARCH;
    let session = &work.session;
    let mut lock = session.lock_file.clone();
    let references: Vec<&str> = (session.project.machines.iter())
        .map(|machine| machine.box_ref.as_str())
        .collect();
    lock.retain(|key| session.is_pin_of_a_place(key));
    lock.retain_named(|reference| references.contains(&reference) && session.is_named(reference));
    for machine in &session.project.machines {
        let reference = &machine.box_ref;
        if session.is_named(reference) {
            // One of a machine that was not asked for may not be here.
            if lock.named(reference, arch).is_none()
                && let Ok(stored) = session.wanted_box(machine)
            {
                lock.set_named(reference, arch, pin_to_name(&stored));
            }
            continue;
        }
        let key = &machine.box_key;
        let pinned = match (&machine.box_sha256, lock.get(key, arch)) {
            (Some(sha256), Some(entry)) => *sha256 == entry.sha256,
            (None, entry) => entry.is_some(),
            (Some(_), None) => false,
        };
        if pinned || !session.may_be_pinned(reference) {
            continue;
        }
        let source = Source::parse(reference, &session.project.root).unwrap_or(Source::Name);
        let origin = origin_key(key, &source);
        // One of a machine that was not asked for may not be here.
        if let Ok(stored) = session.wanted_box(machine)
            && let Some((origin, _)) = session
                .store
                .by_reference_and_digest(&origin, &stored.digest)
        {
            lock.set(key, arch, pin_to(reference, &source, origin));
        }
    }
    pin_kernels(session, &mut lock)?;
    if lock == session.lock_file {
        return Ok(());
    }
    let (root, locks) = (&session.project.root, session.data.locks());
    work.session.lock_file = lock.save(&session.lock_file, root, &locks)?;
    Ok(())
}

/// An entry of the lock file. A path stays as it is written: it means something elsewhere too.
pub fn pin_to(reference: &str, source: &Source, origin: Origin) -> Entry {
    Entry {
        version: origin.version,
        url: match source {
            Source::File(_) => reference.to_string(),
            _ => origin.url,
        },
        sha256: origin.sha256,
        size: origin.size,
    }
}

/// An entry of a box that is known by name here.
pub fn pin_to_name(stored: &StoredBox) -> NamedBox {
    NamedBox {
        version: stored.manifest.version.clone(),
        digest: stored.digest.to_string(),
    }
}

fn place(root: &Path) -> String {
    root.join(LOCK_FILE).shown()
}
