-- Coming from a table of API keys of one's own, with SHA-256 of the whole token: each token goes on verifying, and is revoked, expires and is
-- audited by keywright from then on. docs/coming-from/api_keys.md shows these statements.
\pset footer off
\pset null ''
CREATE EXTENSION keywright;

-- The old table, what was asked of it, and a few rows. All tokens are made up.
CREATE SCHEMA old;
CREATE TABLE old.customers (id bigint PRIMARY KEY, email text NOT NULL);
CREATE TABLE old.api_keys (
  id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES old.customers, label text NOT NULL, key_hash text NOT NULL UNIQUE,
  can_write boolean NOT NULL DEFAULT false, created_at timestamptz NOT NULL DEFAULT now(), last_used_at timestamptz,
  expires_at timestamptz, revoked_at timestamptz);
CREATE FUNCTION old.verify(token text) RETURNS bigint LANGUAGE sql AS $$
  SELECT k.customer_id FROM old.api_keys AS k
   WHERE k.key_hash = encode(sha256(convert_to(token, 'UTF8')), 'hex') AND k.revoked_at IS NULL AND (k.expires_at > now()) IS NOT FALSE
$$;
\set reads 'sk_live_made0up0token0that0reads00001'
\set writes 'sk_live_made0up0token0that0writes0001'
\set revoked 'sk_live_made0up0token0that0is0revoked'
\set expired 'sk_live_made0up0token0that0is0expired'
\set suspended 'sk_live_made0up0token0of0one0suspended'
INSERT INTO old.customers VALUES (1, 'ada@example.org'), (2, 'grace@example.org');
INSERT INTO old.api_keys (id, customer_id, label, key_hash, can_write, created_at, expires_at, revoked_at)
SELECT t.id, t.customer, 'Key of ' || t.customer, encode(sha256(convert_to(t.token, 'UTF8')), 'hex'), t.can_write, now() - interval '400 days',
       now() + t.left_of_it, CASE WHEN t.revoked THEN now() END
  FROM (VALUES (11, 1, :'reads', false, interval '90 days', false), (12, 1, :'writes', true, NULL, false), (13, 2, :'revoked', true, NULL, true),
    (14, 2, :'expired', true, interval '-1 day', false), (15, 2, :'suspended', false, interval '90 days', false)) AS t (id, customer, token, can_write, left_of_it, revoked);

-- Before: which token the old table knows.
SELECT t.name, old.verify(t.token) AS customer FROM (VALUES (1, 'reads', :'reads'), (2, 'writes', :'writes'), (3, 'revoked', :'revoked'), (4, 'expired', :'expired'),
  (5, 'wrong', 'sk_live_made0up0token0that0reads00002')) AS t (n, name, token) ORDER BY n;

-- What would stop the migration, or come to life by it. No row is good.
SELECT k.id FROM old.api_keys AS k
 WHERE k.revoked_at IS NULL AND (k.expires_at > now()) IS NOT FALSE
   AND NOT (coalesce(k.key_hash, '') ~ '^[0-9a-f]{64}$' AND k.customer_id IS NOT NULL AND coalesce(isfinite(k.expires_at), true));

CREATE SCHEMA app;
-- keywright finds a key by an id of 10 letters and digits, which these tokens do not have in them: it is taken from the hash.
CREATE FUNCTION app.old_key_id(digest bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN left(translate(encode(sha256(digest), 'base64'), '+/=', ''), 10);

-- What the application asks instead: both kinds of token, and one answer.
CREATE FUNCTION app.verify(token text) RETURNS keywright.verified_api_key
LANGUAGE plpgsql
AS $$
DECLARE
  digest bytea;
BEGIN
  IF token LIKE 'sk\_live\_%' THEN
    digest := sha256(convert_to(token, 'UTF8'));
    RETURN keywright.verify_api_key_digest(app.old_key_id(digest), digest);
  END IF;
  RETURN keywright.verify_api_key(token);
END
$$;

BEGIN;
-- Nobody makes or revokes keys in the old table meanwhile.
LOCK TABLE old.api_keys IN SHARE MODE;

-- What the old columns mean, as permissions.
SELECT keywright.register_resource_type('invoice') AS type, keywright.define_scope('old-read', '{invoice:read}') AS reads,
       keywright.define_scope('old-write', '{invoice:read,invoice:write}') AS writes;

SELECT c.id, (keywright.ensure_user('customer-' || c.id, c.email)).outcome FROM old.customers AS c ORDER BY c.id;

-- The keys that live. One that had no expiry gets one: every key expires.
SELECT k.id, keywright.import_api_key(
         'customer-' || k.customer_id, 'old-' || k.id, app.old_key_id(decode(k.key_hash, 'hex')), decode(k.key_hash, 'hex'),
         coalesce(k.expires_at, now() + interval '1 year'), k.created_at,
         ARRAY[CASE WHEN k.can_write THEN 'old-write' ELSE 'old-read' END]) AS outcome
  FROM old.api_keys AS k
 WHERE k.revoked_at IS NULL AND (k.expires_at > now()) IS NOT FALSE
 ORDER BY k.id;
COMMIT;

-- Afterwards: keys that live in the old table and not here. No row is good.
SELECT k.id
  FROM old.api_keys AS k
       CROSS JOIN LATERAL keywright.verify_api_key_digest(app.old_key_id(decode(k.key_hash, 'hex')), decode(k.key_hash, 'hex')) AS v
 WHERE k.revoked_at IS NULL AND (k.expires_at > now()) IS NOT FALSE AND v.active IS NOT TRUE;

-- The application: it may verify, and read neither the old table nor anything of keywright's.
CREATE ROLE example_application LOGIN;
SELECT keywright.grant_access('example_application', 'verifier');
GRANT USAGE ON SCHEMA app TO example_application;
SET SESSION AUTHORIZATION example_application;
SELECT t.name, v.active, v.username, v.name AS key, v.scopes
  FROM (VALUES (1, 'reads', :'reads'), (2, 'writes', :'writes'), (3, 'revoked', :'revoked'), (4, 'expired', :'expired'),
    (5, 'wrong', 'sk_live_made0up0token0that0reads00002'), (6, 'nothing', NULL), (7, 'odd', 'sk_live_\x')) AS t (n, name, token), app.verify(t.token) AS v ORDER BY n;
RESET SESSION AUTHORIZATION;

-- A customer gets a key of the new kind, and the old one ends when it is no longer needed.
SELECT token FROM keywright.mint_api_key('customer-1', 'main', '{old-write}', lifetime => '90 days') \gset
SELECT v.active, v.name AS key FROM app.verify(:'token') AS v;
SELECT keywright.revoke_api_key(app.old_key_id(sha256(convert_to(:'writes', 'UTF8'))), 'replaced by main') AS revoked;
SELECT v.active AS old_one FROM app.verify(:'writes') AS v;

-- Who still has an old key, and whether it is used: last_used_at needs keywright in shared_preload_libraries.
SELECT l.username, l.name, l.state, u.last_used_at
  FROM keywright.list_api_keys(page_size => 10000) AS l LEFT JOIN keywright.key_usage(page_size => 10000) AS u USING (key_id)
 WHERE l.name LIKE 'old-%' AND l.state = 'active'
 ORDER BY l.username, l.name;

-- Back: the old table was only read. What is dead here by now is to be dead there too, also what was purged since.
SELECT keywright.suspend_user('customer-2') AS suspended;
SELECT keywright.purge_api_keys('0 seconds') AS purged;
UPDATE old.api_keys AS k SET revoked_at = now()
 WHERE k.revoked_at IS NULL AND (k.expires_at > now()) IS NOT FALSE
   AND NOT (keywright.verify_api_key_digest(app.old_key_id(decode(k.key_hash, 'hex')), decode(k.key_hash, 'hex'))).active;
SELECT t.name, old.verify(t.token) AS customer FROM (VALUES ('reads', :'reads'), ('writes', :'writes'), ('suspended', :'suspended')) AS t (name, token);
SET client_min_messages = warning;
DROP SCHEMA app, old CASCADE;
SELECT keywright.revoke_access('example_application', 'verifier');
DROP EXTENSION keywright;
DROP ROLE example_application;
