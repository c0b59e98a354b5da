//! What has to be read to prove that a pack holds its snapshot, where its base is proven.
//!
//! A segment whose pages all lie where those of the base lie is proven by the base. One that is nowhere is zeros, whose digest is
//! constant. Of segments with the same pages in the same order, one proves the others. So what is left follows from what has
//! changed, and not from the size of the image, whatever the pack says.

use std::collections::HashMap;
use std::ops::Range;

use super::chain::Chain;
use super::layout::damaged;
use super::map::{Map, Place};
use super::pack::{Pack, SEGMENT_PAGES, is_nowhere, segments_of};
use crate::snapshot::{Identity, SEGMENT, SegmentDigest, ZERO_SEGMENT};
use crate::types::{PackId, Result};

/// The most layouts of segments that are compared with later ones.
const LAYOUTS: usize = 1 << 16;

impl Chain {
    /// Returns the bytes of the snapshot that have to be read and compared with the digests of `identity`, which is that of the
    /// pack, in order and by whole segments. Everything else is proven once `base` is, which is the identity of the base of
    /// the pack, if it has one. Takes time that follows from the number of segments and runs.
    ///
    /// # Errors
    /// `corrupt` if the pack does not hold what `identity` says.
    pub fn unproven(&self, identity: &Identity, base: Option<&Identity>) -> Result<Vec<Range<u64>>> {
        let pack = self.pack();
        let base = base.and_then(|base| Some((base, self.packs().get(1)?)));
        let mut changed = base
            .map_or_else(
                || std::iter::once(0..pack.map().pages()).collect::<Vec<_>>(),
                |(_, base)| changed_pages(pack, base),
            )
            .into_iter()
            .peekable();
        let (size, mut layouts) = (identity.size(), HashMap::new());
        let mut unproven: Vec<Range<u64>> = Vec::new();
        for (number, digest) in (0..segments_of(size)).zip(identity.segments().as_slice()) {
            let (first, start) = (number * SEGMENT_PAGES, u64::from(number) * SEGMENT as u64);
            while changed.next_if(|range| range.end <= first).is_some() {}
            let as_in_base = changed.peek().is_none_or(|range| range.start >= first.saturating_add(SEGMENT_PAGES));
            let end = (start + SEGMENT as u64).min(size);
            let wrong = || damaged(format!("the pack has other bytes in segment {number} than its snapshot"));
            let proof = match base {
                Some((base, _)) if as_in_base && (end - start == SEGMENT as u64 || base.size() == size) => {
                    base.segments().as_slice().get(number as usize).filter(|_| end <= base.size())
                }
                _ if is_nowhere(pack.map(), size, number) => Some(&ZERO_SEGMENT),
                _ => None,
            };
            match proof {
                Some(proof) if proof == digest => continue,
                Some(_) => return Err(wrong()),
                None => {}
            }
            if end - start == SEGMENT as u64 {
                let layout = layout_of(pack, first);
                match layouts.get(&layout) {
                    Some(known) if known == digest => continue,
                    Some(_) => return Err(wrong()),
                    None if layouts.len() < LAYOUTS => drop(layouts.insert(layout, *digest)),
                    None => {}
                }
            }
            match unproven.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => unproven.push(start..end),
            }
        }
        Ok(unproven)
    }
}

/// Which pack a place is in, and which stored page it is.
fn resolved(pack: &Pack, place: Place) -> Option<(PackId, u32)> {
    match place {
        Place::Nowhere => None,
        Place::Stored { source: 0, page } => Some((pack.id(), page)),
        Place::Stored { source, page } => Some((pack.sources().get(usize::from(source) - 1)?.id, page)),
    }
}

/// The pages that do not lie where those of the base do.
fn changed_pages(pack: &Pack, base: &Pack) -> Vec<Range<u32>> {
    let (map, before): (&Map, &Map) = (pack.map(), base.map());
    let mut changed: Vec<Range<u32>> = Vec::new();
    let mut note = |range: Range<u32>| match changed.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.end == range.start => last.end = range.end,
        _ => changed.push(range),
    };
    for run in map.runs() {
        let mut at = run.first;
        for part in before.parts(run.first, run.len) {
            at = part.first + part.len;
            if resolved(pack, run.place.plus(part.first - run.first)) != resolved(base, part.place) {
                note(part.first..at);
            }
        }
        note(at..run.first + run.len);
    }
    changed
}

/// Where the pages of a segment lie, whichever segment it is.
fn layout_of(pack: &Pack, first: u32) -> SegmentDigest {
    let mut hasher = blake3::Hasher::new();
    for run in pack.map().parts(first, SEGMENT_PAGES) {
        hasher.update(&run.len.to_le_bytes());
        match resolved(pack, run.place) {
            None => hasher.update(&[0]),
            Some((id, page)) => hasher.update(&[1]).update(id.as_bytes()).update(&page.to_le_bytes()),
        };
    }
    *hasher.finalize().as_bytes()
}
