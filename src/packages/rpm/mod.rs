//! Fedora's and Enterprise Linux's packages: which ones a name stands for.
//!
//! Lists are trusted where they come over https or are signed; whatever they name is held against
//! the distribution's key once more, since every package is signed itself.

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
    fetch::{Fetcher, kept, verify_detached_by_any},
    unpack::{compression, decompress},
};

use super::{
    PinnedFile, PinnedPackage, Repository, Resolved, Wanted, cache,
    error::PackageError,
    keys,
    repository::{Absent, Layout, looked_at, passed_over, without_password},
};
use choose::{Choice, Chosen, Shelf};

/// No list is larger, unpacked, in bytes; Fedora's has 200 MB.
const LARGEST: u64 = 2 << 30;

/// Asks the repositories tier by tier: given, official, archived.
pub async fn resolve(
    fetcher: &Fetcher,
    cache_dir: &Path,
    sources: &[Repository],
    wanted: &Wanted<'_>,
) -> Result<Resolved, PackageError> {
    let (mut looked, mut absent, mut shelves) = (Vec::new(), Vec::new(), Vec::new());
    for tier in sources.chunk_by(Repository::beside) {
        let before = shelves.len();
        for repository in tier {
            match read(fetcher, cache_dir, repository, wanted).await? {
                Ok(packages) => {
                    looked.push(repository);
                    shelves.push(Shelf {
                        repository,
                        packages,
                    });
                }
                Err(why) => absent.push(why),
            }
        }
        match choose::kernel(&shelves[before..], wanted) {
            Choice::Packages(chosen) => {
                return Ok(Resolved {
                    package: pinned(&chosen, wanted)?,
                    notes: Absent::notes(&absent).collect(),
                });
            }
            Choice::Incomplete {
                package,
                version,
                missing,
            } => {
                return Err(PackageError::Incomplete {
                    package,
                    version,
                    missing,
                    looked: looked_at(&looked, &[]),
                });
            }
            Choice::Nothing => {}
        }
    }
    if looked.is_empty() {
        return Err(PackageError::no_repository(wanted, &absent));
    }
    Err(PackageError::NoSuchPackage {
        wanted: wanted.words(),
        arch: wanted.arch.to_string(),
        looked: looked_at(&looked, &absent),
        nearest: choose::nearest(&shelves, wanted),
        hint: "repositories keep the newest versions only; name one that is there, or a source that still has it".to_string(),
    })
}

/// What a repository has of kernels, or why it has nothing.
async fn read(
    fetcher: &Fetcher,
    cache_dir: &Path,
    repository: &Repository,
    wanted: &Wanted<'_>,
) -> Result<Result<Vec<repodata::Package>, Absent>, PackageError> {
    if repository.layout != Layout::Rpm {
        return Ok(Err(Absent::new(repository, "it is none of .rpm packages")));
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
        Err(error) => return passed_over(repository, error).map(Err),
    };
    if address.scheme() != "https" {
        let signature = match fetcher.small(&join("repodata/repomd.xml.asc")?).await {
            Ok(bytes) => bytes,
            Err(error) => {
                return Err(PackageError::Signature {
                    repository: repository.name(),
                    message: format!("without https its list has to be signed, and: {error}"),
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
        cache::Wanted {
            urls: vec![url.clone()],
            sha256: list.sha256,
            size: list.size,
            by: kept(&address),
        },
    )
    .await?;
    let packed = match fetched {
        Ok(bytes) => bytes,
        Err(error) => return passed_over(repository, error).map(Err),
    };
    scan(packed, wanted.name.to_string())
        .await
        .map(Ok)
        .map_err(|error| PackageError::Metadata {
            url: kept(&url),
            message: error.to_string(),
        })
}

/// All packages that may matter; in a thread of its own, since it takes a while.
async fn scan(packed: Vec<u8>, name: String) -> std::io::Result<Vec<repodata::Package>> {
    tokio::task::spawn_blocking(move || {
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

/// By their names; those that only help to build are many.
fn of_kernels(name: &str) -> bool {
    (name == "kernel" || name.starts_with("kernel-"))
        && !["-devel", "-debuginfo", "-headers", "-doc", "-tools"]
            .iter()
            .any(|part| name.contains(part))
}

fn pinned(chosen: &[Chosen], wanted: &Wanted) -> Result<PinnedPackage, PackageError> {
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
        .flat_map(|chosen| &chosen.shelves)
        .flat_map(|shelf| &shelf.repository.keys)
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
        // dnf finds what is missing; all of it is in the release.
        needs: Vec::new(),
        keys: own,
    })
}

fn urls(chosen: &Chosen) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for shelf in &chosen.shelves {
        if let Ok(url) = shelf.repository.url.join(&chosen.package.path) {
            let url = without_password(url).to_string();
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
