-- Access: capabilities, each a set of functions.

-- Which capabilities hold which function. Whatever is not listed here is internal. Five internal ones are, because the function of
-- the caller's rights that needs them is: they do nothing that it does not.
CREATE VIEW keywright._capability_functions AS
SELECT f.signature, c.capability
  FROM (VALUES
    ('verify_api_key(text)',                                             '{verifier}'),
    ('verify_api_keys(text[])',                                          '{verifier}'),
    ('verify_api_key_digest(text,bytea)',                                '{verifier}'),
    ('authenticate_api_key(text)',                                       '{verifier}'),
    ('verify_gateway_key(text)',                                         '{verifier}'),
    ('heartbeat_gateway_key(uuid)',                                      '{verifier}'),
    ('touch_api_key(text)',                                              '{verifier}'),
    ('mint_api_key(text,text,text[],text[],interval,text)',              '{issuer,reconciler}'),
    ('mint_api_keys(text[],text[],text[],text[],interval,text)',         '{issuer,reconciler}'),
    ('import_api_key(text,text,text,bytea,timestamp with time zone,timestamp with time zone,text[],text[])', '{issuer,reconciler}'),
    ('ensure_api_key(text,text,text,text[],text[],interval,interval,text)', '{issuer,reconciler}'),
    ('rotate_api_key(text,interval)',                                    '{issuer,reconciler}'),
    ('revoke_api_key(text,text)',                                        '{issuer,reconciler}'),
    ('revoke_user_api_keys(text,text)',                                  '{issuer,reconciler}'),
    ('revoke_leaked_api_key(text)',                                      '{issuer,reconciler}'),
    ('expire_api_key(text)',                                             '{issuer,reconciler}'),
    ('mint_gateway_key(text,text)',                                      '{issuer,reconciler}'),
    ('ensure_gateway_key(text,text,text)',                               '{issuer,reconciler}'),
    ('rotate_gateway_key(text,interval)',                                '{issuer,reconciler}'),
    ('delete_gateway_key(text)',                                         '{issuer,reconciler}'),
    ('list_api_keys(text,boolean,text,integer)',                         '{issuer,auditor,reconciler}'),
    ('key_usage(text,text,integer)',                                     '{issuer,auditor,reconciler}'),
    ('list_gateway_keys()',                                              '{issuer,auditor,reconciler}'),
    ('explain_api_key(text)',                                            '{auditor}'),
    ('list_users(boolean,text,integer)',                                 '{auditor,reconciler}'),
    ('needs_first_user()',                                               '{auditor,reconciler}'),
    ('authorize_api_key(text,text,text)',                                '{verifier}'),
    ('begin_request(text)',                                              '{requester,verifier}'),
    ('_forget_request()',                                                '{requester,verifier}'),
    ('check_request()',                                                  '{requester,verifier}'),
    ('current_user_id()',                                                '{requester,verifier}'),
    ('current_api_key_id()',                                             '{requester,verifier}'),
    ('current_scopes()',                                                 '{requester,verifier}'),
    ('is_permitted(text,text,text)',                                     '{requester,verifier}'),
    ('has_permission(text,text,text,text)',                              '{verifier,auditor,reconciler}'),
    ('register_resource_type(text,text,text)',                           '{reconciler}'),
    ('delete_resource_type(text)',                                       '{reconciler}'),
    ('list_resource_types()',                                            '{issuer,auditor,reconciler}'),
    ('ensure_resource(text,text,text,text,text)',                        '{reconciler}'),
    ('ensure_resources(text,text[],text[],text[])',                      '{reconciler}'),
    ('delete_resource(text,text,boolean)',                               '{reconciler}'),
    ('list_resources(text,text,text,integer)',                           '{auditor,reconciler}'),
    ('track_resource()',                                                 '{reconciler}'),
    ('track_table(regclass,text,text,text,text)',                        '{reconciler}'),
    ('define_role(text,text[],integer,text)',                            '{reconciler}'),
    ('delete_role(text)',                                                '{reconciler}'),
    ('list_roles()',                                                     '{auditor,reconciler}'),
    ('define_scope(text,text[],text)',                                   '{reconciler}'),
    ('delete_scope(text)',                                               '{reconciler}'),
    ('list_scopes()',                                                    '{issuer,auditor,reconciler}'),
    ('bind_role(text,text,text,text,text,text)',                         '{reconciler}'),
    ('unbind_role(text,text,text,text)',                                 '{reconciler}'),
    ('list_role_bindings(text,text,text,text,uuid,integer)',             '{auditor,reconciler}'),
    ('ensure_system_user(text,text,text[],text,text,text)',              '{reconciler}'),
    ('ensure_user(text,text,text,text,text,text)',                       '{reconciler}'),
    ('suspend_user(text)',                                               '{reconciler}'),
    ('activate_user(text)',                                              '{reconciler}'),
    ('delete_user(text)',                                                '{reconciler}'),
    ('_require_name(text,text)',                                         '{reconciler}'),
    ('_require_trackable(regclass,text)',                                '{reconciler}'),
    ('_note_tracked(regclass,text)',                                     '{reconciler}'),
    ('_grant_authenticator(text,text,text,text[],text[],boolean,text)',  '{reconciler}'),
    ('preflight_authenticator(text,text,text[],text[])',                 '{auditor,reconciler}'),
    ('grant_authenticator(text,text,text,text[],text[],boolean,text)',   '{reconciler}'),
    ('revoke_authenticator(text)',                                       '{reconciler}'),
    ('authenticator_status()',                                           '{auditor,reconciler}'),
    ('reconcile_authenticators()',                                       '{reconciler}'),
    ('list_authenticators()',                                            '{auditor,reconciler}'),
    ('allow_authenticator(text,text[])',                                 '{}'),
    ('disallow_authenticator(text)',                                     '{}'),
    ('list_allowed_authenticators()',                                    '{auditor,reconciler}'),
    ('set_postgrest_setting(text,text,text)',                            '{reconciler}'),
    ('set_postgrest_settings(text,jsonb)',                               '{reconciler}'),
    ('postgrest_config()',                                               '{authenticator}'),
    ('render_postgrest_config(text,text[],text,text,text,jsonb)',        '{reconciler}'),
    ('operator_key_name(text,text,text)',                                '{issuer,auditor,reconciler}'),
    ('ensure_operator_access(text,text,text,interval,interval,text)',    '{reconciler}'),
    ('revoke_operator_access(text,text,text)',                           '{reconciler}'),
    ('manifest_schema()',                                                '{issuer,auditor,reconciler}'),
    ('plan(jsonb)',                                                      '{reconciler}'),
    ('apply(jsonb)',                                                     '{reconciler}'),
    ('list_audit_events(text,text,uuid,text,timestamp with time zone,timestamp with time zone,uuid,integer)', '{auditor}'),
    ('prune_audit_events(integer)',                                      '{maintainer}'),
    ('metrics()',                                                        '{auditor,maintainer}'),
    ('version()',                                                        '{auditor,reconciler,maintainer}'),
    ('help(text)',                                                       '{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer}'),
    ('purge_api_keys(interval,integer)',                                 '{maintainer}'),
    ('purge_api_key_usage(integer)',                                     '{maintainer}'),
    ('purge_gateway_keys()',                                             '{maintainer}'),
    ('maintain(interval,integer)',                                       '{maintainer}'),
    ('list_access()',                                                    '{auditor}'),
    ('grant_access(text,text)',                                          '{}'),
    ('revoke_access(text,text)',                                         '{}')
  ) AS f (signature, capabilities)
 CROSS JOIN LATERAL pg_catalog.unnest(
   f.capabilities::pg_catalog.text[] OPERATOR(pg_catalog.||) ARRAY['admin']) AS c (capability);
COMMENT ON VIEW keywright._capability_functions IS
'Internal. The functions each capability may call; admin may call them all.';
COMMENT ON COLUMN keywright._capability_functions.signature IS 'The function, without its schema.';
COMMENT ON COLUMN keywright._capability_functions.capability IS 'A capability that may call it.';

CREATE TABLE keywright.access_grants (
  grantee regrole NOT NULL,
  capability text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT access_grants_capability_check CHECK (
      capability OPERATOR(pg_catalog.=) ANY (ARRAY['authenticator', 'requester', 'verifier', 'issuer', 'auditor', 'reconciler', 'maintainer',
        'admin'])),
  granted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT access_grants_pkey PRIMARY KEY (grantee, capability)
);
ALTER TABLE keywright.access_grants ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.access_grants',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = grantee)');
COMMENT ON TABLE keywright.access_grants IS 'Who holds which capability. A role that was dropped is not dumped.';
COMMENT ON COLUMN keywright.access_grants.grantee IS 'The role that holds the capability.';
COMMENT ON COLUMN keywright.access_grants.capability IS 'authenticator, requester, verifier, issuer, auditor, reconciler, maintainer or admin.';
COMMENT ON COLUMN keywright.access_grants.granted_at IS 'When it was granted.';
COMMENT ON CONSTRAINT access_grants_pkey ON keywright.access_grants IS 'A capability is held once.';
COMMENT ON INDEX keywright.access_grants_pkey IS 'A capability is held once.';
COMMENT ON CONSTRAINT access_grants_capability_check ON keywright.access_grants IS 'The capabilities.';

CREATE TABLE keywright.access_privileges (
  grantee regrole NOT NULL,
  object text COLLATE pg_catalog."C" NOT NULL,
  CONSTRAINT access_privileges_pkey PRIMARY KEY (grantee, object)
);
ALTER TABLE keywright.access_privileges ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.access_privileges',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = grantee)');
COMMENT ON TABLE keywright.access_privileges IS
'The ledger: each privilege grant_access itself gave. What a role had before is not in it and is never taken away.';
COMMENT ON COLUMN keywright.access_privileges.grantee IS 'The role the privilege was given to.';
COMMENT ON COLUMN keywright.access_privileges.object IS 'SCHEMA keywright, or ROUTINE and a signature.';
COMMENT ON CONSTRAINT access_privileges_pkey ON keywright.access_privileges IS 'A privilege is given once.';
COMMENT ON INDEX keywright.access_privileges_pkey IS 'A privilege is given once.';

CREATE FUNCTION keywright.grant_access(grantee text, capability text) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_access_wrapper';
COMMENT ON FUNCTION keywright.grant_access(text, text) IS
'Gives a role a capability: USAGE on the schema and EXECUTE on the functions of the capability, never a table privilege.
Arguments: grantee (a role; not PUBLIC and not a predefined one); capability: authenticator (postgrest_config, for the role PostgREST logs in as), requester (check_request, begin_request and what row security policies call), verifier (requester, and verify, authenticate, authorize, touch, heartbeat), issuer (mint, ensure, rotate, revoke, list keys), auditor (list, explain, metrics; nothing that writes), reconciler (issuer, and users, resources, roles), maintainer (maintain and what it calls, metrics) or admin (all).
Result: created, updated (missing privileges were given again) or unchanged. Parallel callers all succeed.
Errors: 42704 no such role; 42939 the role is reserved; 22023 no such capability; 40001 somebody else kept changing the same privileges.
Example: SELECT keywright.grant_access(''app'', ''verifier'');';

CREATE FUNCTION keywright.revoke_access(grantee text, capability text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'revoke_access_wrapper';
COMMENT ON FUNCTION keywright.revoke_access(text, text) IS
'Takes a capability away: undoes exactly what grant_access gave and no other capability of the role still needs.
Arguments: grantee and capability, as for grant_access.
Result: true when something changed, false when the role did not hold the capability.
Errors: 42704 no such role; 42939 the role is reserved; 22023 no such capability; 40001 somebody else kept changing the same privileges.
Example: SELECT keywright.revoke_access(''app'', ''verifier'');';

CREATE FUNCTION keywright.list_access()
RETURNS TABLE (grantee text, capability text, granted_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT r.rolname::pg_catalog.text, g.capability, g.granted_at
    FROM keywright.access_grants AS g
    JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee
   WHERE EXISTS (SELECT FROM pg_catalog.pg_namespace AS n, aclexplode(n.nspacl) AS a
                  WHERE n.nspname = 'keywright' AND a.grantee = g.grantee)
   ORDER BY r.rolname, g.capability
$$;
COMMENT ON FUNCTION keywright.list_access() IS
'Lists who holds which capability. A role whose privileges were taken away by DROP OWNED holds none.
Errors: none of its own.
Example: SELECT * FROM keywright.list_access();';

CREATE FUNCTION keywright._admit(routines text[]) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'admit_wrapper';
COMMENT ON FUNCTION keywright._admit(text[]) IS
'Internal. The last call of an upgrade script, with the signatures of the routines it made: they become the extension owner''s, are closed to everybody else, and are given to who holds a capability that has them. What was given on routines that are gone is forgotten. 55000 outside a script.';
