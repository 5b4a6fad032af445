-- What changed, when, and who did it.

CREATE TABLE keywright.audit_events (
  occurred_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  event_id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
  event text COLLATE pg_catalog."C" NOT NULL,
  kind text COLLATE pg_catalog."C" NOT NULL,
  id text NOT NULL,
  name text NOT NULL DEFAULT '',
  user_id uuid,
  columns text[] COLLATE pg_catalog."C" NOT NULL DEFAULT '{}',
  affected bigint NOT NULL DEFAULT 1,
  by_hand boolean NOT NULL,
  session_user_name text NOT NULL,
  role_name text NOT NULL,
  api_key_id text COLLATE pg_catalog."C",
  client_addr inet DEFAULT pg_catalog.inet_client_addr(),
  transaction_id xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  CONSTRAINT audit_events_pkey PRIMARY KEY (occurred_at, event_id)
);
CREATE INDEX audit_events_object_idx ON keywright.audit_events (kind, id, occurred_at);
ALTER TABLE keywright.audit_events ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.audit_events', '');
COMMENT ON TABLE keywright.audit_events IS
'What changed, written in the transaction that changed it. Only ever added to; keywright.prune_audit_events deletes what is older than keywright.audit_retention. Names of columns and no values: no secret, hash or token is in it.';
COMMENT ON COLUMN keywright.audit_events.occurred_at IS 'When, by the clock, not by the start of the transaction.';
COMMENT ON COLUMN keywright.audit_events.event_id IS 'Random; the event_id of the notification.';
COMMENT ON COLUMN keywright.audit_events.event IS 'created, updated, deleted, truncated; of users also suspended, activated; of keys minted, imported, superseded, revoked, expired, purged; of grants of Postgres roles granted, undone.';
COMMENT ON COLUMN keywright.audit_events.kind IS 'user, api_key, gateway_key, resource_type, resource, role, scope, role_binding, authenticator, authenticator_allowance, authenticator_grant, postgrest_setting, access_grant, tracked_table or audit_event.';
COMMENT ON COLUMN keywright.audit_events.id IS 'The id of the object; an asterisk where one event stands for many of them.';
COMMENT ON COLUMN keywright.audit_events.name IS 'What people call it: a username, username/key, username role on resource.';
COMMENT ON COLUMN keywright.audit_events.user_id IS 'The user that the object is or belongs to.';
COMMENT ON COLUMN keywright.audit_events.columns IS 'The columns that changed.';
COMMENT ON COLUMN keywright.audit_events.affected IS 'How many objects the event stands for.';
COMMENT ON COLUMN keywright.audit_events.by_hand IS 'By a statement on the table itself, not by a function of keywright.';
COMMENT ON COLUMN keywright.audit_events.session_user_name IS 'session_user: the role that logged in.';
COMMENT ON COLUMN keywright.audit_events.role_name IS 'The role in force: by SET ROLE, or that which logged in.';
COMMENT ON COLUMN keywright.audit_events.api_key_id IS 'The API key the transaction acted for (check_request, begin_request).';
COMMENT ON COLUMN keywright.audit_events.client_addr IS 'Where the client is; null for a local socket.';
COMMENT ON COLUMN keywright.audit_events.transaction_id IS 'The transaction: events that have it in common were committed together.';
COMMENT ON CONSTRAINT audit_events_pkey ON keywright.audit_events IS 'An event has one id.';
COMMENT ON INDEX keywright.audit_events_pkey IS 'Events by time, for lists and for pruning.';
COMMENT ON INDEX keywright.audit_events_object_idx IS 'What happened to one object.';

CREATE FUNCTION keywright._audit() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'audit_wrapper';
COMMENT ON FUNCTION keywright._audit() IS
'Internal. Trigger function: notes the rows of a statement in keywright.audit_events and notifies the channel keywright.';

-- Statement by statement, so that a thousand rows cost little more than one. Three triggers a table, because a
-- transition table belongs to one kind of statement.
DO $$
DECLARE
  audited pg_catalog.text;
BEGIN
  FOREACH audited IN ARRAY ARRAY[
    'users', 'resource_types', 'resources', 'roles', 'scopes', 'role_bindings', 'api_keys', 'gateway_keys',
    'authenticators', 'authenticator_allowances', 'postgrest_settings']
  LOOP
    EXECUTE pg_catalog.format('CREATE TRIGGER audit_insert AFTER INSERT ON keywright.%I
      REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION keywright._audit()', audited);
    EXECUTE pg_catalog.format('CREATE TRIGGER audit_update AFTER UPDATE ON keywright.%I
      REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION keywright._audit()', audited);
    EXECUTE pg_catalog.format('CREATE TRIGGER audit_delete AFTER DELETE ON keywright.%I
      REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION keywright._audit()', audited);
    EXECUTE pg_catalog.format('CREATE TRIGGER audit_truncate AFTER TRUNCATE ON keywright.%I
      FOR EACH STATEMENT EXECUTE FUNCTION keywright._audit()', audited);
    EXECUTE pg_catalog.format('COMMENT ON TRIGGER audit_insert ON keywright.%I IS ''Notes what is inserted.''', audited);
    EXECUTE pg_catalog.format('COMMENT ON TRIGGER audit_update ON keywright.%I IS ''Notes what is updated.''', audited);
    EXECUTE pg_catalog.format('COMMENT ON TRIGGER audit_delete ON keywright.%I IS ''Notes what is deleted.''', audited);
    EXECUTE pg_catalog.format('COMMENT ON TRIGGER audit_truncate ON keywright.%I IS ''Notes that all is deleted.''', audited);
  END LOOP;
END
$$;

CREATE FUNCTION keywright._audit_events_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM keywright._refuse('42501', 'audit_events', '',
    format('audit events can not be changed by %s', tg_op),
    'What happened stays as it was written.',
    'keywright.prune_audit_events deletes what is older than the setting keywright.audit_retention.');
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION keywright._audit_events_guard() IS
'Internal. Refuses to change what was noted.';
CREATE TRIGGER audit_events_guard BEFORE UPDATE OR DELETE ON keywright.audit_events
  FOR EACH ROW WHEN (NOT keywright._writing()) EXECUTE FUNCTION keywright._audit_events_guard();
CREATE TRIGGER audit_events_truncate_guard BEFORE TRUNCATE ON keywright.audit_events
  FOR EACH STATEMENT EXECUTE FUNCTION keywright._audit_events_guard();
-- Not refused, because that is how a dump is restored; but it is noted.
CREATE TRIGGER audit_insert AFTER INSERT ON keywright.audit_events
  REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT WHEN (NOT keywright._writing()) EXECUTE FUNCTION keywright._audit();
COMMENT ON TRIGGER audit_events_guard ON keywright.audit_events IS 'What was noted is not changed.';
COMMENT ON TRIGGER audit_events_truncate_guard ON keywright.audit_events IS 'What was noted is not removed.';
COMMENT ON TRIGGER audit_insert ON keywright.audit_events IS 'Notes that events were written by hand.';

CREATE FUNCTION keywright.list_audit_events(
  of_kind text DEFAULT NULL, of_id text DEFAULT NULL, of_user uuid DEFAULT NULL, by_role text DEFAULT NULL,
  since timestamptz DEFAULT NULL, before timestamptz DEFAULT NULL, before_id uuid DEFAULT NULL,
  page_size integer DEFAULT 100)
RETURNS TABLE (
  occurred_at timestamptz, event_id uuid, event text, kind text, id text, name text, user_id uuid, columns text[],
  affected bigint, by_hand boolean, session_user_name text, role_name text, api_key_id text, client_addr inet,
  transaction_id xid8)
-- Planned for the arguments of the call, so that what is null is no condition.
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
  RETURN QUERY
  SELECT e.occurred_at, e.event_id, e.event, e.kind, e.id, e.name, e.user_id, e.columns, e.affected, e.by_hand,
         e.session_user_name, e.role_name, e.api_key_id, e.client_addr, e.transaction_id
    FROM keywright.audit_events AS e
   WHERE (of_kind IS NULL OR e.kind = of_kind COLLATE "C")
     AND (of_id IS NULL OR e.id = of_id COLLATE "default")
     AND (of_user IS NULL OR e.user_id = of_user)
     AND (by_role IS NULL OR by_role COLLATE "default" IN (e.role_name, e.session_user_name))
     AND (since IS NULL OR e.occurred_at >= since)
     AND (before IS NULL
          OR (e.occurred_at, e.event_id) < (before, coalesce(before_id, '00000000-0000-0000-0000-000000000000')))
   ORDER BY e.occurred_at DESC, e.event_id DESC
   LIMIT keywright._page_size(page_size);
END
$$;
COMMENT ON FUNCTION keywright.list_audit_events(text, text, uuid, text, timestamptz, timestamptz, uuid, integer) IS
'Lists what changed, newest first.
Arguments: of_kind and of_id (only events of these objects); of_user (only what concerns this user: itself, its keys, its bindings); by_role (only what this role did, logged in or by SET ROLE); since (not older); before and before_id (older than these: the occurred_at and event_id of the last row of the page before); page_size (rows, 1 to 10000). Null: all.
Result: occurred_at; event_id; event (created, updated, deleted, truncated, suspended, activated, minted, superseded, revoked, expired, purged, granted, undone); kind; id; name; user_id; columns (those that changed, no values); affected (how many objects the event stands for: statements on a tracked table, purges, and statements by hand on more than 1000 rows are one event); by_hand; session_user_name; role_name (the role in force); api_key_id (the key the transaction acted for); client_addr; transaction_id.
Errors: 22023 page_size out of range.
Example: SELECT occurred_at, event, kind, name, role_name FROM keywright.list_audit_events(''api_key'', :''key_id'');';

CREATE FUNCTION keywright.prune_audit_events(batch integer DEFAULT 10000) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'prune_audit_events_wrapper';
COMMENT ON FUNCTION keywright.prune_audit_events(integer) IS
'Deletes a batch of the oldest audit events that are older than the setting keywright.audit_retention, which only a superuser sets.
Arguments: batch (the most rows to delete, 1 to 1000000).
Result: the number of events deleted. Leaves an event of its own, when there were any.
Errors: 22023 malformed argument; 42501 the client set keywright.audit_retention when it connected.
Example: SELECT keywright.prune_audit_events();';
