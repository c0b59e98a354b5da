//! Medians and other quantiles.

use serde::Serialize;

/// Of times, in the unit that the field's name ends in.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    /// Half take less.
    pub p50: f64,
    /// One in a hundred takes more.
    pub p99: f64,
}

impl Quantiles {
    /// With so many decimals.
    pub fn of(times: &[f64], decimals: i32) -> Self {
        Self { p50: rounded(quantile(times, 0.5), decimals), p99: rounded(quantile(times, 0.99), decimals) }
    }
}

/// The value below which the share `q` (0 to 1) of all lies: the nearest one that was measured. 0 for no values.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((q * last as f64).round() as usize).copied().unwrap_or_default()
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Rounded to so many decimals: what is printed shall not look more exact than it is.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&values, 0.0), median(&values), quantile(&values, 0.99)), (0.0, 50.0, 99.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
    }
}
