//! Changes. Each is one transaction that is on disk when the call returns.

use rusqlite::Transaction;

use super::owners::{check_intent, lost};
use super::{NewPlacement, NewSnapshot, OwnerToken, PlacementState, SqliteCatalogue, sql};
use crate::types::{Error, ObjectId, Result, SnapshotId};

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

    pub(super) async fn commit(
        &self,
        snapshot: NewSnapshot,
        placements: Vec<NewPlacement>,
        intents: Vec<String>,
    ) -> Result<()> {
        let now = self.platform.unix_seconds();
        self.change(move |db| {
            intents.iter().try_for_each(|key| check_intent(db, key))?;
            record(db, &snapshot, now)?;
            placements.iter().try_for_each(|placement| place(db, snapshot.id, placement, now))?;
            intents.iter().try_for_each(|key| forget(db, key))
        })
        .await
    }

    pub(super) async fn mark_placement(&self, backend: &str, object: &ObjectId, state: PlacementState) -> Result<()> {
        let (backend, object) = (backend.to_owned(), object.clone());
        self.change(move |db| {
            let marked = db
                .prepare_cached("UPDATE placements SET state = ?3 WHERE backend = ?1 AND object = ?2")
                .and_then(|mut update| update.execute((&backend, object.as_str(), state.name())))
                .map_err(sql)?;
            match marked {
                0 => Err(Error::not_found(format!("object `{object}` on `{backend}` holds no known snapshot"))),
                _ => Ok(()),
            }
        })
        .await
    }

    pub(super) async fn remove_placement(&self, backend: &str, object: &ObjectId) -> Result<()> {
        let (backend, object) = (backend.to_owned(), object.clone());
        self.change(move |db| {
            db.prepare_cached("DELETE FROM placements WHERE backend = ?1 AND object = ?2")
                .and_then(|mut delete| delete.execute((&backend, object.as_str())))
                .map_err(sql)?;
            Ok(())
        })
        .await
    }

    pub(super) async fn remove_snapshot(&self, id: SnapshotId) -> Result<()> {
        self.change(move |db| {
            let bytes = id.as_bytes().as_slice();
            let left: u64 = db
                .prepare_cached("SELECT count(*) FROM placements WHERE snapshot = ?1")
                .and_then(|mut query| query.query_row([bytes], |row| row.get(0)))
                .map_err(sql)?;
            if left > 0 {
                return Err(Error::conflict(format!("snapshot {id} is still in {left} objects")));
            }
            match db.execute("DELETE FROM snapshots WHERE id = ?1", [bytes]).map_err(sql)? {
                0 => Err(Error::not_found(format!("no snapshot {id}"))),
                _ => Ok(()),
            }
        })
        .await
    }
}

fn forget(db: &Transaction<'_>, key: &str) -> Result<()> {
    db.prepare_cached("DELETE FROM intents WHERE key = ?1")
        .and_then(|mut delete| delete.execute([key]))
        .map_err(sql)?;
    Ok(())
}

fn record(db: &Transaction<'_>, new: &NewSnapshot, now: u64) -> Result<()> {
    if let Some(name) = &new.name {
        // A name refers to one snapshot: the latest stored under it.
        db.prepare_cached("UPDATE snapshots SET name = NULL WHERE name = ?1 AND id <> ?2")
            .and_then(|mut take| take.execute((name, new.id.as_bytes().as_slice())))
            .map_err(sql)?;
    }
    let base = new.base.as_ref().map(|base| base.as_bytes().as_slice());
    // The digests follow from the id, so those of a known snapshot need no replacing; a different length cannot be.
    let changed = db
        .prepare_cached(
            "INSERT INTO snapshots (id, size, base, name, created, segments) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET base = coalesce(excluded.base, base), name = coalesce(excluded.name, name)
             WHERE size = excluded.size",
        )
        .and_then(|mut insert| {
            insert.execute((new.id.as_bytes().as_slice(), new.size, base, &new.name, now, &new.segments))
        })
        .map_err(sql)?;
    match changed {
        0 => Err(Error::conflict(format!("snapshot {} is recorded with another size than {}", new.id, new.size))),
        _ => Ok(()),
    }
}

fn place(db: &Transaction<'_>, snapshot: SnapshotId, new: &NewPlacement, now: u64) -> Result<()> {
    let removing: bool = db
        .prepare_cached("SELECT count(*) FROM placements WHERE backend = ?1 AND object = ?2 AND state = 'removing'")
        .and_then(|mut query| query.query_row((&new.backend, new.object.as_str()), |row| row.get(0)))
        .map_err(sql)?;
    if removing {
        return Err(Error::conflict(format!("object `{}` is being removed", new.object))
            .on_backend(&new.backend)
            .hint("store the image again once it is removed; run `tidelock gc` if the removal was interrupted"));
    }
    let changed = db
        .prepare_cached(
            "INSERT INTO placements (snapshot, backend, object, encoding, state, stored_bytes, created)
             VALUES (?1, ?2, ?3, ?4, 'live', ?5, ?6)
             ON CONFLICT (backend, object) DO UPDATE SET
                 encoding = excluded.encoding, state = 'live', stored_bytes = excluded.stored_bytes
             WHERE snapshot = excluded.snapshot",
        )
        .and_then(|mut insert| {
            let id = snapshot.as_bytes().as_slice();
            insert.execute((id, &new.backend, new.object.as_str(), new.encoding.name(), new.stored_bytes, now))
        })
        .map_err(sql)?;
    match changed {
        0 => Err(Error::conflict(format!("object `{}` holds another snapshot than {snapshot}", new.object))
            .on_backend(&new.backend)),
        _ => Ok(()),
    }
}
