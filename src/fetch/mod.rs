//! Fetches files from the network, and verifies them.

mod client;
mod digest;
mod download;
mod error;
mod exchange;
mod local;
mod partial;
mod request;
mod retry;
mod signature;
mod urls;
mod verify;

pub use client::Fetcher;
pub use digest::{Algorithm, Expected, find_in};
pub use error::{FetchError, if_full};
pub use exchange::{Answer, Ask};
pub use local::local;
pub use request::{Fetched, Request};
pub use signature::{
    PublicKey, verify_clearsigned, verify_clearsigned_by_any, verify_detached,
    verify_detached_by_any,
};
pub use urls::{kept, shown, without_login};

pub(crate) use partial::room;
pub(crate) use retry::AttemptError;

#[cfg(test)]
mod tests;
