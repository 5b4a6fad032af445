-- Every function as it is, so that an accidental grant, a lost search_path or a changed default is a diff.
-- owner: the role that installed the extension. acl: who else than the owner may execute.
SELECT p.oid::regprocedure AS function, l.lanname AS language,
       CASE WHEN p.prosecdef THEN 'definer' ELSE 'invoker' END AS rights, array_to_string(p.proconfig, ', ') AS settings,
       CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END AS volatility,
       CASE p.proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END AS parallel,
       CASE WHEN p.proisstrict THEN 'strict' ELSE '' END AS strict,
       p.proowner = (SELECT extowner FROM pg_extension WHERE extname = 'keywright') AS owner,
       (SELECT string_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE replace(a.grantee::regrole::text, 'regress_keywright_', '') END, ',' ORDER BY a.grantee::regrole::text)
          FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a WHERE a.grantee <> p.proowner) AS acl
  FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
 WHERE p.pronamespace = 'keywright'::regnamespace
 ORDER BY p.oid::regprocedure::text;
-- Without SECURITY DEFINER and the search_path: these by name, and no other.
SELECT p.oid::regprocedure AS exception FROM pg_proc AS p
 WHERE p.pronamespace = 'keywright'::regnamespace
   AND (NOT p.prosecdef OR p.proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp'])
 ORDER BY 1;
-- Arguments with their defaults, and results.
SELECT p.proname || '(' || pg_get_function_arguments(p.oid) || ')' AS signature, pg_get_function_result(p.oid) AS result
  FROM pg_proc AS p WHERE p.pronamespace = 'keywright'::regnamespace AND p.proname NOT LIKE '\_%' ORDER BY p.oid::regprocedure::text;
-- Schema, tables and views.
SELECT n.nspname, (SELECT count(*) FROM aclexplode(n.nspacl) AS a WHERE a.grantee = 0) AS public FROM pg_namespace AS n WHERE n.nspname = 'keywright';
SELECT c.relname, c.relkind, c.relrowsecurity AS row_security, c.relforcerowsecurity AS forced,
       (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid) AS policies, c.relacl IS NULL
         OR NOT EXISTS (SELECT FROM aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner) AS owner_only
  FROM pg_class AS c WHERE c.relnamespace = 'keywright'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'S', 'f', 'p') ORDER BY 1;
-- Types of our own.
SELECT t.oid::regtype AS type, t.typacl IS NOT NULL
         AND NOT EXISTS (SELECT FROM aclexplode(t.typacl) AS a WHERE a.grantee <> t.typowner) AS owner_only
  FROM pg_type AS t JOIN pg_class AS c ON c.oid = t.typrelid WHERE t.typnamespace = 'keywright'::regnamespace AND c.relkind = 'c';
-- No column of a view and no result of a function is a hash.
SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
 WHERE relnamespace = 'keywright'::regnamespace AND relkind <> 'r' AND atttypid = 'bytea'::regtype AND relkind <> 'i';
SELECT p.oid::regprocedure FROM pg_proc AS p, LATERAL unnest(p.proallargtypes, p.proargmodes, p.proargnames) AS a (type, mode, name)
 WHERE p.pronamespace = 'keywright'::regnamespace AND a.mode IN ('o', 't', 'b') AND (a.type = 'bytea'::regtype OR a.name ~ 'hash');
-- Hashes stay in line, where verification reads them without detoasting, and out of the planner's statistics.
SELECT attrelid::regclass, attname, attstorage, coalesce(attstattarget, -1) AS statistics FROM pg_attribute
 WHERE attrelid::regclass::text LIKE 'keywright.%' AND attname = 'hashed_secret' AND attrelid IN (SELECT oid FROM pg_class WHERE relkind = 'r') ORDER BY 1;
-- The extension itself.
SELECT extname, extnamespace::regnamespace, extrelocatable, cardinality(extconfig) AS dumped_tables FROM pg_extension WHERE extname = 'keywright';
SELECT superuser, trusted, relocatable, schema FROM pg_available_extension_versions JOIN pg_available_extensions USING (name) WHERE name = 'keywright' AND version = default_version;
