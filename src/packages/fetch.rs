//! Fetches and unpacks pinned packages.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use reqwest::Url;

use crate::{
    fetch::{Algorithm, Expected, Fetcher, Request, local},
    host::{
        file,
        lock::{Attempt, Lock, LockName, own_holder},
        open,
        runtime::blocking,
        scratch::Temporary,
    },
};

use super::{
    PinnedFile, PinnedPackage, cache, deb,
    distribution::Family,
    error::{PackageError, is_gone},
    keys, old_archives, rpm,
    tree::{Tree, UnpackError, Unpacked},
};

/// Fetches the package files, continuing earlier downloads, and unpacks the kernel's files into `into`. This folder
/// must not exist yet, or must be empty; it appears only if everything succeeded.
///
/// `progress` gets the bytes that are done, and the bytes in all. No repository is asked, because the pinned data is
/// enough.
pub async fn fetch_and_unpack(
    fetcher: &Fetcher,
    downloads_dir: &Path,
    pinned: &PinnedPackage,
    into: &Path,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Unpacked, PackageError> {
    let total: u64 = pinned.files.iter().map(|file| file.size).sum();
    let before = AtomicU64::new(0);
    let mut packages = Vec::new();
    // All before the first fetch and in one order, so that processes that need the same files do not wait in a circle.
    let mut names: Vec<String> = pinned.files.iter().map(name_of).collect();
    names.sort_unstable();
    names.dedup();
    let mut locks = Vec::new();
    for name in &names {
        locks.push(cache::locked(downloads_dir, name).await?);
    }
    for file in &pinned.files {
        let name = name_of(file);
        let path = one(fetcher, downloads_dir, &name, pinned, file, &|done, _| {
            progress(before.load(Ordering::Relaxed) + done, total);
        })
        .await?;
        packages.push((file.clone(), path));
        before.fetch_add(file.size, Ordering::Relaxed);
        progress(before.load(Ordering::Relaxed), total);
    }
    let (pinned, into) = (pinned.clone(), into.to_path_buf());
    let unpacked = blocking(move || {
        let unpacked = unpack(&pinned, &packages, &into)?;
        // They are unpacked, so they are not needed any more. One that cannot be removed does no harm.
        for (_, path) in &packages {
            let _ = fs::remove_file(path);
        }
        Ok(unpacked)
    })
    .await
    .unwrap_or_else(|error| Err(PackageError::io("unpack", downloads_dir)(error.into())));
    drop(locks);
    unpacked
}

/// Fetched package files, in their own folder, which is removed when this is dropped.
#[derive(Debug)]
pub struct PackageFiles {
    pub files: Vec<(PinnedFile, PathBuf)>,
    downloads: PathBuf,
    folder: Temporary,
}

impl Drop for PackageFiles {
    fn drop(&mut self) {
        for (file, _) in &self.files {
            let name = name_of(file);
            // If another process holds the lock, it needs the file, and removes it. Files that stay are removed
            // later, by their age.
            if let Ok(Attempt::Held(_held)) =
                Lock::try_acquire(&self.downloads, LockName::PackageFile(&name), &own_holder())
            {
                let _ = fs::remove_file(self.downloads.join(&name));
            }
        }
    }
}

/// Fetches these of the pinned files and verifies them, as [`fetch_and_unpack`] does, but does not unpack them. The
/// files become hard links in `into`, which must be on the file system of the downloads. So a file is fetched only
/// once, even if several machines install it at the same time.
#[expect(clippy::disallowed_methods, reason = "a temporary second name")]
pub async fn fetch_files(
    fetcher: &Fetcher,
    downloads_dir: &Path,
    pinned: &PinnedPackage,
    files: &[PinnedFile],
    into: Temporary,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<PackageFiles, PackageError> {
    let total: u64 = files.iter().map(|file| file.size).sum();
    let mut before = 0;
    let mut got = PackageFiles {
        files: Vec::new(),
        downloads: downloads_dir.to_path_buf(),
        folder: into,
    };
    for file in files {
        let name = name_of(file);
        let held = cache::locked(downloads_dir, &name).await?;
        let path = one(fetcher, downloads_dir, &name, pinned, file, &|done, _| {
            progress(before + done, total);
        })
        .await?;
        let link = got.folder.path().join(&name);
        fs::hard_link(&path, &link).map_err(PackageError::io("link", &link))?;
        drop(held);
        got.files.push((file.clone(), link));
        before += file.size;
        progress(before, total);
    }
    Ok(got)
}

/// Returns the name of a downloaded file.
fn name_of(file: &PinnedFile) -> String {
    format!("package-{}", file.sha256)
}

/// Fetches one file and verifies it.
async fn one(
    fetcher: &Fetcher,
    folder: &Path,
    name: &str,
    pinned: &PinnedPackage,
    file: &PinnedFile,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<PathBuf, PackageError> {
    let path = folder.join(name);
    let request = Request {
        urls: file
            .urls
            .iter()
            .filter_map(|url| Url::parse(url).ok())
            .collect(),
        expected: vec![Expected {
            algorithm: Algorithm::Sha256,
            hex: file.sha256.clone(),
            by: "the pinned package".to_string(),
        }],
        size: Some(file.size),
    };
    // An earlier run fetched it, but was interrupted before it used it.
    if path.exists() {
        let (found, request) = (path.clone(), request.clone());
        let whole = blocking(move || local(open::file(&found), &found, &request).is_ok())
            .await
            .unwrap_or(false);
        if whole {
            return Ok(path);
        }
    }
    let what = || format!("package {} {}", file.package, file.version);
    let fetched = match fetcher.get(&request, folder, name, progress).await {
        Ok(fetched) => fetched,
        Err(error) if is_gone(&error) => {
            let urls = old_archives::urls(fetcher, pinned, file).await;
            if urls.is_empty() {
                return Err(old_archives::error(pinned, file));
            }
            let request = Request { urls, ..request };
            match fetcher.get(&request, folder, name, progress).await {
                Ok(fetched) => fetched,
                Err(error) if is_gone(&error) => return Err(old_archives::error(pinned, file)),
                Err(error) => return Err(PackageError::fetch(what())(error)),
            }
        }
        Err(error) => return Err(PackageError::fetch(what())(error)),
    };
    file::rename(&fetched.path, &path).map_err(PackageError::io("rename", &path))?;
    Ok(path)
}

/// Unpacks the packages. The folder gets its name when the kernel is complete.
fn unpack(
    pinned: &PinnedPackage,
    packages: &[(PinnedFile, PathBuf)],
    into: &Path,
) -> Result<Unpacked, PackageError> {
    let parent = into
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(PackageError::io("create", parent))?;
    let temporary = tempfile::Builder::new()
        .prefix(".kernel-")
        .tempdir_in(parent)
        .map_err(PackageError::io("create a folder in", parent))?;
    let mut tree =
        Tree::new(temporary.path()).map_err(PackageError::io("open", temporary.path()))?;
    let signers = match pinned.family()? {
        Family::Deb => None,
        Family::Rpm => {
            let mut signers = keys::of(&pinned.distribution)?;
            for armoured in &pinned.keys {
                signers.extend(keys::read(armoured.as_bytes(), "the pinned package")?);
            }
            Some(signers)
        }
    };
    for (file, path) in packages {
        let unpacked = match &signers {
            None => deb::into_tree(path, &mut tree),
            Some(signers) => rpm::into_tree(path, file, signers, &mut tree),
        };
        unpacked.map_err(|error| match error {
            UnpackError::BadPackage(message) => PackageError::Refused {
                package: file.package.clone(),
                version: file.version.clone(),
                message,
            },
            UnpackError::Io(path, error) => PackageError::io("write", path)(error),
        })?;
    }
    let unpacked = tree.finish(into).map_err(|error| match error {
        UnpackError::BadPackage(message) => PackageError::NoKernel {
            package: pinned.name.clone(),
            version: pinned.version.clone(),
            message,
        },
        UnpackError::Io(path, error) => PackageError::io("write", path)(error),
    })?;
    // Temporary folders have mode 0700.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755))
        .map_err(PackageError::io("change the mode of", temporary.path()))?;
    // Replaces only an empty folder.
    file::rename(temporary.path(), into).map_err(PackageError::io("rename", into))?;
    // It was renamed, so there is nothing to remove.
    let _ = temporary.keep();
    Ok(unpacked)
}
