//! A package to look for, and what is found.

use super::{distribution::Distribution, pinned::PinnedPackage};

/// A package to look for.
pub(super) struct PackageQuery<'a> {
    pub name: &'a str,
    pub version: Option<&'a str>,
    pub distribution: &'a Distribution,
    /// The architecture's name in packages.
    pub arch: &'a str,
}

impl PackageQuery<'_> {
    /// Returns the name and version, for errors.
    pub(super) fn words(&self) -> String {
        match self.version {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.to_string(),
        }
    }
}

/// The package that a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub package: PinnedPackage,
    /// Notes for the user, one sentence each: a repository that could not be asked, or a list that is out of date.
    pub notes: Vec<String>,
}
