//! A pack while it is written: frames go out in order as they are ready, and the metadata grows.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::chain::Chain;
use super::digests::DigestWriter;

use super::frame::{Draft, StoredFrame};
use super::frames::{Coding, Frames};
use super::layout::header;
use super::limits::Limits;
use super::map::{Map, Place};
use super::pack::{Contents, Opened, Pack, PackSource, seal};
use super::pool::{Pending, Pool};
use super::settings::{Counts, Encoded, Options, Sink};
use super::{MAX_SOURCES, PAGE, Profile};
use crate::snapshot::identity::identity_of;
use crate::snapshot::{Identity, SegmentDigest};
use crate::types::{Error, Result};

/// Bytes that frames may hold while they are compressed: pages, their prefix or where they come from, and output.
const IN_FLIGHT: usize = 144 << 20;

/// The most frames of so many pages that are compressed at once.
fn most_in_flight(frame_pages: u32, threads: usize) -> usize {
    (IN_FLIGHT / (3 * frame_pages as usize * PAGE)).clamp(1, threads + 1)
}

/// The bytes that these take.
pub(super) fn in_flight(frame_pages: u32, threads: usize) -> usize {
    most_in_flight(frame_pages, threads) * 3 * frame_pages as usize * PAGE
}

/// A frame that is being compressed, and where the prefix pages of its pages lie.
struct Sent {
    frame: Pending<StoredFrame>,
    prefix: Vec<(u32, Place)>,
}

/// What is known of a pack so far.
pub(super) struct Assembly<'o> {
    out: Sink<'o>,
    options: Options,
    most: usize,
    sent: VecDeque<Sent>,
    frames: Frames,
    prefixes: Map,
    /// The map, in which the base is source 1, and each of its sources one more than there.
    pub(super) map: Map,
    pub(super) counts: Counts,
}

impl<'o> Assembly<'o> {
    /// Writes the header. Frames have at most so many pages.
    pub(super) fn start(out: Sink<'o>, options: Options, frame_pages: u32) -> Result<Self> {
        out(Bytes::copy_from_slice(&header(options.profile)))?;
        let most = most_in_flight(frame_pages, options.threads());
        let (frames, prefixes, map) = (Frames::default(), Map::default(), Map::default());
        Ok(Self { out, options, most, sent: VecDeque::new(), frames, prefixes, map, counts: Counts::default() })
    }

    /// The size of the snapshot, if frames begin with page digests.
    pub(super) fn page_digests_of(&self, size: u64) -> Option<u64> {
        (self.options.profile == Profile::Random).then_some(size)
    }

    /// Has a frame compressed; its pages come after those of all frames before it.
    pub(super) fn send<'scope, 'env: 'scope>(
        &mut self,
        pool: &Pool<'scope, 'env>,
        draft: Draft<'env>,
        prefix: Vec<(u32, Place)>,
    ) -> Result<()> {
        self.check_runs()?;
        while self.sent.len() >= self.most {
            self.take()?;
        }
        self.sent.push_back(Sent { frame: pool.give(move |worker| draft.store(worker)), prefix });
        Ok(())
    }

    /// Writes the oldest frame that was sent.
    fn take(&mut self) -> Result<()> {
        let Some(sent) = self.sent.pop_front() else { return Ok(()) };
        let frame = sent.frame.take()?;
        self.frames.push(frame.pages, frame.bytes.len() as u32, frame.coding, frame.digest);
        if frame.coding == Coding::Prefixed {
            sent.prefix.into_iter().for_each(|(len, place)| self.prefixes.push(len, place));
        }
        (self.out)(frame.bytes)
    }

    /// Writes what is left, and gives the pack. `digests` are those of all segments.
    pub(super) fn finish(
        mut self,
        size: u64,
        digests: Vec<SegmentDigest>,
        base: Option<(&Chain, &Identity)>,
        sidecar: Option<DigestWriter<'_>>,
    ) -> Result<Encoded> {
        while !self.sent.is_empty() {
            self.take()?;
        }
        let identity = identity_of(size, digests);
        let digests_header = sidecar.map(|sidecar| sidecar.finish(identity.id(), size)).transpose()?;
        let (sources, numbers) = match base {
            Some((chain, _)) => used(chain, &self.map, &self.prefixes)?,
            None => (Vec::new(), [0; 257]),
        };
        let listed = listed(&identity, &self.map, base.map(|(_, identity)| identity));
        let contents = Contents {
            size,
            snapshot: identity.id(),
            profile: self.options.profile,
            sources,
            frames: self.frames,
            map: self.map.renumbered(|source| numbers[usize::from(source)]),
            prefixes: self.prefixes.renumbered(|source| numbers[usize::from(source)]),
            listed,
        };
        let tail = Bytes::from(seal(&contents)?);
        let object = contents.frames.end() + tail.len() as u64;
        // Read back, so that nothing is stored that could not be.
        let pack = match Pack::open(&tail, object, None, self.options.limits)? {
            Opened::Pack(pack) => pack,
            Opened::Longer { .. } => return Err(Error::other("the metadata of a pack is longer than itself")),
        };
        check_chain(&pack, base.as_ref().map(|(chain, _)| *chain), self.options.limits)?;
        (self.out)(tail)?;
        Ok(Encoded { pack, identity, counts: self.counts, digests_header })
    }
}

/// Makes sure that a reader takes the pack together with its sources.
fn check_chain(pack: &Arc<Pack>, base: Option<&Chain>, limits: Limits) -> Result<()> {
    let packs = base.map_or(&[][..], Chain::packs);
    let of = |source: &PackSource| packs.iter().find(|other| other.id() == source.id).cloned();
    let sources: Vec<Arc<Pack>> = pack.sources().iter().filter_map(of).collect();
    Chain::within(pack.clone(), sources, limits).map(drop)
}

impl Assembly<'_> {
    /// Ends what cannot become a pack before it takes memory: each run has two bytes of columns or more.
    fn check_runs(&self) -> Result<()> {
        let runs = self.map.runs().len() + self.prefixes.runs().len();
        let Limits { metadata, items, .. } = self.options.limits;
        match runs as u64 > u64::from(items.min(metadata / 2)) {
            true => Err(Error::unsupported("the image is too fragmented for one pack")),
            false => Ok(()),
        }
    }
}

/// The segments that a pack lists: those that are neither nowhere nor as in the base.
fn listed(identity: &Identity, map: &Map, base: Option<&Identity>) -> Vec<(u32, SegmentDigest)> {
    let old = base.map_or(&[][..], |base| base.segments().as_slice());
    let digests = identity.segments().as_slice().iter().copied();
    let listed = |(number, digest): &(u32, SegmentDigest)| {
        old.get(*number as usize) != Some(digest) && !super::pack::is_nowhere(map, identity.size(), *number)
    };
    (0..).zip(digests).filter(listed).collect()
}

/// The sources that a pack needs, and the number of each in place of the one that it had during assembly.
fn used(base: &Chain, map: &Map, prefixes: &Map) -> Result<(Vec<PackSource>, [u8; 257])> {
    let packs = base.packs();
    let mut wanted = [false; 257];
    wanted[1] = true;
    for run in map.runs().iter().chain(prefixes.runs()) {
        if let Place::Stored { source, .. } = run.place {
            wanted[usize::from(source)] = true;
        }
    }
    // What their prefixes need, and so on: the list of the base has all of it.
    let mut next: Vec<usize> = (1..=packs.len()).filter(|number| wanted[*number]).collect();
    while let Some(number) = next.pop() {
        let pack = &packs[number - 1];
        for run in pack.prefixes().runs() {
            let Place::Stored { source, .. } = run.place else { continue };
            let id = pack.sources()[usize::from(source) - 1].id;
            if let Some(at) = packs.iter().position(|other| other.id() == id)
                && !std::mem::replace(&mut wanted[at + 1], true)
            {
                next.push(at + 1);
            }
        }
    }
    let (mut sources, mut numbers) = (Vec::new(), [0; 257]);
    for (pack, number) in packs.iter().zip(1..).filter(|(_, number)| wanted[*number]) {
        sources.push(PackSource {
            id: pack.id(),
            snapshot: pack.snapshot(),
            pages: pack.frames().pages(),
            depth: pack.depth(),
        });
        numbers[number] = u8::try_from(sources.len()).map_err(|_| too_many())?;
    }
    if sources.len() > MAX_SOURCES { Err(too_many()) } else { Ok((sources, numbers)) }
}

pub(super) fn too_many() -> Error {
    Error::unsupported(format!("the pack would need pages of more than {MAX_SOURCES} others"))
        .hint("rebase the snapshot first, or store the image whole")
}
