//! What a writer makes, a reader takes: with the same limits, each refuses what the other one would.

use proptest::prelude::*;

use super::support::{Store, Uses, Version, open_within};
use crate::snapshot::pages::{Chain, Limits, Options, Profile};
use crate::types::Result;

const PAGE: usize = 4096;
const PAGES: usize = 700;

fn image(changed: &[usize], round: u8) -> Vec<u8> {
    let mut bytes = crate::snapshot::testing::pattern(PAGES * PAGE);
    changed.iter().for_each(|page| bytes[page * PAGE + 9] ^= round | 1);
    bytes
}

fn delta(store: &mut Store, base: &Version, bytes: &[u8], profile: Profile, limits: Limits) -> Result<Version> {
    let options = Options { frame_pages: 8, threads: 1, limits, ..Options::new(profile) };
    store.delta(base, bytes, Uses { image: true, digests: true }, None, &options)
}

/// Reads a pack and its sources as a reader with these limits does; the sources have been read before.
fn read(store: &Store, version: &Version, limits: Limits) -> Result<Chain> {
    let id = version.pack().id();
    let pack = open_within(&store.object(id), id, limits)?;
    Chain::within(pack, store.chain(id).packs()[1..].to_vec(), limits)
}

/// The least that a reader takes a pack with.
fn least(read: impl Fn(u32) -> bool) -> u32 {
    let (mut no, mut yes) = (0, u32::MAX);
    while yes - no > 1 {
        let middle = no + (yes - no) / 2;
        if read(middle) { yes = middle } else { no = middle }
    }
    yes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_pack_that_a_reader_would_refuse_is_not_made(
        changed in prop::collection::vec(0..PAGES, 1..200),
        more in prop::collection::vec(0..PAGES, 1..100),
        random: bool,
        limit in 0u32..20_000,
        of in 0..3,
    ) {
        let mut store = Store::default();
        let profile = if random { Profile::Random } else { Profile::Compact };
        let base = store.full(&image(&[], 0), &Options::new(Profile::Compact));
        let limits = |limit: u32| match of {
            0 => Limits { metadata: limit, ..Limits::DEFAULT },
            1 => Limits { items: limit, ..Limits::DEFAULT },
            _ => Limits { chain_memory: limit as usize, ..Limits::DEFAULT },
        };
        let first = delta(&mut store, &base, &image(&changed, 2), profile, Limits::DEFAULT).unwrap();
        let next = image(&[changed, more].concat(), 4);
        let whole = delta(&mut store, &first, &next, profile, Limits::DEFAULT).unwrap();
        let all = least(|limit| read(&store, &whole, limits(limit)).is_ok());
        prop_assert!(all > 0 && all < 1 << 20);
        for limit in [limit, all - 1, all] {
            match delta(&mut store, &first, &next, profile, limits(limit)) {
                Ok(made) => {
                    prop_assert!(limit >= all);
                    prop_assert!(read(&store, &made, limits(limit)).is_ok());
                }
                Err(error) => {
                    prop_assert!(limit < all, "{}", error);
                    prop_assert_eq!(error.kind().name(), "unsupported");
                }
            }
        }
    }
}
