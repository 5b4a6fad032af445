-- Who may do what. Each capability gives its functions, nothing else, and never a table.
\pset null '(null)'
SELECT grantee, capability FROM keywright.list_access();

-- What each role may execute and read, asked of Postgres itself.
SELECT p.oid::regprocedure AS function,
       string_agg(CASE WHEN has_function_privilege('regress_keywright_' || c.capability, p.oid, 'EXECUTE')
                       THEN c.letter ELSE '-' END, '' ORDER BY c.n) AS trviarmn
  FROM pg_proc AS p,
       unnest('{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer,nobody}'::text[], '{t,r,v,i,a,r,m,n}'::text[]) WITH ORDINALITY AS c (capability, letter, n)
 WHERE p.pronamespace = 'keywright'::regnamespace AND p.proname NOT LIKE '\_%'
 GROUP BY p.oid ORDER BY p.oid::regprocedure::text;
-- admin may call everything that is not internal; nobody but the owner what is, but for two that a function with its caller's rights needs.
SELECT count(*) FILTER (WHERE NOT has_function_privilege('regress_keywright_admin', oid, 'EXECUTE')) AS not_admins
  FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace AND proname NOT LIKE '\_%';
SELECT count(*) AS internal_but_open FROM pg_proc, unnest('{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer,admin,nobody}'::text[]) AS c
 WHERE pronamespace = 'keywright'::regnamespace AND proname LIKE '\_%'
   AND has_function_privilege('regress_keywright_' || c, oid, 'EXECUTE');
SELECT count(*) AS tables_open FROM pg_class, unnest('{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer,admin,nobody}'::text[]) AS c
 WHERE relnamespace = 'keywright'::regnamespace AND relkind IN ('r', 'v')
   AND (has_table_privilege('regress_keywright_' || c, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        OR has_any_column_privilege('regress_keywright_' || c, oid, 'SELECT, INSERT, UPDATE, REFERENCES'));
-- Every function that is not internal belongs to a capability, and no other is named but two that a function with its caller's rights needs.
SELECT p.oid::regprocedure AS not_in_any_capability FROM pg_proc AS p
 WHERE p.pronamespace = 'keywright'::regnamespace AND p.proname NOT LIKE '\_%'
   AND NOT EXISTS (SELECT FROM keywright._capability_functions AS f WHERE ('keywright.' || f.signature)::regprocedure = p.oid);
SELECT f.signature AS internal_but_named FROM keywright._capability_functions AS f WHERE f.signature LIKE '\_%';

-- A verifier: verifies, and is refused the rest.
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active FROM keywright.verify_api_key('x');
SELECT * FROM keywright.list_api_keys();
SELECT * FROM keywright.list_gateway_keys();
SELECT * FROM keywright.api_keys;
SELECT hashed_secret FROM keywright.api_keys;
SELECT hashed_secret FROM keywright.gateway_keys;
SELECT keywright.mint_api_key('x', 'x');
SELECT keywright._mint_api_key('x', 'x', '{all}', '{*:*}', '1 day', NULL);
SELECT keywright._writing();
SELECT keywright.explain_api_key('x');
SELECT keywright.grant_access('regress_keywright_verifier', 'admin');
CALL keywright.maintain();
GRANT USAGE ON TYPE keywright.capability_admin TO regress_keywright_verifier;
CREATE TABLE keywright.mine ();
-- Without a capability, not even the schema.
SET SESSION AUTHORIZATION regress_keywright_nobody;
SELECT keywright.verify_api_key('x');
-- An issuer explains nothing, an auditor changes nothing, a reconciler gives no access.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT keywright.explain_api_key('x');
SELECT keywright.ensure_user('x', '');
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT keywright.revoke_api_key('AAAAAAAAAA');
SELECT keywright.verify_api_key('x');
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT keywright.grant_access('regress_keywright_reconciler', 'admin');
SELECT keywright.list_access();
-- A maintainer reads nothing but metrics, and shortens no memory.
SET SESSION AUTHORIZATION regress_keywright_maintainer;
CALL keywright.maintain();
SELECT keywright.purge_api_keys(), keywright.purge_gateway_keys(), keywright.prune_audit_events();
SELECT count(*) > 0 AS metrics FROM keywright.metrics();
SELECT keywright.list_api_keys();
SELECT keywright.list_audit_events();
SELECT keywright.revoke_api_key('AAAAAAAAAA');
SELECT keywright._estimated_rows('keywright.api_keys');
DELETE FROM keywright.audit_events;
SET keywright.audit_retention = 1;
RESET SESSION AUTHORIZATION;

-- Predefined roles that read and write everything find the tables closed.
CREATE ROLE regress_keywright_reader IN ROLE pg_read_all_data, pg_write_all_data;
SELECT name FROM keywright.mint_gateway_key('seen');
SET SESSION AUTHORIZATION regress_keywright_reader;
SELECT count(*) AS rows_seen FROM keywright.gateway_keys;
SELECT count(*) AS rows_seen FROM keywright.users;
SELECT count(*) AS rows_seen FROM keywright.roles;
INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES ('mine', 'kwg_mine000', sha256('1'));
DELETE FROM keywright.gateway_keys;
UPDATE keywright.gateway_keys SET name = 'mine';
RESET SESSION AUTHORIZATION;
SELECT name FROM keywright.delete_gateway_key('seen');
DROP ROLE regress_keywright_reader;

-- Granting and revoking, as an admin that is no superuser: idempotent, counted, undone exactly.
CREATE ROLE "regress_keywright Odd ""name""";
CREATE ROLE regress_keywright_own;
GRANT USAGE ON SCHEMA keywright TO regress_keywright_own;
GRANT EXECUTE ON FUNCTION keywright.verify_api_key(text) TO regress_keywright_own;
CREATE FUNCTION public.privileges(role regrole) RETURNS bigint LANGUAGE sql RETURN (
  SELECT count(*) FROM pg_proc, LATERAL aclexplode(proacl) AS a
   WHERE pronamespace = 'keywright'::regnamespace AND a.grantee = role) + (
  SELECT count(*) FROM pg_namespace, LATERAL aclexplode(nspacl) AS a
   WHERE nspname = 'keywright' AND a.grantee = role);
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.grant_access('regress_keywright Odd "name"', 'verifier');
SELECT keywright.grant_access('regress_keywright Odd "name"', 'verifier');
SELECT keywright.grant_access('regress_keywright Odd "name"', 'issuer');
SELECT keywright.grant_access('regress_keywright Odd "name"', 'reconciler');
SELECT public.privileges('"regress_keywright Odd ""name"""');
SELECT keywright.revoke_access('regress_keywright Odd "name"', 'issuer');
SELECT public.privileges('"regress_keywright Odd ""name"""') AS reconciler_needs_them_still;
SELECT keywright.revoke_access('regress_keywright Odd "name"', 'reconciler');
SELECT public.privileges('"regress_keywright Odd ""name"""') AS verifier;
SELECT keywright.revoke_access('regress_keywright Odd "name"', 'verifier');
SELECT keywright.revoke_access('regress_keywright Odd "name"', 'verifier');
SELECT public.privileges('"regress_keywright Odd ""name"""') AS nothing;
-- What a role had before goes too: revoked is revoked. What is of no capability that is revoked stays, and so does the schema.
SELECT keywright.grant_access('regress_keywright_own', 'verifier');
SELECT keywright.revoke_access('regress_keywright_own', 'verifier');
SELECT public.privileges('regress_keywright_own') AS nothing;
RESET SESSION AUTHORIZATION;
GRANT USAGE ON SCHEMA keywright TO regress_keywright_own;
GRANT EXECUTE ON FUNCTION keywright.verify_api_key(text), keywright.list_scopes() TO regress_keywright_own;
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.revoke_access('regress_keywright_own', 'verifier') AS without_a_grant, keywright.revoke_access('regress_keywright_own', 'verifier') AS again;
SELECT public.privileges('regress_keywright_own') AS schema_and_scopes;
-- A privilege taken away behind our back is given again; a rename is followed; a dropped role is forgotten.
SELECT keywright.grant_access('regress_keywright Odd "name"', 'verifier');
RESET SESSION AUTHORIZATION;
REVOKE EXECUTE ON FUNCTION keywright.verify_api_key(text) FROM "regress_keywright Odd ""name""";
ALTER ROLE "regress_keywright Odd ""name""" RENAME TO regress_keywright_renamed;
-- A role that gets the name now inherits nothing.
CREATE ROLE "regress_keywright Odd ""name""";
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.revoke_access('regress_keywright Odd "name"', 'verifier');
SELECT keywright.grant_access('regress_keywright_renamed', 'verifier');
SELECT grantee, capability FROM keywright.list_access() WHERE grantee LIKE '%renamed' OR grantee LIKE '%Odd%';
-- What DROP OWNED took comes back by no later grant.
SELECT keywright.grant_access('regress_keywright_renamed', 'reconciler');
RESET SESSION AUTHORIZATION;
DROP OWNED BY regress_keywright_renamed;
SELECT count(*) AS listed FROM keywright.list_access() WHERE grantee LIKE '%renamed';
GRANT USAGE ON SCHEMA keywright TO regress_keywright_renamed;
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.grant_access('regress_keywright_renamed', 'requester');
SELECT grantee, capability FROM keywright.list_access() WHERE grantee LIKE '%renamed';
SELECT keywright.grant_access(grantee, capability) FROM keywright.list_access() WHERE grantee LIKE '%renamed';
SELECT has_function_privilege('regress_keywright_renamed', 'keywright.mint_api_key(text,text,text[],text[],interval,text)', 'EXECUTE') AS mints;
RESET SESSION AUTHORIZATION;
DROP OWNED BY regress_keywright_renamed;
DROP ROLE regress_keywright_renamed, "regress_keywright Odd ""name""";
SELECT count(*) AS listed FROM keywright.list_access() WHERE grantee LIKE '%renamed' OR grantee ~ '^[0-9]+$';
DROP OWNED BY regress_keywright_own;
-- What a holder passed on goes with what it hangs on; what another role passed on to a holder goes too, and nobody else loses it.
CREATE ROLE regress_keywright_passer;
CREATE ROLE regress_keywright_friend;
SELECT keywright.grant_access(r, 'verifier') FROM unnest('{regress_keywright_own,regress_keywright_passer}'::text[]) AS r;
GRANT EXECUTE ON FUNCTION keywright.verify_api_key(text) TO regress_keywright_own, regress_keywright_passer WITH GRANT OPTION;
SET SESSION AUTHORIZATION regress_keywright_own;
GRANT EXECUTE ON FUNCTION keywright.verify_api_key(text) TO regress_keywright_friend;
SET SESSION AUTHORIZATION regress_keywright_passer;
GRANT EXECUTE ON FUNCTION keywright.verify_api_key(text) TO regress_keywright_own, regress_keywright_friend;
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT grantee, code, object, message, hint FROM keywright.access_status();
SELECT keywright.revoke_access('regress_keywright_own', 'verifier');
SELECT public.privileges('regress_keywright_own') AS nothing;
SELECT grantee, code, message, hint FROM keywright.access_status();
SELECT keywright.revoke_access('regress_keywright_passer', 'verifier');
SELECT count(*) AS differences FROM keywright.access_status();
-- The owner has everything, and keeps it.
SELECT keywright.grant_access(current_setting('regress.owner', true), 'verifier') FROM set_config('regress.owner', (SELECT r.rolname FROM pg_extension AS e JOIN pg_roles AS r ON r.oid = e.extowner WHERE extname = 'keywright'), false);
SELECT keywright.revoke_access(current_setting('regress.owner'), 'verifier');
SELECT has_function_privilege(current_setting('regress.owner'), 'keywright.verify_api_key(text)', 'EXECUTE') AS still;
RESET SESSION AUTHORIZATION;

-- The statement of each difference mends it: after all of them there is none.
SELECT keywright.grant_access('regress_keywright_own', 'issuer');
REVOKE EXECUTE ON FUNCTION keywright.revoke_api_key(text, text, text, text) FROM regress_keywright_own;
REVOKE USAGE ON SCHEMA keywright FROM regress_keywright_own;
GRANT EXECUTE ON FUNCTION keywright.grant_access(text, text) TO regress_keywright_own;
GRANT EXECUTE ON FUNCTION keywright.list_scopes() TO PUBLIC;
GRANT EXECUTE ON FUNCTION keywright._writing() TO regress_keywright_friend;
GRANT CREATE ON SCHEMA keywright TO regress_keywright_friend;
GRANT SELECT, DELETE ON keywright.api_keys TO regress_keywright_passer WITH GRANT OPTION;
GRANT SELECT (username), UPDATE (status) ON keywright.users TO PUBLIC;
GRANT USAGE ON TYPE keywright.capability_admin TO PUBLIC;
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT grantee, code, object, message, hint FROM keywright.access_status();
RESET SESSION AUTHORIZATION;
DO $$
DECLARE
  statement text;
BEGIN
  FOR statement IN SELECT hint FROM keywright.access_status() LOOP
    EXECUTE statement;
  END LOOP;
END
$$;
SELECT * FROM keywright.access_status();
-- A member of the owner is the owner.
CREATE ROLE regress_keywright_boss SUPERUSER;
GRANT regress_keywright_boss TO regress_keywright_friend;
SELECT count(*) AS of_another_superuser FROM keywright.access_status();
SELECT format('GRANT %I TO regress_keywright_friend', current_setting('regress.owner')) \gexec
SELECT grantee, code, object = format('ROLE %I', current_setting('regress.owner')) AS owner, message FROM keywright.access_status();
SELECT format('REVOKE %I FROM regress_keywright_friend', current_setting('regress.owner')) \gexec
-- All functions at once are not a capability.
GRANT USAGE ON SCHEMA keywright TO regress_keywright_friend;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA keywright TO regress_keywright_friend;
SELECT code, count(*) = (SELECT count(*) + 1 FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace AND prokind = 'f') AS each FROM keywright.access_status() GROUP BY code;
SELECT count(*) AS listed FROM keywright.list_access() WHERE grantee = 'regress_keywright_friend';
DROP OWNED BY regress_keywright_own, regress_keywright_passer, regress_keywright_friend;
DROP ROLE regress_keywright_own, regress_keywright_passer, regress_keywright_friend, regress_keywright_boss;
SELECT * FROM keywright.access_status();
SET SESSION AUTHORIZATION regress_keywright_admin;
\x on
SELECT * FROM public.refusal($$SELECT keywright.grant_access('public', 'verifier')$$);
SELECT * FROM public.refusal($$SELECT keywright.grant_access('pg_monitor', 'verifier')$$);
SELECT * FROM public.refusal($$SELECT keywright.grant_access('', 'verifier')$$);
SELECT * FROM public.refusal($$SELECT keywright.grant_access('absent', 'verifier')$$);
SELECT * FROM public.refusal($$SELECT keywright.grant_access('regress_keywright_nobody', 'root')$$);
SELECT * FROM public.refusal($$SELECT keywright.grant_access(NULL, 'verifier')$$);
SELECT * FROM public.refusal($$SELECT keywright.grant_access('regress_keywright_nobody', NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.revoke_access('absent', 'verifier')$$);
SELECT * FROM public.refusal($$SELECT keywright.grant_access('x; DROP ROLE postgres', 'verifier')$$);
\x off
RESET SESSION AUTHORIZATION;
DROP FUNCTION public.privileges;

-- Default privileges that somebody set for the installing role favour nobody here.
BEGIN;
SELECT keywright.revoke_access(grantee, capability) FROM keywright.list_access();
DROP EXTENSION keywright;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_keywright_nobody;
ALTER DEFAULT PRIVILEGES GRANT ALL ON ROUTINES TO regress_keywright_nobody;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO regress_keywright_nobody, PUBLIC;
CREATE EXTENSION keywright;
SELECT count(*) AS opened FROM (
  SELECT a.grantee FROM pg_class, LATERAL aclexplode(relacl) AS a WHERE relnamespace = 'keywright'::regnamespace AND a.grantee <> relowner
  UNION ALL
  SELECT a.grantee FROM pg_proc, LATERAL aclexplode(proacl) AS a WHERE pronamespace = 'keywright'::regnamespace AND a.grantee <> proowner
  UNION ALL
  SELECT a.grantee FROM pg_namespace, LATERAL aclexplode(nspacl) AS a WHERE nspname = 'keywright' AND a.grantee <> nspowner) AS o;
ROLLBACK;
-- A schema that somebody prepared is not moved into.
\set SHOW_CONTEXT never
BEGIN;
SELECT count(keywright.revoke_access(grantee, capability)) FROM keywright.list_access();
DROP EXTENSION keywright;
CREATE SCHEMA keywright;
CREATE EXTENSION keywright;
ROLLBACK;
-- Nor is it installed anywhere else, or by anybody else.
CREATE EXTENSION IF NOT EXISTS keywright SCHEMA public;
BEGIN;
DROP EXTENSION keywright;
SAVEPOINT s;
CREATE EXTENSION keywright SCHEMA public;
ROLLBACK TO s;
SET LOCAL SESSION AUTHORIZATION regress_keywright_nobody;
CREATE EXTENSION keywright;
ROLLBACK;
