-- plan and apply: one document says what is to be there.
\set VERBOSITY default
\pset null '(null)'
CREATE ROLE regress_plain;
CREATE ROLE regress_superuser SUPERUSER;
CREATE ROLE regress_rest LOGIN;
CREATE ROLE regress_rest_anon;
GRANT USAGE ON SCHEMA public TO regress_rest_anon;
SELECT keywright.allow_authenticator('regress_rest', '{regress_rest_anon}');
-- What a call does to the audit: the number of events it leaves.
CREATE FUNCTION public.events() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM keywright.audit_events';
-- The whole example; every property has another value in the second one.
CREATE TABLE public.manifests (name text PRIMARY KEY, manifest jsonb NOT NULL);
GRANT SELECT ON public.manifests TO PUBLIC;
INSERT INTO public.manifests VALUES ('whole', $$
{
  "manager": "regress-plane",
  "resource_types": [{"type": "page", "parent_type": "space"}, {"type": "space"}],
  "resources": [{"type": "page", "id": "p1", "parent_id": "s1", "name": "Page 1"}, {"type": "space", "id": "s1", "name": "Space 1"}, {"type": "organization", "id": "regress-acme"}],
  "roles": [{"name": "page-reader", "permissions": ["page:read"]}],
  "scopes": [{"name": "pages:all", "permissions": ["page:*"]}],
  "users": [
    {"username": "regress-ann", "kind": "human", "email": "ann@example.org", "display_name": "Ann", "db_role": "regress_plain"},
    {"username": "regress-bot", "kind": "service"},
    {"username": "regress-system", "kind": "system", "roles": ["auditor"], "organization_role": "organization-member"}
  ],
  "bindings": [{"username": "regress-ann", "role": "page-reader", "resource_type": "page", "resource_id": "p1"}, {"username": "regress-bot", "role": "auditor"}],
  "api_keys": [{"username": "regress-bot", "name": "ci", "scopes": ["pages:all"], "allow_list": ["page:p1"], "lifetime": "30 days", "renew_before": "5 days"}, {"username": "regress-ann", "name": "laptop"}],
  "gateway_keys": [{"name": "regress-edge"}],
  "authenticators": [{"service": "regress-rest", "connect_as": "regress_rest", "anon_role": "regress_rest_anon", "jwt_roles": [], "schemas": ["public"]}]
}$$);
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT manifest AS whole FROM public.manifests WHERE name = 'whole' \gset

-- A plan writes nothing, also where nothing may be written.
BEGIN READ ONLY;
SELECT step, action, kind, name, CASE kind WHEN 'authenticator' THEN change - 'grants' ELSE change END AS change FROM keywright.plan(:'whole');
SELECT pg_current_xact_id_if_assigned() IS NULL AS nothing_written;
ROLLBACK;
BEGIN READ ONLY;
SELECT code, message FROM public.refusal(format('SELECT FROM keywright.apply(%L)', :'whole'));
ROLLBACK;
-- apply does what plan says.
SELECT count(*) AS planned FROM keywright.plan(:'whole');
CREATE TEMP TABLE planned AS SELECT * FROM keywright.plan(:'whole');
CREATE TEMP TABLE applied AS SELECT * FROM keywright.apply(:'whole');
SELECT count(*) AS differ FROM planned AS p FULL JOIN applied AS a USING (step, action, kind, name, change) WHERE p.step IS NULL OR a.step IS NULL;
SELECT kind, name, substr(token, 1, 4) AS token, length(token) FROM applied WHERE token IS NOT NULL ORDER BY step;
SELECT token AS ci FROM applied WHERE name = 'regress-bot/ci' \gset
SELECT token AS laptop FROM applied WHERE name = 'regress-ann/laptop' \gset
SELECT token AS edge FROM applied WHERE name = 'regress-edge' \gset
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active FROM keywright.verify_gateway_key(:'edge');
SET SESSION AUTHORIZATION regress_keywright_reconciler;
-- Again: nothing to do, nothing written, no event; in a READ ONLY transaction too.
SELECT * FROM keywright.plan(:'whole');
SELECT public.events() AS before \gset
BEGIN;
SELECT * FROM keywright.apply(:'whole');
SELECT pg_current_xact_id_if_assigned() IS NULL AS nothing_written, public.events() - :before AS events;
COMMIT;
BEGIN READ ONLY;
SELECT * FROM keywright.apply(:'whole');
COMMIT;

-- Each property once.
PREPARE change(text, jsonb) AS SELECT step, action, kind, name, change FROM keywright.apply(jsonb_build_object('manager', 'regress-plane', $1, jsonb_build_array($2)));
EXECUTE change('roles', '{"name": "page-reader", "permissions": ["page:read", "page:list"]}');
EXECUTE change('roles', '{"name": "page-reader", "permissions": ["page:list", "page:read"], "level": 4}');
EXECUTE change('roles', '{"name": "page-reader", "permissions": ["page:list", "page:read", "page:read"], "level": 4.0}');
EXECUTE change('scopes', '{"name": "pages:all", "permissions": ["page:read"]}');
EXECUTE change('users', '{"username": "regress-ann", "kind": "human", "email": "ann@example.com"}');
EXECUTE change('users', '{"username": "regress-ann", "kind": "human", "display_name": "Ann A."}');
EXECUTE change('users', '{"username": "regress-ann", "kind": "human"}');
EXECUTE change('users', '{"username": "regress-ann", "kind": "human", "db_role": null, "email": "", "display_name": null}');
EXECUTE change('users', '{"username": "regress-ann", "kind": "human", "db_role": "regress_plain"}');
EXECUTE change('users', '{"username": "regress-system", "kind": "system", "email": "s@example.org", "display_name": "S"}');
EXECUTE change('users', '{"username": "regress-system", "kind": "system", "roles": ["owner"]}');
EXECUTE change('users', '{"username": "regress-system", "kind": "system", "roles": [], "organization_role": "organization-admin"}');
EXECUTE change('users', '{"username": "regress-system", "kind": "system", "organization_role": null}');
EXECUTE change('resources', '{"type": "page", "id": "p1", "name": "Page One"}');
EXECUTE change('resources', '{"type": "page", "id": "p1"}');
EXECUTE change('resources', '{"type": "page", "id": "p1", "name": null, "parent_id": ""}');
EXECUTE change('resources', '{"type": "page", "id": "p1", "name": "Page 1", "parent_id": "s1"}');
EXECUTE change('resource_types', '{"type": "space", "parent_type": "organization"}');
EXECUTE change('resource_types', '{"type": "space", "parent_type": null}');
EXECUTE change('resource_types', '{"type": "page"}');
EXECUTE change('authenticators', '{"service": "regress-rest", "connect_as": "regress_rest", "anon_role": "regress_rest_anon", "noinherit": false}');
-- A suspended system user wakes; a suspended human keeps its keys, and gets no new one.
SELECT keywright.suspend_user('regress-system'), keywright.suspend_user('regress-ann');
EXECUTE change('users', '{"username": "regress-system", "kind": "system"}');
EXECUTE change('users', '{"username": "regress-ann", "kind": "human"}');
EXECUTE change('api_keys', '{"username": "regress-ann", "name": "laptop"}');
EXECUTE change('api_keys', '{"username": "regress-ann", "name": "phone"}');
SELECT keywright.activate_user('regress-ann');

-- API keys: what is rotated, and why. A token is shown once.
SELECT token AS other FROM keywright.mint_api_key('regress-bot', 'other') \gset
CREATE FUNCTION pg_temp.key(existing jsonb, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_build_object('manager', 'regress-plane', 'api_keys', jsonb_build_array('{"username": "regress-bot", "name": "ci", "scopes": ["pages:all"], "allow_list": ["page:p1"], "lifetime": "30 days"}' || more || existing)) $$;
SELECT what, p.action, p.name, p.change FROM (VALUES
  ('absent', '{}'), ('right', jsonb_build_object('existing_token', :'ci')), ('null', '{"existing_token": null}'), ('empty', '{"existing_token": ""}'),
  ('garbage', '{"existing_token": "x"}'), ('wrong', '{"existing_token": "kwk_000000000000_0000000000000000000000000000000000000000000"}'),
  ('another''s', jsonb_build_object('existing_token', :'laptop')), ('another name''s', jsonb_build_object('existing_token', :'other')),
  ('a gateway''s', jsonb_build_object('existing_token', :'edge'))) AS v (what, existing)
  LEFT JOIN LATERAL keywright.plan(pg_temp.key(v.existing::jsonb)) AS p ON true;
SELECT what, p.action, p.name, p.change FROM (VALUES
  ('scopes', '{"scopes": ["page:read"]}'), ('allow-list', '{"allow_list": ["page:p1", "page:p2"]}'), ('both', '{"scopes": ["page:read"], "allow_list": ["*:*"]}'),
  ('renewal', '{"lifetime": "1 year", "renew_before": "31 days"}'), ('no renewal', '{"lifetime": "1 year", "renew_before": "29 days"}'), ('lifetime alone', '{"lifetime": "1 hour"}')) AS v (what, more)
  LEFT JOIN LATERAL keywright.plan(pg_temp.key('{}', v.more::jsonb)) AS p ON true;
SELECT action, change, token <> :'ci' AS new FROM keywright.apply(pg_temp.key('{}', '{"scopes": ["page:read"]}'));
SELECT action, change FROM keywright.plan(pg_temp.key(jsonb_build_object('existing_token', :'ci'), '{"scopes": ["page:read"]}'));
SELECT token AS ci FROM keywright.apply(pg_temp.key('{"existing_token": null}', '{"scopes": ["page:read"]}')) \gset
SELECT keywright.expire_api_key(key_id) FROM keywright.list_api_keys('regress-bot') WHERE name = 'ci';
SELECT action, change FROM keywright.plan(pg_temp.key(jsonb_build_object('existing_token', :'ci'), '{"scopes": ["page:read"]}'));
SELECT action, change, length(token) AS token FROM keywright.apply(pg_temp.key('{}', '{"scopes": ["page:read"]}'));
SELECT keywright.revoke_user_api_keys('regress-ann');
EXECUTE change('api_keys', '{"username": "regress-ann", "name": "laptop"}');
-- Gateway keys.
SELECT token AS far FROM keywright.mint_gateway_key('regress-far') \gset
SELECT what, p.action, p.name, p.change FROM (VALUES
  ('absent', '{}'), ('right', jsonb_build_object('existing_token', :'edge')), ('null', '{"existing_token": null}'), ('empty', '{"existing_token": ""}'), ('garbage', '{"existing_token": "x"}'),
  ('another name''s', jsonb_build_object('existing_token', :'far')), ('an API key''s', jsonb_build_object('existing_token', :'ci'))) AS v (what, existing)
  LEFT JOIN LATERAL keywright.plan(jsonb_build_object('manager', 'regress-plane', 'gateway_keys', jsonb_build_array('{"name": "regress-edge"}' || v.existing::jsonb))) AS p ON true;
SELECT action, name, change, length(token) AS token FROM keywright.apply('{"manager": "regress-plane", "gateway_keys": [{"name": "regress-edge", "existing_token": null}]}');
SET SESSION AUTHORIZATION regress_keywright_verifier;
SELECT active FROM keywright.verify_gateway_key(:'edge');
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT action, change FROM keywright.plan(jsonb_build_object('manager', 'regress-plane', 'gateway_keys', jsonb_build_array(jsonb_build_object('name', 'regress-edge', 'existing_token', :'edge'))));

-- What nobody manages is taken over; what another manages is only when the manifest says so. Step by step for every kind.
SELECT action, kind, name, change FROM keywright.apply('{"manager": "regress-plane", "gateway_keys": [{"name": "regress-far"}], "api_keys": [{"username": "regress-bot", "name": "other", "allow_list": ["*:*"]}]}');
SELECT jsonb_set(:'whole', '{manager}', '"regress-other"') AS other \gset
SELECT * FROM keywright.plan(:'other');
SELECT code, message FROM public.refusal(format('SELECT FROM keywright.apply(%L)', :'other'));
SELECT action, kind, name, change -> 'managed_by' AS managed_by, change ? 'reason' AS renewed FROM keywright.plan(:'other'::jsonb || '{"adopt": true}');
SELECT count(*) AS taken, count(token) AS tokens FROM keywright.apply(:'other'::jsonb || '{"adopt": true}');
SELECT * FROM keywright.apply(:'other'::jsonb || '{"adopt": true}');
SELECT * FROM keywright.apply(:'other');
-- Back again; what differs is changed in the same step.
SELECT action, kind, name, change FROM keywright.apply('{"manager": "regress-plane", "adopt": true, "roles": [{"name": "page-reader", "permissions": ["page:list"]}], "users": [{"username": "regress-ann", "kind": "human", "email": ""}]}');
SELECT count(*) FROM keywright.apply(:'whole'::jsonb || '{"adopt": true}');
SELECT managed_by, count(*) FROM keywright.list_users(true) WHERE username ILIKE 'regress-%' GROUP BY 1;

-- Built in: it need not be named, and can not differ.
SELECT * FROM keywright.apply('{"manager": "regress-plane", "resource_types": [{"type": "organization"}], "roles": [{"name": "auditor", "permissions": ["*:read"]}]}');
SELECT * FROM keywright.apply('{"manager": "regress-plane", "adopt": true, "resource_types": [{"type": "organization", "parent_type": "organization"}], "roles": [{"name": "auditor", "permissions": ["*:*"]}], "scopes": [{"name": "all", "permissions": ["page:read"]}]}');
-- Never turned into another kind.
SELECT * FROM keywright.apply('{"manager": "regress-plane", "users": [{"username": "regress-ann", "kind": "service"}, {"username": "regress-bot", "kind": "system"}, {"username": "regress-system", "kind": "human"}]}');

-- Every error at once, each with its path; of one kind it has its own SQLSTATE. Nothing changes.
SELECT public.events() AS before \gset
SELECT * FROM public.refusal('SELECT FROM keywright.apply(NULL)');
SELECT r.* FROM (VALUES ('[]'), ('{}'), ('null'), ('"kwk_x"'), ('{"manager": ""}'), ('{"manager": "a b", "Prune": true, "prune": "yes", "adopt": 1, "role": [], "roles": {}, "__proto__": {}}'),
  ('{"manager": "m", "manager ": "n", "kwk_canary": 1, "quote\"d": 1, "a.b": [1], "\u0007": 1}')) AS v (m),
  LATERAL public.refusal(format('SELECT FROM keywright.plan(%L)', v.m)) AS r;
SELECT * FROM public.refusal($_$SELECT FROM keywright.apply('{"manager": "m",
  "resource_types": [{"type": "Page"}, {"type": "a", "parent_type": "nowhere"}, {"type": "b", "parent_type": "c"}, {"type": "c", "parent_type": "b"}, {"type": "a"}],
  "resources": [{"type": "nowhere", "id": "1"}, {"type": "page", "id": "*"}, {"type": "page", "id": "p1", "parent_id": "nowhere"}, {"id": "x"}],
  "roles": [{"name": "r", "permissions": [], "level": 10}, {"name": "r"}, {"name": "q", "permissions": ["pge:read", "*"]}],
  "scopes": [{"name": "page:x", "permissions": ["page:read"]}],
  "users": [{"username": "a", "kind": "robot"}, {"username": "a", "kind": "human", "roles": []}, {"username": "s", "kind": "system", "db_role": "x", "roles": ["nobody"], "organization_role": ""}],
  "bindings": [{"username": "nobody", "role": "nothing"}, {"username": "a", "role": "auditor", "resource_id": "x"}],
  "api_keys": [{"username": "a", "name": "k", "lifetime": "0 days"}, {"username": "a", "name": "l", "lifetime": "1 day", "renew_before": "1 day"}, {"username": "a", "name": "m", "lifetime": "fortnight", "existing_token": 1}],
  "gateway_keys": [{"name": "-"}, {"name": "g", "token": "x"}],
  "authenticators": [{"service": "s", "schemas": []}]}')$_$);
SELECT * FROM public.refusal($_$SELECT FROM keywright.apply('{"manager": "m",
  "resource_types": [{"type": "a", "parent_type": "nowhere"}, {"type": "b", "parent_type": "c"}, {"type": "c", "parent_type": "b"}, {"type": "pages"}],
  "resources": [{"type": "nowhere", "id": "1"}, {"type": "page", "id": "p1", "parent_id": "nowhere"}, {"type": "organization", "id": "x", "parent_id": "y"}],
  "roles": [{"name": "q", "permissions": ["pge:read", "*"]}, {"name": "page-reader", "permissions": ["page:read"]}],
  "scopes": [{"name": "page:x", "permissions": ["page:read"]}],
  "users": [{"username": "a", "kind": "human", "db_role": "regress_superuser"}, {"username": "b", "kind": "human", "db_role": "regress_nobody"}, {"username": "s", "kind": "system", "roles": ["nobody"], "organization_role": "nothing"}],
  "bindings": [{"username": "nobody", "role": "nothing", "resource_type": "page", "resource_id": "nowhere"}],
  "api_keys": [{"username": "nobody", "name": "k"}, {"username": "a", "name": "k", "scopes": ["pages:al"], "allow_list": ["pge:1"]}],
  "authenticators": [{"service": "regress-rest", "connect_as": "regress_nobody", "anon_role": "regress_rest_anon"}]}')$_$);
SELECT r.code, r.message, r.detail FROM (VALUES ('{"users": [{"username": "a", "kind": "human", "db_role": "regress_superuser"}]}'), ('{"users": [{"username": "a", "kind": "human", "db_role": "public"}]}'),
  ('{"users": [{"username": "a", "kind": "human", "db_role": "regress_nobody"}]}'), ('{"bindings": [{"username": "nobody", "role": "nothing"}]}'),
  ('{"api_keys": [{"username": "regress-bot", "name": "new", "lifetime": "101 years"}]}'), ('{"api_keys": [{"username": "regress-bot", "name": "new", "lifetime": "36526 days"}]}')) AS v (m),
  LATERAL public.refusal(format('SELECT FROM keywright.apply(%L)', v.m::jsonb || '{"manager": "regress-plane"}')) AS r;
SELECT public.events() - :before AS events;
-- The cap on lifetimes.
RESET SESSION AUTHORIZATION;
SET keywright.max_api_key_lifetime = '1d';
SELECT * FROM keywright.plan('{"manager": "regress-plane", "api_keys": [{"username": "regress-bot", "name": "new", "lifetime": "2 days"}, {"username": "regress-bot", "name": "newer", "lifetime": "1 day"}, {"username": "regress-bot", "name": "newest", "lifetime": "2 days"}]}');
RESET keywright.max_api_key_lifetime;
SET SESSION AUTHORIZATION regress_keywright_reconciler;

-- Pruned is what this manager owns and the manifest does not name. Nobody's and another's stay.
SELECT keywright.ensure_resource('page', 'nobodys', 's1');
SELECT keywright.apply('{"manager": "regress-other", "users": [{"username": "regress-others", "kind": "human"}], "bindings": [{"username": "regress-others", "role": "page-reader"}], "gateway_keys": [{"name": "regress-others"}]}') \g /dev/null
SELECT action, kind, name FROM keywright.plan('{"manager": "regress-nobody", "prune": true}');
SELECT step, action, kind, name, CASE kind WHEN 'authenticator' THEN change - 'grants' ELSE change END AS change FROM keywright.plan('{"manager": "regress-plane", "prune": true}');
-- What is pruned can not be named.
SELECT * FROM public.refusal($_$SELECT FROM keywright.apply('{"manager": "regress-plane", "prune": true, "resource_types": [{"type": "paper", "parent_type": "page"}], "roles": [{"name": "r", "permissions": ["page:read"]}], "scopes": [{"name": "s", "permissions": ["space:read"]}],
  "resources": [{"type": "page", "id": "p2"}], "users": [{"username": "x", "kind": "system", "roles": ["page-reader"]}], "bindings": [{"username": "regress-ann", "role": "page-reader"}], "api_keys": [{"username": "regress-bot", "name": "x"}, {"username": "x", "name": "x", "scopes": ["pages:all", "page:read"], "allow_list": ["space:1"]}]}')$_$);
CREATE TEMP TABLE pruning AS SELECT * FROM keywright.plan('{"manager": "regress-plane", "prune": true}');
CREATE TEMP TABLE pruned AS SELECT * FROM keywright.apply('{"manager": "regress-plane", "prune": true}');
SELECT count(*) AS differ FROM pruning AS p FULL JOIN pruned AS a USING (step, action, kind, name, change) WHERE p.step IS NULL OR a.step IS NULL;
SELECT action, kind, name FROM keywright.plan('{"manager": "regress-plane", "prune": true}');
BEGIN;
SELECT count(*) FROM keywright.apply('{"manager": "regress-plane", "prune": true}');
SELECT pg_current_xact_id_if_assigned() IS NULL AS nothing_written;
COMMIT;
SELECT username FROM keywright.list_users() WHERE username ILIKE 'regress%' ORDER BY 1;
SELECT name FROM keywright.list_gateway_keys() WHERE name LIKE 'regress%' ORDER BY 1;
-- What is left goes when nothing needs it any more; a type stays while a key, live or dead, names it.
SELECT keywright.apply('{"manager": "regress-other", "prune": true}') \g /dev/null
SELECT keywright.delete_resource('page', 'nobodys');
SELECT action, kind, name FROM keywright.apply('{"manager": "regress-plane", "prune": true}');

-- What keeps what: a type its parent, a resource its type and the roles that are held on it.
SELECT count(*) FROM keywright.apply('{"manager": "regress-plane", "resource_types": [{"type": "shelf"}, {"type": "book", "parent_type": "shelf"}, {"type": "note"}], "roles": [{"name": "reader", "permissions": ["shelf:read"]}, {"name": "writer", "permissions": ["note:write"]}],
  "resources": [{"type": "shelf", "id": "1"}], "users": [{"username": "regress-ann", "kind": "human"}]}');
SELECT keywright.ensure_resource('book', '1', '1');
SELECT outcome FROM keywright.ensure_user('regress-bo', '');
SELECT outcome FROM keywright.bind_role('regress-bo', 'reader', 'shelf', '1');
SELECT action, kind, name, change FROM keywright.plan('{"manager": "regress-plane", "prune": true, "roles": [{"name": "writer", "permissions": ["project:write"]}]}');
SELECT action, kind, name FROM keywright.apply('{"manager": "regress-plane", "prune": true, "roles": [{"name": "writer", "permissions": ["project:write"]}]}');
SELECT action, kind, name FROM keywright.apply('{"manager": "regress-plane", "prune": true, "roles": [{"name": "writer", "permissions": ["project:write"]}]}');
-- A child that moves away in the same manifest keeps nothing.
SELECT action, kind, name FROM keywright.plan('{"manager": "regress-plane", "prune": true, "resource_types": [{"type": "shelf"}, {"type": "book", "parent_type": "shelf"}], "resources": [{"type": "book", "id": "1", "parent_id": null}]}');
SELECT keywright.delete_resource('book', '1'), keywright.delete_user('regress-bo') IS NOT NULL;
SELECT action, kind, name FROM keywright.apply('{"manager": "regress-plane", "prune": true}');

-- The last owner of a resource stays, unless it is replaced, or the resource or the owner goes.
SELECT count(*) FROM keywright.apply('{"manager": "regress-plane", "users": [{"username": "regress-ann", "kind": "human"}, {"username": "regress-bo", "kind": "human"}], "resources": [{"type": "project", "id": "regress-1"}],
  "bindings": [{"username": "regress-ann", "role": "project-owner", "resource_type": "project", "resource_id": "regress-1"}]}');
SELECT '{"manager": "regress-plane", "prune": true, "users": [{"username": "regress-ann", "kind": "human"}, {"username": "regress-bo", "kind": "human"}], "resources": [{"type": "project", "id": "regress-1"}]}' AS both \gset
SELECT * FROM keywright.apply(:'both');
SELECT action, kind, name FROM keywright.plan(:'both'::jsonb #- '{users,0}');
SELECT action, kind, name FROM keywright.plan(:'both'::jsonb - 'resources');
SELECT :'both'::jsonb || '{"bindings": [{"username": "regress-bo", "role": "project-owner", "resource_type": "project", "resource_id": "regress-1"}]}' AS replaced \gset
SELECT keywright.suspend_user('regress-bo');
SELECT code FROM public.refusal(format('SELECT FROM keywright.plan(%L)', :'replaced'));
SELECT keywright.activate_user('regress-bo');
SELECT action, kind, name FROM keywright.apply(:'replaced');
SELECT keywright.suspend_user('regress-bo');
SELECT code FROM public.refusal(format('SELECT FROM keywright.plan(%L)', :'both'));
-- Where something that is not ours lies below the resource, it is left, and so needs its owner.
SELECT keywright.activate_user('regress-bo');
SELECT keywright.ensure_resource('agent', 'regress-1', 'regress-1');
SELECT code, detail FROM public.refusal(format('SELECT FROM keywright.plan(%L)', :'both'::jsonb - 'resources'));
SELECT keywright.delete_resource('agent', 'regress-1');

-- System users: what they hold by their own roles, and what is bound by name.
PREPARE system(jsonb, jsonb, boolean) AS SELECT action, kind, name, change FROM keywright.apply(jsonb_build_object('manager', 'regress-sys', 'prune', $3,
  'resources', '[{"type": "organization", "id": "regress-1"}]'::jsonb, 'users', jsonb_build_array('{"username": "regress-sys", "kind": "system"}' || $1), 'bindings', $2));
EXECUTE system('{"roles": ["auditor"], "organization_role": "organization-member"}', '[{"username": "regress-sys", "role": "auditor"}, {"username": "regress-sys", "role": "organization-member", "resource_type": "organization", "resource_id": "regress-1"}]', true);
EXECUTE system('{"roles": ["auditor"], "organization_role": "organization-member"}', '[{"username": "regress-sys", "role": "auditor"}, {"username": "regress-sys", "role": "organization-member", "resource_type": "organization", "resource_id": "regress-1"}]', true);
SELECT role, resource_id, standing, managed_by FROM keywright.list_role_bindings('regress-sys') ORDER BY 1;
EXECUTE system('{"roles": ["auditor"]}', '[]', true);
EXECUTE system('{"roles": [], "organization_role": ""}', '[]', true);
EXECUTE system('{"roles": [], "organization_role": ""}', '[]', true);
EXECUTE system('{"roles": ["auditor"], "organization_role": "organization-member"}', '[]', true);
EXECUTE system('{"roles": [], "organization_role": null}', '[{"username": "regress-sys", "role": "auditor"}]', true);
EXECUTE system('{"roles": [], "organization_role": null}', '[{"username": "regress-sys", "role": "auditor"}]', true);
SELECT role, resource_id, standing, managed_by FROM keywright.list_role_bindings('regress-sys') ORDER BY 1;
-- A role that only the system user held by its own roles is free in the same manifest.
SELECT count(*) FROM keywright.apply('{"manager": "regress-sys", "adopt": true, "roles": [{"name": "only", "permissions": ["project:read"]}], "users": [{"username": "regress-sys", "kind": "system", "roles": ["only"], "organization_role": "only"}]}');
EXECUTE system('{"roles": [], "organization_role": null}', '[]', true);
EXECUTE system('{}', '[]', true);

-- Moves: what lies below moves along.
SELECT count(*) FROM keywright.apply((SELECT jsonb_build_object('manager', 'regress-deep', 'resource_types', '[{"type": "folder", "parent_type": "folder"}]'::jsonb ||
  (SELECT jsonb_agg(jsonb_build_object('type', 'level' || n) || CASE WHEN n > 1 THEN jsonb_build_object('parent_type', 'level' || n - 1) ELSE '{}' END) FROM generate_series(1, 16) AS n),
  'resources', (SELECT jsonb_agg(jsonb_build_object('type', 'folder', 'id', n::text) || CASE WHEN n > 1 THEN jsonb_build_object('parent_id', (n - 1)::text) ELSE '{}' END) FROM generate_series(1, 16) AS n))));
SELECT * FROM public.refusal($$SELECT FROM keywright.plan('{"manager": "regress-deep", "resource_types": [{"type": "top"}, {"type": "upper", "parent_type": "top"}, {"type": "level1", "parent_type": "upper"}],
  "resources": [{"type": "folder", "id": "a"}, {"type": "folder", "id": "b", "parent_id": "a"}, {"type": "folder", "id": "1", "parent_id": "b"}]}')$$);
SELECT action, name FROM keywright.apply('{"manager": "regress-deep", "resources": [{"type": "folder", "id": "a"}, {"type": "folder", "id": "b", "parent_id": "a"}, {"type": "folder", "id": "1", "parent_id": "b"}, {"type": "folder", "id": "3", "parent_id": null}]}');
SELECT * FROM public.refusal($$SELECT FROM keywright.plan('{"manager": "regress-deep", "resources": [{"type": "folder", "id": "a", "parent_id": "2"}]}')$$);
SELECT count(*) FILTER (WHERE action = 'left') AS left, count(*) FROM keywright.apply('{"manager": "regress-deep", "prune": true}');
-- A resource below one of a type that comes later in the manifest.
BEGIN;
SELECT count(*) FROM keywright.apply('{"manager": "regress-deep", "resource_types": [{"type": "folder", "parent_type": "folder"}, {"type": "file", "parent_type": "folder"}], "resources": [{"type": "file", "id": "0"}, {"type": "folder", "id": "1"}, {"type": "file", "id": "1", "parent_id": "1"}]}');
SET CONSTRAINTS ALL IMMEDIATE;
-- Children go first.
SELECT name FROM keywright.apply('{"manager": "regress-deep", "prune": true}');
COMMIT;

-- Names that mean something elsewhere are only names.
SELECT action, kind, name FROM keywright.apply($$ {"manager": "m'\"\\;--{},", "resource_types": [{"type": "odd"}], "resources": [{"type": "odd", "id": "a\"b\\c{d,e}'f;--:"}, {"type": "odd", "id": "NULL"}],
  "users": [{"username": "regress-odd", "kind": "service", "display_name": "'; DROP TABLE x; -- \\ \" {}"}], "bindings": [{"username": "regress-odd", "role": "auditor", "resource_type": "odd", "resource_id": "a\"b\\c{d,e}'f;--:"}],
  "api_keys": [{"username": "regress-odd", "name": "k", "allow_list": ["odd:a\"b\\c{d,e}'f;--:", "odd:NULL"]}]} $$);
SELECT name, allow_list FROM keywright.list_api_keys('regress-odd');
SELECT action, kind, name, change FROM keywright.apply($$ {"manager": "m'\"\\;--{},", "prune": true} $$);

-- Types that follow a table are the table's.
RESET SESSION AUTHORIZATION;
CREATE TABLE public.regress_tracked (id text PRIMARY KEY);
SELECT keywright.register_resource_type('tracked');
SELECT keywright.track_table('public.regress_tracked', 'tracked', 'id') \g /dev/null
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT * FROM keywright.apply('{"manager": "regress-plane", "resources": [{"type": "tracked", "id": "1"}]}');
RESET SESSION AUTHORIZATION;
DROP TABLE public.regress_tracked;

-- Who may.
SELECT capability, has_function_privilege('regress_keywright_' || capability, 'keywright.plan(jsonb)', 'EXECUTE') AS plan, has_function_privilege('regress_keywright_' || capability, 'keywright.apply(jsonb)', 'EXECUTE') AS apply
  FROM unnest('{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer,admin,nobody}'::text[]) AS capability;
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT FROM keywright.plan('{"manager": "m"}');
SELECT FROM keywright.apply('{"manager": "m"}');
RESET SESSION AUTHORIZATION;
-- A reconciler that could not grant it by hand, and is not allowed to.
SELECT keywright.revoke_authenticator('regress-rest') \g /dev/null
CREATE ROLE regress_rest2 LOGIN;
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT * FROM keywright.apply('{"manager": "regress-plane", "authenticators": [{"service": "regress-rest", "connect_as": "regress_rest2", "anon_role": "regress_rest_anon"}]}');
RESET SESSION AUTHORIZATION;

-- Twice in one statement, in a loop, behind a cursor, in a subtransaction that fails: nothing is half done.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
WITH a AS MATERIALIZED (SELECT * FROM keywright.apply('{"manager": "regress-plane", "adopt": true, "gateway_keys": [{"name": "regress-twice"}]}')), b AS MATERIALIZED (SELECT * FROM keywright.apply('{"manager": "regress-plane", "adopt": true, "gateway_keys": [{"name": "regress-twice"}]}'))
SELECT (SELECT count(token) FROM a) + (SELECT count(token) FROM b) AS tokens;
DO $$
BEGIN
  FOR n IN 1..3 LOOP
    BEGIN
      PERFORM FROM keywright.apply('{"manager": "regress-plane", "users": [{"username": "regress-loop", "kind": "human"}]}');
      RAISE EXCEPTION 'undone';
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END
$$;
SELECT count(*) FROM keywright.list_users() WHERE username = 'regress-loop';
BEGIN;
DECLARE c CURSOR FOR SELECT action, name FROM keywright.apply('{"manager": "regress-plane", "users": [{"username": "regress-loop", "kind": "human"}]}');
FETCH 1 FROM c;
FETCH ALL FROM c;
ROLLBACK;
-- A temporary table in the way changes nothing.
BEGIN;
CREATE TEMP TABLE users (username text);
SET LOCAL search_path = pg_temp, public;
SELECT action, name FROM keywright.apply('{"manager": "regress-plane", "users": [{"username": "regress-loop", "kind": "human"}]}');
ROLLBACK;

-- Pruning takes nothing along that this manager did not make: not another's, not what somebody gave by hand.
SELECT count(*) FROM keywright.apply('{"manager": "regress-plane", "users": [{"username": "regress-shared", "kind": "service"}], "resources": [{"type": "project", "id": "regress-shared"}]}');
SELECT token FROM keywright.apply('{"manager": "regress-other", "api_keys": [{"username": "regress-shared", "name": "other"}],
  "bindings": [{"username": "regress-shared", "role": "project-viewer", "resource_type": "project", "resource_id": "regress-shared"}]}') WHERE token IS NOT NULL \gset other_
SELECT token FROM keywright.mint_api_key('regress-shared', 'by-hand') \gset hand_
SELECT action, kind, name, change FROM keywright.apply('{"manager": "regress-plane", "prune": true, "users": [], "resources": []}') WHERE name LIKE '%regress-shared%';
SELECT count(*) AS live FROM keywright.list_api_keys('regress-shared');
SELECT action, kind, name FROM keywright.apply('{"manager": "regress-other", "prune": true}') WHERE name LIKE '%regress-shared%';
SELECT action, kind, name FROM keywright.apply('{"manager": "regress-plane", "prune": true}') WHERE name LIKE '%regress-shared%';
SELECT keywright.revoke_user_api_keys('regress-shared');
SELECT action, kind, name FROM keywright.apply('{"manager": "regress-plane", "prune": true}') WHERE name LIKE '%regress-shared%';
-- Nor the keys of control planes that share an operator's user, which nobody owns.
SELECT token FROM keywright.ensure_operator_access('ns', 'a', prefix => 'regress-operators-') \gset a_
SELECT action FROM keywright.apply('{"manager": "regress-plane", "users": [{"username": "regress-operators", "kind": "system"}]}');
SELECT action, kind, name FROM keywright.apply('{"manager": "regress-plane", "prune": true}') WHERE name = 'regress-operators';
SELECT outcome FROM keywright.ensure_operator_access('ns', 'a', :'a_token', prefix => 'regress-operators-');
SELECT keywright.delete_user('regress-operators') IS NOT NULL AS deleted;

-- A key that was rotated away and is in its grace goes with its name, and when the name is minted anew.
SELECT manifest AS graced FROM (SELECT '{"manager": "regress-plane", "users": [{"username": "regress-grace", "kind": "service"}],
  "api_keys": [{"username": "regress-grace", "name": "k"}]}'::jsonb) AS m (manifest) \gset
SELECT count(*) FROM keywright.apply(:'graced');
SELECT key_id FROM keywright.list_api_keys('regress-grace') \gset first_
SELECT key_id FROM keywright.rotate_api_key(:'first_key_id', '1 hour') \gset second_
SELECT keywright.revoke_api_key(:'second_key_id');
SELECT action, name, change FROM keywright.plan(:'graced'::jsonb - 'api_keys' || '{"prune": true}') WHERE kind = 'api_key';
SELECT action, name, change ->> 'reason' AS reason FROM keywright.apply(:'graced');
SELECT key_id = :'first_key_id' AS first, state FROM keywright.list_api_keys('regress-grace');
SELECT key_id FROM keywright.list_api_keys('regress-grace') \gset first_
SELECT key_id FROM keywright.rotate_api_key(:'first_key_id', '1 hour') \gset second_
SELECT keywright.revoke_api_key(:'second_key_id');
SELECT action, name, change FROM keywright.apply(:'graced'::jsonb - 'api_keys' || '{"prune": true}') WHERE kind = 'api_key';
SELECT count(*) FROM keywright.list_api_keys('regress-grace');

-- What was right and is not any more is said again: a Postgres role that has become powerful, or is gone.
SELECT count(*) FROM keywright.apply('{"manager": "regress-plane", "users": [{"username": "regress-acts", "kind": "human", "db_role": "regress_plain"}]}');
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_plain CREATEDB;
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT keywright.plan('{"manager": "regress-plane", "users": [{"username": "regress-acts", "kind": "human", "db_role": "regress_plain"}]}');
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_plain NOCREATEDB;
SET SESSION AUTHORIZATION regress_keywright_reconciler;
-- Whatever the session thinks of backslashes.
SET standard_conforming_strings = off;
SELECT action, name FROM keywright.plan('{"manager": "regress-plane", "resources": [{"type": "project", "id": "p"}]}');
RESET standard_conforming_strings;
-- What can not be read is said in words.
SELECT keywright.plan('{"manager": "a", "roles": [{"name": "r", "permissions": ["project:read"], "level": 1e400}]}');

-- Two services on the same roles: what the first is granted is there for the second.
SELECT name, replace(change ->> 'grants', current_database(), 'this') AS grants FROM keywright.plan('{"manager": "regress-plane", "authenticators": [
  {"service": "regress-one", "connect_as": "regress_rest", "anon_role": "regress_rest_anon", "jwt_roles": [], "schemas": ["public"]},
  {"service": "regress-two", "connect_as": "regress_rest", "anon_role": "regress_rest_anon", "jwt_roles": [], "schemas": ["public"]}]}');

-- All of it goes.
SELECT count(*) FROM keywright.apply('{"manager": "regress-plane", "prune": true}');
SELECT count(*) FROM keywright.apply('{"manager": "regress-sys", "prune": true}');
SELECT count(*) FROM keywright.apply('{"manager": "regress-other", "prune": true}');
RESET SESSION AUTHORIZATION;
SELECT username FROM keywright.list_users() WHERE username ILIKE 'regress-%' ORDER BY 1;
SELECT name FROM keywright.list_gateway_keys() WHERE name LIKE 'regress-%' ORDER BY 1;
SELECT resource_type, resource_id FROM unnest('{organization,project}'::text[]) AS t, LATERAL keywright.list_resources(t) WHERE resource_id LIKE 'regress-%' ORDER BY 1, 2;
SELECT keywright.disallow_authenticator('regress_rest') \g /dev/null
DROP TABLE public.manifests;
DROP FUNCTION public.events;
REVOKE USAGE ON SCHEMA public FROM regress_rest_anon;
DROP ROLE regress_plain, regress_superuser, regress_rest, regress_rest2, regress_rest_anon;
