//! The CID of a file, computed from the digests of its pieces.
//!
//! The host digests the pieces of a stream (`piece-digests`), so the adapter knows the CID of every leaf without reading a
//! byte. The nodes above are those of Kubo's balanced layout: nodes of `links` leaves, nodes of `links` such nodes, and so
//! on up to one root. A file of one piece is that piece; an empty file is the empty block.

use crate::cid::{Cid, Codec};
use crate::unixfs::{Child, encode};
use crate::{Parsed, Sha256};

/// How a file is divided.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Bytes of a piece; the last may have fewer.
    pub chunk: u64,
    /// The most children of a node.
    pub links: usize,
}

impl Shape {
    /// Returns the CID of a file of `size` bytes. `digests` are the SHA-256 of its pieces, one after the other.
    pub fn root(self, size: u64, digests: &[u8], sha256: Sha256) -> Parsed<Cid> {
        let (leaves, rest) = digests.as_chunks::<32>();
        if !rest.is_empty() || leaves.len() as u64 != size.div_ceil(self.chunk.max(1)) {
            return Err("there is another number of digests than of pieces");
        }
        if leaves.is_empty() {
            return Ok(Cid::of_block(Codec::Raw, b"", sha256));
        }
        let links = self.links.max(2);
        let leaf = |at: usize, digest: &[u8; 32]| {
            let size = self.chunk.min(size - at as u64 * self.chunk);
            Child { cid: Cid::of_digest(Codec::Raw, *digest), size, total: size }
        };
        // The lowest level is not held as a whole: there may be millions of leaves.
        let few = |(number, digests): (usize, &[[u8; 32]])| {
            let leaves = digests.iter().enumerate().map(|(at, digest)| leaf(number * links + at, digest));
            above(&leaves.collect::<Vec<_>>(), sha256)
        };
        let mut level: Vec<Child> = match leaves {
            [one] => vec![leaf(0, one)],
            many => many.chunks(links).enumerate().map(few).collect(),
        };
        while level.len() > 1 {
            level = level.chunks(links).map(|few| above(few, sha256)).collect();
        }
        level.pop().map(|root| root.cid).ok_or("there are no pieces")
    }
}

/// Returns the parent of these nodes, as a child of the level above.
fn above(children: &[Child], sha256: Sha256) -> Child {
    let block = encode(children);
    let sum = |of: fn(&Child) -> u64| children.iter().map(of).fold(0, u64::wrapping_add);
    let total = sum(|child| child.total).wrapping_add(block.len() as u64);
    Child { cid: Cid::of_block(Codec::DagPb, &block, sha256), size: sum(|child| child.size), total }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bytes, digests, sha256};

    #[test]
    fn digests_have_to_fit() {
        let shape = Shape { chunk: 4, links: 3 };
        for (size, digests) in [(0, 32), (1, 0), (4, 64), (5, 32), (5, 63), (u64::MAX, 32)] {
            assert!(shape.root(size, &vec![0; digests], sha256).is_err(), "{size} {digests}");
        }
    }

    /// The CIDs that Kubo 0.43.0 gives (`ipfs add --only-hash --cid-version 1 --raw-leaves --chunker=size-CHUNK
    /// --max-file-links=LINKS`) to the first bytes of 0, 1, 2, …, 250, 0, 1, ….
    #[test]
    fn cids_are_those_of_kubo() {
        for (chunk, links, size, expected) in VECTORS {
            let data = bytes(size);
            let root = Shape { chunk, links }.root(size as u64, &digests(&data, chunk as usize), sha256).unwrap();
            assert_eq!(root.to_string(), expected, "{size} bytes in pieces of {chunk}, {links} to a node");
        }
    }

    const VECTORS: [(u64, usize, usize, &str); 17] = [
        (1 << 20, 1024, 0, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        (1 << 20, 1024, 1, "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu"),
        (1 << 20, 1024, 1048576, "bafkreidddocae7lltzjlkooe5a3tmiwsgazn7logjvqk7bzttsidpzhxne"),
        (1 << 20, 1024, 1048577, "bafybeidjogjfwuhbzwopgd4bn3skcf5m6oz72xshywcndzxgqb623nfclu"),
        (1 << 20, 1024, 3000000, "bafybeigqr2ulyhu7r6rmratednc5n7y6s4bl4yui725mm45qk7o2ydor3m"),
        (4096, 3, 12288, "bafybeicgq4npitscqbwbwb43i7qcfjstfug37ajhgfc7czye2mrlzqu56u"),
        (4096, 3, 12289, "bafybeifwbxkpuhw5tw4xranpaupfcwlj36rqcsy7qv4glfisnwzudc64x4"),
        (4096, 3, 36864, "bafybeidswomf5afsjqspldcztwh3hotsv7wv3pl327l4wyy3bsx3e7mzba"),
        (4096, 3, 36865, "bafybeialhdlbnnf4fxsw4bijcyhc7w7peeklgipa5d5pq7wqzh4zcpcxiy"),
        (4096, 3, 114683, "bafybeigu3bmqzsclgwbouokuvdvfmzao6beyttppgzetpg5j6sprt3r63y"),
        (5, 2, 31, "bafybeihplaxznlvzp3mz3zqngtibuortyipcbrjohnfkhwkthdmvtzbj5i"),
        (5, 2, 32, "bafybeihmvqe56zydhksygmmlnefg57qaew3v4shpamefvpsger7cc4hkge"),
        (5, 2, 1000, "bafybeierd2anvn6c5eyvup2tpxemlrjkoiskk3qnit6yu6s3oud4dxecwi"),
        (5, 174, 870, "bafybeibxlzbta62izvjmdselqiporiupzslknkk4jcccm2vvh7tzc4rgym"),
        (5, 174, 871, "bafybeial7tr666frh4q46acet6236zgpujo6voswrhga4vjtkxdvukuixq"),
        (262144, 174, 1000000, "bafybeibx62obrkybp46hx3ivh53q4rnptgkunpgtwiib5lfelfgt2ekihm"),
        (1, 2, 300, "bafybeifncvges7zyhx7uucml2ijxon7pteztczouamjryittdbcaiy2zru"),
    ];
}
