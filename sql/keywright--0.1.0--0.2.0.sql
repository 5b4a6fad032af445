-- From 0.1.0 to 0.2.0: keywright.version(), and who may call it.

-- First, as grant_access and revoke_access do, so that neither waits for the other.
LOCK TABLE keywright.access_grants IN SHARE ROW EXCLUSIVE MODE;

CREATE FUNCTION keywright.version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'version_wrapper';
COMMENT ON FUNCTION keywright.version() IS
'The version of the library that this session has loaded. That of the schema is extversion in pg_extension; between installing a new library and ALTER EXTENSION keywright UPDATE they differ.';

CREATE FUNCTION keywright._admit(routines text[]) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'admit_wrapper';
COMMENT ON FUNCTION keywright._admit(text[]) IS
'Internal. The last call of an upgrade script, with the signatures of the routines it made: they become the extension owner''s, are closed to everybody else, and are given to who holds a capability that has them. What was given on routines that are gone is forgotten. 55000 outside a script.';

CREATE OR REPLACE VIEW keywright._capability_functions AS
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

SELECT keywright._admit(ARRAY['version()', '_admit(text[])']);
