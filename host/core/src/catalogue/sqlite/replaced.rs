//! Objects that another one has taken the place of: packs beside a full one, and what gives nothing beside one that is whole.
//!
//! That another row is live does not say that its object is sound. So nothing here begins a removal: the host looks at the
//! other object, and retires these for it ([`retire_for`]).

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::conditions::{MET_BY_OTHERS, REPLACEABLE, REPLACED, WORTHLESS};
use super::query::placement_at;
use super::versions::next_version;
use super::{Placement, sql};
use crate::types::{ObjectId, Result, SnapshotId};

/// Rows that are looked at in one step.
const WINDOW: u64 = 10_000;

/// Those of a snapshot on a backend.
pub(super) fn of(db: &Connection, backend: &str, id: SnapshotId) -> Result<Vec<Placement>> {
    let mut query = db
        .prepare_cached(&format!(
            "SELECT snapshot, backend, object, encoding, state, stored_bytes, created, reason, since, version, pack
             FROM placements WHERE snapshot = ?1 AND backend = ?2 AND state <> 'removing'
                 AND ({REPLACED} AND {MET_BY_OTHERS}
                      OR {WORTHLESS} AND EXISTS (SELECT 1 FROM placements AS better
                          WHERE better.snapshot = ?1 AND better.backend = ?2 AND better.state = 'live'
                              AND better.object <> placements.object AND better.pack IS NULL))
                 AND {REPLACEABLE} ORDER BY seq"
        ))
        .map_err(sql)?;
    let mut rows = query.query((id.as_bytes().as_slice(), backend)).map_err(sql)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        found.push(placement_at(row)?);
    }
    Ok(found)
}

/// Packs beside a full one, among the next rows after this number, and the number to go on after; `None` after the last.
pub(super) fn after(db: &Connection, after: u64) -> Result<(Vec<Placement>, Option<u64>)> {
    let mut query = db
        .prepare_cached(&format!(
            "SELECT snapshot, backend, object, encoding, state, stored_bytes, created, reason, since, version, pack
             FROM placements WHERE seq > ?1 AND seq <= ?2 AND pack IS NOT NULL AND state <> 'removing'
                 AND {REPLACED} AND {MET_BY_OTHERS} AND {REPLACEABLE} ORDER BY seq"
        ))
        .map_err(sql)?;
    let last = after.saturating_add(WINDOW);
    let mut rows = query.query((after, last)).map_err(sql)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        found.push(placement_at(row)?);
    }
    let next: Option<u64> = db
        .prepare_cached("SELECT seq FROM placements WHERE seq > ?1 ORDER BY seq LIMIT 1")
        .and_then(|mut query| query.query_row([last], |row| row.get(0)).optional())
        .map_err(sql)?;
    Ok((found, next.map(|next| next - 1)))
}

/// Begins the removal of a placement that another one of its backend takes the place of.
pub(super) fn retire_for(db: &Transaction<'_>, seen: &Placement, by: &ObjectId, now: u64) -> Result<bool> {
    let next = next_version(db)?;
    let retired = db
        .prepare_cached(&format!(
            "UPDATE placements SET state = 'removing', reason = NULL, since = ?5, version = ?6
             WHERE backend = ?1 AND object = ?2 AND version = ?3 AND object <> ?4 AND state <> 'removing'
                 AND EXISTS (SELECT 1 FROM placements AS other
                             WHERE other.backend = ?1 AND other.object = ?4 AND other.state = 'live'
                                 AND other.snapshot = placements.snapshot)
                 AND ({MET_BY_OTHERS} OR {WORTHLESS}) AND {REPLACEABLE}"
        ))
        .and_then(|mut update| {
            update.execute((&seen.backend, seen.object.as_str(), seen.version, by.as_str(), now, next))
        })
        .map_err(sql)?;
    Ok(retired > 0)
}

/// Returns whether all of a placement was read since it came into its state, which is live.
pub(super) fn was_read(db: &Connection, seen: &Placement) -> Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM placements WHERE backend = ?1 AND object = ?2 AND version = ?3
             AND state = 'live' AND read_version = version)",
    )
    .and_then(|mut query| query.query_row((&seen.backend, seen.object.as_str(), seen.version), |row| row.get(0)))
    .map_err(sql)
}

/// Notes that all of a placement was read and was right.
pub(super) fn note_read(db: &Transaction<'_>, seen: &Placement, now: u64) -> Result<()> {
    db.prepare_cached(
        "UPDATE placements SET read_version = version, scrubbed = max(?4, since + 1)
         WHERE backend = ?1 AND object = ?2 AND version = ?3 AND state = 'live'",
    )
    .and_then(|mut update| update.execute((&seen.backend, seen.object.as_str(), seen.version, now)))
    .map(drop)
    .map_err(sql)
}
