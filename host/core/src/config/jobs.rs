//! The tables `jobs`, `scrub` and `rebase`: what is done in the background.

use std::time::Duration;

use super::read::Item;
use super::service::duration;
use crate::types::Result;

/// The most jobs that may be run at once.
const MAX_PARALLEL: u32 = 64;

/// The most that a chain may be allowed: no pack takes pages from more.
const MAX_CHAIN: u32 = 64;

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
    /// The bytes of each backend that are read in a day; `None` reads none.
    pub bytes_per_day: Option<u64>,
    /// No object is read more often; default a day.
    pub every: Duration,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { bytes_per_day: None, every: Duration::from_secs(24 * 60 * 60) }
    }
}

/// How the daemon rebases packs that take pages from many others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebase {
    /// The bytes that are read for it in a day; `None` rebases none.
    pub bytes_per_day: Option<u64>,
    /// The most objects that a pack may take pages from before it is rebased; default 16.
    pub chain: u32,
}

impl Default for Rebase {
    fn default() -> Self {
        Self { bytes_per_day: None, chain: 16 }
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

pub(super) fn rebase(item: &Item<'_>) -> Result<Rebase> {
    let table = item.table(&["bytes_per_day", "chain"])?;
    let otherwise = Rebase::default();
    Ok(Rebase {
        bytes_per_day: table.get("bytes_per_day").map(|item| some_bytes(&item)).transpose()?,
        chain: table.get("chain").map_or(Ok(otherwise.chain), |item| item.count(MAX_CHAIN))?,
    })
}

fn some_bytes(item: &Item<'_>) -> Result<u64> {
    match item.bytes()? {
        0 => Err(item.wrong("must be more than zero")),
        bytes => Ok(bytes),
    }
}
