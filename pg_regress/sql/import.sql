-- import_api_key: a key that another system minted goes on verifying, by the hash of its secret.
\set VERBOSITY default
\set SHOW_CONTEXT never
\pset null '(null)'
SET ROLE regress_keywright_reconciler;
SELECT outcome FROM keywright.ensure_user('imp-a', '', 'service');
SELECT outcome FROM keywright.ensure_user('imp-b', '', 'service');
RESET ROLE;
SET ROLE regress_keywright_issuer;
SELECT now() + interval '720 hours' AS ends, now() - interval '1440 hours' AS began \gset
SELECT keywright.import_api_key('imp-a', 'ci', 'OldKey0001', sha256('ABCDEFGHIJKLMNOPQRSTUV'), :'ends', :'began');
RESET ROLE;
SELECT active, username, name, scopes, allow_list, expires_at = :'ends' AS expiry_kept FROM keywright.verify_api_key('OldKey0001-ABCDEFGHIJKLMNOPQRSTUV');
SELECT name, state, created_at = :'began' AS creation_kept FROM keywright.list_api_keys('imp-a');
SELECT lifetime FROM keywright.api_keys WHERE key_id = 'OldKey0001';
-- A wrong secret, a wrong id and a wrong length do not verify.
SELECT v.active FROM unnest('{OldKey0001-ABCDEFGHIJKLMNOPQRSTUW,OldKey0002-ABCDEFGHIJKLMNOPQRSTUV,OldKey0001-ABCDEFGHIJKLMNOPQRSTU}'::text[]) AS t, keywright.verify_api_key(t) AS v;
SELECT active FROM keywright.verify_api_key_digest('OldKey0001', sha256('ABCDEFGHIJKLMNOPQRSTUV'));
-- The branded form of a key verifies as well as the bare one.
SELECT keywright.import_api_key('imp-a', 'branded', '0123456789', sha256('ABCDEFGHIJKLMNOPQRSTUV'), now() + interval '1 day');
SELECT v.active, v.name FROM unnest('{0123456789-ABCDEFGHIJKLMNOPQRSTUV,kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH}'::text[]) AS t, keywright.verify_api_key(t) AS v;
-- Again: nothing is written.
BEGIN READ ONLY;
SELECT keywright.import_api_key('IMP-A', 'ci', 'OldKey0001', sha256('ABCDEFGHIJKLMNOPQRSTUV'), :'ends', :'began'),
       keywright.import_api_key('IMP-A', 'ci', 'OldKey0001', sha256('ABCDEFGHIJKLMNOPQRSTUV'), :'ends');
COMMIT;
-- Again as something else: refused, with what differs, and it stays as it is.
SELECT keywright.import_api_key('imp-a', 'other', 'OldKey0001', sha256('ABCDEFGHIJKLMNOPQRSTUV'), now() + interval '1 day', now(), '{project:read}', '{project:p1}');
SELECT keywright.import_api_key('imp-a', 'ci', 'OldKey0001', sha256('ABCDEFGHIJKLMNOPQRSTUV'), :'ends', :'began', '{project:read}');
SELECT name, scopes, allow_list, expires_at = :'ends' AS expiry_kept FROM keywright.list_api_keys('imp-a') WHERE key_id = 'OldKey0001';
-- Scopes and allow-list are those of any key.
SELECT keywright.import_api_key('imp-a', 'narrow', 'OldKey0003', sha256('another secret of its own'), :'ends', NULL, '{project:read,project:read}', '{project:p1,project:*}');
SELECT scopes, allow_list FROM keywright.verify_api_key_digest('OldKey0003', sha256('another secret of its own'));
-- What is noted of it: no more than names.
SELECT event, id, name, columns, affected, by_hand FROM keywright.audit_events WHERE id ~ '^OldKey' ORDER BY occurred_at;
SELECT count(*) AS hashes_noted FROM keywright.audit_events AS e WHERE e::text ~ encode(sha256('ABCDEFGHIJKLMNOPQRSTUV'), 'hex');
-- A key that is minted in the same session is noted as minted.
SELECT key_id IS NOT NULL AS minted FROM keywright.mint_api_key('imp-a', 'minted');
SELECT event FROM keywright.audit_events WHERE name = 'imp-a/minted';
-- Revoked, it stays so, however often it is imported.
SELECT keywright.revoke_api_key('OldKey0003');
SELECT keywright.import_api_key('imp-a', 'narrow', 'OldKey0003', sha256('another secret of its own'), :'ends', NULL, '{project:read}', '{project:*}');
SELECT active FROM keywright.verify_api_key_digest('OldKey0003', sha256('another secret of its own'));
-- Rotated as any other, for as long as it was made for.
SELECT token IS NOT NULL AS token, expires_at > now() + interval '89 days' AS as_long, predecessor_id FROM keywright.rotate_api_key('OldKey0001', '1 hour');
SELECT keywright.import_api_key('imp-a', 'ci', 'OldKey0001', sha256('ABCDEFGHIJKLMNOPQRSTUV'), now() + interval '30 days');

-- Refused, each with a code; what was passed as a hash is never repeated.
SELECT s.statement, r.* FROM unnest(ARRAY[
    $$SELECT keywright.import_api_key('imp-b', 'n', 'OldKey0001', sha256('ABCDEFGHIJKLMNOPQRSTUV'), now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key('imp-a', 'n', 'OldKey0001', sha256('other'), now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key('imp-a', 'minted', 'OldKey0009', sha256('other'), now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key('imp-a', 'Bad_Name', 'OldKey0009', sha256('other'), now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key('nobody-at-all', 'n', 'OldKey0009', sha256('other'), now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key(NULL, 'n', 'OldKey0009', sha256('other'), now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key('imp-a', NULL, 'OldKey0009', sha256('other'), now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key('imp-a', 'n', NULL, sha256('other'), now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key('imp-a', 'n', 'OldKey0009', NULL, now() + interval '1 day')$$,
    $$SELECT keywright.import_api_key('imp-a', 'n', 'OldKey0009', sha256('other'), NULL)$$]) AS s (statement), LATERAL public.refusal(s.statement) AS r;
CREATE FUNCTION public.import(digest bytea, key_id text DEFAULT 'OldKey0009', expires_at timestamptz DEFAULT now() + interval '1 day',
  created_at timestamptz DEFAULT NULL, scopes text[] DEFAULT '{all}') RETURNS text LANGUAGE sql AS
$$SELECT keywright.import_api_key('imp-a', 'n', key_id, digest, expires_at, created_at, scopes)$$;
SELECT public.import('\xabab');
SELECT public.import(encode(sha256('x'), 'hex')::bytea);
SELECT public.import(sha256(''));
SELECT public.import(sha256('OldKey0009'));
SELECT public.import(sha256('qqqqqqqqqqqqqqqqqqqqqq'));
SELECT public.import(decode(repeat('00', 32), 'hex'));
SELECT public.import(sha256('x'), 'OldKey0009-ABCDEFGHIJKLMNOPQRSTUV');
SELECT public.import(sha256('x'), 'short');
SELECT public.import(sha256('x'), expires_at => now() - interval '1 second');
SELECT public.import(sha256('x'), expires_at => 'infinity');
SELECT public.import(sha256('x'), expires_at => now() + interval '101 years');
SELECT public.import(sha256('x'), created_at => now() + interval '1 hour');
SELECT public.import(sha256('x'), created_at => '-infinity');
SELECT public.import(sha256('x'), created_at => '0001-01-01');
SELECT public.import('\xabab', 'short', now(), scopes => '{nonsense}');
SELECT public.import('\xabab', 'short', scopes => '{nonsense}');
SET keywright.max_api_key_lifetime = '30d';
SELECT public.import(sha256('x'), expires_at => now() + interval '31 days');
-- What counts is what is left.
SELECT public.import(sha256('x'), expires_at => now() + interval '29 days', created_at => now() - interval '300 days');
RESET keywright.max_api_key_lifetime;
BEGIN READ ONLY;
SELECT public.import(sha256('y'), 'OldKey0010');
ROLLBACK;
-- An expired key gives up its name; a suspended user gets none, a deleted one is nobody.
SELECT keywright.expire_api_key('OldKey0009');
SELECT public.import(sha256('y'), 'OldKey0010');
SELECT state, superseded_by FROM keywright.list_api_keys('imp-a', true) WHERE key_id = 'OldKey0009';
SELECT keywright.suspend_user('imp-b');
SELECT keywright.import_api_key('imp-b', 'n', 'OldKey0011', sha256('z'), now() + interval '1 day');
-- All or nothing: a statement that fails in the middle imports none.
SELECT keywright.import_api_key('imp-a', 'many-' || n, 'OldKey002' || n, sha256(('secret ' || n)::bytea), now() + make_interval(days => 2 - n)) FROM generate_series(0, 2) AS n;
SELECT count(*) AS of_many FROM keywright.list_api_keys('imp-a', true) WHERE name LIKE 'many-%';
-- Only issuers and reconcilers.
SELECT string_agg(c, ',') AS may FROM unnest('{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer,nobody,admin}'::text[]) AS c
 WHERE has_function_privilege('regress_keywright_' || c, 'keywright.import_api_key(text,text,text,bytea,timestamptz,timestamptz,text[],text[])', 'EXECUTE');
SET ROLE regress_keywright_verifier;
SELECT keywright.import_api_key('imp-a', 'n', 'OldKey0012', sha256('z'), now() + interval '1 day');
SELECT keywright._import_api_key('imp-a', 'n', 'OldKey0012', sha256('z'), now() + interval '1 day', NULL, '{all}', '{*:*}');
RESET ROLE;
DROP FUNCTION public.import;
DELETE FROM keywright.api_keys WHERE user_id IN (SELECT user_id FROM keywright.users WHERE username LIKE 'imp-%');
SELECT keywright.delete_user('imp-a') IS NOT NULL, keywright.delete_user('imp-b') IS NOT NULL;
