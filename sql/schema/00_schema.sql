-- The schema, and how a broken rule is reported.
--
-- CREATE SCHEMA is plain on purpose: if somebody prepared a schema of this name, installing fails
-- instead of moving into it.
CREATE SCHEMA keywright;
COMMENT ON SCHEMA keywright IS
'Machine credentials. Call the functions; the tables are closed to all but their owner. Functions whose name starts with an underscore are internal. Give access with keywright.grant_access(grantee, capability). The manual is SELECT * FROM keywright.help(topic).';

CREATE FUNCTION keywright._writing() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'writing_wrapper';
COMMENT ON FUNCTION keywright._writing() IS
'Internal. True while one of the extension''s own functions writes; false for a statement written by hand. Kept in backend memory, so no setting can forge it.';

CREATE FUNCTION keywright._note_refusal(sqlstate text, message text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'note_refusal_wrapper';
COMMENT ON FUNCTION keywright._note_refusal(text, text) IS
'Internal. Writes to the server''s log who was refused what; the error that follows takes everything else along.';

-- The one place that raises an error with a constraint name. A native violation would print the row, hash
-- included, and an error that passes through compiled code loses the constraint's name.
CREATE FUNCTION keywright._refuse(
  sqlstate text, table_name text, constraint_name text, message text, detail text, hint text
) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM keywright._note_refusal(_refuse.sqlstate, _refuse.message);
  RAISE EXCEPTION USING
    ERRCODE = _refuse.sqlstate, MESSAGE = _refuse.message, DETAIL = _refuse.detail, HINT = _refuse.hint,
    SCHEMA = 'keywright', TABLE = _refuse.table_name, CONSTRAINT = _refuse.constraint_name;
END
$$;
COMMENT ON FUNCTION keywright._refuse(text, text, text, text, text, text) IS
'Internal. Raises an error that carries schema, table and constraint in its diagnostics fields.';

CREATE FUNCTION keywright._name_fault(
  constraint_name text, name text, OUT table_name text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'name_fault_wrapper';
COMMENT ON FUNCTION keywright._name_fault(text, text) IS
'Internal. What is wrong with a name under the rule of the named CHECK constraint, and the nearest accepted spelling; nulls when it is right.';

CREATE FUNCTION keywright._require_name(constraint_name text, name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fault record;
BEGIN
  SELECT * INTO fault FROM keywright._name_fault(constraint_name, name);
  IF fault.message IS NOT NULL THEN
    PERFORM keywright._refuse('23514', fault.table_name, constraint_name, fault.message, fault.detail, fault.hint);
  END IF;
END
$$;
COMMENT ON FUNCTION keywright._require_name(text, text) IS
'Internal. Raises 23514 with the constraint''s name when the name breaks its rule, 22023 when it is null.';

CREATE FUNCTION keywright._page_size(page_size integer) RETURNS integer
LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'page_size_wrapper';
COMMENT ON FUNCTION keywright._page_size(integer) IS
'Internal. The page size, or 22023 when it is not 1 to 10000.';

CREATE FUNCTION keywright.version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'version_wrapper';
COMMENT ON FUNCTION keywright.version() IS
'The version of the library that this session has loaded. That of the schema is extversion in pg_extension; between installing a new library and ALTER EXTENSION keywright UPDATE they differ.
Errors: none of its own.
Example: SELECT keywright.version();';
