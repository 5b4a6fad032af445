-- An application's own table of projects decides which there are: who was let into one loses that when its row goes, at its
-- commit, and a project that later gets the same id is another one.
\pset footer off
CREATE EXTENSION keywright;
-- The application owns its table and verifies keys. Tracking takes the table's owner and the capability reconciler, once:
-- the triggers stay when the capability is taken away again.
CREATE ROLE example_planner LOGIN;
CREATE SCHEMA planner AUTHORIZATION example_planner;
SELECT keywright.grant_access('example_planner', 'verifier'), keywright.grant_access('example_planner', 'reconciler');
SET SESSION AUTHORIZATION example_planner;
CREATE TABLE planner.projects (id integer PRIMARY KEY, title text NOT NULL);
INSERT INTO planner.projects VALUES (1, 'Rockets'), (2, 'Anvils');
SELECT * FROM keywright.track_table('planner.projects', 'project', 'id', name_column => 'title');
RESET SESSION AUTHORIZATION;
SELECT keywright.revoke_access('example_planner', 'reconciler');

-- Ada edits one project, and views another.
SELECT outcome FROM keywright.ensure_user('ada', '');
SELECT outcome FROM keywright.bind_role('ada', 'project-editor', 'project', '1');
SELECT outcome FROM keywright.bind_role('ada', 'project-viewer', 'project', '2');
SELECT token FROM keywright.mint_api_key('ada', 'laptop') \gset

SET SESSION AUTHORIZATION example_planner;
SELECT keywright.has_permission('ada', 'project:update', 'project', id::text) AS edits, title FROM planner.projects ORDER BY id;
-- Changed its mind: nothing has happened.
BEGIN;
DELETE FROM planner.projects WHERE id = 1;
SELECT keywright.has_permission('ada', 'project:update', 'project', '1') AS edits_while_deleted;
ROLLBACK;
SELECT keywright.has_permission('ada', 'project:update', 'project', '1') AS edits_after_rollback;
-- For good. Her key lives on, and permits less.
DELETE FROM planner.projects WHERE id = 1;
SELECT keywright.has_permission('ada', 'project:update', 'project', '1') AS edits_deleted;
SELECT username FROM keywright.authorize_api_key(:'token', 'project:read', 'project:2');
SELECT username FROM keywright.authorize_api_key(:'token', 'project:update', 'project:1');
-- The same id again is another project: nobody is let in by what was.
INSERT INTO planner.projects VALUES (1, 'Submarines');
SELECT keywright.has_permission('ada', 'project:update', 'project', '1') AS edits_the_new_one;
RESET SESSION AUTHORIZATION;
SELECT role, resource_id FROM keywright.list_role_bindings('ada');
-- Who took it away is on record: the application's role, by the row it deleted.
SELECT event, kind, session_user_name FROM keywright.list_audit_events()
 WHERE kind IN ('resource', 'role_binding') AND event = 'deleted' ORDER BY kind;

DROP SCHEMA planner CASCADE;
SELECT keywright.revoke_access('example_planner', 'verifier');
DROP EXTENSION keywright;
DROP ROLE example_planner;
