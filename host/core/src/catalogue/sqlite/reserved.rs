//! Room that is reserved under leases.

use rusqlite::{Connection, Transaction};

use super::{OwnerToken, SqliteCatalogue, sql};
use crate::catalogue::{AtRisk, Reserved, RiskBound};
use crate::types::Result;

impl SqliteCatalogue {
    pub(super) async fn reserve_risk(
        &self,
        token: OwnerToken,
        bound: RiskBound,
        route: String,
        bytes: u64,
    ) -> Result<Reserved> {
        let now = self.platform.unix_seconds();
        self.change_leases(move |db| {
            let reserved = reserved(db, token, now)?;
            let all = reserved.iter().fold(at_risk(db)?, |sum, one| sum.saturating_add(one.bytes));
            // What waits for which backend is counted where it matters alone.
            if !bound.is_free(bytes, all) {
                let mut held = to_be_pushed(db)?;
                held.extend(reserved);
                if let Some(full) = bound.in_the_way(&route, bytes, &held) {
                    return Ok(Reserved::Full(full));
                }
            }
            reserve(db, token, ("risk", &route), bytes).map(Reserved::Room)
        })
        .await
    }

    pub(super) async fn reserve_hot(&self, token: OwnerToken, bytes: u64) -> Result<u64> {
        self.change_leases(move |db| reserve(db, token, ("hot", ""), bytes)).await
    }

    pub(super) async fn reserved_hot(&self, before: Option<u64>) -> Result<u64> {
        let (now, before) = (self.platform.unix_seconds(), before.unwrap_or(i64::MAX as u64));
        self.with(move |db| {
            db.prepare_cached(
                "SELECT coalesce(sum(bytes), 0) FROM reserved
                 WHERE kind = 'hot' AND seq < ?1 AND token IN (SELECT token FROM owners WHERE expires > ?2)",
            )
            .and_then(|mut query| query.query_row((before, now), |row| row.get(0)))
            .map_err(sql)
        })
        .await
    }

    pub(super) async fn release_rooms(&self, rooms: Vec<u64>) -> Result<()> {
        self.change_leases(move |db| {
            let mut release = db.prepare_cached("DELETE FROM reserved WHERE seq = ?1").map_err(sql)?;
            rooms.iter().try_for_each(|room| release.execute([room]).map(drop)).map_err(sql)
        })
        .await
    }
}

fn reserve(db: &Transaction<'_>, token: OwnerToken, (kind, route): (&str, &str), bytes: u64) -> Result<u64> {
    // SQLite has no larger numbers.
    let bytes = bytes.min(i64::MAX as u64);
    db.prepare_cached("INSERT INTO reserved (token, kind, route, bytes) VALUES (?1, ?2, ?3, ?4) RETURNING seq")
        .and_then(|mut insert| insert.query_row((token.0, kind, route, bytes), |row| row.get(0)))
        .map_err(sql)
}

/// What stores under way have reserved. Those of hosts whose leases have expired have none.
fn reserved(db: &Transaction<'_>, token: OwnerToken, now: u64) -> Result<Vec<AtRisk>> {
    let mut query = db
        .prepare_cached(
            "SELECT route, sum(bytes) FROM reserved
             WHERE kind = 'risk' AND token IN (SELECT token FROM owners WHERE expires > ?1 OR token = ?2)
             GROUP BY route",
        )
        .map_err(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(AtRisk { route: row.get(0)?, copies: None, there: Vec::new(), bytes: row.get(1)? })
    };
    query.query_map((now, token.0), read).and_then(Iterator::collect).map_err(sql)
}

/// What is acknowledged and has to be pushed, by its routes and by where it is.
fn to_be_pushed(db: &Transaction<'_>) -> Result<Vec<AtRisk>> {
    let mut query = db
        .prepare_cached(
            "SELECT coalesce(wanted.route, '') AS routes, wanted.copies,
                    (SELECT group_concat(backend, char(10)) FROM
                         (SELECT DISTINCT backend FROM placements AS p
                          WHERE p.snapshot = jobs.snapshot AND p.state = 'live' AND p.backend <> 'hot'
                          ORDER BY backend)) AS there,
                    sum(jobs.bytes)
             FROM jobs INDEXED BY jobs_pushes LEFT JOIN wanted ON wanted.snapshot = jobs.snapshot
             WHERE jobs.kind = 'push' GROUP BY routes, wanted.copies, there",
        )
        .map_err(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        let route: String = row.get(0)?;
        let (copies, there): (Option<u32>, Option<String>) = (row.get(1)?, row.get(2)?);
        let there = there.map(|names| names.split('\n').map(str::to_owned).collect());
        // Of several routes, each wants what it is configured to.
        let copies = copies.filter(|_| !route.contains('\n')).map(|copies| copies as usize);
        Ok(AtRisk { route, copies, there: there.unwrap_or_default(), bytes: row.get(3)? })
    };
    query.query_map([], read).and_then(Iterator::collect).map_err(sql)
}

/// Logical bytes of snapshots that have to be pushed.
pub(super) fn at_risk(db: &Connection) -> Result<u64> {
    db.prepare_cached("SELECT value FROM counters WHERE name = 'at_risk'")
        .and_then(|mut query| query.query_row([], |row| row.get(0)))
        .map_err(sql)
}
