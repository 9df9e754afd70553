INSERT INTO nodes (id, online, carrier, cell, host_name, doc, revision, presence) VALUES (
    unhex('0303030303030303030303030303030303030303'), 0, unhex('0303030303030303030303030303030303030303'), NULL, 'second',
    '{"id":"0303030303030303030303030303030303030303","presence":"offline","since":1000000,"reason":"LOST","position":"direct",
      "lsn":null,"cell":null,"attach_time":0,"observed":null,
      "profile":{"host_name":"second","software_version":"0.1.0","addresses":[],"path":"","os":"","architecture":"",
                 "wired":false,"mains_powered":false,"round_trip_micros":0,"boot_nonce":0},
      "attested":{"signing_key":"","labels":{"site":"Oulu"},"generation":1,"issued":1000000},
      "labels":{},"enrolled":1000000,"last_seen":1000000,"uptime":{"days":{},"since":null}}', 1, 'offline');
INSERT INTO node_labels (name, value, node) VALUES ('site', 'Oulu', unhex('0303030303030303030303030303030303030303'));
