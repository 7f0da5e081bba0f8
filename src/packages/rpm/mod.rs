//! Packages of Fedora and Enterprise Linux: finds the packages that make up a kernel.
//!
//! Lists are trusted if they come over https or are signed. Every package is signed itself, so it is checked with the
//! distribution's key too.

mod choose;
mod cpio;
mod header;
mod repodata;
mod unpack;
mod version;

use std::{
    io::{BufReader, Cursor, Read},
    path::Path,
};

pub(super) use unpack::into_tree;

use crate::{
    fetch::{Fetcher, kept, verify_detached_by_any, without_login},
    host::runtime::blocking,
    unpack::{compression, decompress},
};

use super::{
    PinnedFile, PinnedPackage, Repository, cache,
    error::PackageError,
    keys,
    query::{PackageQuery, Resolved},
    repository::{Absent, RepositoryFormat, unavailable},
    search::Search,
};
use choose::{ChosenRpm, RpmListing};

/// Largest uncompressed list that is read, in bytes. Fedora's has 200 MB.
const LARGEST: u64 = 2 << 30;

/// Finds a kernel's packages. Asks the repositories by origin: the user's, official ones, archives.
pub(super) async fn resolve(
    fetcher: &Fetcher,
    cache_dir: &Path,
    sources: &[Repository],
    wanted: &PackageQuery<'_>,
) -> Result<Resolved, PackageError> {
    let mut search = Search::new();
    for tier in sources.chunk_by(Repository::beside) {
        let before = search.listings.len();
        for repository in tier {
            let answer = read(fetcher, cache_dir, repository, wanted).await?;
            search.add(
                repository,
                answer.map(|packages| RpmListing {
                    repository,
                    packages,
                }),
            );
        }
        let found = choose::kernel(&search.listings[before..], wanted);
        if let Some(chosen) = search.judge(found)? {
            return Ok(Resolved {
                package: pinned(&chosen, wanted)?,
                notes: search.notes(),
            });
        }
    }
    let nearest = choose::nearest(&search.listings, wanted);
    Err(search.failed(
        wanted,
        nearest,
        "repositories keep only the newest versions; name one of these, or a source that still has yours".to_string(),
    ))
}

/// Returns a repository's packages of kernels, or why it cannot be asked.
async fn read(
    fetcher: &Fetcher,
    cache_dir: &Path,
    repository: &Repository,
    wanted: &PackageQuery<'_>,
) -> Result<Result<Vec<repodata::Package>, Absent>, PackageError> {
    if repository.layout != RepositoryFormat::Rpm {
        return Ok(Err(Absent::new(repository, "it has no .rpm packages")));
    }
    let metadata = |message: String| PackageError::Metadata {
        url: repository.name(),
        message,
    };
    let join = |path: &str| {
        repository
            .url
            .join(path)
            .map_err(|error| metadata(error.to_string()))
    };
    let address = join("repodata/repomd.xml")?;
    let repomd = match fetcher.small(&address).await {
        Ok(bytes) => bytes,
        Err(error) => return unavailable(repository, error).map(Err),
    };
    if address.scheme() != "https" {
        let signature = match fetcher.small(&join("repodata/repomd.xml.asc")?).await {
            Ok(bytes) => bytes,
            Err(error) => {
                return Err(PackageError::Signature {
                    repository: repository.name(),
                    message: format!("without https its list must be signed, but: {error}"),
                });
            }
        };
        verify_detached_by_any(&repository.keys, &repomd, &signature).map_err(|message| {
            PackageError::Signature {
                repository: repository.name(),
                message,
            }
        })?;
    }
    let list = repodata::primary(&repomd)
        .map_err(|error| metadata(format!("repomd.xml: {error}")))?
        .ok_or_else(|| metadata("repomd.xml names no list of packages with a sha256".into()))?;
    let url = join(&list.path)?;
    let fetched = cache::list(
        fetcher,
        cache_dir,
        cache::ListRequest {
            urls: vec![url.clone()],
            sha256: list.sha256,
            size: list.size,
            by: kept(&address),
        },
    )
    .await?;
    let packed = match fetched {
        Ok(bytes) => bytes,
        Err(error) => return unavailable(repository, error).map(Err),
    };
    scan(packed, wanted.name.to_string())
        .await
        .map(Ok)
        .map_err(|error| PackageError::Metadata {
            url: kept(&url),
            message: error.to_string(),
        })
}

/// Reads the packages of kernels. Runs in its own thread, because it takes long.
async fn scan(packed: Vec<u8>, name: String) -> std::io::Result<Vec<repodata::Package>> {
    blocking(move || {
        let kind = compression(&packed);
        let reader = decompress(kind, Cursor::new(packed))?.take(LARGEST);
        let reader = BufReader::with_capacity(1 << 18, reader);
        repodata::packages(reader, &|found| {
            found == name || of_kernels(found) || name.starts_with(found)
        })
    })
    .await
    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Whether a package may be part of a kernel, by its name. The many packages for builds and tools are not.
fn of_kernels(name: &str) -> bool {
    (name == "kernel" || name.starts_with("kernel-"))
        && !["-devel", "-debuginfo", "-headers", "-doc", "-tools"]
            .iter()
            .any(|part| name.contains(part))
}

fn pinned(chosen: &[ChosenRpm], wanted: &PackageQuery) -> Result<PinnedPackage, PackageError> {
    let files = chosen
        .iter()
        .map(|chosen| PinnedFile {
            package: chosen.package.name.clone(),
            version: chosen.package.evr.text(),
            urls: urls(chosen),
            sha256: chosen.package.sha256.clone(),
            size: chosen.package.size,
        })
        .collect();
    let usual = keys::of(&wanted.distribution.id)?;
    let mut own = Vec::new();
    for key in chosen
        .iter()
        .flat_map(|chosen| &chosen.listings)
        .flat_map(|listing| &listing.repository.keys)
        .filter(|key| !usual.contains(key))
    {
        let armoured = key.armoured().map_err(|message| PackageError::Keys {
            from: key.fingerprint(),
            message,
        })?;
        if !own.contains(&armoured) {
            own.push(armoured);
        }
    }
    Ok(PinnedPackage {
        distribution: wanted.distribution.id.clone(),
        name: wanted.name.to_string(),
        version: chosen
            .first()
            .map(|chosen| chosen.package.evr.text())
            .unwrap_or_default(),
        arch: wanted.arch.to_string(),
        files,
        // dnf installs missing packages, which are all in the release.
        needs: Vec::new(),
        keys: own,
    })
}

fn urls(chosen: &ChosenRpm) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for listing in &chosen.listings {
        if let Ok(url) = listing.repository.url.join(&chosen.package.path) {
            // The lock file, which has it, is shared with others.
            let url = without_login(url).to_string();
            if !found.contains(&url) {
                found.push(url);
            }
        }
    }
    found
}

#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    if let Ok(front) = header::read(&mut &*data) {
        for tag in [header::tag::NAME, header::tag::PAYLOAD_DIGEST] {
            let _ = front.header.texts(tag);
            let _ = front.header.binary(tag);
            let _ = front.header.number(tag);
        }
    }
    let _ = repodata::primary(data);
    let _ = repodata::packages(data, &|_| true);
    if let Ok(text) = std::str::from_utf8(data) {
        let (a, b) = text.split_once('\n').unwrap_or((text, ""));
        assert_eq!(version::compare(a, b), version::compare(b, a).reverse());
    }
}

#[cfg(fuzzing)]
pub(super) use cpio::into_tree as fuzz_entries;
