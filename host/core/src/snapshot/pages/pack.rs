//! A pack's metadata: written, read back within bounds, and what it says.

use std::sync::Arc;

use super::columns::{Columns, put};
use super::frames::{Coding, Frames};
use super::layout::{FOOTER, Footer, HEADER, damaged, header, most_columns};
use super::limits::{Charge, Limits};
use super::map::{Map, Place};
use super::{MAX_DEPTH, MAX_PAGES, MAX_SOURCES, PAGE, Profile, zst};
use crate::snapshot::{Identity, SEGMENT, SegmentDigest, SegmentDigests, ZERO_SEGMENT};
use crate::types::{Error, PackId, Result, SnapshotId};

/// Pages of a segment.
pub(super) const SEGMENT_PAGES: u32 = (SEGMENT / PAGE) as u32;

/// A pack that another one points into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSource {
    /// Its id.
    pub id: PackId,
    /// The snapshot whose pack it is.
    pub snapshot: SnapshotId,
    /// The number of its stored pages.
    pub pages: u32,
    /// Its depth, see [`Pack::depth`].
    pub depth: u8,
}

/// What the metadata of a pack says, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) size: u64,
    pub(super) snapshot: SnapshotId,
    pub(super) profile: Profile,
    pub(super) sources: Vec<PackSource>,
    pub(super) frames: Frames,
    pub(super) map: Map,
    /// Over the stored pages of frames with a prefix.
    pub(super) prefixes: Map,
    /// The listed segments, in order.
    pub(super) listed: Vec<(u32, SegmentDigest)>,
}

/// The metadata of a pack, as it was read: within all bounds, and consistent in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    pub(super) contents: Contents,
    pub(super) id: PackId,
    pub(super) depth: u8,
    /// First stored page and first page of the snapshot of each run of homes.
    pub(super) homes: Vec<(u32, u32)>,
    pub(super) stored: u64,
    pub(super) charge: Charge,
}

/// What the end of an object gave.
#[derive(Debug)]
pub enum Opened {
    /// The pack.
    Pack(Arc<Pack>),
    /// The metadata begins before the bytes that were given: fetch the object from `from` to its end, and open that.
    Longer {
        /// Where the metadata begins in the object.
        from: u64,
    },
}

impl Pack {
    /// Opens a pack from the last bytes of an object of `object` bytes; 64 KiB are nearly always enough for a delta. With
    /// `known`, nothing of the metadata is looked at before it is proven to be that pack's.
    ///
    /// # Errors
    /// `corrupt` if the object is torn, damaged or another pack than `known`; `unsupported` for a later version, and if the
    /// metadata exceeds `limits`.
    pub fn open(tail: &[u8], object: u64, known: Option<PackId>, limits: Limits) -> Result<Opened> {
        let least = (HEADER + FOOTER) as u64;
        let Some((before, footer)) = tail.split_last_chunk::<FOOTER>().filter(|_| object >= least) else {
            return Err(damaged(format!("an object of {object} bytes is no pack")));
        };
        let footer = Footer::parse(footer, object)?;
        if footer.digests_len > limits.metadata || footer.columns_len > limits.metadata {
            return Err(Error::unsupported("the metadata of the pack exceeds the limit"));
        }
        let metadata = footer.metadata();
        let Some(start) = usize::try_from(footer.metadata_len()).ok().and_then(|len| before.len().checked_sub(len))
        else {
            return Ok(Opened::Longer { from: metadata.start });
        };
        let metadata = &before[start..];
        let id = footer.pack_id(metadata);
        if id != footer.id {
            return Err(damaged("the metadata of the pack is damaged"));
        }
        if known.is_some_and(|known| known != id) {
            return Err(damaged(format!("the object is pack {id}, not the one that was stored")));
        }
        let (digests, columns) = metadata.split_at(footer.digests_len as usize);
        let mut decoded = Vec::new();
        zst::decode(columns, &[], footer.columns_len as usize, &mut decoded)?;
        let (contents, depth) = read(&footer, digests, &decoded, limits)?;
        drop(decoded);
        let homes = homes(&contents)?;
        if contents.frames.end() != footer.digests_at {
            return Err(damaged("the frames of the pack do not end where its metadata begins"));
        }
        Ok(Opened::Pack(Arc::new(Self::from_parts(contents, id, depth, homes, object))))
    }

    pub(super) fn from_parts(contents: Contents, id: PackId, depth: u8, homes: Vec<(u32, u32)>, stored: u64) -> Self {
        Self { contents, id, depth, homes, stored, charge: Charge::default() }
    }

    /// The id.
    pub fn id(&self) -> PackId {
        self.id
    }

    /// The snapshot.
    pub fn snapshot(&self) -> SnapshotId {
        self.contents.snapshot
    }

    /// The logical bytes of the snapshot.
    pub fn size(&self) -> u64 {
        self.contents.size
    }

    /// The bytes of the pack.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// What it was made for.
    pub fn profile(&self) -> Profile {
        self.contents.profile
    }

    /// The sources; the first is the base. Source `n` of the map is the one at `n - 1` here.
    pub fn sources(&self) -> &[PackSource] {
        &self.contents.sources
    }

    /// How many packs the prefixes of its frames lead through, one above the other. 0: no frame has a prefix.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The frames.
    pub fn frames(&self) -> &Frames {
        &self.contents.frames
    }

    /// Where the pages of the snapshot lie.
    pub fn map(&self) -> &Map {
        &self.contents.map
    }

    /// Where the prefix pages of the stored pages of all frames with [`Coding::Prefixed`] lie, counted through these frames.
    pub fn prefixes(&self) -> &Map {
        &self.contents.prefixes
    }

    /// The first page of the snapshot that is stored page `page`.
    pub fn home(&self, page: u32) -> Option<u32> {
        let at = self.homes.partition_point(|(stored, _)| *stored <= page).checked_sub(1)?;
        let (stored, home) = self.homes[at];
        (page < self.contents.frames.pages()).then(|| home + (page - stored))
    }

    /// Checks the header of the object, of which [`Self::open`] does not need to see anything. `bytes` are those that the object
    /// begins with: [`HEADER_BYTES`](super::HEADER_BYTES) or more.
    ///
    /// # Errors
    /// `corrupt` if it is not the header of this pack.
    pub fn check_header(&self, bytes: &[u8]) -> Result<()> {
        if bytes.starts_with(&header(self.contents.profile)) {
            Ok(())
        } else {
            Err(damaged("the header of the pack is damaged"))
        }
    }

    /// The identity of the snapshot; `base` is that of the base's snapshot, if there is one.
    ///
    /// # Errors
    /// `corrupt` if the digests of the segments do not lead to the snapshot's id; `invalid` for another base.
    pub fn identity(&self, base: Option<&Identity>) -> Result<Identity> {
        let contents = &self.contents;
        let expected = contents.sources.first().map(|source| source.snapshot);
        if base.map(Identity::id) != expected {
            return Err(Error::invalid("this is not the base of the pack"));
        }
        let inherited = base.map_or(&[][..], |base| base.segments().as_slice());
        let mut digests = Vec::with_capacity(segments_of(contents.size) as usize);
        let mut listed = contents.listed.iter().peekable();
        for number in 0..segments_of(contents.size) {
            let digest = match listed.next_if(|(next, _)| *next == number) {
                Some((_, digest)) => Some(*digest),
                None if is_nowhere(&contents.map, contents.size, number) => Some(ZERO_SEGMENT),
                None => inherited.get(number as usize).copied(),
            };
            digests.push(digest.ok_or_else(|| damaged("the pack has no digest for a segment"))?);
        }
        Identity::from_parts(contents.snapshot, contents.size, SegmentDigests::new(digests))
    }
}

/// The number of segments of so many bytes, which have at most [`MAX_PAGES`] pages.
pub(super) fn segments_of(size: u64) -> u32 {
    size.div_ceil(SEGMENT as u64) as u32
}

/// Returns whether a segment is a full one that is nowhere throughout.
pub(super) fn is_nowhere(map: &Map, size: u64, segment: u32) -> bool {
    let full = (u64::from(segment) + 1) * SEGMENT as u64 <= size;
    full && map.parts(segment * SEGMENT_PAGES, SEGMENT_PAGES).all(|run| run.place == Place::Nowhere)
}

/// The depth of a pack: what its frames and prefixes come to.
pub(super) fn depth_of(contents: &Contents) -> u8 {
    let below = contents.prefixes.runs().iter().filter_map(|run| match run.place {
        Place::Nowhere => None,
        Place::Stored { source, .. } => contents.sources.get(usize::from(source).wrapping_sub(1)),
    });
    if contents.frames.prefixed() == 0 { 0 } else { 1 + below.map(|source| source.depth).max().unwrap_or(0) }
}

/// The bytes of a pack after its frames: digests, columns and footer.
///
/// # Errors
/// `unsupported` if there is more metadata than the format has room for.
pub(super) fn seal(contents: &Contents) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.extend(contents.sources.iter().flat_map(|source| *source.id.as_bytes()));
    bytes.extend(contents.sources.iter().flat_map(|source| *source.snapshot.as_bytes()));
    bytes.extend(contents.frames.as_slice().iter().flat_map(|frame| frame.digest));
    bytes.extend(contents.listed.iter().flat_map(|(_, digest)| *digest));
    let columns = write(contents);
    let compressed = zst::Compressor::new()?.compress(&columns, 6)?;
    let too_long = |_| Error::unsupported("the image is too large, or too fragmented, for one pack");
    let mut footer = Footer {
        size: contents.size,
        snapshot: contents.snapshot,
        digests_at: contents.frames.end(),
        digests_len: u32::try_from(bytes.len()).map_err(too_long)?,
        columns_stored: u32::try_from(compressed.len()).map_err(too_long)?,
        columns_len: u32::try_from(columns.len()).map_err(too_long)?,
        profile: contents.profile,
        id: PackId::from_bytes([0; 32]),
    };
    bytes.extend_from_slice(&compressed);
    footer.id = footer.pack_id(&bytes);
    bytes.extend_from_slice(&footer.to_bytes());
    Ok(bytes)
}

fn write(contents: &Contents) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, contents.sources.len() as u64);
    for source in &contents.sources {
        put(&mut out, u64::from(source.pages));
    }
    for source in &contents.sources {
        put(&mut out, u64::from(source.depth));
    }
    put(&mut out, u64::from(depth_of(contents)));
    contents.frames.write(&mut out);
    contents.map.write(&mut out);
    contents.prefixes.write(&mut out);
    let runs = segment_runs(contents);
    put(&mut out, runs.len() as u64);
    for run in runs {
        put(&mut out, u64::from(run));
    }
    out
}

/// Lengths of the runs of segments that are not listed and that are, in turn.
fn segment_runs(contents: &Contents) -> Vec<u32> {
    let (mut runs, mut at) = (Vec::new(), 0);
    for (number, _) in &contents.listed {
        match runs.last_mut() {
            Some(last) if *number == at => *last += 1,
            _ => runs.extend([*number - at, 1]),
        }
        at = *number + 1;
    }
    if at < segments_of(contents.size) {
        runs.push(segments_of(contents.size) - at);
    }
    runs
}

fn read(footer: &Footer, digests: &[u8], columns: &[u8], limits: Limits) -> Result<(Contents, u8)> {
    // Checked with the footer: at most `MAX_PAGES`.
    let pages = footer.size.div_ceil(PAGE as u64) as u32;
    debug_assert!(columns.len() as u64 <= most_columns(u64::from(pages)));
    let mut columns = Columns::new(columns);
    let mut digests = digests.as_chunks::<32>().0.iter();
    let mut digest = || digests.next().copied().ok_or_else(|| damaged("the pack has fewer digests than it needs"));

    let count = columns.count(MAX_SOURCES as u64)?;
    let stored = columns.list(count, MAX_PAGES)?;
    let depths = columns.list(count, u32::from(MAX_DEPTH))?;
    let ids = (0..count).map(|_| digest()).collect::<Result<Vec<_>>>()?;
    let mut sources = Vec::with_capacity(count);
    for ((id, pages), depth) in ids.into_iter().zip(stored).zip(depths) {
        let (id, snapshot) = (PackId::from_bytes(id), SnapshotId::from_bytes(digest()?));
        if sources.iter().any(|other: &PackSource| other.id == id) {
            return Err(damaged("the pack has a source twice"));
        }
        sources.push(PackSource { id, snapshot, pages, depth: depth as u8 });
    }
    let depth = columns.small(u32::from(MAX_DEPTH))? as u8;
    let mut items = limits.items;
    let frames = Frames::read(&mut columns, footer.profile, pages, &mut items, &mut digest)?;
    let mut stored: Vec<u32> = [frames.pages()].into_iter().chain(sources.iter().map(|source| source.pages)).collect();
    let map = Map::read(&mut columns, pages, &stored, &mut items)?;
    // No prefix is in the pack itself.
    stored[0] = 0;
    let prefixes = Map::read(&mut columns, frames.prefixed(), &stored, &mut items)?;
    for frame in frames.as_slice().iter().filter(|frame| frame.coding == Coding::Prefixed) {
        if prefixes.parts(frame.prefix_first, frame.pages).all(|run| run.place == Place::Nowhere) {
            return Err(damaged("a frame of the pack has a prefix of nothing"));
        }
    }
    let listed = read_listed(&mut columns, footer.size, &map, !sources.is_empty(), &mut digest)?;
    columns.end()?;
    if digests.next().is_some() {
        return Err(damaged("the pack has more digests than it needs"));
    }
    let (size, snapshot, profile) = (footer.size, footer.snapshot, footer.profile);
    let contents = Contents { size, snapshot, profile, sources, frames, map, prefixes, listed };
    if depth_of(&contents) != depth {
        return Err(damaged("the pack says that it has another depth than it has"));
    }
    Ok((contents, depth))
}

fn read_listed(
    columns: &mut Columns<'_>,
    size: u64,
    map: &Map,
    based: bool,
    digest: &mut impl FnMut() -> Result<SegmentDigest>,
) -> Result<Vec<(u32, SegmentDigest)>> {
    let segments = segments_of(size);
    let runs = columns.count(u64::from(segments) + 1)?;
    let (mut listed, mut at) = (Vec::new(), 0);
    for (number, len) in columns.list(runs, segments)?.into_iter().enumerate() {
        if len > segments - at || (len == 0 && (number > 0 || runs == 1)) {
            return Err(damaged("the pack lists other segments than its snapshot has"));
        }
        for segment in at..at + len {
            let zero = is_nowhere(map, size, segment);
            match number % 2 {
                0 if zero || based => {}
                1 if !zero => listed.push((segment, digest()?)),
                _ => return Err(damaged("the pack lists other segments than it should")),
            }
        }
        at += len;
    }
    if at == segments { Ok(listed) } else { Err(damaged("the pack lists other segments than its snapshot has")) }
}

/// Where stored pages are referred to first; checks that they are numbered in this order, and all there.
fn homes(contents: &Contents) -> Result<Vec<(u32, u32)>> {
    let (mut homes, mut next) = (Vec::<(u32, u32)>::new(), 0);
    for run in contents.map.runs() {
        let Place::Stored { source: 0, page } = run.place else { continue };
        if page > next {
            return Err(damaged("the stored pages of the pack are not in the order of its map"));
        }
        let end = page + run.len;
        if end > next {
            homes.push((next, run.first + (next - page)));
            next = end;
        }
    }
    if next == contents.frames.pages() { Ok(homes) } else { Err(damaged("the pack has pages that it does not need")) }
}
