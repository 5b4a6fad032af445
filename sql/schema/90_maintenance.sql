-- Maintenance, for a job.

CREATE FUNCTION keywright.purge_gateway_keys() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'purge_gateway_keys_wrapper';
COMMENT ON FUNCTION keywright.purge_gateway_keys() IS
'Deletes gateway keys that were rotated away and whose grace is over, and heartbeats of keys that are gone.
Result: the number of keys deleted.';

-- Invoker on purpose, and without a search_path: a procedure with either can not commit. Every name is
-- qualified, and what writes are functions with rights of their own.
CREATE PROCEDURE keywright.maintain(retention interval DEFAULT '7 days', batch integer DEFAULT 10000)
LANGUAGE plpgsql SECURITY INVOKER
AS $$
BEGIN
  WHILE keywright.purge_api_keys(retention, batch) OPERATOR(pg_catalog.>=) batch LOOP
    COMMIT;
  END LOOP;
  PERFORM keywright.purge_gateway_keys();
  COMMIT;
END
$$;
COMMENT ON PROCEDURE keywright.maintain(interval, integer) IS
'Purges keys that have been dead for longer than retention, with a commit a batch. Can be interrupted and called again at any time; call it outside a transaction block.
Arguments and errors: as for purge_api_keys (22023).';
