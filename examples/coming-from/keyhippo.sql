-- Coming from KeyHippo, which stores SHA-512: no row can be taken over as it is, so each key is taken over when it is used for the first time.
-- docs/coming-from/keyhippo.md shows these statements.
\pset footer off
\pset null ''
CREATE EXTENSION keywright;

-- The old tables, as far as they matter here, what the old system said of a key, and a few rows. All keys are made up: 32 characters of prefix
-- and 128 hexadecimal digits.
CREATE SCHEMA auth;
CREATE TABLE auth.users (id uuid PRIMARY KEY, email text NOT NULL);
CREATE SCHEMA keyhippo;
CREATE TABLE keyhippo.scopes (id uuid PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE keyhippo.api_key_metadata (
  id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES auth.users, scope_id uuid REFERENCES keyhippo.scopes, description text,
  prefix text NOT NULL UNIQUE, created_at timestamptz NOT NULL DEFAULT now(), last_used_at timestamptz,
  expires_at timestamptz NOT NULL DEFAULT now() + interval '100 years', is_revoked boolean NOT NULL DEFAULT false, claims jsonb DEFAULT '{}');
CREATE TABLE keyhippo.api_key_secrets (
  key_metadata_id uuid PRIMARY KEY REFERENCES keyhippo.api_key_metadata ON DELETE CASCADE, key_hash text NOT NULL);
CREATE FUNCTION keyhippo.is_good(api_key text) RETURNS boolean LANGUAGE sql RETURN EXISTS (
  SELECT FROM keyhippo.api_key_metadata AS m JOIN keyhippo.api_key_secrets AS s ON s.key_metadata_id = m.id
   WHERE m.prefix = left(api_key, 32) AND s.key_hash = encode(sha512(convert_to(substr(api_key, 33), 'UTF8')), 'hex')
     AND NOT m.is_revoked AND m.expires_at > now());
SELECT rpad('made/up+ada', 32, '0') || encode(sha512('a'), 'hex') AS ada, rpad('made/up+bob', 32, '0') || encode(sha512('b'), 'hex') AS bob,
       rpad('made/up+dead', 32, '0') || encode(sha512('d'), 'hex') AS dead, rpad('made/up+idle', 32, '0') || encode(sha512('i'), 'hex') AS idle \gset
INSERT INTO auth.users VALUES ('00000000-0000-4000-8000-000000000001', 'ada@example.org'), ('00000000-0000-4000-8000-000000000002', 'bob@example.org');
INSERT INTO keyhippo.scopes VALUES ('00000000-0000-4000-8000-00000000000a', 'reports');
INSERT INTO keyhippo.api_key_metadata (id, user_id, scope_id, description, prefix, is_revoked)
VALUES ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000a', 'Ada''s reports', left(:'ada', 32), false),
       ('00000000-0000-4000-8000-0000000000b1', '00000000-0000-4000-8000-000000000002', NULL, 'All of Bob', left(:'bob', 32), false),
       ('00000000-0000-4000-8000-0000000000b2', '00000000-0000-4000-8000-000000000002', NULL, 'Revoked', left(:'dead', 32), true),
       ('00000000-0000-4000-8000-0000000000b3', '00000000-0000-4000-8000-000000000002', NULL, 'Not used any more', left(:'idle', 32), false);
INSERT INTO keyhippo.api_key_secrets
SELECT m.id, encode(sha512(convert_to(substr(t.token, 33), 'UTF8')), 'hex')
  FROM (VALUES (:'ada'), (:'bob'), (:'idle')) AS t (token) JOIN keyhippo.api_key_metadata AS m ON m.prefix = left(t.token, 32);

-- Before.
SELECT t.name, keyhippo.is_good(t.token) AS old FROM (VALUES (1, 'ada', :'ada'), (2, 'bob', :'bob'), (3, 'dead', :'dead'), (4, 'idle', :'idle'),
  (5, 'wrong', left(:'ada', 32) || encode(sha512('b'), 'hex'))) AS t (n, name, token) ORDER BY n;

-- The words of the old scopes, and the owners: a username has at most 32 characters, which is a uuid without its dashes.
SELECT keywright.register_resource_type('report') AS type, keywright.define_scope('reports', '{report:read}') AS scope;
SELECT u.email, (keywright.ensure_user(replace(u.id::text, '-', ''), u.email)).outcome FROM auth.users AS u ORDER BY u.email;

-- Scopes that nobody has defined here. No row is good.
SELECT s.name AS not_defined FROM keyhippo.scopes AS s
 WHERE NOT EXISTS (SELECT FROM keywright.list_scopes() AS l WHERE l.name = s.name);

-- Whose rights the function below has: it reads the old tables, checks and imports.
CREATE ROLE example_mover NOLOGIN;
SELECT capability, keywright.grant_access('example_mover', capability) FROM unnest('{verifier,issuer,auditor}'::text[]) AS c (capability);
GRANT USAGE ON SCHEMA keyhippo TO example_mover;
GRANT SELECT ON keyhippo.scopes, keyhippo.api_key_metadata TO example_mover;
GRANT SELECT, DELETE ON keyhippo.api_key_secrets TO example_mover;
CREATE SCHEMA app AUTHORIZATION example_mover;

-- keywright finds a key by an id of 10 letters and digits, which these keys do not have in them: it is taken from the hash.
CREATE FUNCTION app.old_key_id(digest bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN left(translate(encode(sha256(digest), 'base64'), '+/=', ''), 10);

-- What was taken over, so that there is a way back.
CREATE TABLE app.taken_over (
  key_id text PRIMARY KEY, digest bytea NOT NULL, key_metadata_id uuid NOT NULL, key_hash text NOT NULL, taken_over_at timestamptz NOT NULL DEFAULT now());

-- A good old key goes over to keywright: from then on it is there and nowhere else. False for any other.
CREATE FUNCTION app.take_over(api_key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  digest constant bytea := sha256(convert_to(api_key, 'UTF8'));
  hash constant text := encode(sha512(convert_to(substr(api_key, 33), 'UTF8')), 'hex');
  old record;
BEGIN
  -- Of two who use it at once, the second waits here, and then finds it gone.
  DELETE FROM keyhippo.api_key_secrets AS s USING keyhippo.api_key_metadata AS m
   WHERE s.key_metadata_id = m.id AND m.prefix = left(api_key, 32) AND s.key_hash = hash
     AND NOT m.is_revoked AND m.expires_at > clock_timestamp()
  RETURNING m.id, m.user_id, m.scope_id, m.created_at, m.expires_at INTO old;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM keywright.import_api_key(
    replace(old.user_id::text, '-', ''), 'old-' || old.id, app.old_key_id(digest), digest,
    least(old.expires_at, now() + interval '1 year', now() + nullif(current_setting('keywright.max_api_key_lifetime', true)::interval, '0')), old.created_at,
    ARRAY[coalesce((SELECT s.name FROM keyhippo.scopes AS s WHERE s.id = old.scope_id), 'all')]);
  INSERT INTO app.taken_over (key_id, digest, key_metadata_id, key_hash) VALUES (app.old_key_id(digest), digest, old.id, hash)
  ON CONFLICT DO NOTHING;
  RETURN true;
EXCEPTION WHEN undefined_object OR object_not_in_prerequisite_state THEN
  -- The owner is deleted or suspended: the old row stays, and the key is not good.
  RETURN false;
END
$$;

-- Whether an old key that was not taken over yet would be: for READ ONLY transactions.
CREATE FUNCTION app.is_old(api_key text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT EXISTS (
    SELECT FROM keyhippo.api_key_metadata AS m JOIN keyhippo.api_key_secrets AS s ON s.key_metadata_id = m.id
     WHERE m.prefix = left(api_key, 32) AND s.key_hash = encode(sha512(convert_to(substr(api_key, 33), 'UTF8')), 'hex')
       AND NOT m.is_revoked AND m.expires_at > clock_timestamp()
       -- The owner, found among the sixteen at most whose names differ in their last digit.
       AND EXISTS (
         SELECT FROM keywright.list_users(after => left(replace(m.user_id::text, '-', ''), 31), page_size => 16) AS l
          WHERE l.username = replace(m.user_id::text, '-', '') AND l.status = 'active'))
$$;

-- What the application asks instead: both kinds of key, and one answer.
CREATE FUNCTION app.verify(token text) RETURNS keywright.verified_api_key
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  digest bytea;
  answer keywright.verified_api_key;
BEGIN
  IF length(token) IS DISTINCT FROM 160 THEN
    RETURN keywright.verify_api_key(token);
  END IF;
  digest := sha256(convert_to(token, 'UTF8'));
  answer := keywright.verify_api_key_digest(app.old_key_id(digest), digest);
  IF NOT answer.active THEN
    IF current_setting('transaction_read_only')::boolean THEN
      answer.active := app.is_old(token);
    ELSIF app.take_over(token) THEN
      answer := keywright.verify_api_key_digest(app.old_key_id(digest), digest);
    END IF;
  END IF;
  RETURN answer;
END
$$;
ALTER TABLE app.taken_over OWNER TO example_mover;
ALTER FUNCTION app.take_over(text) OWNER TO example_mover;
ALTER FUNCTION app.is_old(text) OWNER TO example_mover;
ALTER FUNCTION app.verify(text) OWNER TO example_mover;
REVOKE ALL ON FUNCTION app.take_over(text), app.is_old(text), app.verify(text) FROM PUBLIC;

-- The application may ask this, and nothing else.
CREATE ROLE example_application LOGIN;
GRANT USAGE ON SCHEMA app TO example_application;
GRANT EXECUTE ON FUNCTION app.verify(text) TO example_application;

SET SESSION AUTHORIZATION example_application;
BEGIN READ ONLY;
SELECT v.active, v.key_id IS NULL AS not_yet FROM app.verify(:'ada') AS v;
SELECT v.active FROM app.verify(:'dead') AS v;
COMMIT;
SELECT t.name, v.active, v.key_id IS NOT NULL AS is_here, v.name AS key, v.scopes
  FROM (VALUES (1, 'ada', :'ada'), (2, 'ada again', :'ada'), (3, 'bob', :'bob'), (4, 'dead', :'dead'),
    (5, 'wrong', left(:'idle', 32) || encode(sha512('b'), 'hex')), (6, 'odd', repeat('\', 160)), (7, 'nothing', NULL)) AS t (n, name, token), app.verify(t.token) AS v ORDER BY n;
RESET SESSION AUTHORIZATION;

-- How far it is: those that nobody has used since. When the overlap ends, they are dropped with the old tables.
SELECT m.description, u.email
  FROM keyhippo.api_key_secrets AS s JOIN keyhippo.api_key_metadata AS m ON m.id = s.key_metadata_id JOIN auth.users AS u ON u.id = m.user_id
 WHERE NOT m.is_revoked AND m.expires_at > now() ORDER BY m.description;

-- A key that was taken over is revoked here, and the old tables know it no longer.
SELECT keywright.revoke_api_key(key_id, 'left') AS revoked FROM app.taken_over WHERE key_metadata_id = '00000000-0000-4000-8000-0000000000b1';
SELECT v.active AS bob, keyhippo.is_good(:'bob') AS old FROM app.verify(:'bob') AS v;

-- A suspended owner's key is not taken over and is not good.
SELECT keywright.suspend_user('00000000000040008000000000000002') AS suspended;
SELECT v.active AS idle, keyhippo.is_good(:'idle') AS old FROM app.verify(:'idle') AS v;
BEGIN READ ONLY;
SELECT v.active AS idle, keyhippo.is_good(:'idle') AS old FROM app.verify(:'idle') AS v;
COMMIT;

-- Back: what lives here gets its old row again.
INSERT INTO keyhippo.api_key_secrets
SELECT t.key_metadata_id, t.key_hash
  FROM app.taken_over AS t
 WHERE (keywright.verify_api_key_digest(t.key_id, t.digest)).active;
SELECT t.name, keyhippo.is_good(t.token) AS old FROM (VALUES ('ada', :'ada'), ('bob', :'bob')) AS t (name, token);
SELECT capability, keywright.revoke_access('example_mover', capability) FROM unnest('{verifier,issuer,auditor}'::text[]) AS c (capability);
SET client_min_messages = warning;
DROP SCHEMA app, keyhippo, auth CASCADE;
DROP EXTENSION keywright;
DROP ROLE example_application, example_mover;
