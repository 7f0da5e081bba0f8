//! What a fetch is to do, and what it did.

use std::path::PathBuf;

use super::skip::Skip;

/// What was fetched and what was skipped. Paths are relative to the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BackOutcome {
    pub fetched: Vec<PathBuf>,
    /// Each with the reason.
    pub skipped: Vec<(PathBuf, Skip)>,
}

/// Options of [`fetch_back`].
#[derive(Clone, Copy, Default)]
pub struct BackOptions<'a> {
    pub force: bool,
    pub dry_run: bool,
    /// Absolute paths of files and folders that the project runs on the host.
    pub host_runs: &'a [PathBuf],
}
