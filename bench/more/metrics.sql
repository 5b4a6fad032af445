-- metrics() with ten thousand, ninety thousand and a million keys, held against counting the keys. Rounds interleaved, medians of one run.
-- Not a test: nothing depends on the figures.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION keywright;
SET keywright.notify = off;
SELECT keywright.ensure_user('ada', '') \g /dev/null
CREATE TABLE times (keys bigint, what text, ms double precision);

CREATE PROCEDURE fill(first integer, last integer) LANGUAGE sql AS $$
  INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, revoked_at, scopes, allow_list, lifetime, created_at)
    SELECT 'b' || lpad(n::text, 9, '0'), user_id, 'k' || n, sha256('x'), clock_timestamp() + (n % 1000 - 100) * interval '1 hour',
           CASE WHEN n % 5 = 0 THEN clock_timestamp() END, '{all}', '{*:*}', '1 day', clock_timestamp()
      FROM keywright.users, generate_series(first, last) AS n WHERE username = 'ada';
  INSERT INTO keywright.audit_events (event, kind, id, by_hand, session_user_name, role_name)
    SELECT 'minted', 'api_key', 'b' || n, false, 'x', 'x' FROM generate_series(first, last) AS n;
$$;

CREATE PROCEDURE measure(rounds integer) LANGUAGE plpgsql AS $$
DECLARE
  begun timestamptz;
  query text;
  keys bigint := (SELECT count(*) FROM keywright.api_keys);
BEGIN
  FOR round IN 1..rounds LOOP
    FOREACH query IN ARRAY ARRAY['SELECT * FROM keywright.metrics()', 'SELECT count(*) FROM keywright.api_keys'] LOOP
      begun := clock_timestamp();
      EXECUTE query;
      INSERT INTO times VALUES (keys, query, extract(epoch FROM clock_timestamp() - begun) * 1000);
      COMMIT;
    END LOOP;
  END LOOP;
END
$$;
SET max_parallel_workers_per_gather = 0;
CALL fill(1, 10000);
VACUUM ANALYZE;
CALL measure(31);
CALL fill(10001, 90000);
VACUUM ANALYZE;
CALL measure(31);
CALL fill(90001, 1000000);
VACUUM ANALYZE;
CALL measure(31);
SELECT keys, what, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 1) AS median_ms
  FROM times GROUP BY keys, what ORDER BY keys, what;
SELECT name, labels, value::bigint AS value FROM keywright.metrics() WHERE name IN ('keywright_api_keys', 'keywright_audit_events');
