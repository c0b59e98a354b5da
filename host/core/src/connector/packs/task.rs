//! Work that goes on whether or not anybody polls what waits for it.

use std::future::Future;

use tokio_util::task::AbortOnDropHandle;

use crate::types::{Error, Result};

/// Starts a task. What is returned gives its outcome, and ends it when it is dropped.
///
/// # Errors
/// Those of the task; `other` if it panicked.
pub(super) fn started<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> impl Future<Output = Result<T>> + Send {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    async move {
        match task.await {
            Ok(done) => done,
            Err(error) => Err(Error::other("a part of a read ended early").with_source(error)),
        }
    }
}
