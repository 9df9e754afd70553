CREATE TABLE gsn_candidates (
    node BYTEA PRIMARY KEY,
    state TEXT NOT NULL,
    replica TEXT NOT NULL,
    since BIGINT NOT NULL,
    alive_until BIGINT NOT NULL,
    doc TEXT NOT NULL
);

CREATE INDEX gsn_candidates_alive ON gsn_candidates (alive_until);

CREATE TABLE gsn_relays (
    name TEXT PRIMARY KEY,
    alive_until BIGINT NOT NULL,
    doc TEXT NOT NULL
);

CREATE TABLE gsn_replicas (
    replica TEXT PRIMARY KEY,
    alive_until BIGINT NOT NULL,
    demand BIGINT NOT NULL
);
