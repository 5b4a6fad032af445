-- The manual: what the comments say. Every example is run, as each capability that may call the function.
\pset null '(null)'
SET SESSION AUTHORIZATION regress_keywright_requester;
SELECT function, capabilities FROM keywright.help('rotate') WHERE function ~ 'rotate';
\x on
SELECT * FROM keywright.help('has_permission');
\x off
-- Words in any order and case, in names and comments; those with the topic in their name come first.
SELECT function FROM keywright.help('KEY rotate') WHERE function LIKE '%rotate%';
SELECT split_part(function, '(', 1) AS function FROM keywright.help('leaked');
SELECT split_part(function, '(', 1) AS function FROM keywright.help('28000');
SELECT split_part(function, '(', 1) AS function FROM keywright.help('Rotating-keys') LIMIT 3;
SELECT split_part(function, '(', 1) AS function FROM keywright.help('create key') LIMIT 3;
SELECT count(*) FROM keywright.help('rotate nonesuch');
SELECT count(*) FROM keywright.help('the');
-- No topic takes long.
SELECT count(*) FROM keywright.help(repeat('key ', 1000000));
SELECT count(*) FROM keywright.help(U&'\00C4%_.*');
RESET SESSION AUTHORIZATION;
-- Everything that is not internal, once; null, nothing and no argument are the same.
SELECT count(*) = (SELECT count(*) FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace AND proname NOT LIKE '\_%') AS complete,
       count(DISTINCT function) = count(*) AS once,
       count(*) = (SELECT count(*) FROM keywright.help('')) AND count(*) = (SELECT count(*) FROM keywright.help(NULL)) AS all_alike
  FROM keywright.help();
-- Nothing is missing, and nothing of one part is in another.
SELECT function AS lacks FROM keywright.help()
 WHERE does IS NULL OR example IS NULL OR errors IS NULL OR result IS NULL OR capabilities IS NULL
    OR concat(does, arguments, result, example, errors) ~ '(^|\n)(Arguments|Result|Errors|Example): ';
-- Who passes something finds it explained, but for a single argument whose name says it.
SELECT function AS unexplained FROM keywright.help() WHERE arguments IS NULL AND function ~ ',';

-- What the examples speak of. Roles are called otherwise here, so that nobody's own are touched.
CREATE ROLE regress_help_app LOGIN;
CREATE ROLE regress_help_web_anon;
CREATE ROLE regress_help_web_user;
CREATE SCHEMA regress_help_api;
GRANT USAGE ON SCHEMA regress_help_api TO regress_help_web_anon, regress_help_web_user;
CREATE TABLE projects (id text PRIMARY KEY, organization_id text, title text);
ALTER TABLE projects OWNER TO regress_keywright_reconciler;
SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('project', 'rockets', 'acme');
SELECT outcome FROM keywright.ensure_user('ada', 'ada@example.org');
SELECT outcome FROM keywright.bind_role('ada', 'project-editor', 'organization', 'acme');
SELECT token AS api_token, key_id FROM keywright.mint_api_key('ada', 'laptop') \gset
SELECT token AS gateway_token, gateway_key_id FROM keywright.mint_gateway_key('edge-1') \gset
SELECT keywright.allow_authenticator('regress_help_app', '{regress_help_web_anon,regress_help_web_user}');
SELECT count(*) FROM keywright.grant_authenticator('rest', 'regress_help_app', 'regress_help_web_anon', '{regress_help_web_user}', '{regress_help_api}');
-- As psql does, variables are filled in.
CREATE TEMPORARY TABLE examples AS
  SELECT split_part(h.function, '(', 1) AS function, h.capabilities,
         replace(replace(replace(replace(
           regexp_replace(h.example, '(''\{?|,)(app|web_anon|web_user|api)\M(?=[,}'']+)', '\1regress_help_\2', 'g'),
           ':''token''', quote_literal(CASE WHEN h.function ~ 'gateway' THEN :'gateway_token' ELSE :'api_token' END)),
           ':''key_id''', quote_literal(:'key_id')),
           ':''gateway_key_id''', quote_literal(:'gateway_key_id')),
           ':''digest''', quote_literal(sha256(substr(:'api_token', 16, 22)::bytea))) AS example
    FROM keywright.help() AS h;
SELECT function AS not_filled_in FROM examples WHERE example ~ ':''';
GRANT SELECT ON examples TO PUBLIC;
-- How an example ends, for who; what it did is taken back.
CREATE FUNCTION example_end(example text, capability text, OUT ended text)
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('SET LOCAL SESSION AUTHORIZATION %I', coalesce('regress_keywright_' || capability, session_user));
  EXECUTE example;
  RAISE EXCEPTION USING ERRCODE = 'KW000';
EXCEPTION
  WHEN SQLSTATE 'KW000' THEN ended := NULL;
  WHEN OTHERS THEN ended := format('%s: %s', SQLSTATE, SQLERRM);
END
$$;
-- Each that is not the one call outside a transaction block, with each capability that may call it; what only a superuser may,
-- as one. None fails.
SELECT e.function, c.capability, x.ended
  FROM examples AS e
 CROSS JOIN LATERAL string_to_table(e.capabilities, ', ') AS c (capability)
 CROSS JOIN LATERAL example_end(e.example, CASE e.function WHEN 'keywright.allow_authenticator' THEN NULL ELSE c.capability END) AS x
 WHERE e.function <> 'keywright.maintain' AND (c.capability <> 'admin' OR e.capabilities = 'admin') AND x.ended IS NOT NULL;
-- How many were run; that a broken one would be seen.
SELECT count(*) FILTER (WHERE function <> 'keywright.maintain') AS examples FROM examples;
SELECT example_end('SELECT keywright.bind_role(''nobody'', ''auditor'')', 'reconciler'), example_end('SELECT keywright.suspend_user(''ada'')', 'auditor');
SELECT example FROM examples WHERE function = 'keywright.maintain' \gexec
-- What they say of good things is true.
SELECT active, name FROM keywright.verify_api_key(:'api_token');

SELECT count(*) FROM keywright.revoke_authenticator('rest');
SELECT keywright.disallow_authenticator('regress_help_app');
SELECT name FROM keywright.delete_gateway_key('edge-1');
SELECT keywright.delete_user('ada') IS NOT NULL AS deleted;
SELECT keywright.delete_resource('organization', 'acme', with_children => true);
DROP FUNCTION example_end;
DROP TABLE examples, projects;
DROP SCHEMA regress_help_api;
DROP ROLE regress_help_app, regress_help_web_anon, regress_help_web_user;
