//! Pins kernels in the lock file.

use crate::{
    failure::Failure,
    kernel::{KernelStore, Provenance},
    machinefile::KernelSource,
    packages::PinnedPackage,
    report::Reporter,
    resolve::lockfile::{KernelKey, LockFile, LockedKernel},
};

use super::{
    Resolver,
    kernel::{capture_key, find, placed},
    package::{PackageOf, take_package},
};

/// Pins the kernels of the project's machines that are in the store.
pub fn pin_kernels(resolver: Resolver<'_>, lock: &mut LockFile) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    for machine in &resolver.project.machines {
        let Some(kernel) = &machine.kernel else {
            continue;
        };
        let key = match &kernel.source {
            KernelSource::Capture { name } => capture_key(name),
            KernelSource::Package { name, .. } => {
                // The box tells the distribution. Without it, the pin is kept.
                let Ok(stored) = resolver.wanted_box(machine) else {
                    wanted.push(NamedKernel::Name(name));
                    continue;
                };
                PackageOf::new(resolver, kernel, &stored)
                    .map_err(|error| placed(kernel, machine, error))?
                    .key()
            }
            _ => continue,
        };
        wanted.push(NamedKernel::Key(key.clone()));
        let Ok(stored) = resolver.wanted_box(machine) else {
            continue;
        };
        // The kernel of a machine that the command does not act on may be missing.
        if let Ok(Some(found)) = find(resolver, kernel, &stored) {
            let entry = match (&key, &found.manifest.from) {
                (KernelKey::Capture { .. }, _) => LockedKernel::Capture(found.digest.to_string()),
                (_, Provenance::Package(package)) => LockedKernel::Package(PinnedPackage {
                    name: match &key {
                        KernelKey::Package { name, .. } | KernelKey::Capture { name, .. } => {
                            name.clone()
                        }
                    },
                    ..package.clone()
                }),
                _ => continue,
            };
            lock.set_kernel(key, entry);
        }
    }
    lock.retain_kernels(|key| {
        wanted.iter().any(|wanted| match (wanted, key) {
            (NamedKernel::Name(wanted), KernelKey::Package { name, .. }) => *wanted == name,
            (NamedKernel::Name(_), KernelKey::Capture { .. }) => false,
            // Kernels of other architectures belong to a colleague's host.
            (NamedKernel::Key(wanted), key) => wanted.is_like(key),
        })
    });
    Ok(())
}

/// A kernel that the Machinefile names.
enum NamedKernel<'a> {
    Key(KernelKey),
    Name(&'a str),
}

/// Looks up the current versions of the project's kernel packages, imports them, and pins them.
/// Returns what has changed: a package's name, its old version, and its new one.
pub fn update_packages(
    resolver: Resolver<'_>,
    reporter: &Reporter,
) -> Result<Vec<(String, Option<String>, String)>, Failure> {
    let store = KernelStore::open(resolver.data);
    let before = resolver.lock_file;
    let mut lock = before.clone();
    // An empty lock file, so that pins do not count.
    let mut unpinned = before.clone();
    unpinned.retain_kernels(|key| matches!(key, KernelKey::Capture { .. }));
    let resolver = Resolver {
        lock_file: &unpinned,
        ..resolver
    };
    let mut moved: Vec<(String, Option<String>, String)> = Vec::new();
    for machine in &resolver.project.machines {
        let Some(kernel) = &machine.kernel else {
            continue;
        };
        if !matches!(kernel.source, KernelSource::Package { .. }) {
            continue;
        }
        let stored = resolver.wanted_box(machine)?;
        let of = PackageOf::new(resolver, kernel, &stored)
            .map_err(|error| placed(kernel, machine, error))?;
        if moved.iter().any(|(name, ..)| *name == of.name) {
            continue;
        }
        take_package(resolver, &store, reporter, &machine.name, &of)
            .map_err(|error| placed(kernel, machine, error))?;
        let Some(found) = store.of_source(&of.asked_key())? else {
            continue;
        };
        let Provenance::Package(package) = found.manifest.from else {
            continue;
        };
        let old = match before.kernel(&of.key()) {
            Some(LockedKernel::Package(pinned)) => Some(pinned.version.clone()),
            _ => None,
        };
        moved.push((of.name.to_string(), old, package.version.clone()));
        let name = of.name.to_string();
        lock.set_kernel(
            of.key(),
            LockedKernel::Package(PinnedPackage { name, ..package }),
        );
    }
    lock.save(before, &resolver.project.root, &resolver.data.locks())?;
    moved.retain(|(_, old, now)| old.as_ref() != Some(now));
    Ok(moved)
}

/// Whether the lock file pins every kernel that it can pin.
pub fn kernels_are_pinned(resolver: Resolver<'_>) -> Result<bool, Failure> {
    for machine in &resolver.project.machines {
        let Some(kernel) = &machine.kernel else {
            continue;
        };
        let pinned = match &kernel.source {
            KernelSource::Capture { name } => {
                resolver.lock_file.kernel(&capture_key(name)).is_some()
            }
            KernelSource::Package { .. } => match resolver.wanted_box(machine) {
                Ok(stored) => PackageOf::new(resolver, kernel, &stored)
                    .map_err(|error| placed(kernel, machine, error))?
                    .pinned(resolver)
                    .is_some(),
                Err(_) => true,
            },
            _ => true,
        };
        if !pinned {
            return Ok(false);
        }
    }
    Ok(true)
}
