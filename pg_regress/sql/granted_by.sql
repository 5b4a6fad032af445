-- Who may grant what where: every role of a granter, at every place, against every role, at every place.
\pset null '(null)'
SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('organization', 'umbra'),
       keywright.ensure_resource('project', 'p1', 'acme'), keywright.ensure_resource('project', 'p2', 'acme'),
       keywright.ensure_resource('agent', 'a1', 'p1');
SELECT keywright.define_role('wide-viewer', '{credential:read,project:read}', 3), keywright.define_role('exact', '{project:read}', 2);
SELECT outcome FROM keywright.ensure_user('receiver', '');
CREATE TEMP TABLE places (place text, type text, id text, above text[]);
INSERT INTO places VALUES
  ('global', NULL, NULL, '{global}'), ('acme', 'organization', 'acme', '{global,acme}'), ('umbra', 'organization', 'umbra', '{global,umbra}'),
  ('p1', 'project', 'p1', '{global,acme,p1}'), ('p2', 'project', 'p2', '{global,acme,p2}'), ('a1', 'agent', 'a1', '{global,acme,p1,a1}');
-- The rule once more, in words of SQL: held at the place or above it, a smaller level, and every permission.
CREATE FUNCTION pg_temp.covers(held text[], asked text[]) RETURNS boolean LANGUAGE sql RETURN (
  SELECT bool_and(EXISTS (SELECT FROM unnest(held) AS h
                           WHERE split_part(h, ':', 1) IN ('*', split_part(a, ':', 1)) AND split_part(h, ':', 2) IN ('*', split_part(a, ':', 2))))
    FROM unnest(asked) AS a);
CREATE TEMP TABLE matrix AS
  SELECT g.name AS holds, gp.place AS holds_at, r.name AS grants, rp.place AS grants_at, rp.type, rp.id,
         gp.place = ANY (rp.above) AND g.level < r.level AND pg_temp.covers(g.permissions, r.permissions) AS expected, NULL::text AS code
    FROM keywright.list_roles() AS g, places AS gp, keywright.list_roles() AS r, places AS rp;
DO $$
DECLARE
  granter record;
  cell record;
BEGIN
  FOR granter IN SELECT DISTINCT m.holds, m.holds_at, p.type, p.id FROM matrix AS m JOIN places AS p ON p.place = m.holds_at LOOP
    PERFORM keywright.ensure_user('granter', '');
    PERFORM keywright.bind_role('granter', granter.holds, granter.type, granter.id);
    FOR cell IN SELECT m.ctid, m.* FROM matrix AS m WHERE (m.holds, m.holds_at) = (granter.holds, granter.holds_at) LOOP
      BEGIN
        PERFORM keywright.bind_role('receiver', cell.grants, cell.type, cell.id, granted_by => 'granter');
        RAISE SQLSTATE '00001';
      EXCEPTION WHEN SQLSTATE '00001' OR insufficient_privilege THEN
        UPDATE matrix SET code = sqlstate WHERE ctid = cell.ctid;
      END;
    END LOOP;
    PERFORM keywright.delete_user('granter');
  END LOOP;
END
$$;
SELECT count(*) AS cells, count(*) FILTER (WHERE expected) AS grantable, count(*) FILTER (WHERE code IS NULL) AS untried FROM matrix;
SELECT * FROM matrix WHERE (code = '00001') <> expected;
-- Seen from above: who may grant anything, and what; a granter's place is the widest it was tried at.
SELECT holds, string_agg(DISTINCT grants, ', ' ORDER BY grants) AS may_grant FROM matrix WHERE code = '00001' GROUP BY holds ORDER BY holds;
SELECT count(*) AS same_level_or_above FROM matrix AS m JOIN keywright.list_roles() AS g ON g.name = m.holds JOIN keywright.list_roles() AS r ON r.name = m.grants
 WHERE m.code = '00001' AND r.level <= g.level;
SELECT count(*) AS global_by_less_than_global FROM matrix WHERE code = '00001' AND grants_at = 'global' AND holds_at <> 'global';
SELECT count(*) AS sideways FROM matrix WHERE code = '00001' AND (holds_at, grants_at) IN (('umbra', 'acme'), ('umbra', 'p1'), ('p1', 'p2'), ('p1', 'acme'), ('a1', 'p1'));

-- How it reads. The best of several roles counts for the level, all of them for the permissions.
SELECT outcome FROM keywright.ensure_user('granter', '');
\x on
SELECT * FROM public.refusal($$SELECT keywright.bind_role('receiver', 'project-viewer', 'project', 'p1', 'granter')$$);
SELECT outcome FROM keywright.bind_role('granter', 'project-editor', 'project', 'p1');
SELECT * FROM public.refusal($$SELECT keywright.bind_role('receiver', 'project-editor', 'project', 'p1', 'granter')$$);
SELECT * FROM public.refusal($$SELECT keywright.bind_role('receiver', 'wide-viewer', 'project', 'p1', 'granter')$$);
SELECT outcome FROM keywright.bind_role('granter', 'credential-viewer');
SELECT outcome FROM keywright.bind_role('receiver', 'wide-viewer', 'project', 'p1', 'granter');
SELECT role, granted_by FROM keywright.list_role_bindings('receiver');
SELECT keywright.suspend_user('granter');
SELECT * FROM public.refusal($$SELECT keywright.bind_role('receiver', 'project-viewer', 'project', 'p1', 'granter')$$);
\x off
-- A binding that is there already is no way around it, nor is granting oneself.
SELECT keywright.activate_user('granter');
SELECT outcome FROM keywright.bind_role('receiver', 'project-owner', 'project', 'p1');
SELECT code FROM public.refusal($$SELECT keywright.bind_role('receiver', 'project-owner', 'project', 'p1', 'granter')$$);
SELECT code FROM public.refusal($$SELECT keywright.bind_role('granter', 'project-owner', 'project', 'p1', 'granter')$$);
-- What was granted stays when the granter goes.
SELECT keywright.delete_user('granter') IS NOT NULL AS deleted;
SELECT role, granted_by FROM keywright.list_role_bindings('receiver') ORDER BY role;
SELECT keywright.delete_user('receiver') IS NOT NULL AS deleted;
SELECT keywright.delete_resource('organization', o, true) FROM unnest('{acme,umbra}'::text[]) AS o;
SELECT keywright.delete_role('wide-viewer'), keywright.delete_role('exact');
