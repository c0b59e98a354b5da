//! Bags against vectors that a daemon gave, and against themselves.

use proptest::prelude::*;

use super::*;
use crate::cell::merkle_root;

/// What the host would give of the pieces.
fn digests(bag: &Bag, bytes: &[u8]) -> Vec<u8> {
    let all = [&bag.header()[..], bytes].concat();
    all.chunks(bag.piece_size as usize).flat_map(|piece| <[u8; 32]>::from(Sha256::digest(piece))).collect()
}

fn id(bag: &Bag, bytes: &[u8]) -> String {
    bag.id(&merkle_root(&digests(bag, bytes)).unwrap().hash).unwrap().hex()
}

/// What tonutils-storage 1.4.1 calls a file of these bytes.
#[test]
fn known_bags() {
    let hello = Bag { description: String::new(), ..Bag::of_file("hello.txt", 18, None) };
    let bytes = b"hello ton storage\n";
    assert_eq!(id(&hello, bytes), "fdce766a62d2299420794298bb7515284a9ba40e52a6dcfa16d5559f7acf4be1");
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let three = Bag::of_file("three", 300_000, None);
    assert_eq!(three.pieces(), 3);
    assert_eq!(id(&three, &bytes), "405a00f394ed2b1ddced60fddbc48419c9a6f19d0edb15b88066bae60d4ec50e");
    let root = merkle_root(&digests(&three, &bytes)).unwrap().hash;
    assert_eq!(HEXLOWER.encode(&root), "e882a6191ee28e4607bd6675fcecd4f87e2c87c215e8a57cab8164f951035e48");
}

#[test]
fn pieces_grow_with_the_file_as_the_daemons_do() {
    let piece = |size| Bag::of_file("a", size, None).piece_size >> 10;
    let (mib, gib) = (1_u64 << 20, 1_u64 << 30);
    assert_eq!([0, 1, 512 * mib].map(piece), [128; 3]);
    assert_eq!([512 * mib + 1, 2 * gib].map(piece), [256; 2]);
    assert_eq!([2 * gib + 1, 10 * gib].map(piece), [512; 2]);
    assert_eq!([10 * gib + 1, 1 << 50].map(piece), [1024; 2]);
}

#[test]
fn the_header_counts_as_bytes_of_pieces() {
    let bag = Bag::of_file("k", 0, None);
    let header = bag.header().len() as u64;
    let pieces = |size| Bag { size, ..bag.clone() }.pieces();
    let piece = u64::from(SMALLEST_PIECE);
    assert_eq!([pieces(0), pieces(piece - header), pieces(piece - header + 1), pieces(2 * piece)], [1, 1, 2, 3]);
}

#[test]
fn no_bag_ends_with_a_piece() {
    let piece = u64::from(SMALLEST_PIECE);
    let header = Bag::of_file("key", 0, None).header().len() as u64;
    for pieces in [1, 2, 4096] {
        let exact = Bag::of_file("key", pieces * piece - header, None);
        assert_eq!((exact.name.as_str(), exact.pieces()), ("key_", pieces + 1));
        for near in [exact.size - 1, exact.size + 1] {
            assert_eq!(Bag::of_file("key", near, None).name, "key");
        }
    }
}

#[test]
fn lineage_is_in_the_description_and_in_one_cell() {
    let base = BagId([7; 32]);
    let bag = Bag::of_file("k", 9, Some(base));
    assert!(is_ours(&bag.description) && bag.base() == Some(base) && bag.description.len() <= FIRST_CHUNK + CHUNK);
    let plain = Bag::of_file("k", 9, None);
    assert!(is_ours(&plain.description) && plain.base().is_none());
    for foreign in ["", "tidelock ", "tidelock base=", "tidelock base=07", "my holiday", "tidelockx"] {
        let bag = Bag { description: foreign.into(), ..plain.clone() };
        assert!(!is_ours(&bag.description) && bag.base().is_none(), "{foreign}");
    }
    assert_ne!(id(&bag, &[0; 9]), id(&plain, &[0; 9]), "the id covers it");
}

#[test]
fn ids_are_64_digits() {
    let text = "fdce766a62d2299420794298bb7515284a9ba40e52a6dcfa16d5559f7acf4be1";
    assert_eq!(BagId::parse(text).unwrap().hex(), text);
    assert_eq!(BagId::parse(&text.to_uppercase()).unwrap().hex(), text);
    for bad in ["", "fd", &text[1..], &[text, "0"].concat(), &text.replace('f', "g"), &text.replace('f', " ")] {
        assert!(BagId::parse(bad).is_none(), "{bad}");
    }
}

proptest! {
    /// Whatever is said in a bag, saying something else makes it another bag.
    #[test]
    fn the_id_covers_everything(
        name in "[a-z0-9-]{1,20}",
        dir in "([a-z]{1,9}/)?",
        size in 0_u64..1 << 40,
        description in ".{0,300}",
        root in any::<Hash>(),
    ) {
        let bag = Bag { piece_size: SMALLEST_PIECE, dir, name, size, description };
        let id = bag.id(&root).unwrap();
        let mut other = root;
        other[31] ^= 1;
        prop_assert_ne!(bag.id(&other).unwrap(), id);
        for changed in [
            Bag { piece_size: 2 * SMALLEST_PIECE, ..bag.clone() },
            Bag { dir: [&bag.dir, "x/"].concat(), ..bag.clone() },
            Bag { name: [&bag.name, "x"].concat(), ..bag.clone() },
            Bag { size: size + 1, ..bag.clone() },
            Bag { description: [&bag.description, "x"].concat(), ..bag.clone() },
        ] {
            prop_assert_ne!(changed.id(&root).unwrap(), id);
        }
    }

    #[test]
    fn too_long_a_description_is_no_bag(extra in 0_usize..200) {
        let longest = FIRST_CHUNK + 254 * CHUNK;
        let bag = |len| Bag { description: "x".repeat(len), ..Bag::of_file("k", 1, None) };
        prop_assert!(bag(longest - extra).id(&[1; 32]).is_some());
        prop_assert!(bag(longest + 1 + extra).id(&[1; 32]).is_none());
    }
}
