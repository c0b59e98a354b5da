//! The table `limits` of a backend: what one operation of its adapter may use. Which keys there are, what each means and
//! its default are a table in `host/types/src/limits.rs`.

use std::time::Duration;

use super::read::{Item, TomlTable};
use crate::types::limits::{LIMITS, ReadLimits};
use crate::types::{LimitOverrides, Result, parse_duration};

pub(super) fn limits(item: &Item<'_>) -> Result<LimitOverrides> {
    LimitOverrides::read(&item.table(LIMITS)?)
}

impl ReadLimits for TomlTable<'_> {
    fn bytes(&self, key: &str) -> Result<Option<u64>> {
        self.get(key).map(|item| item.bytes()).transpose()
    }

    fn count(&self, key: &str, most: u32) -> Result<Option<u32>> {
        self.get(key).map(|item| item.count(most)).transpose()
    }

    fn duration(&self, key: &str) -> Result<Option<Duration>> {
        let read = |item: Item<'_>| {
            let duration = item.parsed(parse_duration)?;
            if duration.is_zero() { Err(item.wrong("must be longer than zero")) } else { Ok(duration) }
        };
        self.get(key).map(read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// Each limit sets the value of its own name, and no other.
    #[test]
    fn every_limit_is_read() {
        for &key in LIMITS {
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
