//! What stead keeps by the digest of its content. Boxes and kernels are stores of this kind: each item has a
//! manifest, the manifest's digest names the item, and the manifest lists its files with their digests. A file
//! that several items have is kept once.
//!
//! An item is in the store if its manifest is. So its files come first and go last, and a killed stead leaves
//! files that nothing needs, but never an item without its files.

mod content;
mod error;
mod incoming;
mod intact;
mod keep;
mod look_up;
mod remove;
mod stamp;

pub use content::{Content, Digest, FileEntry, MANIFEST_LIMIT, Stored, is_sha256};
pub use error::StoreError;
pub use incoming::{Bounds, LARGEST_FILE, dig_holes, write_sparse};
pub use look_up::Store;

#[cfg(test)]
mod tests;
