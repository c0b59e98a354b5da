//! Which adapters have served which backend: one row for each change and for each component that was refused.
//!
//! The number of a generation is given in the transaction that adds its row.

use rusqlite::{Row, Transaction};

use super::{SqliteCatalogue, SwapRow, sql};
use crate::types::Result;

const COLUMNS: &str = "event, generation, digest, adapter, version, at, who, previous, stage, why, configured";

impl SqliteCatalogue {
    pub(super) async fn swaps(&self, backend: &str) -> Result<Vec<SwapRow>> {
        let backend = backend.to_owned();
        self.with(move |db| {
            let text = format!("SELECT {COLUMNS} FROM swaps WHERE backend = ?1 ORDER BY seq");
            let mut query = db.prepare_cached(&text).map_err(sql)?;
            query.query_map([&backend], read).and_then(Iterator::collect).map_err(sql)
        })
        .await
    }

    pub(super) async fn all_swaps(&self) -> Result<Vec<(String, SwapRow)>> {
        self.with(|db| {
            let text = format!("SELECT {COLUMNS}, backend FROM swaps ORDER BY seq");
            let mut query = db.prepare_cached(&text).map_err(sql)?;
            let rows = query.query_map([], |row| Ok((row.get("backend")?, read(row)?)));
            rows.and_then(Iterator::collect).map_err(sql)
        })
        .await
    }

    pub(super) async fn add_swap(&self, backend: &str, row: SwapRow, keep: usize) -> Result<SwapRow> {
        let backend = backend.to_owned();
        self.change(move |db| {
            let row = insert(db, &backend, row)?;
            db.prepare_cached(
                "DELETE FROM swaps WHERE backend = ?1
                 AND seq <= (SELECT seq FROM swaps WHERE backend = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)
                 AND seq <> (SELECT max(seq) FROM swaps WHERE backend = ?1 AND generation IS NOT NULL)",
            )
            .and_then(|mut delete| delete.execute((&backend, keep)))
            .map_err(sql)?;
            Ok(row)
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
