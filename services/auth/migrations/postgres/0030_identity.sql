-- Links with many uses, bound, contested, waiting for approval; revocations with numbers; an audit chain for each replica.

ALTER TABLE links ADD COLUMN use_limit BIGINT NOT NULL DEFAULT 1;
ALTER TABLE links ADD COLUMN use_count BIGINT NOT NULL DEFAULT 0;
ALTER TABLE links ADD COLUMN bound_host TEXT NOT NULL DEFAULT '';
ALTER TABLE links ADD COLUMN bound_serial TEXT NOT NULL DEFAULT '';
ALTER TABLE links ADD COLUMN bound_key BYTEA;
ALTER TABLE links ADD COLUMN needs_approval BIGINT NOT NULL DEFAULT 0;
ALTER TABLE links ADD COLUMN protocol TEXT NOT NULL DEFAULT 'muster';
ALTER TABLE links ADD COLUMN contest_count BIGINT NOT NULL DEFAULT 0;
ALTER TABLE links ADD COLUMN contest_time BIGINT;
ALTER TABLE links ADD COLUMN contest_source TEXT NOT NULL DEFAULT '';
UPDATE links SET use_count = 1 WHERE use_time IS NOT NULL;

-- Who used a link, and the certificate of the answer, in case the answer was lost.
CREATE TABLE link_uses (
    link TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    time BIGINT NOT NULL,
    principal TEXT NOT NULL,
    certificate BYTEA NOT NULL,
    PRIMARY KEY (link, key_hash)
);
CREATE INDEX link_uses_time ON link_uses (time);
INSERT INTO link_uses (link, key_hash, time, principal, certificate)
    SELECT id, use_key, use_time, use_principal, use_certificate FROM links WHERE use_time IS NOT NULL;
ALTER TABLE links DROP COLUMN use_key;
ALTER TABLE links DROP COLUMN use_certificate;

CREATE TABLE enrollment_requests (
    id TEXT PRIMARY KEY,
    link TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    host_name TEXT NOT NULL,
    hardware_serial TEXT NOT NULL,
    source TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    state TEXT NOT NULL,
    decider TEXT NOT NULL,
    decide_time BIGINT,
    revision BIGINT NOT NULL,
    UNIQUE (link, key_hash)
);
CREATE INDEX enrollment_requests_key ON enrollment_requests (key_hash);
CREATE INDEX enrollment_requests_newest ON enrollment_requests (state, create_time DESC);

ALTER TABLE principals ADD COLUMN revoke_code BIGINT NOT NULL DEFAULT 0;
-- Which authority signed it: kind/generation of its key.
ALTER TABLE certificates ADD COLUMN issuer TEXT NOT NULL DEFAULT 'issuing/1';
-- Kept of third parties' devices, which may ask for it.
ALTER TABLE certificates ADD COLUMN der BYTEA;

CREATE TABLE revocations (
    serial BYTEA PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    key_hash BYTEA NOT NULL,
    principal TEXT NOT NULL,
    issuer TEXT NOT NULL,
    revoke_time BIGINT NOT NULL,
    expire_time BIGINT NOT NULL,
    reason BIGINT NOT NULL
);
CREATE INDEX revocations_expiry ON revocations (expire_time);

-- One row each: the number of the newest revocation, and of the newest change of anything. Advancing the latter first puts
-- all changes in one order.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('revocation', 0);
INSERT INTO counters (name, value) SELECT 'revision', sequence FROM head;

ALTER TABLE audit RENAME TO audit_single;
CREATE TABLE audit (
    revision BIGINT PRIMARY KEY,
    chain TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    time BIGINT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BYTEA NOT NULL,
    UNIQUE (chain, sequence)
);
INSERT INTO audit SELECT sequence, 'main', sequence, time, action, actor, subject, detail, hash FROM audit_single;
DROP TABLE audit_single;

-- The end of each replica's chain.
CREATE TABLE heads (
    chain TEXT PRIMARY KEY,
    sequence BIGINT NOT NULL,
    hash BYTEA NOT NULL
);
INSERT INTO heads SELECT 'main', sequence, hash FROM head WHERE sequence > 0;
DROP TABLE head;
