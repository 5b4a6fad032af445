-- What each broken rule looks like to a client: SQLSTATE, constraint name, HINT; never the row or a hash.
\pset null '(null)'
\x on
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT name FROM keywright.mint_gateway_key('taken');
-- By the function: names.
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('taken')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('trailing-')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('two--dashes')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('under_score')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('a space')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('-leading')$$);
SELECT * FROM public.refusal(format('SELECT keywright.mint_gateway_key(%L)', repeat('a', 65)));
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('UPPER-CASE')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('TAKEN')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('schön')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key(NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('kwg_0000000AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('x', '')$$);
-- Everything that is wrong, not the first alone.
SELECT * FROM public.refusal($$SELECT keywright.mint_gateway_key('A_b--c-')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('x', 'x', '{a}', '{b,c}', '-1 day', '')$$);
SELECT length(name) FROM keywright.mint_gateway_key(repeat('a', 64));
SELECT name FROM keywright.delete_gateway_key(repeat('a', 64));
\x off
RESET SESSION AUTHORIZATION;

-- By hand, as a superuser: the row is refused before the table's own constraint would print it.
CREATE FUNCTION pg_temp.by_hand(name text, prefix text, hash bytea) RETURNS text LANGUAGE sql RETURN
  format('INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES (%L, %L, %L)', name, prefix, hash);
INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES ('by-hand', 'kwg_byhand0', sha256('1'));
SELECT c.case, r.*
  FROM (VALUES
    (1, 'duplicate name', 'by-hand', 'kwg_byhand1', sha256('2')),
    (2, 'duplicate prefix', 'other', 'kwg_byhand0', sha256('2')),
    (3, 'duplicate hash', 'other', 'kwg_byhand1', sha256('1')),
    (4, 'empty name', '', 'kwg_byhand1', sha256('2')),
    (5, 'trailing dash', 'a-', 'kwg_byhand1', sha256('2')),
    (6, 'consecutive dashes', 'a--b', 'kwg_byhand1', sha256('2')),
    (7, 'underscore', 'a_b', 'kwg_byhand1', sha256('2')),
    (8, 'space', 'a b', 'kwg_byhand1', sha256('2')),
    (9, 'leading dash', '-a', 'kwg_byhand1', sha256('2')),
    (10, '65 characters', repeat('a', 65), 'kwg_byhand1', sha256('2')),
    (11, 'empty prefix', 'other', '', sha256('2')),
    (12, 'short prefix', 'other', 'kwg_byhand', sha256('2')),
    (13, 'empty hash', 'other', 'kwg_byhand1', ''),
    (14, 'upper case', 'Other', 'kwg_byhand1', sha256('2')),
    (15, '12-character prefix', 'other', 'kwg_byhand12', sha256('2')),
    (16, '31-byte hash', 'other', 'kwg_byhand1', substr(sha256('2'), 1, 31)),
    (17, '33-byte hash', 'other', 'kwg_byhand1', sha256('2') || '\x00'),
    (18, 'null name', NULL, 'kwg_byhand1', sha256('2')),
    (19, 'null prefix', 'other', NULL, sha256('2')),
    (20, 'null hash', 'other', 'kwg_byhand1', NULL),
    (21, '64 characters', repeat('a', 64), 'kwg_byhand1', sha256('2'))
  ) AS c (n, "case", name, prefix, hash),
  LATERAL public.refusal(pg_temp.by_hand(c.name, c.prefix, c.hash)) AS r ORDER BY n \gx
DELETE FROM keywright.gateway_keys WHERE name IN ('by-hand', repeat('a', 64));
-- An UPDATE is checked alike.
\x on
SELECT * FROM public.refusal($$UPDATE keywright.gateway_keys SET name = 'A' WHERE name = 'taken'$$);
SELECT * FROM public.refusal($$UPDATE keywright.gateway_keys SET hashed_secret = 'short' WHERE name = 'taken'$$);
\x off
UPDATE keywright.gateway_keys SET managed_by = 'somebody' WHERE name = 'taken';

-- The table's own constraints are the backstop: they hold with every trigger off.
BEGIN;
SET LOCAL session_replication_role = replica;
\set VERBOSITY terse
INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES ('A', 'kwg_byhand1', sha256('2'));
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES ('other', 'kwg_byhand12', sha256('2'));
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES ('other', 'kwg_byhand1', '\x00');
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES ('taken', 'kwg_byhand1', sha256('2'));
ROLLBACK;
\set VERBOSITY default
-- Every rule the hints speak of is a constraint, by that name.
SELECT conrelid::regclass AS "table", conname AS "constraint" FROM pg_constraint
 WHERE connamespace = 'keywright'::regnamespace AND contype IN ('c', 'u', 'p', 'f') ORDER BY 1, 2;
SELECT indrelid::regclass AS "table", indexrelid::regclass AS "index", indisunique AS "unique" FROM pg_index
 WHERE indrelid::regclass::text LIKE 'keywright.%' ORDER BY 1, 2;

-- API keys: names and hashes by hand.
SELECT user_id FROM keywright.ensure_user('frank', '') \gset
\x on
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('frank', 'UPPER-CASE')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('frank', '')$$);
SELECT * FROM public.refusal(format('SELECT keywright.mint_api_key(%L, %L)', 'frank', repeat('a', 65)));
RESET SESSION AUTHORIZATION;
SELECT name FROM keywright.mint_api_key('frank', repeat('a', 64)), LATERAL (SELECT length(token) AS name) AS l;
SELECT r.* FROM (VALUES ('a_b', sha256('1')), ('ab', '\x00'::bytea), ('ab', sha256('1') || '\x00')) AS c (name, hash),
  LATERAL public.refusal(format(
    'INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list, lifetime, created_at) VALUES (%L, %L, %L, %L, now(), %L, %L, %L, now())',
    'AAAAAAAAAA', :'user_id', c.name, c.hash, '{all}', '{*:*}', '1 day')) AS r;
SELECT r.code, r.rule FROM (VALUES ('{}', '{*:*}', 'infinity'), ('{all}', '{}', 'now'), ('{all}', '{*:*}', 'infinity')) AS c (scopes, allow_list, expiry),
  LATERAL public.refusal(format(
    'INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list, lifetime, created_at) VALUES (%L, %L, %L, %L, %L, %L, %L, %L, now())',
    'AAAAAAAAAA', :'user_id', 'ok', sha256('1'), c.expiry, c.scopes, c.allow_list, '1 day')) AS r;
-- Users by hand.
SELECT r.* FROM (VALUES ('a__b', 'human', 'active'), ('ok', 'alien', 'active'), ('ok', 'human', 'asleep'), ('ok', NULL, 'active'), ('frank', 'human', 'active')) AS c (username, kind, status),
  LATERAL public.refusal(format('INSERT INTO keywright.users (username, kind, status) VALUES (%L, %L, %L)', c.username, c.kind, c.status)) AS r;
\x off
SELECT keywright.delete_user('frank') IS NOT NULL AS deleted;
SELECT keywright.purge_api_keys('0');
SELECT name FROM keywright.delete_gateway_key('taken');
