//! Room in the hot tier: what was not used for longest goes first.
//!
//! An object goes only if another copy of its snapshot was looked at on its backend just before and is sound
//! (`container/relied.rs`), and if no hot pack needs it: the packs of an image go before it does. The catalogue decides in the transaction that begins
//! the removal, and the removal is one like any other: a crash leaves a placement that is `removing`, which garbage collection
//! ends.

use super::HotTier;
use crate::config::HOT;
use crate::connector::Host;
use crate::connector::container::Relied;
use crate::connector::reserved::Room;
use crate::snapshot::{ExtentKind, Identity, Source};
use crate::types::{Error, Result, blocking, format_bytes};

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
        let _alone = hot.making_room.lock().await;
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
        let (mut before, mut relied) = (None, Relied::default());
        loop {
            // In this order: what is written meanwhile counts twice rather than not at all.
            let promised = self.inner.catalogue.reserved_hot(room).await?;
            let backend = hot.backend.clone();
            let usage = blocking(move || backend.usage()).await?;
            // What is being written was promised, if it is a host on this catalogue that writes.
            let taken = usage.objects.saturating_add(usage.unfinished.max(promised));
            if taken.saturating_add(wanted) <= hot.capacity {
                return Ok(());
            }
            // One more round: packs that went may have needed what may go now.
            if before.is_some_and(|before| before <= usage.objects) {
                return Err(no_room(hot, wanted));
            }
            before = Some(usage.objects);
            let mut over = taken.saturating_add(wanted) - hot.capacity;
            for entry in usage.entries {
                if over == 0 {
                    break;
                }
                let on = relied.beside(self, HOT, &entry.object).await?;
                if !on.is_empty()
                    && self.inner.catalogue.begin_eviction(HOT, &entry.object, on).await?
                    && self.delete_object(HOT, &entry.object).await?
                {
                    tracing::debug!(object = %entry.object, bytes = entry.bytes, "evicted from the hot tier");
                    hot.backend.evicted();
                    over = over.saturating_sub(entry.bytes);
                }
            }
        }
    }
}

fn no_room(hot: &HotTier, wanted: u64) -> Error {
    let what = format!("the hot tier has no room for {} in its {}", format_bytes(wanted), format_bytes(hot.capacity));
    Error::unavailable(what).on_backend(HOT).hint("raise `capacity` in [hot]")
}
