-- What says no stays, whatever brings a row and in whatever order: a revocation, a deletion, a rotation, and of two
-- suspensions or ends the one that was said last. Logical replication, and engines that resolve conflicts, put a whole row
-- over the one that is here, written perhaps where nobody knew of the no. These triggers fire for them too.

ALTER TABLE keywright.users ADD COLUMN status_changed_at timestamptz;
COMMENT ON COLUMN keywright.users.status_changed_at IS 'When the status last changed; null: never.';
ALTER TABLE keywright.api_keys ADD COLUMN end_changed_at timestamptz;
COMMENT ON COLUMN keywright.api_keys.end_changed_at IS 'When expires_at last changed; null: never.';

CREATE FUNCTION keywright._users_no_stays() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- Later than before in any case: a clock may be set back. A row that arrives brings a time of its own.
  IF new.status_changed_at IS NOT DISTINCT FROM old.status_changed_at THEN
    IF new.status <> old.status THEN
      new.status_changed_at := greatest(clock_timestamp(), old.status_changed_at + interval '1 microsecond');
    END IF;
  ELSIF old.status_changed_at > coalesce(new.status_changed_at, '-infinity') THEN
    new.status := old.status;
    new.status_changed_at := old.status_changed_at;
  END IF;
  new.deleted_at := least(old.deleted_at, new.deleted_at);
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._users_no_stays() IS
'Internal. Notes when a status changed. A deletion, and the status that was said last, stay whatever row arrives.';

CREATE FUNCTION keywright._api_keys_no_stays() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF new.end_changed_at IS NOT DISTINCT FROM old.end_changed_at THEN
    IF new.expires_at <> old.expires_at THEN
      new.end_changed_at := greatest(clock_timestamp(), old.end_changed_at + interval '1 microsecond');
    END IF;
  ELSIF old.end_changed_at > coalesce(new.end_changed_at, '-infinity') THEN
    new.expires_at := old.expires_at;
    new.end_changed_at := old.end_changed_at;
  END IF;
  IF old.revoked_at <= coalesce(new.revoked_at, 'infinity') THEN
    new.revoked_at := old.revoked_at;
    new.revoke_reason := old.revoke_reason;
  END IF;
  IF old.superseded_at <= coalesce(new.superseded_at, 'infinity') THEN
    new.superseded_at := old.superseded_at;
    new.superseded_by := old.superseded_by;
  END IF;
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._api_keys_no_stays() IS
'Internal. Notes when an end changed. A revocation, a rotation, and the end that was said last, stay whatever row arrives.';

CREATE FUNCTION keywright._gateway_keys_no_stays() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  new.superseded_at := least(old.superseded_at, new.superseded_at);
  new.expires_at := least(old.expires_at, new.expires_at);
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._gateway_keys_no_stays() IS
'Internal. A rotation, and the earlier end, stay whatever row arrives.';

DO $$
DECLARE
  name pg_catalog.text;
BEGIN
  FOREACH name IN ARRAY ARRAY['users', 'api_keys', 'gateway_keys'] LOOP
    EXECUTE pg_catalog.format('CREATE TRIGGER no_stays BEFORE UPDATE ON keywright.%I
      FOR EACH ROW EXECUTE FUNCTION keywright.%I()', name, pg_catalog.concat('_', name, '_no_stays'));
    EXECUTE pg_catalog.format('ALTER TABLE keywright.%I ENABLE ALWAYS TRIGGER no_stays', name);
    EXECUTE pg_catalog.format('COMMENT ON TRIGGER no_stays ON keywright.%I IS ''What says no stays, whatever row arrives.''', name);
  END LOOP;
END
$$;

-- What is built in is on every server before anything arrives, and would stop the copy of its table as a duplicate.
CREATE FUNCTION keywright._built_in_is_here() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION keywright._built_in_is_here() IS
'Internal. Keeps out what is built in when logical replication brings it.';
DO $$
DECLARE
  name pg_catalog.text;
BEGIN
  FOREACH name IN ARRAY ARRAY['resource_types', 'roles', 'scopes'] LOOP
    -- The condition matters only where somebody has enabled all triggers of the table, which makes ordinary ones of these.
    EXECUTE pg_catalog.format('CREATE TRIGGER built_in_is_here BEFORE INSERT ON keywright.%I FOR EACH ROW
      WHEN (new.built_in AND pg_catalog.current_setting(''session_replication_role'') OPERATOR(pg_catalog.=) ''replica'')
      EXECUTE FUNCTION keywright._built_in_is_here()', name);
    EXECUTE pg_catalog.format('ALTER TABLE keywright.%I ENABLE REPLICA TRIGGER built_in_is_here', name);
    EXECUTE pg_catalog.format('COMMENT ON TRIGGER built_in_is_here ON keywright.%I IS ''Keeps out what is built in when logical replication brings it.''', name);
  END LOOP;
END
$$;
