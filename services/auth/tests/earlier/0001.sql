INSERT INTO links (id, token_hash, role, lifetime, labels, display_name, creator, create_time, expire_time, use_time, use_key,
                   use_principal, use_certificate, revision) VALUES
    ('l1', unhex('0303030303030303030303030303030303030303030303030303030303030303'), 'node', 3600000000, '{"site":"Oulu"}',
     'first', 'operators/ada', 1000000, 9000000000000000, 2000000,
     unhex('0101010101010101010101010101010101010101010101010101010101010101'), 'nodes/0101010101010101010101010101010101010101',
     unhex('30'), 2);
INSERT INTO principals (name, identity, key_hash, generation, host_name, software_version, labels, enroll_time, renew_time,
                        revoke_time, revoke_reason, revision) VALUES
    ('nodes/0101010101010101010101010101010101010101', 'spiffe://07070707070707070707070707070707.muster/node/0101010101010101010101010101010101010101',
     unhex('0101010101010101010101010101010101010101010101010101010101010101'), 1, 'first', '0.1.0', '{"site":"Oulu"}', 2000000, 2000000,
     NULL, NULL, 2),
    ('nodes/0202020202020202020202020202020202020202', 'spiffe://07070707070707070707070707070707.muster/node/0202020202020202020202020202020202020202',
     unhex('0202020202020202020202020202020202020202020202020202020202020202'), 1, 'second', '0.1.0', '{}', 2000000, 2000000,
     3000000, 'stolen', 2);
INSERT INTO certificates (serial, key_hash, principal, not_after, revoke_time, revision) VALUES
    (unhex('0a'), unhex('0101010101010101010101010101010101010101010101010101010101010101'),
     'nodes/0101010101010101010101010101010101010101', 9000000000000000, NULL, 2),
    (unhex('0b'), unhex('0202020202020202020202020202020202020202020202020202020202020202'),
     'nodes/0202020202020202020202020202020202020202', 9000000000000000, 3000000, 2);
INSERT INTO requests (caller, id, link, time) VALUES ('operators/ada', '1', 'l1', 1000000);
INSERT INTO audit (sequence, time, action, actor, subject, detail, hash) VALUES
    (1, 1000000, 'create-link', 'operators/ada', 'links/l1', '',
     unhex('d4b4433e60cbac3f78154c47eb5cbc936390a2d45618b5bdb18b445250d670aa'));
INSERT INTO audit (sequence, time, action, actor, subject, detail, hash) VALUES
    (2, 2000000, 'issue', 'links/l1', 'nodes/0101010101010101010101010101010101010101', '',
     unhex('08546fc08a693f022aee5f45cf05d36de3aff017af19b50c5a67de16c4acb8f9'));
UPDATE head SET sequence = 2, hash = unhex('08546fc08a693f022aee5f45cf05d36de3aff017af19b50c5a67de16c4acb8f9');
