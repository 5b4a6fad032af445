-- rotate_api_key, as an issuer.
\pset null '(null)'
SELECT outcome FROM keywright.ensure_user('erin', '');
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT key_id, token, expires_at FROM keywright.mint_api_key('erin', 'ci', '{project:read}', '{project:p1}', '3 days', 'plane-a') \gset a_
-- At once: same name, scopes, allow-list and lifetime.
SELECT * FROM keywright.rotate_api_key(:'a_key_id') \gset b_
SELECT :'b_predecessor_id' = :'a_key_id' AS predecessor, :'b_predecessor_expires_at'::timestamptz <= clock_timestamp() AS dead_now,
       :'b_expires_at'::timestamptz - :'a_expires_at'::timestamptz < '1 minute' AS same_lifetime;
SELECT name, state, scopes, allow_list, managed_by, superseded_by = :'b_key_id' AS by_successor FROM keywright.list_api_keys('erin', true) ORDER BY created_at;
-- With a grace both live; the old one no longer than it would have.
SELECT * FROM keywright.rotate_api_key(:'b_key_id', '1 hour') \gset c_
SELECT * FROM keywright.rotate_api_key(:'c_key_id', '1 year') \gset d_
SELECT :'d_predecessor_expires_at'::timestamptz = :'c_expires_at'::timestamptz AS never_past_its_own_expiry;
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT ordinality, active FROM keywright.verify_api_keys(ARRAY[:'a_token', :'b_token', :'c_token', :'d_token']);
-- What was rotated away and is still presented can be seen.
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT cause, superseded_by = :'b_key_id' AS by_successor FROM keywright.explain_api_key(:'a_token');
SELECT cause, superseded_by = :'c_key_id' AS by_successor FROM keywright.explain_api_key(:'b_token');
SELECT name, state FROM keywright.list_api_keys('erin') ORDER BY created_at;
-- Only a live key that holds its name is rotated.
SET SESSION AUTHORIZATION regress_keywright_issuer;
CREATE TEMP TABLE ids AS SELECT :'a_key_id' AS old, :'d_key_id' AS live;
\x on
SELECT r.code, replace(r.message, old, 'OLD') AS message, detail, regexp_replace(hint, '"\w{10}"', '"SUCCESSOR"') AS hint
  FROM ids, LATERAL public.refusal(format('SELECT keywright.rotate_api_key(%L)', old)) AS r;
SELECT keywright.revoke_api_key(:'d_key_id');
SELECT r.code, replace(r.message, live, 'KEY') AS message, detail, hint
  FROM ids, LATERAL public.refusal(format('SELECT keywright.rotate_api_key(%L)', live)) AS r;
SELECT key_id AS expired FROM keywright.mint_api_key('erin', 'ci') \gset
SELECT keywright.expire_api_key(:'expired');
SELECT code, detail, hint FROM public.refusal(format('SELECT keywright.rotate_api_key(%L)', :'expired'));
SELECT * FROM public.refusal($$SELECT keywright.rotate_api_key('AAAAAAAAAA')$$);
SELECT * FROM public.refusal($$SELECT keywright.rotate_api_key('kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH')$$);
SELECT * FROM public.refusal($$SELECT keywright.rotate_api_key('AAAAAAAAAA', '-1 second')$$);
SELECT * FROM public.refusal($$SELECT keywright.rotate_api_key('AAAAAAAAAA', '200000 years')$$);
SELECT * FROM public.refusal($$SELECT keywright.rotate_api_key('AAAAAAAAAA', NULL)$$);
\x off
-- A lowered cap shortens the successor and keeps nobody from rotating.
SELECT key_id AS long FROM keywright.mint_api_key('erin', 'long', lifetime => '90 days') \gset
RESET SESSION AUTHORIZATION;
SET keywright.max_api_key_lifetime = '1d';
SELECT expires_at - clock_timestamp() BETWEEN '23:59' AND '24:00' AS one_day FROM keywright.rotate_api_key(:'long');
RESET keywright.max_api_key_lifetime;
SELECT keywright.delete_user('erin') IS NOT NULL AS deleted;
SELECT keywright.purge_api_keys('0') > 0 AS purged;
