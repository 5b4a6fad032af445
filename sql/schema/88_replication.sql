-- Rows that logical replication brings.
--
-- A worker that applies them fires no ordinary trigger and checks no foreign key, puts a whole row over the one that is there,
-- and stops for good at a duplicate: then no revocation arrives any more. So these triggers fire for it, and for nobody else.
-- Each decides by the rows alone, so that two nodes that got the same rows in another order end with the same.
-- A worker keeps its plans while tables grow: none may be to read a whole table.

-- When a status last changed, so that a suspension is not undone by a row that was written elsewhere without knowing of it.
ALTER TABLE keywright.users ADD COLUMN status_changed_at timestamptz;
COMMENT ON COLUMN keywright.users.status_changed_at IS 'When the status last changed; null: never.';

CREATE FUNCTION keywright._users_status_time() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- Later than before in any case: a clock may be set back.
  new.status_changed_at := greatest(clock_timestamp(), old.status_changed_at + interval '1 microsecond');
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._users_status_time() IS 'Internal. Notes when a status changed.';
CREATE TRIGGER users_status_time BEFORE UPDATE ON keywright.users
  FOR EACH ROW WHEN (old.status OPERATOR(pg_catalog.<>) new.status) EXECUTE FUNCTION keywright._users_status_time();
COMMENT ON TRIGGER users_status_time ON keywright.users IS 'Notes when a status changed.';

CREATE FUNCTION keywright._note_conflict(event text, kind text, id text, name text, user_id uuid) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO keywright.audit_events (event, kind, id, name, user_id, by_hand, session_user_name, role_name)
  VALUES (event, kind, id, name, user_id, false, session_user, session_user);
$$;
COMMENT ON FUNCTION keywright._note_conflict(text, text, text, text, uuid) IS
'Internal. Notes what became of an object of which two nodes made one each.';

-- Of two living users of a name the one that was made first keeps it; the other is deleted.
CREATE FUNCTION keywright._users_replicated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
  other record;
  here keywright.users;
BEGIN
  -- What this function writes itself.
  IF pg_trigger_depth() > 1 THEN
    RETURN new;
  END IF;
  IF tg_op = 'UPDATE' THEN
    here := old;
  ELSE
    SELECT * INTO here FROM keywright.users AS u WHERE u.user_id = new.user_id FOR NO KEY UPDATE;
  END IF;
  IF here.user_id IS NOT NULL THEN
    -- The status is that which changed last, all else that of the row which was written last. A deletion is final.
    IF coalesce(here.status_changed_at, '-infinity') > coalesce(new.status_changed_at, '-infinity') THEN
      new.status := here.status;
      new.status_changed_at := here.status_changed_at;
    END IF;
    new.deleted_at := least(here.deleted_at, new.deleted_at);
    IF here.updated_at > new.updated_at THEN
      new.email := here.email;
      new.display_name := here.display_name;
      new.db_role := here.db_role;
      new.managed_by := here.managed_by;
      new.organization_role := here.organization_role;
      new.updated_at := here.updated_at;
    END IF;
  END IF;
  FOR attempt IN 1..10 LOOP
    IF new.deleted_at IS NULL THEN
      SELECT u.user_id, u.created_at INTO other FROM keywright.users AS u
       WHERE lower(u.username) = lower(new.username) AND u.deleted_at IS NULL AND u.user_id <> new.user_id
         FOR NO KEY UPDATE;
      IF FOUND AND (other.created_at, other.user_id) < (new.created_at, new.user_id) THEN
        new.deleted_at := new.created_at;
        PERFORM keywright._note_conflict('deleted', 'user', new.user_id::text, new.username, new.user_id);
      ELSIF FOUND THEN
        UPDATE keywright.users AS u SET deleted_at = u.created_at WHERE u.user_id = other.user_id;
        DELETE FROM keywright.role_bindings AS b WHERE b.user_id = other.user_id;
        PERFORM keywright._note_conflict('deleted', 'user', other.user_id::text, new.username, other.user_id);
      END IF;
    END IF;
    IF new.deleted_at IS NOT NULL THEN
      DELETE FROM keywright.role_bindings AS b WHERE b.user_id = new.user_id;
    END IF;
    IF tg_op = 'UPDATE' THEN
      RETURN new;
    END IF;
    IF here.user_id IS NOT NULL THEN
      UPDATE keywright.users AS u
         SET status = new.status, status_changed_at = new.status_changed_at, email = new.email,
             display_name = new.display_name, db_role = new.db_role, managed_by = new.managed_by,
             organization_role = new.organization_role, updated_at = new.updated_at, deleted_at = new.deleted_at
       WHERE u.user_id = new.user_id;
      RETURN NULL;
    END IF;
    -- One of this name that a session of this node is making is waited for, and then seen.
    INSERT INTO keywright.users VALUES (new.*) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN NULL;
    END IF;
  END LOOP;
  -- Something else is in the way, which the error will tell.
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._users_replicated() IS
'Internal. What becomes of a user that logical replication brings: a deletion and a later suspension stay, and of two of one name one stays.';

-- Of two keys that hold a name the one that was made last holds it; the other lives on until it expires, as in a rotation.
CREATE FUNCTION keywright._api_keys_replicated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
  other record;
  here keywright.api_keys;
BEGIN
  IF pg_trigger_depth() > 1 THEN
    RETURN new;
  END IF;
  IF tg_op = 'UPDATE' THEN
    here := old;
  ELSE
    SELECT * INTO here FROM keywright.api_keys AS k WHERE k.key_id = new.key_id FOR UPDATE;
  END IF;
  IF here.key_id IS NOT NULL THEN
    -- Each of these only ever goes one way: what either node knows of is so.
    IF here.revoked_at IS NOT NULL AND here.revoked_at <= coalesce(new.revoked_at, 'infinity') THEN
      new.revoked_at := here.revoked_at;
      new.revoke_reason := here.revoke_reason;
    END IF;
    IF here.superseded_at IS NOT NULL AND here.superseded_at <= coalesce(new.superseded_at, 'infinity') THEN
      new.superseded_at := here.superseded_at;
      new.superseded_by := here.superseded_by;
    END IF;
    new.expires_at := least(here.expires_at, new.expires_at);
    IF tg_op = 'UPDATE' THEN
      RETURN new;
    END IF;
    UPDATE keywright.api_keys AS k
       SET revoked_at = new.revoked_at, revoke_reason = new.revoke_reason, superseded_at = new.superseded_at,
           superseded_by = new.superseded_by, expires_at = new.expires_at
     WHERE k.key_id = new.key_id;
    RETURN NULL;
  END IF;
  FOR attempt IN 1..10 LOOP
    -- A mint of this name that is under way here is waited for, and then seen.
    INSERT INTO keywright.api_keys VALUES (new.*) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN NULL;
    END IF;
    SELECT k.key_id, k.created_at INTO other FROM keywright.api_keys AS k
     WHERE k.user_id = new.user_id AND k.name = new.name AND k.revoked_at IS NULL AND k.superseded_at IS NULL
       AND new.revoked_at IS NULL AND new.superseded_at IS NULL
       FOR UPDATE;
    IF FOUND AND (other.created_at, other.key_id) > (new.created_at, new.key_id) THEN
      new.superseded_at := other.created_at;
      new.superseded_by := other.key_id;
      PERFORM keywright._note_conflict('superseded', 'api_key', new.key_id, new.name, new.user_id);
    ELSIF FOUND THEN
      UPDATE keywright.api_keys AS k SET superseded_at = new.created_at, superseded_by = new.key_id
       WHERE k.key_id = other.key_id;
      PERFORM keywright._note_conflict('superseded', 'api_key', other.key_id, new.name, new.user_id);
    END IF;
  END LOOP;
  -- Something else is in the way, which the error will tell.
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._api_keys_replicated() IS
'Internal. What becomes of an API key that logical replication brings: a revocation, a rotation and an expiry stay, and of two that hold a name one holds it.';

-- The same for gateway keys. They have no expiry, so the one that loses its name gets a week.
CREATE FUNCTION keywright._gateway_keys_replicated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
  grace constant interval := '168 hours';
  other record;
  here keywright.gateway_keys;
BEGIN
  IF pg_trigger_depth() > 1 THEN
    RETURN new;
  END IF;
  IF tg_op = 'UPDATE' THEN
    here := old;
  ELSE
    SELECT * INTO here FROM keywright.gateway_keys AS k WHERE k.gateway_key_id = new.gateway_key_id FOR UPDATE;
  END IF;
  IF here.gateway_key_id IS NOT NULL THEN
    new.superseded_at := least(here.superseded_at, new.superseded_at);
    new.expires_at := least(here.expires_at, new.expires_at);
    IF tg_op = 'UPDATE' THEN
      RETURN new;
    END IF;
    UPDATE keywright.gateway_keys AS k SET superseded_at = new.superseded_at, expires_at = new.expires_at
     WHERE k.gateway_key_id = new.gateway_key_id;
    RETURN NULL;
  END IF;
  FOR attempt IN 1..10 LOOP
    INSERT INTO keywright.gateway_keys VALUES (new.*) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN NULL;
    END IF;
    SELECT k.gateway_key_id, k.created_at INTO other FROM keywright.gateway_keys AS k
     WHERE lower(k.name) = lower(new.name) AND k.superseded_at IS NULL AND new.superseded_at IS NULL
       FOR UPDATE;
    IF FOUND AND (other.created_at, other.gateway_key_id) > (new.created_at, new.gateway_key_id) THEN
      new.superseded_at := other.created_at;
      new.expires_at := other.created_at + grace;
      PERFORM keywright._note_conflict('superseded', 'gateway_key', new.gateway_key_id::text, new.name, NULL);
    ELSIF FOUND THEN
      UPDATE keywright.gateway_keys AS k SET superseded_at = new.created_at, expires_at = new.created_at + grace
       WHERE k.gateway_key_id = other.gateway_key_id;
      PERFORM keywright._note_conflict('superseded', 'gateway_key', other.gateway_key_id::text, new.name, NULL);
    END IF;
  END LOOP;
  -- Something else is in the way, which the error will tell.
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._gateway_keys_replicated() IS
'Internal. What becomes of a gateway key that logical replication brings.';

-- One binding of two is both nodes' in the end, so that unbinding it is known to both.
CREATE FUNCTION keywright._role_bindings_replicated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
  other uuid;
BEGIN
  IF EXISTS (SELECT FROM keywright.users AS u WHERE u.user_id = new.user_id AND u.deleted_at IS NOT NULL) THEN
    RETURN NULL;
  END IF;
  SELECT b.binding_id INTO other FROM keywright.role_bindings AS b
   WHERE b.user_id = new.user_id AND b.role = new.role
     AND b.resource_type IS NOT DISTINCT FROM new.resource_type AND b.resource_id IS NOT DISTINCT FROM new.resource_id;
  IF other <= new.binding_id THEN
    RETURN NULL;
  END IF;
  DELETE FROM keywright.role_bindings AS b WHERE b.binding_id = other;
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._role_bindings_replicated() IS
'Internal. What becomes of a role binding that logical replication brings.';

-- A resource takes its bindings along, those that the other node did not know of too.
CREATE FUNCTION keywright._resources_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
BEGIN
  DELETE FROM keywright.role_bindings AS b WHERE b.resource_type = old.type AND b.resource_id = old.id;
  RETURN old;
END
$$;
COMMENT ON FUNCTION keywright._resources_gone() IS
'Internal. Deletes the bindings on a resource that logical replication deletes.';

CREATE FUNCTION keywright._last_written_stays() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  same text;
  stays boolean;
BEGIN
  -- Arguments: the column with the time, then those of the primary key.
  same := (SELECT string_agg(format('t.%1$I = ($1).%1$I', a.key), ' AND ') FROM unnest(tg_argv[1:]) AS a (key));
  -- Of an UPDATE that leaves the time alone the effect is wanted.
  EXECUTE format('SELECT t.%1$I %2$s ($1).%1$I FROM keywright.%3$I AS t WHERE %4$s FOR UPDATE',
      tg_argv[0], CASE tg_op WHEN 'INSERT' THEN '>=' ELSE '>' END, tg_table_name, same)
    INTO stays USING new;
  IF stays THEN
    RETURN NULL;
  ELSIF tg_op = 'INSERT' AND NOT stays THEN
    EXECUTE format('DELETE FROM keywright.%I AS t WHERE %s', tg_table_name, same) USING new;
  END IF;
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._last_written_stays() IS
'Internal. Of a row that is here and one that logical replication brings, the one that was written last stays.';

DO $$
DECLARE
  wanted pg_catalog.record;
BEGIN
  FOR wanted IN
    SELECT w.relation, w.events, w.call
      FROM (VALUES
        ('users', 'INSERT OR UPDATE', '_users_replicated()'),
        ('api_keys', 'INSERT OR UPDATE', '_api_keys_replicated()'),
        ('gateway_keys', 'INSERT OR UPDATE', '_gateway_keys_replicated()'),
        ('role_bindings', 'INSERT', '_role_bindings_replicated()'),
        ('resource_types', 'INSERT', '_last_written_stays(''created_at'', ''type'')'),
        ('resources', 'INSERT OR UPDATE', '_last_written_stays(''updated_at'', ''type'', ''id'')'),
        ('roles', 'INSERT OR UPDATE', '_last_written_stays(''updated_at'', ''name'')'),
        ('scopes', 'INSERT OR UPDATE', '_last_written_stays(''updated_at'', ''name'')'),
        ('authenticators', 'INSERT OR UPDATE', '_last_written_stays(''updated_at'', ''service'')'),
        ('postgrest_settings', 'INSERT OR UPDATE', '_last_written_stays(''updated_at'', ''service'', ''key'')')
      ) AS w (relation, events, call)
  LOOP
    -- The condition matters only where somebody has enabled all triggers of the table, which makes ordinary ones of these.
    EXECUTE pg_catalog.format('CREATE TRIGGER replicated BEFORE %s ON keywright.%I FOR EACH ROW
      WHEN (pg_catalog.current_setting(''session_replication_role'') OPERATOR(pg_catalog.=) ''replica'')
      EXECUTE FUNCTION keywright.%s', wanted.events, wanted.relation, wanted.call);
    EXECUTE pg_catalog.format('ALTER TABLE keywright.%I ENABLE REPLICA TRIGGER replicated', wanted.relation);
    EXECUTE pg_catalog.format('COMMENT ON TRIGGER replicated ON keywright.%I IS ''Decides about rows that logical replication brings.''', wanted.relation);
  END LOOP;
END
$$;
CREATE TRIGGER replicated_gone BEFORE DELETE ON keywright.resources FOR EACH ROW
  WHEN (pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica')
  EXECUTE FUNCTION keywright._resources_gone();
ALTER TABLE keywright.resources ENABLE REPLICA TRIGGER replicated_gone;
COMMENT ON TRIGGER replicated_gone ON keywright.resources IS 'Takes the bindings on a resource along that logical replication deletes.';
