-- Users: identities that own keys.

CREATE TABLE keywright.users (
  user_id uuid CONSTRAINT users_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  username text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT users_username_check CHECK (
      pg_catalog.octet_length(username) OPERATOR(pg_catalog.<=) 64
      AND username OPERATOR(pg_catalog.~) '^[a-z0-9]+([-_.][a-z0-9]+)*$'),
  kind text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT users_kind_check CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['human', 'service', 'system'])),
  status text COLLATE pg_catalog."C" NOT NULL DEFAULT 'active'
    CONSTRAINT users_status_check CHECK (status OPERATOR(pg_catalog.=) ANY (ARRAY['active', 'suspended'])),
  email text NOT NULL DEFAULT '',
  display_name text NOT NULL DEFAULT '',
  db_role text,
  managed_by text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  deleted_at timestamptz,
  organization_role text COLLATE pg_catalog."C"
);
CREATE UNIQUE INDEX users_username_idx ON keywright.users (pg_catalog.lower(username))
  WHERE deleted_at IS NULL;
CREATE INDEX users_managed_idx ON keywright.users (managed_by) WHERE managed_by IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX users_organization_role_idx ON keywright.users (organization_role)
  WHERE organization_role IS NOT NULL AND deleted_at IS NULL;
ALTER TABLE keywright.users ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.users', '');

COMMENT ON TABLE keywright.users IS
'Identities that own keys. A deleted user keeps its row and its id; its name is free again. Row security without a policy closes the table to everybody but its owner, members of pg_read_all_data included.';
COMMENT ON COLUMN keywright.users.user_id IS 'Random; never used again after a deletion.';
COMMENT ON COLUMN keywright.users.username IS '1 to 64 lower case letters and digits in groups joined by one dash, underscore or dot; unique among users that are not deleted.';
COMMENT ON COLUMN keywright.users.kind IS 'human, service or system. Only ensure_system_user makes a system user, and it does not count as a first user.';
COMMENT ON COLUMN keywright.users.status IS 'active or suspended. The keys of a suspended user do not verify.';
COMMENT ON COLUMN keywright.users.email IS 'For contact; empty when there is none. Not an identity and not unique.';
COMMENT ON COLUMN keywright.users.display_name IS 'For people to read.';
COMMENT ON COLUMN keywright.users.db_role IS 'The Postgres role this user acts as, by name; null for none.';
COMMENT ON COLUMN keywright.users.managed_by IS 'The reconciler that owns this user; an ensure call of another one never changes it.';
COMMENT ON COLUMN keywright.users.created_at IS 'When the user was made.';
COMMENT ON COLUMN keywright.users.updated_at IS 'When the row last changed.';
COMMENT ON COLUMN keywright.users.deleted_at IS 'When the user was deleted; null while it lives.';
COMMENT ON COLUMN keywright.users.organization_role IS 'The role a system user holds in every organization, also in those to come; null for none.';
COMMENT ON INDEX keywright.users_managed_idx IS 'Those that belong to a manager.';
COMMENT ON INDEX keywright.users_organization_role_idx IS 'Who is bound to a new organization.';
COMMENT ON INDEX keywright.users_username_idx IS 'One living user of a name.';
COMMENT ON CONSTRAINT users_username_check ON keywright.users IS 'The form of a username.';
COMMENT ON CONSTRAINT users_pkey ON keywright.users IS 'A user has one id.';
COMMENT ON INDEX keywright.users_pkey IS 'Verification finds the owner of a key by it.';
COMMENT ON CONSTRAINT users_kind_check ON keywright.users IS 'The kinds of user.';
COMMENT ON CONSTRAINT users_status_check ON keywright.users IS 'The states of a user.';

CREATE FUNCTION keywright._users_row_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM keywright._require_name('users_username_check', new.username);
  IF new.kind NOT IN ('human', 'service', 'system') THEN
    PERFORM keywright._refuse('23514', 'users', 'users_kind_check', 'kind of a user is unknown',
      'A user is human, service or system.', 'Call keywright.ensure_user.');
  ELSIF new.status NOT IN ('active', 'suspended') THEN
    PERFORM keywright._refuse('23514', 'users', 'users_status_check', 'status of a user is unknown',
      'A user is active or suspended.', 'Call keywright.suspend_user or keywright.activate_user.');
  ELSIF num_nulls(new.user_id, new.kind, new.status, new.email, new.display_name, new.created_at, new.updated_at) > 0 THEN
    PERFORM keywright._refuse('23502', 'users', '', 'a user lacks a value',
      'Only db_role, managed_by, deleted_at and organization_role may be null.', 'Call keywright.ensure_user.');
  ELSIF new.deleted_at IS NULL AND EXISTS (
    SELECT FROM keywright.users AS u
     WHERE lower(u.username) = lower(new.username) AND u.deleted_at IS NULL AND u.user_id <> new.user_id
  ) THEN
    PERFORM keywright._refuse('23505', 'users', 'users_username_idx',
      format('user "%s" exists already', new.username),
      'A living user holds a name.', 'Choose another name.');
  END IF;
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._users_row_check() IS
'Internal. Refuses a row written by hand without printing it.';
CREATE TRIGGER users_row_check BEFORE INSERT OR UPDATE ON keywright.users
  FOR EACH ROW WHEN (NOT keywright._writing()) EXECUTE FUNCTION keywright._users_row_check();
COMMENT ON TRIGGER users_row_check ON keywright.users IS 'Refuses a malformed row written by hand without printing it.';

CREATE FUNCTION keywright._users_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM keywright._refuse('42501', 'users', '',
    CASE tg_op
      WHEN 'TRUNCATE' THEN 'table keywright.users can not be truncated'
      ELSE format('system user "%s" can not be changed by %s', old.username, tg_op) END,
    'System users are changed by the functions of keywright only.',
    'Call keywright.ensure_system_user, keywright.suspend_user or keywright.delete_user.');
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION keywright._users_guard() IS
'Internal. Refuses to change a system user by hand.';
CREATE TRIGGER users_guard BEFORE UPDATE OR DELETE ON keywright.users
  FOR EACH ROW WHEN (old.kind OPERATOR(pg_catalog.=) 'system' AND NOT keywright._writing())
  EXECUTE FUNCTION keywright._users_guard();
CREATE TRIGGER users_truncate_guard BEFORE TRUNCATE ON keywright.users
  FOR EACH STATEMENT EXECUTE FUNCTION keywright._users_guard();
COMMENT ON TRIGGER users_guard ON keywright.users IS 'Refuses to change a system user by hand.';
COMMENT ON TRIGGER users_truncate_guard ON keywright.users IS 'Refuses TRUNCATE, which would take the system users along.';

CREATE FUNCTION keywright._ensure_user(
  username text, kind text, email text, display_name text, db_role text, managed_by text,
  OUT user_id uuid, OUT outcome text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ensure_user_wrapper';
COMMENT ON FUNCTION keywright._ensure_user(text, text, text, text, text, text) IS
'Internal. What ensure_user does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright._ensure_system_user(
  username text, email text, roles text[], organization_role text, display_name text, managed_by text,
  OUT user_id uuid, OUT outcome text, OUT changes jsonb)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ensure_system_user_wrapper';
COMMENT ON FUNCTION keywright._ensure_system_user(text, text, text[], text, text, text) IS
'Internal. What ensure_system_user does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.ensure_system_user(
  username text, email text DEFAULT NULL, roles text[] DEFAULT '{owner}',
  organization_role text DEFAULT 'organization-admin', display_name text DEFAULT NULL, managed_by text DEFAULT NULL,
  OUT user_id uuid, OUT outcome text, OUT changes jsonb)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT e.user_id, e.outcome, e.changes INTO user_id, outcome, changes
    FROM keywright._ensure_system_user(username, email, roles, organization_role, display_name, managed_by) AS e;
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('users_username_check', username);
  END IF;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION keywright.ensure_system_user(text, text, text[], text, text, text) IS
'Makes sure that an active system user of this name exists and holds its roles: it can hold keys, has no other way to log in, and does not count as a first user.
Arguments: username (1 to 64 lower case letters and digits in groups joined by one dash, underscore or dot, such as a uuid; a name in upper case is refused, never folded); email and display_name (null: leave as is); roles (held globally; empty: none; null: leave as they are); organization_role (held in every organization, also in one made later, from the moment keywright learns of it; empty: none; null: leave as is); managed_by (the calling reconciler; null: none).
Result: user_id; outcome created, updated (drift was repaired, a suspension included) or unchanged (nothing was written, no lock taken); changes: what happened to roles, one object each with role, resource_type, resource_id (null for global) and action bound or unbound. Only what an earlier call of this function bound is ever unbound. Parallel callers all succeed.
Errors: 23514 users_username_check; 22023 malformed argument; 42704 no such role; 42710 the name belongs to a human or service user, or the user to another manager; 23503 the user is the last active owner of an organization.
Example: SELECT user_id, outcome FROM keywright.ensure_system_user(''deployer'', managed_by => ''control-plane'');';

CREATE FUNCTION keywright.ensure_user(
  username text, email text, kind text DEFAULT 'human', db_role text DEFAULT NULL,
  display_name text DEFAULT NULL, managed_by text DEFAULT NULL,
  OUT user_id uuid, OUT outcome text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT e.user_id, e.outcome INTO user_id, outcome
    FROM keywright._ensure_user(username, kind, email, display_name, db_role, managed_by) AS e;
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('users_username_check', username);
  END IF;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION keywright.ensure_user(text, text, text, text, text, text) IS
'Makes sure that a human or service user of this name exists. A suspended user stays suspended.
Arguments: username (1 to 64 lower case letters and digits in groups joined by one dash, underscore or dot, such as a uuid; a name in upper case is refused, never folded); email (empty: none; null: leave as is); kind (human or service); db_role (the Postgres role the user acts as; it must exist and be neither predefined nor superuser, BYPASSRLS, REPLICATION, CREATEROLE or CREATEDB; empty: none; null: leave as is); display_name (null: leave as is); managed_by (the calling reconciler; null: none).
Result: user_id; outcome created, updated or unchanged (nothing was written, no lock taken). Parallel callers all succeed.
Errors: 23514 users_username_check; 22023 malformed argument; 42704 db_role does not exist; 42939 db_role is reserved; 42501 db_role has an attribute that is refused; 42710 the user is of another kind or belongs to another manager.
Example: SELECT user_id, outcome FROM keywright.ensure_user(''ada'', ''ada@example.org'');';

CREATE FUNCTION keywright.suspend_user(username text, managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'suspend_user_wrapper';
COMMENT ON FUNCTION keywright.suspend_user(text, text) IS
'Suspends a user: from the commit on none of its keys verifies, and none can be minted. The keys come back with activate_user.
Arguments: username; managed_by (the calling reconciler: a user of another one is refused; null: nobody is asked).
Result: true when this call suspended the user, false when it was suspended already or there is no such user.
Errors: 22023 malformed argument; 42710 the user belongs to another manager.
Example: SELECT keywright.suspend_user(''ada'');';

CREATE FUNCTION keywright.activate_user(username text, managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'activate_user_wrapper';
COMMENT ON FUNCTION keywright.activate_user(text, text) IS
'Ends a suspension.
Arguments: username; managed_by (the calling reconciler: a user of another one is refused; null: nobody is asked).
Result: true when this call ended it, false when the user was active already or there is no such user.
Errors: 22023 malformed argument; 42710 the user belongs to another manager.
Example: SELECT keywright.activate_user(''ada'');';

CREATE FUNCTION keywright.delete_user(username text, managed_by text DEFAULT NULL) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'delete_user_wrapper';
COMMENT ON FUNCTION keywright.delete_user(text, text) IS
'Deletes a user: revokes its keys in the same transaction and frees the name. The row and the id stay and are never used again.
Arguments: username; managed_by (the calling reconciler: a user of another one is refused; null: nobody is asked).
Result: the user_id that this call deleted; null when there is no such user.
Errors: 22023 malformed argument; 42710 the user belongs to another manager.
Example: SELECT keywright.delete_user(''ada'');';

CREATE FUNCTION keywright.needs_first_user() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT NOT EXISTS (SELECT FROM keywright.users AS u WHERE u.kind = 'human' AND u.deleted_at IS NULL)
$$;
COMMENT ON FUNCTION keywright.needs_first_user() IS
'True while no human user lives, whatever system and service users there are. A suspended human counts as living.
Errors: none of its own.
Example: SELECT keywright.needs_first_user();';

CREATE FUNCTION keywright._user_id(username text) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'user_id_wrapper';
COMMENT ON FUNCTION keywright._user_id(text) IS
'Internal. The id of the living user of this name; null when there is none.';

CREATE FUNCTION keywright.list_users(
  include_system boolean DEFAULT false, after text DEFAULT NULL, page_size integer DEFAULT 100)
RETURNS TABLE (
  user_id uuid, username text, kind text, status text, email text, display_name text, db_role text,
  managed_by text, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT u.user_id, u.username, u.kind, u.status, u.email, u.display_name, u.db_role,
         u.managed_by, u.created_at, u.updated_at
    FROM keywright.users AS u
   WHERE u.deleted_at IS NULL
     AND (include_system OR u.kind <> 'system')
     AND (after IS NULL OR lower(u.username) > lower(after COLLATE "C"))
   ORDER BY lower(u.username)
   LIMIT keywright._page_size(page_size)
$$;
COMMENT ON FUNCTION keywright.list_users(boolean, text, integer) IS
'Lists the users that are not deleted, by name.
Arguments: include_system (also list system users); after (the last username of the page before); page_size (rows, 1 to 10000).
Errors: 22023 page_size out of range.
Example: SELECT username, kind, status FROM keywright.list_users(include_system => true);';
