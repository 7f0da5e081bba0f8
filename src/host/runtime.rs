//! The runtime of asynchronous work, and its threads for work that blocks.

use std::io;

use miette::Diagnostic;
use thiserror::Error;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinError,
};

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

/// Runs work that blocks on a thread for such work. In the log, it is in the span of its caller.
///
/// # Errors
/// If it panicked.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the function to use instead"
)]
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await
}
