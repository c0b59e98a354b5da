//! Snapshots that have too few copies since some of theirs are on backends that are not configured.
//!
//! How many copies a snapshot has is kept beside what is wanted of it, for all backends (`schema/jobs.sql`). Which of these are
//! configured, each host knows for itself. So those that have enough by that count are looked for among the placements on
//! the backends that are not: usually there is none of these, which costs one look in an index for each backend.

use rusqlite::Transaction;

use super::conditions::names_as_json;
use super::sql;
use crate::types::{Result, SnapshotId};

/// The backends with a placement that are not among these.
fn not_configured(db: &Transaction<'_>, configured: &str) -> Result<Vec<String>> {
    db.prepare_cached(
        "WITH RECURSIVE known (name) AS
             (SELECT min(backend) FROM placements
              UNION ALL SELECT (SELECT min(backend) FROM placements WHERE backend > name) FROM known WHERE name IS NOT NULL)
         SELECT name FROM known WHERE name IS NOT NULL AND name NOT IN (SELECT value FROM json_each(?1))",
    )
    .and_then(|mut query| query.query_map([configured], |row| row.get(0))?.collect())
    .map_err(sql)
}

/// At most `limit` snapshots that have enough live copies, and fewer than are wanted of them on the backends that are
/// configured: those for which a job is to be enqueued, or all.
pub(super) fn short_of_copies(
    db: &Transaction<'_>,
    configured: &[String],
    all: bool,
    limit: u32,
) -> Result<Vec<SnapshotId>> {
    let configured = names_as_json(configured);
    let mut found: Vec<SnapshotId> = Vec::new();
    for backend in not_configured(db, &configured)? {
        let some: Vec<SnapshotId> = db
            .prepare_cached(
                "SELECT DISTINCT held.snapshot FROM placements AS held CROSS JOIN wanted ON wanted.snapshot = held.snapshot
                 WHERE held.backend = ?1 AND held.state = 'live' AND wanted.live >= wanted.copies AND wanted.asked <= ?4
                     AND (SELECT count(DISTINCT other.backend) FROM placements AS other
                          WHERE other.snapshot = held.snapshot AND other.state = 'live' AND other.backend <> 'hot'
                              AND other.backend IN (SELECT value FROM json_each(?2))) < wanted.copies
                     AND (?4 OR EXISTS (SELECT 1 FROM placements AS other
                          WHERE other.snapshot = held.snapshot AND other.state = 'live'
                              AND other.backend IN (SELECT value FROM json_each(?2))))
                     AND (?4 OR NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.snapshot = held.snapshot AND kind = 'repair'
                                         AND state IN ('queued', 'running')))
                 LIMIT ?3",
            )
            .and_then(|mut query| {
                let rows = query.query_map((&backend, &configured, limit, all), |row| row.get(0));
                rows?.map(|id| id.map(SnapshotId::from_bytes)).collect()
            })
            .map_err(sql)?;
        found.extend(some.into_iter().filter(|id| !found.contains(id)).collect::<Vec<_>>());
    }
    Ok(found)
}
