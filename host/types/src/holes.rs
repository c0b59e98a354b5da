//! Which parts of some bytes have to be written to a new file: what is left out becomes a hole, and reads as zeros.

use std::ops::Range;

/// Zeros are looked for in pieces of this size, aligned to the file. File system blocks are not larger.
pub const HOLE: usize = 64 << 10;

static ZEROS: [u8; HOLE] = [0; HOLE];

/// Returns the parts of `bytes` to be written, in order, where `bytes` begin at offset `at` of a file that has nothing
/// there yet. Every byte outside of them is zero. Adjoining parts are returned as one.
pub fn data_runs(bytes: &[u8], at: u64) -> impl Iterator<Item = Range<usize>> + '_ {
    // Pieces end where those of the file do, whatever the chunks are.
    let first = (HOLE - (at % HOLE as u64) as usize).min(bytes.len());
    let end_of = move |start: usize| if start == 0 { first } else { (start + HOLE).min(bytes.len()) };
    let is_zero = move |start: usize| {
        let piece = &bytes[start..end_of(start)];
        piece == &ZEROS[..piece.len()]
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && is_zero(at) {
            at = end_of(at);
        }
        let start = at;
        while at < bytes.len() && !is_zero(at) {
            at = end_of(at);
        }
        (at > start).then_some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holes_are_zeros(
            runs in proptest::collection::vec((any::<bool>(), 1usize..200_000), 0..6), at in 0u64..200_000,
        ) {
            let mut bytes = Vec::new();
            for (data, len) in runs {
                bytes.resize(bytes.len() + len, u8::from(data));
            }
            let (mut copy, mut last) = (vec![0; bytes.len()], None);
            for run in data_runs(&bytes, at) {
                prop_assert!(!run.is_empty() && last.is_none_or(|last| last < run.start));
                last = Some(run.end);
                copy[run.clone()].copy_from_slice(&bytes[run]);
            }
            prop_assert!(copy == bytes);
        }
    }

    #[test]
    fn whole_pieces_of_zeros_are_left_out() {
        let mut bytes = vec![0; 4 * HOLE];
        bytes[HOLE + 5] = 1;
        assert_eq!(data_runs(&bytes, 0).collect::<Vec<_>>(), vec![HOLE..2 * HOLE]);
        assert_eq!(data_runs(&bytes, 10).collect::<Vec<_>>(), vec![HOLE - 10..2 * HOLE - 10]);
        assert_eq!(data_runs(&[0; 9], 7).count(), 0);
        assert_eq!(data_runs(&[], 7).count(), 0);
    }
}
