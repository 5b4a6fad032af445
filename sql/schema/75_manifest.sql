-- The manifest: one document that says what is to be there.

CREATE FUNCTION keywright._manifest_schema_text() RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'manifest_schema_text_wrapper';
COMMENT ON FUNCTION keywright._manifest_schema_text() IS 'Internal. The JSON Schema of a manifest, as text.';

CREATE FUNCTION keywright.manifest_schema() RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT keywright._manifest_schema_text()::jsonb $$;
COMMENT ON FUNCTION keywright.manifest_schema() IS
'The JSON Schema (draft 2020-12) of the manifests that plan and apply take.
Errors: none of its own.
Example: SELECT keywright.manifest_schema();';

-- Invoker on purpose, here and in apply: what a caller could grant by hand needs no allowance, as for grant_authenticator.
CREATE FUNCTION keywright.plan(manifest jsonb)
RETURNS TABLE (step integer, action text, kind text, name text, change jsonb)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'plan_wrapper';
COMMENT ON FUNCTION keywright.plan(jsonb) IS
'Shows what apply would do, and does nothing: writes nothing, takes no lock, works in READ ONLY transactions and on a standby.
Arguments: manifest (see manifest_schema()).
Result: a row a step, none when there is nothing to do: step (from 1, in the order they are taken); action (create, update, adopt, mint, rotate, delete, revoke; left: it would be pruned, but something else needs it; concurrent: somebody else has just minted it); kind (resource_type, scope, role, resource, user, role_binding, api_key, gateway_key, authenticator); name; change (new values, or from and to; no secret).
Errors: as for apply.
Example: SELECT action, kind, name, change FROM keywright.plan(''{"manager": "plane-a", "gateway_keys": [{"name": "edge-2"}]}'');';

CREATE FUNCTION keywright.apply(manifest jsonb)
RETURNS TABLE (step integer, action text, kind text, name text, change jsonb, token text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'apply_wrapper';
COMMENT ON FUNCTION keywright.apply(jsonb) IS
'Brings about what a manifest says: all of it or nothing. What is there as it should be is not touched, and where there is nothing to do, nothing is written and no lock taken. What is made comes in the order things depend on each other; what is pruned comes last, in the opposite order. Applies go one after the other.
Arguments: manifest (see manifest_schema()): manager owns what it makes; prune takes away what this manager owns and the manifest does not name, and nothing else; adopt takes over what another manager owns. What nobody manages is taken over in any case, as by the ensure functions. Built-in types, roles and scopes need not be named.
An API key or gateway key is minted when no live key holds its name; existing_token, if it is given, must be that key''s, or the key is rotated as by ensure_api_key.
Result: as plan; token (of a key that was minted or rotated; it can not be shown again).
Who may: whoever holds the capability; for authenticators as for grant_authenticator.
Errors: every fault of the manifest is listed in DETAIL with its JSON path, and nothing is changed. One kind of fault has its own SQLSTATE, several kinds have 22023: 22023 malformed, an unknown key among them; 42704 something named is not there; 42710 built in, of another kind, followed by a table, or another manager''s; 42501 a Postgres role too powerful or not allowed; 42939 a reserved role name; 23503 the last owner of a resource would be pruned; 55000 a suspended user, or what preflight_authenticator finds; 40001 try again.
Example: SELECT action, kind, name, token FROM keywright.apply(''{"manager": "plane-a", "gateway_keys": [{"name": "edge-2"}]}'');';
