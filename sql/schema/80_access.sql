-- Access: capabilities, each a set of functions.

-- Columns of views have names in every branch: what a dump writes of others is not what it reads back.

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
    ('rotate_api_key(text,interval,text)',                               '{issuer,reconciler}'),
    ('revoke_api_key(text,text,text,text)',                              '{issuer,reconciler}'),
    ('revoke_user_api_keys(text,text,text)',                             '{issuer,reconciler}'),
    ('revoke_leaked_api_key(text)',                                      '{issuer,reconciler}'),
    ('expire_api_key(text)',                                             '{issuer,reconciler}'),
    ('mint_gateway_key(text,text)',                                      '{issuer,reconciler}'),
    ('ensure_gateway_key(text,text,text)',                               '{issuer,reconciler}'),
    ('rotate_gateway_key(text,interval)',                                '{issuer,reconciler}'),
    ('delete_gateway_key(text,text)',                                    '{issuer,reconciler}'),
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
    ('delete_resource_type(text,text)',                                  '{reconciler}'),
    ('list_resource_types()',                                            '{issuer,auditor,reconciler}'),
    ('ensure_resource(text,text,text,text,text)',                        '{reconciler}'),
    ('ensure_resources(text,text[],text[],text[])',                      '{reconciler}'),
    ('delete_resource(text,text,boolean,text)',                          '{reconciler}'),
    ('list_resources(text,text,text,integer)',                           '{auditor,reconciler}'),
    ('track_resource()',                                                 '{reconciler}'),
    ('track_table(regclass,text,text,text,text)',                        '{reconciler}'),
    ('define_role(text,text[],integer,text)',                            '{reconciler}'),
    ('delete_role(text,text)',                                           '{reconciler}'),
    ('list_roles()',                                                     '{auditor,reconciler}'),
    ('define_scope(text,text[],text)',                                   '{reconciler}'),
    ('delete_scope(text,text)',                                          '{reconciler}'),
    ('list_scopes()',                                                    '{issuer,auditor,reconciler}'),
    ('bind_role(text,text,text,text,text,text)',                         '{reconciler}'),
    ('unbind_role(text,text,text,text,text)',                            '{reconciler}'),
    ('list_role_bindings(text,text,text,text,uuid,integer)',             '{auditor,reconciler}'),
    ('ensure_system_user(text,text,text[],text,text,text)',              '{reconciler}'),
    ('ensure_user(text,text,text,text,text,text)',                       '{reconciler}'),
    ('suspend_user(text,text)',                                          '{reconciler}'),
    ('activate_user(text,text)',                                         '{reconciler}'),
    ('delete_user(text,text)',                                           '{reconciler}'),
    ('_require_name(text,text)',                                         '{reconciler}'),
    ('_require_trackable(regclass,text)',                                '{reconciler}'),
    ('_require_only_table(regclass,text)',                               '{reconciler}'),
    ('_note_tracked(regclass,text)',                                     '{reconciler}'),
    ('_grant_authenticator(text,text,text,text[],text[],boolean,text)',  '{reconciler}'),
    ('preflight_authenticator(text,text,text[],text[])',                 '{auditor,reconciler}'),
    ('grant_authenticator(text,text,text,text[],text[],boolean,text)',   '{reconciler}'),
    ('revoke_authenticator(text,text)',                                  '{reconciler}'),
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
    ('ensure_operator_access(text,text,text,interval,interval,text,text,text[],text,text[],text[],text)',    '{reconciler}'),
    ('revoke_operator_access(text,text,text,text)',                      '{reconciler}'),
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
    ('access_status()',                                                  '{auditor}'),
    ('grant_access(text,text)',                                          '{}'),
    ('revoke_access(text,text)',                                         '{}')
  ) AS f (signature, capabilities)
 CROSS JOIN LATERAL (
   SELECT pg_catalog.unnest(f.capabilities::pg_catalog.text[]) AS capability
    UNION SELECT 'admin' AS capability
    UNION SELECT 'reconciler' AS capability WHERE 'verifier' OPERATOR(pg_catalog.=) ANY (f.capabilities::pg_catalog.text[])) AS c;
COMMENT ON VIEW keywright._capability_functions IS
'Internal. The functions each capability may call; reconciler may call those of verifier, and admin all.';
COMMENT ON COLUMN keywright._capability_functions.signature IS 'The function, without its schema.';
COMMENT ON COLUMN keywright._capability_functions.capability IS 'A capability that may call it.';

-- That a role holds a capability is itself a privilege: USAGE on the domain of the capability. So it follows a role that is
-- renamed, goes with one that is dropped, is taken away by DROP OWNED, and comes back from a dump as every other GRANT does.
DO $$
DECLARE
  capability pg_catalog.text;
BEGIN
  FOREACH capability IN ARRAY ARRAY[
    'authenticator', 'requester', 'verifier', 'issuer', 'auditor', 'reconciler', 'maintainer', 'admin']
  LOOP
    EXECUTE pg_catalog.format('CREATE DOMAIN keywright.%I AS boolean', 'capability_' OPERATOR(pg_catalog.||) capability);
    EXECUTE pg_catalog.format('COMMENT ON DOMAIN keywright.%I IS %L', 'capability_' OPERATOR(pg_catalog.||) capability,
      'Internal. USAGE on it is the capability ' OPERATOR(pg_catalog.||) capability OPERATOR(pg_catalog.||) '. It has no values.');
  END LOOP;
END
$$;

CREATE VIEW keywright._access AS
SELECT a.grantee, pg_catalog.substr(t.typname::pg_catalog.text, 12) AS capability
  FROM pg_catalog.pg_type AS t CROSS JOIN LATERAL pg_catalog.aclexplode(t.typacl) AS a
 WHERE t.typnamespace OPERATOR(pg_catalog.=) 'keywright'::pg_catalog.regnamespace
   AND t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog."char"
   AND pg_catalog.starts_with(t.typname::pg_catalog.text, 'capability_')
   AND a.grantee OPERATOR(pg_catalog.<>) t.typowner AND a.grantee OPERATOR(pg_catalog.<>) 0::pg_catalog.oid;
COMMENT ON VIEW keywright._access IS 'Internal. Who holds which capability.';
COMMENT ON COLUMN keywright._access.grantee IS 'The role.';
COMMENT ON COLUMN keywright._access.capability IS 'What it holds.';

CREATE VIEW keywright._capability_privileges AS
SELECT c.capability, o.object, o.privilege
  FROM (SELECT DISTINCT f.capability FROM keywright._capability_functions AS f) AS c
 CROSS JOIN LATERAL (
   VALUES ('SCHEMA keywright', 'USAGE'), ('TYPE keywright.capability_' OPERATOR(pg_catalog.||) c.capability, 'USAGE')
 ) AS o (object, privilege)
UNION ALL
SELECT f.capability, 'ROUTINE keywright.' OPERATOR(pg_catalog.||) f.signature, 'EXECUTE' AS privilege
  FROM keywright._capability_functions AS f;
COMMENT ON VIEW keywright._capability_privileges IS 'Internal. What each capability is made of, the domain that stands for it included.';
COMMENT ON COLUMN keywright._capability_privileges.capability IS 'The capability.';
COMMENT ON COLUMN keywright._capability_privileges.object IS 'The object, as GRANT names it.';
COMMENT ON COLUMN keywright._capability_privileges.privilege IS 'USAGE or EXECUTE.';

CREATE VIEW keywright._privileges AS
SELECT o.object, o.owner, a.grantee, a.grantor, a.privilege_type OPERATOR(pg_catalog.||) o.columns AS privilege, a.is_grantable
  FROM (
    SELECT 'SCHEMA keywright' AS object, n.nspowner AS owner, n.nspacl AS acl, '' AS columns
      FROM pg_catalog.pg_namespace AS n
     WHERE n.nspname OPERATOR(pg_catalog.=) 'keywright'
    UNION ALL
    SELECT pg_catalog.format('ROUTINE keywright.%I(%s)', p.proname,
             pg_catalog.replace(pg_catalog.oidvectortypes(p.proargtypes), ', ', ',')),
           p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), '' AS columns
      FROM pg_catalog.pg_proc AS p
     WHERE p.pronamespace OPERATOR(pg_catalog.=) 'keywright'::pg_catalog.regnamespace
    UNION ALL
    SELECT pg_catalog.format('%s keywright.%I', CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname),
           c.relowner, c.relacl, '' AS columns
      FROM pg_catalog.pg_class AS c
     WHERE c.relnamespace OPERATOR(pg_catalog.=) 'keywright'::pg_catalog.regnamespace
    UNION ALL
    SELECT pg_catalog.format('TABLE keywright.%I', c.relname), c.relowner, t.attacl, pg_catalog.format(' (%I)', t.attname)
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_attribute AS t ON t.attrelid OPERATOR(pg_catalog.=) c.oid
     WHERE c.relnamespace OPERATOR(pg_catalog.=) 'keywright'::pg_catalog.regnamespace
    UNION ALL
    SELECT pg_catalog.format('TYPE keywright.%I', t.typname), t.typowner, t.typacl, '' AS columns
      FROM pg_catalog.pg_type AS t
     WHERE t.typnamespace OPERATOR(pg_catalog.=) 'keywright'::pg_catalog.regnamespace
  ) AS o
 CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) AS a
 WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner;
COMMENT ON VIEW keywright._privileges IS 'Internal. What anybody but its owner may do with an object of keywright.';
COMMENT ON COLUMN keywright._privileges.object IS 'The object, as GRANT names it.';
COMMENT ON COLUMN keywright._privileges.owner IS 'The owner of the object.';
COMMENT ON COLUMN keywright._privileges.grantee IS 'The role; 0 for PUBLIC.';
COMMENT ON COLUMN keywright._privileges.grantor IS 'The role that gave it.';
COMMENT ON COLUMN keywright._privileges.privilege IS 'The privilege, with the column if it is that of one.';
COMMENT ON COLUMN keywright._privileges.is_grantable IS 'Whether the role may pass it on.';

CREATE FUNCTION keywright.grant_access(grantee text, capability text) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_access_wrapper';
COMMENT ON FUNCTION keywright.grant_access(text, text) IS
'Gives a role a capability: USAGE on the schema and EXECUTE on the functions of the capability, never a table privilege.
Arguments: grantee (a role; not PUBLIC and not a predefined one); capability: authenticator (postgrest_config, for the role PostgREST logs in as), requester (check_request, begin_request and what row security policies call), verifier (requester, and verify, authenticate, authorize, touch, heartbeat), issuer (mint, ensure, rotate, revoke, list keys), auditor (list, explain, metrics; nothing that writes), reconciler (issuer and verifier, and users, resources, roles), maintainer (maintain and what it calls, metrics) or admin (all).
Result: created, updated (missing privileges were given again) or unchanged. The owner of keywright has everything, so nothing is given to it. Parallel callers all succeed.
Errors: 42704 no such role; 42939 the role is reserved; 22023 no such capability; 40001 somebody else kept changing the same privileges.
Example: SELECT keywright.grant_access(''app'', ''verifier'');';

CREATE FUNCTION keywright.revoke_access(grantee text, capability text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'revoke_access_wrapper';
COMMENT ON FUNCTION keywright.revoke_access(text, text) IS
'Takes a capability away: each privilege of the capability that the role has in its own name, whoever granted it, except those another capability of the role needs. What the role passed on to others goes too. A privilege that comes from PUBLIC or from a membership stays: see access_status.
Arguments: grantee and capability, as for grant_access.
Result: true when this call took something away, false when the role had nothing of the capability or there is no such role.
Errors: 42939 the role is reserved; 22023 no such capability; 40001 somebody else kept changing the same privileges.
Example: SELECT keywright.revoke_access(''app'', ''verifier'');';

CREATE FUNCTION keywright.list_access()
RETURNS TABLE (grantee text, capability text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT r.rolname::pg_catalog.text, g.capability
    FROM keywright._access AS g
    JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee
   ORDER BY r.rolname, g.capability
$$;
COMMENT ON FUNCTION keywright.list_access() IS
'Lists who holds which capability. When and by whom it was granted is in list_audit_events(of_kind => ''access_grant''). A role whose privileges were taken away by DROP OWNED holds none.
Errors: none of its own.
Example: SELECT * FROM keywright.list_access();';

CREATE FUNCTION keywright.access_status()
RETURNS TABLE (grantee text, code text, object text, message text, hint text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  WITH privileges AS MATERIALIZED (SELECT p.* FROM keywright._privileges AS p),
  needed AS MATERIALIZED (
    SELECT g.grantee, p.object, p.privilege, min(g.capability) AS capability
      FROM keywright._access AS g JOIN keywright._capability_privileges AS p ON p.capability = g.capability
     GROUP BY 1, 2, 3),
  named AS (
    SELECT r.oid, r.rolname::text AS name, quote_ident(r.rolname) AS ident FROM pg_roles AS r
     UNION ALL
    SELECT 0, 'PUBLIC', 'PUBLIC')
  SELECT d.grantee, d.code, d.object, d.message, d.hint
    FROM (
      SELECT r.name AS grantee, 'missing' AS code, n.object,
             format('The capability %s needs %s, which the role does not have.', n.capability, n.privilege) AS message,
             format('SELECT keywright.grant_access(%L, %L);', r.name, n.capability) AS hint
        FROM needed AS n JOIN named AS r ON r.oid = n.grantee
       WHERE (n.grantee, n.object, n.privilege) NOT IN (SELECT p.grantee, p.object, p.privilege FROM privileges AS p)
       UNION ALL
      SELECT r.name, 'not_granted', p.object,
             format('%s was granted by %s, and no capability that was granted needs it.', p.privilege, g.name),
             CASE WHEN p.grantor = p.owner THEN format('REVOKE %s ON %s FROM %s CASCADE;', p.privilege, p.object, r.ident)
                  ELSE format('REVOKE GRANT OPTION FOR %s ON %s FROM %s CASCADE;', p.privilege, p.object, g.ident) END
        FROM privileges AS p
        JOIN named AS r ON r.oid = p.grantee
        JOIN named AS g ON g.oid = p.grantor
       WHERE (p.grantee, p.object, p.privilege) NOT IN (SELECT n.grantee, n.object, n.privilege FROM needed AS n)
       UNION ALL
      SELECT r.name, 'grant_option', p.object, format('The role may pass %s on.', p.privilege),
             format('REVOKE GRANT OPTION FOR %s ON %s FROM %s CASCADE;', p.privilege, p.object, r.ident)
        FROM privileges AS p
        JOIN named AS r ON r.oid = p.grantee
       WHERE p.is_grantable
       UNION ALL
      SELECT r.name, 'acts_as_owner', 'ROLE ' || o.ident, 'The role is a member of the owner of keywright, and may do all that the owner may.',
             format('REVOKE %s FROM %s;', o.ident, r.ident)
        FROM pg_extension AS e
        JOIN named AS o ON o.oid = e.extowner
        JOIN pg_roles AS m ON m.oid <> e.extowner AND NOT m.rolsuper AND pg_has_role(m.oid, e.extowner, 'MEMBER')
        JOIN named AS r ON r.oid = m.oid
       WHERE e.extname = 'keywright'
    ) AS d
   ORDER BY d.grantee, d.code, d.object, d.message
$$;
COMMENT ON FUNCTION keywright.access_status() IS
'How the privileges on the schema, functions, tables, columns and types of keywright differ from the capabilities that roles hold.
Result: a row a difference, none when in sync: grantee (a role or PUBLIC); code (missing: a capability of the role needs it and the role does not have it; not_granted: no capability of the role needs it, so somebody granted it by hand; grant_option: the role may pass it on; acts_as_owner: the role is a member of the owner of keywright); object; message; hint (the statement that mends it).
Errors: none of its own.
Example: SELECT * FROM keywright.access_status();';

CREATE FUNCTION keywright._admit(routines text[]) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'admit_wrapper';
COMMENT ON FUNCTION keywright._admit(text[]) IS
'Internal. The last call of an upgrade script, with the signatures of the routines it made: they become the extension owner''s, are closed to everybody else, and are given to who holds a capability that has them. 55000 outside a script.';
