//! The threads that asynchronous work runs on.

use std::io;

use miette::Diagnostic;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};

#[derive(Debug, Error, Diagnostic)]
#[error("cannot start the async runtime: {0}")]
pub struct RuntimeError(io::Error);

/// Two threads: the work of one does not hold up the other, and there are no more waits than that.
pub fn runtime() -> Result<Runtime, RuntimeError> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(RuntimeError)
}
