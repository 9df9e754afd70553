-- Rows are JSON documents; what is searched for stands in columns beside them.
CREATE TABLE nodes (
    id BYTEA PRIMARY KEY,
    online BIGINT NOT NULL,
    carrier BYTEA NOT NULL,
    cell BIGINT,
    host_name TEXT NOT NULL,
    doc TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX nodes_carrier ON nodes (carrier);
CREATE INDEX nodes_cell ON nodes (cell);
CREATE INDEX nodes_host_name ON nodes (host_name);

CREATE TABLE cells (
    id BIGINT PRIMARY KEY,
    lineage BIGINT NOT NULL,
    doc TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX cells_lineage ON cells (lineage);

CREATE TABLE cell_keys (
    subnet_key BYTEA NOT NULL,
    cell BIGINT NOT NULL,
    PRIMARY KEY (subnet_key, cell)
);
CREATE INDEX cell_keys_cell ON cell_keys (cell);

CREATE TABLE attachments (
    node BYTEA PRIMARY KEY,
    replica TEXT NOT NULL,
    live BIGINT NOT NULL,
    settled BIGINT NOT NULL,
    doc TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX attachments_standing ON attachments (live, settled);

CREATE TABLE replicas (
    name TEXT PRIMARY KEY,
    renewed_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL
);

CREATE TABLE tasks (
    id BYTEA PRIMARY KEY,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    skips BIGINT NOT NULL,
    open BIGINT NOT NULL,
    cancelled_at BIGINT,
    cancellation BYTEA,
    doc TEXT NOT NULL
);
CREATE INDEX tasks_open ON tasks (id) WHERE open > 0;

CREATE TABLE task_orders (
    task BYTEA NOT NULL,
    part BIGINT NOT NULL,
    envelope BYTEA NOT NULL,
    PRIMARY KEY (task, part)
);

CREATE TABLE task_targets (
    task BYTEA NOT NULL,
    node BYTEA NOT NULL,
    part BIGINT NOT NULL,
    state BIGINT NOT NULL,
    doc TEXT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (task, node)
);
CREATE INDEX task_targets_node ON task_targets (node, task);
CREATE INDEX task_targets_open ON task_targets (node) WHERE state < 4;

CREATE TABLE task_log (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    task BYTEA NOT NULL,
    node BYTEA NOT NULL,
    at BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    size BIGINT NOT NULL,
    body BYTEA NOT NULL
);
CREATE INDEX task_log_task ON task_log (task, tx, number);
CREATE INDEX task_log_kind ON task_log (kind, number, size, at);

CREATE TABLE events (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    at BIGINT NOT NULL,
    dedupe TEXT UNIQUE,
    doc TEXT NOT NULL
);

CREATE INDEX events_feed ON events (tx, number);

CREATE TABLE requests (
    caller TEXT NOT NULL,
    id TEXT NOT NULL,
    task BYTEA NOT NULL,
    PRIMARY KEY (caller, id)
);
CREATE INDEX requests_task ON requests (task);
