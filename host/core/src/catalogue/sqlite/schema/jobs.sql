-- Jobs, the copies that are wanted of a snapshot, what happened to placements, and the rotation of scrubs. Triggers keep what
-- follows from placements, so that it is right whoever changes them, a program of an earlier version too.

CREATE TABLE jobs (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,           -- never given twice
    kind       TEXT    NOT NULL,
    snapshot   BLOB    NOT NULL CHECK (length(snapshot) = 32),
    backend    TEXT    NOT NULL,                            -- '': any of the route
    object     TEXT    NOT NULL,                            -- '': none
    state      TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'failed')),
    copies     INTEGER NOT NULL,                            -- live copies of the snapshot: the fewest first
    attempts   INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    token      INTEGER,                                     -- the lease that runs it
    created    INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,                            -- of the snapshot
    reason     TEXT,
    UNIQUE (snapshot, kind, backend, object)
) STRICT;
CREATE INDEX jobs_queued ON jobs (copies, created, seq) WHERE state = 'queued';
CREATE INDEX jobs_waiting ON jobs (not_before) WHERE state = 'waiting';
CREATE INDEX jobs_running ON jobs (token) WHERE state = 'running';

CREATE TABLE wanted (
    snapshot BLOB    NOT NULL PRIMARY KEY CHECK (length(snapshot) = 32),
    copies   INTEGER NOT NULL,
    route    TEXT    NOT NULL,
    live     INTEGER NOT NULL,                              -- backends with a live placement, the hot tier apart
    asked    INTEGER NOT NULL DEFAULT 0                     -- 1: nothing is to be enqueued, since there is a job or it was cancelled
) STRICT, WITHOUT ROWID;
CREATE INDEX wanted_under ON wanted (live, snapshot) WHERE live < copies AND asked = 0;
CREATE INDEX wanted_counted ON wanted (snapshot) WHERE live < copies;

CREATE TABLE events (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    snapshot BLOB    NOT NULL CHECK (length(snapshot) = 32),
    backend  TEXT    NOT NULL,
    object   TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    what     TEXT    NOT NULL,
    why      TEXT
) STRICT;
CREATE INDEX events_by_snapshot ON events (snapshot, seq);

ALTER TABLE placements ADD COLUMN scrubbed INTEGER NOT NULL DEFAULT 0; -- when all of it was last read, or when it was stored
UPDATE placements SET scrubbed = created;
CREATE INDEX placements_by_scrub ON placements (scrubbed, seq);

INSERT OR IGNORE INTO counters VALUES ('at_risk', 0);
CREATE TRIGGER push_begun AFTER INSERT ON jobs WHEN NEW.kind = 'push'
BEGIN UPDATE counters SET value = value + NEW.bytes WHERE name = 'at_risk'; END;
CREATE TRIGGER push_ended AFTER DELETE ON jobs WHEN OLD.kind = 'push'
BEGIN UPDATE counters SET value = value - OLD.bytes WHERE name = 'at_risk'; END;
CREATE TRIGGER copy_begun AFTER INSERT ON jobs WHEN NEW.kind IN ('copy', 'push')
BEGIN UPDATE wanted SET asked = 1 WHERE snapshot = NEW.snapshot; END;
CREATE TRIGGER copy_ended AFTER DELETE ON jobs WHEN OLD.kind IN ('copy', 'push')
BEGIN
    UPDATE wanted SET asked = EXISTS (SELECT 1 FROM jobs WHERE snapshot = OLD.snapshot AND kind IN ('copy', 'push'))
    WHERE snapshot = OLD.snapshot;
END;

CREATE TRIGGER placement_came AFTER INSERT ON placements
BEGIN
    UPDATE wanted SET live = (SELECT count(DISTINCT backend) FROM placements
        WHERE snapshot = NEW.snapshot AND state = 'live' AND backend <> 'hot') WHERE snapshot = NEW.snapshot;
    UPDATE jobs SET copies = (SELECT count(DISTINCT backend) FROM placements
        WHERE snapshot = NEW.snapshot AND state = 'live' AND backend <> 'hot') WHERE snapshot = NEW.snapshot;
    UPDATE jobs SET state = 'queued', not_before = 0 WHERE snapshot = NEW.snapshot AND state = 'waiting' AND NEW.state = 'live';
END;
CREATE TRIGGER placement_changed AFTER UPDATE OF state ON placements WHEN OLD.state <> NEW.state
BEGIN
    UPDATE wanted SET live = (SELECT count(DISTINCT backend) FROM placements
        WHERE snapshot = NEW.snapshot AND state = 'live' AND backend <> 'hot') WHERE snapshot = NEW.snapshot;
    UPDATE jobs SET copies = (SELECT count(DISTINCT backend) FROM placements
        WHERE snapshot = NEW.snapshot AND state = 'live' AND backend <> 'hot') WHERE snapshot = NEW.snapshot;
    UPDATE jobs SET state = 'queued', not_before = 0 WHERE snapshot = NEW.snapshot AND state = 'waiting' AND NEW.state = 'live';
END;
CREATE TRIGGER placement_went AFTER DELETE ON placements
BEGIN
    UPDATE wanted SET live = (SELECT count(DISTINCT backend) FROM placements
        WHERE snapshot = OLD.snapshot AND state = 'live' AND backend <> 'hot') WHERE snapshot = OLD.snapshot;
    UPDATE jobs SET copies = (SELECT count(DISTINCT backend) FROM placements
        WHERE snapshot = OLD.snapshot AND state = 'live' AND backend <> 'hot') WHERE snapshot = OLD.snapshot;
    DELETE FROM jobs WHERE snapshot = OLD.snapshot AND kind = 'repair' AND backend = OLD.backend AND object = OLD.object
        AND state <> 'running';
END;
-- Whoever wants fewer than there are again is asked anew.
CREATE TRIGGER wanted_changed AFTER UPDATE OF live ON wanted WHEN OLD.live <> NEW.live
BEGIN
    UPDATE wanted SET asked = EXISTS (SELECT 1 FROM jobs WHERE snapshot = NEW.snapshot AND kind IN ('copy', 'push'))
    WHERE snapshot = NEW.snapshot;
END;
CREATE TRIGGER snapshot_went AFTER DELETE ON snapshots
BEGIN
    DELETE FROM wanted WHERE snapshot = OLD.id;
    DELETE FROM jobs WHERE snapshot = OLD.id;
    DELETE FROM events WHERE snapshot = OLD.id;
END;

-- What is known to be bad is repaired.
INSERT INTO jobs (kind, snapshot, backend, object, state, copies, created, bytes)
    SELECT 'repair', p.snapshot, p.backend, p.object, 'queued',
           (SELECT count(DISTINCT backend) FROM placements WHERE snapshot = p.snapshot AND state = 'live'),
           CAST(strftime('%s', 'now') AS INTEGER), s.size
    FROM placements AS p JOIN snapshots AS s ON s.id = p.snapshot WHERE p.state = 'bad' AND p.state <> 'live';
