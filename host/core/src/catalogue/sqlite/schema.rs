//! The tables, their versions, and opening a file.
//!
//! `PRAGMA application_id` identifies the file and `PRAGMA user_version` its schema. Each step of
//! [`STEPS`] leads from one version to the next and is never changed once released: a new version is a new step.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::{damaged, sql};
use crate::types::{Error, ErrorKind, Result, durable};

/// `TdLk` in ASCII.
const APPLICATION_ID: i32 = 0x5464_4c6b;

const FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX).union(OpenFlags::SQLITE_OPEN_EXRESCODE);

/// How long a call waits for another process's write.
const BUSY: Duration = Duration::from_secs(30);

/// The same for a change of a lease, which is worth little when it comes late.
const LEASE_BUSY: Duration = Duration::from_secs(5);

/// The most statements that a connection keeps prepared: more than there are.
const STATEMENTS: usize = 256;

/// Each leads from the version of its index to the next.
pub(super) const STEPS: [&str; 10] = [
    "
CREATE TABLE snapshots (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,             -- the order in which they came
    id       BLOB    NOT NULL UNIQUE CHECK (length(id) = 32),
    size     INTEGER NOT NULL CHECK (size >= 0),
    base     BLOB    CHECK (length(base) = 32),             -- for information: no foreign key
    name     TEXT,
    created  INTEGER NOT NULL,
    segments BLOB    NOT NULL                               -- last: long, and seldom read
) STRICT;
CREATE INDEX snapshots_by_size ON snapshots (size);
CREATE INDEX snapshots_by_name ON snapshots (name) WHERE name IS NOT NULL;

CREATE TABLE placements (
    snapshot     BLOB    NOT NULL REFERENCES snapshots (id),
    backend      TEXT    NOT NULL,
    object       TEXT    NOT NULL,
    encoding     TEXT    NOT NULL DEFAULT 'raw',
    state        TEXT    NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'bad', 'removing')),
    stored_bytes INTEGER NOT NULL CHECK (stored_bytes >= 0),
    created      INTEGER NOT NULL,
    UNIQUE (backend, object)
) STRICT;
CREATE INDEX placements_by_snapshot ON placements (snapshot);

CREATE TABLE intents (
    key     TEXT    NOT NULL PRIMARY KEY,
    backend TEXT    NOT NULL,
    owner   TEXT    NOT NULL,
    started INTEGER NOT NULL
) STRICT;
",
    "
CREATE TABLE swaps (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,           -- the order in which it happened
    backend    TEXT    NOT NULL,
    event      TEXT    NOT NULL,
    generation INTEGER CHECK (generation > 0),              -- what serves from here on; NULL if nothing changed
    digest     TEXT    NOT NULL,
    adapter    TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    who        TEXT    NOT NULL,
    previous   TEXT,
    stage      TEXT,
    why        TEXT,
    configured TEXT    NOT NULL,
    UNIQUE (backend, generation)
) STRICT;
CREATE INDEX swaps_by_backend ON swaps (backend, seq);
",
    "
CREATE TABLE owners (
    token   INTEGER PRIMARY KEY AUTOINCREMENT,              -- only grows: none is given twice
    name    TEXT    NOT NULL UNIQUE,
    expires INTEGER NOT NULL
) STRICT;
ALTER TABLE intents ADD COLUMN token INTEGER;               -- NULL: a version without leases wrote it
CREATE INDEX intents_by_token ON intents (token);
CREATE INDEX intents_by_backend ON intents (backend);
",
    // `snapshots.name` is not read any more: dropping it would rewrite every row with its digests. Placements that were
    // bad may have been so on bad evidence.
    "
CREATE TABLE names (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,             -- the order in which they were given
    name     TEXT    NOT NULL UNIQUE,
    snapshot BLOB    NOT NULL REFERENCES snapshots (id),
    backend  TEXT,                                          -- whose import gave it; NULL: a store did
    created  INTEGER NOT NULL
) STRICT;
CREATE INDEX names_by_snapshot ON names (snapshot, seq);
INSERT OR REPLACE INTO names (name, snapshot, created)
    SELECT name, id, created FROM snapshots WHERE name IS NOT NULL ORDER BY seq;
DROP INDEX snapshots_by_name;
ALTER TABLE snapshots ADD COLUMN unnamed INTEGER NOT NULL DEFAULT 0;  -- 1: somebody knows it by its id alone
UPDATE snapshots SET unnamed = 1 WHERE id NOT IN (SELECT snapshot FROM names);
ALTER TABLE snapshots ADD COLUMN base_from TEXT;                      -- whose import gave the base; NULL: a store did

CREATE TABLE placements_of_4 (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,         -- the order in which they came
    snapshot     BLOB    NOT NULL REFERENCES snapshots (id),
    backend      TEXT    NOT NULL,
    object       TEXT    NOT NULL,
    encoding     TEXT    NOT NULL DEFAULT 'raw',
    state        TEXT    NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'suspect', 'bad', 'removing')),
    reason       TEXT,
    since        INTEGER NOT NULL DEFAULT 0,                -- when it came into this state
    version      INTEGER NOT NULL DEFAULT 0,                -- another one after each change
    stored_bytes INTEGER NOT NULL CHECK (stored_bytes >= 0),
    created      INTEGER NOT NULL,
    UNIQUE (backend, object)
) STRICT;
INSERT INTO placements_of_4 (snapshot, backend, object, encoding, state, reason, since, stored_bytes, created)
    SELECT snapshot, backend, object, encoding,
           state,
           CASE state WHEN 'bad' THEN 'an earlier version found it missing or damaged' END,
           CASE state WHEN 'live' THEN created ELSE CAST(strftime('%s', 'now') AS INTEGER) END,
           stored_bytes, created
    FROM placements ORDER BY rowid;
DROP TABLE placements;
ALTER TABLE placements_of_4 RENAME TO placements;
CREATE INDEX placements_by_snapshot ON placements (snapshot, seq);
CREATE INDEX placements_to_mend ON placements (state, seq) WHERE state <> 'live';

-- Names are in a table of their own: a program of an earlier version that still has the file open must not lose them.
CREATE TRIGGER names_of_earlier_versions BEFORE INSERT ON snapshots WHEN NEW.name IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a newer version of tidelock has taken over the catalogue: use it, or restart'); END;
CREATE TRIGGER renames_of_earlier_versions BEFORE UPDATE OF name ON snapshots WHEN NEW.name IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a newer version of tidelock has taken over the catalogue: use it, or restart'); END;

CREATE TABLE claims (
    backend TEXT    NOT NULL,
    object  TEXT    NOT NULL,
    owner   TEXT    NOT NULL,
    token   INTEGER NOT NULL,
    PRIMARY KEY (backend, object)
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
    backend TEXT    NOT NULL PRIMARY KEY,
    object  TEXT    NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES ('version', 0);
",
    "
ALTER TABLE placements ADD COLUMN pack BLOB CHECK (length(pack) = 32); -- what the object is, if its encoding is 'pages'
CREATE INDEX placements_by_pack ON placements (pack) WHERE pack IS NOT NULL;
ALTER TABLE snapshots ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;   -- 1: kept for those that need it, and for nobody else

CREATE TABLE needs (
    backend TEXT NOT NULL,                                  -- the object of this backend
    object  TEXT NOT NULL,
    needed  BLOB NOT NULL REFERENCES snapshots (id),        -- takes pages from an object of this snapshot, on the same backend
    pack    BLOB NOT NULL CHECK (length(pack) = 32),        -- which is this pack; the snapshot's id: which holds it as it is
    PRIMARY KEY (backend, object, pack)
) STRICT, WITHOUT ROWID;
CREATE INDEX needs_by_needed ON needs (needed, backend);

-- A program of an earlier version that still has the file open does not know that an object may be needed.
CREATE TRIGGER removals_of_earlier_versions BEFORE UPDATE OF state ON placements
WHEN NEW.state = 'removing' AND OLD.state <> 'removing'
    AND EXISTS (SELECT 1 FROM needs WHERE needed = NEW.snapshot AND backend = NEW.backend)
    AND NOT EXISTS (SELECT 1 FROM placements AS other
                    WHERE other.snapshot = NEW.snapshot AND other.backend = NEW.backend AND other.object <> NEW.object
                      AND other.state = 'live' AND other.pack IS NEW.pack)
BEGIN SELECT RAISE(ABORT, 'objects of other snapshots need this one'); END;
-- Nor that a snapshot that it stores again was removed, and has to be known again.
CREATE TRIGGER stores_of_earlier_versions BEFORE UPDATE OF segments ON snapshots WHEN OLD.removed = 1 AND NEW.removed = 1
BEGIN SELECT RAISE(ABORT, 'a newer version of tidelock has taken over the catalogue: use it, or restart'); END;
CREATE TRIGGER imports_of_earlier_versions BEFORE INSERT ON placements
WHEN EXISTS (SELECT 1 FROM snapshots WHERE id = NEW.snapshot AND removed = 1)
BEGIN SELECT RAISE(ABORT, 'a newer version of tidelock has taken over the catalogue: use it, or restart'); END;
",
    "
CREATE TABLE looked_through (
    backend TEXT    NOT NULL PRIMARY KEY,                   -- '': every backend without a row of its own
    looked  INTEGER NOT NULL,                               -- 0: it may hold packs that are not known, and what these need stays
    look    INTEGER NOT NULL                                -- the number of the import that ends this
) STRICT, WITHOUT ROWID;

-- A program of an earlier version that still has the file open does not know that an object may be needed.
CREATE TRIGGER unknown_needs_of_earlier_versions BEFORE UPDATE OF state ON placements
WHEN NEW.state = 'removing' AND OLD.state <> 'removing'
    AND (SELECT looked FROM looked_through WHERE backend IN (NEW.backend, '') ORDER BY backend DESC LIMIT 1) = 0
    AND NOT EXISTS (SELECT 1 FROM placements AS other
                    WHERE other.snapshot = NEW.snapshot AND other.backend = NEW.backend AND other.object <> NEW.object
                      AND other.state = 'live' AND other.pack IS NEW.pack)
BEGIN SELECT RAISE(ABORT, 'objects that are not known may need this one'); END;
",
    include_str!("schema/jobs.sql"),
    "
-- An object is needed by whoever names its pack, also where the snapshot beside that is damaged.
CREATE INDEX needs_by_pack ON needs (pack, backend);
-- A snapshot can be in several packs, of which some are needed.
DROP TRIGGER removals_of_earlier_versions;
CREATE TRIGGER removals_of_earlier_versions BEFORE UPDATE OF state ON placements
WHEN NEW.state = 'removing' AND OLD.state <> 'removing'
    AND EXISTS (SELECT 1 FROM needs WHERE backend = NEW.backend AND pack = coalesce(NEW.pack, NEW.snapshot))
    AND NOT EXISTS (SELECT 1 FROM placements AS other
                    WHERE other.snapshot = NEW.snapshot AND other.backend = NEW.backend AND other.object <> NEW.object
                      AND other.state = 'live' AND other.pack IS NEW.pack)
BEGIN SELECT RAISE(ABORT, 'objects of other snapshots need this one'); END;
",
    "
-- The version at which all of it was last read and was right.
ALTER TABLE placements ADD COLUMN read_version INTEGER NOT NULL DEFAULT 0;
-- Each backend is scrubbed in a rotation of its own.
DROP INDEX placements_by_scrub;
CREATE INDEX placements_by_scrub ON placements (backend, scrubbed, seq);
-- Of jobs that are as urgent, those that were begun the fewest times come first.
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (copies, attempts, created, seq) WHERE state = 'queued';
",
    include_str!("schema/reserved.sql"),
];

/// Opens a file and brings it up to date.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let shown = path.display();
    if path.is_dir() {
        return Err(Error::invalid(format!("the catalogue {shown} is a directory")));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        durable::make_dir(parent).map_err(|error| Error::io(parent.display(), error))?;
    }
    connect(path).map_err(|error| at(path, error))
}

/// Opens a file without changing anything: one that does not change, or one that others may write to. `None` if an older
/// version wrote it.
pub(super) fn open_read_only(path: &Path, immutable: bool) -> Result<Option<Connection>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let open = || {
        let opened = match immutable {
            true => Connection::open_with_flags(immutable_uri(path)?, flags | OpenFlags::SQLITE_OPEN_URI),
            false => Connection::open_with_flags(path, flags),
        };
        let mut connection = opened.map_err(sql)?;
        connection.busy_timeout(BUSY).map_err(sql)?;
        let current = ours(&connection.transaction().map_err(sql)?)? == STEPS.len();
        Ok(current.then_some(connection))
    };
    open().map_err(|error| at(path, error))
}

/// Opens a copy that nobody else knows, brings it up to date, and lets nothing be changed from then on.
pub(super) fn open_private(path: &Path) -> Result<Connection> {
    let mut connection = Connection::open_with_flags(path, FLAGS).map_err(sql)?;
    connection.pragma_update(None, "locking_mode", "exclusive").map_err(sql)?;
    connection.pragma_update(None, "synchronous", "off").map_err(sql)?;
    migrate(&mut connection)?;
    connection.pragma_update(None, "query_only", true).map_err(sql)?;
    Ok(connection)
}

/// Opens a file for this process alone, without the files beside it for which there is no room.
pub(super) fn open_exclusive(path: &Path) -> Result<Connection> {
    let open = || {
        let connection = Connection::open_with_flags(path, FLAGS).map_err(sql)?;
        connection.busy_timeout(BUSY).map_err(sql)?;
        connection.pragma_update(None, "locking_mode", "exclusive").map_err(sql)?;
        connection.pragma_update(None, "synchronous", "full").map_err(sql)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(sql)?;
        keep_statements(&connection)?;
        current(connection)
    };
    open().map_err(|error| at(path, error))
}

/// The path as a URI of SQLite, for a file that does not change.
fn immutable_uri(path: &Path) -> Result<String> {
    let whole = std::path::absolute(path).map_err(|error| Error::io(path.display(), error))?;
    let mut uri = "file://".to_owned();
    for byte in whole.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    Ok(uri)
}

/// A file that cannot be brought up to date has to be.
fn current(mut connection: Connection) -> Result<Connection> {
    if ours(&connection.transaction().map_err(sql)?)? == STEPS.len() {
        return Ok(connection);
    }
    Err(Error::unsupported(
        "an older version of tidelock wrote this catalogue, and it cannot be brought up to date here",
    )
    .hint("run this version once where the data directory can be written to"))
}

/// The error with the file's name, and what to do about it.
pub(super) fn at(path: &Path, error: Error) -> Error {
    let named = Error::new(error.kind().clone(), format!("{}: {}", path.display(), error.message()));
    let named = match (error.kind(), error.advice()) {
        (_, Some(advice)) => named.hint(advice),
        (ErrorKind::Corrupt, None) => named.hint(damaged(path)),
        _ => named,
    };
    named.with_source(error)
}

/// Opens a file once more, for changes of leases alone: it has been opened before.
pub(super) fn connect_for_leases(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, FLAGS).map_err(sql)?;
    connection.busy_timeout(LEASE_BUSY).map_err(sql)?;
    connection.pragma_update(None, "synchronous", "normal").map_err(sql)?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection> {
    let mut connection = Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_CREATE).map_err(sql)?;
    connection.busy_timeout(BUSY).map_err(sql)?;
    // The file is identified before anything is written to it. In one transaction: another process may be creating the
    // tables at this moment, and half of them would look like another program's.
    ours(&connection.transaction().map_err(sql)?)?;
    write_ahead(&connection)?;
    connection.pragma_update(None, "synchronous", "full").map_err(sql)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sql)?;
    keep_statements(&connection)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Prepares each statement once: one of a table with triggers takes longer to prepare than to run. Nor is it prepared again for
/// what is bound to it, as SQLite does where an index covers some of the rows and a condition compares with a parameter.
fn keep_statements(connection: &Connection) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop).map_err(sql)
}

/// An empty database in memory.
#[cfg(test)]
pub(super) fn in_memory() -> Result<Connection> {
    let mut connection = Connection::open_in_memory().map_err(sql)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sql)?;
    keep_statements(&connection)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Switches to a write-ahead log, which a file remembers.
fn write_ahead(connection: &Connection) -> Result<()> {
    let began = Instant::now();
    let mode: String = loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)) {
            // While another process switches, SQLite answers at once and does not wait as it does elsewhere.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && began.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            mode => break mode.map_err(sql)?,
        }
    };
    if mode == "wal" {
        return Ok(());
    }
    Err(Error::unsupported(format!("the file system does not support a write-ahead log (journal mode `{mode}`)"))
        .hint("put the data directory on a local file system"))
}

/// The version of the schema; 0 for a new file.
fn ours(connection: &Transaction<'_>) -> Result<usize> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(sql);
    let (id, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    if id != APPLICATION_ID && (id != 0 || version != 0 || tables != 0) {
        return Err(Error::invalid("it is a database of another program")
            .hint("configure another `data_dir`, or move the file away"));
    }
    match usize::try_from(version) {
        Ok(version) if version <= STEPS.len() => Ok(version),
        _ => Err(Error::unsupported(format!(
            "a newer version of tidelock wrote this catalogue: its schema is {version}, supported are up to {}",
            STEPS.len()
        ))
        .hint("use the newer version, or configure another `data_dir`")),
    }
}

fn migrate(connection: &mut Connection) -> Result<()> {
    if ours(&connection.transaction().map_err(sql)?)? == STEPS.len() {
        return Ok(());
    }
    // Another process may do the same: the one that comes second finds nothing to do.
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    for step in &STEPS[ours(&change)?..] {
        change.execute_batch(step).map_err(sql)?;
    }
    change.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql)?;
    // As many as there are steps: a handful.
    change.pragma_update(None, "user_version", STEPS.len() as i32).map_err(sql)?;
    change.commit().map_err(sql)
}
