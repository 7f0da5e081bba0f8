//! The runtime of asynchronous work, and its threads for work that blocks.

use std::{io, sync::Mutex, thread};

use miette::Diagnostic;
use thiserror::Error;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinError,
};

use super::remedy::MORE_PROCESSES;

#[derive(Debug, Error, Diagnostic)]
#[error("cannot start a thread: {0}")]
#[diagnostic(help("{MORE_PROCESSES}"))]
pub struct RuntimeError(io::Error);

/// How many threads there must be room for: the runtime's, and some for work that blocks.
const THREADS: usize = 8;

/// Returns a runtime with two threads, so that work on one does not delay the other.
pub fn runtime() -> Result<Runtime, RuntimeError> {
    room_for_threads().map_err(RuntimeError)?;
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(RuntimeError)
}

/// Fails if so many threads cannot be started. tokio panics then, or waits for ever for the ones that it has.
fn room_for_threads() -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        for _ in 0..THREADS {
            let wait = || drop(gate.lock());
            thread::Builder::new().spawn_scoped(scope, wait)?;
        }
        drop(closed);
        Ok(())
    })
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
