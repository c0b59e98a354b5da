//! A hot image in place: the files that its pages lie in, read without a request.
//!
//! What is read proves itself: single pages by their digests, which are kept beside the catalogue and lead to the digest of their
//! segment; whole segments by theirs. A read of a few pages is answered on the thread that asks as long as the page cache has
//! them, and on one for blocking work otherwise.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::catalogue::{Placement, PlacementState};
use crate::config::HOT;
use crate::connector::Host;
use crate::connector::packs::Caches;
use crate::snapshot::pages::{Chain, Coding, FileImage, Image, PageDigests, Part, page_is};
use crate::snapshot::{Identity, PAGE, SEGMENT, SegmentDigest};
use crate::types::{Error, ErrorKind, Result, SnapshotId, blocking};

/// Segments whose page digests are kept: 32 MiB, for 4 GiB of an image.
const KEPT: usize = 2048;
/// Pages of a segment.
const PAGES: u64 = (SEGMENT / PAGE) as u64;

/// A hot image, open to be read in place.
pub(in crate::connector) struct HotView {
    pub(in crate::connector) placement: Placement,
    pub(in crate::connector) identity: Arc<Identity>,
    chain: Chain,
    /// Of each pack of the chain.
    files: Vec<File>,
    /// The image, if it is one file as it is.
    whole: Option<FileImage>,
    digests: Option<PageDigests>,
    known: Mutex<Known>,
}

/// Page digests of segments that were proven. Those that came first go first.
#[derive(Default)]
struct Known {
    segments: HashMap<u32, Arc<Vec<SegmentDigest>>>,
    order: VecDeque<u32>,
}

impl Host {
    /// Opens a hot image in place; `None` if it is not hot, or does not lie as it is.
    ///
    /// # Errors
    /// Errors of the catalogue; those of reading the metadata of packs.
    pub(in crate::connector) async fn hot_view(&self, id: SnapshotId) -> Result<Option<Arc<HotView>>> {
        if self.inner.hot.is_none() {
            return Ok(None);
        }
        let Some(placement) = self.inner.catalogue.placements(id).await?.into_iter().find(is_hot) else {
            return Ok(None);
        };
        let identity = self.identity_of(id).await?;
        self.view_of(placement, identity).await
    }

    /// Opens a hot object in place, which need not be recorded yet; `None` if it does not lie as it is.
    ///
    /// # Errors
    /// As [`Self::hot_view`].
    pub(super) fn view_of(
        &self,
        placement: Placement,
        identity: Arc<Identity>,
    ) -> BoxFuture<'_, Result<Option<Arc<HotView>>>> {
        Box::pin(async move {
            let id = identity.id();
            let pack = self.pack_of_copy(&placement, &identity, Caches::Use).await?;
            let chain = self.chain(pack, HOT, Caches::Use).await?;
            let raw = |frame: &crate::snapshot::pages::Frame| frame.coding == Coding::Raw;
            let fits = chain.pack().snapshot() == id && chain.pack().size() == identity.size();
            if !fits || !chain.packs().iter().all(|pack| pack.frames().as_slice().iter().all(raw)) {
                return Ok(None);
            }
            let mut objects = vec![placement.object.clone()];
            for pack in &chain.packs()[1..] {
                let placements = self.placements_for(pack.id(), pack.snapshot(), HOT, Caches::Bypass).await?;
                let Some(there) = placements.into_iter().find(is_hot) else { return Ok(None) };
                objects.push(there.object);
            }
            let backend = self.backend(HOT).await?.objects.clone();
            let open =
                move || Ok(objects.iter().map(|object| backend.local_file(object)).collect::<Option<Vec<File>>>());
            let Some(files) = blocking(open).await? else { return Ok(None) };
            let whole = match (chain.pack().is_raw(), files.first()) {
                (true, Some(file)) => {
                    let file = file.try_clone().map_err(|error| Error::io("a hot image", error))?;
                    Some(FileImage::new(file, identity.size(), "a hot image"))
                }
                _ => None,
            };
            let digests = self.page_digests(&identity).await;
            let known = Mutex::default();
            Ok(Some(Arc::new(HotView { placement, identity, chain, files, whole, digests, known })))
        })
    }

    /// Finds out what is wrong with a hot image that has given wrong bytes, and records it.
    pub(in crate::connector) async fn condemn(&self, view: &HotView) {
        let noted = match self.prove(&view.placement, &view.identity).await {
            Err(error) if *error.kind() == ErrorKind::Corrupt => {
                self.note_damage(&view.placement, error.message()).await.map(drop)
            }
            _ => Ok(()),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "cannot record what was found");
        }
    }
}

impl HotView {
    /// Returns whether its own file still has its name: one that was removed must not be read any more.
    pub(in crate::connector) fn is_there(&self) -> bool {
        self.files.first().and_then(|file| file.metadata().ok()).is_some_and(|about| about.nlink() > 0)
    }

    /// Returns whether single pages can be proven.
    pub(in crate::connector) fn proves_pages(&self) -> bool {
        self.digests.is_some()
    }

    /// Returns whether it is one file with the image as it is.
    pub(in crate::connector) fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    /// The file of the image, if it is one file as it is.
    pub(in crate::connector) fn whole_file(&self) -> Option<&File> {
        self.files.first().filter(|_| self.whole.is_some())
    }

    /// Fills `buffer` with the bytes from `offset` on, and returns how many there were. Each page is proven.
    ///
    /// # Errors
    /// `corrupt` for other bytes; errors of reading.
    pub(in crate::connector) async fn read(self: &Arc<Self>, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if let Some(filled) = self.read_pages(offset, buffer, false)? {
            return Ok(filled);
        }
        let (this, len) = (self.clone(), buffer.len());
        let bytes = blocking(move || {
            let mut bytes = vec![0; len];
            let filled = this.read_pages(offset, &mut bytes, true)?.unwrap_or(0);
            bytes.truncate(filled);
            Ok(bytes)
        });
        let bytes = bytes.await?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// The same; unless it may `wait`, `None` if it would have to.
    fn read_pages(&self, offset: u64, buffer: &mut [u8], wait: bool) -> Result<Option<usize>> {
        let size = self.identity.size();
        let len = size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        if len == 0 {
            return Ok(Some(0));
        }
        let first = offset / PAGE as u64;
        let end = (offset + len as u64).div_ceil(PAGE as u64);
        let mut pages = vec![0; (end - first) as usize * PAGE];
        // A pack has fewer than 2^32 pages.
        for part in self.chain.parts(first as u32, (end - first) as u32) {
            if part.at.is_none() {
                continue;
            }
            let from = (u64::from(part.first) - first) as usize * PAGE;
            let bytes = &mut pages[from..from + part.len as usize * PAGE];
            if !self.fill(&part, 0, bytes, wait)? {
                return Ok(None);
            }
            self.prove_pages(part.first, bytes)?;
        }
        let skipped = (offset - first * PAGE as u64) as usize;
        buffer[..len].copy_from_slice(&pages[skipped..skipped + len]);
        Ok(Some(len))
    }

    /// Reads bytes of a part, from `skipped` bytes on. Returns whether it has: not if it must not wait and would have to.
    fn fill(&self, part: &Part, skipped: u64, buffer: &mut [u8], wait: bool) -> Result<bool> {
        let missing = || Error::corrupt("the hot image has no such frame");
        let at = part.at.ok_or_else(missing)?;
        let file = self.files.get(usize::from(at.frame.source)).ok_or_else(missing)?;
        let start = self.chain.direct(at).ok_or_else(missing)? + skipped;
        let mut done = 0;
        while done < buffer.len() {
            let rest = &mut buffer[done..];
            let read = match wait {
                true => file.read_at(rest, start + done as u64),
                false => {
                    let into = &mut [IoSliceMut::new(rest)];
                    preadv2(file, into, start + done as u64, ReadWriteFlags::NOWAIT).map_err(std::io::Error::from)
                }
            };
            match read {
                // The last page of an object that is as it is may be short.
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if !wait && is_not_at_hand(&error) => return Ok(false),
                Err(error) => return Err(Error::io("reading a hot image", error).on_backend(HOT).during("retrieve")),
            }
        }
        Ok(true)
    }

    fn prove_pages(&self, first: u32, bytes: &[u8]) -> Result<()> {
        let mut digests: Option<(u32, Arc<Vec<SegmentDigest>>)> = None;
        for (page, bytes) in (first..).zip(bytes.chunks(PAGE)) {
            let (segment, within) = ((u64::from(page) / PAGES) as u32, (u64::from(page) % PAGES) as usize);
            if digests.as_ref().is_none_or(|(number, _)| *number != segment) {
                digests = Some((segment, self.digests_of(segment)?));
            }
            let known = digests.as_ref().and_then(|(_, digests)| digests.get(within));
            if !known.is_some_and(|known| page_is(self.identity.size(), page, bytes, known)) {
                let what = format!("page {page} of the hot image differs from the stored one");
                return Err(Error::corrupt(what).on_backend(HOT).during("retrieve"));
            }
        }
        Ok(())
    }

    fn digests_of(&self, segment: u32) -> Result<Arc<Vec<SegmentDigest>>> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digests) = known().segments.get(&segment) {
            return Ok(digests.clone());
        }
        let Some(digests) = &self.digests else { return Err(Error::unavailable("there are no page digests")) };
        // What is wrong with them says nothing about the image.
        let digests = digests.segment(segment).map_err(|error| Error::unavailable(error.message().to_owned()))?;
        let digests = Arc::new(digests);
        let mut known = known();
        if known.segments.insert(segment, digests.clone()).is_none() {
            known.order.push_back(segment);
        }
        if known.order.len() > KEPT
            && let Some(oldest) = known.order.pop_front()
        {
            known.segments.remove(&oldest);
        }
        Ok(digests)
    }
}

/// Returns whether a placement is a live one of the hot tier.
fn is_hot(placement: &Placement) -> bool {
    placement.backend == HOT && placement.state == PlacementState::Live
}

/// Returns whether a read that must not wait would have to, or cannot be told not to.
fn is_not_at_hand(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL))
}

impl Image for HotView {
    fn size(&self) -> u64 {
        self.identity.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let end = offset + buffer.len() as u64;
        let first = offset / PAGE as u64;
        let pages = end.div_ceil(PAGE as u64) - first;
        let mut filled = 0;
        for part in self.chain.parts(first as u32, pages as u32) {
            let start = u64::from(part.first) * PAGE as u64;
            let (from, to) = (start.max(offset), (start + u64::from(part.len) * PAGE as u64).min(end));
            let bytes = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            filled += bytes.len();
            match part.at {
                None => bytes.fill(0),
                Some(_) => drop(self.fill(&part, from - start, bytes, true)?),
            }
        }
        match filled == buffer.len() {
            true => Ok(()),
            false => Err(Error::corrupt("the hot image ends early")),
        }
    }

    fn next_data(&self, from: u64, end: u64) -> Result<Option<Range<u64>>> {
        match &self.whole {
            Some(whole) => whole.next_data(from, end),
            None => Ok((from < end).then_some(from..end)),
        }
    }

    /// Files rot, and can be written to.
    fn is_proven(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for HotView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HotView").field("placement", &self.placement).finish_non_exhaustive()
    }
}
