//! One version of a backend's adapter, its leases, and how it is drained.
//!
//! An operation holds a [`Lease`] from its beginning to its end. A generation that is no longer current is drained:
//! the swap waits until no lease is left. After the drain deadline the rest is preempted: futures of operations see it and
//! end; bodies, which may be unread for hours, are taken from their readers, who notice at the next read.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use super::read::Cell;
use super::rollback_policy::Counts;
use super::trial::Trial;
use crate::Adapter;

/// One version of a backend's adapter.
pub(super) struct Generation {
    adapter: Arc<Adapter>,
    /// 0 until it serves.
    number: AtomicU64,
    since: AtomicU64,
    pub(super) tally: Arc<Tally>,
    /// While it is on trial beside its predecessor.
    pub(super) trial: ArcSwapOption<Trial>,
    in_flight: AtomicU64,
    idle: Notify,
    preempt: watch::Sender<bool>,
    bodies: Mutex<Vec<Weak<Mutex<Cell>>>>,
    published: OnceLock<Instant>,
    first: OnceLock<Duration>,
}

impl Generation {
    /// A generation that may get operations.
    pub(super) fn new(adapter: Arc<Adapter>) -> Arc<Self> {
        adapter.serves();
        Arc::new(Self {
            adapter,
            number: AtomicU64::new(0),
            since: AtomicU64::new(0),
            tally: Arc::default(),
            trial: ArcSwapOption::empty(),
            in_flight: AtomicU64::new(0),
            idle: Notify::new(),
            preempt: watch::Sender::new(false),
            bodies: Mutex::default(),
            published: OnceLock::new(),
            first: OnceLock::new(),
        })
    }

    /// The adapter.
    pub(super) fn adapter(&self) -> &Arc<Adapter> {
        &self.adapter
    }

    /// Counts up from 1, over restarts too.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// When it began to serve, in seconds since 1970-01-01 UTC.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Acquire)
    }

    /// The operations that run on it.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// How long after it took over the first operation began on it.
    pub(super) fn first_operation_after(&self) -> Option<Duration> {
        self.first.get().copied()
    }

    pub(super) fn named(self: &Arc<Self>, number: u64, since: u64) {
        self.since.store(since, Ordering::Release);
        self.number.store(number, Ordering::Release);
    }

    /// Notes that it takes over now.
    pub(super) fn takes_over(&self) {
        let _ = self.published.set(self.adapter.platform().now());
    }

    /// Begins an operation. The caller must then see whether the generation still serves: see `Slot::begin`.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        // The count is visible before the caller looks which generation serves; `drain` does it the other way round. So
        // either the caller sees that this one does not serve any more, or `drain` sees the caller.
        fence(Ordering::SeqCst);
        Lease(self.clone())
    }

    /// Returns whether operations on it are preempted.
    pub(super) fn is_preempted(&self) -> bool {
        *self.preempt.borrow()
    }

    /// Resolves when operations on it are preempted.
    pub(super) async fn preempted(&self) {
        let mut preempt = self.preempt.subscribe();
        // The sender is in `self`.
        let _ = preempt.wait_for(|preempt| *preempt).await;
    }

    /// Registers a body, so that a preemption finds it.
    pub(super) fn hold(&self, body: &Arc<Mutex<Cell>>) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if bodies.len() == bodies.capacity() {
            bodies.retain(|body| body.strong_count() > 0);
        }
        bodies.push(Arc::downgrade(body));
    }

    /// Waits until no operation runs on it, and preempts those that exceed the deadline. Returns their number.
    pub(super) async fn drain(&self, deadline: Duration) -> u64 {
        fence(Ordering::SeqCst);
        if tokio::time::timeout(deadline, self.idle()).await.is_ok() {
            return 0;
        }
        let preempted = self.in_flight();
        self.preempt.send_replace(true);
        let bodies = std::mem::take(&mut *self.bodies.lock().unwrap_or_else(PoisonError::into_inner));
        bodies.iter().filter_map(Weak::upgrade).for_each(|body| Cell::preempt(&body));
        self.idle().await;
        preempted
    }

    async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// An operation's hold on its generation.
pub(super) struct Lease(Arc<Generation>);

impl Lease {
    pub(super) fn generation(&self) -> &Arc<Generation> {
        &self.0
    }

    /// Notes that an operation begins in earnest.
    pub(super) fn begins(&self) {
        if self.0.first.get().is_none()
            && let Some(published) = self.0.published.get()
        {
            let _ = self.0.first.set(self.0.adapter.platform().since(*published));
        }
    }

    /// Runs a future of the operation, or returns `None` when the generation is preempted.
    pub(super) async fn until_preempted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.0.preempted() => None,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// How the operations of a generation ended. The past fades: when there are [`Tally::MAX`], both numbers are halved.
#[derive(Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    const MAX: u64 = 8192;

    pub(super) fn add(&self, failed: bool) {
        let add = |packed: u64| {
            let (mut operations, mut failures) = (packed >> 32, packed & u64::from(u32::MAX));
            if operations >= Self::MAX {
                (operations, failures) = (operations / 2, failures / 2);
            }
            Some(((operations + 1) << 32) | (failures + u64::from(failed)))
        };
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    pub(super) fn counts(&self) -> Counts {
        let packed = self.0.load(Ordering::Acquire);
        Counts { operations: packed >> 32, failures: packed & u64::from(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_fades() {
        let tally = Tally::default();
        (0..Tally::MAX).for_each(|_| tally.add(true));
        (0..3 * Tally::MAX).for_each(|_| tally.add(false));
        let Counts { operations, failures } = tally.counts();
        assert!(operations <= Tally::MAX && failures * 20 < operations, "{failures} of {operations}");
    }
}
