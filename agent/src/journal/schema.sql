-- The task journal of one device. Times are microseconds of the master's clock.
CREATE TABLE IF NOT EXISTS meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;

-- Every task that was ever accepted, until its order can no longer be valid.
CREATE TABLE IF NOT EXISTS task (
    task_id       BLOB    NOT NULL,
    occurrence    TEXT    NOT NULL,
    stage         INTEGER NOT NULL, -- 1 delivered, 2 started, 3 finished, 4 cancelled before it came
    accepted      INTEGER NOT NULL,
    next_sequence INTEGER NOT NULL,
    offer         BLOB,             -- the TaskOffer, until it started
    PRIMARY KEY (task_id, occurrence)
) STRICT, WITHOUT ROWID;

-- Signed reports that the master has not acknowledged.
CREATE TABLE IF NOT EXISTS report (
    task_id    BLOB    NOT NULL,
    occurrence TEXT    NOT NULL,
    sequence   INTEGER NOT NULL,
    class      INTEGER NOT NULL,
    envelope   BLOB    NOT NULL,
    PRIMARY KEY (task_id, occurrence, sequence)
) STRICT;

-- Other things to tell the master until it acknowledged them: disconnections, failures of background work.
CREATE TABLE IF NOT EXISTS item (
    item_id TEXT    PRIMARY KEY,
    made    INTEGER NOT NULL,
    body    BLOB    NOT NULL
) STRICT;
