//! States of placements, and the containers of backends.

use rusqlite::{OptionalExtension as _, Transaction};

use super::dependents::state_changed;
use super::job_rows::note_event;
use super::versions::next_version;
use super::write::forget;
use super::{Container, Placement, PlacementState, SqliteCatalogue, sql};
use crate::catalogue::ABSENT;
use crate::catalogue::placement::visible_reason;
use crate::types::{Error, ObjectId, Result};

impl SqliteCatalogue {
    pub(super) async fn transition(&self, seen: &Placement, to: PlacementState, reason: Option<&str>) -> Result<bool> {
        if seen.state == PlacementState::Removing || to == PlacementState::Removing {
            return Err(Error::invalid("a removal is begun and ended, and not otherwise a change of state"));
        }
        let (backend, object, version, now) =
            (seen.backend.clone(), seen.object.clone(), seen.version, self.platform.unix_seconds());
        let (snapshot, state, reason) = (seen.snapshot, seen.state.name(), reason.map(visible_reason));
        self.change(move |db| {
            let next = next_version(db)?;
            let moved = db
                .prepare_cached(
                    "UPDATE placements SET state = ?5, reason = ?6, since = ?7, version = ?8,
                         scrubbed = min(scrubbed, ?7)
                     WHERE backend = ?1 AND object = ?2 AND version = ?3 AND state = ?4",
                )
                .and_then(|mut update| {
                    let seen = (&backend, object.as_str(), version, state);
                    update.execute((seen.0, seen.1, seen.2, seen.3, to.name(), &reason, now, next))
                })
                .map_err(sql)?;
            if moved > 0 {
                let place = (backend.as_str(), object.as_str());
                if state != to.name() {
                    note_event(db, snapshot, place, (to.name(), reason.as_deref()), now)?;
                }
                state_changed(db, snapshot, place, now)?;
            }
            Ok(moved > 0)
        })
        .await
    }

    pub(super) async fn container(&self, backend: &str) -> Result<Option<Container>> {
        let backend = backend.to_owned();
        self.with(move |db| {
            let transaction = db.transaction().map_err(sql)?;
            container(&transaction, &backend)
        })
        .await
    }

    pub(super) async fn record_container(
        &self,
        backend: &str,
        object: &ObjectId,
        expected: Option<&ObjectId>,
        intent: Option<&str>,
    ) -> Result<Container> {
        let (backend, object, now) = (backend.to_owned(), object.clone(), self.platform.unix_seconds());
        let (expected, intent) = (expected.cloned(), intent.map(str::to_owned));
        self.change(move |db| {
            let before = container(db, &backend)?;
            if let Some(before) = &before
                && Some(&before.object) != expected.as_ref()
            {
                return Ok(before.clone());
            }
            if before.is_some() {
                all_lost(db, &backend, now)?;
            }
            db.prepare_cached("INSERT OR REPLACE INTO containers (backend, object, created) VALUES (?1, ?2, ?3)")
                .and_then(|mut insert| insert.execute((&backend, object.as_str(), now)))
                .map_err(sql)?;
            intent.iter().try_for_each(|key| forget(db, key))?;
            Ok(Container { object, created: now })
        })
        .await
    }
}

/// What was stored into a container that is lost is lost, until something else is found there: its rows say so, and it is made
/// anew from other copies.
fn all_lost(db: &Transaction<'_>, backend: &str, now: u64) -> Result<()> {
    let version = next_version(db)?;
    db.prepare_cached(
        "INSERT INTO jobs (kind, snapshot, backend, object, state, copies, created, bytes)
         SELECT 'repair', p.snapshot, p.backend, p.object, 'queued', 0, ?2, s.size
         FROM placements AS p JOIN snapshots AS s ON s.id = p.snapshot
         WHERE p.backend = ?1 AND p.state IN ('live', 'suspect') ORDER BY p.seq
         ON CONFLICT DO NOTHING",
    )
    .and_then(|mut insert| insert.execute((backend, now)))
    .map_err(sql)?;
    // The triggers of `placements` count the copies that are left.
    db.prepare_cached(
        "UPDATE placements SET state = 'bad', reason = ?2, since = ?3, version = ?4
         WHERE backend = ?1 AND state IN ('live', 'suspect')",
    )
    .and_then(|mut update| update.execute((backend, ABSENT, now, version)))
    .map(drop)
    .map_err(sql)
}

fn container(db: &Transaction<'_>, backend: &str) -> Result<Option<Container>> {
    let found: Option<(String, u64)> = db
        .prepare_cached("SELECT object, created FROM containers WHERE backend = ?1")
        .and_then(|mut query| query.query_row([backend], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(sql)?;
    let damaged = |_| Error::corrupt(format!("the catalogue has an invalid container of `{backend}`"));
    found
        .map(|(object, created)| Ok(Container { object: ObjectId::new(object).map_err(damaged)?, created }))
        .transpose()
}
