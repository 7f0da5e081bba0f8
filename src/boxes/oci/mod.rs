//! Boxes in OCI registries. docs/oci.md is the specification of what is stored there.

mod challenge;
mod chunk;
mod credentials;
mod error;
mod kept;
mod layout;
mod login;
mod pull;
mod push;
mod reference;
mod registry;
mod upload;

pub use error::OciError;
pub use pull::{Pulled, Puller};
pub use push::{Progress, Pushed, push};
pub use reference::{Reference, Version};

/// Chunks on their way at the same time. Each takes at most one chunk of memory.
const AT_ONCE: usize = 4;
