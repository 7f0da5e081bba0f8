//! Boxes: the images that machines are made from. docs/boxes.md is their specification.

mod archive;
mod build;
mod error;
mod manifest;
mod qcow2;
mod recipe;
mod store;

pub use archive::write_archive;
pub use build::{Built, Phase, build};
pub use error::BoxError;
pub use manifest::{Boot, Disk, DiskFormat, FileEntry, Manifest, SeedKind};
pub use recipe::{Recipe, embedded_names};
pub use store::{Digest, FileRole, Store, StoredBox};

#[cfg(test)]
mod tests;
