//! The runtime of asynchronous work.

use std::io;

use miette::Diagnostic;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};

#[derive(Debug, Error, Diagnostic)]
#[error("cannot start the async runtime: {0}")]
pub struct RuntimeError(io::Error);

/// Returns a runtime with two threads, so that work on one does not delay the other.
pub fn runtime() -> Result<Runtime, RuntimeError> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(RuntimeError)
}
