//! Backends that may hold packs which the catalogue does not know, and so nothing of what these take pages from.
//!
//! The catalogue was put back from an older copy, or is new while the container is not, or an import was cut short. Nothing
//! on such a backend is removed until an import has looked through it: a snapshot is removed for its users, and its objects
//! stay as if others needed them. A backend without a row counts as looked through, unless the row of none says otherwise.

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::conditions::{FREE, NEEDED_FOR_REPAIR};
use super::query::placements;
use super::versions::next_version;
use super::{Placement, SqliteCatalogue, sql};
use crate::types::Result;

impl SqliteCatalogue {
    pub(super) async fn not_looked_through(&self, backends: Vec<String>) -> Result<Vec<String>> {
        self.with(move |db| {
            let db = db.transaction().map_err(sql)?;
            let mut found = Vec::new();
            for backend in &backends {
                if !is_looked_through(&db, backend)? {
                    found.push(backend.clone());
                }
            }
            Ok(found)
        })
        .await
    }

    pub(super) async fn begin_look(&self, backend: &str, anew: bool) -> Result<Option<u64>> {
        let backend = backend.to_owned();
        self.change(move |db| {
            if !anew {
                match own_row(db, &backend)? {
                    Some((true, _)) => return Ok(None),
                    Some((false, look)) => return Ok(Some(look)),
                    None if own_row(db, "")?.is_none() && is_known(db, &backend)? => return Ok(None),
                    None => {}
                }
            }
            let look = next_version(db)?;
            set(db, &backend, false, look)?;
            Ok(Some(look))
        })
        .await
    }

    pub(super) async fn end_look(&self, backend: &str, look: u64) -> Result<Option<Vec<Placement>>> {
        let (backend, now) = (backend.to_owned(), self.platform.unix_seconds());
        self.change(move |db| {
            if own_row(db, &backend)? != Some((false, look)) {
                return Ok(None);
            }
            set(db, &backend, true, look)?;
            let version = next_version(db)?;
            db.execute(
                &format!(
                    "UPDATE placements SET state = 'removing', reason = NULL, since = ?2, version = ?3
                     WHERE backend = ?1 AND state <> 'removing' AND {FREE} AND NOT {NEEDED_FOR_REPAIR}
                         AND EXISTS (SELECT 1 FROM snapshots WHERE id = placements.snapshot AND removed = 1)
                         AND NOT EXISTS (SELECT 1 FROM needs WHERE needed = placements.snapshot AND needs.backend = ?1)"
                ),
                (&backend, now, version),
            )
            .map_err(sql)?;
            // The second condition lets SQLite use the index of those that are not live.
            let begun = "WHERE state = 'removing' AND state <> 'live' AND backend = ?1 AND version = ?2 ORDER BY seq";
            placements(db, begun, (&backend, version)).map(Some)
        })
        .await
    }
}

/// Counts every backend as not looked through.
pub(super) fn forget_looks(db: &Transaction<'_>, look: u64) -> Result<()> {
    db.execute("DELETE FROM looked_through", []).map_err(sql)?;
    set(db, "", false, look)
}

/// Returns whether a backend is looked through.
pub(super) fn is_looked_through(db: &Connection, backend: &str) -> Result<bool> {
    let row = match own_row(db, backend)? {
        None => own_row(db, "")?,
        own => own,
    };
    Ok(row.is_none_or(|(looked, _)| looked))
}

/// Returns whether something of a backend is recorded.
fn is_known(db: &Transaction<'_>, backend: &str) -> Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM containers WHERE backend = ?1)
             OR EXISTS (SELECT 1 FROM placements WHERE backend = ?1)",
    )
    .and_then(|mut query| query.query_row([backend], |row| row.get(0)))
    .map_err(sql)
}

fn own_row(db: &Connection, backend: &str) -> Result<Option<(bool, u64)>> {
    db.prepare_cached("SELECT looked, look FROM looked_through WHERE backend = ?1")
        .and_then(|mut query| query.query_row([backend], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(sql)
}

fn set(db: &Transaction<'_>, backend: &str, looked: bool, look: u64) -> Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO looked_through (backend, looked, look) VALUES (?1, ?2, ?3)")
        .and_then(|mut insert| insert.execute((backend, looked, look)))
        .map(drop)
        .map_err(sql)
}
