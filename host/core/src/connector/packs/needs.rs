//! What packs need on their backends. A copy depends on its own backend alone: one that another backend has to complete
//! is none.

use std::collections::HashSet;

use crate::catalogue::{Need, Placement, PlacementState};
use crate::connector::Host;
use crate::types::{ErrorKind, PackId, Result, SnapshotId};

impl Host {
    /// A snapshot that the object of a placement takes pages from and of which its backend has no sound object, if there is
    /// one. What is needed is asked for, since some of it may have been removed and is kept for others alone: then nothing
    /// else looks at it.
    ///
    /// # Errors
    /// Errors of the catalogue; those of the backend that say nothing of the object.
    pub(in crate::connector) async fn lacks(
        &self,
        placement: &Placement,
        sound: &mut Sound,
    ) -> Result<Option<SnapshotId>> {
        let Placement { backend, object, .. } = placement;
        if placement.pack.is_none() {
            return Ok(None);
        }
        let needs = self.inner.catalogue.needs_of(backend, object).await?;
        let missing = self.missing_of(backend, &needs, sound).await?;
        if missing.is_some() {
            let now = self.inner.catalogue.placement_of(backend, object).await?;
            if now.is_none_or(|now| now.state == PlacementState::Removing) {
                // It was removed meanwhile, and what was kept for it went with it.
                return Ok(None);
            }
        }
        Ok(missing)
    }

    /// The first snapshot of some that a pack needs of which this backend has no sound object.
    ///
    /// # Errors
    /// As [`Self::lacks`].
    pub(in crate::connector) async fn missing_of(
        &self,
        backend: &str,
        needs: &[Need],
        sound: &mut Sound,
    ) -> Result<Option<SnapshotId>> {
        for need in needs {
            if sound.has(backend, need.pack) {
                continue;
            }
            let mut placements = self.inner.catalogue.placements(need.snapshot).await?;
            placements.retain(|there| there.backend == *backend && there.is_pack(need.pack));
            let (mut there, mut away) = (false, None);
            for one in placements {
                match self.is_sound(&one).await {
                    Ok(found) => there |= found,
                    Err(error) => away = Some(error),
                }
            }
            match (there, away) {
                (true, _) => sound.add(backend, need.pack),
                (false, Some(error)) => return Err(error),
                (false, None) => return Ok(Some(need.snapshot)),
            }
        }
        Ok(None)
    }

    /// Whether something that a pack needs is there and not known to be bad. Marks it as if it were verified itself.
    async fn is_sound(&self, placement: &Placement) -> Result<bool> {
        if placement.state == PlacementState::Removing {
            return Ok(false);
        }
        let size = match self.inner.catalogue.get_kept(placement.snapshot).await? {
            Some(snapshot) => snapshot.size,
            None => return Ok(false),
        };
        match self.verify_size(placement, size).await {
            Ok(()) => Ok(self.heal(placement, false).await? || placement.state != PlacementState::Bad),
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                match self.note_missing(placement, error).await? {
                    error if *error.kind() == ErrorKind::NotFound => Ok(false),
                    // The container is away.
                    error => Err(error),
                }
            }
            Err(error) if *error.kind() == ErrorKind::Corrupt => {
                self.note_damage(placement, error.message()).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Packs that were found sound in one verification: many others may need them. What does not fit is asked for again.
#[derive(Default)]
pub(in crate::connector) struct Sound(HashSet<(String, PackId)>);

impl Sound {
    fn has(&self, backend: &str, pack: PackId) -> bool {
        self.0.contains(&(backend.to_owned(), pack))
    }

    fn add(&mut self, backend: &str, pack: PackId) {
        const MOST: usize = 10_000;
        if self.0.len() < MOST {
            self.0.insert((backend.to_owned(), pack));
        }
    }
}
