//! Boxes: the images that machines are made from. docs/reference/box-format.md is their specification.

mod add;
mod archive;
mod backing;
mod bootstrap;
mod build;
pub mod catalogue;
mod error;
mod export;
#[cfg(fuzzing)]
pub mod fuzz;
mod image;
mod import;
mod manifest;
mod names;
pub mod oci;
mod opened;
mod origin;
mod pack;
mod partitions;
mod prune;
mod qcow2;
mod qemu_img;
mod recipe;
mod seed;
mod source;
mod store;
mod vagrant;
mod vhd;
mod vmdk;

pub use crate::host::firmware::Firmware;
pub use archive::write_archive;
pub use backing::Backing;
pub use build::{Built, Phase, Progress, build};
pub use error::BoxError;
pub use export::{ExportFormat, export};
pub use import::{Imported, Incoming, LOGIN_USER, Title};
pub use manifest::{Boot, Disk, DiskFormat, FileRole, Manifest};
pub use names::NameSource;
pub use origin::Origin;
pub use pack::{Destination, Packing, ensure_room, flatten, keep_packed};
pub use prune::{Litter, build_litter, remove_build_litter};
pub use recipe::{Recipe, embedded_names};
pub use seed::SeedKind;
pub use source::Source;
pub use store::{Store, StoredBox};
pub use vagrant::Listing;

#[cfg(test)]
mod tests;
