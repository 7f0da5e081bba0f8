//! Finds a project's files by their names.

use std::path::{Path, PathBuf};

/// The name of a project's file.
pub const MACHINEFILE: &str = "Machinefile";

/// A user's own additions, beside the Machinefile and not under version control.
pub const LOCAL: &str = "Machinefile.local";

/// Returns the nearest `Machinefile` in `start` or above. Above `start`, a folder of that name is skipped.
pub fn find(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|folder| folder.join(MACHINEFILE))
        .enumerate()
        .find(|(above, path)| path.symlink_metadata().is_ok() && (*above == 0 || !path.is_dir()))
        .map(|(_, path)| path)
}
