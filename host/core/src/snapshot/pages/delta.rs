//! Deltas: what of an image is not in its base.
//!
//! The image is read once to find what has changed, and what has changed is read again to be compressed: frames hold pages from
//! all over the image, in the order of the image, so that each can have the former selves of its pages as prefix.

use std::io::Write;
use std::ops::Range;

use super::assemble::{Assembly, too_many};
use super::chain::Chain;
use super::changes::{Changes, find};
use super::digests::{DigestWriter, PageDigests, ZeroPages};
use super::frame::{Draft, PageRun, Pages, push, read};
use super::frames::Coding;
use super::hash::Table;
use super::image::Image;
use super::image::check_size;
use super::map::Place;
use super::pool::{Pool, Shared};
use super::scan::{Class, Old, Scan};
use super::settings::{Encoded, Options, Sink};
use super::{MAX_DEPTH, MAX_SOURCES, PAGE, Profile};
use crate::snapshot::Identity;
use crate::types::{Error, Result};

/// Pages of a frame of a `compact` delta: 16 MiB.
const FRAME: u32 = 4096;

/// What a delta is made against.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// Its pack, with all sources.
    pub chain: &'a Chain,
    /// Its identity.
    pub identity: &'a Identity,
    /// Its bytes, where they are at hand. Those that are [proven](Image::is_proven) are not proven again: a damaged page that
    /// the new image has too would count as unchanged. Others need [`Self::digests`] to be of use as prefixes.
    pub image: Option<&'a dyn Image>,
    /// Its page digests, if there are any. Without them, changed segments are hashed whole; without `image` as well, all pages
    /// of a changed segment are stored.
    pub digests: Option<&'a PageDigests>,
}

/// Writes a delta of an image against a base into `out`, and the page digests of the image into `digests` if these are wanted.
///
/// With `changed`, ranges of bytes in which all changes are known to lie, nothing else is read. Segments of which the base has no
/// page digests are then read whole. A change outside of these ranges is not seen: the pack is one of an image without it.
///
/// # Errors
/// Errors of reading and of `out`; `unsupported` for an image of 16 TiB and more, if the pack would need more than 255 sources, and if a
/// reader would refuse it ([`Options::limits`]);
/// `conflict` if the image changed meanwhile; `corrupt` if the base's image is not what its digests say; `invalid` for parts of
/// different bases.
pub fn encode_delta(
    new: &dyn Image,
    base: &Base<'_>,
    changed: Option<&[Range<u64>]>,
    options: &Options,
    digests: Option<&mut dyn Write>,
    out: Sink<'_>,
) -> Result<Encoded> {
    check_size(new.size())?;
    check_base(base)?;
    let scan = Scan {
        new,
        old: Some(Old { identity: base.identity, image: base.image, digests: base.digests }),
        zeros: ZeroPages::new(),
        digests: true,
        blocks: digests.is_some(),
    };
    let mut sidecar = digests.map(|digests| DigestWriter::new(digests, new.size())).transpose()?;
    let shared = Shared::new();
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, &shared, options.threads())?;
        let changes = find(&scan, &pool, changed, options.threads() + 2, &mut sidecar)?;
        let frame_pages = options.frame_pages(FRAME);
        let delta = Delta {
            new,
            base: *base,
            assembly: Assembly::start(out, *options, frame_pages)?,
            options: *options,
            frame_pages,
            moved: Table::new(changes.hashes.len() as u64),
            repeated: Table::new(changes.hashes.len() as u64),
            next: 0,
            frame: Frame::default(),
        };
        delta.run(&pool, changes, sidecar)
    })
}

fn check_base(base: &Base<'_>) -> Result<()> {
    let (id, size) = (base.identity.id(), base.identity.size());
    let pack = base.chain.pack();
    let image = base.image.is_none_or(|image| image.size() == size);
    if pack.snapshot() != id || !image || base.digests.is_some_and(|digests| digests.identity().id() != id) {
        return Err(Error::invalid(format!("the parts of the base do not all belong to {id}")));
    }
    // While it is made, the base itself is one more.
    if pack.sources().len() >= MAX_SOURCES { Err(too_many()) } else { Ok(()) }
}

/// The next frame.
#[derive(Default)]
struct Frame {
    pages: u32,
    homes: Vec<PageRun>,
    hashes: Vec<Option<u64>>,
    prefix: Vec<PageRun>,
    places: Vec<(u32, Place)>,
}

struct Delta<'env, 'o> {
    new: &'env dyn Image,
    base: Base<'env>,
    assembly: Assembly<'o>,
    options: Options,
    frame_pages: u32,
    /// Pages of the base.
    moved: Table,
    /// Pages of the image that are stored in this pack.
    repeated: Table,
    next: u32,
    frame: Frame,
}

impl<'env> Delta<'env, '_> {
    fn run<'scope>(
        mut self,
        pool: &Pool<'scope, 'env>,
        changes: Changes,
        sidecar: Option<DigestWriter<'_>>,
    ) -> Result<Encoded>
    where
        'env: 'scope,
    {
        self.index(&changes);
        let mut hashes = changes.hashes.iter();
        for run in &changes.runs {
            match run.class {
                Class::Zero => {
                    self.assembly.map.push(run.len, Place::Nowhere);
                    self.assembly.counts.zero += u64::from(run.len);
                }
                Class::Same => self.same(pool, run.first, run.len)?,
                Class::Dirty => {
                    for page in run.first..run.first + run.len {
                        self.page(pool, page, hashes.next().map(|dirty| dirty.hash))?;
                    }
                }
            }
        }
        self.send(pool)?;
        let base = Some((self.base.chain, self.base.identity));
        self.assembly.finish(self.new.size(), changes.digests, base, sidecar)
    }

    /// Remembers what changed pages used to be: content moves between pages that change together.
    fn index(&mut self, changes: &Changes) {
        let mut hashes = changes.hashes.iter();
        for run in changes.runs.iter().filter(|run| run.class == Class::Dirty) {
            for (page, dirty) in (run.first..run.first + run.len).zip(&mut hashes) {
                if let Some(old) = dirty.old {
                    self.moved.put(old, page);
                }
            }
        }
    }

    /// Pages that are as in the base: where that has them.
    fn same<'scope>(&mut self, pool: &Pool<'scope, 'env>, first: u32, len: u32) -> Result<()>
    where
        'env: 'scope,
    {
        let mut end = first;
        let chain = self.base.chain;
        for run in chain.pack().map().parts(first, len) {
            end = run.first + run.len;
            if self.is_allowed(run.place) {
                self.assembly.map.push(run.len, above(run.place));
                self.assembly.counts.unchanged += u64::from(run.len);
                continue;
            }
            for at in 0..run.len {
                if self.is_allowed(run.place.plus(at)) {
                    self.assembly.map.push(1, above(run.place.plus(at)));
                    self.assembly.counts.unchanged += 1;
                } else {
                    self.store(pool, run.first + at, None)?;
                }
            }
        }
        // Zeros past the end of the base.
        self.assembly.map.push(first + len - end, Place::Nowhere);
        self.assembly.counts.zero += u64::from(first + len - end);
        Ok(())
    }

    /// Returns whether a page of this pack may lie in this place of the base: one of a `random` pack not where it would need others.
    fn is_allowed(&self, place: Place) -> bool {
        let Place::Stored { source, page } = place else { return true };
        if self.options.profile == Profile::Compact {
            return true;
        }
        let Some(pack) = self.base.chain.packs().get(usize::from(source)) else { return false };
        let frame = pack.frames().of_page(page).and_then(|frame| pack.frames().as_slice().get(frame));
        pack.depth() == 0 || frame.is_some_and(|frame| frame.coding != Coding::Prefixed)
    }

    /// A page that has changed.
    fn page<'scope>(&mut self, pool: &Pool<'scope, 'env>, page: u32, hash: Option<u64>) -> Result<()>
    where
        'env: 'scope,
    {
        if let Some(hash) = hash {
            if let (Some(old), Some(image)) = (self.moved.get(hash), self.base.image) {
                let place = self.base.chain.pack().map().at(old);
                let allowed = place != Place::Nowhere && self.is_allowed(place);
                if allowed && read(image, &[(old, 1)])? == read(self.new, &[(page, 1)])? {
                    self.assembly.map.push(1, above(place));
                    self.assembly.counts.moved += 1;
                    return Ok(());
                }
            }
            if let Some(earlier) = self.repeated.get(hash)
                && read(self.new, &[(earlier, 1), (page, 1)])?
                    .as_chunks::<PAGE>()
                    .0
                    .windows(2)
                    .all(|two| two[0] == two[1])
            {
                let place = self.assembly.map.at(earlier);
                self.assembly.map.push(1, place);
                self.assembly.counts.repeated += 1;
                return Ok(());
            }
            self.repeated.put(hash, page);
        }
        self.store(pool, page, hash)
    }

    /// Stores a page in this pack.
    fn store<'scope>(&mut self, pool: &Pool<'scope, 'env>, page: u32, hash: Option<u64>) -> Result<()>
    where
        'env: 'scope,
    {
        let place = Place::Stored { source: 0, page: self.next };
        self.next += 1;
        self.assembly.map.push(1, place);
        self.assembly.counts.stored += 1;
        let old = self.prefix(page);
        let frame = &mut self.frame;
        push(&mut frame.homes, page, 1);
        frame.hashes.push(hash);
        if old != Place::Nowhere {
            push(&mut frame.prefix, page, 1);
        }
        match frame.places.last_mut() {
            Some((len, place)) if place.plus(*len) == above(old) => *len += 1,
            _ => frame.places.push((1, above(old))),
        }
        frame.pages += 1;
        if frame.pages == self.frame_pages { self.send(pool) } else { Ok(()) }
    }

    /// Where the base has the page that goes into the prefix for this one.
    fn prefix(&self, page: u32) -> Place {
        let packs = self.base.chain.packs();
        // After the deepest pack, prefixes begin anew with packs that have none.
        let depth = packs[0].depth();
        let most = if depth >= MAX_DEPTH { 0 } else { depth };
        match self.base.chain.pack().map().at(page) {
            Place::Stored { source, page }
                if self.options.profile == Profile::Compact
                    && self.base.image.is_some()
                    && packs[usize::from(source)].depth() <= most =>
            {
                Place::Stored { source, page }
            }
            _ => Place::Nowhere,
        }
    }

    fn send<'scope>(&mut self, pool: &Pool<'scope, 'env>) -> Result<()>
    where
        'env: 'scope,
    {
        let frame = std::mem::take(&mut self.frame);
        if frame.pages == 0 {
            return Ok(());
        }
        let draft = Draft {
            pages: Pages::Read(self.new, frame.hashes),
            homes: frame.homes,
            digests: self.assembly.page_digests_of(self.new.size()),
            prefix: self.base.image.map(|image| (image, frame.prefix)),
            level: self.options.level,
        };
        self.assembly.send(pool, draft, frame.places)
    }
}

/// A place of the base, as a place of a pack that has it as source 1.
fn above(place: Place) -> Place {
    match place {
        Place::Nowhere => Place::Nowhere,
        // The base has fewer than the most sources.
        Place::Stored { source, page } => Place::Stored { source: source.saturating_add(1), page },
    }
}
