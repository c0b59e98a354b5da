//! Any bytes as a pack: it is refused, or consistent; and what is encoded comes back.
//!
//! The checks in a pack would end the search at its first byte, so the target makes them. The first byte selects what the input is.
//!
//! | letter | then | the rest |
//! | --- | --- | --- |
//! | `o` | | the end of an object |
//! | `m` | profile, pages (2 bytes), bytes of frames (4 bytes), number of digests | columns, before they are compressed |
//! | `d` | profile, pages | the stored bytes of the only frame |
//! | `r` | a profile for base and delta, pages of a frame, what the update uses | pages of two images, a byte for each |
//!
//! A profile is `c` or `r`.

use std::ops::Range;
use std::sync::Arc;

use tidelock::ErrorKind;
use tidelock::snapshot::pages::{
    Base, Chain, Encoded, Limits, Opened, Options, Pack, PackId, PageDigests, Place, Profile, encode_delta,
    encode_full, read_pages,
};
use tidelock::snapshot::{Identifier, Identity};

use crate::one_line;

const PAGE: usize = 4096;
const LIMITS: Limits = Limits { metadata: 1 << 20, ..Limits::DEFAULT };
/// The most pages of an image that is encoded.
const PAGES: usize = 48;

/// Does what the input says.
pub fn run(data: &[u8]) {
    match data {
        [b'o', rest @ ..] => drop(open(rest, rest.len() as u64)),
        [b'm', profile, low, high, f0, f1, f2, f3, digests, columns @ ..] => {
            let pages = u64::from(u16::from_le_bytes([*low, *high]));
            let frames = u64::from(u32::from_le_bytes([*f0, *f1, *f2, *f3]));
            let digests: Vec<u8> = (0..*digests).flat_map(|number| [number; 32]).collect();
            let (tail, object) = sealed(*profile, (pages * 4096).saturating_sub(7), frames, &digests, columns);
            if let Some(pack) = open(&tail, object) {
                consistent(pack);
            }
        }
        [b'd', profile, pages, stored @ ..] => decoded(*profile, u32::from(*pages).clamp(1, 8), stored),
        [b'r', base, delta, frame_pages, uses, seeds @ ..] => {
            let (old, new) = seeds.split_at(seeds.len() / 2);
            round(profile(*base), profile(*delta), u32::from(*frame_pages), *uses, &image(old), &image(new));
        }
        _ => {}
    }
}

fn profile(letter: u8) -> Profile {
    if letter == b'r' { Profile::Random } else { Profile::Compact }
}

fn refused(error: &tidelock::Error) {
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error:?}");
    one_line::check_error(error, 1024);
}

fn open(tail: &[u8], object: u64) -> Option<Arc<Pack>> {
    match Pack::open(tail, object, None, LIMITS) {
        Ok(Opened::Pack(pack)) => Some(pack),
        Ok(Opened::Longer { from }) => {
            assert!(from + (tail.len() as u64) < object, "the metadata was there");
            None
        }
        Err(error) => {
            refused(&error);
            None
        }
    }
}

/// The end of an object, with all checks as they should be, and its length.
fn sealed(letter: u8, size: u64, frames: u64, digests: &[u8], columns: &[u8]) -> (Vec<u8>, u64) {
    let kind = if letter == b'r' { 2 } else { 1 };
    let mut compressed = Vec::with_capacity(zstd::zstd_safe::compress_bound(columns.len()));
    zstd::zstd_safe::CCtx::create().compress(&mut compressed, columns, 1).expect("room for it");
    let metadata = [digests, &compressed].concat();
    let mut footer = Vec::new();
    footer.extend(size.to_le_bytes());
    footer.extend([7; 32]);
    footer.extend((32 + frames).to_le_bytes());
    for len in [digests.len(), compressed.len(), columns.len()] {
        footer.extend((len as u32).to_le_bytes());
    }
    footer.extend([1, 0, kind, 0]);
    let mut header = b"TdLkPage\x01\0".to_vec();
    header.push(kind);
    header.resize(32, 0);
    let mut id = blake3::Hasher::new_derive_key("tidelock 2026-11 pack v1");
    let id = id.update(&header).update(&metadata).update(&footer).finalize();
    footer.extend(id.as_bytes());
    footer.extend(&blake3::hash(&footer).as_bytes()[..24]);
    footer.extend(b"TdLkLast");
    let tail = [&metadata[..], &footer].concat();
    let object = 32 + frames + tail.len() as u64;
    (tail, object)
}

/// What must hold of all metadata that is not refused.
fn consistent(pack: Arc<Pack>) {
    let pages = pack.size().div_ceil(4096);
    assert_eq!(u64::from(pack.map().pages()), pages);
    assert_eq!(pack.map().runs().iter().map(|run| u64::from(run.len)).sum::<u64>(), pages);
    let stored = pack.frames().pages();
    for run in pack.map().runs() {
        if let Place::Stored { source, page } = run.place {
            let most = match source {
                0 => stored,
                source => pack.sources()[usize::from(source) - 1].pages,
            };
            assert!(page.checked_add(run.len).is_some_and(|end| end <= most), "{run:?}");
        }
    }
    for page in 0..stored {
        let home = pack.home(page).expect("a home");
        assert_eq!(pack.map().at(home), Place::Stored { source: 0, page });
        assert!(pack.frames().of_page(page).is_some());
    }
    assert!(pack.home(stored).is_none() && pack.frames().of_page(stored).is_none());
    let base = !pack.sources().is_empty();
    let identity = pack.identity(None).expect_err("digests that lead to a root of sevens");
    assert_eq!(*identity.kind(), if base { ErrorKind::Invalid } else { ErrorKind::Corrupt });
    match Chain::new(pack.clone(), Vec::new()) {
        Ok(chain) => {
            assert!(!base);
            let all = chain.cost(0, u32::MAX);
            assert_eq!(u64::from(all.frames), pack.frames().as_slice().len() as u64);
            assert_eq!(all.bytes + 32, pack.frames().end());
            let parts = chain.parts(0, u32::MAX);
            assert_eq!(parts.iter().map(|part| u64::from(part.len)).sum::<u64>(), pages);
        }
        Err(error) => refused(&error),
    }
}

/// A pack of one frame, whatever its bytes are.
fn decoded(letter: u8, pages: u32, stored: &[u8]) {
    let Ok(len) = u32::try_from(stored.len()) else { return };
    let mut columns = vec![0, 0, 1, pages as u8];
    let mut rest = len;
    while rest >= 128 {
        columns.push(rest as u8 | 128);
        rest >>= 7;
    }
    // Encoding 1; one run of the map, all pages, of this pack, as expected; no prefixes; the only segment is listed.
    columns.extend([rest as u8, 1, 1, pages as u8, 1, 0, 0, 2, 0, 1]);
    let digests = [*blake3::hash(stored).as_bytes(), [1; 32]].concat();
    let size = u64::from(pages) * 4096 - 5;
    let (tail, object) = sealed(letter, size, u64::from(len), &digests, &columns);
    let Some(pack) = open(&tail, object) else { return };
    let chain = Chain::new(pack, Vec::new()).expect("no sources are needed");
    match read_pages(&chain, 0..u64::MAX, &mut |_, _| Ok(stored.to_vec())) {
        Ok(bytes) => {
            assert_eq!(bytes.len() as u64, size);
            let payload = &stored[if letter == b'r' { 32 * pages as usize } else { 0 }..];
            let mut own = Vec::with_capacity(pages as usize * PAGE);
            zstd::zstd_safe::decompress(&mut own, payload).expect("what was decoded");
            assert!(own.starts_with(&bytes), "other bytes than the library has");
        }
        Err(error) => refused(&error),
    }
}

/// The pages of an image: zeros for `0`, much the same for letters of the same place in their alphabet, else noise; cut by the
/// last one.
fn image(seeds: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for seed in seeds.iter().take(PAGES) {
        match seed {
            b'0' => bytes.resize(bytes.len() + PAGE, 0),
            b'a'..=b'z' => bytes.extend((0..PAGE).map(|at| (at / 16) as u8 ^ (seed - b'a'))),
            b'A'..=b'Z' => bytes.extend((0..PAGE).map(|at| (at / 16) as u8 ^ (seed - b'A') ^ u8::from(at == 99))),
            seed => {
                let start = bytes.len();
                bytes.resize(start + PAGE, 0);
                blake3::Hasher::new().update(&[*seed]).finalize_xof().fill(&mut bytes[start..]);
            }
        }
    }
    let cut = seeds.last().map_or(0, |seed| usize::from(*seed) * 31 % PAGE);
    bytes.truncate(bytes.len() - cut.min(bytes.len()));
    bytes
}

fn identify(bytes: &[u8]) -> Identity {
    let mut identifier = Identifier::new();
    identifier.update(bytes);
    identifier.finish()
}

/// A full pack and a delta on it: what comes back is what went in.
fn round(base: Profile, delta: Profile, frame_pages: u32, uses: u8, old: &Vec<u8>, new: &Vec<u8>) {
    let options = |profile| Options { frame_pages, threads: 1, ..Options::new(profile) };
    let (mut object, mut digests) = (Vec::new(), Vec::new());
    let full = encode_full(old, &options(base), Some(&mut digests), &mut |piece| {
        object.extend_from_slice(&piece);
        Ok(())
    });
    let full: Encoded = full.expect("an image in memory");
    assert_eq!(full.identity, identify(old));
    let first = open(&object, object.len() as u64).expect("a pack that was just written");
    let chain = Chain::new(first.clone(), Vec::new()).expect("a full pack");
    let known = PageDigests::open(Box::new(digests), full.identity.clone().into()).expect("page digests");
    let (image, digests) = (uses & 1 == 0, uses & 2 == 0);
    let against = Base {
        chain: &chain,
        identity: &full.identity,
        image: if image { Some(old) } else { None },
        digests: if digests { Some(&known) } else { None },
    };
    let mut second = Vec::new();
    let encoded = encode_delta(new, &against, None, &options(delta), None, &mut |piece| {
        second.extend_from_slice(&piece);
        Ok(())
    });
    let encoded = encoded.expect("an image in memory");
    assert_eq!(encoded.identity, identify(new));
    let pack = open(&second, second.len() as u64).expect("a pack that was just written");
    assert_eq!(pack.identity(Some(&full.identity)).expect("the identity"), encoded.identity);
    let chain = Chain::new(pack, vec![first]).expect("a delta and its base");
    let fetch = |id: PackId, range: Range<u64>| {
        let bytes = if id == full.pack.id() { &object } else { &second };
        bytes[range.start as usize..range.end as usize].to_vec()
    };
    let bytes = read_pages(&chain, 0..u64::MAX, &mut |pack, range| Ok(fetch(pack.id(), range)));
    assert!(bytes.expect("a chain that is whole") == *new, "other bytes");
}
