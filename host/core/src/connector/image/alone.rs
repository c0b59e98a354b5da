//! Small reads: pages alone, without the rest of their segment.
//!
//! A page of a pack is proven by its frame, and that by the id of the pack, which the catalogue has; a page of a raw object by the page
//! digests that are kept on this machine, if they are. The placement is looked up once, and again after a failure. Whatever fails
//! here is left to the read of the whole segment, which goes on with other placements and records what is wrong.
//!
//! Reads that follow each other in one segment are not helped by this: from the second one on, the segment is read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::failover::ImageSource;
use crate::catalogue::{Placement, PlacementState};
use crate::connector::packs::PackReader;
use crate::snapshot::SEGMENT;
use crate::snapshot::pages::PageProofs;
use crate::types::{Encoding, Error, Result, blocking};

/// The most bytes of such a read.
const MOST: u64 = 64 << 10;
/// Segments that were read last: a read of one of these is not alone.
const RECENT: usize = 4;

/// Where pages come from.
enum Place {
    Pack(PackReader),
    Raw {
        placement: Placement,
        proofs: Arc<PageProofs>,
    },
    /// Nowhere: whole segments are read.
    Nowhere,
}

/// Small reads of one image.
#[derive(Default)]
pub(super) struct Alone {
    place: Mutex<Option<Arc<Place>>>,
    recent: Mutex<Vec<u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alone").field("recent", &*lock(&self.recent)).finish_non_exhaustive()
    }
}

impl Alone {
    /// Some bytes of a segment, if they can be read alone.
    pub(super) async fn read(&self, source: &ImageSource, number: u64, from: u64, len: u64) -> Option<Bytes> {
        if len > MOST || self.is_recent(number) {
            return None;
        }
        let known = lock(&self.place).clone();
        let place = match known {
            Some(place) => place,
            None => {
                let place = Arc::new(find(source).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "pages are not read alone");
                    Place::Nowhere
                }));
                lock(&self.place).insert(place).clone()
            }
        };
        match pages(source, &place, number * SEGMENT as u64 + from, len).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(%error, "the whole segment is read");
                *lock(&self.place) = None;
                None
            }
        }
    }

    fn is_recent(&self, number: u64) -> bool {
        let mut recent = lock(&self.recent);
        if recent.contains(&number) {
            return true;
        }
        if recent.len() == RECENT {
            recent.remove(0);
        }
        recent.push(number);
        false
    }
}

async fn find(source: &ImageSource) -> Result<Place> {
    let (host, identity) = (&source.host, &source.identity);
    let Some(placement) = host.readable(identity.id()).await?.into_iter().next() else { return Ok(Place::Nowhere) };
    let features = host.backend(&placement.backend).await?.objects.info().features;
    if placement.state != PlacementState::Live || !features.ranges {
        return Ok(Place::Nowhere);
    }
    match placement.encoding {
        Encoding::Pages => Ok(Place::Pack(host.open_pack_pages(placement, identity).await?)),
        Encoding::Raw => match host.page_digests(identity).await {
            Some(digests) => Ok(Place::Raw { placement, proofs: Arc::new(PageProofs::new(digests)) }),
            None => Ok(Place::Nowhere),
        },
    }
}

async fn pages(source: &ImageSource, place: &Place, start: u64, len: u64) -> Result<Option<Bytes>> {
    match place {
        Place::Nowhere => Ok(None),
        Place::Pack(reader) => reader.some(start, len).await.map(Some),
        Place::Raw { placement, proofs } => {
            let range = proofs.pages(start, len);
            let bytes = source.host.fetch(placement, range.start, range.end - range.start).await?;
            if proofs.is_ready(&range) {
                proofs.check(range.start, &bytes)?;
            } else {
                let (proofs, bytes) = (proofs.clone(), bytes.clone());
                blocking(move || proofs.check(range.start, &bytes)).await?;
            }
            let from = usize::try_from(start - range.start).unwrap_or(usize::MAX);
            let end = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
            let short = || Error::corrupt("a read did not come out as long as it was planned");
            Ok(Some(bytes.get(from..end).map(|some| bytes.slice_ref(some)).ok_or_else(short)?))
        }
    }
}
