//! A change of another object: a DAG-CBOR node that links both, whose name is the change's id.
//!
//! ```text
//! { "base": link, "name": "NAMESPACE/KEY", "size": bytes of the change, "delta": link }
//! ```
//!
//! The keys stand in DAG-CBOR's order, and there are no others: a node that differs in anything is not ours. With the key
//! in it, no two changes share a node. Anybody's tools follow the links: `ipfs cat NODE/delta`, `ipfs dag get NODE`.

use crate::cbor::{link, map, number, put_link, put_map, put_number, put_text, text};
use crate::cid::{Cid, Codec};
use crate::{Parsed, Sha256};

/// What is known of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// What it changes.
    pub base: Cid,
    /// What pins of plain objects say in their names: who stored it, under which key.
    pub name: String,
    /// The bytes of the change.
    pub size: u64,
    /// The file that holds them.
    pub delta: Cid,
}

impl Lineage {
    /// The node.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        put_map(4, &mut out);
        put_text("base", &mut out);
        put_link(&self.base, &mut out);
        put_text("name", &mut out);
        put_text(&self.name, &mut out);
        put_text("size", &mut out);
        put_number(self.size, &mut out);
        put_text("delta", &mut out);
        put_link(&self.delta, &mut out);
        out
    }

    /// The name of the node.
    pub fn cid(&self, sha256: Sha256) -> Cid {
        Cid::of_block(Codec::DagCbor, &self.encode(), sha256)
    }

    /// Reads a node.
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
    fn a_node_is_read_back_and_nothing_else_is_one() {
        let block = sample().encode();
        assert_eq!(Lineage::parse(&block), Ok(sample()));
        assert!(sample().cid(sha256).names(&block, sha256));
        assert!(Lineage::parse(&[&block[..], &[0]].concat()).is_err());
        for cut in 0..block.len() {
            assert!(Lineage::parse(&block[..cut]).is_err());
        }
        let nested = Lineage { delta: sample().cid(sha256), ..sample() };
        assert!(Lineage::parse(&nested.encode()).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_borne(bytes: Vec<u8>) {
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
