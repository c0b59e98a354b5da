//! The order of the blocks of a file, and the checks on each.
//!
//! A walk knows the CID of the next block. It takes the block, compares it with the size that the parent states, and
//! returns the bytes of the file in it. Parents come before children and children in order, as in a CAR. Subtrees outside
//! the wanted range are skipped, by the sizes in the nodes.
//!
//! The source of a block checks it against its CID. Everything else follows from the CID of the root, since it covers the
//! links and sizes of all nodes; a node that contradicts its parent was made that way.

use std::ops::Range;

use crate::Parsed;
use crate::cid::{Cid, Codec};
use crate::unixfs::File;

/// The most links that a walk holds: those of the nodes on the path from the root. Kubo's nodes have 174 or 1024.
const MAX_LINKS: usize = 200_000;

/// A subtree that is still to be visited.
#[derive(Debug)]
struct Ahead {
    cid: Cid,
    /// Its offset in the file.
    start: u64,
    /// The number of bytes of the file in and below it.
    size: u64,
}

/// A walk through a file, or a part of it.
#[derive(Debug)]
pub struct Walk {
    /// The next one last.
    ahead: Vec<Ahead>,
    wanted: Range<u64>,
}

impl Walk {
    /// Starts a walk through a file of `size` bytes, for the range `wanted`.
    pub fn new(root: Cid, size: u64, wanted: Range<u64>) -> Self {
        let ahead = if wanted.is_empty() { Vec::new() } else { vec![Ahead { cid: root, start: 0, size }] };
        Self { ahead, wanted }
    }

    /// Returns the CID of the next block that is needed; `None` at the end.
    pub fn next(&mut self) -> Option<Cid> {
        let wanted = |ahead: &Ahead| {
            ahead.size > 0 && ahead.start < self.wanted.end && ahead.start + ahead.size > self.wanted.start
        };
        while self.ahead.last().is_some_and(|ahead| !wanted(ahead)) {
            self.ahead.pop();
        }
        self.ahead.last().map(|ahead| ahead.cid.clone())
    }

    /// Returns whether the block that `next` returned is needed again by a node that has been read.
    pub fn repeats(&self) -> bool {
        let mut ahead = self.ahead.iter().rev();
        ahead.next().is_some_and(|next| ahead.any(|later| later.cid == next.cid))
    }

    /// Takes the block that `next` returned, checked against its CID. Returns the wanted bytes of the file in it.
    pub fn take(&mut self, block: Vec<u8>) -> Parsed<Vec<u8>> {
        let at = self.ahead.pop().ok_or("there is one block too many")?;
        match at.cid.codec() {
            Codec::Raw if block.len() as u64 == at.size => Ok(self.cut(block, at.start)),
            Codec::Raw => Err("a leaf has another size than its parent states"),
            Codec::DagCbor => Err("a file has a node of another format"),
            Codec::DagPb => {
                let file = File::parse(&block)?;
                if file.size != at.size {
                    return Err("a node has another size than its parent states");
                }
                if self.ahead.len() + file.children.len() > MAX_LINKS {
                    return Err("a file has too many links at once");
                }
                let mut end = at.start + at.size;
                for (cid, size) in file.children.into_iter().rev() {
                    // `File::parse` has checked that the sizes add up.
                    end -= size;
                    self.ahead.push(Ahead { cid, start: end, size });
                }
                let data = file.data.to_vec();
                Ok(self.cut(data, at.start))
            }
        }
    }

    /// Returns the wanted part of bytes at the offset `start`.
    fn cut(&self, mut bytes: Vec<u8>, start: u64) -> Vec<u8> {
        let end = start + bytes.len() as u64;
        // Within the bytes, so within memory.
        let to = self.wanted.end.clamp(start, end) - start;
        let from = self.wanted.start.clamp(start, start + to) - start;
        bytes.truncate(to as usize);
        if from > 0 {
            bytes.drain(..from as usize);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{bytes, sha256};
    use crate::unixfs::{Child, encode};

    /// The blocks of a file in pieces, by name, with the root's.
    fn file(data: &[u8], chunk: usize, links: usize) -> (Cid, HashMap<Cid, Vec<u8>>) {
        let mut blocks = HashMap::new();
        let mut level: Vec<Child> = Vec::new();
        for piece in data.chunks(chunk) {
            let cid = Cid::of_block(Codec::Raw, piece, sha256);
            blocks.insert(cid.clone(), piece.to_vec());
            level.push(Child { cid, size: piece.len() as u64, total: piece.len() as u64 });
        }
        loop {
            let above = level.chunks(links).map(|few| {
                let block = encode(few);
                let cid = Cid::of_block(Codec::DagPb, &block, sha256);
                blocks.insert(cid.clone(), block);
                Child { cid, size: few.iter().map(|child| child.size).sum(), total: 0 }
            });
            level = above.collect();
            if let [root] = &level[..] {
                return (root.cid.clone(), blocks);
            }
        }
    }

    fn read(root: Cid, blocks: &HashMap<Cid, Vec<u8>>, size: u64, wanted: Range<u64>) -> Parsed<(Vec<u8>, usize)> {
        let mut walk = Walk::new(root, size, wanted);
        let (mut out, mut visited) = (Vec::new(), 0);
        while let Some(cid) = walk.next() {
            out.extend(walk.take(blocks[&cid].clone())?);
            visited += 1;
        }
        Ok((out, visited))
    }

    #[test]
    fn a_node_that_contradicts_its_parent_is_refused() {
        let data = bytes(100);
        let (root, mut blocks) = file(&data, 7, 3);
        assert!(read(root.clone(), &blocks, 99, 0..99).is_err(), "the root's size");
        let leaf = Cid::of_block(Codec::Raw, &data[21..28], sha256);
        blocks.insert(leaf, vec![1; 6]);
        assert!(read(root.clone(), &blocks, 100, 0..100).is_err(), "a leaf's size");
        assert_eq!(read(root, &blocks, 100, 0..20).unwrap().0, data[..20], "it is not in this part");
    }

    #[test]
    fn nodes_without_end_are_refused() {
        let wide: Vec<_> = (0..60_000u32)
            .map(|n| {
                let mut digest = [0; 32];
                digest[..4].copy_from_slice(&n.to_le_bytes());
                Child { cid: Cid::of_digest(Codec::DagPb, digest), size: 1, total: 1 }
            })
            .collect();
        let block = encode(&wide);
        let mut walk = Walk::new(wide[0].cid.clone(), 60_000, 0..60_000);
        let mut taken = 0;
        let error = loop {
            walk.next().unwrap();
            // Each child states the size of the whole file.
            walk.ahead.last_mut().unwrap().size = 60_000;
            match walk.take(block.clone()) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(error.contains("too many links") && taken == 3, "{taken} {error}");
    }

    proptest! {
        #[test]
        fn any_part_of_any_file(size in 1usize..400, chunk in 1usize..40, links in 2usize..5, from in 0u64..420, to in 0u64..420) {
            let data = bytes(size);
            let (root, blocks) = file(&data, chunk, links);
            let (from, to) = (from.min(size as u64), to.clamp(from.min(size as u64), size as u64));
            let (read, visited) = read(root, &blocks, size as u64, from..to).unwrap();
            prop_assert_eq!(&read[..], &data[from as usize..to as usize]);
            let touched = ((to as usize).div_ceil(chunk)).saturating_sub(from as usize / chunk);
            prop_assert!(visited <= touched * 10, "{} blocks for {} leaves", visited, touched);
        }

        #[test]
        fn any_bytes_are_handled(block: Vec<u8>, size in 0u64..300, wanted in 0u64..300) {
            for codec in [Codec::Raw, Codec::DagPb, Codec::DagCbor] {
                let mut walk = Walk::new(Cid::of_digest(codec, [0; 32]), size, wanted..size);
                while walk.next().is_some() && walk.take(block.clone()).is_ok() {}
            }
        }
    }
}
