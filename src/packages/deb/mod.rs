//! Packages of Debian and Ubuntu: finds the packages that make up a kernel.

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

use crate::fetch::{Fetcher, without_login};

use super::{
    PinnedFile, PinnedPackage, Repository, RepositoryOrigin,
    error::PackageError,
    query::{PackageQuery, Resolved},
    repository::RepositoryFormat,
    search::Search,
};
use choose::{DebListing, Role};

/// Finds a kernel's packages. Asks the repositories by origin: the user's, the host's, official ones, archives.
pub(super) async fn resolve(
    fetcher: &Fetcher,
    cache_dir: &Path,
    sources: &[Repository],
    wanted: &PackageQuery<'_>,
) -> Result<Resolved, PackageError> {
    let mut search = Search::new();
    for tier in sources.chunk_by(Repository::beside) {
        let before = search.listings.len();
        // Archives only have releases that are not served any more.
        if tier
            .iter()
            .all(|it| it.origin == RepositoryOrigin::Archived)
            && (search.listings.iter()).any(|listing| serves(listing, wanted))
        {
            continue;
        }
        for repository in tier {
            let answer = archive::read(fetcher, cache_dir, repository, wanted).await?;
            search.add(repository, answer);
        }
        let found = choose::kernel(&search.listings[before..], wanted);
        if let Some(chosen) = search.judge(found)? {
            return Ok(Resolved {
                package: pinned(&chosen, wanted),
                notes: search.notes(),
            });
        }
    }
    let nearest = choose::nearest(&search.listings, wanted);
    Err(search.failed(wanted, nearest, hint(wanted)))
}

/// Whether a listing is that of the release itself, not of a suite such as its updates.
fn serves(listing: &DebListing, wanted: &PackageQuery) -> bool {
    listing.is_of(&wanted.distribution.id)
        && match &listing.repository.layout {
            RepositoryFormat::Apt { suite, .. } => *suite == wanted.distribution.release,
            RepositoryFormat::Rpm => false,
        }
}

/// Returns advice on finding versions that a release no longer has.
fn hint(wanted: &PackageQuery) -> String {
    match wanted.distribution.id.as_str() {
        "debian" => format!(
            "repositories keep only the newest versions; https://snapshot.debian.org/package/linux/ lists when a version existed, and `https://snapshot.debian.org/archive/debian/DATE/ {} main` is a source that still has it",
            wanted.distribution.release
        ),
        _ => "repositories keep only the newest versions; name one of these, or a source that still has yours".to_string(),
    }
}

fn pinned(chosen: &[choose::ChosenDeb], wanted: &PackageQuery) -> PinnedPackage {
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

/// Returns all URLs of the same bytes: the user's mirror first, then the distribution's own servers, because others who
/// get the lock file may not reach that mirror.
fn urls(chosen: &choose::ChosenDeb, wanted: &PackageQuery) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let path = chosen.stanza.filename.as_str();
    let mut add = |url: reqwest::Url| {
        // The lock file, which has it, is shared with others.
        let url = without_login(url);
        if !found.iter().any(|it| it == url.as_str()) {
            found.push(url.to_string());
        }
    };
    for listing in &chosen.listings {
        if let Ok(url) = listing.repository.url.join(path) {
            add(url);
        }
    }
    if chosen
        .listings
        .iter()
        .any(|listing| listing.is_of(&wanted.distribution.id))
    {
        let security = chosen
            .listings
            .iter()
            .any(|listing| match &listing.repository.layout {
                RepositoryFormat::Apt { suite, .. } => {
                    suite.contains("-security") || suite.ends_with("/updates")
                }
                RepositoryFormat::Rpm => false,
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
) -> Result<(), super::tree::UnpackError> {
    unpack::entries(reader, tree)
}
