//! Recipes: how to build a box from packages.

mod distribution;
mod embedded;
mod folder;
mod model;
mod parse;

pub(super) use distribution::Tool;
pub use embedded::embedded_names;
pub(super) use embedded::{ASSEMBLE, BOOTSTRAP, unpack, write, write_guest_files};
pub(super) use model::KeyFile;
pub use model::Recipe;
#[cfg(fuzzing)]
pub(super) use parse::parse;
