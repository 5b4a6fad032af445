-- API keys: mint, verify, revoke, expire, list, explain, purge; each as the least role that may.
\pset null '(null)'
SELECT outcome FROM keywright.ensure_user('alice', '');
SELECT outcome FROM keywright.ensure_system_user('operator');

SET SESSION AUTHORIZATION regress_keywright_issuer;
-- 43 characters: brand, id, dash, secret, checksum.
SELECT key_id, token, expires_at FROM keywright.mint_api_key('alice', 'laptop') \gset k_
SELECT length(:'k_token') AS length, :'k_token' ~ '^kwk_[0-9A-Za-z]{10}-[0-9A-Za-z]{28}$' AS well_formed,
       substr(:'k_token', 5, 10) = :'k_key_id' AS id_inside,
       :'k_expires_at'::timestamptz - clock_timestamp() BETWEEN '89 days 23:59' AND '90 days' AS ninety_days;
-- The bare form, while the brand is empty; both verify.
SET keywright.api_key_brand = '';
SELECT key_id, token FROM keywright.mint_api_key('operator', 'bare') \gset b_
SELECT length(:'b_token') AS length, :'b_token' ~ '^[0-9A-Za-z]{10}-[0-9A-Za-z]{22}$' AS well_formed;
SET keywright.api_key_brand = 'acme_';
RESET keywright.api_key_brand;

SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active, key_id = :'k_key_id' AS id, username, name, scopes, allow_list, expires_at = :'k_expires_at' AS expiry
  FROM keywright.verify_api_key(:'k_token');
SELECT active, username, name FROM keywright.verify_api_key(:'b_token');
SELECT active, username, name FROM keywright.authenticate_api_key(:'b_token');
-- Only the secret's digest leaves the caller.
SELECT active, key_id = :'k_key_id' AS id, username
  FROM keywright.verify_api_key_digest(:'k_key_id', sha256(substr(:'k_token', 16, 22)::bytea));
SELECT active, key_id FROM keywright.verify_api_key_digest(:'k_key_id', sha256('wrong'));
-- Many at once, in order.
SELECT ordinality, active, username, name
  FROM keywright.verify_api_keys(ARRAY[:'k_token', NULL, 'junk', :'b_token', :'k_token']);
SELECT count(*) FROM keywright.verify_api_keys(NULL);
SELECT count(*) FROM keywright.verify_api_keys('{}');
-- What does not verify has one answer, and one error.
SELECT substr(:'k_token', 1, 15) || 'AAAAAAAAAAAAAAAAAAAAAA' AS wrong \gset
SELECT * FROM keywright.verify_api_key(:'wrong');
SELECT * FROM keywright.verify_api_key(substr(:'k_token', 5, 11) || repeat('A', 22));
\x on
SELECT * FROM public.refusal($$SELECT keywright.authenticate_api_key('junk')$$);
SELECT * FROM public.refusal($$SELECT keywright.authenticate_api_key(NULL)$$);
SELECT * FROM public.refusal(format('SELECT keywright.authenticate_api_key(%L)', substr(:'k_token', 5, 11) || repeat('A', 22)));
\x off

-- Nothing is written, no transaction id is assigned, and READ ONLY is enough.
BEGIN READ ONLY;
SELECT (keywright.verify_api_key(:'k_token')).active;
SELECT active FROM keywright.authenticate_api_key(:'k_token');
SELECT active FROM keywright.verify_api_key('junk');
SELECT count(*) FILTER (WHERE active) AS active FROM keywright.verify_api_keys(ARRAY[:'k_token', 'x']);
SELECT pg_current_xact_id_if_assigned();
COMMIT;
-- A cursor held open, a prepared statement, and a lateral join.
PREPARE v AS SELECT active FROM keywright.verify_api_key($1);
EXECUTE v(:'k_token');
EXECUTE v('x');
DEALLOCATE v;
SELECT t.n, v.active FROM (VALUES (1, :'k_token'), (2, 'x')) AS t (n, token), LATERAL keywright.verify_api_key(t.token) AS v;

-- Scopes and allow-lists have one spelling.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT token AS scoped FROM keywright.mint_api_key('alice', 'scoped', '{Project:Read, agent:*, agent:run, project:read}', '{project:p2,Project:p1,agent:*,agent:A1}') \gset
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT scopes, allow_list FROM keywright.verify_api_key(:'scoped');
SET SESSION AUTHORIZATION regress_keywright_issuer;
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', '{}')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', '{all,NULL}')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', '{project,pro%:read,a:b:c}')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', allow_list => '{}')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', allow_list => '{project,"project:a b",kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH}')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', allow_list => ARRAY(SELECT 'p:' || i FROM generate_series(1, 129) AS i))$$);

-- Lifetimes: every key expires.
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', lifetime => '0')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', lifetime => '-1 day')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', lifetime => '1 month -31 days')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', lifetime => '200 years')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', lifetime => NULL)$$);
\x off
RESET SESSION AUTHORIZATION;
SET keywright.max_api_key_lifetime = '1d';
SET SESSION AUTHORIZATION regress_keywright_issuer;
SHOW keywright.max_api_key_lifetime;
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x', lifetime => '1 day 1 second')$$);
\x off
SELECT expires_at > clock_timestamp() AS at_the_cap FROM keywright.mint_api_key('alice', 'capped', lifetime => '1 day');
-- An issuer can not raise the cap.
SET keywright.max_api_key_lifetime = 0;
RESET SESSION AUTHORIZATION;
RESET keywright.max_api_key_lifetime;
SET SESSION AUTHORIZATION regress_keywright_issuer;

-- Owners.
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('absent', 'x')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key(NULL, 'x')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', NULL)$$);
\x off
RESET SESSION AUTHORIZATION;
SELECT keywright.suspend_user('alice');
SELECT active FROM keywright.verify_api_key(:'k_token');
SELECT cause FROM keywright.explain_api_key(:'k_token');
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'x')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('alice', 'x')$$);
SELECT * FROM public.refusal(format('SELECT keywright.ensure_api_key(%L, %L, %L)', 'alice', 'laptop', :'k_token'));
\x off
SELECT keywright.activate_user('alice');
SELECT active FROM keywright.verify_api_key(:'k_token');

-- Revoking: idempotent, final, and it keeps the row.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT keywright.revoke_api_key(:'k_key_id', 'laptop stolen');
SELECT keywright.revoke_api_key(:'k_key_id', 'again');
\x on
SELECT * FROM public.refusal($$SELECT keywright.revoke_api_key('AAAAAAAAAA')$$);
SELECT * FROM public.refusal($$SELECT keywright.revoke_api_key('kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH')$$);
SELECT * FROM public.refusal($$SELECT keywright.revoke_api_key(NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.revoke_api_key('AAAAAAAAAA', 'it was kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH')$$);
\x off
RESET SESSION AUTHORIZATION;
SELECT code, rule, message LIKE 'API key "%" is revoked and can not come back' AS says_so, detail, hint
  FROM public.refusal(format('UPDATE keywright.api_keys SET revoked_at = NULL WHERE key_id = %L', :'k_key_id'));
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT cause, username, name, revoke_reason, revoked_at IS NOT NULL AS dated FROM keywright.explain_api_key(:'k_token');
SELECT cause, key_id = :'k_key_id' AS id, username FROM keywright.explain_api_key(:'wrong');
SELECT cause, key_id = :'k_key_id' AS id, username FROM keywright.explain_api_key(substr(:'k_token', 5, 11) || repeat('A', 22));
-- What befell it on its way; nothing but the id is told.
SELECT s.n, e.cause, e.key_id = :'k_key_id' AS id, e.username FROM (VALUES
  (1, :'k_token' || E'\n'), (2, E'\t ' || :'k_token'), (3, '"' || :'k_token' || '"'), (4, '''' || :'k_token' || ''''), (5, 'Bearer ' || :'k_token'), (6, 'x-api-key: ' || :'k_token'),
  (7, '"Bearer ' || :'k_token' || '"'), (8, left(:'k_token', -1)), (9, left(:'k_token', 20)), (10, left(:'k_token', 10)), (11, :'k_token' || 'x'), (12, 'Bearer'),
  (13, substr(:'k_token', 5, 30))) AS s (n, token),
  LATERAL keywright.explain_api_key(s.token) AS e ORDER BY n;
SELECT cause, key_id FROM keywright.explain_api_key('AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAA');
SELECT cause FROM keywright.explain_api_key('');
SELECT cause FROM keywright.explain_api_key(NULL);

-- A leaked token revokes itself; only with the right secret, and never with an error.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT keywright.revoke_leaked_api_key(substr(:'b_token', 1, 11) || repeat('A', 22)) AS wrong_secret;
SELECT keywright.revoke_leaked_api_key(:'b_token');
SELECT keywright.revoke_leaked_api_key(:'b_token');
SELECT keywright.revoke_leaked_api_key('junk') AS junk, keywright.revoke_leaked_api_key(NULL) AS nothing;

-- Expiring: now; an earlier expiry is left. A key is dead at expires_at itself.
SELECT key_id, token FROM keywright.mint_api_key('alice', 'short', lifetime => '1 hour') \gset s_
SELECT keywright.expire_api_key(:'s_key_id');
SELECT expires_at AS first_expiry FROM keywright.list_api_keys('alice', true) WHERE name = 'short' \gset
SELECT keywright.expire_api_key(:'s_key_id');
SELECT expires_at = :'first_expiry' AS left_as_it_was FROM keywright.list_api_keys('alice', true) WHERE name = 'short';
SELECT keywright.expire_api_key(:'k_key_id') AS revoked_before;
\x on
SELECT * FROM public.refusal($$SELECT keywright.expire_api_key('AAAAAAAAAA')$$);
\x off
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active FROM keywright.verify_api_key(:'s_token');
-- An expired key never blocks its name.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT key_id AS successor FROM keywright.mint_api_key('alice', 'short') \gset
SELECT state, superseded_by = :'successor' AS by_successor FROM keywright.list_api_keys('alice', true) WHERE key_id = :'s_key_id';
-- A live one does.
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('alice', 'short')$$);
\x off

-- Lists, without a secret.
SELECT name, state, scopes, allow_list, revoke_reason FROM keywright.list_api_keys('alice', include_inactive => true) ORDER BY created_at;
SELECT name, state FROM keywright.list_api_keys('alice') ORDER BY created_at;
SELECT username, name, state, revoke_reason FROM keywright.list_api_keys(include_inactive => true) ORDER BY created_at;
SELECT count(*) AS pages, sum(n) AS keys FROM (
  WITH RECURSIVE page AS (
    SELECT (SELECT array_agg(key_id) FROM keywright.list_api_keys(include_inactive => true, page_size => 2)) AS ids
    UNION ALL
    SELECT (SELECT array_agg(key_id) FROM keywright.list_api_keys(include_inactive => true, after => ids[cardinality(ids)], page_size => 2))
      FROM page WHERE ids IS NOT NULL
  ) SELECT cardinality(ids) AS n FROM page WHERE ids IS NOT NULL) AS p;
\x on
SELECT * FROM public.refusal($$SELECT keywright.list_api_keys('absent')$$);
SELECT * FROM public.refusal($$SELECT keywright.list_api_keys(page_size => 10001)$$);
\x off

-- All keys of a user.
SELECT keywright.revoke_user_api_keys('alice', 'left');
SELECT keywright.revoke_user_api_keys('alice');
SELECT count(*) AS live FROM keywright.list_api_keys('alice');
SELECT code, message FROM public.refusal($$SELECT keywright.revoke_user_api_keys('absent')$$);

-- Purging: what has been dead for longer than the retention, a batch a call.
SET SESSION AUTHORIZATION regress_keywright_admin;
SELECT keywright.purge_api_keys();
SELECT keywright.purge_api_keys('0', 2);
SELECT keywright.purge_api_keys('0');
SELECT keywright.purge_api_keys('0');
\x on
SELECT * FROM public.refusal($$SELECT keywright.purge_api_keys('-1 day')$$);
SELECT * FROM public.refusal($$SELECT keywright.purge_api_keys('200000 years')$$);
SELECT * FROM public.refusal($$SELECT keywright.purge_api_keys('0', 0)$$);
SELECT * FROM public.refusal($$SELECT keywright.purge_api_keys(NULL)$$);
\x off
SELECT count(*) AS left_over FROM keywright.list_api_keys(include_inactive => true);
CALL keywright.maintain();
CALL keywright.maintain('0', 1);
RESET SESSION AUTHORIZATION;
-- A page that begins after a text of another collation.
SELECT count(*) FROM keywright.list_api_keys(after => 'zzzzzzzzzz' COLLATE "POSIX");
SELECT count(*) FROM keywright.key_usage(after => 'zzzzzzzzzz' COLLATE "POSIX");
