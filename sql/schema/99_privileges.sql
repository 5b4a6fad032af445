-- Nobody has anything but the owner: not PUBLIC, and not whom somebody's ALTER DEFAULT PRIVILEGES favours.
-- Last, so that no object escapes it.
DO $$
DECLARE
  command text;
BEGIN
  FOR command IN
    SELECT format('REVOKE ALL ON %s %s FROM %s CASCADE', o.kind, o.name,
             CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
      FROM (
        SELECT 'SCHEMA' AS kind, quote_ident(n.nspname) AS name, n.nspacl AS acl, n.nspowner AS owner
          FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'keywright'
        UNION ALL
        SELECT 'TABLE', c.oid::regclass::text, c.relacl, c.relowner
          FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace = 'keywright'::regnamespace AND c.relkind IN ('r', 'v')
        UNION ALL
        SELECT 'ROUTINE', p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
          FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = 'keywright'::regnamespace
        UNION ALL
        SELECT 'TYPE', t.oid::regtype::text, coalesce(t.typacl, acldefault('T', t.typowner)), t.typowner
          FROM pg_catalog.pg_type AS t
         WHERE t.typnamespace = 'keywright'::regnamespace AND t.typtype IN ('e', 'd')
      ) AS o
      CROSS JOIN LATERAL (SELECT DISTINCT x.grantee FROM aclexplode(o.acl) AS x WHERE x.grantee <> o.owner) AS a
  LOOP
    EXECUTE command;
  END LOOP;
END
$$;
