CREATE TABLE gsn_candidates (
    node BLOB PRIMARY KEY,
    state TEXT NOT NULL,
    replica TEXT NOT NULL,
    since INTEGER NOT NULL,
    alive_until INTEGER NOT NULL,
    doc TEXT NOT NULL
);

CREATE INDEX gsn_candidates_alive ON gsn_candidates (alive_until);

CREATE TABLE gsn_relays (
    name TEXT PRIMARY KEY,
    alive_until INTEGER NOT NULL,
    doc TEXT NOT NULL
);

CREATE TABLE gsn_replicas (
    replica TEXT PRIMARY KEY,
    alive_until INTEGER NOT NULL,
    demand INTEGER NOT NULL
);
