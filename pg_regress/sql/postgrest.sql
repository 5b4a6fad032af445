-- PostgREST's configuration of a service: set, read by the authenticator, rendered.
\set VERBOSITY default
\pset null '(null)'
CREATE ROLE regress_pgrst_anon;
CREATE ROLE regress_pgrst_user;
CREATE SCHEMA regress_pgrst;
SELECT keywright.allow_authenticator('regress_keywright_authenticator', '{regress_pgrst_anon,regress_pgrst_user}');
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT count(*) FROM keywright.grant_authenticator('rest', 'regress_keywright_authenticator', 'regress_pgrst_anon', '{regress_pgrst_user}', '{public,regress_pgrst}');

-- Set one, and several; unchanged calls write nothing.
SELECT keywright.set_postgrest_setting('rest', 'db_max_rows', '250'), keywright.set_postgrest_setting('rest', 'db_max_rows', ' 250 '),
       keywright.set_postgrest_setting('rest', 'db_max_rows', '0300'), keywright.set_postgrest_setting('rest', 'db_pool', '30');
SELECT * FROM keywright.set_postgrest_settings('rest', '{"db_max_rows": 300, "db_pool": null, "jwt_aud": "https://a$b.example", "openapi_mode": "disabled",
  "db_aggregates_enabled": true, "server_cors_allowed_origins": " https://a , ,https://b,", "jwt_role_claim_key": ".role", "db_pre_request": "pg_catalog.now", "log_level": "warn"}');
SELECT * FROM keywright.set_postgrest_settings('rest', '{"db_max_rows": "300", "db_pool": null, "db_aggregates_enabled": "true"}');
-- Limits, unknown keys, and what is given elsewhere: all together, unknown ones first, sorted.
SELECT * FROM keywright.set_postgrest_settings('rest', '{"zeta": 1, "db_pool": 31, "db_max_rows": 10001, "alpha": 2, "jwt_secret": "0123456789012345678901234567890123456789", "openapi_mode": "no",
  "db_anon_role": "x", "db_schemas": "", "db_uri": "x", "db_plan_enabled": "yes", "openapi_server_proxy_uri": "ftp://x", "jwt_aud": "", "db_pre_request": "a.b.c", "server_cors_allowed_origins": " , "}');
SELECT key, r.code, r.detail FROM (VALUES ('db_pool', '0'), ('db_pool', '1'), ('db_pool', '30'), ('db_pool', '10.5'), ('db_pool', 'ten'), ('db_pool', '1e1'), ('db_max_rows', '0'), ('db_max_rows', '1'),
  ('db_max_rows', '10000'), ('db_max_rows', '-1'), ('db_max_rows', '99999999999999999999'), ('jwt_aud', E'a\nb'), ('jwt_aud', repeat('x', 4097)), ('jwt_aud', 'kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3jZT8c')) AS v (key, value),
  LATERAL public.refusal(format('SELECT keywright.set_postgrest_setting(%L, %L, %L)', 'rest', key, value)) AS r;
-- What PostgREST would refuse, or read otherwise, is refused, all of it at once.
SELECT * FROM keywright.set_postgrest_settings('rest', '{"jwt_aud": "shop: east & west", "jwt_role_claim_key": "role is nonsense", "openapi_server_proxy_uri": "http://:80", "admin_server_port": 3000,
  "server_cors_allowed_origins": "https://a, not a url", "db_extra_search_path": "public, regress_nowhere", "server_trace_header": "X Request", "db_tx_end": "abort"}');
SELECT * FROM keywright.set_postgrest_settings('rest', '{"jwt_role_claim_key": ".a..b["}');
SELECT * FROM keywright.set_postgrest_settings('rest', '{"jwt_role_claim_key": ".\"https://x/role\"[0]", "db_extra_search_path": "regress_pgrst", "jwt_secret_is_base64": true, "admin_server_port": 3001}');
SELECT * FROM keywright.set_postgrest_settings('rest', '{"server_port": 3001}');
SELECT keywright.render_postgrest_config('rest', '{h}', NULL, 'a plain secret of at least 32 characters');
SELECT keywright.render_postgrest_config('rest', '{h}', '', '@a-secret-that-begins-so-is-the-name-of-a-file');
SELECT keywright.render_postgrest_config('rest', '{h}', NULL, 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=') LIKE '%jwt-secret-is-base64 = true%' AS right;
SELECT * FROM keywright.set_postgrest_settings('rest', '{"jwt_role_claim_key": ".role", "db_extra_search_path": null, "jwt_secret_is_base64": null, "admin_server_port": null}');
SELECT keywright.set_postgrest_settings('rest', '[1]');
SELECT keywright.set_postgrest_settings('rest', '{"db_pool": [1], "db_max_rows": {}}');
SELECT keywright.set_postgrest_settings('rest', NULL);
SELECT keywright.set_postgrest_setting('nobody', 'db_pool', '3');
SELECT keywright.set_postgrest_setting('rest', NULL, '3');
SELECT keywright.set_postgrest_setting('rest', 'db_pool', NULL), keywright.set_postgrest_setting('rest', 'db_pool', '20');

-- Whoever logs in as the authenticator reads it, in a READ ONLY transaction, and has nothing else.
SET SESSION AUTHORIZATION regress_keywright_authenticator;
BEGIN READ ONLY;
SELECT keywright.postgrest_config();
SELECT name, current_setting('pgrst.' || name, true) AS value FROM unnest('{db_aggregates_enabled,db_anon_role,db_max_rows,db_pool,db_pre_request,db_schemas,jwt_aud,jwt_role_claim_key,jwt_secret,log_level,openapi_mode,server_cors_allowed_origins}'::text[]) AS name;
COMMIT;
SELECT nullif(current_setting('pgrst.db_anon_role', true), '') AS after_the_transaction;
SELECT keywright.list_authenticators();
SELECT keywright.render_postgrest_config('rest', '{localhost}');
SELECT keywright.check_request();
-- Anybody else gets nothing by it.
SET SESSION AUTHORIZATION regress_keywright_admin;
BEGIN;
SELECT keywright.postgrest_config(), nullif(current_setting('pgrst.db_anon_role', true), '') AS anon;
COMMIT;
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT keywright.postgrest_config();

-- The file. Secrets are in it and nowhere else.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT keywright.render_postgrest_config('rest', '{db1.example:5432,db2.example,[::1]:5433,/run/postgresql}', E'p$a:s@s/w"o\\r d%é€', 'a $ecret with "quotes" and \backslashes\', 'prefer-standby', '{"sslmode": "verify-full", "application_name": "rest & co", "connect_timeout": 5}');
SELECT keywright.render_postgrest_config('rest', '{localhost}');
SELECT keywright.render_postgrest_config('rest', ARRAY['', 'a b', 'h:0', 'h:65536', 'h:', 'h:x', 'a,b', '[::1', '[x]:1', 'ok', NULL], 'canary-password', 'canary-secret');
SELECT keywright.render_postgrest_config('rest', ARRAY['', 'a b', 'h:0', 'h:65536', 'h:', 'h:x', 'a,b', '[::1', '[x]:1', 'u@h', 'ok'], 'canary-password', 'canary-secret', 'primary-ish', '{"host": "x", "Bad-Key": "y"}');
SELECT keywright.render_postgrest_config('rest', '{}', NULL, repeat('é', 31));
SELECT keywright.render_postgrest_config('nobody', '{localhost}');
SELECT keywright.render_postgrest_config('rest', NULL);
SELECT split_part(keywright.render_postgrest_config('rest', '{h}', 'x', '@/run/secret'), E'\n', 1) AS uri;

-- Two services log in as one role: the file says which one is meant, and without it the older is.
SELECT count(*) FROM keywright.grant_authenticator('rest-two', 'regress_keywright_authenticator', 'regress_pgrst_user', '{}', '{public}');
SELECT split_part(keywright.render_postgrest_config('rest-two', '{h}', parameters => '{"options": "-c work_mem=8MB"}'), E'\n', 1) AS uri;
SET SESSION AUTHORIZATION regress_keywright_authenticator;
BEGIN;
SELECT keywright.postgrest_config(), current_setting('pgrst.db_anon_role') AS anon;
SET LOCAL keywright.service = 'rest-two';
SELECT keywright.postgrest_config(), current_setting('pgrst.db_anon_role') AS anon, current_setting('pgrst.db_max_rows') AS max_rows;
SET LOCAL keywright.service = 'nobody';
SELECT keywright.postgrest_config(), current_setting('pgrst.db_anon_role') AS anon;
COMMIT;
RESET SESSION AUTHORIZATION;

-- Names follow the roles.
ALTER ROLE regress_pgrst_anon RENAME TO regress_pgrst_anon2;
SELECT substring(keywright.render_postgrest_config('rest', '{h}') FROM 'db-anon-role[^\n]*') AS anon;
SELECT count(*) FROM keywright.grant_authenticator('rest', 'regress_keywright_authenticator', 'regress_pgrst_anon2', '{regress_pgrst_user}', '{public,regress_pgrst}');
-- Without its capability the login reads nothing, and status says so; the schemas of its search path are looked for.
SELECT keywright.set_postgrest_settings('rest', '{"db_extra_search_path": "regress_pgrst"}');
SELECT * FROM keywright.authenticator_status();
SELECT keywright.revoke_access('regress_keywright_authenticator', 'authenticator');
ALTER SCHEMA regress_pgrst RENAME TO regress_pgrst2;
SELECT service, code, object, message, hint FROM keywright.authenticator_status();
ALTER SCHEMA regress_pgrst2 RENAME TO regress_pgrst;
SELECT keywright.grant_access('regress_keywright_authenticator', 'authenticator');
SELECT * FROM keywright.authenticator_status();
-- No anonymous role: empty for PostgREST, which is none, and not a line of the file. Only the schemas changed: a row says so.
SELECT action, object, outcome FROM keywright.grant_authenticator('rest', 'regress_keywright_authenticator', NULL, '{regress_pgrst_user}', '{public,regress_pgrst}');
SELECT anon_role, jwt_roles FROM keywright.list_authenticators() WHERE service = 'rest';
SELECT * FROM keywright.grant_authenticator('rest', 'regress_keywright_authenticator', NULL, '{regress_pgrst_user}', '{regress_pgrst}');
SELECT * FROM keywright.grant_authenticator('rest', 'regress_keywright_authenticator', NULL, '{regress_pgrst_user}', '{regress_pgrst}');
SELECT keywright.render_postgrest_config('rest', '{h}');
SET SESSION AUTHORIZATION regress_keywright_authenticator;
BEGIN READ ONLY;
SELECT keywright.postgrest_config(), current_setting('pgrst.db_anon_role') AS anon;
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT * FROM keywright.preflight_authenticator('regress_keywright_authenticator', NULL, '{regress_pgrst_user}', '{pg_catalog,information_schema}') WHERE severity = 'error';
SELECT severity, code, message, hint FROM keywright.preflight_authenticator('regress_keywright_authenticator', NULL, '{}', '{keywright,"public, regress_pgrst"}');
-- Settings go with their service.
SELECT count(*) FROM keywright.revoke_authenticator('rest');
SELECT count(*) FROM keywright.revoke_authenticator('rest');
SELECT count(*) FROM keywright.revoke_authenticator('rest-two');
SELECT count(*) FROM keywright.postgrest_settings;
SELECT keywright.disallow_authenticator('regress_keywright_authenticator');
DROP ROLE regress_pgrst_anon2, regress_pgrst_user;
DROP SCHEMA regress_pgrst;
