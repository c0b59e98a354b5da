//! Which generation of an adapter serves a backend, and how one takes over from another while operations run.
//!
//! A [`Slot`] belongs to a backend and holds its current [`Generation`] in an atomic pointer: beginning an operation is
//! one load, no lock. A swap (`change.rs`) loads, checks and probes the new component first and publishes it last, so that
//! a component that does not work never serves. Operations that began on a generation end on it (`generation.rs`); what
//! the drain deadline preempts is done again on the new one where that is safe (`attempt.rs`, `read.rs`). For a while the
//! predecessor stays loaded: what fails on the new generation is tried on it (`trial.rs`), and if the new one fails more
//! (`rollback_policy.rs`), the predecessor takes over again. All of this stays within the slot, which is a `Backend`
//! for everybody else (`backend.rs`).
//!
//! Swaps of one slot run in the order of their requests; nothing else waits for a swap. A [`SwapLog`] (`swap_log.rs`)
//! records the events, and decides which component serves after a restart (`history.rs`).

mod attempt;
mod backend;
mod change;
mod generation;
mod history;
mod open;
mod part;
mod publication;
mod read;
mod rollback_policy;
mod swap_log;
mod trial;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

pub use change::SwapOptions;
pub use history::{Event, History, HistoryEntry, HistoryRow, KEPT, ROWS};
pub use swap_log::{InMemorySwapLog, SwapLog};

use super::operation::held::BackendUsages;
use super::stage::{OnStage, Stage, StageTime, Stages, SwapReport};
use super::{Adapter, BackendSpec, Sandbox};
use attempt::Attempt;
use generation::Generation;
use tidelock_types::Platform;

/// How a backend changes its adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct SwapPolicy {
    /// How long operations may go on on a generation that was replaced; `None` is as long as they do: their
    /// own limits end them, and a swap preempts nothing.
    pub drain: Option<Duration>,
    /// Whether a new generation first gets a share of real operations.
    pub canary: Option<Canary>,
    /// How long a new generation is on trial beside its predecessor, to be rolled back if it fails more; `None` never
    /// rolls back automatically.
    pub trial: Option<Duration>,
}

impl Default for SwapPolicy {
    fn default() -> Self {
        Self { drain: None, canary: None, trial: Some(Duration::from_secs(600)) }
    }
}

/// A share of real operations for a new generation before it takes over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Canary {
    /// Which share of the operations, more than 0 and at most 1. Steps of 1/10,000 count.
    pub share: f64,
    /// For how long.
    pub duration: Duration,
}

/// The options of a slot beside its backend.
#[derive(Clone)]
pub struct SlotOptions {
    /// How it changes its adapter.
    pub policy: SwapPolicy,
    /// The swap log.
    pub swap_log: Arc<dyn SwapLog>,
}

impl Default for SlotOptions {
    fn default() -> Self {
        Self { policy: SwapPolicy::default(), swap_log: Arc::new(InMemorySwapLog::default()) }
    }
}

/// The generation that serves.
pub struct Serving {
    /// Its adapter.
    pub adapter: Arc<Adapter>,
    /// Its number, counting up from 1, over restarts too.
    pub generation: u64,
    /// When it began to serve, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// How long after it took over the first operation began on it.
    pub first_operation_after: Option<Duration>,
}

/// A backend's place for an adapter. Cheap to clone; all clones are the same place.
#[derive(Clone)]
pub struct Slot(Arc<SlotInner>);

struct SlotInner {
    spec: BackendSpec,
    /// What the operations of all its generations use together.
    usages: BackendUsages,
    sandbox: Arc<Sandbox>,
    options: SlotOptions,
    /// The component that the configuration names.
    configured: String,
    current: ArcSwap<Generation>,
    /// A generation that gets a share of the operations before it takes over.
    canary: ArcSwapOption<Generation>,
    /// Operations begun; only their order counts.
    begun: AtomicU64,
    swapping: Arc<tokio::sync::Mutex<()>>,
    history: Mutex<History>,
    /// The numbers of generations on which operations are still ending.
    draining: Mutex<Vec<u64>>,
    /// Tasks that wait for it; they end with the slot.
    drains: Mutex<JoinSet<()>>,
    trial_end: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Slot {
    /// The backend's name.
    fn backend(&self) -> &str {
        &self.0.spec.name
    }

    /// Returns a description of the generation that serves now. Operations go through the slot as a
    /// [`tidelock_backend::Backend`].
    pub fn serving(&self) -> Serving {
        let generation = self.0.current.load();
        Serving {
            adapter: generation.adapter().clone(),
            generation: generation.number(),
            since: generation.since(),
            first_operation_after: generation.first_operation_after(),
        }
    }

    fn current(&self) -> Arc<Generation> {
        self.0.current.load_full()
    }

    /// Returns the history, newest first.
    pub fn history(&self) -> Vec<HistoryEntry> {
        let draining = lock(&self.0.draining).clone();
        lock(&self.0.history).entries(&draining)
    }

    /// Why a component should not be put in unasked: the row that refused it or put it aside, if it has not served since.
    pub fn put_aside(&self, digest: &str) -> Option<HistoryRow> {
        lock(&self.0.history).put_aside(digest).cloned()
    }

    /// Begins an operation on the generation that serves, or on a canary if it is the canary's turn.
    fn begin(&self) -> Attempt {
        if let Some(canary) = self.0.canary.load_full()
            && self.is_for_canary()
        {
            let lease = canary.lease();
            let still = |serving: Option<Arc<Generation>>| serving.is_some_and(|it| Arc::ptr_eq(&it, &canary));
            if still(self.0.canary.load_full()) || still(Some(self.current())) {
                return Attempt::serving(self.clone(), lease);
            }
        }
        loop {
            let generation = self.current();
            let lease = generation.lease();
            // Between the look and the lease it may have been replaced, and found idle.
            if Arc::ptr_eq(&generation, &self.0.current.load()) {
                return Attempt::serving(self.clone(), lease);
            }
        }
    }

    /// Spreads the canary's operations evenly among all.
    fn is_for_canary(&self) -> bool {
        let share = self.0.options.policy.canary.map_or(0.0, |canary| canary.share);
        let step = (share.clamp(0.0, 1.0) * 10_000.0).round() as u64;
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed) % 10_000;
        (number + 1) * step / 10_000 > number * step / 10_000
    }

    /// Seconds since 1970-01-01 UTC.
    fn now(&self) -> u64 {
        self.platform().unix_seconds()
    }

    fn platform(&self) -> &Platform {
        &self.0.sandbox.engine().options().platform
    }

    /// How long an operation may go on on a generation that was replaced.
    fn drain_deadline(&self) -> Duration {
        self.0.options.policy.drain.unwrap_or(Duration::MAX)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
