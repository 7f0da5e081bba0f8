//! Free space, of which a reserve is left alone: where a disk is full to the last byte, running machines are
//! stopped by their hypervisor, and whatever else the user runs fails.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{Statvfs, fstatvfs, statvfs};

/// In bytes; on small file systems a twentieth.
const RESERVE: u64 = 1 << 30;
/// Room is looked for anew after so many bytes.
const STEP: u64 = 32 << 20;

/// The bytes that may be used in the file system of `folder`, where those are fewer than `needed`. A
/// file system that cannot say has enough: trying tells.
pub fn lacking(folder: &Path, needed: u64) -> Option<u64> {
    free(folder).filter(|free| *free < needed)
}

/// The bytes that may be used in the file system of `folder`. `None` where it cannot say.
pub fn free(folder: &Path) -> Option<u64> {
    Some(usable(&statvfs(folder).ok()?))
}

/// Whether nothing but the reserve is left in the file system of a file.
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

/// Looks for room again and again while a file grows.
#[derive(Debug, Default)]
pub struct Watch {
    /// May be written before the next look.
    left: u64,
}

impl Watch {
    /// `bytes` are about to be written to `file`.
    ///
    /// # Errors
    /// `StorageFull` where that would take of the reserve.
    pub fn before(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return Ok(());
        }
        // A file system that cannot say has enough: trying tells.
        let Ok(stat) = fstatvfs(file) else {
            return Ok(());
        };
        let usable = usable(&stat);
        if usable < bytes {
            let all = stat.blocks().saturating_mul(stat.fragment_size());
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "No space left on device but the {} that stead keeps free",
                    crate::report::bytes(reserve(all))
                ),
            ));
        }
        self.left = (usable - bytes).min(STEP);
        Ok(())
    }
}

/// Where the file system of `file` is mounted; `file` itself need not be there.
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
