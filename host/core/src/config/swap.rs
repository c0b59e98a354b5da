//! How a backend changes its adapter: the table `swap` of a backend.

use std::time::Duration;

use super::read::{Item, TomlTable};
use crate::types::{Result, parse_duration};

/// How a backend changes its adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Swap {
    /// How long operations may go on on an adapter that was replaced; `None` is as long as they may take anyway.
    pub drain: Option<Duration>,
    /// Whether a new adapter first gets a share of real operations.
    pub canary: Option<Canary>,
    /// Duration of the trial of a new generation; `None` selects the host's default.
    pub trial: Option<Duration>,
    /// Whether a generation that fails more than its predecessor is rolled back automatically.
    pub automatic_rollback: bool,
}

impl Default for Swap {
    fn default() -> Self {
        Self { drain: None, canary: None, trial: None, automatic_rollback: true }
    }
}

/// A share of real operations for a new adapter before it takes over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Canary {
    /// More than 0 and at most 1.
    pub share: f64,
    /// For how long.
    pub duration: Duration,
}

pub(super) fn swap(item: &Item<'_>) -> Result<Swap> {
    let table = item.table(&["drain", "canary", "trial", "automatic_rollback"])?;
    Ok(Swap {
        drain: table.get("drain").map(|item| duration(&item)).transpose()?,
        canary: table.get("canary").map(|item| canary(&item)).transpose()?,
        trial: table.get("trial").map(|item| duration(&item)).transpose()?,
        automatic_rollback: table.get("automatic_rollback").map_or(Ok(true), |item| item.boolean())?,
    })
}

fn canary(item: &Item<'_>) -> Result<Canary> {
    let table = item.table(&["share", "duration"])?;
    let example = "canary = { share = 0.05, duration = \"30s\" }";
    let share = table.need("share", example)?;
    let amount = share.amount()?;
    // A step of the host's is 1/10,000.
    if !(0.0001..=1.0).contains(&amount) {
        return Err(share.wrong("must be from 0.0001 to 1").hint(format!("write {example}")));
    }
    Ok(Canary { share: amount, duration: of(&table, "duration", example)? })
}

fn of(table: &TomlTable<'_>, key: &str, example: &str) -> Result<Duration> {
    duration(&table.need(key, example)?)
}

fn duration(item: &Item<'_>) -> Result<Duration> {
    let duration = item.parsed(parse_duration)?;
    if duration.is_zero() { Err(item.wrong("must be longer than zero")) } else { Ok(duration) }
}
