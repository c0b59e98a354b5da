//! Full packs: an image alone, read once from its first byte to its last.

use std::collections::VecDeque;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::assemble::{Assembly, in_flight};
use super::digests::{DigestWriter, ZeroPages};
use super::frame::{Draft, PageRun, Pages, push, read};
use super::hash::{Table, content_hash};
use super::image::{Holes, Image, check_size};
use super::map::Place;
use super::pack::SEGMENT_PAGES;
use super::pool::{Pending, Pool, Shared};
use super::settings::{Encoded, Options, Sink};
use super::{MAX_PAGES, PAGE};
use crate::snapshot::segment::{is_zero, page_digest, segment_digest, segment_from_pages};
use crate::snapshot::{SEGMENT, SegmentDigest, ZERO_SEGMENT};
use crate::types::{Error, Result};

/// Pages of a frame of a full `compact` pack: 8 MiB, so that what repeats within the window of `zstd -3` is found.
const FRAME: u32 = 2048;

/// Gives the next segment of an image: 2 MiB, or fewer for the last one; nothing at its end.
pub type NextSegment<'a> = &'a mut dyn FnMut() -> Result<Option<Bytes>>;

/// What a compressor takes, about.
const COMPRESSOR: usize = 8 << 20;

/// Returns about how many bytes an encoder of a full pack holds, what it has given to its sink apart; and the most bytes that it
/// gives at once.
pub fn full_memory(options: &Options) -> (usize, usize) {
    let (threads, pages) = (options.threads(), options.frame_pages(FRAME));
    let frame = pages as usize * PAGE;
    // Segments that are looked at, each with a copy at the most; and the next frame.
    let input = (threads + 2) * 2 * SEGMENT + frame;
    (in_flight(pages, threads) + input + threads * COMPRESSOR, frame)
}

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
    encode_full_with(new, options, digests, out, &|_| ())
}

/// As [`encode_full`]; `passed` is told how many bytes were read.
///
/// # Errors
/// As [`encode_full`].
pub fn encode_full_with(
    new: &dyn Image,
    options: &Options,
    digests: Option<&mut dyn Write>,
    out: Sink<'_>,
    passed: &dyn Fn(u64),
) -> Result<Encoded> {
    check_size(new.size())?;
    encode(Input::Image { image: new, holes: Holes::new(new), at: 0 }, options, digests, out, passed)
}

/// As [`encode_full`], of an image that comes once and whose size need not be known. Equal pages are stored once only as far as
/// compression finds them.
///
/// The header of the page digests is not known before the end: what is written first is a blank, in whose place [`Encoded::digests_header`]
/// belongs.
///
/// # Errors
/// As [`encode_full`], and those of `next`; `invalid` if a segment that is not the last one is too short.
pub fn encode_segments(
    next: NextSegment<'_>,
    options: &Options,
    digests: Option<&mut dyn Write>,
    out: Sink<'_>,
) -> Result<Encoded> {
    encode(Input::Segments { next, over: false }, options, digests, out, &|_| ())
}

/// Where segments come from.
enum Input<'env, 'n> {
    Image { image: &'env dyn Image, holes: Holes<'env>, at: u64 },
    Segments { next: NextSegment<'n>, over: bool },
}

/// A segment to be looked at.
enum Given {
    /// A full one of zeros.
    Hole,
    Read {
        start: u64,
        len: usize,
    },
    Bytes(Bytes),
}

impl Input<'_, '_> {
    fn next(&mut self) -> Result<Option<Given>> {
        match self {
            Self::Image { image, holes, at } => {
                let (start, len) = (*at, image.size().saturating_sub(*at).min(SEGMENT as u64));
                if len == 0 {
                    return Ok(None);
                }
                *at += len;
                let hole = len == SEGMENT as u64 && holes.covers(start, start + len)?;
                Ok(Some(if hole { Given::Hole } else { Given::Read { start, len: len as usize } }))
            }
            Self::Segments { next, over } => {
                let Some(bytes) = next()?.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
                if *over || bytes.len() > SEGMENT {
                    return Err(Error::invalid("a segment of the image has another length than it should"));
                }
                *over = bytes.len() < SEGMENT;
                Ok(Some(Given::Bytes(bytes)))
            }
        }
    }
}

/// A segment that was looked at.
struct Looked {
    digest: SegmentDigest,
    /// Its block of page digests, if it was asked for.
    block: Vec<u8>,
    /// Its bytes up to whole pages; none of a full one of zeros.
    bytes: Bytes,
    len: usize,
    /// The hashes of its pages; none for zeros.
    pages: Vec<Option<u64>>,
}

impl Looked {
    fn zeros() -> Self {
        let pages = vec![None; SEGMENT_PAGES as usize];
        Self { digest: ZERO_SEGMENT, block: Vec::new(), bytes: Bytes::new(), len: SEGMENT, pages }
    }

    fn new(bytes: Bytes, blocks: bool, zeros: &ZeroPages) -> Result<Self> {
        let len = bytes.len();
        let bytes = match len.is_multiple_of(PAGE) {
            true => bytes,
            false => {
                let mut padded = bytes.to_vec();
                padded.resize(len.next_multiple_of(PAGE), 0);
                padded.into()
            }
        };
        let pages: Vec<Option<u64>> =
            bytes.chunks(PAGE).map(|page| (!is_zero(page)).then(|| content_hash(page))).collect();
        if len == SEGMENT && pages.iter().all(Option::is_none) {
            return Ok(Self::zeros());
        }
        if !blocks {
            let digest = segment_digest(&bytes[..len]);
            return Ok(Self { digest, block: Vec::new(), bytes, len, pages });
        }
        let digest = |(at, hash): (usize, &Option<u64>)| match hash {
            None if (at + 1) * PAGE <= len && len > PAGE => zeros.at(at),
            _ => page_digest(&bytes[at * PAGE..((at + 1) * PAGE).min(len)], at * PAGE, len),
        };
        let digests: Vec<SegmentDigest> = pages.iter().enumerate().map(digest).collect();
        let block = super::digests::block(&digests, len, zeros);
        Ok(Self { digest: segment_from_pages(&digests, len)?, block, bytes, len, pages })
    }
}

fn encode(
    input: Input<'_, '_>,
    options: &Options,
    digests: Option<&mut dyn Write>,
    out: Sink<'_>,
    passed: &dyn Fn(u64),
) -> Result<Encoded> {
    let (image, size) = match &input {
        Input::Image { image, .. } => (Some(*image), Some(image.size())),
        Input::Segments { .. } => (None, None),
    };
    let blocks = digests.is_some();
    let sidecar = digests.map(|digests| DigestWriter::new(digests, size.unwrap_or_default())).transpose()?;
    let frame_pages = options.frame_pages(FRAME);
    let full = Full {
        assembly: Assembly::start(out, *options, frame_pages)?,
        sidecar,
        image,
        table: size.map(|size| Table::new(size.div_ceil(PAGE as u64))),
        frame_pages,
        level: options.level,
        next: 0,
        sent: 0,
        draft: Vec::new(),
        homes: Vec::new(),
        size: 0,
    };
    let (shared, zeros) = (Shared::new(), ZeroPages::new());
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, &shared, options.threads())?;
        full.run(&pool, input, options.threads() + 2, (blocks, zeros), passed)
    })
}

struct Full<'env, 'o> {
    assembly: Assembly<'o>,
    sidecar: Option<DigestWriter<'o>>,
    /// The image, if it can be read again.
    image: Option<&'env dyn Image>,
    /// Pages that may be equal to later ones, if these can be compared.
    table: Option<Table>,
    frame_pages: u32,
    level: i32,
    /// The number of the next stored page.
    next: u32,
    /// The number of stored pages in the frames so far.
    sent: u32,
    /// Segments, and what of them is in the next frame.
    draft: Vec<(Bytes, Range<usize>)>,
    homes: Vec<PageRun>,
    /// The bytes so far.
    size: u64,
}

impl<'env> Full<'env, '_> {
    fn run<'scope>(
        mut self,
        pool: &Pool<'scope, 'env>,
        mut input: Input<'env, '_>,
        most: usize,
        (blocks, zeros): (bool, Arc<ZeroPages>),
        passed: &dyn Fn(u64),
    ) -> Result<Encoded>
    where
        'env: 'scope,
    {
        let mut ahead: VecDeque<Option<Pending<Looked>>> = VecDeque::new();
        let (mut digests, mut over) = (Vec::new(), false);
        loop {
            while !over && ahead.len() < most {
                let (image, zeros) = (self.image, zeros.clone());
                match input.next()? {
                    None => over = true,
                    Some(Given::Hole) => ahead.push_back(None),
                    Some(Given::Bytes(bytes)) => {
                        ahead.push_back(Some(pool.give(move |_| Looked::new(bytes, blocks, &zeros))));
                    }
                    Some(Given::Read { start, len }) => ahead.push_back(Some(pool.give(move |_| {
                        let mut bytes = vec![0; len];
                        image.map_or(Ok(()), |image| image.read_at(&mut bytes, start))?;
                        Looked::new(bytes.into(), blocks, &zeros)
                    }))),
                }
            }
            let Some(next) = ahead.pop_front() else { break };
            let looked = next.map_or_else(|| Ok(Looked::zeros()), Pending::take)?;
            self.sidecar.as_mut().map_or(Ok(()), |sidecar| sidecar.push(&looked.block))?;
            digests.push(looked.digest);
            self.segment(pool, &looked)?;
            passed(self.size);
        }
        self.send(pool)?;
        let size = self.size;
        self.assembly.finish(size, digests, None, self.sidecar)
    }

    fn segment<'scope>(&mut self, pool: &Pool<'scope, 'env>, looked: &Looked) -> Result<()>
    where
        'env: 'scope,
    {
        let first = self.size / PAGE as u64;
        if first + looked.pages.len() as u64 > u64::from(MAX_PAGES) {
            check_size(u64::MAX)?;
        }
        // Within the bound.
        let first = first as u32;
        self.size += looked.len as u64;
        for ((page, hash), at) in (first..).zip(&looked.pages).zip((0..).step_by(PAGE)) {
            let Some(hash) = *hash else {
                self.assembly.map.push(1, Place::Nowhere);
                self.assembly.counts.zero += 1;
                continue;
            };
            let place = match self.earlier(hash, &looked.bytes[at..at + PAGE])? {
                Some(place) => {
                    self.assembly.counts.repeated += 1;
                    place
                }
                None => {
                    if let Some(table) = &mut self.table {
                        table.put(hash, page);
                    }
                    self.keep(page, &looked.bytes, at);
                    Place::Stored { source: 0, page: self.next - 1 }
                }
            };
            self.assembly.map.push(1, place);
            if self.next == self.sent + self.frame_pages {
                self.send(pool)?;
            }
        }
        Ok(())
    }

    /// Where a page with this content lies already.
    fn earlier(&self, hash: u64, bytes: &[u8]) -> Result<Option<Place>> {
        let (Some(table), Some(image)) = (&self.table, self.image) else { return Ok(None) };
        let Some(page) = table.get(hash) else { return Ok(None) };
        let place = self.assembly.map.at(page);
        let same = place != Place::Nowhere && read(image, &[(page, 1)])? == bytes;
        Ok(same.then_some(place))
    }

    /// Adds a page to the next frame.
    fn keep(&mut self, page: u32, bytes: &Bytes, at: usize) {
        match self.draft.last_mut() {
            Some((last, range)) if last.as_ptr() == bytes.as_ptr() && range.end == at => range.end += PAGE,
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
            pages: Pages::Held(self.draft.drain(..).map(|(bytes, range)| bytes.slice(range)).collect()),
            homes: std::mem::take(&mut self.homes),
            // As far as it is known: the pages so far are all of them, or those of full segments.
            digests: self.assembly.page_digests_of(self.size),
            prefix: None,
            level: self.level,
        };
        self.assembly.send(pool, draft, Vec::new())
    }
}
