//! A pack with its sources: which frames a range of pages needs, and what that costs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::PAGE_BYTES;
use super::frames::{Coding, Frame};
use super::layout::damaged;
use super::limits::Limits;
use super::map::{Map, Place};
use super::pack::Pack;
use crate::types::{Error, Result};

/// A frame of a pack of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameRef {
    /// The pack: 0 is the first of the chain, others are its sources.
    pub source: u8,
    /// The number of the frame in its pack.
    pub frame: u32,
}

/// Consecutive pages of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePart {
    /// The frame.
    pub frame: FrameRef,
    /// The first page, counted in the frame.
    pub first: u32,
    /// The number of pages.
    pub len: u32,
}

/// Consecutive pages of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first page.
    pub first: u32,
    /// The number of pages.
    pub len: u32,
    /// The pages of a frame that they are; `None`: zeros.
    pub at: Option<FramePart>,
}

/// What it takes to read something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Packs that are read.
    pub packs: u32,
    /// Frames that are fetched and decoded, each by one ranged request.
    pub frames: u32,
    /// Bytes that are fetched.
    pub bytes: u64,
    /// Pages that are decoded.
    pub pages: u64,
}

/// A pack and its sources, which fit together.
#[derive(Debug, Clone)]
pub struct Chain {
    packs: Vec<Arc<Pack>>,
    /// For each pack, the numbers in this chain of its sources 0, 1, …; `None` for one that no prefix names.
    numbers: Vec<Vec<Option<u8>>>,
}

impl Chain {
    /// From a pack and its sources, in the order of [`Pack::sources`].
    ///
    /// # Errors
    /// `corrupt` if these are not its sources, or do not fit together; `unsupported` if they take more memory than
    /// [`Limits::DEFAULT`] allows.
    pub fn new(first: Arc<Pack>, sources: Vec<Arc<Pack>>) -> Result<Self> {
        Self::within(first, sources, Limits::DEFAULT)
    }

    /// As [`Self::new`], with other limits.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn within(first: Arc<Pack>, sources: Vec<Arc<Pack>>, limits: Limits) -> Result<Self> {
        let mut packs = vec![first];
        packs.extend(sources);
        let memory = packs.iter().fold(0, |all: usize, pack| all.saturating_add(pack.memory()));
        if memory > limits.chain_memory {
            return Err(Error::unsupported("the metadata of a pack and its sources exceeds the limit")
                .hint("rebase the snapshot first, or store the image whole"));
        }
        let listed = packs[0].sources();
        if listed.len() != packs.len() - 1 {
            return Err(damaged(format!("{} packs in place of {} sources", packs.len() - 1, listed.len())));
        }
        for (source, pack) in listed.iter().zip(&packs[1..]) {
            let found = (pack.id(), pack.snapshot(), pack.frames().pages(), pack.depth());
            if found != (source.id, source.snapshot, source.pages, source.depth) {
                return Err(damaged(format!("pack {} is not the source {} that is needed", pack.id(), source.id)));
            }
        }
        let mut numbers = vec![(0..=listed.len() as u8).map(Some).collect::<Vec<_>>()];
        for (at, pack) in packs.iter().enumerate().skip(1) {
            numbers.push(numbers_in(&packs, at as u8, pack)?);
        }
        Ok(Self { packs, numbers })
    }

    /// The pack itself.
    pub fn pack(&self) -> &Arc<Pack> {
        &self.packs[0]
    }

    /// The pack and its sources, by number.
    pub fn packs(&self) -> &[Arc<Pack>] {
        &self.packs
    }

    /// A frame, and its pack.
    pub fn frame(&self, at: FrameRef) -> Option<(&Pack, &Frame)> {
        let pack = self.packs.get(usize::from(at.source))?;
        Some((pack, pack.frames().as_slice().get(at.frame as usize)?))
    }

    /// Where `len` pages from `first` lie, in order and without gaps, as far as the snapshot has them.
    pub fn parts(&self, first: u32, len: u32) -> Vec<Part> {
        self.split(0, self.packs[0].map(), first, len)
    }

    /// Where pages of a frame begin in the object of their pack, one after the other; `None` if they are compressed.
    pub fn direct(&self, part: FramePart) -> Option<u64> {
        let (pack, frame) = self.frame(part.frame)?;
        if frame.coding != Coding::Raw {
            return None;
        }
        let digests = u64::from(frame.pages) * pack.profile().bytes_of_digest();
        Some(frame.offset + digests + u64::from(part.first) * PAGE_BYTES)
    }

    /// The pages that are the prefix of a frame, in order; none if it has no prefix.
    pub fn prefix(&self, at: FrameRef) -> Vec<FramePart> {
        match self.frame(at) {
            Some((pack, frame)) if frame.coding == Coding::Prefixed => self
                .split(at.source, pack.prefixes(), frame.prefix_first, frame.pages)
                .into_iter()
                .filter_map(|part| part.at)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// A frame and all frames that are needed to decode it: each after those that it needs itself.
    pub fn closure(&self, at: FrameRef) -> Vec<FrameRef> {
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        self.visit(at, &mut seen, &mut order);
        order
    }

    /// What it costs to read `len` pages from `first` if nothing is at hand.
    pub fn cost(&self, first: u32, len: u32) -> Cost {
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for part in self.parts(first, len).iter().filter_map(|part| part.at) {
            self.visit(part.frame, &mut seen, &mut order);
        }
        let mut cost = Cost { packs: 0, frames: order.len() as u32, ..Cost::default() };
        let mut packs = [false; 256];
        for at in order {
            packs[usize::from(at.source)] = true;
            if let Some((_, frame)) = self.frame(at) {
                cost.bytes += u64::from(frame.stored);
                cost.pages += u64::from(frame.pages);
            }
        }
        cost.packs = packs.into_iter().filter(|used| *used).count() as u32;
        cost
    }

    /// As deep as the deepest pack: [`Self::new`] has seen to it that what a frame needs is less deep.
    pub(super) fn visit(&self, at: FrameRef, seen: &mut BTreeSet<FrameRef>, order: &mut Vec<FrameRef>) {
        if seen.insert(at) {
            for part in self.prefix(at) {
                self.visit(part.frame, seen, order);
            }
            order.push(at);
        }
    }

    /// Parts of a map of pack `of`, split at the borders of frames.
    fn split(&self, of: u8, map: &Map, first: u32, len: u32) -> Vec<Part> {
        let mut parts = Vec::new();
        for run in map.parts(first, len) {
            let Place::Stored { source, page } = run.place else {
                parts.push(Part { first: run.first, len: run.len, at: None });
                continue;
            };
            // Both exist: they were checked when the pack was read, and the chain made.
            let number = self.numbers[usize::from(of)].get(usize::from(source)).copied().flatten();
            let Some(number) = number else { continue };
            let frames = self.packs[usize::from(number)].frames();
            let mut done = 0;
            while done < run.len {
                let Some(at) = frames.of_page(page + done) else { break };
                let frame = &frames.as_slice()[at];
                let within = page + done - frame.first;
                let len = (frame.pages - within).min(run.len - done);
                let place = FramePart { frame: FrameRef { source: number, frame: at as u32 }, first: within, len };
                parts.push(Part { first: run.first + done, len, at: Some(place) });
                done += len;
            }
        }
        parts
    }
}

/// The numbers in a chain of the sources of one of its packs, as far as its prefixes name them.
fn numbers_in(packs: &[Arc<Pack>], own: u8, pack: &Pack) -> Result<Vec<Option<u8>>> {
    let mut numbers = vec![None; pack.sources().len() + 1];
    numbers[0] = Some(own);
    for run in pack.prefixes().runs() {
        let Place::Stored { source, .. } = run.place else { continue };
        let at = usize::from(source);
        if numbers[at].is_some() {
            continue;
        }
        let source = &pack.sources()[at - 1];
        let found = packs.iter().position(|other| other.id() == source.id);
        let fits = |number: &usize| {
            let other = &packs[*number];
            *number > 0 && other.depth() == source.depth && other.frames().pages() == source.pages
        };
        let Some(number) = found.filter(fits) else {
            return Err(damaged(format!("pack {} needs {}, which is not among the sources", pack.id(), source.id)));
        };
        numbers[at] = Some(number as u8);
    }
    Ok(numbers)
}
