//! Kernels as distributions package them: a package's name in, the kernel's files out, without the
//! distribution's own tools and without root.
//!
//! [`resolve`] looks a name up in repositories, whose signatures are checked, and says which files
//! of which digests it stands for; [`fetch_and_unpack`] needs no more than that. What is between
//! (metadata, versions, archives) is pure; the network and the disk are at the two ends.

mod cache;
mod deb;
mod error;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzz;
mod gone;
mod host;
mod keys;
mod repository;
mod rpm;
mod tree;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use error::PackageError;
pub use fetch::{PackageFiles, fetch_and_unpack, fetch_files};
pub use repository::{Layout, Origin, Repository, official, repositories};
pub use tree::Unpacked;

use crate::fetch::Fetcher;

/// Which distribution's packages are meant. Pure description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// ID in os-release(5): debian, ubuntu, fedora, almalinux, rocky, centos.
    pub id: String,
    /// VERSION_CODENAME where packages are .deb ("bookworm"), VERSION_ID where they are .rpm
    /// ("41", "9.4").
    pub release: String,
    /// As `uname -m` says it.
    pub arch: String,
}

/// How packages are made and published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Deb,
    Rpm,
}

fn family_of(id: &str) -> Result<Family, PackageError> {
    match id {
        "debian" | "ubuntu" => Ok(Family::Deb),
        // Says which are known.
        id => keys::of(id).map(|_| Family::Rpm),
    }
}

impl Distribution {
    fn family(&self) -> Result<Family, PackageError> {
        family_of(&self.id)
    }

    /// What packages call the architecture.
    fn package_arch(&self) -> Result<&str, PackageError> {
        let arch = self.arch.as_str();
        let named = match self.family()? {
            Family::Deb => match arch {
                "x86_64" => Some("amd64"),
                "aarch64" => Some("arm64"),
                "armv7l" => Some("armhf"),
                "i386" | "i486" | "i586" | "i686" => Some("i386"),
                "ppc64le" => Some("ppc64el"),
                "s390x" | "riscv64" => Some(arch),
                _ => None,
            },
            Family::Rpm => matches!(arch, "x86_64" | "aarch64" | "ppc64le" | "s390x" | "riscv64")
                .then_some(arch),
        };
        named.ok_or_else(|| PackageError::UnknownArchitecture {
            id: self.id.clone(),
            arch: arch.to_string(),
        })
    }
}

/// A package as pinned: all that is needed to get the same bytes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPackage {
    /// The distribution's id, for where to look when a file is gone from its servers.
    pub distribution: String,
    /// What was asked for; it may be a package that only names others.
    pub name: String,
    pub version: String,
    /// As its packages call it: amd64.
    pub arch: String,
    /// All that make up the kernel, the image's first.
    pub files: Vec<PinnedFile>,
    /// What a guest has to have before it can install them, where that may be newer than what its
    /// release has: a .deb of the tools that kernels from backports want.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<PinnedFile>,
    /// Armoured keys that .rpm files may be signed with beside the distribution's own, where they
    /// come from a source that has its own. A .deb is not signed itself: its list is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl PinnedPackage {
    /// Whether its files are .deb, not .rpm.
    pub fn is_deb(&self) -> Result<bool, PackageError> {
        Ok(family_of(&self.distribution)? == Family::Deb)
    }
}

/// A .deb or .rpm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFile {
    pub package: String,
    pub version: String,
    /// The same bytes at several places, tried in this order.
    pub urls: Vec<String>,
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub package: PinnedPackage,
    /// What a user should know, a sentence each: a repository that could not be asked, a list that
    /// is older than it should be.
    pub notes: Vec<String>,
}

/// Looks a package up, newest first unless a version is asked for, and with it all packages that
/// hold parts of its kernel.
///
/// Asked are `sources`, or where there are none, [`repositories`]. Lists of packages are kept in
/// `cache_dir`, and fetched again only when they change.
pub async fn resolve(
    fetcher: &Fetcher,
    cache_dir: &Path,
    sources: &[Repository],
    distribution: &Distribution,
    name: &str,
    version: Option<&str>,
) -> Result<Resolved, PackageError> {
    let known;
    let sources = match sources {
        [] => {
            known = repositories(distribution)?;
            known.as_slice()
        }
        given => given,
    };
    let wanted = Wanted {
        name,
        version,
        distribution,
        arch: distribution.package_arch()?,
    };
    match distribution.family()? {
        Family::Deb => deb::resolve(fetcher, cache_dir, sources, &wanted).await,
        Family::Rpm => rpm::resolve(fetcher, cache_dir, sources, &wanted).await,
    }
}

/// What is looked for.
struct Wanted<'a> {
    name: &'a str,
    version: Option<&'a str>,
    distribution: &'a Distribution,
    /// As packages call it.
    arch: &'a str,
}

impl Wanted<'_> {
    /// For errors.
    fn words(&self) -> String {
        match self.version {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.to_string(),
        }
    }
}
