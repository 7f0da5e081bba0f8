//! Finds a project's files by their names.

use std::path::{Path, PathBuf};

/// The name of a project's file.
pub const MACHINEFILE: &str = "Machinefile";

/// A user's own additions, beside the Machinefile and not under version control.
pub const LOCAL: &str = "Machinefile.local";

/// The nearest Machinefile in a folder or above it, whatever lies there under that name; but folders, which
/// above may be called like it.
pub fn find(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|folder| folder.join(MACHINEFILE))
        .enumerate()
        .find(|(above, path)| path.symlink_metadata().is_ok() && (*above == 0 || !path.is_dir()))
        .map(|(_, path)| path)
}
