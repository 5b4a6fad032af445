-- From 0.1.0 to 0.2.0: keywright.version(), and who may call it; keys that are imported; rows that logical replication brings; arguments of any collation; keywright.help().

-- All that is changed is locked first, or nothing: transactions that are under way use the tables in any order, so this one holds none
-- while it waits for long, and gives way before anybody looks for a deadlock. lock_timeout, where it is set, is for all of it.
DO $$
DECLARE
  usual constant pg_catalog.text := pg_catalog.current_setting('lock_timeout');
  begun constant timestamptz := pg_catalog.clock_timestamp();
BEGIN
  LOOP
    BEGIN
      PERFORM pg_catalog.set_config('lock_timeout', '200ms', true);
      LOCK TABLE keywright.access_grants, keywright.users, keywright.api_keys, keywright.gateway_keys, keywright.role_bindings,
        keywright.resource_types, keywright.resources, keywright.roles, keywright.scopes, keywright.authenticators,
        keywright.postgrest_settings IN ACCESS EXCLUSIVE MODE;
      PERFORM pg_catalog.set_config('lock_timeout', usual, true);
      EXIT;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      IF usual OPERATOR(pg_catalog.<>) '0' AND pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) (begun OPERATOR(pg_catalog.+) usual::interval) THEN
        RAISE;
      END IF;
      PERFORM pg_catalog.pg_sleep(0.02);
    END;
  END LOOP;
END
$$;

CREATE FUNCTION keywright.version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'version_wrapper';
COMMENT ON FUNCTION keywright.version() IS
'The version of the library that this session has loaded. That of the schema is extversion in pg_extension; between installing a new library and ALTER EXTENSION keywright UPDATE they differ.
Errors: none of its own.
Example: SELECT keywright.version();';

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
    ('help(text)',                                                       '{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer}'),
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
Result: imported; or unchanged when the key is there already with this secret and owner: nothing was written, and what has become of it since stays, a revocation too, until the key is purged: a key that is imported again after that lives again.
Errors: 23514 api_keys_name_check; 23505 api_keys_pkey another key has the id, api_keys_name_idx; 22023 malformed argument, or a digest that is none or of something that can be guessed, never repeated; 42704 no such user; 55000 the user is suspended.
Example: SELECT keywright.import_api_key(''ada'', ''old'', ''4hQx0mTz9B'', :''digest'', expires_at => now() + interval ''30 days'');';
COMMENT ON COLUMN keywright.audit_events.event IS 'created, updated, deleted, truncated; of users also suspended, activated; of keys minted, imported, superseded, revoked, expired, purged; of grants of Postgres roles granted, undone.';

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

-- The manual.
CREATE FUNCTION keywright.help(topic text DEFAULT NULL)
RETURNS TABLE (function text, does text, arguments text, result text, example text, errors text, capabilities text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('keywright.%s(%s)', p.proname, (
           -- The arguments that are passed, with their defaults; others are columns of the result.
           SELECT string_agg(concat_ws(' ', a.name, format_type(a.type, NULL),
                    'DEFAULT ' || regexp_replace(pg_get_function_arg_default(p.oid, a.position::integer), '::[a-z \[\]]+$', '')),
                    ', ' ORDER BY a.position)
             FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, p.proargmodes)
                  WITH ORDINALITY AS a (type, name, mode, position)
            WHERE coalesce(a.mode, 'i') IN ('i', 'b', 'v'))),
         regexp_replace(c.comment, '\n(?:Arguments|Result|Errors|Example): .*?(?=\n(?:Arguments|Result|Who may|Progress|Errors|Example): |$)', '', 'g'),
         substring(c.comment FROM '\nArguments: (.*?)(?=\n(?:Result|Who may|Progress|Errors|Example): |$)'),
         concat_ws(E'\n', regexp_replace(pg_get_function_result(p.oid), '\mrecord$', (
             SELECT format('(%s)', string_agg(format('%s %s', a.name, format_type(a.type, NULL)), ', ' ORDER BY a.position))
               FROM unnest(p.proallargtypes, p.proargnames, p.proargmodes) WITH ORDINALITY AS a (type, name, mode, position)
              WHERE a.mode IN ('o', 'b'))),
           substring(c.comment FROM '\nResult: (.*?)(?=\n(?:Arguments|Who may|Progress|Errors|Example): |$)')),
         substring(c.comment FROM '\nExample: (.*?)$'),
         substring(c.comment FROM '\nErrors: (.*?)(?=\n(?:Arguments|Result|Who may|Progress|Example): |$)'),
         (SELECT string_agg(f.capability, ', ' ORDER BY f.capability = 'admin', f.capability)
            FROM keywright._capability_functions AS f
           WHERE 'keywright.' || f.signature = p.oid::regprocedure::text)
    FROM pg_catalog.pg_proc AS p
   CROSS JOIN LATERAL (SELECT obj_description(p.oid, 'pg_proc')) AS c (comment)
   CROSS JOIN LATERAL (
     SELECT lower((p.proname || ' ' || c.comment) COLLATE "C"), tsvector_to_array(to_tsvector('english', replace(p.proname::text, '_', ' ') || ' ' || c.comment))
     OFFSET 0) AS v (words, stems)
   CROSS JOIN LATERAL (
     -- No more words than anybody types, each as it is or in another form: rotates, rotating.
     SELECT bool_and(strpos(v.words, t.word) > 0 OR coalesce(t.stem = ANY (v.stems), false)),
            count(*) FILTER (WHERE strpos(p.proname::text COLLATE "C", coalesce(t.stem, t.word)) > 0)
       FROM (SELECT w.word, CASE WHEN w.word ~ '^[a-z]+$' THEN (tsvector_to_array(to_tsvector('english', w.word)))[1] END
               FROM regexp_split_to_table(lower(left(topic, 200) COLLATE "C"), '[\s-]+') AS w (word)) AS t (word, stem)) AS f (found, named)
   WHERE p.pronamespace = 'keywright'::regnamespace
     AND NOT starts_with(p.proname::text, '_')
     AND f.found IS NOT FALSE
   -- Who has most of them in the name comes first, then whose comment speaks of them.
   ORDER BY f.named DESC, p.proname
$$;
COMMENT ON FUNCTION keywright.help(text) IS
'The manual: a row for each function whose name or comment has the words of the topic, those with most of them in their name first. In psql \x auto reads well. What is after a colon in an example is a variable of psql: \set token kwk_...
Arguments: topic (words, in any case, order and form, of which the first 200 characters count; null or empty: all functions).
Result: function (how it is called, with defaults); does; arguments; result; example; errors (SQLSTATEs; 25006 for any function that has to write in a READ ONLY transaction or on a standby); capabilities (grant_access with one of them lets a role call it).
Errors: none of its own.
Example: SELECT function, example FROM keywright.help(''rotate key'');';

-- Every function has an example and says with which errors it ends, for the manual to show.
COMMENT ON SCHEMA keywright IS
'Machine credentials. Call the functions; the tables are closed to all but their owner. Functions whose name starts with an underscore are internal. Give access with keywright.grant_access(grantee, capability). The manual is SELECT * FROM keywright.help(topic).';
COMMENT ON FUNCTION keywright.ensure_system_user(text, text, text[], text, text, text) IS
'Makes sure that an active system user of this name exists and holds its roles: it can hold keys, has no other way to log in, and does not count as a first user.
Arguments: username (1 to 32 characters, letters, digits and single dashes; case is not significant); email and display_name (null: leave as is); roles (held globally; empty: none; null: leave as they are); organization_role (held in every organization, also in one made later, from the moment keywright learns of it; empty: none; null: leave as is); managed_by (the calling reconciler; null: none).
Result: user_id; outcome created, updated (drift was repaired, a suspension included) or unchanged (nothing was written, no lock taken); changes: what happened to roles, one object each with role, resource_type, resource_id (null for global) and action bound or unbound. Only what an earlier call of this function bound is ever unbound. Parallel callers all succeed.
Errors: 23514 users_username_check; 22023 malformed argument; 42704 no such role; 42710 the name belongs to a human or service user, or the user to another manager.
Example: SELECT user_id, outcome FROM keywright.ensure_system_user(''deployer'', managed_by => ''control-plane'');';
COMMENT ON FUNCTION keywright.ensure_user(text, text, text, text, text, text) IS
'Makes sure that a human or service user of this name exists. A suspended user stays suspended.
Arguments: username (1 to 32 characters, letters, digits and single dashes; case is not significant); email (empty: none; null: leave as is); kind (human or service); db_role (the Postgres role the user acts as; it must exist and be neither predefined nor superuser, BYPASSRLS, REPLICATION, CREATEROLE or CREATEDB; empty: none; null: leave as is); display_name (null: leave as is); managed_by (the calling reconciler; null: none).
Result: user_id; outcome created, updated or unchanged (nothing was written, no lock taken). Parallel callers all succeed.
Errors: 23514 users_username_check; 22023 malformed argument; 42704 db_role does not exist; 42939 db_role is reserved; 42501 db_role has an attribute that is refused; 42710 the user is of another kind or belongs to another manager.
Example: SELECT user_id, outcome FROM keywright.ensure_user(''ada'', ''ada@example.org'');';
COMMENT ON FUNCTION keywright.suspend_user(text) IS
'Suspends a user: from the commit on none of its keys verifies, and none can be minted. The keys come back with activate_user.
Result: true when something changed, false when the user was suspended already.
Errors: 42704 no such user.
Example: SELECT keywright.suspend_user(''ada'');';
COMMENT ON FUNCTION keywright.activate_user(text) IS
'Ends a suspension.
Result: true when something changed, false when the user was active already.
Errors: 42704 no such user.
Example: SELECT keywright.activate_user(''ada'');';
COMMENT ON FUNCTION keywright.delete_user(text) IS
'Deletes a user: revokes its keys in the same transaction and frees the name. The row and the id stay and are never used again.
Result: the user_id that was deleted.
Errors: 42704 no such user.
Example: SELECT keywright.delete_user(''ada'');';
COMMENT ON FUNCTION keywright.needs_first_user() IS
'True while no human user lives, whatever system and service users there are. A suspended human counts as living.
Errors: none of its own.
Example: SELECT keywright.needs_first_user();';
COMMENT ON FUNCTION keywright.list_users(boolean, text, integer) IS
'Lists the users that are not deleted, by name without regard to case.
Arguments: include_system (also list system users); after (the last username of the page before); page_size (rows, 1 to 10000).
Errors: 22023 page_size out of range.
Example: SELECT username, kind, status FROM keywright.list_users(include_system => true);';
COMMENT ON FUNCTION keywright.register_resource_type(text, text, text) IS
'Makes sure that a type of resource is registered. Permissions, scopes and allow-lists may name registered types only.
Arguments: type (a word: a lower case letter, then at most 62 lower case letters, digits, dots, dashes and underscores); parent_type (the type its parents are of, registered before; the type itself where resources nest, as folders do; null: no parents); managed_by (the calling reconciler; null: none).
Result: outcome created, updated or unchanged (nothing was written, no lock taken).
Errors: 23514 resource_types_type_check; 22023 parent_type would make a circle or more than 16 levels, or a scope has this name as its first word; 42704 no such parent_type; 42710 the type is built in, belongs to another manager, or has resources with parents of another type.
Example: SELECT keywright.register_resource_type(''workspace'', ''project'');';
COMMENT ON FUNCTION keywright.delete_resource_type(text) IS
'Deletes a type that nothing names.
Result: true when something changed, false when there is no such type.
Errors: 42710 the type is built in; 23503 resources, other types, roles, scopes or API keys name it.
Example: SELECT keywright.delete_resource_type(''workspace'');';
COMMENT ON FUNCTION keywright.list_resource_types() IS
'Lists the registered types of resources.
Errors: none of its own.
Example: SELECT * FROM keywright.list_resource_types();';
COMMENT ON FUNCTION keywright.ensure_resource(text, text, text, text, text) IS
'Makes sure that a resource exists. A new organization is bound to every system user that has an organization_role, in the same transaction.
Arguments: type (registered); id (the application''s own, 1 to 255 bytes without white space, control characters and asterisks); parent_id (a resource of the type''s parent_type; at most 16 ancestors; empty: none; null: leave as is); name (for people to read, at most 128 bytes; null: leave as is); managed_by (the calling reconciler; null: none).
Result: outcome created, updated or unchanged (nothing was written, no lock taken). Parallel callers all succeed.
Errors: 23514 resources_id_check; 22023 malformed argument, a parent for a type that has none, a circle, or more than 16 ancestors; 42704 no such type or parent; 42710 the resource belongs to another manager; 40001 try again (in REPEATABLE READ).
Example: SELECT keywright.ensure_resource(''project'', ''rockets'', ''acme'');';
COMMENT ON FUNCTION keywright.ensure_resources(text, text[], text[], text[]) IS
'ensure_resource for many resources of one type, in one statement.
Arguments: type (registered); ids; parent_ids and names (as many as ids, a null element for none; null: leave all as they are). A parent may come later, and is none until then.
Result: the number of resources that were made or changed.
Errors: 22023 malformed argument, arrays of different lengths, a parent for a type that has none, a circle, or more than 16 ancestors; 42704 no such type; 42710 a resource that would change belongs to a manager; 23514 resources_id_check.
Example: SELECT keywright.ensure_resources(''project'', ''{rockets,boosters}'', ''{acme,acme}'');';
COMMENT ON FUNCTION keywright.delete_resource(text, text, boolean) IS
'Deletes a resource and the role bindings on it, in one transaction. A resource that is made again under the same id starts without bindings.
Arguments: type; id; with_children (also delete all that lies below it).
Result: true when something changed, false when there is no such resource.
Errors: 42704 no such type; 23503 the resource has children and with_children is false.
Example: SELECT keywright.delete_resource(''project'', ''rockets'');';
COMMENT ON FUNCTION keywright.list_resources(text, text, text, integer) IS
'Lists resources of a type, by id.
Arguments: type; parent_id (only children of this parent; null: all); after (the last id of the page before); page_size (rows, 1 to 10000).
Errors: 22023 page_size out of range.
Example: SELECT resource_id, name FROM keywright.list_resources(''project'', ''acme'');';
COMMENT ON FUNCTION keywright.track_resource() IS
'Trigger function: keeps the resources of one type equal to the rows of an application''s table. track_table creates the triggers; one AFTER INSERT OR UPDATE OR DELETE ... FOR EACH ROW trigger works too, is slower for many rows at once, and where ids trade places leaves bindings with the id.
Arguments: type; the column with the id (uuid, smallint, integer, bigint, text or varchar, or a domain over these); the column with the parent''s id, or empty; the column with the name, or empty.
Errors: 39P01 not called as such a trigger; 42704 no such type; 42703 no such column; 42804 the column''s type is not supported; 23502 an id is null; 23514 resources_id_check; 22023 a circle, or more than 16 ancestors; 42710 a resource that would change belongs to a manager; 55000 TRUNCATE, which is refused: use DELETE.
Example: CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON projects FOR EACH ROW EXECUTE FUNCTION keywright.track_resource(''project'', ''id'', ''organization_id'', ''title'');';
COMMENT ON FUNCTION keywright.track_table(regclass, text, text, text, text) IS
'Lets an application''s own table decide which resources of a type exist: creates the triggers keywright_track_* on it, and registers the rows that are there. From then on INSERT, COPY, UPDATE (also of the id, which takes the bindings along, and of the parent) and DELETE (also by ON DELETE CASCADE, which takes the bindings away) are followed in the same statement. TRUNCATE is refused. Calling it again registers what is missing: after a restore, and after a partition was added. The triggers stay when the capability of who made them is revoked: drop them to end it.
Runs with the rights of the caller, who must own the table; the caller needs the capability reconciler or admin.
Arguments: tracked; type (registered); id_column, parent_column and name_column (parent_column null: no parents are kept; name_column null: no names).
Result: outcome created, updated or unchanged; resources_changed (resources made or changed by this call).
Errors: those of track_resource; 42501 the caller is not the owner, or row security would hide rows from it.
Example: SELECT * FROM keywright.track_table(''projects'', ''project'', ''id'', ''organization_id'', ''title'');';
COMMENT ON FUNCTION keywright.define_role(text, text[], integer, text) IS
'Makes sure that a role exists with these permissions. Whoever holds it has the new ones from the commit on.
Arguments: name (1 to 64 lower case letters, digits and single dashes; TYPE-owner owns resources of that type); permissions (type:action with a registered type, * on either side for any; 1 to 128); level (0 to 9, 0 the highest: with granted_by, only a role of a greater level than one''s own may be granted); managed_by (the calling reconciler; null: none).
Result: outcome created, updated or unchanged (nothing was written, no lock taken).
Errors: 23514 roles_name_check; 22023 malformed argument, with the nearest registered type; 42710 the role is built in or belongs to another manager.
Example: SELECT keywright.define_role(''deployer'', ''{project:read,project:update}'', 2);';
COMMENT ON FUNCTION keywright.delete_role(text) IS
'Deletes a role that nobody holds.
Result: true when something changed, false when there is no such role.
Errors: 42710 the role is built in; 23503 somebody holds it.
Example: SELECT keywright.delete_role(''deployer'');';
COMMENT ON FUNCTION keywright.list_roles() IS
'Lists the roles, highest level first.
Errors: none of its own.
Example: SELECT name, level, permissions FROM keywright.list_roles();';
COMMENT ON FUNCTION keywright.define_scope(text, text[], text) IS
'Makes sure that a scope of this name stands for these permissions. Keys that carry the name have the new ones from the commit on.
Arguments: name (a word, or two joined by a colon of which the first is no type of resource); permissions (type:action with a registered type, * on either side for any; 1 to 128); managed_by (the calling reconciler; null: none).
Result: outcome created, updated or unchanged (nothing was written, no lock taken).
Errors: 23514 scopes_name_check; 22023 malformed argument, with the nearest registered type, or a name that reads as a permission; 42710 the scope is built in or belongs to another manager.
Example: SELECT keywright.define_scope(''ci'', ''{project:read}'');';
COMMENT ON FUNCTION keywright.delete_scope(text) IS
'Deletes a scope that no API key carries.
Result: true when something changed, false when there is no such scope.
Errors: 42710 the scope is built in; 23503 an API key carries it, or did until it was revoked or expired and is not purged yet.
Example: SELECT keywright.delete_scope(''ci'');';
COMMENT ON FUNCTION keywright.list_scopes() IS
'Lists the registered scopes.
Errors: none of its own.
Example: SELECT * FROM keywright.list_scopes();';
COMMENT ON FUNCTION keywright.bind_role(text, text, text, text, text, text) IS
'Makes sure that a user holds a role, globally or on one resource and all that lies below it.
Arguments: username; role; resource_type and resource_id (both null: globally); granted_by (the user on whose authority the role is granted: active, holding there, globally or on the resource or above it, a role of a smaller level than the one granted, and every permission of the one granted; null: the caller''s own authority); managed_by (the calling reconciler; null: none).
Result: binding_id; outcome created, updated (a binding that ensure_system_user made now stays when that call no longer wants it, or a manager took over one that nobody managed) or unchanged (nothing was written, no lock taken). Parallel callers all succeed.
Errors: 22023 malformed argument; 42704 no such user, role, resource or granter; 42501 granted_by may not grant this role there; 40001 try again (in REPEATABLE READ).
Example: SELECT outcome FROM keywright.bind_role(''ada'', ''project-editor'', ''organization'', ''acme'');';
COMMENT ON FUNCTION keywright.unbind_role(text, text, text, text) IS
'Takes a role away from a user where it was bound: globally, or on one resource. The last active user that holds TYPE-owner on a resource of that type can not be unbound, also when two calls try at once.
Arguments: username; role; resource_type and resource_id (both null: globally).
Result: true when something changed, false when there was no such binding.
Errors: 42704 no such user or role; 22023 malformed argument; 23503 role_bindings_last_owner.
Example: SELECT keywright.unbind_role(''ada'', ''project-editor'', ''organization'', ''acme'');';
COMMENT ON FUNCTION keywright.list_role_bindings(text, text, text, text, uuid, integer) IS
'Lists who holds which role where, by binding_id.
Arguments: username, role, resource_type, resource_id (only these; null: all); after (the last binding_id of the page before); page_size (rows, 1 to 10000).
Result: among others scope (global or resource), and level and permissions of the role.
Errors: 42704 no such user; 22023 page_size out of range.
Example: SELECT username, role, resource_type, resource_id FROM keywright.list_role_bindings(''ada'');';
COMMENT ON FUNCTION keywright.has_permission(text, text, text, text) IS
'Tells whether the roles of a user cover a permission. A global binding covers everything, a binding on a resource covers it and what lies below it; the union counts, and nothing denies. What is not there is not permitted. Sees a change from the moment it commits.
Arguments: username; permission (type:action; with * for either: whether all of them are covered); resource_type and resource_id (both null: whether it is covered everywhere; only one null: false). A resource that is not registered lies below nothing.
Result: true or false; false for a suspended user.
Errors: 22023 malformed argument; 42704 no such user.
Example: SELECT keywright.has_permission(''ada'', ''project:update'', ''project'', ''rockets'');';
COMMENT ON FUNCTION keywright.mint_api_key(text, text, text[], text[], interval, text) IS
'Mints (creates) a new API key. The token is in the result and nowhere else; it can not be shown again.
Arguments: username (the owner); name (1 to 64 lower case letters, digits and single dashes, unique per user among live keys); scopes (registered scopes, and permissions type:action with a registered type, * on either side for any; 1 to 128); allow_list (entries type:id with a registered type, * on either side for any; 1 to 128); lifetime (more than 0, at most 100 years and keywright.max_api_key_lifetime); managed_by (the calling reconciler; null: none).
Result: key_id; token (43 characters, or 33 while keywright.api_key_brand is empty); expires_at.
Errors: 23514 api_keys_name_check; 23505 api_keys_name_idx; 22023 malformed argument, with the nearest registered scope or type; 42704 no such user; 55000 the user is suspended.
Example: SELECT key_id, token FROM keywright.mint_api_key(''ada'', ''ci'', scopes => ''{project:read}'', lifetime => ''90 days'');';
COMMENT ON FUNCTION keywright.mint_api_keys(text[], text[], text[], text[], interval, text) IS
'Mints many API keys in one statement: all of them or none. The tokens are in the result and nowhere else; they can not be shown again.
Arguments: usernames and names (as many of each, at most 100000: the owner and the name of each key); the others as for mint_api_key, the same for every key.
Result: a row per key, in order: ordinality (from 1), username, name, key_id, token, expires_at. No row for empty arrays. More than 1000 keys leave one audit event and one notification for all.
Errors: 23514 api_keys_name_check; 23505 api_keys_name_idx, also when a name is asked for twice; 22023 malformed argument; 42704 no such user; 55000 a user is suspended.
Example: SELECT username, name, token FROM keywright.mint_api_keys(''{ada,ada}'', ''{one,two}'');';
COMMENT ON FUNCTION keywright.ensure_api_key(text, text, text, text[], text[], interval, interval, text) IS
'Makes sure that whoever calls holds a live key of this name: keeps the token it is handed when it is this user''s live key of that name with these scopes and allow-list and more than renew_before left; otherwise mints a successor and revokes what went before, in one transaction. A rotation first waits 0.1 seconds, so that calls made at the same moment are seen as such.
Arguments: as for mint_api_key; existing_token (what the caller has stored; null or empty: nothing); renew_before (rotate when no more than this is left; shorter than lifetime).
Result: key_id; token (the one to use from now on; null when the outcome is concurrent); outcome kept (nothing was written), minted, rotated, or concurrent (another call for the same key minted while this one ran: read your store again and call again later); reason: null for kept, else missing, malformed, unknown, wrong-user, wrong-name, revoked, superseded, expired, scopes-changed, allow-list-changed or expiring; expires_at.
Errors: 23514 api_keys_name_check; 22023 malformed argument; 42704 no such user; 55000 the user is suspended; 42710 the key belongs to another manager.
Example: SELECT token, outcome, reason FROM keywright.ensure_api_key(''ada'', ''laptop'', :''token'', lifetime => ''90 days'', renew_before => ''14 days'');';
COMMENT ON FUNCTION keywright.verify_api_key(text) IS
'Tells whether a token is a live API key, and whose (RFC 7662). Never raises on any input, writes nothing, and sees a revocation from the moment it commits, also inside a REPEATABLE READ or long transaction.
Arguments: token (anything).
Result: always one row: active; then, only if active, key_id, user_id, username, name, scopes, allow_list and expires_at. An inactive token gives nulls whatever the cause.
Errors: none, whatever the token.
Example: SELECT active, username, name, scopes FROM keywright.verify_api_key(:''token'');';
COMMENT ON FUNCTION keywright.verify_api_keys(text[]) IS
'verify_api_key for many tokens at once, all under one snapshot.
Result: one row per element, in order: ordinality (from 1), then the columns of verify_api_key. No row for a null or empty array.
Errors: none, whatever the tokens.
Example: SELECT ordinality, active, username FROM keywright.verify_api_keys(ARRAY[:''token'', ''anything'']);';
COMMENT ON FUNCTION keywright.verify_api_key_digest(text, bytea) IS
'verify_api_key for callers that do not want to send the secret to the database.
Arguments: key_id (the 10 characters after the brand); digest (SHA-256 of the 22-character secret, 32 bytes). Whoever can read the stored hashes could pass one here: the caller must compute it from a token it was shown.
Result: the row of verify_api_key.
Errors: none, whatever the arguments.
Example: SELECT active, username FROM keywright.verify_api_key_digest(:''key_id'', :''digest'');';
COMMENT ON FUNCTION keywright.authenticate_api_key(text) IS
'verify_api_key that raises instead of answering false.
Result: the row of verify_api_key, active always true.
Errors: 28000 the token is not a live API key, one message whatever the cause.
Example: SELECT username, name, scopes FROM keywright.authenticate_api_key(:''token'');';
COMMENT ON FUNCTION keywright.authorize_api_key(text, text, text) IS
'authenticate_api_key and a permission check in one call, under one snapshot. Permitted is what the scopes of the key, its allow-list and the roles of its owner all cover.
Arguments: token; permission (type:action); resource (type:id; null: everywhere). An entry of an allow-list and a role binding cover a resource and what lies below it. A resource that is not registered lies below nothing.
Result: the row of verify_api_key, active always true.
Errors: 22023 malformed permission or resource; 28000 the token is not a live API key, one message whatever the cause; 42501 the key is good and the permission not covered, DETAIL names it and by what it is not covered. A failing look-up is an error of its own, never one of these.
Example: SELECT username, name FROM keywright.authorize_api_key(:''token'', ''project:read'', ''project:rockets'');';
COMMENT ON FUNCTION keywright.explain_api_key(text) IS
'The true cause why a token verifies or not, for an auditor.
Result: cause: active, missing, malformed (form or checksum), unknown, wrong-secret, revoked, superseded (rotated away and still presented: reuse), expired, user-suspended or user-deleted; then what is known of the key. With a wrong secret nothing but cause and key_id is told.
Errors: none, whatever the token.
Example: SELECT cause, key_id, revoke_reason FROM keywright.explain_api_key(:''token'');';
COMMENT ON FUNCTION keywright.rotate_api_key(text, interval) IS
'Mints a successor with the same name, scopes, allow-list and lifetime, capped by keywright.max_api_key_lifetime.
Arguments: key_id (the key to replace; it must be live); grace (how long the old token lives on, 0 or more; never past its own expiry).
Result: key_id, token and expires_at of the successor; predecessor_id; predecessor_expires_at (when the old token dies).
Errors: 22023 malformed argument; 42704 no such key; 55000 the key is revoked, superseded or expired, or its owner suspended.
Example: SELECT token, predecessor_expires_at FROM keywright.rotate_api_key(:''key_id'', grace => ''1 hour'');';
COMMENT ON FUNCTION keywright.revoke_api_key(text, text) IS
'Revokes a key for good (RFC 7009): dead for every session from the commit on. The row stays until it is purged.
Arguments: key_id; reason (free text for people; never put a token in it).
Result: true when something changed, false when the key was revoked already.
Errors: 22023 malformed key_id; 42704 no such key.
Example: SELECT keywright.revoke_api_key(:''key_id'', ''laptop stolen'');';
COMMENT ON FUNCTION keywright.revoke_user_api_keys(text, text) IS
'Revokes every key of a user that is not revoked yet.
Arguments: username; reason (free text for people; never put a token in it).
Result: true when something changed.
Errors: 42704 no such user.
Example: SELECT keywright.revoke_user_api_keys(''ada'', ''left the company'');';
COMMENT ON FUNCTION keywright.revoke_leaked_api_key(text) IS
'Revokes the key whose token was found in the wild; the reason is set to leaked. Both id and secret must be right.
Result: true when something changed; false when the token is no key, or its key was revoked already (RFC 7009: no error).
Errors: none of its own, whatever the token.
Example: SELECT keywright.revoke_leaked_api_key(:''token'');';
COMMENT ON FUNCTION keywright.expire_api_key(text) IS
'Lets a key expire now. An earlier expiry is left as it is.
Result: true when something changed, false when the key was dead already.
Errors: 22023 malformed key_id; 42704 no such key.
Example: SELECT keywright.expire_api_key(:''key_id'');';
COMMENT ON FUNCTION keywright.list_api_keys(text, boolean, text, integer) IS
'Lists API keys without any secret, by key_id.
Arguments: username (only this user''s keys; null: all); include_inactive (also keys that no longer live); after (the last key_id of the page before); page_size (rows, 1 to 10000).
Result: among others state: active, superseded (a successor holds the name; alive until expires_at), expired or revoked.
Errors: 42704 no such user; 22023 page_size out of range.
Example: SELECT key_id, name, state, expires_at FROM keywright.list_api_keys(''ada'', include_inactive => true);';
COMMENT ON FUNCTION keywright.purge_api_keys(interval, integer) IS
'Deletes keys that expired or were revoked longer than retention ago, one batch a call.
Arguments: retention (0 or more); batch (the most rows to delete, 1 to 1000000). Keys that another session holds are left for the next call.
Result: the number of keys deleted.
Errors: 22023 malformed argument.
Example: SELECT keywright.purge_api_keys(''30 days'');';
COMMENT ON FUNCTION keywright.mint_gateway_key(text, text) IS
'Mints a gateway key. The token is in the result and nowhere else; it can not be shown again.
Arguments: name (1 to 64 lower case letters, digits and single dashes); managed_by (the calling reconciler; null: none).
Result: gateway_key_id; name; secret_prefix (the public first 11 characters); token (43 characters); created_at.
Errors: 23514 gateway_keys_name_check; 23505 gateway_keys_name_idx; 22023 malformed argument.
Example: SELECT name, token FROM keywright.mint_gateway_key(''edge-2'');';
COMMENT ON FUNCTION keywright.ensure_gateway_key(text, text, text) IS
'Makes sure that whoever calls holds the live gateway key of this name: keeps the token it is handed when it is, otherwise mints a successor and ends what went before, in one transaction. A rotation first waits 0.1 seconds, as that of ensure_api_key does.
Arguments: name (as for mint_gateway_key); existing_token (what the caller has stored; null or empty: nothing); managed_by (the calling reconciler; null: none).
Result: gateway_key_id; name; secret_prefix; token (the one to use from now on; null when the outcome is concurrent); outcome kept (nothing was written), minted, rotated or concurrent (another call for the same key minted while this one ran: read your store again and call again later); reason: null for kept, else missing, malformed, unknown, wrong-name or superseded; created_at.
Errors: 23514 gateway_keys_name_check; 22023 malformed argument; 42710 the key belongs to another manager.
Example: SELECT token, outcome, reason FROM keywright.ensure_gateway_key(''edge-1'', :''token'');';
COMMENT ON FUNCTION keywright.rotate_gateway_key(text, interval) IS
'Mints a successor of the same name.
Arguments: name; grace (how long the old token lives on, 0 or more).
Result: as mint_gateway_key, then predecessor_id and predecessor_expires_at (when the old token dies, and heartbeats of its id with it).
Errors: 22023 malformed argument; 42704 no such key.
Example: SELECT token, predecessor_expires_at FROM keywright.rotate_gateway_key(''edge-1'', grace => ''1 hour'');';
COMMENT ON FUNCTION keywright.list_gateway_keys() IS
'Lists the gateway keys that verify, without any secret, oldest first.
Result: among others last_heartbeat_at (null: never heard of on this node) and expires_at (null, but for a rotated key within its grace).
Errors: none of its own.
Example: SELECT name, secret_prefix, last_heartbeat_at FROM keywright.list_gateway_keys();';
COMMENT ON FUNCTION keywright.delete_gateway_key(text) IS
'Deletes a gateway key, and with the key that holds a name also those it superseded that are still in their grace.
Arguments: name_or_id (a name, without regard to case, or else a gateway_key_id).
Result: the row that was deleted.
Errors: 42704 no such key.
Example: SELECT name FROM keywright.delete_gateway_key(''edge-1'');';
COMMENT ON FUNCTION keywright.verify_gateway_key(text) IS
'Tells whether a token is a live gateway key. Never raises on any input, writes nothing, and sees a deletion from the moment it commits.
Arguments: token (anything).
Result: always one row: active; then, only if active, gateway_key_id and name.
Errors: none, whatever the token.
Example: SELECT active, name FROM keywright.verify_gateway_key(:''token'');';
COMMENT ON FUNCTION keywright.heartbeat_gateway_key(uuid) IS
'Notes that the holder of a key is alive. Call it every minute or so. It never waits for another heartbeat.
Result: true; false when the key is gone, so that a live session ends itself.
Errors: 22023 gateway_key_id is null.
Example: SELECT keywright.heartbeat_gateway_key(:''gateway_key_id'');';
COMMENT ON FUNCTION keywright.key_usage(text, text, integer) IS
'When API keys were used, as far as this node knows: what was written, and up to this moment what is in memory. Works in READ ONLY transactions and on a standby.
Arguments: username (only this user''s keys; null: all); after (the last key_id of the page before); page_size (rows, 1 to 10000).
Result: a row for every key that is not purged, dead or alive, by key_id: key_id; last_used_at (when it was last accepted); last_presented_at (when its id was last presented, also with a wrong secret, expired or revoked). Null: never, or not while it was noted.
Errors: 42704 no such user; 22023 page_size out of range.
Example: SELECT key_id, last_used_at FROM keywright.key_usage(''ada'');';
COMMENT ON FUNCTION keywright.touch_api_key(text) IS
'Notes that a key was used, or if it is dead, presented: for servers where keywright is not in shared_preload_libraries, so that verification notes nothing, and for callers that remember what they verified. Where it is, this notes in memory as verification does. Where it is not, this writes, at most once a minute a key, and never waits for another call.
Arguments: key_id.
Result: true; false when there is no such key.
Errors: 22023 malformed key_id; 25006 on a standby and in a READ ONLY transaction, where there is something to write.
Example: SELECT keywright.touch_api_key(:''key_id'');';
COMMENT ON FUNCTION keywright.begin_request(text) IS
'Makes the current transaction act for the API key of this token, for row security policies to ask: until the transaction ends, the subtransaction it was called in is rolled back, or it is called again. Writes nothing, and switches no role.
Result: key_id, user_id and username of the key; db_role of its owner, null when there is none.
Errors: 28000 the token is not a live API key, one message whatever the cause; what was in force before is left.
Example: SELECT username, db_role FROM keywright.begin_request(:''token'');';
COMMENT ON FUNCTION keywright.current_user_id() IS
'The owner of the API key this transaction acts for; null when there is none, or once the key is revoked or expired or its owner suspended.
Errors: none of its own.
Example: SELECT keywright.current_user_id();';
COMMENT ON FUNCTION keywright.current_api_key_id() IS
'The API key this transaction acts for; null as current_user_id.
Errors: none of its own.
Example: SELECT keywright.current_api_key_id();';
COMMENT ON FUNCTION keywright.current_scopes() IS
'The scopes of the API key this transaction acts for; null as current_user_id.
Errors: none of its own.
Example: SELECT keywright.current_scopes();';
COMMENT ON FUNCTION keywright.is_permitted(text, text, text) IS
'Tells whether the API key this transaction acts for permits something: its scopes, its allow-list and the roles of its owner must all cover it. For row security policies; sees a revocation from the moment it commits, also in the middle of a statement (where the arguments are constant, Postgres asks once a statement).
Arguments: permission (type:action); resource_type and resource_id (both null: everywhere; only one null: false). An entry of an allow-list and a role binding cover a resource and what lies below it. A resource that is not registered lies below nothing.
Result: true or false; false when the transaction acts for no key, or for one that is no longer live.
Errors: 22023 malformed permission.
Example: SELECT keywright.is_permitted(''project:read'', ''project'', ''rockets'');';
COMMENT ON FUNCTION keywright.check_request() IS
'For PostgREST''s db-pre-request. Reads the header keywright.api_key_header (x-api-key) from request.headers. No such header: does nothing. A good key: the transaction acts for it (see begin_request), and as its owner''s db_role, if there is one. Anything else ends the request. Works in READ ONLY transactions and on a standby.
The role of anonymous requests needs the capability requester, and so has every db_role; the role PostgREST connects as must be a member of each.
Errors: PT401 (HTTP 401) the key is missing its text, sent twice, malformed, unknown, revoked or expired, or its owner is not active, or the headers are no JSON object; PT403 (HTTP 403) the owner''s db_role is gone, too powerful, or not granted to the authenticator. A failing look-up is an error of its own, never one of these.
Example: SELECT keywright.check_request();';
COMMENT ON FUNCTION keywright.preflight_authenticator(text, text, text[], text[]) IS
'Looks at everything grant_authenticator would need, and changes nothing. Works in READ ONLY transactions and on a standby.
Arguments: as for grant_authenticator.
Result: a row a finding, none when there is nothing to say. severity: error (grant_authenticator refuses), warning (something will not work, or is weaker than it looks) or notice (grant_authenticator mends it); code (a stable word); object (the role or schema); message; hint (what to do, a statement where there is one).
Errors: 22023 an argument is null, or text that can not be in this database''s encoding.
Example: SELECT severity, message, hint FROM keywright.preflight_authenticator(''app'', ''web_anon'', ''{web_user}'', ''{api}'');';
COMMENT ON FUNCTION keywright.grant_authenticator(text, text, text, text[], text[], boolean, text) IS
'Makes sure that a role can serve as the authenticator of a service: that it is a member of the roles it switches to (PostgreSQL 16 and later: WITH INHERIT FALSE, SET TRUE, granted by keywright_grantor), may connect to this database, and is NOINHERIT. Records what it changed, for revoke_authenticator to undo. Called with other roles it moves the service: all of it becomes visible at the commit. Never makes, drops or re-passwords a role of yours.
Arguments: service (its name); connect_as (the role it logs in as); anon_role (the role of requests without a JWT); jwt_roles (the roles a JWT may name); schemas (at least one; the first is the default); noinherit (whether connect_as is made NOINHERIT); managed_by (the reconciler that owns the service; null: nobody).
Who may: whoever holds the capability, for roles that allow_authenticator names, or that the caller could grant by hand (ADMIN OPTION, superuser).
Result: a row a change: action, object, outcome (done; present: it was there already and is only noted; undone, left, gone for what the service needed before), reason. No row when nothing changed, and then nothing was written. Parallel callers all succeed, in all databases of the cluster.
Errors: whatever preflight_authenticator calls an error, all findings together: 42704 no such role, 42939 reserved name, 42501 a role that is too powerful or not allowed, 22023 the same role twice, 55000 anything else or several kinds; 42710 another manager''s, or keywright_grantor is not as keywright made it; 23514 the service''s name breaks its rule; 22023 a malformed argument; 40001 somebody else kept changing the same roles. DETAIL of any other error names the step.
Example: SELECT * FROM keywright.grant_authenticator(''rest'', ''app'', ''web_anon'', ''{web_user}'', ''{api}'');';
COMMENT ON FUNCTION keywright.revoke_authenticator(text) IS
'Undoes what grant_authenticator changed for a service and no other service, in any database of the cluster, still needs; and forgets the service with its settings. What was there before, or was changed by somebody else since, is left. Can be called again: a service that is not there gives no row.
Result: a row each: action, object, outcome (undone; left; gone: somebody else undid it), reason.
Errors: 22023 the service is null; 40001 somebody else kept changing the same roles. DETAIL of any other error names the step.
Example: SELECT * FROM keywright.revoke_authenticator(''rest'');';
COMMENT ON FUNCTION keywright.authenticator_status() IS
'How the roles of this cluster differ from what the services of this database need. Works in READ ONLY transactions and on a standby.
Result: a row a difference, none when in sync: service (null for what was granted for a database that is gone), code, object, message, hint. reconcile_authenticators mends membership_missing, membership_altered, inherits_again, connect_missing, not_noted and left_over; the other codes are errors of preflight_authenticator, which are for the owner of the role to mend.
Errors: none of its own.
Example: SELECT * FROM keywright.authenticator_status();';
COMMENT ON FUNCTION keywright.reconcile_authenticators() IS
'Brings this cluster to what the services of this database need: grants what is missing, undoes what no service needs any more. For a job, and for a node to which keywright.authenticators is replicated. Writes nothing when there is nothing to do.
Who may: whoever holds the capability. What a service has not been granted in this cluster yet, as on a node it was replicated to, needs an allowance or a caller who could grant it by hand, as with grant_authenticator.
Result: as for grant_authenticator, with the service. action check: what reason says is for the owner of the role to mend; outcome refused: nothing is done for the service meanwhile; left: the rest is done.
Errors: 42710 keywright_grantor is not as keywright made it; 40001 somebody else kept changing the same roles. DETAIL of any other error names the step.
Example: SELECT * FROM keywright.reconcile_authenticators();';
COMMENT ON FUNCTION keywright.list_authenticators() IS
'Lists the services, roles by the names they were granted by.
Errors: none of its own.
Example: SELECT * FROM keywright.list_authenticators();';
COMMENT ON FUNCTION keywright.allow_authenticator(text, text[]) IS
'Lets holders of the capability reconciler make a role an authenticator and grant these roles to it, and no others. An allowance is the role''s: one that is dropped and made again has none.
Arguments: connect_as (the role services may log in as); roles (all that may be granted to it, 1 to 128).
Who may: a superuser, or who has the ADMIN OPTION on each of them, and so could grant them by hand.
Result: created, updated or unchanged. What is granted already stays granted.
Errors: 42704 no such role; 42939 a reserved name; 42501 the caller could not grant it; 22023 a malformed argument.
Example: SELECT keywright.allow_authenticator(''app'', ''{web_anon,web_user}'');';
COMMENT ON FUNCTION keywright.disallow_authenticator(text) IS
'Ends what allow_authenticator allowed. What is granted already stays granted: see revoke_authenticator.
Result: true when something changed.
Errors: 42704 no such role; 42939 a reserved name; 22023 it is null.
Example: SELECT keywright.disallow_authenticator(''app'');';
COMMENT ON FUNCTION keywright.list_allowed_authenticators() IS
'Lists which roles a reconciler may make an authenticator, and what it may grant to each.
Errors: none of its own.
Example: SELECT * FROM keywright.list_allowed_authenticators();';
COMMENT ON FUNCTION keywright.set_postgrest_settings(text, jsonb) IS
'Sets settings of PostgREST for a service; settings that are not named stay. What changes is notified on the channel pgrst.
Arguments: service; settings (an object: keys as PostgREST calls them in the database, such as db_max_rows; text, number or boolean, null to remove one). db_pool is 1 to 30 (default 10), db_max_rows 1 to 10000 (default 1000). jwt_secret is never stored, db_anon_role and db_schemas are arguments of grant_authenticator.
Result: a row a change: key, outcome (created, updated or removed). No row when nothing changed, and then nothing was written and nobody is notified.
Errors: 22023 with everything that is wrong, unknown keys first; 42704 no such service.
Example: SELECT * FROM keywright.set_postgrest_settings(''rest'', ''{"db_max_rows": 500}'');';
COMMENT ON FUNCTION keywright.set_postgrest_setting(text, text, text) IS
'Sets one setting of PostgREST for a service; null removes it.
Arguments: service; key (as for set_postgrest_settings); value (null to remove it).
Result: created, updated, removed or unchanged.
Errors: as for set_postgrest_settings.
Example: SELECT keywright.set_postgrest_setting(''rest'', ''db_max_rows'', ''500'');';
COMMENT ON FUNCTION keywright.postgrest_config() IS
'For PostgREST''s db-pre-config. Sets pgrst.* for the transaction to the settings of the service whose authenticator this session logged in as; nothing for any other session. Where services share an authenticator, the setting keywright.service says which is meant (render_postgrest_config sees to it); without it the oldest. Works in READ ONLY transactions and on a standby.
Errors: none of its own.
Example: SELECT keywright.postgrest_config();';
COMMENT ON FUNCTION keywright.render_postgrest_config(text, text[], text, text, text, jsonb) IS
'The text of postgrest.conf for a service. Stores nothing. Pass the secrets as bind parameters, and set log_parameter_max_length to 0 where statements are logged.
Arguments: service; hosts (host, host:port, [IPv6 address]:port or the directory of a socket, tried in this order); password (of connect_as; null: left out); jwt_secret (at least 32 characters, or @file; null: left out); target_session_attrs (any, read-write, read-only, primary, standby or prefer-standby); parameters (an object: more parameters of libpq, such as sslmode).
Result: the file. It names postgrest_config as db-pre-config if connect_as may call it: see the capability authenticator.
Errors: 42704 no such service; 22023 malformed arguments, all together, without repeating a secret.
Example: SELECT keywright.render_postgrest_config(''rest'', ''{db1.example:5432,db2.example:5432}'', parameters => ''{"sslmode": "verify-full"}'');';
COMMENT ON FUNCTION keywright.operator_key_name(text, text, text) IS
'The name of a control plane''s key: the prefix and 16 hexadecimal digits, FNV-1a-64 of namespace, a NUL byte and name. The same on every run, and different for each control plane.
Arguments: namespace and name of the control plane, as they are; prefix (the username and a dash).
Errors: 22023 namespace or name is empty, or the prefix is not a username of lower case letters, digits and single dashes, and a dash.
Example: SELECT keywright.operator_key_name(''default'', ''coder'');';
COMMENT ON FUNCTION keywright.ensure_operator_access(text, text, text, interval, interval, text) IS
'Everything the operator of a control plane needs, in one call: the system user, its standing in every organization, and a live key of its own. A reconciler calls it each time with the token it has stored, and stores the one it gets back. Nothing is written when nothing has to change.
Arguments: namespace and name of the control plane; existing_token (what is stored; null, empty or anything: white space around it does not count); lifetime of a new key; renew_before (rotate when no more than this is left); prefix (the username and a dash; control planes with the same one share the user, and never a key).
Result: user_id; key_id; key_name; token (the one to use from now on; null when the outcome is concurrent); outcome and reason as for ensure_api_key; expires_at.
Errors: 22023 malformed argument; 42710 the user is human or a service, or belongs to another manager.
Example: SELECT token, outcome, reason FROM keywright.ensure_operator_access(''default'', ''coder'', existing_token => :''token'');';
COMMENT ON FUNCTION keywright.revoke_operator_access(text, text, text) IS
'Revokes the keys of a control plane, also one that was rotated and is in its grace. The user and the keys of other control planes stay. Can be called again.
Arguments: namespace and name of the control plane; prefix (as for ensure_operator_access).
Result: true when something was revoked, false when there was nothing to revoke.
Errors: 22023 malformed argument.
Example: SELECT keywright.revoke_operator_access(''default'', ''coder'');';
COMMENT ON FUNCTION keywright.manifest_schema() IS
'The JSON Schema (draft 2020-12) of the manifests that plan and apply take.
Errors: none of its own.
Example: SELECT keywright.manifest_schema();';
COMMENT ON FUNCTION keywright.plan(jsonb) IS
'Shows what apply would do, and does nothing: writes nothing, takes no lock, works in READ ONLY transactions and on a standby.
Arguments: manifest (see manifest_schema()).
Result: a row a step, none when there is nothing to do: step (from 1, in the order they are taken); action (create, update, adopt, mint, rotate, delete, revoke; left: it would be pruned, but something else needs it; concurrent: somebody else has just minted it); kind (resource_type, scope, role, resource, user, role_binding, api_key, gateway_key, authenticator); name; change (new values, or from and to; no secret).
Errors: as for apply.
Example: SELECT action, kind, name, change FROM keywright.plan(''{"manager": "plane-a", "gateway_keys": [{"name": "edge-2"}]}'');';
COMMENT ON FUNCTION keywright.apply(jsonb) IS
'Brings about what a manifest says: all of it or nothing. What is there as it should be is not touched, and where there is nothing to do, nothing is written and no lock taken. What is made comes in the order things depend on each other; what is pruned comes last, in the opposite order. Applies go one after the other.
Arguments: manifest (see manifest_schema()): manager owns what it makes; prune takes away what this manager owns and the manifest does not name, and nothing else; adopt takes over what another manager owns. What nobody manages is taken over in any case, as by the ensure functions. Built-in types, roles and scopes need not be named.
An API key or gateway key is minted when no live key holds its name; existing_token, if it is given, must be that key''s, or the key is rotated as by ensure_api_key.
Result: as plan; token (of a key that was minted or rotated; it can not be shown again).
Who may: whoever holds the capability; for authenticators as for grant_authenticator.
Errors: every fault of the manifest is listed in DETAIL with its JSON path, and nothing is changed. One kind of fault has its own SQLSTATE, several kinds have 22023: 22023 malformed, an unknown key among them; 42704 something named is not there; 42710 built in, of another kind, followed by a table, or another manager''s; 42501 a Postgres role too powerful or not allowed; 42939 a reserved role name; 23503 the last owner of a resource would be pruned; 55000 a suspended user, or what preflight_authenticator finds; 40001 try again.
Example: SELECT action, kind, name, token FROM keywright.apply(''{"manager": "plane-a", "gateway_keys": [{"name": "edge-2"}]}'');';
COMMENT ON FUNCTION keywright.grant_access(text, text) IS
'Gives a role a capability: USAGE on the schema and EXECUTE on the functions of the capability, never a table privilege.
Arguments: grantee (a role; not PUBLIC and not a predefined one); capability: authenticator (postgrest_config, for the role PostgREST logs in as), requester (check_request, begin_request and what row security policies call), verifier (requester, and verify, authenticate, authorize, touch, heartbeat), issuer (mint, ensure, rotate, revoke, list keys), auditor (list, explain, metrics; nothing that writes), reconciler (issuer, and users, resources, roles), maintainer (maintain and what it calls, metrics) or admin (all).
Result: created, updated (missing privileges were given again) or unchanged. Parallel callers all succeed.
Errors: 42704 no such role; 42939 the role is reserved; 22023 no such capability; 40001 somebody else kept changing the same privileges.
Example: SELECT keywright.grant_access(''app'', ''verifier'');';
COMMENT ON FUNCTION keywright.revoke_access(text, text) IS
'Takes a capability away: undoes exactly what grant_access gave and no other capability of the role still needs.
Arguments: grantee and capability, as for grant_access.
Result: true when something changed, false when the role did not hold the capability.
Errors: 42704 no such role; 42939 the role is reserved; 22023 no such capability; 40001 somebody else kept changing the same privileges.
Example: SELECT keywright.revoke_access(''app'', ''verifier'');';
COMMENT ON FUNCTION keywright.list_access() IS
'Lists who holds which capability. A role whose privileges were taken away by DROP OWNED holds none.
Errors: none of its own.
Example: SELECT * FROM keywright.list_access();';
COMMENT ON FUNCTION keywright.list_audit_events(text, text, uuid, text, timestamptz, timestamptz, uuid, integer) IS
'Lists what changed, newest first.
Arguments: of_kind and of_id (only events of these objects); of_user (only what concerns this user: itself, its keys, its bindings); by_role (only what this role did, logged in or by SET ROLE); since (not older); before and before_id (older than these: the occurred_at and event_id of the last row of the page before); page_size (rows, 1 to 10000). Null: all.
Result: occurred_at; event_id; event (created, updated, deleted, truncated, suspended, activated, minted, superseded, revoked, expired, purged, granted, undone); kind; id; name; user_id; columns (those that changed, no values); affected (how many objects the event stands for: statements on a tracked table, purges, and statements by hand on more than 1000 rows are one event); by_hand; session_user_name; role_name (the role in force); api_key_id (the key the transaction acted for); client_addr; transaction_id.
Errors: 22023 page_size out of range.
Example: SELECT occurred_at, event, kind, name, role_name FROM keywright.list_audit_events(''api_key'', :''key_id'');';
COMMENT ON FUNCTION keywright.prune_audit_events(integer) IS
'Deletes a batch of the oldest audit events that are older than the setting keywright.audit_retention, which only a superuser sets.
Arguments: batch (the most rows to delete, 1 to 1000000).
Result: the number of events deleted. Leaves an event of its own, when there were any.
Errors: 22023 malformed argument; 42501 the client set keywright.audit_retention when it connected.
Example: SELECT keywright.prune_audit_events();';
COMMENT ON FUNCTION keywright.metrics() IS
'Metrics in the manner of Prometheus: gauges, and counters where the name ends in _total. Works in READ ONLY transactions and on a standby, and stays cheap at any size: up to about 100000 rows of a table are counted, in some tens of milliseconds, and beyond that the planner''s estimate is given, which is as good as the last VACUUM or ANALYZE.
Result: a row a series, by name: name; labels (an object of strings); value (never null). What has no value has no row.
keywright_info{version}: 1. keywright_users: users that are not deleted. keywright_api_keys{state}: current (holds its name: neither revoked nor superseded; it may have expired) or retired. keywright_api_keys_next_expiry_timestamp_seconds: when the next current key expires; where the next 10000 to expire are all retired, a moment before which none does. keywright_api_keys_oldest_expired_timestamp_seconds: the oldest expiry that has passed, and so how far the purge lags. keywright_gateway_keys{state}: live or grace. keywright_gateway_key_last_heartbeat_timestamp_seconds{gateway_key}: by name. keywright_role_bindings, keywright_resources, keywright_authenticators. keywright_authenticator_differences{service}: rows of authenticator_status, 0 when in sync; service is empty for what was granted for a database that is gone. keywright_audit_events, keywright_audit_oldest_event_timestamp_seconds. keywright_notification_queue_usage_ratio: 0 to 1, of the whole server.
Only where keywright is in shared_preload_libraries, and of this node since it started: keywright_verifications_total{kind,outcome}: verifications in this database, of an api_key active, malformed, unknown, wrong-secret, revoked, expired or user-inactive, of a gateway_key active, malformed, unknown, wrong-secret or expired; the first 64 databases that verify are counted. keywright_usage_last_flush_timestamp_seconds: what was noted in this database before then is in its table; no row on a standby. keywright_usage_slots{state}: places in memory, of the whole server: free, clean (written) or dirty (not written yet). keywright_usage_dropped_total: keys that were dropped because all places were dirty, of the whole server: what was noted of them since the last flush is lost, unless it was being written at that moment.
Errors: none of its own.
Example: SELECT name, labels, value FROM keywright.metrics();';
COMMENT ON FUNCTION keywright.purge_gateway_keys() IS
'Deletes gateway keys that were rotated away and whose grace is over, and heartbeats of keys that are gone.
Result: the number of keys deleted.
Errors: none of its own.
Example: SELECT keywright.purge_gateway_keys();';
COMMENT ON FUNCTION keywright.purge_api_key_usage(integer) IS
'Deletes the usage of keys that are gone, one batch a call.
Arguments: batch (the most rows to delete, 1 to 1000000). Rows that another session holds are left for the next call.
Result: the number of rows deleted.
Errors: 22023 malformed argument.
Example: SELECT keywright.purge_api_key_usage();';
COMMENT ON PROCEDURE keywright.maintain(interval, integer) IS
'Purges API keys that have been dead for longer than retention, then the usage of keys that are gone, then gateway keys whose grace is over, then prunes audit events older than the setting keywright.audit_retention: with a commit a batch, so that it can be interrupted and called again at any time, and what it had committed stays. Call it outside a transaction block.
Arguments: retention (as for purge_api_keys, 0 to 100 years; of keys only); batch (the most rows a commit, 1 to 1000000).
Progress: the application_name of the session in pg_stat_activity, during each batch, is such as keywright.maintain: 30000 API keys purged.
Errors: 22023 malformed argument; 42501 the client set keywright.audit_retention when it connected (the keys are purged by then).
Example: CALL keywright.maintain();';

SELECT keywright._admit(ARRAY[
  'version()', 'help(text)', '_admit(text[])', '_import_api_key(text,text,text,bytea,timestamp with time zone,timestamp with time zone,text[],text[])',
  'import_api_key(text,text,text,bytea,timestamp with time zone,timestamp with time zone,text[],text[])',
  '_users_status_time()', '_note_conflict(text,text,text,text,uuid)', '_users_replicated()',
  '_api_keys_replicated()', '_gateway_keys_replicated()', '_role_bindings_replicated()', '_resources_gone()', '_last_written_stays()'
]);
