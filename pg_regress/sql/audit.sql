-- Audit: every function that changes something leaves an event of the change, and none when it changes nothing.
\set VERBOSITY default
\pset null '(null)'
CREATE ROLE regress_keywright_both IN ROLE regress_keywright_reconciler, regress_keywright_issuer;
CREATE ROLE regress_audit_app LOGIN;
CREATE ROLE regress_audit_anon;

-- No table can be forgotten: each has the four triggers, or is named here with what it has.
SELECT c.relname, coalesce(string_agg(t.tgname, ' ' ORDER BY t.tgname), '') AS triggers
  FROM pg_class AS c
  LEFT JOIN pg_trigger AS t ON t.tgrelid = c.oid AND t.tgfoid = 'keywright._audit()'::regprocedure AND t.tgenabled = 'O'
 WHERE c.relnamespace = 'keywright'::regnamespace AND c.relkind = 'r'
 GROUP BY c.relname HAVING string_agg(t.tgname, ' ' ORDER BY t.tgname) IS DISTINCT FROM 'audit_delete audit_insert audit_truncate audit_update'
 ORDER BY 1;
-- And each trigger knows its table: a statement that changes no row asks for it too.
DO $$
DECLARE
  audited regclass;
BEGIN
  FOR audited IN SELECT DISTINCT tgrelid FROM pg_trigger WHERE tgfoid = 'keywright._audit()'::regprocedure LOOP
    EXECUTE format('DELETE FROM %s WHERE false', audited);
  END LOOP;
END
$$;

-- It is for those triggers, and nothing else is called by it: not even a superuser ends the server's process.
DO $$ BEGIN PERFORM keywright._audit(); END $$;
CREATE TABLE public.api_keys ();
CREATE TRIGGER each AFTER INSERT ON public.api_keys FOR EACH ROW EXECUTE FUNCTION keywright._audit();
INSERT INTO public.api_keys DEFAULT VALUES;
DROP TRIGGER each ON public.api_keys;
CREATE TRIGGER half AFTER UPDATE ON public.api_keys REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION keywright._audit();
ALTER TABLE public.api_keys ADD at integer;
UPDATE public.api_keys SET at = 1;
DROP TABLE public.api_keys;

-- What happened since the last look: ids by their shape, roles without their prefix.
CREATE TABLE public.seen (event_id uuid PRIMARY KEY);
CREATE TABLE public.began AS SELECT clock_timestamp() AS at;
CREATE FUNCTION public.news()
RETURNS TABLE (event text, kind text, id text, name text, of_user text, columns text, affected bigint, by_hand boolean, session_role text)
LANGUAGE sql SECURITY DEFINER AS $$
  WITH new AS (
    INSERT INTO public.seen SELECT e.event_id FROM keywright.audit_events AS e
     WHERE e.occurred_at > (SELECT b.at FROM public.began AS b)
       AND NOT EXISTS (SELECT FROM public.seen AS s WHERE s.event_id = e.event_id)
    RETURNING event_id)
  SELECT e.event, e.kind,
         regexp_replace(CASE e.kind WHEN 'api_key' THEN regexp_replace(e.id, '^[0-9A-Za-z]{10}$', 'key') ELSE e.id END,
           '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'uuid'),
         e.name, (SELECT u.username FROM keywright.users AS u WHERE u.user_id = e.user_id), array_to_string(e.columns, ','),
         e.affected, e.by_hand,
         (SELECT string_agg(CASE WHEN w.name LIKE 'regress\_%' THEN regexp_replace(w.name, '^regress_(keywright_)?', '') ELSE 'superuser' END, '/' ORDER BY w.n)
            FROM unnest(ARRAY[e.session_user_name, e.role_name]) WITH ORDINALITY AS w (name, n))
    FROM keywright.audit_events AS e
   WHERE e.occurred_at > (SELECT b.at FROM public.began AS b) AND e.event_id IN (SELECT n.event_id FROM new AS n)
   ORDER BY 2, 1, 3, 4, 6, 7
$$;
\set news 'SELECT * FROM public.news();'

-- Users.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT outcome FROM keywright.ensure_user('audit-a', 'a@example.invalid');
:news
SELECT outcome FROM keywright.ensure_user('audit-a', 'a@example.invalid');
:news
SELECT outcome FROM keywright.ensure_user('audit-a', 'b@example.invalid', display_name => 'A');
:news
SELECT outcome FROM keywright.ensure_system_user('audit-s', organization_role => '');
:news
SELECT outcome FROM keywright.ensure_system_user('audit-s', organization_role => '');
:news
SELECT outcome FROM keywright.ensure_system_user('audit-s', roles => '{auditor}', organization_role => '');
:news
SELECT keywright.suspend_user('audit-a'), keywright.suspend_user('audit-a');
:news
SELECT keywright.activate_user('audit-a'), keywright.activate_user('audit-a');
:news

-- API keys, as an issuer.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT key_id AS k, token AS t FROM keywright.mint_api_key('audit-a', 'one') \gset
:news
SELECT outcome FROM keywright.ensure_api_key('audit-a', 'one', :'t');
:news
SELECT outcome, reason FROM keywright.ensure_api_key('audit-a', 'one');
:news
SELECT key_id AS k FROM keywright.list_api_keys('audit-a') \gset
SELECT key_id AS k2, token AS t2 FROM keywright.rotate_api_key(:'k', '1 hour') \gset
:news
SELECT keywright.expire_api_key(:'k2'), keywright.expire_api_key(:'k2');
:news
SELECT keywright.revoke_api_key(:'k2', 'why'), keywright.revoke_api_key(:'k2', 'why');
:news
SELECT token AS t FROM keywright.mint_api_key('audit-a', 'leaked') \gset
SELECT count(*) FROM public.news();
SELECT keywright.revoke_leaked_api_key(:'t'), keywright.revoke_leaked_api_key(:'t'), keywright.revoke_leaked_api_key('x');
:news
SELECT count(token) FROM generate_series(1, 3) AS n, keywright.mint_api_key('audit-a', 'many-' || n);
SELECT count(*) FROM public.news();
SELECT keywright.revoke_user_api_keys('audit-a'), keywright.revoke_user_api_keys('audit-a');
:news

-- Gateway keys. A heartbeat is no event.
SELECT gateway_key_id AS g, token AS t FROM keywright.mint_gateway_key('audit-g') \gset
:news
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT keywright.heartbeat_gateway_key(:'g');
:news
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT outcome FROM keywright.ensure_gateway_key('audit-g', :'t');
:news
SELECT outcome FROM keywright.ensure_gateway_key('audit-g');
:news
SELECT count(token) FROM keywright.rotate_gateway_key('audit-g', '0');
:news
SELECT name FROM keywright.delete_gateway_key('audit-g');
:news

-- Resources, roles, scopes, bindings.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT keywright.register_resource_type('audit-type', 'audit-type'), keywright.register_resource_type('audit-other');
:news
SELECT keywright.register_resource_type('audit-type', 'audit-type'), keywright.register_resource_type('audit-other', managed_by => 'm');
:news
SELECT keywright.ensure_resource('audit-type', 'r1', name => 'Resource 1'), keywright.ensure_resource('audit-type', 'r2', 'r1');
:news
SELECT keywright.ensure_resource('audit-type', 'r1', name => 'Resource 1'), keywright.ensure_resource('audit-type', 'r2', '');
:news
SELECT keywright.ensure_resources('audit-type', '{r1,r2,r3}', '{NULL,r1,r1}', '{Resource 1,NULL,NULL}');
:news
SELECT keywright.define_role('audit-role', '{audit-type:read}', 3), keywright.define_role('audit-role', '{audit-type:read}', 3);
:news
SELECT keywright.define_role('audit-role', '{audit-type:*}', 3), keywright.define_scope('audit-scope', '{audit-type:*}');
:news
SELECT keywright.define_scope('audit-scope', '{audit-type:*}'), keywright.define_scope('audit-scope', '{audit-type:read}');
:news
SELECT outcome FROM keywright.bind_role('audit-a', 'audit-role', 'audit-type', 'r1');
SELECT outcome FROM keywright.bind_role('audit-a', 'audit-role', 'audit-type', 'r3');
SELECT outcome FROM keywright.bind_role('audit-a', 'audit-role');
:news
SELECT outcome FROM keywright.bind_role('audit-a', 'audit-role');
:news
SELECT keywright.unbind_role('audit-a', 'audit-role'), keywright.unbind_role('audit-a', 'audit-role');
:news
-- A resource takes its bindings along.
SELECT keywright.delete_resource('audit-type', 'r1', with_children => true), keywright.delete_resource('audit-type', 'r1');
:news
SELECT keywright.delete_role('audit-role'), keywright.delete_scope('audit-scope'), keywright.delete_resource_type('audit-other');
:news
SELECT keywright.delete_role('audit-role'), keywright.delete_scope('audit-scope'), keywright.delete_resource_type('audit-other');
:news

-- A tracked table: that it is, and what follows it. A long statement on it is one event.
RESET SESSION AUTHORIZATION;
CREATE SCHEMA regress_audit AUTHORIZATION regress_keywright_reconciler;
SET SESSION AUTHORIZATION regress_keywright_reconciler;
CREATE TABLE regress_audit.tracked (id text PRIMARY KEY, title text);
INSERT INTO regress_audit.tracked VALUES ('t1', 'Title 1');
SELECT * FROM keywright.track_table('regress_audit.tracked', 'audit-type', name_column => 'title');
:news
SELECT * FROM keywright.track_table('regress_audit.tracked', 'audit-type', name_column => 'title');
:news
-- The function that notes it notes nothing that did not happen.
SELECT keywright._note_tracked('regress_audit.tracked', 'created');
SELECT keywright._note_tracked(NULL, NULL), keywright._note_tracked(0, 'created'), keywright._note_tracked('pg_class', 'created');
:news
INSERT INTO regress_audit.tracked VALUES ('t2', 'Title 2');
SELECT outcome FROM keywright.bind_role('audit-a', 'auditor', 'audit-type', 't2');
UPDATE regress_audit.tracked SET title = 'Title' WHERE id = 't1';
UPDATE regress_audit.tracked SET title = 'Title' WHERE id = 't1';
UPDATE regress_audit.tracked SET id = 't3' WHERE id = 't2';
DELETE FROM regress_audit.tracked WHERE id = 't1';
:news
INSERT INTO regress_audit.tracked SELECT 'n' || n, '' FROM generate_series(1, 1001) AS n;
:news
UPDATE regress_audit.tracked SET title = 'x' WHERE id LIKE 'n%';
DELETE FROM regress_audit.tracked WHERE id LIKE 'n%';
:news
ALTER TABLE regress_audit.tracked DISABLE TRIGGER keywright_track_delete;
SELECT * FROM keywright.track_table('regress_audit.tracked', 'audit-type', name_column => 'title');
:news

-- A control plane.
SELECT outcome FROM keywright.ensure_operator_access('ns', 'cp', prefix => 'audit-operator-');
:news
SELECT keywright.revoke_operator_access('ns', 'cp', 'audit-operator-'), keywright.revoke_operator_access('ns', 'cp', 'audit-operator-');
:news

-- Authenticators: what is wanted, and what was granted.
RESET SESSION AUTHORIZATION;
SELECT keywright.allow_authenticator('regress_audit_app', '{regress_audit_anon}'), keywright.allow_authenticator('regress_audit_app', '{regress_audit_anon}');
:news
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT action, outcome FROM keywright.grant_authenticator('audit-rest', 'regress_audit_app', 'regress_audit_anon');
:news
SELECT action, outcome FROM keywright.grant_authenticator('audit-rest', 'regress_audit_app', 'regress_audit_anon');
:news
SELECT keywright.set_postgrest_setting('audit-rest', 'db_pool', '7'), keywright.set_postgrest_setting('audit-rest', 'db_pool', '7');
:news
SELECT * FROM keywright.set_postgrest_settings('audit-rest', '{"db_pool": 8, "db_max_rows": 5}');
:news
SELECT keywright.set_postgrest_setting('audit-rest', 'db_pool', NULL);
:news
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_audit_app INHERIT;
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT action, outcome FROM keywright.reconcile_authenticators();
:news
SELECT action, outcome FROM keywright.reconcile_authenticators();
:news
SELECT count(*) > 0 AS undone FROM keywright.revoke_authenticator('audit-rest');
:news
SELECT count(*) FROM keywright.revoke_authenticator('audit-rest');
:news
RESET SESSION AUTHORIZATION;
SELECT keywright.disallow_authenticator('regress_audit_app'), keywright.disallow_authenticator('regress_audit_app');
:news

-- Access, as an admin. Privileges that are given again are an event of the grant.
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.grant_access('regress_audit_app', 'verifier'), keywright.grant_access('regress_audit_app', 'verifier');
:news
RESET SESSION AUTHORIZATION;
REVOKE EXECUTE ON FUNCTION keywright.verify_api_key(text) FROM regress_audit_app;
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.grant_access('regress_audit_app', 'verifier');
:news
SELECT keywright.revoke_access('regress_audit_app', 'verifier'), keywright.revoke_access('regress_audit_app', 'verifier');
:news

-- Purges: one event for what nobody could use any more, when it is many. First what other suites left.
SELECT count(keywright.purge_api_keys('0')) FROM generate_series(1, 2);
SELECT count(*) >= 0 AS read FROM public.news();
SELECT count(token) FROM generate_series(1, 1003) AS n, keywright.mint_api_key('audit-a', 'n' || n);
SELECT event, kind, count(*) FROM public.news() GROUP BY 1, 2;
SELECT keywright.revoke_user_api_keys('audit-a');
SELECT event, kind, affected, count(*) FROM public.news() GROUP BY 1, 2, 3;
SELECT keywright.purge_api_keys('0', 2), keywright.purge_api_keys('0'), keywright.purge_api_keys('0');
SELECT event, kind, id, affected, by_hand, session_role FROM public.news();
SELECT token IS NOT NULL AS minted FROM keywright.mint_gateway_key('audit-g') \gset
SELECT token IS NOT NULL AS rotated FROM keywright.rotate_gateway_key('audit-g', '1 microsecond') \gset
SELECT count(*) FROM public.news();
SELECT keywright.purge_gateway_keys(), keywright.purge_gateway_keys();
:news
SELECT name FROM keywright.delete_gateway_key('audit-g');
SELECT keywright.delete_user('audit-s') IS NOT NULL AS deleted, keywright.delete_user('audit-operator') IS NOT NULL AS deleted;
:news

-- What is rolled back leaves nothing, and so does what is refused.
BEGIN;
SELECT keywright.suspend_user('audit-a');
SELECT kind, event FROM keywright.list_audit_events('user', page_size => 1);
ROLLBACK;
:news
BEGIN;
SAVEPOINT s;
SELECT keywright.suspend_user('audit-a');
ROLLBACK TO s;
SELECT outcome FROM keywright.ensure_user('audit-a', NULL, display_name => 'AA');
COMMIT;
:news
SELECT code FROM public.refusal($$SELECT keywright.suspend_user('audit-nobody')$$);
SELECT code FROM public.refusal($$SELECT keywright.suspend_user('audit-a'), keywright.ensure_user('a__b', '')$$);
:news

-- Who: the role that logged in, and that of SET ROLE, also when a function with other rights calls.
RESET SESSION AUTHORIZATION;
CREATE FUNCTION public.suspend(username text) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT keywright.suspend_user(username)';
CREATE ROLE regress_keywright_login IN ROLE regress_keywright_both, regress_keywright_admin;
SET SESSION AUTHORIZATION regress_keywright_login;
SELECT keywright.suspend_user('audit-a');
SET ROLE regress_keywright_both;
SELECT keywright.activate_user('audit-a');
SELECT public.suspend('audit-a');
RESET ROLE;
SELECT keywright.activate_user('audit-a');
SELECT event, kind, name, session_role FROM public.news() ORDER BY 1, 4;
-- A role named in no one's way: its number, when it is gone.
RESET SESSION AUTHORIZATION;
CREATE ROLE "regress_odd ""né"" role" IN ROLE regress_keywright_reconciler;
SET SESSION AUTHORIZATION "regress_odd ""né"" role";
SELECT keywright.suspend_user('audit-a');
RESET SESSION AUTHORIZATION;
:news
SELECT event, name FROM keywright.list_audit_events(by_role => 'regress_odd "né" role');
DROP ROLE "regress_odd ""né"" role";
SELECT keywright.activate_user('audit-a');
:news

-- The key the transaction acts for.
SELECT key_id AS k, token AS t FROM keywright.mint_api_key('audit-a', 'acting') \gset
BEGIN;
SELECT username FROM keywright.begin_request(:'t');
SELECT outcome FROM keywright.ensure_user('audit-a', NULL, display_name => 'AAA');
COMMIT;
SELECT outcome FROM keywright.ensure_user('audit-a', NULL, display_name => 'AAAA');
SELECT event, api_key_id = :'k' AS acted_for FROM keywright.list_audit_events('user', page_size => 2);
SELECT count(*) FROM public.news();

-- By hand, as a superuser.
INSERT INTO keywright.users (username, kind) VALUES ('audit-h', 'human'), ('audit-i', 'service');
:news
UPDATE keywright.users SET email = 'h@example.invalid', updated_at = clock_timestamp() WHERE username = 'audit-h';
UPDATE keywright.users SET updated_at = clock_timestamp() WHERE username = 'audit-i';
:news
UPDATE keywright.users SET email = email, status = 'active' WHERE username LIKE 'audit-%' AND kind <> 'system';
:news
UPDATE keywright.users SET status = 'suspended' WHERE username = 'audit-h';
UPDATE keywright.users SET status = 'active' WHERE username = 'audit-h';
UPDATE keywright.users SET deleted_at = clock_timestamp() WHERE username = 'audit-i';
:news
DELETE FROM keywright.users WHERE username IN ('audit-h', 'audit-i');
:news
DELETE FROM keywright.users WHERE false;
:news
INSERT INTO keywright.resource_types (type) VALUES ('audit-hand');
INSERT INTO keywright.scopes (name, permissions) VALUES ('audit-hand-scope', '{*:read}');
INSERT INTO keywright.roles (name, permissions, level) VALUES ('audit-hand-role', '{*:read}', 3);
INSERT INTO keywright.resources (type, id, name) SELECT 'audit-hand', 'h' || n, repeat('long ', 1000) FROM generate_series(1, 2) AS n;
INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES ('audit-hand', 'kwg_hand000', sha256('x'));
INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type, resource_id)
  SELECT user_id, 'audit-hand-role', 'resource', 'audit-hand', 'h1' FROM keywright.users WHERE username = 'audit-a' AND deleted_at IS NULL;
SELECT event, kind, id, left(name, 40) AS name, of_user, columns, affected, by_hand, session_role FROM public.news();
-- A changed key: one is gone and another is there. What a foreign key takes along is noted too.
UPDATE keywright.resources SET id = 'h3', name = '' WHERE type = 'audit-hand' AND id = 'h2';
DELETE FROM keywright.resources WHERE type = 'audit-hand' AND id = 'h1';
SELECT event, kind, id, left(name, 40) AS name, columns, by_hand FROM public.news();
-- COPY, MERGE and ON CONFLICT.
COPY keywright.resources (type, id) FROM STDIN;
audit-hand	c1
audit-hand	c2
\.
MERGE INTO keywright.resources AS r USING (VALUES ('c1'), ('c3')) AS v (id) ON r.type = 'audit-hand' AND r.id = v.id
  WHEN MATCHED THEN UPDATE SET name = 'merged' WHEN NOT MATCHED THEN INSERT (type, id) VALUES ('audit-hand', v.id);
INSERT INTO keywright.resources (type, id) VALUES ('audit-hand', 'c2'), ('audit-hand', 'c4')
  ON CONFLICT (type, id) DO UPDATE SET name = 'conflicting';
MERGE INTO keywright.resources AS r USING (VALUES ('c1'), ('c3')) AS v (id) ON r.type = 'audit-hand' AND r.id = v.id
  WHEN MATCHED AND r.id = 'c1' THEN DELETE WHEN MATCHED THEN DO NOTHING;
SELECT event, kind, id, name, columns, affected, by_hand FROM public.news();
-- More than 1000 rows are one event.
INSERT INTO keywright.resources (type, id) SELECT 'audit-hand', 'm' || n FROM generate_series(1, 1001) AS n;
UPDATE keywright.resources SET name = 'm' WHERE type = 'audit-hand' AND id LIKE 'm%';
:news
UPDATE keywright.resources SET id = 'x' || id WHERE type = 'audit-hand' AND id LIKE 'm%' AND id < 'm2';
SELECT event, count(*), sum(affected) FROM public.news() GROUP BY 1 ORDER BY 1;
DELETE FROM keywright.resources WHERE type = 'audit-hand';
:news
BEGIN;
TRUNCATE keywright.resources CASCADE;
ROLLBACK;
BEGIN;
TRUNCATE keywright.gateway_keys, keywright.scopes;
:news
ROLLBACK;
DELETE FROM keywright.resource_types WHERE type LIKE 'audit-hand';
DELETE FROM keywright.scopes WHERE name = 'audit-hand-scope';
DELETE FROM keywright.roles WHERE name = 'audit-hand-role';
DELETE FROM keywright.gateway_keys WHERE name = 'audit-hand';
UPDATE keywright.api_keys SET revoked_at = clock_timestamp() WHERE key_id = :'k';
DELETE FROM keywright.api_keys WHERE key_id = :'k';
:news

-- What was noted stays, whoever asks.
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT * FROM public.refusal('UPDATE keywright.audit_events SET role_name = ''x''');
SELECT code FROM public.refusal('SELECT FROM keywright.audit_events');
SELECT code FROM public.refusal('SELECT keywright.prune_audit_events()');
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT code FROM public.refusal('INSERT INTO keywright.audit_events DEFAULT VALUES');
SELECT code FROM public.refusal('DELETE FROM keywright.audit_events');
SELECT code FROM public.refusal('TRUNCATE keywright.audit_events');
SELECT code FROM public.refusal('ALTER TABLE keywright.audit_events DISABLE TRIGGER ALL');
SELECT code FROM public.refusal('DROP TRIGGER audit_update ON keywright.users');
SELECT code FROM public.refusal('SET session_replication_role = replica');
SELECT code FROM public.refusal('SET keywright.audit_retention = 1');
SELECT code FROM public.refusal('SET keywright.notify = off');
SELECT code FROM public.refusal('CREATE TRIGGER t BEFORE INSERT ON keywright.audit_events EXECUTE FUNCTION keywright._audit()');
SELECT code FROM public.refusal('CREATE RULE r AS ON INSERT TO keywright.audit_events DO INSTEAD NOTHING');
SELECT code FROM public.refusal('SELECT keywright._audit()');
SELECT code FROM public.refusal('SELECT keywright._note_refusal(''00000'', ''x'')');
RESET SESSION AUTHORIZATION;
\x on
SELECT * FROM public.refusal('UPDATE keywright.audit_events SET role_name = ''x''');
SELECT * FROM public.refusal('DELETE FROM keywright.audit_events');
SELECT * FROM public.refusal('TRUNCATE keywright.audit_events');
\x off
-- A hostile session: its temporary tables take no name of ours.
GRANT TEMPORARY ON DATABASE :DBNAME TO regress_keywright_reconciler;
SET SESSION AUTHORIZATION regress_keywright_reconciler;
CREATE TEMP TABLE new_rows (user_id uuid, username text);
CREATE TEMP TABLE old_rows (user_id uuid, username text);
CREATE TEMP TABLE audit_events (event text);
CREATE TEMP TABLE e (event_id uuid);
CREATE FUNCTION pg_temp.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''taken''; END';
CREATE FUNCTION regress_audit.ne(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE OPERATOR regress_audit.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_audit.ne);
SET search_path = pg_temp, regress_audit, pg_catalog;
SELECT keywright.suspend_user('audit-a');
SELECT keywright.activate_user('audit-a');
RESET search_path;
:news
DROP TABLE pg_temp.new_rows, pg_temp.old_rows, pg_temp.audit_events, pg_temp.e;
DROP FUNCTION pg_temp.pg_notify;
RESET SESSION AUTHORIZATION;
REVOKE TEMPORARY ON DATABASE :DBNAME FROM regress_keywright_reconciler;

-- Only age prunes. Old events can only have been written by hand, which is noted.
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.prune_audit_events();
:news
RESET SESSION AUTHORIZATION;
INSERT INTO keywright.audit_events (occurred_at, event, kind, id, by_hand, session_user_name, role_name)
  SELECT clock_timestamp() - make_interval(days => 364 + n), 'created', 'user', 'old-' || n, false, 'x', 'x' FROM generate_series(0, 4) AS n;
SELECT event, kind, id, affected, by_hand FROM public.news();
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.prune_audit_events(3);
SELECT keywright.prune_audit_events(), keywright.prune_audit_events();
SELECT id FROM keywright.list_audit_events(before => clock_timestamp() - interval '300 days');
:news
SELECT code, message FROM unnest('{0,-1,1000001,NULL}'::text[]) AS n, LATERAL public.refusal(format('SELECT keywright.prune_audit_events(%s)', coalesce(n, 'NULL')));
RESET SESSION AUTHORIZATION;
-- A time zone whose clocks went a week ahead since then ends nothing earlier.
INSERT INTO keywright.audit_events (occurred_at, event, kind, id, by_hand, session_user_name, role_name)
  VALUES (clock_timestamp() - interval '95 days', 'created', 'user', 'old', false, 'x', 'x');
SET keywright.audit_retention = 100;
SELECT FROM (SELECT extract(doy FROM now())::int AS today) AS d, LATERAL set_config('TimeZone',
  format('AAA0BBB-167,%s/0,%s/0', (today + 315) % 365, (today + 50) % 365), false);
SELECT clock_timestamp() - make_interval(days => 100) > clock_timestamp() - make_interval(hours => 2400) + interval '6 days' AS ahead;
SELECT keywright.prune_audit_events() AS that_of_364_days;
RESET TimeZone;
SET keywright.audit_retention = 1;
SELECT keywright.prune_audit_events();
SELECT code FROM unnest('{0,-1,36526}'::text[]) AS n, LATERAL public.refusal('SET keywright.audit_retention = ' || n);
RESET keywright.audit_retention;
SELECT count(*) FROM public.news();

-- Lists: filters, and pages that lose and repeat nothing.
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT user_id AS a FROM keywright.list_users() WHERE username = 'audit-a' \gset
SELECT bool_and(kind = 'user') AS kinds, count(*) > 5 AS several FROM keywright.list_audit_events('user');
SELECT bool_and(kind = 'user' AND id = :'a') AS ids, count(*) > 5 AS several FROM keywright.list_audit_events('user', :'a', page_size => 1000);
SELECT bool_and(user_id = :'a') AS users, count(DISTINCT kind) AS kinds FROM keywright.list_audit_events(of_user => :'a', page_size => 10000);
SELECT bool_and('regress_keywright_both' IN (role_name, session_user_name)) AS roles, count(*) FROM keywright.list_audit_events(by_role => 'regress_keywright_both');
SELECT count(*) FROM keywright.list_audit_events(since => clock_timestamp());
SELECT count(*) FROM keywright.list_audit_events(before => '-infinity');
SELECT count(*) FROM keywright.list_audit_events(page_size => 3);
SELECT code FROM unnest('{0,10001,NULL}'::text[]) AS n, LATERAL public.refusal(format('SELECT keywright.list_audit_events(page_size => %s)', coalesce(n, 'NULL')));
DO $$
DECLARE
  last_at timestamptz;
  last_id uuid;
  seen uuid[] := '{}';
BEGIN
  LOOP
    SELECT seen || array_agg(l.event_id ORDER BY l.occurred_at DESC, l.event_id DESC), min(l.occurred_at)
      INTO seen, last_at
      FROM keywright.list_audit_events(of_user => (SELECT user_id FROM keywright.list_users() WHERE username = 'audit-a'),
        before => last_at, before_id => last_id, page_size => 97) AS l;
    EXIT WHEN last_at IS NULL;
    last_id := seen[cardinality(seen)];
  END LOOP;
  RAISE NOTICE 'all, once, in order: %', seen = (SELECT array_agg(l.event_id)
    FROM keywright.list_audit_events(of_user => (SELECT user_id FROM keywright.list_users() WHERE username = 'audit-a'), page_size => 10000) AS l);
END
$$;
BEGIN READ ONLY;
SELECT count(*) FROM keywright.list_audit_events(page_size => 1);
COMMIT;
RESET SESSION AUTHORIZATION;

SELECT keywright.delete_user('audit-a') IS NOT NULL AS deleted;
SELECT count(keywright.delete_resource('audit-type', resource_id)) FROM keywright.list_resources('audit-type');
DROP SCHEMA regress_audit CASCADE;
SELECT keywright.delete_resource_type('audit-type');
SELECT count(keywright.purge_api_keys('0')) FROM generate_series(1, 2);
DROP FUNCTION public.news, public.suspend;
DROP TABLE public.seen, public.began;
DROP ROLE regress_keywright_login, regress_keywright_both, regress_audit_app, regress_audit_anon;
