//! A range of a snapshot, frame by frame: in an order in which each frame is fetched once, and little is kept.
//!
//! Frames come in the order in which the range first needs them, each after those of its prefix. What a prefix needs of a frame is
//! copied into it at once. Since frames and prefixes follow the order of the image, few prefixes are begun at a time: about two for
//! each level of the chain, however large the image is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::PAGE;
use super::chain::{Chain, FramePart, FrameRef};
use super::decode::decode_frame;
use super::layout::damaged;
use super::pack::Pack;
use crate::types::{Error, Result};

/// Pages of a frame that belong into the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The first page of the snapshot.
    pub page: u32,
    /// The first page, counted in the frame.
    pub first: u32,
    /// The number of pages.
    pub len: u32,
}

/// A frame to fetch and decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The frame.
    pub frame: FrameRef,
    /// What of it is wanted, in the order of the snapshot; nothing if only prefixes need it.
    pub placed: Vec<Placed>,
    /// Whether it has a prefix.
    prefixed: bool,
    /// The later frames whose prefixes need pages of it.
    users: Vec<FrameRef>,
}

impl Step {
    /// Returns whether it can be decoded alone and nothing later needs it: then [`decode_frame`] will do, at any time.
    pub fn is_independent(&self) -> bool {
        !self.prefixed && self.users.is_empty()
    }
}

impl Chain {
    /// The frames that `len` pages from `first` need, in the order in which [`Decoder`] takes them. What no frame places is zeros.
    pub fn steps(&self, first: u32, len: u32) -> Vec<Step> {
        let mut placed = BTreeMap::<FrameRef, Vec<Placed>>::new();
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for part in self.parts(first, len) {
            let Some(at) = part.at else { continue };
            placed.entry(at.frame).or_default().push(Placed { page: part.first, first: at.first, len: at.len });
            self.visit(at.frame, &mut seen, &mut order);
        }
        let mut users = BTreeMap::<FrameRef, Vec<FrameRef>>::new();
        let mut prefixed = BTreeSet::new();
        for frame in &order {
            let needed: BTreeSet<FrameRef> = self.prefix(*frame).iter().map(|part| part.frame).collect();
            if !needed.is_empty() {
                prefixed.insert(*frame);
            }
            needed.into_iter().for_each(|needed| users.entry(needed).or_default().push(*frame));
        }
        let step = |frame| Step {
            frame,
            placed: placed.remove(&frame).unwrap_or_default(),
            prefixed: prefixed.contains(&frame),
            users: users.remove(&frame).unwrap_or_default(),
        };
        order.into_iter().map(step).collect()
    }
}

/// A prefix that is being filled.
struct Begun {
    parts: Vec<FramePart>,
    bytes: Vec<u8>,
    /// The frames whose pages are not there yet.
    missing: BTreeSet<FrameRef>,
}

impl Begun {
    fn new(parts: Vec<FramePart>) -> Self {
        let pages: usize = parts.iter().map(|part| part.len as usize).sum();
        let missing = parts.iter().map(|part| part.frame).collect();
        Self { parts, bytes: vec![0; pages * PAGE], missing }
    }

    /// Takes what it needs of the pages of a frame.
    fn fill(&mut self, frame: FrameRef, pages: &[u8]) {
        let mut at = 0;
        for part in &self.parts {
            let to = bytes_of(at, part.len);
            at += part.len;
            let from = pages.get(bytes_of(part.first, part.len)).filter(|_| part.frame == frame);
            if let (Some(from), Some(to)) = (from, self.bytes.get_mut(to)) {
                to.copy_from_slice(from);
            }
        }
        self.missing.remove(&frame);
    }
}

/// Decodes the steps of a range, in their order.
pub struct Decoder<'c> {
    chain: &'c Chain,
    begun: BTreeMap<FrameRef, Begun>,
    buffer: Vec<u8>,
}

impl<'c> Decoder<'c> {
    /// For steps of this chain.
    pub fn new(chain: &'c Chain) -> Self {
        Self { chain, begun: BTreeMap::new(), buffer: Vec::new() }
    }

    /// The bytes that are kept for later prefixes.
    pub fn kept(&self) -> usize {
        self.begun.values().map(|begun| begun.bytes.len()).sum()
    }

    /// Where the stored bytes of the frame of a step lie: pack, and range of its bytes.
    ///
    /// # Errors
    /// `invalid` for a step of another chain.
    pub fn stored(&self, step: &Step) -> Result<(&'c Pack, Range<u64>)> {
        let (pack, frame) = self.chain.frame(step.frame).ok_or_else(|| Error::invalid("a step of another chain"))?;
        Ok((pack, frame.offset..frame.offset + u64::from(frame.stored)))
    }

    /// The pages of the frame of a step, from its stored bytes. Blocks for as long as decoding takes.
    ///
    /// # Errors
    /// `corrupt` for other bytes than were stored: the same step may then be tried again with others. `invalid` if a step before
    /// it was left out.
    pub fn decode<'a>(&'a mut self, step: &Step, stored: &'a [u8]) -> Result<&'a [u8]> {
        let (pack, _) = self.stored(step)?;
        let begun = self.begun.get(&step.frame).filter(|begun| begun.missing.is_empty());
        if step.prefixed && begun.is_none() {
            return Err(Error::invalid("a step before this one was left out"));
        }
        let prefix = begun.map_or(&[][..], |begun| &begun.bytes);
        let pages = decode_frame(pack, step.frame.frame, stored, prefix, &mut self.buffer)?;
        self.begun.remove(&step.frame);
        for user in &step.users {
            let begun = self.begun.entry(*user).or_insert_with(|| Begun::new(self.chain.prefix(*user)));
            begun.fill(step.frame, pages);
        }
        Ok(pages)
    }
}

/// Where so many pages lie in bytes.
fn bytes_of(first: u32, len: u32) -> Range<usize> {
    first as usize * PAGE..(first + len) as usize * PAGE
}

/// Gives bytes of an object: those of a pack, in a range of its bytes.
pub type Fetch<'a> = &'a mut dyn FnMut(&Pack, Range<u64>) -> Result<Vec<u8>>;

/// The bytes of `range` of a snapshot, as far as it has them. Each frame is fetched once.
///
/// # Errors
/// Errors of `fetch`; `corrupt` if it gives other bytes than were stored.
pub fn read_pages(chain: &Chain, range: Range<u64>, fetch: Fetch<'_>) -> Result<Vec<u8>> {
    let end = range.end.min(chain.pack().size());
    let start = range.start.min(end);
    // Both are within the snapshot.
    let first = (start / PAGE as u64) as u32;
    let count = (end.div_ceil(PAGE as u64) as u32).saturating_sub(first);
    let mut bytes = vec![0; count as usize * PAGE];
    let mut decoder = Decoder::new(chain);
    for step in chain.steps(first, count) {
        let (pack, stored) = decoder.stored(&step)?;
        let stored = fetch(pack, stored)?;
        let pages = decoder.decode(&step, &stored)?;
        for placed in &step.placed {
            let from = pages.get(bytes_of(placed.first, placed.len));
            let to = bytes.get_mut(bytes_of(placed.page - first, placed.len));
            let (Some(from), Some(to)) = (from, to) else {
                return Err(damaged("a frame has fewer pages than it should"));
            };
            to.copy_from_slice(from);
        }
    }
    let skipped = (start - u64::from(first) * PAGE as u64) as usize;
    bytes.truncate((end - u64::from(first) * PAGE as u64) as usize);
    Ok(bytes.split_off(skipped.min(bytes.len())))
}
