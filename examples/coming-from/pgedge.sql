-- Coming from service users as pgEdge's control plane makes them: an authenticator, CONNECT, NOINHERIT and memberships that were granted by hand or by it.
-- docs/coming-from/pgedge.md shows these statements.
\pset footer off
\pset null ''
CREATE EXTENSION keywright;

-- What is there: the service's login role (connect_as), the anonymous role and one of JWTs, granted as the control plane does; and a role of the
-- time when it made one for each service itself.
CREATE ROLE example_web LOGIN NOINHERIT;
CREATE ROLE example_web_anon NOLOGIN;
CREATE ROLE example_web_user NOLOGIN;
CREATE ROLE svc_example_ro LOGIN;
CREATE SCHEMA api;
CREATE TABLE api.items (id integer);
GRANT USAGE ON SCHEMA api TO example_web_anon, example_web_user, svc_example_ro;
GRANT SELECT ON api.items TO example_web_anon, svc_example_ro;
GRANT example_web_anon, example_web_user TO example_web;

-- Before: the service works.
SET SESSION AUTHORIZATION example_web;
SET ROLE example_web_anon;
SELECT count(*) AS seen FROM api.items;
RESET SESSION AUTHORIZATION;

-- Who is a member of what, and who granted it.
SELECT r.rolname AS role, m.rolname AS member, a.admin_option, g.rolname AS grantor
  FROM pg_auth_members AS a JOIN pg_roles AS r ON r.oid = a.roleid JOIN pg_roles AS m ON m.oid = a.member JOIN pg_roles AS g ON g.oid = a.grantor
 WHERE m.rolname = 'example_web' ORDER BY r.rolname;

-- What speaks against the service's roles and schemas: no row with severity error is good.
SELECT severity, code, message
  FROM keywright.preflight_authenticator('example_web', 'example_web_anon', '{example_web_user}', '{api}') WHERE severity <> 'notice';

-- The control plane's own login: a reconciler that may grant these roles and no others.
CREATE ROLE example_control_plane LOGIN;
SELECT keywright.grant_access('example_control_plane', 'reconciler');
SELECT keywright.allow_authenticator('example_web', '{example_web_anon,example_web_user}');

-- Keeping what is there as yours: keywright finds it, notes that it was there before, and would leave it there.
SET SESSION AUTHORIZATION example_control_plane;
SELECT action, object, outcome, reason
  FROM keywright.grant_authenticator('example-web', 'example_web', 'example_web_anon', '{example_web_user}', '{api}') WHERE action = 'set noinherit';
RESET SESSION AUTHORIZATION;
SELECT count(*) AS drift FROM keywright.authenticator_status();
SELECT action, object, outcome, reason FROM keywright.revoke_authenticator('example-web') WHERE action = 'set inherit';
SELECT pg_has_role('example_web', 'example_web_anon', 'MEMBER') AS still_yours;

-- Handing it over: taken away by hand and granted by keywright in one transaction, so that no other session ever sees it missing.
BEGIN;
REVOKE example_web_anon, example_web_user FROM example_web;
ALTER ROLE example_web INHERIT;
SELECT action, object, outcome
  FROM keywright.grant_authenticator('example-web', 'example_web', 'example_web_anon', '{example_web_user}', '{api}') WHERE action <> 'grant connect';
COMMIT;

-- Afterwards: nothing differs from what is wanted, and the service works as before.
SELECT service, code, object, message FROM keywright.authenticator_status();
SET SESSION AUTHORIZATION example_web;
SELECT count(*) AS seen FROM api.items;
SET ROLE example_web_anon;
SELECT count(*) AS seen FROM api.items;
RESET SESSION AUTHORIZATION;

-- A role that somebody took away is now noticed, and given again.
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 160000 THEN
    REVOKE example_web_user FROM example_web GRANTED BY keywright_grantor;
  ELSE
    REVOKE example_web_user FROM example_web;
  END IF;
END
$$;
SELECT service, code, object FROM keywright.authenticator_status();
SELECT service, action, object, outcome FROM keywright.reconcile_authenticators();

-- Roles of services that the control plane no longer uses: first what they own or may do here, then the role.
SELECT rolname AS unused FROM pg_roles AS r
 WHERE rolname LIKE 'svc\_example\_%' AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.usesysid = r.oid) ORDER BY rolname;
DROP OWNED BY svc_example_ro;
DROP ROLE svc_example_ro;

-- A superuser as connect_as is refused, which the control plane did not do.
CREATE ROLE example_super LOGIN SUPERUSER;
SELECT keywright.grant_authenticator('example-super', 'example_super', 'example_web_anon');
DROP ROLE example_super;

-- Back: what keywright granted is undone, and granted by hand, in one transaction.
BEGIN;
SELECT action, object, outcome FROM keywright.revoke_authenticator('example-web') WHERE action <> 'revoke connect';
ALTER ROLE example_web NOINHERIT;
GRANT example_web_anon, example_web_user TO example_web;
COMMIT;
SET SESSION AUTHORIZATION example_web;
SET ROLE example_web_anon;
SELECT count(*) AS seen FROM api.items;
RESET SESSION AUTHORIZATION;
SELECT keywright.disallow_authenticator('example_web'), keywright.revoke_access('example_control_plane', 'reconciler');
SET client_min_messages = warning;
DROP SCHEMA api CASCADE;
DROP EXTENSION keywright;
DROP ROLE example_web, example_web_anon, example_web_user, example_control_plane;
