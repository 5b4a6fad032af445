-- Resources: what permissions speak of, each with an optional parent.

CREATE TABLE keywright.resource_types (
  type text COLLATE pg_catalog."C" CONSTRAINT resource_types_pkey PRIMARY KEY
    CONSTRAINT resource_types_type_check CHECK (type OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_.-]{0,62}$'),
  parent_type text COLLATE pg_catalog."C"
    CONSTRAINT resource_types_parent_type_fkey REFERENCES keywright.resource_types (type),
  built_in boolean NOT NULL DEFAULT false,
  managed_by text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE keywright.resource_types ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.resource_types', 'WHERE NOT built_in');
INSERT INTO keywright.resource_types (type, parent_type, built_in) VALUES
  ('organization', NULL, true), ('project', 'organization', true), ('agent', 'project', true),
  ('session', 'agent', true), ('credential', 'organization', true),
  ('user', NULL, true), ('api_key', NULL, true), ('gateway_key', NULL, true);

COMMENT ON TABLE keywright.resource_types IS 'The types of resources, and the type a parent is of.';
COMMENT ON COLUMN keywright.resource_types.type IS 'A lower case letter, then at most 62 lower case letters, digits, dots, dashes and underscores.';
COMMENT ON COLUMN keywright.resource_types.parent_type IS 'The type of parents; the type itself where resources nest; null when there are none.';
COMMENT ON COLUMN keywright.resource_types.built_in IS 'Made by the extension, and not changed by anybody.';
COMMENT ON COLUMN keywright.resource_types.managed_by IS 'The reconciler that owns this type.';
COMMENT ON COLUMN keywright.resource_types.created_at IS 'When the type was registered.';
COMMENT ON CONSTRAINT resource_types_pkey ON keywright.resource_types IS 'A type is registered once.';
COMMENT ON INDEX keywright.resource_types_pkey IS 'A type is registered once.';
COMMENT ON CONSTRAINT resource_types_type_check ON keywright.resource_types IS 'The form of a type.';
COMMENT ON CONSTRAINT resource_types_parent_type_fkey ON keywright.resource_types IS 'A parent''s type is registered.';

-- No foreign keys to type and parent: for 100,000 rows in one statement of a tracked table their checks take longer
-- than the statement itself, and an application may insert a child before its parent. The functions hold the type
-- while they write, and a parent that is not there is none.
CREATE TABLE keywright.resources (
  type text COLLATE pg_catalog."C" NOT NULL,
  id text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT resources_id_check CHECK (
      pg_catalog.octet_length(id) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.octet_length(id) OPERATOR(pg_catalog.<=) 255
      AND id OPERATOR(pg_catalog.!~) '[[:space:][:cntrl:]*]'),
  parent_type text COLLATE pg_catalog."C",
  parent_id text COLLATE pg_catalog."C",
  name text NOT NULL DEFAULT '',
  managed_by text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT resources_pkey PRIMARY KEY (type, id),
  CONSTRAINT resources_parent_check CHECK (
    pg_catalog.num_nulls(parent_type, parent_id) OPERATOR(pg_catalog.=) ANY (ARRAY[0, 2])
    AND (parent_type OPERATOR(pg_catalog.=) type AND parent_id OPERATOR(pg_catalog.=) id) IS NOT TRUE)
);
CREATE INDEX resources_managed_idx ON keywright.resources (managed_by) WHERE managed_by IS NOT NULL;
CREATE INDEX resources_parent_idx ON keywright.resources (parent_type, parent_id) WHERE parent_id IS NOT NULL;
ALTER TABLE keywright.resources ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.resources', '');

COMMENT ON TABLE keywright.resources IS 'Things of the application that permissions speak of.';
COMMENT ON COLUMN keywright.resources.type IS 'A registered type; the functions see to it.';
COMMENT ON COLUMN keywright.resources.id IS 'The application''s own id: 1 to 255 bytes without white space, control characters and asterisks.';
COMMENT ON COLUMN keywright.resources.parent_type IS 'The type of the parent; null when there is none.';
COMMENT ON COLUMN keywright.resources.parent_id IS 'The parent, as the application has it; null when there is none. One that is not registered is none.';
COMMENT ON COLUMN keywright.resources.name IS 'For people to read; means nothing to any check.';
COMMENT ON COLUMN keywright.resources.managed_by IS 'The reconciler that owns this resource.';
COMMENT ON COLUMN keywright.resources.created_at IS 'When the resource was registered.';
COMMENT ON COLUMN keywright.resources.updated_at IS 'When the row last changed.';
COMMENT ON CONSTRAINT resources_pkey ON keywright.resources IS 'A resource is registered once.';
COMMENT ON INDEX keywright.resources_pkey IS 'A permission check finds parents by it.';
COMMENT ON CONSTRAINT resources_id_check ON keywright.resources IS 'The form of an id: never a pattern.';
COMMENT ON CONSTRAINT resources_parent_check ON keywright.resources IS 'A parent has both type and id, and is another resource.';
COMMENT ON INDEX keywright.resources_managed_idx IS 'Those that belong to a manager.';
COMMENT ON INDEX keywright.resources_parent_idx IS 'The children of a resource.';

CREATE FUNCTION keywright._register_resource_type(type text, parent_type text, managed_by text, OUT outcome text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'register_resource_type_wrapper';
COMMENT ON FUNCTION keywright._register_resource_type(text, text, text) IS
'Internal. What register_resource_type does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.register_resource_type(
  type text, parent_type text DEFAULT NULL, managed_by text DEFAULT NULL, OUT outcome text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  outcome := keywright._register_resource_type(type, parent_type, managed_by);
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('resource_types_type_check', type);
  END IF;
END
$$;
COMMENT ON FUNCTION keywright.register_resource_type(text, text, text) IS
'Makes sure that a type of resource is registered. Permissions, scopes and allow-lists may name registered types only.
Arguments: type (a word: a lower case letter, then at most 62 lower case letters, digits, dots, dashes and underscores); parent_type (the type its parents are of, registered before; the type itself where resources nest, as folders do; null: no parents); managed_by (the calling reconciler; null: none).
Result: outcome created, updated or unchanged (nothing was written, no lock taken).
Errors: 23514 resource_types_type_check; 22023 parent_type would make a circle or more than 16 levels, or a scope has this name as its first word; 42704 no such parent_type; 42710 the type is built in, belongs to another manager, or has resources with parents of another type.
Example: SELECT keywright.register_resource_type(''workspace'', ''project'');';

CREATE FUNCTION keywright.delete_resource_type(type text, managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'delete_resource_type_wrapper';
COMMENT ON FUNCTION keywright.delete_resource_type(text, text) IS
'Deletes a type that nothing names.
Arguments: type; managed_by (the calling reconciler: a type of another one is refused; null: nobody is asked).
Result: true when this call deleted it, false when there is no such type.
Errors: 22023 malformed argument; 42710 the type is built in or belongs to another manager; 23503 resources, other types, roles, scopes or API keys name it.
Example: SELECT keywright.delete_resource_type(''workspace'');';

CREATE FUNCTION keywright.list_resource_types()
RETURNS TABLE (type text, parent_type text, built_in boolean, managed_by text, created_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT t.type, t.parent_type, t.built_in, t.managed_by, t.created_at FROM keywright.resource_types AS t ORDER BY t.type
$$;
COMMENT ON FUNCTION keywright.list_resource_types() IS
'Lists the registered types of resources.
Errors: none of its own.
Example: SELECT * FROM keywright.list_resource_types();';

CREATE FUNCTION keywright._ensure_resource(
  type text, id text, parent_id text, name text, managed_by text, OUT outcome text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ensure_resource_wrapper';
COMMENT ON FUNCTION keywright._ensure_resource(text, text, text, text, text) IS
'Internal. What ensure_resource does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.ensure_resource(
  type text, id text, parent_id text DEFAULT NULL, name text DEFAULT NULL, managed_by text DEFAULT NULL,
  OUT outcome text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  outcome := keywright._ensure_resource(type, id, parent_id, name, managed_by);
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('resources_id_check', id);
  END IF;
END
$$;
COMMENT ON FUNCTION keywright.ensure_resource(text, text, text, text, text) IS
'Makes sure that a resource exists. A new organization is bound to every system user that has an organization_role, in the same transaction.
Arguments: type (registered); id (the application''s own, 1 to 255 bytes without white space, control characters and asterisks); parent_id (a resource of the type''s parent_type; at most 16 ancestors; empty: none; null: leave as is); name (for people to read, at most 128 bytes; null: leave as is); managed_by (the calling reconciler; null: none).
Result: outcome created, updated or unchanged (nothing was written, no lock taken). Parallel callers all succeed.
Errors: 23514 resources_id_check; 22023 malformed argument, a parent for a type that has none, a circle, or more than 16 ancestors; 42704 no such type or parent; 42710 the resource belongs to another manager; 40001 try again (in REPEATABLE READ).
Example: SELECT keywright.ensure_resource(''project'', ''rockets'', ''acme'');';

CREATE FUNCTION keywright.ensure_resources(
  type text, ids text[], parent_ids text[] DEFAULT NULL, names text[] DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ensure_resources_wrapper';
COMMENT ON FUNCTION keywright.ensure_resources(text, text[], text[], text[]) IS
'ensure_resource for many resources of one type, in one statement.
Arguments: type (registered); ids; parent_ids and names (as many as ids, a null element for none; null: leave all as they are). A parent may come later, and is none until then.
Result: the number of resources that were made or changed.
Errors: 22023 malformed argument, arrays of different lengths, a parent for a type that has none, a circle, or more than 16 ancestors; 42704 no such type; 42710 a resource that would change belongs to a manager; 23514 resources_id_check.
Example: SELECT keywright.ensure_resources(''project'', ''{rockets,boosters}'', ''{acme,acme}'');';

CREATE FUNCTION keywright.delete_resource(
  type text, id text, with_children boolean DEFAULT false, managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'delete_resource_wrapper';
COMMENT ON FUNCTION keywright.delete_resource(text, text, boolean, text) IS
'Deletes a resource with the role bindings on it and the entries of allow-lists that name it, in one transaction. A resource that is made again under the same id starts without them.
Arguments: type; id; with_children (also delete all that lies below it); managed_by (the calling reconciler: what belongs to another one is refused, below it too; null: nobody is asked).
Result: true when this call deleted it, false when there is no such resource or type.
Errors: 22023 malformed argument; 42710 it belongs to another manager; 23503 the resource has children and with_children is false; 40001 try again (in REPEATABLE READ).
Example: SELECT keywright.delete_resource(''project'', ''rockets'');';

CREATE FUNCTION keywright.list_resources(
  type text, parent_id text DEFAULT NULL, after text DEFAULT NULL, page_size integer DEFAULT 100)
RETURNS TABLE (
  resource_type text, resource_id text, parent_type text, parent_resource_id text, name text, managed_by text,
  created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT r.type, r.id, r.parent_type, r.parent_id, r.name, r.managed_by, r.created_at, r.updated_at
    FROM keywright.resources AS r
   WHERE r.type = list_resources.type COLLATE "C"
     AND (list_resources.parent_id IS NULL OR r.parent_id = list_resources.parent_id COLLATE "C")
     AND (after IS NULL OR r.id > after COLLATE "C")
   ORDER BY r.id
   LIMIT keywright._page_size(page_size)
$$;
COMMENT ON FUNCTION keywright.list_resources(text, text, text, integer) IS
'Lists resources of a type, by id.
Arguments: type; parent_id (only children of this parent; null: all); after (the last id of the page before); page_size (rows, 1 to 10000).
Errors: 22023 page_size out of range.
Example: SELECT resource_id, name FROM keywright.list_resources(''project'', ''acme'');';

CREATE FUNCTION keywright.track_resource() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'track_resource_wrapper';
COMMENT ON FUNCTION keywright.track_resource() IS
'Trigger function: keeps the resources of one type equal to the rows of an application''s table. track_table creates the triggers.
Arguments: type; the column with the id (uuid, smallint, integer, bigint, text or varchar, or a domain over these); the column with the parent''s id, or empty; the column with the name, or empty.
Errors: 39P01 not called as such a trigger; 42704 no such type; 42703 no such column; 42804 the column''s type is not supported; 23502 an id is null; 23514 resources_id_check; 22023 a circle, or more than 16 ancestors; 42710 a resource that would change belongs to a manager; 55000 TRUNCATE, which is refused: use DELETE.
Example: SELECT * FROM keywright.track_table(''projects'', ''project'', ''id'', ''organization_id'', ''title'');';

-- Queued behind the triggers of a statement on a tracked table, by a statement that touches no row.
CREATE FUNCTION keywright._judge_depth() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'judge_depth_wrapper';
COMMENT ON FUNCTION keywright._judge_depth() IS
'Internal. Trigger function: refuses a circle, and more than 16 ancestors, when a statement on a tracked table is over.';
CREATE TRIGGER resources_depth AFTER UPDATE OF type ON keywright.resources
  FOR EACH STATEMENT EXECUTE FUNCTION keywright._judge_depth();
COMMENT ON TRIGGER resources_depth ON keywright.resources IS 'Refuses a circle, and more than 16 ancestors, when a statement on a tracked table is over.';

CREATE FUNCTION keywright._require_trackable(tracked regclass, column_name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'require_trackable_wrapper';
COMMENT ON FUNCTION keywright._require_trackable(regclass, text) IS
'Internal. 42703 when the table has no such column, 42804 when its type can not be tracked, 22023 when either is null.';

CREATE FUNCTION keywright._note_tracked(tracked regclass, outcome text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'note_tracked_wrapper';
COMMENT ON FUNCTION keywright._note_tracked(regclass, text) IS
'Internal. Notes that a table is tracked, when this transaction made a trigger of keywright on it.';

CREATE FUNCTION keywright._require_only_table(tracked regclass, type text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  other regclass;
BEGIN
  -- Of two callers one waits here, and then sees the triggers that the other has made.
  PERFORM FROM keywright.resource_types AS t WHERE t.type = _require_only_table.type COLLATE "C" FOR NO KEY UPDATE;
  SELECT coalesce(pg_partition_root(t.tgrelid), t.tgrelid) INTO other
    FROM pg_trigger AS t
   WHERE t.tgfoid = 'keywright.track_resource()'::regprocedure
     AND encode(substring(t.tgargs, 1, position(decode('00', 'hex') IN t.tgargs) - 1), 'escape') = _require_only_table.type
     AND coalesce(pg_partition_root(t.tgrelid), t.tgrelid) <> coalesce(pg_partition_root(tracked), tracked)
   LIMIT 1;
  IF FOUND THEN
    PERFORM keywright._refuse('42710', '', '',
      format('resource type "%s" follows table %s', type, other),
      'One table decides which resources of a type there are.',
      format('Register a type of its own for table %s, or drop the triggers keywright_track_* of table %s.', tracked, other));
  END IF;
END
$$;
COMMENT ON FUNCTION keywright._require_only_table(regclass, text) IS
'Internal. 42710 when another table decides which resources of the type there are; holds the type.';

-- Invoker on purpose: what it does to the caller's table, it does with the caller's rights.
CREATE FUNCTION keywright.track_table(
  tracked regclass, type text, id_column text DEFAULT 'id', parent_column text DEFAULT NULL,
  name_column text DEFAULT NULL, OUT outcome text, OUT resources_changed bigint)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY INVOKER
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $$
DECLARE
  arguments constant text[] := ARRAY[type, id_column, coalesce(parent_column, ''), coalesce(name_column, '')];
  quoted text;
  stored bytea := '';
  wanted record;
  columns constant text[] := ARRAY[nullif(parent_column, ''), nullif(name_column, '')];
  change text;
  column_name text;
BEGIN
  PERFORM keywright._require_trackable(tracked, id_column);
  PERFORM keywright.ensure_resources(type, '{}');
  FOREACH column_name IN ARRAY array_remove(columns, NULL) LOOP
    PERFORM keywright._require_trackable(tracked, column_name);
  END LOOP;
  FOR i IN 1..4 LOOP
    stored := stored || convert_to(arguments[i], getdatabaseencoding()) || decode('00', 'hex');
  END LOOP;
  quoted := (SELECT string_agg(quote_literal(a.argument), ', ' ORDER BY a.n)
               FROM unnest(arguments) WITH ORDINALITY AS a (argument, n));
  EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', tracked);
  outcome := 'unchanged';
  -- On each partition too: a statement that names one fires none of the table's own.
  FOR wanted IN
    SELECT p.relation, w.name, w.event, w.level
      FROM (SELECT tracked AS relation UNION SELECT t.relid FROM pg_partition_tree(tracked) AS t) AS p,
           (VALUES
        ('keywright_track_insert', 'AFTER INSERT', 'REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT'),
        ('keywright_track_update', 'AFTER UPDATE', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT'),
        ('keywright_track_delete', 'AFTER DELETE', 'REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT'),
        ('keywright_track_truncate', 'BEFORE TRUNCATE', 'FOR EACH STATEMENT')) AS w (name, event, level)
     ORDER BY p.relation, w.name
  LOOP
    change := (SELECT CASE WHEN t.tgargs = stored AND t.tgenabled IN ('O', 'A') THEN 'unchanged' ELSE 'updated' END
                 FROM pg_trigger AS t
                WHERE t.tgrelid = wanted.relation AND t.tgname = wanted.name
                  AND t.tgfoid = 'keywright.track_resource()'::regprocedure);
    IF change IS NULL OR change = 'updated' THEN
      IF outcome = 'unchanged' THEN
        PERFORM keywright._require_only_table(tracked, type);
      END IF;
      EXECUTE format('CREATE OR REPLACE TRIGGER %I %s ON %s %s EXECUTE FUNCTION keywright.track_resource(%s)',
        wanted.name, wanted.event, wanted.relation, wanted.level, quoted);
      EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', wanted.relation, wanted.name);
      outcome := CASE WHEN change IS NULL AND outcome <> 'updated' THEN 'created' ELSE 'updated' END;
    END IF;
  END LOOP;
  IF outcome <> 'unchanged' THEN
    PERFORM keywright._note_tracked(tracked, outcome);
  END IF;
  EXECUTE format(
    'SELECT coalesce(sum(keywright.ensure_resources($1, b.ids, b.parent_ids, b.names)), 0)
       FROM (SELECT array_agg(r.id) AS ids, %s AS parent_ids, %s AS names
               FROM (SELECT t.%I::text AS id, %s AS parent_id, %s AS name, row_number() OVER () / 10000 AS batch FROM %s%s AS t) AS r
              GROUP BY r.batch) AS b',
    CASE WHEN columns[1] IS NULL THEN 'NULL::text[]' ELSE 'array_agg(r.parent_id)' END,
    CASE WHEN columns[2] IS NULL THEN 'NULL::text[]' ELSE 'array_agg(r.name)' END,
    id_column,
    CASE WHEN columns[1] IS NULL THEN 'NULL::text' ELSE format('t.%I::text', columns[1]) END,
    CASE WHEN columns[2] IS NULL THEN 'NULL::text' ELSE format('t.%I::text', columns[2]) END,
    CASE WHEN (SELECT c.relkind FROM pg_class AS c WHERE c.oid = tracked) <> 'p' THEN 'ONLY ' END, tracked)
    INTO resources_changed USING type;
  IF outcome = 'unchanged' AND resources_changed > 0 THEN
    outcome := 'updated';
  END IF;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION keywright.track_table(regclass, text, text, text, text) IS
'Lets an application''s own table decide which resources of a type exist: creates the triggers keywright_track_* on it, and registers the rows that are there. From then on INSERT, COPY, UPDATE, MERGE and DELETE, also by ON DELETE CASCADE, are followed in the same statement. When all its triggers have run, the resources are what the rows are. An id that a statement deletes or changes loses the role bindings on it and its entries in allow-lists, whatever row has the id afterwards. Where an UPDATE of ids ends role bindings, a WARNING says how many. TRUNCATE is refused. One table decides a type; of a table that others inherit from, its own rows count. Calling it again registers what is missing: after a restore, and after a partition was added. The triggers stay when the capability of who made them is revoked: drop them to end it.
Runs with the rights of the caller, who must own the table; the caller needs the capability reconciler or admin.
Arguments: tracked; type (registered); id_column (a key that does not change), parent_column and name_column (parent_column null: no parents are kept; name_column null: no names).
Result: outcome created, updated or unchanged; resources_changed (resources made or changed by this call).
Errors: those of track_resource; 42710 another table decides the type; 42501 the caller is not the owner, or row security would hide rows from it.
Example: SELECT * FROM keywright.track_table(''projects'', ''project'', ''id'', ''organization_id'', ''title'');';
