//! Reading a catalogue that this process may not change: on read-only media, in a folder that is mounted read-only here and
//! written to elsewhere, or as a user who may only read.
//!
//! There are three ways, and the one that fits is taken anew whenever the files are not what they were:
//!
//! - **Beside others.** If there is a log and its index, SQLite reads beside those who write, with locks. So it does if they
//!   were killed and have left both.
//! - **As it lies.** If there is no log, nobody has the file open. It is opened as one that does not change. SQLite takes no
//!   lock then, so others may come and write: the files are looked at before and after each call, and what was read while they
//!   changed is read again.
//! - **From a private copy**, in a folder for temporary files. If there is a log without its index, which SQLite would have to
//!   make, or an older version wrote the tables: the copy can be brought up to date. It is read as long as the files do not
//!   change, as above.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::paths::beside;
use super::schema;
use crate::types::{Error, ErrorKind, Result};

/// How often others may change the files while they are opened or read.
const ATTEMPTS: u32 = 60;
/// Times of files are no finer than this: what changed within it may change once more without another time.
const TICK: Duration = Duration::from_millis(50);

/// What tells that a file changed: device and number, size, and times in nanoseconds.
type Stamp = (u64, u64, u64, i128, i128);

/// How the files of a catalogue are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    file: Option<Stamp>,
    log: Option<Stamp>,
    /// Whether SQLite's index of the log is there.
    index: bool,
}

/// How a catalogue is being read.
#[derive(Debug)]
pub(super) enum View {
    /// With locks, beside others. The file is this one.
    Beside(Option<(u64, u64)>),
    /// As the files were then.
    Still(Box<Still>),
}

/// What a catalogue is read from that must not have changed.
#[derive(Debug)]
pub(super) struct Still(State);

impl View {
    /// Opens a catalogue without changing anything. Blocks.
    ///
    /// # Errors
    /// `unavailable` if others go on changing it, or if it has to be copied and cannot be; otherwise as SQLite.
    pub(super) fn open(path: &Path) -> Result<(Self, Connection)> {
        for _ in 0..ATTEMPTS {
            let state = State::of(path);
            if state.is_recent() {
                std::thread::sleep(TICK);
                continue;
            }
            let opened = match (state.has_log(), state.log.is_some() && state.index) {
                (_, true) => schema::open_read_only(path, false).map(|open| open.map(|db| (state.beside(), db))),
                (false, false) => schema::open_read_only(path, true).map(|open| open.map(|db| (state.still(), db))),
                (true, false) => Ok(None),
            };
            let opened = match opened {
                Ok(Some(open)) => Ok(open),
                Ok(None) => copy(path).map(|db| (state.still(), db)),
                // Where there are no locks, for example.
                Err(error) if state.has_log() && *error.kind() != ErrorKind::Corrupt => {
                    tracing::debug!(%error, "the catalogue is read from a copy");
                    copy(path).map(|db| (state.still(), db))
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok((Self::Beside(file), db)) => return Ok((Self::Beside(file), db)),
                // What was found while it changed says nothing, neither good nor bad.
                opened if State::of(path) == state => return opened,
                _ => {}
            }
        }
        Err(restless(path))
    }

    /// Returns whether the files are still what they were, so that what was read since can be relied on.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        match self {
            Self::Beside(file) => State::of(path).identity() == *file,
            Self::Still(still) => State::of(path) == still.0,
        }
    }
}

/// Reads with a connection that is opened anew whenever the files have changed.
///
/// # Errors
/// What the call meets, while nothing changed; `unavailable` if others go on changing the files.
pub(super) fn read<T>(
    path: &Path,
    view: &mut View,
    connection: &mut Connection,
    mut call: impl FnMut(&mut Connection) -> Result<T>,
) -> Result<T> {
    for _ in 0..ATTEMPTS {
        if !view.is_current(path) {
            let (opened, db) = View::open(path)?;
            (*view, *connection) = (opened, db);
        }
        let result = call(connection);
        if view.is_current(path) {
            return result;
        }
    }
    Err(restless(path))
}

fn restless(path: &Path) -> Error {
    Error::unavailable(format!(
        "the catalogue {} cannot be written to here, and others change it all the time",
        path.display()
    ))
    .hint("try again, or ask a daemon that can write to the data directory")
}

impl State {
    fn of(path: &Path) -> Self {
        let index = beside(path, "-shm").exists();
        Self { file: stamp(path), log: stamp(&beside(path, "-wal")), index }
    }

    /// Returns whether there is a log with changes.
    fn has_log(&self) -> bool {
        self.log.is_some_and(|(_, _, size, ..)| size > 0)
    }

    fn identity(&self) -> Option<(u64, u64)> {
        self.file.map(|(device, number, ..)| (device, number))
    }

    fn beside(&self) -> View {
        View::Beside(self.identity())
    }

    fn still(&self) -> View {
        View::Still(Box::new(Still(self.clone())))
    }

    /// Returns whether a file changed just now.
    fn is_recent(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        let recent =
            |stamp: Stamp| [stamp.3, stamp.4].iter().any(|time| (0..TICK.as_nanos() as i128).contains(&(now - time)));
        let beside_others = self.log.is_some() && self.index;
        !beside_others && (self.file.is_some_and(recent) || self.log.is_some_and(recent))
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let of = |found: Metadata| {
        let (changed, written) = (time(found.ctime(), found.ctime_nsec()), time(found.mtime(), found.mtime_nsec()));
        (found.dev(), found.ino(), found.size(), written, changed)
    };
    std::fs::metadata(path).ok().map(of)
}

/// Copies the file and its log, and brings the copy up to date. The copy has no name any more when this returns.
fn copy(path: &Path) -> Result<Connection> {
    let dir =
        tempfile::Builder::new().prefix("tidelock-catalogue-").tempdir().map_err(|error| uncopied(path, &error))?;
    let to: PathBuf = dir.path().join("catalogue.sqlite");
    for end in ["", "-wal"] {
        match copy_file(&beside(path, end), &beside(&to, end)) {
            Err(error) if error.kind() == Io::NotFound && !end.is_empty() => {}
            copied => copied.map_err(|error| uncopied(path, &error))?,
        }
    }
    schema::open_private(&to).map_err(|error| match error.kind() {
        ErrorKind::Unavailable => uncopied(path, &error),
        _ => schema::at(path, error),
    })
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    io::copy(&mut from, &mut File::create(to)?).map(drop)
}

fn uncopied(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let what = format!(
        "the catalogue {} has to be copied to be read, since it cannot be written to and an older version of tidelock \
         wrote it or it was not closed; the copy cannot be made: {error}",
        path.display()
    );
    Error::unavailable(what).hint(
        "make room in the folder for temporary files (`TMPDIR`), or run this version once where the data directory can \
         be written to",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn rows(db: &mut Connection) -> Result<u64> {
        let count =
            "SELECT (SELECT count(*) FROM counters WHERE name LIKE 'row%') + 0 * (SELECT count(*) FROM snapshots)";
        db.query_row(count, [], |row| row.get(0)).map_err(crate::catalogue::sqlite::errors::sql)
    }

    fn add(path: &Path, number: u64) {
        let db = schema::open(path).unwrap();
        db.execute("INSERT INTO counters VALUES (?1, 1)", [format!("row{number}{}", "x".repeat(3000))]).unwrap();
    }

    /// Each writer opens the file, adds a row and closes it, so that the log comes and goes.
    #[test]
    fn what_others_write_meanwhile_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sqlite");
        add(&path, 0);
        let (mut view, mut db) = View::open(&path).unwrap();
        assert!(matches!(view, View::Still(_)), "{view:?}");
        let written = AtomicU64::new(1);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..60 {
                    add(&path, number);
                    written.store(number + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(number % 7));
                }
            });
            while !writer.is_finished() {
                let before = written.load(Ordering::SeqCst);
                let read = read(&path, &mut view, &mut db, rows).unwrap();
                assert!((before..=written.load(Ordering::SeqCst) + 1).contains(&read), "{read} after {before}");
            }
        });
        assert_eq!(read(&path, &mut view, &mut db, rows).unwrap(), 60);
    }

    #[test]
    fn a_log_without_its_index_and_an_older_version_are_read_from_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sqlite");
        add(&path, 0);
        let open = schema::open(&path).unwrap();
        open.execute("INSERT INTO counters VALUES ('rows', 1)", []).unwrap();
        let other = dir.path().join("other.sqlite");
        for end in ["", "-wal"] {
            std::fs::copy(beside(&path, end), beside(&other, end)).unwrap();
        }
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        let before = files();
        let (mut view, mut db) = View::open(&other).unwrap();
        assert_eq!(read(&other, &mut view, &mut db, rows).unwrap(), 2);
        assert!(db.execute("DELETE FROM counters", []).is_err());

        let old = dir.path().join("old.sqlite");
        let made = Connection::open(&old).unwrap();
        schema::STEPS[..2].iter().for_each(|step| made.execute_batch(step).unwrap());
        made.execute_batch("PRAGMA application_id = 0x54644c6b; PRAGMA user_version = 2").unwrap();
        drop(made);
        let (mut view, mut db) = View::open(&old).unwrap();
        assert_eq!(read(&old, &mut view, &mut db, rows).unwrap(), 0);
        assert_eq!(files(), before + 1);
    }
}
