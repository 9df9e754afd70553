-- Times are microseconds since 1970. A row's revision is the number of the audit entry that last changed it.

CREATE TABLE authority_keys (
    kind TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    certificate BLOB NOT NULL,
    create_time INTEGER NOT NULL,
    PRIMARY KEY (kind, generation)
) STRICT;

CREATE TABLE links (
    id TEXT PRIMARY KEY,
    token_hash BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    lifetime INTEGER NOT NULL,
    labels TEXT NOT NULL,
    display_name TEXT NOT NULL,
    creator TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    revoke_time INTEGER,
    use_time INTEGER,
    use_key BLOB,
    use_principal TEXT,
    use_certificate BLOB,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX links_newest ON links (create_time DESC, id DESC);
CREATE INDEX links_expiry ON links (expire_time);

CREATE TABLE principals (
    name TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    key_hash BLOB NOT NULL,
    generation INTEGER NOT NULL,
    host_name TEXT NOT NULL,
    software_version TEXT NOT NULL,
    labels TEXT NOT NULL,
    node_keys BLOB,
    enroll_time INTEGER NOT NULL,
    renew_time INTEGER NOT NULL,
    revoke_time INTEGER,
    revoke_reason TEXT,
    revision INTEGER NOT NULL
) STRICT;

CREATE TABLE certificates (
    serial BLOB PRIMARY KEY,
    key_hash BLOB NOT NULL,
    principal TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    revoke_time INTEGER,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX certificates_key ON certificates (key_hash);
CREATE INDEX certificates_principal ON certificates (principal);
CREATE INDEX certificates_expiry ON certificates (not_after);

CREATE TABLE requests (
    caller TEXT NOT NULL,
    id TEXT NOT NULL,
    link TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (caller, id)
) STRICT;
CREATE INDEX requests_time ON requests (time);

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;

-- One row: the end of the audit log. Changing it first puts all changes in one order.
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;
INSERT INTO head (id, sequence, hash) VALUES (1, 0, zeroblob(32));

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    expire_time INTEGER NOT NULL
) STRICT;
