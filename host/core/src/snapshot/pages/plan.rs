//! A long range of a snapshot, planned before anything of it is fetched: windows in order, and the frames that each needs, so that
//! each frame is fetched and decoded once.
//!
//! Frames come in the order in which the windows first need them, each after those of its prefix. Pages of an object that holds its
//! snapshot as it is, and that are where they were there, need no frame: a window takes them from the object itself, and is
//! proven as a whole. They are in a frame only where a prefix or another place needs them.
//!
//! What windows have of a frame is in two sets: what those have that soon follow the first of them, and what later ones have. So
//! a page that the end of an image has once more does not keep the whole frame until then.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{Chain, FrameRef, Part};

/// A frame to fetch and decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The frame.
    pub frame: FrameRef,
    /// The frames, by their number in the plan, whose prefixes need pages of it.
    pub users: Vec<usize>,
    /// What the first window that has pages of it needs, and those that soon follow.
    pub soon: Wanted,
    /// What other windows need.
    pub late: Wanted,
    /// The page of the snapshot from which on windows are among those others.
    pub late_from: u32,
    /// How many frames of the plan, from the first on, have to be decoded before it: those of its prefix are among them.
    /// 0: it has no prefix.
    pub after: usize,
}

/// Pages of a frame that windows need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// How many windows.
    pub windows: u32,
    /// The pages, in order: the first one of each run, and how many. No two runs touch.
    pub pages: Vec<(u32, u32)>,
}

impl Planned {
    /// Returns whether a window that begins with this page of the snapshot is a late one.
    pub fn is_late(&self, window: u32) -> bool {
        window >= self.late_from
    }

    /// What the soon ones need, or the late ones.
    pub fn wanted(&self, late: bool) -> &Wanted {
        if late { &self.late } else { &self.soon }
    }
}

/// Pages that are made at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first page.
    pub first: u32,
    /// The number of pages.
    pub len: u32,
    /// How many frames of the plan, from the first on, have to be decoded before it.
    pub after: usize,
}

/// How a range is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The frames, in the order in which they are to be decoded.
    pub frames: Vec<Planned>,
    /// The windows, in the order of the snapshot.
    pub windows: Vec<Window>,
    /// The number of each frame.
    numbers: BTreeMap<FrameRef, usize>,
}

/// Windows that soon follow: so many bytes as two of the largest frames, in windows of 4 MiB.
const SOON: u32 = 8;

/// What windows want of a frame, while it is gathered.
#[derive(Default)]
struct Gathered {
    late_from: u32,
    soon: Wanted,
    late: Wanted,
}

impl Plan {
    /// For `len` pages from `first`, in windows of at most `window` pages.
    pub fn new(chain: &Chain, first: u32, len: u32, window: u32) -> Self {
        let end = first.saturating_add(len).min(chain.pack().map().pages());
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        let mut windows = Vec::new();
        let mut uses = BTreeMap::<FrameRef, Gathered>::new();
        let soon = SOON.saturating_mul(window.max(1));
        let mut at = first;
        while at < end {
            let len = window.max(1).min(end - at);
            let mut wanted = BTreeSet::new();
            let new = || Gathered { late_from: at.saturating_add(soon), ..Gathered::default() };
            for part in chain.parts(at, len).iter().filter(|part| !is_direct(chain, part)).filter_map(|part| part.at) {
                wanted.insert(part.frame);
                let uses = uses.entry(part.frame).or_insert_with(new);
                uses.at(at).pages.push((part.first, part.len));
            }
            for frame in wanted {
                chain.visit(frame, &mut seen, &mut order);
                uses.entry(frame).or_insert_with(new).at(at).windows += 1;
            }
            windows.push(Window { first: at, len, after: order.len() });
            at += len;
        }
        let numbers: BTreeMap<FrameRef, usize> = order.iter().copied().zip(0..).collect();
        let mut frame = |frame: &FrameRef| {
            let Gathered { late_from, mut soon, mut late } = uses.remove(frame).unwrap_or_default();
            (soon.pages, late.pages) = (joined(soon.pages), joined(late.pages));
            Planned { frame: *frame, users: Vec::new(), soon, late, late_from, after: 0 }
        };
        let mut frames: Vec<Planned> = order.iter().map(&mut frame).collect();
        for (user, frame) in order.iter().enumerate() {
            let needed: BTreeSet<FrameRef> = chain.prefix(*frame).iter().map(|part| part.frame).collect();
            for number in needed.iter().filter_map(|needed| numbers.get(needed).copied()) {
                frames[number].users.push(user);
                frames[user].after = frames[user].after.max(number + 1);
            }
        }
        Self { frames, windows, numbers }
    }

    /// The number of a frame, if it is in the plan.
    pub fn number(&self, frame: FrameRef) -> Option<usize> {
        self.numbers.get(&frame).copied()
    }
}

impl Gathered {
    /// What a window that begins with this page belongs to.
    fn at(&mut self, window: u32) -> &mut Wanted {
        if window >= self.late_from { &mut self.late } else { &mut self.soon }
    }
}

/// Runs of pages in order, those that touch or overlap as one.
fn joined(mut runs: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    runs.sort_unstable();
    runs.dedup_by(|next, before| {
        let (start, end) = (next.0, next.0.saturating_add(next.1));
        let touch = start <= before.0.saturating_add(before.1);
        if touch {
            before.1 = before.1.max(end - before.0);
        }
        touch
    });
    runs.shrink_to_fit();
    runs
}

/// Returns whether pages can be taken from an object that has them at the same place as the snapshot.
pub fn is_direct(chain: &Chain, part: &Part) -> bool {
    let Some(at) = part.at else { return false };
    let Some((pack, frame)) = chain.frame(at.frame) else { return false };
    pack.is_raw() && frame.first.checked_add(at.first) == Some(part.first)
}
