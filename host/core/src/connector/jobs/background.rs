//! What a daemon does beside its requests: jobs as they become due, and scrubs of each backend within its budget.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;

use super::rebase::Search;
use super::run::RunOptions;
use super::scrub::ScrubOptions;
use crate::config::HOT;
use crate::connector::Host;

/// How often jobs are looked for.
const LOOK: Duration = Duration::from_secs(2);
/// How often they are looked for where a host may have ended while it ran some, in looks.
const LOOKS_FOR_DEAD: u32 = 15;
/// How often the budgets of scrubs and of rebases grow.
const SLICE: Duration = Duration::from_secs(10);
/// What is not read of a budget is kept for so long.
const SAVED: Duration = Duration::from_secs(60 * 60);
/// The longest pause after failures of the catalogue.
const LONGEST: Duration = Duration::from_secs(5 * 60);
const DAY: f64 = 24.0 * 60.0 * 60.0;

impl Host {
    /// Runs jobs as they become due, and scrubs and rebases as configured, until it is dropped.
    pub async fn run_in_background(&self) {
        tokio::join!(self.keep_running_jobs(), self.keep_scrubbing(), self.keep_rebasing());
    }

    async fn keep_running_jobs(&self) {
        let (mut looks, mut pause) = (0, LOOK);
        loop {
            let due = match looks % LOOKS_FOR_DEAD {
                0 => Ok(true),
                _ => self.has_due_job().await,
            };
            looks += 1;
            let ran = match due {
                Ok(true) => self.run_jobs(&RunOptions::default()).await.map(drop),
                other => other.map(drop),
            };
            pause = match ran {
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::warn!(%error, "jobs cannot be run");
                    (pause * 2).min(LONGEST)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn keep_scrubbing(&self) {
        let settings = &self.inner.scrub_settings;
        let Some(bytes_per_day) = settings.bytes_per_day else { return };
        let names: Vec<&str> = self.inner.backends.keys().map(String::as_str).collect();
        let of_backend = |backend| self.keep_scrubbing_backend(backend, bytes_per_day, settings.every).boxed();
        join_all(names.into_iter().map(of_backend)).await;
    }

    /// Scrubs one backend, whose budget is its own.
    async fn keep_scrubbing_backend(&self, backend: &str, bytes_per_day: u64, every: Duration) {
        let mut budget = 0.0;
        loop {
            budget = grown(budget, bytes_per_day);
            if budget >= 1.0 {
                let options = ScrubOptions { bytes: Some(budget as u64), not_since: every, ..ScrubOptions::default() };
                match self.scrub_backend(backend, &options).await {
                    // One object may be larger than the budget, which makes up for that.
                    Ok(turn) => budget -= turn.taken as f64,
                    Err(error) => tracing::warn!(backend, %error, "cannot scrub"),
                }
            }
            tokio::time::sleep(SLICE).await;
        }
    }

    async fn keep_rebasing(&self) {
        let Some(bytes_per_day) = self.inner.rebase_settings.bytes_per_day else { return };
        // Of all backends together. One that stalls keeps its own rebases alone.
        let budget = Mutex::new(0.0);
        let grow = async {
            loop {
                change(&budget, |budget| grown(budget, bytes_per_day));
                tokio::time::sleep(SLICE).await;
            }
        };
        let backends = self.inner.backends.keys().filter(|backend| *backend != HOT);
        let all = join_all(backends.map(|backend| self.keep_rebasing_on(backend, &budget)));
        tokio::join!(grow, all.map(drop));
    }

    async fn keep_rebasing_on(&self, backend: &str, budget: &Mutex<f64>) {
        let mut search = Search::default();
        loop {
            let there = change(budget, |budget| budget);
            if there >= 1.0 {
                match self.rebase_long_chains(backend, &mut search, there as u64).boxed().await {
                    // One image may be larger than the budget, which makes up for that.
                    Ok(read) => drop(change(budget, |budget| budget - read as f64)),
                    Err(error) => tracing::warn!(backend, %error, "cannot rebase"),
                }
            }
            tokio::time::sleep(SLICE).await;
        }
    }
}

/// Changes a budget, and returns what it is then.
fn change(budget: &Mutex<f64>, by: impl FnOnce(f64) -> f64) -> f64 {
    let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
    *budget = by(*budget);
    *budget
}

/// A budget of bytes after a further slice of time.
fn grown(budget: f64, bytes_per_day: u64) -> f64 {
    let bytes = |time: Duration| bytes_per_day as f64 * time.as_secs_f64() / DAY;
    (budget + bytes(SLICE)).min(bytes(SAVED).max(1.0))
}
