//! How many jobs of a run go on at once, and between which backends.
//!
//! As many as are asked for, whichever they are; and beyond them one for each two backends that no other job of the run goes on
//! between. So a backend that stalls keeps jobs waiting that read from it or write to it, and never those of the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::catalogue::Between;
use crate::types::{Error, Result};

/// The most jobs beyond those that are asked for.
const MOST_BEYOND: usize = 64;

/// The places of one run.
#[derive(Default)]
pub(super) struct Places {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// Where each job is, and whether it is beyond those that are asked for.
    jobs: BTreeMap<u64, (Between, bool)>,
}

/// What may be begun.
pub(super) enum Free {
    /// Any job.
    Any,
    /// One that is between none of these.
    Beside(Vec<Between>),
    Nothing,
}

#[cfg(test)]
impl Free {
    fn is_beside(&self, between: &Between) -> bool {
        match self {
            Self::Any => true,
            Self::Beside(others) => !others.iter().any(|other| other.is_same(between)),
            Self::Nothing => false,
        }
    }
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be begun if so many jobs are asked for.
    pub(super) fn free(&self, parallel: usize) -> Free {
        let taken = self.taken();
        let beyond = taken.jobs.values().filter(|(_, beyond)| *beyond).count();
        match taken.jobs.len() - beyond {
            within if within < parallel => Free::Any,
            _ if beyond < MOST_BEYOND => {
                Free::Beside(taken.jobs.values().map(|(between, _)| between.clone()).collect())
            }
            _ => Free::Nothing,
        }
    }

    /// The place of a job.
    pub(super) fn take(self: &Arc<Self>, between: Between, beyond: bool) -> Place {
        let mut taken = self.taken();
        let number = taken.next;
        taken.next += 1;
        taken.jobs.insert(number, (between, beyond));
        Place { places: self.clone(), number, refused: AtomicBool::new(false) }
    }
}

/// A job that goes on. Dropping it ends that.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    refused: AtomicBool,
}

impl Place {
    /// Goes on between other backends from now on.
    ///
    /// # Errors
    /// `unavailable` if a job beyond those that are asked for has come between two where another one is.
    pub(super) fn enter(&self, source: &str, target: &str) -> Result<()> {
        let between = Between { source: source.to_owned(), target: target.to_owned() };
        let mut taken = self.places.taken();
        let beyond = taken.jobs.get(&self.number).is_some_and(|(_, beyond)| *beyond);
        let occupied = taken.jobs.iter().any(|(number, (other, _))| *number != self.number && other.is_same(&between));
        if beyond && occupied {
            self.refused.store(true, Ordering::Relaxed);
            return Err(Error::unavailable(format!("other jobs go on between `{source}` and `{target}`")));
        }
        taken.jobs.insert(self.number, (between, beyond));
        Ok(())
    }

    /// Goes on at a backend that is neither of its two, as between that and itself.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(super) fn visit(&self, backend: &str) -> Result<()> {
        let is_of_its_two = |(between, _): &(Between, bool)| between.source == backend || between.target == backend;
        let is_there = self.places.taken().jobs.get(&self.number).is_some_and(is_of_its_two);
        if is_there { Ok(()) } else { self.enter(backend, backend) }
    }

    /// Returns whether it could not go on somewhere for others.
    pub(super) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().jobs.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(source: &str, target: &str) -> Between {
        Between { source: source.to_owned(), target: target.to_owned() }
    }

    #[test]
    fn beyond_those_that_are_asked_for_there_is_one_between_two_backends() {
        let places = Arc::<Places>::default();
        let first = places.take(between("good", "stalled"), false);
        assert!(matches!(places.free(2), Free::Any));
        let _second = places.take(between("good", "stalled"), false);
        let Free::Beside(others) = places.free(2) else { panic!("there is a place beside them") };
        assert!(others.iter().all(|other| other.is_same(&between("stalled", "good"))));
        let beyond = places.take(between("good", "third"), true);
        assert!(beyond.enter("stalled", "third").is_ok() && !beyond.was_refused());
        assert!(beyond.enter("stalled", "good").is_err() && beyond.was_refused());
        // At a third backend it leaves its two to others.
        assert!(beyond.visit("third").is_ok() && beyond.visit("fourth").is_ok());
        assert!(places.free(2).is_beside(&between("stalled", "third")));
        assert!(!places.free(2).is_beside(&between("fourth", "fourth")));
        // Those that are asked for go where they like.
        assert!(first.enter("stalled", "third").is_ok());
        drop(first);
        assert!(matches!(places.free(2), Free::Any));
        let _all: Vec<_> = (0..=MOST_BEYOND).map(|_| places.take(between("a", "b"), true)).collect();
        assert!(matches!(places.free(1), Free::Nothing));
    }
}
