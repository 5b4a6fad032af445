-- metrics: names and labels, what each counts, and when a number is an estimate.
\pset null '(null)'
BEGIN;
DELETE FROM keywright.api_keys;
DELETE FROM keywright.role_bindings WHERE role <> 'owner';
DELETE FROM keywright.gateway_keys;
DELETE FROM keywright.gateway_key_heartbeats;
SET LOCAL SESSION AUTHORIZATION regress_keywright_auditor;
-- With nothing there: what has no value has no row.
SELECT name, labels FROM keywright.metrics();
RESET SESSION AUTHORIZATION;

-- A user with a key that expires first but was revoked, one to come, one that has expired, and one superseded.
SELECT count(*) FROM keywright.ensure_user('metric', '');
SELECT key_id AS revoked FROM keywright.mint_api_key('metric', 'revoked', lifetime => '1 hour') \gset
SELECT keywright.revoke_api_key(:'revoked');
SELECT expires_at AS next_expiry FROM keywright.mint_api_key('metric', 'next', lifetime => '1 day') \gset
SELECT count(*) FROM keywright.mint_api_key('metric', 'later', lifetime => '2 days');
INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list, lifetime, created_at)
  SELECT 'metric000' || n, user_id, 'expired-' || n, sha256('x'), timestamptz '2020-01-01 00:00:00+00' + n * interval '1 day',
         '{all}', '{*:*}', '1 day', '2019-12-31'
    FROM keywright.users, generate_series(0, 2) AS n WHERE username = 'metric';
SELECT key_id AS rotated FROM keywright.mint_api_key('metric', 'rotated', lifetime => '30 days') \gset
SELECT count(*) FROM keywright.rotate_api_key(:'rotated', '1 hour');
SELECT labels ->> 'state' AS state, value FROM keywright.metrics() WHERE name = 'keywright_api_keys';
SELECT name, CASE WHEN name ~ 'next' THEN value = extract(epoch FROM :'next_expiry'::timestamptz)::double precision END AS is_the_next,
       CASE WHEN name ~ 'oldest' THEN to_timestamp(value) AT TIME ZONE 'UTC' END AS oldest
  FROM keywright.metrics() WHERE name ~ 'api_keys_.*timestamp' ORDER BY name;
-- The expired ones go, by the maintenance that the metric watches.
SELECT keywright.purge_api_keys('7 days');
SELECT count(*) AS oldest FROM keywright.metrics() WHERE name ~ 'oldest_expired';

-- Gateways: rotated, so that a name has two keys, one heartbeat each, and one that was never heard of.
SELECT gateway_key_id AS a FROM keywright.mint_gateway_key('edge-1') \gset
SELECT keywright.heartbeat_gateway_key(:'a');
SELECT gateway_key_id AS b FROM keywright.rotate_gateway_key('edge-1', '1 hour') \gset
SELECT keywright.heartbeat_gateway_key(:'b');
SELECT count(*) FROM keywright.mint_gateway_key('edge-2');
SELECT labels, value FROM keywright.metrics() WHERE name = 'keywright_gateway_keys';
SELECT m.labels, m.value = extract(epoch FROM l.last_heartbeat_at)::double precision AS the_latest
  FROM keywright.metrics() AS m
  LEFT JOIN keywright.list_gateway_keys() AS l ON l.name = m.labels ->> 'gateway_key' AND l.expires_at IS NULL
 WHERE m.name = 'keywright_gateway_key_last_heartbeat_timestamp_seconds';

-- The rest is what the lists say.
SELECT m.name, m.value = CASE m.name
         WHEN 'keywright_users' THEN (SELECT count(*) FROM keywright.users WHERE deleted_at IS NULL)
         WHEN 'keywright_role_bindings' THEN (SELECT count(*) FROM keywright.role_bindings)
         WHEN 'keywright_resources' THEN (SELECT count(*) FROM keywright.resources)
         WHEN 'keywright_authenticators' THEN (SELECT count(*) FROM keywright.authenticators)
         WHEN 'keywright_audit_events' THEN (SELECT count(*) FROM keywright.audit_events)
         WHEN 'keywright_audit_oldest_event_timestamp_seconds' THEN (SELECT extract(epoch FROM min(occurred_at)) FROM keywright.audit_events)
         WHEN 'keywright_info' THEN (SELECT 1 FROM pg_extension WHERE extversion = m.labels ->> 'version' AND extname = 'keywright')
       END AS is
  FROM keywright.metrics() AS m
 WHERE m.name IN ('keywright_users', 'keywright_role_bindings', 'keywright_resources', 'keywright_authenticators', 'keywright_audit_events',
   'keywright_audit_oldest_event_timestamp_seconds', 'keywright_info') ORDER BY 1;
SELECT value BETWEEN 0 AND 1 AS ratio FROM keywright.metrics() WHERE name = 'keywright_notification_queue_usage_ratio';

-- A service out of step has its differences, one in step has 0.
CREATE ROLE regress_metric LOGIN;
CREATE ROLE regress_metric_anon;
CREATE ROLE regress_metric_user;
SELECT count(*) > 0 AS granted FROM keywright.grant_authenticator('metric', 'regress_metric', 'regress_metric_anon');
SELECT count(*) > 0 AS granted FROM keywright.grant_authenticator('other', 'regress_metric', 'regress_metric_user', noinherit => false);
ALTER ROLE regress_metric INHERIT;
SELECT m.labels, m.value, m.value = (SELECT count(*) FROM keywright.authenticator_status() AS s WHERE s.service = m.labels ->> 'service') AS is
  FROM keywright.metrics() AS m WHERE m.name = 'keywright_authenticator_differences' ORDER BY 1;
SELECT count(*) AS mended FROM keywright.reconcile_authenticators();
SELECT labels, value FROM keywright.metrics() WHERE name = 'keywright_authenticator_differences' ORDER BY 1;
SELECT value FROM keywright.metrics() WHERE name = 'keywright_authenticators';

-- A hundred thousand rows and more are not counted: the number is the planner's, which does not know yet what was deleted
-- since. The few that are current are.
SET LOCAL keywright.notify = off;
INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, revoked_at, scopes, allow_list, lifetime, created_at)
  SELECT 'm' || lpad(n::text, 9, '0'), user_id, 'many-' || n, sha256('x'), clock_timestamp() + interval '1 hour',
         CASE WHEN n <= 115000 THEN clock_timestamp() END, '{all}', '{*:*}', '1 day', clock_timestamp()
    FROM keywright.users, generate_series(1, 120000) AS n WHERE username = 'metric';
ANALYZE keywright.api_keys;
DELETE FROM keywright.api_keys WHERE name ~ '^many-[0-9]{3}$';
SELECT m.labels, m.value = e.n AS exact, m.value BETWEEN 0.9 * e.n AND 1.1 * e.n AS near
  FROM keywright.metrics() AS m,
       LATERAL (SELECT count(*) AS n FROM keywright.api_keys
                 WHERE (revoked_at IS NULL AND superseded_at IS NULL) = (m.labels ->> 'state' = 'current')) AS e
 WHERE m.name = 'keywright_api_keys' ORDER BY 1;
-- 10000 and more that are revoked expire before the next that is current: the moment lies between.
SELECT to_timestamp(value) > clock_timestamp() AND to_timestamp(value) <= (
         SELECT min(expires_at) FROM keywright.api_keys
          WHERE revoked_at IS NULL AND superseded_at IS NULL AND expires_at > clock_timestamp()) AS before_the_next
  FROM keywright.metrics() WHERE name = 'keywright_api_keys_next_expiry_timestamp_seconds';
SELECT keywright._estimated_rows(NULL);
-- And of what is not there.
SELECT keywright._estimated_rows('0'), keywright._estimated_rows('1');
ROLLBACK;

-- No series twice, no null, nothing infinite; names and labels as Prometheus has them. It writes nothing.
SET SESSION AUTHORIZATION regress_keywright_auditor;
BEGIN READ ONLY;
SELECT count(*) - count(DISTINCT (name, labels)) AS twice, count(*) FILTER (WHERE value IS NULL OR value IN ('NaN', 'Infinity', '-Infinity')) AS bad,
       count(*) FILTER (WHERE name !~ '^keywright_[a-z_]*[a-z]$' OR name ~ '_total$') AS ill_named,
       count(*) FILTER (WHERE EXISTS (SELECT FROM jsonb_each(labels) AS l WHERE l.key !~ '^[a-z_]+$' OR jsonb_typeof(l.value) <> 'string')) AS ill_labelled
  FROM keywright.metrics();
SELECT pg_current_xact_id_if_assigned();
COMMIT;
-- Not for everybody.
SET SESSION AUTHORIZATION regress_keywright_issuer;
SELECT * FROM keywright.metrics();
RESET SESSION AUTHORIZATION;
