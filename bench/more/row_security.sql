-- A policy that asks is_permitted for the resource of each of 100,000 rows, held against one that compares a column
-- with current_setting. Rounds interleaved, medians of one run. Not a test: nothing depends on the figures.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION keywright;
SELECT keywright.ensure_resources('organization', (SELECT array_agg('o' || n) FROM generate_series(1, 10) AS n)) \g /dev/null
SELECT sum(keywright.ensure_resources('project', ids, parents))
  FROM (SELECT array_agg(id) AS ids, array_agg(organization) AS parents
          FROM (SELECT gen_random_uuid()::text AS id, 'o' || n % 10 + 1 AS organization, n / 10000 AS batch
                  FROM generate_series(1, 100000) AS n) AS r GROUP BY batch) AS b \g /dev/null
CREATE TABLE by_setting AS
  SELECT resource_id AS project, parent_resource_id AS organization, 'a body of some length'::text AS body
    FROM generate_series(0, 9) AS p, LATERAL keywright.list_resources('project', 'o' || p + 1, page_size => 10000);
INSERT INTO by_setting SELECT * FROM by_setting LIMIT greatest(0, 100000 - (SELECT count(*) FROM by_setting));
CREATE TABLE by_permission AS TABLE by_setting;
CREATE TABLE by_one_organization AS TABLE by_setting;
CREATE ROLE bench_web;
SELECT keywright.grant_access('bench_web', 'requester') \g /dev/null
ALTER TABLE by_setting ENABLE ROW LEVEL SECURITY;
ALTER TABLE by_permission ENABLE ROW LEVEL SECURITY;
ALTER TABLE by_one_organization ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON by_setting USING (organization = current_setting('app.organization'));
CREATE POLICY p ON by_permission USING (keywright.is_permitted('project:read', 'project', project));
CREATE POLICY p ON by_one_organization USING (keywright.is_permitted('project:read', 'organization', organization));
CREATE TABLE times (what text, ms double precision);
GRANT SELECT ON by_setting, by_permission, by_one_organization TO bench_web;
GRANT SELECT, INSERT ON times TO bench_web;
SELECT keywright.ensure_user('one', ''), keywright.ensure_user('all', '') \g /dev/null
SELECT keywright.bind_role('one', 'project-viewer', 'organization', 'o1'), keywright.bind_role('all', 'auditor') \g /dev/null
SELECT token AS one FROM keywright.mint_api_key('one', 'k') \gset
SELECT token AS all FROM keywright.mint_api_key('all', 'k') \gset
VACUUM ANALYZE;

CREATE PROCEDURE measure(rounds integer, one text, "all" text) LANGUAGE plpgsql AS $$
DECLARE
  begun timestamptz;
  step record;
BEGIN
  FOR round IN 1..rounds LOOP
    FOR step IN SELECT * FROM (VALUES
        ('column = current_setting(...)', NULL, 'SELECT count(body) FROM by_setting'),
        ('is_permitted, each row its own resource, held on 10,000 of them', one, 'SELECT count(body) FROM by_permission'),
        ('is_permitted, each row one of 10 resources', NULL, 'SELECT count(body) FROM by_one_organization'),
        ('is_permitted, each row its own resource, held globally', "all", 'SELECT count(body) FROM by_permission')
      ) AS s (what, token, query)
    LOOP
      PERFORM set_config('app.organization', 'o1', true);
      IF step.token IS NOT NULL THEN
        COMMIT;
        PERFORM keywright.begin_request(step.token);
      END IF;
      begun := clock_timestamp();
      EXECUTE step.query;
      INSERT INTO times VALUES (step.what, extract(epoch FROM clock_timestamp() - begun) * 1000);
    END LOOP;
    COMMIT;
  END LOOP;
END
$$;
SET ROLE bench_web;
SET max_parallel_workers_per_gather = 0;
CALL measure(3, :'one', :'all');
RESET ROLE;
TRUNCATE times;
SET ROLE bench_web;
CALL measure(31, :'one', :'all');
SELECT what, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 1) AS median_ms,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)
              / first_value(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)) OVER (ORDER BY what <> 'column = current_setting(...)'))::numeric, 2) AS times
  FROM times GROUP BY what ORDER BY what <> 'column = current_setting(...)', what;
RESET ROLE;
DROP OWNED BY bench_web;
DROP ROLE bench_web;
