//! What has to be read to prove a pack: all that could be wrong, and nothing else.

use std::sync::Arc;

use super::support::{Store, Uses, identify};
use crate::snapshot::pages::map::{Map, Place};
use crate::snapshot::pages::{Chain, Options, Pack, Profile};
use crate::snapshot::{Identity, SEGMENT, testing::pattern};

const BYTES: u64 = SEGMENT as u64;

/// A single range.
fn one(range: std::ops::Range<u64>) -> Vec<std::ops::Range<u64>> {
    std::iter::once(range).collect()
}

/// The same pack with another map.
fn with_map(pack: &Pack, change: impl Fn(u32, Place) -> Place) -> Arc<Pack> {
    let (mut map, mut pack) = (Map::default(), pack.clone());
    for page in 0..pack.map().pages() {
        map.push(1, change(page, pack.map().at(page)));
    }
    pack.contents.map = map;
    Arc::new(pack)
}

#[test]
fn only_what_differs_from_the_base_is_read() {
    let mut store = Store::default();
    let options = Options::new(Profile::Compact);
    let mut bytes = pattern(5 * SEGMENT + 100);
    let base = store.full(&bytes, &options);
    bytes[SEGMENT + 5] ^= 1;
    bytes[3 * SEGMENT..4 * SEGMENT].fill(0);
    let uses = Uses { image: true, digests: true };
    let new = store.delta(&base, &bytes, uses, None, &options).unwrap();
    let chain = store.chain(new.pack().id());
    let unproven = |chain: &Chain, identity: &Identity| chain.unproven(identity, Some(&base.identity));
    assert_eq!(unproven(&chain, &new.identity).unwrap(), one(BYTES..2 * BYTES));
    let whole = store.chain(base.pack().id());
    assert_eq!(whole.unproven(&base.identity, None).unwrap(), one(0..5 * BYTES + 100));
    // The end of one that is longer than its base is not that of the base.
    bytes.extend_from_slice(&[0; 100]);
    let longer = store.delta(&new, &bytes, uses, None, &options).unwrap();
    let chain_of_longer = store.chain(longer.pack().id());
    let found = chain_of_longer.unproven(&longer.identity, Some(&new.identity)).unwrap();
    assert_eq!(found, one(5 * BYTES..5 * BYTES + 200));

    // A map that lies: other pages, none at all, and pages of the base where there are others.
    let lying = |change: fn(u32, Place) -> Place| {
        Chain::new(with_map(chain.pack(), change), chain.packs()[1..].to_vec()).unwrap()
    };
    let moved = lying(|page, place| if page == 2 * 512 { Place::Stored { source: 1, page: 7 } } else { place });
    assert_eq!(unproven(&moved, &new.identity).unwrap(), one(BYTES..3 * BYTES));
    let empty = lying(|page, place| if page / 512 == 2 { Place::Nowhere } else { place });
    assert_eq!(unproven(&empty, &new.identity).unwrap_err().kind().name(), "corrupt");
    let old = lying(|page, place| if page / 512 == 1 { Place::Stored { source: 1, page } } else { place });
    assert_eq!(unproven(&old, &new.identity).unwrap_err().kind().name(), "corrupt");
}

#[test]
fn equal_segments_are_read_once_and_zeros_never() {
    let mut store = Store::default();
    let mut bytes = pattern(SEGMENT).repeat(6);
    bytes[4 * SEGMENT..].fill(0);
    let pack = store.full(&bytes, &Options::new(Profile::Compact));
    let place = |page, place| if page < 4 * 512 { pack.pack().map().at(page % 512) } else { place };
    let chain = Chain::new(with_map(pack.pack(), place), Vec::new()).unwrap();
    assert_eq!(chain.unproven(&identify(&bytes), None).unwrap(), one(0..BYTES));
    // One of them is said to be another one.
    bytes[2 * SEGMENT] ^= 1;
    assert_eq!(chain.unproven(&identify(&bytes), None).unwrap_err().kind().name(), "corrupt");
}
