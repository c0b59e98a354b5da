//! Images of all kinds, through chains of packs and back.

use proptest::prelude::*;

use super::support::{Store, Uses, Version};
use crate::snapshot::SEGMENT;
use crate::snapshot::pages::{Coding, Decoder, MAX_DEPTH, Options, Place, Profile};

const PAGE: usize = 4096;
const ALL: Uses = Uses { image: true, digests: true };

/// A page that compresses, different for each seed, and not unlike that of a near seed.
fn page(seed: u32) -> Vec<u8> {
    match seed % 4 {
        0 => vec![0; PAGE],
        1 => {
            let mut page = vec![0; PAGE];
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut page);
            page
        }
        _ => (0..PAGE as u32).map(|at| ((at / 7 * (seed | 1)) >> 3) as u8 ^ (seed >> 8) as u8).collect(),
    }
}

fn image(seeds: &[u32], tail: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = seeds.iter().flat_map(|seed| page(*seed)).collect();
    bytes.extend(&page(4242 + 1)[..tail]);
    bytes
}

fn options(profile: Profile, frame_pages: u32) -> Options {
    Options { frame_pages, threads: 2, ..Options::new(profile) }
}

#[test]
fn sizes_at_every_edge_come_back() {
    for profile in [Profile::Compact, Profile::Random] {
        let sizes = [0, 1, 4096, 4097, SEGMENT - 1, SEGMENT, SEGMENT + 1, SEGMENT + 4096];
        let mut store = Store::default();
        let all = crate::snapshot::testing::pattern(SEGMENT + 4096);
        let versions: Vec<Version> = sizes.iter().map(|size| store.full(&all[..*size], &options(profile, 0))).collect();
        for version in &versions {
            store.check(version, None);
        }
        // From each size to each other one.
        for base in &versions {
            for size in sizes {
                for uses in [ALL, Uses { digests: false, ..ALL }, Uses { image: false, ..ALL }] {
                    let next = store.delta(base, &all[..size], uses, None, &options(profile, 0)).unwrap();
                    store.check(&next, Some(base));
                    // Only the last page may be another one, unless a segment is short.
                    let stored = next.encoded.counts.stored;
                    let grown = size.saturating_sub(base.bytes.len()).div_ceil(PAGE) as u64;
                    assert!(stored <= grown + 1, "{} to {size} stores {stored}, {uses:?}", base.bytes.len());
                }
            }
        }
    }
}

#[test]
fn zeros_cost_nothing() {
    let mut store = Store::default();
    let zeros = store.full(&vec![0; 5 * SEGMENT + 100], &options(Profile::Compact, 0));
    store.check(&zeros, None);
    assert_eq!(zeros.encoded.counts.zero, 5 * 512 + 1);
    assert!(zeros.object.len() < 300, "{}", zeros.object.len());
}

#[test]
fn pages_that_moved_are_not_stored_again() {
    let mut store = Store::default();
    let seeds: Vec<u32> = (0..600).map(|at| at * 4 + 2).collect();
    let base = store.full(&image(&seeds, 0), &options(Profile::Compact, 0));
    let mut swapped = seeds.clone();
    swapped.swap(3, 570);
    swapped[9] = swapped[10];
    swapped[11] = 99_999 * 4 + 1;
    swapped[12] = swapped[11];
    let next = store.delta(&base, &image(&swapped, 0), ALL, None, &options(Profile::Compact, 0)).unwrap();
    store.check(&next, Some(&base));
    let counts = next.encoded.counts;
    assert_eq!((counts.moved, counts.repeated, counts.stored), (2, 1, 2), "{counts:?}");
}

#[test]
fn a_random_delta_needs_one_frame_for_any_page() {
    let mut store = Store::default();
    let mut seeds: Vec<u32> = (0..700).map(|at| at * 4 + 2).collect();
    let full = store.full(&image(&seeds, 0), &options(Profile::Compact, 16));
    (0..700).step_by(7).for_each(|at| seeds[at] += 256);
    let compact = store.delta(&full, &image(&seeds, 0), ALL, None, &options(Profile::Compact, 16)).unwrap();
    assert!(compact.pack().frames().as_slice().iter().any(|frame| frame.coding == Coding::Prefixed));
    (0..700).step_by(50).for_each(|at| seeds[at] += 1024);
    let random = store.delta(&compact, &image(&seeds, 0), ALL, None, &options(Profile::Random, 0)).unwrap();
    store.check(&random, Some(&compact));
    let chain = store.chain(random.pack().id());
    for page in 0..700 {
        let cost = chain.cost(page, 1);
        assert!(cost.frames <= 1 && cost.packs <= 1, "{page}: {cost:?}");
        if let Place::Stored { source: 0, .. } = random.pack().map().at(page) {
            assert!(cost.bytes <= (256 + 2) << 10, "{page}: {cost:?}");
        }
    }
}

#[test]
fn chains_are_bounded_in_depth() {
    let mut store = Store::default();
    let mut seeds: Vec<u32> = (0..200).map(|at| at * 4 + 2).collect();
    let mut last = store.full(&image(&seeds, 0), &options(Profile::Compact, 8));
    let mut deepest = 0;
    for round in 0..20 {
        (0..200).step_by(3).for_each(|at| seeds[at] += 256 * (round + 1));
        let next = store.delta(&last, &image(&seeds, 100), ALL, None, &options(Profile::Compact, 8)).unwrap();
        store.check(&next, Some(&last));
        let depth = next.pack().depth();
        assert!(depth <= MAX_DEPTH, "{round}: {depth}");
        deepest = deepest.max(depth);
        // What one page may cost: at most what there is, and no frame twice.
        let chain = store.chain(next.pack().id());
        let all: u64 = chain.packs().iter().map(|pack| pack.frames().as_slice().len() as u64).sum();
        assert!((0..200).all(|page| u64::from(chain.cost(page, 1).frames) <= all));
        last = next;
    }
    assert_eq!(deepest, MAX_DEPTH);
}

#[test]
fn what_is_said_to_have_changed_is_all_that_is_read() {
    let mut store = Store::default();
    let mut seeds: Vec<u32> = (0..1500).map(|at| at * 4 + 2).collect();
    let base = store.full(&image(&seeds, 77), &options(Profile::Compact, 0));
    for at in [5, 700, 701, 1400] {
        seeds[at] += 256;
    }
    let bytes = image(&seeds, 77);
    let page = |at: u64| at * 4096 + 1..at * 4096 + 2;
    let changed = [page(1400), page(5), 700 * 4096..702 * 4096, page(9)];
    for uses in [ALL, Uses { digests: false, ..ALL }, Uses { image: false, ..ALL }] {
        let next = store.delta(&base, &bytes, uses, Some(&changed), &options(Profile::Compact, 0)).unwrap();
        store.check(&next, Some(&base));
        assert_eq!(next.encoded.counts.stored, 4, "{uses:?}");
    }
    // A change elsewhere goes unseen where nothing else is read: the pack is one of the image without it.
    let mut other = bytes.clone();
    other[100 * PAGE] ^= 1;
    let next = store.delta(&base, &other, ALL, Some(&changed), &options(Profile::Compact, 0)).unwrap();
    assert_eq!(*next.identity, super::support::identify(&bytes));
}

#[test]
fn a_damaged_image_of_the_base_is_noticed() {
    let mut store = Store::default();
    let seeds: Vec<u32> = (0..600).map(|at| at * 4 + 2).collect();
    let base = store.full(&image(&seeds, 0), &options(Profile::Compact, 0));
    let mut rotten = (*base.bytes).clone();
    rotten[7 * PAGE] ^= 1;
    let rotten = Version { bytes: rotten.into(), ..base.clone() };
    let mut changed = seeds;
    changed[7] += 256;
    let error = store.delta(&rotten, &image(&changed, 0), ALL, None, &options(Profile::Compact, 0)).err().unwrap();
    assert_eq!(error.kind().name(), "corrupt", "{error}");
}

#[test]
fn a_chain_is_restored_with_each_frame_once_and_little_kept() {
    let mut store = Store::default();
    let mut seeds: Vec<u32> = (0..3000).map(|at| at * 4 + 2).collect();
    let mut last = store.full(&image(&seeds, 0), &options(Profile::Compact, 64));
    for round in 1..5 {
        (0..3000).step_by(5 + round).for_each(|at| seeds[at] += 256 * round as u32);
        last = store.delta(&last, &image(&seeds, 0), ALL, None, &options(Profile::Compact, 64)).unwrap();
    }
    assert_eq!(last.pack().depth(), 4);
    let chain = store.chain(last.pack().id());
    let mut decoder = Decoder::new(&chain);
    let (mut most, mut frames, mut bytes) = (0, std::collections::BTreeSet::new(), vec![0; last.bytes.len()]);
    for step in chain.steps(0, u32::MAX) {
        assert!(frames.insert(step.frame), "{:?} twice", step.frame);
        let (pack, range) = decoder.stored(&step).unwrap();
        let stored = store.object(pack.id())[range.start as usize..range.end as usize].to_vec();
        let mut damaged = stored.clone();
        damaged[0] ^= 1;
        assert_eq!(decoder.decode(&step, &damaged).unwrap_err().kind().name(), "corrupt");
        let pages = decoder.decode(&step, &stored).unwrap();
        for placed in &step.placed {
            let from = &pages[placed.first as usize * PAGE..][..placed.len as usize * PAGE];
            bytes[placed.page as usize * PAGE..][..from.len()].copy_from_slice(from);
        }
        most = most.max(decoder.kept());
    }
    assert!(bytes == *last.bytes);
    assert_eq!(decoder.kept(), 0);
    assert_eq!(frames.len() as u32, chain.cost(0, u32::MAX).frames);
    // A frame, or two that are begun, for each level.
    assert!(most <= 2 * 5 * 64 * PAGE, "{most} bytes were kept, of {}", bytes.len());
    let step = chain.steps(0, u32::MAX).pop().unwrap();
    assert!(!step.is_independent());
    assert_eq!(Decoder::new(&chain).decode(&step, &[]).unwrap_err().kind().name(), "invalid");
}

/// An edit of an image: where, how many pages, to what.
type Edit = (prop::sample::Index, usize, u32);

fn apply(seeds: &mut [u32], edits: &[Edit]) {
    for (at, len, seed) in edits {
        if seeds.is_empty() {
            return;
        }
        let at = at.index(seeds.len());
        let end = (at + len).min(seeds.len());
        (at..end).for_each(|at| seeds[at] = seed % 64 + (at as u32 % 3));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_chain_comes_back(
        seeds in prop::collection::vec(0u32..80, 0..700),
        steps in prop::collection::vec(
            (prop::collection::vec((any::<prop::sample::Index>(), 1usize..40, any::<u32>()), 0..12), 0usize..700, 0usize..PAGE,
             any::<[bool; 3]>(), 1u32..40),
            1..9,
        ),
        tail in 0usize..PAGE,
    ) {
        let mut seeds = seeds;
        let mut store = Store::default();
        let mut last = store.full(&image(&seeds, tail), &options(Profile::Compact, 7));
        store.check(&last, None);
        for (edits, len, tail, [image_too, digests, random], frame_pages) in steps {
            apply(&mut seeds, &edits);
            seeds.resize(len.max(seeds.len() / 2), 3);
            let profile = if random { Profile::Random } else { Profile::Compact };
            let uses = Uses { image: image_too, digests };
            let next = store.delta(&last, &image(&seeds, tail), uses, None, &options(profile, frame_pages)).unwrap();
            store.check(&next, Some(&last));
            last = next;
        }
    }
}
