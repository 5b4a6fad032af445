-- Two tenants in one set of tables: each request sees what its API key permits, and nothing else.
--
-- Run it in an empty database, as a superuser: psql -X -f two_tenants.sql
\set QUIET on
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
\pset fieldsep ' '
CREATE EXTENSION keywright;

-- The application: organizations own projects, projects have tasks.
CREATE TABLE organizations (id text PRIMARY KEY, name text NOT NULL);
CREATE TABLE projects (
  id bigint PRIMARY KEY, organization_id text NOT NULL REFERENCES organizations ON DELETE CASCADE, title text NOT NULL);
CREATE TABLE tasks (
  id bigint PRIMARY KEY, project_id bigint NOT NULL REFERENCES projects ON DELETE CASCADE, what text NOT NULL);
INSERT INTO organizations VALUES ('acme', 'Acme'), ('globex', 'Globex');
INSERT INTO projects VALUES (1, 'acme', 'Rockets'), (2, 'acme', 'Anvils'), (3, 'globex', 'Weather');

-- keywright learns of them from the tables themselves, now and from now on.
SELECT keywright.track_table('organizations', 'organization', name_column => 'name');
SELECT keywright.track_table('projects', 'project', 'id', 'organization_id', 'title');
INSERT INTO tasks VALUES (1, 1, 'countdown'), (2, 2, 'polish'), (3, 3, 'summon clouds');

-- The Postgres role requests run as. It holds table privileges; policies decide which rows.
CREATE ROLE example_web;
SELECT keywright.grant_access('example_web', 'requester');
GRANT SELECT, INSERT, UPDATE, DELETE ON tasks TO example_web;
GRANT SELECT ON projects TO example_web;
ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
CREATE POLICY readable ON projects FOR SELECT USING (keywright.is_permitted('project:read', 'project', id::text));
CREATE POLICY readable ON tasks FOR SELECT USING (keywright.is_permitted('project:read', 'project', project_id::text));
CREATE POLICY writable ON tasks USING (keywright.is_permitted('project:update', 'project', project_id::text));

-- People, what they hold where, and their keys.
SELECT count(*) AS users FROM unnest('{ada,bob}'::text[]) AS name, keywright.ensure_user(name, '');
SELECT outcome FROM keywright.bind_role('ada', 'organization-admin', 'organization', 'acme');
SELECT outcome FROM keywright.bind_role('bob', 'project-viewer', 'organization', 'globex');
SELECT token AS ada FROM keywright.mint_api_key('ada', 'all') \gset
SELECT token AS ada_reads FROM keywright.mint_api_key('ada', 'reads', scopes => '{*:read}') \gset
SELECT token AS ada_anvils FROM keywright.mint_api_key('ada', 'anvils', allow_list => '{project:2}') \gset
SELECT token AS bob FROM keywright.mint_api_key('bob', 'all') \gset

-- A request: one transaction, one key. PostgREST does this by db-pre-request = "keywright.check_request".
SET ROLE example_web;
\echo '-- without a key'
SELECT * FROM tasks;
\echo '-- ada'
BEGIN;
SELECT username FROM keywright.begin_request(:'ada');
SELECT * FROM tasks ORDER BY id;
INSERT INTO tasks VALUES (4, 1, 'launch');
COMMIT;
\echo '-- ada, with a key that may only read'
BEGIN;
SELECT username FROM keywright.begin_request(:'ada_reads');
SELECT count(*) FROM tasks;
UPDATE tasks SET what = 'nothing';
SELECT count(*) FROM tasks WHERE what = 'nothing';
COMMIT;
\echo '-- ada, with a key for one project'
BEGIN;
SELECT username FROM keywright.begin_request(:'ada_anvils');
SELECT title FROM projects;
SELECT what FROM tasks;
COMMIT;
\echo '-- bob, who may read'
BEGIN;
SELECT username FROM keywright.begin_request(:'bob');
SELECT what FROM tasks;
\set ON_ERROR_STOP off
INSERT INTO tasks VALUES (5, 3, 'rain');
ROLLBACK;
\set ON_ERROR_STOP on
RESET ROLE;

-- A project changes hands in the application's own table, and with it who sees it.
UPDATE projects SET organization_id = 'globex' WHERE id = 2;
SET ROLE example_web;
\echo '-- bob, after the anvils were sold'
BEGIN;
SELECT count(username) FROM keywright.begin_request(:'bob');
SELECT what FROM tasks ORDER BY id;
COMMIT;
\echo '-- ada, with the key for that project'
BEGIN;
SELECT count(username) FROM keywright.begin_request(:'ada_anvils');
SELECT what FROM tasks;
COMMIT;
RESET ROLE;

-- Suspended: from the commit on, whatever key.
SELECT keywright.suspend_user('ada');
SET ROLE example_web;
\echo '-- ada, suspended'
\set ON_ERROR_STOP off
SELECT keywright.begin_request(:'ada');
\set ON_ERROR_STOP on
RESET ROLE;
SELECT keywright.revoke_access('example_web', 'requester');
DROP OWNED BY example_web;
DROP ROLE example_web;
