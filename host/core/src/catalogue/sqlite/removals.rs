//! Removals: of names, of snapshots, of objects.

use rusqlite::{OptionalExtension as _, Transaction};

use super::conditions::{FREE, MET_BY_OTHERS, NEEDED_FOR_REPAIR, READABLE, names_as_json};
use super::job_rows::want_no_more;
use super::looked_through::is_looked_through;
use super::owners::lost;
use super::query::{named, names, placement_of, placements};
use super::versions::next_version;
use super::{BegunRemoval, Claim, OwnerToken, Placement, PlacementState, RemovalScope, SqliteCatalogue, sql};
use crate::types::{Error, ObjectId, Result, SnapshotId};

impl SqliteCatalogue {
    pub(super) async fn begin_removal(&self, id: SnapshotId, scope: RemovalScope) -> Result<BegunRemoval> {
        let now = self.platform.unix_seconds();
        self.change(move |db| {
            let bytes = id.as_bytes().as_slice();
            let unnamed: Option<bool> = db
                .prepare_cached("SELECT unnamed FROM snapshots WHERE id = ?1 AND removed = 0")
                .and_then(|mut query| query.query_row([bytes], |row| row.get(0)).optional())
                .map_err(sql)?;
            let Some(unnamed) = unnamed else { return Err(Error::not_found(format!("no snapshot {id}"))) };
            match scope {
                RemovalScope::Name(name) => {
                    if named(db, &name)? != Some(id) {
                        let what = format!("the name `{name}` does not refer to snapshot {id} any more");
                        return Err(Error::not_found(what).hint("run `tidelock ls` to list the snapshots"));
                    }
                    db.prepare_cached("DELETE FROM names WHERE name = ?1")
                        .and_then(|mut delete| delete.execute([&name]))
                        .map_err(sql)?;
                    let left = names(db, id)?;
                    if unnamed || !left.is_empty() {
                        return Ok(BegunRemoval::NameOnly(left));
                    }
                }
                RemovalScope::Snapshot => {
                    let names = names(db, id)?;
                    if names.len() > 1 {
                        return Err(several(id, &names));
                    }
                    forget_names(db, id)?;
                }
                RemovalScope::AllNames => {
                    forget_names(db, id)?;
                }
            }
            want_no_more(db, id)?;
            let version = next_version(db)?;
            db.prepare_cached(&format!(
                "UPDATE placements SET state = 'removing', reason = NULL, since = ?2, version = ?3
                 WHERE snapshot = ?1 AND state <> 'removing' AND {MET_BY_OTHERS} AND {FREE}
                     AND NOT {NEEDED_FOR_REPAIR}"
            ))
            .and_then(|mut update| update.execute((bytes, now, version)))
            .map_err(sql)?;
            let (spare, needed): (Vec<_>, Vec<_>) = placements(db, "WHERE snapshot = ?1 ORDER BY seq", [bytes])?
                .into_iter()
                .partition(|placement| placement.state == PlacementState::Removing);
            if !needed.is_empty() {
                db.execute("UPDATE snapshots SET removed = 1, unnamed = 0 WHERE id = ?1", [bytes]).map_err(sql)?;
                let mut unknown_on: Vec<String> = Vec::new();
                for Placement { backend, .. } in needed {
                    if !unknown_on.contains(&backend) && !is_looked_through(db, &backend)? {
                        unknown_on.push(backend);
                    }
                }
                return Ok(BegunRemoval::Needed { spare, by: needed_by(db, id)?, unknown_on });
            }
            if spare.is_empty() {
                forget_snapshot(db, id)?;
            }
            Ok(BegunRemoval::Objects(spare))
        })
        .await
    }

    pub(super) async fn begin_eviction(&self, backend: &str, object: &ObjectId, relied: Vec<String>) -> Result<bool> {
        let (backend, object, now) = (backend.to_owned(), object.clone(), self.platform.unix_seconds());
        let relied = names_as_json(&relied);
        self.change(move |db| {
            let version = next_version(db)?;
            let changed = db
                .prepare_cached(&format!(
                    "UPDATE placements SET state = 'removing', reason = NULL, since = ?3, version = ?4
                     WHERE backend = ?1 AND object = ?2 AND state NOT IN ('removing', 'bad')
                         AND {FREE}
                         AND EXISTS (SELECT 1 FROM placements AS other
                                     WHERE other.snapshot = placements.snapshot
                                         AND NOT (other.backend = ?1 AND other.object = ?2)
                                         AND other.backend IN (SELECT value FROM json_each(?5)) AND {READABLE})
                         AND NOT EXISTS (SELECT 1 FROM needs
                                         WHERE needs.needed = placements.snapshot AND needs.backend = ?1)"
                ))
                .and_then(|mut update| update.execute((&backend, object.as_str(), now, version, &relied)))
                .map_err(sql)?;
            Ok(changed > 0)
        })
        .await
    }

    pub(super) async fn claim(
        &self,
        backend: &str,
        object: &ObjectId,
        token: OwnerToken,
        instead_of: Option<OwnerToken>,
    ) -> Result<bool> {
        let (backend, object) = (backend.to_owned(), object.clone());
        self.change(move |db| {
            let name = owner(db, token)?.ok_or_else(|| lost(token))?;
            let placed = placement_of(db, &backend, object.as_str())?;
            let identity: bool = db
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM containers WHERE backend = ?1 AND object = ?2)")
                .and_then(|mut query| query.query_row((&backend, object.as_str()), |row| row.get(0)))
                .map_err(sql)?;
            if identity || placed.is_some_and(|placed| placed.state != PlacementState::Removing) {
                return Ok(false);
            }
            let held: Option<u64> = db
                .prepare_cached("SELECT token FROM claims WHERE backend = ?1 AND object = ?2")
                .and_then(|mut query| query.query_row((&backend, object.as_str()), |row| row.get(0)).optional())
                .map_err(sql)?;
            if let Some(held) = held.map(OwnerToken).filter(|held| *held != token)
                && (Some(held) != instead_of || owner(db, held)?.is_some())
            {
                return Ok(false);
            }
            db.prepare_cached("INSERT OR REPLACE INTO claims (backend, object, owner, token) VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut insert| insert.execute((&backend, object.as_str(), name, token.0)))
                .map_err(sql)?;
            Ok(true)
        })
        .await
    }

    pub(super) async fn end_claim(
        &self,
        backend: &str,
        object: &ObjectId,
        token: OwnerToken,
    ) -> Result<Option<Vec<Placement>>> {
        let (backend, object, now) = (backend.to_owned(), object.clone(), self.platform.unix_seconds());
        self.change(move |db| {
            let ended = db
                .prepare_cached("DELETE FROM claims WHERE backend = ?1 AND object = ?2 AND token = ?3")
                .and_then(|mut delete| delete.execute((&backend, object.as_str(), token.0)))
                .map_err(sql)?;
            if ended == 0 {
                return Ok(None);
            }
            let snapshot: Option<[u8; 32]> = db
                .prepare_cached(
                    "DELETE FROM placements WHERE backend = ?1 AND object = ?2 AND state = 'removing'
                     RETURNING snapshot",
                )
                .and_then(|mut delete| delete.query_row((&backend, object.as_str()), |row| row.get(0)).optional())
                .map_err(sql)?;
            if let Some(snapshot) = snapshot {
                let left: bool = db
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM placements WHERE snapshot = ?1)")
                    .and_then(|mut query| query.query_row([snapshot], |row| row.get(0)))
                    .map_err(sql)?;
                if !left {
                    forget_snapshot(db, SnapshotId::from_bytes(snapshot))?;
                }
            }
            no_longer_needed(db, &backend, &object, now).map(Some)
        })
        .await
    }

    pub(super) async fn release_claims(&self, claims: Vec<Claim>) -> Result<()> {
        self.change_leases(move |db| {
            let mut release = db
                .prepare_cached("DELETE FROM claims WHERE backend = ?1 AND object = ?2 AND token = ?3")
                .map_err(sql)?;
            for Claim { backend, object, token, .. } in &claims {
                release.execute((backend, object.as_str(), token.0)).map_err(sql)?;
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn claims(&self) -> Result<Vec<Claim>> {
        self.with(|db| {
            let mut query = db
                .prepare_cached("SELECT backend, object, owner, token FROM claims ORDER BY backend, object")
                .map_err(sql)?;
            let mut rows = query.query([]).map_err(sql)?;
            let mut claims = Vec::new();
            while let Some(row) = rows.next().map_err(sql)? {
                let (backend, object): (String, String) = (row.get(0).map_err(sql)?, row.get(1).map_err(sql)?);
                let damaged = |_| Error::corrupt(format!("the catalogue has an invalid claim on `{backend}`"));
                let object = ObjectId::new(object).map_err(damaged)?;
                let token = OwnerToken(row.get(3).map_err(sql)?);
                claims.push(Claim { owner: row.get(2).map_err(sql)?, token, object, backend });
            }
            Ok(claims)
        })
        .await
    }
}

/// Forgets what an object has needed, and begins the removal of what was kept for it alone: of removed snapshots. What of others
/// another object takes the place of goes once that was looked at ([`replaced`](SqliteCatalogue::replaced)).
fn no_longer_needed(db: &Transaction<'_>, backend: &str, object: &ObjectId, now: u64) -> Result<Vec<Placement>> {
    let mut query =
        db.prepare_cached("DELETE FROM needs WHERE backend = ?1 AND object = ?2 RETURNING needed").map_err(sql)?;
    let needed = query.query_map((backend, object.as_str()), |row| row.get::<_, [u8; 32]>(0));
    let needed: Vec<[u8; 32]> = needed.and_then(Iterator::collect).map_err(sql)?;
    let mut begun = Vec::new();
    for id in needed {
        begun.extend(let_go(db, id, now)?);
    }
    Ok(begun)
}

/// Begins the removal of what of a removed snapshot nothing needs, and no hot pack that is yet to be pushed.
pub(super) fn let_go(db: &Transaction<'_>, id: [u8; 32], now: u64) -> Result<Vec<Placement>> {
    let version = next_version(db)?;
    let changed = db
        .prepare_cached(&format!(
            "UPDATE placements SET state = 'removing', reason = NULL, since = ?2, version = ?3
             WHERE snapshot = ?1 AND state <> 'removing'
                 AND EXISTS (SELECT 1 FROM snapshots WHERE id = ?1 AND removed = 1)
                 AND NOT EXISTS (SELECT 1 FROM needs WHERE needed = ?1 AND needs.backend = placements.backend)
                 AND {FREE} AND NOT {NEEDED_FOR_REPAIR}"
        ))
        .and_then(|mut update| update.execute((id.as_slice(), now, version)))
        .map_err(sql)?;
    match changed {
        0 => Ok(Vec::new()),
        _ => placements(db, "WHERE snapshot = ?1 AND state = 'removing' AND version = ?2", (id.as_slice(), version)),
    }
}

/// Begins the removal of what was kept for the hot packs of a snapshot until they are pushed, once it is on a backend.
pub(super) fn no_longer_held(db: &Transaction<'_>, pushed: SnapshotId, now: u64) -> Result<()> {
    let needed: Vec<[u8; 32]> = db
        .prepare_cached(
            "SELECT DISTINCT needs.needed FROM placements
             JOIN needs ON needs.backend = placements.backend AND needs.object = placements.object
             WHERE placements.snapshot = ?1 AND placements.backend = 'hot'",
        )
        .and_then(|mut query| query.query_map([pushed.as_bytes().as_slice()], |row| row.get(0))?.collect())
        .map_err(sql)?;
    needed.into_iter().try_for_each(|id| let_go(db, id, now).map(drop))
}

/// Some of the snapshots whose objects need one.
fn needed_by(db: &Transaction<'_>, id: SnapshotId) -> Result<Vec<SnapshotId>> {
    const SHOWN: u32 = 10;
    let mut query = db
        .prepare_cached(
            "SELECT DISTINCT placements.snapshot FROM needs
             JOIN placements ON placements.backend = needs.backend AND placements.object = needs.object
             WHERE needs.needed = ?1 LIMIT ?2",
        )
        .map_err(sql)?;
    let found = query.query_map((id.as_bytes().as_slice(), SHOWN), |row| row.get(0).map(SnapshotId::from_bytes));
    found.and_then(Iterator::collect).map_err(sql)
}

pub(super) fn forget_snapshot(db: &Transaction<'_>, id: SnapshotId) -> Result<()> {
    forget_names(db, id)?;
    db.prepare_cached("DELETE FROM snapshots WHERE id = ?1")
        .and_then(|mut delete| delete.execute([id.as_bytes().as_slice()]))
        .map(drop)
        .map_err(sql)
}

fn forget_names(db: &Transaction<'_>, id: SnapshotId) -> Result<()> {
    db.prepare_cached("DELETE FROM names WHERE snapshot = ?1")
        .and_then(|mut delete| delete.execute([id.as_bytes().as_slice()]))
        .map(drop)
        .map_err(sql)
}

fn owner(db: &Transaction<'_>, token: OwnerToken) -> Result<Option<String>> {
    db.prepare_cached("SELECT name FROM owners WHERE token = ?1")
        .and_then(|mut query| query.query_row([token.0], |row| row.get(0)).optional())
        .map_err(sql)
}

fn several(id: SnapshotId, names: &[String]) -> Error {
    const SHOWN: usize = 5;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        shown.push("…".to_owned());
    }
    Error::conflict(format!("snapshot {id} has several names: {}", shown.join(", ")))
        .hint("remove one of its names, or give --all-names (over HTTP all_names=true) to remove them all")
}
