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

/// What all operations of one backend use together.
pub(crate) struct BackendUsage {
    pub(super) held: Held,
    pub(super) jobs: Arc<Semaphore>,
}

impl BackendUsage {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self { held: Held::default(), jobs: Arc::new(Semaphore::new(limits.blocking_jobs.max(1))) })
    }
}
