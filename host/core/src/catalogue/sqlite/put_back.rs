//! A catalogue that went back in time: it was put back from a copy, or its last changes are lost.
//!
//! What it holds as begun (stores, removals, deletions) has ended since in a way that it does not know. To clear up after that
//! would delete what was acknowledged. So before anything is changed, it is compared with its mark (`mark.rs`). If the two do
//! not belong together, a new *incarnation* begins: what was begun is forgotten, and no object is touched. What is there is
//! for `import` to find, and until it has, nothing is removed that packs may need which are not known here
//! (`looked_through.rs`). All leases end, and the numbers that are never given twice go on far beyond those that may have been
//! given since.
//!
//! It is the same for a data directory that was copied: whether the original went on, nobody knows.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::looked_through::forget_looks;
use super::mark::{Mark, Reached, made_at};
use super::removals::forget_snapshot;
use super::sql;
use crate::types::{Error, Platform, Result, SnapshotId};

/// How far numbers that are never given twice go on: more than one incarnation gives.
const BEYOND: u64 = 1 << 32;

/// What a catalogue says of itself.
struct Known {
    /// Its incarnation, and when its mark was made; `None` in one of a version that knew no mark.
    recorded: Option<(u64, u64)>,
    version: u64,
}

impl Known {
    /// The only one of some marks, if the catalogue is what it was when that was written.
    fn only(&self, marks: &[Reached]) -> Option<Reached> {
        let [mark] = marks else { return None };
        let fits = self.recorded == Some((mark.incarnation, mark.born)) && self.version >= mark.version;
        fits.then_some(*mark)
    }
}

/// What a comparison says.
enum Verdict {
    Same(Reached),
    /// There is no mark yet.
    New,
    /// It is not what it was; what the marks say, at the most.
    PutBack(Reached),
}

/// What came of a comparison within a change.
pub(super) enum Settled {
    /// It is what it was, in this incarnation.
    Same(u64),
    /// There is no mark, and none can be made.
    Unmarked,
    /// Something was recorded, which has to be committed before anything else is done: the mark says it already.
    Begun,
}

/// What a catalogue is compared with.
pub(super) struct Witness<'a> {
    pub(super) mark: &'a Mark,
    /// The file of the catalogue.
    pub(super) file: &'a Path,
    pub(super) platform: &'a Platform,
}

/// Makes sure of a catalogue. Changes nothing if it is what it was.
///
/// # Errors
/// What the database and the mark meet.
pub(super) fn check(db: &mut Connection, witness: &Witness<'_>) -> Result<()> {
    if let Verdict::Same(_) = compare(&db.transaction().map_err(sql)?, witness)? {
        return Ok(());
    }
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    settle(&change, witness)?;
    change.commit().map_err(sql)
}

/// Begins a new incarnation if the catalogue is not what it was, within a transaction that does nothing else then: what may
/// fail must not take this back, for the mark does not go back with it.
///
/// # Errors
/// What the database meets; the mark too, if the catalogue was put back.
pub(super) fn settle(db: &Transaction<'_>, witness: &Witness<'_>) -> Result<Settled> {
    match compare(db, witness)? {
        Verdict::Same(reached) => Ok(Settled::Same(reached.incarnation)),
        Verdict::New => begin(db, witness),
        Verdict::PutBack(reached) => begin_again(db, witness, reached),
    }
}

fn compare(db: &Transaction<'_>, witness: &Witness<'_>) -> Result<Verdict> {
    // The database first: the mark is never ahead of it, whoever writes meanwhile.
    let known = known(db)?;
    // A listing beside a rename may miss the mark or have it twice, but does not make up one that fits.
    if let Some(same) = witness.mark.glance().ok().and_then(|marks| known.only(&marks)) {
        return Ok(Verdict::Same(same));
    }
    let marks = witness.mark.read().map_err(|error| of_mark(witness, error))?;
    if let Some(same) = known.only(&marks) {
        return Ok(Verdict::Same(same));
    }
    Ok(match (known.recorded, &marks[..]) {
        (None, []) if !is_older_than_its_file(db, witness)? => Verdict::New,
        _ => Verdict::PutBack(marks.iter().fold(Reached::default(), |most, mark| Reached {
            version: most.version.max(mark.version),
            tokens: most.tokens.max(mark.tokens),
            ..most
        })),
    })
}

fn known(db: &Transaction<'_>) -> Result<Known> {
    let row = db.prepare_cached(
        "SELECT (SELECT value FROM counters WHERE name = 'version'), (SELECT value FROM counters WHERE name = 'incarnation'),
                (SELECT value FROM counters WHERE name = 'marked')",
    );
    let (version, incarnation, marked): (u64, Option<u64>, Option<u64>) = row
        .and_then(|mut query| query.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))))
        .map_err(sql)?;
    Ok(Known { recorded: incarnation.zip(marked), version })
}

/// Returns whether a catalogue of a version without marks is a copy: something in it was begun before its file was made.
fn is_older_than_its_file(db: &Transaction<'_>, witness: &Witness<'_>) -> Result<bool> {
    db.query_row(
        "SELECT EXISTS (SELECT 1 FROM intents WHERE started < ?1)
             OR EXISTS (SELECT 1 FROM placements WHERE state = 'removing' AND since < ?1)",
        [made_at(witness.file)],
        |row| row.get(0),
    )
    .map_err(sql)
}

fn begin(db: &Transaction<'_>, witness: &Witness<'_>) -> Result<Settled> {
    let first = Reached { incarnation: fresh(witness)?, version: known(db)?.version, tokens: 0, born: 0 };
    match witness.mark.replace(first) {
        Ok(reached) => {
            record(db, reached)?;
            Ok(Settled::Begun)
        }
        Err(error) => {
            tracing::debug!(%error, path = %witness.mark.path().display(), "the catalogue has no mark");
            Ok(Settled::Unmarked)
        }
    }
}

fn begin_again(db: &Transaction<'_>, witness: &Witness<'_>, reached: Reached) -> Result<Settled> {
    let known = known(db)?;
    let last: Option<u64> = db
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'owners'", [], |row| row.get(0))
        .optional()
        .map_err(sql)?;
    let next = Reached {
        incarnation: fresh(witness)?,
        version: beyond(known.version, reached.version),
        tokens: beyond(last.unwrap_or(0), reached.tokens),
        born: 0,
    };
    let forgotten = forget_what_was_begun(db)?;
    forget_looks(db, next.version)?;
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'owners'", []).map_err(sql)?;
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('owners', ?1)", [next.tokens]).map_err(sql)?;
    db.execute("UPDATE counters SET value = ?1 WHERE name = 'version'", [next.version]).map_err(sql)?;
    // Before the change is there: if that fails, the mark shows it again.
    let next = witness.mark.replace(next).map_err(|error| of_mark(witness, error))?;
    record(db, next)?;
    let older = known.version < reached.version;
    if older || forgotten > 0 {
        tracing::warn!(
            "the catalogue was put back from an older copy, or copied: stores and removals that it holds as begun ({forgotten}) \
             are forgotten, and no object is removed for them; run `tidelock import BACKEND` to find what was stored since"
        );
    } else {
        tracing::debug!(path = %witness.mark.path().display(), "the catalogue was copied, or its mark is lost; nothing in it was begun");
    }
    Ok(Settled::Begun)
}

/// Forgets intents, claims, leases and placements that were being removed. Returns how many stores and removals that were.
///
/// What packs among these need stays needed: an import may find them again.
fn forget_what_was_begun(db: &Transaction<'_>) -> Result<usize> {
    let intents = db.execute("DELETE FROM intents", []).map_err(sql)?;
    db.execute("DELETE FROM claims", []).map_err(sql)?;
    db.execute("DELETE FROM owners", []).map_err(sql)?;
    let snapshots: Vec<[u8; 32]> = db
        .prepare("DELETE FROM placements WHERE state = 'removing' RETURNING snapshot")
        .and_then(|mut delete| delete.query_map([], |row| row.get(0))?.collect())
        .map_err(sql)?;
    for snapshot in &snapshots {
        let left: bool = db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM placements WHERE snapshot = ?1)")
            .and_then(|mut query| query.query_row([snapshot], |row| row.get(0)))
            .map_err(sql)?;
        if !left {
            forget_snapshot(db, SnapshotId::from_bytes(*snapshot))?;
        }
    }
    Ok(intents + snapshots.len())
}

fn record(db: &Transaction<'_>, reached: Reached) -> Result<()> {
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO counters (name, value) VALUES (?1, ?2)").map_err(sql)?;
    insert.execute(("incarnation", reached.incarnation)).map_err(sql)?;
    insert.execute(("marked", reached.born)).map(drop).map_err(sql)
}

fn of_mark(witness: &Witness<'_>, error: std::io::Error) -> Error {
    unusable(witness.mark, error)
}

/// The error of a mark that cannot be used.
pub(super) fn unusable(mark: &Mark, error: std::io::Error) -> Error {
    let shown = mark.path().display();
    if error.kind() != std::io::ErrorKind::TimedOut {
        return Error::io(shown, error);
    }
    Error::unavailable(format!("another process holds the lock of {shown}"))
        .hint(format!("try again; `fuser {shown}` shows who has it open"))
        .with_source(error)
}

/// A random number that SQLite can hold.
fn fresh(witness: &Witness<'_>) -> Result<u64> {
    let mut bytes = [0; 8];
    witness.platform.fill(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes) >> 1)
}

/// A number beyond both, within what SQLite holds.
fn beyond(one: u64, other: u64) -> u64 {
    one.max(other).saturating_add(BEYOND).min(i64::MAX as u64 / 2)
}
