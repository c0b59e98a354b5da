//! What the host holds for operations, counted for each of them and for all of a backend together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use tidelock_types::Limits;

/// What the host holds: bytes, and things that are open.
#[derive(Default)]
pub(super) struct Held {
    bytes: AtomicU64,
    open: AtomicUsize,
}

/// How much was held when something was taken. What was not taken is not looked at.
#[derive(Default)]
pub(super) struct HeldThen {
    pub(super) bytes: u64,
    pub(super) open: usize,
}

impl Held {
    pub(super) fn take(&self, bytes: u64, open: usize) -> HeldThen {
        let mut then = HeldThen::default();
        if bytes > 0 {
            then.bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        }
        if open > 0 {
            then.open = self.open.fetch_add(open, Ordering::Relaxed).saturating_add(open);
        }
        then
    }

    pub(super) fn give_back(&self, bytes: u64, open: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        if open > 0 {
            self.open.fetch_sub(open, Ordering::Relaxed);
        }
    }
}

/// What all operations of one backend use together, on whichever generation of its adapter they run: generations that
/// drain and the one that took over share it, so swaps multiply nothing. The places of operations are twice those that
/// one generation has, so that a generation whose operations do not end keeps its successor from none.
///
/// A component that does not serve yet has another, small one for `describe` and `probe`: the operations of a generation
/// that is to be replaced cannot keep its successor out by taking all there is. One component at a time is tried, and
/// one operation of it runs at once.
pub(crate) struct BackendUsage {
    pub(super) held: Held,
    pub(super) jobs: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
}

/// The usage of a backend, and that of a component on its way to serve it.
#[derive(Clone)]
pub(crate) struct BackendUsages {
    pub(crate) serving: Arc<BackendUsage>,
    pub(crate) candidate: Arc<BackendUsage>,
}

impl BackendUsage {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Self::of(limits.blocking_jobs, limits.in_flight.saturating_mul(2))
    }

    fn of(jobs: usize, in_flight: usize) -> Arc<Self> {
        let places = |count: usize| Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self { held: Held::default(), jobs: places(jobs), in_flight: places(in_flight) })
    }

    /// The places of operations that run at once, all generations together.
    pub(crate) fn in_flight(&self) -> &Arc<Semaphore> {
        &self.in_flight
    }
}

impl BackendUsages {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { serving: BackendUsage::new(limits), candidate: BackendUsage::of(1, 1) }
    }
}
