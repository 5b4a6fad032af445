-- Everything that is wrong with a call is said at once, whatever is wrong with which argument; nulls and names too.
\pset null '(null)'
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key(NULL, 'k', '{nonsense}', NULL, '-1 day', '')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('A b', 'nonsense', 'robot', display_name => E'a\nb', managed_by => '')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('r', NULL, 10, '')$$);
SELECT * FROM public.refusal($$SELECT keywright.revoke_api_key('k', E'a\nb', managed_by => '')$$);
SELECT * FROM public.refusal($$SELECT keywright.set_postgrest_settings(NULL, '{"nonsense": 1, "db_schemas": [], "server_port": "x"}')$$);
SELECT * FROM public.refusal($$SELECT keywright.render_postgrest_config(NULL, '{}', '', 'x', 'x', '{"user": "x", "y": []}')$$);
SELECT * FROM public.refusal($$SELECT keywright.revoke_operator_access('', NULL, 'x', '')$$);
\x off
-- Every function: each argument that can be malformed is, and all of them are named. Null is malformed, where there is nothing here.
CREATE TABLE public.malformed (function text, argument text, value text NOT NULL);
INSERT INTO public.malformed VALUES
  (NULL, 'managed_by', $$''$$), (NULL, 'reason', $$E'a\nb'$$), (NULL, 'display_name', $$E'a\nb'$$), (NULL, 'email', $$E'a\nb'$$),
  (NULL, 'name', $$E'a\nb'$$), ('operator_key_name', 'name', 'NULL'), ('revoke_operator_access', 'name', 'NULL'), ('ensure_operator_access', 'name', 'NULL'),
  ('delete_role', 'name', 'NULL'), ('delete_scope', 'name', 'NULL'), ('rotate_gateway_key', 'name', 'NULL'),
  ('ensure_user', 'username', $$'A b'$$), ('ensure_system_user', 'username', $$'A b'$$), ('ensure_resource', 'id', $$'a b'$$),
  (NULL, 'roles', $$'{NULL}'$$), (NULL, 'kind', $$'x'$$), (NULL, 'scopes', $$'{x}'$$), (NULL, 'allow_list', $$'{x}'$$),
  (NULL, 'lifetime', $$'-1 day'$$), (NULL, 'renew_before', $$'-1 day'$$), (NULL, 'grace', $$'-1 day'$$), (NULL, 'retention', $$'-1 day'$$),
  (NULL, 'permissions', $$'{x}'$$), (NULL, 'level', '10'), (NULL, 'page_size', '0'), (NULL, 'batch', '0'), (NULL, 'key_id', $$'x'$$),
  (NULL, 'digest', $$'x'$$), (NULL, 'expires_at', $$'2000-01-01'$$), (NULL, 'created_at', $$'infinity'$$), (NULL, 'permission', $$'x'$$),
  (NULL, 'resource', $$'x'$$), ('bind_role', 'resource_type', $$'project'$$), ('unbind_role', 'resource_type', $$'project'$$),
  (NULL, 'settings', $$'[]'$$), (NULL, 'hosts', $$'{}'$$), (NULL, 'password', $$''$$), (NULL, 'jwt_secret', $$'x'$$), (NULL, 'target_session_attrs', $$'x'$$),
  (NULL, 'parameters', $$'[]'$$), (NULL, 'manifest', $$'[]'$$);
-- Those that can not be, and why.
CREATE TABLE public.unmalformed (function text, argument text, reason text NOT NULL);
INSERT INTO public.unmalformed VALUES
  (NULL, 'token', 'whatever it is, it is judged'), (NULL, 'tokens', 'whatever they are, they are judged'), (NULL, 'existing_token', 'whatever it is, it is judged'),
  ('verify_api_key_digest', NULL, 'whatever they are, they are judged'),
  ('apply', 'manifest', 'every fault in it has its path'), ('plan', 'manifest', 'every fault in it has its path'),
  ('is_permitted', NULL, 'no key is in force, so nothing is permitted'),
  ('bind_role', 'granted_by', 'null or a name, which is looked up'), ('bind_role', 'resource_type', 'the other half is named'),
  ('unbind_role', 'resource_type', 'the other half is named'),
  ('has_permission', 'resource_type', 'null or a name'), ('has_permission', 'resource_id', 'null or an id'),
  ('ensure_user', 'db_role', 'null or a name, which is looked up'), ('ensure_system_user', 'organization_role', 'null or a name, which is looked up'),
  ('ensure_resource', 'parent_id', 'null or an id, which is looked up'), ('ensure_resources', 'parent_ids', 'null or ids'), ('ensure_resources', 'names', 'null or names'),
  ('register_resource_type', 'parent_type', 'null or a name, which is looked up'),
  ('grant_authenticator', 'anon_role', 'null or a name, which is looked up'), ('preflight_authenticator', 'anon_role', 'null or a name, which is looked up'),
  ('set_postgrest_setting', 'value', 'null removes it'), ('help', 'topic', 'null or words'),
  ('revoke_api_key', 'username', 'null or a name'), ('rotate_api_key', 'username', 'null or a name'),
  ('list_api_keys', NULL, 'but for the size of a page, what is not there is not listed'), ('list_audit_events', NULL, 'as above'),
  ('list_resources', NULL, 'as above'), ('list_role_bindings', NULL, 'as above'), ('list_users', NULL, 'as above'), ('key_usage', NULL, 'as above'),
  ('track_table', NULL, 'each is about the one before it: a table, its columns'),
  ('ensure_operator_access', 'lifetime', 'judged with the key, once its name is known'), ('ensure_operator_access', 'renew_before', 'as above'),
  ('ensure_operator_access', 'scopes', 'as above'), ('ensure_operator_access', 'allow_list', 'as above'),
  ('ensure_operator_access', 'email', 'judged with the user, once its name is known'), ('ensure_operator_access', 'roles', 'as above'),
  ('ensure_operator_access', 'organization_role', 'as above'), ('ensure_operator_access', 'managed_by', 'as above'),
  ('import_api_key', 'created_at', 'judged by expires_at');
CREATE FUNCTION public.malformed_call(function oid, OUT statement text, OUT arguments text[]) LANGUAGE sql AS $$
  SELECT format('SELECT * FROM keywright.%I(%s)', p.proname, string_agg(format('%I => %s', a.name, coalesce(m.value, 'NULL')) ||
           CASE WHEN m.value IS NULL THEN '::' || format_type(a.type, NULL) ELSE '' END, ', ' ORDER BY a.at)),
         array_agg(a.name ORDER BY a.at)
    FROM pg_proc AS p,
         LATERAL unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes) WITH ORDINALITY AS a (name, type, mode, at)
         LEFT JOIN LATERAL (SELECT m.value FROM public.malformed AS m
                             WHERE m.argument = a.name AND (m.function = p.proname OR m.function IS NULL)
                             ORDER BY m.function NULLS LAST LIMIT 1) AS m ON true
   WHERE p.oid = malformed_call.function AND (a.mode IS NULL OR a.mode IN ('i', 'b', 'v'))
   GROUP BY p.proname
$$;
CREATE VIEW public.said AS
  SELECT p.proname AS function, a.argument, r.code, r.message
    FROM pg_proc AS p, LATERAL public.malformed_call(p.oid) AS c, LATERAL public.refusal(c.statement) AS r,
         LATERAL unnest(c.arguments) AS a (argument)
   WHERE p.pronamespace = 'keywright'::regnamespace AND p.prokind = 'f' AND p.proname NOT LIKE '\_%' AND p.pronargs > 0
     AND r.message !~ ('\m' || a.argument || '\M.*(not acceptable|must not be null)') IS NOT FALSE;
-- Not named, though nothing says that it cannot be malformed.
SELECT s.* FROM public.said AS s WHERE NOT EXISTS (
  SELECT FROM public.unmalformed AS u WHERE coalesce(u.function, s.function) = s.function AND coalesce(u.argument, s.argument) = s.argument) ORDER BY 1, 2;
-- Said to be no fault, though it is named.
SELECT u.* FROM public.unmalformed AS u WHERE NOT EXISTS (
  SELECT FROM public.said AS s WHERE coalesce(u.function, s.function) = s.function AND coalesce(u.argument, s.argument) = s.argument) ORDER BY 1, 2;
-- A name that alone breaks its rule is refused with the name of the rule.
SELECT call, r.code, r.rule FROM unnest(ARRAY[
  'ensure_user(''A'', '''')', 'ensure_system_user(''A'')', 'register_resource_type(''A'')', 'ensure_resource(''project'', ''a b'')', 'define_role(''A'', ''{project:read}'')',
  'define_scope(''A'', ''{project:read}'')', 'mint_gateway_key(''A'')', 'ensure_gateway_key(''A'')', 'mint_api_key(''u'', ''A'')', 'ensure_api_key(''u'', ''A'')',
  'import_api_key(''u'', ''A'', ''AAAAAAAAAA'', sha256(''\x4b3f9a''), now() + ''1 day'')',
  'grant_authenticator(''A'', ''x'', ''y'')']) WITH ORDINALITY AS c (call, n), LATERAL public.refusal('SELECT keywright.' || call) AS r ORDER BY n;
DROP VIEW public.said;
DROP FUNCTION public.malformed_call(oid);
DROP TABLE public.malformed, public.unmalformed;
