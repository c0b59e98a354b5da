//! The numbers of changes.

use rusqlite::Transaction;

use super::sql;
use crate::types::Result;

/// A number that was never given before.
pub(super) fn next_version(db: &Transaction<'_>) -> Result<u64> {
    db.prepare_cached("UPDATE counters SET value = value + 1 WHERE name = 'version' RETURNING value")
        .and_then(|mut query| query.query_row([], |row| row.get(0)))
        .map_err(sql)
}
