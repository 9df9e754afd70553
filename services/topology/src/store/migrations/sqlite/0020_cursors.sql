-- How far the feeds of other services have been read.
CREATE TABLE cursors (
    feed TEXT PRIMARY KEY,
    position INTEGER NOT NULL
);
