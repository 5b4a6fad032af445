-- A question about a type that nobody registered is an error that names the nearest, for an owner too.
\pset null '(null)'
SELECT outcome FROM keywright.ensure_user('quinn', '');
SELECT outcome FROM keywright.bind_role('quinn', 'owner');
SELECT token FROM keywright.mint_api_key('quinn', 'quinn') \gset
SELECT key_id AS narrow_id, token AS narrow FROM keywright.mint_api_key('quinn', 'narrow', '{project:read}', '{project:p1}') \gset
\x on
SELECT * FROM public.refusal(format('SELECT keywright.authorize_api_key(%L, ''projct:raed'', ''porject:p1'')', :'token'));
SELECT * FROM public.refusal('SELECT keywright.authorize_api_key(''nonsense'', ''workspace:read'')');
SELECT * FROM public.refusal('SELECT keywright.has_permission(''quinn'', ''agnt:run'', ''Project'', ''p1'')');
SELECT * FROM public.refusal('SELECT keywright.has_permission(''absent'', ''kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH:read'')');
SELECT * FROM public.refusal('SELECT keywright.bind_role(''quinn'', ''auditor'', ''projct'', ''p1'')');
\x off
-- Anything may be an action, and an asterisk any type.
SELECT n, keywright.has_permission('quinn', permission) FROM unnest('{project:anything,*:read,*:*,Project:raed}'::text[]) WITH ORDINALITY AS p (permission, n) ORDER BY n;
-- In a request: what was asked before is remembered, and not longer than it is so.
CREATE FUNCTION pg_temp.permitted(permission text, type text DEFAULT NULL, id text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  hint text;
BEGIN
  RETURN keywright.is_permitted(permission, type, id);
EXCEPTION WHEN invalid_parameter_value THEN
  GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
  RETURN concat_ws(': ', sqlerrm, hint);
END
$$;
BEGIN;
SELECT username FROM keywright.begin_request(:'token');
SELECT pg_temp.permitted('projct:read') AS "1", pg_temp.permitted('project:read') AS "2", pg_temp.permitted('project:read', 'projct', 'p1') AS "3";
SELECT pg_temp.permitted('project:read', 'agent', 'a1') AS "1", pg_temp.permitted('project:read', 'folder', NULL) AS "2", pg_temp.permitted('folder:read', 'folder', 'f') AS "3";
SELECT keywright.register_resource_type('folder');
SELECT pg_temp.permitted('folder:read', 'folder', 'f') AS "1", pg_temp.permitted('project:read', 'folder', 'f') AS "2";
SELECT keywright.delete_resource_type('folder');
SELECT pg_temp.permitted('folder:read', 'folder', 'f') AS "1", pg_temp.permitted('project:read', 'folder', 'f') AS "2", pg_temp.permitted('project:read', 'project', 'p') AS "3";
-- The key is still in force. Scopes that do not reach so far make no difference.
SELECT keywright.current_user_id() IS NOT NULL AS in_force, username FROM keywright.begin_request(:'narrow');
SELECT pg_temp.permitted('agent:read', 'agnet', 'a') AS "1", pg_temp.permitted('agent:read', 'agent', 'a') AS "2", pg_temp.permitted('project:read', 'project', 'p1') AS "3";
-- A dead key permits nothing, whatever is asked.
SELECT keywright.revoke_api_key(:'narrow_id');
SELECT pg_temp.permitted('projct:read') AS "1";
COMMIT;
SELECT keywright.delete_user('quinn') IS NOT NULL AS deleted;
