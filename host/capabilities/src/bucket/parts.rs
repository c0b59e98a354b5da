//! How an object is cut into parts: at most 10,000, each between 5 MiB (save the last) and 5 GiB.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>

use crate::grant::LARGEST_PART;
use tidelock_types::{Error, Result};

/// The most parts of one upload.
pub(super) const MAX_PARTS: u32 = 10_000;
/// If the size is unknown, parts double after this many. So even parts that begin at 5 MiB reach beyond 5 TiB.
const DOUBLING: u32 = 900;

/// The sizes of the parts of one upload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Of the first part; of all, if the size is known.
    first: u64,
    grows: bool,
    /// Bytes that may be in flight.
    budget: u64,
}

impl Plan {
    /// A plan for an object of this size, if it is known.
    ///
    /// # Errors
    /// `invalid` for an object that is larger than all parts together may be.
    pub(super) fn new(size: Option<u64>, part_size: u64, concurrency: usize) -> Result<Self> {
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
        Ok(Self { first, grows: size.is_none(), budget })
    }

    /// The size of a part, counted from 1.
    pub(super) fn size(&self, number: u32) -> u64 {
        if !self.grows {
            return self.first;
        }
        let doublings = number.saturating_sub(1) / DOUBLING;
        self.first.checked_shl(doublings).unwrap_or(LARGEST_PART).min(LARGEST_PART)
    }

    /// How many parts of this size may be in flight: fewer when they grow, so that memory does not.
    pub(super) fn in_flight(&self, number: u32) -> usize {
        usize::try_from(self.budget / self.size(number)).unwrap_or(usize::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::SMALLEST_PART;
    use proptest::prelude::*;

    #[test]
    fn unknown_sizes_reach_far() {
        let plan = Plan::new(None, SMALLEST_PART, 4).unwrap();
        let most: u128 = (1..=MAX_PARTS).map(|number| u128::from(plan.size(number))).sum();
        assert!(most >= 5 << 40, "{most}");
        assert_eq!(plan.size(1), SMALLEST_PART);
        assert_eq!(plan.size(901), 2 * SMALLEST_PART);
        assert_eq!((plan.in_flight(1), plan.in_flight(901), plan.in_flight(9999)), (4, 2, 1));
    }

    proptest! {
        #[test]
        fn every_known_size_fits(size in 0u64..(48 << 40), part in SMALLEST_PART..(1 << 30), concurrency in 1usize..64) {
            let plan = Plan::new(Some(size), part, concurrency).unwrap();
            let each = plan.size(1);
            prop_assert!((part..=LARGEST_PART).contains(&each));
            prop_assert!(size.div_ceil(each) <= u64::from(MAX_PARTS));
            prop_assert_eq!(plan.size(MAX_PARTS), each);
            prop_assert!((1..=concurrency).contains(&plan.in_flight(1)));
        }

        #[test]
        fn parts_in_flight_stay_within_the_budget(number in 1u32..=MAX_PARTS, part in SMALLEST_PART..(64 << 20)) {
            let plan = Plan::new(None, part, 4).unwrap();
            let size = plan.size(number);
            prop_assert!((part..=LARGEST_PART).contains(&size));
            prop_assert!(plan.in_flight(number) == 1 || size * plan.in_flight(number) as u64 <= 4 * part);
        }
    }
}
