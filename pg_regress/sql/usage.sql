-- When keys were used, on a server that was started without keywright: only what a caller touches is known.
\pset null '(null)'
SELECT count(*) FROM keywright.ensure_user('usa', '');
SELECT count(*) FROM keywright.ensure_user('usb', '');
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT key_id AS a, token AS a_token FROM keywright.mint_api_key('usa', 'a') \gset
SELECT key_id AS b FROM keywright.mint_api_key('usa', 'b') \gset
SELECT key_id AS c FROM keywright.mint_api_key('usb', 'c') \gset
SELECT key_id AS dead FROM keywright.mint_api_key('usb', 'dead') \gset
SELECT keywright.revoke_api_key(:'dead');

-- Every key has a row, and none was used: verification notes nothing here.
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active, name FROM keywright.verify_api_key(:'a_token');
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT count(*), count(last_used_at) AS used, count(last_presented_at) AS presented FROM keywright.key_usage('usa');

-- A touch: of one that lives, of one that is dead, of one that is not there.
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT keywright.touch_api_key(:'a') AS a, keywright.touch_api_key(:'dead') AS dead, keywright.touch_api_key('AAAAAAAAAA') AS nobody;
SET SESSION AUTHORIZATION regress_keywright_auditor;
CREATE FUNCTION pg_temp.named(key_id text) RETURNS text LANGUAGE sql RETURN CASE $1
  WHEN current_setting('usage.a') THEN 'a' WHEN current_setting('usage.b') THEN 'b'
  WHEN current_setting('usage.c') THEN 'c' WHEN current_setting('usage.dead') THEN 'dead' END;
SELECT count(*) FROM (VALUES (set_config('usage.a', :'a', false)), (set_config('usage.b', :'b', false)),
  (set_config('usage.c', :'c', false)), (set_config('usage.dead', :'dead', false))) AS v;
-- Where nothing is noted by itself, a null says nothing.
SELECT count(*) > 0 AS listed FROM keywright.key_usage();
SET client_min_messages = error;
SELECT pg_temp.named(key_id) AS key, last_used_at > now() - interval '1 minute' AS used, last_presented_at > now() - interval '1 minute' AS presented,
       last_used_at <= last_presented_at AS in_order
  FROM (SELECT * FROM keywright.key_usage('usa') UNION ALL SELECT * FROM keywright.key_usage('usb')) AS u ORDER BY 1;

-- Within a minute nothing is written, so that it works in a READ ONLY transaction too. What has to write does not.
RESET SESSION AUTHORIZATION;
SELECT string_agg(ctid::text || xmin, ' ' ORDER BY key_id) AS versions FROM keywright.api_key_usage \gset
SET SESSION AUTHORIZATION regress_keywright_verifier;
BEGIN READ ONLY;
SELECT keywright.touch_api_key(:'a') AS a, keywright.touch_api_key(:'dead') AS dead, keywright.touch_api_key('AAAAAAAAAA') AS nobody;
SELECT pg_current_xact_id_if_assigned();
SELECT code, message FROM public.refusal(format('SELECT keywright.touch_api_key(%L)', :'b'));
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT string_agg(ctid::text || xmin, ' ' ORDER BY key_id) = :'versions' AS unchanged FROM keywright.api_key_usage;
UPDATE keywright.api_key_usage SET last_used_at = last_used_at - interval '1 minute', last_presented_at = last_presented_at - interval '1 minute';
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT keywright.touch_api_key(:'a') AS a, keywright.touch_api_key(:'dead') AS dead;
RESET SESSION AUTHORIZATION;
SELECT pg_temp.named(key_id) AS key, last_used_at > now() - interval '10 s' AS used, last_presented_at > now() - interval '10 s' AS presented
  FROM keywright.api_key_usage WHERE key_id IN (:'a', :'dead') ORDER BY 1;
-- A clock that is ahead is not set back.
UPDATE keywright.api_key_usage SET last_presented_at = '2100-01-01', last_used_at = now() - interval '2 minutes' WHERE key_id = :'a';
SELECT keywright.touch_api_key(:'a');
SELECT last_used_at > now() - interval '10 s' AS used, last_presented_at AT TIME ZONE 'UTC' AS presented FROM keywright.api_key_usage WHERE key_id = :'a';

-- Pages, by key_id.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT key_id AS first FROM keywright.key_usage('usb', page_size => 1) \gset
SELECT count(*) AS rest, min(key_id) > :'first' COLLATE "C" AS after FROM keywright.key_usage('usb', :'first', 10);
SELECT count(*) = (SELECT count(*) FROM keywright.key_usage(page_size => 10000)) AS all FROM keywright.list_api_keys(include_inactive => true, page_size => 10000);
SELECT count(*) FROM keywright.key_usage(NULL, NULL, 1);

-- What is malformed, and null in every argument.
SET SESSION AUTHORIZATION regress_keywright_admin;
\x on
SELECT * FROM public.refusal($$SELECT keywright.touch_api_key(NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.touch_api_key('')$$);
SELECT * FROM public.refusal(format('SELECT keywright.touch_api_key(%L)', :'a_token'));
SELECT * FROM public.refusal($$SELECT keywright.key_usage('nobody')$$);
SELECT * FROM public.refusal($$SELECT keywright.key_usage(page_size => 0)$$);
SELECT * FROM public.refusal($$SELECT keywright.key_usage(page_size => 10001)$$);
SELECT * FROM public.refusal($$SELECT keywright.key_usage(page_size => NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.purge_api_key_usage(NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.purge_api_key_usage(0)$$);
SELECT * FROM public.refusal($$SELECT keywright.purge_api_key_usage(1000001)$$);
\x off
-- Not for everybody.
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT code FROM public.refusal(format('SELECT keywright.touch_api_key(%L)', :'a'));
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT code FROM public.refusal($$SELECT keywright.key_usage()$$);
SELECT code FROM public.refusal($$SELECT keywright._noted_usage('AAAAAAAAAA')$$);
SELECT code FROM public.refusal($$SELECT keywright._usage_metrics()$$);
SELECT code FROM public.refusal($$SELECT keywright.purge_api_key_usage()$$);
SELECT code FROM public.refusal($$SELECT FROM keywright.api_key_usage$$);
SELECT code FROM public.refusal($$SET keywright.track_usage = off$$);
RESET SESSION AUTHORIZATION;
SELECT * FROM keywright._noted_usage(NULL);
SELECT * FROM keywright._usage_metrics();
-- The settings that there are without the server's memory.
SELECT name, setting, unit, context, min_val, max_val FROM pg_settings WHERE name ~ '^keywright\.(usage|track)' ORDER BY name;

-- The usage of keys that are gone goes, in batches.
DELETE FROM keywright.api_keys WHERE user_id IN (SELECT user_id FROM keywright.users WHERE username IN ('usa', 'usb'));
INSERT INTO keywright.api_key_usage SELECT 'gone00000' || n, NULL, now() FROM generate_series(0, 3) AS n;
SET SESSION AUTHORIZATION regress_keywright_maintainer;
SELECT keywright.purge_api_key_usage(4), keywright.purge_api_key_usage(4), keywright.purge_api_key_usage(4);
RESET SESSION AUTHORIZATION;
INSERT INTO keywright.api_key_usage SELECT 'gone00000' || n, NULL, now() FROM generate_series(0, 3) AS n;
CALL keywright.maintain(batch => 1);
SELECT count(*) FROM keywright.api_key_usage;
SELECT count(keywright.delete_user(username)) FROM unnest('{usa,usb}'::text[]) AS username;
