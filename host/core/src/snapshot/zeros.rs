//! Which parts of a snapshot are zeros, as its segment digests say, and how a read is split along them.
//!
//! A full segment of zeros has a constant digest, so whoever has the digests knows the holes of an image without reading
//! a byte of it: such a segment is never fetched to be read. The last segment counts as data if it is shorter than the
//! others, whatever it holds.

use super::identity::Identity;
use super::segment::{SEGMENT, ZERO_SEGMENT};

/// The most segments that one part of a read covers: bounds what is held until all of it is checked, and is enough for a
/// request to be worth its latency.
const RUN: u64 = 16;

/// A run of bytes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub start: u64,
    /// The number of bytes: at least 1.
    pub len: u64,
    /// What they are.
    pub kind: ExtentKind,
}

/// What is known of a run of bytes without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Any bytes.
    Data,
    /// All are zero.
    Zero,
}

impl Identity {
    /// Returns whether a segment is known to be all zeros.
    pub(super) fn is_zero(&self, number: u64) -> bool {
        let digest = usize::try_from(number).ok().and_then(|number| self.segments().as_slice().get(number));
        digest == Some(&ZERO_SEGMENT) && self.segment_len(number) == SEGMENT as u64
    }

    /// The extents of the snapshot: in order, without gaps, from the first byte to the last, and no two of a kind next
    /// to each other. None for a snapshot of no bytes.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let mut start = 0;
        std::iter::from_fn(move || {
            let (zero, from) = (self.is_zero(start / SEGMENT as u64), start);
            while start < self.size() && self.is_zero(start / SEGMENT as u64) == zero {
                start += self.segment_len(start / SEGMENT as u64);
            }
            let kind = if zero { ExtentKind::Zero } else { ExtentKind::Data };
            (start > from).then_some(Extent { start: from, len: start - from, kind })
        })
    }

    /// The parts in which `len` bytes from `start` are read, in order; together they are these bytes, as far as the
    /// snapshot has them.
    pub(crate) fn read_plan(&self, start: u64, len: u64) -> impl Iterator<Item = ReadPart> + '_ {
        let segment = SEGMENT as u64;
        let end = start.saturating_add(len).min(self.size());
        let mut at = start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (from, number) = (at, at / segment);
            let zero = self.is_zero(number);
            let limit = if zero { u64::MAX } else { number + RUN };
            let mut next = number + 1;
            while next < limit && next.saturating_mul(segment) < end && self.is_zero(next) == zero {
                next += 1;
            }
            at = next.saturating_mul(segment).min(end);
            Some(match (zero, next - number) {
                (true, _) => ReadPart::Zeros { len: at - from },
                (false, 1 | 2) => {
                    at = at.min((number + 1) * segment);
                    ReadPart::Segment { number, from: from - number * segment, len: at - from }
                }
                (false, _) => ReadPart::Run { start: from, len: at - from },
            })
        })
    }

    /// The bytes of a segment: its first and how many. None of a segment past the end.
    pub(crate) fn segment_bytes(&self, number: u64) -> (u64, u64) {
        (number.saturating_mul(SEGMENT as u64).min(self.size()), self.segment_len(number))
    }
}

/// A part of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadPart {
    /// Zeros: nothing is read.
    Zeros {
        /// How many.
        len: u64,
    },
    /// Bytes of one segment, which may be wanted again soon.
    Segment {
        /// The segment.
        number: u64,
        /// The first byte, from the segment's start.
        from: u64,
        /// How many bytes.
        len: u64,
    },
    /// Bytes of more than two segments, and of at most [`RUN`], that are read at once.
    Run {
        /// The first byte of the image.
        start: u64,
        /// How many bytes.
        len: u64,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::SegmentDigests;

    const S: u64 = SEGMENT as u64;

    /// A snapshot of full segments, zero where it is said, and a tail of some bytes.
    fn image(zero: &[bool], tail: u64) -> Identity {
        let mut digests: Vec<_> = zero.iter().map(|zero| if *zero { ZERO_SEGMENT } else { [1; 32] }).collect();
        if tail > 0 {
            digests.push([2; 32]);
        }
        Identity::new(zero.len() as u64 * S + tail, SegmentDigests::new(digests)).unwrap()
    }

    fn extent(start: u64, len: u64, kind: ExtentKind) -> Extent {
        Extent { start, len, kind }
    }

    #[test]
    fn zeros_that_adjoin_are_one_extent() {
        use ExtentKind::{Data, Zero};
        let all = |zero: &[bool], tail| image(zero, tail).extents().collect::<Vec<_>>();
        assert_eq!(all(&[], 0), []);
        assert_eq!(all(&[], 5), [extent(0, 5, Data)]);
        assert_eq!(all(&[true, true], 0), [extent(0, 2 * S, Zero)]);
        assert_eq!(
            all(&[false, true, true, false], 7),
            [extent(0, S, Data), extent(S, 2 * S, Zero), extent(3 * S, S + 7, Data)]
        );
    }

    /// What a damaged catalogue may say.
    #[test]
    fn a_short_segment_is_never_taken_for_zeros() {
        let identity = Identity::new(5, SegmentDigests::new(vec![ZERO_SEGMENT])).unwrap();
        assert_eq!(identity.extents().collect::<Vec<_>>(), [extent(0, 5, ExtentKind::Data)]);
    }

    #[test]
    fn what_is_read_at_once_is_bounded() {
        let identity = image(&[false; 40], 1);
        let parts: Vec<_> = identity.read_plan(0, u64::MAX).collect();
        assert_eq!(
            parts,
            [
                ReadPart::Run { start: 0, len: RUN * S },
                ReadPart::Run { start: RUN * S, len: RUN * S },
                ReadPart::Run { start: 2 * RUN * S, len: 8 * S + 1 },
            ]
        );
        assert_eq!(identity.read_plan(40 * S + 1, 9).count(), 0);
        assert_eq!(identity.read_plan(u64::MAX, u64::MAX).count(), 0);
    }

    #[test]
    fn little_is_read_by_the_segment() {
        let identity = image(&[false, false, true, false], 9);
        let parts: Vec<_> = identity.read_plan(S - 2, 2 * S + 4).collect();
        assert_eq!(
            parts,
            [
                ReadPart::Segment { number: 0, from: S - 2, len: 2 },
                ReadPart::Segment { number: 1, from: 0, len: S },
                ReadPart::Zeros { len: S },
                ReadPart::Segment { number: 3, from: 0, len: 2 },
            ]
        );
    }

    proptest! {
        #[test]
        fn extents_cover_the_image(zero in proptest::collection::vec(any::<bool>(), 0..40), tail in 0..S) {
            let identity = image(&zero, tail);
            let (mut at, mut last) = (0, None);
            for extent in identity.extents() {
                prop_assert_eq!(extent.start, at);
                prop_assert!(extent.len > 0 && last != Some(extent.kind));
                for number in at / S..(at + extent.len).div_ceil(S) {
                    prop_assert_eq!(extent.kind == ExtentKind::Zero, zero.get(number as usize) == Some(&true));
                }
                at += extent.len;
                last = Some(extent.kind);
            }
            prop_assert_eq!(at, identity.size());
        }

        #[test]
        fn the_parts_of_a_read_are_its_bytes(
            zero in proptest::collection::vec(any::<bool>(), 0..40), tail in 0..S, a in 0..42 * S, b in 0..42 * S,
        ) {
            let identity = image(&zero, tail);
            let (start, end) = (a.min(b), a.max(b));
            let mut at = start;
            for part in identity.read_plan(start, end - start) {
                let is_zero = |at: u64| zero.get((at / S) as usize) == Some(&true);
                let len = match part {
                    ReadPart::Zeros { len } => {
                        prop_assert!((at / S..(at + len).div_ceil(S)).all(|number| is_zero(number * S)));
                        len
                    }
                    ReadPart::Segment { number, from, len } => {
                        prop_assert_eq!(number * S + from, at);
                        prop_assert!(from + len <= identity.segment_bytes(number).1 && !is_zero(at));
                        len
                    }
                    ReadPart::Run { start, len } => {
                        prop_assert_eq!(start, at);
                        prop_assert!((at + len).div_ceil(S) - at / S <= RUN);
                        prop_assert!((at / S..(at + len).div_ceil(S)).all(|number| !is_zero(number * S)));
                        len
                    }
                };
                prop_assert!(len > 0);
                at += len;
            }
            prop_assert_eq!(at, end.min(identity.size()).max(start));
        }
    }
}
