//! What has changed in a segment: its pages against those of the base, and its digest.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PAGE;
use super::decode::digest_at;
use super::digests::{Known, PageDigests, ZeroPages, block, segment_len};
use super::hash::content_hash;
use super::image::Image;
use super::layout::damaged;
use super::pack::SEGMENT_PAGES;
use crate::snapshot::segment::{is_zero, segment_digest};
use crate::snapshot::{Identity, SEGMENT, SegmentDigest};
use crate::types::Result;

/// Bytes that are read and compared in one step: they stay in the processor's cache.
const STEP: usize = 256 << 10;

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Zeros, and the base has something else there or there is no base.
    Zero,
    /// What the base has there.
    Same,
    /// Neither.
    Dirty,
}

/// Pages of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassRun {
    pub(super) first: u32,
    pub(super) len: u32,
    pub(super) class: Class,
}

/// Appends pages to runs.
pub(super) fn push(runs: &mut Vec<ClassRun>, first: u32, len: u32, class: Class) {
    match runs.last_mut() {
        Some(last) if last.class == class && last.first + last.len == first => last.len += len,
        _ if len > 0 => runs.push(ClassRun { first, len, class }),
        _ => {}
    }
}

/// A page that is neither zeros nor what the base has there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirty {
    /// The hash of its content.
    pub(super) hash: u64,
    /// The hash of what the base has there, if it is known and not zeros.
    pub(super) old: Option<u64>,
}

/// A segment that was looked at.
pub(super) struct Scanned {
    pub(super) runs: Vec<ClassRun>,
    pub(super) dirty: Vec<Dirty>,
    /// `None`: that of the base.
    pub(super) digest: Option<SegmentDigest>,
    /// Its block of page digests, if it was asked for.
    pub(super) block: Vec<u8>,
}

/// What a snapshot is compared with.
#[derive(Clone, Copy)]
pub(super) struct Old<'a> {
    pub(super) identity: &'a Identity,
    pub(super) image: Option<&'a dyn Image>,
    pub(super) digests: Option<&'a PageDigests>,
}

/// What to look at, the same for all segments.
#[derive(Clone)]
pub(super) struct Scan<'a> {
    pub(super) new: &'a dyn Image,
    pub(super) old: Option<Old<'a>>,
    pub(super) zeros: Arc<ZeroPages>,
    /// Whether the digests of segments are wanted.
    pub(super) digests: bool,
    /// Whether blocks of page digests are wanted.
    pub(super) blocks: bool,
}

/// Buffers that a thread keeps.
#[derive(Default)]
pub(super) struct Buffers {
    new: Vec<u8>,
    old: Vec<u8>,
}

impl Scan<'_> {
    /// Looks at a segment. With `pages`, only at these pages of it, where that is enough: the others are what the base has.
    /// With `hole`, the base is known to have zeros there.
    pub(super) fn segment(
        &self,
        number: u32,
        pages: Option<&[bool]>,
        hole: bool,
        buffers: &mut Buffers,
    ) -> Result<Scanned> {
        let len = segment_len(self.new.size(), number);
        let same_len = self.old.is_some_and(|old| segment_len(old.identity.size(), number) == len);
        let known = self.known(number);
        let pages = pages.filter(|_| known.is_some() && same_len);
        let new = bytes_of(&mut buffers.new, self.new, number, pages)?;
        let far = self.old.and_then(|old| old.image).is_some_and(|image| !image.is_near());
        let mut fresh = BTreeMap::new();
        let changed = match &known {
            Some(known) if far && same_len && !hole => {
                Some(self.changed(number, new, known.pages(), pages, &mut fresh))
            }
            _ => None,
        };
        // Zeros are nowhere, whatever was there before.
        let wanted: Option<Vec<bool>> = changed.as_ref().map(|changed| {
            let zero = |at: usize| is_zero(&new[at * PAGE..(at + 1) * PAGE]);
            changed.iter().enumerate().map(|(at, changed)| *changed && !zero(at)).collect()
        });
        let of_old = wanted.as_deref().or(pages);
        let old = match self.old.and_then(|old| old.image) {
            Some(_) if hole => {
                buffers.old.clear();
                buffers.old.resize(SEGMENT, 0);
                Some(&buffers.old[..])
            }
            Some(image) => Some(bytes_of(&mut buffers.old, image, number, of_old)?),
            None => None,
        };
        let wanted = changed.as_deref().or(pages);
        let by_digests = changed.is_some();
        let unproven = self.old.and_then(|old| old.image).is_some_and(|image| !image.is_proven());
        if let (true, None, Some(old)) = (unproven, wanted, old) {
            self.prove(number, old)?;
        }
        let prove = unproven && wanted.is_some();
        Segment { scan: self, number, len, same_len, bytes: new, old, known, fresh, by_digests, prove }.scan(wanted)
    }

    /// Makes sure that what was read of the base is its segment.
    fn prove(&self, number: u32, bytes: &[u8]) -> Result<()> {
        let Some(old) = self.old else { return Ok(()) };
        let len = segment_len(old.identity.size(), number);
        match old.identity.segments().as_slice().get(number as usize) {
            Some(expected) if segment_digest(&bytes[..len]) != *expected => {
                Err(damaged(format!("the image of the base, {}, is damaged in segment {number}", old.identity.id())))
            }
            _ => Ok(()),
        }
    }

    /// Which pages are not what the page digests of the base say; of those that are not among `pages`, none. The digests that
    /// this takes are put into `fresh`.
    fn changed(
        &self,
        number: u32,
        bytes: &[u8],
        known: &[SegmentDigest],
        pages: Option<&[bool]>,
        fresh: &mut BTreeMap<usize, SegmentDigest>,
    ) -> Vec<bool> {
        let size = self.new.size();
        let len = segment_len(size, number);
        let changed = |at: usize| {
            if pages.is_some_and(|pages| !pages[at]) {
                return false;
            }
            let page = &bytes[at * PAGE..((at + 1) * PAGE).min(len)];
            let zero = page.len() == PAGE && len > PAGE && is_zero(page);
            let digest = match zero {
                true => self.zeros.at(at),
                false => digest_at(size, number * SEGMENT_PAGES + at as u32, page),
            };
            let changed = known.get(at) != Some(&digest);
            if changed {
                fresh.insert(at, digest);
            }
            changed
        };
        (0..len.div_ceil(PAGE)).map(changed).collect()
    }

    /// The page digests that the base has for a segment, if they can be had. Those that are damaged, or cannot be read, are as
    /// good as none: nothing depends on them.
    fn known(&self, number: u32) -> Option<Known> {
        let digests = self.old?.digests?;
        digests.known(number).ok().filter(|_| digests.comparable(number, self.new.size()))
    }
}

/// The bytes of a segment, and zeros up to the length of a full one. With `pages`, only these are what they should be.
fn bytes_of<'b>(
    buffer: &'b mut Vec<u8>,
    image: &'b dyn Image,
    number: u32,
    pages: Option<&[bool]>,
) -> Result<&'b [u8]> {
    let start = usize::try_from(u64::from(number) * SEGMENT as u64).ok();
    let full = |bytes: &'b [u8]| start.and_then(|start| bytes.get(start..start.checked_add(SEGMENT)?));
    if let Some(bytes) = image.bytes().and_then(full) {
        return Ok(bytes);
    }
    fill(buffer, image, number, pages)?;
    Ok(buffer)
}

/// Reads a segment, or some of its pages, in steps. What the image does not have is zeros.
///
/// Its holes are read too: asking the file system for them costs more, where it looks at every page up to the next one.
fn fill(buffer: &mut Vec<u8>, image: &dyn Image, number: u32, pages: Option<&[bool]>) -> Result<()> {
    buffer.resize(SEGMENT, 0);
    let start = u64::from(number) * SEGMENT as u64;
    let len = segment_len(image.size(), number);
    if let Some(pages) = pages {
        let mut at = 0;
        while at * PAGE < len {
            let run = pages[at..].iter().take_while(|wanted| **wanted).count();
            let end = ((at + run) * PAGE).min(len);
            if run > 0 {
                image.read_at(&mut buffer[at * PAGE..end], start + (at * PAGE) as u64)?;
            }
            at += run.max(1);
        }
    } else {
        for step in (0..len).step_by(STEP) {
            let end = (step + STEP).min(len);
            image.read_at(&mut buffer[step..end], start + step as u64)?;
        }
    }
    buffer[len..].fill(0);
    Ok(())
}

/// A segment while it is looked at.
struct Segment<'s, 'a> {
    scan: &'s Scan<'a>,
    number: u32,
    len: usize,
    /// Whether the base has a segment of this length here.
    same_len: bool,
    bytes: &'s [u8],
    old: Option<&'s [u8]>,
    /// The page digests of the base.
    known: Option<Known>,
    /// Page digests of this segment that were computed on the way.
    fresh: BTreeMap<usize, SegmentDigest>,
    /// Whether pages of the base have yet to be proven, one by one.
    prove: bool,
    /// Whether the pages to be looked at are those that have changed, by their digests. Of the base, only what pages that are
    /// not zeros used to be was read.
    by_digests: bool,
}

impl Segment<'_, '_> {
    fn scan(mut self, wanted: Option<&[bool]>) -> Result<Scanned> {
        let first = self.number * SEGMENT_PAGES;
        let pages = self.len.div_ceil(PAGE);
        let mut scanned = Scanned { runs: Vec::new(), dirty: Vec::new(), digest: None, block: Vec::new() };
        if wanted.is_none() && (self.old.is_some_and(|old| old == self.bytes) || self.is_known()) {
            push(&mut scanned.runs, first, pages as u32, Class::Same);
        } else {
            for at in 0..pages {
                let class = match wanted.is_some_and(|wanted| !wanted[at]) {
                    true => Class::Same,
                    false => self.class(at, &mut scanned.dirty)?,
                };
                push(&mut scanned.runs, first + at as u32, 1, class);
            }
        }
        let unchanged = scanned.runs.iter().all(|run| run.class == Class::Same) && self.same_len;
        self.digests(unchanged, &mut scanned)?;
        Ok(scanned)
    }

    /// Returns whether the digest of the segment, which is all that is known of the base's, says that it is the same.
    fn is_known(&self) -> bool {
        let known = self.scan.old.filter(|_| self.same_len && self.old.is_none() && self.known.is_none());
        known.is_some_and(|old| {
            let digest = old.identity.segments().as_slice().get(self.number as usize);
            digest == Some(&segment_digest(&self.bytes[..self.len]))
        })
    }

    fn class(&mut self, at: usize, dirty: &mut Vec<Dirty>) -> Result<Class> {
        let bytes = &self.bytes[at * PAGE..(at + 1) * PAGE];
        if self.by_digests && is_zero(bytes) {
            return Ok(Class::Zero);
        }
        let old = self.old.map(|old| &old[at * PAGE..(at + 1) * PAGE]);
        if let Some(old) = old.filter(|old| *old == bytes) {
            if self.prove {
                self.check_old(at, old)?;
            }
            return Ok(Class::Same);
        }
        let zero = is_zero(bytes);
        if let (None, Some(known)) = (old, self.known.as_ref().and_then(|known| known.pages().get(at)).copied()) {
            let digest = self.digest(at);
            self.fresh.insert(at, digest);
            if digest == known {
                return Ok(Class::Same);
            }
        }
        if zero {
            return Ok(Class::Zero);
        }
        let mut found = Dirty { hash: content_hash(bytes), old: None };
        if let Some(old) = old.filter(|old| !is_zero(old)) {
            self.check_old(at, old)?;
            found.old = Some(content_hash(old));
        }
        dirty.push(found);
        Ok(Class::Dirty)
    }

    /// The digest of a page as it is now.
    fn digest(&self, at: usize) -> SegmentDigest {
        if let Some(digest) = self.fresh.get(&at) {
            return *digest;
        }
        let bytes = &self.bytes[at * PAGE..((at + 1) * PAGE).min(self.len)];
        if bytes.len() == PAGE && self.len > PAGE && is_zero(bytes) {
            return self.scan.zeros.at(at);
        }
        digest_at(self.scan.new.size(), self.number * SEGMENT_PAGES + at as u32, bytes)
    }

    /// A page of the base may become part of a prefix: another one in its place would make the pack useless.
    fn check_old(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let (Some(known), Some(old)) = (self.known.as_ref().and_then(|known| known.pages().get(at)), self.scan.old)
        else {
            return Ok(());
        };
        let page = self.number * SEGMENT_PAGES + at as u32;
        let len = super::decode::page_len(old.identity.size(), page);
        if digest_at(old.identity.size(), page, &bytes[..len]) == *known {
            return Ok(());
        }
        Err(damaged(format!("the image of the base, {}, is damaged in page {page}", old.identity.id())))
    }

    /// The digest of the segment, and its block.
    fn digests(&mut self, unchanged: bool, scanned: &mut Scanned) -> Result<()> {
        if !self.scan.digests {
            return Ok(());
        }
        let base = self.scan.old.and_then(|old| old.identity.segments().as_slice().get(self.number as usize)).copied();
        let pages = self.len.div_ceil(PAGE);
        if !self.scan.blocks && (unchanged || self.known.is_none()) {
            if !unchanged {
                let digest = segment_digest(&self.bytes[..self.len]);
                scanned.digest = Some(digest).filter(|digest| base != Some(*digest));
            }
            return Ok(());
        }
        let proven = unchanged && self.known.is_some();
        let known = match self.known.take() {
            Some(known) => self.updated(known, &scanned.runs),
            None => Known::new((0..pages).map(|at| self.digest(at)).collect()),
        };
        let Some(known) = known else { return Ok(()) };
        // Those that are kept were proven when they were read.
        if !proven {
            let digest = known.root();
            if unchanged && base != Some(digest) {
                return Err(damaged("the image of the base is damaged: it does not have the digests of its snapshot"));
            }
            scanned.digest = Some(digest).filter(|digest| base != Some(*digest));
        }
        if self.scan.blocks {
            scanned.block = block(known.pages(), self.len, &self.scan.zeros);
        }
        Ok(())
    }

    /// The page digests of the base, with those of what has changed in their place; `None` for a segment without bytes.
    fn updated(&self, mut known: Known, runs: &[ClassRun]) -> Option<Known> {
        let (first, pages) = (self.number * SEGMENT_PAGES, self.len.div_ceil(PAGE));
        let changed = runs.iter().filter(|run| run.class != Class::Same);
        let changed = changed.flat_map(|run| run.first - first..run.first - first + run.len).map(|at| at as usize);
        if self.same_len {
            known.exchange(changed.map(|at| (at, self.digest(at))));
            return Some(known);
        }
        let mut digests = known.pages().to_vec();
        digests.resize(pages, [0; 32]);
        changed.for_each(|at| digests[at] = self.digest(at));
        // A page at the end of either may have another length, and so another digest although it is padded to the same.
        let old = self.scan.old.map_or(0, |old| segment_len(old.identity.size(), self.number));
        for (at, digest) in digests.iter_mut().enumerate().skip(old.min(self.len) / PAGE) {
            *digest = self.digest(at);
        }
        Known::new(digests)
    }
}
