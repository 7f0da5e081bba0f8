//! Folders of the host in guests: copied by rsync, synced by unison, or shared as they are.

pub mod events;
mod ignore;
mod rsync;
pub mod shares;
pub mod two_way;
pub mod virtiofs;

pub use events::Forwarder;
pub use rsync::{Progress, RsyncTarget, SyncError, push, rsync_arguments};
pub use shares::{Mounting, ShareError, mount};
pub use two_way::TwoWayError;
