-- What was revoked before there was a list stands in it, too.
INSERT INTO revocations (serial, number, key_hash, principal, issuer, revoke_time, expire_time, reason)
    SELECT serial, value + row_number() OVER (ORDER BY revoke_time, serial),
           key_hash, principal, issuer, revoke_time, not_after, 0
        FROM certificates, counters
        WHERE name = 'revocation' AND revoke_time IS NOT NULL AND serial NOT IN (SELECT serial FROM revocations);
UPDATE counters SET value = (SELECT MAX(number) FROM revocations)
    WHERE name = 'revocation' AND value < (SELECT MAX(number) FROM revocations);
