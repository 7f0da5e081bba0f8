//! Folders into guests, by rsync.

mod rsync;

pub use rsync::{Progress, RsyncTarget, SyncError, push, rsync_arguments};
