-- What a system user holds: roles globally, and one role in every organization, also in those to come.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
\pset null '(null)'
SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('organization', 'umbra'), keywright.ensure_resource('project', 'p1', 'acme');
SELECT outcome, jsonb_pretty(changes) AS changes FROM keywright.ensure_system_user('standing');
-- The same again writes nothing.
BEGIN READ ONLY;
SELECT outcome, changes FROM keywright.ensure_system_user('standing');
COMMIT;
-- A new organization is bound at once, where it comes through a function or a tracked table.
SELECT keywright.ensure_resource('organization', 'later');
SELECT keywright.ensure_resources('organization', '{l1,l2}');
SELECT role, resource_id, standing FROM keywright.list_role_bindings('standing') ORDER BY role, resource_id COLLATE "C";
SELECT outcome, changes FROM keywright.ensure_system_user('standing');
RESET SESSION AUTHORIZATION;
CREATE TABLE public.orgs (id integer PRIMARY KEY);
SELECT * FROM keywright.track_table('public.orgs', 'organization');
SET client_min_messages = warning;
INSERT INTO public.orgs VALUES (1), (2);
SELECT role, resource_id, standing FROM keywright.list_role_bindings('standing') WHERE resource_id IN ('1', '2') ORDER BY resource_id;
-- One that came by hand is bound at the next call; so is one that somebody unbound.
INSERT INTO keywright.resources (type, id) VALUES ('organization', 'by-hand');
SELECT keywright.unbind_role('standing', 'organization-admin', 'organization', 'acme'), keywright.unbind_role('standing', 'owner');
SELECT outcome, changes FROM keywright.ensure_system_user('standing');
-- It goes with its organization.
DELETE FROM public.orgs;
SELECT keywright.delete_resource('organization', 'by-hand');
SELECT count(*) AS organizations FROM keywright.list_role_bindings('standing', 'organization-admin');
SELECT outcome FROM keywright.ensure_system_user('standing');
DROP TABLE public.orgs;

-- Other roles: what it bound itself goes, what somebody else bound stays.
SELECT outcome FROM keywright.bind_role('standing', 'auditor');
SELECT outcome FROM keywright.bind_role('standing', 'project-editor', 'project', 'p1');
SELECT outcome FROM keywright.bind_role('standing', 'organization-member', 'organization', 'acme');
SELECT outcome AS claimed FROM keywright.bind_role('standing', 'organization-admin', 'organization', 'umbra');
SELECT outcome, jsonb_pretty(changes) AS changes FROM keywright.ensure_system_user('standing', roles => '{agent-runner,auditor}', organization_role => 'organization-member');
SELECT role, scope, resource_id, standing FROM keywright.list_role_bindings('standing') ORDER BY role, resource_id COLLATE "C";
-- Null leaves as is; empty takes away.
SELECT outcome, changes FROM keywright.ensure_system_user('standing', roles => NULL, organization_role => NULL);
SELECT outcome, changes FROM keywright.ensure_system_user('standing', roles => '{}', organization_role => NULL);
SELECT outcome, jsonb_array_length(changes) AS changes FROM keywright.ensure_system_user('standing', roles => NULL, organization_role => '');
SELECT keywright.ensure_resource('organization', 'latest');
SELECT role, scope, resource_id, standing FROM keywright.list_role_bindings('standing') ORDER BY role, resource_id COLLATE "C";
-- All that is wrong: roles that do not exist, another manager's.
\x on
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('standing', roles => '{ownr}')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('standing', organization_role => 'zzz')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('standing', roles => '{owner,NULL}')$$);
SELECT outcome FROM keywright.ensure_system_user('standing', roles => '{owner}', organization_role => 'organization-admin', managed_by => 'plane-a');
SELECT * FROM public.refusal($$SELECT keywright.ensure_system_user('standing', roles => '{auditor}', managed_by => 'plane-b')$$);
\x off
SELECT keywright.delete_user('standing') IS NOT NULL AS deleted;
SELECT keywright.ensure_resource('organization', 'afterwards');
SELECT count(*) AS bindings FROM keywright.list_role_bindings(resource_id => 'afterwards') WHERE username = 'standing';
-- A user that is made again under the name holds nothing but its own.
SELECT outcome, jsonb_array_length(changes) AS changes FROM keywright.ensure_system_user('standing', roles => '{}', organization_role => '');
SELECT keywright.delete_user('standing') IS NOT NULL AS deleted;
SELECT count(keywright.delete_resource('organization', resource_id, true)) AS organizations FROM keywright.list_resources('organization');
