//! From a repository's address to the packages in it: InRelease, its signature, and the lists that
//! it names.

use std::{io::Cursor, path::Path};

use jiff::{SignedDuration, Timestamp};

use crate::{
    fetch::{Fetcher, kept, verify_clearsigned_by_any},
    unpack::{compression, decompress},
};

use super::{
    super::{
        Origin, Repository, Wanted,
        cache::{self, Newest},
        error::PackageError,
        repository::{Absent, Layout, passed_over},
    },
    choose::Shelf,
    release::{List, Release},
    stanza::{self, Stanza},
};

/// No list is larger, unpacked, in bytes; Debian's has 50 MB.
const LARGEST: u64 = 1 << 30;

/// What a repository is good for.
pub enum Found<'a> {
    Shelf(Box<Shelf<'a>>),
    /// It has nothing of what is looked for.
    Nothing(Absent),
}

/// Reads one suite. What the user named has to be there; of the others, some have moved or are
/// down, and the next ones are asked.
pub async fn read<'a>(
    fetcher: &Fetcher,
    cache_dir: &Path,
    repository: &'a Repository,
    wanted: &Wanted<'_>,
) -> Result<Found<'a>, PackageError> {
    let nothing = |why: &str| Found::Nothing(Absent::new(repository, why));
    let Layout::Apt { suite, components } = &repository.layout else {
        return Ok(nothing("it is none of .deb packages"));
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
        Err(error) => return passed_over(repository, error).map(Found::Nothing),
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
        // What the user named has to be good; in place of another one the next is asked.
        if repository.origin == Origin::Given {
            return Err(PackageError::Old {
                repository: repository.name(),
                why,
            });
        }
        return Ok(Found::Nothing(Absent {
            worth_a_word: true,
            ..Absent::new(repository, &why)
        }));
    }
    let mut shelf = Shelf {
        repository,
        origin: release.origin.clone(),
        automatic: !release.not_automatic,
        stanzas: Vec::new(),
    };
    let own = shelf.is_of(&wanted.distribution.id);
    if matches!(repository.origin, Origin::Host(_)) && !own {
        return Ok(nothing(&format!(
            "it is {} and not the distribution's own",
            release.origin
        )));
    }
    // Kernels are of an architecture, so lists of packages for all are not needed.
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
            cache::Wanted {
                urls,
                sha256: list.sha256.clone(),
                size: Some(list.size),
                by: kept(&in_release),
            },
        )
        .await?;
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(error) => return passed_over(repository, error).map(Found::Nothing),
        };
        let path = list.path.clone();
        shelf.stanzas.extend(
            scan(bytes, wanted.name.to_string())
                .await
                .map_err(|error| PackageError::Metadata {
                    url: dists.join(&path).map_or(path, |url| kept(&url)),
                    message: error.to_string(),
                })?,
        );
    }
    Ok(Found::Shelf(Box::new(shelf)))
}

/// Mirrors that answer to one name are not renewed at one moment.
const SKEW: SignedDuration = SignedDuration::from_hours(48);

/// Why a list is not what the repository has now: whoever is between here and there may hold back
/// what is new, and serve what was good once.
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
            "it is of {date}, and one of {seen} was there before"
        ))),
        (None, Some(seen)) => Ok(Some(format!(
            "it has no date, and one of {seen} was there before"
        ))),
        // A date that is yet to come would lock out all that follows.
        (Some(date), seen) if seen.is_none_or(|seen| seen < date) && date <= now => {
            newest.remember(date).map(|()| None)
        }
        _ => Ok(None),
    }
}

/// All packages that may matter; in a thread of its own, since it takes a while.
async fn scan(packed: Vec<u8>, name: String) -> std::io::Result<Vec<Stanza>> {
    tokio::task::spawn_blocking(move || {
        let kind = compression(&packed);
        let reader = decompress(kind, Cursor::new(packed))?;
        let mut reader = std::io::Read::take(reader, LARGEST);
        stanza::read(&mut reader, &|found| found == name || of_kernels(found))
    })
    .await
    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// By their names; those that only help to build are many.
fn of_kernels(name: &str) -> bool {
    name.starts_with("linux-")
        && !name.starts_with("linux-headers-")
        && !name.contains("tools-")
        && !name.starts_with("linux-buildinfo-")
        && !name.ends_with("-dbg")
}
