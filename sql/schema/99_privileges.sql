-- Nobody has anything but the owner: not PUBLIC, and not whom somebody's ALTER DEFAULT PRIVILEGES favours.
-- Last, so that no object escapes it.
DO $$
DECLARE
  command pg_catalog.text;
BEGIN
  FOR command IN
    SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', o.kind, o.name,
             CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
                  ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
      FROM (
        SELECT 'SCHEMA' AS kind, pg_catalog.quote_ident(n.nspname) AS name, n.nspacl AS acl, n.nspowner AS owner
          FROM pg_catalog.pg_namespace AS n WHERE n.nspname OPERATOR(pg_catalog.=) 'keywright'
        UNION ALL
        SELECT 'TABLE', c.oid::pg_catalog.regclass::pg_catalog.text, c.relacl, c.relowner
          FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace OPERATOR(pg_catalog.=) 'keywright'::pg_catalog.regnamespace
           AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v']::pg_catalog."char"[])
        UNION ALL
        SELECT 'TYPE', t.oid::pg_catalog.regtype::pg_catalog.text,
               coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner)), t.typowner
          FROM pg_catalog.pg_type AS t
          LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.typrelid
         WHERE t.typnamespace OPERATOR(pg_catalog.=) 'keywright'::pg_catalog.regnamespace
           AND (c.relkind OPERATOR(pg_catalog.=) 'c' OR t.typtype OPERATOR(pg_catalog.=) 'd')
        UNION ALL
        SELECT 'ROUTINE', p.oid::pg_catalog.regprocedure::pg_catalog.text,
               coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner
          FROM pg_catalog.pg_proc AS p
         WHERE p.pronamespace OPERATOR(pg_catalog.=) 'keywright'::pg_catalog.regnamespace
      ) AS o
      CROSS JOIN LATERAL (
        SELECT DISTINCT x.grantee FROM pg_catalog.aclexplode(o.acl) AS x
         WHERE x.grantee OPERATOR(pg_catalog.<>) o.owner) AS a
  LOOP
    EXECUTE command;
  END LOOP;
END
$$;
