//! How often a job may be begun before its time.
//!
//! What wakes a job that waits, a placement that is good again, may be what another job brings about each time that the first one
//! fails: two such jobs would begin each other for ever. So a job that was woken often within a short time waits as long as it
//! would have without that. What could not go on for others, or since its backend is left out, has tried nothing and is not
//! counted: else a backend that stalls would use up the beginnings of jobs of the others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often a job that was woken is begun at once.
const WAKINGS: usize = 3;
/// Within which time.
const WITHIN: Duration = Duration::from_secs(10 * 60);

/// The jobs of a host that were begun before their time.
#[derive(Default)]
pub(in crate::connector) struct Wakings {
    of: Mutex<BTreeMap<u64, Woken>>,
}

#[derive(Default)]
struct Woken {
    /// When, the latest last: at most [`WAKINGS`].
    at: Vec<Instant>,
    /// When it would have been begun without that.
    due: Option<Instant>,
}

impl Wakings {
    fn of(&self) -> MutexGuard<'_, BTreeMap<u64, Woken>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a job that was woken, has tried its work and failed, and would be begun again after a pause.
    pub(super) fn note(&self, job: u64, pause: Duration) {
        let now = Instant::now();
        let mut of = self.of();
        of.retain(|_, woken| woken.at.last().is_some_and(|last| now.duration_since(*last) < WITHIN));
        let woken = of.entry(job).or_default();
        if woken.at.len() == WAKINGS {
            woken.at.remove(0);
        }
        woken.at.push(now);
        woken.due = now.checked_add(pause);
    }

    /// The jobs that wait for their time, woken or not.
    pub(super) fn waiting(&self) -> Vec<u64> {
        let now = Instant::now();
        let often = |woken: &Woken| {
            woken.at.len() == WAKINGS
                && woken.at.first().is_some_and(|first| now.duration_since(*first) < WITHIN)
                && woken.due.is_none_or(|due| now < due)
        };
        self.of().iter().filter(|(_, woken)| often(woken)).map(|(job, _)| *job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_woken_often_waits_for_its_time_and_no_longer() {
        let wakings = Wakings::default();
        let second = Duration::from_secs(1);
        for _ in 0..2 {
            wakings.note(7, 240 * second);
            assert!(wakings.waiting().is_empty());
        }
        wakings.note(7, 240 * second);
        wakings.note(8, 240 * second);
        assert_eq!(wakings.waiting(), [7], "two jobs that wake each other begin each other no more");
        tokio::time::advance(239 * second).await;
        assert_eq!(wakings.waiting(), [7]);
        tokio::time::advance(second).await;
        assert!(wakings.waiting().is_empty(), "its own pause is over");
        // Woken again at once: the last three lie within the time.
        wakings.note(7, 1000 * second);
        assert_eq!(wakings.waiting(), [7]);
        // However long its pause is, those of long ago do not count.
        tokio::time::advance(361 * second).await;
        assert!(wakings.waiting().is_empty());
        tokio::time::advance(WITHIN).await;
        wakings.note(9, second);
        assert_eq!(wakings.of().len(), 1, "what was long ago is forgotten");
    }
}
