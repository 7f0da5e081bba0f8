//! Pins a project's boxes and kernels in its lock file.

use std::path::Path;

use crate::{
    boxes::{Origin, Source, StoredBox},
    failure::Failure,
    report::clean::Shown,
    resolve::lockfile::{LOCK_FILE, LockedBox, NamedBox},
};

use super::{
    Resolver,
    boxes::origin_key,
    kernel_pins::{kernels_are_pinned, pin_kernels},
    lockfile::LockFile,
};

/// Fails if `pin` would change the lock file.
pub fn need_pinned(resolver: Resolver<'_>) -> Result<(), Failure> {
    let arch = std::env::consts::ARCH;
    let project = resolver.project;
    let pinned = project.machines.iter().all(|machine| {
        let reference = &machine.box_ref;
        if resolver.is_named(reference) {
            return resolver.lock_file.named(reference, arch).is_some();
        }
        let entry = resolver.lock_file.get(&machine.box_key, arch);
        let named = match Source::parse(reference, &project.root) {
            Ok(Source::Name) => !resolver.is_listed(reference),
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
    let mut named = resolver.lock_file.clone();
    named.retain(|key| project.machines.iter().any(|m| m.box_key == key));
    named.retain_named(|reference| {
        let ours = project.machines.iter().any(|m| m.box_ref == reference);
        ours && resolver.is_named(reference)
    });
    pin_kernels(resolver, &mut named)?;
    if pinned && named == *resolver.lock_file && kernels_are_pinned(resolver)? {
        return Ok(());
    }
    Err(Failure::error(
        format!(
            "{} would change, but --locked forbids that",
            place(&project.root)
        ),
        "run the same command without --locked, and commit the file",
    ))
}

/// Returns the lock file with the project's current boxes and kernels.
pub fn pinned(resolver: Resolver<'_>) -> Result<LockFile, Failure> {
    let arch = std::env::consts::ARCH;
    let mut lock = resolver.lock_file.clone();
    let references: Vec<&str> = (resolver.project.machines.iter())
        .map(|machine| machine.box_ref.as_str())
        .collect();
    lock.retain(|key| resolver.is_pin_of_a_machine(key));
    lock.retain_named(|reference| references.contains(&reference) && resolver.is_named(reference));
    for machine in &resolver.project.machines {
        let reference = &machine.box_ref;
        if resolver.is_named(reference) {
            // The box of a machine that the command does not act on may be missing.
            if lock.named(reference, arch).is_none()
                && let Ok(stored) = resolver.wanted_box(machine)
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
        if pinned || !resolver.may_be_pinned(reference) {
            continue;
        }
        let source = Source::parse(reference, &resolver.project.root).unwrap_or(Source::Name);
        let origin = origin_key(key, &source);
        // The box of a machine that the command does not act on may be missing.
        if let Ok(stored) = resolver.wanted_box(machine)
            && let Some((origin, _)) = resolver
                .store
                .by_reference_and_digest(&origin, &stored.digest)
        {
            lock.set(key, arch, pin_to(reference, &source, origin));
        }
    }
    pin_kernels(resolver, &mut lock)?;
    Ok(lock)
}

/// Returns an entry of the lock file. A path is kept as written, so that it works on other hosts too.
pub fn pin_to(reference: &str, source: &Source, origin: Origin) -> LockedBox {
    LockedBox {
        version: origin.version,
        url: match source {
            Source::File(_) => reference.to_string(),
            _ => origin.url,
        },
        sha256: origin.sha256,
        size: origin.size,
    }
}

/// Returns an entry of a box that is known by its name in the store.
pub fn pin_to_name(stored: &StoredBox) -> NamedBox {
    NamedBox {
        version: stored.manifest.version.clone(),
        digest: stored.digest.to_string(),
    }
}

fn place(root: &Path) -> String {
    root.join(LOCK_FILE).shown()
}
