//! The terms of a storage contract: the price of a span, and how long the balance lasts.
//!
//! The contract's own formula for a span of time is `bytes · rate · seconds ÷ (86,400 · 2²⁰)`, rounded down. Whole numbers of
//! nanoton throughout; no real amount exceeds 128 bits.

use serde_json::Value;

/// The unit of the rate: a MiB for a day.
const MIB_DAY: u128 = (24 * 60 * 60) << 20;

/// Positions in the stack.
const VALUES: usize = 11;
const BALANCE: usize = 1;
const FILE_SIZE: usize = 4;
const RATE: usize = 6;
const MAX_SPAN: usize = 7;
const LAST_PROOF: usize = 8;

/// The terms of a storage contract. Amounts are in nanoton, times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The money that the client has paid in and the provider has not taken.
    pub balance: u128,
    file_size: u128,
    rate: u128,
    max_span: u128,
    last_proof: u128,
}

impl Terms {
    /// Parses the stack of `get_storage_contract_data`; `None` if it is malformed.
    pub fn from_stack(stack: &[Value]) -> Option<Self> {
        if stack.len() != VALUES {
            return None;
        }
        let value = |index: usize| number(stack.get(index)?);
        Some(Self {
            balance: value(BALANCE)?,
            file_size: value(FILE_SIZE)?,
            rate: value(RATE)?,
            max_span: value(MAX_SPAN)?,
            last_proof: value(LAST_PROOF)?,
        })
    }

    /// Returns the amount that is missing for the next span; `None` if nothing is.
    pub fn due(&self) -> Option<u128> {
        let cost = self.burn()?.checked_mul(self.max_span)?.div_ceil(MIB_DAY);
        cost.checked_sub(self.balance).filter(|missing| *missing > 0)
    }

    /// Returns for how many seconds the balance lasts, from `now` (seconds since 1970) on. The price of the time since the
    /// last proof counts as spent. `None` if the storage costs nothing.
    pub fn runway_seconds(&self, now: u64) -> Option<u64> {
        let burn = self.burn().filter(|burn| *burn > 0)?;
        // A product that does not fit is a balance without end.
        let paid = self.balance.checked_mul(MIB_DAY).map_or(u128::MAX, |product| product / burn);
        let owed = u128::from(now).saturating_sub(self.last_proof).min(self.max_span);
        Some(u64::try_from(paid.saturating_sub(owed)).unwrap_or(u64::MAX))
    }

    fn burn(&self) -> Option<u128> {
        self.file_size.checked_mul(self.rate)
    }
}

/// Parses a number of a stack: `["num", "0x3e8"]`. Negative ones are malformed.
fn number(entry: &Value) -> Option<u128> {
    let (kind, text) = (entry.get(0)?.as_str()?, entry.get(1)?.as_str()?);
    match (kind, text.strip_prefix("0x")) {
        ("num" | "int", Some(hex)) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u128::from_str_radix(hex, 16).ok(),
        ("num" | "int", None) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// 1 GiB at 1,000 nanoton a MiB and day, taken daily: 1,024,000 nanoton a day.
    fn terms(balance: u128) -> Terms {
        Terms { balance, file_size: 1 << 30, rate: 1000, max_span: 86_400, last_proof: 0 }
    }

    #[test]
    fn a_stack_is_read() {
        let num = |text: &str| json!(["num", text]);
        let cell = json!(["cell", { "bytes": "te6cckEBAQEAAgAAAEysuc0=" }]);
        let mut stack = vec![
            num("-0x1"),
            num("0x3b9aca00"),
            cell.clone(),
            num("0x2"),
            num("0x40000000"),
            num("0x0"),
            num("0x3e8"),
            num("0x15180"),
            num("0x0"),
            cell,
            num("0x1"),
        ];
        assert_eq!(Terms::from_stack(&stack), Some(terms(1_000_000_000)));
        stack[1] = num("-0x1");
        assert_eq!(Terms::from_stack(&stack), None);
        stack[1] = num("1000000000");
        assert_eq!(Terms::from_stack(&stack), Some(terms(1_000_000_000)));
        stack.pop();
        assert_eq!(Terms::from_stack(&stack), None);
    }

    #[test]
    fn the_amount_due_is_the_cost_of_a_span_beyond_the_balance() {
        assert_eq!([0, 1_023_999, 1_024_000].map(|balance| terms(balance).due()), [Some(1_024_000), Some(1), None]);
        // Less than a nanoton costs one.
        let small = Terms { balance: 0, file_size: 1, rate: 1, max_span: 1, last_proof: 0 };
        assert_eq!(small.due(), Some(1));
        assert_eq!(Terms { rate: 0, ..small }.due(), None);
    }

    #[test]
    fn the_runway_begins_after_what_is_owed() {
        // Two days, of which the provider can take one at once.
        assert_eq!(terms(2_048_000).runway_seconds(1_700_000_000), Some(86_400));
        assert_eq!(
            Terms { last_proof: 1_699_999_990, ..terms(2_048_000) }.runway_seconds(1_700_000_000),
            Some(172_790)
        );
        assert_eq!(terms(0).runway_seconds(1_700_000_000), Some(0));
        assert_eq!(Terms { file_size: 0, ..terms(5) }.runway_seconds(1), None);
    }

    proptest! {
        #[test]
        fn no_numbers_are_too_large(
            balance in any::<u128>(),
            file_size in any::<u128>(),
            rate in any::<u128>(),
            max_span in any::<u128>(),
            now in any::<u64>(),
        ) {
            let terms = Terms { balance, file_size, rate, max_span, last_proof: 5 };
            let _ = (terms.due(), terms.runway_seconds(now));
        }
    }
}
