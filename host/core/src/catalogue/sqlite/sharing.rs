//! What objects share. Nothing here reads more rows than the objects of one snapshot and what they need.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _};

use super::conditions::REPLACED;
use super::looked_through::is_looked_through;
use super::query::placements;
use super::{Need, Placement, PlacementState, SqliteCatalogue, sql};
use crate::catalogue::{ChainLink, MOST_NEEDING, SharedObject, Sharing};
use crate::types::{PackId, Result, SnapshotId};

/// An object by its backend and its name there.
type Name = (String, String);

impl SqliteCatalogue {
    pub(super) async fn sharing(&self, id: SnapshotId) -> Result<Sharing> {
        self.with(move |db| {
            // One transaction, so that the rows belong together.
            let db = db.transaction().map_err(sql)?;
            let own = placements(&db, "WHERE snapshot = ?1 ORDER BY seq", [id.as_bytes().as_slice()])?;
            let frees = freed(&db, &own)?;
            let objects = own.into_iter().map(|placement| object(&db, placement)).collect::<Result<_>>()?;
            Ok(Sharing { objects, frees })
        })
        .await
    }
}

fn object(db: &Connection, placement: Placement) -> Result<SharedObject> {
    let Placement { snapshot, backend, object, .. } = &placement;
    let needs = needs_of(db, backend, object.as_str())?;
    let mut needed_by: Vec<SnapshotId> = Vec::new();
    let by: Vec<[u8; 32]> = db
        .prepare_cached(
            "SELECT placements.snapshot FROM needs
             JOIN placements ON placements.backend = needs.backend AND placements.object = needs.object
             WHERE needs.pack = ?1 AND needs.backend = ?2 LIMIT ?3",
        )
        .and_then(|mut query| {
            query.query_map((pack_of(&placement).as_slice(), backend, MOST_NEEDING), |row| row.get(0))?.collect()
        })
        .map_err(sql)?;
    for by in by.into_iter().map(SnapshotId::from_bytes) {
        if !needed_by.contains(&by) {
            needed_by.push(by);
        }
    }
    let mut below: Vec<Vec<usize>> = Vec::with_capacity(needs.len());
    let mut links = Vec::with_capacity(needs.len());
    for need in &needs {
        let there = held(db, backend, need)?;
        let theirs = match &there {
            Some(there) => needs_of(db, backend, there.object.as_str())?,
            None => Vec::new(),
        };
        let numbers = theirs.iter().filter_map(|their| needs.iter().position(|need| need.pack == their.pack));
        below.push(numbers.collect());
        links.push(ChainLink {
            snapshot: need.snapshot,
            stored_bytes: there.as_ref().map_or(0, |there| there.stored_bytes),
            object: there.map(|there| there.object),
            depth: 0,
            shared: !is_removed(db, need.snapshot)? || is_needed_elsewhere(db, backend, need.pack, *snapshot)?,
        });
    }
    for (link, depth) in links.iter_mut().zip(depths(&below)) {
        link.depth = depth;
    }
    links.sort_by_key(|link| std::cmp::Reverse(link.depth));
    let depth = links.first().map_or(0, |deepest| deepest.depth + 1);
    Ok(SharedObject { depth, needs: links, needed_by, placement })
}

/// How far each of some objects is above those that need none of them. Rows that are damaged may lead in a circle, which ends.
fn depths(below: &[Vec<usize>]) -> Vec<u32> {
    let mut depths = vec![0u32; below.len()];
    for _ in 0..below.len() {
        let mut changed = false;
        for (number, below) in below.iter().enumerate() {
            let depth = below.iter().map(|below| depths[*below] + 1).max().unwrap_or(0);
            if depth > depths[number] {
                (depths[number], changed) = (depth, true);
            }
        }
        if !changed {
            break;
        }
    }
    depths
}

/// The bytes of what goes when all objects of a snapshot do that may go, with what is kept for them alone.
fn freed(db: &Connection, own: &[Placement]) -> Result<u64> {
    let (mut going, mut bytes) = (HashSet::<Name>::new(), 0u64);
    let mut begun: Vec<Placement> = Vec::new();
    for placement in own {
        if may_go(db, placement, &going)? {
            begun.push(placement.clone());
        }
    }
    for placement in &begun {
        going.insert(name(placement));
    }
    while let Some(gone) = begun.pop() {
        bytes = bytes.saturating_add(gone.stored_bytes);
        for need in needs_of(db, &gone.backend, gone.object.as_str())? {
            let Some(kept) = held(db, &gone.backend, &need)? else { continue };
            if !going.contains(&name(&kept))
                && (is_removed(db, kept.snapshot)? || is_replaced(db, &kept)?)
                && may_go(db, &kept, &going)?
            {
                going.insert(name(&kept));
                begun.push(kept);
            }
        }
    }
    Ok(bytes)
}

fn name(placement: &Placement) -> Name {
    (placement.backend.clone(), placement.object.as_str().to_owned())
}

/// Returns whether an object can go once these are gone: nothing else that is known needs it, and nothing may that is not.
fn may_go(db: &Connection, placement: &Placement, going: &HashSet<Name>) -> Result<bool> {
    let backend = &placement.backend;
    if placement.state == PlacementState::Removing || !is_looked_through(db, backend)? {
        return Ok(false);
    }
    // One more than those that go: then one of them does not.
    let most = going.len() as u64 + 1;
    let by: Vec<String> = db
        .prepare_cached("SELECT object FROM needs WHERE pack = ?1 AND backend = ?2 LIMIT ?3")
        .and_then(|mut query| {
            query.query_map((pack_of(placement).as_slice(), backend, most), |row| row.get(0))?.collect()
        })
        .map_err(sql)?;
    Ok(by.into_iter().all(|object| going.contains(&(backend.clone(), object))))
}

fn pack_of(placement: &Placement) -> [u8; 32] {
    placement.pack.map_or(*placement.snapshot.as_bytes(), |pack| *pack.as_bytes())
}

fn needs_of(db: &Connection, backend: &str, object: &str) -> Result<Vec<Need>> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Need { snapshot: SnapshotId::from_bytes(row.get(0)?), pack: PackId::from_bytes(row.get(1)?) })
    };
    db.prepare_cached("SELECT needed, pack FROM needs WHERE backend = ?1 AND object = ?2")
        .and_then(|mut query| query.query_map((backend, object), read)?.collect())
        .map_err(sql)
}

/// The object that is needed, a live one if there is one.
fn held(db: &Connection, backend: &str, need: &Need) -> Result<Option<Placement>> {
    let clause = "WHERE snapshot = ?1 AND backend = ?2 AND coalesce(pack, snapshot) = ?3
                  ORDER BY state <> 'live', seq LIMIT 1";
    let (snapshot, pack) = (need.snapshot.as_bytes().as_slice(), need.pack.as_bytes().as_slice());
    Ok(placements(db, clause, (snapshot, backend, pack))?.into_iter().next())
}

/// Returns whether another object took the place of this one, which is kept for others alone then.
fn is_replaced(db: &Connection, placement: &Placement) -> Result<bool> {
    db.prepare_cached(&format!(
        "SELECT EXISTS (SELECT 1 FROM placements WHERE backend = ?1 AND object = ?2 AND {REPLACED})"
    ))
    .and_then(|mut query| query.query_row((&placement.backend, placement.object.as_str()), |row| row.get(0)))
    .map_err(sql)
}

/// Returns whether a snapshot is there for others alone.
fn is_removed(db: &Connection, id: SnapshotId) -> Result<bool> {
    let removed: Option<bool> = db
        .prepare_cached("SELECT removed FROM snapshots WHERE id = ?1")
        .and_then(|mut query| query.query_row([id.as_bytes().as_slice()], |row| row.get(0)).optional())
        .map_err(sql)?;
    Ok(removed.unwrap_or(true))
}

/// Returns whether an object of another snapshot than this one needs a pack.
fn is_needed_elsewhere(db: &Connection, backend: &str, pack: PackId, own: SnapshotId) -> Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM needs
             JOIN placements ON placements.backend = needs.backend AND placements.object = needs.object
             WHERE needs.pack = ?1 AND needs.backend = ?2 AND placements.snapshot <> ?3)",
    )
    .and_then(|mut query| {
        query.query_row((pack.as_bytes().as_slice(), backend, own.as_bytes().as_slice()), |row| row.get(0))
    })
    .map_err(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_those_of_the_longest_way_and_circles_end() {
        assert_eq!(depths(&[vec![], vec![0], vec![0, 1], vec![]]), [0, 1, 2, 0]);
        assert_eq!(depths(&[vec![1], vec![0]]).len(), 2);
        assert!(depths(&[]).is_empty());
    }
}
