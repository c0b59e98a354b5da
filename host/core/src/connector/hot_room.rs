//! Room in the hot tier: what was not used for longest goes first.
//!
//! An object goes only if another copy of its snapshot was looked at on its backend just before and is sound
//! (`relied.rs`), and if no hot pack needs it: the packs of an image go before it does. The catalogue decides in the transaction that begins
//! the removal, and the removal is one like any other: a crash leaves a placement that is `removing`, which garbage collection
//! ends.
//!
//! Backends are looked at by one store at a time, and nobody waits for that longer than for a look: an image that finds no room is
//! not hot, or goes to its backends.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::HOT;
use crate::connector::Host;
use crate::connector::container::PATIENCE;
use crate::connector::hot::HotTier;
use crate::connector::relied::Relied;
use crate::connector::reserved::Room;
use crate::hot::HotEntry;
use crate::snapshot::{ExtentKind, Identity, Source};
use crate::types::{Error, ObjectId, Result, blocking, format_bytes};

/// How long a store looks for what may go, before it does without room.
const LOOKING_FOR: Duration = Duration::from_secs(30);

/// The bytes that an image takes at the most, as far as they are known.
pub(in crate::connector) fn of_source(source: &Source, identity: Option<&Identity>) -> u64 {
    let data = |identity: &Identity| {
        let data = identity.extents().filter(|extent| extent.kind == ExtentKind::Data);
        data.map(|extent| extent.len).sum::<u64>()
    };
    let known = identity.map_or(u64::MAX, data);
    match source {
        Source::File(file) => known.min(file.allocated()),
        Source::Checked(checked) => known.min(data(checked.identity())),
        Source::Stream(stream) => known.min(stream.size().unwrap_or(0)),
    }
}

impl Host {
    /// Makes room for so many bytes, which are reserved. What other processes have reserved before counts as taken.
    ///
    /// # Errors
    /// `unavailable` if what may go is not enough; errors of the catalogue and of the directory.
    pub(in crate::connector) async fn make_hot_room(&self, hot: &HotTier, wanted: u64) -> Result<Room> {
        // Nothing goes for what could not be kept anyway.
        if wanted > hot.capacity {
            return Err(no_room(hot, wanted));
        }
        let room = if wanted > 0 { self.reserve_hot(wanted).await? } else { Room::none(self) };
        match self.make_room_beside(hot, wanted, room.number()).await {
            Ok(()) => Ok(room),
            Err(error) => {
                room.end().await;
                Err(error)
            }
        }
    }

    async fn make_room_beside(&self, hot: &HotTier, wanted: u64, room: Option<u64>) -> Result<()> {
        let mut may_go = BTreeMap::new();
        loop {
            let (entries, over) = {
                let _alone = hot.making_room.lock().await;
                self.evict(hot, wanted, room, &mut may_go).await?
            };
            if over == 0 {
                return Ok(());
            }
            // Backends are waited for here, where nobody has to wait for this.
            let Ok(_alone) = tokio::time::timeout(PATIENCE, hot.looking.lock()).await else {
                return Err(no_room(hot, wanted));
            };
            if !self.look_beside(hot, entries, over, &mut may_go).await? {
                return Err(no_room(hot, wanted));
            }
        }
    }

    /// Lets go of what may go, until there is room for so many bytes. Returns how many are missing, and what is there now.
    async fn evict(
        &self,
        hot: &HotTier,
        wanted: u64,
        room: Option<u64>,
        may_go: &mut BTreeMap<ObjectId, Vec<String>>,
    ) -> Result<(Vec<HotEntry>, u64)> {
        // In this order: what is written meanwhile counts twice rather than not at all.
        let promised = self.inner.catalogue.reserved_hot(room).await?;
        let backend = hot.backend.clone();
        let usage = blocking(move || backend.usage()).await?;
        // What is being written was promised, if it is a host on this catalogue that writes.
        let taken = usage.objects.saturating_add(usage.unfinished.max(promised));
        let mut over = taken.saturating_add(wanted).saturating_sub(hot.capacity);
        let mut left = Vec::new();
        for entry in usage.entries {
            let on = if over == 0 { None } else { may_go.remove(&entry.object) };
            if let Some(on) = on
                && self.inner.catalogue.begin_eviction(HOT, &entry.object, on).await?
                && self.delete_object(HOT, &entry.object).await?
            {
                tracing::debug!(object = %entry.object, bytes = entry.bytes, "evicted from the hot tier");
                hot.backend.evicted();
                over = over.saturating_sub(entry.bytes);
            } else {
                left.push(entry);
            }
        }
        Ok((left, over))
    }

    /// Looks for copies beside what was not used for longest, until so many bytes may go. Returns whether any may. Packs that go
    /// may need what may go in the next round.
    async fn look_beside(
        &self,
        hot: &HotTier,
        entries: Vec<HotEntry>,
        over: u64,
        may_go: &mut BTreeMap<ObjectId, Vec<String>>,
    ) -> Result<bool> {
        let mut relied = Relied::without(hot.away.now(&self.inner.platform));
        let (mut found, begun) = (0, self.inner.platform.now());
        for entry in entries {
            if found >= over || self.inner.platform.since(begun) >= LOOKING_FOR {
                break;
            }
            let on = relied.beside(self, HOT, &entry.object).await?;
            hot.away.note(&self.inner.platform, relied.away());
            if !on.is_empty() {
                found = found.saturating_add(entry.bytes);
                may_go.insert(entry.object, on);
            }
        }
        Ok(found > 0)
    }
}

fn no_room(hot: &HotTier, wanted: u64) -> Error {
    let what = format!("the hot tier has no room for {} in its {}", format_bytes(wanted), format_bytes(hot.capacity));
    Error::unavailable(what).on_backend(HOT).hint("raise `capacity` in [hot]")
}
