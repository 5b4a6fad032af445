-- The sentences of SECURITY.md that no other suite shows: what each role can do and what it can not, as that role.
\pset null '(null)'
\set VERBOSITY terse
\set SHOW_CONTEXT never

-- How each statement ends, as the role in force.
CREATE FUNCTION public.ends(VARIADIC statements text[]) RETURNS TABLE (code text, message text) LANGUAGE plpgsql AS $$
BEGIN
  FOR n IN 1 .. cardinality(statements) LOOP
    SELECT r.code, r.message INTO code, message FROM public.refusal(statements[n]) AS r;
    RETURN NEXT;
  END LOOP;
END
$$;
-- Whether a piece of a secret is in what all these calls answer, as the role in force.
CREATE FUNCTION public.answers_with(needles text[], VARIADIC calls text[]) RETURNS TABLE (answers bigint, with_it bigint) LANGUAGE plpgsql AS $$
DECLARE
  answer text;
  needle text;
BEGIN
  answers := 0;
  with_it := 0;
  FOR n IN 1 .. cardinality(calls) LOOP
    FOR answer IN EXECUTE format('SELECT r::text FROM keywright.%s AS r', calls[n]) LOOP
      answers := answers + 1;
      FOREACH needle IN ARRAY needles LOOP
        with_it := with_it + (strpos(lower(answer), lower(needle)) > 0)::int;
      END LOOP;
    END LOOP;
  END LOOP;
  RETURN NEXT;
END
$$;

SELECT outcome FROM keywright.ensure_user('alice', 'alice@example.invalid');
SELECT outcome FROM keywright.ensure_user('bob', 'bob@example.invalid');
SELECT keywright.bind_role('alice', 'owner') IS NOT NULL AS alice_owns_all;
SELECT key_id AS id, token, encode(sha256(substr(token, 16, 22)::bytea), 'hex') AS digest FROM keywright.mint_api_key('alice', 'k', managed_by => 'plane-a') \gset
SELECT key_id AS revoked_id, token AS revoked FROM keywright.mint_api_key('alice', 'revoked') \gset
SELECT keywright.revoke_api_key(:'revoked_id');
SELECT gateway_key_id AS gateway_id, token AS gateway, encode(sha256(token::bytea), 'hex') AS gateway_digest FROM keywright.mint_gateway_key('edge', 'plane-a') \gset

-- The extension makes no role, so nobody can log in as one of its own.
BEGIN;
SELECT count(keywright.revoke_access(grantee, capability)) > 0 AS revoked FROM keywright.list_access();
SELECT count(*) AS roles FROM pg_roles \gset
DROP EXTENSION keywright;
CREATE EXTENSION keywright;
SELECT count(*) - :roles AS roles_made FROM pg_roles;
ROLLBACK;

-- A role without a capability: what the catalogs tell everybody, and nothing else.
SET SESSION AUTHORIZATION regress_keywright_nobody;
SELECT relname, pg_relation_size(oid) > 0 AS has_a_size, reltuples IS NOT NULL AS has_a_count FROM pg_class WHERE relname = 'gateway_keys';
SELECT n_tup_ins IS NOT NULL AS counted FROM pg_stat_all_tables WHERE schemaname = 'keywright' AND relname = 'api_keys';
SELECT count(*) AS samples FROM pg_stats WHERE schemaname = 'keywright';
SELECT * FROM public.ends('SELECT FROM keywright.api_keys', 'LOCK TABLE keywright.api_keys', 'SELECT keywright.current_user_id()', 'SELECT stavalues1 FROM pg_statistic', 'ANALYZE keywright.api_keys');
RESET SESSION AUTHORIZATION;

-- A verifier learns of a user that is only named whether there is one, and what its roles permit; of a key whether its id exists. It can note that a key was used.
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT keywright.has_permission('alice', 'project:delete') AS alice, keywright.has_permission('bob', 'project:delete') AS bob;
SELECT * FROM public.ends($$SELECT keywright.has_permission('zoe', 'project:delete')$$);
SELECT keywright.touch_api_key(:'id') AS there, keywright.touch_api_key('AAAAAAAAAA') AS not_there, keywright.heartbeat_gateway_key(:'gateway_id') AS beats;
SELECT username, name, scopes, allow_list FROM keywright.verify_api_key(:'token');
-- A digest is enough for the one function that takes one, and for no other.
SELECT active, username FROM keywright.verify_api_key_digest(:'id', decode(:'digest', 'hex'));
SELECT v.active FROM unnest(ARRAY[:'digest', 'kwk_' || :'id' || '-' || :'digest', :'id' || '-' || left(:'digest', 22), '\x' || :'digest']) AS t (token), LATERAL keywright.verify_api_key(t.token) AS v;
SELECT v.active FROM unnest(ARRAY[:'gateway_digest', left(:'gateway', 11) || left(:'gateway_digest', 32)]) AS t (token), LATERAL keywright.verify_gateway_key(t.token) AS v;
SELECT * FROM public.ends(format('SELECT keywright.begin_request(%L)', :'digest'), format('SELECT keywright.authenticate_api_key(%L)', :'id' || '-' || left(:'digest', 22)));
RESET SESSION AUTHORIZATION;

-- A requester acts for a key by its token, and learns of nothing else.
SET SESSION AUTHORIZATION regress_keywright_requester;
BEGIN;
SELECT username FROM keywright.begin_request(:'token');
SELECT keywright.is_permitted('project:delete', 'project', 'p') AS as_alice;
COMMIT;
SELECT keywright.is_permitted('project:delete', 'project', 'p') AS as_nobody;
SELECT code FROM public.ends(format('SELECT keywright.verify_api_key(%L)', :'token'), format('SELECT keywright.verify_api_key_digest(%L, %L)', :'id', '\x' || :'digest'), $$SELECT keywright.has_permission('alice', 'project:read')$$,
  'SELECT keywright.list_api_keys()', $$SELECT keywright.touch_api_key('AAAAAAAAAA')$$, 'SELECT FROM keywright.users');
RESET SESSION AUTHORIZATION;

-- An issuer acts as any user: it mints a key of the mightiest. It learns why a token is refused, by asking for a key in its place.
SET SESSION AUTHORIZATION regress_keywright_issuer;
BEGIN;
SELECT token AS own FROM keywright.mint_api_key('alice', 'mine') \gset
SET LOCAL SESSION AUTHORIZATION regress_keywright_verifier;
SELECT username FROM keywright.authorize_api_key(:'own', 'project:delete', 'project:any');
ROLLBACK;
BEGIN;
SELECT outcome, reason FROM keywright.ensure_api_key('alice', 'revoked', :'revoked');
ROLLBACK;
BEGIN;
SELECT outcome, reason FROM keywright.ensure_api_key('bob', 'other', :'token');
ROLLBACK;
SELECT username, name FROM keywright.list_api_keys() WHERE username = 'alice';
SELECT answers > 5 AS answered, with_it FROM public.answers_with(ARRAY[substr(:'token', 16, 20), substr(:'gateway', 12, 20), left(:'digest', 16), left(:'gateway_digest', 16), left(encode(decode(:'digest', 'hex'), 'base64'), 16)],
  'list_api_keys(include_inactive => true)', 'list_gateway_keys()', 'key_usage()', 'list_scopes()', 'list_resource_types()', 'manifest_schema()');
SELECT code FROM public.ends('SELECT keywright.list_users()', $$SELECT keywright.suspend_user('alice')$$, $$SELECT keywright.bind_role('bob', 'owner')$$, 'SELECT keywright.list_audit_events()', $$SELECT keywright.apply('{"manager": "m"}')$$,
  $$SELECT keywright.verify_api_key('x')$$, 'SELECT keywright.purge_api_keys()');
-- Whoever made a key, and whichever manager has it: an issuer can revoke them all, and delete every gateway key.
BEGIN;
SELECT (keywright.rotate_gateway_key('edge')).name, (keywright.rotate_api_key(:'id')).token IS NOT NULL AS key;
SELECT keywright.revoke_user_api_keys('alice'), (keywright.delete_gateway_key('edge')).name;
RESET SESSION AUTHORIZATION;
SELECT (keywright.verify_api_key(:'token')).active, (keywright.verify_gateway_key(:'gateway')).active;
ROLLBACK;
RESET SESSION AUTHORIZATION;

-- An auditor sees names, addresses and the cause of a refusal; no secret, and nothing it calls writes.
SET SESSION AUTHORIZATION regress_keywright_auditor;
BEGIN READ ONLY;
SELECT username, email FROM keywright.list_users() WHERE username = 'alice';
SELECT cause FROM keywright.explain_api_key(:'revoked');
SELECT count(*) FILTER (WHERE with_it > 0) AS with_a_secret, sum(answers) > 10 AS answered FROM public.answers_with(
  ARRAY[substr(:'token', 16, 20), substr(:'revoked', 16, 20), substr(:'gateway', 12, 20), left(:'digest', 16), left(:'gateway_digest', 16), left(encode(decode(:'digest', 'hex'), 'base64'), 16)],
  'list_users(true)', 'list_api_keys(include_inactive => true)', 'list_gateway_keys()', 'key_usage()', 'list_access()', 'list_roles()', 'list_scopes()', 'list_role_bindings()', 'list_resource_types()',
  'list_audit_events(page_size => 1000)', 'metrics()', 'list_authenticators()', 'list_allowed_authenticators()', 'authenticator_status()', format('explain_api_key(%L)', :'token'), format('explain_api_key(%L)', :'revoked'),
  $$has_permission('alice', 'project:read')$$, 'needs_first_user()', 'version()', 'manifest_schema()', $$operator_key_name('a', 'b')$$, $$preflight_authenticator('regress_keywright_nobody', 'regress_keywright_nobody')$$, $$list_resources('project')$$);
COMMIT;
-- No function of an auditor is another's that writes.
SELECT count(*) AS functions, count(*) FILTER (WHERE p.proname ~ '^(list_|explain_|key_usage|needs_|has_|metrics|version|help|preflight_|authenticator_status|access_status|operator_key_name|manifest_schema)') AS that_read
  FROM pg_proc AS p WHERE pronamespace = 'keywright'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE');
RESET SESSION AUTHORIZATION;

-- A reconciler gives any user any role, and calls itself what it likes; it gives nobody access, and no Postgres role.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
BEGIN;
SELECT outcome FROM keywright.ensure_user('carl', '', managed_by => 'plane-a');
SELECT * FROM public.ends($$SELECT keywright.ensure_user('carl', 'c@example.invalid', managed_by => 'plane-b')$$);
SELECT outcome FROM keywright.ensure_user('carl', 'c@example.invalid', managed_by => 'plane-a');
SELECT keywright.bind_role('bob', 'owner') IS NOT NULL AS bound, keywright.has_permission('bob', 'project:delete') AS bob, keywright.suspend_user('carl');
ROLLBACK;
SELECT code FROM public.ends($$SELECT keywright.grant_access('regress_keywright_reconciler', 'admin')$$, 'SELECT keywright.list_access()', 'SELECT keywright.list_audit_events()', 'SELECT keywright.purge_api_keys()',
  format('SELECT keywright.verify_api_key(%L)', :'token'), $$SELECT keywright.grant_authenticator('s', 'regress_keywright_authenticator', 'regress_keywright_nobody')$$, $$SELECT keywright.allow_authenticator('regress_keywright_authenticator', '{regress_keywright_nobody}')$$);
RESET SESSION AUTHORIZATION;

-- A trigger that follows a table outlives the capability of who made it: whoever writes to the table decides over resources of that type that nobody manages.
CREATE ROLE regress_security_app;
CREATE TABLE public.tracked (id integer PRIMARY KEY);
ALTER TABLE public.tracked OWNER TO regress_security_app;
SELECT keywright.grant_access('regress_security_app', 'reconciler');
SET SESSION AUTHORIZATION regress_security_app;
SELECT outcome FROM keywright.track_table('public.tracked', 'session', 'id');
RESET SESSION AUTHORIZATION;
SELECT keywright.revoke_access('regress_security_app', 'reconciler');
SET SESSION AUTHORIZATION regress_security_app;
INSERT INTO public.tracked VALUES (7);
SELECT code FROM public.ends($$SELECT keywright.ensure_resource('session', '8')$$, $$SELECT keywright.track_table('public.tracked', 'agent', 'id')$$);
RESET SESSION AUTHORIZATION;
SELECT resource_id FROM keywright.list_resources('session') WHERE resource_id = '7';
DELETE FROM public.tracked;
DROP TABLE public.tracked;

-- A maintainer purges what is dead, as soon as it likes, and nothing that lives.
SELECT key_id AS expired_id FROM keywright.mint_api_key('bob', 'expired') \gset
SELECT keywright.expire_api_key(:'expired_id');
SELECT token AS in_grace FROM keywright.mint_api_key('bob', 'rotated') \gset
SELECT token IS NOT NULL AS successor FROM keywright.rotate_api_key(substr(:'in_grace', 5, 10), '1 hour');
SELECT name IS NOT NULL AS gateway_in_grace FROM keywright.mint_gateway_key('old');
SELECT name FROM keywright.rotate_gateway_key('old', '1 hour');
SET SESSION AUTHORIZATION regress_keywright_maintainer;
SELECT * FROM public.ends($$SELECT keywright.purge_api_keys('-1 day')$$, $$SELECT keywright.purge_api_keys(NULL)$$, $$CALL keywright.maintain('-1 day')$$, 'SET keywright.audit_retention = 1');
SELECT keywright.purge_api_keys('0') AS dead_ones, keywright.purge_gateway_keys(), keywright.purge_api_key_usage() >= 0 AS usage, keywright.prune_audit_events();
SELECT code FROM public.ends('SELECT keywright.list_api_keys()', 'SELECT keywright.list_users()', $$SELECT keywright.verify_api_key('x')$$, 'SELECT keywright.list_audit_events()', 'DELETE FROM keywright.api_keys');
RESET SESSION AUTHORIZATION;
SELECT username, name, state FROM keywright.list_api_keys(include_inactive => true) ORDER BY username, name, state;
SELECT name, count(*) FROM keywright.list_gateway_keys() GROUP BY name ORDER BY name;
SELECT (keywright.verify_api_key(:'token')).active, (keywright.verify_api_key(:'in_grace')).active AS in_grace;
-- The names of gateways are in its metrics, and no user's and no key's.
SET SESSION AUTHORIZATION regress_keywright_maintainer;
SELECT count(*) FILTER (WHERE labels::text LIKE '%edge%') > 0 AS gateways, count(*) FILTER (WHERE labels::text ~ 'alice|bob') AS users FROM keywright.metrics();
RESET SESSION AUTHORIZATION;

-- An admin can give itself every capability; no hash, no table, no setting and no Postgres role comes with it.
SET SESSION AUTHORIZATION regress_keywright_admin;
BEGIN;
SELECT keywright.grant_access('regress_keywright_nobody', 'admin');
SET LOCAL SESSION AUTHORIZATION regress_keywright_nobody;
SELECT (keywright.verify_api_key(:'token')).active;
ROLLBACK;
SELECT code FROM public.ends('SELECT hashed_secret FROM keywright.api_keys', 'SET keywright.audit_retention = 1', 'SET keywright.max_api_key_lifetime = 0', 'SET keywright.notify = off', 'SET keywright.api_key_header = ''x''',
  $$SELECT keywright.allow_authenticator('regress_keywright_authenticator', '{regress_keywright_nobody}')$$, 'GRANT regress_keywright_nobody TO regress_keywright_admin', 'DROP EXTENSION keywright', 'ALTER EXTENSION keywright UPDATE');
RESET SESSION AUTHORIZATION;

-- CREATEROLE alone: what it makes has no capability, and it sets nothing for a role that is not its own to set.
CREATE ROLE regress_security_creator CREATEROLE;
SET SESSION AUTHORIZATION regress_security_creator;
CREATE ROLE regress_security_made;
SELECT code FROM public.ends('ALTER ROLE regress_security_made SET keywright.audit_retention = 1', 'ALTER ROLE regress_security_made SET keywright.max_api_key_lifetime = 0', 'ALTER ROLE regress_security_made SET session_replication_role = replica',
  'ALTER ROLE regress_security_made SUPERUSER', $$SELECT keywright.grant_access('regress_security_made', 'verifier')$$, 'SELECT FROM keywright.users', 'GRANT pg_read_all_data TO regress_security_creator WITH ADMIN OPTION GRANTED BY postgres');
SET SESSION AUTHORIZATION regress_security_made;
SELECT code FROM public.ends($$SELECT keywright.verify_api_key('x')$$);
-- The same for the issuer's role: from 16 on Postgres keeps CREATEROLE from it, on 15 not (its password, a membership: attacks.sql).
SET SESSION AUTHORIZATION regress_security_creator;
BEGIN;
SELECT code = CASE WHEN current_setting('server_version_num')::int >= 160000 THEN '42501' ELSE '00000' END AS as_postgres_has_it
  FROM public.ends($$ALTER ROLE regress_keywright_issuer PASSWORD 'x'$$, 'GRANT regress_keywright_issuer TO regress_security_creator', 'GRANT pg_execute_server_program TO regress_security_creator');
ROLLBACK;
RESET SESSION AUTHORIZATION;

-- Each predefined role of Postgres, by itself: which of them have any privilege on what is in the schema.
DO $$
DECLARE
  predefined name;
BEGIN
  FOR predefined IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'pg\_%' AND rolname <> 'pg_database_owner' LOOP
    EXECUTE format('CREATE ROLE %I IN ROLE %I', 'regress_security_' || predefined, predefined);
  END LOOP;
END
$$;
SELECT replace(r.rolname, 'regress_security_', '') AS role,
       bool_or(has_table_privilege(r.oid, c.oid, 'SELECT')) AS "select", bool_or(has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE')) AS write, bool_or(has_table_privilege(r.oid, c.oid, 'TRUNCATE, REFERENCES, TRIGGER')) AS more
  FROM pg_roles AS r, pg_class AS c
 WHERE r.rolname LIKE 'regress\_security\_pg\_%' AND c.relnamespace = 'keywright'::regnamespace AND c.relkind IN ('r', 'v')
   AND has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') GROUP BY 1 ORDER BY 1;
SELECT count(*) FILTER (WHERE has_function_privilege(r.oid, p.oid, 'EXECUTE')) AS functions_open, count(DISTINCT r.rolname) > 10 AS roles FROM pg_roles AS r, pg_proc AS p
 WHERE r.rolname LIKE 'regress\_security\_pg\_%' AND p.pronamespace = 'keywright'::regnamespace;

-- pg_read_all_data sees no row. What the planner has sampled is another matter: names and addresses, and never a hash.
ANALYZE keywright.users, keywright.api_keys, keywright.gateway_keys;
SET SESSION AUTHORIZATION regress_security_pg_read_all_data;
SELECT (SELECT count(*) FROM keywright.users) AS users, (SELECT count(*) FROM keywright.api_keys) AS api_keys, (SELECT count(hashed_secret) FROM keywright.gateway_keys) AS gateway_keys, (SELECT count(*) FROM keywright.audit_events) AS events;
COPY keywright.api_keys TO STDOUT;
SELECT code FROM public.ends('SELECT keywright.list_users()', $$SELECT keywright.verify_api_key('x')$$, 'LOCK TABLE keywright.api_keys IN ROW SHARE MODE', 'SET row_security = off; SELECT count(*) FROM keywright.api_keys', 'SELECT FROM keywright.api_keys FOR UPDATE');
RESET row_security;
SELECT starelid::regclass, attname, concat(stavalues1::text, stavalues2::text) ~ CASE attname WHEN 'email' THEN '@' ELSE '[0-9A-Za-z]' END AS shown
  FROM pg_statistic JOIN pg_attribute ON attrelid = starelid AND attnum = staattnum
 WHERE starelid IN ('keywright.users'::regclass, 'keywright.api_keys'::regclass) AND attname IN ('username', 'email', 'key_id', 'name') ORDER BY 1, 2;
SELECT count(*) > 20 AS samples, count(*) FILTER (WHERE attname = 'hashed_secret') AS of_hashes, count(*) FILTER (WHERE s::text LIKE '%' || left(:'digest', 16) || '%') AS with_a_hash
  FROM pg_statistic AS s JOIN pg_attribute ON attrelid = starelid AND attnum = staattnum WHERE starelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'keywright'::regnamespace);
RESET SESSION AUTHORIZATION;
-- pg_write_all_data changes no row and adds none; it may lock the tables.
SET SESSION AUTHORIZATION regress_security_pg_write_all_data;
SELECT code FROM public.ends($$INSERT INTO keywright.users (username, kind) VALUES ('mine', 'human')$$, 'GRANT USAGE ON TYPE keywright.capability_admin TO regress_security_pg_write_all_data', 'TRUNCATE keywright.api_keys CASCADE',
  'SELECT FROM keywright.users', $$SELECT keywright.verify_api_key('x')$$, 'ALTER TABLE keywright.api_keys DISABLE ROW LEVEL SECURITY', 'ALTER TABLE keywright.api_keys DISABLE TRIGGER USER');
UPDATE keywright.api_keys SET revoked_at = NULL;
UPDATE keywright.users SET status = 'active';
DELETE FROM keywright.users;
SELECT code FROM public.ends('LOCK TABLE keywright.api_keys, keywright.users IN ACCESS EXCLUSIVE MODE');
RESET SESSION AUTHORIZATION;
SELECT string_agg(username || ' ' || status, ', ' ORDER BY username) AS users, (SELECT count(*) FROM keywright.list_api_keys()) AS keys FROM keywright.list_users();
-- pg_maintain (17 and later) may lock them as well, where it may look into the schema, and reads nothing.
SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN 'regress_security_pg_maintain' ELSE 'regress_security_pg_monitor' END AS maintain \gset
SET SESSION AUTHORIZATION :maintain;
SELECT code FROM public.ends('LOCK TABLE keywright.api_keys IN ACCESS EXCLUSIVE MODE');
RESET SESSION AUTHORIZATION;
GRANT USAGE ON SCHEMA keywright TO :maintain;
SET SESSION AUTHORIZATION :maintain;
SELECT code = CASE WHEN current_setting('server_version_num')::int >= 170000 THEN '00000' ELSE '42501' END AS as_postgres_has_it FROM public.ends('LOCK TABLE keywright.api_keys IN ACCESS EXCLUSIVE MODE', 'REINDEX TABLE keywright.api_keys');
SELECT code FROM public.ends('SELECT FROM keywright.api_keys', 'SELECT stavalues1 FROM pg_statistic', 'DELETE FROM keywright.users', 'TRUNCATE keywright.api_keys CASCADE', $$SELECT keywright.verify_api_key('x')$$);
RESET SESSION AUTHORIZATION;
REVOKE USAGE ON SCHEMA keywright FROM :maintain;
-- pg_monitor reads nothing of it.
SET SESSION AUTHORIZATION regress_security_pg_monitor;
SELECT code FROM public.ends('SELECT FROM keywright.api_keys', 'SELECT keywright.metrics()', 'SELECT stavalues1 FROM pg_statistic');
SELECT count(*) AS samples FROM pg_stats WHERE schemaname = 'keywright';
RESET SESSION AUTHORIZATION;

-- BYPASSRLS alone opens nothing; with pg_read_all_data it reads the hashes.
CREATE ROLE regress_security_bypass BYPASSRLS;
SET SESSION AUTHORIZATION regress_security_bypass;
SELECT code FROM public.ends('SELECT FROM keywright.api_keys');
RESET SESSION AUTHORIZATION;
GRANT pg_read_all_data TO regress_security_bypass;
SET SESSION AUTHORIZATION regress_security_bypass;
SELECT encode(hashed_secret, 'hex') = :'digest' AS the_hash FROM keywright.api_keys WHERE key_id = :'id';
RESET SESSION AUTHORIZATION;

-- Who owns the tables reads the hashes, changes rows and disables triggers, also without being superuser.
CREATE ROLE regress_security_owner;
BEGIN;
GRANT USAGE ON SCHEMA keywright TO regress_security_owner;
ALTER TABLE keywright.api_keys OWNER TO regress_security_owner;
SET LOCAL SESSION AUTHORIZATION regress_security_owner;
SELECT encode(hashed_secret, 'hex') = :'digest' AS the_hash FROM keywright.api_keys WHERE key_id = :'id';
ALTER TABLE keywright.api_keys DISABLE TRIGGER USER;
UPDATE keywright.api_keys SET expires_at = expires_at + interval '1 day' WHERE key_id = :'id' RETURNING true AS prolonged;
ROLLBACK;

-- A superuser reads hashes, and finds no token: there is none. It needs none, it makes a key of its own secret, and with the triggers off nothing notes it.
SELECT encode(hashed_secret, 'hex') = :'digest' AS the_hash FROM keywright.api_keys WHERE key_id = :'id';
BEGIN;
SELECT count(*) AS events FROM keywright.audit_events \gset
SET LOCAL session_replication_role = replica;
INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list, lifetime, created_at)
  SELECT 'AAAAAAAAAA', user_id, 'forged', sha256('ABCDEFGHIJKLMNOPQRSTUV'), now() + interval '1 day', '{all}', '{*:*}', '1 day', now() FROM keywright.users WHERE username = 'alice' AND deleted_at IS NULL;
SELECT active, username FROM keywright.verify_api_key('AAAAAAAAAA-ABCDEFGHIJKLMNOPQRSTUV');
SELECT count(*) - :events AS noted FROM keywright.audit_events;
-- With the triggers off Postgres prints the row it refuses, and in it the hash but for its last byte.
SELECT code, strpos(detail, left(:'digest', 62)) > 0 AS hash_in_it, strpos(detail, :'digest') > 0 AS all_of_it FROM public.refusal(format('UPDATE keywright.api_keys SET name = upper(name) WHERE key_id = %L', :'id'));
SET LOCAL session_replication_role = origin;
SELECT code, strpos(detail, left(:'digest', 62)) > 0 AS hash_in_it, strpos(detail, :'digest') > 0 AS all_of_it FROM public.refusal(format('UPDATE keywright.api_keys SET name = upper(name) WHERE key_id = %L', :'id'));
ROLLBACK;

-- The owner of the database, who is no superuser, sets what everybody may set, and has no right to what is in the schema.
CREATE ROLE regress_security_dba;
ALTER DATABASE :DBNAME OWNER TO regress_security_dba;
SET SESSION AUTHORIZATION regress_security_dba;
SELECT code FROM public.ends('SELECT FROM keywright.api_keys', 'DROP EXTENSION keywright', 'DROP SCHEMA keywright CASCADE', 'CREATE TABLE keywright.mine ()', 'ALTER TABLE keywright.api_keys OWNER TO regress_security_dba',
  format('ALTER DATABASE %I SET keywright.audit_retention = 1', current_database()), format('ALTER DATABASE %I SET keywright.max_api_key_lifetime = 0', current_database()),
  'CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION nothing()', 'CREATE PUBLICATION p FOR ALL TABLES', 'CREATE PUBLICATION p FOR TABLE keywright.api_keys', $$SELECT keywright.verify_api_key('x')$$);
RESET SESSION AUTHORIZATION;
ALTER DATABASE :DBNAME OWNER TO CURRENT_USER;

-- keywright_grantor, which may grant what services need, can not log in, has no member and no other right.
BEGIN;
CREATE ROLE regress_security_rest LOGIN;
CREATE ROLE regress_security_anon;
SELECT count(*) > 0 AS granted FROM keywright.grant_authenticator('s', 'regress_security_rest', 'regress_security_anon');
SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, (SELECT count(*) FROM pg_auth_members WHERE roleid = r.oid) AS members, has_schema_privilege(oid, 'keywright', 'USAGE') AS keywright FROM pg_roles AS r WHERE rolname = 'keywright_grantor';
-- Every role reads the ledger, a setting of it: names of roles, databases and services.
SET LOCAL SESSION AUTHORIZATION regress_keywright_nobody;
SELECT left(setconfig[1], 25) AS ledger, strpos(setconfig::text, 'regress_security_rest') > 0 AS names FROM pg_db_role_setting WHERE setrole = 'keywright_grantor'::regrole;
ROLLBACK;

DO $$
DECLARE
  made name;
BEGIN
  FOR made IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'regress\_security\_%' LOOP
    EXECUTE format('DROP ROLE %I', made);
  END LOOP;
END
$$;
DROP FUNCTION public.ends, public.answers_with;
SELECT keywright.delete_user(u) IS NOT NULL AS deleted FROM unnest('{alice,bob}'::text[]) AS u;
SELECT keywright.purge_api_keys('0') > 0 AS purged;
SELECT (keywright.delete_gateway_key('edge')).name, (keywright.delete_gateway_key('old')).name;
