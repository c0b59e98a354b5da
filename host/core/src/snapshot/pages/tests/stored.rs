//! Packs of pages as they are, and bases that have yet to be proven.

use std::sync::Arc;

use super::support::{Store, Uses, identify};
use crate::snapshot::pages::{
    Base, Coding, Image, Options, PageDigests, Profile, changed_bytes, encode_delta, page_is, write_digests,
};
use crate::snapshot::{Identity, SEGMENT, pages_of};
use crate::types::{ErrorKind, Result};

const PAGE: usize = 4096;

fn stored() -> Options {
    Options { level: 0, threads: 2, ..Options::new(Profile::Random) }
}

/// An image of pages that compress, and a version of it in which some are others, zeros, and moved.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let old: Vec<u8> = (0..3 * SEGMENT + 777).map(|at| (at / PAGE % 251) as u8 ^ (at % 7) as u8).collect();
    let mut new = old.clone();
    for page in [0, 3, 511, 512, 700, 1500] {
        new[page * PAGE + 5] ^= 0x55;
    }
    new[40 * PAGE..44 * PAGE].fill(0);
    new.copy_within(3 * PAGE..4 * PAGE, 900 * PAGE);
    new.extend_from_slice(&[7; 5000]);
    (old, new)
}

#[test]
fn pages_are_stored_as_they_are_and_come_back() {
    let (old, new) = versions();
    let mut store = Store::default();
    let full = store.full(&old, &stored());
    store.check(&full, None);
    let uses = Uses { image: true, digests: true };
    let delta = store.delta(&full, &new, uses, None, &stored()).unwrap();
    store.check(&delta, Some(&full));
    for version in [&full, &delta] {
        let (pack, chain) = (version.pack(), store.chain(version.pack().id()));
        assert!(pack.frames().as_slice().iter().all(|frame| frame.coding == Coding::Raw));
        for part in chain.parts(0, u32::MAX) {
            let Some(at) = part.at else { continue };
            let object = store.object(chain.packs()[usize::from(at.frame.source)].id());
            let start = chain.direct(at).unwrap() as usize;
            for (number, page) in object[start..start + part.len as usize * PAGE].chunks(PAGE).enumerate() {
                let from = (part.first as usize + number) * PAGE;
                let expected = &version.bytes[from..(from + PAGE).min(version.bytes.len())];
                assert!(page.starts_with(expected) && page[expected.len()..].iter().all(|byte| *byte == 0));
            }
        }
    }
    // Those that are compressed do not lie anywhere as they are.
    let compact = store.full(&old, &Options::new(Profile::Compact));
    let chain = store.chain(compact.pack().id());
    assert!(chain.parts(0, 9).iter().filter_map(|part| part.at).all(|at| chain.direct(at).is_none()));
}

#[test]
fn what_lies_outside_of_the_changed_bytes_is_as_it_was() {
    let (old, new) = versions();
    let mut store = Store::default();
    for options in [stored(), Options::new(Profile::Compact)] {
        let base = store.full(&old, &options);
        let uses = Uses { image: true, digests: true };
        let delta = store.delta(&base, &new, uses, None, &options).unwrap();
        let changed = changed_bytes(delta.pack(), base.pack());
        let all: u64 = changed.iter().map(|range| range.end - range.start).sum();
        assert!(all < 20 * PAGE as u64, "{changed:?}");
        let mut patched = old.clone();
        patched.resize(new.len(), 0);
        for range in &changed {
            let range = range.start as usize..(range.end as usize).min(new.len());
            patched[range.clone()].copy_from_slice(&new[range]);
        }
        assert!(patched == new);
        // They are enough for the same delta.
        let again = store.delta(&base, &new, uses, Some(&changed), &options).unwrap();
        assert_eq!(again.pack().id(), delta.pack().id());
    }
}

#[test]
fn page_digests_are_those_of_the_image() {
    let (old, _) = versions();
    let mut written = Vec::new();
    let identity = write_digests(&old, 2, &mut written).unwrap();
    assert_eq!(identity, identify(&old));
    let digests = PageDigests::open(Box::new(written), Arc::new(identity)).unwrap();
    for (number, segment) in (0u32..).zip(old.chunks(SEGMENT)) {
        assert_eq!(digests.segment(number).unwrap(), pages_of(segment));
        for (at, page) in segment.chunks(PAGE).enumerate() {
            let (mut bytes, number) = (page.to_vec(), number * 512 + at as u32);
            bytes.resize(PAGE, 0);
            assert!(page_is(old.len() as u64, number, &bytes, &pages_of(segment)[at]));
            bytes[page.len() - 1] ^= 1;
            assert!(!page_is(old.len() as u64, number, &bytes, &pages_of(segment)[at]));
        }
    }
    assert!(!page_is(old.len() as u64, u32::MAX, &[0; PAGE], &[0; 32]));
}

/// An image that nobody has proven.
struct Unproven(Vec<u8>);

impl Image for Unproven {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn is_proven(&self) -> bool {
        false
    }
}

#[test]
fn a_base_that_has_rotted_is_noticed_wherever_it_is_read() {
    let (old, new) = versions();
    let mut store = Store::default();
    let base = store.full(&old, &stored());
    let chain = store.chain(base.pack().id());
    let identity: &Identity = &base.identity;
    let digests = base.page_digests();
    let wanted = [0..5 * PAGE as u64, 700 * PAGE as u64..702 * PAGE as u64];
    let encode = |image: &Unproven, digests: Option<&PageDigests>, changed| {
        let against = Base { chain: &chain, identity, image: Some(image), digests };
        encode_delta(&new, &against, changed, &Options::new(Profile::Compact), None, &mut |_| Ok(()))
    };
    for changed in [None, Some(&wanted[..])] {
        for digests in [None, Some(&digests)] {
            encode(&Unproven(old.clone()), digests, changed).unwrap();
            // In a page that has changed, in one that has not, and so that the new image has the same.
            for (page, byte) in [(3, 9), (701, 9), (700, 5)] {
                let mut rotten = old.clone();
                rotten[page * PAGE + byte] ^= 0x55;
                let error = encode(&Unproven(rotten), digests, changed).unwrap_err();
                assert_eq!(*error.kind(), ErrorKind::Corrupt, "page {page}, {changed:?}, {error}");
            }
        }
    }
}
