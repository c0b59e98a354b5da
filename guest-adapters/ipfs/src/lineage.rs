//! The node of an incremental object: DAG-CBOR that links base and delta. Its CID is the object's id.
//!
//! ```text
//! { "base": link, "name": "NAMESPACE/KEY", "size": bytes of the delta, "delta": link }
//! ```
//!
//! The keys are in the order of DAG-CBOR, and there are no others: a node that differs is not one of this adapter. It
//! holds the object's key, so no two objects share a node. Any tool can follow the links: `ipfs cat NODE/delta`,
//! `ipfs dag get NODE`.

use crate::cbor::{link, map, number, text, write_link, write_map, write_number, write_text};
use crate::cid::{Cid, Codec};
use crate::{Parsed, Sha256};

/// An incremental object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The object that it changes.
    pub base: Cid,
    /// `NAMESPACE/KEY`, as in the name of the pin of a full object.
    pub name: String,
    /// The size of the delta, in bytes.
    pub size: u64,
    /// The file of the delta.
    pub delta: Cid,
}

impl Lineage {
    /// Returns the encoded node.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        write_map(4, &mut out);
        write_text("base", &mut out);
        write_link(&self.base, &mut out);
        write_text("name", &mut out);
        write_text(&self.name, &mut out);
        write_text("size", &mut out);
        write_number(self.size, &mut out);
        write_text("delta", &mut out);
        write_link(&self.delta, &mut out);
        out
    }

    /// Returns the CID of the node.
    pub fn cid(&self, sha256: Sha256) -> Cid {
        Cid::of_block(Codec::DagCbor, &self.encode(), sha256)
    }

    /// Parses a node.
    pub fn parse(block: &[u8]) -> Parsed<Self> {
        const OTHER: &str = "it is not a node of this adapter";
        let mut left = block;
        let key = |left: &mut &[u8], expected| if text(left)? == expected { Ok(()) } else { Err(OTHER) };
        if map(&mut left).map_err(|_| OTHER)? != 4 {
            return Err(OTHER);
        }
        key(&mut left, "base")?;
        let base = link(&mut left)?;
        key(&mut left, "name")?;
        let name = text(&mut left)?.to_owned();
        key(&mut left, "size")?;
        let size = number(&mut left)?;
        key(&mut left, "delta")?;
        let delta = link(&mut left)?;
        if !left.is_empty() || delta.codec() == Codec::DagCbor {
            return Err(OTHER);
        }
        Ok(Self { base, name, size, delta })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::sha256;

    fn sample() -> Lineage {
        let raw = |byte: &[u8]| Cid::of_block(Codec::Raw, byte, sha256);
        Lineage { base: raw(b"base"), name: "tidelock/snap-1".into(), size: 5, delta: raw(b"delta") }
    }

    #[test]
    fn a_node_round_trips_and_nothing_else_is_one() {
        let block = sample().encode();
        assert_eq!(Lineage::parse(&block), Ok(sample()));
        assert!(sample().cid(sha256).matches(&block, sha256));
        assert!(Lineage::parse(&[&block[..], &[0]].concat()).is_err());
        for cut in 0..block.len() {
            assert!(Lineage::parse(&block[..cut]).is_err());
        }
        let nested = Lineage { delta: sample().cid(sha256), ..sample() };
        assert!(Lineage::parse(&nested.encode()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes: Vec<u8>) {
            let _ = Lineage::parse(&bytes);
        }

        #[test]
        fn a_node_has_one_form(at: prop::sample::Index, with: u8) {
            let mut block = sample().encode();
            let at = at.index(block.len());
            block[at] = with;
            if let Ok(read) = Lineage::parse(&block) {
                prop_assert_eq!(read.encode(), block);
            }
        }
    }
}
