-- Verification takes anything and answers: never an error, never a yes.
\pset null '(null)'
SELECT outcome FROM keywright.ensure_user('grace', '');
SELECT token FROM keywright.mint_api_key('grace', 'good') \gset
SELECT token AS gateway FROM keywright.mint_gateway_key('good') \gset
GRANT CREATE, TEMPORARY ON DATABASE :DBNAME TO regress_keywright_verifier;
SET SESSION AUTHORIZATION regress_keywright_verifier;

CREATE TEMP TABLE junk (n serial, what text, token text);
INSERT INTO junk (what, token) VALUES
  ('null', NULL), ('empty', ''), ('space', ' '), ('1 MB', repeat('x', 1 << 20)), ('1 MB of the brand', repeat('kwk_', 1 << 18)),
  ('quote', ''''), ('statement', ''' OR true; --'), ('backslash', E'\\'), ('control characters', E'\x01\x1f\x7f'),
  ('escaped NUL', E'kwk_\\000'), ('newline at the end', :'token' || E'\n'), ('space in front', ' ' || :'token'), ('twice', :'token' || :'token'),
  ('upper case', upper(:'token')), ('lower case', lower(:'token')), ('non-ASCII', 'kwk_éééééééééé-' || repeat('é', 14)),
  ('full-width digits', 'kwk_０１２３４５６７８９-AAAAAAAAAAAAAAAAAAAAAA'), ('Arabic digits', '٠١٢٣٤٥٦٧٨٩-' || repeat('A', 22)),
  ('Cyrillic look-alikes', translate(:'token', 'aeopcxAEOPCXkwk', 'аеорсхАЕОРСХкwк')), ('emoji', repeat('🔑', 11)), ('bytea as text', '\xff00fe'::bytea::text),
  ('combining', 'e' || U&'\0301' || :'token'), ('zero width', replace(:'token', '-', U&'\200B-')), ('other brand', 'kwx' || substr(:'token', 4)),
  ('gateway for API', replace(:'gateway', 'kwg_', 'kwk_')), ('API for gateway', replace(:'token', 'kwk_', 'kwg_')),
  ('no dash', replace(:'token', '-', '0')), ('checksum of another', left(:'token', 37) || right(:'gateway', 6)), ('wrong checksum', left(:'token', 42) || '_'),
  ('bare, wrong secret', substr(:'token', 5, 11) || repeat('z', 22)), ('json', '{"token": "x"}'), ('percent', '%'), ('underscores', repeat('_', 43)),
  ('numbers', repeat('1', 33)), ('infinity', 'infinity'), ('path', '../../etc/passwd'), ('nine dashes', repeat('-', 33)), ('wide', repeat('𐍈', 43));
SELECT what, a.active AS api, g.active AS gateway, d.active AS digest,
       num_nulls(a.key_id, a.user_id, a.username, a.name, a.scopes, a.allow_list, a.expires_at) = 7
         AND num_nulls(g.gateway_key_id, g.name) = 2 AND num_nulls(d.key_id, d.username) = 2 AS nulls
  FROM junk, keywright.verify_api_key(token) AS a, keywright.verify_gateway_key(token) AS g,
       keywright.verify_api_key_digest(token, token::bytea) AS d
 WHERE what NOT IN ('backslash', 'escaped NUL', 'bytea as text')
 ORDER BY n;
SELECT count(*) AS tokens, count(*) FILTER (WHERE active) AS active FROM keywright.verify_api_keys((SELECT array_agg(token) FROM junk));
SELECT count(*) AS tokens, count(*) FILTER (WHERE active) AS active FROM keywright.verify_api_keys(ARRAY[[:'token', 'x'], [NULL, :'token']]);
SELECT active FROM keywright.verify_api_key_digest(NULL, NULL);
SELECT active FROM keywright.verify_api_key_digest('AAAAAAAAAA', '');
SELECT active FROM keywright.verify_api_key_digest('AAAAAAAAAA', decode(repeat('00', 32), 'hex'));
SELECT count(*) AS refusals FROM junk, LATERAL public.refusal(format('SELECT keywright.authenticate_api_key(%L)', token)) AS r
 WHERE r.code = '28000' AND r.message = 'API key is not valid' AND r.detail = ''
   AND r.hint = 'An auditor finds the cause with keywright.explain_api_key.';

-- The good ones still verify under a hostile session: shadowed names, odd settings, read only, parallel.
CREATE TEMP TABLE users (username text);
CREATE TEMP TABLE api_keys (key_id text);
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT NULL::text';
CREATE FUNCTION hostile.eq(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.eq);
CREATE TABLE hostile.api_keys (key_id text);
SET search_path = hostile, pg_temp, pg_catalog, public;
SET standard_conforming_strings = off;
SET DateStyle = 'German, DMY';
SET TimeZone = 'Asia/Kathmandu';
SET IntervalStyle = 'iso_8601';
SET bytea_output = 'escape';
SET client_min_messages = warning;
SET default_transaction_read_only = on;
SET enable_indexscan = off;
SELECT active, username FROM keywright.verify_api_key(:'token');
SELECT active, name FROM keywright.verify_gateway_key(:'gateway');
SELECT active FROM keywright.verify_api_key('x');
RESET ALL;
-- As part of a statement that could run in parallel.
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(*) FILTER (WHERE (keywright.verify_api_key(relname::text)).active) AS active FROM pg_class;
RESET ALL;
RESET SESSION AUTHORIZATION;

-- So do the functions that write, when the caller is hostile.
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
SET SESSION AUTHORIZATION regress_keywright_issuer;
SET search_path = hostile, pg_temp, pg_catalog, public;
SET TimeZone = 'Europe/Berlin';
SELECT outcome FROM keywright.ensure_api_key('grace', 'good', :'token');
SELECT outcome, reason FROM keywright.ensure_api_key('grace', 'other');
SELECT expires_at - clock_timestamp() BETWEEN '164 days 23:59' AND '165 days 00:01' AS no_summer_time
  FROM keywright.mint_api_key('grace', 'winter', lifetime => '165 days');
RESET ALL;
RESET SESSION AUTHORIZATION;
DROP SCHEMA hostile CASCADE;
DROP TABLE users, api_keys, junk;
REVOKE CREATE, TEMPORARY ON DATABASE :DBNAME FROM regress_keywright_verifier;

-- No snapshot hides a revocation, and no transaction's clock an expiry.
SELECT key_id, token FROM keywright.mint_api_key('grace', 'brief') \gset brief_
UPDATE keywright.api_keys SET expires_at = clock_timestamp() + interval '1 second' WHERE key_id = :'brief_key_id';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT active FROM keywright.verify_api_key(:'brief_token');
SELECT FROM pg_sleep(1.05);
SELECT active FROM keywright.verify_api_key(:'brief_token');
COMMIT;
-- The transaction's own changes count at once, and not after a rollback.
BEGIN;
SAVEPOINT s;
SELECT keywright.revoke_leaked_api_key(:'token');
SELECT active FROM keywright.verify_api_key(:'token');
ROLLBACK TO s;
SELECT active FROM keywright.verify_api_key(:'token');
COMMIT;

-- A table that is gone is an error of its own, not a "no".
BEGIN;
ALTER TABLE keywright.api_keys RENAME TO elsewhere;
\x on
SELECT * FROM public.refusal(format('SELECT keywright.verify_api_key(%L)', :'token'));
\x off
ROLLBACK;
BEGIN;
ALTER INDEX keywright.api_keys_pkey RENAME TO elsewhere;
SELECT code, message FROM public.refusal(format('SELECT keywright.verify_api_key(%L)', :'token'));
ROLLBACK;
REINDEX TABLE keywright.api_keys;
VACUUM (FULL, ANALYZE) keywright.api_keys;
REINDEX INDEX CONCURRENTLY keywright.api_keys_pkey;
SELECT active FROM keywright.verify_api_key(:'token');
-- Nothing of a hash in the planner's statistics.
SELECT attname FROM pg_stats WHERE schemaname = 'keywright' AND attname = 'hashed_secret';
SELECT keywright.delete_user('grace') IS NOT NULL AS deleted;
SELECT keywright.purge_api_keys('0') > 0 AS purged;
SELECT name FROM keywright.delete_gateway_key('good');
