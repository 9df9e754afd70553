-- Times are microseconds since 1970. A row's revision is the number of the audit entry that last changed it.

CREATE TABLE authority_keys (
    kind TEXT NOT NULL,
    generation BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    certificate BYTEA NOT NULL,
    create_time BIGINT NOT NULL,
    PRIMARY KEY (kind, generation)
);

CREATE TABLE links (
    id TEXT PRIMARY KEY,
    token_hash BYTEA NOT NULL UNIQUE,
    role TEXT NOT NULL,
    lifetime BIGINT NOT NULL,
    labels TEXT NOT NULL,
    display_name TEXT NOT NULL,
    creator TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    expire_time BIGINT NOT NULL,
    revoke_time BIGINT,
    use_time BIGINT,
    use_key BYTEA,
    use_principal TEXT,
    use_certificate BYTEA,
    revision BIGINT NOT NULL
);
CREATE INDEX links_newest ON links (create_time DESC, id DESC);
CREATE INDEX links_expiry ON links (expire_time);

CREATE TABLE principals (
    name TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    generation BIGINT NOT NULL,
    host_name TEXT NOT NULL,
    software_version TEXT NOT NULL,
    labels TEXT NOT NULL,
    node_keys BYTEA,
    enroll_time BIGINT NOT NULL,
    renew_time BIGINT NOT NULL,
    revoke_time BIGINT,
    revoke_reason TEXT,
    revision BIGINT NOT NULL
);

CREATE TABLE certificates (
    serial BYTEA PRIMARY KEY,
    key_hash BYTEA NOT NULL,
    principal TEXT NOT NULL,
    not_after BIGINT NOT NULL,
    revoke_time BIGINT,
    revision BIGINT NOT NULL
);
CREATE INDEX certificates_key ON certificates (key_hash);
CREATE INDEX certificates_principal ON certificates (principal);
CREATE INDEX certificates_expiry ON certificates (not_after);

CREATE TABLE requests (
    caller TEXT NOT NULL,
    id TEXT NOT NULL,
    link TEXT NOT NULL,
    time BIGINT NOT NULL,
    PRIMARY KEY (caller, id)
);
CREATE INDEX requests_time ON requests (time);

CREATE TABLE audit (
    sequence BIGINT PRIMARY KEY,
    time BIGINT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BYTEA NOT NULL
);

-- One row: the end of the audit log. Changing it first puts all changes in one order.
CREATE TABLE head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    sequence BIGINT NOT NULL,
    hash BYTEA NOT NULL
);
INSERT INTO head (id, sequence, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    expire_time BIGINT NOT NULL
);
