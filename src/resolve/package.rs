//! Kernels from packages of distributions: which package a machine asks for, and how it is fetched.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    boxes::StoredBox,
    failure::Failure,
    fetch::Fetcher,
    host::{digest::name_of, paths::DataDir, runtime::runtime},
    kernel::{KernelError, KernelFiles, KernelStore, Provenance, Title},
    machinefile::{Kernel, KernelSource},
    packages::{Distribution, PackageError, PinnedPackage, Repository, fetch_and_unpack, resolve},
    report::{Event, EventKind, Meter, Reporter},
    resolve::lockfile::{KernelKey, LockedKernel},
};

use super::{Resolver, kernel::ARCH};

/// How long a name that is not pinned keeps its last meaning before the repositories are asked
/// again.
pub const FRESH: Duration = Duration::from_secs(24 * 3600);

/// A package as a machine asks for it.
pub struct PackageOf<'a> {
    pub name: &'a str,
    pub version: Option<&'a str>,
    pub from: Option<&'a str>,
    pub keyring: Option<&'a std::path::Path>,
    /// As people write it: `debian/12`.
    pub title: String,
    pub distribution: Distribution,
}

impl<'a> PackageOf<'a> {
    pub fn new(
        resolver: Resolver<'_>,
        kernel: &'a Kernel,
        stored: &StoredBox,
    ) -> Result<Self, KernelError> {
        let KernelSource::Package {
            name,
            version,
            distribution,
            from,
            key,
        } = &kernel.source
        else {
            return Err(KernelError::NotFound {
                reference: kernel.source.to_string(),
                nearest: String::new(),
            });
        };
        let known = match distribution {
            Some(text) => text
                .split_once('/')
                .map(|(id, release)| (id.to_string(), release.to_string())),
            None => distribution_of(resolver, stored),
        };
        let (id, release) = known.ok_or_else(|| KernelError::UnknownDistribution {
            package: name.clone(),
            name: stored.manifest.name.clone(),
        })?;
        Ok(PackageOf {
            name,
            version: version.as_deref(),
            from: from.as_deref(),
            keyring: key.as_deref(),
            title: format!("{id}/{release}"),
            distribution: Distribution {
                release: codename(&id, &release).to_string(),
                id,
                arch: ARCH.to_string(),
            },
        })
    }

    pub fn key(&self) -> KernelKey {
        KernelKey::Package {
            name: self.name.to_string(),
            distribution: self.title.clone(),
            arch: ARCH.to_string(),
        }
    }

    /// Returns the pin of the lock file, unless the Machinefile now asks for another version.
    pub fn pinned<'s>(&self, resolver: Resolver<'s>) -> Option<&'s PinnedPackage> {
        match resolver.lock_file.kernel(&self.key())? {
            LockedKernel::Package(pinned)
                if self.version.is_none_or(|version| version == pinned.version) =>
            {
                Some(pinned)
            }
            _ => None,
        }
    }

    /// Returns the cache key to use before the package name is resolved.
    pub fn asked_key(&self) -> String {
        format!(
            "asked {} {ARCH} {} {} {}",
            self.title,
            self.name,
            self.version.unwrap_or("*"),
            // Hashed, because it may contain a password.
            self.from
                .map_or_else(|| "*".into(), |from| name_of(from, 16))
        )
    }
}

/// Returns the cache key of a resolved package: the same files mean the same kernel.
pub fn pinned_key(pinned: &PinnedPackage) -> String {
    let files: Vec<&str> = pinned
        .files
        .iter()
        .map(|file| file.sha256.as_str())
        .collect();
    format!("package {}", files.join(" "))
}

/// Returns the distribution of a box, or of the box that it was packed from.
fn distribution_of(resolver: Resolver<'_>, stored: &StoredBox) -> Option<(String, String)> {
    let mut stored = stored.clone();
    // More levels than boxes are packed from boxes in practice.
    for _ in 0..32 {
        let manifest = &stored.manifest;
        if let Some(found) = distribution_in(&manifest.name)
            .or_else(|| distribution_in(&format!("{}/{}", manifest.name, manifest.version)))
        {
            return Some(found);
        }
        stored = resolver.store.resolve(manifest.parent.as_ref()?).ok()?;
    }
    None
}

/// Returns the distribution and version that the name of a box contains: `debian/12`, `debian-12-cloud`, `ubuntu/24.04`.
fn distribution_in(name: &str) -> Option<(String, String)> {
    const KNOWN: [&str; 7] = [
        "debian",
        "ubuntu",
        "fedora",
        "almalinux",
        "rocky",
        "centos",
        "opensuse",
    ];
    let start = name.rsplit('/').next().unwrap_or(name);
    let of = |text: &str| {
        KNOWN.iter().find_map(|id| {
            let rest = text
                .strip_prefix(id)?
                .trim_start_matches(['-', '/', ':', '_']);
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let version = rest[..end].trim_end_matches('.');
            (!version.is_empty()).then(|| ((*id).to_string(), version.to_string()))
        })
    };
    of(name).or_else(|| of(start))
}

/// Returns a package archive's name for a release that people know by its number.
fn codename<'a>(id: &str, release: &'a str) -> &'a str {
    match (id, release) {
        ("debian", "10") => "buster",
        ("debian", "11") => "bullseye",
        ("debian", "12") => "bookworm",
        ("debian", "13") => "trixie",
        ("debian", "14") => "forky",
        ("ubuntu", "20.04") => "focal",
        ("ubuntu", "22.04") => "jammy",
        ("ubuntu", "24.04") => "noble",
        ("ubuntu", "24.10") => "oracular",
        ("ubuntu", "25.04") => "plucky",
        ("ubuntu", "25.10") => "questing",
        ("ubuntu", "26.04") => "resolute",
        _ => release,
    }
}

/// The package that a kernel comes from.
pub enum PackageChoice<'a> {
    /// A package whose files are known.
    Pinned(PinnedPackage),
    /// A package to look up in repositories: the distribution's own if `repositories` is empty.
    Named {
        repositories: Vec<Repository>,
        distribution: &'a Distribution,
        name: &'a str,
        version: Option<&'a str>,
    },
}

/// A fetched and unpacked package.
pub struct FetchedPackage {
    pub package: PinnedPackage,
    pub files: KernelFiles,
}

/// Fetches a package and unpacks it below `work`. Blocks until that is done. `note` gets what the user should know
/// of the repositories.
pub fn fetch_package(
    data: &DataDir,
    wanted: PackageChoice<'_>,
    work: &Path,
    meter: &Meter,
    note: impl Fn(String),
) -> Result<FetchedPackage, Failure> {
    let fetcher = Fetcher::new().map_err(KernelError::Network)?;
    let downloads = data.downloads();
    let (package, unpacked) = runtime()?.block_on(async {
        let package = match wanted {
            PackageChoice::Pinned(package) => package,
            PackageChoice::Named {
                repositories,
                distribution,
                name,
                version,
            } => {
                let cache = data.package_lists();
                let found =
                    resolve(&fetcher, &cache, &repositories, distribution, name, version).await?;
                found.notes.into_iter().for_each(note);
                found.package
            }
        };
        let into = work.join("package");
        let progress = |done, total| meter.at(done, total);
        let unpacked = fetch_and_unpack(&fetcher, &downloads, &package, &into, &progress).await?;
        Ok::<_, PackageError>((package, unpacked))
    })?;
    Ok(FetchedPackage {
        package,
        files: KernelFiles::of_package(unpacked, ARCH)?,
    })
}

/// Fetches the package that a machine asks for, and adds its kernel to the store.
pub fn take_package(
    resolver: Resolver<'_>,
    store: &KernelStore,
    reporter: &Reporter,
    label: &str,
    of: &PackageOf<'_>,
) -> Result<(), Failure> {
    let meter = Meter::new(label, "kernel", Arc::clone(reporter));
    let work = store.work_folder()?;
    let wanted = match of.pinned(resolver) {
        Some(pinned) => PackageChoice::Pinned(pinned.clone()),
        None => PackageChoice::Named {
            repositories: match of.from {
                Some(from) => Repository::parse(from, of.keyring, &of.distribution)?,
                None => Vec::new(),
            },
            distribution: &of.distribution,
            name: of.name,
            version: of.version,
        },
    };
    let fetched = fetch_package(resolver.data, wanted, work.path(), &meter, |message| {
        reporter.event(&Event::now(label, EventKind::Notice { message }));
    })?;
    let pinned = fetched.package;
    let name =
        (pinned.files.first()).map_or_else(|| pinned.name.clone(), |file| file.package.clone());
    // Whether a machine asks for it by its own name or by one that follows the archive, it is the same kernel.
    let from = Provenance::Package(PinnedPackage {
        name: name.clone(),
        ..pinned.clone()
    });
    let stored = store.add(
        &fetched.files,
        &Title {
            name: &name,
            from,
            facts: None,
        },
    )?;
    store.remember_source(&pinned_key(&pinned), &stored)?;
    Ok(store.remember_source(&of.asked_key(), &stored)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_boxes_say_their_distribution() {
        let is = |id: &str, version: &str| Some((id.to_string(), version.to_string()));
        assert_eq!(distribution_in("debian/12"), is("debian", "12"));
        assert_eq!(distribution_in("debian-12-cloud"), is("debian", "12"));
        assert_eq!(distribution_in("ubuntu/24.04"), is("ubuntu", "24.04"));
        assert_eq!(distribution_in("acme/debian-12"), is("debian", "12"));
        assert_eq!(distribution_in("debian"), None);
        assert_eq!(distribution_in("shop-base"), None);
    }
}
