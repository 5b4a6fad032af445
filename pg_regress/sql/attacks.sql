-- Holes that other systems had, each tried here as the least role that could try it. What is shown is the refusal, and that nothing has changed.
\pset null '(null)'
\set VERBOSITY terse
\set SHOW_CONTEXT never

-- Mallory may log in, make temporary objects and make others in the schema public, as many an application's role may.
CREATE ROLE regress_keywright_mallory LOGIN;
CREATE ROLE regress_keywright_creator LOGIN CREATEROLE;
CREATE ROLE regress_keywright_app NOLOGIN;
-- As PostgREST connects, and what it becomes for a request.
CREATE ROLE regress_keywright_rest LOGIN NOINHERIT;
CREATE ROLE regress_keywright_anon NOLOGIN;
GRANT regress_keywright_app, regress_keywright_anon TO regress_keywright_rest;
GRANT CREATE ON SCHEMA public TO regress_keywright_mallory;
SELECT keywright.grant_access(r, 'requester') FROM unnest('{regress_keywright_app,regress_keywright_anon}'::text[]) AS r;
SELECT keywright.ensure_resource('project', 'p1'), keywright.ensure_resource('project', 'p2'), keywright.define_scope('narrow', '{project:read}');
SELECT outcome FROM keywright.ensure_user('alice', '');
SELECT outcome FROM keywright.ensure_user('bob', '', db_role => 'regress_keywright_app');
SELECT keywright.bind_role('alice', 'owner') IS NOT NULL AS alice, keywright.bind_role('bob', 'project-viewer', 'project', 'p1') IS NOT NULL AS bob;
SELECT key_id AS alices_id, token AS alices FROM keywright.mint_api_key('alice', 'k') \gset
SELECT key_id AS bobs_id, token AS bobs, expires_at AS bobs_end FROM keywright.mint_api_key('bob', 'k', '{narrow}', '{project:p1}') \gset
SELECT gateway_key_id AS gateway_id, token AS gateway FROM keywright.mint_gateway_key('edge') \gset
-- Nothing of a secret but its digest, for a verifier that would have it.
SELECT encode(sha256(substr(:'alices', 16, 22)::bytea), 'hex') AS digest, substr(:'alices', 16) AS secret \gset

-- How each statement ends, as the role in force.
CREATE FUNCTION public.attempt(VARIADIC statements text[]) RETURNS TABLE (code text, message text) LANGUAGE plpgsql AS $$
BEGIN
  FOR n IN 1 .. cardinality(statements) LOOP
    SELECT r.code, r.message INTO code, message FROM public.refusal(statements[n]) AS r;
    RETURN NEXT;
  END LOOP;
END
$$;
-- All that keywright holds, who may do what with it, and what the roles of this suite are.
CREATE FUNCTION public.state() RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  held text := '';
  part text;
  query text;
BEGIN
  FOR query IN
    SELECT format('SELECT string_agg(t::text, chr(10) ORDER BY t::text) FROM keywright.%I AS t', relname) FROM pg_class
     WHERE relnamespace = 'keywright'::regnamespace AND relkind = 'r'
    UNION ALL VALUES
      ('SELECT string_agg(p::text, chr(10) ORDER BY p.oid) FROM pg_proc AS p WHERE pronamespace = ''keywright''::regnamespace'),
      ('SELECT string_agg(concat(relname, relowner, relacl, relrowsecurity, relforcerowsecurity, relhasrules, relhastriggers), chr(10) ORDER BY oid) FROM pg_class WHERE relnamespace = ''keywright''::regnamespace'),
      ('SELECT string_agg(n::text, chr(10)) FROM pg_namespace AS n WHERE nspname = ''keywright'''),
      ('SELECT string_agg(t::text, chr(10) ORDER BY t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = ''keywright''::regnamespace'),
      ('SELECT string_agg(concat(rolname, rolsuper, rolinherit, rolcreaterole, rolbypassrls, rolreplication, rolconfig), chr(10) ORDER BY rolname) FROM pg_roles WHERE rolname LIKE ''regress%'''),
      ('SELECT string_agg(concat(roleid::regrole, member::regrole, admin_option), chr(10) ORDER BY roleid, member) FROM pg_auth_members')
  LOOP
    EXECUTE query INTO part;
    held := held || coalesce(part, '') || chr(12);
  END LOOP;
  RETURN md5(held);
END
$$;
CREATE TABLE public.remembered (state text);
INSERT INTO public.remembered VALUES (public.state());
CREATE FUNCTION public.unchanged() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN public.state() = (SELECT state FROM public.remembered);
END
$$;
CREATE FUNCTION public.remember() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'UPDATE public.remembered SET state = public.state()';
-- It would see a change.
BEGIN;
SELECT keywright.revoke_api_key(:'bobs_id'), public.unchanged();
ROLLBACK;
BEGIN;
GRANT EXECUTE ON FUNCTION keywright.metrics() TO PUBLIC;
SELECT public.unchanged();
ROLLBACK;
SELECT public.unchanged();

-- 1. Show the public id with any secret (KeyHippo: key_data did not check the secret, and a README recommended it for policies).
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT substr(:'alices', 5, 11) || repeat('0', 22) AS wrong, left(:'alices', 15) || substr(:'bobs', 16) AS spliced \gset
SELECT n, v.* FROM unnest(ARRAY[:'wrong', :'spliced', :'alices_id', left(:'alices', 15), left(:'alices', 37), :'alices_id' || '-']) WITH ORDINALITY AS t (token, n),
       LATERAL keywright.verify_api_key(token) AS v ORDER BY n;
SELECT n, v.active, v.key_id FROM unnest(ARRAY['', repeat('00', 32), NULL, repeat('00', 22), encode(sha256(:'alices'), 'hex'), encode(:'alices_id', 'hex')]) WITH ORDINALITY AS t (digest, n),
       LATERAL keywright.verify_api_key_digest(:'alices_id', decode(digest, 'hex')) AS v ORDER BY n;
SELECT * FROM public.attempt(format('SELECT keywright.authenticate_api_key(%L)', :'wrong'), format('SELECT keywright.begin_request(%L)', :'wrong'),
  format($$SELECT keywright.authorize_api_key(%L, 'project:read', 'project:p1')$$, :'wrong'), format('SELECT keywright.revoke_leaked_api_key(%L)', :'wrong'));
SELECT keywright.current_user_id(), keywright.is_permitted('project:read', 'project', 'p1');
SELECT active, gateway_key_id FROM keywright.verify_gateway_key(left(:'gateway', 11) || repeat('0', 26) || right(:'gateway', 6));
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT cause, username, name FROM keywright.explain_api_key(:'wrong');
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT keywright.revoke_leaked_api_key(:'wrong') AS revoked, public.unchanged();
SELECT token IS NOT NULL AS minted_for_bob_only, outcome, reason FROM keywright.ensure_api_key('bob', 'k', :'alices', '{narrow}', '{project:p1}');
RESET SESSION AUTHORIZATION;
SELECT active AS alices FROM keywright.verify_api_key(:'alices');
-- That was an issuer's right: bob has a new key.
SELECT key_id AS bobs_id, expires_at AS bobs_end FROM keywright.list_api_keys('bob') \gset
SELECT key_id AS bobs_id, token AS bobs, expires_at AS bobs_end FROM keywright.rotate_api_key(:'bobs_id') \gset
SELECT public.remember();

-- 2. Read and delete everybody's audit (KeyHippo: no row security, DML for all).
SET SESSION AUTHORIZATION regress_keywright_mallory;
SELECT * FROM public.attempt('SELECT FROM keywright.audit_events', 'DELETE FROM keywright.audit_events', 'SELECT keywright.list_audit_events()', 'SELECT keywright.prune_audit_events()');
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT * FROM public.attempt('SELECT FROM keywright.audit_events', 'DELETE FROM keywright.audit_events', 'SELECT keywright.list_audit_events()', 'SELECT keywright.prune_audit_events()');
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT * FROM public.attempt('DELETE FROM keywright.audit_events', 'TRUNCATE keywright.audit_events', 'UPDATE keywright.audit_events SET event = event',
  'SET keywright.audit_retention = 1', 'ALTER TABLE keywright.audit_events DISABLE TRIGGER ALL', 'SET session_replication_role = replica');
SELECT keywright.prune_audit_events(), public.unchanged();
RESET SESSION AUTHORIZATION;
-- Nor does somebody above them all, but for who means it and disables the triggers.
SELECT code, regexp_replace(message, '[0-9a-f-]{36}', 'ID') FROM public.attempt('DELETE FROM keywright.audit_events', 'TRUNCATE keywright.audit_events', 'UPDATE keywright.audit_events SET kind = kind');
SELECT public.unchanged();

-- 3. Be whom somebody else impersonates (KeyHippo: a committed row made every session its user). No such state exists: a session acts for a key by
-- its token alone, in its own memory and for one transaction. Two sessions side by side are in isolation/specs/attacks-concurrent.
SET SESSION AUTHORIZATION regress_keywright_admin;
BEGIN;
SELECT username FROM keywright.begin_request(:'alices');
COMMIT;
SELECT keywright.current_user_id(), keywright.is_permitted('project:read', 'project', 'p1');
SET SESSION AUTHORIZATION regress_keywright_anon;
SELECT keywright.current_user_id(), keywright.current_api_key_id(), keywright.current_scopes();
SELECT * FROM public.attempt('CREATE TABLE keywright.impersonation_state ()', 'INSERT INTO keywright.users DEFAULT VALUES', $$SET keywright.current_user_id = 'x'$$,
  $$SELECT set_config('keywright.current_api_key_id', 'x', false)$$, 'SELECT keywright.impersonate()', $$SELECT keywright.mint_api_key('alice', 'mine')$$);
SELECT public.unchanged();

-- 4. Shadow what a function with other rights reads: tables, views, types in pg_temp (KeyHippo: a temporary table made anon Alice; CVE-2018-1058 and
-- CVE-2007-2138), functions and operators in a schema that comes first. Each of them warns when it runs with other rights than the caller's. As the role that may call the most.
RESET SESSION AUTHORIZATION;
CREATE ROLE regress_keywright_deputy;
GRANT CREATE ON SCHEMA public TO regress_keywright_deputy;
SELECT keywright.grant_access('regress_keywright_deputy', 'admin');
CREATE FUNCTION public.careless() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS $$ SELECT 'a'::pg_catalog.text = 'a'::pg_catalog.text $$;
SET SESSION AUTHORIZATION regress_keywright_deputy;
CREATE FUNCTION public.spring(what text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF current_user <> session_user THEN
    RAISE WARNING '% fell for %', current_user, what;
  END IF;
  RETURN true;
END
$$;
DO $$
DECLARE
  r record;
  kind text;
BEGIN
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
  -- Tables and views of keywright, and those of Postgres that it asks.
  FOR r IN SELECT DISTINCT c.relname FROM pg_class AS c WHERE c.relkind IN ('r', 'v') AND (c.relnamespace = 'keywright'::regnamespace
             OR c.relname = ANY ('{pg_class,pg_proc,pg_namespace,pg_roles,pg_authid,pg_auth_members,pg_db_role_setting,pg_database,pg_type,pg_attribute,pg_trigger,pg_locks,pg_depend,pg_extension,pg_settings,pg_stat_all_tables}'))
  LOOP
    EXECUTE format('CREATE TEMPORARY VIEW %I AS SELECT public.spring(%L) AS user_id', r.relname, 'view ' || r.relname);
  END LOOP;
  -- Types that spring when a value is made of them.
  FOREACH kind IN ARRAY '{text,uuid,int4,int8,bool,jsonb,json,interval,timestamptz,regclass,regrole,regprocedure,name,oid,bytea}'::text[] LOOP
    EXECUTE format('CREATE DOMAIN pg_temp.%I AS pg_catalog.%1$I CHECK (public.spring(%L))', kind, 'type ' || kind);
  END LOOP;
  -- Each function of Postgres by a name that occurs in SQL or PL/pgSQL of keywright, with the same arguments, and each operator on types it compares.
  FOR r IN SELECT f.proname, pg_get_function_identity_arguments(f.oid) AS arguments, f.prorettype::regtype AS result, f.oid::regprocedure AS what
             FROM pg_proc AS f
            WHERE f.pronamespace = 'pg_catalog'::regnamespace AND f.prokind = 'f' AND NOT f.proretset AND f.pronargs > 0 AND f.provariadic = 0
              AND f.prorettype::regtype::text !~ '^(internal|any|cstring|record|trigger|void)' AND pg_get_function_identity_arguments(f.oid) !~ 'internal|any|cstring|OUT'
              AND EXISTS (SELECT FROM pg_proc AS k WHERE k.pronamespace = 'keywright'::regnamespace AND k.prosrc ~ ('\m' || f.proname || '\('))
  LOOP
    EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.spring(%L); RETURN NULL; END $f$', r.proname, r.arguments, r.result, r.what);
  END LOOP;
  FOR r IN SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result, o.oid::regoperator AS what FROM pg_operator AS o
            WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0 AND o.oprresult <> 0
              AND o.oprleft = ANY ('{text,uuid,int4,int8,timestamptz,interval,oid,name,jsonb,bool,text[],"char"}'::regtype[])
              AND o.oprright = ANY ('{text,uuid,int4,int8,timestamptz,interval,oid,name,jsonb,bool,text[],"char"}'::regtype[])
  LOOP
    EXECUTE format('CREATE FUNCTION public.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.spring(%L); RETURN NULL; END $f$', 'op ' || r.what, r.l, r.r, r.result, r.what);
    EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.%I)', r.oprname, r.l, r.r, 'op ' || r.what);
  END LOOP;
END
$$;
-- They work: on the one who calls them, and on somebody's function that is careless.
SET search_path = pg_temp, public, pg_catalog, keywright;
SELECT user_id IS NULL AS shadowed, 'a'::pg_catalog.text = 'a'::pg_catalog.text AS equal FROM users;
SELECT public.careless();
-- Everything that an admin may call, and no warning.
SELECT keywright.current_user_id(), keywright.needs_first_user();
SELECT (keywright.verify_api_key(:'alices'::pg_catalog.text)).username, (keywright.verify_api_key(:'wrong'::pg_catalog.text)).active, (keywright.verify_gateway_key(:'gateway'::pg_catalog.text)).name,
       (keywright.authenticate_api_key(:'alices'::pg_catalog.text)).username, keywright.has_permission('bob', 'project:delete', 'project', 'p1');
SELECT (keywright.explain_api_key(:'alices'::pg_catalog.text)).cause;
SELECT keywright.touch_api_key(:'alices_id'::pg_catalog.text), keywright.heartbeat_gateway_key(:'gateway_id'::pg_catalog.uuid);
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some FROM keywright.metrics();
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some FROM keywright.list_audit_events();
SELECT (keywright.list_users(page_size => 1)).username, (keywright.list_api_keys('bob')).name, (keywright.list_gateway_keys()).name, (keywright.list_roles()).name;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some FROM keywright.list_access(), keywright.list_scopes(), keywright.list_resource_types();
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some FROM keywright.list_resources('project'), keywright.list_role_bindings(), keywright.key_usage();
SELECT pg_catalog.count(*) AS none FROM keywright.authenticator_status(), keywright.list_authenticators(), keywright.list_allowed_authenticators(), keywright.postgrest_config();
SELECT (keywright.preflight_authenticator('regress_keywright_rest', 'regress_keywright_anon')).code;
BEGIN;
SELECT username FROM keywright.begin_request(:'bobs');
SELECT keywright.is_permitted('project:read', 'project', 'p1'), keywright.is_permitted('project:delete', 'project', 'p1');
SELECT keywright.check_request();
SELECT (keywright.ensure_user('carl', '')).outcome, (keywright.ensure_system_user('robot')).outcome, (keywright.mint_api_key('carl', 'k')).token IS NOT NULL AS token,
       (keywright.mint_gateway_key('carls')).name, keywright.ensure_resource('project', 'p3'), keywright.register_resource_type('thing'), keywright.define_role('r', '{project:read}'), keywright.define_scope('s', '{project:read}');
SELECT (keywright.bind_role('carl', 'r')).outcome, (keywright.ensure_api_key('carl', 'k')).reason, (keywright.ensure_gateway_key('carls')).outcome, (keywright.mint_api_keys('{carl}', '{m}')).name;
SELECT (keywright.rotate_gateway_key('carls')).name, (keywright.delete_gateway_key('carls')).name, keywright.unbind_role('carl', 'r'), keywright.delete_role('r'), keywright.delete_scope('s'), keywright.delete_resource('project', 'p3');
SELECT (keywright.ensure_operator_access('ns', 'cp')).outcome, keywright.revoke_operator_access('ns', 'cp'), keywright.suspend_user('carl'), keywright.activate_user('carl'), keywright.revoke_user_api_keys('carl');
SELECT (keywright.rotate_api_key(:'bobs_id'::pg_catalog.text)).token IS NOT NULL AS token, keywright.revoke_api_key(:'alices_id'::pg_catalog.text), keywright.purge_api_keys(), keywright.purge_gateway_keys(), keywright.purge_api_key_usage(), keywright.prune_audit_events();
SELECT (keywright.plan('{"manager": "m", "users": [{"username": "dora", "kind": "service", "email": ""}]}')).action, (keywright.apply('{"manager": "m", "users": [{"username": "dora", "kind": "service", "email": ""}]}')).action;
SELECT keywright.grant_access('regress_keywright_mallory', 'verifier'), keywright.revoke_access('regress_keywright_mallory', 'verifier');
SELECT keywright.grant_authenticator('s', 'regress_keywright_rest', 'regress_keywright_anon');
ROLLBACK;
BEGIN;
SELECT keywright.delete_user('bob') IS NOT NULL AS deleted;
ROLLBACK;
CALL keywright.maintain();
CREATE TABLE public.tracked (id pg_catalog.int4, parent pg_catalog.int4, name pg_catalog.text);
SELECT (keywright.track_table('public.tracked', 'session', 'id', 'parent', 'name')).outcome;
INSERT INTO public.tracked VALUES (1, 2, 'x');
DELETE FROM public.tracked;
RESET SESSION AUTHORIZATION;
RESET ALL;
SET client_min_messages = warning;
DISCARD TEMP;
SELECT keywright.revoke_access('regress_keywright_deputy', 'admin');
DROP OWNED BY regress_keywright_deputy;
RESET client_min_messages;
DROP ROLE regress_keywright_deputy;
DROP FUNCTION public.careless;
SELECT public.remember();

-- 5. Take over a key's owner, give one's key a longer life (KeyHippo: UPDATE of user_id and expires_at). In a request, with a key of one's own.
SET SESSION AUTHORIZATION regress_keywright_rest;
BEGIN;
SET LOCAL ROLE regress_keywright_app;
SELECT username FROM keywright.begin_request(:'bobs');
SELECT * FROM public.attempt(
  $$UPDATE keywright.api_keys SET user_id = (SELECT user_id FROM keywright.users WHERE username = 'alice')$$, $$UPDATE keywright.api_keys SET expires_at = 'infinity', revoked_at = NULL$$,
  format('SELECT keywright.rotate_api_key(%L)', :'bobs_id'), format($$SELECT keywright.ensure_api_key('bob', 'k', %L, lifetime => '90 years')$$, :'bobs'),
  $$SELECT keywright.ensure_user('bob', '', db_role => 'regress_keywright_mallory')$$, $$SELECT keywright.activate_user('bob')$$, format('SELECT keywright.expire_api_key(%L)', :'alices_id'));
ROLLBACK;
-- An issuer neither: a grace ends with the key, expiring never prolongs, and nothing is for ever.
SET SESSION AUTHORIZATION regress_keywright_issuer;
BEGIN;
SELECT predecessor_expires_at = :'bobs_end' AS as_before FROM keywright.rotate_api_key(:'bobs_id', '50 years');
SELECT * FROM public.attempt($$SELECT keywright.mint_api_key('bob', 'x', lifetime => '200 years')$$, $$SELECT keywright.mint_api_key('bob', 'x', lifetime => NULL)$$);
ROLLBACK;
SELECT public.unchanged();

-- 6. Widen the scopes of one's own key (KeyHippo: UPDATE of scope_id).
SET SESSION AUTHORIZATION regress_keywright_rest;
BEGIN;
SET LOCAL ROLE regress_keywright_app;
SELECT username FROM keywright.begin_request(:'bobs');
SELECT * FROM public.attempt($$UPDATE keywright.api_keys SET scopes = '{all}', allow_list = '{*:*}'$$, $$UPDATE keywright.scopes SET permissions = '{*:*}'$$, $$INSERT INTO keywright.role_bindings DEFAULT VALUES$$,
  $$SELECT keywright.define_scope('narrow', '{*:*}')$$, $$SELECT keywright.bind_role('bob', 'owner')$$, $$SELECT keywright.define_role('project-viewer', '{*:*}')$$,
  $$SET keywright.current_scopes = 'all'$$, $$SELECT keywright.mint_api_key('bob', 'wider')$$);
SELECT keywright.current_scopes(), keywright.is_permitted('project:read', 'project', 'p1') AS his, keywright.is_permitted('project:delete', 'project', 'p1') AS wider, keywright.is_permitted('project:read', 'project', 'p2') AS elsewhere;
ROLLBACK;
SELECT public.unchanged();

-- 7. Call what was left to PUBLIC (KeyHippo: anon reset the configuration). Every function and procedure, as nobody; then as somebody who may look into the schema.
RESET SESSION AUTHORIZATION;
CREATE FUNCTION public.call_everything(OUT code text, OUT functions bigint, OUT message text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
  called regprocedure;
  ending text;
  endings text[] := '{}';
BEGIN
  FOR called IN SELECT oid FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace LOOP
    SELECT r.code || ' ' || regexp_replace(r.message, '(for \w+) .*', '\1') INTO ending
      FROM pg_proc AS p, LATERAL public.refusal(format('%s keywright.%I(%s)', CASE prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, proname,
             (SELECT string_agg('NULL::' || t::regtype, ', ') FROM unnest(p.proargtypes) AS t))) AS r WHERE p.oid = called;
    endings := endings || ending;
  END LOOP;
  RETURN QUERY SELECT left(e, 5), count(*), substr(e, 7) FROM unnest(endings) AS e GROUP BY e;
END
$$;
SELECT count(*) AS functions FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace \gset
SET SESSION AUTHORIZATION regress_keywright_mallory;
SELECT code, functions = :functions AS all_of_them, message FROM public.call_everything();
RESET SESSION AUTHORIZATION;
BEGIN;
GRANT USAGE ON SCHEMA keywright TO regress_keywright_mallory;
SET LOCAL SESSION AUTHORIZATION regress_keywright_mallory;
SELECT code, functions = :functions AS all_of_them, message FROM public.call_everything();
SELECT * FROM public.attempt('ALTER EXTENSION keywright UPDATE', 'DROP EXTENSION keywright', 'CREATE FUNCTION keywright.mine() RETURNS integer RETURN 1',
  $$CREATE FUNCTION public.mine(text) RETURNS boolean LANGUAGE c AS '$libdir/keywright', 'writing_wrapper'$$,
  'CREATE OR REPLACE FUNCTION keywright.needs_first_user() RETURNS boolean RETURN true', 'ALTER FUNCTION keywright.verify_api_key(text) RESET ALL');
-- Its triggers, on a table of one's own; its tables, in a constraint, a view, a policy, a rule, a lock.
CREATE TABLE public.mine (key_id text);
SELECT * FROM public.attempt('CREATE TRIGGER t BEFORE INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION keywright._audit()',
  $$CREATE TRIGGER t BEFORE INSERT ON public.mine FOR EACH ROW EXECUTE FUNCTION keywright.track_resource('project', 'key_id')$$,
  $$SELECT keywright.track_table('public.mine', 'project', 'key_id')$$,
  'ALTER TABLE public.mine ADD FOREIGN KEY (key_id) REFERENCES keywright.api_keys', 'CREATE INDEX ON keywright.api_keys (hashed_secret)', 'CREATE STATISTICS s ON key_id, hashed_secret FROM keywright.api_keys',
  'CREATE TRIGGER t BEFORE INSERT ON keywright.api_keys FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'CREATE POLICY p ON keywright.api_keys USING (true)',
  'CREATE RULE r AS ON UPDATE TO keywright.api_keys DO INSTEAD NOTHING', 'LOCK TABLE keywright.api_keys IN ACCESS SHARE MODE', 'ALTER TABLE public.mine INHERIT keywright.api_keys',
  'CREATE TABLE public.child () INHERITS (keywright.api_keys)', 'TABLE keywright._capability_functions', 'CREATE TABLE public.typed (v keywright.verified_api_key)');
CREATE VIEW public.peek AS SELECT hashed_secret FROM keywright.api_keys;
SELECT * FROM public.attempt('TABLE public.peek', 'EXPLAIN ANALYZE TABLE keywright.api_keys', 'SELECT ctid FROM keywright.api_keys', 'SELECT FROM keywright.users');
SELECT count(*) AS statistics_seen FROM pg_stats WHERE schemaname = 'keywright';
ROLLBACK;
SELECT public.unchanged();

-- 8. Have the database call somebody (KeyHippo: installation and expiry notices went to its maker). Nothing is there that could: no other extension, job, foreign server, subscription
-- or event trigger comes along. What the library can ask of the operating system is in tests/attacks.rs.
SELECT e.extname AS needs FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
 WHERE d.classid = 'pg_extension'::regclass AND d.objid = (SELECT oid FROM pg_extension WHERE extname = 'keywright') AND d.refclassid = 'pg_extension'::regclass;
SELECT DISTINCT d.classid::regclass::text COLLATE "C" AS kind_of_member FROM pg_depend AS d WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'keywright') AND d.deptype = 'e' ORDER BY 1;

-- 9. Keep a scoped key alive past its revocation, revoke somebody else's of the same scope (KeyHippo).
SET SESSION AUTHORIZATION regress_keywright_rest;
BEGIN;
SET LOCAL ROLE regress_keywright_app;
SELECT username FROM keywright.begin_request(:'bobs');
SELECT * FROM public.attempt(format('SELECT keywright.revoke_api_key(%L)', :'alices_id'), format('SELECT keywright.revoke_leaked_api_key(%L)', :'alices'), $$SELECT keywright.revoke_user_api_keys('alice')$$,
  format('SELECT keywright.rotate_api_key(%L)', :'alices_id'), $$SELECT keywright.suspend_user('alice')$$, format('DELETE FROM keywright.api_keys WHERE key_id = %L', :'alices_id'));
ROLLBACK;
SELECT public.unchanged();
SET SESSION AUTHORIZATION regress_keywright_issuer;
BEGIN;
SELECT keywright.revoke_api_key(:'bobs_id') AS a_scoped_key;
SET LOCAL SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active FROM keywright.verify_api_key(:'bobs');
ROLLBACK;

-- 10. Be authorized by a claim instead of the key, on another resource than the one that is asked for (KeyHippo: authorize read user_role of the JWT and ignored its resource).
SET SESSION AUTHORIZATION regress_keywright_rest;
BEGIN;
SET LOCAL ROLE regress_keywright_app;
SELECT set_config('request.jwt.claims', '{"role":"postgres","user_role":"admin","sub":"alice"}', true) <> '' AS claimed, set_config('request.jwt.claim.user_role', 'admin', true) AS claim;
SELECT keywright.current_user_id(), keywright.is_permitted('project:read', 'project', 'p1');
SELECT username FROM keywright.begin_request(:'bobs');
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS his, keywright.is_permitted('project:read', 'project', 'p2') AS other, keywright.is_permitted('project:read') AS everywhere,
       keywright.is_permitted('project:read', 'project') AS no_id, keywright.is_permitted('project:read', NULL, 'p1') AS no_type, keywright.is_permitted('*:*', 'project', 'p1') AS anything;
SELECT set_config('request.jwt.claims', '', true), keywright.is_permitted('project:read', 'project', 'p2') AS empty_claims;
ROLLBACK;
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT code, message FROM unnest(ARRAY['project:p1', 'project:p2', 'project:nowhere']) WITH ORDINALITY AS r (resource, n), LATERAL public.refusal(format('SELECT keywright.authorize_api_key(%L, %L, %L)', :'bobs', 'project:read', resource)) ORDER BY n;

-- 11. Get more by rotating (KeyHippo: claims gone, and expiry in a hundred years).
SET SESSION AUTHORIZATION regress_keywright_issuer;
BEGIN;
SELECT key_id AS successor, expires_at - clock_timestamp() <= '90 days' AS no_longer FROM keywright.rotate_api_key(:'bobs_id', '1 hour') \gset
SELECT :'no_longer' AS no_longer;
SELECT state, name, scopes, allow_list FROM keywright.list_api_keys('bob') ORDER BY created_at;
ROLLBACK;

-- 12. Stop verification by holding the key's row, or drown it in audit (KeyHippo: it waited for the row, failed in REPEATABLE READ and wrote each time).
-- It takes no lock that could wait: see isolation/specs/attacks-concurrent.
SET SESSION AUTHORIZATION regress_keywright_verifier;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT active, (SELECT count(*) FROM keywright.verify_api_keys(array_fill(:'alices'::text, '{100}')) AS v WHERE v.active) AS more FROM keywright.verify_api_key(:'alices');
SELECT pg_current_xact_id_if_assigned();
COMMIT;
SELECT public.unchanged();

-- 13. Let a bad key fall through to another identity (KeyHippo: to the JWT's). Short, wrong and good keys of others; with claims, and after a good key.
SET SESSION AUTHORIZATION regress_keywright_rest;
\set VERBOSITY default
BEGIN;
SELECT set_config('role', 'regress_keywright_anon', true), set_config('request.jwt.claims', '{"sub":"alice","role":"regress_keywright_app"}', true) <> '' AS claims,
       set_config('request.headers', json_build_object('x-api-key', 'x')::text, true) AS headers;
SELECT keywright.check_request();
ROLLBACK;
\set VERBOSITY terse
BEGIN;
SET LOCAL ROLE regress_keywright_anon;
SELECT n, code, message FROM unnest(ARRAY['x', '', :'wrong', :'gateway', :'alices_id', :'bobs' || 'x']) WITH ORDINALITY AS k (key, n),
  LATERAL public.refusal(format($$SELECT set_config('request.headers', %L, true); SELECT keywright.check_request()$$, json_build_object('x-api-key', key))) ORDER BY n;
-- None of them left anything; after a good one the request has failed.
SELECT keywright.current_user_id(), current_user;
SELECT username FROM keywright.begin_request(:'bobs');
SELECT keywright.begin_request(:'wrong');
SELECT keywright.is_permitted('project:read', 'project', 'p1');
ROLLBACK;
SELECT public.unchanged();
RESET SESSION AUTHORIZATION;

-- Tokens that can be predicted (the Rust registry, 2020: made by random() in SQL). The same seed does not give the same token; what the library gets its randomness from is in tests/attacks.rs.
SET SESSION AUTHORIZATION regress_keywright_issuer;
BEGIN;
SELECT setseed(0.5);
SELECT token AS first FROM keywright.mint_api_key('bob', 'a') \gset
SELECT setseed(0.5);
SELECT token AS second FROM keywright.mint_api_key('bob', 'b') \gset
SELECT :'first' <> :'second' AS another, substr(:'first', 16, 22) <> substr(:'second', 16, 22) AS another_secret, substr(:'first', 5, 10) <> substr(:'second', 5, 10) AS another_id;
-- 1,000 of them: none twice, and no digit too frequent in any place (each comes 16 times; 45 are seven deviations more).
WITH m AS (SELECT token FROM keywright.mint_api_keys(array_fill('bob'::text, '{1000}'), ARRAY(SELECT 'n' || n FROM generate_series(1, 1000) AS n))),
     d AS (SELECT count(*) AS times FROM m, generate_series(5, 37) AS place WHERE place <> 15 GROUP BY place, substr(token, place, 1))
SELECT (SELECT count(DISTINCT substr(token, 16, 22)) FROM m) AS secrets, count(*) AS digits_of_places, max(times) < 45 AS even FROM d;
ROLLBACK;
RESET SESSION AUTHORIZATION;
SELECT p.oid::regprocedure AS asks_random FROM pg_proc AS p WHERE p.pronamespace = 'keywright'::regnamespace AND p.prosrc ~* '\mrandom\M|md5';

-- Tokens in what an error or a log collector gets to see (the Rust registry, 2025: cookies sent to the error tracker; OpenBao CVE-2025-62513 and CVE-2025-62705: in the audit), and SQL in a token
-- (LiteLLM CVE-2026-42208: the key concatenated into its look-up; OpenBao CVE-2026-39946: a name unquoted in a revoke). Each goes into every text argument of every function.
CREATE FUNCTION public.call_everything_with(payload text, OUT codes text[], OUT repeated bigint) LANGUAGE plpgsql AS $$
DECLARE
  called record;
  ended record;
  endings text[] := '{}';
BEGIN
  repeated := 0;
  FOR called IN
    SELECT p.oid, format('%s keywright.%I(%s)', CASE prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, proname,
             (SELECT string_agg(CASE t::regtype::text
                        WHEN 'text' THEN format('%L::text', payload) WHEN 'text[]' THEN format('ARRAY[%L]::text[]', payload)
                        WHEN 'jsonb' THEN format('jsonb_build_object(%L::text, %L::text)', payload, payload) WHEN 'bytea' THEN format('convert_to(%L, ''UTF8'')', payload)
                        WHEN 'interval' THEN '''1 day''::interval' WHEN 'integer' THEN '3' WHEN 'boolean' THEN 'false' ELSE 'NULL::' || t::regtype END, ', ' ORDER BY n)
                FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n))) AS statement
      FROM pg_proc AS p WHERE pronamespace = 'keywright'::regnamespace AND p.proname NOT LIKE '\_%' AND 'text' = ANY (SELECT replace(t::regtype::text, '[]', '') FROM unnest(p.proargtypes) AS t)
  LOOP
    BEGIN
      SELECT * INTO ended FROM public.refusal(called.statement);
      endings := endings || ended.code;
      IF strpos(concat_ws(' ', ended.message, ended.detail, ended.hint), substr(payload, 16, 22)) > 0 THEN
        repeated := repeated + 1;
      END IF;
      RAISE SQLSTATE 'XYZZY';
    EXCEPTION WHEN SQLSTATE 'XYZZY' THEN
      NULL;
    END;
  END LOOP;
  codes := ARRAY(SELECT DISTINCT e FROM unnest(endings) AS e ORDER BY e);
END
$$;
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT n, w.* FROM unnest(ARRAY[:'alices', substr(:'alices', 5, 33), :'gateway']) WITH ORDINALITY AS t (payload, n), LATERAL public.call_everything_with(payload) AS w ORDER BY n;
-- Text is text: no syntax error, nothing dropped, no wildcard.
SELECT payload, w.codes FROM unnest(ARRAY['x'' OR ''1''=''1', '''; DROP TABLE keywright.users; --', '"; ALTER ROLE regress_keywright_mallory SUPERUSER; --', E'\\''; SELECT pg_sleep(9); --', '$1', '$$', '%s%n%L', '{"a":1}',
       'a,b', E'x\ny', '*', '_', '']) WITH ORDINALITY AS t (payload, n), LATERAL public.call_everything_with(payload) AS w ORDER BY n;
SELECT public.unchanged();
RESET SESSION AUTHORIZATION;
-- No secret in any row of any table, nor any other form of it than the digest.
CREATE FUNCTION public.rows_with(needle text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  query text := (SELECT string_agg(format('SELECT t::text AS r FROM keywright.%I AS t', relname), ' UNION ALL ') FROM pg_class WHERE relnamespace = 'keywright'::regnamespace AND relkind = 'r');
  found bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM (%s) AS a WHERE strpos(lower(r), lower(%L)) > 0', query, needle) INTO found;
  RETURN found;
END
$$;
SELECT public.rows_with(:'digest') AS digest, public.rows_with(substr(:'alices', 16, 22)) AS secret, public.rows_with(encode(substr(:'alices', 16, 22)::bytea, 'hex')) AS hex,
       public.rows_with(encode(substr(:'alices', 16, 22)::bytea, 'base64')) AS base64, public.rows_with(encode(sha256(:'alices'), 'hex')) AS another_digest;
-- A role with a name that is SQL.
CREATE ROLE "regress_keywright""; DROP SCHEMA app; --";
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.grant_access(r, 'auditor'), keywright.grant_access(r, 'auditor'), keywright.revoke_access(r, 'auditor') FROM unnest(ARRAY['regress_keywright"; DROP SCHEMA app; --']) AS r;
RESET SESSION AUTHORIZATION;
DROP ROLE "regress_keywright""; DROP SCHEMA app; --";
SELECT public.remember();

-- Mint for a user that is only named in the request, without a session (better-auth CVE-2025-61928). Whoever may not mint is refused whatever it names; without a key nothing is permitted.
SET SESSION AUTHORIZATION regress_keywright_rest;
BEGIN;
SET LOCAL ROLE regress_keywright_anon;
SELECT set_config('request.headers', '{"x-user-id":"alice","user_id":"alice","authorization":"Bearer alice"}', true) IS NOT NULL AS headers, keywright.check_request();
SELECT * FROM public.attempt($$SELECT keywright.mint_api_key('alice', 'mine')$$, $$SELECT keywright.ensure_api_key('alice', 'k')$$, $$SELECT keywright.mint_api_keys('{alice}', '{mine}')$$,
  $$SELECT keywright.ensure_operator_access('ns', 'cp')$$, $$SELECT keywright.mint_gateway_key('mine')$$, $$SELECT keywright.apply('{}')$$);
SELECT keywright.current_user_id(), keywright.is_permitted('project:read', 'project', 'p1') AS permitted, keywright.is_permitted('project:read') AS everywhere;
ROLLBACK;
SELECT public.unchanged();

-- Tell from the answer, or from the time it takes, which keys exist (fastapi-api-key CVE-2026-23996, OpenBao CVE-2025-54999 and GHSA-34fc-gh42-pj53). One answer and one error for every cause.
-- How long each takes is measured by scripts/timing; SECURITY.md has the figures.
RESET SESSION AUTHORIZATION;
SELECT token AS revoked, keywright.revoke_api_key(key_id) FROM keywright.mint_api_key('bob', 'revoked') \gset
SELECT token AS expired, keywright.expire_api_key(key_id) FROM keywright.mint_api_key('bob', 'expired') \gset
SELECT outcome FROM keywright.ensure_user('sue', '');
SELECT outcome FROM keywright.ensure_user('dan', '');
SELECT token AS suspended FROM keywright.mint_api_key('sue', 'k') \gset
SELECT token AS deleted FROM keywright.mint_api_key('dan', 'k') \gset
SELECT keywright.suspend_user('sue'), keywright.delete_user('dan') IS NOT NULL AS deleted_user;
SELECT public.remember();
CREATE TEMP TABLE dead AS SELECT * FROM (VALUES ('unknown', 'AAAAAAAAAA' || substr(:'wrong', 11)), ('wrong secret', :'wrong'), ('revoked', :'revoked'), ('expired', :'expired'), ('suspended', :'suspended'), ('deleted', :'deleted'),
  ('wrong and revoked', substr(:'revoked', 5, 11) || repeat('0', 22)), ('malformed', 'x'), ('null', NULL)) AS v (what, token);
GRANT SELECT ON dead TO PUBLIC;
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT count(*) AS tokens, count(DISTINCT v) AS answers, bool_or(v.active) AS any_active FROM dead, LATERAL keywright.verify_api_key(token) AS v;
SELECT count(*) AS tokens, r.code, r.message, r.detail, r.hint FROM dead, LATERAL public.refusal(format('SELECT keywright.authenticate_api_key(%L)', token)) AS r GROUP BY 2, 3, 4, 5;
SELECT count(*) AS tokens, r.code, r.message, r.detail, r.hint FROM dead, LATERAL public.refusal(format($$SELECT keywright.authorize_api_key(%L, 'project:read', 'project:p1')$$, token)) AS r GROUP BY 2, 3, 4, 5;
SELECT count(*) AS tokens, r.code, r.message, r.detail, r.hint FROM dead, LATERAL public.refusal(format('SELECT keywright.begin_request(%L)', token)) AS r GROUP BY 2, 3, 4, 5;
-- Nor is the reason to be had, by another function.
SELECT * FROM public.attempt('SELECT keywright.explain_api_key(token) FROM dead', 'SELECT keywright.list_api_keys()', 'SELECT keywright.key_usage()', $$SELECT keywright.list_users()$$);
SELECT public.unchanged();

-- Take a way in on which scopes are not asked, or have none at all (Gitea CVE-2025-68941, CVE-2026-24791, CVE-2026-28744, CVE-2026-28699: one route or header without the check; absent scope = all).
-- Every way gives the key the same scopes, and a scope that is gone permits nothing.
SELECT array_agg(DISTINCT scopes) AS scopes, array_agg(DISTINCT allow_list) AS allow_lists, count(*) AS ways FROM (
  SELECT scopes, allow_list FROM keywright.verify_api_key(:'bobs') UNION ALL SELECT scopes, allow_list FROM keywright.verify_api_key(substr(:'bobs', 5, 33))
  UNION ALL SELECT scopes, allow_list FROM keywright.authenticate_api_key(:'bobs') UNION ALL SELECT scopes, allow_list FROM keywright.verify_api_keys(ARRAY[:'bobs'])
  UNION ALL SELECT scopes, allow_list FROM keywright.verify_api_key_digest(:'bobs_id', sha256(substr(:'bobs', 16, 22)::bytea))
  UNION ALL SELECT scopes, allow_list FROM keywright.authorize_api_key(substr(:'bobs', 5, 33), 'project:read', 'project:p1')) AS w;
SELECT * FROM public.attempt(format($$SELECT keywright.authorize_api_key(%L, 'project:update', 'project:p1')$$, :'bobs'), format($$SELECT keywright.authorize_api_key(%L, 'project:update', 'project:p1')$$, substr(:'bobs', 5, 33)),
  format($$SELECT keywright.authorize_api_key(%L, NULL, 'project:p1')$$, :'bobs'), format($$SELECT keywright.authorize_api_key(%L, '', 'project:p1')$$, :'bobs'), format($$SELECT keywright.authorize_api_key(%L, 'project:read')$$, :'bobs'));
RESET SESSION AUTHORIZATION;
BEGIN;
SET LOCAL SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT code, message FROM public.attempt($$SELECT keywright.delete_scope('narrow')$$, $$SELECT keywright.define_scope('narrow', '{}')$$, $$SELECT keywright.mint_api_key('bob', 'none', '{}')$$, $$SELECT keywright.mint_api_key('bob', 'none', NULL)$$,
  $$SELECT keywright.mint_api_key('bob', 'none', allow_list => '{}')$$);
RESET SESSION AUTHORIZATION;
SET LOCAL session_replication_role = replica;
DELETE FROM keywright.scopes WHERE name = 'narrow';
SELECT code, message FROM public.attempt(format($$SELECT keywright.authorize_api_key(%L, 'project:read', 'project:p1')$$, :'bobs'));
ROLLBACK;
SELECT public.unchanged();

-- Make a name a pattern (OpenBao GHSA-59w7-v8rr-pr4p: +, * and / of an identity became wildcards in a policy). As an issuer and a reconciler, who choose names.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT * FROM public.attempt($$SELECT keywright.ensure_user('*', '')$$, $$SELECT keywright.ensure_user('ali%', '')$$, $$SELECT keywright.ensure_user('a+b', '')$$, $$SELECT keywright.ensure_user('../alice', '')$$,
  $$SELECT keywright.ensure_resource('project', '*')$$, $$SELECT keywright.ensure_resource('project', 'p1', 'acme:*')$$, $$SELECT keywright.ensure_resource('pro*', 'p1')$$, $$SELECT keywright.register_resource_type('*')$$,
  $$SELECT keywright.define_role('*', '{project:read}')$$, $$SELECT keywright.define_role('r', '{pro*:read}')$$, $$SELECT keywright.define_scope('*', '{project:read}')$$, $$SELECT keywright.bind_role('bob', 'project-viewer', 'project', '*')$$,
  $$SELECT keywright.bind_role('bob', 'project-viewer', 'project', 'p_')$$, $$SELECT keywright.mint_api_key('bob', '*')$$, $$SELECT keywright.mint_api_key('bob', 'x', allow_list => '{"pro*:p1"}')$$, $$SELECT keywright.delete_gateway_key('%')$$,
  $$SELECT keywright.mint_api_key('bob', 'x', '{"pro*:read"}')$$);
-- What may be an id and looks like a pattern elsewhere is an id.
BEGIN;
SELECT keywright.ensure_resource('project', 'p_'), keywright.ensure_resource('project', 'p%');
SELECT keywright.bind_role('bob', 'project-owner', 'project', 'p_') IS NOT NULL AS bound, keywright.bind_role('bob', 'project-owner', 'project', 'p%') IS NOT NULL AS bound;
SELECT id, keywright.has_permission('bob', 'project:delete', 'project', id) FROM unnest('{p_,p%,p1,p2,pp}'::text[]) WITH ORDINALITY AS i (id, n) ORDER BY n;
ROLLBACK;
SELECT public.unchanged();

-- Revoke or renew by an id across tenants (OpenBao CVE-2026-40264, CVE-2026-45808, GHSA-c36x-h252-g9x2). An id is public and gives nothing: in a request of one user every call about another's key is
-- refused, whatever id it names (9 above; here with ids of gateways and of nothing). Whoever holds issuer may act on every key of the database: there is no tenant below it, and SECURITY.md says so.
SET SESSION AUTHORIZATION regress_keywright_rest;
BEGIN;
SET LOCAL ROLE regress_keywright_app;
SELECT username FROM keywright.begin_request(:'bobs');
SELECT * FROM public.attempt($$SELECT keywright.delete_gateway_key('edge')$$, $$SELECT keywright.revoke_api_key('AAAAAAAAAA')$$, format('SELECT keywright.heartbeat_gateway_key(%L)', :'gateway_id'), $$SELECT keywright.rotate_gateway_key('edge')$$,
  $$SELECT keywright.revoke_operator_access('ns', 'cp')$$, $$SELECT keywright.unbind_role('alice', 'owner')$$, $$SELECT keywright.delete_resource('project', 'p2')$$);
ROLLBACK;
SELECT public.unchanged();

-- Come back under a name that was deleted (Zitadel CVE-2026-55670: a recreated user was in the old organization). User, resource, role of Postgres, API key.
RESET SESSION AUTHORIZATION;
BEGIN;
SELECT keywright.delete_user('alice') AS old_id \gset
SELECT user_id <> :'old_id' AS another_id, outcome FROM keywright.ensure_user('alice', '');
SELECT (keywright.verify_api_key(:'alices')).active, keywright.has_permission('alice', 'project:read', 'project', 'p1'), (SELECT count(*) FROM keywright.list_role_bindings('alice')) AS bindings, (SELECT count(*) FROM keywright.list_api_keys('alice')) AS keys;
SELECT keywright.delete_resource('project', 'p1', true), keywright.ensure_resource('project', 'p1');
SELECT keywright.has_permission('bob', 'project:read', 'project', 'p1') AS still_bound;
CREATE ROLE regress_keywright_twin;
SELECT keywright.grant_access('regress_keywright_twin', 'issuer');
DROP OWNED BY regress_keywright_twin;
DROP ROLE regress_keywright_twin;
CREATE ROLE regress_keywright_twin;
SELECT has_schema_privilege('regress_keywright_twin', 'keywright', 'USAGE') AS inherited, (SELECT count(*) FROM keywright.list_access() WHERE grantee = 'regress_keywright_twin') AS listed;
SET LOCAL SESSION AUTHORIZATION regress_keywright_twin;
SELECT * FROM public.attempt($$SELECT keywright.mint_api_key('bob', 'x')$$);
ROLLBACK;
-- Nor does a key: revoked it stays, for the owner of the table as well.
SELECT code, regexp_replace(message, '"\w{10}"', 'ID') AS message FROM public.refusal($$UPDATE keywright.api_keys SET revoked_at = NULL WHERE name = 'revoked'$$);
SELECT public.unchanged();

-- Have a verification undo a revocation, or a cache outlive it (better-auth 1.6.16: verify wrote a stale row back; LiteLLM #25553, Unkey: cached keys). It writes no row, and remembers no key:
-- the same session, the same transaction, an old snapshot, a prepared statement. Between sessions: isolation/specs/revoke-visible.
BEGIN ISOLATION LEVEL REPEATABLE READ;
PREPARE hot AS SELECT active, username FROM keywright.verify_api_key($1);
EXECUTE hot(:'bobs');
SELECT keywright.revoke_api_key(:'bobs_id');
EXECUTE hot(:'bobs');
ROLLBACK;
SELECT ctid AS place, xmin AS made_by FROM keywright.api_keys WHERE key_id = :'bobs_id' \gset
EXECUTE hot(:'bobs');
DEALLOCATE hot;
SELECT ctid::text = :'place' AND xmin::text = :'made_by' AS untouched FROM keywright.api_keys WHERE key_id = :'bobs_id';
SELECT public.unchanged();

-- Keep a token that came with an error (OpenBao CVE-2026-46405). A mint that fails returns none and leaves none; one that is rolled back was none.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT * FROM keywright.mint_api_key('bob', 'k');
SELECT * FROM keywright.mint_api_keys('{bob,bob}', '{fresh,k}');
SELECT * FROM keywright.mint_gateway_key('edge');
SELECT public.unchanged();
BEGIN;
SELECT token AS never FROM keywright.mint_api_key('bob', 'never') \gset
ROLLBACK;
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active FROM keywright.verify_api_key(:'never');
SELECT public.unchanged();

-- Climb by what Postgres offers. A role that may create roles, but holds nothing here: on 15 it may make itself a member of any role that is no superuser, an issuer too (so docs/authenticator.md says
-- to give CREATEROLE there as one gives superuser); from 16 on of none. It can not grant a capability, a function or a role on any version.
SET SESSION AUTHORIZATION regress_keywright_creator;
BEGIN;
SELECT code = CASE WHEN current_setting('server_version_num')::int >= 160000 THEN '42501' ELSE '00000' END AS as_postgres_has_it FROM public.refusal('GRANT regress_keywright_issuer TO regress_keywright_mallory');
ROLLBACK;
SELECT code FROM public.attempt($$SELECT keywright.grant_access('regress_keywright_creator', 'issuer')$$, 'GRANT EXECUTE ON FUNCTION keywright.verify_api_key(text) TO regress_keywright_creator', 'GRANT USAGE ON SCHEMA keywright TO regress_keywright_creator',
  'ALTER SCHEMA keywright OWNER TO regress_keywright_creator', 'ALTER TABLE keywright.users OWNER TO regress_keywright_creator', 'ALTER ROLE postgres PASSWORD NULL');
SET SESSION AUTHORIZATION regress_keywright_mallory;
SELECT code FROM public.attempt('SET ROLE regress_keywright_issuer', 'GRANT regress_keywright_issuer TO regress_keywright_mallory', $$SELECT set_config('role', 'regress_keywright_admin', false)$$,
  'ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT EXECUTE ON FUNCTIONS TO PUBLIC', 'CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION nothing()', $$LOAD 'keywright'$$, 'CREATE EXTENSION keywright', 'CREATE SCHEMA keywright');
-- An issuer or an auditor passes nothing on, and an admin gives no more than capabilities.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT * FROM public.attempt($$SELECT keywright.grant_access('regress_keywright_mallory', 'verifier')$$, $$SELECT keywright.bind_role('bob', 'owner')$$, $$SELECT keywright.ensure_user('bob', NULL, db_role => 'postgres')$$, 'SELECT keywright.list_users()');
GRANT EXECUTE ON FUNCTION keywright.mint_api_key(text, text, text[], text[], interval, text) TO regress_keywright_mallory;
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT * FROM public.attempt('SELECT hashed_secret FROM keywright.api_keys', 'INSERT INTO keywright.users DEFAULT VALUES', $$SELECT keywright.grant_access('public', 'verifier')$$, $$SELECT keywright.grant_access('regress_keywright_mallory', 'superuser')$$);
SELECT public.unchanged();

-- Have a key's owner act as a role that is too powerful, or a service be granted one.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT code, message FROM public.attempt($$SELECT keywright.ensure_user('bob', NULL, db_role => 'postgres')$$, $$SELECT keywright.ensure_user('bob', NULL, db_role => 'pg_execute_server_program')$$, $$SELECT keywright.ensure_user('bob', NULL, db_role => 'regress_keywright_creator')$$,
  $$SELECT keywright.grant_authenticator('mine', 'regress_keywright_rest', 'postgres')$$, $$SELECT keywright.grant_authenticator('mine', 'regress_keywright_rest', 'pg_read_server_files')$$,
  $$SELECT keywright.grant_authenticator('mine', 'regress_keywright_mallory', 'regress_keywright_admin')$$, $$SELECT keywright.allow_authenticator('regress_keywright_mallory', '{regress_keywright_admin}')$$);
SELECT public.unchanged();

-- Turn what protects off by a setting, in one's own session or for the role.
SET SESSION AUTHORIZATION regress_keywright_app;
SELECT * FROM public.attempt('SET keywright.api_key_header = ''x''', 'SET keywright.max_api_key_lifetime = 0', 'SET keywright.track_usage = off', 'SET keywright.notify = off', 'SET keywright.audit_retention = 1', 'SET session_replication_role = replica',
  'ALTER ROLE regress_keywright_app SET keywright.api_key_header = ''x''', 'SET keywright.writing = on', 'SET row_security = off; SELECT count(*) FROM keywright.api_keys', 'SET session_preload_libraries = ''x''');
RESET ALL;
SELECT public.unchanged();

-- Read what row security hides, by a function that is called before it and tells what it is given; write past it; be somebody by a function that runs with other rights; stay somebody after the request.
RESET SESSION AUTHORIZATION;
CREATE TABLE public.papers (id integer, project text, secret text);
INSERT INTO public.papers VALUES (1, 'p1', 'bobs'), (2, 'p2', 'not his');
ALTER TABLE public.papers ENABLE ROW LEVEL SECURITY;
CREATE POLICY papers ON public.papers USING (keywright.is_permitted('project:read', 'project', project));
GRANT SELECT, INSERT, UPDATE ON public.papers TO regress_keywright_app, regress_keywright_anon;
SET SESSION AUTHORIZATION regress_keywright_mallory;
CREATE FUNCTION public.tell(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE 'told: %', t; RETURN true; END $$;
CREATE FUNCTION public.lend(token text) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN (SELECT user_id FROM keywright.begin_request(token)); END';
SET SESSION AUTHORIZATION regress_keywright_rest;
BEGIN;
SET LOCAL ROLE regress_keywright_app;
SELECT * FROM public.papers WHERE public.tell(secret);
SELECT username FROM keywright.begin_request(:'bobs');
SELECT * FROM public.papers WHERE public.tell(secret);
SELECT * FROM public.attempt($$INSERT INTO public.papers VALUES (3, 'p2', 'mine')$$, $$UPDATE public.papers SET project = 'p2'$$, format('SELECT public.lend(%L)', :'alices'), 'CREATE FUNCTION public.leakproof(text) RETURNS boolean LEAKPROOF RETURN true',
  'CREATE POLICY mine ON public.papers USING (true)');
COMMIT;
BEGIN;
SET LOCAL ROLE regress_keywright_app;
SELECT * FROM public.papers;
COMMIT;
SELECT current_user;
RESET SESSION AUTHORIZATION;
SELECT count(*) AS leakproof FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace AND proleakproof;
SELECT public.unchanged();

-- Prepare the schema before it is installed (CVE-2022-2625, schemas that are squatted); install it, update it or put something into it as the owner of the database.
BEGIN;
SELECT count(keywright.revoke_access(grantee, capability)) > 0 AS revoked FROM keywright.list_access();
DROP EXTENSION keywright CASCADE;
SELECT format('GRANT CREATE ON DATABASE %I TO regress_keywright_mallory', current_database()) \gexec
SET LOCAL SESSION AUTHORIZATION regress_keywright_mallory;
SELECT * FROM public.attempt('CREATE EXTENSION keywright');
CREATE SCHEMA keywright;
CREATE FUNCTION keywright._writing() RETURNS boolean RETURN true;
RESET SESSION AUTHORIZATION;
SELECT * FROM public.attempt('CREATE EXTENSION keywright', 'CREATE EXTENSION keywright SCHEMA public');
ROLLBACK;
SELECT public.unchanged();

-- A leaked token that no scanner finds: what docs/tokens.md gives to scanners matches what is minted, and finds it in a line of text.
SELECT count(*) AS minted, bool_and(token ~ '^kwk_[0-9A-Za-z]{10}-[0-9A-Za-z]{28}$') AS found FROM unnest(ARRAY[:'alices', :'bobs', :'revoked']) AS token;
SELECT :'gateway' ~ '^kwg_[0-9A-Za-z]{39}$' AS found, 'export KEY=' || :'alices' || ' # prod' ~ '\mkwk_[0-9A-Za-z]{10}-[0-9A-Za-z]{28}\M' AS in_a_line;

DROP TABLE public.papers, dead, public.remembered;
DROP FUNCTION public.tell, public.lend, public.attempt, public.state, public.unchanged, public.remember, public.call_everything, public.call_everything_with, public.rows_with;
SELECT keywright.delete_user(u) IS NOT NULL AS deleted FROM unnest('{alice,bob,sue}'::text[]) AS u;
SELECT keywright.purge_api_keys('0') > 0 AS purged;
SELECT (keywright.delete_gateway_key('edge')).name, keywright.delete_scope('narrow'), keywright.delete_resource('project', 'p1'), keywright.delete_resource('project', 'p2');
SELECT keywright.revoke_access(r, 'requester') FROM unnest('{regress_keywright_app,regress_keywright_anon}'::text[]) AS r;
DROP OWNED BY regress_keywright_mallory;
DROP ROLE regress_keywright_mallory, regress_keywright_creator, regress_keywright_rest, regress_keywright_app, regress_keywright_anon;
