//! What a writer makes, a reader takes: with the same limits, each refuses what the other one would.

use proptest::prelude::*;

use super::support::{Store, Uses, Version, open_within};
use crate::snapshot::pages::{Limits, Options, Profile};
use crate::types::Result;

const PAGE: usize = 4096;
const PAGES: usize = 700;

fn image(changed: &[usize], round: u8) -> Vec<u8> {
    let mut bytes = crate::snapshot::testing::pattern(PAGES * PAGE);
    changed.iter().for_each(|page| bytes[page * PAGE + 9] ^= round | 1);
    bytes
}

fn delta(store: &mut Store, base: &Version, bytes: &[u8], profile: Profile, metadata: u32) -> Result<Version> {
    let options = Options { frame_pages: 8, threads: 1, limits: Limits { metadata }, ..Options::new(profile) };
    store.delta(base, bytes, Uses { image: true, digests: true }, None, &options)
}

/// The metadata of a pack and its sources, and the most of one of them that a reader looks at.
fn metadata(store: &Store, version: &Version) -> u64 {
    store.chain(version.pack().id()).packs().iter().map(|pack| pack.metadata()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_pack_that_a_reader_would_refuse_is_not_made(
        changed in prop::collection::vec(0..PAGES, 1..200),
        more in prop::collection::vec(0..PAGES, 1..100),
        random: bool,
        limit in 0u32..20_000,
    ) {
        let mut store = Store::default();
        let profile = if random { Profile::Random } else { Profile::Compact };
        let base = store.full(&image(&[], 0), &Options::new(Profile::Compact));
        let first = delta(&mut store, &base, &image(&changed, 2), profile, u32::MAX).unwrap();
        let next = image(&[changed, more].concat(), 4);
        let whole = delta(&mut store, &first, &next, profile, Limits::DEFAULT.metadata).unwrap();
        let all = u32::try_from(metadata(&store, &whole)).unwrap();
        for limit in [limit, all - 1, all] {
            match delta(&mut store, &first, &next, profile, limit) {
                Ok(made) => {
                    prop_assert!(limit >= all);
                    for pack in store.chain(made.pack().id()).packs() {
                        let object = store.object(pack.id());
                        let opened = open_within(&object, pack.id(), Limits { metadata: limit });
                        prop_assert!(opened.is_ok());
                    }
                }
                Err(error) => {
                    prop_assert!(limit < all, "{}", error);
                    prop_assert_eq!(error.kind().name(), "unsupported");
                }
            }
        }
    }
}
