//! Gets kernels from the packages of distributions, without the distribution's own tools and without root.
//!
//! [`resolve`] looks a package up in repositories, whose signatures are checked, and returns the files that make up
//! its kernel, with their digests. [`fetch_and_unpack`] needs only that to get the files. Between the two, metadata,
//! versions and archives are handled by pure functions.

mod apt_sources;
mod cache;
mod deb;
mod error;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzz;
mod keys;
mod old_archives;
mod repository;
mod rpm;
mod tree;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use error::PackageError;
pub use fetch::{PackageFiles, fetch_and_unpack, fetch_files};
pub use repository::{Repository, RepositoryFormat, RepositoryOrigin, official, repositories};
pub use tree::Unpacked;

use crate::fetch::Fetcher;

/// A release of a distribution, for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// ID in os-release(5): debian, ubuntu, fedora, almalinux, rocky, centos.
    pub id: String,
    /// VERSION_CODENAME if packages are .deb ("bookworm"), VERSION_ID if they are .rpm ("41", "9.4").
    pub release: String,
    /// As `uname -m` prints it.
    pub arch: String,
}

/// The format of packages and of their repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Deb,
    Rpm,
}

fn family_of(id: &str) -> Result<Family, PackageError> {
    match id {
        "debian" | "ubuntu" => Ok(Family::Deb),
        // The error lists the known ones.
        id => keys::of(id).map(|_| Family::Rpm),
    }
}

impl Distribution {
    fn family(&self) -> Result<Family, PackageError> {
        family_of(&self.id)
    }

    /// Returns the architecture's name in packages.
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

/// A package as the lock file pins it, with all that is needed to get the same bytes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPackage {
    /// The distribution's id. It tells which archive to ask when a file is no longer on the servers.
    pub distribution: String,
    /// The requested package, which may only depend on others.
    pub name: String,
    pub version: String,
    /// The architecture's name in packages: amd64.
    pub arch: String,
    /// All packages that make up the kernel; the one with the image comes first.
    pub files: Vec<PinnedFile>,
    /// Packages that a guest must have before it can install these, if they may be newer than those of its release:
    /// a .deb with the tools that kernels from backports need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<PinnedFile>,
    /// Armoured keys that .rpm files may be signed with, besides the distribution's own, if they come from a source
    /// with its own keys. A .deb is not signed itself, but its list is.
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
    /// URLs of the same bytes, in the order in which they are tried.
    pub urls: Vec<String>,
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

/// The package that a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub package: PinnedPackage,
    /// Notes for the user, one sentence each: a repository that could not be asked, or a list that is out of date.
    pub notes: Vec<String>,
}

/// Finds a package, and all packages that contain parts of its kernel. Without a version, the newest is chosen.
///
/// Asks `sources`, or [`repositories`] if there are none. Lists of packages are cached in `cache_dir`, and fetched
/// again only when they change.
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
    let wanted = PackageQuery {
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

/// A package to look for.
struct PackageQuery<'a> {
    name: &'a str,
    version: Option<&'a str>,
    distribution: &'a Distribution,
    /// The architecture's name in packages.
    arch: &'a str,
}

impl PackageQuery<'_> {
    /// Returns the name and version, for errors.
    fn words(&self) -> String {
        match self.version {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.to_string(),
        }
    }
}
