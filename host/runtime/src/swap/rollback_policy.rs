//! Whether a new generation fails more than its predecessor.
//!
//! Both have a count of operations and of failures. After each failure of the new one, Fisher's one-sided exact
//! test is applied: if both were equally good, how probable would it be that so many of all failures, or
//! more, fall to the new one? Below [`RollbackThreshold::level`] it is rolled back. The test is exact for small counts,
//! which matters: a version that fails every time should be gone after a handful of operations. Two further
//! conditions exclude chance and trifles: a minimum of failures, and a noticeable difference.
//!
//! Repeated evaluation gives chance more than one try. The level is an order of magnitude below one for a
//! single evaluation; the tests below keep the share of equally good versions that are rolled back within 1,000
//! operations below 2 %.
//!
//! `trial.rs` decides which failures count. Nothing here depends on time or state: the same counts always
//! give the same answer.

/// Operations and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// All that ended.
    pub(super) operations: u64,
    /// Those that failed; never more than there were operations.
    pub(super) failures: u64,
}

impl Counts {
    fn share(self) -> f64 {
        if self.operations == 0 { 0.0 } else { self.failures as f64 / self.operations as f64 }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.failures, self.operations)
    }
}

/// When a difference counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RollbackThreshold {
    /// With fewer failures the new one is not evaluated.
    pub(super) least_failures: u64,
    /// How improbable the counts must be if both were equally good.
    pub(super) level: f64,
    /// By how much the new one's share of failures must exceed the old one's.
    pub(super) least_excess: f64,
}

impl Default for RollbackThreshold {
    fn default() -> Self {
        Self { least_failures: 3, level: 0.001, least_excess: 0.005 }
    }
}

/// Returns whether the new one is worse than the old one.
pub(super) fn is_worse(new: Counts, old: Counts, threshold: &RollbackThreshold) -> bool {
    new.failures >= threshold.least_failures
        && new.share() - old.share() >= threshold.least_excess
        && by_chance(new, old) < threshold.level
}

/// The probability that at least so many failures fall to the new one, were both equally good: the upper tail of the
/// hypergeometric distribution.
pub(super) fn by_chance(new: Counts, old: Counts) -> f64 {
    let all = new.operations + old.operations;
    let failures = new.failures + old.failures;
    let most = failures.min(new.operations);
    // Of `all` operations `failures` failed; the new one ran `new.operations`, drawn without regard to that.
    let ln = ln_choose(failures, new.failures) + ln_choose(all - failures, new.operations - new.failures)
        - ln_choose(all, new.operations);
    let mut term = ln.exp();
    let mut sum = term;
    for x in new.failures..most {
        // From C(F, x)·C(N−F, n−x) to the same for x+1.
        let up = ((failures - x) * (new.operations - x)) as f64;
        let down = ((x + 1) * (old.operations + x + 1 - failures)) as f64;
        term *= up / down;
        sum += term;
        if term < sum * 1e-12 {
            break;
        }
    }
    sum.min(1.0)
}

/// The logarithm of the number of ways to choose `k` of `n`.
fn ln_choose(n: u64, k: u64) -> f64 {
    let k = k.min(n - k);
    (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(failures: u64, operations: u64) -> Counts {
        Counts { operations, failures }
    }

    fn worse(new: Counts, old: Counts) -> bool {
        is_worse(new, old, &RollbackThreshold::default())
    }

    /// Values that can be had by counting by hand.
    #[test]
    fn the_test_is_exact() {
        for (new, old, exact) in [
            (counts(3, 3), counts(0, 3), 1.0 / 20.0),
            (counts(7, 7), counts(0, 7), 1.0 / 3432.0),
            (counts(0, 5), counts(3, 9), 1.0),
            // Fisher's tea: 3 of 4 cups, then 4 of 4.
            (counts(3, 4), counts(1, 4), 17.0 / 70.0),
            (counts(4, 4), counts(0, 4), 1.0 / 70.0),
        ] {
            let found = by_chance(new, old);
            assert!((found - exact).abs() < 1e-12, "{new} against {old}: {found}, not {exact}");
        }
    }

    #[test]
    fn a_version_that_always_fails_is_found_out_at_once() {
        assert!(worse(counts(3, 3), counts(0, 100)), "three failures beside a clean record of a hundred");
        assert!(worse(counts(7, 7), counts(0, 7)), "seven, if all that is known of the old one is the same seven");
        assert!(!worse(counts(2, 2), counts(0, 10_000)), "two may be bad luck");
        assert!(!worse(counts(50, 100), counts(500, 1000)), "the old one is no better");
        assert!(!worse(counts(30, 10_000), counts(0, 10_000)), "a difference that nobody notices");
    }

    proptest! {
        #[test]
        fn it_is_a_probability(n in 0u64..3000, m in 0u64..3000, f in 0.0..=1.0, g in 0.0..=1.0) {
            let new = counts((n as f64 * f) as u64, n);
            let old = counts((m as f64 * g) as u64, m);
            let p = by_chance(new, old);
            prop_assert!((0.0..=1.0).contains(&p), "{p}");
        }

        /// A further failure of the new one never clears it; one of the old one never makes it worse.
        #[test]
        fn the_probability_is_monotonic(n in 1u64..500, m in 1u64..500, f in 0.0..1.0, g in 0.0..1.0) {
            let (f, g) = ((n as f64 * f) as u64, (m as f64 * g) as u64);
            let p = by_chance(counts(f, n), counts(g, m));
            prop_assert!(by_chance(counts(f + 1, n), counts(g, m)) <= p + 1e-9);
            prop_assert!(by_chance(counts(f, n), counts(g + 1, m)) >= p - 1e-9);
            if worse(counts(f, n), counts(g, m)) {
                prop_assert!(worse(counts(f + 1, n), counts(g, m)));
            }
        }

        #[test]
        fn one_that_is_no_worse_stays(n in 1u64..2000, f in 0u64..2000, m in 1u64..2000) {
            let f = f.min(n);
            let same = (f as f64 / n as f64 * m as f64).ceil() as u64;
            prop_assert!(!worse(counts(f, n), counts(same.min(m), m)));
        }
    }

    /// Random numbers that are the same in every run (SplitMix64).
    struct Chance(u64);

    impl Chance {
        fn happens(&mut self, share: f64) -> bool {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / ((1u64 << 53) as f64) < share
        }
    }

    /// How many of 400 new versions are called worse within 1,000 operations, looking after each failure.
    fn called_worse(new_share: f64, old_share: f64, record: u64) -> usize {
        let mut chance = Chance(7);
        let one = |chance: &mut Chance| {
            let old = counts((0..record).filter(|_| chance.happens(old_share)).count() as u64, record);
            let mut new = Counts::default();
            (0..1000).any(|_| {
                let failed = chance.happens(new_share);
                new = counts(new.failures + u64::from(failed), new.operations + 1);
                failed && worse(new, old)
            })
        };
        (0..400).filter(|_| one(&mut chance)).count()
    }

    #[test]
    fn equally_good_versions_are_kept_and_bad_ones_found() {
        for share in [0.001, 0.01, 0.05, 0.2, 0.5] {
            for record in [50, 1000] {
                let wrongly = called_worse(share, share, record);
                assert!(wrongly <= 8, "{wrongly} of 400 at a share of {share} with a record of {record}");
            }
        }
        for (new, old) in [(0.05, 0.0), (0.2, 0.05), (1.0, 0.5)] {
            let found = called_worse(new, old, 1000);
            assert!(found >= 392, "only {found} of 400 that fail {new} instead of {old}");
        }
    }
}
