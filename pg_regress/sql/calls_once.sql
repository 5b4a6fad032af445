-- SELECT (f(...)).* calls f once. Postgres repeats a call for each of its columns, unless it returns a set; so whatever
-- mints, rotates or writes returns a set of one row.

-- More than one column and not a set: these by name, and no other. They write nothing, and are called in expressions.
SELECT p.oid::regprocedure AS exception FROM pg_proc AS p JOIN pg_type AS t ON t.oid = p.prorettype
 WHERE p.pronamespace = 'keywright'::regnamespace AND p.proname NOT LIKE '\_%' AND NOT p.proretset AND p.provolatile = 'v'
   AND (t.typtype = 'c' OR t.oid = 'record'::regtype) ORDER BY p.oid::regprocedure::text;
-- The sets of one row.
SELECT p.oid::regprocedure AS "function" FROM pg_proc AS p
 WHERE p.pronamespace = 'keywright'::regnamespace AND p.proname NOT LIKE '\_%' AND p.prorows = 1 ORDER BY p.oid::regprocedure::text;

BEGIN;
CREATE FUNCTION pg_temp.writes(statement text, OUT "rows" bigint, OUT written text) LANGUAGE plpgsql AS $$
DECLARE
  seen constant uuid[] := (SELECT array_agg(event_id) FROM keywright.audit_events);
BEGIN
  EXECUTE statement;
  GET DIAGNOSTICS "rows" = ROW_COUNT;
  written := (SELECT string_agg(format('%s %s x %s', e.n, e.kind, e.event), ', ' ORDER BY e.kind, e.event)
                FROM (SELECT count(*) AS n, kind, event FROM keywright.audit_events WHERE event_id <> ALL (seen)
                       GROUP BY kind, event) AS e);
END
$$;
CREATE TABLE public.regress_once (id text PRIMARY KEY);
SELECT number, w.* FROM (VALUES
  (1, $$SELECT (keywright.ensure_user('once', '')).*$$),
  (2, $$SELECT (keywright.ensure_system_user('once-system', roles => '{}', organization_role => '')).*$$),
  (3, $$SELECT (keywright.bind_role('once', 'auditor')).*$$),
  (4, $$SELECT (keywright.mint_api_key('once', 'minted')).*$$),
  (5, $$SELECT (keywright.ensure_api_key('once', 'ensured')).*$$),
  (6, $$SELECT (keywright.rotate_api_key(k.key_id)).* FROM keywright.list_api_keys('once') AS k WHERE k.name = 'minted'$$),
  (7, $$SELECT (keywright.mint_gateway_key('once')).*$$),
  (8, $$SELECT (keywright.ensure_gateway_key('once-ensured')).*$$),
  (9, $$SELECT (keywright.rotate_gateway_key('once')).*$$),
  (10, $$SELECT (keywright.delete_gateway_key('once')).*$$),
  (11, $$SELECT (keywright.ensure_operator_access('once', 'plane', prefix => 'once-operator-')).*$$),
  (12, $$SELECT (keywright.track_table('public.regress_once', 'project')).*$$),
  (13, $$SELECT (keywright.explain_api_key('nonsense')).*$$),
  -- Whatever else is in the list, or around it.
  (14, $$SELECT (keywright.rotate_gateway_key('once-ensured')).*, generate_series(1, 3)$$),
  (15, $$SELECT (keywright.ensure_gateway_key('once-series')).*, generate_series(1, 3)$$),
  (16, $$SELECT r.*, (r).token FROM (SELECT (keywright.rotate_gateway_key('once-ensured')).*) AS r ORDER BY r.token LIMIT 1$$),
  (17, $$SELECT (keywright.mint_api_key('once', 'a-key-' || n)).* FROM generate_series(1, 2) AS n ORDER BY 1$$),
  (18, $$SELECT keywright.mint_api_key('once', 'as-a-row')$$),
  (19, $$SELECT * FROM keywright.mint_api_key('once', 'from')$$),
  (20, $$SELECT k.* FROM generate_series(1, 2) AS n, keywright.mint_api_key('once', 'b-key-' || n) AS k$$),
  (21, $s$DO $do$ DECLARE r record; t text; BEGIN r := keywright.mint_api_key('once', 'assigned'); t := (keywright.mint_api_key('once', 'field')).token;
    PERFORM keywright.mint_api_key('once', 'performed'); PERFORM (keywright.mint_api_key('once', 'expanded')).*; ASSERT length(r.token) = 43 AND length(t) = 43; END $do$ $s$)
) AS s (number, statement), LATERAL pg_temp.writes(s.statement) AS w ORDER BY number;
ROLLBACK;
