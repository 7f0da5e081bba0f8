//! Free space.

use std::path::Path;

/// The bytes that are free in the file system of `folder`, where those are fewer than `needed`. A
/// file system that cannot say has enough: trying tells.
pub fn lacking(folder: &Path, needed: u64) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(folder).ok()?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    (free < needed).then_some(free)
}
