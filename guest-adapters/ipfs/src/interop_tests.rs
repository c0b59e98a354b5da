//! The formats of IPFS, compared with crates of other authors: `cid`, `unsigned-varint` and `serde_ipld_dagcbor`.
//!
//! What this crate writes, they read as the same value, and the other way round. What this crate accepts, they accept
//! too. The converse does not hold: they accept more than one form of the same value, and ADR 18 has the list.

use cid::CidGeneric;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::car::check_header;
use crate::cid::{Cid, Codec};
use crate::lineage::Lineage;
use crate::testing::sha256;
use crate::varint;

/// A CID of the crate `cid`, with room for the largest block that a CID holds.
type Other = CidGeneric<128>;

/// The node of `Lineage`, as `serde_ipld_dagcbor` reads and writes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    base: Other,
    name: String,
    size: u64,
    delta: Other,
}

/// The header of a CAR, as `serde_ipld_dagcbor` reads and writes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CarHeader {
    roots: Vec<Other>,
    version: u64,
}

fn other(cid: &Cid) -> Other {
    Other::try_from(&cid.to_bytes()[..]).unwrap()
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(vec![Codec::Raw, Codec::DagPb, Codec::DagCbor])
}

fn any_sha256_cid() -> impl Strategy<Value = Cid> {
    (any_codec(), any::<[u8; 32]>()).prop_map(|(codec, digest)| Cid::of_digest(codec, digest))
}

/// A CID with a byte of it changed, of any of the forms that are accepted, and some that are not.
fn damaged_cid() -> impl Strategy<Value = Vec<u8>> {
    let version_0 = any::<[u8; 32]>().prop_map(|digest| [&[0x12, 0x20][..], &digest].concat());
    let identity = prop::collection::vec(any::<u8>(), 0..140).prop_map(|block| {
        let mut bytes = vec![1, 0x55, 0];
        varint::write(block.len() as u64, &mut bytes);
        [bytes, block].concat()
    });
    let whole = prop_oneof![any_sha256_cid().prop_map(|cid| cid.to_bytes()), version_0, identity];
    (whole, any::<prop::sample::Index>(), any::<Option<u8>>()).prop_map(|(mut bytes, at, with)| {
        let at = at.index(bytes.len());
        if let Some(with) = with {
            bytes[at] = with;
        }
        bytes
    })
}

/// Second forms that the other crates accept, so that it is noticed when they no longer do.
#[test]
fn forms_that_only_the_others_accept() {
    // The tenth byte has room for one bit; the others are dropped.
    let overflowing = [0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2];
    assert_eq!(unsigned_varint::decode::u64(&overflowing), Ok((1, &[][..])));
    assert!(varint::read(&mut &overflowing[..]).is_err());
    let cid = Cid::of_block(Codec::Raw, b"", sha256);
    let bytes = cid.to_bytes();
    for second in [[&overflowing[..], &bytes[1..]].concat(), [&bytes[..], b"more"].concat()] {
        assert_eq!(Other::try_from(&second[..]).unwrap(), other(&cid));
        assert!(Cid::of_bytes(&second).is_err());
    }
    let text = cid.to_string();
    for second in [text.to_uppercase(), ["/ipfs/", &text].concat(), ["https://example.org/ipfs/", &text].concat()] {
        assert_eq!(Other::try_from(&second[..]).unwrap(), other(&cid));
        assert!(Cid::parse(&second).is_err(), "{second}");
    }
}

proptest! {
    #[test]
    fn varints_agree(value: u64, bytes: Vec<u8>) {
        let mut written = Vec::new();
        varint::write(value, &mut written);
        prop_assert_eq!(unsigned_varint::decode::u64(&written), Ok((value, &[][..])));
        let mut buffer = unsigned_varint::encode::u64_buffer();
        prop_assert_eq!(unsigned_varint::encode::u64(value, &mut buffer), &written[..]);
        let mut left = &bytes[..];
        if let Ok(value) = varint::read(&mut left) {
            prop_assert_eq!(unsigned_varint::decode::u64(&bytes), Ok((value, left)));
        }
    }

    #[test]
    fn cids_agree(bytes in damaged_cid()) {
        if let Ok(cid) = Cid::of_bytes(&bytes) {
            let other = Other::try_from(&bytes[..]).unwrap();
            prop_assert_eq!(other.to_bytes(), cid.to_bytes());
            prop_assert_eq!(other.to_string(), cid.to_string());
            prop_assert_eq!(Cid::parse(&other.to_string()), Ok(cid));
        }
    }

    #[test]
    fn base58_agrees(cid in any_sha256_cid()) {
        let text = other(&cid).to_string_of_base(cid::multibase::Base::Base58Btc).unwrap();
        prop_assert_eq!(Cid::parse(&text), Ok(cid));
    }

    #[test]
    fn nodes_of_changes_agree(base in any_sha256_cid(), name in ".{0,40}", size: u64, delta in any::<[u8; 32]>()) {
        let node = Lineage { base, name, size, delta: Cid::of_digest(Codec::Raw, delta) };
        let block = node.encode();
        let read: Node = serde_ipld_dagcbor::from_slice(&block).unwrap();
        prop_assert_eq!((&read.base, &read.name, read.size), (&other(&node.base), &node.name, node.size));
        prop_assert_eq!(&read.delta, &other(&node.delta));
        prop_assert_eq!(serde_ipld_dagcbor::to_vec(&read).unwrap(), block);
    }

    #[test]
    fn damaged_nodes_are_read_alike(at: prop::sample::Index, with: u8) {
        let cid = Cid::of_block(Codec::Raw, b"", sha256);
        let mut block = Lineage { base: cid.clone(), name: "tidelock/k".into(), size: 70_000, delta: cid }.encode();
        let at = at.index(block.len());
        block[at] = with;
        if Lineage::parse(&block).is_ok() {
            let read: Node = serde_ipld_dagcbor::from_slice(&block).unwrap();
            prop_assert_eq!(serde_ipld_dagcbor::to_vec(&read).unwrap(), block);
        }
    }

    #[test]
    fn headers_of_cars_agree(roots in prop::collection::vec(any_sha256_cid(), 0..4), version in 0_u64..3) {
        let header = CarHeader { roots: roots.iter().map(other).collect(), version };
        prop_assert_eq!(check_header(&serde_ipld_dagcbor::to_vec(&header).unwrap()).is_ok(), version == 1);
    }
}
