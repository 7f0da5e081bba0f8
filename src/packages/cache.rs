//! Caches lists of packages on the disk, by their digest.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use reqwest::Url;

use crate::{
    fetch::{Algorithm, Expected, FetchError, Fetcher, Request},
    host::{
        digest::sha256_of,
        file,
        lock::{Lock, LockName, own_holder},
    },
};

use super::error::PackageError;

/// Lists that were not used for this long are deleted. Repositories change them daily.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
const PREFIX: &str = "list-";

/// The date of the newest metadata of a repository that stead has seen.
pub(super) struct Newest {
    path: PathBuf,
}

impl Newest {
    /// `repository` is its name without a password.
    pub(super) fn of(folder: &Path, repository: &str) -> Self {
        let digest = sha256_of(repository);
        Newest {
            path: folder.join(format!("newest-{digest}")),
        }
    }

    pub(super) fn date(&self) -> Option<Timestamp> {
        fs::read_to_string(&self.path).ok()?.trim().parse().ok()
    }

    pub(super) fn remember(&self, date: Timestamp) -> Result<(), PackageError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let write = || -> io::Result<()> {
            fs::create_dir_all(folder)?;
            file::replace(&self.path, format!("{date}\n").as_bytes(), file::READABLE)
        };
        write().map_err(PackageError::io("write", &self.path))
    }
}

/// A list that a repository's signed metadata names.
pub(super) struct ListRequest {
    /// URLs of the same bytes.
    pub urls: Vec<Url>,
    pub sha256: String,
    /// The compressed size in bytes, if it is known.
    pub size: Option<u64>,
    /// Where the digest comes from, for errors.
    pub by: String,
}

/// Returns the list, compressed. Uses the cached one if its digest is right.
pub(super) async fn list(
    fetcher: &Fetcher,
    folder: &Path,
    wanted: ListRequest,
) -> Result<Result<Vec<u8>, FetchError>, PackageError> {
    let path = folder.join(format!("{PREFIX}{}", wanted.sha256));
    if let Some(bytes) = kept(&path, &wanted.sha256) {
        return Ok(Ok(bytes));
    }
    let name = format!("list-{}", wanted.sha256);
    let _lock = locked(folder, &name).await?;
    // Another process may have fetched the list while this one waited for the lock.
    if let Some(bytes) = kept(&path, &wanted.sha256) {
        return Ok(Ok(bytes));
    }
    let request = Request {
        urls: wanted.urls,
        expected: vec![Expected {
            algorithm: Algorithm::Sha256,
            hex: wanted.sha256.clone(),
            by: wanted.by,
        }],
        size: wanted.size,
    };
    let fetched = match fetcher.get(&request, folder, &name, &|_, _| {}).await {
        Ok(fetched) => fetched,
        Err(error) => return Ok(Err(error)),
    };
    file::rename(&fetched.path, &path).map_err(PackageError::io("rename", &path))?;
    clear(folder);
    fs::read(&path)
        .map(Ok)
        .map_err(PackageError::io("read", &path))
}

/// Takes the lock that is held while a file of this name is fetched.
pub(super) async fn locked(folder: &Path, name: &str) -> Result<Lock, PackageError> {
    Lock::acquire_async(folder, LockName::PackageFile(name), &own_holder())
        .await
        .map_err(PackageError::io("lock a file in", folder))
}

/// Returns a cached file if it matches its digest.
fn kept(path: &Path, sha256: &str) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    if sha256_of(&bytes) != sha256 {
        return None;
    }
    // Marks the list as used now.
    let _ = File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    Some(bytes)
}

/// Removes old lists. Errors are ignored, because a list that stays only takes up some MiB.
fn clear(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let old = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(PREFIX))
            && fs::metadata(path)
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > KEPT))
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(old) {
        let _ = fs::remove_file(path);
    }
}
