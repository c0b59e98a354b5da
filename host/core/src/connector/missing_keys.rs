//! Objects that are encrypted with a key which is not configured.
//!
//! Nothing is known of them but that they are there: they count as no copy, are never marked, and are as they were once the key
//! is back. Meanwhile a further copy is made of a snapshot that has too few without them.

use super::Host;
use crate::catalogue::{JobKind, NewJob, Placement, PlacementState};
use crate::config::HOT;
use crate::types::{Error, Result};

/// The error of an object that was to be looked at, where another one of its backend could not be: only a key that is missing is
/// told apart from a backend that is away.
pub(super) fn as_seen(error: Error) -> Error {
    match error.missing_key() {
        Some(_) => error,
        None => Error::unavailable(error.message()),
    }
}

impl Host {
    /// Takes note that a copy cannot be read without its key: asks for a further one if there are too few others, and one of them
    /// can be read.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(super) async fn ask_for_another(&self, unreadable: &Placement) -> Result<()> {
        let (catalogue, id) = (&self.inner.catalogue, unreadable.snapshot);
        if unreadable.backend == HOT || unreadable.state != PlacementState::Live {
            return Ok(());
        }
        let Some(wanted) = catalogue.wanted(id).await? else { return Ok(()) };
        let mut others = catalogue.placements(id).await?;
        others.retain(|other| {
            other.state == PlacementState::Live
                && (&other.backend, &other.object) != (&unreadable.backend, &unreadable.object)
        });
        let hot = others.iter().any(|other| other.backend == HOT);
        let backends: std::collections::BTreeSet<_> =
            others.iter().map(|other| other.backend.as_str()).filter(|backend| *backend != HOT).collect();
        if backends.len() >= wanted.copies as usize || (backends.is_empty() && !hot) {
            return Ok(());
        }
        catalogue
            .enqueue(vec![NewJob { kind: JobKind::Copy, snapshot: id, backend: None, object: None }])
            .await
            .map(drop)
    }
}
