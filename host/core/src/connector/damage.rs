//! Records what a failed read proves about the object.
//!
//! | what the read met | what is looked at | what is recorded |
//! | --- | --- | --- |
//! | `not-found` | the container (`container.rs`) | `bad` if it is the right one; otherwise the container is away |
//! | wrong bytes, or too few | that segment once more, or its size; then the container | `bad` if it is so again; `suspect` if it is right now |
//! | `invalid` | its size; then the container | `bad` if that is not what was stored |
//! | all else | | nothing: it says nothing about the object |
//!
//! So bytes that were damaged on their way, by a proxy or an adapter on trial, condemn no object. What is recorded is
//! evidence, not an answer: if the catalogue cannot be written, the read goes on all the same.

use std::sync::Arc;

use futures::FutureExt as _;

use super::packs::Caches;
use super::placement::noted;
use super::{Host, encoding};
use crate::catalogue::{Placement, PlacementState};
use crate::snapshot::Identity;
use crate::types::{ByteRange, Error, ErrorKind, Result, Subject};

/// How the reason of an object begins that has given wrong bytes and then the right ones.
const WRONG_ONCE: &str = "it gave wrong bytes once";

/// Returns whether a placement is suspect since it has given wrong bytes.
pub(super) fn gave_wrong_bytes(placement: &Placement) -> bool {
    placement.reason.as_deref().is_some_and(|reason| reason.starts_with(WRONG_ONCE))
}

/// The result of examining a failure.
pub(super) struct Finding {
    /// The error to report.
    pub(super) error: Error,
    /// Whether the object is known to be lost. One that is not may come back.
    pub(super) lost: bool,
}

impl Host {
    /// Determines what the failure of a read at this byte proves about the object, and records it.
    pub(super) async fn examine_failure(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        at: u64,
        error: Error,
    ) -> Finding {
        let said = error.duplicate();
        match self.examine(placement, identity, at, error).boxed().await {
            Ok(finding) => finding,
            Err(other) => {
                tracing::warn!(backend = placement.backend, error = %other, "cannot record what was found");
                let lost = said.subject() == Subject::Object;
                Finding { error: said, lost }
            }
        }
    }

    async fn examine(&self, placement: &Placement, identity: &Arc<Identity>, at: u64, error: Error) -> Result<Finding> {
        match error.kind() {
            ErrorKind::NotFound if error.subject() == Subject::Object => {
                let error = self.note_missing(placement, error).await?;
                let now = self.inner.catalogue.placement_of(&placement.backend, &placement.object).await?;
                let lost = now.is_none_or(|now| now.state == PlacementState::Bad);
                Ok(Finding { lost: lost && *error.kind() == ErrorKind::NotFound, error })
            }
            ErrorKind::Corrupt | ErrorKind::Invalid if error.subject() == Subject::Object => {
                let Some(reason) = self.proof_of_damage(placement, identity, at, &error).boxed().await else {
                    if *error.kind() == ErrorKind::Corrupt {
                        self.note_wrong_once(placement, &error).boxed().await?;
                    }
                    return Ok(Finding { error, lost: false });
                };
                if let Some(away) = self.note_damage(placement, &reason).await? {
                    // Nothing is marked. Bytes that are wrong are wrong all the same.
                    let error = match error.kind() {
                        ErrorKind::Corrupt => error.and(away.message()),
                        _ => away,
                    };
                    return Ok(Finding { error, lost: false });
                }
                let error = match error.kind() {
                    ErrorKind::Corrupt => error,
                    _ => Error::corrupt(reason).on_backend(&placement.backend).during("retrieve").with_source(error),
                };
                Ok(Finding { error, lost: true })
            }
            _ => Ok(Finding { error, lost: false }),
        }
    }

    /// Takes note that an object gave wrong bytes, and not again.
    ///
    /// # Errors
    /// What the catalogue meets.
    pub(super) async fn note_wrong_once(&self, placement: &Placement, error: &Error) -> Result<()> {
        let away = || Box::pin(self.check_container(&placement.backend));
        if placement.state != PlacementState::Live || away().await.is_err() {
            return Ok(());
        }
        let reason = format!("{WRONG_ONCE}: {}", error.message());
        let marked = self.inner.catalogue.transition(placement, PlacementState::Suspect, Some(&reason)).await;
        noted(placement, marked).map(drop)
    }

    /// Looks at an object a second time. Returns what is wrong with it, if it is.
    async fn proof_of_damage(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        at: u64,
        error: &Error,
    ) -> Option<String> {
        if *error.kind() == ErrorKind::Corrupt && at < identity.size() {
            let again = async {
                let byte = self.open_placement(placement, identity, Some(ByteRange::of(at, 1)), Caches::Bypass).await?;
                byte.collect(1).await
            };
            match again.await {
                Err(again) if *again.kind() == ErrorKind::Corrupt => return Some(again.message().to_owned()),
                // Its bytes are right up to its end, or a range begins past its end: its size decides.
                Ok(_) => {}
                Err(again) if *again.kind() == ErrorKind::Invalid => {}
                Err(_) => return None,
            }
        }
        let objects = &self.backend(&placement.backend).await.ok()?.objects;
        let expected = encoding::expected_size(placement, identity.size());
        let size = objects.stat(&placement.object).await.ok()?.size;
        (!self.has_its_size(placement, expected, size).await)
            .then(|| format!("it has {size} bytes where {expected} were stored"))
    }
}
