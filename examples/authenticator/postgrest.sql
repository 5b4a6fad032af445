-- A day in the life of an authenticator: checked, allowed, granted, drifted, mended, configured, revoked.
\pset footer off
\pset null ''
CREATE EXTENSION keywright;
CREATE ROLE example_plane LOGIN;
SELECT keywright.grant_access('example_plane', 'reconciler');

-- The customer's own roles and schema. The login role is not quite right yet.
CREATE ROLE example_app NOLOGIN;
CREATE ROLE example_anon NOLOGIN;
CREATE ROLE example_user NOLOGIN;
CREATE SCHEMA api;
GRANT USAGE ON SCHEMA api TO example_user;

-- Before: the control plane asks what speaks against it.
SET SESSION AUTHORIZATION example_plane;
SELECT severity, code, message, hint FROM keywright.preflight_authenticator('example_app', 'example_anon', '{example_user}', '{api}');
RESET SESSION AUTHORIZATION;
ALTER ROLE example_app LOGIN;
GRANT USAGE ON SCHEMA api TO example_anon;

-- Who may grant these roles by hand allows the control plane to.
SELECT keywright.allow_authenticator('example_app', '{example_anon,example_user}');
SELECT keywright.grant_access('example_app', 'authenticator');

-- During: granted once. The same call again finds nothing to do.
SET SESSION AUTHORIZATION example_plane;
SELECT action, object, outcome FROM keywright.grant_authenticator('example-rest', 'example_app', 'example_anon', '{example_user}', '{api}')
 WHERE action <> 'grant connect';
SELECT count(*) AS changes FROM keywright.grant_authenticator('example-rest', 'example_app', 'example_anon', '{example_user}', '{api}');
RESET SESSION AUTHORIZATION;

-- It works: the login role is nobody by itself, and becomes whom a request names.
SET SESSION AUTHORIZATION example_app;
BEGIN;
SET LOCAL ROLE example_anon;
SELECT current_user, session_user;
COMMIT;
RESET SESSION AUTHORIZATION;

-- After: somebody changes it by hand. One row of status, one call to mend it.
ALTER ROLE example_app INHERIT;
SELECT service, code, object, message FROM keywright.authenticator_status();
SELECT action, object, outcome FROM keywright.reconcile_authenticators();
SELECT count(*) AS differences FROM keywright.authenticator_status();

-- PostgREST's settings, read by the login role that has nothing else.
SET SESSION AUTHORIZATION example_plane;
SELECT * FROM keywright.set_postgrest_settings('example-rest', '{"db_max_rows": 500, "jwt_aud": "https://shop.example"}');
SELECT * FROM keywright.set_postgrest_settings('example-rest', '{"db_max_rows": 20000, "db_pool": 31, "jwt_secret": "x"}');
SET SESSION AUTHORIZATION example_app;
BEGIN READ ONLY;
SELECT keywright.postgrest_config();
SELECT current_setting('pgrst.db_schemas') AS schemas, current_setting('pgrst.db_anon_role') AS anon, current_setting('pgrst.db_max_rows') AS max_rows;
COMMIT;
RESET SESSION AUTHORIZATION;

-- The service leaves: what was granted for it goes, and nothing else.
SELECT action, object, outcome FROM keywright.revoke_authenticator('example-rest') WHERE action <> 'revoke connect';
SELECT keywright.revoke_access('example_app', 'authenticator'), keywright.revoke_access('example_plane', 'reconciler');
DROP EXTENSION keywright;
DROP SCHEMA api;
DROP ROLE example_app, example_anon, example_user, example_plane;
