//! No statement reads a whole table that grows with the number of snapshots.
//!
//! The statements are taken from the sources beside this file. Plans do not depend on what is in the tables: no statistics
//! are kept (`ANALYZE` is never run), so that a catalogue of a million snapshots has the plans that are looked at here.

use std::collections::BTreeSet;

use rusqlite::types::Value;
use rusqlite::{Connection, StatementStatus, params_from_iter};

use super::conditions::ALL;
use super::schema;

const SOURCES: [&str; 14] = [
    include_str!("adopt.rs"),
    include_str!("amend.rs"),
    include_str!("forget.rs"),
    include_str!("looked_through.rs"),
    include_str!("owners.rs"),
    include_str!("placements.rs"),
    include_str!("query.rs"),
    include_str!("removals.rs"),
    include_str!("replaced.rs"),
    include_str!("sharing.rs"),
    include_str!("swaps.rs"),
    include_str!("versions.rs"),
    include_str!("write.rs"),
    include_str!("mod.rs"),
];
const OF_JOBS: [&str; 6] = [
    include_str!("elsewhere.rs"),
    include_str!("job_reading.rs"),
    include_str!("job_rows.rs"),
    include_str!("job_taking.rs"),
    include_str!("jobs.rs"),
    include_str!("reserved.rs"),
];

/// The tables with a row for each snapshot, object or name.
const LARGE: [&str; 6] = ["snapshots", "placements", "names", "jobs", "wanted", "events"];

/// Indexes of what is to be done alone, in the order in which it is: who goes through one takes the first rows.
const TO_DO: [&str; 5] = ["jobs_queued", "jobs_waiting", "jobs_running", "jobs_pushes", "wanted_under"];

/// Statements that count everything, which is what they are for.
const COUNTING: [&str; 4] = [
    "SELECT count(*), coalesce(sum(size), 0) FROM snapshots",
    "SELECT backend, count(*)",
    "SELECT kind, state, count(*) FROM jobs",
    "SELECT count(*) FROM wanted",
];

/// The texts between quotation marks.
fn literals(source: &str) -> Vec<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    code.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn statements(db: &Connection) -> Vec<String> {
    let mut found = Vec::new();
    let of =
        |tables: &'static [&'static str], source: &str| literals(source).into_iter().map(move |text| (tables, text));
    let sources = SOURCES.iter().flat_map(|source| of(&["snapshots", "placements"], source));
    let of_jobs = OF_JOBS.iter().flat_map(|source| of(&["jobs"], source));
    for (tables, literal) in sources.chain(of_jobs) {
        let text = ALL.iter().fold(literal.trim().to_owned(), |text, (name, condition)| text.replace(name, condition));
        if text.starts_with("WHERE ") {
            // Of those that are put together, where it fits.
            let whole = tables.iter().map(|table| format!("SELECT seq FROM {table} {text}"));
            found.extend(whole.filter(|whole| db.prepare(whole).is_ok()));
        } else if ["SELECT ", "INSERT ", "UPDATE ", "DELETE "].iter().any(|verb| text.starts_with(verb))
            && !text.contains('{')
        {
            found.push(text);
        }
    }
    found
}

fn plan(db: &Connection, statement: &str) -> Vec<String> {
    let mut explained = db.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).expect(statement);
    let nulls = vec![rusqlite::types::Null; explained.parameter_count()];
    let details = explained.query_map(rusqlite::params_from_iter(nulls), |row| row.get(3)).expect(statement);
    details.collect::<rusqlite::Result<_>>().expect(statement)
}

fn scans(db: &Connection, statement: &str) -> Vec<String> {
    let large = |detail: &String| {
        let whole = LARGE.iter().any(|table| detail.starts_with(&format!("SCAN {table}")));
        whole && !TO_DO.iter().any(|index| detail.ends_with(&format!(" {index}")))
    };
    plan(db, statement).into_iter().filter(large).collect()
}

#[test]
fn no_statement_reads_a_whole_table() {
    let db = schema::in_memory().unwrap();
    let statements = statements(&db);
    assert!(statements.len() > 50, "only {} were found", statements.len());
    for statement in &statements {
        let found = scans(&db, statement);
        let counts = COUNTING.iter().any(|counting| statement.starts_with(counting));
        assert!(found.is_empty() || counts, "{statement}: {found:?}");
    }
    // It would be noticed.
    assert!(!scans(&db, "SELECT id FROM snapshots WHERE created = ?1").is_empty());
}

/// What is prepared again takes longer than what it does.
#[test]
fn no_statement_is_prepared_twice() {
    let directory = tempfile::tempdir().unwrap();
    let db = schema::open(&directory.path().join("catalogue.sqlite")).unwrap();
    let statements: BTreeSet<_> = statements(&db).into_iter().collect();
    for round in 0..3 {
        for text in &statements {
            let mut statement = db.prepare_cached(text).unwrap();
            // Triggers count as runs, too.
            assert!(statement.get_status(StatementStatus::Run) >= round, "{text}");
            let bound = vec![Value::from(i64::from(round)); statement.parameter_count()];
            // What the values break is not changed, and counts as well.
            let mut rows = statement.query(params_from_iter(bound)).unwrap();
            while let Ok(Some(_)) = rows.next() {}
            drop(rows);
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{text}");
        }
    }
}
