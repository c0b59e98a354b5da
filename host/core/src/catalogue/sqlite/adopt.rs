//! Recording what a backend was found to hold: the catalogue rebuilt, or brought up to date, from objects alone.
//!
//! What an object says of itself may be a lie. So what is recorded already counts for more: an import adds, and changes
//! nothing but names and bases that an earlier import from the same backend has given. No time of an object lies in the
//! future.

use rusqlite::{OptionalExtension as _, Transaction};

use super::job_rows::{enqueue, settle_push, want};
use super::versions::next_version;
use super::write::needs;
use super::{Adopted, NewPlacement, PlacementState, SqliteCatalogue, Standing, sql};
use crate::catalogue::{JobKind, Known, NewJob};
use crate::types::{Error, ObjectId, Result, SnapshotId};

impl SqliteCatalogue {
    pub(super) async fn standing(&self, backend: &str, objects: Vec<ObjectId>) -> Result<Standing> {
        let (backend, place) = (backend.to_owned(), self.place.clone());
        self.with(move |db| {
            // What was under way in a catalogue that was put back is not.
            place.check(db)?;
            let db = db.transaction().map_err(sql)?;
            let known = objects.iter().map(|object| known(&db, &backend, object)).collect::<Result<_>>()?;
            let mut query = db.prepare_cached("SELECT key FROM intents WHERE backend = ?1").map_err(sql)?;
            let keys = query.query_map([&backend], |row| row.get(0)).map_err(sql)?;
            let under_way = keys.collect::<rusqlite::Result<_>>().map_err(sql)?;
            Ok(Standing { known, under_way })
        })
        .await
    }

    pub(super) async fn adopt(&self, objects: Vec<Adopted>) -> Result<Vec<bool>> {
        let now = self.platform.unix_seconds();
        self.acknowledge(move |db| objects.iter().map(|object| adopt(db, object, now)).collect()).await
    }

    pub(super) async fn link(&self, backend: &str, pairs: Vec<(ObjectId, ObjectId)>) -> Result<()> {
        let backend = backend.to_owned();
        self.change(move |db| {
            for (object, base) in &pairs {
                let snapshot = holds(db, &backend, object)?;
                if let (Some(snapshot), Some(base)) = (snapshot, holds(db, &backend, base)?)
                    && snapshot != base
                {
                    db.prepare_cached("UPDATE snapshots SET base = ?2, base_from = ?3 WHERE id = ?1 AND base IS NULL")
                        .and_then(|mut update| {
                            update.execute((snapshot.as_bytes().as_slice(), base.as_bytes().as_slice(), &backend))
                        })
                        .map_err(sql)?;
                }
            }
            Ok(())
        })
        .await
    }
}

fn known(db: &Transaction<'_>, backend: &str, object: &ObjectId) -> Result<Option<Known>> {
    let found = db
        .prepare_cached(
            "SELECT snapshot, stored_bytes, state, base IS NOT NULL
             FROM placements JOIN snapshots ON id = snapshot WHERE backend = ?1 AND object = ?2",
        )
        .and_then(|mut query| {
            query
                .query_row((backend, object.as_str()), |row| {
                    let state: String = row.get(2)?;
                    Ok((SnapshotId::from_bytes(row.get(0)?), row.get(1)?, state, row.get(3)?))
                })
                .optional()
        })
        .map_err(sql)?;
    let Some((snapshot, stored_bytes, state, has_base)) = found else { return Ok(None) };
    let state = PlacementState::from_name(&state)
        .ok_or_else(|| Error::corrupt(format!("the catalogue has an invalid placement on `{backend}`")))?;
    Ok(Some(Known { snapshot, stored_bytes, state, has_base }))
}

fn holds(db: &Transaction<'_>, backend: &str, object: &ObjectId) -> Result<Option<SnapshotId>> {
    db.prepare_cached("SELECT snapshot FROM placements WHERE backend = ?1 AND object = ?2")
        .and_then(|mut query| query.query_row((backend, object.as_str()), |row| row.get(0)).optional())
        .map(|found| found.map(SnapshotId::from_bytes))
        .map_err(sql)
}

/// Gives whether the base is still unknown although the backend names one.
fn adopt(db: &Transaction<'_>, object: &Adopted, now: u64) -> Result<bool> {
    let Adopted { snapshot, placement, base, .. } = object;
    let claimed: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM claims WHERE backend = ?1 AND object = ?2)")
        .and_then(|mut query| query.query_row((&placement.backend, placement.object.as_str()), |row| row.get(0)))
        .map_err(sql)?;
    if claimed {
        return Ok(false);
    }
    let stored = object.stored.map_or(now, |stored| stored.min(now));
    let there = match base {
        Some(base) => holds(db, &placement.backend, base)?,
        None => None,
    };
    let found = there.or(snapshot.base).filter(|base| *base != snapshot.id);
    let id = snapshot.id.as_bytes().as_slice();
    let recorded = db
        .prepare_cached(
            "INSERT INTO snapshots (id, size, base, base_from, created, segments, unnamed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET
                 base = coalesce(excluded.base, base), base_from = coalesce(excluded.base_from, base_from)
             WHERE size = excluded.size AND (base IS NULL OR base_from = excluded.base_from)",
        )
        .and_then(|mut insert| {
            let base = found.as_ref().map(|base| base.as_bytes().as_slice());
            let from = found.map(|_| &placement.backend);
            insert.execute((id, snapshot.size, base, from, stored, &snapshot.segments, snapshot.by_id))
        })
        .map_err(sql)?;
    if recorded == 0 && !has_size(db, snapshot.id, snapshot.size)? {
        return Err(Error::conflict(format!("snapshot {} is recorded with another size", snapshot.id)));
    }
    if let Some(name) = &snapshot.name {
        let since = if object.weak_name { 0 } else { stored };
        give_name(db, name, snapshot.id, &placement.backend, since)?;
    }
    // With another object it is known again, as it would be had nothing of it been kept for others.
    db.prepare_cached(
        "UPDATE snapshots SET removed = 0, unnamed = ?2 WHERE id = ?1 AND removed = 1
             AND NOT EXISTS (SELECT 1 FROM placements WHERE backend = ?3 AND object = ?4)",
    )
    .and_then(|mut update| update.execute((id, snapshot.by_id, &placement.backend, placement.object.as_str())))
    .map_err(sql)?;
    let version = next_version(db)?;
    db.prepare_cached(
        "INSERT INTO placements
             (snapshot, backend, object, encoding, state, stored_bytes, created, since, version, pack, scrubbed)
         VALUES (?1, ?2, ?3, ?4, 'live', ?5, ?6, ?7, ?8, ?9, ?7) ON CONFLICT (backend, object) DO NOTHING",
    )
    .and_then(|mut insert| {
        let NewPlacement { backend, object, encoding, stored_bytes, pack } = placement;
        let pack = pack.as_ref().map(|pack| pack.id.as_bytes().as_slice());
        insert.execute((id, backend, object.as_str(), encoding.name(), stored_bytes, stored, now, version, pack))
    })
    .map_err(sql)?;
    needs(db, snapshot.id, placement)?;
    settle_copies(db, object, now)?;
    settle_push(db, snapshot.id)?;
    Ok(base.is_some() && there.is_none() && found.is_none())
}

/// Notes the copies that are wanted of a snapshot, and whether it has to be pushed from this machine.
fn settle_copies(db: &Transaction<'_>, object: &Adopted, now: u64) -> Result<()> {
    let (id, snapshot) = (object.snapshot.id, object.snapshot.id.as_bytes().as_slice());
    let known: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM snapshots WHERE id = ?1 AND removed = 0)")
        .and_then(|mut query| query.query_row([snapshot], |row| row.get(0)))
        .map_err(sql)?;
    let Some(wanted) = object.wanted.as_ref().filter(|_| known) else { return Ok(()) };
    let said: Option<(u64, u64)> = db
        .prepare_cached("SELECT live, copies FROM wanted WHERE snapshot = ?1")
        .and_then(|mut query| query.query_row([snapshot], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(sql)?;
    match said {
        None => want(db, id, wanted)?,
        Some((live, copies)) if live >= copies => {
            db.prepare_cached("DELETE FROM jobs WHERE snapshot = ?1 AND kind = 'push' AND state <> 'running'")
                .and_then(|mut delete| delete.execute([snapshot]))
                .map_err(sql)?;
        }
        Some(_) => {}
    }
    let alone: bool = db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM placements WHERE snapshot = ?1 AND state = 'live' AND backend = 'hot')
                AND NOT EXISTS (SELECT 1 FROM placements WHERE snapshot = ?1 AND state = 'live' AND backend <> 'hot')",
        )
        .and_then(|mut query| query.query_row([snapshot], |row| row.get(0)))
        .map_err(sql)?;
    match alone {
        true => enqueue(db, &NewJob { kind: JobKind::Push, snapshot: id, backend: None, object: None }, now).map(drop),
        false => Ok(()),
    }
}

fn has_size(db: &Transaction<'_>, id: SnapshotId, size: u64) -> Result<bool> {
    db.prepare_cached("SELECT size = ?2 FROM snapshots WHERE id = ?1")
        .and_then(|mut query| query.query_row((id.as_bytes().as_slice(), size), |row| row.get(0)))
        .map_err(sql)
}

/// Gives a snapshot that was stored at this time a name, if it is free or was given by this backend to one that was not
/// stored later.
fn give_name(db: &Transaction<'_>, name: &str, id: SnapshotId, backend: &str, stored: u64) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO names (name, snapshot, backend, created) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET snapshot = excluded.snapshot, created = excluded.created
         WHERE backend = excluded.backend AND created <= excluded.created",
    )
    .and_then(|mut insert| insert.execute((name, id.as_bytes().as_slice(), backend, stored)))
    .map_err(sql)?;
    Ok(())
}
