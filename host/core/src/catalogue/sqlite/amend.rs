//! Corrections of rows that were found to be damaged, by what proves itself.

use super::versions::next_version;
use super::write::needs_itself;
use super::{NewPack, NewPlacement, Placement, SqliteCatalogue, sql};
use crate::types::{Error, Result, SnapshotId};

impl SqliteCatalogue {
    pub(super) async fn amend(&self, seen: &Placement, pack: NewPack, stored_bytes: u64) -> Result<bool> {
        let seen = seen.clone();
        self.change(move |db| {
            let version = next_version(db)?;
            let changed = db
                .prepare_cached(
                    "UPDATE placements SET pack = ?4, stored_bytes = ?5, version = ?6
                     WHERE backend = ?1 AND object = ?2 AND version = ?3 AND snapshot = ?7 AND encoding = 'pages'
                         AND state <> 'removing'",
                )
                .and_then(|mut update| {
                    let (id, snapshot) = (pack.id.as_bytes().as_slice(), seen.snapshot.as_bytes().as_slice());
                    let object = seen.object.as_str();
                    update.execute((&seen.backend, object, seen.version, id, stored_bytes, version, snapshot))
                })
                .map_err(sql)?;
            if changed == 0 {
                return Ok(false);
            }
            let (backend, object) = (&seen.backend, seen.object.as_str());
            db.prepare_cached("DELETE FROM needs WHERE backend = ?1 AND object = ?2")
                .and_then(|mut delete| delete.execute((backend, object)))
                .map_err(sql)?;
            for need in &pack.needs {
                let made = db
                    .prepare_cached(
                        "INSERT INTO needs (backend, object, needed, pack)
                         SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM snapshots WHERE id = ?3)",
                    )
                    .and_then(|mut insert| {
                        let (needed, id) = (need.snapshot.as_bytes().as_slice(), need.pack.as_bytes().as_slice());
                        insert.execute((backend, object, needed, id))
                    })
                    .map_err(sql)?;
                if made == 0 {
                    return Err(Error::conflict(format!(
                        "the object needs snapshot {}, which is not known",
                        need.snapshot
                    ))
                    .on_backend(backend));
                }
            }
            let new = NewPlacement {
                backend: seen.backend.clone(),
                object: seen.object.clone(),
                encoding: seen.encoding,
                pack: Some(pack.clone()),
                stored_bytes,
            };
            match needs_itself(db, seen.snapshot, &new)? {
                true => {
                    Err(Error::conflict(format!("snapshot {} would need itself", seen.snapshot)).on_backend(backend))
                }
                false => Ok(true),
            }
        })
        .await
    }

    pub(super) async fn mend_segments(&self, id: SnapshotId, segments: Vec<u8>) -> Result<()> {
        self.change(move |db| {
            // The same number of them: what leads to the id has one for each segment. A snapshot that is kept for others
            // stays so (`stores_of_earlier_versions`), so the row goes by way of one that is not.
            let removed: i64 = db
                .prepare_cached("SELECT removed FROM snapshots WHERE id = ?1")
                .and_then(|mut query| query.query_row([id.as_bytes().as_slice()], |row| row.get(0)))
                .map_err(sql)?;
            let id = id.as_bytes().as_slice();
            db.prepare_cached("UPDATE snapshots SET removed = 0, segments = ?2 WHERE id = ?1")
                .and_then(|mut update| update.execute((id, &segments)))
                .map_err(sql)?;
            db.prepare_cached("UPDATE snapshots SET removed = ?2 WHERE id = ?1")
                .and_then(|mut update| update.execute((id, removed)))
                .map_err(sql)?;
            Ok(())
        })
        .await
    }
}
