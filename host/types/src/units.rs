//! Sizes and durations as people write and read them.

use std::time::Duration;

use super::{Error, Result};

/// Parses a number of bytes: `4096`, `64 KiB`, `1.5 GiB`, `10 MB`. Powers of 1024 have the `i`, powers of 1000 have not.
///
/// # Errors
/// `invalid` for anything else, for a negative number and for one beyond 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let (number, unit) = split(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(not_a(text, "size", "write bytes, or a number with KiB, MiB, GiB or TiB")),
    };
    scale(number, factor).ok_or_else(|| not_a(text, "size", "write bytes, or a number with KiB, MiB, GiB or TiB"))
}

/// Parses a duration: `250ms`, `30s`, `10m`, `5h`, `7d`. The unit is required.
///
/// # Errors
/// `invalid` for anything else.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let (number, unit) = split(text);
    let hint = "write a number with ms, s, m, h or d";
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(not_a(text, "duration", hint)),
    };
    scale(number, millis).map(Duration::from_millis).ok_or_else(|| not_a(text, "duration", hint))
}

/// A number of bytes for people: `0 B`, `4096 B`, `1.5 GiB`. Exact below 10 KiB.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 10 << 10 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

/// A duration for people, rounded up to a unit that leaves it a small number: `40 s`, `5 min`, `12 h`, `9 days`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", seconds.div_ceil(60)),
        6_000..360_000 => format!("{} h", seconds.div_ceil(3_600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
    }
}

/// `line 3, column 7`, both counted from 1, columns in characters.
pub fn position(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

fn scale(number: &str, factor: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    (value.is_finite() && value >= 0.0 && value < u64::MAX as f64).then_some(value.round() as u64)
}

fn not_a(text: &str, what: &str, hint: &str) -> Error {
    Error::invalid(format!("`{}` is not a {what}", text.escape_debug())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("64 MiB").unwrap(), 64 << 20);
        assert_eq!(parse_bytes("1.5GiB").unwrap(), 3 << 29);
        assert_eq!(parse_bytes("10 MB").unwrap(), 10_000_000);
        for wrong in ["", "x", "-1", "5 parsecs", "MiB", "99999999999 TiB", "1.2.3 MiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("1.5 h").unwrap(), Duration::from_secs(5400));
        assert!(parse_duration("30").is_err());
    }

    #[test]
    fn durations_are_rounded_up_to_small_numbers() {
        let said = |seconds| format_duration(Duration::from_secs(seconds));
        assert_eq!([said(0), said(40), said(300), said(5_999)], ["0 s", "40 s", "5 min", "100 min"]);
        assert_eq!([said(18_000), said(172_800), said(700_000)], ["5 h", "48 h", "9 days"]);
        assert_eq!(format_duration(Duration::from_millis(1)), "1 s");
    }

    proptest! {
        #[test]
        fn a_printed_size_can_be_parsed(bytes: u64) {
            let read = parse_bytes(&format_bytes(bytes).replace("PiB", "TiB").replace("EiB", "TiB"));
            prop_assert!(read.is_ok());
        }
    }
}
