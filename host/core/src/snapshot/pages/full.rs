//! Full packs: an image alone, read once.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use super::PAGE;
use super::assemble::Assembly;
use super::digests::{DigestWriter, ZeroPages};
use super::frame::{Draft, PageRun, Pages, push, read};
use super::hash::Table;
use super::image::{Holes, Image, check_size};
use super::map::Place;
use super::pack::{SEGMENT_PAGES, segments_of};
use super::pool::{Pending, Pool, Shared};
use super::scan::{Class, Scan, Scanned};
use super::settings::{Encoded, Options, Sink};
use crate::snapshot::{SEGMENT, ZERO_SEGMENT};
use crate::types::Result;

/// Pages of a frame of a full `compact` pack: 8 MiB.
const FRAME: u32 = 2048;

/// Writes a full pack of an image into `out`, and its page digests into `digests` if these are wanted. Memory does not depend
/// on the size of the image, but for 32 bytes for each of its segments and what the map needs.
///
/// Every byte is read once, holes are not read, and pages that seem to equal earlier ones are read again to make sure.
///
/// # Errors
/// Errors of reading and of `out`; `unsupported` for an image of 16 TiB and more; `conflict` if it became shorter meanwhile.
pub fn encode_full(
    new: &dyn Image,
    options: &Options,
    digests: Option<&mut dyn Write>,
    out: Sink<'_>,
) -> Result<Encoded> {
    check_size(new.size())?;
    let scan = Scan { new, old: None, zeros: ZeroPages::new(), digests: true, blocks: digests.is_some(), bytes: true };
    let sidecar = digests.map(|digests| DigestWriter::new(digests, new.size())).transpose()?;
    let frame_pages = options.frame_pages(FRAME);
    let full = Full {
        scan: &scan,
        assembly: Assembly::start(out, *options, frame_pages)?,
        sidecar,
        table: Table::new(new.size().div_ceil(PAGE as u64)),
        frame_pages,
        level: options.level,
        next: 0,
        sent: 0,
        draft: Vec::new(),
        homes: Vec::new(),
    };
    let shared = Shared::new();
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, &shared, options.threads())?;
        full.run(&pool, options.threads() + 2)
    })
}

struct Full<'env, 'o> {
    scan: &'env Scan<'env>,
    assembly: Assembly<'o>,
    sidecar: Option<DigestWriter<'o>>,
    table: Table,
    frame_pages: u32,
    level: i32,
    /// The number of the next stored page.
    next: u32,
    /// The number of stored pages in the frames so far.
    sent: u32,
    draft: Vec<(Arc<Vec<u8>>, std::ops::Range<usize>)>,
    homes: Vec<PageRun>,
}

impl<'env> Full<'env, '_> {
    fn run<'scope>(mut self, pool: &Pool<'scope, 'env>, most: usize) -> Result<Encoded>
    where
        'env: 'scope,
    {
        let (scan, size) = (self.scan, self.scan.new.size());
        let mut holes = Holes::new(scan.new);
        let mut ahead: VecDeque<Option<Pending<Scanned>>> = VecDeque::new();
        let (mut digests, segments) = (Vec::new(), segments_of(size));
        let mut given = 0;
        for number in 0..segments {
            while given < segments && ahead.len() < most {
                let start = u64::from(given) * SEGMENT as u64;
                let hole = start + SEGMENT as u64 <= size && holes.covers(start, start + SEGMENT as u64)?;
                let number = given;
                ahead.push_back(
                    (!hole).then(|| pool.give(move |worker| scan.segment(number, None, false, &mut worker.buffers))),
                );
                given += 1;
            }
            match ahead.pop_front().flatten() {
                None => {
                    digests.push(ZERO_SEGMENT);
                    self.assembly.map.push(SEGMENT_PAGES, Place::Nowhere);
                    self.assembly.counts.zero += u64::from(SEGMENT_PAGES);
                    self.sidecar.as_mut().map_or(Ok(()), |sidecar| sidecar.push(&[]))?;
                }
                Some(scanned) => {
                    let scanned = scanned.take()?;
                    self.sidecar.as_mut().map_or(Ok(()), |sidecar| sidecar.push(&scanned.block))?;
                    digests.extend(scanned.digest);
                    self.segment(pool, number * SEGMENT_PAGES, &scanned)?;
                }
            }
        }
        self.send(pool)?;
        self.assembly.finish(size, digests, None, self.sidecar)
    }

    fn segment<'scope>(&mut self, pool: &Pool<'scope, 'env>, start: u32, scanned: &Scanned) -> Result<()>
    where
        'env: 'scope,
    {
        let Some(bytes) = &scanned.bytes else { return Ok(()) };
        let mut dirty = scanned.dirty.iter();
        for run in &scanned.runs {
            if run.class == Class::Zero {
                self.assembly.map.push(run.len, Place::Nowhere);
                self.assembly.counts.zero += u64::from(run.len);
                continue;
            }
            for (page, found) in (run.first..run.first + run.len).zip(&mut dirty) {
                let at = (page - start) as usize * PAGE;
                let place = match self.earlier(found.hash, &bytes[at..at + PAGE])? {
                    Some(place) => {
                        self.assembly.counts.repeated += 1;
                        place
                    }
                    None => {
                        self.table.put(found.hash, page);
                        self.keep(page, bytes, at);
                        Place::Stored { source: 0, page: self.next - 1 }
                    }
                };
                self.assembly.map.push(1, place);
                if self.next == self.sent + self.frame_pages {
                    self.send(pool)?;
                }
            }
        }
        Ok(())
    }

    /// Where a page with this content lies already.
    fn earlier(&self, hash: u64, bytes: &[u8]) -> Result<Option<Place>> {
        let Some(page) = self.table.get(hash) else { return Ok(None) };
        let place = self.assembly.map.at(page);
        let same = place != Place::Nowhere && read(self.scan.new, &[(page, 1)])? == bytes;
        Ok(same.then_some(place))
    }

    /// Adds a page to the next frame.
    fn keep(&mut self, page: u32, bytes: &Arc<Vec<u8>>, at: usize) {
        match self.draft.last_mut() {
            Some((last, range)) if Arc::ptr_eq(last, bytes) && range.end == at => range.end += PAGE,
            _ => self.draft.push((bytes.clone(), at..at + PAGE)),
        }
        push(&mut self.homes, page, 1);
        self.next += 1;
        self.assembly.counts.stored += 1;
    }

    /// Has the pages that were kept compressed.
    fn send<'scope>(&mut self, pool: &Pool<'scope, 'env>) -> Result<()>
    where
        'env: 'scope,
    {
        if self.draft.is_empty() {
            return Ok(());
        }
        self.sent = self.next;
        let draft = Draft {
            pages: Pages::Held(std::mem::take(&mut self.draft)),
            homes: std::mem::take(&mut self.homes),
            digests: self.assembly.page_digests_of(self.scan.new.size()),
            prefix: None,
            level: self.level,
        };
        self.assembly.send(pool, draft, Vec::new())
    }
}
