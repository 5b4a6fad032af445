-- The key a transaction acts for, and what row security asks of it.
\pset null '(null)'
SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('project', 'p1', 'acme'),
       keywright.ensure_resource('project', 'p2', 'acme'), keywright.ensure_resource('project', 'p3');
CREATE ROLE "regress_keywright Web ""User""" NOLOGIN;
CREATE ROLE regress_keywright_anon NOLOGIN;
CREATE ROLE regress_keywright_rest LOGIN NOINHERIT;
GRANT "regress_keywright Web ""User""", regress_keywright_anon TO regress_keywright_rest;
SELECT keywright.grant_access('regress_keywright_rest', 'requester');
SELECT keywright.grant_access(r, 'requester') FROM unnest('{"regress_keywright Web \"User\"",regress_keywright_anon}'::text[]) AS r;
SELECT outcome FROM keywright.ensure_user('wanda', '', db_role => 'regress_keywright Web "User"');
SELECT outcome FROM keywright.ensure_user('victor', '');
SELECT outcome FROM keywright.bind_role('wanda', 'project-editor', 'organization', 'acme');
SELECT outcome FROM keywright.bind_role('victor', 'project-viewer', 'project', 'p3');
SELECT key_id AS wandas_id, token AS wandas FROM keywright.mint_api_key('wanda', 'k', '{project:*,agent:read}', '{project:p1,project:p3}') \gset
SELECT token AS victors FROM keywright.mint_api_key('victor', 'k') \gset
CREATE TABLE public.docs (id integer, project text);
INSERT INTO public.docs VALUES (1, 'p1'), (2, 'p2'), (3, 'p3'), (4, NULL), (5, 'unregistered');
ALTER TABLE public.docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON public.docs USING (keywright.is_permitted('project:read', 'project', project));
GRANT SELECT, INSERT, UPDATE ON public.docs TO "regress_keywright Web ""User""", regress_keywright_anon;
CREATE VIEW public.me AS
  SELECT current_user, keywright.current_user_id() AS user_id, keywright.current_api_key_id() AS key_id, keywright.current_scopes() AS scopes,
         (SELECT array_agg(id ORDER BY id) FROM public.docs) AS docs;
ALTER VIEW public.me SET (security_invoker = true);
GRANT SELECT ON public.me TO PUBLIC;
CREATE TEMP TABLE tokens AS SELECT :'wandas' AS wandas, :'victors' AS victors;
GRANT SELECT ON tokens TO PUBLIC;
CREATE FUNCTION pg_temp.header(token text) RETURNS text LANGUAGE sql RETURN json_build_object('x-api-key', token)::text;

-- Outside a transaction block it is over before the next statement, and says so as SET LOCAL does; a bad token gets its error alone.
SELECT username FROM keywright.begin_request(:'victors');
SELECT keywright.current_user_id() IS NULL AS forgotten;
SELECT keywright.begin_request('nonsense');

-- As PostgREST connects: a request with a key, and the next one in the same session without.
SET SESSION AUTHORIZATION regress_keywright_rest;
BEGIN READ ONLY;
SELECT set_config('role', 'regress_keywright_anon', true), set_config('request.headers', pg_temp.header(:'wandas'), true) IS NOT NULL AS headers;
SELECT keywright.check_request();
SELECT current_user, key_id = :'wandas_id' AS hers, user_id IS NOT NULL AS known, scopes, docs FROM public.me;
COMMIT;
SELECT current_user, keywright.check_request();
BEGIN;
SELECT set_config('role', 'regress_keywright_anon', true), set_config('request.headers', '{"accept":"*/*"}', true);
SELECT keywright.check_request();
SELECT * FROM public.me;
COMMIT;
-- Without a db_role the role stays, and the key counts.
BEGIN;
SELECT set_config('role', 'regress_keywright_anon', true), set_config('request.headers', pg_temp.header(:'victors'), true) IS NOT NULL AS headers;
SELECT keywright.check_request();
SELECT current_user, user_id IS NOT NULL AS known, scopes, docs FROM public.me;
ROLLBACK;
SELECT keywright.current_user_id();

-- Rows: what may be read and what may be written, by the resource of each row.
SET ROLE "regress_keywright Web ""User""";
BEGIN;
SELECT username, db_role FROM keywright.begin_request(:'wandas');
SELECT id FROM public.docs;
SELECT code FROM public.refusal($$INSERT INTO public.docs VALUES (6, 'p2')$$);
SELECT code FROM public.refusal($$INSERT INTO public.docs VALUES (6, 'p1')$$);
SELECT code FROM public.refusal($$UPDATE public.docs SET project = 'p3' WHERE id = 1$$);
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS ok, keywright.is_permitted('project:read', 'project', 'p2') AS not_listed,
       keywright.is_permitted('project:delete', 'project', 'p1') AS not_held, keywright.is_permitted('session:read', 'project', 'p1') AS not_in_scope,
       keywright.is_permitted('project:read', 'project', 'p3') AS not_bound, keywright.is_permitted('project:read') AS everywhere,
       keywright.is_permitted('project:read', 'project', NULL) AS no_id, keywright.is_permitted('project:read', NULL, 'p1') AS no_type,
       keywright.is_permitted('agent:read', 'agent', 'unregistered') AS below_nothing;
SELECT n, code FROM unnest(ARRAY['project', '', NULL, 'pro*:read']) AS n, LATERAL public.refusal(format('SELECT keywright.is_permitted(%L)', n));
-- Another key takes over; a bad one leaves none, also when it is rolled back.
SELECT username, db_role FROM keywright.begin_request(:'victors');
SELECT id FROM public.docs;
SELECT code, message FROM public.refusal($$SELECT keywright.begin_request('nonsense')$$);
SELECT code FROM public.refusal($$SELECT keywright.begin_request(NULL)$$);
SELECT id FROM public.docs;
COMMIT;
SELECT id FROM public.docs;

-- Subtransactions: what is rolled back is as if it had not been.
BEGIN;
SAVEPOINT a;
SELECT username FROM keywright.begin_request(:'wandas');
ROLLBACK TO a;
SELECT keywright.current_user_id() AS rolled_back;
SELECT username FROM keywright.begin_request(:'victors');
SAVEPOINT b;
SELECT username FROM keywright.begin_request(:'wandas');
SAVEPOINT c;
SELECT username FROM keywright.begin_request(:'victors');
RELEASE c;
SELECT array_agg(id ORDER BY id) AS victors FROM public.docs;
ROLLBACK TO b;
SELECT array_agg(id ORDER BY id) AS victors FROM public.docs;
SELECT username FROM keywright.begin_request(:'wandas');
RELEASE b;
SELECT array_agg(id ORDER BY id) AS wandas FROM public.docs;
DO $$
BEGIN
  PERFORM keywright.begin_request((SELECT victors FROM tokens));
  RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
  RAISE NOTICE '%', (SELECT array_agg(id ORDER BY id) FROM public.docs);
END
$$;
COMMIT AND CHAIN;
SELECT keywright.current_user_id() AS chained;
ROLLBACK;

-- Nothing a statement can set makes or changes it.
SET "keywright.current_user_id" = 'x';
SET "keywright.api_key_header" = 'y';
SELECT set_config('keywright.api_key_header', 'y', false);
BEGIN;
SELECT set_config('request.jwt.claims', '{"role":"postgres"}', true), set_config('request.headers', '{"x-api-key-id":"1"}', true);
CREATE TEMP TABLE users (LIKE public.docs);
CREATE FUNCTION pg_temp.current_user_id() RETURNS uuid LANGUAGE sql RETURN gen_random_uuid();
SELECT keywright.check_request();
SELECT keywright.current_user_id();
ROLLBACK;
-- Prepared statements ask anew; a cursor that is held over keeps the rows it was opened with, and no more.
PREPARE seen AS SELECT id FROM public.docs ORDER BY id;
BEGIN;
SELECT username FROM keywright.begin_request(:'wandas');
EXECUTE seen;
DECLARE held CURSOR WITH HOLD FOR SELECT id, keywright.current_user_id() IS NOT NULL AS known FROM public.docs ORDER BY id;
COMMIT;
EXECUTE seen;
FETCH ALL FROM held;
CLOSE held;
DEALLOCATE seen;
BEGIN;
SELECT username FROM keywright.begin_request(:'wandas');
DISCARD PLANS;
DISCARD TEMP;
RESET ROLE;
SELECT keywright.current_api_key_id() = :'wandas_id' AS role_is_not_the_key;
COMMIT;
DISCARD ALL;
RESET SESSION AUTHORIZATION;
-- A worker of a parallel query has no key; a function that lies about being safe gets no further with it.
CREATE FUNCTION public.whoami() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT keywright.current_user_id()';
CREATE FUNCTION public.permitted(n integer) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN keywright.is_permitted('project:read', 'project', 'p' || n % 1 + 1); END $$;
CREATE TABLE public.many AS SELECT generate_series(1, 20000) AS n;
ALTER TABLE public.many SET (parallel_workers = 2);
ANALYZE public.many;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
BEGIN;
SELECT username FROM keywright.begin_request(:'wandas');
EXPLAIN (COSTS off) SELECT count(*) FROM public.many WHERE public.permitted(n);
SELECT count(*) AS by_workers FROM public.many WHERE public.permitted(n);
EXPLAIN (COSTS off) SELECT count(*) FROM public.many WHERE keywright.is_permitted('project:read', 'project', 'p' || n % 1 + 1);
SELECT count(*) AS by_the_leader FROM public.many WHERE keywright.is_permitted('project:read', 'project', 'p' || n % 1 + 1);
COMMIT;
RESET ALL;
DROP TABLE public.many;
DROP FUNCTION public.whoami, public.permitted;

-- What changes in the transaction itself counts as well; so does a key that ends in the middle of it.
\set VERBOSITY terse
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT username FROM keywright.begin_request(:'wandas');
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS before;
SAVEPOINT a;
SELECT keywright.unbind_role('wanda', 'project-editor', 'organization', 'acme');
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS unbound;
ROLLBACK TO a;
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS back;
SELECT keywright.ensure_resource('project', 'p1', '');
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS moved_away;
ROLLBACK TO a;
SELECT keywright.expire_api_key(:'wandas_id');
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS expired, keywright.current_user_id(), keywright.current_api_key_id(), keywright.current_scopes();
ROLLBACK TO a;
SELECT keywright.suspend_user('wanda');
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS suspended, keywright.current_user_id();
ROLLBACK TO a;
SELECT keywright.is_permitted('project:read', 'project', 'p1') AS back;
COMMIT;
-- It also dies of its own expiry, while the transaction goes on.
SELECT key_id, token AS brief FROM keywright.mint_api_key('victor', 'brief') \gset brief_
UPDATE keywright.api_keys SET expires_at = clock_timestamp() + interval '0.5 seconds' WHERE key_id = :'brief_key_id';
BEGIN;
SELECT username FROM keywright.begin_request(:'brief_brief');
SELECT keywright.is_permitted('project:read', 'project', 'p3') AS before;
SELECT pg_sleep(0.6);
SELECT keywright.is_permitted('project:read', 'project', 'p3') AS expired, keywright.current_user_id() IS NULL AS nobody;
COMMIT;

-- What the hook answers to anything else. Never 400, never 500.
CREATE FUNCTION public.answer(headers text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  detail text;
BEGIN
  PERFORM set_config('request.headers', headers, true), set_config('role', 'regress_keywright_anon', true);
  PERFORM keywright.check_request();
  RETURN 'as ' || quote_ident(current_user);
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN sqlstate || ' ' || sqlerrm || ': ' || detail;
END
$$;
SET SESSION AUTHORIZATION regress_keywright_rest;
SELECT n, public.answer(headers) FROM (VALUES
  (1, json_build_object('x-api-key', :'wandas')::text), (2, json_build_object('X-Api-Key', :'wandas')::text),
  (3, ''), (4, '{}'), (5, '{"accept":"x"}'), (6, '{"x-api-key":""}'), (7, '{"x-api-key":null}'), (8, '{"x-api-key":1}'),
  (9, '{"x-api-key":{}}'), (10, '{"x-api-key":"nonsense"}'), (11, '{"x-api-key":"Zo\u00eb"}'),
  (12, format('{"x-api-key":"%s","x-api-key":"%s"}', :'wandas', :'wandas')),
  (13, format('{"x-api-key":"%s","X-API-KEY":"%s"}', :'wandas', :'victors')),
  (14, format('{"x-api-key":"%s, %s"}', :'wandas', :'victors')),
  (15, json_build_object('x-api-key', :'wandas' || ' ')::text), (16, json_build_object('x-api-key', repeat('x', 1000000))::text),
  (17, '{"x-api-key":"\u0000"}'), (18, '['), (19, '[]'), (20, '"x-api-key"'), (21, 'null'), (22, '{"x-api-key":"\ud800"}')) AS v (n, headers) ORDER BY n;
RESET SESSION AUTHORIZATION;
-- A role that is not granted, has become too powerful, or is gone.
REVOKE "regress_keywright Web ""User""" FROM regress_keywright_rest;
SET SESSION AUTHORIZATION regress_keywright_rest;
SELECT public.answer(json_build_object('x-api-key', :'wandas')::text), keywright.current_user_id();
RESET SESSION AUTHORIZATION;
GRANT "regress_keywright Web ""User""" TO regress_keywright_rest;
ALTER ROLE "regress_keywright Web ""User""" BYPASSRLS;
SET SESSION AUTHORIZATION regress_keywright_rest;
SELECT public.answer(json_build_object('x-api-key', :'wandas')::text);
RESET SESSION AUTHORIZATION;
ALTER ROLE "regress_keywright Web ""User""" RENAME TO regress_keywright_renamed;
SET SESSION AUTHORIZATION regress_keywright_rest;
SELECT public.answer(json_build_object('x-api-key', :'wandas')::text);
RESET SESSION AUTHORIZATION;
-- Another header, which only a superuser names.
ALTER ROLE regress_keywright_renamed NOBYPASSRLS;
SELECT outcome FROM keywright.ensure_user('wanda', NULL, db_role => 'regress_keywright_renamed');
SET keywright.api_key_header = 'ApiKey';
SET ROLE regress_keywright_anon;
SELECT public.answer(json_build_object('x-api-key', 'nonsense')::text), public.answer(json_build_object('apikey', :'wandas')::text), public.answer('{"apikey":"x"}');
RESET ROLE;
RESET keywright.api_key_header;

DROP VIEW public.me;
DROP TABLE public.docs;
DROP FUNCTION public.answer;
SELECT keywright.delete_user(u) IS NOT NULL AS deleted FROM unnest('{wanda,victor}'::text[]) AS u;
SELECT keywright.delete_resource('organization', 'acme', true), keywright.delete_resource('project', 'p1'), keywright.delete_resource('project', 'p3');
SELECT keywright.revoke_access(r, 'requester') FROM unnest('{regress_keywright_renamed,regress_keywright_anon,regress_keywright_rest}'::text[]) AS r;
DROP ROLE regress_keywright_renamed, regress_keywright_anon, regress_keywright_rest;
