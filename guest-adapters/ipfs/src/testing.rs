//! Helpers shared by the unit tests.

use sha2::Digest as _;

/// Returns the SHA-256, which the host computes outside of tests.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(data).into()
}

/// Returns the bytes 0, 1, 2, …, 250, 0, 1, …: 251 is prime, so pieces of most sizes differ.
pub fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// Returns the digests of the pieces of `data`, one after the other.
pub fn digests(data: &[u8], piece: usize) -> Vec<u8> {
    data.chunks(piece).flat_map(sha256).collect()
}
