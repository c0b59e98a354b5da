//! State shared by all requests, and running an operation for one.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lanes::{Begun, Lane, Lanes};
use super::metrics::Metrics;
use super::room::Room;
use super::secrets::Token;
use tidelock::Host;
use tidelock::config::Service;
use tidelock::types::{Error, Result};

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
    /// Places for these, held until the operation ends, whatever has become of its client.
    lanes: Lanes,
    /// How long a client may stall.
    pub(super) idle: Duration,
    /// The turns of changes of adapters, by backend.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// For images, deltas and components.
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
        let lanes = Lanes::new(service.connections as usize, host.routes(), host.backends());
        Self(Arc::new(SharedInner {
            host,
            token,
            metrics: Metrics::new(),
            operations: TaskTracker::new(),
            lanes,
            idle: service.idle,
            turns: Mutex::default(),
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

    /// The turn of a change of this backend's adapter. Changes of one backend follow each other; here, and not only in the
    /// backend, so that those that wait are not in memory. Only for backends that there are: each is kept.
    pub(super) fn turn(&self, backend: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(backend.to_owned()).or_default().clone()
    }

    /// Runs an operation in its own task and counts it. It continues if the client disconnects: an upload then fails, since
    /// its body does, and is cleaned up; an operation that needs no more input completes. One that has not `begun` by then has
    /// only waited, and is dropped. Waits for a place as long as the client does: clients that leave and come again do not
    /// add up.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        lane: Lane,
        begun: Option<Begun>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let place = self.lanes.place(&lane).await;
        let place = place.map_err(|error| Error::unavailable("the daemon stops").with_source(error))?;
        self.spawn(operation, begun, place, work).await
    }

    /// Runs a change of an adapter as [`Self::run`] does an operation, without a place: the caller has the turn of its backend.
    pub(super) async fn run_change<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.spawn(operation, None, (), work).await
    }

    async fn spawn<T: Send + 'static>(
        &self,
        operation: &'static str,
        begun: Option<Begun>,
        place: impl Send + 'static,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let running = self.metrics.begin(operation);
        let client = CancellationToken::new();
        // Dropped with the request.
        let _client = client.clone().drop_guard();
        let task = self.operations.spawn(async move {
            let _place = place;
            let outcome = tokio::select! {
                biased;
                outcome = work => outcome,
                () = left(&client, begun) => Err(Error::other("the client left before anything was done")),
            };
            running.end(outcome.as_ref().err());
            outcome
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::other("the operation was cancelled").with_source(error)),
        }
    }
}

/// Waits until the client has left an operation that has not begun; for ever if it has.
async fn left(client: &CancellationToken, begun: Option<Begun>) {
    client.cancelled().await;
    if begun.is_none_or(|begun| begun.load(Ordering::Relaxed)) {
        std::future::pending::<()>().await;
    }
}
