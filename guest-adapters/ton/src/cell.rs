//! Hashes of cells, and the Merkle tree over a bag's pieces.
//!
//! A cell has up to 127 bytes of data and up to four references to other cells. Its hash is the SHA-256 of two bytes that
//! describe it (the number of references; twice the bytes of data), the data, the depth of each cell that it refers to and
//! then the hash of each (TON's whitepaper, *Telegram Open Network Virtual Machine*, §3.1). All cells here are ordinary
//! ones of level 0 whose data are whole bytes.
//!
//! The adapter computes these digests itself: they are many, and each is of a few bytes.

use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Hash and depth of a cell, on which the cells that refer to it depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its hash.
    pub hash: Hash,
    /// The length of the longest path below it, in cells.
    pub depth: u16,
}

/// The most bytes of data in a cell.
pub const MAX_DATA: usize = 127;

/// The most references of a cell.
pub const MAX_REFS: usize = 4;

/// Returns hash and depth of an ordinary cell. `None` for more data or references than a cell can have.
pub fn ordinary(data: &[u8], refs: &[Node]) -> Option<Node> {
    if data.len() > MAX_DATA || refs.len() > MAX_REFS {
        return None;
    }
    let mut hasher = Sha256::new();
    hasher.update([refs.len() as u8, 2 * data.len() as u8]);
    hasher.update(data);
    let mut depth = 0;
    for node in refs {
        hasher.update(node.depth.to_be_bytes());
        depth = depth.max(node.depth.checked_add(1)?);
    }
    for node in refs {
        hasher.update(node.hash);
    }
    Some(Node { hash: hasher.finalize().into(), depth })
}

/// Returns the root of the tree over pieces, from their digests one after the other. A tree of one piece is its leaf;
/// others are padded to a power of two with leaves of zeros. `None` if these are not digests, or none.
pub fn merkle_root(digests: &[u8]) -> Option<Node> {
    let (digests, rest) = digests.as_chunks::<32>();
    if digests.is_empty() || !rest.is_empty() {
        return None;
    }
    // The roots of full subtrees, the largest first: as many as there are ones in the number of leaves.
    let mut roots: Vec<(u32, Node)> = Vec::new();
    for digest in digests {
        push(&mut roots, 0, ordinary(digest, &[])?)?;
    }
    let mut padding = Padding { root: ordinary(&[0; 32], &[])?, height: 0 };
    while let [.., _, (height, _)] = roots[..] {
        let node = padding.of(height)?;
        push(&mut roots, height, node)?;
    }
    roots.first().map(|(_, root)| *root)
}

/// Adds a subtree on the right.
fn push(roots: &mut Vec<(u32, Node)>, mut height: u32, mut node: Node) -> Option<()> {
    while let Some((_, left)) = roots.pop_if(|(at, _)| *at == height) {
        node = ordinary(&[], &[left, node])?;
        height += 1;
    }
    roots.push((height, node));
    Some(())
}

/// Subtrees of zero leaves, each built from the one below it.
struct Padding {
    root: Node,
    height: u32,
}

impl Padding {
    /// Returns the subtree of this height. Heights must not decrease from call to call.
    fn of(&mut self, height: u32) -> Option<Node> {
        while self.height < height {
            self.root = ordinary(&[], &[self.root, self.root])?;
            self.height += 1;
        }
        Some(self.root)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tree as it is described, level by level.
    fn plain(digests: &[Hash]) -> Node {
        let mut level: Vec<Node> = digests.iter().map(|digest| ordinary(digest, &[]).unwrap()).collect();
        level.resize(level.len().next_power_of_two(), ordinary(&[0; 32], &[]).unwrap());
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| ordinary(&[], pair).unwrap()).collect();
        }
        level[0]
    }

    #[test]
    fn the_empty_cell_has_its_well_known_hash() {
        let hash = data_encoding::HEXLOWER.encode(&ordinary(&[], &[]).unwrap().hash);
        assert_eq!(hash, "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7");
    }

    #[test]
    fn a_cell_has_bounds() {
        let node = ordinary(&[], &[]).unwrap();
        assert!(ordinary(&[0; 127], &[node; 4]).is_some());
        assert!(ordinary(&[0; 128], &[]).is_none() && ordinary(&[], &[node; 5]).is_none());
        assert!(ordinary(&[], &[Node { depth: u16::MAX, ..node }]).is_none());
        assert!(merkle_root(&[]).is_none() && merkle_root(&[0; 33]).is_none());
    }

    proptest! {
        #[test]
        fn the_root_is_that_of_the_whole_tree(digests in prop::collection::vec(any::<Hash>(), 1..70)) {
            prop_assert_eq!(merkle_root(&digests.concat()).unwrap(), plain(&digests));
        }
    }
}
