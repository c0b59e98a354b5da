//! Work that waits for a disk or computes for long, off the threads that everything else runs on.

use super::{Error, Result};

/// Runs work on a thread that may wait. Dropping the future does not end work that has begun.
///
/// # Errors
/// Those of the work; `other` if the runtime shuts down or the work panics.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        let why = if error.is_panic() { "it panicked" } else { "the runtime is shutting down" };
        Error::other(format!("a task ended early: {why}")).with_source(error)
    })?
}
