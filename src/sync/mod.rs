//! Folders into guests, by rsync.

mod back;
mod error;
mod filter;
mod folder;
mod outcome;
mod pattern;
mod rsync;
pub mod watch;

pub use back::{Back, fetch_back};
pub use error::SyncError;
pub use folder::{Saying, list_changes, sync_folder};
pub use outcome::Changes;
pub use rsync::{Progress, RsyncTarget, push, rsync_arguments};
