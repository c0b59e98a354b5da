//! Reading jobs from their table.

use rusqlite::{Connection, Params, Row, Transaction};

use super::sql;
use crate::catalogue::{Job, JobKind, JobState};
use crate::types::{ObjectId, Result, SnapshotId};

pub(super) fn one_job(db: &Transaction<'_>, seq: u64) -> Result<Option<Job>> {
    Ok(jobs(db, "WHERE seq = ?1", [seq.min(i64::MAX as u64)])?.pop())
}

pub(super) fn jobs(db: &Connection, clause: &str, params: impl Params) -> Result<Vec<Job>> {
    let columns = "seq, kind, snapshot, backend, object, state, copies, attempts, not_before, created, reason";
    db.prepare_cached(&format!("SELECT {columns} FROM jobs {clause}"))
        .and_then(|mut query| query.query_map(params, job)?.collect())
        .map_err(sql)
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let (backend, object): (String, String) = (row.get(3)?, row.get(4)?);
    let object = match object.is_empty() {
        true => None,
        false => Some(ObjectId::new(object).map_err(|_| invalid(4))?),
    };
    Ok(Job {
        id: row.get(0)?,
        kind: kind_at(row, 1)?,
        snapshot: SnapshotId::from_bytes(row.get(2)?),
        backend: Some(backend).filter(|backend| !backend.is_empty()),
        object,
        state: state_at(row, 5)?,
        copies: row.get(6)?,
        attempts: row.get(7)?,
        not_before: row.get(8)?,
        created: row.get(9)?,
        reason: row.get(10)?,
    })
}

pub(super) fn kind_at(row: &Row<'_>, column: usize) -> rusqlite::Result<JobKind> {
    JobKind::from_name(&row.get::<_, String>(column)?).ok_or_else(|| invalid(column))
}

pub(super) fn state_at(row: &Row<'_>, column: usize) -> rusqlite::Result<JobState> {
    JobState::from_name(&row.get::<_, String>(column)?).ok_or_else(|| invalid(column))
}

/// The error of a value that does not fit its column's meaning.
pub(super) fn invalid(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "a job or an event".to_owned(), rusqlite::types::Type::Text)
}
