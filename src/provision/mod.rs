//! What sets a machine up once it is reached.

mod digest;
mod run;

pub use digest::{digest, digest_file};
pub use run::{ProvisionError, Saying, run};
