//! Which adapters have served which backend: one row for each change and for each component that was refused.
//!
//! The catalogue does not interpret the fields of a row; it keeps their order, numbers generations, and ensures that the
//! files of rows are created and removed by one process at a time.

use rusqlite::{Row, Transaction, TransactionBehavior};

use super::{Catalogue, sql};
use crate::types::Result;

/// One row of the history of a backend's adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapRow {
    /// The event.
    pub event: String,
    /// The generation that serves from here on; `None` if nothing changed.
    pub generation: Option<u64>,
    /// The component's digest.
    pub digest: String,
    /// The adapter's name; empty if it is not known.
    pub adapter: String,
    /// The adapter's version.
    pub version: String,
    /// When (seconds since 1970-01-01 UTC).
    pub at: u64,
    /// The origin of the swap.
    pub by: String,
    /// The digest that served before.
    pub previous: Option<String>,
    /// The stage that refused the component.
    pub stage: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// The digest of the component that the configuration named.
    pub configured: String,
}

const COLUMNS: &str = "event, generation, digest, adapter, version, at, who, previous, stage, why, configured";

impl Catalogue {
    /// The rows of a backend, oldest first.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn swaps(&self, backend: &str) -> Result<Vec<SwapRow>> {
        let backend = backend.to_owned();
        self.with(move |db| {
            let text = format!("SELECT {COLUMNS} FROM swaps WHERE backend = ?1 ORDER BY seq");
            let mut query = db.prepare_cached(&text).map_err(sql)?;
            query.query_map([&backend], read).and_then(Iterator::collect).map_err(sql)
        })
        .await
    }

    /// Adds a row and removes all but the last `keep` of the backend, and the one of the current generation. A row with a
    /// generation gets the next number. `settle` runs within the transaction: if it fails, nothing is written, and no
    /// other process changes a row or runs a `settle` or a `sweep` meanwhile. Returns the row as written.
    ///
    /// # Errors
    /// Those of `settle`; errors of the database.
    pub async fn add_swap(
        &self,
        backend: &str,
        row: SwapRow,
        keep: usize,
        settle: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<SwapRow> {
        let backend = backend.to_owned();
        self.with(move |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
            let row = insert(&transaction, &backend, row)?;
            transaction
                .prepare_cached(
                    "DELETE FROM swaps WHERE backend = ?1
                     AND seq <= (SELECT seq FROM swaps WHERE backend = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)
                     AND seq <> (SELECT max(seq) FROM swaps WHERE backend = ?1 AND generation IS NOT NULL)",
                )
                .and_then(|mut delete| delete.execute((&backend, keep)))
                .map_err(sql)?;
            settle()?;
            transaction.commit().map_err(sql)?;
            Ok(row)
        })
        .await
    }

    /// Calls a function with all rows, oldest first, and their backends, to remove files without a row, while
    /// no other process changes them.
    ///
    /// # Errors
    /// Those of the function; errors of the database.
    pub async fn sweep_swaps<T: Send + 'static>(
        &self,
        sweep: impl FnOnce(Vec<(String, SwapRow)>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.with(move |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
            let rows = {
                let text = format!("SELECT {COLUMNS}, backend FROM swaps ORDER BY seq");
                let mut query = transaction.prepare_cached(&text).map_err(sql)?;
                let rows = query.query_map([], |row| Ok((row.get("backend")?, read(row)?)));
                rows.and_then(Iterator::collect).map_err(sql)?
            };
            let swept = sweep(rows)?;
            transaction.commit().map_err(sql)?;
            Ok(swept)
        })
        .await
    }
}

fn insert(db: &Transaction<'_>, backend: &str, mut row: SwapRow) -> Result<SwapRow> {
    if row.generation.is_some() {
        let last: Option<u64> = db
            .prepare_cached("SELECT max(generation) FROM swaps WHERE backend = ?1")
            .and_then(|mut query| query.query_row([backend], |row| row.get(0)))
            .map_err(sql)?;
        row.generation = Some(last.unwrap_or(0) + 1);
    }
    db.prepare_cached(
        "INSERT INTO swaps
             (backend, event, generation, digest, adapter, version, at, who, previous, stage, why, configured)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )
    .and_then(|mut insert| {
        insert.execute(rusqlite::params![
            backend,
            row.event,
            row.generation,
            row.digest,
            row.adapter,
            row.version,
            row.at,
            row.by,
            row.previous,
            row.stage,
            row.why,
            row.configured
        ])
    })
    .map_err(sql)?;
    Ok(row)
}

fn read(row: &Row<'_>) -> rusqlite::Result<SwapRow> {
    Ok(SwapRow {
        event: row.get(0)?,
        generation: row.get(1)?,
        digest: row.get(2)?,
        adapter: row.get(3)?,
        version: row.get(4)?,
        at: row.get(5)?,
        by: row.get(6)?,
        previous: row.get(7)?,
        stage: row.get(8)?,
        why: row.get(9)?,
        configured: row.get(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Error;

    fn row(event: &str, generation: Option<u64>) -> SwapRow {
        SwapRow {
            event: event.into(),
            generation,
            digest: format!("sha256:{event}"),
            adapter: "fs".into(),
            version: "1".into(),
            at: 7,
            by: "a test".into(),
            previous: None,
            stage: Some("probe".into()),
            why: Some("because".into()),
            configured: "sha256:first".into(),
        }
    }

    async fn fresh() -> (tempfile::TempDir, Catalogue) {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(dir.path().join("c.sqlite")).await.unwrap();
        (dir, catalogue)
    }

    #[tokio::test]
    async fn rows_keep_their_order_and_generations_count_up() {
        let (_dir, catalogue) = fresh().await;
        for (event, generation) in [("a", Some(0)), ("b", None), ("c", Some(99))] {
            catalogue.add_swap("x", row(event, generation), 10, || Ok(())).await.unwrap();
        }
        catalogue.add_swap("y", row("d", Some(0)), 10, || Ok(())).await.unwrap();
        let again = Catalogue::open(catalogue.path()).await.unwrap();
        let found = again.swaps("x").await.unwrap();
        assert_eq!(found, [row("a", Some(1)), row("b", None), row("c", Some(2))]);
        assert_eq!(again.swaps("y").await.unwrap()[0].generation, Some(1));
        let all = again.sweep_swaps(|rows| Ok(rows.len())).await.unwrap();
        assert_eq!(all, 4);
    }

    #[tokio::test]
    async fn a_settlement_that_fails_leaves_no_row() {
        let (_dir, catalogue) = fresh().await;
        let failed = catalogue.add_swap("x", row("a", Some(0)), 10, || Err(Error::unavailable("no disk"))).await;
        assert_eq!(failed.unwrap_err().to_string(), "no disk");
        assert!(catalogue.swaps("x").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn old_rows_go_and_the_one_that_serves_stays() {
        let (_dir, catalogue) = fresh().await;
        catalogue.add_swap("x", row("a", Some(0)), 3, || Ok(())).await.unwrap();
        for _ in 0..5 {
            catalogue.add_swap("x", row("b", None), 3, || Ok(())).await.unwrap();
        }
        let events: Vec<_> = catalogue.swaps("x").await.unwrap().into_iter().map(|row| row.event).collect();
        assert_eq!(events, ["a", "b", "b", "b"]);
        catalogue.add_swap("x", row("c", Some(0)), 3, || Ok(())).await.unwrap();
        let events: Vec<_> = catalogue.swaps("x").await.unwrap().into_iter().map(|row| row.event).collect();
        assert_eq!(events, ["b", "b", "c"]);
    }
}
