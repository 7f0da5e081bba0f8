//! Finds packages that mirrors no longer have, in archives that keep all versions.
//!
//! The files are checked against the pinned digest, so the archives need not be trusted.

use reqwest::Url;
use serde::Deserialize;

use crate::fetch::Fetcher;

use super::{PinnedFile, PinnedPackage, error::PackageError};

const SNAPSHOT: &str = "https://snapshot.debian.org/";
/// Tests set it to their own archive.
const SNAPSHOT_VARIABLE: &str = "STEAD_TEST_SNAPSHOT_URL";
const LAUNCHPAD: &str = "https://launchpad.net/ubuntu/+archive/primary/+files/";

/// `mr/binary/PACKAGE/VERSION/binfiles` of <https://snapshot.debian.org>; its API is described in
/// <https://salsa.debian.org/snapshot-team/snapshot/raw/master/API>.
#[derive(Deserialize)]
struct Binaries {
    result: Vec<Binary>,
}

#[derive(Deserialize)]
struct Binary {
    architecture: String,
    /// The SHA-1, which is the file's name in the archive.
    hash: String,
}

/// Returns where else the file is; nothing if no archive is known, has it, or answers.
pub(super) async fn urls(fetcher: &Fetcher, pinned: &PinnedPackage, file: &PinnedFile) -> Vec<Url> {
    match pinned.distribution.as_str() {
        "debian" => snapshot(fetcher, pinned, file).await.unwrap_or_default(),
        "ubuntu" => launchpad(file).into_iter().collect(),
        _ => Vec::new(),
    }
}

async fn snapshot(
    fetcher: &Fetcher,
    pinned: &PinnedPackage,
    file: &PinnedFile,
) -> Option<Vec<Url>> {
    let base = std::env::var(SNAPSHOT_VARIABLE).unwrap_or_else(|_| SNAPSHOT.to_string());
    let base = Url::parse(&base).ok()?;
    let mut listing = base.clone();
    listing.path_segments_mut().ok()?.pop_if_empty().extend([
        "mr",
        "binary",
        &file.package,
        &file.version,
        "binfiles",
    ]);
    let answer = fetcher.small(&listing).await.ok()?;
    let binaries: Binaries = serde_json::from_slice(&answer).ok()?;
    Some(
        binaries
            .result
            .iter()
            .filter(|it| it.architecture == pinned.arch || it.architecture == "all")
            .filter(|it| it.hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .filter_map(|it| base.join(&format!("file/{}", it.hash)).ok())
            .collect(),
    )
}

/// Returns the file's URL on Launchpad, where it has the same name as on every mirror.
fn launchpad(file: &PinnedFile) -> Option<Url> {
    let name = Url::parse(file.urls.first()?)
        .ok()?
        .path_segments()?
        .next_back()?
        .to_string();
    Url::parse(LAUNCHPAD).ok()?.join(&name).ok()
}

pub(super) fn error(pinned: &PinnedPackage, file: &PinnedFile) -> PackageError {
    let mut servers: Vec<String> = file
        .urls
        .iter()
        .filter_map(|url| Url::parse(url).ok()?.host_str().map(str::to_string))
        .collect();
    servers.dedup();
    let archive = match pinned.distribution.as_str() {
        "debian" => Some("snapshot.debian.org"),
        "ubuntu" => Some("launchpad.net"),
        _ => None,
    };
    let again = "pin a version that still exists, or name a source that still has this one";
    PackageError::Gone {
        package: file.package.clone(),
        version: file.version.clone(),
        servers: servers.join(", "),
        hint: match archive {
            Some(archive) => {
                format!("{archive} does not have it either, or did not answer; {again}")
            }
            None => again.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchpad_has_files_by_name() {
        let file = PinnedFile {
            package: "linux-image-6.8.0-31-generic".into(),
            version: "6.8.0-31.31".into(),
            urls: vec!["http://archive.ubuntu.com/ubuntu/pool/main/l/linux-signed/linux-image-6.8.0-31-generic_6.8.0-31.31_amd64.deb".into()],
            sha256: String::new(),
            size: 0,
        };
        assert_eq!(
            launchpad(&file).unwrap().as_str(),
            "https://launchpad.net/ubuntu/+archive/primary/+files/linux-image-6.8.0-31-generic_6.8.0-31.31_amd64.deb"
        );
    }
}
