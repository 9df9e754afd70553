-- Deeds of hosts that found no room in audit_outbox: how many, in its one row.
CREATE TABLE audit_overflow (
    omitted INTEGER NOT NULL
);
INSERT INTO audit_overflow (omitted) VALUES (0);
