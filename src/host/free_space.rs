//! Free disk space, of which stead keeps a reserve free: when a disk is completely full, QEMU pauses running
//! machines, and the user's other programs fail.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{Statvfs, fstatvfs, statvfs};

/// The reserve in bytes; on small file systems it is a twentieth.
const RESERVE: u64 = 1 << 30;
/// The free space is checked again after this many bytes.
const STEP: u64 = 32 << 20;

/// Returns the usable bytes in the file system of `folder`, if they are fewer than `needed`. If the file system
/// does not report them, this assumes that there are enough; if not, the write will fail.
pub fn lacking(folder: &Path, needed: u64) -> Option<u64> {
    free(folder).filter(|free| *free < needed)
}

/// Returns the usable bytes in the file system of `folder`. `None` if it does not report them.
pub fn free(folder: &Path) -> Option<u64> {
    Some(usable(&statvfs(folder).ok()?))
}

/// Whether only the reserve is left in the file system of a file.
pub fn is_out_of(file: &File) -> bool {
    fstatvfs(file).is_ok_and(|stat| usable(&stat) == 0)
}

fn usable(stat: &Statvfs) -> u64 {
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    bytes(stat.blocks_available()).saturating_sub(reserve(bytes(stat.blocks())))
}

fn reserve(all: u64) -> u64 {
    RESERVE.min(all / 20)
}

/// Checks the free space while a file grows.
#[derive(Debug, Default)]
pub struct Watch {
    /// The bytes that may be written before the next check.
    left: u64,
}

impl Watch {
    /// Call this before `bytes` are written to `file`.
    ///
    /// # Errors
    /// `StorageFull` if that would use a part of the reserve.
    pub fn before(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return Ok(());
        }
        // If the file system does not report it, assume there is enough; if not, the write will fail.
        let Ok(stat) = fstatvfs(file) else {
            return Ok(());
        };
        let usable = usable(&stat);
        if usable < bytes {
            let all = stat.blocks().saturating_mul(stat.fragment_size());
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "No space left on device, except for the {} that stead keeps free",
                    crate::report::bytes(reserve(all))
                ),
            ));
        }
        self.left = (usable - bytes).min(STEP);
        Ok(())
    }
}

/// Returns where the file system of `file` is mounted; `file` itself need not exist.
pub fn mounted_at(file: &Path) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let mut found: Option<(u64, &Path)> = None;
    for folder in file.ancestors() {
        let Ok(metadata) = std::fs::metadata(folder) else {
            continue;
        };
        match found {
            Some((device, _)) if device != metadata.dev() => break,
            Some((device, _)) => found = Some((device, folder)),
            None => found = Some((metadata.dev(), folder)),
        }
    }
    found.map_or_else(|| PathBuf::from("/"), |(_, folder)| folder.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_keeps_a_twentieth_and_a_large_one_a_gib() {
        assert_eq!(reserve(20 << 20), 1 << 20);
        assert_eq!(reserve(1 << 40), 1 << 30);
    }

    #[test]
    fn more_than_there_is_is_lacking() {
        let folder = tempfile::tempdir().unwrap();
        assert!(lacking(folder.path(), u64::MAX).is_some());
        assert_eq!(lacking(folder.path(), 0), None);
        let file = tempfile::tempfile().unwrap();
        let mut watch = Watch::default();
        assert!(watch.before(&file, 1).is_ok());
        let error = watch.before(&file, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_system_is_named_by_where_it_is_mounted() {
        assert_eq!(
            mounted_at(Path::new("/proc/self/nothing")),
            Path::new("/proc")
        );
        assert_eq!(mounted_at(Path::new("/nothing/at/all")), Path::new("/"));
    }
}
