//! Distributions, and the formats of their packages.

use super::{error::PackageError, keys};

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
pub(crate) enum Family {
    Deb,
    Rpm,
}

impl Family {
    /// Returns the ending of the names of its packages, without a dot.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Family::Deb => "deb",
            Family::Rpm => "rpm",
        }
    }
}

pub(super) fn family_of(id: &str) -> Result<Family, PackageError> {
    match id {
        "debian" | "ubuntu" => Ok(Family::Deb),
        // The error lists the known ones.
        id => keys::of(id).map(|_| Family::Rpm),
    }
}

impl Distribution {
    pub(super) fn family(&self) -> Result<Family, PackageError> {
        family_of(&self.id)
    }

    /// Returns the architecture's name in packages.
    pub(super) fn package_arch(&self) -> Result<&str, PackageError> {
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
