//! Recording objects found on a backend: rebuilds a catalogue, or completes it, from objects alone.
//!
//! Existing records take precedence over an object's metadata: an import adds, and removes nothing except a name from an
//! older snapshot.

use std::collections::HashSet;

use rusqlite::{OptionalExtension as _, Transaction};

use super::{Catalogue, NewPlacement, NewSnapshot, PlacementState, now, sql};
use crate::types::{Error, ObjectId, Result, SnapshotId};

/// An object whose bytes were read, with its identity.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// The snapshot in it. Its base and name are taken where nothing better is known.
    pub snapshot: NewSnapshot,
    /// Its placements.
    pub placement: NewPlacement,
    /// The base in the backend's own terms, by the backend's name; takes precedence over the snapshot's `base`.
    pub base: Option<ObjectId>,
    /// Time of the store (seconds since 1970-01-01 UTC), if the backend reports it.
    pub stored: Option<u64>,
}

/// The catalogue's record of an object on a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The snapshot in it.
    pub snapshot: SnapshotId,
    /// The bytes of the object.
    pub stored_bytes: u64,
    /// Whether it can be relied on.
    pub state: PlacementState,
    /// Whether the base of that snapshot is known.
    pub has_base: bool,
}

/// The catalogue's records of some objects at one moment.
#[derive(Debug, Clone)]
pub struct Standing {
    /// One per object, in the order of the request.
    pub known: Vec<Option<Known>>,
    /// The keys of all stores on the backend that have begun and not ended.
    pub under_way: HashSet<String>,
}

impl Catalogue {
    /// Returns the records of objects of a backend, all at one moment: an object that was visible before this call, and is
    /// neither known nor under way, is not about to become known through the store that created it.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn standing(&self, backend: &str, objects: Vec<ObjectId>) -> Result<Standing> {
        let backend = backend.to_owned();
        self.with(move |db| {
            let db = db.transaction().map_err(sql)?;
            let known = objects.iter().map(|object| known(&db, &backend, object)).collect::<Result<_>>()?;
            let mut query = db.prepare_cached("SELECT key FROM intents WHERE backend = ?1").map_err(sql)?;
            let keys = query.query_map([&backend], |row| row.get(0)).map_err(sql)?;
            let under_way = keys.collect::<rusqlite::Result<_>>().map_err(sql)?;
            Ok(Standing { known, under_way })
        })
        .await
    }

    /// Records objects, all or none of them. Gives for each whether its base is still unknown although the backend names
    /// one.
    ///
    /// A known snapshot keeps its time, base and name. A name goes to the snapshot that was stored last under it. An object
    /// that is known by now is left unchanged.
    ///
    /// # Errors
    /// `conflict` if a snapshot is recorded with another size; errors of the database.
    pub async fn adopt(&self, objects: Vec<Adopted>) -> Result<Vec<bool>> {
        self.change(move |db| objects.iter().map(|object| adopt(db, object)).collect()).await
    }

    /// Fills in the bases of snapshots that have none: pairs of an object and the object that it is a change against.
    /// Where either is not known, nothing happens.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn link(&self, backend: &str, pairs: Vec<(ObjectId, ObjectId)>) -> Result<()> {
        let backend = backend.to_owned();
        self.change(move |db| {
            for (object, base) in &pairs {
                let snapshot = holds(db, &backend, object)?;
                if let (Some(snapshot), Some(base)) = (snapshot, holds(db, &backend, base)?)
                    && snapshot != base
                {
                    db.prepare_cached("UPDATE snapshots SET base = ?2 WHERE id = ?1 AND base IS NULL")
                        .and_then(|mut update| {
                            update.execute((snapshot.as_bytes().as_slice(), base.as_bytes().as_slice()))
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
fn adopt(db: &Transaction<'_>, object: &Adopted) -> Result<bool> {
    let Adopted { snapshot, placement, base, .. } = object;
    let stored = object.stored.map_or_else(now, |stored| stored.min(i64::MAX as u64));
    let there = match base {
        Some(base) => holds(db, &placement.backend, base)?,
        None => None,
    };
    let found = there.or(snapshot.base).filter(|base| *base != snapshot.id);
    let name = match &snapshot.name {
        Some(name) if give_name(db, name, snapshot.id, stored)? => Some(name),
        _ => None,
    };
    let id = snapshot.id.as_bytes().as_slice();
    let recorded = db
        .prepare_cached(
            "INSERT INTO snapshots (id, size, base, name, created, segments) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET base = coalesce(base, excluded.base), name = coalesce(name, excluded.name)
             WHERE size = excluded.size",
        )
        .and_then(|mut insert| {
            let base = found.as_ref().map(|base| base.as_bytes().as_slice());
            insert.execute((id, snapshot.size, base, name, stored, &snapshot.segments))
        })
        .map_err(sql)?;
    if recorded == 0 {
        return Err(Error::conflict(format!("snapshot {} is recorded with another size", snapshot.id)));
    }
    db.prepare_cached(
        "INSERT INTO placements (snapshot, backend, object, encoding, state, stored_bytes, created)
         VALUES (?1, ?2, ?3, ?4, 'live', ?5, ?6) ON CONFLICT (backend, object) DO NOTHING",
    )
    .and_then(|mut insert| {
        let NewPlacement { backend, object, encoding, stored_bytes } = placement;
        insert.execute((id, backend, object.as_str(), encoding.name(), stored_bytes, stored))
    })
    .map_err(sql)?;
    Ok(base.is_some() && there.is_none() && found.is_none())
}

/// Whether a snapshot that was stored at this time gets a name. Takes it from an older one that has it.
fn give_name(db: &Transaction<'_>, name: &str, id: SnapshotId, stored: u64) -> Result<bool> {
    let id = id.as_bytes().as_slice();
    let own: Option<Option<String>> = db
        .prepare_cached("SELECT name FROM snapshots WHERE id = ?1")
        .and_then(|mut query| query.query_row([id], |row| row.get(0)).optional())
        .map_err(sql)?;
    if own.flatten().is_some() {
        return Ok(false);
    }
    let younger: u64 = db
        .prepare_cached("SELECT count(*) FROM snapshots WHERE name = ?1 AND id <> ?2 AND created > ?3")
        .and_then(|mut query| query.query_row((name, id, stored), |row| row.get(0)))
        .map_err(sql)?;
    if younger > 0 {
        return Ok(false);
    }
    db.prepare_cached("UPDATE snapshots SET name = NULL WHERE name = ?1 AND id <> ?2")
        .and_then(|mut take| take.execute((name, id)))
        .map_err(sql)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Encoding;

    fn id(seed: u64) -> SnapshotId {
        SnapshotId::from_bytes(*blake3::hash(&seed.to_le_bytes()).as_bytes())
    }

    fn object(name: &str) -> ObjectId {
        ObjectId::new(name).unwrap()
    }

    fn found(seed: u64, base: Option<&str>, name: Option<&str>, stored: u64) -> Adopted {
        let name = name.map(str::to_owned);
        let snapshot = NewSnapshot { id: id(seed), size: seed, base: None, name, segments: vec![seed as u8; 32] };
        let placement = NewPlacement {
            backend: "cloud".into(),
            object: object(&format!("o{seed}")),
            encoding: Encoding::Raw,
            stored_bytes: seed,
        };
        Adopted { snapshot, placement, base: base.map(object), stored: Some(stored) }
    }

    async fn fresh() -> (tempfile::TempDir, Catalogue) {
        let directory = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(directory.path().join("catalogue.sqlite")).await.unwrap();
        (directory, catalogue)
    }

    #[tokio::test]
    async fn objects_become_snapshots_with_their_times_and_bases() {
        let (_directory, catalogue) = fresh().await;
        let all = vec![found(1, Some("o2"), None, 30), found(2, None, None, 10), found(3, Some("o2"), Some("n"), 20)];
        assert_eq!(catalogue.adopt(all.clone()).await.unwrap(), [true, false, false]);
        let first = catalogue.get(id(1)).await.unwrap().unwrap();
        assert_eq!((first.base, first.created, first.size), (None, 30, 1));
        assert_eq!(catalogue.get(id(3)).await.unwrap().unwrap().base, Some(id(2)));
        let unknown = object("gone");
        catalogue.link("cloud", vec![(object("o1"), unknown), (object("o1"), object("o2"))]).await.unwrap();
        assert_eq!(catalogue.get(id(1)).await.unwrap().unwrap().base, Some(id(2)));
        catalogue.link("cloud", vec![(object("o3"), object("o1")), (object("o2"), object("o2"))]).await.unwrap();
        assert_eq!(catalogue.get(id(3)).await.unwrap().unwrap().base, Some(id(2)), "what is known stays");
        assert_eq!(catalogue.get(id(2)).await.unwrap().unwrap().base, None, "nothing is a change of itself");

        catalogue.mark_placement("cloud", &object("o2"), PlacementState::Removing).await.unwrap();
        assert_eq!(catalogue.adopt(all).await.unwrap(), [false, false, false]);
        let standing = catalogue.standing("cloud", vec![object("o2"), object("x")]).await.unwrap();
        let known = standing.known[0].unwrap();
        assert_eq!((known.snapshot, known.state, known.has_base), (id(2), PlacementState::Removing, false));
        assert!(standing.known[1].is_none() && standing.under_way.is_empty());
        assert_eq!(catalogue.standing("other", vec![object("o2")]).await.unwrap().known, [None]);
    }

    #[tokio::test]
    async fn a_name_goes_to_the_one_that_was_stored_last() {
        let (_directory, catalogue) = fresh().await;
        let name = async |seed| catalogue.get(id(seed)).await.unwrap().unwrap().name;
        for (seed, stored) in [(1, 20), (2, 20), (3, 10)] {
            catalogue.adopt(vec![found(seed, None, Some("web"), stored)]).await.unwrap();
        }
        assert_eq!([name(1).await, name(2).await, name(3).await], [None, Some("web".into()), None]);
        catalogue.adopt(vec![found(4, None, Some("other"), 5), found(4, None, Some("web"), 99)]).await.unwrap();
        assert_eq!([name(4).await, name(2).await], [Some("other".into()), Some("web".into())], "it has one");
    }

    #[tokio::test]
    async fn what_is_under_way_is_seen() {
        let (_directory, catalogue) = fresh().await;
        catalogue.begin_intent("k1", "cloud", "me").await.unwrap();
        catalogue.begin_intent("k2", "local", "me").await.unwrap();
        let standing = catalogue.standing("cloud", vec![]).await.unwrap();
        assert_eq!(standing.under_way, HashSet::from(["k1".to_owned()]));
        let mut other = found(1, None, None, 1);
        other.snapshot.size = 1;
        catalogue.adopt(vec![other.clone()]).await.unwrap();
        other.snapshot.size = 2;
        assert_eq!(catalogue.adopt(vec![other]).await.unwrap_err().kind().name(), "conflict");
    }
}
