-- From 0.1.0 to 0.2.0: keywright.version(), and who may call it; keys that are imported; rows that logical replication brings; arguments of any collation.

-- First, as grant_access and revoke_access do, so that neither waits for the other. Then what verification reads, so that no
-- transaction that has verified a key and goes on to write waits for this one, while this waits for it.
LOCK TABLE keywright.access_grants IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE keywright.users IN ACCESS EXCLUSIVE MODE;

CREATE FUNCTION keywright.version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'version_wrapper';
COMMENT ON FUNCTION keywright.version() IS
'The version of the library that this session has loaded. That of the schema is extversion in pg_extension; between installing a new library and ALTER EXTENSION keywright UPDATE they differ.';

CREATE FUNCTION keywright._admit(routines text[]) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'admit_wrapper';
COMMENT ON FUNCTION keywright._admit(text[]) IS
'Internal. The last call of an upgrade script, with the signatures of the routines it made: they become the extension owner''s, are closed to everybody else, and are given to who holds a capability that has them. What was given on routines that are gone is forgotten. 55000 outside a script.';

CREATE OR REPLACE VIEW keywright._capability_functions AS
SELECT f.signature, c.capability
  FROM (VALUES
    ('verify_api_key(text)',                                             '{verifier}'),
    ('verify_api_keys(text[])',                                          '{verifier}'),
    ('verify_api_key_digest(text,bytea)',                                '{verifier}'),
    ('authenticate_api_key(text)',                                       '{verifier}'),
    ('verify_gateway_key(text)',                                         '{verifier}'),
    ('heartbeat_gateway_key(uuid)',                                      '{verifier}'),
    ('touch_api_key(text)',                                              '{verifier}'),
    ('mint_api_key(text,text,text[],text[],interval,text)',              '{issuer,reconciler}'),
    ('mint_api_keys(text[],text[],text[],text[],interval,text)',         '{issuer,reconciler}'),
    ('import_api_key(text,text,text,bytea,timestamp with time zone,timestamp with time zone,text[],text[])', '{issuer,reconciler}'),
    ('ensure_api_key(text,text,text,text[],text[],interval,interval,text)', '{issuer,reconciler}'),
    ('rotate_api_key(text,interval)',                                    '{issuer,reconciler}'),
    ('revoke_api_key(text,text)',                                        '{issuer,reconciler}'),
    ('revoke_user_api_keys(text,text)',                                  '{issuer,reconciler}'),
    ('revoke_leaked_api_key(text)',                                      '{issuer,reconciler}'),
    ('expire_api_key(text)',                                             '{issuer,reconciler}'),
    ('mint_gateway_key(text,text)',                                      '{issuer,reconciler}'),
    ('ensure_gateway_key(text,text,text)',                               '{issuer,reconciler}'),
    ('rotate_gateway_key(text,interval)',                                '{issuer,reconciler}'),
    ('delete_gateway_key(text)',                                         '{issuer,reconciler}'),
    ('list_api_keys(text,boolean,text,integer)',                         '{issuer,auditor,reconciler}'),
    ('key_usage(text,text,integer)',                                     '{issuer,auditor,reconciler}'),
    ('list_gateway_keys()',                                              '{issuer,auditor,reconciler}'),
    ('explain_api_key(text)',                                            '{auditor}'),
    ('list_users(boolean,text,integer)',                                 '{auditor,reconciler}'),
    ('needs_first_user()',                                               '{auditor,reconciler}'),
    ('authorize_api_key(text,text,text)',                                '{verifier}'),
    ('begin_request(text)',                                              '{requester,verifier}'),
    ('check_request()',                                                  '{requester,verifier}'),
    ('current_user_id()',                                                '{requester,verifier}'),
    ('current_api_key_id()',                                             '{requester,verifier}'),
    ('current_scopes()',                                                 '{requester,verifier}'),
    ('is_permitted(text,text,text)',                                     '{requester,verifier}'),
    ('has_permission(text,text,text,text)',                              '{verifier,auditor,reconciler}'),
    ('register_resource_type(text,text,text)',                           '{reconciler}'),
    ('delete_resource_type(text)',                                       '{reconciler}'),
    ('list_resource_types()',                                            '{issuer,auditor,reconciler}'),
    ('ensure_resource(text,text,text,text,text)',                        '{reconciler}'),
    ('ensure_resources(text,text[],text[],text[])',                      '{reconciler}'),
    ('delete_resource(text,text,boolean)',                               '{reconciler}'),
    ('list_resources(text,text,text,integer)',                           '{auditor,reconciler}'),
    ('track_resource()',                                                 '{reconciler}'),
    ('track_table(regclass,text,text,text,text)',                        '{reconciler}'),
    ('define_role(text,text[],integer,text)',                            '{reconciler}'),
    ('delete_role(text)',                                                '{reconciler}'),
    ('list_roles()',                                                     '{auditor,reconciler}'),
    ('define_scope(text,text[],text)',                                   '{reconciler}'),
    ('delete_scope(text)',                                               '{reconciler}'),
    ('list_scopes()',                                                    '{issuer,auditor,reconciler}'),
    ('bind_role(text,text,text,text,text,text)',                         '{reconciler}'),
    ('unbind_role(text,text,text,text)',                                 '{reconciler}'),
    ('list_role_bindings(text,text,text,text,uuid,integer)',             '{auditor,reconciler}'),
    ('ensure_system_user(text,text,text[],text,text,text)',              '{reconciler}'),
    ('ensure_user(text,text,text,text,text,text)',                       '{reconciler}'),
    ('suspend_user(text)',                                               '{reconciler}'),
    ('activate_user(text)',                                              '{reconciler}'),
    ('delete_user(text)',                                                '{reconciler}'),
    ('_require_name(text,text)',                                         '{reconciler}'),
    ('_require_trackable(regclass,text)',                                '{reconciler}'),
    ('_note_tracked(regclass,text)',                                     '{reconciler}'),
    ('_grant_authenticator(text,text,text,text[],text[],boolean,text)',  '{reconciler}'),
    ('preflight_authenticator(text,text,text[],text[])',                 '{auditor,reconciler}'),
    ('grant_authenticator(text,text,text,text[],text[],boolean,text)',   '{reconciler}'),
    ('revoke_authenticator(text)',                                       '{reconciler}'),
    ('authenticator_status()',                                           '{auditor,reconciler}'),
    ('reconcile_authenticators()',                                       '{reconciler}'),
    ('list_authenticators()',                                            '{auditor,reconciler}'),
    ('allow_authenticator(text,text[])',                                 '{}'),
    ('disallow_authenticator(text)',                                     '{}'),
    ('list_allowed_authenticators()',                                    '{auditor,reconciler}'),
    ('set_postgrest_setting(text,text,text)',                            '{reconciler}'),
    ('set_postgrest_settings(text,jsonb)',                               '{reconciler}'),
    ('postgrest_config()',                                               '{authenticator}'),
    ('render_postgrest_config(text,text[],text,text,text,jsonb)',        '{reconciler}'),
    ('operator_key_name(text,text,text)',                                '{issuer,auditor,reconciler}'),
    ('ensure_operator_access(text,text,text,interval,interval,text)',    '{reconciler}'),
    ('revoke_operator_access(text,text,text)',                           '{reconciler}'),
    ('manifest_schema()',                                                '{issuer,auditor,reconciler}'),
    ('plan(jsonb)',                                                      '{reconciler}'),
    ('apply(jsonb)',                                                     '{reconciler}'),
    ('list_audit_events(text,text,uuid,text,timestamp with time zone,timestamp with time zone,uuid,integer)', '{auditor}'),
    ('prune_audit_events(integer)',                                      '{maintainer}'),
    ('metrics()',                                                        '{auditor,maintainer}'),
    ('version()',                                                        '{auditor,reconciler,maintainer}'),
    ('purge_api_keys(interval,integer)',                                 '{maintainer}'),
    ('purge_api_key_usage(integer)',                                     '{maintainer}'),
    ('purge_gateway_keys()',                                             '{maintainer}'),
    ('maintain(interval,integer)',                                       '{maintainer}'),
    ('list_access()',                                                    '{auditor}'),
    ('grant_access(text,text)',                                          '{}'),
    ('revoke_access(text,text)',                                         '{}')
  ) AS f (signature, capabilities)
 CROSS JOIN LATERAL pg_catalog.unnest(
   f.capabilities::pg_catalog.text[] OPERATOR(pg_catalog.||) ARRAY['admin']) AS c (capability);

-- Keys that another system minted.
CREATE FUNCTION keywright._import_api_key(
  username text, name text, key_id text, digest bytea, expires_at timestamptz, created_at timestamptz, scopes text[],
  allow_list text[]) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'import_api_key_wrapper';
COMMENT ON FUNCTION keywright._import_api_key(text, text, text, bytea, timestamptz, timestamptz, text[], text[]) IS
'Internal. What import_api_key does once the name is known to be right; id-taken or name-taken when it can not.';

CREATE FUNCTION keywright.import_api_key(
  username text, name text, key_id text, digest bytea, expires_at timestamptz, created_at timestamptz DEFAULT NULL,
  scopes text[] DEFAULT '{all}', allow_list text[] DEFAULT '{*:*}') RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  outcome text;
BEGIN
  PERFORM keywright._require_name('api_keys_name_check', name);
  outcome := keywright._import_api_key(
    username, name, key_id, digest, expires_at, created_at, scopes, allow_list);
  IF outcome = 'id-taken' THEN
    PERFORM keywright._refuse('23505', 'api_keys', 'api_keys_pkey',
      format('API key "%s" exists already', key_id),
      'It has another secret or another owner.', 'Import each key once, under an id of its own.');
  ELSIF outcome = 'name-taken' THEN
    PERFORM keywright._refuse('23505', 'api_keys', 'api_keys_name_idx',
      format('user "%s" has a live API key named "%s" already', username, name),
      'One key of a user holds a name at a time.', 'Rotate or revoke that key, or choose another name.');
  END IF;
  RETURN outcome;
END
$$;
COMMENT ON FUNCTION keywright.import_api_key(text, text, text, bytea, timestamptz, timestamptz, text[], text[]) IS
'Takes over an API key that another system minted, by the hash of its secret: its token goes on verifying, and from then on is revoked, expires, is audited and rotated here. A token of the form {key_id}-{22 letters and digits} verifies as it is; any other by verify_api_key_digest. No hash tells whether the secret was random: import only keys whose secrets were, with at least 112 bits.
Arguments: username (the owner); name (as for mint_api_key); key_id (10 letters and digits); digest (SHA-256 of the secret, 32 bytes; not the token); expires_at (in the future, at most 100 years and keywright.max_api_key_lifetime away); created_at (in the past; null: now; a rotation gives the successor the lifetime from there to expires_at); scopes and allow_list (as for mint_api_key). The key belongs to no manager.
Result: imported; or unchanged when the key is there already with this secret and owner: nothing was written, and what has become of it since stays, a revocation too.
Errors: 23514 api_keys_name_check; 23505 api_keys_pkey another key has the id, api_keys_name_idx; 22023 malformed argument, or a digest that is none or of something that can be guessed, never repeated; 42704 no such user; 55000 the user is suspended.';
COMMENT ON COLUMN keywright.audit_events.event IS 'created, updated, deleted, truncated; of users also suspended, activated; of keys minted, imported, superseded, revoked, expired, purged; of grants of Postgres roles granted, undone.';

-- Rows that logical replication brings.
--
-- A worker that applies them fires no ordinary trigger and checks no foreign key, puts a whole row over the one that is there,
-- and stops for good at a duplicate: then no revocation arrives any more. So these triggers fire for it, and for nobody else.
-- Each decides by the rows alone, so that two nodes that got the same rows in another order end with the same.

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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
    IF new.revoked_at IS NULL AND new.superseded_at IS NULL THEN
      SELECT k.key_id, k.created_at INTO other FROM keywright.api_keys AS k
       WHERE k.user_id = new.user_id AND k.name = new.name AND k.revoked_at IS NULL AND k.superseded_at IS NULL
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
    END IF;
    -- A mint of this name that is under way here is waited for, and then seen.
    INSERT INTO keywright.api_keys VALUES (new.*) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN NULL;
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
    IF new.superseded_at IS NULL THEN
      SELECT k.gateway_key_id, k.created_at INTO other FROM keywright.gateway_keys AS k
       WHERE lower(k.name) = lower(new.name) AND k.superseded_at IS NULL
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
    END IF;
    INSERT INTO keywright.gateway_keys VALUES (new.*) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN NULL;
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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

-- Arguments are compared as the columns are, whatever collation the caller gives them.
CREATE OR REPLACE FUNCTION keywright.list_resources(
  type text, parent_id text DEFAULT NULL, after text DEFAULT NULL, page_size integer DEFAULT 100)
RETURNS TABLE (
  resource_type text, resource_id text, parent_type text, parent_resource_id text, name text, managed_by text,
  created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT r.type, r.id, r.parent_type, r.parent_id, r.name, r.managed_by, r.created_at, r.updated_at
    FROM keywright.resources AS r
   WHERE r.type = list_resources.type COLLATE "C"
     AND (list_resources.parent_id IS NULL OR r.parent_id = list_resources.parent_id COLLATE "C")
     AND (after IS NULL OR r.id > after COLLATE "C")
   ORDER BY r.id
   LIMIT keywright._page_size(page_size)
$$;
CREATE OR REPLACE FUNCTION keywright.list_role_bindings(
  OUT binding_id uuid, INOUT username text DEFAULT NULL, INOUT role text DEFAULT NULL, OUT scope text,
  INOUT resource_type text DEFAULT NULL, INOUT resource_id text DEFAULT NULL,
  after uuid DEFAULT NULL, page_size integer DEFAULT 100,
  OUT level smallint, OUT permissions text[], OUT granted_by text, OUT standing boolean, OUT managed_by text,
  OUT created_at timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  holder constant uuid := CASE WHEN username IS NOT NULL THEN keywright._user_id(username) END;
BEGIN
  RETURN QUERY
  SELECT b.binding_id, u.username, b.role, b.scope, b.resource_type, b.resource_id, r.level, r.permissions,
         g.username, b.standing, b.managed_by, b.created_at
    FROM keywright.role_bindings AS b
    JOIN keywright.users AS u ON u.user_id = b.user_id
    JOIN keywright.roles AS r ON r.name = b.role
    LEFT JOIN keywright.users AS g ON g.user_id = b.granted_by
   WHERE (holder IS NULL OR b.user_id = holder)
     AND (list_role_bindings.role IS NULL OR b.role = list_role_bindings.role COLLATE "C")
     AND (list_role_bindings.resource_type IS NULL OR b.resource_type = list_role_bindings.resource_type COLLATE "C")
     AND (list_role_bindings.resource_id IS NULL OR b.resource_id = list_role_bindings.resource_id COLLATE "C")
     AND (after IS NULL OR b.binding_id > after)
   ORDER BY b.binding_id
   LIMIT keywright._page_size(page_size);
END
$$;
CREATE OR REPLACE FUNCTION keywright.revoke_operator_access(
  namespace text, name text, prefix text DEFAULT 'coder-k8s-operator-') RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  wanted constant text COLLATE "C" := keywright.operator_key_name(namespace, name, prefix);
  owner constant uuid := (SELECT u.user_id FROM keywright.users AS u
                           WHERE lower(u.username) = left(prefix, -1) COLLATE "C" AND u.deleted_at IS NULL);
  revoked boolean := false;
BEGIN
  IF NOT EXISTS (SELECT FROM keywright.api_keys AS k
                  WHERE k.user_id = owner AND k.name = wanted AND k.revoked_at IS NULL) THEN
    RETURN false;
  END IF;
  -- Mints in flight are waited for.
  PERFORM FROM keywright.users AS u WHERE u.user_id = owner FOR NO KEY UPDATE;
  SELECT coalesce(bool_or(keywright.revoke_api_key(k.key_id, 'operator access revoked')), false) INTO revoked
    FROM keywright.api_keys AS k
   WHERE k.user_id = owner AND k.name = wanted AND k.revoked_at IS NULL;
  RETURN revoked;
END
$$;
CREATE OR REPLACE FUNCTION keywright.list_audit_events(
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

SELECT keywright._admit(ARRAY[
  'version()', '_admit(text[])', '_import_api_key(text,text,text,bytea,timestamp with time zone,timestamp with time zone,text[],text[])',
  'import_api_key(text,text,text,bytea,timestamp with time zone,timestamp with time zone,text[],text[])',
  '_users_status_time()', '_note_conflict(text,text,text,text,uuid)', '_users_replicated()',
  '_api_keys_replicated()', '_gateway_keys_replicated()', '_role_bindings_replicated()', '_resources_gone()', '_last_written_stays()'
]);
