//! Which backends the jobs of a run leave out for a while, since they have just failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{Error, Result, Retry, Subject};

/// How often in a row a backend is found to be away before it is left out.
const AWAY: u32 = 2;
/// How often in a row it refuses what it is asked. That may be for each object by itself: its size, its name.
const REFUSED: u32 = 16;
/// How long it is left out, after the last of them.
pub(super) const LEFT_OUT: Duration = Duration::from_secs(60);

/// How the last operations of each backend ended, as far as they failed.
#[derive(Default)]
pub(super) struct Failures {
    of: Mutex<BTreeMap<String, InARow>>,
}

struct InARow {
    away: u32,
    refused: u32,
    last: Instant,
}

impl Failures {
    /// Returns whether a backend is to be left out now.
    pub(super) fn leave_out(&self, backend: &str) -> bool {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.get(backend).is_some_and(|row| (row.away >= AWAY || row.refused >= REFUSED) && row.last.elapsed() < LEFT_OUT)
    }

    /// Takes note of how an operation of a backend ended. What is wrong with one object says nothing of the others.
    pub(super) fn ended<T>(&self, backend: &str, outcome: &Result<T>) {
        match outcome {
            Ok(_) => drop(self.of.lock().unwrap_or_else(PoisonError::into_inner).remove(backend)),
            Err(error) => self.failed(backend, error),
        }
    }

    /// Takes note of an operation of a backend that has failed.
    pub(super) fn failed(&self, backend: &str, error: &Error) {
        if error.backend() != Some(backend) || error.subject() != Subject::Backend {
            return;
        }
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let none = || InARow { away: 0, refused: 0, last: Instant::now() };
        let row = of.entry(backend.to_owned()).or_insert_with(none);
        row.last = Instant::now();
        match error.retry() {
            // It is there, and would say the same again.
            Retry::Never => (row.away, row.refused) = (0, row.refused.saturating_add(1)),
            Retry::Now | Retry::After(_) => row.away = row.away.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn what_is_away_is_left_out_soon_and_what_refuses_objects_late() {
        let failures = Failures::default();
        let fails = |kind: ErrorKind, times: u32| {
            for _ in 0..times {
                let error = Error::new(kind.clone(), "no").on_backend("cloud").during("store");
                failures.ended::<()>("cloud", &Err(error));
            }
        };
        let kind = ErrorKind::Unavailable;
        fails(kind.clone(), AWAY - 1);
        assert!(!failures.leave_out("cloud"));
        fails(kind.clone(), 1);
        assert!(failures.leave_out("cloud") && !failures.leave_out("other"));
        tokio::time::advance(LEFT_OUT).await;
        assert!(!failures.leave_out("cloud"));
        fails(kind, 1);
        assert!(failures.leave_out("cloud"));
        failures.ended("cloud", &Ok(()));
        fails(ErrorKind::Denied, REFUSED - 1);
        assert!(!failures.leave_out("cloud"));
        fails(ErrorKind::Denied, 1);
        assert!(failures.leave_out("cloud"));
    }
}
