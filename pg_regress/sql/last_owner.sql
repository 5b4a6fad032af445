-- Every path that takes a role away asks whether an owner stays, and what is dead holds nothing.
SELECT keywright.define_role('organization-owner', '{organization:*}', 1), keywright.ensure_resource('organization', 'lo-acme');
SELECT outcome FROM keywright.ensure_user('lo-ada', '') \g /dev/null
SELECT outcome, changes FROM keywright.ensure_system_user('lo-sys', roles => '{}', organization_role => 'organization-owner');

-- The last owner is not taken away by unbind_role, nor by ensure_system_user, nor by a manifest; and the plan says what apply does.
PREPARE own(jsonb, jsonb, boolean) AS SELECT jsonb_build_object('manager', 'lo-plane', 'adopt', true, 'prune', $3, 'users', jsonb_build_array('{"username": "lo-sys", "kind": "system"}' || $1), 'bindings', $2) AS manifest;
\x on
SELECT * FROM public.refusal($$SELECT keywright.unbind_role('lo-sys', 'organization-owner', 'organization', 'lo-acme')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('lo-sys', roles => NULL, organization_role => 'organization-admin')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('lo-sys', roles => NULL, organization_role => '')$$);
EXECUTE own('{"roles": [], "organization_role": null}', '[]', false) \gset
SELECT * FROM public.refusal(format('SELECT keywright.plan(%L)', :'manifest'));
SELECT * FROM public.refusal(format('SELECT keywright.apply(%L)', :'manifest'));
EXECUTE own('{"roles": []}', '[]', true) \gset
SELECT * FROM public.refusal(format('SELECT keywright.apply(%L)', :'manifest'));
\x off
SELECT role, resource_id, standing FROM keywright.list_role_bindings('lo-sys');
-- The manifest may name the next owner, and another active owner is one; a suspended one is not.
BEGIN;
EXECUTE own('{"roles": [], "organization_role": null}', '[{"username": "lo-ada", "role": "organization-owner", "resource_type": "organization", "resource_id": "lo-acme"}]', false) \gset
SELECT action, kind, name FROM keywright.apply(:'manifest');
SELECT action, kind, name FROM keywright.apply(:'manifest');
SELECT username, role FROM keywright.list_role_bindings(role => 'organization-owner');
ROLLBACK;
SELECT outcome FROM keywright.bind_role('lo-ada', 'organization-owner', 'organization', 'lo-acme');
SELECT keywright.suspend_user('lo-ada');
SELECT code, rule FROM public.refusal($$SELECT keywright.ensure_system_user('lo-sys', roles => NULL, organization_role => '')$$);
SELECT keywright.activate_user('lo-ada');
SELECT outcome, changes FROM keywright.ensure_system_user('lo-sys', roles => NULL, organization_role => '');

-- A deleted user, whatever it held, holds no role that is to go.
SELECT keywright.define_role('lo-steward', '{organization:read}', 2);
SELECT outcome FROM keywright.ensure_system_user('lo-gone', roles => '{lo-steward}', organization_role => 'lo-steward', managed_by => 'lo-plane');
SELECT code FROM public.refusal($$SELECT keywright.delete_role('lo-steward')$$);
SELECT keywright.delete_user('lo-gone') IS NOT NULL AS deleted;
SELECT keywright.delete_role('lo-steward');
-- The same by a manifest: what is planned is done.
SELECT count(*) FROM keywright.apply('{"manager": "lo-plane", "adopt": true, "roles": [{"name": "lo-steward", "permissions": ["organization:read"]}], "users": [{"username": "lo-gone", "kind": "system", "roles": [], "organization_role": "lo-steward"}]}');
SELECT keywright.delete_user('lo-gone') IS NOT NULL AS deleted;
SELECT action, kind, name FROM keywright.plan('{"manager": "lo-plane", "prune": true}');
SELECT action, kind, name FROM keywright.apply('{"manager": "lo-plane", "prune": true}');
SELECT action, kind, name FROM keywright.apply('{"manager": "lo-plane", "prune": true}');

-- Who grants what a system user was bound to is noted.
SELECT outcome FROM keywright.ensure_system_user('lo-sys', roles => '{auditor}', organization_role => '') \g /dev/null
SELECT outcome FROM keywright.bind_role('lo-ada', 'owner') \g /dev/null
SELECT outcome FROM keywright.bind_role('lo-sys', 'auditor', granted_by => 'lo-ada');
SELECT role, granted_by, standing FROM keywright.list_role_bindings('lo-sys');
SELECT outcome FROM keywright.bind_role('lo-sys', 'auditor', granted_by => 'lo-ada');

-- What is unknown is named, and what is empty.
\x on
SELECT * FROM public.refusal($$SELECT keywright.bind_role('lo-ada', 'project-viewer', 'projct', 'p1')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('lo-ada', 'project-viewer', 'notype', 'p1')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('lo-ada', 'project-viewer', 'project', 'absent')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('lo-ada', 'project-viewer', '', 'p1')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('lo-ada', 'project-viewer', '', '')$$);
SELECT * FROM public.refusal($$SELECT keywright.unbind_role('lo-ada', 'project-viewer', 'project', '')$$);
\x off

-- A system user of a manifest that says nothing else has the roles that ensure_system_user gives.
SELECT action, kind, name, change -> 'roles' AS roles, change -> 'organization_role' AS organization_role FROM keywright.apply('{"manager": "lo-plane", "users": [{"username": "lo-both", "kind": "system"}]}');
SELECT outcome, changes FROM keywright.ensure_system_user('lo-both', managed_by => 'lo-plane');
SELECT count(*) AS steps FROM keywright.apply('{"manager": "lo-plane", "users": [{"username": "lo-both", "kind": "system"}]}');

-- What is adopted and changed at once is one event.
SELECT max(occurred_at) AS mark FROM keywright.audit_events \gset
SELECT action, kind, name FROM keywright.apply('{"manager": "lo-other", "adopt": true, "resource_types": [{"type": "lo-thing"}], "scopes": [{"name": "lo-scope", "permissions": ["project:read"]}], "roles": [{"name": "lo-role", "permissions": ["project:read"], "level": 3}]}') \g /dev/null
SELECT max(occurred_at) AS mark FROM keywright.audit_events \gset
SELECT action, kind, name FROM keywright.apply('{"manager": "lo-third", "adopt": true, "resource_types": [{"type": "lo-thing", "parent_type": "project"}], "scopes": [{"name": "lo-scope", "permissions": ["project:update"]}], "roles": [{"name": "lo-role", "permissions": ["project:update"], "level": 2}], "users": [{"username": "lo-both", "kind": "system", "roles": ["owner"], "email": "b@example.org"}]}');
SELECT event, kind, id, columns FROM keywright.audit_events WHERE occurred_at > :'mark' AND kind <> 'user' ORDER BY kind, id;
SELECT event, name, columns FROM keywright.audit_events WHERE occurred_at > :'mark' AND kind = 'user';

-- Everything goes.
SELECT count(*) > 0 AS pruned FROM keywright.apply('{"manager": "lo-third", "prune": true}');
SELECT keywright.delete_user(username) IS NOT NULL AS deleted FROM keywright.list_users(include_system => true) WHERE username LIKE 'lo-%';
SELECT keywright.delete_resource('organization', 'lo-acme'), keywright.delete_role('organization-owner');
