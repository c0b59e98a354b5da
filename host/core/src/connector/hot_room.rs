//! Room in the hot tier: what was not used for longest goes first.
//!
//! An object goes only if another copy of its snapshot was looked at on its backend just before and is sound
//! (`relied.rs`), and if no hot pack needs it: the packs of an image go before it does. The catalogue decides in the transaction that begins
//! the removal, and the removal is one like any other: a crash leaves a placement that is `removing`, which garbage collection
//! ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::HOT;
use crate::connector::Host;
use crate::connector::hot::HotTier;
use crate::connector::relied::Relied;
use crate::snapshot::{ExtentKind, Identity, Source};
use crate::types::{Error, Result, blocking, format_bytes};

/// Bytes that a store may write; given back when it is dropped.
pub(in crate::connector) struct Promise {
    all: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

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
    /// Makes room for so many bytes.
    ///
    /// # Errors
    /// `unavailable` if what may go is not enough; errors of the catalogue and of the directory.
    pub(in crate::connector) async fn make_hot_room(&self, hot: &HotTier, wanted: u64) -> Result<Promise> {
        let _alone = hot.making_room.lock().await;
        // Nothing goes for what could not be kept anyway.
        if wanted > hot.capacity {
            return Err(no_room(hot, wanted));
        }
        let (mut before, mut relied) = (None, Relied::default());
        loop {
            let backend = hot.backend.clone();
            let usage = blocking(move || backend.usage()).await?;
            let promised = hot.promised.load(Ordering::Relaxed);
            // What is being written was promised, if it is this host that writes.
            let taken = usage.objects.saturating_add(usage.unfinished.max(promised));
            if taken.saturating_add(wanted) <= hot.capacity {
                hot.promised.fetch_add(wanted, Ordering::Relaxed);
                return Ok(Promise { all: hot.promised.clone(), bytes: wanted });
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
