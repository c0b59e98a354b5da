//! Verification: whether recorded objects exist and are unchanged.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};

use super::damage::gave_wrong_bytes;
use super::encoding::{expected_size, has_its_label};
use super::missing_keys::as_seen;
use super::packs::{Caches, Sound};
use super::placement::noted;
use super::report::{BadPlacement, Verification};
use super::{Host, Image};
use crate::catalogue::{Placement, PlacementState};
use crate::config::HOT;
use crate::snapshot::{Identity, Progress};
use crate::types::{Error, ErrorKind, Result, SnapshotId};

/// Snapshots that are taken from the catalogue at once.
const PAGE: usize = 256;

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
    /// Verifies one snapshot, or all. Asks each backend for its objects; if it is `deep`, reads and compares every byte.
    /// A placement that is found bad is marked, and not read again until it is repaired. One that was marked and is
    /// found good is live again; if its bytes were seen to be wrong, only once all of them have been read. So is a pack if
    /// something that it takes pages from is not sound on its backend: then it is live again once that is. What is removed
    /// meanwhile does not count. A placement on a backend that is not configured is no problem if as many others as are wanted are sound.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot. Problems of a placement are in the report, not errors.
    pub async fn verify(&self, id: Option<SnapshotId>, deep: bool, progress: Option<Progress>) -> Result<Verification> {
        let (mut found, mut sound) = (Verification::default(), Sound::of(deep));
        if let Some(id) = id {
            let image = self.open(id).await?;
            self.verify_snapshot(&image, deep, progress.as_ref(), &mut found, &mut sound).await?;
            return Ok(found);
        }
        let mut after = None;
        loop {
            let page = self.inner.catalogue.list(after, PAGE).await?;
            for snapshot in &page.snapshots {
                match self.open(snapshot.id).await {
                    Ok(image) => {
                        match self.verify_snapshot(&image, deep, progress.as_ref(), &mut found, &mut sound).await {
                            // It was removed since it was opened.
                            Err(error) if *error.kind() == ErrorKind::NotFound => {}
                            outcome => outcome?,
                        }
                    }
                    // It was removed since it was listed.
                    Err(error) if *error.kind() == ErrorKind::NotFound => {}
                    Err(error) if *error.kind() == ErrorKind::Corrupt => {
                        self.note_unverifiable(snapshot.id, &error, &mut found).await?;
                    }
                    Err(error) => return Err(error),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }

    async fn verify_snapshot(
        &self,
        image: &Image,
        deep: bool,
        progress: Option<&Progress>,
        found: &mut Verification,
        sound: &mut Sound,
    ) -> Result<()> {
        let (mut elsewhere, mut sound_on) = (Vec::new(), BTreeSet::new());
        for placement in self.inner.catalogue.placements(image.id()).await? {
            if placement.state == PlacementState::Removing {
                continue;
            }
            if !self.inner.backends.contains_key(&placement.backend) {
                elsewhere.push(placement);
                continue;
            }
            match self.verify_one(&placement, image.identity(), deep, progress, &mut found.bytes, sound).await? {
                Verdict::Gone => continue,
                Verdict::Sound => drop(sound_on.insert(placement.backend.clone())),
                Verdict::Bad(why) => found.bad.push(BadPlacement::of(&placement, why)),
                Verdict::Away(error) => found.could_not_check(&placement, &error),
            }
            found.checked += 1;
        }
        if elsewhere.is_empty() {
            return Ok(());
        }
        // What nobody can read does not matter where there are enough others.
        let wanted = self.inner.catalogue.wanted(image.id()).await?.map_or(1, |wanted| wanted.copies.max(1));
        sound_on.remove(HOT);
        let enough = sound_on.len() >= wanted as usize;
        for placement in &elsewhere {
            let why = format!("it is on `{}`, which is not configured", placement.backend);
            if enough {
                found.elsewhere.push(BadPlacement::of(placement, why));
                continue;
            }
            found.checked += 1;
            let hint = format!(
                "add the backend to the configuration; or let `tidelock jobs run` make further copies, and then run `tidelock forget {}`",
                placement.backend
            );
            found.could_not_check(placement, &Error::unavailable(why).hint(hint));
        }
        Ok(())
    }

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
            Err(error) => outcome.and(Err(as_seen(error))),
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
        if error.missing_key().is_some() {
            self.ask_for_another(placement).await?;
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

    /// Takes note of all placements of a snapshot whose record is damaged: without its digests, nothing can be compared.
    async fn note_unverifiable(&self, id: SnapshotId, error: &Error, found: &mut Verification) -> Result<()> {
        for placement in self.inner.catalogue.placements(id).await? {
            found.checked += 1;
            found.could_not_check(&placement, error);
        }
        Ok(())
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
