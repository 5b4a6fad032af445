-- plan and apply of 1,000 users, 5,000 role bindings and 2,000 API keys. A plan that finds nothing to do is held against a
-- sequential read of those rows, an apply from empty against the same rows inserted by plain SQL: INSERT .. SELECT into
-- tables with the same columns, constraints, indexes and foreign keys, but without triggers, audit and notifications.
-- Rounds interleaved, medians of one run. Not a test: nothing depends on the figures.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION keywright;
SELECT keywright.ensure_resource('organization', 'acme') \g /dev/null
SELECT keywright.ensure_resources('project', array_agg('p' || n), array_agg('acme'::text)) FROM generate_series(1, 100) AS n \g /dev/null
CREATE TABLE times (what text, ms double precision);
CREATE TABLE manifests (manifest jsonb);
INSERT INTO manifests SELECT jsonb_build_object('manager', 'bench',
  'users', (SELECT jsonb_agg(jsonb_build_object('username', 'user-' || n, 'kind', 'service', 'email', 'user-' || n || '@example.org'))
              FROM generate_series(1, 1000) AS n),
  'bindings', (SELECT jsonb_agg(jsonb_build_object('username', 'user-' || n, 'role', r.role, 'resource_type', 'project', 'resource_id', 'p' || (n + r.at) % 100 + 1))
                 FROM generate_series(1, 1000) AS n,
                      unnest(ARRAY['project-owner', 'project-editor', 'project-viewer', 'agent-runner', 'auditor']) WITH ORDINALITY AS r (role, at)),
  'api_keys', (SELECT jsonb_agg(jsonb_build_object('username', 'user-' || n, 'name', k, 'scopes', jsonb_build_array('project:read', 'agent:*'),
                        'allow_list', jsonb_build_array('project:p' || n % 100 + 1), 'lifetime', '30 days'))
                 FROM generate_series(1, 1000) AS n, unnest(ARRAY['ci', 'laptop']) AS k));

CREATE SCHEMA plain;
CREATE TABLE plain.users (LIKE keywright.users INCLUDING ALL);
CREATE TABLE plain.role_bindings (LIKE keywright.role_bindings INCLUDING ALL,
  FOREIGN KEY (user_id) REFERENCES plain.users (user_id), FOREIGN KEY (granted_by) REFERENCES plain.users (user_id),
  FOREIGN KEY (role) REFERENCES keywright.roles (name),
  FOREIGN KEY (resource_type, resource_id) REFERENCES keywright.resources (type, id));
CREATE TABLE plain.api_keys (LIKE keywright.api_keys INCLUDING ALL, FOREIGN KEY (user_id) REFERENCES plain.users (user_id));

CREATE PROCEDURE note(what text, begun timestamptz) LANGUAGE sql AS
'INSERT INTO times VALUES (what, extract(epoch FROM clock_timestamp() - begun) * 1000)';
CREATE PROCEDURE measure(rounds integer) LANGUAGE plpgsql AS $$
DECLARE
  begun timestamptz;
  document constant jsonb := (SELECT manifest FROM manifests);
BEGIN
  FOR round IN 1..rounds LOOP
    begun := clock_timestamp();
    PERFORM FROM keywright.apply(document);
    COMMIT;
    CALL note('apply', begun);
    ANALYZE keywright.users, keywright.role_bindings, keywright.api_keys;
    COMMIT;
    begun := clock_timestamp();
    INSERT INTO plain.users SELECT * FROM keywright.users WHERE managed_by = 'bench' AND deleted_at IS NULL;
    INSERT INTO plain.role_bindings SELECT * FROM keywright.role_bindings WHERE managed_by = 'bench';
    INSERT INTO plain.api_keys SELECT * FROM keywright.api_keys WHERE managed_by = 'bench' AND revoked_at IS NULL;
    COMMIT;
    CALL note('insert', begun);
    FOR again IN 1..5 LOOP
      begun := clock_timestamp();
      PERFORM FROM keywright.plan(document);
      COMMIT;
      CALL note('plan', begun);
      begun := clock_timestamp();
      COPY (SELECT * FROM plain.users) TO '/dev/null';
      COPY (SELECT * FROM plain.role_bindings) TO '/dev/null';
      COPY (SELECT * FROM plain.api_keys) TO '/dev/null';
      COMMIT;
      CALL note('read', begun);
    END LOOP;
    begun := clock_timestamp();
    PERFORM FROM keywright.apply('{"manager": "bench", "prune": true}');
    COMMIT;
    CALL note('prune', begun);
    TRUNCATE plain.users, plain.role_bindings, plain.api_keys;
    COMMIT;
  END LOOP;
END
$$;
CALL measure(7);
SELECT count(*) AS steps FROM manifests, keywright.plan(manifest);
WITH median AS (SELECT what, percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS ms FROM times GROUP BY what)
SELECT m.what, round(m.ms::numeric, 1) AS ms, b.what AS against, round(b.ms::numeric, 1) AS its_ms,
       round((m.ms / b.ms)::numeric, 1) AS times, l.most
  FROM (VALUES ('plan', 'read', 5), ('apply', 'insert', 3)) AS l (what, against, most)
  JOIN median AS m ON m.what = l.what JOIN median AS b ON b.what = l.against
 ORDER BY m.what;
