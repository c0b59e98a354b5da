//! A new generation beside its predecessor: whose fault is a failure?
//!
//! While a generation is on trial (as a canary, and for a while after it took over) its predecessor stays loaded. When an
//! operation fails on the new one, it is repeated on the predecessor, if that is safe. This *control* answers
//! two questions at once. The caller gets the predecessor's answer, so that a bad version is not noticed. And the
//! failure is attributed to the new one only if the predecessor succeeds: an outage of the backend fails on both
//! and counts for nothing.
//!
//! An operation that cannot be repeated (a store from a stream, which cannot be read again) has no
//! control. Then only failures that no backend can cause count: a trap, a limit, a receipt that does not match the bytes.
//!
//! The predecessor's record, with which the new one is compared, counts every failure that may be its own,
//! outages included: in doubt against a rollback. `rollback_policy.rs` compares the two records.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Notify;

use super::generation::Generation;
use super::lock;
use super::rollback_policy::{RollbackThreshold, is_worse};
use tidelock_types::{Error, ObjectId, Retry, Subject};

/// Maximum number of operations that a trial repeats on the predecessor: an outage must not double its own load for long.
const CONTROLS: u64 = 256;

/// How many objects with wrong bytes a trial remembers. Many fewer are enough to find a version worse.
const MAX_REPORTED: usize = 256;

/// How an error counts against an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing: it is an answer about the account, the load or the caller.
    None,
    /// An answer that may be right: not found, or denied.
    Answer,
    /// It may be the adapter's or the backend's.
    Doubtful,
    /// The adapter's alone.
    Own,
}

impl Fault {
    pub(super) fn of(error: &Error) -> Self {
        use tidelock_types::Fault as Whose;
        if error.subject() == Subject::Request {
            // The source of a store, the catalogue, the host itself.
            return Self::None;
        }
        match error.fault() {
            Whose::Adapter => Self::Own,
            Whose::Backend if error.retry() != Retry::Never => Self::Doubtful,
            // A request that another version of the adapter may accept, too.
            Whose::Backend | Whose::Caller => Self::Answer,
            Whose::Host | Whose::Nobody => Self::None,
        }
    }

    /// Returns whether it counts in the record of a generation that is on no trial.
    pub(super) fn counts(self) -> bool {
        matches!(self, Self::Doubtful | Self::Own)
    }
}

/// A generation's trial.
pub(super) struct Trial {
    predecessor: Arc<Generation>,
    controls: AtomicU64,
    verdict: OnceLock<String>,
    found_worse: Notify,
    /// Objects whose bytes were reported to be wrong.
    reported: Mutex<BTreeSet<String>>,
    threshold: RollbackThreshold,
}

impl Trial {
    pub(super) fn beside(predecessor: Arc<Generation>) -> Arc<Self> {
        Arc::new(Self {
            predecessor,
            controls: AtomicU64::new(CONTROLS),
            verdict: OnceLock::new(),
            found_worse: Notify::new(),
            reported: Mutex::default(),
            threshold: RollbackThreshold::default(),
        })
    }

    pub(super) fn predecessor(&self) -> &Arc<Generation> {
        &self.predecessor
    }

    /// Takes one of the controls, if any is left.
    pub(super) fn take_control(&self) -> bool {
        self.controls.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    /// Returns whether an object with wrong bytes is reported for the first time. There is no control for it, so one
    /// that is damaged must not count each time that it is read.
    pub(super) fn is_first_report(&self, object: &ObjectId) -> bool {
        let mut reported = lock(&self.reported);
        reported.len() < MAX_REPORTED && reported.insert(object.as_str().to_owned())
    }

    /// Looks at the records after a failure. True for the one call that finds the new generation worse.
    pub(super) fn exceeds_threshold(&self, new: &Generation) -> bool {
        let (counts, before) = (new.tally.counts(), self.predecessor.tally.counts());
        if !is_worse(counts, before, &self.threshold) {
            return false;
        }
        let figures = format!("{counts} operations failed on it, and {before} on its predecessor");
        let first = self.verdict.set(figures).is_ok();
        self.found_worse.notify_waiters();
        first
    }

    /// The counts, if the new generation is worse.
    pub(super) fn verdict(&self) -> Option<&str> {
        self.verdict.get().map(String::as_str)
    }

    /// Comes when the new generation was found to be worse.
    pub(super) async fn found_worse(&self) {
        loop {
            let mut notified = std::pin::pin!(self.found_worse.notified());
            notified.as_mut().enable();
            if self.verdict.get().is_some() {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelock_types::ErrorKind;

    #[test]
    fn only_what_an_adapter_can_cause_is_its_fault() {
        let fault = |kind| Fault::of(&Error::new(kind, "x").on_backend("b").during("store"));
        assert_eq!(fault(ErrorKind::Trapped), Fault::Own);
        assert_eq!(fault(ErrorKind::Limit), Fault::Own);
        assert_eq!(fault(ErrorKind::Unavailable), Fault::Doubtful);
        assert_eq!(fault(ErrorKind::Corrupt), Fault::Own);
        assert_eq!(fault(ErrorKind::NotFound), Fault::Answer);
        assert_eq!(fault(ErrorKind::Invalid), Fault::Answer);
        assert_eq!(fault(ErrorKind::RateLimited(None)), Fault::None);
        assert_eq!(Fault::of(&Error::other("the image changed")), Fault::None);
        assert!(!Fault::Answer.counts() && Fault::Doubtful.counts());
    }
}
