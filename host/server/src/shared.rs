//! State shared by all requests, and running an operation for one.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;
use super::room::Room;
use super::secrets::Token;
use tidelock::Host;
use tidelock::config::Service;
use tidelock::types::{Error, Result};

/// Components that are received at once: each may have 256 MiB, and is in memory.
const COMPONENTS: usize = 2;

/// State shared by all requests. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shared(Arc<SharedInner>);

pub(super) struct SharedInner {
    pub(super) host: Host,
    /// The token of clients; `None` admits every client that can open the socket.
    pub(super) token: Option<Token>,
    pub(super) metrics: Metrics,
    /// Operations that run, also those whose client has gone.
    pub(super) operations: TaskTracker,
    /// How long a client may stall.
    pub(super) idle: Duration,
    pub(super) components: Semaphore,
    /// For images and deltas.
    pub(super) uploads: Arc<Room>,
    draining: AtomicBool,
}

impl Deref for Shared {
    type Target = SharedInner;

    fn deref(&self) -> &SharedInner {
        &self.0
    }
}

impl Shared {
    pub(super) fn new(host: Host, token: Option<Token>, service: &Service) -> Self {
        Self(Arc::new(SharedInner {
            host,
            token,
            metrics: Metrics::new(),
            operations: TaskTracker::new(),
            idle: service.idle,
            components: Semaphore::new(COMPONENTS),
            uploads: Room::new(service.uploads),
            draining: AtomicBool::new(false),
        }))
    }

    /// From now on there is nothing to be had here any more.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Runs an operation in its own task and counts it. It continues if the client disconnects: an upload then fails, since
    /// its body does, and is cleaned up; an operation that needs no more input completes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let running = self.metrics.begin(operation);
        let task = self.operations.spawn(async move {
            let outcome = work.await;
            running.end(outcome.as_ref().err());
            outcome
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::other("the operation was cancelled").with_source(error)),
        }
    }
}
