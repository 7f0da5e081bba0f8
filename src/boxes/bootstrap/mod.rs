//! What installs a recipe's packages into a root file system: the distribution's own tool, with settings and keys of
//! the recipe's, never the host's.

mod dnf;
mod keys;
mod mmdebstrap;
mod pacman;
mod programs;
mod setting;
mod settings;
mod zypper;

pub(super) use keys::{AcceptedKeys, read as read_keys};
pub(super) use mmdebstrap::{Prepared, arguments as mmdebstrap_arguments};
pub(super) use programs::of as programs;
pub(super) use settings::of as settings;
