//! What tests of the parts that need no host share.

use sha2::Digest as _;

/// SHA-256, which the host computes otherwise.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(data).into()
}

/// The bytes 0, 1, 2, …, 250, 0, 1, …: 251 is prime, so pieces of most sizes differ.
pub fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// The digests of pieces, one after the other.
pub fn digests(data: &[u8], piece: usize) -> Vec<u8> {
    data.chunks(piece).flat_map(sha256).collect()
}
