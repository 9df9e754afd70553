CREATE TABLE dht_nodes (
    slot BIGINT PRIMARY KEY,
    noise_secret BYTEA NOT NULL,
    signing_key BYTEA NOT NULL,
    port BIGINT NOT NULL
);

CREATE TABLE dht_contacts (
    node_id BYTEA PRIMARY KEY,
    noise_key BYTEA NOT NULL,
    address TEXT NOT NULL
);
