-- Maintenance, for a job.

CREATE FUNCTION keywright.purge_gateway_keys() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'purge_gateway_keys_wrapper';
COMMENT ON FUNCTION keywright.purge_gateway_keys() IS
'Deletes gateway keys that were rotated away and whose grace is over, and heartbeats of keys that are gone.
Result: the number of keys deleted.
Errors: none of its own.
Example: SELECT keywright.purge_gateway_keys();';

CREATE FUNCTION keywright.purge_api_key_usage(batch integer DEFAULT 10000) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'purge_api_key_usage_wrapper';
COMMENT ON FUNCTION keywright.purge_api_key_usage(integer) IS
'Deletes the usage of keys that are gone, one batch a call.
Arguments: batch (the most rows to delete, 1 to 1000000). Rows that another session holds are left for the next call.
Result: the number of rows deleted.
Errors: 22023 malformed argument.
Example: SELECT keywright.purge_api_key_usage();';

-- Invoker on purpose, and without a search_path: a procedure with either can not commit. Every name is
-- qualified, and what writes are functions with rights of their own.
CREATE PROCEDURE keywright.maintain(retention interval DEFAULT '7 days', batch integer DEFAULT 10000)
LANGUAGE plpgsql SECURITY INVOKER
AS $$
DECLARE
  done pg_catalog.int8;
  total pg_catalog.int8 := 0;
BEGIN
  -- The progress is the session's application_name, set for one transaction at a time: whatever ends that, an error or a
  -- cancel included, puts back the name the session had.
  LOOP
    PERFORM pg_catalog.set_config('application_name',
      pg_catalog.format('keywright.maintain: %s API keys purged', total), true);
    done := keywright.purge_api_keys(retention, batch);
    COMMIT;
    total := total OPERATOR(pg_catalog.+) done;
    EXIT WHEN done OPERATOR(pg_catalog.<) batch;
  END LOOP;
  LOOP
    PERFORM pg_catalog.set_config('application_name', 'keywright.maintain: purging usage', true);
    done := keywright.purge_api_key_usage(batch);
    COMMIT;
    EXIT WHEN done OPERATOR(pg_catalog.<) batch;
  END LOOP;
  PERFORM pg_catalog.set_config('application_name', 'keywright.maintain: purging gateway keys', true);
  PERFORM keywright.purge_gateway_keys();
  COMMIT;
  total := 0;
  LOOP
    PERFORM pg_catalog.set_config('application_name',
      pg_catalog.format('keywright.maintain: %s audit events pruned', total), true);
    done := keywright.prune_audit_events(batch);
    COMMIT;
    total := total OPERATOR(pg_catalog.+) done;
    EXIT WHEN done OPERATOR(pg_catalog.<) batch;
  END LOOP;
END
$$;
COMMENT ON PROCEDURE keywright.maintain(interval, integer) IS
'Purges API keys that have been dead for longer than retention, then the usage of keys that are gone, then gateway keys whose grace is over, then prunes audit events older than the setting keywright.audit_retention: with a commit a batch, so that it can be interrupted and called again at any time, and what it had committed stays. Call it outside a transaction block.
Arguments: retention (as for purge_api_keys, 0 to 100 years; of keys only); batch (the most rows a commit, 1 to 1000000).
Progress: the application_name of the session in pg_stat_activity, during each batch, is such as keywright.maintain: 30000 API keys purged.
Errors: 22023 malformed argument; 42501 the client set keywright.audit_retention when it connected (the keys are purged by then).
Example: CALL keywright.maintain();';
