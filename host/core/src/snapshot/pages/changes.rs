//! Which pages of an image are not what another one has in their place.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Write;
use std::ops::Range;

use super::PAGE;
use super::digests::{DigestWriter, ZeroPages, segment_len};
use super::image::{Holes, Image, check_size};
use super::map::Place;
use super::pack::{Pack, SEGMENT_PAGES, segments_of};
use super::pool::{Pending, Pool, Shared, Worker, processors};
use super::scan::{self, Class, ClassRun, Dirty, Old, Scan, Scanned};
use crate::snapshot::identity::identity_of;
use crate::snapshot::{Identity, SEGMENT, SegmentDigest, ZERO_SEGMENT};
use crate::types::Result;

/// Changed pages whose hashes are kept: 96 MiB.
const HASHES: usize = 4 << 20;

/// The ranges of pages in which an image differs from another one, in bytes; the last one may end past the end of the image. A page
/// past the end of either counts as zeros. With `changed`, only these are read.
///
/// # Errors
/// Errors of reading.
pub fn compare(
    new: &dyn Image,
    old: (&dyn Image, &Identity),
    changed: Option<&[Range<u64>]>,
    threads: usize,
) -> Result<Vec<Range<u64>>> {
    check_size(new.size())?;
    let old = Some(Old { identity: old.1, image: Some(old.0), digests: None });
    let scan = Scan { new, old, zeros: ZeroPages::new(), digests: false, blocks: false };
    let shared = Shared::new();
    let changes = std::thread::scope(|scope| {
        let pool = Pool::start(scope, &shared, threads)?;
        find(&scan, &pool, changed, threads + 2, &mut None)
    })?;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for run in changes.runs.iter().filter(|run| run.class != Class::Same) {
        let (start, end) = (u64::from(run.first) * PAGE as u64, u64::from(run.first + run.len) * PAGE as u64);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    Ok(ranges)
}

/// The ranges of pages, in bytes, of the snapshot of a delta that are not where its base has them. What lies there may be equal
/// all the same; everything else is.
pub fn changed_bytes(pack: &Pack, base: &Pack) -> Vec<Range<u64>> {
    let id_in = |pack: &Pack, source: u8| match source.checked_sub(1) {
        None => Some(pack.id()),
        Some(source) => pack.sources().get(usize::from(source)).map(|source| source.id),
    };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut changed = |first: u32, len: u32| {
        let (start, end) = (u64::from(first) * PAGE as u64, (u64::from(first) + u64::from(len)) * PAGE as u64);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    };
    for run in pack.map().runs() {
        let mut at = run.first;
        for old in base.map().parts(run.first, run.len) {
            let same = match (run.place.plus(old.first - run.first), old.place) {
                (Place::Nowhere, Place::Nowhere) => true,
                (Place::Stored { source, page }, Place::Stored { source: other, page: as_before }) => {
                    page == as_before && id_in(pack, source) == id_in(base, other)
                }
                _ => false,
            };
            if !same {
                changed(old.first, old.len);
            }
            at = old.first + old.len;
        }
        // Past the end of the base.
        if at < run.first + run.len {
            changed(at, run.first + run.len - at);
        }
    }
    ranges
}

/// Writes the page digests of an image, and returns its identity. Holes are not read.
///
/// # Errors
/// Errors of reading and of writing; `unsupported` for an image of 16 TiB and more.
pub fn write_digests(image: &dyn Image, threads: usize, out: &mut dyn Write) -> Result<Identity> {
    check_size(image.size())?;
    let scan = Scan { new: image, old: None, zeros: ZeroPages::new(), digests: true, blocks: true };
    let shared = Shared::new();
    let threads = if threads == 0 { processors() } else { threads };
    let mut sidecar = Some(DigestWriter::new(out, image.size())?);
    let changes = std::thread::scope(|scope| {
        let pool = Pool::start(scope, &shared, threads)?;
        find(&scan, &pool, None, threads + 2, &mut sidecar)
    })?;
    let identity = identity_of(image.size(), changes.digests);
    sidecar.map_or(Ok(()), |sidecar| sidecar.finish(identity.id(), image.size()).map(drop))?;
    Ok(identity)
}

/// What has changed.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) runs: Vec<ClassRun>,
    /// Of the changed pages, in order; not of all if there are very many.
    pub(super) hashes: Vec<Dirty>,
    pub(super) digests: Vec<SegmentDigest>,
}

/// A segment on its way.
enum Looked {
    /// A hole of the image.
    Hole,
    /// Known to be as in the base.
    Same,
    Scanned(Pending<Scanned>),
}

/// Finds what has changed, and writes page digests if there is a place for them.
pub(super) fn find<'scope, 'env: 'scope>(
    scan: &'env Scan<'env>,
    pool: &Pool<'scope, 'env>,
    changed: Option<&[Range<u64>]>,
    most: usize,
    sidecar: &mut Option<DigestWriter<'_>>,
) -> Result<Changes> {
    let size = scan.new.size();
    let mut wanted = changed.map(Wanted::new);
    let old = scan.old.and_then(|old| old.image).map(Holes::new);
    let mut holes = (Holes::new(scan.new), old);
    let (mut ahead, mut given) = (VecDeque::new(), 0);
    let mut changes = Changes::default();
    for number in 0..segments_of(size) {
        while given < segments_of(size) && ahead.len() < most {
            ahead.push_back(look(scan, pool, given, &mut holes, wanted.as_mut())?);
            given += 1;
        }
        let (first, pages) = (number * SEGMENT_PAGES, segment_len(size, number).div_ceil(PAGE) as u32);
        let old = scan.old.and_then(|old| old.identity.segments().as_slice().get(number as usize)).copied();
        let (digest, block) = match ahead.pop_front() {
            Some(Looked::Scanned(scanned)) => {
                let scanned = scanned.take()?;
                scanned.runs.iter().for_each(|run| scan::push(&mut changes.runs, run.first, run.len, run.class));
                let room = HASHES - changes.hashes.len();
                changes.hashes.extend(scanned.dirty.into_iter().take(room));
                (scanned.digest.or(old), scanned.block)
            }
            Some(Looked::Hole) => {
                let class = if old == Some(ZERO_SEGMENT) { Class::Same } else { Class::Zero };
                scan::push(&mut changes.runs, first, pages, class);
                (Some(ZERO_SEGMENT), Vec::new())
            }
            _ => {
                scan::push(&mut changes.runs, first, pages, Class::Same);
                (old, copied_block(scan, number))
            }
        };
        changes.digests.extend(digest);
        sidecar.as_mut().map_or(Ok(()), |sidecar| sidecar.push(&block))?;
    }
    Ok(changes)
}

/// The block of page digests that the base has for a segment; none if it cannot be read, which readers take for damage. It is
/// not proven: whoever uses it does that.
fn copied_block(scan: &Scan<'_>, number: u32) -> Vec<u8> {
    let digests = scan.old.and_then(|old| old.digests).filter(|_| scan.blocks);
    digests.and_then(|digests| digests.block(number).ok()).unwrap_or_default()
}

fn look<'scope, 'env: 'scope>(
    scan: &'env Scan<'env>,
    pool: &Pool<'scope, 'env>,
    number: u32,
    (holes, old_holes): &mut (Holes<'_>, Option<Holes<'_>>),
    wanted: Option<&mut Wanted<'_>>,
) -> Result<Looked> {
    let (start, len) = (u64::from(number) * SEGMENT as u64, segment_len(scan.new.size(), number));
    let old = scan.old.map_or(0, |old| segment_len(old.identity.size(), number));
    let pages = wanted.filter(|_| old == len).map(|wanted| wanted.pages(start, start + len as u64));
    let copied = !scan.blocks || scan.old.is_some_and(|old| old.digests.is_some());
    if pages.as_ref().is_some_and(|pages| !pages.contains(&true)) && copied {
        return Ok(Looked::Same);
    }
    let hole = len == SEGMENT && holes.covers(start, start + len as u64)?;
    // A comparison alone wants to know of each page whether the base has zeros there too.
    let zero =
        scan.old.is_some_and(|old| old.identity.segments().as_slice().get(number as usize) == Some(&ZERO_SEGMENT));
    if hole && (scan.digests || zero) {
        return Ok(Looked::Hole);
    }
    let hole = old_holes.as_mut().map_or(Ok(false), |holes| holes.covers(start, start + SEGMENT as u64))?;
    let work = move |worker: &mut Worker| scan.segment(number, pages.as_deref(), hole, &mut worker.buffers);
    Ok(Looked::Scanned(pool.give(work)))
}

/// Ranges that may have changed, asked from the first to the last.
struct Wanted<'a> {
    ranges: Cow<'a, [Range<u64>]>,
    from: usize,
}

impl<'a> Wanted<'a> {
    fn new(ranges: &'a [Range<u64>]) -> Self {
        let mut wanted = Self { ranges: ranges.into(), from: 0 };
        if !ranges.is_sorted_by_key(|range| range.start) {
            wanted.ranges.to_mut().sort_by_key(|range| range.start);
        }
        wanted
    }

    /// Which pages from `start` to `end` are among them.
    fn pages(&mut self, start: u64, end: u64) -> Vec<bool> {
        let mut pages = vec![false; (end - start).div_ceil(PAGE as u64) as usize];
        while self.ranges.get(self.from).is_some_and(|range| range.end <= start) {
            self.from += 1;
        }
        for range in self.ranges[self.from..].iter().take_while(|range| range.start < end) {
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                let last = (to - start).div_ceil(PAGE as u64) as usize;
                pages[((from - start) / PAGE as u64) as usize..last].fill(true);
            }
        }
        pages
    }
}
