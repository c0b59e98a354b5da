-- Room that is reserved under leases, until it is taken.

CREATE TABLE reserved (
    seq   INTEGER PRIMARY KEY AUTOINCREMENT,                -- the order in which it was reserved
    token INTEGER NOT NULL,                                 -- the lease under which it is
    kind  TEXT    NOT NULL,                                 -- 'risk': to be on this machine alone; 'hot': of the hot tier
    route TEXT    NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX reserved_by_token ON reserved (token);
CREATE TRIGGER owner_went AFTER DELETE ON owners
BEGIN DELETE FROM reserved WHERE token = OLD.token; END;

CREATE INDEX jobs_pushes ON jobs (snapshot) WHERE kind = 'push';
