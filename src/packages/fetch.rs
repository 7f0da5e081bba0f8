//! Pinned packages to files on the disk.

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
        lock::{Attempt, Lock, LockName, holder},
        open,
    },
};

use super::{
    Family, PinnedFile, PinnedPackage, cache, deb,
    error::{PackageError, is_gone},
    family_of, gone, keys, rpm,
    tree::{Refusal, Tree, Unpacked},
};

/// Gets the package files, going on where an earlier try broke, and unpacks what makes up a kernel
/// into `into`, which must not be there yet or be empty, and is there only when all went well.
///
/// `progress` gets the bytes of all files that are there, and all there will be. No repository is
/// asked: what is pinned is enough.
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
    // All at once and in one order, so that two who want some of the same do not wait in a circle.
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
    let unpacked = tokio::task::spawn_blocking(move || {
        let unpacked = unpack(&pinned, &packages, &into)?;
        // What is in them is here now. One that stays is only in the way.
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

/// Package files that are here, in a folder of their own that goes when this is dropped.
#[derive(Debug)]
pub struct PackageFiles {
    pub files: Vec<(PinnedFile, PathBuf)>,
    downloads: PathBuf,
    folder: tempfile::TempDir,
}

impl Drop for PackageFiles {
    fn drop(&mut self) {
        for (file, _) in &self.files {
            let name = name_of(file);
            // Whoever holds it needs it, and removes it. One that stays is litter, which is told by
            // its age.
            if let Ok(Attempt::Held(_held)) = Lock::try_acquire(
                &self.downloads,
                LockName::PackageFile(&name),
                &holder("stead"),
            ) {
                let _ = fs::remove_file(self.downloads.join(&name));
            }
        }
    }
}

/// Gets these of the pinned files, verified, as [`fetch_and_unpack`] does, and only that. They are
/// links in `into`, which is on the file system of the downloads: who installs the same at the same
/// time gets the same bytes, fetched once.
#[expect(clippy::disallowed_methods, reason = "a temporary second name")]
pub async fn fetch_files(
    fetcher: &Fetcher,
    downloads_dir: &Path,
    pinned: &PinnedPackage,
    files: &[PinnedFile],
    into: tempfile::TempDir,
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

/// What a file is called while it is here.
fn name_of(file: &PinnedFile) -> String {
    format!("package-{}", file.sha256)
}

/// One file, whole and verified.
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
            by: "what is pinned".to_string(),
        }],
        size: Some(file.size),
    };
    // It came before, and what was to be done with it was not.
    if path.exists() {
        let (found, request) = (path.clone(), request.clone());
        let whole = tokio::task::spawn_blocking(move || {
            local(open::file(&found), &found, &request).is_ok()
        })
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
            let urls = gone::urls(fetcher, pinned, file).await;
            if urls.is_empty() {
                return Err(gone::error(pinned, file));
            }
            let request = Request { urls, ..request };
            match fetcher.get(&request, folder, name, progress).await {
                Ok(fetched) => fetched,
                Err(error) if is_gone(&error) => return Err(gone::error(pinned, file)),
                Err(error) => return Err(PackageError::fetch(what())(error)),
            }
        }
        Err(error) => return Err(PackageError::fetch(what())(error)),
    };
    file::rename(&fetched.path, &path).map_err(PackageError::io("name", &path))?;
    Ok(path)
}

/// Out of the packages, and under its name when it is a whole kernel.
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
    let signers = match family_of(&pinned.distribution)? {
        Family::Deb => None,
        Family::Rpm => {
            let mut signers = keys::of(&pinned.distribution)?;
            for armoured in &pinned.keys {
                signers.extend(keys::read(armoured.as_bytes(), "what is pinned")?);
            }
            Some(signers)
        }
    };
    for (file, path) in packages {
        let taken = match &signers {
            None => deb::into_tree(path, &mut tree),
            Some(signers) => rpm::into_tree(path, file, signers, &mut tree),
        };
        taken.map_err(|refusal| match refusal {
            Refusal::Bad(message) => PackageError::Refused {
                package: file.package.clone(),
                version: file.version.clone(),
                message,
            },
            Refusal::Disk(path, error) => PackageError::io("write", path)(error),
        })?;
    }
    let unpacked = tree.finish(into).map_err(|refusal| match refusal {
        Refusal::Bad(message) => PackageError::NoKernel {
            package: pinned.name.clone(),
            version: pinned.version.clone(),
            message,
        },
        Refusal::Disk(path, error) => PackageError::io("write", path)(error),
    })?;
    // As a folder made by the user's umask would be, not 0700 as temporary ones are.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755))
        .map_err(PackageError::io("open to readers", temporary.path()))?;
    // Takes the place of an empty folder, and of nothing else.
    file::rename(temporary.path(), into).map_err(PackageError::io("name", into))?;
    // Its name is gone, so there is nothing left to remove.
    let _ = temporary.keep();
    Ok(unpacked)
}
