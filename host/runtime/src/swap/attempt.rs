//! One operation's attempt on a generation: which one it gets, and where it may go when that does not do.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Slot;
use super::generation::{Generation, Lease};
use super::trial::{Fault, Trial};
use crate::Adapter;
use tidelock_types::{Error, Result};

/// How often an operation may be preempted and begun again.
const MAX_PREEMPTIONS: u8 = 8;

/// An operation's attempt on a generation. The generation is not freed before the attempt ends or is dropped.
///
/// ```text
/// begin → run → end ─┬─ None: the outcome stands
///                    └─ Some(next attempt): repeat it there
/// ```
pub(super) struct Attempt {
    slot: Slot,
    role: Role,
    /// How often the operation was preempted before.
    preemptions: u8,
    was_preempted: AtomicBool,
}

enum Role {
    /// On the generation that serves, or on a canary; and the trial on which it was when the operation began. That may
    /// be over by the time it fails: a rollback ends it, and the operations that it meets need their control all the more.
    Serving(Lease, Option<Arc<Trial>>),
    /// On the predecessor of a generation on which the same operation failed.
    Control { trial: Arc<Trial>, failed: Arc<Generation> },
}

impl Attempt {
    pub(super) fn serving(slot: Slot, lease: Lease) -> Self {
        lease.begins();
        let trial = lease.generation().trial.load_full();
        Self { slot, role: Role::Serving(lease, trial), preemptions: 0, was_preempted: AtomicBool::new(false) }
    }

    /// The adapter whose attempt it is.
    pub(super) fn adapter(&self) -> &Arc<Adapter> {
        match &self.role {
            Role::Serving(lease, _) => lease.generation().adapter(),
            Role::Control { trial, .. } => trial.predecessor().adapter(),
        }
    }

    pub(super) fn generation(&self) -> Option<&Arc<Generation>> {
        match &self.role {
            Role::Serving(lease, _) => Some(lease.generation()),
            Role::Control { .. } => None,
        }
    }

    /// Runs a part of the operation.
    ///
    /// # Errors
    /// Its own; `unavailable` if the drain deadline of a swap preempted it.
    pub(super) async fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Role::Serving(lease, _) = &self.role else { return work.await };
        match lease.until_preempted(work).await {
            Some(outcome) => outcome,
            None => {
                self.was_preempted.store(true, Ordering::Relaxed);
                Err(self.to_preempted().error())
            }
        }
    }

    /// The rest of an attempt once its generation was taken away.
    pub(super) fn to_preempted(&self) -> Preempted {
        Preempted { slot: self.slot.clone(), preemptions: self.preemptions }
    }

    /// Ends the attempt with the operation's outcome. Returns another attempt if the operation is to be repeated from its
    /// beginning: on the new generation if it was preempted, on the predecessor if it failed on trial. `repeatable` says
    /// whether it can be: a removal always, a store only from bytes that can be read again and under a fresh key.
    pub(super) fn end(self, outcome: std::result::Result<(), &Error>, repeatable: bool) -> Option<Attempt> {
        let was_preempted = self.was_preempted.load(Ordering::Relaxed);
        let Self { slot, role, preemptions, .. } = self;
        match role {
            Role::Serving(..) if was_preempted => Preempted { slot, preemptions }.again().ok().filter(|_| repeatable),
            Role::Serving(lease, trial) => {
                let generation = lease.generation();
                let fault = outcome.err().map_or(Fault::None, Fault::of);
                if outcome.is_ok() {
                    generation.tally.add(false);
                } else if let Some(trial) = trial.filter(|_| fault != Fault::None) {
                    if repeatable && trial.take_control() {
                        let role = Role::Control { trial, failed: generation.clone() };
                        return Some(Attempt { slot, role, preemptions, was_preempted: AtomicBool::new(false) });
                    }
                    if fault == Fault::Own {
                        slot.failed(generation, &trial);
                    }
                } else if fault.counts() {
                    generation.tally.add(true);
                }
                None
            }
            Role::Control { trial, failed } => {
                // If both fail, neither is at fault.
                if outcome.is_ok() {
                    trial.predecessor().tally.add(false);
                    slot.failed(&failed, &trial);
                }
                None
            }
        }
    }
}

/// An operation whose generation was taken away.
pub(super) struct Preempted {
    slot: Slot,
    preemptions: u8,
}

impl Preempted {
    /// An attempt on the generation that serves now.
    pub(super) fn again(self) -> Result<Attempt> {
        if self.preemptions >= MAX_PREEMPTIONS {
            return Err(self.error());
        }
        let mut attempt = self.slot.begin();
        attempt.preemptions = self.preemptions + 1;
        Ok(attempt)
    }

    fn error(&self) -> Error {
        let deadline = self.slot.drain_deadline();
        Error::unavailable(format!("the adapter was replaced, and the operation did not end within {deadline:?}"))
            .on_backend(self.slot.backend())
            .hint("try again, or raise `swap.drain` of the backend")
    }
}
