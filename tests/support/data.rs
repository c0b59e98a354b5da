//! Bytes to store.

/// One kibibyte's multiples.
pub const KIB: usize = 1 << 10;
/// Mebibytes.
pub const MIB: usize = 1 << 20;

/// Bytes that do not compress and do not repeat, the same for the same seed (xorshift64*).
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The same bytes with some of them changed: a page here and there, and a few bytes more at the end.
pub fn changed(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for at in (0..changed.len()).step_by(777_777) {
        let end = changed.len().min(at + 4096);
        changed[at..end].copy_from_slice(&noise(end - at, seed + at as u64));
    }
    changed.extend_from_slice(b"and more");
    changed
}

/// Compares without printing megabytes.
#[track_caller]
pub fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    if found != expected {
        let at = found.iter().zip(expected).position(|(a, b)| a != b);
        panic!(
            "{what}: {} bytes where {} were expected; the first difference is at {at:?}",
            found.len(),
            expected.len()
        );
    }
}
