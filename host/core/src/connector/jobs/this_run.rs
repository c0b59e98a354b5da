//! What a job knows of the run that it is part of: its place among the backends, and which of them have just failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::failures::{Failures, LEFT_OUT};
use super::meter::Meter;
use super::places::{Place, Places};
use crate::catalogue::Between;
use crate::connector::Host;
use crate::snapshot::Progress;
use crate::types::{Error, Result};

/// How long a job waits at the most.
pub(super) const LONGEST_PAUSE: u64 = 6 * 60 * 60;
/// Of jobs that were not tried since their backend is left out, so many more are due again each second.
const UNTRIED_PER_SECOND: u64 = 10;

/// What a job knows of the run that it is part of.
pub(super) struct Run {
    pub(super) meter: Arc<Meter>,
    failures: Arc<Failures>,
    pub(super) places: Arc<Places>,
    /// Jobs that were not tried.
    untried: Arc<AtomicU64>,
    /// None before a job is begun.
    place: Option<Place>,
    /// Whether a backend was left out for this job.
    held_back: AtomicBool,
    /// Whether it has tried something on a backend.
    has_tried: AtomicBool,
}

impl Run {
    pub(super) fn new(host: &Host, bytes_per_second: Option<u64>, progress: Option<Progress>) -> Self {
        let bytes_per_second = bytes_per_second.or(host.inner.job_settings.bytes_per_second);
        let meter = Arc::new(Meter::new(bytes_per_second, progress));
        Self {
            meter,
            failures: Arc::default(),
            places: Arc::default(),
            untried: Arc::default(),
            place: None,
            held_back: AtomicBool::default(),
            has_tried: AtomicBool::default(),
        }
    }

    /// That of a job which goes on between these backends.
    pub(super) fn of_job(&self, between: Between, beyond: bool) -> Self {
        Self {
            meter: self.meter.clone(),
            failures: self.failures.clone(),
            places: self.places.clone(),
            untried: self.untried.clone(),
            place: Some(self.places.take(between, beyond)),
            held_back: AtomicBool::default(),
            has_tried: AtomicBool::default(),
        }
    }

    /// The job goes on from here: it is not held up by others, and its backend is not left out.
    pub(super) fn tries(&self) {
        self.has_tried.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_tried(&self) -> bool {
        self.has_tried.load(Ordering::Relaxed)
    }

    /// Goes on between these backends.
    ///
    /// # Errors
    /// `unavailable` if that is for others to do: the job is due again soon.
    pub(super) fn enter(&self, source: &str, target: &str) -> Result<()> {
        self.place.as_ref().map_or(Ok(()), |place| place.enter(source, target))
    }

    /// Goes on at a backend, if it is neither of those that the job is between: these are for others meanwhile.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(super) fn visit(&self, backend: &str) -> Result<()> {
        self.place.as_ref().map_or(Ok(()), |place| place.visit(backend))
    }

    /// Returns whether the job could not go on somewhere for others.
    pub(super) fn was_refused(&self) -> bool {
        self.place.as_ref().is_some_and(Place::was_refused)
    }

    /// Returns whether a backend has failed too often a short time ago.
    pub(super) fn leaves_out(&self, backend: &str) -> bool {
        self.failures.leave_out(backend)
    }

    /// Makes sure that a backend has not failed too often a short time ago.
    ///
    /// # Errors
    /// `unavailable` if it has: its jobs are due again later.
    pub(super) fn check(&self, backend: &str) -> Result<()> {
        if !self.leaves_out(backend) {
            return Ok(());
        }
        self.held_back.store(true, Ordering::Relaxed);
        Err(Error::unavailable("it has just failed for other jobs, and is left out").on_backend(backend))
    }

    /// Takes note of how an operation of a backend ended. What is wrong with one object says nothing of the others.
    pub(super) fn ended<T>(&self, backend: &str, outcome: &Result<T>) {
        self.tries();
        self.failures.ended(backend, outcome);
    }

    /// Takes note of a look at a backend that has failed.
    pub(super) fn failed(&self, backend: &str, error: &Error) {
        self.failures.failed(backend, error);
    }

    /// When a job that nothing was tried of is due again, in seconds; `None` if something was. Not many at once, since taking each costs
    /// something, and the backend may still be away.
    pub(super) fn untried(&self) -> Option<u64> {
        if !self.held_back.load(Ordering::Relaxed) || self.has_tried() {
            return None;
        }
        let before = self.untried.fetch_add(1, Ordering::Relaxed);
        Some((LEFT_OUT.as_secs() + before / UNTRIED_PER_SECOND).min(LONGEST_PAUSE))
    }
}
