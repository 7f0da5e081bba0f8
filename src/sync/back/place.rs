//! Puts fetched files in place.

use std::{
    fs::{self, File, FileTimes, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

use crate::{
    host::{beneath::Folder, open},
    machinefile::SyncFolder,
    sync::error::SyncError,
};

use super::{
    decide::{Decision, decide},
    outcome::{BackOptions, BackOutcome},
    skip::{Refused, Skip},
};

/// Puts what was fetched in place. `host` is the open folder, so nothing is written outside it, even if
/// the guest replaces a folder in it by a symlink.
pub(super) fn place_all(
    folder: &SyncFolder,
    host: &Folder,
    staged: &Path,
    named: &Path,
    options: BackOptions<'_>,
    back: &mut BackOutcome,
) -> Result<(), SyncError> {
    let mut git = None;
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        let here = match host.folder(&inner) {
            Ok(here) => Some(here),
            // A dry run has not made it.
            Err(error) if options.dry_run && error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => {
                back.skipped.push((inner, Skip::LinkAbove));
                continue;
            }
        };
        let from = staged.join(&inner);
        for entry in fs::read_dir(&from).map_err(SyncError::file("read", &from))? {
            let entry = entry.map_err(SyncError::file("read", &from))?;
            let path = inner.join(entry.file_name());
            let target = folder.from.join(&path);
            let place = || -> io::Result<()> {
                let at = match &here {
                    Some(here) => open::in_proc(here).join(entry.file_name()),
                    None => target.clone(),
                };
                if let Some(why) = Refused::of(&path, &folder.from, named, options.host_runs) {
                    // An empty folder was only made because the path leads through it; nobody asked for it.
                    if !is_empty_folder(&entry)? {
                        back.skipped.push((path, Skip::Refused(why)));
                    }
                    return Ok(());
                }
                if entry.file_type()?.is_dir() {
                    match fs::symlink_metadata(&at) {
                        Ok(it) if it.is_dir() => {}
                        Ok(it) if it.is_symlink() => {
                            back.skipped.push((path, Skip::LinkAbove));
                            return Ok(());
                        }
                        Ok(_) => {
                            back.skipped.push((path, Skip::OtherKind));
                            return Ok(());
                        }
                        Err(_) if !options.dry_run => {
                            fs::create_dir(&at)?;
                            let mode = permissions(&entry.metadata()?) | 0o700;
                            File::from(host.folder(&path)?)
                                .set_permissions(fs::Permissions::from_mode(mode))?;
                        }
                        Err(_) => {}
                    }
                    open.push(path);
                    return Ok(());
                }
                let found = fs::symlink_metadata(&at).ok();
                let seen = found.as_ref().map(|found| (at.as_path(), found));
                let decision = decide(folder, &path, &entry.path(), seen, &mut git)?;
                match decision {
                    Decision::Same => {}
                    Decision::Skip(why) if !(options.force && why.can_be_forced()) => {
                        back.skipped.push((path, why));
                    }
                    _ => {
                        if !options.dry_run && !place_file(&entry.path(), &at, found.as_ref())? {
                            // It was edited on the host since the check.
                            back.skipped.push((path, Skip::Newer));
                            return Ok(());
                        }
                        back.fetched.push(path);
                    }
                }
                Ok(())
            };
            place().map_err(SyncError::file("write", &target))?;
        }
    }
    Ok(())
}

fn is_empty_folder(entry: &fs::DirEntry) -> io::Result<bool> {
    Ok(entry.file_type()?.is_dir() && fs::read_dir(entry.path())?.next().is_none())
}

/// The permissions that a file gets on the host: the guest's, but never set-user-ID or set-group-ID, and
/// never writable by everybody.
fn permissions(guest: &Metadata) -> u32 {
    guest.mode() & 0o775
}

/// Copies a file's content. Where it has holes, the copy has holes too.
fn copy_with_holes(from: &mut File, to: &mut File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        // lseek(2): a file system without holes says that all of the file is data.
        let data = match lseek(
            &mut *from,
            i64::try_from(at).unwrap_or(i64::MAX),
            Whence::SeekData,
        ) {
            Ok(data) => data,
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = lseek(&mut *from, data, Whence::SeekHole)?;
        from.seek(SeekFrom::Start(data.unsigned_abs()))?;
        to.seek(SeekFrom::Start(data.unsigned_abs()))?;
        at = end.unsigned_abs();
        io::copy(&mut from.by_ref().take(at - data.unsigned_abs()), to)?;
    }
    Ok(())
}

/// Puts a file in place, whole or not at all. Returns `false` if the host's file has changed since
/// `seen`.
fn place_file(staged: &Path, host: &Path, seen: Option<&Metadata>) -> io::Result<bool> {
    let parent = host.parent().unwrap_or(Path::new("/"));
    let metadata = fs::symlink_metadata(staged)?;
    let mut name = tempfile::Builder::new();
    let name = name.prefix(".stead-back.");
    // Neither follows a symlink in its place. Both are removed again on an error.
    let new = if metadata.is_symlink() {
        let target = fs::read_link(staged)?;
        let made = name.make_in(parent, |new| symlink(&target, new))?;
        made.into_temp_path()
    } else if metadata.is_file() {
        let (mut to, new) = name.tempfile_in(parent)?.into_parts();
        copy_with_holes(&mut File::open(staged)?, &mut to)?;
        to.set_permissions(fs::Permissions::from_mode(permissions(&metadata)))?;
        to.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        to.sync_data()?;
        new
    } else {
        return Err(io::Error::other(
            "rsync fetched something that is neither a file nor a symlink",
        ));
    };
    let now = fs::symlink_metadata(host).ok();
    let key = |it: &Metadata| (it.ino(), it.mtime(), it.mtime_nsec(), it.len());
    if now.as_ref().map(key) != seen.map(key) {
        return Ok(false);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "its content is synced; after a power cut the old file may still be in place, which is fine"
    )]
    fs::rename(&new, host)?;
    Ok(true)
}
