//! The search for a kernel's packages in one repository after the other, whatever the family.

use super::{
    Repository,
    error::PackageError,
    query::PackageQuery,
    repository::{Absent, none_searched, searched},
};

/// The packages of a kernel in the repositories that were searched.
pub(super) enum KernelPackages<C> {
    Found(Vec<C>),
    /// The requested package exists, but one that it needs does not.
    Incomplete {
        package: String,
        version: String,
        missing: String,
    },
    /// The requested package does not exist.
    Nothing,
}

/// What has been searched so far.
pub(super) struct Search<'a, L> {
    searched: Vec<&'a Repository>,
    absent: Vec<Absent>,
    /// What the searched repositories have.
    pub listings: Vec<L>,
}

impl<'a, L> Search<'a, L> {
    pub(super) fn new() -> Self {
        Search {
            searched: Vec::new(),
            absent: Vec::new(),
            listings: Vec::new(),
        }
    }

    /// Adds a repository's packages, or why it could not be searched.
    pub(super) fn add(&mut self, repository: &'a Repository, answer: Result<L, Absent>) {
        match answer {
            Ok(listing) => {
                self.searched.push(repository);
                self.listings.push(listing);
            }
            Err(why) => self.absent.push(why),
        }
    }

    /// Returns the packages of a kernel; `None` if other repositories may have them.
    ///
    /// # Errors
    /// If one of them is missing.
    pub(super) fn judge<C>(
        &self,
        found: KernelPackages<C>,
    ) -> Result<Option<Vec<C>>, PackageError> {
        match found {
            KernelPackages::Found(chosen) => Ok(Some(chosen)),
            KernelPackages::Incomplete {
                package,
                version,
                missing,
            } => Err(PackageError::Incomplete {
                package,
                version,
                missing,
                looked: searched(&self.searched, &[]),
            }),
            KernelPackages::Nothing => Ok(None),
        }
    }

    /// Returns notes for the user about repositories in whose place others were used.
    pub(super) fn notes(&self) -> Vec<String> {
        Absent::notes(&self.absent).collect()
    }

    /// Returns the error for a package that no repository has. `nearest` are other versions, or similar names.
    pub(super) fn failed(
        &self,
        wanted: &PackageQuery<'_>,
        nearest: String,
        hint: String,
    ) -> PackageError {
        if self.searched.is_empty() {
            return none_searched(wanted.distribution, &self.absent);
        }
        PackageError::NoSuchPackage {
            wanted: wanted.words(),
            arch: wanted.arch.to_string(),
            looked: searched(&self.searched, &self.absent),
            nearest,
            hint,
        }
    }
}
