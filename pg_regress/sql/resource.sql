-- Types and resources, as a reconciler that is no superuser.
SET SESSION AUTHORIZATION regress_keywright_reconciler;
\pset null '(null)'
SELECT type, parent_type, built_in FROM keywright.list_resource_types();

-- Registered once; the same again writes nothing.
SELECT keywright.register_resource_type('workspace', 'project', 'plane-a');
SELECT keywright.register_resource_type('folder', 'folder');
BEGIN READ ONLY;
SELECT keywright.register_resource_type('workspace', 'project', 'plane-a');
SELECT keywright.register_resource_type('workspace', 'project');
SELECT keywright.register_resource_type('organization');
COMMIT;
SELECT keywright.register_resource_type('folder', 'folder', 'plane-b') AS claimed;
\x on
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('Work Space')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('*')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type(NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('disk', 'worspace')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('project', 'folder')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('workspace', 'agent')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_resource_type('project')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('kwk_0123456789-abcdefghijklmnopqrstuv3bfodh')$$);
\x off

-- A change of the parent's type, a circle, and too many levels.
SELECT keywright.register_resource_type('level-0') AS top;
SELECT n, keywright.register_resource_type('level-' || n, 'level-' || n - 1) AS outcome FROM generate_series(1, 16) AS n ORDER BY n;
\x on
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('level-17', 'level-16')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('level-0', 'folder')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('level-0', 'level-5')$$);
SELECT * FROM public.refusal($$SELECT keywright.delete_resource_type('level-15')$$);
\x off
SELECT keywright.register_resource_type('level-16', 'level-0');
SELECT n, keywright.delete_resource_type('level-' || n) AS deleted FROM generate_series(16, 0, -1) AS n WHERE n IN (16, 15, 14);
SELECT keywright.delete_resource_type('level-16') AS again;
SELECT count(*) FROM (SELECT keywright.delete_resource_type('level-' || n) FROM generate_series(13, 0, -1) AS n) AS x;

-- Resources: made, changed, left alone.
SELECT keywright.ensure_resource('organization', 'acme', name => 'Acme');
SELECT keywright.ensure_resource('organization', 'umbra', managed_by => 'plane-a');
SELECT keywright.ensure_resource('project', 'p1', 'acme');
SELECT keywright.ensure_resource('project', 'p2');
SELECT keywright.ensure_resource('workspace', 'w1', 'p1');
BEGIN READ ONLY;
SELECT keywright.ensure_resource('organization', 'acme', name => 'Acme');
SELECT keywright.ensure_resource('organization', 'acme', parent_id => '');
SELECT keywright.ensure_resource('project', 'p1');
SELECT keywright.ensure_resource('project', 'p1', 'acme');
SELECT keywright.ensure_resource('project', 'p2', '');
COMMIT;
SELECT keywright.ensure_resource('project', 'p2', 'acme') AS parent_given;
SELECT keywright.ensure_resource('project', 'p2', 'umbra') AS moved;
SELECT keywright.ensure_resource('project', 'p2', '') AS parent_taken;
SELECT keywright.ensure_resource('project', 'p2', name => 'Second') AS named;
SELECT resource_id, parent_type, parent_resource_id, name, managed_by FROM keywright.list_resources('project');
SELECT resource_id FROM keywright.list_resources('project', parent_id => 'acme');
SELECT resource_id FROM keywright.list_resources('project', after => 'p1', page_size => 1);
-- An id is the application's own, and case counts. It is never a pattern.
SELECT n AS id, keywright.ensure_resource('project', n) AS outcome FROM unnest('{P1,a:b,é,%,_,550e8400-e29b-41d4-a716-446655440000,42}'::text[]) AS n;
SELECT left(n, 9) AS id, code, rule FROM unnest(ARRAY['', 'a b', 'p*', '*', E'a\tb', repeat('x', 256)]) AS n,
  LATERAL public.refusal(format('SELECT keywright.ensure_resource(%L, %L)', 'project', n));
SELECT keywright.ensure_resource('project', repeat('x', 255)) AS longest;
\x on
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource('project', 'a b')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource('projct', 'p1')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource('project', 'p1', 'absent')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource('organization', 'acme', 'umbra')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource('organization', 'umbra', name => 'Mine', managed_by => 'plane-b')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource('project', NULL)$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource(NULL, 'p1')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource('project', 'p1', name => repeat('x', 129), managed_by => '')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_resource('project', 'kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH')$$);
SELECT * FROM public.refusal($$SELECT keywright.register_resource_type('workspace', 'organization', 'plane-a')$$);
\x off

-- Nesting: 16 ancestors and no more, and no circle, also when a whole branch moves.
SELECT keywright.ensure_resource('folder', 'f0');
SELECT count(*) FILTER (WHERE o = 'created') AS created
  FROM (SELECT keywright.ensure_resource('folder', 'f' || n, 'f' || n - 1) AS o FROM generate_series(1, 16) AS n) AS x;
SELECT code, message, detail FROM public.refusal($$SELECT keywright.ensure_resource('folder', 'f17', 'f16')$$);
SELECT code, detail FROM public.refusal($$SELECT keywright.ensure_resource('folder', 'f0', 'f16')$$);
SELECT code, detail FROM public.refusal($$SELECT keywright.ensure_resource('folder', 'f0', 'f0')$$);
SELECT keywright.ensure_resource('folder', 'g0'), keywright.ensure_resource('folder', 'g1', 'g0');
SELECT code, detail FROM public.refusal($$SELECT keywright.ensure_resource('folder', 'f0', 'g0')$$);
SELECT keywright.ensure_resource('folder', 'f1', 'g0') AS sixteen_again;
SELECT code, detail FROM public.refusal($$SELECT keywright.ensure_resource('folder', 'f1', 'g1')$$);
SELECT keywright.ensure_resource('folder', 'f1', '') AS root;

-- Many at once: also a child before its parent, and only what differs is written.
SELECT keywright.ensure_resources('folder', '{b2,b1,b0}', '{b1,b0,NULL}');
SELECT keywright.ensure_resources('folder', '{b2,b1,b0}', '{b1,b0,NULL}') AS again;
SELECT keywright.ensure_resources('project', '{p1,p3}', names => '{First,Third}');
SELECT resource_id, parent_resource_id, name FROM keywright.list_resources('project') WHERE resource_id IN ('p1', 'p3');
SELECT keywright.ensure_resources('project', '{}') AS nothing;
SELECT n, code, detail FROM (VALUES
  (1, $$'{p1,p1}'$$), (2, $$'{p1,NULL}'$$), (3, $$'{p1}', '{a,b}'$$), (4, $$'{p1}', NULL, '{}'$$), (5, 'NULL'),
  (6, $$'{a b}'$$), (7, $$'{p1}', '{acme}', ARRAY[repeat('x', 129)]$$)) AS v (n, args),
  LATERAL public.refusal('SELECT keywright.ensure_resources(''project'', ' || args || ')');
SELECT code, detail FROM public.refusal($$SELECT keywright.ensure_resources('folder', '{c0,c1}', '{c1,c0}')$$);
SELECT code, detail FROM public.refusal($$SELECT keywright.ensure_resources('organization', '{o1}', '{acme}')$$);
-- What belongs to a manager is left alone by callers that are none.
SELECT code, message FROM public.refusal($$SELECT keywright.ensure_resources('organization', '{new,umbra}', names => '{New,Mine}')$$);
SELECT keywright.ensure_resources('organization', '{umbra}', names => '{""}') AS as_it_is;
-- A parent that is not there yet is none, until it comes.
SELECT keywright.ensure_resources('project', '{p9}', '{later}');
SELECT outcome FROM keywright.ensure_user('rosa', '');
SELECT keywright.ensure_resource('organization', 'other'), outcome FROM keywright.bind_role('rosa', 'project-viewer', 'organization', 'umbra');
SELECT keywright.has_permission('rosa', 'project:read', 'project', 'p9') AS before, keywright.ensure_resource('organization', 'later');
SELECT outcome, keywright.has_permission('rosa', 'project:read', 'project', 'p9') AS afterwards FROM keywright.bind_role('rosa', 'project-viewer', 'organization', 'later');
-- When it goes, its children have none; what is made again under the id does not get them back.
SELECT keywright.delete_resource('organization', 'later', true);
SELECT keywright.ensure_resources('project', '{p9}', '{later}'), keywright.ensure_resource('organization', 'later');
SELECT code FROM public.refusal($$SELECT keywright.delete_resource('organization', 'later')$$);
SELECT keywright.delete_resource('organization', 'later', true), keywright.delete_resource('organization', 'other'), keywright.delete_user('rosa') IS NOT NULL AS deleted;
-- Sixteen ancestors, whatever their types.
SELECT keywright.register_resource_type('file', 'folder'), keywright.ensure_resource('folder', 'n0');
SELECT count(keywright.ensure_resource('folder', 'n' || n, 'n' || n - 1)) FROM generate_series(1, 16) AS n;
SELECT code, detail FROM public.refusal($$SELECT keywright.ensure_resource('file', 'deep', 'n16')$$);
SELECT keywright.ensure_resource('file', 'deep', 'n15');
SELECT keywright.ensure_resource('folder', 'm0'), code, detail FROM public.refusal($$SELECT keywright.ensure_resource('folder', 'm1'), keywright.ensure_resource('folder', 'n0', 'm1')$$);
SELECT keywright.delete_resource('folder', 'n0', true), keywright.delete_resource('folder', 'm0'), keywright.delete_resource_type('file');
-- Thousands of a type that nests, in one statement.
SELECT keywright.ensure_resources('folder', array_agg('t' || n), array_agg(CASE WHEN n > 1 THEN 't' || n / 2 END)) FROM generate_series(1, 20000) AS n;
SELECT keywright.ensure_resources('folder', array_agg('t' || n), array_agg(CASE WHEN n > 1 THEN 't' || n / 3 + 1 END)) FROM generate_series(1, 2) AS n;
SELECT keywright.delete_resource('folder', 't1', true);
CREATE TEMP TABLE pairs AS SELECT n AS id, CASE WHEN n % 2 = 0 THEN n - 1 END AS parent FROM generate_series(1, 24000) AS n;
SELECT * FROM keywright.track_table('pairs', 'folder', 'id', 'parent');
UPDATE pairs SET parent = CASE WHEN id % 2 = 1 THEN id + 1 END;
DELETE FROM pairs;
DROP TABLE pairs;
SELECT count(*) FROM keywright.list_resources('folder') WHERE resource_id LIKE 't%';

-- Deleting: not while something lies below, or with all of it. Children of other types count.
SELECT code, message, detail, hint FROM public.refusal($$SELECT keywright.delete_resource('organization', 'acme')$$);
SELECT keywright.delete_resource('organization', 'acme', with_children => true);
SELECT keywright.delete_resource('organization', 'acme') AS again;
SELECT resource_type, resource_id FROM keywright.list_resource_types() AS t, keywright.list_resources(t.type) WHERE resource_id IN ('acme', 'p1', 'w1', 'p3');
SELECT code FROM public.refusal($$SELECT keywright.delete_resource('absent', 'x')$$);
SELECT keywright.delete_resource('folder', f, true) FROM unnest('{f0,f1,g0,b0}'::text[]) AS f;
SELECT count(*) AS folders FROM keywright.list_resources('folder');

-- The tables' own constraints say the same to a superuser.
RESET SESSION AUTHORIZATION;
SELECT n, code, rule FROM (VALUES
  (1, $$INSERT INTO keywright.resources (type, id) VALUES ('project', 'a*')$$),
  (2, $$INSERT INTO keywright.resources (type, id, parent_id) VALUES ('project', 'x', 'acme')$$),
  (4, $$INSERT INTO keywright.resources (type, id, parent_type, parent_id) VALUES ('folder', 'x', 'folder', 'x')$$),
  (5, $$INSERT INTO keywright.resources (type, id) VALUES ('organization', 'umbra')$$),
  (6, $$INSERT INTO keywright.resource_types (type) VALUES ('A')$$),
  (7, $$INSERT INTO keywright.resource_types (type, parent_type) VALUES ('a', 'absent')$$),
  (8, $$DELETE FROM keywright.resource_types WHERE type = 'project'$$)) AS v (n, statement), LATERAL public.refusal(statement) ORDER BY n;
SELECT keywright.delete_resource('project', resource_id) AS deleted, left(resource_id, 9) AS id FROM keywright.list_resources('project') ORDER BY resource_id COLLATE "C";
SELECT keywright.delete_resource('organization', 'umbra'), keywright.delete_resource_type('workspace'), keywright.delete_resource_type('folder');
