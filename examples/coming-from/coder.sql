-- Coming from tables such as Coder's, into which an operator writes users and tokens by itself: each token goes on verifying, under the
-- id, the secret and the expiry it had. docs/coming-from/coder.md shows these statements.
\pset footer off
\pset null ''
CREATE EXTENSION keywright;

-- The old tables, as far as they matter here, what the old system said of a token, and a few rows. All tokens are made up.
CREATE SCHEMA old;
CREATE TYPE old.login_type AS ENUM ('password', 'github', 'oidc', 'token', 'none', 'oauth2_provider_app');
CREATE TYPE old.user_status AS ENUM ('active', 'suspended', 'dormant');
CREATE TYPE old.api_key_scope AS ENUM ('coder:all', 'coder:workspaces.access', 'workspace:read');
CREATE TABLE old.users (
  id uuid PRIMARY KEY, username text NOT NULL, email text NOT NULL, status old.user_status NOT NULL DEFAULT 'active',
  rbac_roles text[] NOT NULL DEFAULT '{}', deleted boolean NOT NULL DEFAULT false, is_system boolean NOT NULL DEFAULT false,
  is_service_account boolean NOT NULL DEFAULT false);
CREATE TABLE old.organizations (id uuid PRIMARY KEY, name text NOT NULL, deleted boolean NOT NULL DEFAULT false);
CREATE TABLE old.organization_members (organization_id uuid, user_id uuid, roles text[] NOT NULL DEFAULT '{}');
CREATE TABLE old.api_keys (
  id text PRIMARY KEY, hashed_secret bytea NOT NULL, user_id uuid NOT NULL REFERENCES old.users, last_used timestamptz,
  expires_at timestamptz NOT NULL, created_at timestamptz NOT NULL, login_type old.login_type NOT NULL, token_name text NOT NULL DEFAULT '',
  scopes old.api_key_scope[] NOT NULL, allow_list text[] NOT NULL);
CREATE FUNCTION old.verify(token text) RETURNS boolean LANGUAGE sql RETURN EXISTS (
  SELECT FROM old.api_keys AS k JOIN old.users AS u ON u.id = k.user_id
   WHERE k.id = split_part(token, '-', 1) AND k.hashed_secret = sha256(convert_to(split_part(token, '-', 2), 'UTF8'))
     AND k.expires_at > now() AND u.status <> 'suspended' AND NOT u.deleted);

INSERT INTO old.users (id, username, email, status, rbac_roles, deleted, is_system, is_service_account) VALUES
  ('00000000-0000-4000-8000-000000000001', 'coder-k8s-operator', 'coder-k8s-operator@coder-k8s.invalid', 'active', '{owner}', false, true, false),
  ('00000000-0000-4000-8000-000000000002', 'ada', 'ada@example.org', 'active', '{}', false, false, false),
  ('00000000-0000-4000-8000-000000000003', 'ci-bot', '', 'active', '{}', false, false, true),
  ('00000000-0000-4000-8000-000000000004', 'sam', 'sam@example.org', 'suspended', '{}', false, false, false),
  ('00000000-0000-4000-8000-000000000005', 'left-us', 'left@example.org', 'active', '{}', true, false, false);
INSERT INTO old.organizations (id, name) VALUES ('00000000-0000-4000-8000-00000000000a', 'acme');
INSERT INTO old.organization_members VALUES
  ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000001', '{organization-admin}'),
  ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000002', '{}'),
  ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000004', '{}');
\set operator 'OpKey00001-made0up0operator000000'
\set laptop 'AdaKey0001-made0up0laptop00000000'
\set session 'AdaKey0002-made0up0session0000000'
\set ended 'CiKey00001-made0up0ended000000000'
\set bot 'CiKey00002-made0up0robot000000000'
\set sams 'SamKey0001-made0up0sams0000000000'
INSERT INTO old.api_keys (id, hashed_secret, user_id, expires_at, created_at, login_type, token_name, scopes, allow_list)
SELECT split_part(t.token, '-', 1), sha256(convert_to(split_part(t.token, '-', 2), 'UTF8')),
       ('00000000-0000-4000-8000-00000000000' || t.owner)::uuid, now() + t.left_of_it, now() - interval '60 days', t.login_type::old.login_type,
       t.name, t.scopes::old.api_key_scope[], t.allow_list::text[]
  FROM (VALUES
    (:'operator', 1, interval '305 days', 'token', 'coder-k8s-operator-c50b092ffc0cdd1f', '{coder:all}', '{*:*}'),
    (:'laptop', 2, interval '30 days', 'token', 'Brave_Turing7', '{workspace:read,coder:workspaces.access}', '{workspace:00000000-0000-4000-8000-0000000000aa}'),
    (:'session', 2, interval '1 day', 'password', '', '{coder:all}', '{*:*}'),
    (:'ended', 3, interval '-1 day', 'token', 'deploy', '{coder:all}', '{*:*}'),
    (:'bot', 3, interval '7 days', 'token', 'deploy', '{coder:all}', '{*:*}'),
    (:'sams', 4, interval '7 days', 'token', 'home', '{coder:all}', '{*:*}'))
    AS t (token, owner, left_of_it, login_type, name, scopes, allow_list);

-- Before: which token the old system accepts.
SELECT t.name, old.verify(t.token) AS old, v.active AS new
  FROM (VALUES (1, 'operator', :'operator'), (2, 'laptop', :'laptop'), (3, 'session', :'session'), (4, 'ended', :'ended'), (5, 'robot', :'bot'), (6, 'sams', :'sams'),
    (7, 'wrong', :'laptop' || 'x'), (8, 'wrong secret', 'AdaKey0001-made0up0laptop00000001')) AS t (n, name, token), keywright.verify_api_key(t.token) AS v ORDER BY n;

-- What would stop the migration: two live tokens of a user whose names become one, and a name of which nothing is left. No row is good.
SELECT u.username, string_agg(k.token_name, ', ') AS become_one
  FROM old.api_keys AS k JOIN old.users AS u ON u.id = k.user_id
 WHERE k.login_type = 'token' AND k.expires_at > now() AND NOT u.deleted
 GROUP BY u.username, btrim(regexp_replace(lower(k.token_name), '[^a-z0-9]+', '-', 'g'), '-')
HAVING count(*) > 1 OR min(regexp_replace(lower(k.token_name), '[^a-z0-9]', '', 'g')) = '';
-- Roles that keywright does not know. No row is good.
SELECT DISTINCT r.role AS not_defined
  FROM (SELECT unnest(rbac_roles) FROM old.users WHERE NOT deleted AND NOT is_system
        UNION ALL SELECT unnest(roles) FROM old.organization_members) AS r (role)
 WHERE NOT EXISTS (SELECT FROM keywright.list_roles() AS l WHERE l.name = r.role);

BEGIN;
-- Nobody mints or revokes in the old tables meanwhile.
LOCK TABLE old.users, old.organizations, old.organization_members, old.api_keys IN SHARE MODE;

-- The words that scopes and allow-lists are made of.
SELECT type, keywright.register_resource_type(type) AS outcome FROM unnest('{workspace,template}'::text[]) AS t (type);
SELECT keywright.define_scope('coder:workspaces.access', '{workspace:read,workspace:ssh,workspace:application_connect}') AS scope;

SELECT o.name, keywright.ensure_resource('organization', o.id::text, name => o.name) AS outcome
  FROM old.organizations AS o WHERE NOT o.deleted ORDER BY o.name;

SELECT u.username, (keywright.ensure_user(lower(u.username), u.email, CASE WHEN u.is_service_account THEN 'service' ELSE 'human' END)).outcome
  FROM old.users AS u WHERE NOT u.deleted AND NOT u.is_system ORDER BY u.username;
SELECT outcome FROM keywright.ensure_system_user('coder-k8s-operator', 'coder-k8s-operator@coder-k8s.invalid');

-- Roles: globally, and in each organization, where a member is a member by being one.
SELECT u.username, (keywright.bind_role(u.username, r.role)).outcome
  FROM old.users AS u, unnest(u.rbac_roles) AS r (role) WHERE NOT u.deleted AND NOT u.is_system ORDER BY u.username;
SELECT u.username, r.role, (keywright.bind_role(u.username, r.role, 'organization', m.organization_id::text)).outcome
  FROM old.organization_members AS m JOIN old.users AS u ON u.id = m.user_id, unnest(m.roles || 'organization-member'::text) AS r (role)
 WHERE NOT u.deleted AND NOT u.is_system ORDER BY u.username, r.role;

-- The tokens that live: the id stays, the secret stays, the expiry stays.
SELECT u.username, k.id, keywright.import_api_key(
         u.username, btrim(regexp_replace(lower(k.token_name), '[^a-z0-9]+', '-', 'g'), '-'), k.id, k.hashed_secret,
         k.expires_at, k.created_at, array_replace(k.scopes::text[], 'coder:all', 'all'), k.allow_list) AS outcome
  FROM old.api_keys AS k JOIN old.users AS u ON u.id = k.user_id
 WHERE k.login_type = 'token' AND k.expires_at > now() AND NOT u.deleted
 ORDER BY u.username, k.id;

-- Last, because a suspended user can hold no new key.
SELECT u.username, keywright.suspend_user(u.username) AS suspended FROM old.users AS u WHERE u.status = 'suspended' AND NOT u.deleted;
COMMIT;

-- Afterwards: what the old tables hold as live and keywright does not, by id and hash. Only keys of suspended users may be here.
SELECT u.username, k.id, u.status
  FROM old.api_keys AS k JOIN old.users AS u ON u.id = k.user_id
       CROSS JOIN LATERAL keywright.verify_api_key_digest(k.id, k.hashed_secret) AS v
 WHERE k.login_type = 'token' AND k.expires_at > now() AND NOT u.deleted AND (v.active, v.expires_at) IS DISTINCT FROM (true, k.expires_at);

-- The same tokens again.
SELECT t.name, old.verify(t.token) AS old, v.active AS new, v.username, v.name AS key, v.scopes
  FROM (VALUES (1, 'operator', :'operator'), (2, 'laptop', :'laptop'), (3, 'session', :'session'), (4, 'ended', :'ended'), (5, 'robot', :'bot'), (6, 'sams', :'sams'),
    (7, 'wrong', :'laptop' || 'x'), (8, 'wrong secret', 'AdaKey0001-made0up0laptop00000001')) AS t (n, name, token), keywright.verify_api_key(t.token) AS v ORDER BY n;

-- The operator calls keywright from now on, with the token that it has stored, and keeps it.
SELECT username, key_name, outcome, token = :'operator' AS same_token
  FROM keywright.ensure_operator_access('default', 'coder', :'operator') AS e JOIN keywright.list_users(true) USING (user_id);

-- The migration can be run again: what is there is left alone.
SELECT u.username, u.status, keywright.import_api_key(
         u.username, btrim(regexp_replace(lower(k.token_name), '[^a-z0-9]+', '-', 'g'), '-'), k.id, k.hashed_secret,
         k.expires_at, k.created_at, array_replace(k.scopes::text[], 'coder:all', 'all'), k.allow_list) AS again
  FROM old.api_keys AS k JOIN old.users AS u ON u.id = k.user_id
 WHERE k.login_type = 'token' AND k.expires_at > now() AND NOT u.deleted ORDER BY u.username;

-- Back: the old tables were only read. What is dead here by now is to be dead there too, also what was purged since.
SELECT keywright.revoke_api_key('AdaKey0001', 'laptop stolen');
SELECT keywright.purge_api_keys('0 seconds') AS purged;
DELETE FROM old.api_keys AS k
 WHERE k.login_type = 'token' AND k.expires_at > now()
   AND NOT (keywright.verify_api_key_digest(k.id, k.hashed_secret)).active;
SELECT t.name, old.verify(t.token) AS old, v.active AS new
  FROM (VALUES ('laptop', :'laptop'), ('robot', :'bot'), ('sams', :'sams')) AS t (name, token), keywright.verify_api_key(t.token) AS v;
SET client_min_messages = warning;
DROP SCHEMA old CASCADE;
DROP EXTENSION keywright;
