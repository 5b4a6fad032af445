-- What is gone, or never was, can be ended: a clean-up that runs again goes through. And a caller may say whose object it means.
\pset null '(null)'
CREATE ROLE regress_endings_app LOGIN;
CREATE ROLE regress_endings_anon;
-- What a call says: its result, or how many rows.
CREATE FUNCTION public.ended(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
  rows bigint;
BEGIN
  IF call ~ '^(delete_gateway_key|revoke_authenticator)' THEN
    EXECUTE 'SELECT count(*) FROM keywright.' || call INTO rows;
    RETURN CASE rows WHEN 0 THEN 'no row' ELSE 'rows' END;
  END IF;
  EXECUTE 'SELECT keywright.' || call INTO result;
  RETURN CASE WHEN call ~ '^delete_user' THEN coalesce(nullif(result ~ '^[-0-9a-f]{36}$', false)::text, 'null') ELSE result END;
END
$$;

-- Of nothing.
SELECT call, public.ended(call) FROM unnest(ARRAY[
  'suspend_user(''absent'')', 'activate_user(''absent'')', 'delete_user(''absent'')', 'delete_user(''kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH'')',
  'revoke_api_key(''AAAAAAAAAA'')', 'revoke_user_api_keys(''absent'')', 'revoke_leaked_api_key(''absent'')', 'expire_api_key(''AAAAAAAAAA'')',
  'delete_gateway_key(''absent'')', 'delete_gateway_key(''00000000-0000-0000-0000-000000000000'')',
  'unbind_role(''absent'', ''owner'')', 'unbind_role(''absent'', ''absent'', ''absent'', ''absent'')',
  'delete_resource(''project'', ''absent'')', 'delete_resource(''absent'', ''absent'')', 'delete_resource(''absent'', ''absent'', true)',
  'delete_resource_type(''absent'')', 'delete_role(''absent'')', 'delete_scope(''absent'')',
  'revoke_authenticator(''absent'')', 'disallow_authenticator(''absent'')', 'disallow_authenticator(''regress_endings_app'')',
  'revoke_access(''absent'', ''verifier'')', 'revoke_access(''regress_endings_app'', ''verifier'')',
  'revoke_operator_access(''absent'', ''absent'')', 'revoke_operator_access(''absent'', ''absent'', ''absent-'')']) WITH ORDINALITY AS c (call, n) ORDER BY n;
-- Nobody has, holds and used nothing.
SELECT (SELECT count(*) FROM keywright.list_api_keys('absent', include_inactive => true)) AS keys,
       (SELECT count(*) FROM keywright.key_usage('absent')) AS usage,
       (SELECT count(*) FROM keywright.list_role_bindings('absent')) AS bindings,
       (SELECT count(*) FROM keywright.list_resources('absent')) AS resources,
       keywright.has_permission('absent', 'project:read') AS permitted;

-- Two of everything: what manager a has, and what nobody has.
SELECT keywright.register_resource_type('endings-a', managed_by => 'a'), keywright.register_resource_type('endings-n'),
       keywright.define_scope('endings-a', '{project:read}', managed_by => 'a'), keywright.define_scope('endings-n', '{project:read}'),
       keywright.define_role('endings-a', '{project:read}', managed_by => 'a'), keywright.define_role('endings-n', '{project:read}'),
       keywright.ensure_resource('organization', 'endings'), keywright.ensure_resource('project', 'endings-a', 'endings', managed_by => 'a'),
       keywright.ensure_resource('project', 'endings-n', 'endings');
SELECT (SELECT outcome FROM keywright.ensure_user('endings-a', '', managed_by => 'a')), (SELECT outcome FROM keywright.ensure_user('endings-n', '')),
       (SELECT outcome FROM keywright.bind_role('endings-a', 'endings-a', managed_by => 'a')), (SELECT outcome FROM keywright.bind_role('endings-n', 'endings-n')),
       (SELECT name FROM keywright.mint_gateway_key('endings-a', managed_by => 'a')), (SELECT name FROM keywright.mint_gateway_key('endings-n'));
SELECT key_id AS a FROM keywright.mint_api_key('endings-a', 'one', managed_by => 'a') \gset
SELECT key_id AS n FROM keywright.mint_api_key('endings-n', 'one') \gset
SELECT count(*) > 0 AS granted FROM keywright.grant_authenticator('endings-a', 'regress_endings_app', 'regress_endings_anon', managed_by => 'a');
SELECT count(*) AS granted FROM keywright.grant_authenticator('endings-n', 'regress_endings_app', 'regress_endings_anon');
SELECT outcome FROM keywright.ensure_operator_access('endings', 'n', prefix => 'endings-plane-');
CREATE TEMPORARY TABLE calls (n serial, call text);
-- In an order in which nothing is in use; %2$s is the manager, %3$s the name, %4$s the key.
INSERT INTO calls (call) VALUES
  ('revoke_api_key(%4$L, managed_by => %2$L)'), ('unbind_role(%3$L, %3$L, managed_by => %2$L)'), ('suspend_user(%3$L, %2$L)'),
  ('delete_user(%3$L, %2$L)'), ('delete_gateway_key(%3$L, %2$L)'), ('delete_role(%3$L, %2$L)'), ('delete_scope(%3$L, %2$L)'),
  ('delete_resource(''project'', %3$L, managed_by => %2$L)'), ('delete_resource_type(%3$L, %2$L)'), ('revoke_authenticator(%3$L, %2$L)');
-- Another manager is refused, and nothing ends.
SELECT c.call, r.code, r.message FROM calls, LATERAL (SELECT replace(format(call, '', 'b', 'endings-a', :'a'), :'a', 'KEY')) AS c (call),
  LATERAL public.refusal('SELECT * FROM keywright.' || format(calls.call, '', 'b', 'endings-a', :'a')) AS f (code, rule, message, detail, hint),
  LATERAL (SELECT f.code, replace(f.message, :'a', 'KEY')) AS r (code, message) ORDER BY n;
SELECT r.code, r.message, r.detail, r.hint FROM public.refusal($$SELECT keywright.delete_resource('organization', 'endings', true, 'b')$$) AS r;
SELECT code FROM public.refusal($$SELECT keywright.revoke_user_api_keys('endings-a', managed_by => 'b')$$);
SELECT active, name FROM keywright.list_api_keys('endings-a') AS k, LATERAL (SELECT k.state = 'active') AS l (active);
-- Its own manager ends it, once; whoever says nothing, or anybody where nobody manages, too.
SELECT c.call, public.ended(format(calls.call, '', 'a', 'endings-a', :'a')) AS first, public.ended(format(calls.call, '', 'a', 'endings-a', :'a')) AS again
  FROM calls, LATERAL (SELECT replace(format(call, '', 'a', 'endings-a', :'a'), :'a', 'KEY')) AS c (call) WHERE n IN (1, 2, 3) ORDER BY n;
BEGIN;
SELECT calls.n, public.ended(format(calls.call, '', NULL, 'endings-a', :'a')) AS first, public.ended(format(calls.call, '', NULL, 'endings-a', :'a')) AS again FROM calls WHERE n > 3 ORDER BY n;
ROLLBACK;
SELECT calls.n, public.ended(format(calls.call, '', 'a', 'endings-a', :'a')) AS first, public.ended(format(calls.call, '', 'a', 'endings-a', :'a')) AS again FROM calls WHERE n > 3 ORDER BY n;
SELECT calls.n, public.ended(format(calls.call, '', 'b', 'endings-n', :'n')) AS first, public.ended(format(calls.call, '', 'b', 'endings-n', :'n')) AS again FROM calls ORDER BY n;
SELECT public.ended('revoke_operator_access(''endings'', ''n'', ''endings-plane-'', ''b'')') AS first, public.ended('revoke_operator_access(''endings'', ''n'', ''endings-plane-'', ''b'')') AS again;

-- Whose key: another's is not there.
SELECT outcome FROM keywright.ensure_user('endings-one', ''); SELECT outcome FROM keywright.ensure_user('endings-two', '');
SELECT key_id AS one FROM keywright.mint_api_key('endings-one', 'one') \gset
SELECT keywright.revoke_api_key(:'one', username => 'endings-two') AS others, keywright.revoke_api_key(:'one', username => 'absent') AS nobodys;
SELECT r.code, replace(r.message, :'one', 'KEY') AS message FROM public.refusal(format('SELECT * FROM keywright.rotate_api_key(%L, username => %L)', :'one', 'endings-two')) AS r;
SELECT key_id AS two, predecessor_id = :'one' AS rotated FROM keywright.rotate_api_key(:'one', username => 'ENDINGS-one') \gset
SELECT :'rotated' AS rotated, keywright.revoke_api_key(:'two', username => 'Endings-One') AS own, keywright.revoke_api_key(:'two', username => 'endings-one') AS again;
-- The name of somebody who was deleted is not the owner's.
SELECT key_id AS three FROM keywright.mint_api_key('endings-two', 'one') \gset
SELECT keywright.delete_user('endings-two') IS NOT NULL AS deleted;
SELECT outcome FROM keywright.ensure_user('endings-two', '');
SELECT keywright.revoke_api_key(:'three', username => 'endings-two') AS gone;

-- Everything that ends an object which has a manager takes the manager's name. Without: what has none, or ends by its secret.
SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'keywright'::regnamespace
   AND p.proname ~ '^(delete|revoke|unbind|suspend|disallow)_' AND NOT 'managed_by' = ANY (p.proargnames) ORDER BY 1;

SELECT keywright.delete_user(u) IS NOT NULL AS deleted FROM unnest('{endings-one,endings-two,endings-plane}'::text[]) AS u;
SELECT keywright.delete_resource('organization', 'endings', true);
DROP TABLE calls;
DROP FUNCTION public.ended;
DROP ROLE regress_endings_app, regress_endings_anon;
