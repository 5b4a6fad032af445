-- mint_api_keys: many keys in one statement, all of them or none.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET ROLE regress_keywright_reconciler;
SELECT outcome FROM keywright.ensure_user('many-a', '', 'service');
SELECT outcome FROM keywright.ensure_user('many-b', '', 'service');
RESET ROLE;
SET ROLE regress_keywright_issuer;
CREATE TEMP TABLE minted AS
  SELECT * FROM keywright.mint_api_keys('{many-a,MANY-B,many-a}', '{one,one,two}', lifetime => '1 hour', managed_by => 'm');
SELECT ordinality, username, name, length(token) AS token, left(token, 14) = 'kwk_' || key_id AS id, expires_at > clock_timestamp() AS live
  FROM minted ORDER BY ordinality;
RESET ROLE;
SELECT m.ordinality, v.active, v.username, v.name, v.scopes, v.allow_list FROM minted AS m, keywright.verify_api_key(m.token) AS v ORDER BY 1;
SET ROLE regress_keywright_issuer;
SELECT count(*) FROM keywright.mint_api_keys('{}', '{}');
-- None, where one can not be.
SELECT code, rule FROM unnest(ARRAY[
    $$SELECT keywright.mint_api_keys('{many-a,many-a}', '{three,two}')$$,
    $$SELECT keywright.mint_api_keys('{many-a,many-a}', '{three,Four}')$$,
    $$SELECT keywright.mint_api_keys('{nobody-at-all}', '{three}')$$,
    $$SELECT keywright.mint_api_keys('{many-a}', '{three,four}')$$]) AS s (statement), LATERAL public.refusal(s.statement);
SELECT count(*) FROM keywright.mint_api_keys('{many-a,many-a}', '{three,two}');
SELECT count(*) FROM keywright.mint_api_keys('{many-a,many-b,many-a}', '{three,three,three}');
SELECT count(*) FROM keywright.mint_api_keys('{many-a,many-a}', '{three,Four}');
SELECT count(*) FROM keywright.mint_api_keys('{many-a,nobody-at-all}', '{three,four}');
SELECT count(*) FROM keywright.mint_api_keys('{many-a}', '{three,four}');
SELECT count(*) FROM keywright.mint_api_keys('{many-a,NULL}', '{three,four}');
SELECT count(*) FROM keywright.mint_api_keys('{many-a,many-a}', '{three,NULL}');
SELECT count(*) FROM keywright.mint_api_keys(NULL, '{three}');
SELECT count(*) FROM keywright.mint_api_keys('{many-a}', NULL);
SELECT count(*) FROM keywright.mint_api_keys('{many-a}', '{three}', NULL);
SELECT count(*) FROM keywright.mint_api_keys('{many-a}', '{three}', allow_list => NULL);
SELECT count(*) FROM keywright.mint_api_keys('{many-a}', '{three}', lifetime => NULL);
SELECT count(*) FROM keywright.mint_api_keys('{many-a}', '{three}', '{projct:read}', lifetime => '0');
SELECT count(*) FROM keywright.mint_api_keys(array_fill('many-a'::text, '{100001}'), array_fill('x'::text, '{100001}'));
RESET ROLE;
SELECT name, state FROM keywright.list_api_keys('many-a') ORDER BY name COLLATE "C";
-- A key that has expired does not block its name; a user that is suspended gets none.
SELECT keywright.expire_api_key(key_id) FROM minted WHERE ordinality = 3;
SELECT ordinality, name FROM keywright.mint_api_keys('{many-a,many-a}', '{five,two}');
SELECT name, state FROM keywright.list_api_keys('many-a', true) ORDER BY name COLLATE "C", state COLLATE "C";
SELECT keywright.suspend_user('many-b');
SELECT count(*) FROM keywright.mint_api_keys('{many-a,many-b}', '{six,six}');
-- Each key has its event, up to a thousand; more have one.
SELECT count(*) FROM keywright.mint_api_keys(array_fill('many-a'::text, '{1000}'), ARRAY(SELECT 'each-' || n FROM generate_series(1, 1000) AS n));
SELECT count(*) FROM keywright.mint_api_keys(array_fill('many-a'::text, '{1001}'), ARRAY(SELECT 'sum-' || n FROM generate_series(1, 1001) AS n));
SELECT count(*) AS events, affected, id = '*' AS sum FROM keywright.audit_events
 WHERE event = 'minted' AND transaction_id IN (SELECT e.transaction_id FROM keywright.audit_events AS e WHERE e.event = 'minted' AND kind = 'api_key' GROUP BY 1 HAVING sum(e.affected) >= 1000)
 GROUP BY 2, 3 ORDER BY 2;
-- Only issuers and reconcilers.
SET ROLE regress_keywright_verifier;
SELECT count(*) FROM keywright.mint_api_keys('{many-a}', '{seven}');
RESET ROLE;
DROP TABLE minted;
DELETE FROM keywright.api_keys WHERE user_id IN (SELECT user_id FROM keywright.users WHERE username LIKE 'many-%');
SELECT keywright.delete_user('many-a') IS NOT NULL, keywright.delete_user('many-b') IS NOT NULL;
