-- A control plane says what it wants to be there, in one document: what will happen is seen before it happens, the same
-- document again changes nothing, and what the next document no longer names goes.
\pset footer off
\pset null '-'
CREATE EXTENSION keywright;
CREATE ROLE example_control_plane LOGIN;
SELECT keywright.grant_access('example_control_plane', 'reconciler');
SET SESSION AUTHORIZATION example_control_plane;

-- The key's existing_token is what the control plane has stored: nothing yet.
SELECT $${
  "manager": "control-plane-a",
  "resource_types": [{"type": "workspace", "parent_type": "project"}],
  "resources": [{"type": "project", "id": "p1", "parent_id": "acme"}, {"type": "organization", "id": "acme"}],
  "roles": [{"name": "deployer", "permissions": ["project:read", "workspace:*"], "level": 2}],
  "users": [{"username": "ci-bot", "kind": "service"}],
  "bindings": [{"username": "ci-bot", "role": "deployer", "resource_type": "project", "resource_id": "p1"}],
  "api_keys": [{"username": "ci-bot", "name": "ci", "scopes": ["project:read", "workspace:create"], "allow_list": ["project:p1"],
                "lifetime": "30 days", "renew_before": "1 week", "existing_token": null}],
  "gateway_keys": [{"name": "edge-1"}]
}$$::jsonb AS manifest \gset
SELECT step, action, kind, name FROM keywright.plan(:'manifest');

-- It happens, all of it or nothing. The tokens are in this result and nowhere else.
CREATE TEMPORARY TABLE done AS SELECT * FROM keywright.apply(:'manifest');
SELECT step, action, kind, name, left(token, 4) AS token FROM done WHERE token IS NOT NULL;
SELECT token FROM done WHERE kind = 'api_key' \gset
SELECT jsonb_set(:'manifest', '{api_keys,0,existing_token}', to_jsonb(:'token'::text)) AS manifest \gset
DROP TABLE done;

-- The control plane has stored the token, and asks for the same again: nothing to do, and nothing is written.
SELECT count(*) AS steps, pg_current_xact_id_if_assigned() AS transaction_id FROM keywright.apply(:'manifest');

-- A document that is wrong says everything that is wrong with it, and where.
SELECT jsonb_set(jsonb_set(jsonb_set(:'manifest', '{bindings,0,role}', '"deplyer"'), '{users,0,knid}', '"service"'),
                 '{api_keys,0,scopes,1}', '"wrkspace:create"') AS wrong \gset
SELECT keywright.apply(:'wrong');

-- Another control plane is refused what is not its own, unless it says that it takes it over.
SELECT step, action, kind, name FROM keywright.plan('{"manager": "control-plane-b", "gateway_keys": [{"name": "edge-1"}]}');
SELECT step, action, kind, name, change FROM keywright.plan('{"manager": "control-plane-b", "adopt": true, "gateway_keys": [{"name": "edge-1"}]}');

-- What the next document changes, and what it no longer names.
SELECT jsonb_set(:'manifest', '{api_keys,0,scopes}', '["project:read"]') - 'gateway_keys' || '{"prune": true}' AS manifest \gset
SELECT step, action, kind, name, change ->> 'reason' AS reason FROM keywright.plan(:'manifest');
SELECT step, action, kind, name, left(token, 4) AS token FROM keywright.apply(:'manifest');
RESET SESSION AUTHORIZATION;
SELECT count(*) AS live_keys FROM keywright.list_api_keys('ci-bot');
SELECT count(*) AS gateway_keys FROM keywright.list_gateway_keys();

-- And at the end everything goes, in the opposite order. The type stays until the keys that named it are purged.
SELECT step, action, kind, name FROM keywright.apply('{"manager": "control-plane-a", "prune": true}');
DROP EXTENSION keywright;
DROP ROLE example_control_plane;
