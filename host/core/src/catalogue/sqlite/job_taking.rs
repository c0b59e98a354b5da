//! Which job is run next.

use rusqlite::{OptionalExtension as _, Transaction};

use super::job_reading::one_job;
use super::owners::lost;
use super::{OwnerToken, sql};
use crate::catalogue::{Between, Choice, Job, Take};
use crate::types::{Error, Result};

/// The most waiting jobs whose time has come that one call wakes.
const WOKEN: u32 = 64;

/// Takes a job under a lease.
pub(super) fn take(
    db: &Transaction<'_>,
    which: Take,
    choice: Option<&Choice>,
    token: OwnerToken,
    now: u64,
) -> Result<Option<(Job, Between)>> {
    let held: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM owners WHERE token = ?1)")
        .and_then(|mut query| query.query_row([token.0], |row| row.get(0)))
        .map_err(sql)?;
    if !held {
        return Err(lost(token));
    }
    db.prepare_cached(
        "UPDATE jobs SET state = 'queued', token = NULL
         WHERE state = 'running' AND token NOT IN (SELECT token FROM owners WHERE expires > ?1 OR token = ?2)",
    )
    .and_then(|mut update| update.execute((now, token.0)))
    .map_err(sql)?;
    if which == Take::Due {
        db.prepare_cached(
            "UPDATE jobs SET state = 'queued' WHERE seq IN
                 (SELECT seq FROM jobs WHERE state = 'waiting' AND not_before <= ?1 ORDER BY not_before LIMIT ?2)",
        )
        .and_then(|mut update| update.execute((now, WOKEN)))
        .map_err(sql)?;
    }
    let found = match choice {
        Some(choice) => chosen(db, which, choice)?,
        None => first(db, which)?.map(|seq| (seq, Between::default())),
    };
    let Some((seq, between)) = found else { return Ok(None) };
    db.prepare_cached("UPDATE jobs SET state = 'running', token = ?2, attempts = attempts + 1 WHERE seq = ?1")
        .and_then(|mut update| update.execute((seq, token.0)))
        .map_err(sql)?;
    Ok(one_job(db, seq)?.map(|job| (job, between)))
}

fn first(db: &Transaction<'_>, which: Take) -> Result<Option<u64>> {
    match which {
        Take::This(seq) => db
            .prepare_cached("SELECT seq FROM jobs WHERE seq = ?1 AND state <> 'running'")
            .and_then(|mut query| query.query_row([seq], |row| row.get(0)).optional()),
        Take::Due => db
            .prepare_cached(
                "SELECT seq FROM jobs WHERE state = 'queued' ORDER BY copies, attempts, created, seq LIMIT 1",
            )
            .and_then(|mut query| query.query_row([], |row| row.get(0)).optional()),
    }
    .map_err(sql)
}

/// The first that the choice allows. Passes over those before it, one by one.
fn chosen(db: &Transaction<'_>, which: Take, choice: &Choice) -> Result<Option<(u64, Between)>> {
    let failed = |error: serde_json::Error| Error::other("a choice of jobs").with_source(error);
    let routes = serde_json::to_string(&choice.routes).map_err(failed)?;
    // Names of backends have no line breaks.
    let both = |one: &Between| {
        let Between { source, target } = one;
        [format!("{source}\n{target}"), format!("{target}\n{source}")]
    };
    let without: Vec<String> = choice.not_between.iter().flat_map(both).collect();
    let without = serde_json::to_string(&without).map_err(failed)?;
    let left_out = serde_json::to_string(&choice.without).map_err(failed)?;
    let (condition, this) = match which {
        // A version goes after its base, so that it can go as what has changed.
        Take::Due => (
            "state = 'queued' AND NOT (kind = 'push' AND EXISTS
                 (SELECT 1 FROM snapshots AS version JOIN jobs AS push ON push.snapshot = version.base
                  WHERE version.id = jobs.snapshot AND push.kind = 'push' AND push.seq < jobs.seq
                      AND push.state IN ('queued', 'running')))
             AND seq NOT IN (SELECT value FROM json_each(?4))",
            0,
        ),
        Take::This(seq) => ("seq = ?3 AND state <> 'running'", seq),
    };
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, Between { source: row.get(1)?, target: row.get(2)? }));
    db.prepare_cached(&format!(
        "WITH due AS
             (SELECT seq, copies, attempts, created, snapshot, backend, object,
                     coalesce(CASE WHEN kind NOT IN ('copy', 'push') THEN backend ELSE
                         (SELECT place.value FROM wanted
                              JOIN json_each(?1) AS route
                                  ON instr(char(10) || wanted.route || char(10), char(10) || route.key || char(10)) > 0
                              JOIN json_each(route.value) AS place
                          WHERE wanted.snapshot = jobs.snapshot
                              AND place.value NOT IN (SELECT p.backend FROM placements AS p
                                                      WHERE p.snapshot = jobs.snapshot AND p.state = 'live')
                          ORDER BY place.key LIMIT 1) END, '') AS target
              FROM jobs WHERE {condition} AND ?3 >= 0 AND ?4 IS NOT NULL),
         found AS
             (SELECT due.*,
                     EXISTS (SELECT 1 FROM placements AS p
                             WHERE p.snapshot = due.snapshot AND p.state = 'live'
                                 AND NOT (p.backend = due.backend AND p.object = due.object)) AS readable,
                     (SELECT p.backend FROM placements AS p
                      WHERE p.snapshot = due.snapshot AND p.state = 'live'
                          AND NOT (p.backend = due.backend AND p.object = due.object)
                          AND p.backend || char(10) || due.target NOT IN (SELECT value FROM json_each(?2))
                      ORDER BY p.seq LIMIT 1) AS source
              FROM due)
         SELECT seq, coalesce(source, target), target FROM found
         WHERE source IS NOT NULL
             OR (NOT readable AND target || char(10) || target NOT IN (SELECT value FROM json_each(?2)))
         ORDER BY copies, attempts, created, seq LIMIT 1"
    ))
    .and_then(|mut query| query.query_row((routes, without, this, left_out), read).optional())
    .map_err(sql)
}
