-- COPY of 100,000 rows in one statement into a table that is tracked, held against the same table that is not.
-- Rounds interleaved, medians of one run. Not a test: nothing depends on the figures.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION keywright;
CREATE TABLE organizations (id uuid PRIMARY KEY);
INSERT INTO organizations SELECT gen_random_uuid() FROM generate_series(1, 100);
SELECT keywright.track_table('organizations', 'organization') \g /dev/null
CREATE TABLE times (what text, tracked boolean, ms double precision);
CREATE FUNCTION file(name text) RETURNS text LANGUAGE sql RETURN current_setting('data_directory') || '/' || name;

-- A number as the key; a uuid as the key, with a parent; the same with the application's own foreign key; and folders in
-- folders, sixteen deep at most.
CREATE TABLE numbered (id bigint PRIMARY KEY, name text);
CREATE TABLE uuids (id uuid PRIMARY KEY, organization uuid, name text);
CREATE TABLE referring (id uuid PRIMARY KEY, organization uuid REFERENCES organizations, name text);
CREATE TABLE nested (id bigint PRIMARY KEY, parent bigint, name text);
CREATE TABLE nested_tracked (LIKE nested INCLUDING ALL);
SELECT keywright.register_resource_type('folder', 'folder') \g /dev/null
SELECT keywright.track_table('nested_tracked', 'folder', 'id', 'parent') \g /dev/null
CREATE TABLE numbered_tracked (LIKE numbered INCLUDING ALL);
CREATE TABLE uuids_tracked (LIKE uuids INCLUDING ALL);
CREATE TABLE referring_tracked (LIKE referring INCLUDING ALL, FOREIGN KEY (organization) REFERENCES organizations);
SELECT keywright.track_table('numbered_tracked', 'session') \g /dev/null
SELECT keywright.track_table('uuids_tracked', 'project', 'id', 'organization') \g /dev/null
SELECT keywright.track_table('referring_tracked', 'credential', 'id', 'organization') \g /dev/null

CREATE PROCEDURE measure(rounds integer) LANGUAGE plpgsql AS $$
DECLARE
  begun timestamptz;
  step record;
BEGIN
  EXECUTE format('COPY (SELECT n, ''name '' || n FROM generate_series(1, 100000) AS n) TO %L', file('numbered.copy'));
  EXECUTE format('COPY (SELECT gen_random_uuid(), o.ids[n %% 100 + 1], ''name '' || n FROM generate_series(1, 100000) AS n, (SELECT array_agg(id) FROM organizations) AS o (ids)) TO %L', file('uuids.copy'));
  EXECUTE format('COPY (SELECT n, CASE WHEN n > 1 THEN n / 3 + 1 END, ''name '' || n FROM generate_series(2, 100001) AS n) TO %L', file('nested.copy'));
  FOR round IN 1..rounds LOOP
    FOR step IN SELECT t.name, t.tracked, t.data FROM (VALUES
        ('numbered', false, 'numbered.copy'), ('numbered', true, 'numbered.copy'),
        ('uuids', false, 'uuids.copy'), ('uuids', true, 'uuids.copy'),
        ('nested', false, 'nested.copy'), ('nested', true, 'nested.copy'),
        ('referring', false, 'uuids.copy'), ('referring', true, 'uuids.copy')) AS t (name, tracked, data)
    LOOP
      begun := clock_timestamp();
      EXECUTE format('COPY %I FROM %L', step.name || CASE WHEN step.tracked THEN '_tracked' ELSE '' END, file(step.data));
      COMMIT;
      INSERT INTO times VALUES (step.name, step.tracked, extract(epoch FROM clock_timestamp() - begun) * 1000);
    END LOOP;
    DELETE FROM nested; DELETE FROM nested_tracked; DELETE FROM numbered; DELETE FROM uuids; DELETE FROM referring;
    DELETE FROM numbered_tracked; DELETE FROM uuids_tracked; DELETE FROM referring_tracked;
    COMMIT;
  END LOOP;
END
$$;
CALL measure(7);
SELECT what, round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE NOT tracked))::numeric) AS untracked_ms,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE tracked))::numeric) AS tracked_ms,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE tracked)
              / percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE NOT tracked))::numeric, 1) AS times
  FROM times GROUP BY what ORDER BY what;
