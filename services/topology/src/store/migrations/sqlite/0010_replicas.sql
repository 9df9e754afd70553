-- What one replica does for all: whoever holds the lease.
CREATE TABLE jobs (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    lease_until BIGINT NOT NULL
);

-- Tokens of another epoch lead nowhere: a restored store has another past. Events up to the forgotten one are purged.
CREATE TABLE epoch (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    number BIGINT NOT NULL,
    opened_at BIGINT NOT NULL,
    forgotten_tx BIGINT NOT NULL,
    forgotten_number BIGINT NOT NULL
);
INSERT INTO epoch (one, number, opened_at, forgotten_tx, forgotten_number) VALUES (1, 1, 0, 0, 0);
