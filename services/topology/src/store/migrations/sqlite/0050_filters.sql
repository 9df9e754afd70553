-- What operators filter by stands in columns, not only in documents.
ALTER TABLE nodes ADD COLUMN presence TEXT NOT NULL DEFAULT '';
UPDATE nodes SET presence = json_extract(doc, '$.presence');
CREATE INDEX nodes_presence ON nodes (presence, id);

CREATE TABLE node_labels (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    node BLOB NOT NULL,
    PRIMARY KEY (name, value, node)
);
CREATE INDEX node_labels_node ON node_labels (node);
-- An operator's label covers the attested one; without a value it hides it.
INSERT INTO node_labels (name, value, node)
    SELECT attested.key, attested.value, nodes.id FROM nodes, json_each(nodes.doc, '$.attested.labels') AS attested
        WHERE attested.key NOT IN (SELECT key FROM json_each(nodes.doc, '$.labels'));
INSERT INTO node_labels (name, value, node)
    SELECT own.key, own.value, nodes.id FROM nodes, json_each(nodes.doc, '$.labels') AS own
        WHERE own.value IS NOT NULL;
