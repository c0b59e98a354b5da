//! The swap log: persistence of the history and of its components.
//!
//! The runtime has no access to files or databases: the caller that opens a slot injects a [`SwapLog`]. The connector's
//! keeps the history in the catalogue and the components in files; [`InMemorySwapLog`] loses both with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;

use super::history::{History, HistoryRow};
use crate::Component;
use tidelock_types::{Error, Result};

/// Keeps the history of generations and their components.
pub trait SwapLog: Send + Sync {
    /// The rows of a backend, oldest first.
    ///
    /// # Errors
    /// If they cannot be read.
    fn past<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Vec<HistoryRow>>>;

    /// Adds a row and its component atomically: when this returns, both are durable, and after a
    /// crash at any moment either both are there, or neither counts. A row with a generation
    /// gets the next number, whatever number it has; returns the row as written.
    ///
    /// # Errors
    /// If nothing was written.
    fn add<'a>(
        &'a self,
        backend: &'a str,
        row: HistoryRow,
        component: Option<Component>,
    ) -> BoxFuture<'a, Result<HistoryRow>>;

    /// The component of a digest. There as long as a history needs it.
    ///
    /// # Errors
    /// `not-found` if it is gone, `corrupt` if it has changed.
    fn component<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<Component>>;
}

/// A swap log that lasts as long as the process.
#[derive(Default)]
pub struct InMemorySwapLog(Mutex<Held>);

#[derive(Default)]
struct Held {
    histories: BTreeMap<String, Vec<HistoryRow>>,
    components: BTreeMap<String, Component>,
}

impl InMemorySwapLog {
    fn with<T>(&self, call: impl FnOnce(&mut Held) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Held {
    fn add(&mut self, backend: &str, mut row: HistoryRow, component: Option<Component>) -> HistoryRow {
        let rows = self.histories.entry(backend.to_owned()).or_default();
        if row.generation.is_some() {
            row.generation = Some(rows.iter().filter_map(|row| row.generation).max().unwrap_or(0) + 1);
        }
        rows.push(row.clone());
        rows.drain(..rows.len().saturating_sub(super::history::ROWS));
        if let Some(component) = component {
            self.components.entry(row.digest.clone()).or_insert(component);
            let needed: BTreeSet<String> = self
                .histories
                .values()
                .flat_map(|rows| History::of(rows.iter().cloned()).needed().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            self.components.retain(|digest, _| needed.contains(digest));
        }
        row
    }
}

impl SwapLog for InMemorySwapLog {
    fn past<'a>(&'a self, backend: &'a str) -> BoxFuture<'a, Result<Vec<HistoryRow>>> {
        let rows = self.with(|held| held.histories.get(backend).cloned().unwrap_or_default());
        Box::pin(std::future::ready(Ok(rows)))
    }

    fn add<'a>(
        &'a self,
        backend: &'a str,
        row: HistoryRow,
        component: Option<Component>,
    ) -> BoxFuture<'a, Result<HistoryRow>> {
        let row = self.with(|held| held.add(backend, row, component));
        Box::pin(std::future::ready(Ok(row)))
    }

    fn component<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<Component>> {
        let found = self.with(|held| held.components.get(digest).cloned());
        let found = found.ok_or_else(|| Error::not_found(format!("the component {digest} is no longer stored")));
        Box::pin(std::future::ready(found))
    }
}
