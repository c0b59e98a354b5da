//! Verification: whether recorded objects exist and are unchanged.

mod each;

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};

use super::Host;
use super::damage::gave_wrong_bytes;
use super::encoding::{expected_size, has_its_label};
use super::packs::{Caches, Sound};
use super::placement::noted;
use crate::catalogue::{Placement, PlacementState};
use crate::snapshot::{Identity, Progress};
use crate::types::{Error, ErrorKind, Result};

/// What is wrong with a pack of which nothing says that it is one.
pub(super) const NO_LABEL: &str = "the object has lost the label of its encoding";

/// What came of looking at a placement.
pub(super) enum Verdict {
    /// It is what it has to be.
    Sound,
    /// It is missing or damaged.
    Bad(String),
    /// It could not be looked at.
    Away(Error),
    /// It was removed meanwhile.
    Gone,
}

impl Host {
    /// Looks at a placement, and marks it as [`Self::verify`] does. Whoever counts copies asks this: a sound one is an object of
    /// the right size in the container that is recorded, on a backend that has a sound object of all that it takes pages from; if
    /// the look is `deep`, all of its bytes are right, too. Adds the bytes that it reads to `read`.
    ///
    /// # Errors
    /// Errors of the catalogue.
    pub(super) fn verify_one<'a>(
        &'a self,
        placement: &'a Placement,
        identity: &'a Arc<Identity>,
        deep: bool,
        progress: Option<&'a Progress>,
        read: &'a mut u64,
        sound: &'a mut Sound,
    ) -> BoxFuture<'a, Result<Verdict>> {
        // Boxed, as jobs call it from deep within theirs.
        self.look_at(placement, identity, deep, progress, read, sound).boxed()
    }

    async fn look_at(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        deep: bool,
        progress: Option<&Progress>,
        read: &mut u64,
        sound: &mut Sound,
    ) -> Result<Verdict> {
        let (backend, object) = (&placement.backend, &placement.object);
        let outcome = match self.container_of(placement, sound).boxed().await {
            Ok(()) => self.verify_placement(placement, identity, deep, progress, read).boxed().await,
            Err(away) => Err(away),
        };
        let lacking = match &outcome {
            Err(error) if is_of_object(error) => Ok(None),
            _ => self.lacks(placement, sound).await,
        };
        *read += sound.take_read();
        let outcome = match lacking {
            Ok(None) => outcome,
            Ok(Some(lost)) => {
                if self.has_whole(placement).await? {
                    if outcome.is_ok() && !placement.is_lacking() {
                        self.heal(placement, deep).await?;
                    }
                    return Ok(Verdict::Sound);
                }
                // Of one that is bad, its own object is at fault unless it was found to be right.
                if placement.state != PlacementState::Bad || (outcome.is_ok() && Self::heals(placement, deep)) {
                    self.note_lacking(placement, lost).await?;
                }
                return Ok(Verdict::Bad(format!(
                    "snapshot {lost}, which it takes pages from, has no sound object there"
                )));
            }
            Err(error) => outcome.and(Err(Error::unavailable(error.message()))),
        };
        let Err(error) = outcome else {
            if !self.heal(placement, deep).await? && placement.state == PlacementState::Bad {
                // It is there and has its size, and yet its bytes were seen to be wrong.
                let why = placement.reason.clone().unwrap_or_else(|| "it was found damaged".to_owned());
                return Ok(Verdict::Bad(why));
            }
            return Ok(Verdict::Sound);
        };
        let now = self.inner.catalogue.placement_of(backend, object).await?;
        if now.is_none_or(|now| now.state == PlacementState::Removing) {
            // It was removed while it was looked at.
            return Ok(Verdict::Gone);
        }
        let error = match error.kind() {
            ErrorKind::NotFound => self.note_missing(placement, error).await?,
            ErrorKind::Corrupt => self.note_damage(placement, error.message()).await?.unwrap_or(error),
            _ => error,
        };
        Ok(if is_of_object(&error) { Verdict::Bad(error.message().to_owned()) } else { Verdict::Away(error) })
    }

    /// Returns whether the backend of a placement also has the snapshot in an object that needs nothing: then it has a copy,
    /// whatever a pack lacks.
    async fn has_whole(&self, placement: &Placement) -> Result<bool> {
        let Placement { snapshot, backend, object, .. } = placement;
        for other in self.inner.catalogue.placements(*snapshot).await? {
            if other.backend == *backend
                && other.object != *object
                && other.state == PlacementState::Live
                && self.inner.catalogue.needs_of(backend, &other.object).await?.is_empty()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes sure of the container of a placement, once in a verification.
    ///
    /// # Errors
    /// `unavailable`: what cannot be asked proves nothing about its objects.
    async fn container_of(&self, placement: &Placement, sound: &mut Sound) -> Result<()> {
        let backend = &placement.backend;
        if sound.is_there(backend) {
            return Ok(());
        }
        self.backend(backend).await.map_err(away)?;
        self.confirm_container(backend).await.map_err(away)?;
        sound.add_container(backend);
        Ok(())
    }

    /// Marks a good placement live again: a suspect or absent one once its object is there, a damaged one once all of its
    /// bytes are verified. Returns whether it is live.
    pub(super) async fn heal(&self, placement: &Placement, deep: bool) -> Result<bool> {
        let heals = Self::heals(placement, deep);
        if heals {
            let healed = self.inner.catalogue.transition(placement, PlacementState::Live, None).await;
            noted(placement, healed)?;
        }
        Ok(heals)
    }

    /// Returns whether a look that finds nothing wrong makes a placement live again.
    fn heals(placement: &Placement, deep: bool) -> bool {
        match placement.state {
            PlacementState::Live | PlacementState::Removing => false,
            // Whether wrong bytes were its own is known when it is read.
            PlacementState::Suspect => deep || !gave_wrong_bytes(placement),
            PlacementState::Bad => deep || placement.is_absent() || placement.is_lacking(),
        }
    }

    async fn verify_placement(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        deep: bool,
        progress: Option<&Progress>,
        read: &mut u64,
    ) -> Result<()> {
        self.verify_size(placement, identity.size()).await?;
        if !deep {
            return Ok(());
        }
        let mut body = self.open_placement(placement, identity, None, Caches::Bypass).await?;
        while let Some(chunk) = body.next().await {
            *read += chunk?.len() as u64;
            if let Some(progress) = progress {
                progress(*read);
            }
        }
        Ok(())
    }

    /// Makes sure that an object is there, has as many bytes as it must, if it holds a snapshot of `size` bytes, and says what it is.
    pub(super) async fn verify_size(&self, placement: &Placement, size: u64) -> Result<()> {
        // A backend that cannot be opened proves nothing about its objects.
        let objects = &self.backend(&placement.backend).await.map_err(away)?.objects;
        let stat = objects.stat(&placement.object).await?;
        let expected = expected_size(placement, size);
        if !self.has_its_size(placement, expected, stat.size).await {
            return Err(Error::corrupt(format!("the object has {} bytes where {expected} were stored", stat.size)));
        }
        match has_its_label(placement, &stat, objects.info().features) {
            true => Ok(()),
            false => Err(Error::corrupt(NO_LABEL)),
        }
    }
}

/// The error of a backend that cannot be asked.
fn away(error: Error) -> Error {
    match error.advice() {
        Some(hint) => Error::unavailable(error.message()).hint(hint),
        None => Error::unavailable(error.message()),
    }
}

/// Returns whether an error says that an object is missing or damaged.
fn is_of_object(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}
