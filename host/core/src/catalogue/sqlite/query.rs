//! Queries. None changes anything.

use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::{Need, Placement, PlacementState, Snapshot, SnapshotPage, SqliteCatalogue, Stats, sql};
use crate::catalogue::BackendStats;
use crate::types::{Encoding, Error, ObjectId, PackId, Result, SnapshotId};

/// The most names of a snapshot that are told.
const NAMES: u32 = 100;

/// The fewest characters after `tl1` that are taken as the beginning of an id.
const PREFIX_DIGITS: usize = 4;

impl SqliteCatalogue {
    pub(super) async fn get(&self, id: SnapshotId) -> Result<Option<Snapshot>> {
        self.with(move |db| {
            let found = snapshots(db, "WHERE id = ?1 AND removed = 0", [id.as_bytes().as_slice()])?;
            Ok(found.into_iter().next().map(|(_, snapshot)| snapshot))
        })
        .await
    }

    pub(super) async fn get_kept(&self, id: SnapshotId) -> Result<Option<Snapshot>> {
        self.with(move |db| {
            let found = snapshots(db, "WHERE id = ?1", [id.as_bytes().as_slice()])?;
            Ok(found.into_iter().next().map(|(_, snapshot)| snapshot))
        })
        .await
    }

    pub(super) async fn segments(&self, id: SnapshotId) -> Result<Vec<u8>> {
        self.with(move |db| {
            db.prepare_cached("SELECT segments FROM snapshots WHERE id = ?1")
                .and_then(|mut query| query.query_row([id.as_bytes().as_slice()], |row| row.get(0)).optional())
                .map_err(sql)?
                .ok_or_else(|| unknown(&id.to_string()))
        })
        .await
    }

    pub(super) async fn find(&self, text: &str) -> Result<Snapshot> {
        let text = text.to_owned();
        self.with(move |db| {
            if let Ok(id) = text.parse::<SnapshotId>() {
                return one(snapshots(db, "WHERE id = ?1 AND removed = 0", [id.as_bytes().as_slice()])?, &text);
            }
            if let Some(id) = named(db, &text)? {
                return one(snapshots(db, "WHERE id = ?1 AND removed = 0", [id.as_bytes().as_slice()])?, &text);
            }
            let Some((low, high)) = bounds(&text) else { return Err(unknown(&text)) };
            let (low, high) = (low.as_bytes().as_slice(), high.as_bytes().as_slice());
            let clause = "WHERE id BETWEEN ?1 AND ?2 AND removed = 0 ORDER BY seq DESC LIMIT 4";
            one(snapshots(db, clause, [low, high])?, &text)
        })
        .await
    }

    pub(super) async fn list(&self, after: Option<u64>, limit: usize) -> Result<SnapshotPage> {
        let limit = limit.clamp(1, 10_000);
        self.with(move |db| {
            let after = after.unwrap_or(0).min(i64::MAX as u64);
            // One more than requested shows whether there is a next page.
            let mut found =
                snapshots(db, "WHERE seq > ?1 AND removed = 0 ORDER BY seq LIMIT ?2", (after, limit as i64 + 1))?;
            let more = found.len() > limit;
            found.truncate(limit);
            let next = found.last().filter(|_| more).map(|(seq, _)| *seq);
            Ok(SnapshotPage { snapshots: found.into_iter().map(|(_, snapshot)| snapshot).collect(), next })
        })
        .await
    }

    pub(super) async fn named(&self, name: &str) -> Result<Option<SnapshotId>> {
        let name = name.to_owned();
        self.with(move |db| named(db, &name)).await
    }

    pub(super) async fn has_size(&self, size: u64) -> Result<bool> {
        self.with(move |db| {
            db.prepare_cached("SELECT EXISTS (SELECT 1 FROM snapshots WHERE size = ?1)")
                .and_then(|mut query| query.query_row([size], |row| row.get(0)))
                .map_err(sql)
        })
        .await
    }

    pub(super) async fn placements(&self, id: SnapshotId) -> Result<Vec<Placement>> {
        self.with(move |db| placements(db, "WHERE snapshot = ?1 ORDER BY seq", [id.as_bytes().as_slice()])).await
    }

    pub(super) async fn placements_of_pack(&self, pack: PackId) -> Result<Vec<Placement>> {
        self.with(move |db| placements(db, "WHERE pack = ?1 ORDER BY seq", [pack.as_bytes().as_slice()])).await
    }

    pub(super) async fn needs_of(&self, backend: &str, object: &ObjectId) -> Result<Vec<Need>> {
        let (backend, object) = (backend.to_owned(), object.clone());
        self.with(move |db| {
            let mut query =
                db.prepare_cached("SELECT needed, pack FROM needs WHERE backend = ?1 AND object = ?2").map_err(sql)?;
            let needs = query.query_map((&backend, object.as_str()), |row| {
                Ok(Need { snapshot: SnapshotId::from_bytes(row.get(0)?), pack: PackId::from_bytes(row.get(1)?) })
            });
            needs.and_then(Iterator::collect).map_err(sql)
        })
        .await
    }

    /// All that objects need: the backend and the object, and the snapshot.
    #[cfg(test)]
    pub(crate) async fn all_needs(&self) -> Result<Vec<(String, String, SnapshotId)>> {
        self.with(|db| {
            let mut query = db.prepare_cached("SELECT backend, object, needed FROM needs").map_err(sql)?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, SnapshotId::from_bytes(row.get(2)?))));
            rows.and_then(Iterator::collect).map_err(sql)
        })
        .await
    }

    pub(super) async fn placements_in(&self, state: PlacementState) -> Result<Vec<Placement>> {
        if state == PlacementState::Live {
            return Err(Error::invalid("all live placements are too many to be told at once"));
        }
        // The second condition lets SQLite use the index of those that are not live.
        let clause = "WHERE state = ?1 AND state <> 'live' ORDER BY seq";
        self.with(move |db| placements(db, clause, [state.name()])).await
    }

    pub(super) async fn some_placements(&self, backend: &str, after: &str, limit: u32) -> Result<Vec<Placement>> {
        let (backend, after) = (backend.to_owned(), after.to_owned());
        self.with(move |db| {
            let some = "WHERE backend = ?1 AND object > ?2 AND state = 'live' ORDER BY object LIMIT ?3";
            placements(db, some, (&backend, &after, limit))
        })
        .await
    }

    pub(super) async fn placement_of(&self, backend: &str, object: &ObjectId) -> Result<Option<Placement>> {
        let (backend, object) = (backend.to_owned(), object.clone());
        self.with(move |db| placement_of(db, &backend, object.as_str())).await
    }

    pub(super) async fn stats(&self) -> Result<Stats> {
        self.with(|db| {
            // One transaction, so that the numbers belong together.
            let db = db.transaction().map_err(sql)?;
            let (snapshots, logical_bytes) = db
                .query_row("SELECT count(*), coalesce(sum(size), 0) FROM snapshots", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .map_err(sql)?;
            let intents = db.query_row("SELECT count(*) FROM intents", [], |row| row.get(0)).map_err(sql)?;
            let mut query = db
                .prepare(
                    "SELECT backend, count(*), sum(state = 'bad'), sum(state = 'suspect'), sum(stored_bytes)
                     FROM placements
                     GROUP BY backend ORDER BY backend",
                )
                .map_err(sql)?;
            let backends = query.query_map([], |row| {
                Ok(BackendStats {
                    backend: row.get(0)?,
                    placements: row.get(1)?,
                    bad: row.get(2)?,
                    suspect: row.get(3)?,
                    stored_bytes: row.get(4)?,
                })
            });
            let backends = backends.and_then(Iterator::collect).map_err(sql)?;
            Ok(Stats { snapshots, logical_bytes, intents, backends })
        })
        .await
    }
}

fn unknown(text: &str) -> Error {
    // A pasted novel should not be printed back whole.
    let shown: String = text.chars().take(80).collect();
    let error = Error::not_found(format!("no snapshot `{shown}`"));
    if text.starts_with("tl1") && text.len() < "tl1".len() + PREFIX_DIGITS {
        return error.hint(format!("give at least {PREFIX_DIGITS} characters of an id after `tl1`"));
    }
    error.hint("run `tidelock ls` to list the snapshots")
}

/// The only one, or why there is none.
fn one(found: Vec<(u64, Snapshot)>, text: &str) -> Result<Snapshot> {
    let mut ids: Vec<String> = found.iter().map(|(_, snapshot)| snapshot.id.to_string()).collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (None, _) => Err(unknown(text)),
        (Some((_, only)), None) => Ok(only),
        (Some(_), Some(_)) => {
            if ids.len() > 3 {
                ids.truncate(3);
                ids.push("…".to_owned());
            }
            Err(Error::invalid(format!("`{text}` matches several snapshots: {}", ids.join(", ")))
                .hint("give one of these ids, or a longer prefix"))
        }
    }
}

/// The least and the greatest id that begin with `text`.
fn bounds(text: &str) -> Option<(SnapshotId, SnapshotId)> {
    let missing = SnapshotId::TEXT_LEN.checked_sub(text.len())?;
    if missing == 0 || text.len() < "tl1".len() + PREFIX_DIGITS {
        return None;
    }
    let low = format!("{text}{}", "a".repeat(missing));
    // The last character holds one bit: `q` is the greatest of the two that it may be.
    let high = format!("{text}{}q", "7".repeat(missing - 1));
    Some((low.parse().ok()?, high.parse().ok()?))
}

/// The snapshot of a name.
pub(super) fn named(db: &Connection, name: &str) -> Result<Option<SnapshotId>> {
    db.prepare_cached("SELECT snapshot FROM names WHERE name = ?1")
        .and_then(|mut query| query.query_row([name], |row| row.get(0).map(SnapshotId::from_bytes)).optional())
        .map_err(sql)
}

/// The names of a snapshot, the latest first.
pub(super) fn names(db: &Connection, id: SnapshotId) -> Result<Vec<String>> {
    let mut query =
        db.prepare_cached("SELECT name FROM names WHERE snapshot = ?1 ORDER BY seq DESC LIMIT ?2").map_err(sql)?;
    let names = query.query_map((id.as_bytes().as_slice(), NAMES), |row| row.get(0)).map_err(sql)?;
    names.collect::<rusqlite::Result<_>>().map_err(sql)
}

/// Snapshots with their place in the order.
fn snapshots(db: &Connection, clause: &str, params: impl Params) -> Result<Vec<(u64, Snapshot)>> {
    let read = |row: &Row<'_>| {
        let snapshot = Snapshot {
            id: SnapshotId::from_bytes(row.get(1)?),
            size: row.get(2)?,
            base: row.get::<_, Option<[u8; 32]>>(3)?.map(SnapshotId::from_bytes),
            name: None,
            names: Vec::new(),
            created: row.get(4)?,
        };
        Ok((row.get(0)?, snapshot))
    };
    // In one transaction: no name moves between the rows and their names.
    let db = db.unchecked_transaction().map_err(sql)?;
    let mut query =
        db.prepare_cached(&format!("SELECT seq, id, size, base, created FROM snapshots {clause}")).map_err(sql)?;
    let found: rusqlite::Result<Vec<(u64, Snapshot)>> = query.query_map(params, read).and_then(Iterator::collect);
    let mut found = found.map_err(sql)?;
    for (_, snapshot) in &mut found {
        snapshot.names = names(&db, snapshot.id)?;
        snapshot.name = snapshot.names.first().cloned();
    }
    Ok(found)
}

/// What an object of a backend holds.
pub(super) fn placement_of(db: &Connection, backend: &str, object: &str) -> Result<Option<Placement>> {
    Ok(placements(db, "WHERE backend = ?1 AND object = ?2", [backend, object])?.into_iter().next())
}

pub(super) fn placements(db: &Connection, clause: &str, params: impl Params) -> Result<Vec<Placement>> {
    let mut query = db
        .prepare_cached(&format!(
            "SELECT snapshot, backend, object, encoding, state, stored_bytes, created, reason, since, version, pack
             FROM placements {clause}"
        ))
        .map_err(sql)?;
    let mut rows = query.query(params).map_err(sql)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        found.push(placement_at(row)?);
    }
    Ok(found)
}

/// The placement in the first columns of a row, in the order of [`placements`].
pub(super) fn placement_at(row: &Row<'_>) -> Result<Placement> {
    let read = || {
        let (snapshot, backend): ([u8; 32], String) = (row.get(0)?, row.get(1)?);
        let (object, encoding, state): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let (stored_bytes, created, reason): (u64, u64, Option<String>) = (row.get(5)?, row.get(6)?, row.get(7)?);
        let (since, version, pack): (u64, u64, Option<[u8; 32]>) = (row.get(8)?, row.get(9)?, row.get(10)?);
        Ok((snapshot, backend, object, encoding, state, stored_bytes, created, reason, since, version, pack))
    };
    let (snapshot, backend, object, encoding, state, stored_bytes, created, reason, since, version, pack) =
        read().map_err(sql)?;
    let damaged = || Error::corrupt(format!("the catalogue has an invalid placement on `{backend}`"));
    Ok(Placement {
        snapshot: SnapshotId::from_bytes(snapshot),
        object: ObjectId::new(object).map_err(|_| damaged())?,
        state: PlacementState::from_name(&state).ok_or_else(damaged)?,
        reason,
        since,
        version,
        backend,
        encoding: Encoding::from_name(&encoding)?,
        pack: pack.map(PackId::from_bytes),
        stored_bytes,
        created,
    })
}
