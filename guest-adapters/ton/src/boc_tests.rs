//! Trees of cells as a daemon sends them: its own proofs, damage, and any bytes.

use proptest::prelude::*;

use super::*;
use crate::cell::merkle_root;

/// A cell as it is written, before it has a number.
struct Written {
    special: bool,
    data: Vec<u8>,
    refs: Vec<Written>,
}

fn node(digests: &[Hash]) -> Node {
    merkle_root(&digests.concat()).unwrap()
}

/// The branch over these leaves (a power of two of them), with everything left out that does not lead to `piece`.
fn branch(digests: &[Hash], piece: usize) -> Written {
    match digests {
        [one] => Written { special: false, data: one.to_vec(), refs: Vec::new() },
        [_, _] => {
            Written { special: false, data: Vec::new(), refs: digests.iter().map(|d| branch(&[*d], 0)).collect() }
        }
        _ => {
            let (left, right) = digests.split_at(digests.len() / 2);
            let half = left.len();
            let refs = match piece < half {
                true => vec![branch(left, piece), pruned(right)],
                false => vec![pruned(left), branch(right, piece - half)],
            };
            Written { special: false, data: Vec::new(), refs }
        }
    }
}

fn pruned(digests: &[Hash]) -> Written {
    let Node { hash, depth } = node(digests);
    Written { special: true, data: [&[PRUNED, 1][..], &hash, &depth.to_be_bytes()].concat(), refs: Vec::new() }
}

/// The proof that the daemon would give.
fn proof(digests: &[Hash], piece: usize) -> Vec<u8> {
    let mut full = digests.to_vec();
    full.resize(digests.len().next_power_of_two(), [0; 32]);
    let Node { hash, depth } = node(digests);
    let data = [&[MERKLE_PROOF][..], &hash, &depth.to_be_bytes()].concat();
    serialize(&Written { special: true, data, refs: vec![branch(&full, piece)] })
}

fn serialize(root: &Written) -> Vec<u8> {
    // Level by level, so that cells refer to later ones.
    let mut order = vec![root];
    let mut bodies = Vec::new();
    let mut at = 0;
    while at < order.len() {
        let cell = order[at];
        bodies.extend([cell.refs.len() as u8 | if cell.special { 8 } else { 0 }, 2 * cell.data.len() as u8]);
        bodies.extend(&cell.data);
        for child in &cell.refs {
            bodies.push(order.len() as u8);
            order.push(child);
        }
        at += 1;
    }
    let head = [1, 2, order.len() as u8, 1, 0, (bodies.len() >> 8) as u8, bodies.len() as u8, 0];
    [&MAGIC[..], &head, &bodies].concat()
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| [n as u8 + 1; 32]).collect()
}

#[test]
fn a_proof_shows_a_piece_and_its_neighbour_and_no_other() {
    let digests = leaves(5);
    let root = node(&digests).hash;
    let proof = Proof::read(&proof(&digests, 2), &root, 5).unwrap();
    let shown: Vec<_> = (0..9).map(|piece| proof.digest(piece)).collect();
    let mut expected = vec![None; 9];
    expected[2..4].copy_from_slice(&[Some(digests[2]), Some(digests[3])]);
    assert_eq!(shown, expected);
}

#[test]
fn a_proof_of_something_else_is_none() {
    let digests = leaves(6);
    let root = node(&digests).hash;
    let bytes = proof(&digests, 1);
    assert!(Proof::read(&bytes, &root, 6).is_some());
    assert!(Proof::read(&bytes, &[9; 32], 6).is_none(), "another tree");
    assert!(Proof::read(&bytes, &root, 9).is_none(), "a tree of another depth");
    assert!(Proof::read(&proof(&leaves(7), 1), &root, 6).is_none(), "a proof of another tree");
    // One that says that it is of this tree.
    let mut lie = proof(&leaves(7), 1);
    let at = lie.windows(32).position(|window| window == node(&leaves(7)).hash).unwrap();
    lie[at..at + 32].copy_from_slice(&root);
    assert!(Proof::read(&lie, &root, 6).is_none());
}

/// A proof as tonutils-storage 1.4.1 gives it: of the second of three pieces, of 300,000 bytes that count up in a way (see
/// `bag_tests.rs`).
#[test]
fn the_daemons_own_form() {
    let text = "te6ccgEBBgEAmAAJRgPogqYZHuKORge9ZnX87NT4fiyHwhXopXyrgWT5UQNeSAACASIAAgMCAAQFKEgBAcoKSRXaXvOMf3/LsjGaV4AmJhcPbg\
                g9bHeJ/SgNFpwjAAEAQAJnIC0y5fmHCmijXvb8NhFH4qJe4RortQn+fXsyBxqGAEAHDPgoa6auYqOQZSYtgn0wSWtOMNHOl/DL+GPCbpJOew==";
    let hash = |text: &str| -> Hash { data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap() };
    let root = hash("e882a6191ee28e4607bd6675fcecd4f87e2c87c215e8a57cab8164f951035e48");
    let second = hash("070cf8286ba6ae62a39065262d827d30496b4e30d1ce97f0cbf863c26e924e7b");
    let bytes = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    let proof = Proof::read(&bytes, &root, 3).unwrap();
    assert_eq!((proof.digest(1), proof.digest(2)), (Some(second), None));
    assert!(Proof::read(&bytes, &root, 5).is_none());
}

#[test]
fn circles_and_crowds_are_refused() {
    let digests = leaves(4);
    let root = node(&digests).hash;
    let bytes = proof(&digests, 0);
    // The first reference of the tree's top, made to point at the top itself.
    let at = bytes.windows(3).position(|window| window == [2, 0, 2]).unwrap() + 2;
    let mut circle = bytes.clone();
    circle[at] = 1;
    assert!(Proof::read(&circle, &root, 4).is_none());
    let mut crowd = bytes.clone();
    crowd[6..9].copy_from_slice(&[255, 1, 0]);
    assert!(Proof::read(&crowd, &root, 4).is_none());
}

proptest! {
    #[test]
    fn every_piece_can_be_shown(digests in prop::collection::vec(any::<Hash>(), 2..40), piece: prop::sample::Index) {
        let piece = piece.index(digests.len());
        let root = node(&digests).hash;
        let proof = Proof::read(&proof(&digests, piece), &root, digests.len() as u64).unwrap();
        prop_assert_eq!(proof.digest(piece as u64), Some(digests[piece]));
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), pieces in any::<u64>()) {
        let framed = [&MAGIC[..], &bytes].concat();
        prop_assert_eq!(Proof::read(&bytes, &[0; 32], pieces), None);
        prop_assert_eq!(Proof::read(&framed, &[0; 32], pieces), None);
    }

    /// A proof that was changed anywhere is none, or still shows the truth.
    #[test]
    fn no_change_makes_a_lie(at: prop::sample::Index, flip in 1_u8..) {
        let digests = leaves(6);
        let mut bytes = proof(&digests, 3);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Some(proof) = Proof::read(&bytes, &node(&digests).hash, 6) {
            prop_assert!(proof.digest(3).is_none_or(|digest| digest == digests[3]));
        }
    }
}
