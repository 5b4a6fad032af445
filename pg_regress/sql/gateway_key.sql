-- Gateway keys: mint, ensure, verify, heartbeat, rotate, list, delete.
\pset null '(null)'
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT * FROM keywright.mint_gateway_key('edge-1', 'plane-a') \gset a_
SELECT :'a_name' AS name, length(:'a_token') AS length, :'a_token' ~ '^kwg_[0-9A-Za-z]{39}$' AS well_formed,
       :'a_secret_prefix' = left(:'a_token', 11) AS prefix, :'a_created_at'::timestamptz <= clock_timestamp() AS dated;
SELECT * FROM keywright.mint_gateway_key('edge-2') \gset b_

SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active, gateway_key_id = :'a_gateway_key_id' AS id, name FROM keywright.verify_gateway_key(:'a_token');
SELECT * FROM keywright.verify_gateway_key(left(:'a_token', 42) || CASE right(:'a_token', 1) WHEN 'x' THEN 'y' ELSE 'x' END);
SELECT keywright.heartbeat_gateway_key(:'a_gateway_key_id');
SELECT keywright.heartbeat_gateway_key(:'a_gateway_key_id');
SELECT keywright.heartbeat_gateway_key('00000000-0000-0000-0000-000000000000');
\x on
SELECT * FROM public.refusal($$SELECT keywright.heartbeat_gateway_key(NULL)$$);
\x off
BEGIN READ ONLY;
SELECT active FROM keywright.verify_gateway_key(:'a_token');
SELECT pg_current_xact_id_if_assigned();
COMMIT;

-- Oldest first, without a secret.
SET SESSION AUTHORIZATION regress_keywright_auditor;
SELECT name, length(secret_prefix) AS prefix, last_heartbeat_at >= created_at AS heard_of, managed_by, expires_at FROM keywright.list_gateway_keys();

-- ensure: every outcome and reason.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT token, outcome, reason FROM keywright.ensure_gateway_key('edge-3') \gset c_
SELECT :'c_outcome' AS outcome, :'c_reason' AS reason;
BEGIN;
SELECT token = :'c_token' AS same_token, secret_prefix = left(:'c_token', 11) AS prefix, name, outcome, reason
  FROM keywright.ensure_gateway_key('edge-3', :'c_token');
SELECT pg_current_xact_id_if_assigned();
COMMIT;
SELECT token, outcome, reason FROM keywright.ensure_gateway_key('edge-3') \gset d_
SELECT :'d_outcome' AS outcome, :'d_reason' AS reason;
SELECT token, outcome, reason FROM keywright.ensure_gateway_key('edge-3', left(:'d_token', 30)) \gset e_
SELECT :'e_outcome' AS outcome, :'e_reason' AS reason;
SELECT outcome, reason FROM keywright.ensure_gateway_key('edge-4', :'e_token');
SELECT outcome FROM keywright.ensure_gateway_key('edge-3', :'e_token');
SELECT token AS rotated FROM keywright.rotate_gateway_key('edge-3') \gset
SELECT token, outcome, reason FROM keywright.ensure_gateway_key('edge-3', :'e_token') \gset f_
SELECT :'f_outcome' AS outcome, :'f_reason' AS reason;
SELECT name, managed_by FROM keywright.delete_gateway_key('edge-3');
SELECT token, outcome, reason FROM keywright.ensure_gateway_key('edge-3', :'f_token') \gset g_
SELECT :'g_outcome' AS outcome, :'g_reason' AS reason;
\x on
SELECT * FROM public.refusal($$SELECT keywright.ensure_gateway_key('edge-1', managed_by => 'plane-b')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_gateway_key('Edge-1')$$);
\x off

-- rotate: at once, or with a grace in which both verify and both beat.
SELECT * FROM keywright.rotate_gateway_key('edge-1', '1 hour') \gset h_
SELECT :'h_predecessor_id' = :'a_gateway_key_id' AS predecessor, :'h_gateway_key_id' <> :'a_gateway_key_id' AS new_id;
SELECT outcome FROM keywright.ensure_gateway_key('edge-1', :'a_token', 'plane-a');
SELECT name, managed_by, expires_at IS NOT NULL AS in_grace FROM keywright.list_gateway_keys() WHERE name = 'edge-1';
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT (keywright.verify_gateway_key(:'a_token')).active AS old, (keywright.verify_gateway_key(:'h_token')).active AS new;
SELECT keywright.heartbeat_gateway_key(:'a_gateway_key_id') AS old, keywright.heartbeat_gateway_key(:'h_gateway_key_id') AS new;
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT gateway_key_id AS last FROM keywright.rotate_gateway_key('edge-1') \gset
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT (keywright.verify_gateway_key(:'h_token')).active AS dead_at_once;
SELECT keywright.heartbeat_gateway_key(:'h_gateway_key_id') AS session_ends;
SET SESSION AUTHORIZATION regress_keywright_issuer;

-- ensure: a rotation also ends what is still in its grace.
SELECT token AS graced FROM keywright.mint_gateway_key('edge-5') \gset
SELECT token AS second FROM keywright.rotate_gateway_key('edge-5', '1 hour') \gset
SELECT outcome, reason FROM keywright.ensure_gateway_key('edge-5');
SELECT count(*) AS live FROM keywright.list_gateway_keys() WHERE name = 'edge-5';
SELECT name FROM keywright.delete_gateway_key('edge-5');

-- delete: by name or by id, name wins; what was in its grace goes along; the holder's session ends.
SELECT name, gateway_key_id = :'last' AS id, length(secret_prefix) AS prefix FROM keywright.delete_gateway_key('edge-1');
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT (keywright.verify_gateway_key(:'a_token')).active AS in_grace_before;
SELECT keywright.heartbeat_gateway_key(:'a_gateway_key_id') AS session_ends;
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT name = :'b_gateway_key_id' AS named_like_an_id FROM keywright.mint_gateway_key(:'b_gateway_key_id');
SELECT gateway_key_id <> :'b_gateway_key_id' AS name_wins FROM keywright.delete_gateway_key(:'b_gateway_key_id');
SELECT name, gateway_key_id = :'b_gateway_key_id' AS by_id FROM keywright.delete_gateway_key(upper(:'b_gateway_key_id'));
\x on
SELECT * FROM public.refusal($$SELECT keywright.delete_gateway_key('edge-1')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_gateway_key('00000000-0000-0000-0000-000000000000')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_gateway_key(NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.rotate_gateway_key('edge-1')$$);
SELECT * FROM public.refusal($$SELECT keywright.rotate_gateway_key('edge-3', '-1 day')$$);
SELECT * FROM public.refusal($$SELECT keywright.rotate_gateway_key('edge-3', '200000 years')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_gateway_key('kwg_0000000AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA')$$);
\x off
SELECT name FROM keywright.list_gateway_keys();
RESET SESSION AUTHORIZATION;
SELECT keywright.purge_gateway_keys() AS rotated_away_with_no_grace_left;
SELECT name FROM keywright.list_gateway_keys(), LATERAL keywright.delete_gateway_key(list_gateway_keys.name) AS d (a, b, c, e, f, g);
SELECT count(*) AS heartbeats FROM keywright.gateway_key_heartbeats;
