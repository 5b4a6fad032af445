-- Users, as a reconciler that is no superuser.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
\pset null '(null)'

-- No first user yet, whatever system and service users there are.
SELECT keywright.needs_first_user();
SELECT outcome FROM keywright.ensure_system_user('operator', 'operator@example.invalid', display_name => 'The operator', managed_by => 'plane-a');
SELECT outcome FROM keywright.ensure_user('ci-bot', '', kind => 'service');
SELECT keywright.needs_first_user();
SELECT outcome FROM keywright.ensure_user('alice', 'alice@example.invalid');
SELECT keywright.needs_first_user();
SELECT keywright.suspend_user('alice');
SELECT keywright.needs_first_user() AS suspended_human_counts;
SELECT keywright.activate_user('alice');

-- The same again writes nothing: no row version, no lock, no transaction id.
RESET SESSION AUTHORIZATION;
SELECT xmin AS xmin_before, xmax AS xmax_before FROM keywright.users WHERE username = 'operator' \gset
SET SESSION AUTHORIZATION regress_keywright_reconciler;
BEGIN;
SELECT outcome FROM keywright.ensure_system_user('operator', 'operator@example.invalid', display_name => 'The operator', managed_by => 'plane-a');
SELECT outcome FROM keywright.ensure_system_user('operator', managed_by => 'plane-a');
SELECT outcome FROM keywright.ensure_user('alice', 'alice@example.invalid');
SELECT outcome FROM keywright.ensure_user('ci-bot', '', 'service', display_name => '');
SELECT pg_current_xact_id_if_assigned();
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT xmin = :xmin_before AND xmax = :xmax_before AS same_row_version FROM keywright.users WHERE username = 'operator';
SET SESSION AUTHORIZATION regress_keywright_reconciler;
BEGIN READ ONLY;
SELECT outcome FROM keywright.ensure_system_user('operator', managed_by => 'plane-a');
COMMIT;

-- Drift is repaired: e-mail, display name, and a suspension.
SELECT outcome FROM keywright.ensure_system_user('operator', 'new@example.invalid', managed_by => 'plane-a');
SELECT keywright.suspend_user('operator');
SELECT keywright.suspend_user('operator');
SELECT outcome FROM keywright.ensure_system_user('operator', managed_by => 'plane-a');
SELECT username, status, email, display_name, managed_by FROM keywright.list_users(include_system => true);
-- A human stays suspended.
SELECT keywright.suspend_user('alice');
SELECT outcome FROM keywright.ensure_user('alice', 'a@example.invalid');
SELECT status, email FROM keywright.list_users() WHERE username = 'alice';
SELECT keywright.activate_user('alice');
SELECT keywright.activate_user('alice');

-- A user is never turned into another kind, and never touched by another manager.
\x on
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('alice')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('ci-bot')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('operator', '')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('ci-bot', '')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('x', '', 'system')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('operator', 'b@example.invalid', managed_by => 'plane-b')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('operator', 'b@example.invalid')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('operator', managed_by => 'plane-b')$$);
\x off
-- One who changes nothing is not refused; a user nobody manages goes to the first manager who names itself.
SELECT outcome FROM keywright.ensure_system_user('operator');
SELECT outcome FROM keywright.ensure_user('ci-bot', '', 'service', managed_by => 'plane-b');
SELECT outcome FROM keywright.ensure_user('ci-bot', '', 'service', managed_by => 'plane-b');

-- The role a user acts as.
RESET SESSION AUTHORIZATION;
CREATE ROLE regress_keywright_acting;
CREATE ROLE regress_keywright_mighty BYPASSRLS CREATEDB;
CREATE ROLE regress_keywright_super SUPERUSER;
CREATE ROLE regress_keywright_leading IN ROLE regress_keywright_super;
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT outcome FROM keywright.ensure_user('alice', NULL, db_role => 'regress_keywright_acting');
SELECT outcome FROM keywright.ensure_user('alice', NULL);
SELECT db_role, email FROM keywright.list_users() WHERE username = 'alice';
SELECT outcome FROM keywright.ensure_user('alice', NULL, db_role => '');
SELECT db_role FROM keywright.list_users() WHERE username = 'alice';
\x on
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('alice', NULL, db_role => 'regress_keywright_absent')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('alice', NULL, db_role => 'pg_read_all_data')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('alice', NULL, db_role => 'public')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('alice', NULL, db_role => 'regress_keywright_mighty')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('alice', NULL, db_role => 'regress_keywright_super')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('alice', NULL, db_role => 'regress_keywright_leading')$$);

-- Malformed arguments. What may be a token is never repeated.
SELECT * FROM public.refusal($$SELECT keywright.ensure_user(NULL, '')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('x', 'not-an-address')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('x', '', NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('x', '', display_name => E'a\nb')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('x', '', managed_by => '')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('x', '', display_name => 'key kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_user('kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH', '')$$);
SELECT * FROM public.refusal($$SELECT keywright.suspend_user('absent')$$);
SELECT * FROM public.refusal($$SELECT keywright.activate_user('kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_user(NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.list_users(page_size => 0)$$);
SELECT * FROM public.refusal($$SELECT keywright.list_users(page_size => NULL)$$);
\x off

-- Usernames: 1 to 64 characters; an application's own ids are such names. No hint makes one name of two.
SELECT outcome FROM keywright.ensure_user(repeat('a', 64), '');
SELECT n AS name, (SELECT outcome FROM keywright.ensure_user(n, '')) AS outcome
  FROM unnest('{f81d4fae-7dec-11d0-a765-00a0c91e6bf6,ada_lovelace,ada.lovelace,1.2-3_4}'::text[]) AS n;
SELECT count(DISTINCT hint) AS hints FROM unnest(ARRAY['F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6', 'Ada', 'ADA', 'a b', 'a__b', repeat('a', 64) || 'x', repeat('a', 64) || 'y']) AS n,
  LATERAL public.refusal(format('SELECT keywright.ensure_user(%L, %L)', n, ''));
SELECT code, rule, detail FROM public.refusal(format('SELECT keywright.ensure_user(%L, %L)', repeat('a', 65), ''));
SELECT n AS name, code, rule FROM unnest('{"",-,a-,-a,a--b,a_b-,.a,a..b,a-_b,A,a b,é}'::text[]) AS n,
  LATERAL public.refusal(format('SELECT keywright.ensure_user(%L, %L)', n, ''));

-- Deleting is soft: the name is free again, the id is not, and the keys are gone.
SELECT user_id AS first_id FROM keywright.ensure_user('bob', '') \gset
SELECT token AS bobs_token FROM keywright.mint_api_key('bob', 'laptop') \gset
SELECT keywright.delete_user('bob') = :'first_id' AS deleted;
SELECT code, message FROM public.refusal($$SELECT keywright.delete_user('bob')$$);
SELECT outcome, user_id <> :'first_id' AS other_id FROM keywright.ensure_user('bob', '');
RESET SESSION AUTHORIZATION;
SELECT active FROM keywright.verify_api_key(:'bobs_token');
SELECT cause, revoke_reason FROM keywright.explain_api_key(:'bobs_token');
SELECT count(*) AS rows_of_bob, count(deleted_at) AS deleted FROM keywright.users WHERE lower(username) = 'bob';
SET SESSION AUTHORIZATION regress_keywright_reconciler;

-- Pages, by name.
SELECT username, kind FROM keywright.list_users(page_size => 2);
SELECT username, kind FROM keywright.list_users(after => 'alice', page_size => 2);
SELECT username FROM keywright.list_users(include_system => true, after => 'ci-bot');

-- System users are changed by the functions only, also as a superuser.
RESET SESSION AUTHORIZATION;
\x on
SELECT * FROM public.refusal($$UPDATE keywright.users SET email = 'x@y' WHERE username = 'operator'$$);
SELECT * FROM public.refusal($$DELETE FROM keywright.users WHERE username = 'operator'$$);
SELECT * FROM public.refusal($$TRUNCATE keywright.users CASCADE$$);
-- No setting lets them through.
SET keywright.writing = on;
SELECT * FROM public.refusal($$INSERT INTO keywright.users (username, kind) VALUES ('a__b', 'human')$$);
\x off
-- Other users are the superuser's to change.
UPDATE keywright.users SET display_name = 'Alice A.' WHERE username = 'alice';
SELECT keywright.delete_user(username) IS NOT NULL AS deleted FROM keywright.list_users(include_system => true);
DROP ROLE regress_keywright_acting, regress_keywright_mighty, regress_keywright_leading, regress_keywright_super;
