//! What follows from the state of a placement: repairs, and what becomes of packs whose sources are lost or come back.
//!
//! A copy depends on its own backend alone. So a pack on a backend that has no sound object of something which it takes pages
//! from is no copy, and says so in its row: whoever counts copies counts rows. The list of what a pack needs is complete
//! (`docs/formats.md`), so nothing follows from a placement that only lacks something itself. What is hot counts as no copy, and is
//! completed by other backends until it is pushed: its packs stay as they are.

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::job_rows::{enqueue, note_event, repair_no_more};
use super::query::placement_of;
use super::versions::next_version;
use super::{Placement, PlacementState, sql};
use crate::catalogue::placement::visible_reason;
use crate::catalogue::{JobKind, LACKING, NewJob};
use crate::types::{ObjectId, Result, SnapshotId};

/// The backend of the hot tier, as the triggers of `schema/jobs.sql` name it.
const HOT_TIER: &str = "hot";

/// The packs on a backend that take pages from objects of a snapshot there.
pub(super) fn of(db: &Connection, backend: &str, id: SnapshotId) -> Result<Vec<Placement>> {
    let objects: Vec<String> = db
        .prepare_cached("SELECT object FROM needs WHERE needed = ?1 AND backend = ?2")
        .and_then(|mut query| query.query_map((id.as_bytes().as_slice(), backend), |row| row.get(0))?.collect())
        .map_err(sql)?;
    let found = objects.iter().map(|object| placement_of(db, backend, object));
    Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// A placement has come into another state: what is bad is to be repaired, and what is live need not be.
pub(super) fn state_changed(db: &Transaction<'_>, snapshot: SnapshotId, place: (&str, &str), now: u64) -> Result<()> {
    let state: Option<String> = db
        .prepare_cached("SELECT state FROM placements WHERE backend = ?1 AND object = ?2")
        .and_then(|mut query| query.query_row(place, |row| row.get(0)).optional())
        .map_err(sql)?;
    match state.as_deref() {
        Some("bad") => {
            let (backend, object) = (Some(place.0.to_owned()), ObjectId::new(place.1).ok());
            enqueue(db, &NewJob { kind: JobKind::Repair, snapshot, backend, object }, now)?;
            dependents_lack(db, place, now)
        }
        Some("live") => {
            repair_no_more(db, snapshot, place)?;
            dependents_lack_no_more(db, place, now)
        }
        _ => Ok(()),
    }
}

/// An object has become bad: what takes pages from it, and has them from no other object of its backend, is no copy any more.
/// One beside which its backend has the whole image is left as it is.
fn dependents_lack(db: &Transaction<'_>, (backend, object): (&str, &str), now: u64) -> Result<()> {
    let Some(lost) = placement_of(db, backend, object)? else { return Ok(()) };
    if lost.is_lacking() || lost.backend == HOT_TIER {
        return Ok(());
    }
    let reason = visible_reason(&format!("{LACKING}: snapshot {}", lost.snapshot));
    for dependent in dependents(db, &lost)? {
        if dependent.state != PlacementState::Live && dependent.state != PlacementState::Suspect {
            continue;
        }
        if is_met(db, &dependent)? || has_whole(db, &dependent)? {
            continue;
        }
        set(db, &dependent, PlacementState::Bad, Some(&reason), now)?;
        let (snapshot, object) = (dependent.snapshot, Some(dependent.object));
        enqueue(db, &NewJob { kind: JobKind::Repair, snapshot, backend: Some(dependent.backend), object }, now)?;
    }
    Ok(())
}

/// An object is live again, or a new one is: what lacked it alone is live too.
fn dependents_lack_no_more(db: &Transaction<'_>, (backend, object): (&str, &str), now: u64) -> Result<()> {
    let Some(there) = placement_of(db, backend, object)? else { return Ok(()) };
    for dependent in dependents(db, &there)? {
        if !dependent.is_lacking() || !is_met(db, &dependent)? {
            continue;
        }
        set(db, &dependent, PlacementState::Live, None, now)?;
        repair_no_more(db, dependent.snapshot, (&dependent.backend, dependent.object.as_str()))?;
    }
    Ok(())
}

/// The placements on its backend that take pages from the pack which a placement is.
fn dependents(db: &Transaction<'_>, needed: &Placement) -> Result<Vec<Placement>> {
    let id = needed.snapshot.as_bytes().as_slice();
    let pack = needed.pack.as_ref().map_or(id, |pack| pack.as_bytes().as_slice());
    let objects: Vec<String> = db
        .prepare_cached("SELECT object FROM needs WHERE needed = ?1 AND backend = ?2 AND pack = ?3")
        .and_then(|mut query| query.query_map((id, &needed.backend, pack), |row| row.get(0))?.collect())
        .map_err(sql)?;
    let found = objects.iter().map(|object| placement_of(db, &needed.backend, object));
    Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Returns whether a pack lacks nothing, as far as is known.
fn is_met(db: &Transaction<'_>, pack: &Placement) -> Result<bool> {
    db.prepare_cached(
        "SELECT NOT EXISTS (SELECT 1 FROM needs WHERE backend = ?1 AND object = ?2 AND NOT EXISTS
             (SELECT 1 FROM placements AS source
              WHERE source.snapshot = needs.needed AND source.backend = needs.backend
                  AND coalesce(source.pack, source.snapshot) = needs.pack
                  AND (source.state IN ('live', 'suspect')
                       OR (source.state = 'bad' AND substr(source.reason, 1, length(?3)) = ?3))))",
    )
    .and_then(|mut query| query.query_row((&pack.backend, pack.object.as_str(), LACKING), |row| row.get(0)))
    .map_err(sql)
}

/// Returns whether the backend of a pack has its snapshot in an object that needs nothing.
fn has_whole(db: &Transaction<'_>, pack: &Placement) -> Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM placements AS other
                        WHERE other.snapshot = ?1 AND other.backend = ?2 AND other.state = 'live'
                            AND NOT EXISTS (SELECT 1 FROM needs
                                            WHERE needs.backend = other.backend AND needs.object = other.object))",
    )
    .and_then(|mut query| query.query_row((pack.snapshot.as_bytes().as_slice(), &pack.backend), |row| row.get(0)))
    .map_err(sql)
}

fn set(db: &Transaction<'_>, one: &Placement, to: PlacementState, reason: Option<&str>, now: u64) -> Result<()> {
    let (backend, object) = (one.backend.as_str(), one.object.as_str());
    let version = next_version(db)?;
    db.prepare_cached(
        "UPDATE placements SET state = ?3, reason = ?4, since = ?5, version = ?6 WHERE backend = ?1 AND object = ?2",
    )
    .and_then(|mut update| update.execute((backend, object, to.name(), reason, now, version)))
    .map_err(sql)?;
    note_event(db, one.snapshot, (backend, object), (to.name(), reason), now)
}
