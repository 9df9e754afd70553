INSERT INTO enrollment_requests (id, link, key_hash, host_name, hardware_serial, source, create_time, state, decider, revision)
    VALUES ('r1', 'l1', unhex('0404040404040404040404040404040404040404040404040404040404040404'), 'third', '', '192.0.2.9',
            4000000, 'pending', '', 3);
INSERT INTO certificates (serial, key_hash, principal, not_after, revoke_time, revision) VALUES
    (unhex('0c'), unhex('0505050505050505050505050505050505050505050505050505050505050505'),
     'nodes/0505050505050505050505050505050505050505', 9000000000000000, 4000000, 3);
INSERT INTO revocations (serial, number, key_hash, principal, issuer, revoke_time, expire_time, reason) VALUES
    (unhex('0c'), 1, unhex('0505050505050505050505050505050505050505050505050505050505050505'),
     'nodes/0505050505050505050505050505050505050505', 'issuing/1', 4000000, 9000000000000000, 1);
UPDATE counters SET value = 1 WHERE name = 'revocation';
UPDATE counters SET value = 3 WHERE name = 'revision';
