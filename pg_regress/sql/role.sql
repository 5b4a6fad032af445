-- Roles, scopes and bindings, as a reconciler that is no superuser.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
\pset null '(null)'
-- Built in: no more than each should have.
SELECT name, level, permissions, built_in FROM keywright.list_roles();
SELECT name, permissions, built_in FROM keywright.list_scopes();

-- Defined once; permissions have one spelling; the same again writes nothing.
SELECT keywright.define_role('deployer', '{project:read,Agent:*,agent:run,project:read}', 2);
SELECT keywright.define_role('guest', '{organization:read}', managed_by => 'plane-a');
BEGIN READ ONLY;
SELECT keywright.define_role('deployer', '{agent:*,project:read}', 2);
SELECT keywright.define_role('guest', '{organization:read}');
SELECT keywright.define_role('owner', '{*:*}', 0);
COMMIT;
SELECT keywright.define_role('deployer', '{agent:*,project:read}', 3) AS level_changed;
SELECT keywright.define_role('deployer', '{agent:*}', 3) AS narrowed;
SELECT name, level, permissions, managed_by FROM keywright.list_roles() WHERE NOT built_in;
\x on
SELECT * FROM public.refusal($$SELECT keywright.define_role('owner', '{project:read}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('Deploy_er', '{project:read}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('r', '{projct:read,agnet:*,zzz:x,read,project:,*}', 10, '')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('r', '{}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('r', NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('r', '{project:read,NULL}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('r', (SELECT array_agg('project:a' || n) FROM generate_series(1, 129) AS n))$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('guest', '{*:*}', managed_by => 'plane-b')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_role('guest', '{*:*}')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_role('owner')$$);
\x off
SELECT keywright.define_role('many', (SELECT array_agg('project:a' || n) FROM generate_series(1, 128) AS n)) AS most;
SELECT keywright.delete_role('many'), keywright.delete_role('many') AS again, keywright.delete_role('') AS nothing;

-- Scopes: names of several permissions. A name never reads as a permission.
SELECT keywright.define_scope('deploy', '{project:read,agent:*}');
SELECT keywright.define_scope('coder:all', '{*:*}', 'plane-a');
BEGIN READ ONLY;
SELECT keywright.define_scope('deploy', '{agent:*,project:read}');
COMMIT;
SELECT keywright.define_scope('deploy', '{agent:*,project:*}') AS widened;
\x on
SELECT * FROM public.refusal($$SELECT keywright.define_scope('all', '{project:read}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_scope('project:read', '{*:*}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_scope('De ploy', '{*:*}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_scope('a:b:c', '{*:*}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_scope('other', '{deploy}')$$);
SELECT * FROM public.refusal($$SELECT keywright.define_scope('coder:all', '{project:read}')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('coder')$$);
\x off
-- On a key: registered names and permissions of registered types, in one spelling.
SELECT outcome FROM keywright.ensure_user('rita', '');
SELECT count(m.key_id) FROM (VALUES
  (1, '{Deploy,project:read,agent:run}', '{project:p2,project:p1,project:p1}'),
  (2, '{deploy,*:*,project:read}', '{project:*,project:p1,agent:A1}'),
  (3, '{all,*:*,deploy}', '{project:p1,*:*}'),
  (4, '{coder:all,*:read,project:read}', '{*:p1,project:p1,project:p2}')) AS v (n, s, a),
  LATERAL keywright.mint_api_key('rita', 'k' || n, s::text[], a::text[]) AS m;
SELECT name, scopes, allow_list FROM keywright.list_api_keys('rita') ORDER BY name;
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('rita', 'x', '{deplyo,projct:read,workspace:read,zzz}', '{projct:p1,workspace:*,agent}')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_scope('deploy')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_scope('all')$$);
\x off
SELECT count(keywright.revoke_api_key(key_id)) FROM keywright.list_api_keys('rita');
RESET SESSION AUTHORIZATION;
DELETE FROM keywright.api_keys WHERE user_id = (SELECT user_id FROM keywright.users WHERE username = 'rita');
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT keywright.delete_scope('deploy'), keywright.delete_scope('deploy') AS again, keywright.delete_scope('coder:all');
-- A permission does not become a name of several because its type goes.
SELECT keywright.register_resource_type('foo');
SELECT count(key_id) FROM keywright.mint_api_key('rita', 'foo', '{foo:read}');
SELECT code FROM public.refusal($$SELECT keywright.delete_resource_type('foo')$$);
RESET SESSION AUTHORIZATION;
DELETE FROM keywright.resource_types WHERE type = 'foo';
SET SESSION AUTHORIZATION regress_keywright_reconciler;
SELECT code, detail FROM public.refusal($$SELECT keywright.define_scope('foo:read', '{*:*}')$$);
SELECT count(keywright.revoke_api_key(key_id)) FROM keywright.list_api_keys('rita');

-- Bindings: globally, or on a resource; the same again writes nothing.
SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('project', 'p1', 'acme'),
       keywright.ensure_resource('project', 'p2', 'acme'), keywright.ensure_resource('agent', 'a1', 'p1');
SELECT outcome FROM keywright.bind_role('rita', 'auditor');
SELECT outcome FROM keywright.bind_role('Rita', 'project-editor', 'project', 'p1');
BEGIN READ ONLY;
SELECT outcome FROM keywright.bind_role('rita', 'auditor');
SELECT outcome FROM keywright.bind_role('rita', 'project-editor', 'project', 'p1');
SELECT keywright.unbind_role('rita', 'project-editor', 'project', 'p2');
COMMIT;
SELECT outcome FROM keywright.bind_role('rita', 'auditor', managed_by => 'plane-a') AS claimed;
SELECT outcome FROM keywright.bind_role('rita', 'auditor', managed_by => 'plane-b') AS held_already;
SELECT username, role, scope, resource_type, resource_id, level, granted_by, standing, managed_by FROM keywright.list_role_bindings('rita') ORDER BY role;
\x on
SELECT * FROM public.refusal($$SELECT keywright.bind_role('absent', 'auditor')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('rita', 'auditr')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('rita', 'zzz')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('rita', 'auditor', 'project', 'absent')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('rita', 'auditor', 'project')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('rita', 'auditor', NULL, 'p1')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role(NULL, 'auditor')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('rita', NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('rita', 'auditor', granted_by => 'absent')$$);
SELECT * FROM public.refusal($$SELECT keywright.unbind_role('rita', 'absent')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_role('auditor')$$);
SELECT keywright.define_role('held', '{project:read}');
SELECT outcome FROM keywright.bind_role('rita', 'held');
SELECT * FROM public.refusal($$SELECT keywright.delete_role('held')$$);
\x off
SELECT keywright.unbind_role('rita', 'held'), keywright.delete_role('held');
-- An id is never compared with a name: a user who is named like another's id holds nothing of it.
SELECT user_id AS rita_id FROM keywright.list_users() WHERE username = 'rita' \gset
SELECT outcome FROM keywright.ensure_user(left(:'rita_id', 32), '');
SELECT keywright.has_permission(left(:'rita_id', 32), 'project:read', 'project', 'p1') AS by_name_of_id;
SELECT code FROM public.refusal(format('SELECT keywright.has_permission(%L, %L)', :'rita_id', 'project:read'));
SELECT keywright.delete_user(left(:'rita_id', 32)) IS NOT NULL AS deleted;

-- What roles permit: everywhere, on the resource, below it, and nowhere else.
SELECT keywright.unbind_role('rita', 'auditor');
SELECT p, r, keywright.has_permission('rita', p, split_part(r, ':', 1), split_part(r, ':', 2)) AS permitted
  FROM unnest('{project:read,project:update,project:delete,agent:run,project:*,*:*,agent:*}'::text[]) AS p,
       unnest('{organization:acme,project:p1,project:p2,agent:a1,agent:absent}'::text[]) AS r ORDER BY p COLLATE "C", r COLLATE "C";
SELECT keywright.has_permission('rita', 'project:read') AS everywhere;
SELECT keywright.has_permission('rita', 'project:read', 'project', NULL) AS no_id, keywright.has_permission('rita', 'project:read', NULL, 'p1') AS no_type;
SELECT outcome FROM keywright.bind_role('rita', 'auditor');
SELECT keywright.has_permission('rita', 'project:read') AS everywhere, keywright.has_permission('rita', 'session:read', 'session', 'unregistered') AS unregistered;
SELECT keywright.suspend_user('rita');
SELECT keywright.has_permission('rita', 'project:read') AS suspended;
SELECT keywright.activate_user('rita');
SELECT code, message, detail FROM public.refusal($$SELECT keywright.has_permission('rita', 'project')$$);
SELECT code FROM public.refusal($$SELECT keywright.has_permission('rita', NULL)$$);
SELECT n, code FROM unnest('{pro*:read,%:read,project:re_d,"project:read ","",:}'::text[]) AS n, LATERAL public.refusal(format('SELECT keywright.has_permission(%L, %L)', 'rita', n));
-- A redefined role counts at once.
SELECT keywright.define_role('deployer', '{project:deploy}'), outcome FROM keywright.bind_role('rita', 'deployer');
SELECT keywright.has_permission('rita', 'project:deploy'), keywright.define_role('deployer', '{agent:run}'), keywright.has_permission('rita', 'project:deploy') AS afterwards;

-- The last active owner stays, whatever other roles and other owners there are.
SELECT outcome FROM keywright.ensure_user('oscar', '');
SELECT outcome FROM keywright.bind_role('rita', 'project-owner', 'project', 'p1');
SELECT outcome FROM keywright.bind_role('oscar', 'project-editor', 'project', 'p1');
SELECT outcome FROM keywright.bind_role('oscar', 'project-owner', 'project', 'p2');
\x on
SELECT * FROM public.refusal($$SELECT keywright.unbind_role('rita', 'project-owner', 'project', 'p1')$$);
\x off
SELECT outcome FROM keywright.bind_role('oscar', 'project-owner', 'project', 'p1');
SELECT keywright.suspend_user('oscar');
SELECT code, rule FROM public.refusal($$SELECT keywright.unbind_role('rita', 'project-owner', 'project', 'p1')$$);
SELECT keywright.activate_user('oscar'), keywright.unbind_role('rita', 'project-owner', 'project', 'p1');
SELECT code, rule FROM public.refusal($$SELECT keywright.unbind_role('oscar', 'project-owner', 'project', 'p1')$$);
-- Owning is for the type the role names, and for a resource: these go.
SELECT outcome, keywright.unbind_role('rita', 'project-owner') FROM keywright.bind_role('rita', 'project-owner');
SELECT outcome, keywright.unbind_role('rita', 'project-owner', 'organization', 'acme') FROM keywright.bind_role('rita', 'project-owner', 'organization', 'acme');
-- Deleting the user or the resource takes bindings along, the last owner's too.
SELECT keywright.delete_user('oscar') IS NOT NULL AS deleted;
SELECT count(*) AS bindings FROM keywright.list_role_bindings(resource_type => 'project');
SELECT keywright.delete_resource('organization', 'acme', true);
SELECT username, role, scope FROM keywright.list_role_bindings() WHERE username IN ('rita', 'oscar') ORDER BY role;

-- Made and bound in one transaction, or neither.
BEGIN;
SELECT keywright.ensure_resource('project', 'new');
SELECT outcome FROM keywright.bind_role('rita', 'project-owner', 'project', 'new');
ROLLBACK;
SELECT count(*) FROM keywright.list_resources('project');
SELECT count(*) FROM keywright.list_role_bindings('rita', 'project-owner');
SELECT keywright.ensure_resource('project', 'new');
SELECT keywright.has_permission('rita', 'project:deploy', 'project', 'new') AS holds_nothing_of_it;

-- Tables: a duplicate where columns are null, columns that disagree, references that lead nowhere; no change by UPDATE.
RESET SESSION AUTHORIZATION;
SELECT user_id AS rita_id FROM keywright.users WHERE username = 'rita' \gset
SELECT n, code, rule FROM (VALUES
  (1, format($$INSERT INTO keywright.role_bindings (user_id, role, scope) VALUES (%L, 'auditor', 'global')$$, :'rita_id')),
  (2, format($$INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type, resource_id) VALUES (%L, 'auditor', 'global', 'project', 'new')$$, :'rita_id')),
  (3, format($$INSERT INTO keywright.role_bindings (user_id, role, scope) VALUES (%L, 'auditor', 'resource')$$, :'rita_id')),
  (4, format($$INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type) VALUES (%L, 'auditor', 'resource', 'project')$$, :'rita_id')),
  (5, format($$INSERT INTO keywright.role_bindings (user_id, role, scope, resource_id) VALUES (%L, 'auditor', 'resource', 'new')$$, :'rita_id')),
  (6, format($$INSERT INTO keywright.role_bindings (user_id, role, scope) VALUES (%L, 'auditor', 'planet')$$, :'rita_id')),
  (7, format($$INSERT INTO keywright.role_bindings (user_id, role, scope) VALUES (%L, 'absent', 'global')$$, :'rita_id')),
  (8, $$INSERT INTO keywright.role_bindings (user_id, role, scope) VALUES (gen_random_uuid(), 'auditor', 'global')$$),
  (9, format($$INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type, resource_id) VALUES (%L, 'auditor', 'resource', 'project', 'absent')$$, :'rita_id')),
  (10, format($$INSERT INTO keywright.role_bindings (user_id, role, scope, granted_by) VALUES (%L, 'guest', 'global', gen_random_uuid())$$, :'rita_id')),
  (11, $$UPDATE keywright.role_bindings SET role = 'owner'$$),
  (12, $$UPDATE keywright.role_bindings SET user_id = gen_random_uuid()$$),
  (13, $$UPDATE keywright.role_bindings SET scope = 'global', resource_type = NULL, resource_id = NULL$$),
  (14, $$DELETE FROM keywright.roles WHERE name = 'auditor'$$),
  (15, format($$DELETE FROM keywright.users WHERE user_id = %L$$, :'rita_id')),
  (16, $$INSERT INTO keywright.roles (name, permissions, level) VALUES ('x', '{}', 1)$$),
  (17, $$INSERT INTO keywright.roles (name, permissions, level) VALUES ('x', '{a:b,NULL}', 1)$$),
  (18, $$INSERT INTO keywright.roles (name, permissions, level) VALUES ('x', '{a:b}', 10)$$),
  (19, $$INSERT INTO keywright.roles (name, permissions, level) VALUES ('X', '{a:b}', 1)$$),
  (20, $$INSERT INTO keywright.scopes (name, permissions) VALUES ('X', '{a:b}')$$),
  (21, $$INSERT INTO keywright.scopes (name, permissions) VALUES ('x', '{}')$$)) AS v (n, statement), LATERAL public.refusal(statement) ORDER BY n;
SELECT keywright.delete_user('rita') IS NOT NULL AS deleted;
SELECT count(*) AS bindings FROM keywright.role_bindings WHERE user_id = :'rita_id';
SELECT keywright.delete_resource('project', 'new'), keywright.delete_role('deployer'), keywright.delete_role('guest');
