//! Synced folders: folders of the host that guests have too, copied by rsync, synced by unison, or
//! shared over virtiofs or 9p.

mod back;
mod deletion_guard;
mod error;
pub mod events;
mod filter;
mod folder;
mod git;
mod ignore;
mod outcome;
mod pattern;
mod rsync;
pub mod rsync_version;
pub mod shares;
pub mod two_way;
pub mod virtiofs;
pub mod watch;

pub use back::{BackOptions, BackOutcome, fetch_back};
pub use error::SyncError;
pub use events::Forwarder;
pub use folder::{SyncMessage, list_changes, sync_folder};
pub use outcome::Changes;
pub use rsync::{Progress, RsyncTarget, push};
pub use shares::{Mounting, ShareError, mount};
pub use two_way::TwoWayError;
