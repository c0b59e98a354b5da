//! The bytes of a snapshot that is in a pack: window by window, from the frames that each needs.
//!
//! Frames that lie side by side are fetched with one request. A short range is made window by window (`short.rs`), and its decoded
//! frames are kept as long as there is room (`frames.rs`), since a frame of a delta has pages of many windows. A long range is
//! planned as a whole (`whole.rs`).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use super::Caches;
use super::frames::RecentFrames;
use super::metadata::without_source;
use super::prefix::Prefix;
use super::shares::Share;
use crate::catalogue::Placement;
use crate::connector::Host;
use crate::snapshot::PAGE;
use crate::snapshot::pages::{Chain, Frame, FrameRef, Pack, decode_frame};
use crate::types::{Error, ObjectId, Result, blocking};

/// The most bytes of neighbouring frames, decoded, that are fetched with one request.
const RUN: usize = 8 << 20;

impl Host {
    /// Waits for a place to decode.
    pub(super) async fn decoder(&self) -> Result<SemaphorePermit<'_>> {
        let place = self.inner.decoders.acquire().await;
        place.map_err(|error| Error::other("the host stops").with_source(error))
    }
}

/// The packs among them, by backend and object: opened once for all that a read lacks.
pub(super) type OtherForms = Mutex<BTreeMap<(String, ObjectId), Arc<PackReader>>>;

pub(in crate::connector) struct PackReader {
    pub(super) host: Host,
    pub(super) placement: Placement,
    pub(super) chain: Arc<Chain>,
    pub(super) at: u64,
    pub(super) end: u64,
    /// Decoded frames.
    pub(super) frames: Arc<RecentFrames>,
    pub(super) caches: Caches,
    /// Where the sources can be fetched from, as far as that was asked: again after a failure.
    pub(super) places: Mutex<BTreeMap<u8, Vec<Placement>>>,
    /// Other objects of the snapshots of sources that were opened.
    pub(super) others: OtherForms,
}

impl PackReader {
    /// Some bytes of the snapshot, which has them, proven by the frames that they are in.
    ///
    /// # Errors
    /// As [`Host::open_pack`].
    pub(in crate::connector) async fn some(&self, start: u64, len: u64) -> Result<Bytes> {
        let first = start / PAGE as u64 * PAGE as u64;
        let mut bytes = self.window(first, start + len - first).await?;
        // At most a page.
        Ok(bytes.split_off((start - first) as usize))
    }

    /// Frames in order, put together where they lie side by side in one object.
    pub(super) fn runs(&self, frames: &[FrameRef]) -> Vec<Vec<FrameRef>> {
        let mut runs: Vec<(u64, usize, Vec<FrameRef>)> = Vec::new();
        for at in frames {
            let Some((_, frame)) = self.chain.frame(*at) else { continue };
            let end = frame.offset + u64::from(frame.stored);
            match runs.last_mut() {
                Some((until, decoded, run))
                    if *until == frame.offset
                        && run.last().is_some_and(|last| last.source == at.source)
                        && *decoded + frame.pages as usize * PAGE <= RUN =>
                {
                    run.push(*at);
                    *until = end;
                    *decoded += frame.pages as usize * PAGE;
                }
                _ => runs.push((end, frame.pages as usize * PAGE, vec![*at])),
            }
        }
        runs.into_iter().map(|(_, _, run)| run).collect()
    }

    /// Neighbouring frames without prefix: with one request, or one by one if that fails; and the share that they take.
    pub(super) async fn run(&self, run: &[FrameRef]) -> Result<(Vec<(FrameRef, Bytes)>, Option<Share>)> {
        if run.len() > 1
            && let Ok((frames, share)) = self.fetch_together(run).await
        {
            return Ok((frames, Some(share)));
        }
        let mut frames = Vec::with_capacity(run.len());
        for at in run {
            // Its share goes: waiting for the next one with it could be waiting for others that do the same.
            frames.push((*at, self.frame(*at, None).await?.0));
        }
        Ok((frames, None))
    }

    async fn fetch_together(&self, run: &[FrameRef]) -> Result<(Vec<(FrameRef, Bytes)>, Share)> {
        let sizes = run.iter().filter_map(|at| self.chain.frame(*at)).map(|(_, frame)| sizes_of(frame));
        let (stored, pages) = sizes.fold((0, 0), |(stored, pages), (some, more)| (stored + some, pages + more));
        let shares = &self.host.inner.pack_shares;
        let placement = self.first_candidate(run).await?;
        let _fetching = shares.fetching(&placement.backend, stored).await?;
        let all = self.stored_together(run).await?;
        let share = shares.decoding(stored + pages).await?;
        let _place = self.host.decoder().await?;
        let (chain, run) = (self.chain.clone(), run.to_vec());
        let frames = blocking(move || {
            let mut frames = Vec::with_capacity(run.len());
            for (at, stored) in run.into_iter().zip(all) {
                let Some((pack, _)) = chain.frame(at) else { continue };
                // A copy: what is kept of one frame must not keep what was fetched with it.
                let stored = Bytes::copy_from_slice(&stored);
                frames.push((at, decoded(pack, at.frame, &stored, &[])?));
            }
            Ok(frames)
        });
        Ok((frames.await?, share))
    }

    /// The first placement to be asked for neighbouring frames.
    async fn first_candidate(&self, run: &[FrameRef]) -> Result<Placement> {
        let source = run.first().map_or(0, |at| at.source);
        let placement = self.candidates(source).await?.into_iter().next();
        placement.ok_or_else(|| Error::unavailable("no backend has it"))
    }

    /// The stored bytes of neighbouring frames, with one request to the first placement.
    pub(super) async fn stored_together(&self, run: &[FrameRef]) -> Result<Vec<Bytes>> {
        let bounds: Vec<(u64, u64)> = run
            .iter()
            .filter_map(|at| self.chain.frame(*at))
            .map(|(_, frame)| (frame.offset, u64::from(frame.stored)))
            .collect();
        let (Some((start, _)), Some((last, len))) = (bounds.first().copied(), bounds.last().copied()) else {
            return Ok(Vec::new());
        };
        let placement = self.first_candidate(run).await?;
        let stored = self.host.fetch(&placement, start, last + len - start).await?;
        let of = |(offset, len): (u64, u64)| stored.slice((offset - start) as usize..(offset - start + len) as usize);
        Ok(bounds.into_iter().map(of).collect())
    }

    /// One frame, from the first of its pack's placements that has it, and the share that it takes.
    ///
    /// # Errors
    /// That of this reader's own object; of another one, `unavailable`.
    pub(super) async fn frame(&self, at: FrameRef, prefix: Option<Arc<Prefix>>) -> Result<(Bytes, Share)> {
        let read = self.any_of(at.source, |placement| {
            let prefix = prefix.clone();
            async move { self.frame_from(&placement, at, prefix).await }
        });
        match read.await {
            // A copy that is to be proven depends on its own backend, and on the very packs that it names.
            Err(error) if self.caches == Caches::Use && at.source > 0 => {
                let bytes = self.in_another_form(at).await.ok_or(error)?;
                let share = self.host.inner.pack_shares.decoding(bytes.len()).await?;
                Ok((bytes, share))
            }
            read => read,
        }
    }

    /// Reads something of a pack of the chain from the first of its placements that can give it.
    ///
    /// # Errors
    /// That of this reader's own object; of another one, `unavailable`.
    pub(super) async fn any_of<T, F: Future<Output = Result<T>>>(
        &self,
        source: u8,
        read: impl Fn(Placement) -> F,
    ) -> Result<T> {
        let (mut last, mut tried): (_, Vec<Placement>) = (None, Vec::new());
        // Those that are known, then those that there are now.
        for _ in 0..2 {
            for placement in self.candidates(source).await? {
                let same = |other: &Placement| other.backend == placement.backend && other.object == placement.object;
                if tried.iter().any(same) {
                    continue;
                }
                let failed = match read(placement.clone()).await {
                    Ok(read) => return Ok(read),
                    Err(error) if source == 0 => return Err(error),
                    Err(error) => error,
                };
                match self.host.source_failed(&placement, failed, || read(placement.clone())).await {
                    Ok(read) => return Ok(read),
                    Err(error) => last = Some(error),
                }
                tried.push(placement);
            }
            self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&source);
        }
        let snapshot = self.chain.packs().get(usize::from(source)).map_or(self.placement.snapshot, |p| p.snapshot());
        Err(without_source(snapshot, last))
    }

    async fn frame_from(
        &self,
        placement: &Placement,
        at: FrameRef,
        prefix: Option<Arc<Prefix>>,
    ) -> Result<(Bytes, Share)> {
        let (stored, pages) = self.chain.frame(at).map_or((0, 0), |(_, frame)| sizes_of(frame));
        let before = prefix.as_ref().map_or(0, |prefix| prefix.len());
        let shares = &self.host.inner.pack_shares;
        let _fetching = shares.fetching(&placement.backend, stored).await?;
        let bytes = self.stored_of(placement, at).await?;
        let share = shares.decoding(stored + pages + before).await?;
        let _place = self.host.decoder().await?;
        let chain = self.chain.clone();
        let frame = blocking(move || {
            let prefix = prefix.map_or(Ok(Vec::new()), |prefix| prefix.all())?;
            match chain.frame(at) {
                Some((pack, _)) => decoded(pack, at.frame, &bytes, &prefix),
                None => Err(Error::corrupt("the pack has no such frame")),
            }
        });
        let frame = frame.await.map_err(|error| error.on_backend(&placement.backend).during("retrieve"))?;
        Ok((frame, share))
    }

    /// The stored bytes of a frame, as a placement has them.
    pub(super) async fn stored_of(&self, placement: &Placement, at: FrameRef) -> Result<Bytes> {
        let Some((_, frame)) = self.chain.frame(at) else { return Err(Error::corrupt("the pack has no such frame")) };
        self.host.fetch(placement, frame.offset, u64::from(frame.stored)).await
    }

    /// Where a pack of the chain can be fetched from, in the order in which that is tried.
    pub(super) async fn candidates(&self, source: u8) -> Result<Vec<Placement>> {
        let Some(pack) = self.chain.packs().get(usize::from(source)).filter(|_| source > 0) else {
            return Ok(vec![self.placement.clone()]);
        };
        let known = self.places.lock().unwrap_or_else(PoisonError::into_inner).get(&source).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let backend = &self.placement.backend;
        let found = self.host.placements_for(pack.id(), pack.snapshot(), backend, self.caches).await?;
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(source, found.clone());
        Ok(found)
    }
}

/// The bytes of a frame as it is stored, and of its pages.
fn sizes_of(frame: &Frame) -> (usize, usize) {
    (frame.stored as usize, frame.pages as usize * PAGE)
}

/// The pages of a frame. Those that are stored as they are stay where they are: at the end of what was fetched.
pub(super) fn decoded(pack: &Pack, frame: u32, stored: &Bytes, prefix: &[u8]) -> Result<Bytes> {
    let mut buffer = Vec::new();
    let len = decode_frame(pack, frame, stored, prefix, &mut buffer)?.len();
    match stored.len().checked_sub(len) {
        Some(start) if buffer.is_empty() => Ok(stored.slice(start..)),
        _ => Ok(buffer.into()),
    }
}
