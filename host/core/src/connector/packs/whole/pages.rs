//! The pages that windows take from raw objects, and those that are kept of frames.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{GAP, Whole};
use crate::connector::packs::prefix::pages_of;
use crate::snapshot::PAGE;
use crate::snapshot::pages::{Chain, FrameRef, Part, Window, is_direct};
use crate::types::{Error, Result};

impl Whole {
    /// Returns whether everything is kept that a window needs of frames.
    pub(super) fn has(&self, chain: &Chain, window: Window, parts: &[Part]) -> bool {
        let state = self.state();
        let mut needed = parts.iter().filter(|part| !is_direct(chain, part)).filter_map(|part| part.at);
        needed.all(|at| {
            let number = self.plan.number(at.frame);
            number.is_some_and(|number| {
                state.kept.contains_key(&(number, self.plan.frames[number].is_late(window.first)))
            })
        })
    }

    /// Lets go of the frames that no later window needs.
    pub(super) fn release(&self, chain: &Chain, window: Window, parts: &[Part]) {
        let frames: BTreeSet<FrameRef> =
            parts.iter().filter(|part| !is_direct(chain, part)).filter_map(|part| part.at.map(|at| at.frame)).collect();
        let mut gone = Vec::new();
        let mut state = self.state();
        for number in frames.into_iter().filter_map(|frame| self.plan.number(frame)) {
            let key = (number, self.plan.frames[number].is_late(window.first));
            if let Some(kept) = state.kept.get_mut(&key) {
                kept.windows = kept.windows.saturating_sub(1);
                if kept.windows == 0 {
                    gone.extend(state.kept.remove(&key));
                }
            }
        }
        drop(state);
    }

    /// The first byte of a window, and the number of its bytes.
    pub(super) fn bytes_of(&self, chain: &Chain, window: Window) -> (u64, usize) {
        let start = u64::from(window.first) * PAGE as u64;
        let len = (u64::from(window.len) * PAGE as u64).min(chain.pack().size().saturating_sub(start));
        // At most a window.
        (start, len as usize)
    }

    /// The pages of raw objects that a window has where they belong, by the first page of each part; not proven.
    pub(super) async fn direct(&self, chain: &Chain, parts: &[Part]) -> Result<BTreeMap<u32, Bytes>> {
        let mut by_source = BTreeMap::<u8, Vec<(u64, u64, u32)>>::new();
        for part in parts.iter().filter(|part| is_direct(chain, part)) {
            let Some(at) = part.at else { continue };
            let Some((pack, _)) = chain.frame(at.frame) else { continue };
            let start = u64::from(part.first) * PAGE as u64;
            let end = (start + u64::from(part.len) * PAGE as u64).min(pack.size());
            by_source.entry(at.frame.source).or_default().push((start, end, part.first));
        }
        let mut found = BTreeMap::new();
        for (source, ranges) in by_source {
            let placement = self.reader.candidates(source).await?.first().cloned();
            let placement = placement.ok_or_else(|| Error::unavailable("no backend has it"))?;
            for group in ranges.chunk_by(|(_, end, _), (start, _, _)| start.saturating_sub(*end) <= GAP) {
                let (Some((start, ..)), Some((_, end, _))) = (group.first(), group.last()) else { continue };
                let bytes = self.reader.host.fetch(&placement, *start, end - start).await?;
                for (from, to, page) in group {
                    found.insert(*page, bytes.slice((from - start) as usize..(to - start) as usize));
                }
            }
        }
        Ok(found)
    }

    /// The same pages, from proven frames.
    pub(super) async fn direct_from_frames(&self, chain: &Chain, parts: &[Part]) -> Result<BTreeMap<u32, Bytes>> {
        let mut found = BTreeMap::new();
        let mut last: Option<(FrameRef, Bytes)> = None;
        for part in parts.iter().filter(|part| is_direct(chain, part)) {
            let Some(at) = part.at else { continue };
            let frame = match last.take().filter(|(frame, _)| *frame == at.frame) {
                Some((_, bytes)) => bytes,
                None => self.reader.frame(at.frame, None).await?.0,
            };
            pages_of(&frame, at)?;
            let from = at.first as usize * PAGE;
            found.insert(part.first, frame.slice(from..from + at.len as usize * PAGE));
            last = Some((at.frame, frame));
        }
        Ok(found)
    }
}

/// These pages of a frame, one after the other. What all of it is stays as it is.
pub(super) fn only(frame: &Bytes, runs: &[(u32, u32)]) -> Result<Bytes> {
    let bytes = runs.iter().map(|(_, len)| *len as usize * PAGE).sum();
    if frame.len() == bytes {
        return Ok(frame.clone());
    }
    let mut pages = Vec::with_capacity(bytes);
    for (first, len) in runs {
        let run = frame.get(*first as usize * PAGE..(*first as usize + *len as usize) * PAGE);
        pages.extend_from_slice(run.ok_or_else(|| Error::corrupt("a frame of the pack is shorter than its pages"))?);
    }
    Ok(pages.into())
}

/// Where a page is among those that are kept of a frame.
pub(super) fn place(runs: &[(u32, u32)], page: u32) -> Option<usize> {
    let mut before = 0;
    for (first, len) in runs {
        match page.checked_sub(*first) {
            Some(within) if within < *len => return Some((before + within) as usize * PAGE),
            Some(_) => before += len,
            None => return None,
        }
    }
    None
}
