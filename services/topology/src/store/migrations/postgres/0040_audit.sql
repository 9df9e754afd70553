-- Deeds that auth's audit log does not have yet.
CREATE TABLE audit_outbox (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    id TEXT NOT NULL,
    doc TEXT NOT NULL
);
