INSERT INTO nodes (id, online, carrier, cell, host_name, doc, revision) VALUES (
    unhex('0101010101010101010101010101010101010101'), 1, unhex('0101010101010101010101010101010101010101'), 7, 'first',
    '{"id":"0101010101010101010101010101010101010101","presence":"online","since":1000000,"reason":"","position":"lsn",
      "lsn":null,"cell":7,"attach_time":0,"observed":"192.0.2.9",
      "profile":{"host_name":"first","software_version":"0.1.0","addresses":["192.0.2.2:27431"],"path":"","os":"Debian",
                 "architecture":"x86_64","wired":true,"mains_powered":true,"round_trip_micros":0,"boot_nonce":5},
      "attested":{"signing_key":"AQ==","labels":{"site":"Oulu","tier":"low","old":"yes"},"generation":1,"issued":1000000},
      "labels":{"tier":"gold","old":null},"enrolled":1000000,"last_seen":1000000,"uptime":{"days":{},"since":1000000}}', 1);

INSERT INTO cells (id, lineage, doc, revision) VALUES (7, 9,
    '{"id":7,"lineage":9,"epoch":1,"lsn":"0101010101010101010101010101010101010101","claim":"AQ==",
      "keys":["0202020202020202020202020202020202020202"],"prefixes":["192.0.2.0/24"],"observed":"192.0.2.9"}', 1);
INSERT INTO cell_keys (subnet_key, cell) VALUES (unhex('0202020202020202020202020202020202020202'), 7);

INSERT INTO tasks (id, created_at, expires_at, skips, open, doc) VALUES (
    unhex('01a20842744b7308b022b91734561999'), 1000000, 9000000000000000, 0, 1,
    '{"id":"01a20842-744b-7308-b022-b91734561999","spec":"AQ==","kind":"run","offline":"queue","created":1000000,
      "expires":9000000000000000,"creator":"operators/ada","display_name":"echo hi","target_count":1,"traceparent":""}');
INSERT INTO task_orders (task, part, envelope) VALUES (unhex('01a20842744b7308b022b91734561999'), 0, unhex('02'));
INSERT INTO task_targets (task, node, part, state, doc, revision) VALUES (
    unhex('01a20842744b7308b022b91734561999'), unhex('0101010101010101010101010101010101010101'), 0, 2,
    '{"task":"01a20842-744b-7308-b022-b91734561999","node":"0101010101010101010101010101010101010101","part":0,
      "state":"delivered","updated":1000000,"received":{"upto":1,"ahead":[]},"ending":null}', 1);
INSERT INTO task_log (task, node, at, kind, size, body) VALUES (
    unhex('01a20842744b7308b022b91734561999'), unhex('0101010101010101010101010101010101010101'), 1000000, 1, 35,
    unhex('7b227374617465223a2264656c697665726564222c22656e64696e67223a6e756c6c7d'));
INSERT INTO requests (caller, id, task) VALUES ('operators/ada', '1', unhex('01a20842744b7308b022b91734561999'));
