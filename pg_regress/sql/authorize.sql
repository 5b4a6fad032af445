-- authorize_api_key: scopes, allow-list and roles must all cover it.
\pset null '(null)'
SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('project', 'p1', 'acme'),
       keywright.ensure_resource('project', 'p2', 'acme'), keywright.ensure_resource('agent', 'a1', 'p1'), keywright.ensure_resource('session', 's1', 'a1');
SELECT keywright.define_scope('deploy', '{project:read,agent:*}');
SELECT outcome FROM keywright.ensure_user('ada', '');
SELECT token AS full FROM keywright.mint_api_key('ada', 'full') \gset
SELECT token AS scoped FROM keywright.mint_api_key('ada', 'scoped', '{deploy}') \gset
SELECT token AS listed FROM keywright.mint_api_key('ada', 'listed', '{all}', '{project:p1}') \gset
SELECT token AS typed FROM keywright.mint_api_key('ada', 'typed', '{*:read}', '{project:*}') \gset
SELECT outcome FROM keywright.bind_role('ada', 'project-editor', 'organization', 'acme');
SET SESSION AUTHORIZATION regress_keywright_verifier;
CREATE FUNCTION pg_temp.verdict(token text, permission text, resource text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN (SELECT a.username || ' ' || a.active FROM keywright.authorize_api_key(token, permission, resource) AS a);
EXCEPTION WHEN OTHERS THEN
  RETURN sqlstate;
END
$$;
SELECT k.name, p AS permission, r AS resource, pg_temp.verdict(k.token, p, r) AS verdict
  FROM (VALUES (1, 'full', :'full'), (2, 'scoped', :'scoped'), (3, 'listed', :'listed'), (4, 'typed', :'typed')) AS k (n, name, token),
       unnest('{project:read,project:update,agent:run,session:read,project:delete}'::text[]) WITH ORDINALITY AS p (p, pn),
       unnest(ARRAY['organization:acme', 'project:p1', 'session:s1', 'project:p2', NULL]) WITH ORDINALITY AS r (r, rn)
 ORDER BY k.n, p.pn, r.rn;
-- What is missing is named, all of it; a bad token is not told what it lacks.
\x on
SELECT * FROM public.refusal(format($$SELECT keywright.authorize_api_key(%L, 'project:delete', 'project:p2')$$, :'listed'));
SELECT * FROM public.refusal(format($$SELECT keywright.authorize_api_key(%L, 'credential:read', 'credential:c1')$$, :'scoped'));
SELECT * FROM public.refusal($$SELECT keywright.authorize_api_key('nonsense', 'project:delete', 'project:p2')$$);
SELECT * FROM public.refusal($$SELECT keywright.authorize_api_key(NULL, 'project:read')$$);
SELECT * FROM public.refusal(format($$SELECT keywright.authorize_api_key(%L, 'project')$$, :'full'));
SELECT * FROM public.refusal(format($$SELECT keywright.authorize_api_key(%L, NULL)$$, :'full'));
SELECT * FROM public.refusal(format($$SELECT keywright.authorize_api_key(%L, 'project:read', 'project:*')$$, :'full'));
SELECT * FROM public.refusal(format($$SELECT keywright.authorize_api_key(%L, 'project:read', %L)$$, :'full', :'full'));
\x off
SELECT * FROM keywright.authorize_api_key(:'listed', 'project:read', 'project:p1') AS a (active, key_id, user_id, username, name, scopes, allow_list, expires_at) WHERE false;
SELECT active, username, name, scopes, allow_list, expires_at > clock_timestamp() AS live FROM keywright.authorize_api_key(:'listed', 'project:read', 'project:p1');
RESET SESSION AUTHORIZATION;

-- A key never permits more than its owner, and from the moment that changes.
SELECT keywright.unbind_role('ada', 'project-editor', 'organization', 'acme'), pg_temp.verdict(:'full', 'project:read', 'project:p1') AS without_roles;
SELECT outcome, pg_temp.verdict(:'full', 'project:read', 'project:p1') AS viewer FROM keywright.bind_role('ada', 'project-viewer', 'project', 'p1');
SELECT keywright.define_scope('deploy', '{agent:*}'), pg_temp.verdict(:'scoped', 'project:read', 'project:p1') AS narrowed_scope;
-- A scope that is gone permits nothing.
SET session_replication_role = replica;
DELETE FROM keywright.scopes WHERE name = 'deploy';
RESET session_replication_role;
SELECT pg_temp.verdict(:'scoped', 'agent:read', 'agent:a1') AS scope_gone;
-- An organization that moves, a resource that is deleted.
SELECT outcome, keywright.unbind_role('ada', 'project-viewer', 'project', 'p1') FROM keywright.bind_role('ada', 'project-viewer', 'organization', 'acme');
SELECT pg_temp.verdict(:'full', 'session:read', 'session:s1') AS below, keywright.ensure_resource('project', 'p1', ''), pg_temp.verdict(:'full', 'session:read', 'session:s1') AS moved_away;
SELECT keywright.suspend_user('ada'), pg_temp.verdict(:'full', 'project:read', 'project:p2') AS suspended;
SELECT keywright.activate_user('ada'), pg_temp.verdict(:'full', 'project:read', 'project:p2') AS active;
-- Rows that were made empty by hand, past every check, permit nothing.
SET session_replication_role = replica;
ALTER TABLE keywright.api_keys DROP CONSTRAINT api_keys_scopes_check, DROP CONSTRAINT api_keys_allow_list_check;
SELECT outcome FROM keywright.bind_role('ada', 'owner');
SELECT pg_temp.verdict(:'full', 'project:read', 'project:p2') AS before;
UPDATE keywright.api_keys SET allow_list = '{}' WHERE name = 'full';
SELECT pg_temp.verdict(:'full', 'project:read', 'project:p2') AS no_allow_list, pg_temp.verdict(:'full', 'project:read', NULL) AS nor_everywhere;
UPDATE keywright.api_keys SET allow_list = '{*:*}', scopes = '{}' WHERE name = 'full';
SELECT pg_temp.verdict(:'full', 'project:read', 'project:p2') AS no_scopes;
UPDATE keywright.api_keys SET scopes = '{NULL,"",":",pro*:read,%}' WHERE name = 'full';
SELECT pg_temp.verdict(:'full', 'project:read', 'project:p2') AS broken_scopes;
UPDATE keywright.api_keys SET scopes = '{all}' WHERE name = 'full';
SELECT pg_temp.verdict(:'full', 'project:read', 'project:p2') AS afterwards;
ALTER TABLE keywright.api_keys
  ADD CONSTRAINT api_keys_scopes_check CHECK (cardinality(scopes) BETWEEN 1 AND 128),
  ADD CONSTRAINT api_keys_allow_list_check CHECK (cardinality(allow_list) <= 128);
COMMENT ON CONSTRAINT api_keys_scopes_check ON keywright.api_keys IS '1 to 128 scopes; none would mean nothing.';
COMMENT ON CONSTRAINT api_keys_allow_list_check ON keywright.api_keys IS 'At most 128 entries. With none left the key is good for nothing.';
RESET session_replication_role;
-- A parent that is not registered is above nothing, whatever an allow-list names; the resource itself may be named.
SET session_replication_role = replica;
INSERT INTO keywright.resources (type, id, parent_type, parent_id) VALUES ('agent', 'pa1', 'project', 'nowhere'), ('session', 'ps1', 'agent', 'pa1');
RESET session_replication_role;
SELECT token AS lost, key_id AS lost_id FROM keywright.mint_api_key('ada', 'lost', '{all}', '{project:nowhere}') \gset
CREATE FUNCTION pg_temp.both(token text) RETURNS TABLE (resource text, authorize text, is_permitted boolean) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM keywright.begin_request(token);
  FOR resource IN VALUES ('project:nowhere'), ('agent:pa1'), ('session:ps1'), ('agent:pa1') LOOP
    authorize := pg_temp.verdict(token, split_part(resource, ':', 1) || ':read', resource);
    is_permitted := keywright.is_permitted(split_part(resource, ':', 1) || ':read', split_part(resource, ':', 1), split_part(resource, ':', 2));
    RETURN NEXT;
  END LOOP;
END
$$;
BEGIN;
SELECT * FROM pg_temp.both(:'lost');
-- As many look-ups as make it read everything at once.
SELECT count(*) FROM generate_series(1, 200) AS n WHERE keywright.is_permitted('agent:read', 'agent', CASE WHEN n % 2 = 0 THEN 'none' || n ELSE 'pa1' END);
COMMIT;
SELECT keywright.ensure_resource('project', 'nowhere');
BEGIN;
SELECT * FROM pg_temp.both(:'lost');
SELECT username FROM keywright.begin_request(:'lost');
SELECT count(*) FROM generate_series(1, 200) AS n WHERE keywright.is_permitted('agent:read', 'agent', CASE WHEN n % 2 = 0 THEN 'none' || n ELSE 'pa1' END);
ROLLBACK;
SELECT keywright.delete_resource('project', 'nowhere', true), keywright.delete_resource('agent', 'pa1', true);
SELECT keywright.delete_user('ada') IS NOT NULL AS deleted;
SELECT keywright.delete_resource('organization', 'acme', true), keywright.delete_resource('project', 'p1', true);
