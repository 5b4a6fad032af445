-- Authenticators: granted, noted, undone. Where PostgreSQL 16 made a difference there is a second expected file.
\set VERBOSITY default
\pset null '(null)'
CREATE ROLE regress_app LOGIN;
CREATE ROLE regress_app2 LOGIN;
CREATE ROLE regress_anon;
CREATE ROLE regress_anon2;
CREATE ROLE regress_user;
CREATE ROLE regress_team;
CREATE SCHEMA regress_api;
GRANT USAGE ON SCHEMA regress_api TO regress_anon, regress_anon2, regress_user;
-- The catalog: who may switch to what, by whose grant; who inherits; who may connect.
CREATE VIEW public.granted AS
SELECT m.roleid::regrole::text AS role, m.member::regrole::text AS member, m.admin_option AS admin,
       coalesce((to_jsonb(m) ->> 'inherit_option')::boolean::text, '') AS inherit, coalesce((to_jsonb(m) ->> 'set_option')::boolean::text, '') AS set,
       CASE WHEN m.grantor::regrole::text = 'keywright_grantor' THEN 'keywright' ELSE 'somebody' END AS by
  FROM pg_auth_members AS m WHERE m.roleid::regrole::text LIKE 'regress_%' AND m.roleid::regrole::text NOT LIKE 'regress_keywright%' ORDER BY 2, 1, 6;
CREATE VIEW public.attributes AS
SELECT rolname, rolinherit FROM pg_roles WHERE rolname ~ '^regress_app' OR rolname LIKE 'keywright_%' ORDER BY 1;

-- Preflight: every finding is a row, and nothing changes.
SET SESSION AUTHORIZATION regress_keywright_auditor;
SET default_transaction_read_only = on;
SELECT * FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{regress_user}', '{regress_api}');
SELECT * FROM keywright.preflight_authenticator('regress_nobody_1', 'regress_nobody_2', '{regress_nobody_3}', '{regress_nowhere,regress_api}');
SELECT * FROM keywright.preflight_authenticator('regress_app', 'regress_nobody_2', schemas => '{regress_nowhere}');
SELECT severity, code, object FROM keywright.preflight_authenticator('regress_app', 'regress_team', schemas => '{regress_api}');
SELECT severity, code, object, message FROM keywright.preflight_authenticator('regress_app', 'regress_anon', schemas => ARRAY['regress_api ', '', 'a,b', ' regress_api']);
SELECT severity, code, object, message FROM keywright.preflight_authenticator('regress_app', 'regress_anon', schemas => '{}');
SELECT severity, code, object, message FROM keywright.preflight_authenticator('pg_monitor', 'public', '{none,"",keywright_grantor}', '{regress_api}');
SELECT severity, code, object, message FROM keywright.preflight_authenticator('regress_app', 'regress_app', '{regress_app}', '{regress_api}');
SELECT severity, code, object, message FROM keywright.preflight_authenticator(repeat('x', 63), repeat('y', 64), ARRAY['a"b', 'a''b; DROP ROLE x', E'tab\there', 'naïve'], '{regress_api}');
SELECT * FROM keywright.preflight_authenticator(NULL, 'regress_anon');
SELECT * FROM keywright.preflight_authenticator('regress_app', 'regress_anon', NULL);
SELECT * FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{NULL}');
RESET default_transaction_read_only;
RESET SESSION AUTHORIZATION;
-- Each attribute, on the authenticator, on the anonymous role, and on a role of a JWT.
CREATE ROLE regress_power LOGIN;
DO $$
DECLARE
  attribute text;
  finding record;
BEGIN
  FOREACH attribute IN ARRAY '{SUPERUSER,BYPASSRLS,REPLICATION,CREATEROLE,CREATEDB,NOLOGIN,"VALID UNTIL ''2020-01-01''"}'::text[] LOOP
    EXECUTE format('ALTER ROLE regress_power %s', attribute);
    FOR finding IN
      SELECT 'as authenticator' AS part, f.* FROM keywright.preflight_authenticator('regress_power', 'regress_anon', '{}', '{regress_api}') AS f
      UNION ALL
      SELECT 'as anonymous', f.* FROM keywright.preflight_authenticator('regress_app', 'regress_power', '{}', '{regress_api}') AS f WHERE f.code NOT IN ('schema_usage', 'anon_login')
      UNION ALL
      SELECT 'as JWT', f.* FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{regress_power}', '{regress_api}') AS f WHERE f.code <> 'schema_usage'
    LOOP
      RAISE INFO '% %: % %: % (%)', attribute, finding.part, finding.severity, finding.code, finding.message, finding.hint;
    END LOOP;
    EXECUTE 'ALTER ROLE regress_power NOSUPERUSER NOBYPASSRLS NOREPLICATION NOCREATEROLE NOCREATEDB LOGIN VALID UNTIL ''infinity''';
  END LOOP;
END
$$;
SELECT severity, code, message, hint FROM keywright.preflight_authenticator('regress_app', 'regress_power', schemas => '{regress_api}');
-- The same through a chain of memberships.
CREATE ROLE regress_link;
GRANT regress_link TO regress_anon;
GRANT regress_power TO regress_link;
DO $$
DECLARE
  attribute text;
  finding record;
BEGIN
  FOREACH attribute IN ARRAY '{SUPERUSER,BYPASSRLS,REPLICATION,CREATEROLE,CREATEDB}'::text[] LOOP
    EXECUTE format('ALTER ROLE regress_power %s', attribute);
    FOR finding IN
      SELECT 'anonymous' AS part, f.* FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}') AS f
      UNION ALL
      SELECT 'JWT', f.* FROM keywright.preflight_authenticator('regress_app', 'regress_anon2', '{regress_anon}', '{regress_api}') AS f
    LOOP
      RAISE INFO '%: % % %: %', attribute, finding.part, finding.severity, finding.code, finding.message;
    END LOOP;
    EXECUTE 'ALTER ROLE regress_power NOSUPERUSER NOBYPASSRLS NOREPLICATION NOCREATEROLE NOCREATEDB';
  END LOOP;
END
$$;
REVOKE regress_power FROM regress_link;
GRANT pg_read_all_data, pg_execute_server_program TO regress_link;
SELECT severity, code, object, message, hint FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}');
SELECT severity, code, object, message FROM keywright.preflight_authenticator('regress_app', 'regress_anon2', '{regress_anon}', '{regress_api}');
REVOKE regress_link FROM regress_anon;
GRANT regress_link TO regress_app;
SELECT severity, code, object, message FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}') WHERE code <> 'inherits';
DROP ROLE regress_link;
-- What was granted by hand of the server and of keywright: to a role, by a membership, to everybody.
CREATE ROLE regress_link;
GRANT regress_link TO regress_user;
GRANT SET ON PARAMETER session_replication_role, log_statement TO regress_anon;
GRANT EXECUTE ON FUNCTION pg_read_file(text), lo_import(text) TO regress_anon;
GRANT UPDATE (rolpassword) ON pg_authid TO regress_link;
GRANT EXECUTE ON FUNCTION keywright.mint_api_key(text, text, text[], text[], interval, text) TO regress_link;
GRANT SELECT ON keywright.users TO PUBLIC;
SELECT severity, code, message, hint FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{regress_user}', '{regress_api}') WHERE code <> 'inherits';
REVOKE SELECT ON keywright.users FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION keywright.mint_api_key(text, text, text[], text[], interval, text) FROM regress_link;
REVOKE UPDATE (rolpassword) ON pg_authid FROM regress_link;
REVOKE EXECUTE ON FUNCTION pg_read_file(text), lo_import(text) FROM regress_anon;
REVOKE SET ON PARAMETER session_replication_role, log_statement FROM regress_anon;
DROP ROLE regress_link;
ALTER SCHEMA keywright OWNER TO regress_user;
SELECT severity, code, message FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{regress_user}', '{regress_api}') WHERE code = 'owner';
ALTER SCHEMA keywright OWNER TO CURRENT_USER;
ALTER DATABASE :DBNAME CONNECTION LIMIT 0;
SELECT * FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}');
ALTER DATABASE :DBNAME CONNECTION LIMIT -1;
-- The anonymous role is a member of the authenticator; the authenticator may not connect; a pre-request function.
GRANT regress_app TO regress_anon;
REVOKE CONNECT ON DATABASE :DBNAME FROM PUBLIC;
ALTER ROLE regress_app SET pgrst.db_pre_request = 'regress_api.check_it';
SELECT severity, code, object, message FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}');
CREATE FUNCTION regress_api.check_it() RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION regress_api.check_it FROM PUBLIC;
SELECT severity, code, object, message FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}');
GRANT EXECUTE ON FUNCTION regress_api.check_it TO regress_anon;
SELECT severity, code, object, message FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}');
ALTER ROLE regress_app SET pgrst.db_pre_request = 'keywright.check_request';
SELECT code, hint FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}') WHERE code LIKE 'pre_request%';
ALTER ROLE regress_app RESET pgrst.db_pre_request;
REVOKE regress_app FROM regress_anon;
GRANT CONNECT ON DATABASE :DBNAME TO PUBLIC;

-- A membership that inherits whatever NOINHERIT says, and one that may not be switched to (both from PostgreSQL 16).
GRANT regress_user TO regress_app;
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 160000 THEN
    EXECUTE 'GRANT regress_anon TO regress_app WITH SET FALSE, INHERIT FALSE';
  END IF;
END
$$;
ALTER ROLE regress_app NOINHERIT;
SELECT severity, code, object, message, hint FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{regress_user}', '{regress_api}');
-- Ours neither inherits nor is kept from switching by theirs.
CREATE TABLE regress_api.notes ();
GRANT SELECT ON regress_api.notes TO regress_anon;
SELECT count(*) FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}');
SELECT has_table_privilege('regress_app', 'regress_api.notes', 'SELECT') AS inherits;
SET SESSION AUTHORIZATION regress_app;
SET ROLE regress_anon;
SELECT count(*) FROM regress_api.notes;
RESET ROLE;
SELECT count(*) FROM regress_api.notes;
RESET SESSION AUTHORIZATION;
SELECT count(*) FROM keywright.revoke_authenticator('rest');
SELECT * FROM public.granted;
REVOKE regress_user FROM regress_app;
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 160000 THEN
    REVOKE regress_anon FROM regress_app;
  END IF;
END
$$;
ALTER ROLE regress_app INHERIT;
DROP TABLE regress_api.notes;

-- Least power: the capability alone grants nothing.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{regress_user}', '{regress_api}');
SELECT keywright.allow_authenticator('regress_app', '{regress_anon}');
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.allow_authenticator('regress_app', '{regress_anon}');
RESET SESSION AUTHORIZATION;
SELECT keywright.allow_authenticator('regress_app', '{regress_anon,regress_user}'), keywright.allow_authenticator('regress_app', '{regress_user,regress_anon}');
SELECT keywright.allow_authenticator('regress_app2', '{regress_anon}'), keywright.allow_authenticator('regress_app2', '{regress_anon,regress_anon2,regress_user}');
SELECT keywright.allow_authenticator('regress_nobody_1', '{regress_anon}');
SELECT keywright.allow_authenticator('regress_app', '{pg_monitor}');
SELECT keywright.allow_authenticator('regress_app', '{}');
SELECT * FROM keywright.list_allowed_authenticators();
-- Who has the ADMIN OPTION could grant by hand, and may.
GRANT regress_team TO regress_keywright_admin WITH ADMIN OPTION;
GRANT regress_power TO regress_keywright_admin WITH ADMIN OPTION;
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.allow_authenticator('regress_power', '{regress_team}'), keywright.disallow_authenticator('regress_power'), keywright.disallow_authenticator('regress_power');
SELECT keywright.allow_authenticator('regress_power', '{regress_team,regress_anon}');
RESET SESSION AUTHORIZATION;
REVOKE regress_team, regress_power FROM regress_keywright_admin;

-- Granted by a reconciler, for pairs that are allowed.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{regress_user}', '{regress_api}', managed_by => 'plane-a');
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{regress_user,regress_user,regress_anon}', '{regress_api,regress_api}', managed_by => 'plane-a');
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{regress_user}', '{regress_api}');
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}', managed_by => 'plane-b');
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon2', '{}', '{regress_api}', managed_by => 'plane-a');
SELECT * FROM keywright.authenticator_status();
SELECT service, connect_as, anon_role, jwt_roles, schemas, noinherit, managed_by FROM keywright.list_authenticators();
RESET SESSION AUTHORIZATION;
SELECT * FROM public.granted;
SELECT * FROM public.attributes;
SELECT keywright.disallow_authenticator('regress_app');
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT count(*) AS changes FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{regress_user}', '{regress_api}', managed_by => 'plane-a');
-- Two services that share it: the first leaves, the grant stays; the second leaves, it goes.
SELECT * FROM keywright.grant_authenticator('rest-two', 'regress_app', 'regress_anon', '{}', '{regress_api}');
RESET SESSION AUTHORIZATION;
SELECT keywright.allow_authenticator('regress_app', '{regress_anon,regress_user}');
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT * FROM keywright.grant_authenticator('rest-two', 'regress_app', 'regress_anon', '{}', '{regress_api}');
SELECT * FROM keywright.revoke_authenticator('rest');
RESET SESSION AUTHORIZATION;
SELECT * FROM public.granted;
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT * FROM keywright.revoke_authenticator('rest-two');
SELECT * FROM keywright.revoke_authenticator('rest-two');
SELECT * FROM keywright.revoke_authenticator(NULL);
RESET SESSION AUTHORIZATION;
SELECT * FROM public.granted;
SELECT * FROM public.attributes;

-- A service moves to another authenticator and another anonymous role in one call.
SELECT keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{regress_user}', '{regress_api}');
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app2', 'regress_anon2', '{regress_user}', '{regress_api}');
SELECT * FROM public.granted;
SELECT * FROM public.attributes;
-- And stops wanting NOINHERIT.
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app2', 'regress_anon2', '{}', '{regress_api}', noinherit => false);
SELECT * FROM keywright.revoke_authenticator('rest');
SELECT * FROM public.granted;

-- The customer granted it before us: it is theirs, and stays.
GRANT regress_anon TO regress_app;
ALTER ROLE regress_app NOINHERIT;
REVOKE CONNECT ON DATABASE :DBNAME FROM PUBLIC;
GRANT CONNECT ON DATABASE :DBNAME TO regress_app;
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}');
SELECT * FROM public.granted;
SELECT * FROM keywright.revoke_authenticator('rest');
SELECT * FROM public.granted;
SELECT * FROM public.attributes;
SELECT a.grantee::regrole, a.privilege_type FROM pg_database AS d, aclexplode(d.datacl) AS a WHERE d.datname = :'DBNAME' AND a.grantee::regrole::text LIKE 'regress_app%';
REVOKE regress_anon FROM regress_app;
REVOKE CONNECT ON DATABASE :DBNAME FROM regress_app;
ALTER ROLE regress_app INHERIT;

-- CONNECT is granted where PUBLIC has it not, and taken back.
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}');
SELECT a.grantee::regrole, a.privilege_type FROM pg_database AS d, aclexplode(d.datacl) AS a WHERE d.datname = :'DBNAME' AND a.grantee::regrole::text LIKE 'regress_app%';
SELECT * FROM keywright.revoke_authenticator('rest') WHERE action = 'revoke connect';
SELECT count(*) FROM pg_database AS d, aclexplode(d.datacl) AS a WHERE d.datname = :'DBNAME' AND a.grantee::regrole::text LIKE 'regress_app%';

-- Drift of each kind is a row; one reconcile later there is none; the second writes nothing.
SELECT keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{regress_user}', '{regress_api}');
\set catalog 'SELECT md5(string_agg(x, '','' ORDER BY x)) AS catalog FROM (SELECT xmin::text || oid AS x FROM pg_authid UNION ALL SELECT m.xmin::text || m.roleid || m.member FROM pg_auth_members AS m UNION ALL SELECT xmin::text || setrole FROM pg_db_role_setting UNION ALL SELECT xmin::text || oid FROM pg_database) AS t'
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 160000 THEN
    REVOKE regress_anon FROM regress_app GRANTED BY keywright_grantor;
  ELSE
    REVOKE regress_anon FROM regress_app;
  END IF;
END
$$;
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
ALTER ROLE regress_app INHERIT;
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
REVOKE CONNECT ON DATABASE :DBNAME FROM regress_app;
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
-- The options of our row (PostgreSQL 16 and later; before, rows have none).
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 160000 THEN
    EXECUTE 'GRANT regress_user TO regress_app WITH INHERIT TRUE, SET FALSE GRANTED BY keywright_grantor';
  END IF;
END
$$;
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
-- The ledger itself.
ALTER ROLE keywright_grantor RESET ALL;
SELECT service, code, object FROM keywright.authenticator_status();
SELECT service, action, object, outcome FROM keywright.reconcile_authenticators();
ALTER ROLE keywright_grantor SET keywright_ledger.entries = '';
SELECT service, code, object FROM keywright.authenticator_status();
SELECT service, action, object, outcome FROM keywright.reconcile_authenticators();
SELECT * FROM keywright.authenticator_status();
:catalog \gset before_
SELECT * FROM keywright.reconcile_authenticators();
:catalog \gset after_
SELECT :'before_catalog' = :'after_catalog' AS wrote_nothing;
-- What is the customer's to mend is told, and left.
ALTER ROLE regress_app NOLOGIN SUPERUSER;
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
ALTER ROLE regress_app LOGIN NOSUPERUSER;
SELECT * FROM keywright.authenticator_status();
-- Before PostgreSQL 16, what a lost ledger does not say is not taken away.
SELECT * FROM keywright.revoke_authenticator('rest');
DO $$
BEGIN
  IF current_setting('server_version_num')::integer < 160000 THEN
    REVOKE regress_anon, regress_user FROM regress_app;
  END IF;
END
$$;
ALTER ROLE regress_app INHERIT;
REVOKE CONNECT ON DATABASE :DBNAME FROM regress_app;

-- A role that is renamed is still the same role; one that is dropped and made again is not.
SELECT keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}');
ALTER ROLE regress_app RENAME TO regress_app_renamed;
ALTER ROLE regress_anon RENAME TO regress_anon_renamed;
SELECT connect_as, anon_role FROM keywright.list_authenticators();
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
CREATE ROLE regress_app LOGIN;
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon_renamed', '{}', '{regress_api}');
SELECT * FROM public.granted;
SELECT * FROM public.attributes;
REVOKE CONNECT ON DATABASE :DBNAME FROM regress_app;
DROP ROLE regress_app;
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
CREATE ROLE regress_app LOGIN;
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
SELECT * FROM keywright.authenticator_status();
SELECT * FROM keywright.revoke_authenticator('rest');
SELECT * FROM public.granted;
ALTER ROLE regress_anon_renamed RENAME TO regress_anon;

-- A role of that name that somebody planted is not ours, whatever it says of itself; and the mark that it is ours is a superuser's to make.
CREATE ROLE regress_planter CREATEROLE;
CREATE ROLE regress_helper CREATEROLE;
GRANT CREATE ON DATABASE :DBNAME TO regress_helper;
SET SESSION AUTHORIZATION regress_helper;
CREATE SCHEMA regress_plant;
CREATE ROLE keywright_grantor NOLOGIN;
COMMENT ON ROLE keywright_grantor IS 'keywright: grants memberships to authenticators, and carries the ledger of what was granted';
GRANT keywright_grantor TO regress_helper;
GRANT USAGE, CREATE ON SCHEMA regress_plant TO keywright_grantor;
SET ROLE keywright_grantor;
CREATE FUNCTION regress_plant.hand_out() RETURNS void LANGUAGE sql SECURITY DEFINER AS '';
RESET ROLE;
ALTER ROLE keywright_grantor SET keywright_ledger.entries = '{"system": "0", "entries": []}';
REVOKE ALL ON SCHEMA regress_plant FROM keywright_grantor;
RESET SESSION AUTHORIZATION;
REASSIGN OWNED BY regress_helper TO regress_planter;
DROP OWNED BY regress_helper;
DROP ROLE regress_helper;
CREATE VIEW public.planted AS
SELECT f.severity, f.code, r.code AS refused, (SELECT string_agg(r2.outcome, ',') FROM keywright.reconcile_authenticators() AS r2) AS reconciled
  FROM keywright.preflight_authenticator('regress_app', 'regress_anon', '{}', '{regress_api}') AS f,
       public.refusal($$SELECT keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}')$$) AS r WHERE f.code = 'grantor_altered';
SELECT * FROM public.planted;
DROP FUNCTION regress_plant.hand_out();
SELECT severity, code FROM public.planted;
SELECT keywright.allow_authenticator('regress_app', '{regress_anon}');
SELECT * FROM keywright.revoke_authenticator('rest');
SELECT count(*) FROM pg_roles WHERE rolname = 'keywright_grantor';
-- A superuser marked it: then it is ours if it owns nothing, was granted nothing, and has no other setting, in no database.
ALTER ROLE keywright_grantor SET keywright_ledger.entries = '';
SELECT count(*) FROM public.planted;
CREATE FUNCTION regress_plant.hand_out() RETURNS void LANGUAGE sql SECURITY DEFINER AS '';
ALTER FUNCTION regress_plant.hand_out() OWNER TO keywright_grantor;
SELECT severity, code FROM public.planted;
DROP FUNCTION regress_plant.hand_out();
ALTER DEFAULT PRIVILEGES FOR ROLE keywright_grantor GRANT EXECUTE ON FUNCTIONS TO regress_planter;
SELECT severity, code FROM public.planted;
ALTER DEFAULT PRIVILEGES FOR ROLE keywright_grantor REVOKE EXECUTE ON FUNCTIONS FROM regress_planter;
GRANT CREATE ON SCHEMA regress_plant TO keywright_grantor;
SELECT severity, code FROM public.planted;
REVOKE CREATE ON SCHEMA regress_plant FROM keywright_grantor;
ALTER ROLE keywright_grantor IN DATABASE :DBNAME SET work_mem = '1MB';
SELECT severity, code FROM public.planted;
ALTER ROLE keywright_grantor IN DATABASE :DBNAME RESET work_mem;
SELECT * FROM public.planted;
SELECT keywright.disallow_authenticator('regress_app');
SELECT outcome, count(*) FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}') GROUP BY 1 ORDER BY 1;
SELECT outcome, count(*) FROM keywright.revoke_authenticator('rest') GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM pg_roles WHERE rolname = 'keywright_grantor';
DROP VIEW public.planted;
DROP SCHEMA regress_plant;
DROP ROLE regress_planter;

-- A name that became another role's waits for a new grant or an allowance, also in a superuser's job, and after a ledger without entries.
CREATE ROLE regress_planted LOGIN;
SELECT count(*) FROM keywright.grant_authenticator('rest', 'regress_planted', 'regress_anon', '{}', '{regress_api}');
REVOKE CONNECT ON DATABASE :DBNAME FROM regress_planted;
DROP ROLE regress_planted;
SELECT * FROM keywright.reconcile_authenticators();
CREATE ROLE regress_planted LOGIN;
SELECT code, object, hint FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
SELECT * FROM public.granted;
SELECT keywright.allow_authenticator('regress_planted', '{regress_anon}');
SELECT action, outcome FROM keywright.reconcile_authenticators();
SELECT keywright.disallow_authenticator('regress_planted');
-- The same for a role that is granted.
CREATE ROLE regress_planted2;
SELECT count(*) FROM keywright.grant_authenticator('rest', 'regress_planted', 'regress_anon', '{regress_planted2}', '{regress_api}');
DROP ROLE regress_planted2;
CREATE ROLE regress_planted2;
SELECT * FROM keywright.reconcile_authenticators();
SELECT action, object, outcome FROM keywright.grant_authenticator('rest', 'regress_planted', 'regress_anon', '{regress_planted2}', '{regress_api}');
SELECT * FROM keywright.reconcile_authenticators();
-- What keywright_grantor granted is ours, also when no ledger says so (PostgreSQL 16 and later).
ALTER ROLE keywright_grantor SET keywright_ledger.entries = '';
DELETE FROM keywright.authenticators;
SELECT code, object, message, hint FROM keywright.authenticator_status();
SELECT action, object, outcome FROM keywright.reconcile_authenticators();
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 160000 THEN
    REVOKE regress_anon FROM regress_planted GRANTED BY keywright_grantor;
    REVOKE regress_planted2 FROM regress_planted GRANTED BY keywright_grantor;
    DROP OWNED BY keywright_grantor;
  END IF;
END
$$;
SELECT * FROM keywright.authenticator_status();
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 160000 THEN
    REVOKE regress_anon, regress_planted2 FROM keywright_grantor;
  END IF;
END
$$;
DROP ROLE keywright_grantor;
REVOKE CONNECT ON DATABASE :DBNAME FROM regress_planted;
DROP ROLE regress_planted, regress_planted2;

-- Allowances come back by name, each row for itself; a role that is not there allows nothing, and nobody who takes its name.
CREATE ROLE regress_planted;
SELECT keywright.allow_authenticator('regress_app', '{regress_anon,regress_planted}');
SELECT format('CREATE TEMPORARY TABLE dumped AS SELECT a.* FROM keywright.authenticator_allowances AS a %s', extcondition[array_position(extconfig, 'keywright.authenticator_allowances'::regclass::oid)])
  FROM pg_extension WHERE extname = 'keywright' \gexec
DELETE FROM keywright.authenticator_allowances;
DROP ROLE regress_planted;
UPDATE dumped SET connect_as_oid = 1, role_oid = 2;
INSERT INTO keywright.authenticator_allowances SELECT * FROM dumped;
CREATE ROLE regress_planted;
SELECT * FROM keywright.list_allowed_authenticators();
SELECT connect_as, role, connect_as_oid IS NULL AS nobody, role_oid IS NULL AS nothing FROM keywright.authenticator_allowances ORDER BY 1, 2;
DROP ROLE regress_planted;
-- Renamed, it is not what a dump would say; allowed again, it is.
ALTER ROLE regress_anon RENAME TO regress_anon_renamed;
SELECT * FROM keywright.list_allowed_authenticators();
SELECT keywright.allow_authenticator('regress_app', '{regress_anon_renamed}'), (SELECT string_agg(role, ',' ORDER BY role) FROM keywright.authenticator_allowances WHERE connect_as = 'regress_app') AS before;
SELECT keywright.allow_authenticator('regress_app', '{regress_anon_renamed}'), (SELECT string_agg(role, ',' ORDER BY role) FROM keywright.authenticator_allowances WHERE connect_as = 'regress_app') AS before;
ALTER ROLE regress_anon_renamed RENAME TO regress_anon;
SELECT keywright.disallow_authenticator('regress_app');

-- A service of no role still changes its login: it wants an allowance, or somebody who could grant it by hand.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT * FROM keywright.grant_authenticator('bare', 'regress_app', NULL, '{}', '{regress_api}');
RESET SESSION AUTHORIZATION;
SELECT action, outcome FROM keywright.grant_authenticator('bare', 'regress_app', NULL, '{}', '{regress_api}');
SELECT action, outcome FROM keywright.revoke_authenticator('bare');

-- Names with everything in them.
CREATE ROLE "regress_App ""x"" $1; 'é" LOGIN;
CREATE ROLE "regress_anon ""é""";
CREATE SCHEMA "regress Api";
SELECT * FROM keywright.grant_authenticator('rest', 'regress_App "x" $1; ''é', 'regress_anon "é"', '{}', '{"regress Api"}');
SELECT object, outcome FROM keywright.revoke_authenticator('rest');
SELECT * FROM keywright.grant_authenticator('Rest_One', 'regress_app', 'regress_anon');
SELECT * FROM keywright.grant_authenticator(NULL, 'regress_app', 'regress_anon');
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', managed_by => 'a b');
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', noinherit => NULL);
DROP ROLE "regress_App ""x"" $1; 'é", "regress_anon ""é""";

-- The ledger in a database that is not UTF8: what others called their roles and databases is neither lost nor replaced, also when it is another
-- cluster's ledger, as after a restore.
CREATE ROLE "regress_app_é" LOGIN;
SELECT count(*) FROM keywright.grant_authenticator('rest', 'regress_app_é', 'regress_anon', '{}', '{regress_api}');
CREATE DATABASE "regress_keywright_é" TEMPLATE template0;
CREATE DATABASE regress_keywright_ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
\set dbname :DBNAME
\connect "regress_keywright_é"
CREATE EXTENSION keywright;
SELECT count(*) FROM keywright.grant_authenticator('rest-two', 'regress_app', 'regress_anon');
\connect regress_keywright_ascii
CREATE EXTENSION keywright;
DO $$
BEGIN
  EXECUTE (SELECT format('ALTER ROLE keywright_grantor SET keywright_ledger.entries = %L', regexp_replace(substr(c, 26), '"system":"[0-9]+"', '"system":"1"'))
             FROM pg_db_role_setting AS s, unnest(s.setconfig) AS c WHERE s.setrole = 'keywright_grantor'::regrole);
END
$$;
SELECT count(*) FROM keywright.grant_authenticator('ascii', 'regress_app2', 'regress_anon');
SELECT count(*) FROM keywright.revoke_authenticator('ascii');
\connect :dbname
\pset null '(null)'
SELECT DISTINCT e -> 'member' ->> 'name' AS member, k ->> 'service' AS service, k -> 'database' ->> 'name' AS database
  FROM pg_db_role_setting AS s, unnest(s.setconfig) AS c, jsonb_array_elements(substr(c, 26)::jsonb -> 'entries') AS e, jsonb_array_elements(e -> 'claims') AS k
 WHERE s.setrole = 'keywright_grantor'::regrole ORDER BY 1, 2;
SELECT count(*) FROM keywright.authenticator_status();
SELECT outcome, count(*) FROM keywright.revoke_authenticator('rest') GROUP BY 1 ORDER BY 1;
\connect "regress_keywright_é"
SELECT outcome, count(*) FROM keywright.revoke_authenticator('rest-two') GROUP BY 1 ORDER BY 1;
\connect :dbname
\pset null '(null)'
DROP DATABASE "regress_keywright_é";
DROP DATABASE regress_keywright_ascii;
REVOKE CONNECT ON DATABASE :DBNAME FROM "regress_app_é";
DROP ROLE "regress_app_é";

-- Refused, each with its code; nothing changes.
SELECT part, r.code, r.message, r.detail, r.hint FROM (VALUES
  ('missing', $$'rest', 'regress_nobody_1', 'regress_anon'$$), ('predefined', $$'rest', 'regress_app', 'pg_monitor'$$),
  ('same', $$'rest', 'regress_app', 'regress_app'$$), ('no schema', $$'rest', 'regress_app', 'regress_anon', '{}', '{}'$$),
  ('several kinds', $$'rest', 'regress_nobody_1', 'pg_monitor', '{}', '{regress_nowhere}'$$),
  ('nologin', $$'rest', 'regress_team', 'regress_anon'$$), ('schema', $$'rest', 'regress_app', 'regress_anon', '{}', '{regress_nowhere}'$$),
  ('superuser', $$'rest', 'postgres', 'regress_anon'$$), ('superuser as JWT', $$'rest', 'regress_app', 'regress_anon', '{postgres}'$$)) AS v (part, arguments),
  LATERAL public.refusal(format('SELECT keywright.grant_authenticator(%s)', arguments)) AS r;
SELECT count(*) FROM keywright.list_authenticators();
SELECT * FROM public.granted;
BEGIN READ ONLY;
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}');
ROLLBACK;

-- keywright_grantor with a member could be used to grant what it may.
SELECT keywright.grant_authenticator('rest', 'regress_app', 'regress_anon', '{}', '{regress_api}');
GRANT keywright_grantor TO regress_team;
SELECT * FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon2', '{}', '{regress_api}');
REVOKE keywright_grantor FROM regress_team;
SELECT count(*) FROM keywright.grant_authenticator('rest', 'regress_app', 'regress_anon2', '{}', '{regress_api}');
-- Dropping the extension takes nothing from anybody; made anew, it finds what is left over.
DROP EXTENSION keywright CASCADE;
SELECT * FROM public.granted;
SELECT count(*) FROM pg_roles WHERE rolname ~ '^regress_(app|anon)2?$';
CREATE EXTENSION keywright;
SELECT service, code, object FROM keywright.authenticator_status();
SELECT * FROM keywright.reconcile_authenticators();
SELECT * FROM public.granted;
SELECT * FROM public.attributes;
SELECT count(keywright.grant_access('regress_keywright_' || capability, capability))
  FROM unnest('{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer,admin}'::text[]) AS capability;
GRANT CONNECT ON DATABASE :DBNAME TO PUBLIC;
DROP VIEW public.granted, public.attributes;
DROP SCHEMA regress_api, "regress Api" CASCADE;
DROP ROLE regress_app, regress_app2, regress_app_renamed, regress_anon, regress_anon2, regress_user, regress_team, regress_power;
