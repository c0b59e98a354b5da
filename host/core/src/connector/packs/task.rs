//! Work that goes on whether or not anybody polls what waits for it.

use std::future::Future;

use tokio::task::JoinHandle;

use crate::types::{Error, Result};

/// A task that ends when nothing waits for it any more.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a task. What is returned gives its outcome, and ends it when it is dropped.
///
/// # Errors
/// Those of the task; `other` if it panicked.
pub(super) fn started<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send {
    let mut task = Task(tokio::spawn(work));
    async move {
        match (&mut task.0).await {
            Ok(done) => done,
            Err(error) => Err(Error::other("a part of a read ended early").with_source(error)),
        }
    }
}
