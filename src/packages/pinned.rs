//! Packages as the lock file pins them.

use serde::{Deserialize, Serialize};

use super::{
    distribution::{Family, family_of},
    error::PackageError,
};

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
    /// Returns the format of its files.
    pub(crate) fn family(&self) -> Result<Family, PackageError> {
        family_of(&self.distribution)
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
