//! Debian's and Ubuntu's packages: which one a name stands for, and what else is of its kernel.

mod ar;
mod archive;
mod choose;
mod relation;
mod release;
mod stanza;
mod unpack;
mod version;

use std::path::Path;

pub(super) use unpack::into_tree;

use crate::fetch::Fetcher;

use super::{
    Origin, PinnedFile, PinnedPackage, Repository, Resolved, Wanted,
    error::PackageError,
    repository::{Absent, Layout, looked_at, without_password},
};
use archive::Found;
use choose::{Choice, Role, Shelf};

/// Asks the repositories tier by tier: given, the host's, official, archived.
pub async fn resolve(
    fetcher: &Fetcher,
    cache_dir: &Path,
    sources: &[Repository],
    wanted: &Wanted<'_>,
) -> Result<Resolved, PackageError> {
    let mut notes = Vec::new();
    // Repositories that were looked through; those that there are not; the names in them.
    let (mut looked, mut absent, mut shelves) = (Vec::new(), Vec::new(), Vec::new());
    for tier in sources.chunk_by(Repository::beside) {
        let before = shelves.len();
        // What was archived is what is not served any more.
        if tier.iter().all(|it| it.origin == Origin::Archived)
            && shelves.iter().any(|shelf| serves(shelf, wanted))
        {
            continue;
        }
        for repository in tier {
            match archive::read(fetcher, cache_dir, repository, wanted).await? {
                Found::Shelf(shelf) => {
                    looked.push(repository);
                    shelves.push(*shelf);
                }
                Found::Nothing(why) => absent.push(why),
            }
        }
        match choose::kernel(&shelves[before..], wanted) {
            Choice::Packages(chosen) => {
                notes.extend(Absent::notes(&absent));
                return Ok(Resolved {
                    package: pinned(&chosen, wanted),
                    notes,
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
        hint: hint(wanted),
    })
}

/// Whether a shelf is of the release itself, and not of what is beside it.
fn serves(shelf: &Shelf, wanted: &Wanted) -> bool {
    shelf.is_of(&wanted.distribution.id)
        && match &shelf.repository.layout {
            Layout::Apt { suite, .. } => *suite == wanted.distribution.release,
            Layout::Rpm => false,
        }
}

/// Where versions are that a release no longer has.
fn hint(wanted: &Wanted) -> String {
    match wanted.distribution.id.as_str() {
        "debian" => format!(
            "archives keep the newest versions only; https://snapshot.debian.org/package/linux/ says when a version was there, and `https://snapshot.debian.org/archive/debian/DATE/ {} main` is a source that still has it",
            wanted.distribution.release
        ),
        _ => "archives keep the newest versions only; name one that is there, or a source that still has it".to_string(),
    }
}

fn pinned(chosen: &[choose::Chosen], wanted: &Wanted) -> PinnedPackage {
    let files = |role| {
        chosen
            .iter()
            .filter(|chosen| chosen.role == role)
            .map(|chosen| PinnedFile {
                package: chosen.stanza.package.clone(),
                version: chosen.stanza.version.clone(),
                urls: urls(chosen, wanted),
                sha256: chosen.stanza.sha256.clone(),
                size: chosen.stanza.size,
            })
            .collect()
    };
    PinnedPackage {
        distribution: wanted.distribution.id.clone(),
        name: wanted.name.to_string(),
        version: chosen
            .first()
            .map(|chosen| chosen.stanza.version.clone())
            .unwrap_or_default(),
        arch: wanted.arch.to_string(),
        files: files(Role::Part),
        needs: files(Role::Need),
        keys: Vec::new(),
    }
}

/// Every place that has the same bytes. The distribution's own servers come after a mirror of the
/// user's: a lock file goes to others, who may not reach that mirror.
fn urls(chosen: &choose::Chosen, wanted: &Wanted) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let path = chosen.stanza.filename.as_str();
    let mut add = |url: reqwest::Url| {
        let url = without_password(url);
        if !found.iter().any(|it| it == url.as_str()) {
            found.push(url.to_string());
        }
    };
    for shelf in &chosen.shelves {
        if let Ok(url) = shelf.repository.url.join(path) {
            add(url);
        }
    }
    if chosen
        .shelves
        .iter()
        .any(|shelf| shelf.is_of(&wanted.distribution.id))
    {
        let security = chosen
            .shelves
            .iter()
            .any(|shelf| match &shelf.repository.layout {
                Layout::Apt { suite, .. } => {
                    suite.contains("-security") || suite.ends_with("/updates")
                }
                Layout::Rpm => false,
            });
        let mut bases = Vec::new();
        match wanted.distribution.id.as_str() {
            "debian" if security => bases.push("https://security.debian.org/debian-security/"),
            "debian" => bases.push("https://deb.debian.org/debian/"),
            "ubuntu" if matches!(wanted.arch, "amd64" | "i386") => {
                bases.push("http://archive.ubuntu.com/ubuntu/");
            }
            "ubuntu" => bases.push("http://ports.ubuntu.com/ubuntu-ports/"),
            _ => {}
        }
        for base in bases {
            if let Ok(url) = reqwest::Url::parse(base).and_then(|base| base.join(path)) {
                add(url);
            }
        }
    }
    found
}

#[cfg(fuzzing)]
pub(super) fn fuzz(data: &[u8]) {
    let _ = ar::members(&mut std::io::Cursor::new(data));
    let _ = stanza::read(&mut &*data, &|_| true);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = release::Release::parse(text).list("main", "amd64");
        let _ = relation::parse(text);
        let (a, b) = text.split_once('\n').unwrap_or((text, ""));
        assert_eq!(version::compare(a, b), version::compare(b, a).reverse());
    }
}

#[cfg(fuzzing)]
pub(super) fn fuzz_entries(
    reader: &mut dyn std::io::Read,
    tree: &mut super::tree::Tree,
) -> Result<(), super::tree::Refusal> {
    unpack::entries(reader, tree)
}
