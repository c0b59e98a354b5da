//! The table `limits` of a backend: limits of one operation of its adapter.
//!
//! The sandbox defines and enforces the limits (`limits.rs` of the runtime, `docs/security.md`). The names here are those
//! in the error when a limit is exceeded, with `_` for blanks.

use std::time::Duration;

use toml::de::DeValue;

use super::read::{Item, TomlTable};
use crate::types::{Result, parse_bytes, parse_duration};

/// The keys of `limits`.
pub const LIMITS: [&str; 16] = [
    "memory",
    "table_elements",
    "instances",
    "deadline",
    "idle",
    "cpu",
    "in_flight",
    "calls",
    "calls_in_flight",
    "call_bytes",
    "handles",
    "request_bytes",
    "response_bytes",
    "headers",
    "header_bytes",
    "log_bytes",
];

/// Limits of an adapter. `None` selects the host's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one operation.
    pub memory: Option<u64>,
    /// Elements of its tables.
    pub table_elements: Option<u64>,
    /// Core instances of which its component may be made.
    pub instances: Option<u32>,
    /// Time for one operation, waiting included.
    pub deadline: Option<Duration>,
    /// Time in which the adapter is waited for and next to nothing moves.
    pub idle: Option<Duration>,
    /// Time of the processor for one operation.
    pub cpu: Option<Duration>,
    /// Operations of this backend at once; further ones wait.
    pub in_flight: Option<u32>,
    /// Host calls of one operation.
    pub calls: Option<u32>,
    /// Concurrent host calls of one operation.
    pub calls_in_flight: Option<u32>,
    /// Bytes of strings and lists in one host call.
    pub call_bytes: Option<u64>,
    /// Handles that one operation holds at once.
    pub handles: Option<u32>,
    /// Bytes that one operation sends beyond its input.
    pub request_bytes: Option<u64>,
    /// Bytes of replies that one operation reads for itself, beyond those of its object.
    pub response_bytes: Option<u64>,
    /// Headers of a request or a response.
    pub headers: Option<u32>,
    /// Bytes of those headers together.
    pub header_bytes: Option<u64>,
    /// Bytes of log that one operation writes.
    pub log_bytes: Option<u64>,
}

/// More than any limit by number can mean.
const MAX: u32 = 1 << 20;

/// The maximum number of headers of a request or a response: the capacity of header maps (2^15), with room for the
/// host's own.
const MAX_HEADERS: u32 = 16 << 10;

pub(super) fn limits(item: &Item<'_>) -> Result<Limits> {
    let table = item.table(&LIMITS)?;
    let count = |key| table.get(key).map(|item: Item<'_>| item.count(MAX)).transpose();
    Ok(Limits {
        memory: bytes(&table, "memory")?,
        table_elements: count("table_elements")?.map(u64::from),
        instances: count("instances")?,
        deadline: duration(&table, "deadline")?,
        idle: duration(&table, "idle")?,
        cpu: duration(&table, "cpu")?,
        in_flight: count("in_flight")?,
        calls: table.get("calls").map(|item| item.count(u32::MAX)).transpose()?,
        calls_in_flight: count("calls_in_flight")?,
        call_bytes: bytes(&table, "call_bytes")?,
        handles: count("handles")?,
        request_bytes: bytes(&table, "request_bytes")?,
        response_bytes: bytes(&table, "response_bytes")?,
        headers: table.get("headers").map(|item| item.count(MAX_HEADERS)).transpose()?,
        header_bytes: bytes(&table, "header_bytes")?,
        log_bytes: bytes(&table, "log_bytes")?,
    })
}

fn bytes(table: &TomlTable<'_>, key: &str) -> Result<Option<u64>> {
    let read = |item: Item<'_>| match item.value() {
        DeValue::Integer(_) => u64::try_from(item.integer()?).map_err(|_| item.wrong("must not be negative")),
        _ => item.parsed(parse_bytes),
    };
    table.get(key).map(read).transpose()
}

fn duration(table: &TomlTable<'_>, key: &str) -> Result<Option<Duration>> {
    let read = |item: Item<'_>| {
        let duration = item.parsed(parse_duration)?;
        if duration.is_zero() { Err(item.wrong("must be longer than zero")) } else { Ok(duration) }
    };
    table.get(key).map(read).transpose()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// Each limit sets the value of its own name, and no other.
    #[test]
    fn every_limit_is_read() {
        for key in LIMITS {
            let value = match key {
                "deadline" | "idle" | "cpu" => "'7s'",
                _ => "7",
            };
            let text = format!("[backends.a]\nadapter = 'fs'\nlimits = {{ {key} = {value} }}");
            let limits = format!("{:?}", Config::parse(&text, Path::new("")).unwrap().backends["a"].limits);
            assert!(limits.contains(&format!("{key}: Some(7")), "{key}: {limits}");
            assert_eq!(limits.matches("Some").count(), 1, "{key}: {limits}");
        }
    }
}
