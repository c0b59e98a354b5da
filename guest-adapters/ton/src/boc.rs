//! Proofs that a piece belongs to a bag, as the daemon gives them: a bag of cells whose root is a Merkle proof.
//!
//! A Merkle proof is a tree in which whole branches are left out; each is replaced by a *pruned* cell that has the branch's
//! hash and depth as its data. So the hash of the whole tree can be computed, and is that of the bag's tree, or the proof
//! is of something else. The leaves that are not left out are then leaves of that tree.
//!
//! A proof is what a daemon says, so it is bounded before it is believed: cells refer to later ones alone, so that there
//! are no circles, and are at most [`MAX_CELLS`]. A checksum, if there is one, is not looked at: the hash says more.
//!
//! The format is that of `crypto/tl/boc.tlb` in the reference implementation (`serialized_boc#b5ee9c72`); of cells, those
//! of TON's whitepaper on its virtual machine, §3.1.

use crate::cell::{Hash, MAX_REFS, Node, ordinary};

const MAGIC: [u8; 4] = [0xb5, 0xee, 0x9c, 0x72];

/// A proof has two cells for each level of the tree, which has at most 32.
pub const MAX_CELLS: usize = 256;

/// Types of cells that are not ordinary.
const PRUNED: u8 = 1;
const MERKLE_PROOF: u8 = 3;

/// What a proof shows: leaves of the bag's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    cells: Vec<Cell>,
    top: usize,
    depth: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    special: bool,
    data: Vec<u8>,
    refs: Vec<usize>,
}

impl Proof {
    /// Reads a proof that is of the tree with this root, over so many pieces. `None` if it is not.
    pub fn read(bytes: &[u8], root: &Hash, pieces: u64) -> Option<Self> {
        let cells = cells(bytes)?;
        let depth = pieces.checked_next_power_of_two()?.trailing_zeros();
        let outer = cells.first()?;
        let [MERKLE_PROOF, said @ ..] = &outer.data[..] else { return None };
        let (said, top) = (said.first_chunk::<32>()?, *outer.refs.first()?);
        if !outer.special || said != root || outer.data.len() != 35 || outer.refs.len() != 1 {
            return None;
        }
        let found = nodes(&cells)?.get(top).copied().flatten()?;
        let whole = found.hash == *root && u32::from(found.depth) == depth;
        whole.then_some(Self { cells, top, depth })
    }

    /// The digest of a piece, if the proof shows it. It usually shows that of the piece's neighbour too.
    pub fn digest(&self, piece: u64) -> Option<Hash> {
        let mut at = self.top;
        for level in (0..self.depth).rev() {
            let cell = self.cells.get(at)?;
            if cell.special || cell.refs.len() != 2 || !cell.data.is_empty() {
                return None;
            }
            at = *cell.refs.get((piece >> level & 1) as usize)?;
        }
        let leaf = self.cells.get(at)?;
        (piece >> self.depth == 0 && !leaf.special && leaf.refs.is_empty()).then_some(())?;
        leaf.data[..].try_into().ok()
    }
}

/// Hash and depth of each cell, as they are in the tree that nothing was left out of; none for the outermost one.
fn nodes(cells: &[Cell]) -> Option<Vec<Option<Node>>> {
    let mut nodes = vec![None; cells.len()];
    // Cells refer to later ones.
    for (index, cell) in cells.iter().enumerate().skip(1).rev() {
        let refs: Option<Vec<Node>> = cell.refs.iter().map(|&at| nodes.get(at).copied().flatten()).collect();
        let node = match (cell.special, &cell.data[..]) {
            (false, data) => ordinary(data, &refs?)?,
            // One level of proof: one hash and one depth.
            (true, [PRUNED, 1, rest @ ..]) if rest.len() == 34 && cell.refs.is_empty() => {
                Node { hash: *rest.first_chunk()?, depth: u16::from_be_bytes(*rest.last_chunk()?) }
            }
            _ => return None,
        };
        *nodes.get_mut(index)? = Some(node);
    }
    Some(nodes)
}

/// The cells of a bag of cells with one root, which is the first.
fn cells(bytes: &[u8]) -> Option<Vec<Cell>> {
    let mut input = Input(bytes);
    (input.take(4)? == MAGIC).then_some(())?;
    let [flags, offset_bytes] = *input.take(2)?.first_chunk()?;
    let (has_index, size_bytes, offset_bytes) = (flags & 0x80 != 0, usize::from(flags & 7), usize::from(offset_bytes));
    if !(1..=4).contains(&size_bytes) || !(1..=8).contains(&offset_bytes) || flags & 0x18 != 0 {
        return None;
    }
    let count = input.number(size_bytes)?;
    let (roots, absent) = (input.number(size_bytes)?, input.number(size_bytes)?);
    if !(1..=MAX_CELLS).contains(&count) || roots != 1 || absent != 0 {
        return None;
    }
    input.take(offset_bytes)?;
    if input.number(size_bytes)? != 0 {
        return None;
    }
    if has_index {
        input.take(count * offset_bytes)?;
    }
    (0..count).map(|index| cell(&mut input, index, count, size_bytes)).collect()
}

fn cell(input: &mut Input<'_>, index: usize, count: usize, size_bytes: usize) -> Option<Cell> {
    let [first, second] = *input.take(2)?.first_chunk()?;
    let (refs, special, hashes) = (usize::from(first & 7), first & 8 != 0, first & 16 != 0);
    // Parts of bytes are in no cell of a proof, and hashes that a cell says of itself are not wanted.
    if refs > MAX_REFS || hashes || second % 2 != 0 {
        return None;
    }
    let data = input.take(usize::from(second / 2))?.to_vec();
    let refs: Option<Vec<usize>> = (0..refs).map(|_| input.number(size_bytes)).collect();
    let refs = refs?;
    let later = refs.iter().all(|&at| at > index && at < count);
    later.then_some(Cell { special, data, refs })
}

/// What is left to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// A big-endian number of so many bytes, at most 8.
    fn number(&mut self, len: usize) -> Option<usize> {
        let number = self.take(len)?.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).ok()
    }
}

#[cfg(test)]
#[path = "boc_tests.rs"]
mod tests;
