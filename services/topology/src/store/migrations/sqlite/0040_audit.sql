-- Deeds that auth's audit log does not have yet.
CREATE TABLE audit_outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tx INTEGER NOT NULL DEFAULT 0,
    id TEXT NOT NULL,
    doc TEXT NOT NULL
);
