//! Jobs, and what is recorded of placements beside their state.
//!
//! What follows from placements (live copies, and which jobs wake up) is kept by triggers: `schema/jobs.sql`.

use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use super::conditions::REPLACEABLE;
use super::elsewhere::short_of_copies;
use super::job_reading::{invalid, jobs, kind_at, one_job, state_at};
use super::job_rows::enqueue;
use super::job_taking::take;
use super::query::placement_at;
use super::reserved::at_risk;
use super::versions::next_version;
use super::{OwnerToken, Placement, SqliteCatalogue, dependents, replaced, sql};
use crate::catalogue::placement::visible_reason;
use crate::catalogue::{
    Between, Choice, HeldJob, Job, JobEnd, JobKind, JobQueue, JobStats, LongChains, MAX_EVENTS, NewJob, PlacementEvent,
    Reserved, RiskBound, Scrubbed, Take, WantedCopies,
};
use crate::types::{ObjectId, Result, SnapshotId};

/// Placements of which one call looks for long chains.
const LOOKED_AT: u64 = 10_000;

/// Each operation is described where the trait is.
impl JobQueue for SqliteCatalogue {
    fn enqueue(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<u64>> {
        let now = self.platform.unix_seconds();
        Box::pin(self.change(move |db| jobs.iter().try_fold(0, |sum, job| Ok(sum + enqueue(db, job, now)?))))
    }

    fn enqueue_copies(&self, limit: u32, configured: Vec<String>) -> BoxFuture<'_, Result<u64>> {
        let now = self.platform.unix_seconds();
        let made = self.change(move |db| {
            let found: Vec<[u8; 32]> = db
                .prepare_cached(
                    "SELECT snapshot FROM
                         (SELECT snapshot FROM wanted INDEXED BY wanted_under WHERE live < copies AND asked = 0 ORDER BY live, snapshot LIMIT ?1) AS under
                     WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.snapshot = under.snapshot AND kind = 'repair'
                                           AND state IN ('queued', 'running'))",
                )
                .and_then(|mut query| query.query_map([limit], |row| row.get(0))?.collect())
                .map_err(sql)?;
            let mut made = 0;
            for snapshot in found {
                let live: bool = db
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM placements WHERE snapshot = ?1 AND state = 'live')")
                    .and_then(|mut query| query.query_row([snapshot], |row| row.get(0)))
                    .map_err(sql)?;
                let snapshot = SnapshotId::from_bytes(snapshot);
                if !live {
                    // There is nothing to copy. It is looked at again once that changes.
                    asked(db, snapshot)?;
                    continue;
                }
                made += enqueue(db, &NewJob { kind: JobKind::Copy, snapshot, backend: None, object: None }, now)?;
                // Also where there was one: it is not looked at again.
                asked(db, snapshot)?;
            }
            Ok(made)
        });
        Box::pin(async move {
            let made = made.await?;
            // Looked for without keeping others from writing.
            let find =
                move |db: &mut Connection| short_of_copies(&db.transaction().map_err(sql)?, &configured, false, limit);
            let found = self.with(find).await?;
            if found.is_empty() {
                return Ok(made);
            }
            let more = self.change(move |db| {
                found.iter().try_fold(0, |sum, snapshot| {
                    let new = NewJob { kind: JobKind::Copy, snapshot: *snapshot, backend: None, object: None };
                    let made = enqueue(db, &new, now)?;
                    asked(db, *snapshot)?;
                    Ok(sum + made)
                })
            });
            Ok(made + more.await?)
        })
    }

    fn has_due_job(&self) -> BoxFuture<'_, Result<bool>> {
        let now = self.platform.unix_seconds();
        Box::pin(self.with(move |db| {
            db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'queued')
                     OR EXISTS (SELECT 1 FROM jobs WHERE state = 'waiting' AND not_before <= ?1)
                     OR EXISTS (SELECT 1 FROM wanted INDEXED BY wanted_under WHERE live < copies AND asked = 0)
                     OR EXISTS (SELECT 1 FROM jobs WHERE state = 'running'
                                AND token NOT IN (SELECT token FROM owners WHERE expires > ?1))",
            )
            .and_then(|mut query| query.query_row([now], |row| row.get(0)))
            .map_err(sql)
        }))
    }

    fn take_job(&self, which: Take, token: OwnerToken) -> BoxFuture<'_, Result<Option<Job>>> {
        let now = self.platform.unix_seconds();
        Box::pin(self.change(move |db| take(db, which, token, now)))
    }

    fn take_job_beside<'a>(
        &'a self,
        which: Take,
        choice: &'a Choice,
        token: OwnerToken,
    ) -> BoxFuture<'a, Result<Option<(Job, Between)>>> {
        Box::pin(self.take_beside(which, choice, token))
    }

    fn end_job(&self, held: HeldJob, end: JobEnd) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.change(move |db| {
            let change = |statement: &str, params: &[&dyn rusqlite::ToSql]| {
                db.prepare_cached(statement).and_then(|mut change| change.execute(params)).map_err(sql)
            };
            let (seq, token) = (held.id, held.token.0);
            let changed = match end {
                JobEnd::Done => {
                    let done = "DELETE FROM jobs WHERE seq = ?1 AND state = 'running' AND token = ?2";
                    change(done, &[&seq, &token])?
                }
                JobEnd::Wait(until, why) => {
                    let waits = change(
                        "UPDATE jobs SET state = 'waiting', token = NULL, not_before = ?3, reason = ?4
                         WHERE seq = ?1 AND state = 'running' AND token = ?2",
                        &[&seq, &token, &until, &visible_reason(&why)],
                    )?;
                    // Those that have waited for it have waited long enough.
                    let wake = "UPDATE jobs SET state = 'queued', not_before = 0 WHERE seq IN
                         (SELECT other.seq FROM jobs AS this
                          CROSS JOIN needs ON needs.needed = this.snapshot AND needs.backend = this.backend
                          CROSS JOIN placements AS p ON p.backend = needs.backend AND p.object = needs.object
                          CROSS JOIN jobs AS other ON other.snapshot = p.snapshot AND other.kind = 'repair'
                              AND other.backend = p.backend AND other.object = p.object
                          WHERE this.seq = ?1 AND this.kind = 'repair'
                              AND other.state = 'waiting' AND other.attempts = 1)";
                    if waits > 0 {
                        change(wake, &[&seq])?;
                    }
                    waits
                }
                JobEnd::Untried(until, why) => change(
                    "UPDATE jobs SET state = 'waiting', token = NULL, attempts = max(attempts - 1, 0), not_before = ?3, reason = ?4
                     WHERE seq = ?1 AND state = 'running' AND token = ?2",
                    &[&seq, &token, &until, &visible_reason(&why)],
                )?,
                JobEnd::Fail(why) => change(
                    "UPDATE jobs SET state = 'failed', token = NULL, reason = ?3
                     WHERE seq = ?1 AND state = 'running' AND token = ?2",
                    &[&seq, &token, &visible_reason(&why)],
                )?,
            };
            Ok(changed > 0)
        }))
    }

    fn release_jobs(&self, held: Vec<HeldJob>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.change_leases(move |db| {
            let mut release = db
                .prepare_cached(
                    "UPDATE jobs SET state = 'queued', token = NULL WHERE seq = ?1 AND state = 'running' AND token = ?2",
                )
                .map_err(sql)?;
            held.iter().try_for_each(|held| release.execute((held.id, held.token.0)).map(drop)).map_err(sql)
        }))
    }

    fn jobs(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Job>>> {
        // Numbers of jobs are at most this.
        let after = after.min(i64::MAX as u64);
        let limit = limit.clamp(1, 10_000) as i64;
        Box::pin(self.with(move |db| jobs(db, "WHERE seq > ?1 ORDER BY seq LIMIT ?2", (after, limit))))
    }

    fn jobs_of(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<Job>>> {
        Box::pin(self.with(move |db| jobs(db, "WHERE snapshot = ?1 ORDER BY seq", [id.as_bytes().as_slice()])))
    }

    fn cancel_job(&self, id: u64) -> BoxFuture<'_, Result<Option<Job>>> {
        Box::pin(self.change(move |db| {
            let Some(found) = one_job(db, id)? else { return Ok(None) };
            let change = match found.kind {
                // Its snapshot is on this machine alone still, and that is seen by it.
                JobKind::Push => {
                    "UPDATE jobs SET state = 'failed', token = NULL, reason = 'it was cancelled' WHERE seq = ?1"
                }
                JobKind::Repair | JobKind::Copy | JobKind::RebaseCompact | JobKind::RebaseRandom => {
                    "DELETE FROM jobs WHERE seq = ?1"
                }
            };
            db.prepare_cached(change).and_then(|mut change| change.execute([id])).map_err(sql)?;
            // It is enqueued anew once the number of copies changes.
            asked(db, found.snapshot)?;
            Ok(Some(found))
        }))
    }

    fn job_stats(&self, configured: Vec<String>) -> BoxFuture<'_, Result<JobStats>> {
        Box::pin(self.with(move |db| {
            let db = db.transaction().map_err(sql)?;
            let jobs = db
                .prepare("SELECT kind, state, count(*) FROM jobs GROUP BY kind, state ORDER BY kind, state")
                .and_then(|mut query| {
                    let rows = query.query_map([], |row| Ok((kind_at(row, 0)?, state_at(row, 1)?, row.get(2)?)));
                    rows?.collect()
                })
                .map_err(sql)?;
            let under_number: u64 =
                db.query_row("SELECT count(*) FROM wanted WHERE live < copies", [], |row| row.get(0)).map_err(sql)?;
            let under_number = under_number + short_of_copies(&db, &configured, true, u32::MAX)?.len() as u64;
            let next = db
                .query_row("SELECT min(not_before) FROM jobs WHERE state = 'waiting'", [], |row| row.get(0))
                .map_err(sql)?;
            let at_risk =
                db.query_row("SELECT value FROM counters WHERE name = 'at_risk'", [], |row| row.get(0)).map_err(sql)?;
            Ok(JobStats { jobs, under_number, at_risk, next })
        }))
    }

    fn at_risk(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.with(|db| at_risk(db)))
    }

    fn reserve_risk(
        &self,
        token: OwnerToken,
        bound: RiskBound,
        route: String,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Reserved>> {
        Box::pin(Self::reserve_risk(self, token, bound, route, bytes))
    }

    fn reserve_hot(&self, token: OwnerToken, bytes: u64) -> BoxFuture<'_, Result<u64>> {
        Box::pin(Self::reserve_hot(self, token, bytes))
    }

    fn reserved_hot(&self, before: Option<u64>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(Self::reserved_hot(self, before))
    }

    fn release_rooms(&self, rooms: Vec<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::release_rooms(self, rooms))
    }

    fn wanted(&self, id: SnapshotId) -> BoxFuture<'_, Result<Option<WantedCopies>>> {
        Box::pin(self.with(move |db| {
            db.prepare_cached("SELECT copies, route FROM wanted WHERE snapshot = ?1")
                .and_then(|mut query| {
                    let read = |row: &Row<'_>| Ok(WantedCopies { copies: row.get(0)?, route: row.get(1)? });
                    query.query_row([id.as_bytes().as_slice()], read).optional()
                })
                .map_err(sql)
        }))
    }

    fn retire<'a>(&'a self, seen: &'a Placement, relied: &'a str) -> BoxFuture<'a, Result<bool>> {
        let (seen, relied, now) = (seen.clone(), relied.to_owned(), self.platform.unix_seconds());
        Box::pin(self.change(move |db| {
            let next = next_version(db)?;
            let retired = db
                .prepare_cached(&format!(
                    "UPDATE placements SET state = 'removing', reason = NULL, since = ?4, version = ?5
                     WHERE backend = ?1 AND object = ?2 AND version = ?3 AND state = 'bad'
                         AND EXISTS (SELECT 1 FROM placements AS other
                                     WHERE other.snapshot = placements.snapshot AND other.state = 'live'
                                         AND other.backend = ?6)
                         AND {REPLACEABLE}"
                ))
                .and_then(|mut update| {
                    update.execute((&seen.backend, seen.object.as_str(), seen.version, now, next, &relied))
                })
                .map_err(sql)?;
            Ok(retired > 0)
        }))
    }

    fn retire_for<'a>(&'a self, seen: &'a Placement, by: &'a ObjectId) -> BoxFuture<'a, Result<bool>> {
        let (seen, by, now) = (seen.clone(), by.clone(), self.platform.unix_seconds());
        Box::pin(self.change(move |db| replaced::retire_for(db, &seen, &by, now)))
    }

    fn replaced<'a>(&'a self, backend: &'a str, id: SnapshotId) -> BoxFuture<'a, Result<Vec<Placement>>> {
        let backend = backend.to_owned();
        Box::pin(self.with(move |db| replaced::of(db, &backend, id)))
    }

    fn all_replaced(&self, after: u64) -> BoxFuture<'_, Result<(Vec<Placement>, Option<u64>)>> {
        Box::pin(self.with(move |db| replaced::after(db, after)))
    }

    fn was_read<'a>(&'a self, seen: &'a Placement) -> BoxFuture<'a, Result<bool>> {
        let seen = seen.clone();
        Box::pin(self.with(move |db| replaced::was_read(db, &seen)))
    }

    fn note_read<'a>(&'a self, seen: &'a Placement) -> BoxFuture<'a, Result<()>> {
        let (seen, now) = (seen.clone(), self.platform.unix_seconds());
        Box::pin(self.change(move |db| replaced::note_read(db, &seen, now)))
    }

    fn long_chains<'a>(
        &'a self,
        backend: &'a str,
        after: u64,
        most: u32,
        limit: u32,
    ) -> BoxFuture<'a, Result<LongChains>> {
        let backend = backend.to_owned();
        Box::pin(self.with(move |db| long_chains(db, &backend, after, most, limit)))
    }

    fn dependents<'a>(&'a self, backend: &'a str, id: SnapshotId) -> BoxFuture<'a, Result<Vec<Placement>>> {
        let backend = backend.to_owned();
        Box::pin(self.with(move |db| dependents::of(db, &backend, id)))
    }

    fn events(&self, id: SnapshotId) -> BoxFuture<'_, Result<Vec<PlacementEvent>>> {
        Box::pin(self.with(move |db| {
            let read = |row: &Row<'_>| {
                let object: String = row.get(2)?;
                let object = ObjectId::new(object).map_err(|_| invalid(2))?;
                let (at, backend) = (row.get(0)?, row.get(1)?);
                Ok(PlacementEvent { at, backend, object, what: row.get(3)?, why: row.get(4)? })
            };
            db.prepare_cached(
                "SELECT at, backend, object, what, why FROM events WHERE snapshot = ?1 ORDER BY seq DESC LIMIT ?2",
            )
            .and_then(|mut query| query.query_map((id.as_bytes().as_slice(), MAX_EVENTS), read)?.collect())
            .map_err(sql)
        }))
    }

    fn to_scrub<'a>(
        &'a self,
        backend: &'a str,
        after: Option<(u64, u64)>,
        before: u64,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Scrubbed>>> {
        let (backend, (scrubbed, seq)) = (backend.to_owned(), after.unwrap_or_default());
        Box::pin(self.with(move |db| {
            let mut query = db
                .prepare_cached(
                    "SELECT snapshot, backend, object, encoding, state, stored_bytes, created, reason, since, version, pack,
                            scrubbed, seq
                     FROM placements WHERE backend = ?5 AND (scrubbed, seq) > (?1, ?2) AND scrubbed < ?3
                     ORDER BY scrubbed, seq LIMIT ?4",
                )
                .map_err(sql)?;
            let mut rows = query.query((scrubbed, seq, before, limit, &backend)).map_err(sql)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next().map_err(sql)? {
                let cursor = (row.get(11).map_err(sql)?, row.get(12).map_err(sql)?);
                found.push(Scrubbed { placement: placement_at(row)?, cursor });
            }
            Ok(found)
        }))
    }

    fn note_scrubbed<'a>(&'a self, placement: &'a Placement, at: u64) -> BoxFuture<'a, Result<()>> {
        let (backend, object) = (placement.backend.clone(), placement.object.clone());
        Box::pin(self.change(move |db| {
            db.prepare_cached("UPDATE placements SET scrubbed = ?3 WHERE backend = ?1 AND object = ?2")
                .and_then(|mut update| update.execute((&backend, object.as_str(), at)))
                .map(drop)
                .map_err(sql)
        }))
    }
}

fn long_chains(db: &Connection, backend: &str, after: u64, most: u32, limit: u32) -> Result<LongChains> {
    let mut query = db
        .prepare_cached(
            "SELECT snapshot, backend, object, encoding, state, stored_bytes, created, reason, since, version, pack, seq
             FROM placements WHERE seq > ?1 AND seq <= ?1 + ?4 AND pack IS NOT NULL AND state = 'live' AND backend = ?5
                 AND (SELECT count(*) FROM needs
                      WHERE needs.backend = placements.backend AND needs.object = placements.object) > ?2
                 AND EXISTS (SELECT 1 FROM snapshots WHERE id = placements.snapshot AND removed = 0)
                 AND NOT EXISTS (SELECT 1 FROM placements AS free
                      WHERE free.snapshot = placements.snapshot AND free.backend = placements.backend AND free.state = 'live'
                          AND NOT EXISTS (SELECT 1 FROM needs
                                          WHERE needs.backend = free.backend AND needs.object = free.object))
             ORDER BY seq LIMIT ?3",
        )
        .map_err(sql)?;
    let mut rows = query.query((after, most, limit, LOOKED_AT, backend)).map_err(sql)?;
    let (mut placements, mut last) = (Vec::new(), after);
    while let Some(row) = rows.next().map_err(sql)? {
        last = row.get(11).map_err(sql)?;
        placements.push(placement_at(row)?);
    }
    if placements.len() < limit as usize {
        let all = "SELECT seq FROM placements WHERE seq > ?1 AND seq <= ?1 + ?2 ORDER BY seq DESC LIMIT 1";
        last = db
            .prepare_cached(all)
            .and_then(|mut query| query.query_row((after, LOOKED_AT), |row| row.get(0)).optional())
            .map_err(sql)?
            .unwrap_or(after);
    }
    Ok(LongChains { placements, next: last })
}

fn asked(db: &Transaction<'_>, snapshot: SnapshotId) -> Result<()> {
    db.prepare_cached("UPDATE wanted SET asked = 1 WHERE snapshot = ?1")
        .and_then(|mut update| update.execute([snapshot.as_bytes().as_slice()]))
        .map(drop)
        .map_err(sql)
}
