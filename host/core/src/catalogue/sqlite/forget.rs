//! Forgetting a backend that is not configured any more.

use std::collections::HashSet;

use rusqlite::Transaction;

use super::conditions::{READABLE, names_as_json};
use super::removals::forget_snapshot;
use super::{SqliteCatalogue, sql};
use crate::catalogue::Forgotten;
use crate::types::{Result, SnapshotId};

impl SqliteCatalogue {
    pub(super) async fn forget_backend(&self, backend: &str, relied: Vec<String>, lose: bool) -> Result<Forgotten> {
        let (backend, relied) = (backend.to_owned(), names_as_json(&relied));
        self.change(move |db| {
            let mut found = last_copies(db, &backend, &relied)?;
            if found.last > 0 && !lose {
                return Ok(found);
            }
            let held: Vec<[u8; 32]> = db
                .prepare_cached("SELECT DISTINCT snapshot FROM placements WHERE backend = ?1")
                .and_then(|mut query| query.query_map([&backend], |row| row.get(0))?.collect())
                .map_err(sql)?;
            for statement in [
                "DELETE FROM needs WHERE backend = ?1",
                "DELETE FROM placements WHERE backend = ?1",
                "DELETE FROM claims WHERE backend = ?1",
                "DELETE FROM intents WHERE backend = ?1",
                "DELETE FROM containers WHERE backend = ?1",
                "DELETE FROM looked_through WHERE backend = ?1 AND backend <> ''",
            ] {
                db.execute(statement, [&backend]).map_err(sql)?;
            }
            let mut gone = Vec::new();
            for snapshot in held {
                let placed: bool = db
                    .prepare_cached(
                        "SELECT EXISTS (SELECT 1 FROM placements WHERE snapshot = ?1)
                             OR EXISTS (SELECT 1 FROM needs WHERE needed = ?1)",
                    )
                    .and_then(|mut query| query.query_row([snapshot], |row| row.get(0)))
                    .map_err(sql)?;
                if !placed {
                    let known: bool = db
                        .prepare_cached("SELECT EXISTS (SELECT 1 FROM snapshots WHERE id = ?1 AND removed = 0)")
                        .and_then(|mut query| query.query_row([snapshot], |row| row.get(0)))
                        .map_err(sql)?;
                    let id = SnapshotId::from_bytes(snapshot);
                    gone.extend(known.then_some(id));
                    forget_snapshot(db, id)?;
                }
            }
            // Some may still be recorded where nobody has answered.
            found.last = gone.len() as u64;
            let gone: HashSet<SnapshotId> = gone.into_iter().collect();
            found.last_copies.retain(|(id, _)| gone.contains(id));
            found.done = true;
            Ok(found)
        })
        .await
    }
}

/// The placements of a backend, and the snapshots of which nothing else on these other backends is a copy.
fn last_copies(db: &Transaction<'_>, backend: &str, relied: &str) -> Result<Forgotten> {
    let placements = db
        .prepare_cached("SELECT count(*) FROM placements WHERE backend = ?1")
        .and_then(|mut query| query.query_row([backend], |row| row.get(0)))
        .map_err(sql)?;
    let mut found = Forgotten { placements, ..Forgotten::default() };
    let mut query = db
        .prepare_cached(&format!(
            "SELECT DISTINCT held.snapshot,
                    (SELECT name FROM names WHERE names.snapshot = held.snapshot ORDER BY seq DESC LIMIT 1)
             FROM placements AS held JOIN snapshots ON id = held.snapshot
             WHERE held.backend = ?1 AND held.state <> 'removing' AND snapshots.removed = 0
                 AND NOT EXISTS (SELECT 1 FROM placements AS other
                                 WHERE other.snapshot = held.snapshot AND other.backend <> ?1
                                     AND other.backend IN (SELECT value FROM json_each(?2)) AND {READABLE})"
        ))
        .map_err(sql)?;
    let mut rows = query.query((backend, relied)).map_err(sql)?;
    while let Some(row) = rows.next().map_err(sql)? {
        found.last += 1;
        if found.last_copies.len() < Forgotten::MOST {
            let id = SnapshotId::from_bytes(row.get(0).map_err(sql)?);
            found.last_copies.push((id, row.get(1).map_err(sql)?));
        }
    }
    Ok(found)
}
