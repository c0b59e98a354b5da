//! Which job is run next.
//!
//! Jobs are looked for in pages, and only the first page is read in the transaction in which a job is taken: however many jobs
//! wait that may not be begun now, they keep nobody from writing. What was passed over is not looked at again for a while
//! (`job_passing.rs`).

use std::sync::PoisonError;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use super::job_passing::{Key, Passed, Seen};
use super::job_reading::one_job;
use super::owners::lost;
use super::{OwnerToken, SqliteCatalogue, sql};
use crate::catalogue::{Between, Choice, Job, Take};
use crate::types::{Error, Result};

/// The most waiting jobs whose time has come that one call wakes.
const WOKEN: u32 = 64;
/// Jobs that are looked at in the transaction that takes one.
const FIRST: u32 = 64;
/// Jobs that are looked at at once after that.
const PAGE: u32 = 1024;
/// How long the push of a version waits for that of its base, in seconds since it was enqueued.
const FOR_BASE: u64 = 60;

/// Which jobs are looked at.
#[derive(Debug, Clone, Copy)]
enum Part {
    This(u64),
    /// Those that are due, after a place in their order.
    After(Key),
    /// Those that are due and were enqueued after this one, up to a place in the order.
    Newer(u64, Key),
}

/// Takes the first job that is due, or this one, under a lease.
pub(super) fn take(db: &Transaction<'_>, which: Take, token: OwnerToken, now: u64) -> Result<Option<Job>> {
    begin(db, which, token, now)?;
    let found = match which {
        Take::This(seq) => Some(seq),
        Take::Due => db
            .prepare_cached(
                "SELECT seq FROM jobs WHERE state = 'queued' ORDER BY copies, attempts, created, seq LIMIT 1",
            )
            .and_then(|mut query| query.query_row([], |row| row.get(0)).optional())
            .map_err(sql)?,
    };
    found.map_or(Ok(None), |seq| take_one(db, which, seq, token))
}

impl SqliteCatalogue {
    /// Takes the first job that the choice allows.
    pub(super) async fn take_beside(
        &self,
        which: Take,
        choice: &Choice,
        token: OwnerToken,
    ) -> Result<Option<(Job, Between)>> {
        let now = self.platform.unix_seconds();
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut passed =
            passed.filter(|passed| passed.holds(choice, now)).unwrap_or_else(|| Passed::begin(choice, now));
        let parts = match which {
            Take::This(seq) => vec![Part::This(seq)],
            Take::Due => passed
                .parts()
                .into_iter()
                .map(|(newer, key)| match newer {
                    Some(newest) => Part::Newer(newest, key),
                    None => Part::After(key),
                })
                .collect(),
        };
        let mut first = true;
        for mut part in parts {
            loop {
                let (limit, wanted) = (if first { FIRST } else { PAGE }, choice.clone());
                let page = match std::mem::take(&mut first) {
                    true => {
                        let taken = self.change(move |db| {
                            begin(db, which, token, now)?;
                            let page = look(db, part, &wanted, limit, now)?;
                            let Some(fits) = fitting(&page, &wanted) else { return Ok((page, None)) };
                            let taken = take_one(db, which, fits.0, token)?;
                            Ok((page, taken.map(|job| (job, fits.1))))
                        });
                        let (page, taken) = taken.await?;
                        if let Some(taken) = taken {
                            return Ok(Some(taken));
                        }
                        page
                    }
                    false => self.with(move |db| look(db, part, &wanted, limit, now)).await?,
                };
                for seen in &page {
                    if let Some(between) = seen.fits(choice) {
                        let seq = seen.key.seq;
                        if let Some(job) = self.change(move |db| take_one(db, which, seq, token)).await? {
                            self.remember(passed);
                            return Ok(Some((job, between)));
                        }
                        // Somebody else has taken it.
                        passed.end();
                    }
                    passed.pass(seen, matches!(part, Part::Newer(..)), choice);
                }
                match (page.last(), part) {
                    (Some(last), Part::After(_)) if page.len() == limit as usize => part = Part::After(last.key),
                    (Some(last), Part::Newer(_, key)) if page.len() == limit as usize => {
                        part = Part::Newer(last.key.seq, key);
                    }
                    _ => break,
                }
            }
        }
        if let Take::Due = which {
            self.remember(passed);
        }
        Ok(None)
    }

    fn remember(&self, passed: Passed) {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) = Some(passed);
    }
}

/// The first job of a page that a choice allows.
fn fitting(page: &[Seen], choice: &Choice) -> Option<(u64, Between)> {
    page.iter().find_map(|seen| seen.fits(choice).map(|between| (seen.key.seq, between)))
}

/// Makes sure of the lease, and makes what was given up and what has waited long enough due.
fn begin(db: &Transaction<'_>, which: Take, token: OwnerToken, now: u64) -> Result<()> {
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
        // 0 is for those that are woken before their time.
        db.prepare_cached(
            "UPDATE jobs SET state = 'queued', not_before = max(not_before, 1) WHERE seq IN
                 (SELECT seq FROM jobs WHERE state = 'waiting' AND not_before <= ?1 ORDER BY not_before LIMIT ?2)",
        )
        .and_then(|mut update| update.execute((now, WOKEN)))
        .map_err(sql)?;
    }
    Ok(())
}

/// Takes a job that was found, if it is still to be had.
fn take_one(db: &Transaction<'_>, which: Take, seq: u64, token: OwnerToken) -> Result<Option<Job>> {
    let taken = db
        .prepare_cached(
            "UPDATE jobs SET state = 'running', token = ?2, attempts = attempts + 1
             WHERE seq = ?1 AND (state = 'queued' OR (?3 AND state <> 'running'))",
        )
        .and_then(|mut update| update.execute((seq, token.0, matches!(which, Take::This(_)))))
        .map_err(sql)?;
    if taken == 0 { Ok(None) } else { one_job(db, seq) }
}

/// The backend that a job writes to: of a copy or a push, the first of its routes that has none; `''` if there is none.
fn target(of: &str) -> String {
    format!(
        "coalesce(CASE WHEN {of}.kind NOT IN ('copy', 'push') THEN {of}.backend ELSE
             (SELECT place.value FROM wanted
                  JOIN json_each(?1) AS route
                      ON instr(char(10) || wanted.route || char(10), char(10) || route.key || char(10)) > 0
                  JOIN json_each(route.value) AS place
              WHERE wanted.snapshot = {of}.snapshot
                  AND place.value NOT IN (SELECT p.backend FROM placements AS p
                                          WHERE p.snapshot = {of}.snapshot AND p.state = 'live')
              ORDER BY place.key LIMIT 1) END, '')"
    )
}

/// Looks at jobs, in their order.
fn look(db: &Connection, part: Part, choice: &Choice, limit: u32, now: u64) -> Result<Vec<Seen>> {
    let routes = serde_json::to_string(&choice.routes);
    let routes = routes.map_err(|error| Error::other("a choice of jobs").with_source(error))?;
    let nothing = Key::default();
    let (of, order, seq, key) = match part {
        Part::This(seq) => {
            ("jobs WHERE seq = ?2 AND state <> 'running' AND ?3 = ?3 + ?4 + ?5 + ?9", "seq", seq, nothing)
        }
        Part::After(key) => (
            "jobs WHERE state = 'queued' AND (copies, attempts, created, seq) > (?3, ?9, ?4, ?5) AND ?2 = 0",
            "copies, attempts, created, seq",
            0,
            key,
        ),
        Part::Newer(seq, key) => (
            "jobs NOT INDEXED WHERE seq > ?2 AND state = 'queued' AND (copies, attempts, created, seq) <= (?3, ?9, ?4, ?5)",
            "seq",
            seq,
            key,
        ),
    };
    // A version goes after its base, so that it can go as what has changed; but not for long, and not where the base goes elsewhere.
    let waits = format!(
        "due.kind = 'push' AND due.target <> '' AND ?6 >= due.created AND ?6 - due.created < ?7
             AND EXISTS (SELECT 1 FROM snapshots AS version JOIN jobs AS push ON push.snapshot = version.base
                         WHERE version.id = due.snapshot AND push.kind = 'push' AND push.seq < due.seq
                             AND push.state IN ('queued', 'running') AND {} = due.target)",
        target("push")
    );
    let text = format!(
        "WITH due AS
             (SELECT seq, kind, copies, attempts, created, snapshot, backend, object, {} AS target
              FROM {of} ORDER BY {order} LIMIT ?8)
         SELECT seq, copies, attempts, created, target, {waits},
                (SELECT json_group_array(held.backend) FROM
                     (SELECT p.backend FROM placements AS p
                      WHERE p.snapshot = due.snapshot AND p.state = 'live'
                          AND NOT (p.backend = due.backend AND p.object = due.object)
                      ORDER BY p.seq) AS held)
         FROM due ORDER BY {order}",
        target("jobs")
    );
    let read = |row: &Row<'_>| {
        let key = Key { seq: row.get(0)?, copies: row.get(1)?, attempts: row.get(2)?, created: row.get(3)? };
        let sources: String = row.get(6)?;
        let sources = serde_json::from_str(&sources).unwrap_or_default();
        Ok(Seen { key, target: row.get(4)?, waits: row.get(5)? && !matches!(part, Part::This(_)), sources })
    };
    db.prepare_cached(&text)
        .and_then(|mut query| {
            let parameters = (routes, seq, key.copies, key.created, key.seq, now, FOR_BASE, limit, key.attempts);
            query.query_map(parameters, read)?.collect()
        })
        .map_err(sql)
}
