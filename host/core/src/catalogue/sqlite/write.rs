//! Stores: what they have under way, and what they record. Each change is one transaction that is on disk when the call
//! returns.

use rusqlite::{OptionalExtension as _, Transaction};

use super::conditions::{HOT, REPLACEABLE, WORTHLESS};
use super::dependents::state_changed;
use super::job_rows::{check_held, enqueue, note_event, settle_push, want};
use super::looked_through::is_looked_through;
use super::owners::{check_intent, lost};
use super::query::{named, placement_of};
use super::removals::{let_go, no_longer_held};
use super::replaced::retire_for;
use super::versions::next_version;
use super::{Commit, Committed, NewPlacement, NewSnapshot, OwnerToken, PlacementState, SqliteCatalogue, sql};
use crate::types::{Error, Result, SnapshotId};

impl SqliteCatalogue {
    pub(super) async fn begin_intent(&self, key: &str, backend: &str, owner: OwnerToken) -> Result<()> {
        let (key, backend, now) = (key.to_owned(), backend.to_owned(), self.platform.unix_seconds());
        self.change(move |db| {
            let made = db
                .prepare_cached(
                    "INSERT INTO intents (key, backend, owner, started, token)
                     SELECT ?1, ?2, name, ?3, token FROM owners WHERE token = ?4 ON CONFLICT DO NOTHING",
                )
                .and_then(|mut insert| insert.execute((&key, &backend, now, owner.0)))
                .map_err(sql)?;
            if made > 0 {
                return Ok(());
            }
            let there: bool = db
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM owners WHERE token = ?1)")
                .and_then(|mut query| query.query_row([owner.0], |row| row.get(0)))
                .map_err(sql)?;
            match there {
                true => Err(Error::conflict(format!("a store with the key `{key}` is already in progress"))),
                false => Err(lost(owner)),
            }
        })
        .await
    }

    pub(super) async fn end_intent(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.change(move |db| forget(db, &key)).await
    }

    pub(super) async fn commit(&self, store: Commit) -> Result<Committed> {
        let now = self.platform.unix_seconds();
        self.acknowledge(move |db| {
            let Commit { snapshot, placements, relies_on, intents, wanted, jobs, job, replaces } = &store;
            intents.iter().try_for_each(|key| check_intent(db, key))?;
            relies_on.iter().try_for_each(|(backend, object)| rely(db, snapshot.id, backend, object.as_str()))?;
            let kept = match job {
                Some(job) => {
                    check_held(db, job.held)?;
                    check_known(db, snapshot, placements, replaces.is_none())?
                }
                None => {
                    record(db, snapshot, now)?;
                    false
                }
            };
            let name_taken_from = match &snapshot.name {
                Some(name) => give_name(db, name, snapshot.id, now)?,
                None => None,
            };
            if kept {
                // A program of an earlier version must not place what is kept for others: a trigger refuses it.
                set_kept(db, snapshot.id, false)?;
            }
            placements.iter().try_for_each(|placement| place(db, snapshot.id, placement, now))?;
            if kept {
                set_kept(db, snapshot.id, true)?;
            }
            intents.iter().try_for_each(|key| forget(db, key))?;
            if let Some(wanted) = wanted {
                want(db, snapshot.id, wanted)?;
            }
            jobs.iter().try_for_each(|job| enqueue(db, job, now).map(drop))?;
            for placement in placements {
                let place = (placement.backend.as_str(), placement.object.as_str());
                if let Some(job) = job {
                    note_event(db, snapshot.id, place, (job.what, Some(&job.why)), now)?;
                }
                state_changed(db, snapshot.id, place, now)?;
            }
            if let (Some(seen), Some(by)) = (replaces, placements.first()) {
                retire_for(db, seen, &by.object, now)?;
            }
            if kept {
                // What another backend has of it stayed for these to be made from.
                let_go(db, *snapshot.id.as_bytes(), now)?;
            }
            // What is recorded here was looked at; that a row says so is not enough for a push.
            if placements.iter().any(|placement| placement.backend != HOT) {
                settle_push(db, snapshot.id)?;
                no_longer_held(db, snapshot.id, now)?;
            }
            Ok(Committed { name_taken_from })
        })
        .await
    }

    pub(super) async fn add_placement(&self, id: SnapshotId, new: NewPlacement, intents: Vec<String>) -> Result<bool> {
        let now = self.platform.unix_seconds();
        self.acknowledge(move |db| {
            intents.iter().try_for_each(|key| check_intent(db, key))?;
            let known: bool = db
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM snapshots WHERE id = ?1 AND removed = 0)")
                .and_then(|mut query| query.query_row([id.as_bytes().as_slice()], |row| row.get(0)))
                .map_err(sql)?;
            if known {
                place(db, id, &new, now)?;
                intents.iter().try_for_each(|key| forget(db, key))?;
            }
            Ok(known)
        })
        .await
    }
}

pub(super) fn forget(db: &Transaction<'_>, key: &str) -> Result<()> {
    db.prepare_cached("DELETE FROM intents WHERE key = ?1")
        .and_then(|mut delete| delete.execute([key]))
        .map_err(sql)?;
    Ok(())
}

/// Begins the removal of objects that a new one takes the place of: those of the same backend that give nothing. Of what packs
/// need, or may need, only one of the same bytes takes the place of another.
fn replace_bad(db: &Transaction<'_>, id: SnapshotId, new: &NewPlacement, now: u64, version: u64) -> Result<()> {
    db.prepare_cached(&format!(
        "UPDATE placements SET state = 'removing', reason = NULL, since = ?4, version = ?5
         WHERE snapshot = ?1 AND backend = ?2 AND object <> ?3 AND state <> 'removing' AND {WORTHLESS} AND {REPLACEABLE}"
    ))
    .and_then(|mut update| update.execute((id.as_bytes().as_slice(), &new.backend, new.object.as_str(), now, version)))
    .map_err(sql)?;
    Ok(())
}

/// Makes sure of the snapshot of a job's commit. Returns whether it is kept for others alone.
///
/// # Errors
/// `conflict` if it is not known any more, or if nothing needs the placements; also if it is kept for others alone, unless that will do.
fn check_known(
    db: &Transaction<'_>,
    snapshot: &NewSnapshot,
    placements: &[NewPlacement],
    kept_will_do: bool,
) -> Result<bool> {
    let removed: Option<bool> = db
        .prepare_cached("SELECT removed FROM snapshots WHERE id = ?1 AND size = ?2")
        .and_then(|mut query| {
            query.query_row((snapshot.id.as_bytes().as_slice(), snapshot.size), |row| row.get(0)).optional()
        })
        .map_err(sql)?;
    let gone = || Error::conflict(format!("snapshot {} was removed meanwhile", snapshot.id));
    let removed = removed.filter(|removed| kept_will_do || !removed).ok_or_else(gone)?;
    for placement in placements.iter().filter(|_| removed) {
        let needed: bool = db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM needs WHERE needed = ?1 AND backend = ?2)")
            .and_then(|mut query| {
                query.query_row((snapshot.id.as_bytes().as_slice(), &placement.backend), |row| row.get(0))
            })
            .map_err(sql)?;
        // Where some may need it that are not known, it is kept as if they did.
        if !needed && is_looked_through(db, &placement.backend)? {
            return Err(gone());
        }
    }
    Ok(removed)
}

fn set_kept(db: &Transaction<'_>, id: SnapshotId, kept: bool) -> Result<()> {
    db.prepare_cached("UPDATE snapshots SET removed = ?2 WHERE id = ?1")
        .and_then(|mut update| update.execute((id.as_bytes().as_slice(), kept)))
        .map(drop)
        .map_err(sql)
}

/// Makes sure of an object that a store found there already.
fn rely(db: &Transaction<'_>, id: SnapshotId, backend: &str, object: &str) -> Result<()> {
    let state = placement_of(db, backend, object)?.filter(|there| there.snapshot == id).map(|there| there.state);
    match state {
        Some(PlacementState::Live) => Ok(()),
        state => {
            let what = state.map_or("is not recorded any more", |state| match state {
                PlacementState::Removing => "is being removed",
                _ => "was found missing or damaged",
            });
            Err(Error::conflict(format!("object `{object}`, which the image was found in, {what}"))
                .on_backend(backend)
                .hint("store the image again"))
        }
    }
}

fn record(db: &Transaction<'_>, new: &NewSnapshot, now: u64) -> Result<()> {
    let base = new.base.as_ref().map(|base| base.as_bytes().as_slice());
    // The digests follow from the id, so those of a known snapshot change only if they were damaged; a different length cannot be.
    let changed = db
        .prepare_cached(
            "INSERT INTO snapshots (id, size, base, created, segments, unnamed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET
                 base = coalesce(excluded.base, base),
                 base_from = CASE WHEN excluded.base IS NULL THEN base_from END,
                 unnamed = excluded.unnamed OR (unnamed AND NOT removed),
                 removed = 0,
                 segments = excluded.segments
             WHERE size = excluded.size",
        )
        .and_then(|mut insert| {
            insert.execute((new.id.as_bytes().as_slice(), new.size, base, now, &new.segments, new.by_id))
        })
        .map_err(sql)?;
    match changed {
        0 => Err(Error::conflict(format!("snapshot {} is recorded with another size than {}", new.id, new.size))),
        _ => Ok(()),
    }
}

/// Gives a name. Returns the snapshot that it was taken from.
fn give_name(db: &Transaction<'_>, name: &str, id: SnapshotId, now: u64) -> Result<Option<SnapshotId>> {
    let before = named(db, name)?.filter(|before| *before != id);
    // A row of its own each time: the latest name is the last one. What a store says counts for more than an import.
    db.prepare_cached("INSERT OR REPLACE INTO names (name, snapshot, backend, created) VALUES (?1, ?2, NULL, ?3)")
        .and_then(|mut insert| insert.execute((name, id.as_bytes().as_slice(), now)))
        .map_err(sql)?;
    Ok(before)
}

fn place(db: &Transaction<'_>, snapshot: SnapshotId, new: &NewPlacement, now: u64) -> Result<()> {
    let removing: Option<i64> = db
        .prepare_cached(
            "SELECT 1 FROM placements WHERE backend = ?1 AND object = ?2 AND state = 'removing'
             UNION ALL SELECT 1 FROM claims WHERE backend = ?1 AND object = ?2 LIMIT 1",
        )
        .and_then(|mut query| query.query_row((&new.backend, new.object.as_str()), |row| row.get(0)).optional())
        .map_err(sql)?;
    if removing.is_some() {
        return Err(Error::conflict(format!("object `{}` is being removed", new.object))
            .on_backend(&new.backend)
            .hint("store the image again once it is removed; run `tidelock gc` if the removal was interrupted"));
    }
    let version = next_version(db)?;
    let changed = db
        .prepare_cached(
            "INSERT INTO placements
                 (snapshot, backend, object, encoding, state, stored_bytes, created, since, version, pack, scrubbed)
             VALUES (?1, ?2, ?3, ?4, 'live', ?5, ?6, ?6, ?7, ?8, ?6)
             ON CONFLICT (backend, object) DO UPDATE SET
                 encoding = excluded.encoding, pack = excluded.pack, state = 'live', reason = NULL, stored_bytes = excluded.stored_bytes,
                 since = excluded.since, version = excluded.version, scrubbed = excluded.scrubbed
             WHERE snapshot = excluded.snapshot",
        )
        .and_then(|mut insert| {
            let id = snapshot.as_bytes().as_slice();
            let (object, encoding) = (new.object.as_str(), new.encoding.name());
            let pack = new.pack.as_ref().map(|pack| pack.id.as_bytes().as_slice());
            insert.execute((id, &new.backend, object, encoding, new.stored_bytes, now, version, pack))
        })
        .map_err(sql)?;
    needs(db, snapshot, new)?;
    match changed {
        0 => Err(Error::conflict(format!("object `{}` holds another snapshot than {snapshot}", new.object))
            .on_backend(&new.backend)),
        _ => replace_bad(db, snapshot, new, now, version),
    }
}

/// Records what a pack needs, which has to be live on its backend.
pub(super) fn needs(db: &Transaction<'_>, snapshot: SnapshotId, new: &NewPlacement) -> Result<()> {
    let Some(pack) = &new.pack else { return Ok(()) };
    for need in &pack.needs {
        let (needed, wanted) = (need.snapshot.as_bytes().as_slice(), need.pack.as_bytes().as_slice());
        let made = db
            .prepare_cached(
                "INSERT OR REPLACE INTO needs (backend, object, needed, pack)
                 SELECT ?1, ?2, ?3, ?4 WHERE EXISTS
                     (SELECT 1 FROM placements
                      WHERE snapshot = ?3 AND backend = ?1 AND state = 'live' AND coalesce(pack, snapshot) = ?4)",
            )
            .and_then(|mut insert| insert.execute((&new.backend, new.object.as_str(), needed, wanted)))
            .map_err(sql)?;
        if made == 0 {
            let why = format!("snapshot {}, which the image is a change of, was removed or damaged", need.snapshot);
            return Err(unmet(why, new));
        }
    }
    match pack.needs.is_empty() || !needs_itself(db, snapshot, new)? {
        true => Ok(()),
        false => Err(unmet(format!("snapshot {snapshot} would need itself"), new)),
    }
}

/// Returns whether a snapshot comes to need itself by an object that was just recorded: then nothing could ever remove it. It can if
/// it is stored as a change of what is a change of it.
pub(super) fn needs_itself(db: &Transaction<'_>, snapshot: SnapshotId, new: &NewPlacement) -> Result<bool> {
    db.prepare_cached(
        "WITH RECURSIVE reached (snapshot) AS (
             SELECT needed FROM needs WHERE backend = ?1 AND object = ?2
             UNION
             SELECT needs.needed FROM reached
             JOIN placements ON placements.snapshot = reached.snapshot AND placements.backend = ?1
             JOIN needs ON needs.backend = ?1 AND needs.object = placements.object
         )
         SELECT EXISTS (SELECT 1 FROM reached WHERE snapshot = ?3)",
    )
    .and_then(|mut query| {
        query.query_row((&new.backend, new.object.as_str(), snapshot.as_bytes().as_slice()), |row| row.get(0))
    })
    .map_err(sql)
}

fn unmet(why: String, new: &NewPlacement) -> Error {
    Error::conflict(why).on_backend(&new.backend).hint("store the image again")
}
