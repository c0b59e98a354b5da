//! The bytes of a snapshot that is in a pack: window by window, from the frames that each needs.
//!
//! Frames that lie side by side are fetched with one request. Decoded frames are kept as long as there is room (`frames.rs`),
//! since a frame of a delta has pages of many windows. A long range is planned as a whole (`whole.rs`).

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;

use super::Caches;
use super::frames::RecentFrames;
use super::metadata::without_source;
use super::whole;
use crate::catalogue::Placement;
use crate::connector::Host;
use crate::snapshot::pages::{Chain, Coding, FramePart, FrameRef, Pack, decode_frame};
use crate::snapshot::{Identity, PAGE, aligned, trimmed, verify_known, verify_range};
use crate::types::{Body, ByteRange, Error, Result, blocking};

/// Bytes of a snapshot that are made at once.
const WINDOW: u64 = 4 << 20;
/// The most parts of a prefix that are looked at for frames to be fetched together.
const MAX_AHEAD: usize = 1024;
/// The most bytes of neighbouring frames, decoded, that are fetched with one request.
const RUN: usize = 8 << 20;
/// The fewest bytes that are read by a plan: it costs little beside these, and keeps no frame for other readers.
const LONG: u64 = 16 << 20;

impl Host {
    /// Opens a placement whose object is a pack, with every segment checked.
    ///
    /// # Errors
    /// `corrupt` if the pack is damaged, `unavailable` if something that it takes pages from cannot be had; errors of the
    /// backend.
    pub(in crate::connector) async fn open_pack(
        &self,
        placement: &Placement,
        identity: &Arc<Identity>,
        range: Option<ByteRange>,
        caches: Caches,
    ) -> Result<Body> {
        let (chain, size) = (self.chain_of(placement, identity, caches).await?, identity.size());
        let (start, len) = match range {
            Some(range) => aligned(range, size)?.within(size)?,
            None => (0, size),
        };
        if len >= LONG {
            let reader = self.pack_reader(placement.clone(), chain, start..start + len, caches);
            let body = whole::body(reader, Some(identity.clone()), start..start + len);
            return match range {
                None => Ok(body),
                Some(range) => trimmed(body, start, range, size),
            };
        }
        let body = windows(self.pack_reader(placement.clone(), chain, start..start + len, caches), start..start + len);
        match range {
            None => Ok(verify_known(body, identity.clone())),
            Some(range) => verify_range(body, identity.clone(), range),
        }
    }

    /// The pack of a placement with its sources.
    ///
    /// # Errors
    /// As [`Self::open_pack`].
    async fn chain_of(&self, placement: &Placement, identity: &Arc<Identity>, caches: Caches) -> Result<Arc<Chain>> {
        let pack = self.pack_of(placement, caches).await?;
        if pack.snapshot() != identity.id() || pack.size() != identity.size() {
            return Err(Error::corrupt(format!("the object is a pack of snapshot {}", pack.snapshot()))
                .on_backend(&placement.backend)
                .during("retrieve"));
        }
        Ok(Arc::new(self.chain(pack, &placement.backend, caches).await?))
    }

    /// Opens a placement whose object is a pack, for reads of some pages at a time ([`PackReader::some`]).
    ///
    /// # Errors
    /// As [`Self::open_pack`].
    pub(in crate::connector) async fn open_pack_pages(
        &self,
        placement: Placement,
        identity: &Arc<Identity>,
    ) -> Result<PackReader> {
        let chain = self.chain_of(&placement, identity, Caches::Use).await?;
        Ok(self.pack_reader(placement, chain, 0..identity.size(), Caches::Use))
    }

    /// Bytes of a snapshot, from whole pages on, as its pack has them: frames are proven, the snapshot is not. Decoded frames are kept
    /// in `frames`.
    pub(super) fn pack_body_with(
        &self,
        placement: Placement,
        chain: Arc<Chain>,
        range: Range<u64>,
        caches: Caches,
        frames: Arc<RecentFrames>,
    ) -> Body {
        let mut reader = self.pack_reader(placement, chain, range.clone(), caches);
        reader.frames = frames;
        if range.end.saturating_sub(range.start) < LONG {
            return windows(reader, range);
        }
        whole::body(reader, None, range)
    }

    fn pack_reader(&self, placement: Placement, chain: Arc<Chain>, range: Range<u64>, caches: Caches) -> PackReader {
        let (at, end, host) = (range.start, range.end, self.clone());
        let frames = match caches {
            Caches::Use => self.inner.recent_frames.clone(),
            Caches::Bypass => Arc::default(),
        };
        PackReader { host, placement, chain, at, end, frames, caches, places: Mutex::default() }
    }
}

/// The bytes of a range, one window after the other.
fn windows(reader: PackReader, range: Range<u64>) -> Body {
    let len = range.end.saturating_sub(range.start);
    let windows = stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    });
    Body::new(windows, Some(len))
}

pub(in crate::connector) struct PackReader {
    pub(super) host: Host,
    pub(super) placement: Placement,
    pub(super) chain: Arc<Chain>,
    at: u64,
    end: u64,
    /// Decoded frames.
    frames: Arc<RecentFrames>,
    caches: Caches,
    /// Where the sources can be fetched from, as far as that was asked: again after a failure.
    places: Mutex<BTreeMap<u8, Vec<Placement>>>,
}

/// The pages of some parts, one part after the other. The frames may be all over the base, so beside those that are kept no
/// more than one run of them is held at once.
struct Pages<'a> {
    reader: &'a PackReader,
    parts: &'a [FramePart],
    /// The next part.
    number: usize,
    fetched: Vec<(FrameRef, Bytes)>,
}

impl Pages<'_> {
    /// Appends the pages of the next part.
    async fn next(&mut self, out: &mut BytesMut) -> Result<()> {
        let Some(part) = self.parts.get(self.number) else { return Ok(()) };
        let there = self.fetched.iter().find(|(at, _)| *at == part.frame).map(|(_, bytes)| bytes.clone());
        let bytes = match there.or_else(|| self.reader.kept(part.frame)) {
            Some(bytes) => bytes,
            None if self.reader.has_prefix(part.frame) => self.reader.with_prefix(part.frame).await?,
            None => {
                self.fetched.clear();
                self.fetched = self.reader.fetch_run(&self.reader.run_of(&self.parts[self.number..])).await?;
                let first = self.fetched.first().map(|(_, bytes)| bytes.clone());
                first.ok_or_else(|| Error::corrupt("a pack has no such frame"))?
            }
        };
        out.extend_from_slice(pages_of(&bytes, *part)?);
        self.number += 1;
        Ok(())
    }
}

impl PackReader {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.at >= self.end {
            return None;
        }
        let len = WINDOW.min(self.end - self.at);
        let window = self.window(self.at, len).await;
        // After an error nothing more is asked.
        self.at = if window.is_ok() { self.at + len } else { self.end };
        Some(window)
    }

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

    /// The bytes of a window, which begins with a page.
    async fn window(&self, start: u64, len: u64) -> Result<Bytes> {
        let page = |byte: u64| u32::try_from(byte).map_err(|_| Error::corrupt("a page past the end of all packs"));
        let (first, end) = (page(start / PAGE as u64)?, page((start + len).div_ceil(PAGE as u64))?);
        let parts = self.chain.parts(first, end - first);
        let mut bytes = BytesMut::with_capacity((end - first) as usize * PAGE);
        let stored: Vec<FramePart> = parts.iter().filter_map(|part| part.at).collect();
        let mut pages = Pages { reader: self, parts: &stored, number: 0, fetched: Vec::new() };
        for part in &parts {
            match part.at {
                None => bytes.resize(bytes.len() + part.len as usize * PAGE, 0),
                Some(_) => pages.next(&mut bytes).await?,
            }
        }
        bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(bytes.freeze())
    }

    fn has_prefix(&self, at: FrameRef) -> bool {
        self.chain.frame(at).is_some_and(|(_, frame)| frame.coding == Coding::Prefixed)
    }

    /// A frame that needs pages of others.
    fn with_prefix(&self, at: FrameRef) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            if let Some(bytes) = self.kept(at) {
                return Ok(bytes);
            }
            let parts = self.chain.prefix(at);
            let count: usize = parts.iter().map(|part| part.len as usize).sum();
            let mut prefix = BytesMut::with_capacity(count * PAGE);
            let mut pages = Pages { reader: self, parts: &parts, number: 0, fetched: Vec::new() };
            for _ in &parts {
                pages.next(&mut prefix).await?;
            }
            let bytes = self.frame(at, prefix.freeze()).await?;
            self.keep(at, &bytes);
            Ok(bytes)
        })
    }

    /// The frame of the first part, and those of later ones that follow it in its object.
    fn run_of(&self, parts: &[FramePart]) -> Vec<FrameRef> {
        let mut ahead: Vec<FrameRef> = parts.iter().take(MAX_AHEAD).map(|part| part.frame).collect();
        ahead.retain(|at| !self.has_prefix(*at));
        ahead.dedup();
        self.runs(&ahead).into_iter().next().unwrap_or_default()
    }

    /// A decoded frame, if it is kept.
    fn kept(&self, at: FrameRef) -> Option<Bytes> {
        let (pack, _) = self.chain.frame(at)?;
        self.frames.get((pack.id(), at.frame))
    }

    fn keep(&self, at: FrameRef, bytes: &Bytes) {
        if let Some((pack, _)) = self.chain.frame(at) {
            self.frames.put((pack.id(), at.frame), bytes.clone());
        }
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

    /// Neighbouring frames without prefix: with one request, or one by one if that fails.
    async fn fetch_run(&self, run: &[FrameRef]) -> Result<Vec<(FrameRef, Bytes)>> {
        let frames = self.fetch_each(run).await?;
        frames.iter().for_each(|(at, bytes)| self.keep(*at, bytes));
        Ok(frames)
    }

    async fn fetch_each(&self, run: &[FrameRef]) -> Result<Vec<(FrameRef, Bytes)>> {
        if run.len() > 1
            && let Ok(frames) = self.fetch_together(run).await
        {
            return Ok(frames);
        }
        let mut frames = Vec::with_capacity(run.len());
        for at in run {
            frames.push((*at, self.frame(*at, Bytes::new()).await?));
        }
        Ok(frames)
    }

    async fn fetch_together(&self, run: &[FrameRef]) -> Result<Vec<(FrameRef, Bytes)>> {
        let stored = self.stored_together(run).await?;
        let (chain, run) = (self.chain.clone(), run.to_vec());
        blocking(move || {
            let mut frames = Vec::with_capacity(run.len());
            for (at, stored) in run.into_iter().zip(stored) {
                let Some((pack, _)) = chain.frame(at) else { continue };
                // A copy: what is kept of one frame must not keep what was fetched with it.
                let stored = Bytes::copy_from_slice(&stored);
                frames.push((at, decoded(pack, at.frame, &stored, &[])?));
            }
            Ok(frames)
        })
        .await
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
        let source = run.first().map_or(0, |at| at.source);
        let placement = self.candidates(source).await?.into_iter().next();
        let placement = placement.ok_or_else(|| Error::unavailable("no backend has it"))?;
        let stored = self.host.fetch(&placement, start, last + len - start).await?;
        let of = |(offset, len): (u64, u64)| stored.slice((offset - start) as usize..(offset - start + len) as usize);
        Ok(bounds.into_iter().map(of).collect())
    }

    /// One frame, from the first of its pack's placements that has it.
    ///
    /// # Errors
    /// That of this reader's own object; of another one, `unavailable`.
    pub(super) async fn frame(&self, at: FrameRef, prefix: Bytes) -> Result<Bytes> {
        let read = self.any_of(at.source, |placement| {
            let prefix = prefix.clone();
            async move { self.frame_from(&placement, at, prefix).await }
        });
        match read.await {
            // A copy that is to be proven depends on its own backend, and on the very packs that it names.
            Err(error) if self.caches == Caches::Use && at.source > 0 => {
                self.host.in_another_form(&self.chain, at).await.ok_or(error)
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

    async fn frame_from(&self, placement: &Placement, at: FrameRef, prefix: Bytes) -> Result<Bytes> {
        let stored = self.stored_of(placement, at).await?;
        let chain = self.chain.clone();
        let frame = blocking(move || match chain.frame(at) {
            Some((pack, _)) => decoded(pack, at.frame, &stored, &prefix),
            None => Err(Error::corrupt("the pack has no such frame")),
        });
        frame.await.map_err(|error| error.on_backend(&placement.backend).during("retrieve"))
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

/// The pages of a frame. Those that are stored as they are stay where they are: at the end of what was fetched.
pub(super) fn decoded(pack: &Pack, frame: u32, stored: &Bytes, prefix: &[u8]) -> Result<Bytes> {
    let mut buffer = Vec::new();
    let len = decode_frame(pack, frame, stored, prefix, &mut buffer)?.len();
    match stored.len().checked_sub(len) {
        Some(start) if buffer.is_empty() => Ok(stored.slice(start..)),
        _ => Ok(buffer.into()),
    }
}

/// Pages of a decoded frame.
pub(super) fn pages_of(frame: &Bytes, part: FramePart) -> Result<&[u8]> {
    let pages = (part.first as usize * PAGE)..((part.first + part.len) as usize * PAGE);
    frame.get(pages).ok_or_else(|| Error::corrupt("a frame of the pack is shorter than its pages"))
}
