//! Bytes for tests.

/// Byte i is the top byte of the lower 32 bits of i × 2654435761: the pattern of `docs/formats.md`. No page or segment
/// is like another.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i.wrapping_mul(2_654_435_761) as u32) >> 24) as u8).collect()
}
