-- What operators filter by stands in columns, not only in documents.
ALTER TABLE nodes ADD COLUMN presence TEXT NOT NULL DEFAULT '';
UPDATE nodes SET presence = doc::json ->> 'presence';
CREATE INDEX nodes_presence ON nodes (presence, id);

CREATE TABLE node_labels (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    node BYTEA NOT NULL,
    PRIMARY KEY (name, value, node)
);
CREATE INDEX node_labels_node ON node_labels (node);
-- An operator's label covers the attested one; without a value it hides it.
INSERT INTO node_labels (name, value, node)
    SELECT attested.key, attested.value, nodes.id FROM nodes, json_each_text(doc::json -> 'attested' -> 'labels') AS attested
        WHERE attested.key NOT IN (SELECT key FROM json_each_text(doc::json -> 'labels'));
INSERT INTO node_labels (name, value, node)
    SELECT own.key, own.value, nodes.id FROM nodes, json_each_text(doc::json -> 'labels') AS own
        WHERE own.value IS NOT NULL;
