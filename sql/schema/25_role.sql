-- Roles, scopes, and who holds which role where.

CREATE TABLE keywright.roles (
  name text COLLATE pg_catalog."C" CONSTRAINT roles_pkey PRIMARY KEY
    CONSTRAINT roles_name_check CHECK (
      pg_catalog.octet_length(name) OPERATOR(pg_catalog.<=) 64
      AND name OPERATOR(pg_catalog.~) '^[a-z0-9]+(-[a-z0-9]+)*$'),
  permissions text[] NOT NULL
    CONSTRAINT roles_permissions_check CHECK (
      pg_catalog.cardinality(permissions) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.cardinality(permissions) OPERATOR(pg_catalog.<=) 128
      AND pg_catalog.array_position(permissions, NULL) IS NULL),
  level smallint NOT NULL
    CONSTRAINT roles_level_check CHECK (level OPERATOR(pg_catalog.>=) 0::smallint AND level OPERATOR(pg_catalog.<=) 9::smallint),
  built_in boolean NOT NULL DEFAULT false,
  managed_by text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE keywright.roles ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.roles', 'WHERE NOT built_in');
INSERT INTO keywright.roles (name, level, permissions, built_in) VALUES
  ('owner', 0, '{*:*}', true),
  ('auditor', 3, '{*:read}', true),
  ('organization-admin', 1, '{agent:*,credential:*,organization:*,project:*,session:*}', true),
  ('organization-member', 3, '{organization:read}', true),
  ('project-owner', 1, '{agent:*,project:*,session:*}', true),
  ('project-editor', 2, '{agent:*,project:read,project:update,session:*}', true),
  ('project-viewer', 3, '{agent:read,project:read,session:read}', true),
  ('credential-owner', 1, '{credential:*}', true),
  ('credential-viewer', 3, '{credential:read}', true),
  ('agent-runner', 3, '{agent:read,agent:run,session:create,session:read}', true);

COMMENT ON TABLE keywright.roles IS 'Named sets of permissions that users hold. Not Postgres roles.';
COMMENT ON COLUMN keywright.roles.name IS '1 to 64 lower case letters and digits in groups joined by single dashes. TYPE-owner owns resources of that type.';
COMMENT ON COLUMN keywright.roles.permissions IS '1 to 128 permissions type:action, * on either side for any; normalised.';
COMMENT ON COLUMN keywright.roles.level IS '0 to 9, 0 the highest. Whoever grants a role holds one of a smaller level.';
COMMENT ON COLUMN keywright.roles.built_in IS 'Made by the extension, and not changed by anybody.';
COMMENT ON COLUMN keywright.roles.managed_by IS 'The reconciler that owns this role.';
COMMENT ON COLUMN keywright.roles.created_at IS 'When the role was defined.';
COMMENT ON COLUMN keywright.roles.updated_at IS 'When the row last changed.';
COMMENT ON CONSTRAINT roles_pkey ON keywright.roles IS 'A role is defined once.';
COMMENT ON INDEX keywright.roles_pkey IS 'A permission check finds a role by it.';
COMMENT ON CONSTRAINT roles_name_check ON keywright.roles IS 'The form of a role''s name.';
COMMENT ON CONSTRAINT roles_permissions_check ON keywright.roles IS '1 to 128 permissions; none would mean nothing.';
COMMENT ON CONSTRAINT roles_level_check ON keywright.roles IS 'The levels.';

CREATE TABLE keywright.scopes (
  name text COLLATE pg_catalog."C" CONSTRAINT scopes_pkey PRIMARY KEY
    CONSTRAINT scopes_name_check CHECK (name OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_.-]{0,62}(:[a-z][a-z0-9_.-]{0,62})?$'),
  permissions text[] NOT NULL
    CONSTRAINT scopes_permissions_check CHECK (
      pg_catalog.cardinality(permissions) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.cardinality(permissions) OPERATOR(pg_catalog.<=) 128
      AND pg_catalog.array_position(permissions, NULL) IS NULL),
  built_in boolean NOT NULL DEFAULT false,
  managed_by text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE keywright.scopes ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.scopes', 'WHERE NOT built_in');
INSERT INTO keywright.scopes (name, permissions, built_in) VALUES ('all', '{*:*}', true);

COMMENT ON TABLE keywright.scopes IS 'Registered names of several permissions, for API keys to carry.';
COMMENT ON COLUMN keywright.scopes.name IS 'A word, or two joined by a colon, of which the first is no type of resource.';
COMMENT ON COLUMN keywright.scopes.permissions IS '1 to 128 permissions type:action, * on either side for any; normalised.';
COMMENT ON COLUMN keywright.scopes.built_in IS 'Made by the extension, and not changed by anybody.';
COMMENT ON COLUMN keywright.scopes.managed_by IS 'The reconciler that owns this scope.';
COMMENT ON COLUMN keywright.scopes.created_at IS 'When the scope was defined.';
COMMENT ON COLUMN keywright.scopes.updated_at IS 'When the row last changed.';
COMMENT ON CONSTRAINT scopes_pkey ON keywright.scopes IS 'A scope is defined once.';
COMMENT ON INDEX keywright.scopes_pkey IS 'A permission check finds a scope by it.';
COMMENT ON CONSTRAINT scopes_name_check ON keywright.scopes IS 'The form of a scope''s name.';
COMMENT ON CONSTRAINT scopes_permissions_check ON keywright.scopes IS '1 to 128 permissions; none would mean nothing.';

CREATE TABLE keywright.role_bindings (
  binding_id uuid CONSTRAINT role_bindings_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  user_id uuid NOT NULL CONSTRAINT role_bindings_user_id_fkey REFERENCES keywright.users (user_id),
  role text COLLATE pg_catalog."C" NOT NULL CONSTRAINT role_bindings_role_fkey REFERENCES keywright.roles (name),
  scope text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT role_bindings_scope_check CHECK (scope OPERATOR(pg_catalog.=) ANY (ARRAY['global', 'resource'])),
  resource_type text COLLATE pg_catalog."C",
  resource_id text COLLATE pg_catalog."C",
  granted_by uuid CONSTRAINT role_bindings_granted_by_fkey REFERENCES keywright.users (user_id),
  standing boolean NOT NULL DEFAULT false,
  managed_by text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT role_bindings_resource_fkey FOREIGN KEY (resource_type, resource_id)
    REFERENCES keywright.resources (type, id) ON DELETE CASCADE,
  CONSTRAINT role_bindings_scope_columns_check CHECK (
    (scope OPERATOR(pg_catalog.=) 'global' AND pg_catalog.num_nonnulls(resource_type, resource_id) OPERATOR(pg_catalog.=) 0)
    OR (scope OPERATOR(pg_catalog.<>) 'global' AND pg_catalog.num_nonnulls(resource_type, resource_id) OPERATOR(pg_catalog.=) 2)),
  CONSTRAINT role_bindings_key UNIQUE NULLS NOT DISTINCT (user_id, role, resource_type, resource_id)
);
CREATE INDEX role_bindings_managed_idx ON keywright.role_bindings (managed_by) WHERE managed_by IS NOT NULL;
CREATE INDEX role_bindings_resource_idx ON keywright.role_bindings (resource_type, resource_id);
CREATE INDEX role_bindings_role_idx ON keywright.role_bindings (role);
ALTER TABLE keywright.role_bindings ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.role_bindings', '');

COMMENT ON TABLE keywright.role_bindings IS 'Who holds which role, globally or on one resource and what lies below it.';
COMMENT ON COLUMN keywright.role_bindings.binding_id IS 'Random.';
COMMENT ON COLUMN keywright.role_bindings.user_id IS 'The holder. Deleting the user takes its bindings away.';
COMMENT ON COLUMN keywright.role_bindings.role IS 'The role. One that is held can not be deleted.';
COMMENT ON COLUMN keywright.role_bindings.scope IS 'global or resource.';
COMMENT ON COLUMN keywright.role_bindings.resource_type IS 'The resource''s type; null for global.';
COMMENT ON COLUMN keywright.role_bindings.resource_id IS 'The resource; null for global. Deleting it takes its bindings away.';
COMMENT ON COLUMN keywright.role_bindings.granted_by IS 'The user who granted it; null when the caller did.';
COMMENT ON COLUMN keywright.role_bindings.standing IS 'Made by ensure_system_user, which alone may take it away again by itself.';
COMMENT ON COLUMN keywright.role_bindings.managed_by IS 'The reconciler that owns this binding.';
COMMENT ON COLUMN keywright.role_bindings.created_at IS 'When the binding was made.';
COMMENT ON CONSTRAINT role_bindings_pkey ON keywright.role_bindings IS 'A binding has one id.';
COMMENT ON INDEX keywright.role_bindings_pkey IS 'A binding has one id.';
COMMENT ON CONSTRAINT role_bindings_user_id_fkey ON keywright.role_bindings IS 'A binding belongs to a user.';
COMMENT ON CONSTRAINT role_bindings_role_fkey ON keywright.role_bindings IS 'A binding is of a role that exists.';
COMMENT ON CONSTRAINT role_bindings_granted_by_fkey ON keywright.role_bindings IS 'Who granted it is a user; the row of a deleted user stays.';
COMMENT ON CONSTRAINT role_bindings_resource_fkey ON keywright.role_bindings IS 'A binding goes with its resource.';
COMMENT ON CONSTRAINT role_bindings_scope_check ON keywright.role_bindings IS 'The scopes of a binding.';
COMMENT ON CONSTRAINT role_bindings_scope_columns_check ON keywright.role_bindings IS 'A global binding names no resource, any other names one with type and id.';
COMMENT ON CONSTRAINT role_bindings_key ON keywright.role_bindings IS 'A role is held once in a place, also globally.';
COMMENT ON INDEX keywright.role_bindings_key IS 'A permission check finds the bindings of a user by it.';
COMMENT ON INDEX keywright.role_bindings_managed_idx IS 'Those that belong to a manager.';
COMMENT ON INDEX keywright.role_bindings_resource_idx IS 'The bindings on a resource.';
COMMENT ON INDEX keywright.role_bindings_role_idx IS 'The bindings of a role.';

ALTER TABLE keywright.users ADD CONSTRAINT users_organization_role_fkey
  FOREIGN KEY (organization_role) REFERENCES keywright.roles (name);
COMMENT ON CONSTRAINT users_organization_role_fkey ON keywright.users IS 'The role in every organization exists.';

CREATE FUNCTION keywright._role_bindings_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM keywright._refuse('42501', 'role_bindings', '', 'role bindings can not be changed by UPDATE',
    'A binding is made and taken away, never widened.', 'Call keywright.bind_role and keywright.unbind_role.');
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION keywright._role_bindings_guard() IS 'Internal. Refuses to change a binding by hand.';
CREATE TRIGGER role_bindings_guard BEFORE UPDATE ON keywright.role_bindings
  FOR EACH ROW WHEN (NOT keywright._writing()) EXECUTE FUNCTION keywright._role_bindings_guard();
COMMENT ON TRIGGER role_bindings_guard ON keywright.role_bindings IS 'Refuses to change a binding by hand.';

CREATE FUNCTION keywright._define_role(name text, permissions text[], level integer, managed_by text, OUT outcome text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'define_role_wrapper';
COMMENT ON FUNCTION keywright._define_role(text, text[], integer, text) IS
'Internal. What define_role does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.define_role(
  name text, permissions text[], level integer DEFAULT 3, managed_by text DEFAULT NULL, OUT outcome text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  outcome := keywright._define_role(name, permissions, level, managed_by);
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('roles_name_check', name);
  END IF;
END
$$;
COMMENT ON FUNCTION keywright.define_role(text, text[], integer, text) IS
'Makes sure that a role exists with these permissions. Whoever holds it has the new ones from the commit on.
Arguments: name (1 to 64 lower case letters, digits and single dashes; TYPE-owner owns resources of that type); permissions (type:action with a registered type, * on either side for any; 1 to 128); level (0 to 9, 0 the highest: with granted_by, only a role of a greater level than one''s own may be granted); managed_by (the calling reconciler; null: none).
Result: outcome created, updated or unchanged (nothing was written, no lock taken).
Errors: 23514 roles_name_check; 22023 malformed argument, with the nearest registered type; 42710 the role is built in or belongs to another manager.
Example: SELECT keywright.define_role(''deployer'', ''{project:read,project:update}'', 2);';

CREATE FUNCTION keywright.delete_role(name text, managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'delete_role_wrapper';
COMMENT ON FUNCTION keywright.delete_role(text, text) IS
'Deletes a role that nobody holds.
Arguments: name; managed_by (the calling reconciler: a role of another one is refused; null: nobody is asked).
Result: true when this call deleted it, false when there is no such role.
Errors: 22023 malformed argument; 42710 the role is built in or belongs to another manager; 23503 somebody holds it.
Example: SELECT keywright.delete_role(''deployer'');';

CREATE FUNCTION keywright.list_roles()
RETURNS TABLE (
  name text, permissions text[], level smallint, built_in boolean, managed_by text, created_at timestamptz,
  updated_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT r.name, r.permissions, r.level, r.built_in, r.managed_by, r.created_at, r.updated_at
    FROM keywright.roles AS r ORDER BY r.level, r.name
$$;
COMMENT ON FUNCTION keywright.list_roles() IS
'Lists the roles, highest level first.
Errors: none of its own.
Example: SELECT name, level, permissions FROM keywright.list_roles();';

CREATE FUNCTION keywright._define_scope(name text, permissions text[], managed_by text, OUT outcome text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'define_scope_wrapper';
COMMENT ON FUNCTION keywright._define_scope(text, text[], text) IS
'Internal. What define_scope does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.define_scope(
  name text, permissions text[], managed_by text DEFAULT NULL, OUT outcome text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  outcome := keywright._define_scope(name, permissions, managed_by);
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('scopes_name_check', name);
  END IF;
END
$$;
COMMENT ON FUNCTION keywright.define_scope(text, text[], text) IS
'Makes sure that a scope of this name stands for these permissions. Keys that carry the name have the new ones from the commit on.
Arguments: name (a word, or two joined by a colon of which the first is no type of resource); permissions (type:action with a registered type, * on either side for any; 1 to 128); managed_by (the calling reconciler; null: none).
Result: outcome created, updated or unchanged (nothing was written, no lock taken).
Errors: 23514 scopes_name_check; 22023 malformed argument, with the nearest registered type, or a name that reads as a permission; 42710 the scope is built in or belongs to another manager.
Example: SELECT keywright.define_scope(''ci'', ''{project:read}'');';

CREATE FUNCTION keywright.delete_scope(name text, managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'delete_scope_wrapper';
COMMENT ON FUNCTION keywright.delete_scope(text, text) IS
'Deletes a scope that no API key carries.
Arguments: name; managed_by (the calling reconciler: a scope of another one is refused; null: nobody is asked).
Result: true when this call deleted it, false when there is no such scope.
Errors: 22023 malformed argument; 42710 the scope is built in or belongs to another manager; 23503 an API key carries it, or did until it was revoked or expired and is not purged yet.
Example: SELECT keywright.delete_scope(''ci'');';

CREATE FUNCTION keywright.list_scopes()
RETURNS TABLE (
  name text, permissions text[], built_in boolean, managed_by text, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT s.name, s.permissions, s.built_in, s.managed_by, s.created_at, s.updated_at
    FROM keywright.scopes AS s ORDER BY s.name
$$;
COMMENT ON FUNCTION keywright.list_scopes() IS
'Lists the registered scopes.
Errors: none of its own.
Example: SELECT * FROM keywright.list_scopes();';

CREATE FUNCTION keywright.bind_role(
  username text, role text, resource_type text DEFAULT NULL, resource_id text DEFAULT NULL,
  granted_by text DEFAULT NULL, managed_by text DEFAULT NULL, OUT binding_id uuid, OUT outcome text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'bind_role_wrapper';
COMMENT ON FUNCTION keywright.bind_role(text, text, text, text, text, text) IS
'Makes sure that a user holds a role, globally or on one resource and all that lies below it.
Arguments: username; role; resource_type and resource_id (both null: globally); granted_by (the user on whose authority the role is granted: active, holding there, globally or on the resource or above it, a role of a smaller level than the one granted, and every permission of the one granted; null: the caller''s own authority); managed_by (the calling reconciler; null: none).
Result: binding_id; outcome created, updated (a binding that ensure_system_user made now stays when that call no longer wants it, or a manager took over one that nobody managed; granted_by, when it is given, is noted) or unchanged (nothing was written, no lock taken). Parallel callers all succeed.
Errors: 22023 malformed or empty argument; 42704 no such user, role, type, resource or granter; 42501 granted_by may not grant this role there; 40001 try again (in REPEATABLE READ).
Example: SELECT outcome FROM keywright.bind_role(''ada'', ''project-editor'', ''organization'', ''acme'');';

CREATE FUNCTION keywright._unbind_role(
  username text, role text, resource_type text, resource_id text, managed_by text,
  OUT changed boolean, OUT last_owner boolean)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'unbind_role_wrapper';
COMMENT ON FUNCTION keywright._unbind_role(text, text, text, text, text) IS
'Internal. What unbind_role does; last_owner when it must not.';

CREATE FUNCTION keywright.unbind_role(
  username text, role text, resource_type text DEFAULT NULL, resource_id text DEFAULT NULL,
  managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  result record;
BEGIN
  SELECT * INTO result FROM keywright._unbind_role(username, role, resource_type, resource_id, managed_by);
  IF result.last_owner THEN
    PERFORM keywright._refuse('23503', 'role_bindings', 'role_bindings_last_owner',
      format('user "%s" is the last active owner of %s "%s"', username, resource_type, resource_id),
      format('No other active user holds the role "%s" on it.', role),
      format('Bind another owner first: SELECT keywright.bind_role(USERNAME, %L, %L, %L);', role, resource_type, resource_id));
  END IF;
  RETURN result.changed;
END
$$;
COMMENT ON FUNCTION keywright.unbind_role(text, text, text, text, text) IS
'Takes a role away from a user where it was bound: globally, or on one resource. The last active user that holds TYPE-owner on a resource of that type can not be unbound, also when two calls try at once.
Arguments: username; role; resource_type and resource_id (both null: globally); managed_by (the calling reconciler: a binding of another one is refused; null: nobody is asked).
Result: true when this call took it away, false when there is no such binding, user, role or resource.
Errors: 22023 malformed argument; 42710 the binding belongs to another manager; 23503 role_bindings_last_owner.
Example: SELECT keywright.unbind_role(''ada'', ''project-editor'', ''organization'', ''acme'');';

CREATE FUNCTION keywright.list_role_bindings(
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
   WHERE (list_role_bindings.username IS NULL OR b.user_id = holder)
     AND (list_role_bindings.role IS NULL OR b.role = list_role_bindings.role COLLATE "C")
     AND (list_role_bindings.resource_type IS NULL OR b.resource_type = list_role_bindings.resource_type COLLATE "C")
     AND (list_role_bindings.resource_id IS NULL OR b.resource_id = list_role_bindings.resource_id COLLATE "C")
     AND (after IS NULL OR b.binding_id > after)
   ORDER BY b.binding_id
   LIMIT keywright._page_size(page_size);
END
$$;
COMMENT ON FUNCTION keywright.list_role_bindings(text, text, text, text, uuid, integer) IS
'Lists who holds which role where, by binding_id.
Arguments: username, role, resource_type, resource_id (only these; null: all); after (the last binding_id of the page before); page_size (rows, 1 to 10000).
Result: among others scope (global or resource), and level and permissions of the role.
Errors: 42704 no such user; 22023 page_size out of range.
Example: SELECT username, role, resource_type, resource_id FROM keywright.list_role_bindings(''ada'');';

CREATE FUNCTION keywright.has_permission(
  username text, permission text, resource_type text DEFAULT NULL, resource_id text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'has_permission_wrapper';
COMMENT ON FUNCTION keywright.has_permission(text, text, text, text) IS
'Tells whether the roles of a user cover a permission. A global binding covers everything, a binding on a resource covers it and what lies below it; the union counts, and nothing denies. What is not there is not permitted. Sees a change from the moment it commits.
Arguments: username; permission (type:action; with * for either: whether all of them are covered); resource_type and resource_id (both null: whether it is covered everywhere; only one null: false). A resource that is not registered lies below nothing.
Result: true or false; false for a suspended user and for nobody.
Errors: 22023 malformed argument, or a type that is not registered, with the nearest one.
Example: SELECT keywright.has_permission(''ada'', ''project:update'', ''project'', ''rockets'');';
