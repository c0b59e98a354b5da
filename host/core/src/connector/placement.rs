//! What becomes of a placement whose object turned out to be missing or damaged.
//!
//! A placement is marked only on evidence about its object. What is absent because the whole container is absent (a disk
//! that is not mounted, a bucket that is mistyped) is no such evidence: `container.rs` tells the two apart. Each mark is a
//! compare-and-set against the placement as it was when the evidence was gathered, so that it never overwrites what a
//! removal or another store has done since.

use super::Host;
use super::container::Absence;
use crate::catalogue::{ABSENT, LACKING, Placement, PlacementState};
use crate::config::HOT;
use crate::types::{Error, ErrorKind, Result, SnapshotId};

impl Host {
    /// Takes note that the backend answered `not-found` about an object. Returns the error to go on with: `error` itself if
    /// the object is absent, `unavailable` if its container is.
    ///
    /// # Errors
    /// What the catalogue meets.
    pub(super) async fn note_missing(&self, placement: &Placement, error: Error) -> Result<Error> {
        let (state, reason) = match Box::pin(self.absence(&placement.backend)).await? {
            Absence::Container(away) => return Ok(away),
            Absence::Object => (PlacementState::Bad, ABSENT),
            Absence::Unknown => (PlacementState::Suspect, "the backend did not have it, and may have been another one"),
        };
        self.mark(placement, state, reason).await?;
        Ok(error)
    }

    /// Takes note that the bytes of an object are not those of its snapshot. Returns why not if the backend talks to another
    /// container, or to none: what answers there (a login page) says nothing about the object.
    ///
    /// # Errors
    /// What the catalogue meets.
    pub(super) async fn note_damage(&self, placement: &Placement, reason: &str) -> Result<Option<Error>> {
        if let Absence::Container(away) = Box::pin(self.absence(&placement.backend)).await? {
            return Ok(Some(away));
        }
        self.mark(placement, PlacementState::Bad, reason).await.map(|()| None)
    }

    /// Takes note that the backend of a pack, whose own object is not at fault as far as is known, has no sound object of something
    /// that it takes pages from.
    ///
    /// # Errors
    /// What the catalogue meets.
    pub(super) async fn note_lacking(&self, placement: &Placement, lost: SnapshotId) -> Result<()> {
        // What is hot counts as no copy, and is completed by other backends.
        if placement.is_lacking() || placement.state == PlacementState::Removing || placement.backend == HOT {
            return Ok(());
        }
        let reason = format!("{LACKING}: snapshot {lost}");
        let marked = self.inner.catalogue.transition(placement, PlacementState::Bad, Some(&reason)).await;
        noted(placement, marked).map(drop)
    }

    async fn mark(&self, seen: &Placement, state: PlacementState, reason: &str) -> Result<()> {
        // Worse is not made better: what was seen damaged stays so, whatever is missing now.
        let settled = seen.state == state || (seen.state, state) == (PlacementState::Bad, PlacementState::Suspect);
        // What only lacked something has a fault of its own now.
        let settled = settled && seen.reason.is_some() && !(seen.is_lacking() && state == PlacementState::Bad);
        if seen.state == PlacementState::Removing || settled {
            return Ok(());
        }
        if noted(seen, self.inner.catalogue.transition(seen, state, Some(reason)).await)? {
            let (backend, object) = (&seen.backend, &seen.object);
            tracing::warn!(backend, %object, state = state.name(), reason, "a placement cannot be relied on");
        }
        Ok(())
    }
}

/// Returns whether a change of state was recorded. A catalogue that can only be read, on read-only media, keeps no evidence: what was
/// found is reported all the same.
///
/// # Errors
/// What else the catalogue meets.
pub(super) fn noted(seen: &Placement, outcome: Result<bool>) -> Result<bool> {
    match outcome {
        Err(error) if *error.kind() == ErrorKind::Denied => {
            tracing::warn!(backend = seen.backend, %error, "cannot record what was found");
            Ok(false)
        }
        outcome => outcome,
    }
}
