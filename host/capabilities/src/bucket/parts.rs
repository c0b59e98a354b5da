//! How an object is split into parts: at most 10,000, each between 5 MiB (save the last) and 5 GiB.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>

use crate::grant::LARGEST_PART;
use tidelock_types::{Error, Result};

/// The most parts of one upload.
pub(super) const MAX_PARTS: u32 = 10_000;
/// If the size is unknown, parts double after this many, up to a bound: small streams have small parts, and large ones
/// do not run out of parts soon.
const DOUBLING: u32 = 100;

/// The sizes of the parts of one upload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Of the first part; of all, if the size is known.
    first: u64,
    /// The size up to which parts grow.
    largest: u64,
    /// Bytes that may be in flight.
    budget: u64,
}

impl Plan {
    /// A plan for an object of this size, if it is known. If it is not, no part is larger than `largest`, or than
    /// `part_size` where that is larger.
    ///
    /// # Errors
    /// `invalid` for an object that is larger than all parts together may be.
    pub(super) fn new(size: Option<u64>, part_size: u64, concurrency: usize, largest: u64) -> Result<Self> {
        let budget = part_size.saturating_mul(concurrency as u64);
        let first = match size {
            None => part_size,
            // Whole MiB, for readable listings of parts.
            Some(size) => part_size.max(size.div_ceil(u64::from(MAX_PARTS)).next_multiple_of(1 << 20)),
        };
        if first > LARGEST_PART {
            return Err(Error::invalid(format!(
                "{} bytes exceed the largest object of a bucket",
                size.unwrap_or_default()
            )));
        }
        Ok(Self { first, largest: if size.is_none() { largest.max(first) } else { first }, budget })
    }

    /// The size of a part, counted from 1.
    pub(super) fn size(&self, number: u32) -> u64 {
        let doublings = number.saturating_sub(1) / DOUBLING;
        let grown = 1u64.checked_shl(doublings).and_then(|factor| self.first.checked_mul(factor));
        grown.map_or(self.largest, |grown| grown.min(self.largest))
    }

    /// How many parts of this size may be in flight: fewer when they grow, so that memory does not.
    pub(super) fn in_flight(&self, number: u32) -> usize {
        usize::try_from(self.budget / self.size(number)).unwrap_or(usize::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::{LARGEST_UNSIZED_PART, PART_SIZE};
    use crate::grant::SMALLEST_PART;
    use proptest::prelude::*;

    #[test]
    fn large_objects_of_unknown_size_fit_in_bounded_memory() {
        let sum = |plan: Plan| (1..=MAX_PARTS).map(|number| plan.size(number)).sum::<u64>();
        let plan = Plan::new(None, PART_SIZE, 4, LARGEST_UNSIZED_PART).unwrap();
        assert_eq!((plan.size(1), plan.size(100), plan.size(101)), (8 << 20, 8 << 20, 16 << 20));
        assert_eq!((plan.size(9999), plan.size(u32::MAX)), (64 << 20, 64 << 20));
        assert_eq!((plan.in_flight(1), plan.in_flight(101), plan.in_flight(9999)), (4, 2, 1));
        assert!(sum(plan) > 600 << 30, "{}", sum(plan));
        assert!(sum(Plan::new(None, PART_SIZE, 4, 576 << 20).unwrap()) > 5 << 40);
    }

    proptest! {
        #[test]
        fn every_known_size_fits(size in 0u64..(48 << 40), part in SMALLEST_PART..(1 << 30), concurrency in 1usize..64) {
            let plan = Plan::new(Some(size), part, concurrency, SMALLEST_PART).unwrap();
            let each = plan.size(1);
            prop_assert!((part..=LARGEST_PART).contains(&each));
            prop_assert!(size.div_ceil(each) <= u64::from(MAX_PARTS));
            prop_assert_eq!(plan.size(MAX_PARTS), each);
            prop_assert!((1..=concurrency).contains(&plan.in_flight(1)));
        }

        #[test]
        fn parts_in_flight_stay_within_the_budget(number in 1u32..=MAX_PARTS, part in SMALLEST_PART..(64 << 20), largest in SMALLEST_PART..LARGEST_PART) {
            let plan = Plan::new(None, part, 4, largest).unwrap();
            let size = plan.size(number);
            prop_assert!((part..=largest.max(part)).contains(&size));
            prop_assert!(plan.in_flight(number) == 1 || size * plan.in_flight(number) as u64 <= 4 * part);
        }
    }
}
