//! Damage of every kind, and metadata that is whole and wrong.

use std::sync::Arc;

use proptest::prelude::*;

use super::support::{Store, Uses, Version, identify, open};
use crate::snapshot::SEGMENT;
use crate::snapshot::pages::frames::Frames;
use crate::snapshot::pages::map::Map;
use crate::snapshot::pages::pack::{Contents, PackSource, seal};
use crate::snapshot::pages::{Coding, Limits, Options, Pack, PackId, PageDigests, Place, Profile, decode_frame};
use crate::snapshot::testing::pattern;
use crate::types::{Result, SnapshotId};

const ALL: Uses = Uses { image: true, digests: true };

/// A pack of each profile, and a delta with prefixes on the first.
fn packs(store: &mut Store) -> Vec<(Version, Option<Version>)> {
    let mut bytes: Vec<u8> = (0..20u8).flat_map(|at| vec![at / 2; 3000]).collect();
    bytes.extend(pattern(9000));
    let full = store.full(&bytes, &Options { frame_pages: 6, ..Options::new(Profile::Compact) });
    let random = store.full(&bytes, &Options { frame_pages: 6, ..Options::new(Profile::Random) });
    (0..bytes.len()).step_by(5000).for_each(|at| bytes[at] ^= 0x55);
    let delta = store.delta(&full, &bytes, ALL, None, &Options::new(Profile::Compact)).unwrap();
    assert!(delta.pack().frames().as_slice().iter().any(|frame| frame.coding == Coding::Prefixed));
    vec![(full.clone(), None), (random, None), (delta, Some(full))]
}

/// Reads everything in an object in place of that of a version.
fn read_all(store: &Store, version: &Version, base: Option<&Version>, object: &[u8]) -> Result<Vec<u8>> {
    let pack = open(object, Some(version.pack().id()))?;
    pack.identity(base.map(|base| &*base.identity))?;
    for (number, frame) in (0..).zip(pack.frames().as_slice()) {
        let chain = store.chain(version.pack().id());
        let prefix: Vec<u8> = chain
            .prefix(crate::snapshot::pages::FrameRef { source: 0, frame: number })
            .into_iter()
            .flat_map(|part| {
                let frame = chain.frame(part.frame).unwrap().1;
                let pack = chain.packs()[usize::from(part.frame.source)].clone();
                let object = store.object(pack.id());
                let stored = &object[frame.offset as usize..][..frame.stored as usize];
                let mut buffer = Vec::new();
                let pages = decode_frame(&pack, part.frame.frame, stored, &[], &mut buffer).unwrap();
                pages[part.first as usize * 4096..][..part.len as usize * 4096].to_vec()
            })
            .collect();
        let stored = &object[frame.offset as usize..(frame.offset + u64::from(frame.stored)) as usize];
        decode_frame(&pack, number, stored, &prefix, &mut Vec::new())?;
    }
    Ok(Vec::new())
}

#[test]
fn a_torn_pack_is_known_at_every_length() {
    let mut store = Store::default();
    for (version, _) in packs(&mut store) {
        for len in 0..version.object.len() {
            let error = open(&version.object[..len], None).unwrap_err();
            assert_eq!(error.kind().name(), "corrupt", "{len}");
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let mut store = Store::default();
    for (version, base) in packs(&mut store) {
        read_all(&store, &version, base.as_ref(), &version.object).unwrap();
        let mut object = (*version.object).clone();
        // Every bit of header, digests, columns and footer, and one of each byte of the frames.
        let frames = 32..version.pack().frames().end() as usize;
        for at in 0..object.len() {
            for bit in 0..8 {
                if frames.contains(&at) && bit != at % 8 {
                    continue;
                }
                object[at] ^= 1 << bit;
                let error = read_all(&store, &version, base.as_ref(), &object).unwrap_err();
                assert_eq!(error.kind().name(), "corrupt", "byte {at}: {error}");
                object[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn another_pack_in_its_place_is_found() {
    let mut store = Store::default();
    let packs = packs(&mut store);
    let error = open(&packs[0].0.object, Some(packs[1].0.pack().id())).unwrap_err();
    assert_eq!(error.kind().name(), "corrupt");
    assert!(open(&packs[0].0.object, None).is_ok());
}

#[test]
fn the_end_of_an_object_is_enough() {
    let mut store = Store::default();
    for (version, _) in packs(&mut store) {
        let object = &version.object;
        let from = version.pack().frames().end() as usize;
        let all = object.len() as u64;
        for start in [0, from - 1, from] {
            let opened = Pack::open(&object[start..], all, Some(version.pack().id()), Limits::default()).unwrap();
            assert!(matches!(opened, crate::snapshot::pages::Opened::Pack(pack) if pack == *version.pack()));
        }
        for start in [from + 1, object.len() - 128] {
            let opened = Pack::open(&object[start..], all, None, Limits::default()).unwrap();
            let crate::snapshot::pages::Opened::Longer { from: found } = opened else { panic!("{opened:?}") };
            assert_eq!(found, from as u64);
        }
        let error = Pack::open(object, all, None, Limits { metadata: 10, ..Limits::default() }).unwrap_err();
        assert_eq!(error.kind().name(), "unsupported");
    }
}

/// The contents of a small delta that is right, to be made wrong.
fn contents() -> Contents {
    let mut frames = Frames::default();
    frames.push(3, 100, Coding::Zstd, [1; 32]);
    frames.push(2, 50, Coding::Prefixed, [2; 32]);
    let mut map = Map::default();
    map.push(3, Place::Stored { source: 0, page: 0 });
    map.push(500, Place::Nowhere);
    map.push(2, Place::Stored { source: 0, page: 3 });
    map.push(8, Place::Stored { source: 1, page: 7 });
    map.push(1, Place::Stored { source: 0, page: 1 });
    let mut prefixes = Map::default();
    prefixes.push(1, Place::Nowhere);
    prefixes.push(1, Place::Stored { source: 1, page: 9 });
    let source =
        PackSource { id: PackId::from_bytes([3; 32]), snapshot: SnapshotId::from_bytes([4; 32]), pages: 15, depth: 2 };
    Contents {
        size: 514 * 4096 - 9,
        snapshot: SnapshotId::from_bytes([5; 32]),
        profile: Profile::Compact,
        sources: vec![source],
        frames,
        map,
        prefixes,
        listed: vec![(1, [6; 32])],
    }
}

/// Opens what these contents make.
fn opened(contents: &Contents) -> Result<Arc<Pack>> {
    let mut object = vec![0; contents.frames.end() as usize];
    object[..32].copy_from_slice(&crate::snapshot::pages::layout::header(contents.profile));
    object.extend(seal(contents).unwrap());
    open(&object, None)
}

#[test]
fn metadata_that_is_whole_and_wrong_is_refused() {
    let good = opened(&contents()).unwrap();
    assert_eq!((good.depth(), good.home(0), good.home(4), good.home(5)), (3, Some(0), Some(504), None));
    let refused = |what: &str, change: fn(&mut Contents)| {
        let mut contents = contents();
        change(&mut contents);
        let error = opened(&contents).map(|_| what).unwrap_err();
        assert_eq!(error.kind().name(), "corrupt", "{what}: {error}");
    };
    let map = |runs: &[(u32, Place)]| {
        let mut map = Map::default();
        runs.iter().for_each(|(len, place)| map.push(*len, *place));
        map
    };
    let own = |page| Place::Stored { source: 0, page };
    let base = |page| Place::Stored { source: 1, page };
    for (what, runs) in [
        ("too few pages", vec![(5, own(0)), (508, Place::Nowhere)]),
        ("too many pages", vec![(5, own(0)), (510, Place::Nowhere)]),
        ("a page that nothing refers to", vec![(4, own(0)), (510, Place::Nowhere)]),
        ("pages in another order", vec![(2, own(1)), (1, own(0)), (2, own(3)), (509, Place::Nowhere)]),
        ("past the frames", vec![(6, own(0)), (508, Place::Nowhere)]),
        ("past a source", vec![(5, own(0)), (508, Place::Nowhere), (1, base(15))]),
        ("in no source", vec![(5, own(0)), (508, Place::Nowhere), (1, Place::Stored { source: 2, page: 0 })]),
    ] {
        let mut contents = contents();
        contents.map = map(&runs);
        let error = opened(&contents).map(|_| what).unwrap_err();
        assert_eq!(error.kind().name(), "corrupt", "{what}: {error}");
    }
    for (what, runs) in [
        ("a prefix of nothing", vec![(2, Place::Nowhere)]),
        ("a prefix in the pack itself", vec![(2, own(0))]),
        ("a prefix that is too long", vec![(3, base(0))]),
        ("no prefix", vec![]),
        ("past a source", vec![(2, base(14))]),
    ] {
        let mut contents = contents();
        contents.prefixes = map(&runs);
        let error = opened(&contents).map(|_| what).unwrap_err();
        assert_eq!(error.kind().name(), "corrupt", "{what}: {error}");
    }
    refused("too deep", |contents| contents.sources[0].depth = 8);
    refused("a source twice", |contents| contents.sources.push(contents.sources[0]));
    refused("a segment too many", |contents| contents.listed.push((2, [7; 32])));
    refused("a segment that is nowhere", |contents| {
        contents.size = 1026 * 4096;
        contents.map.push(512, Place::Nowhere);
        contents.map.push(0, Place::Nowhere);
        contents.listed = vec![(1, [6; 32]), (2, [6; 32])];
        let mut map = Map::default();
        map.push(5, Place::Stored { source: 0, page: 0 });
        map.push(1021, Place::Nowhere);
        contents.map = map;
    });
    refused("no digest of a segment that has no base", |contents| {
        contents.sources.clear();
        let mut map = Map::default();
        map.push(5, Place::Stored { source: 0, page: 0 });
        map.push(509, Place::Nowhere);
        (contents.map, contents.prefixes) = (map, Map::default());
        let mut frames = Frames::default();
        frames.push(5, 100, Coding::Zstd, [1; 32]);
        contents.frames = frames;
    });
    for (what, pages, stored, coding) in [
        ("a raw frame that is shorter", 5, 5 * 4096 - 1, Coding::Raw),
        ("a raw frame that is longer", 5, 5 * 4096 + 1, Coding::Raw),
        ("a compressed frame that is no shorter", 5, 5 * 4096, Coding::Zstd),
        ("an empty frame", 5, 0, Coding::Zstd),
    ] {
        let mut contents = contents();
        contents.frames = Frames::default();
        contents.frames.push(pages, stored, coding, [1; 32]);
        contents.prefixes = Map::default();
        let error = opened(&contents).map(|_| what).unwrap_err();
        assert_eq!(error.kind().name(), "corrupt", "{what}: {error}");
    }
    refused("a frame of no pages", |contents| contents.frames.push(0, 10, Coding::Zstd, [1; 32]));
    refused("a prefix in a random pack", |contents| contents.profile = Profile::Random);
}

#[test]
fn sources_have_to_be_the_right_ones() {
    let mut store = Store::default();
    let all = packs(&mut store);
    let (full, random, delta) = (all[0].0.pack(), all[1].0.pack(), all[2].0.pack());
    let chain = |first: &Arc<Pack>, sources: Vec<Arc<Pack>>| crate::snapshot::pages::Chain::new(first.clone(), sources);
    assert!(chain(delta, vec![full.clone()]).is_ok());
    for (first, sources) in [
        (delta, vec![]),
        (delta, vec![random.clone()]),
        (delta, vec![full.clone(), random.clone()]),
        (full, vec![full.clone()]),
    ] {
        assert_eq!(chain(first, sources).unwrap_err().kind().name(), "corrupt");
    }
    assert_eq!(delta.identity(None).unwrap_err().kind().name(), "invalid");
    assert_eq!(full.identity(Some(&all[0].0.identity)).unwrap_err().kind().name(), "invalid");
}

#[test]
fn damaged_page_digests_are_no_use_and_do_no_harm() {
    let mut store = Store::default();
    let bytes = pattern(2 * SEGMENT + 5000);
    let base = store.full(&bytes, &Options::new(Profile::Compact));
    for at in (0..base.digests.len()).step_by(97).chain(base.digests.len() - 96..base.digests.len()) {
        let mut digests = (*base.digests).clone();
        digests[at] ^= 0x10;
        if let Ok(opened) = PageDigests::open(Box::new(digests), base.identity.clone()) {
            assert!((0..3).any(|number| opened.segment(number).is_err()), "{at}");
        }
    }
    let cut = base.digests[..base.digests.len() - 1].to_vec();
    assert!(PageDigests::open(Box::new(cut), base.identity.clone()).is_err());
    assert!(PageDigests::open(Box::new((*base.digests).clone()), identify(b"other").into()).is_err());
    // An update with damaged ones is one without them.
    let mut digests = (*base.digests).clone();
    digests[24 + 64 + 5] ^= 1;
    let mut new = bytes;
    new[7] ^= 1;
    let damaged = Version { digests: digests.into(), ..base.clone() };
    for uses in [ALL, Uses { image: false, ..ALL }] {
        let next = store.delta(&damaged, &new, uses, None, &Options::new(Profile::Compact)).unwrap();
        store.check(&next, Some(&base));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), object in 0u64..5000) {
        prop_assert!(Pack::open(&bytes, object, None, Limits::default()).is_err());
    }
}
