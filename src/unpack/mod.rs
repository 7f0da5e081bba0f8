//! Archives and compressed files that others made, read within bounds.

mod compression;
mod tar;

pub use compression::{Compression, compression, decompress, decompress_xz};
pub use tar::{Bounded, each_entry};
