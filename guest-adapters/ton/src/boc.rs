//! Proofs that a piece belongs to a bag: serialized bags of cells whose root is a Merkle proof.
//!
//! A Merkle proof is a tree in which *pruned* cells, with hash and depth as their data, replace whole branches. So the hash
//! of the whole tree can be computed. If it is the root of the bag's tree, the remaining leaves are leaves of that tree.
//!
//! A proof comes from an untrusted daemon. It has at most [`MAX_CELLS`] cells, which refer to later cells only, so that there
//! are no cycles. A checksum is ignored, since the hash covers everything.
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

/// A verified proof, with some leaves of the bag's tree.
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
    /// Parses and verifies a proof for the tree with this root over `pieces` pieces. `None` if it is invalid.
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

    /// Returns the digest of a piece, if the proof has it. It usually has that of the neighbour too.
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

/// Returns hash and depth of each cell in the unpruned tree; none for the outermost cell.
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

/// Parses a bag of cells with one root, which is the first cell.
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
    // Cells of a proof have whole bytes and no stored hashes.
    if refs > MAX_REFS || hashes || second % 2 != 0 {
        return None;
    }
    let data = input.take(usize::from(second / 2))?.to_vec();
    let refs: Option<Vec<usize>> = (0..refs).map(|_| input.number(size_bytes)).collect();
    let refs = refs?;
    let later = refs.iter().all(|&at| at > index && at < count);
    later.then_some(Cell { special, data, refs })
}

/// The remaining input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads a big-endian number of `len` bytes, at most 8.
    fn number(&mut self, len: usize) -> Option<usize> {
        let number = self.take(len)?.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).ok()
    }
}

#[cfg(test)]
#[path = "boc_tests.rs"]
mod tests;
