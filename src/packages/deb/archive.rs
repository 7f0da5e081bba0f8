//! Reads the packages of a repository: its InRelease file with the signature, and the lists that this file names.

use std::{io::Cursor, path::Path};

use jiff::{SignedDuration, Timestamp};

use crate::{
    fetch::{Fetcher, kept, verify_clearsigned_by_any},
    host::runtime::blocking,
    unpack::{compression, decompress},
};

use super::{
    super::{
        Repository, RepositoryOrigin,
        cache::{self, Newest},
        error::PackageError,
        query::PackageQuery,
        repository::{Absent, RepositoryFormat, unavailable},
    },
    choose::DebListing,
    release::{List, Release},
    stanza::{self, Stanza},
};

/// Largest uncompressed list that is read, in bytes. Debian's has 50 MB.
const LARGEST: u64 = 1 << 30;

/// Reads the packages of one suite, or returns why it has none or cannot be asked.
///
/// # Errors
/// If its data is invalid; or if it cannot be read, and the user named it. Of the other suites, some have moved or are
/// down, and then the next ones are asked.
pub(super) async fn read<'a>(
    fetcher: &Fetcher,
    cache_dir: &Path,
    repository: &'a Repository,
    wanted: &PackageQuery<'_>,
) -> Result<Result<DebListing<'a>, Absent>, PackageError> {
    let nothing = |why: &str| Err(Absent::new(repository, why));
    let RepositoryFormat::Apt { suite, components } = &repository.layout else {
        return Ok(nothing("it has no .deb packages"));
    };
    let metadata = |message: String| PackageError::Metadata {
        url: repository.name(),
        message,
    };
    let dists = repository
        .url
        .join(&format!("dists/{suite}/"))
        .map_err(|error| metadata(error.to_string()))?;
    let in_release = dists
        .join("InRelease")
        .map_err(|error| metadata(error.to_string()))?;
    let signed = match fetcher.small(&in_release).await {
        Ok(bytes) => bytes,
        Err(error) => return unavailable(repository, error).map(Err),
    };
    let text = verify_clearsigned_by_any(&repository.keys, &signed).map_err(|message| {
        PackageError::Signature {
            repository: repository.name(),
            message,
        }
    })?;
    let release = Release::parse(&text);
    if !release.is(suite) {
        return Err(PackageError::WrongRelease {
            url: kept(&in_release),
            found: release.name(),
            wanted: suite.clone(),
        });
    }
    if !repository.may_be_old
        && let Some(why) = old(&release, cache_dir, repository)?
    {
        // If the user did not name it, the next repository is asked.
        if repository.origin == RepositoryOrigin::Given {
            return Err(PackageError::Old {
                repository: repository.name(),
                why,
            });
        }
        return Ok(Err(Absent {
            worth_a_word: true,
            ..Absent::new(repository, &why)
        }));
    }
    let mut listing = DebListing {
        repository,
        origin: release.origin.clone(),
        automatic: !release.not_automatic,
        stanzas: Vec::new(),
    };
    let own = listing.is_of(&wanted.distribution.id);
    if matches!(repository.origin, RepositoryOrigin::Host(_)) && !own {
        return Ok(nothing(&format!(
            "it belongs to {}, not to the distribution",
            release.origin
        )));
    }
    // Kernels depend on the architecture, so lists of packages for all architectures are not needed.
    let lists: Vec<&List> = components
        .iter()
        .filter_map(|component| release.list(component, wanted.arch))
        .collect();
    if lists.is_empty() {
        return Ok(nothing(&format!("it has no packages for {}", wanted.arch)));
    }
    for list in lists {
        let url = |path: &str| {
            dists
                .join(path)
                .map_err(|error| metadata(error.to_string()))
        };
        let folder = list.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut urls = Vec::new();
        if release.by_hash {
            urls.push(url(&format!("{folder}/by-hash/SHA256/{}", list.sha256))?);
        }
        urls.push(url(&list.path)?);
        let fetched = cache::list(
            fetcher,
            cache_dir,
            cache::ListRequest {
                urls,
                sha256: list.sha256.clone(),
                size: Some(list.size),
                by: kept(&in_release),
            },
        )
        .await?;
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(error) => return unavailable(repository, error).map(Err),
        };
        let path = list.path.clone();
        listing.stanzas.extend(
            scan(bytes, wanted.name.to_string())
                .await
                .map_err(|error| PackageError::Metadata {
                    url: dists.join(&path).map_or(path, |url| kept(&url)),
                    message: error.to_string(),
                })?,
        );
    }
    Ok(Ok(listing))
}

/// The mirrors behind one name are not updated at the same moment.
const SKEW: SignedDuration = SignedDuration::from_hours(48);

/// Returns why a list is out of date; `None` if it is not. Someone between here and the repository may hold back updates,
/// and serve an old list, whose signature is valid.
fn old(
    release: &Release,
    cache_dir: &Path,
    repository: &Repository,
) -> Result<Option<String>, PackageError> {
    let now = Timestamp::now();
    if let Some(until) = release.valid_until.filter(|until| *until < now) {
        return Ok(Some(format!("it should have been renewed by {until}")));
    }
    let newest = Newest::of(cache_dir, &repository.name());
    match (release.date, newest.date()) {
        (Some(date), Some(seen)) if date + SKEW < seen => Ok(Some(format!(
            "it is from {date}, but one from {seen} was there before"
        ))),
        (None, Some(seen)) => Ok(Some(format!(
            "it has no date, but one from {seen} was there before"
        ))),
        // A date in the future is not remembered, because all later lists would be refused.
        (Some(date), seen) if seen.is_none_or(|seen| seen < date) && date <= now => {
            newest.remember(date).map(|()| None)
        }
        _ => Ok(None),
    }
}

/// Reads the stanzas of kernel packages. Runs in its own thread, because it takes long.
async fn scan(packed: Vec<u8>, name: String) -> std::io::Result<Vec<Stanza>> {
    blocking(move || {
        let kind = compression(&packed);
        let reader = decompress(kind, Cursor::new(packed))?;
        let mut reader = std::io::Read::take(reader, LARGEST);
        stanza::read(&mut reader, &|found| found == name || of_kernels(found))
    })
    .await
    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Whether a package may be part of a kernel, by its name. The many packages for builds and tools are not.
fn of_kernels(name: &str) -> bool {
    name.starts_with("linux-")
        && !name.starts_with("linux-headers-")
        && !name.contains("tools-")
        && !name.starts_with("linux-buildinfo-")
        && !name.ends_with("-dbg")
}
