//! Fetches files from the network, and verifies them.

mod digest;
mod download;
mod error;
mod exchange;
mod signature;

pub use digest::{Algorithm, Expected, find_in};
pub use download::{Fetched, Fetcher, Request, kept, local, shown};
pub use error::{FetchError, if_full};
pub use exchange::{Answer, Ask};
pub use signature::{
    PublicKey, verify_clearsigned, verify_clearsigned_by_any, verify_detached,
    verify_detached_by_any,
};

pub(crate) use download::{Trouble, room};

#[cfg(test)]
mod tests;
