//! Kernels: where they come from, how they are stored, and how a machine boots a kernel that is
//! not its box's. docs/concepts/kernels.md is the user's side of it.
//!
//! A kernel that is added becomes a content-addressed bundle: image, configuration, the modules
//! as one read-only file system, and the few drivers that its initramfs loads to find the root.

mod add;
pub mod captured;
pub mod carry;
pub mod check;
pub mod compare;
mod config;
mod error;
mod export;
pub mod facts;
mod image;
mod initramfs;
mod manifest;
mod modules;
mod origin;
mod source;
mod squash;
mod store;
mod tree;

pub use add::{Title, index};
pub use config::{Config, Presence};
pub use error::KernelError;
pub use manifest::{Drivers, KernelFileRole, KernelManifest, ModuleTree, Provenance};
pub use modules::Index;
pub use source::{fingerprint, running};
pub use store::{KernelStore, StoredKernel};
pub use tree::{KernelFiles, Modules, locate, read_image};

/// The serial number of the disk that holds the modules, by which init finds it
/// (provisioners/init/init.rs).
pub const MODULES_SERIAL: &str = "stead-modules";
