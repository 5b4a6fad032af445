-- Metrics, for whoever watches.

CREATE FUNCTION keywright._estimated_rows(relation regclass) RETURNS double precision
LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'estimated_rows_wrapper';
COMMENT ON FUNCTION keywright._estimated_rows(regclass) IS
'Internal. The rows of a table, or the entries of an index, as the planner estimates them: the density it had when it was last vacuumed or analyzed, times its size of now.';

CREATE FUNCTION keywright.metrics()
RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- So many rows are counted; more are estimated.
  few constant double precision := 100000;
  -- In a variable, so that an index can be searched for it.
  moment constant timestamptz := clock_timestamp();
  -- So many keys are looked at for the next that expires.
  ahead constant bigint := 10000;
  users double precision := keywright._estimated_rows('keywright.users_username_idx');
  api_keys double precision := keywright._estimated_rows('keywright.api_keys');
  current_api_keys double precision := keywright._estimated_rows('keywright.api_keys_name_idx');
  role_bindings double precision := keywright._estimated_rows('keywright.role_bindings');
  resources double precision := keywright._estimated_rows('keywright.resources');
  audit_events double precision := keywright._estimated_rows('keywright.audit_events');
  next_expiry timestamptz;
BEGIN
  IF users <= few THEN
    SELECT count(*) INTO users FROM keywright.users AS u WHERE u.deleted_at IS NULL;
  END IF;
  IF api_keys <= few THEN
    SELECT count(*), count(*) FILTER (WHERE k.revoked_at IS NULL AND k.superseded_at IS NULL)
      INTO api_keys, current_api_keys FROM keywright.api_keys AS k;
  ELSIF current_api_keys <= few THEN
    SELECT count(*) INTO current_api_keys FROM keywright.api_keys AS k
     WHERE k.revoked_at IS NULL AND k.superseded_at IS NULL;
  END IF;
  IF role_bindings <= few THEN
    SELECT count(*) INTO role_bindings FROM keywright.role_bindings;
  END IF;
  IF resources <= few THEN
    SELECT count(*) INTO resources FROM keywright.resources;
  END IF;
  IF audit_events <= few THEN
    SELECT count(*) INTO audit_events FROM keywright.audit_events;
  END IF;
  -- Among many that are retired, as after a great revocation, none is searched for: then it is the moment before
  -- which none expires.
  SELECT n.expires_at INTO next_expiry
    FROM (SELECT k.expires_at, k.revoked_at IS NULL AND k.superseded_at IS NULL AS is_current
            FROM keywright.api_keys AS k WHERE k.expires_at > moment ORDER BY k.expires_at LIMIT ahead) AS n
   WHERE n.is_current LIMIT 1;
  IF next_expiry IS NULL THEN
    SELECT k.expires_at INTO next_expiry
      FROM keywright.api_keys AS k WHERE k.expires_at > moment ORDER BY k.expires_at OFFSET ahead - 1 LIMIT 1;
  END IF;

  RETURN QUERY
  SELECT m.name, m.labels, m.value FROM (
    SELECT 'keywright_info', jsonb_build_object('version', e.extversion), 1
      FROM pg_catalog.pg_extension AS e WHERE e.extname = 'keywright'
    UNION ALL VALUES
      ('keywright_users', '{}'::jsonb, users),
      ('keywright_api_keys', '{"state": "current"}', least(current_api_keys, api_keys)),
      ('keywright_api_keys', '{"state": "retired"}', greatest(api_keys - current_api_keys, 0)),
      ('keywright_api_keys_next_expiry_timestamp_seconds', '{}', extract(epoch FROM next_expiry)),
      ('keywright_api_keys_oldest_expired_timestamp_seconds', '{}', extract(epoch FROM (
        SELECT k.expires_at FROM keywright.api_keys AS k WHERE k.expires_at <= moment ORDER BY k.expires_at LIMIT 1))),
      ('keywright_role_bindings', '{}', role_bindings),
      ('keywright_resources', '{}', resources),
      ('keywright_audit_events', '{}', audit_events),
      ('keywright_audit_oldest_event_timestamp_seconds', '{}', extract(epoch FROM (
        SELECT e.occurred_at FROM keywright.audit_events AS e WHERE isfinite(e.occurred_at) ORDER BY e.occurred_at LIMIT 1))),
      ('keywright_notification_queue_usage_ratio', '{}', pg_notification_queue_usage())
    UNION ALL
    SELECT 'keywright_gateway_keys', jsonb_build_object('state', s.state),
           (SELECT count(*) FROM keywright.gateway_keys AS k
             WHERE CASE s.state WHEN 'live' THEN k.superseded_at IS NULL ELSE k.expires_at > moment END)
      FROM unnest(ARRAY['live', 'grace']) AS s (state)
    UNION ALL
    -- By name: while a key is in its grace, it is the same gateway's.
    SELECT 'keywright_gateway_key_last_heartbeat_timestamp_seconds', jsonb_build_object('gateway_key', lower(k.name)),
           extract(epoch FROM max(h.last_heartbeat_at))
      FROM keywright.gateway_keys AS k JOIN keywright.gateway_key_heartbeats AS h USING (gateway_key_id)
     WHERE isfinite(h.last_heartbeat_at) GROUP BY lower(k.name)
    UNION ALL
    SELECT u.name, u.labels, u.value FROM keywright._usage_metrics() AS u
    UNION ALL
    SELECT 'keywright_authenticators', '{}', count(*) FROM keywright.authenticators
    UNION ALL
    SELECT 'keywright_authenticator_differences', jsonb_build_object('service', coalesce(s.service, d.service, '')), count(d.differs)
      FROM (SELECT a.service FROM keywright.authenticators AS a) AS s
      FULL JOIN (SELECT t.service, true AS differs FROM keywright.authenticator_status() AS t) AS d USING (service)
     GROUP BY 2
  ) AS m (name, labels, value)
   WHERE m.value IS NOT NULL
   ORDER BY m.name, m.labels;
END
$$;
COMMENT ON FUNCTION keywright.metrics() IS
'Metrics in the manner of Prometheus: gauges, and counters where the name ends in _total. Works in READ ONLY transactions and on a standby, and stays cheap at any size: up to about 100000 rows of a table are counted, in some tens of milliseconds, and beyond that the planner''s estimate is given, which is as good as the last VACUUM or ANALYZE.
Result: a row a series, by name: name; labels (an object of strings); value (never null). What has no value has no row.
keywright_info{version}: 1. keywright_users: users that are not deleted. keywright_api_keys{state}: current (holds its name: neither revoked nor superseded; it may have expired) or retired. keywright_api_keys_next_expiry_timestamp_seconds: when the next current key expires; where the next 10000 to expire are all retired, a moment before which none does. keywright_api_keys_oldest_expired_timestamp_seconds: the oldest expiry that has passed, and so how far the purge lags. keywright_gateway_keys{state}: live or grace. keywright_gateway_key_last_heartbeat_timestamp_seconds{gateway_key}: by name. keywright_role_bindings, keywright_resources, keywright_authenticators. keywright_authenticator_differences{service}: rows of authenticator_status, 0 when in sync; service is empty for what was granted for a database that is gone. keywright_audit_events, keywright_audit_oldest_event_timestamp_seconds. keywright_notification_queue_usage_ratio: 0 to 1, of the whole server.
Only where keywright is in shared_preload_libraries, and of this node since it started: keywright_verifications_total{kind,outcome}: verifications in this database, of an api_key active, malformed, unknown, wrong-secret, revoked, expired or user-inactive, of a gateway_key active, malformed, unknown, wrong-secret or expired; the first 64 databases that verify are counted. keywright_usage_last_flush_timestamp_seconds: what was noted in this database before then is in its table; no row on a standby. keywright_usage_slots{state}: places in memory, of the whole server: free, clean (written) or dirty (not written yet). keywright_usage_dropped_total: keys that were dropped because all places were dirty, of the whole server: what was noted of them since the last flush is lost, unless it was being written at that moment.
Errors: none of its own.
Example: SELECT name, labels, value FROM keywright.metrics();';
