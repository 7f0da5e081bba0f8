//! Finds a package in repositories.

use std::path::Path;

use crate::fetch::Fetcher;

use super::{
    deb,
    distribution::{Distribution, Family},
    error::PackageError,
    query::{PackageQuery, Resolved},
    repository::{Repository, repositories},
    rpm,
};

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
