//! Counters for each operation of a backend: how many there were, how they failed, how long they took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::StreamExt as _;
use futures::future::BoxFuture;

use tidelock_types::{Body, Error, ErrorKind, Platform, Result};

use super::around::{Around, Surrounded};
use super::{Layer, Position};
use crate::{Backend, Operation};

/// Counts the operations of one backend.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    counters: Arc<OperationMetrics>,
    platform: Platform,
}

impl Metrics {
    /// New counters that take the time from `platform`.
    pub fn new(platform: Platform) -> Self {
        Self { counters: Arc::default(), platform }
    }

    /// The counters, which go on counting.
    pub fn counters(&self) -> Arc<OperationMetrics> {
        self.counters.clone()
    }
}

impl Layer for Metrics {
    fn position(&self) -> Position {
        Position::Metrics
    }

    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Surrounded::wrap(Counted(self.clone()), inner)
    }
}

/// The counters of all operations.
#[derive(Debug, Default)]
pub struct OperationMetrics {
    of: [Counters; Operation::ALL.len()],
    /// Operations that have failed in a row since the backend was not there.
    away: AtomicU32,
}

#[derive(Debug, Default)]
struct Counters {
    operations: AtomicU64,
    nanoseconds: AtomicU64,
    /// By the name of the kind. Failures are rare enough for a lock.
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

/// The counts of one operation.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationCounts {
    /// Which one.
    pub operation: Operation,
    /// How many have ended, well or not. A get ends when its bytes begin to come.
    pub operations: u64,
    /// How many have failed, by the name of the kind of error. Dropped ones count as `cancelled`; a get whose
    /// bytes broke off later counts here too.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long all of them took together.
    pub seconds: f64,
}

impl OperationMetrics {
    /// Returns the counts of the operations that have run.
    pub fn counts(&self) -> Vec<OperationCounts> {
        let counts = Operation::ALL.into_iter().zip(&self.of).map(|(operation, counters)| OperationCounts {
            operation,
            operations: counters.operations.load(Ordering::Relaxed),
            failures: counters.failures.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            seconds: counters.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
        });
        counts.filter(|counts| counts.operations > 0).collect()
    }

    fn of(&self, operation: Operation) -> &Counters {
        // The discriminants count up from 0, in the order of `ALL`.
        &self.of[operation as usize]
    }

    /// Returns how many operations have failed in a row, up to the last one that ended, because the backend was not there or
    /// did not answer in time. One that failed for another reason ends the row, and one that was given up counts for nothing.
    pub fn failures_in_a_row(&self) -> u32 {
        self.away.load(Ordering::Relaxed)
    }

    fn seen(&self, outcome: std::result::Result<(), &ErrorKind>) {
        match outcome {
            Err(ErrorKind::Cancelled) => {}
            Err(ErrorKind::Unavailable | ErrorKind::TimedOut) => {
                let _ = self.away.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
            }
            _ => self.away.store(0, Ordering::Relaxed),
        }
    }
}

impl Counters {
    fn failed(&self, kind: &ErrorKind) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(kind.name()).or_default() += 1;
    }
}

/// An operation under way. Dropped before it has ended, it was given up.
struct Running<'a> {
    metrics: &'a OperationMetrics,
    counters: &'a Counters,
    platform: &'a Platform,
    began: Instant,
    ended: bool,
}

impl Running<'_> {
    fn end(&mut self, outcome: std::result::Result<(), &ErrorKind>) {
        self.ended = true;
        self.metrics.seen(outcome);
        self.counters.operations.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(self.platform.since(self.began).as_nanos()).unwrap_or(u64::MAX);
        self.counters.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        if let Err(kind) = outcome {
            self.counters.failed(kind);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(&ErrorKind::Cancelled));
        }
    }
}

struct Counted(Metrics);

impl Around for Counted {
    async fn around<'a, T: Send + 'a>(&'a self, operation: Operation, work: BoxFuture<'a, Result<T>>) -> Result<T> {
        let Metrics { counters, platform } = &self.0;
        let (metrics, counters) = (&**counters, counters.of(operation));
        let mut running = Running { metrics, counters, platform, began: platform.now(), ended: false };
        let outcome = work.await;
        running.end(outcome.as_ref().map(drop).map_err(Error::kind));
        outcome
    }

    fn body(&self, body: Body) -> Body {
        let (size, counters) = (body.remaining(), self.0.counters());
        let chunks = body.inspect(move |chunk| {
            if let Err(error) = chunk {
                counters.of(Operation::Get).failed(error.kind());
                counters.seen(Err(error.kind()));
            }
        });
        Body::new(chunks, size)
    }
}
