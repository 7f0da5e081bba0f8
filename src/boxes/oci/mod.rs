//! Boxes in OCI registries. docs/reference/oci.md is the specification of what is stored there.

mod challenge;
mod chunk;
mod chunk_index;
mod credentials;
mod error;
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

/// Entry point for `cargo fuzz`.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let _ = layout::Layout::parse(data);
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(reference) = Reference::parse(text) {
            let shown = reference.to_string();
            let place = shown.strip_prefix("oci://").unwrap_or(&shown);
            assert_eq!(
                Reference::parse(place).map(|it| it.to_string()),
                Ok(shown.clone())
            );
        }
        let _ = challenge::Challenge::choose(text.lines());
    }
    credentials::fuzz(data);
}

/// Chunks that are transferred at the same time. Each uses at most one chunk of memory.
const AT_ONCE: usize = 4;
