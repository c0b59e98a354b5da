//! A verification of one snapshot or of all, on each backend beside the others.
//!
//! A lane goes through the snapshots in the order in which they were stored, and looks at what its backend has of them. What is on
//! backends that are not configured is judged last, by what the lanes have found.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt as _;

use super::Verdict;
use crate::catalogue::{Placement, PlacementState};
use crate::config::HOT;
use crate::connector::Host;
use crate::connector::lanes::{Tally, beside};
use crate::connector::packs::Sound;
use crate::connector::report::{BadPlacement, Verification};
use crate::snapshot::Progress;
use crate::types::{Error, ErrorKind, Result, SnapshotId};

/// Snapshots that are taken from the catalogue at once.
const PAGE: usize = 256;

/// On how many backends a snapshot has a sound copy, the hot tier apart: of those that are on a backend which is not configured.
type SoundOn = Mutex<HashMap<SnapshotId, u32>>;

/// What a lane looks at, and how.
struct Lane<'a> {
    backend: &'a str,
    deep: bool,
    progress: Option<Progress>,
    /// None if nothing is on a backend that is not configured.
    sound_on: Option<&'a SoundOn>,
}

/// The snapshots that are verified, some at a time.
struct Ids {
    one: Option<SnapshotId>,
    after: Option<u64>,
    all: bool,
}

impl Ids {
    fn of(one: Option<SnapshotId>) -> Self {
        Self { one, after: None, all: one.is_some() }
    }

    /// The next ones; empty once there are no more.
    async fn next(&mut self, host: &Host) -> Result<Vec<SnapshotId>> {
        if let Some(one) = self.one.take() {
            return Ok(vec![one]);
        }
        if self.all {
            return Ok(Vec::new());
        }
        let page = host.inner.catalogue.list(self.after, PAGE).await?;
        (self.after, self.all) = (page.next, page.next.is_none());
        Ok(page.snapshots.into_iter().map(|snapshot| snapshot.id).collect())
    }
}

impl Host {
    /// Verifies one snapshot, or all, on each backend beside the others. Asks it for its objects; if it is `deep`, reads and
    /// compares every byte. A placement that is found bad is marked, and not read again until it is repaired. One that was marked and is
    /// found good is live again; if its bytes were seen to be wrong, only once all of them have been read. So is a pack if
    /// something that it takes pages from is not sound on its backend: then it is live again once that is. What is removed
    /// meanwhile does not count. A placement on a backend that is not configured is no problem if as many others as are wanted are sound.
    ///
    /// # Errors
    /// `not-found` for an unknown snapshot. Problems of a placement are in the report, not errors.
    pub async fn verify(&self, id: Option<SnapshotId>, deep: bool, progress: Option<Progress>) -> Result<Verification> {
        if let Some(id) = id {
            self.open(id).await?;
        }
        let (of_lane, sound_on) = (Tally::of_lanes(progress), SoundOn::default());
        let sound_on = self.has_elsewhere(id).await?.then_some(&sound_on);
        let mut lanes = Vec::new();
        for backend in self.inner.backends.keys() {
            let lane = Lane { backend, deep, progress: of_lane(), sound_on };
            lanes.push(async move { self.verify_lane(&lane, id).await }.boxed());
        }
        let mut found = beside(lanes).await?;
        if let Some(sound_on) = sound_on {
            found.push(self.verify_elsewhere(id, sound_on).boxed().await?);
        }
        Ok(Verification::together(found))
    }

    /// Returns whether something of a snapshot, or of any, is on a backend that is not configured.
    async fn has_elsewhere(&self, id: Option<SnapshotId>) -> Result<bool> {
        let is_elsewhere = |backend: &str| !self.inner.backends.contains_key(backend);
        Ok(match id {
            Some(id) => self.inner.catalogue.placements(id).await?.iter().any(|one| is_elsewhere(&one.backend)),
            None => self.inner.catalogue.stats().await?.backends.iter().any(|one| is_elsewhere(&one.backend)),
        })
    }

    async fn verify_lane(&self, lane: &Lane<'_>, id: Option<SnapshotId>) -> Result<Verification> {
        let (mut ids, mut found, mut sound) = (Ids::of(id), Verification::default(), Sound::of(lane.deep));
        loop {
            let some = ids.next(self).await?;
            if some.is_empty() {
                return Ok(found);
            }
            for id in some {
                match self.verify_on(lane, id, &mut found, &mut sound).boxed().await {
                    // It was removed meanwhile.
                    Err(error) if *error.kind() == ErrorKind::NotFound => {}
                    outcome => outcome?,
                }
            }
        }
    }

    /// Verifies what the backend of a lane has of a snapshot.
    async fn verify_on(
        &self,
        lane: &Lane<'_>,
        id: SnapshotId,
        found: &mut Verification,
        sound: &mut Sound,
    ) -> Result<()> {
        let mut placements = self.inner.catalogue.placements(id).await?;
        let elsewhere = placements.iter().any(|one| !self.inner.backends.contains_key(&one.backend));
        placements.retain(|one| one.backend == lane.backend && one.state != PlacementState::Removing);
        if placements.is_empty() {
            return Ok(());
        }
        let image = match self.open(id).await {
            Ok(image) => image,
            Err(error) if *error.kind() == ErrorKind::Corrupt => {
                could_not_compare(&placements, &error, found);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut is_sound = false;
        for placement in placements {
            let (deep, progress) = (lane.deep, lane.progress.as_ref());
            match self.verify_one(&placement, image.identity(), deep, progress, &mut found.bytes, sound).await? {
                Verdict::Gone => continue,
                Verdict::Sound => is_sound = true,
                Verdict::Bad(why) => found.bad.push(BadPlacement::of(&placement, why)),
                Verdict::Away(error) => found.could_not_check(&placement, &error),
            }
            found.checked += 1;
        }
        if is_sound && elsewhere && lane.backend != HOT {
            let counted = lane.sound_on.map(|sound_on| sound_on.lock().unwrap_or_else(PoisonError::into_inner));
            counted.into_iter().for_each(|mut counted| *counted.entry(id).or_default() += 1);
        }
        Ok(())
    }

    /// Judges what is on backends that are not configured: it does not matter where there are enough others.
    async fn verify_elsewhere(&self, id: Option<SnapshotId>, sound_on: &SoundOn) -> Result<Verification> {
        let (mut ids, mut found) = (Ids::of(id), Verification::default());
        loop {
            let some = ids.next(self).await?;
            if some.is_empty() {
                return Ok(found);
            }
            for id in some {
                let mut placements = self.inner.catalogue.placements(id).await?;
                placements.retain(|one| {
                    !self.inner.backends.contains_key(&one.backend) && one.state != PlacementState::Removing
                });
                if placements.is_empty() {
                    continue;
                }
                match self.open(id).await {
                    Ok(_) => {}
                    Err(error) if *error.kind() == ErrorKind::NotFound => continue,
                    Err(error) if *error.kind() == ErrorKind::Corrupt => {
                        could_not_compare(&placements, &error, &mut found);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                let wanted = self.inner.catalogue.wanted(id).await?.map_or(1, |wanted| wanted.copies.max(1));
                let sound = sound_on.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied().unwrap_or(0);
                placements.iter().for_each(|placement| is_elsewhere(placement, sound >= wanted, &mut found));
            }
        }
    }
}

/// Takes note of placements of a snapshot whose record is damaged: without its digests, nothing can be compared.
fn could_not_compare(placements: &[Placement], error: &Error, found: &mut Verification) {
    for placement in placements {
        found.checked += 1;
        found.could_not_check(placement, error);
    }
}

/// Takes note of a placement on a backend that is not configured.
fn is_elsewhere(placement: &Placement, enough_others: bool, found: &mut Verification) {
    let why = format!("it is on `{}`, which is not configured", placement.backend);
    if enough_others {
        found.elsewhere.push(BadPlacement::of(placement, why));
        return;
    }
    found.checked += 1;
    let hint = format!(
        "add the backend to the configuration; or let `tidelock jobs run` make further copies, and then run `tidelock forget {}`",
        placement.backend
    );
    found.could_not_check(placement, &Error::unavailable(why).hint(hint));
}
