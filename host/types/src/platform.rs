//! The clock and the entropy that are injected into the host.
//!
//! Both are injected wherever the connector and everything below it need them, so that all of it runs in a simulation: with
//! a clock that a test moves and random numbers that a seed decides. Waiting uses Tokio's timers, whose clock a test can
//! pause; a simulation injects a [`Clock`] that reads the same one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Error, Result};

/// A clock.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time of a monotonic clock, for measuring durations.
    fn now(&self) -> Instant;

    /// The time of day, which may jump.
    fn time_of_day(&self) -> SystemTime;
}

/// A source of random numbers.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the buffer with unpredictable bytes.
    ///
    /// # Errors
    /// `unavailable` if there are none.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The clock and the random numbers of one host. Cheap to clone.
#[derive(Clone)]
pub struct Platform {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Platform {
    /// The operating system's.
    pub fn system() -> Self {
        Self::new(System, System)
    }

    /// Others, for a simulation.
    pub fn new(clock: impl Clock, entropy: impl Entropy) -> Self {
        Self { clock: Arc::new(clock), entropy: Arc::new(entropy) }
    }

    /// Returns the time of a monotonic clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns the time since `earlier`, a moment of this clock; zero if it is in the future.
    pub fn since(&self, earlier: Instant) -> Duration {
        self.now().saturating_duration_since(earlier)
    }

    /// The time of day.
    pub fn time_of_day(&self) -> SystemTime {
        self.clock.time_of_day()
    }

    /// Returns the time since 1970-01-01 UTC; zero if the clock is before that.
    pub fn since_epoch(&self) -> Duration {
        self.time_of_day().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// Seconds since 1970-01-01 UTC.
    pub fn unix_seconds(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// Fills the buffer with unpredictable bytes.
    ///
    /// # Errors
    /// `unavailable` if there are none.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        self.entropy.fill(bytes)
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform").finish_non_exhaustive()
    }
}

/// The operating system's clock and random numbers.
struct System;

impl Clock for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn time_of_day(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl Entropy for System {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| Error::unavailable("cannot get random numbers").with_source(error))
    }
}
