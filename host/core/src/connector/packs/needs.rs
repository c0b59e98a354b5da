//! What packs need on their backends. A copy depends on its own backend alone: one that another backend has to complete
//! is none.

use std::collections::HashSet;

use futures::StreamExt as _;

use super::Caches;
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
        let mut missing = self.missing_of(backend, &needs, sound).await?;
        // What the object itself says counts for more than the catalogue.
        if missing.is_some() && matches!(self.amended(placement).await, Ok(Some(_))) {
            let needs = self.inner.catalogue.needs_of(backend, object).await?;
            missing = self.missing_of(backend, &needs, sound).await?;
        }
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
                match self.is_sound(&one, sound).await {
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

    /// Reads and verifies all bytes of a placement, also of a snapshot that is kept for others. Adds them to `read`.
    async fn read_whole(&self, placement: &Placement, read: &mut u64) -> Result<()> {
        let identity = self.identity_of(placement.snapshot).await?;
        let mut body = self.open_placement(placement, &identity, None, Caches::Bypass).await?;
        while let Some(chunk) = body.next().await {
            *read += chunk?.len() as u64;
        }
        Ok(())
    }

    /// Returns whether something that a pack needs is there and not known to be bad. Marks it as if it were verified itself.
    async fn is_sound(&self, placement: &Placement, sound: &mut Sound) -> Result<bool> {
        if placement.state == PlacementState::Removing {
            return Ok(false);
        }
        let size = match self.inner.catalogue.get_kept(placement.snapshot).await? {
            Some(snapshot) => snapshot.size,
            None => return Ok(false),
        };
        let checked = async {
            self.verify_size(placement, size).await?;
            if placement.is_lacking() {
                // Its own object is not at fault, and whoever needs it names all that is needed.
                return Ok(!sound.live);
            }
            if self.heal(placement, false).await? || placement.state == PlacementState::Live {
                return Ok(true);
            }
            // What is kept for others alone is verified with them: nobody else reads all of it.
            if sound.deep {
                self.read_whole(placement, &mut sound.read).await?;
            }
            let readable = placement.state == PlacementState::Suspect && !sound.live;
            self.heal(placement, sound.deep).await.map(|healed| healed || readable)
        };
        match checked.await {
            Ok(sound) => Ok(sound),
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                match self.note_missing(placement, error).await? {
                    error if *error.kind() == ErrorKind::NotFound => Ok(false),
                    // The container is away.
                    error => Err(error),
                }
            }
            Err(error) if *error.kind() == ErrorKind::Corrupt => {
                // The container may be away.
                self.note_damage(placement, error.message()).await?.map_or(Ok(false), Err)
            }
            Err(error) => Err(error),
        }
    }
}

/// Packs that were found sound in one verification: many others may need them. What does not fit is asked for again.
#[derive(Default)]
pub(in crate::connector) struct Sound {
    packs: HashSet<(String, PackId)>,
    /// Backends whose container was there.
    containers: HashSet<String>,
    /// Whether those that are known to be damaged are read, and count again if all of their bytes are right.
    deep: bool,
    /// The bytes of those.
    read: u64,
    /// Whether only what is live counts.
    live: bool,
}

impl Sound {
    /// For a verification.
    pub(in crate::connector) fn of(deep: bool) -> Self {
        Self { deep, ..Self::default() }
    }

    /// For a pack that is to be recorded: the catalogue lets it need what is live, and nothing else.
    pub(in crate::connector) fn of_a_new_pack() -> Self {
        Self { live: true, ..Self::default() }
    }

    /// The bytes that were read beside those of the packs themselves since this was asked last.
    pub(in crate::connector) fn take_read(&mut self) -> u64 {
        std::mem::take(&mut self.read)
    }

    /// Returns whether the container of a backend was there.
    pub(in crate::connector) fn is_there(&self, backend: &str) -> bool {
        self.containers.contains(backend)
    }

    pub(in crate::connector) fn add_container(&mut self, backend: &str) {
        self.containers.insert(backend.to_owned());
    }

    fn has(&self, backend: &str, pack: PackId) -> bool {
        self.packs.contains(&(backend.to_owned(), pack))
    }

    fn add(&mut self, backend: &str, pack: PackId) {
        const MOST: usize = 10_000;
        if self.packs.len() < MOST {
            self.packs.insert((backend.to_owned(), pack));
        }
    }
}
