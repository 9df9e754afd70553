-- Topology reads whom auth admitted in the order of changes.
CREATE INDEX principals_revision ON principals (revision);
