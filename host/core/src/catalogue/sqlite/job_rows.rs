//! Rows of jobs, events and wanted copies, as parts of other changes.

use rusqlite::{OptionalExtension as _, Transaction};

use super::sql;
use crate::catalogue::placement::visible_reason;
use crate::catalogue::{HeldJob, MAX_EVENTS, NewJob, WantedCopies};
use crate::types::{Error, ObjectId, Result, SnapshotId};

/// Enqueues a job, unless it is there or its snapshot is not; a push that has failed for good is due again. Returns how many are
/// new.
pub(super) fn enqueue(db: &Transaction<'_>, new: &NewJob, now: u64) -> Result<u64> {
    let (backend, object) = (new.backend.as_deref().unwrap_or(""), new.object.as_ref().map_or("", ObjectId::as_str));
    db.prepare_cached(
        "INSERT INTO jobs (kind, snapshot, backend, object, state, copies, created, bytes)
         SELECT ?1, id, ?3, ?4, 'queued',
                (SELECT count(DISTINCT backend) FROM placements
                 WHERE snapshot = ?2 AND state = 'live' AND backend <> 'hot'),
                ?5, size
         FROM snapshots WHERE id = ?2
         ON CONFLICT (snapshot, kind, backend, object) DO UPDATE SET state = 'queued', not_before = 0
             WHERE kind = 'push' AND state = 'failed'",
    )
    .and_then(|mut insert| insert.execute((new.kind.name(), new.snapshot.as_bytes().as_slice(), backend, object, now)))
    .map(|made| made as u64)
    .map_err(sql)
}

/// Notes an event, and forgets the oldest of the snapshot beyond those that are kept.
pub(super) fn note_event(
    db: &Transaction<'_>,
    snapshot: SnapshotId,
    place: (&str, &str),
    (what, why): (&str, Option<&str>),
    now: u64,
) -> Result<()> {
    let id = snapshot.as_bytes().as_slice();
    db.prepare_cached("INSERT INTO events (snapshot, backend, object, at, what, why) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .and_then(|mut insert| insert.execute((id, place.0, place.1, now, what, why.map(visible_reason))))
        .map_err(sql)?;
    db.prepare_cached(
        "DELETE FROM events WHERE snapshot = ?1 AND seq <=
             (SELECT seq FROM events WHERE snapshot = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
    )
    .and_then(|mut delete| delete.execute((id, MAX_EVENTS)))
    .map(drop)
    .map_err(sql)
}

/// Notes how many copies of a snapshot are wanted and on which routes, beside those that were wanted before. A job that has looked at
/// fewer routes is due again.
pub(super) fn want(db: &Transaction<'_>, snapshot: SnapshotId, wanted: &WantedCopies) -> Result<()> {
    let id = snapshot.as_bytes().as_slice();
    let before: Option<WantedCopies> = db
        .prepare_cached("SELECT copies, route FROM wanted WHERE snapshot = ?1")
        .and_then(|mut query| {
            query.query_row([id], |row| Ok(WantedCopies { copies: row.get(0)?, route: row.get(1)? })).optional()
        })
        .map_err(sql)?;
    let all = before.as_ref().map_or_else(|| wanted.clone(), |before| before.and(wanted));
    db.prepare_cached(
        "INSERT INTO wanted (snapshot, copies, route, live)
         VALUES (?1, ?2, ?3, (SELECT count(DISTINCT backend) FROM placements
                              WHERE snapshot = ?1 AND state = 'live' AND backend <> 'hot'))
         ON CONFLICT (snapshot) DO UPDATE SET copies = excluded.copies, route = excluded.route",
    )
    .and_then(|mut insert| insert.execute((id, all.copies, &all.route)))
    .map_err(sql)?;
    if before.is_some_and(|before| before.route != all.route) {
        db.prepare_cached(
            "UPDATE jobs SET state = 'queued', token = NULL, not_before = 0
             WHERE snapshot = ?1 AND kind IN ('copy', 'push') AND state IN ('running', 'waiting')",
        )
        .and_then(|mut update| update.execute([id]))
        .map_err(sql)?;
    }
    Ok(())
}

/// Ends the push of a snapshot that has come to its number of copies in another way, unless it is run: its run finds that.
pub(super) fn settle_push(db: &Transaction<'_>, snapshot: SnapshotId) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM jobs WHERE snapshot = ?1 AND kind = 'push' AND state <> 'running'
             AND EXISTS (SELECT 1 FROM wanted WHERE wanted.snapshot = ?1 AND live >= copies)",
    )
    .and_then(|mut delete| delete.execute([snapshot.as_bytes().as_slice()]))
    .map(drop)
    .map_err(sql)
}

/// Ends what is wanted of a snapshot that is removed: no copies any more.
pub(super) fn want_no_more(db: &Transaction<'_>, snapshot: SnapshotId) -> Result<()> {
    let id = snapshot.as_bytes().as_slice();
    db.prepare_cached("DELETE FROM wanted WHERE snapshot = ?1")
        .and_then(|mut delete| delete.execute([id]))
        .map_err(sql)?;
    db.prepare_cached("DELETE FROM jobs WHERE snapshot = ?1 AND kind IN ('copy', 'push')")
        .and_then(|mut delete| delete.execute([id]))
        .map(drop)
        .map_err(sql)
}

/// Makes sure that a job is held still.
///
/// # Errors
/// `conflict` if it is not.
pub(super) fn check_held(db: &Transaction<'_>, held: HeldJob) -> Result<()> {
    let holds: bool = db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE seq = ?1 AND state = 'running' AND token = ?2)
                AND EXISTS (SELECT 1 FROM owners WHERE token = ?2)",
        )
        .and_then(|mut query| query.query_row((held.id, held.token.0), |row| row.get(0)))
        .map_err(sql)?;
    match holds {
        true => Ok(()),
        false => Err(Error::conflict(format!("job {} was cancelled, or taken over by another host", held.id))),
    }
}

/// Ends the repair of a placement that is good again, unless it is run: then it finds that out itself.
pub(super) fn repair_no_more(
    db: &Transaction<'_>,
    snapshot: SnapshotId,
    (backend, object): (&str, &str),
) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM jobs WHERE snapshot = ?1 AND kind = 'repair' AND backend = ?2 AND object = ?3
             AND state <> 'running'",
    )
    .and_then(|mut delete| delete.execute((snapshot.as_bytes().as_slice(), backend, object)))
    .map(drop)
    .map_err(sql)
}
