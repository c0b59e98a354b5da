//! What is around a backend: layers, and the one order in which they stand.
//!
//! A layer wraps a backend into another one. The order decides what each of them sees, so it is not the caller's to
//! choose: every layer has a [`Position`], and [`layered`] puts each where it belongs.
//!
//! | position | it is there, because |
//! | --- | --- |
//! | `metrics` | what is counted is what the caller got, retries and waiting included |
//! | `trace` | the span of an operation holds those of its attempts |
//! | `deadline` | bounds all attempts of an operation and the pauses between them |
//! | `breaker` | counts operations that failed for good, and spares a backend that is down all attempts of the next |
//! | `retry` | repeats what is below it |
//! | `attempt-timeout` | each attempt has its own, so that one that hangs can be repeated |
//! | `concurrency` | a place is held while an attempt runs, not while a retry waits for its turn |
//!
//! A position that has no layer costs nothing. Each layer costs an operation one boxed future.

mod around;
mod metrics;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::Arc;

use tidelock_types::{Error, Result};

use crate::Backend;

pub use metrics::{Metrics, OperationCounts, OperationMetrics};
pub use trace::Trace;

/// Where a layer stands; outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// Counts operations.
    Metrics,
    /// Runs each operation in a span.
    Trace,
    /// Ends an operation that takes too long, however often it was tried.
    Deadline,
    /// Fails at once while the backend is down.
    Breaker,
    /// Tries again what failed.
    Retry,
    /// Ends an attempt that takes too long.
    AttemptTimeout,
    /// Bounds what runs at once.
    Concurrency,
}

impl Position {
    /// All of them, outermost first.
    pub const ORDER: [Self; 7] = [
        Self::Metrics,
        Self::Trace,
        Self::Deadline,
        Self::Breaker,
        Self::Retry,
        Self::AttemptTimeout,
        Self::Concurrency,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Trace => "trace",
            Self::Deadline => "deadline",
            Self::Breaker => "breaker",
            Self::Retry => "retry",
            Self::AttemptTimeout => "attempt-timeout",
            Self::Concurrency => "concurrency",
        }
    }
}

/// Something that wraps a backend into another.
pub trait Layer: Send + Sync {
    /// Where it stands among the others. Always the same for one type.
    fn position(&self) -> Position;

    /// Wraps a backend. What it does not change passes through as it is, [`report`](Backend::report) too.
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend>;
}

/// Puts layers around a backend, each at its position, in whatever order they are given.
///
/// # Errors
/// `invalid` if two layers have the same position: which one is outside would be anybody's guess.
pub fn layered(backend: Arc<dyn Backend>, mut layers: Vec<Box<dyn Layer>>) -> Result<Arc<dyn Backend>> {
    layers.sort_by_key(|layer| layer.position());
    if let Some(twice) = layers.windows(2).find(|pair| pair[0].position() == pair[1].position()) {
        let position = twice[0].position().name();
        return Err(Error::invalid(format!("two layers have the position `{position}`")).on_backend(backend.name()));
    }
    Ok(layers.into_iter().rev().fold(backend, |inner, layer| layer.wrap(inner)))
}
