-- ensure_api_key: every outcome and every reason, as an issuer.
\pset null '(null)'
SELECT outcome FROM keywright.ensure_user('carol', '');
SELECT outcome FROM keywright.ensure_user('dave', '');
SET SESSION AUTHORIZATION regress_keywright_issuer;

-- missing: nothing stored yet.
SELECT key_id, token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci') \gset a_
SELECT :'a_outcome' AS outcome, :'a_reason' AS reason;
-- kept: the same token comes back, and nothing is written.
BEGIN;
SELECT token = :'a_token' AS same_token, key_id = :'a_key_id' AS same_key, outcome, reason
  FROM keywright.ensure_api_key('carol', 'ci', :'a_token');
SELECT outcome FROM keywright.ensure_api_key('CAROL', 'ci', :'a_token', '{all,all}', '{*:*,project:p1}');
SELECT pg_current_xact_id_if_assigned();
COMMIT;
BEGIN READ ONLY;
SELECT outcome FROM keywright.ensure_api_key('carol', 'ci', :'a_token');
COMMIT;
-- missing: lost by the caller. The key that was lost is revoked.
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', '') \gset b_
SELECT :'b_outcome' AS outcome, :'b_reason' AS reason;
SELECT name, state, revoke_reason FROM keywright.list_api_keys('carol', true) ORDER BY created_at;
-- malformed: cut off in the store.
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', left(:'b_token', 20)) \gset c_
SELECT :'c_outcome' AS outcome, :'c_reason' AS reason;
-- unknown: never ours, or with another secret.
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', 'AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAA') \gset d_
SELECT :'d_outcome' AS outcome, :'d_reason' AS reason;
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', substr(:'d_token', 5, 11) || repeat('A', 22)) \gset e_
SELECT :'e_outcome' AS outcome, :'e_reason' AS reason;
-- revoked behind its back.
SELECT keywright.revoke_leaked_api_key(:'e_token');
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', :'e_token') \gset f_
SELECT :'f_outcome' AS outcome, :'f_reason' AS reason;
-- expired.
SELECT keywright.expire_api_key(substr(:'f_token', 5, 10));
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', :'f_token') \gset g_
SELECT :'g_outcome' AS outcome, :'g_reason' AS reason;
-- expiring: no more than renew_before is left.
SELECT outcome, reason FROM keywright.ensure_api_key('carol', 'ci', :'g_token', lifetime => '120 days', renew_before => '89 days');
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', :'g_token', lifetime => '120 days', renew_before => '91 days') \gset h_
SELECT :'h_outcome' AS outcome, :'h_reason' AS reason;
-- scopes-changed and allow-list-changed.
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', :'h_token', '{project:read}') \gset i_
SELECT :'i_outcome' AS outcome, :'i_reason' AS reason;
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'ci', :'i_token', '{project:read}', '{project:p1}') \gset j_
SELECT :'j_outcome' AS outcome, :'j_reason' AS reason;
SELECT outcome FROM keywright.ensure_api_key('carol', 'ci', :'j_token', '{PROJECT:read}', '{project:p1, project:p1}');
-- wrong-user and wrong-name: that key is somebody else's and stays as it is.
SELECT token, outcome, reason FROM keywright.ensure_api_key('dave', 'ci', :'j_token') \gset k_
SELECT :'k_outcome' AS outcome, :'k_reason' AS reason;
SELECT token, outcome, reason FROM keywright.ensure_api_key('carol', 'other', :'j_token') \gset l_
SELECT :'l_outcome' AS outcome, :'l_reason' AS reason;
SELECT outcome FROM keywright.ensure_api_key('carol', 'ci', :'j_token', '{project:read}', '{project:p1}');
-- superseded: rotated away, within its grace it is kept, after that it is replaced.
SELECT token AS rotated FROM keywright.rotate_api_key(substr(:'k_token', 5, 10), '1 hour') \gset
SELECT outcome FROM keywright.ensure_api_key('dave', 'ci', :'k_token');
SELECT outcome FROM keywright.ensure_api_key('dave', 'ci', :'rotated');
SELECT keywright.expire_api_key(substr(:'k_token', 5, 10));
SELECT token, outcome, reason FROM keywright.ensure_api_key('dave', 'ci', :'k_token') \gset m_
SELECT :'m_outcome' AS outcome, :'m_reason' AS reason;

-- One live key of each name, and every token handed out before is dead.
SELECT username, name, state FROM keywright.list_api_keys() ORDER BY username, name;
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT string_agg(CASE WHEN active THEN 't' ELSE 'f' END, '' ORDER BY ordinality) AS a_to_m
  FROM keywright.verify_api_keys(ARRAY[:'a_token', :'b_token', :'c_token', :'d_token', :'e_token', :'f_token', :'g_token',
    :'h_token', :'i_token', :'j_token', :'k_token', :'l_token', :'m_token']);
SET SESSION AUTHORIZATION regress_keywright_issuer;

-- A rotation also ends what was rotated away before and is still in its grace.
SELECT key_id, token AS first FROM keywright.mint_api_key('dave', 'graced') \gset g1_
SELECT token AS second FROM keywright.rotate_api_key(:'g1_key_id', '1 hour') \gset g2_
SELECT outcome, reason, token FROM keywright.ensure_api_key('dave', 'graced') \gset g3_
SELECT :'g3_outcome' AS outcome, :'g3_reason' AS reason;
SELECT name, state, revoke_reason FROM keywright.list_api_keys('dave', true) WHERE name = 'graced' ORDER BY created_at;
SELECT cause FROM unnest(ARRAY[:'g1_first', :'g2_second', :'g3_token']) WITH ORDINALITY AS t (token, n),
  LATERAL (SELECT keywright.revoke_leaked_api_key(token) AS cause) AS c ORDER BY n;

-- Twice in one transaction: the second call sees the first's key and is nobody else's competitor.
BEGIN;
SELECT token, outcome, reason FROM keywright.ensure_api_key('dave', 'twice') \gset n_
SELECT :'n_outcome' AS outcome, :'n_reason' AS reason;
SELECT outcome FROM keywright.ensure_api_key('dave', 'twice', :'n_token');
SELECT outcome, reason FROM keywright.ensure_api_key('dave', 'twice');
COMMIT;
DO $$
DECLARE
  first record;
  second record;
BEGIN
  SELECT * INTO first FROM keywright.ensure_api_key('dave', 'one-statement');
  SELECT * INTO second FROM keywright.ensure_api_key('dave', 'one-statement');
  RAISE NOTICE '% % then % %', first.outcome, first.reason, second.outcome, second.reason;
END
$$;
-- Rolled back: as if it had not been.
BEGIN;
SELECT outcome FROM keywright.ensure_api_key('dave', 'gone');
ROLLBACK;
SELECT outcome, reason FROM keywright.ensure_api_key('dave', 'gone');

-- A key that another manager owns is left alone, and kept for whoever holds its token.
SELECT token AS managed FROM keywright.ensure_api_key('dave', 'managed', managed_by => 'plane-a') \gset
SELECT outcome FROM keywright.ensure_api_key('dave', 'managed', :'managed', managed_by => 'plane-b');
\x on
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', 'managed', managed_by => 'plane-b')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', 'managed')$$);
-- Malformed arguments; a failure is an error, never a rotation.
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', 'x', renew_before => '90 days')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', 'x', renew_before => '-1 second')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', 'x', renew_before => NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', 'x', lifetime => '0')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', 'x', scopes => '{}')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', 'X')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('dave', NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('absent', 'x')$$);
\x off
RESET SESSION AUTHORIZATION;
SELECT keywright.delete_user('carol') IS NOT NULL AS deleted;
SELECT keywright.delete_user('dave') IS NOT NULL AS deleted;
SELECT keywright.purge_api_keys('0') > 0 AS purged;
