//! The tables `jobs` and `scrub`: what is done in the background.

use std::time::Duration;

use super::read::Item;
use super::service::duration;
use crate::types::Result;

/// The most jobs that may be run at once.
const MAX_PARALLEL: u32 = 64;

/// How jobs are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jobs {
    /// Jobs that are run at once, and beyond them one for each two backends that no other goes on between; default 2.
    pub parallel: u32,
    /// The most bytes per second that all of them read together; `None` is no bound.
    pub bytes_per_second: Option<u64>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { parallel: 2, bytes_per_second: None }
    }
}

/// How the daemon scrubs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrub {
    /// The bytes that are read in a day; `None` reads none.
    pub bytes_per_day: Option<u64>,
    /// No object is read more often; default a day.
    pub every: Duration,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { bytes_per_day: None, every: Duration::from_secs(24 * 60 * 60) }
    }
}

pub(super) fn jobs(item: &Item<'_>) -> Result<Jobs> {
    let table = item.table(&["parallel", "bytes_per_second"])?;
    let mut jobs = Jobs::default();
    if let Some(item) = table.get("parallel") {
        jobs.parallel = item.count(MAX_PARALLEL)?;
    }
    jobs.bytes_per_second = table.get("bytes_per_second").map(|item| some_bytes(&item)).transpose()?;
    Ok(jobs)
}

pub(super) fn scrub(item: &Item<'_>) -> Result<Scrub> {
    let table = item.table(&["bytes_per_day", "every"])?;
    let otherwise = Scrub::default();
    Ok(Scrub {
        bytes_per_day: table.get("bytes_per_day").map(|item| some_bytes(&item)).transpose()?,
        every: duration(&table, "every")?.unwrap_or(otherwise.every),
    })
}

fn some_bytes(item: &Item<'_>) -> Result<u64> {
    match item.bytes()? {
        0 => Err(item.wrong("must be more than zero")),
        bytes => Ok(bytes),
    }
}
