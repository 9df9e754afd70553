CREATE TABLE dht_nodes (
    slot INTEGER PRIMARY KEY,
    noise_secret BLOB NOT NULL,
    signing_key BLOB NOT NULL,
    port INTEGER NOT NULL
);

CREATE TABLE dht_contacts (
    node_id BLOB PRIMARY KEY,
    noise_key BLOB NOT NULL,
    address TEXT NOT NULL
);
