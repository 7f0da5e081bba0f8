//! Gets kernels from the packages of distributions, without the distribution's own tools and without root.
//!
//! [`resolve`] looks a package up in repositories, whose signatures are checked, and returns the files that make up
//! its kernel, with their digests. [`fetch_and_unpack`] needs only that to get the files. Between the two, metadata,
//! versions and archives are handled by pure functions.

mod apt_sources;
mod cache;
mod deb;
mod distribution;
mod error;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzz;
mod keys;
mod old_archives;
mod pinned;
mod query;
mod repository;
mod resolve;
mod rpm;
mod search;
mod tree;

pub use distribution::Distribution;
pub(crate) use distribution::Family;
pub use error::PackageError;
pub use fetch::{PackageFiles, fetch_and_unpack, fetch_files};
pub use pinned::{PinnedFile, PinnedPackage};
pub use query::Resolved;
pub use repository::{Repository, RepositoryFormat, RepositoryOrigin, official, repositories};
pub use resolve::resolve;
pub use tree::Unpacked;
