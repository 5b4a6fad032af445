-- An application's own tables decide which resources there are. The application is no superuser.
\pset null '(null)'
CREATE ROLE regress_keywright_app;
CREATE SCHEMA app AUTHORIZATION regress_keywright_app;
SELECT keywright.grant_access('regress_keywright_app', 'reconciler');
SET SESSION AUTHORIZATION regress_keywright_app;
CREATE TABLE app.organizations (id uuid PRIMARY KEY, name text);
CREATE TABLE app."Pro jects" (
  "Key" bigint PRIMARY KEY, title text, organization_id uuid REFERENCES app.organizations ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE app.agents (slug text PRIMARY KEY, project bigint REFERENCES app."Pro jects" ON DELETE CASCADE ON UPDATE CASCADE);
CREATE VIEW app.seen AS
  SELECT t.type, r.resource_id, r.parent_resource_id, r.name
    FROM unnest('{organization,project,agent}'::text[]) WITH ORDINALITY AS t (type, n), keywright.list_resources(t.type) AS r
   ORDER BY t.n, r.resource_id COLLATE "C";

-- Rows that are there already are registered: none is lost.
INSERT INTO app.organizations VALUES ('00000000-0000-0000-0000-00000000000a', 'Acme'), ('00000000-0000-0000-0000-00000000000b', 'Umbra');
INSERT INTO app."Pro jects" VALUES (1, 'One', '00000000-0000-0000-0000-00000000000a');
SELECT * FROM keywright.track_table('app.organizations', 'organization', name_column => 'name');
SELECT * FROM keywright.track_table('app."Pro jects"', 'project', 'Key', 'organization_id', 'title');
SELECT * FROM keywright.track_table('app.agents', 'agent', 'slug', 'project');
SELECT * FROM app.seen;
-- The same again changes nothing.
SELECT * FROM keywright.track_table('app."Pro jects"', 'project', 'Key', 'organization_id', 'title');
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'app."Pro jects"'::regclass AND NOT tgisinternal ORDER BY 1;

-- Insert, also of several rows and by COPY; both levels in one statement, child first.
INSERT INTO app."Pro jects" VALUES (2, 'Two', '00000000-0000-0000-0000-00000000000a'), (3, E'Th\nree', NULL);
COPY app.agents FROM stdin;
runner	1
watcher	2
\.
WITH a AS (INSERT INTO app.agents VALUES ('early', 4)),
     p AS (INSERT INTO app."Pro jects" VALUES (4, 'Four', '00000000-0000-0000-0000-00000000000c'))
INSERT INTO app.organizations VALUES ('00000000-0000-0000-0000-00000000000c', 'Third');
SELECT * FROM app.seen;

-- A binding stays with its id, through a new parent. An id that changes loses it, and a WARNING says so.
SELECT outcome FROM keywright.ensure_user('tracy', '');
SELECT outcome FROM keywright.bind_role('tracy', 'project-owner', 'project', '2');
SELECT outcome FROM keywright.bind_role('tracy', 'organization-member', 'organization', '00000000-0000-0000-0000-00000000000a');
UPDATE app."Pro jects" SET "Key" = 20 WHERE "Key" = 2;
SELECT outcome FROM keywright.bind_role('tracy', 'project-owner', 'project', '20');
SELECT outcome FROM keywright.bind_role('tracy', 'project-viewer', 'project', '1');
UPDATE app.organizations SET id = '00000000-0000-0000-0000-0000000000aa', name = 'Acme Ltd' WHERE name = 'Acme';
UPDATE app."Pro jects" SET organization_id = '00000000-0000-0000-0000-00000000000b' WHERE "Key" = 1;
UPDATE app.agents SET project = NULL WHERE slug = 'runner';
SELECT * FROM app.seen;
SELECT role, resource_type, resource_id FROM keywright.list_role_bindings('tracy') ORDER BY role;
-- Ids that move into each other's places: nobody holds what another row had.
CREATE TABLE app.slots (id integer PRIMARY KEY DEFERRABLE, label text);
SELECT keywright.register_resource_type('slot');
SELECT * FROM keywright.track_table('app.slots', 'slot', name_column => 'label');
INSERT INTO app.slots VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT outcome FROM keywright.define_role('slot-owner', '{slot:*}', 1);
SELECT outcome FROM keywright.bind_role('tracy', 'slot-owner', 'slot', '1');
UPDATE app.slots SET id = id % 3 + 1;
SELECT resource_id, name FROM keywright.list_resources('slot');
SELECT resource_id FROM keywright.list_role_bindings('tracy', 'slot-owner');
-- An update that changes nothing of interest writes nothing there.
RESET SESSION AUTHORIZATION;
SELECT array_agg(xmin::text ORDER BY id) AS before FROM keywright.resources WHERE type = 'slot' \gset
UPDATE app.slots SET label = label;
SELECT array_agg(xmin::text ORDER BY id) = :'before'::text[] AS untouched FROM keywright.resources WHERE type = 'slot';
SET SESSION AUTHORIZATION regress_keywright_app;

-- What names a resource in an allow-list goes with it.
SELECT keywright.mint_api_key('tracy', 'narrow', allow_list => '{slot:1,slot:2,slot:99,project:*}', lifetime => '1 day') IS NOT NULL AS minted;
UPDATE app.slots SET id = 3 - id WHERE id IN (1, 2);
SELECT allow_list FROM keywright.list_api_keys('tracy');
INSERT INTO app.slots VALUES (99, 'future');
DELETE FROM app.slots WHERE id = 99;
SELECT allow_list FROM keywright.list_api_keys('tracy');
-- Delete, and all that goes with it by ON DELETE CASCADE. Bindings go; what is made again starts without.
DELETE FROM app.organizations WHERE name = 'Acme Ltd';
SELECT * FROM app.seen;
SELECT role, resource_type, resource_id FROM keywright.list_role_bindings('tracy') ORDER BY role;
INSERT INTO app."Pro jects" VALUES (20, 'again', NULL);
SELECT count(*) AS bindings FROM keywright.list_role_bindings(resource_type => 'project', resource_id => '20');
-- What belongs to a manager is not the table's to change.
SELECT keywright.ensure_resource('project', 'managed', managed_by => 'plane-a'), keywright.ensure_resource('project', '900', managed_by => 'plane-a');
SELECT n, code, message FROM (VALUES
  (1, $$INSERT INTO app."Pro jects" VALUES (900, 'taken over', NULL)$$),
  (2, $$UPDATE app."Pro jects" SET "Key" = 900 WHERE "Key" = 20$$)) AS v (n, statement), LATERAL public.refusal(statement) ORDER BY n;
SELECT keywright.delete_resource('project', 'managed'), keywright.delete_resource('project', '900');
-- What is rolled back was never there.
BEGIN;
INSERT INTO app."Pro jects" VALUES (30, 'never', NULL);
SELECT outcome FROM keywright.bind_role('tracy', 'project-owner', 'project', '30');
ROLLBACK;
SELECT count(*) FROM keywright.list_resources('project') WHERE resource_id = '30';
SELECT count(*) FROM keywright.list_role_bindings(resource_id => '30');

-- TRUNCATE is refused, also as part of another table's.
\x on
SELECT * FROM public.refusal('TRUNCATE app.agents');
SELECT code, message FROM public.refusal('TRUNCATE app.organizations CASCADE');
-- Rows that can not be resources are refused with their statement.
SELECT * FROM public.refusal($$INSERT INTO app.agents VALUES ('a b')$$);
SELECT * FROM public.refusal($$UPDATE app.agents SET slug = '*' WHERE slug = 'early'$$);
\x off
CREATE TABLE app.odd (id text, parent text, moment timestamptz, "group" varchar(10), d name);
SELECT n, code, message, detail FROM (VALUES
  (1, $$SELECT keywright.track_table('app.odd', 'project', 'moment')$$),
  (2, $$SELECT keywright.track_table('app.odd', 'absent')$$),
  (3, $$SELECT keywright.track_table('app.odd', 'project', 'absent')$$),
  (4, $$SELECT keywright.track_table('app.odd', NULL)$$),
  (5, $$SELECT keywright.track_table('app.absent', 'project')$$),
  (6, $$SELECT keywright.track_table(NULL, 'project')$$)) AS v (n, statement), LATERAL public.refusal(statement) ORDER BY n;
SELECT * FROM keywright.track_table('app.odd', 'session', 'group');
-- One table decides a type.
\x on
SELECT * FROM public.refusal($$SELECT keywright.track_table('app.odd', 'slot', 'group')$$);
\x off
SELECT n, code, message FROM (VALUES
  (1, $$INSERT INTO app.odd ("group") VALUES (NULL)$$),
  (2, $$INSERT INTO app.odd ("group") VALUES ('x'), ('x')$$),
  (3, $$INSERT INTO app.odd ("group") VALUES ('x')$$)) AS v (n, statement), LATERAL public.refusal(statement) ORDER BY n;
ALTER TABLE app.odd RENAME "group" TO renamed;
SELECT code, message, detail, hint FROM public.refusal($$INSERT INTO app.odd (renamed) VALUES ('y')$$);
DROP TABLE app.odd;
-- A parent that is nowhere is none.
SELECT keywright.register_resource_type(t, p) FROM (VALUES ('loose', 'project'), ('busy', NULL), ('thing', 'project'), ('slug', NULL),
  ('top', NULL), ('sub', 'top'), ('leaf', 'top'), ('part', NULL)) AS v (t, p);
-- Rows of one id that do not agree lie below nothing.
CREATE TABLE app.loose (id integer, project integer);
SELECT * FROM keywright.track_table('app.loose', 'loose', 'id', 'project', '');
INSERT INTO app.loose VALUES (8, 1), (8, 20), (9, 1), (9, 1);
SELECT resource_id, parent_resource_id FROM keywright.list_resources('loose');
DELETE FROM app.loose WHERE project = 1;
SELECT resource_id, parent_resource_id FROM keywright.list_resources('loose');
INSERT INTO app.loose VALUES (7, 777);
SELECT keywright.has_permission('tracy', 'loose:read', 'loose', '7') AS nobody_above;
DELETE FROM app.loose;
DROP TABLE app.loose;

-- Rows that change again before their statement is over: by a trigger of the application, by actions of foreign keys.
CREATE TABLE app.busy (id text PRIMARY KEY, label text);
SELECT * FROM keywright.track_table('app.busy', 'busy', name_column => 'label');
CREATE FUNCTION app.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF new.label = 'del' THEN DELETE FROM app.busy WHERE id = new.id;
  ELSIF new.label = 'ren' THEN UPDATE app.busy SET id = id || '-x', label = 'renamed' WHERE id = new.id;
  ELSE UPDATE app.busy SET label = upper(label) WHERE id = new.id AND label <> upper(label);
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER meddle AFTER INSERT OR UPDATE ON app.busy FOR EACH ROW EXECUTE FUNCTION app.meddle();
INSERT INTO app.busy VALUES ('busy-1', 'plain'), ('busy-2', 'del'), ('busy-3', 'ren');
UPDATE app.busy SET label = 'changed' WHERE id = 'busy-1';
SELECT (SELECT array_agg(id || label ORDER BY id) FROM app.busy) AS rows,
       (SELECT array_agg(resource_id || name) FROM keywright.list_resources('busy')) AS resources;
DELETE FROM app.busy;
CREATE TABLE app.homes (id integer PRIMARY KEY);
CREATE TABLE app.things (
  id integer PRIMARY KEY, home integer REFERENCES app.homes ON DELETE CASCADE, other integer REFERENCES app.homes ON DELETE SET NULL);
SELECT * FROM keywright.track_table('app.things', 'thing', 'id', 'other');
INSERT INTO app.homes VALUES (1), (2);
INSERT INTO app.things VALUES (1007, 2, 1), (1008, NULL, 1);
DELETE FROM app.homes;
SELECT resource_id, parent_resource_id FROM keywright.list_resources('thing');
DELETE FROM app.things;
SELECT keywright.register_resource_type('folder', 'folder');
CREATE TABLE app.folders (id integer PRIMARY KEY, parent integer REFERENCES app.folders ON UPDATE CASCADE ON DELETE CASCADE);
SELECT * FROM keywright.track_table('app.folders', 'folder', 'id', 'parent');
INSERT INTO app.folders VALUES (1, NULL), (2, 1), (3, 2);
SELECT outcome FROM keywright.bind_role('tracy', 'auditor', 'folder', '2');
-- A statement may make on its way what would be a circle.
CREATE FUNCTION app.again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE app.folders SET parent = parent WHERE id = new.id AND pg_trigger_depth() < 2;
  RETURN NULL;
END
$$;
CREATE FUNCTION app.mend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE app.folders SET parent = NULL WHERE parent = 50; RETURN NULL; END $$;
CREATE TRIGGER again AFTER UPDATE ON app.folders FOR EACH ROW EXECUTE FUNCTION app.again();
CREATE TRIGGER mend AFTER INSERT ON app.folders FOR EACH STATEMENT EXECUTE FUNCTION app.mend();
UPDATE app.folders SET parent = CASE id WHEN 1 THEN 2 WHEN 3 THEN 1 END WHERE id < 4;
INSERT INTO app.folders VALUES (50, 51), (51, 50);
SELECT resource_id, parent_resource_id FROM keywright.list_resources('folder');
SELECT code, detail FROM public.refusal('INSERT INTO app.folders VALUES (60, 61), (61, 60)');
DELETE FROM app.folders WHERE id IN (50, 51);
DROP TRIGGER again ON app.folders;
UPDATE app.folders SET id = id + 100;
SELECT resource_id, parent_resource_id FROM keywright.list_resources('folder');
SELECT resource_id FROM keywright.list_role_bindings('tracy', 'auditor');
SELECT code, detail FROM public.refusal('UPDATE app.folders SET parent = 104 WHERE id = 102');
DELETE FROM app.folders WHERE id = 102;
SELECT count(*) FROM keywright.list_resources('folder');
DROP TABLE app.folders, app.things, app.homes, app.busy;
SELECT keywright.delete_resource_type('folder');

-- A trigger BEFORE, a parent that comes and goes, an id that is taken.
CREATE TABLE app.slugs (id integer PRIMARY KEY DEFERRABLE, slug text);
SELECT * FROM keywright.track_table('app.slugs', 'slug', name_column => 'slug');
CREATE FUNCTION app.replaces() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM app.slugs WHERE slug = new.slug; RETURN new; END $$;
CREATE TRIGGER replaces BEFORE INSERT ON app.slugs FOR EACH ROW EXECUTE FUNCTION app.replaces();
INSERT INTO app.slugs VALUES (5001, 's'), (5002, 's'), (5003, 't');
SELECT array_agg(resource_id) FROM keywright.list_resources('slug');
SELECT keywright.ensure_resource('slug', '5004');
UPDATE app.slugs SET id = id + 1;
SELECT (SELECT array_agg(id ORDER BY id) FROM app.slugs) AS rows, array_agg(resource_id) AS resources FROM keywright.list_resources('slug');
DELETE FROM app.slugs;
CREATE TABLE app.tops (id integer PRIMARY KEY);
CREATE TABLE app.subs (id integer PRIMARY KEY, top integer REFERENCES app.tops DEFERRABLE INITIALLY DEFERRED);
SELECT * FROM keywright.track_table('app.tops', 'top');
SELECT * FROM keywright.track_table('app.subs', 'sub', 'id', 'top');
INSERT INTO app.tops VALUES (6001);
INSERT INTO app.subs VALUES (6007, 6001);
SELECT keywright.ensure_resource('leaf', 'untracked', '6001');
BEGIN;
UPDATE app.tops SET id = 6002;
INSERT INTO app.tops VALUES (6001);
COMMIT;
SELECT resource_id, parent_resource_id FROM keywright.list_resources('sub') UNION ALL SELECT resource_id, parent_resource_id FROM keywright.list_resources('leaf');
BEGIN;
DELETE FROM app.tops WHERE id = 6001;
INSERT INTO app.tops VALUES (6001);
COMMIT;
SELECT resource_id, parent_resource_id FROM keywright.list_resources('sub') UNION ALL SELECT resource_id, parent_resource_id FROM keywright.list_resources('leaf');
-- Nothing of the application's runs with more than its own rights: not the predicate of an index either.
CREATE FUNCTION app.who() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN ASSERT current_user = 'regress_keywright_app', 'run as ' || current_user; RETURN true; END $$;
CREATE FUNCTION app.evil(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN app.who(); END $$;
SET client_min_messages = warning;
CREATE INDEX ON app.subs (top) WHERE app.evil(1);
RESET client_min_messages;
DELETE FROM app.subs;
-- Policies that hide rows from the owner would make them look deleted.
ALTER TABLE app.tops ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY visible ON app.tops USING (id > 6001);
SELECT code FROM public.refusal('UPDATE app.tops SET id = 7000 WHERE id = 6002');
ALTER TABLE app.tops NO FORCE ROW LEVEL SECURITY;
DELETE FROM app.tops;
DROP TABLE app.tops, app.subs, app.slugs;
SELECT keywright.delete_resource('slug', '5004'), keywright.delete_resource('leaf', 'untracked');

-- The own rows of a table that others inherit from.
CREATE TABLE app.heirs () INHERITS (app.slots);
INSERT INTO app.heirs VALUES (77, 'heir');
SELECT * FROM keywright.track_table('app.slots', 'slot', name_column => 'label');
UPDATE app.slots SET label = 'heir of all' WHERE id = 77;
SELECT count(*) FROM keywright.list_resources('slot') WHERE resource_id = '77';
DROP TABLE app.heirs;
-- A partitioned table, whose partitions take rows directly, and between which rows move.
CREATE DOMAIN app.slug AS text CHECK (value <> '');
CREATE TABLE app.parts (id app.slug, region integer) PARTITION BY LIST (region);
CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES IN (1);
CREATE TABLE app.parts_2 (region integer, id app.slug);
ALTER TABLE app.parts ATTACH PARTITION app.parts_2 FOR VALUES IN (2);
SELECT * FROM keywright.track_table('app.parts', 'part');
INSERT INTO app.parts VALUES ('p-1', 1), ('p-2', 2);
INSERT INTO app.parts_2 VALUES (2, 'p-3');
SELECT outcome FROM keywright.bind_role('tracy', 'auditor', 'part', 'p-1');
UPDATE app.parts SET region = 2 WHERE id = 'p-1';
SELECT resource_id FROM keywright.list_role_bindings('tracy', 'auditor');
-- Where a partition lets a row not in, nobody knows which row became which: no id of the statement keeps what was bound to it.
CREATE FUNCTION app.no_entry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN new.id = 'p-4' THEN NULL ELSE new END; END $$;
INSERT INTO app.parts VALUES ('p-4', 1), ('p-5', 1);
CREATE TRIGGER no_entry BEFORE INSERT ON app.parts_2 FOR EACH ROW EXECUTE FUNCTION app.no_entry();
SELECT outcome FROM keywright.bind_role('tracy', 'auditor', 'part', 'p-5');
UPDATE app.parts SET region = 2 WHERE region = 1;
SELECT resource_id FROM keywright.list_role_bindings('tracy', 'auditor');
SELECT resource_id FROM keywright.list_resources('part');
DROP TRIGGER no_entry ON app.parts_2;
SELECT code FROM public.refusal('TRUNCATE app.parts_2');
CREATE TABLE app.parts_3 PARTITION OF app.parts FOR VALUES IN (3);
SELECT * FROM keywright.track_table('app.parts', 'part');
DELETE FROM app.parts_2 WHERE id = 'p-2';
SELECT resource_id FROM keywright.list_resources('part');
DROP TABLE app.parts;
-- It is nothing but that trigger.
\x on
SELECT * FROM public.refusal('SELECT keywright.track_resource()');
CREATE TABLE app.wrong (id integer);
CREATE TRIGGER wrong BEFORE INSERT ON app.wrong FOR EACH ROW EXECUTE FUNCTION keywright.track_resource('slot', 'id');
SELECT code, message FROM public.refusal('INSERT INTO app.wrong VALUES (1)');
CREATE OR REPLACE TRIGGER wrong AFTER INSERT ON app.wrong FOR EACH STATEMENT EXECUTE FUNCTION keywright.track_resource('slot', 'id');
SELECT code, message FROM public.refusal('INSERT INTO app.wrong VALUES (1)');
CREATE OR REPLACE TRIGGER wrong AFTER INSERT ON app.wrong FOR EACH ROW EXECUTE FUNCTION keywright.track_resource('slot', 'id');
SELECT code, message FROM public.refusal('INSERT INTO app.wrong VALUES (1)');
CREATE OR REPLACE TRIGGER wrong AFTER INSERT ON app.wrong REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION keywright.track_resource('slot');
SELECT code, message FROM public.refusal('INSERT INTO app.wrong VALUES (1)');
\x off
-- A cast of the application's own is not run: the rows are read by Postgres's own output functions.
CREATE TYPE app.evil AS (x integer);
CREATE FUNCTION app.run(app.evil) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$;
CREATE CAST (app.evil AS text) WITH FUNCTION app.run(app.evil) AS IMPLICIT;
CREATE TABLE app.trap (id app.evil);
CREATE TRIGGER trap AFTER INSERT ON app.trap REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION keywright.track_resource('slot', 'id');
SELECT code, message FROM public.refusal('INSERT INTO app.trap VALUES (ROW(1))');
-- Whoever merely writes to a tracked table needs no right of keywright.
GRANT USAGE ON SCHEMA app TO regress_keywright_nobody;
GRANT INSERT, DELETE ON app.slots TO regress_keywright_nobody;
SET SESSION AUTHORIZATION regress_keywright_nobody;
INSERT INTO app.slots VALUES (9, 'nobody''s');
SELECT code FROM public.refusal($$SELECT keywright.ensure_resource('slot', '10')$$);
SELECT code FROM public.refusal($$CREATE TEMP TABLE t (id integer); CREATE TRIGGER t AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION keywright.track_resource('slot', 'id')$$);
RESET SESSION AUTHORIZATION;
-- Nor is one tracked that is somebody else's.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT code FROM public.refusal($$SELECT keywright.track_table('app.slots', 'slot')$$);
RESET SESSION AUTHORIZATION;
SELECT resource_id, name FROM keywright.list_resources('slot');

SELECT keywright.delete_user('tracy') IS NOT NULL AS deleted;
DELETE FROM app.organizations;
DELETE FROM app.agents;
DELETE FROM app."Pro jects";
DELETE FROM app.slots;
SELECT * FROM app.seen;
SELECT count(keywright.delete_resource('slot', resource_id)) AS left_by_dropped_tables FROM keywright.list_resources('slot');
SELECT keywright.delete_resource('session', 'x'), keywright.delete_role('slot-owner'), keywright.delete_resource_type('slot');
\set VERBOSITY terse
SET client_min_messages = warning;
DROP SCHEMA app CASCADE;
RESET client_min_messages;
SELECT keywright.revoke_access('regress_keywright_app', 'reconciler');
DROP ROLE regress_keywright_app;
