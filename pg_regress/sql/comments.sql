-- Everything a user can name has a comment.
SELECT 'function' AS kind, p.oid::regprocedure::text AS name FROM pg_proc AS p
 WHERE p.pronamespace = 'keywright'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
UNION ALL
SELECT 'relation', c.oid::regclass::text FROM pg_class AS c
 WHERE c.relnamespace = 'keywright'::regnamespace AND c.relkind IN ('r', 'v', 'i') AND obj_description(c.oid, 'pg_class') IS NULL
UNION ALL
SELECT 'type', t.oid::regtype::text FROM pg_type AS t JOIN pg_class AS c ON c.oid = t.typrelid
 WHERE t.typnamespace = 'keywright'::regnamespace AND c.relkind = 'c' AND obj_description(t.oid, 'pg_type') IS NULL
UNION ALL
SELECT 'column', c.oid::regclass || '.' || a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
 WHERE c.relnamespace = 'keywright'::regnamespace AND c.relkind IN ('r', 'v', 'c') AND a.attnum > 0 AND NOT a.attisdropped
   AND col_description(c.oid, a.attnum) IS NULL
UNION ALL
SELECT 'constraint', conname FROM pg_constraint WHERE connamespace = 'keywright'::regnamespace AND contype <> 'n'
   AND obj_description(oid, 'pg_constraint') IS NULL
UNION ALL
SELECT 'trigger', tgname FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid
 WHERE c.relnamespace = 'keywright'::regnamespace AND NOT tgisinternal AND obj_description(pg_trigger.oid, 'pg_trigger') IS NULL
UNION ALL
SELECT 'schema', nspname FROM pg_namespace WHERE nspname = 'keywright' AND obj_description(oid, 'pg_namespace') IS NULL;
-- A function that can be refused says with which SQLSTATE.
SELECT p.oid::regprocedure AS function, array_to_string(ARRAY(
         SELECT DISTINCT m[1] FROM regexp_matches(obj_description(p.oid, 'pg_proc'), '\m((?:22|23|25|28|42|55)[0-9]{3})\M', 'g') AS m ORDER BY 1), ' ') AS errors
  FROM pg_proc AS p WHERE p.pronamespace = 'keywright'::regnamespace AND p.proname NOT LIKE '\_%' ORDER BY p.oid::regprocedure::text;
