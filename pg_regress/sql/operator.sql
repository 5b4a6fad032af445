-- What the operator of a control plane calls: one call for all it needs.
\set VERBOSITY default
\pset null '(null)'
SET SESSION AUTHORIZATION regress_keywright_reconciler;
-- Names: the same as operators have used before, and different for each.
SELECT keywright.operator_key_name('default', 'coder'), keywright.operator_key_name('coder', 'coder');
SELECT keywright.operator_key_name('a', 'bc') = keywright.operator_key_name('ab', 'c') AS same, keywright.operator_key_name('default', 'coder', 'plane-') AS other_prefix;
SELECT keywright.operator_key_name('', ' ', 'No Dash');
SELECT keywright.operator_key_name(NULL, 'x');

-- All of it in one call; the next finds nothing to do and writes nothing.
SELECT user_id IS NOT NULL AS "user", length(key_id) AS key_id, key_name, length(token) AS token, outcome, reason, expires_at > now() + interval '364 days' AS a_year
  FROM keywright.ensure_operator_access('default', 'plane', prefix => 'regress-operator-');
SELECT token FROM keywright.ensure_operator_access('default', 'other', prefix => 'regress-operator-') \gset other_
SELECT token, reason FROM keywright.ensure_operator_access('default', 'plane', prefix => 'regress-operator-') \gset mine_
SELECT :'mine_reason' AS reason;
BEGIN;
SELECT outcome, reason, token = :'mine_token' AS the_same FROM keywright.ensure_operator_access('default', 'plane', E' \n' || :'mine_token' || E'\r\n', prefix => 'regress-operator-');
SELECT pg_current_xact_id_if_assigned() IS NULL AS nothing_written;
COMMIT;
SELECT username, kind, status, email FROM keywright.list_users(true) WHERE username = 'regress-operator';
SELECT role, scope, resource_id FROM keywright.list_role_bindings('regress-operator') ORDER BY role;
-- Whatever is stored, and whatever happened to it.
SELECT given, e.outcome, e.reason FROM (VALUES ('nothing', NULL), ('empty', ''), ('garbage', 'x'), ('another''s', :'other_token'), ('bytes', E'\x01\x7f')) AS v (given, token),
  LATERAL keywright.ensure_operator_access('default', 'garbled', v.token, prefix => 'regress-operator-') AS e;
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'plane', :'mine_token', lifetime => '40 days', renew_before => '39 days', prefix => 'regress-operator-');
SELECT outcome FROM keywright.ensure_operator_access('default', 'short', lifetime => '40 days', prefix => 'regress-operator-');
SELECT token FROM keywright.ensure_operator_access('default', 'short', lifetime => '31 days', renew_before => '1 day', prefix => 'regress-operator-') \gset short_
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'short', :'short_token', lifetime => '365 days', renew_before => '32 days', prefix => 'regress-operator-');
-- An organization of later is known at once; an account that drifted is repaired.
SELECT keywright.ensure_resource('organization', 'regress-later');
SELECT count(*) FROM keywright.list_role_bindings('regress-operator') WHERE resource_id = 'regress-later';
SELECT keywright.suspend_user('regress-operator');
SELECT outcome FROM keywright.ensure_operator_access('default', 'plane', :'mine_token', prefix => 'regress-operator-');
SELECT status FROM keywright.list_users(true) WHERE username = 'regress-operator';
-- A person's account is never turned into the operator's.
SELECT outcome FROM keywright.ensure_user('regress-person', '');
SELECT * FROM keywright.ensure_operator_access('default', 'plane', prefix => 'regress-person-');
SELECT kind FROM keywright.list_users() WHERE username = 'regress-person';
SELECT * FROM keywright.ensure_operator_access('default', 'plane', lifetime => '0', prefix => 'regress-operator-');
SELECT * FROM keywright.ensure_operator_access('default', '', prefix => 'regress');

-- The time before an end at which a key is renewed follows from its lifetime.
SELECT token, outcome FROM keywright.ensure_operator_access('default', 'week', lifetime => '7 days', prefix => 'regress-operator-') \gset week_
SELECT :'week_outcome' AS outcome, e.outcome AS again FROM keywright.ensure_operator_access('default', 'week', :'week_token', lifetime => '7 days', prefix => 'regress-operator-') AS e;
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'week', :'week_token', prefix => 'regress-operator-');
-- What is named is made so, what is not is left as it is.
SELECT token, outcome FROM keywright.ensure_operator_access('default', 'named', prefix => 'regress-named-', email => 'ops@example.com', roles => '{organization-admin}', organization_role => '',
  scopes => '{project:read}', allow_list => '{project:p1}', managed_by => 'regress-plane') \gset named_
SELECT u.email, u.managed_by, k.scopes, k.allow_list, k.managed_by, ARRAY(SELECT role FROM keywright.list_role_bindings('regress-named')) AS roles
  FROM keywright.list_users(true) AS u JOIN keywright.list_api_keys('regress-named') AS k USING (username);
BEGIN;
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'named', :'named_token', prefix => 'regress-named-');
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'named', :'named_token', prefix => 'regress-named-', managed_by => 'regress-plane');
SELECT pg_current_xact_id_if_assigned() IS NULL AS nothing_written;
COMMIT;
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'named', 'lost', prefix => 'regress-named-', managed_by => 'regress-plane');
SELECT u.email, u.managed_by, k.scopes, k.allow_list, k.managed_by, ARRAY(SELECT role FROM keywright.list_role_bindings('regress-named')) AS roles
  FROM keywright.list_users(true) AS u JOIN keywright.list_api_keys('regress-named') AS k USING (username);
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'named', 'lost', prefix => 'regress-named-', scopes => '{all}');
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'named', 'lost', prefix => 'regress-named-', email => 'x@example.com', managed_by => 'regress-other');
SELECT keywright.revoke_operator_access('default', 'named', 'regress-named-');
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'named', prefix => 'regress-named-', managed_by => 'regress-plane');
SELECT scopes, allow_list FROM keywright.list_api_keys('regress-named');
-- A key that was taken over keeps the rights it came with.
BEGIN;
SELECT keywright.register_resource_type('coder');
SELECT keywright.import_api_key('regress-named', keywright.operator_key_name('default', 'taken', 'regress-named-'), 'OldKey0042', sha256('ABCDEFGHIJKLMNOPQRSTUV'), now() + interval '60 days', scopes => '{coder:all}');
SELECT outcome, reason FROM keywright.ensure_operator_access('default', 'taken', 'OldKey0042-ABCDEFGHIJKLMNOPQRSTUV', prefix => 'regress-named-');
ROLLBACK;
SELECT keywright.delete_user('regress-named') IS NOT NULL AS deleted;

-- Somebody else's having the same address is no obstacle: an address is for contact, not an identity.
SELECT outcome FROM keywright.ensure_user('regress-namesake', 'regress-mail@coder-k8s.invalid');
SELECT outcome FROM keywright.ensure_operator_access('default', 'plane', prefix => 'regress-mail-');
SELECT keywright.delete_user('regress-namesake') IS NOT NULL AS deleted, keywright.delete_user('regress-mail') IS NOT NULL AS deleted;
-- The administrator's cap on lifetimes holds for an operator too; nothing is made, nothing is revoked.
SELECT token FROM keywright.ensure_operator_access('default', 'capped', prefix => 'regress-operator-') \gset capped_
RESET SESSION AUTHORIZATION;
SET keywright.max_api_key_lifetime = '90d';
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT outcome FROM keywright.ensure_operator_access('default', 'capped', :'capped_token', prefix => 'regress-operator-');
SELECT outcome, expires_at < now() + interval '91 days' AS within FROM keywright.ensure_operator_access('default', 'capped', :'capped_token', lifetime => '90 days', renew_before => '30 days', prefix => 'regress-operator-');
RESET SESSION AUTHORIZATION;
RESET keywright.max_api_key_lifetime;
SET SESSION AUTHORIZATION regress_keywright_reconciler;

-- Revoked by name, the other control planes are not; again: nothing.
SELECT keywright.revoke_operator_access('default', 'plane', 'regress-operator-'), keywright.revoke_operator_access('default', 'plane', 'regress-operator-'),
       keywright.revoke_operator_access('default', 'never', 'regress-operator-'), keywright.revoke_operator_access('default', 'plane', 'regress-nobody-');
SELECT name = keywright.operator_key_name('default', 'plane', 'regress-operator-') AS planes, count(*) FROM keywright.list_api_keys('regress-operator') GROUP BY 1;
SELECT keywright.revoke_operator_access('default', '');
SELECT user_id IS NOT NULL AS deleted FROM keywright.delete_user('regress-operator') AS user_id;
SELECT user_id IS NOT NULL AS deleted FROM keywright.delete_user('regress-person') AS user_id;
SELECT keywright.delete_resource('organization', 'regress-later');
RESET SESSION AUTHORIZATION;
