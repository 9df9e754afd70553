-- Rows are JSON documents; what is searched for stands in columns beside them.
CREATE TABLE nodes (
    id BLOB PRIMARY KEY,
    online INTEGER NOT NULL,
    carrier BLOB NOT NULL,
    cell INTEGER,
    host_name TEXT NOT NULL,
    doc TEXT NOT NULL,
    revision INTEGER NOT NULL
);
CREATE INDEX nodes_carrier ON nodes (carrier);
CREATE INDEX nodes_cell ON nodes (cell);
CREATE INDEX nodes_host_name ON nodes (host_name);

CREATE TABLE cells (
    id INTEGER PRIMARY KEY,
    lineage INTEGER NOT NULL,
    doc TEXT NOT NULL,
    revision INTEGER NOT NULL
);
CREATE INDEX cells_lineage ON cells (lineage);

CREATE TABLE cell_keys (
    subnet_key BLOB NOT NULL,
    cell INTEGER NOT NULL,
    PRIMARY KEY (subnet_key, cell)
);
CREATE INDEX cell_keys_cell ON cell_keys (cell);

CREATE TABLE attachments (
    node BLOB PRIMARY KEY,
    replica TEXT NOT NULL,
    live INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    doc TEXT NOT NULL,
    revision INTEGER NOT NULL
);
CREATE INDEX attachments_standing ON attachments (live, settled);

CREATE TABLE replicas (
    name TEXT PRIMARY KEY,
    renewed_at INTEGER NOT NULL,
    lease_until INTEGER NOT NULL
);

CREATE TABLE tasks (
    id BLOB PRIMARY KEY,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    skips INTEGER NOT NULL,
    open INTEGER NOT NULL,
    cancelled_at INTEGER,
    cancellation BLOB,
    doc TEXT NOT NULL
);
CREATE INDEX tasks_open ON tasks (id) WHERE open > 0;

CREATE TABLE task_orders (
    task BLOB NOT NULL,
    part INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    PRIMARY KEY (task, part)
);

CREATE TABLE task_targets (
    task BLOB NOT NULL,
    node BLOB NOT NULL,
    part INTEGER NOT NULL,
    state INTEGER NOT NULL,
    doc TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (task, node)
);
CREATE INDEX task_targets_node ON task_targets (node, task);
CREATE INDEX task_targets_open ON task_targets (node) WHERE state < 4;

CREATE TABLE task_log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tx INTEGER NOT NULL DEFAULT 0,
    task BLOB NOT NULL,
    node BLOB NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX task_log_task ON task_log (task, tx, number);
CREATE INDEX task_log_kind ON task_log (kind, number, size, at);

CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tx INTEGER NOT NULL DEFAULT 0,
    at INTEGER NOT NULL,
    dedupe TEXT UNIQUE,
    doc TEXT NOT NULL
);

CREATE TABLE requests (
    caller TEXT NOT NULL,
    id TEXT NOT NULL,
    task BLOB NOT NULL,
    PRIMARY KEY (caller, id)
);
CREATE INDEX requests_task ON requests (task);
