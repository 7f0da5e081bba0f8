//! Decides about a fetched file: whether to put it in place of the host's.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Component, Path},
};

use crate::{machinefile::SyncFolder, sync::git::Index};

use super::skip::Skip;

/// Whether a symlink leads to a path in the folder, whatever other symlinks are on its way: `..` is only
/// allowed at the start of the target, where it goes through real folders.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let above = link.components().count().saturating_sub(1);
    let up = (target.components())
        .take_while(|it| *it == Component::ParentDir)
        .count();
    up <= above
        && (target.components().skip(up))
            .all(|it| matches!(it, Component::Normal(_) | Component::CurDir))
}

pub(super) enum Decision {
    Same,
    Take,
    Skip(Skip),
}

pub(super) fn decide(
    folder: &SyncFolder,
    path: &Path,
    staged: &Path,
    host: Option<(&Path, &Metadata)>,
    git: &mut Option<Index>,
) -> io::Result<Decision> {
    let guest = fs::symlink_metadata(staged)?;
    if guest.is_symlink() && !stays_inside(path, &fs::read_link(staged)?) {
        return Ok(Decision::Skip(Skip::LeadsOut));
    }
    let Some((at, host)) = host else {
        return Ok(Decision::Take);
    };
    if host.file_type() != guest.file_type() {
        return Ok(Decision::Skip(Skip::OtherKind));
    }
    if host.is_symlink() {
        return Ok(if fs::read_link(at)? == fs::read_link(staged)? {
            Decision::Same
        } else {
            Decision::Skip(Skip::Differs)
        });
    }
    if !host.is_file() {
        return Ok(Decision::Same);
    }
    let begins = begins_with(staged, at)?;
    if begins && host.len() == guest.len() {
        return Ok(Decision::Same);
    }
    if (host.mtime(), host.mtime_nsec()) > (guest.mtime(), guest.mtime_nsec()) {
        return Ok(Decision::Skip(Skip::Newer));
    }
    // A longer file is a log that has grown, unless it is a program or hidden: those may do something
    // else now.
    let is_log = begins && host.mode() & 0o111 == 0 && !is_hidden(path);
    let mut has = |path| (git.get_or_insert_with(|| Index::of(&folder.from))).has(path);
    if is_log || has(path) {
        return Ok(Decision::Take);
    }
    Ok(Decision::Skip(Skip::Differs))
}

fn is_hidden(path: &Path) -> bool {
    path.components()
        .any(|it| it.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// Whether the file `whole` begins with all of the content of the file `start`.
fn begins_with(whole: &Path, start: &Path) -> io::Result<bool> {
    let (mut whole, mut start) = (
        io::BufReader::with_capacity(1 << 16, File::open(whole)?),
        File::options()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(start)?,
    );
    let mut theirs = vec![0; 1 << 16];
    let mut ours = vec![0; 1 << 16];
    loop {
        let n = start.read(&mut theirs)?;
        if n == 0 {
            return Ok(true);
        }
        match whole.read_exact(&mut ours[..n]) {
            Ok(()) if ours[..n] == theirs[..n] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
