//! What sets a machine up once it is reached.

pub mod ansible;
mod digest;
mod inventory;
mod run;

pub use digest::{digest, digest_file};
pub use inventory::{Inventory, Reach};
pub use run::{ProvisionError, Saying, Site, run};
