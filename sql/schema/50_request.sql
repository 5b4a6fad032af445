-- A request: the key it is made with, for as long as the transaction lasts.
--
-- What policies call for each row parses no SQL and needs no rights, so it carries neither SECURITY DEFINER
-- nor a search_path. The key is kept in backend memory, where no statement can put one without its token.

CREATE FUNCTION keywright.begin_request(
  token text, OUT key_id text, OUT user_id uuid, OUT username text, OUT db_role text)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'begin_request_wrapper';
COMMENT ON FUNCTION keywright.begin_request(text) IS
'Makes the current transaction act for the API key of this token, for row security policies to ask: until the transaction ends, the subtransaction it was called in is rolled back, or it is called again. Outside a transaction block that is this statement only, and a WARNING says so. Whatever key was in force is forgotten first, also when the call fails or is rolled back. Writes nothing, and switches no role.
Result: key_id, user_id and username of the key; db_role of its owner, null when there is none.
Errors: 28000 the token is not a live API key, one message whatever the cause.
Example: SELECT username, db_role FROM keywright.begin_request(:''token'');';

CREATE FUNCTION keywright.current_user_id() RETURNS uuid
LANGUAGE c STABLE PARALLEL RESTRICTED COST 10
AS 'MODULE_PATHNAME', 'current_user_id_wrapper';
COMMENT ON FUNCTION keywright.current_user_id() IS
'The owner of the API key this transaction acts for; null when there is none, or once the key is revoked or expired or its owner suspended.
Errors: none of its own.
Example: SELECT keywright.current_user_id();';

CREATE FUNCTION keywright.current_api_key_id() RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED COST 10
AS 'MODULE_PATHNAME', 'current_api_key_id_wrapper';
COMMENT ON FUNCTION keywright.current_api_key_id() IS
'The API key this transaction acts for; null as current_user_id.
Errors: none of its own.
Example: SELECT keywright.current_api_key_id();';

CREATE FUNCTION keywright.current_scopes() RETURNS text[]
LANGUAGE c STABLE PARALLEL RESTRICTED COST 10
AS 'MODULE_PATHNAME', 'current_scopes_wrapper';
COMMENT ON FUNCTION keywright.current_scopes() IS
'The scopes of the API key this transaction acts for; null as current_user_id.
Errors: none of its own.
Example: SELECT keywright.current_scopes();';

CREATE FUNCTION keywright.is_permitted(
  permission text, resource_type text DEFAULT NULL, resource_id text DEFAULT NULL) RETURNS boolean
LANGUAGE c STABLE PARALLEL RESTRICTED COST 20
AS 'MODULE_PATHNAME', 'is_permitted_wrapper';
COMMENT ON FUNCTION keywright.is_permitted(text, text, text) IS
'Tells whether the API key this transaction acts for permits something: its scopes, its allow-list and the roles of its owner must all cover it. For row security policies; sees a revocation from the moment it commits, also in the middle of a statement (where the arguments are constant, Postgres asks once a statement).
Arguments: permission (type:action); resource_type and resource_id (both null: everywhere; only one null: false). An entry of an allow-list and a role binding cover a resource and what lies below it. A resource that is not registered lies below nothing.
Result: true or false; false when the transaction acts for no key, or for one that is no longer live.
Errors: 22023 malformed permission, or a type that is not registered, with the nearest one.
Example: SELECT keywright.is_permitted(''project:read'', ''project'', ''rockets'');';

CREATE FUNCTION keywright._forget_request() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', '_forget_request_wrapper';
COMMENT ON FUNCTION keywright._forget_request() IS
'Internal. The transaction acts for no API key any more, and no rollback to a savepoint brings one back.';

-- Invoker on purpose: a role can not be switched inside SECURITY DEFINER, and whether this session may is for
-- Postgres to say.
CREATE FUNCTION keywright.check_request() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  headers text;
  header text;
  hint text;
  tokens text[] := '{}';
  db_role text;
  fault text;
  settings text[];
BEGIN
  -- Before anything can fail: PostgREST's pool hands on connections with an earlier request's transaction open.
  -- Also loads the library, which defines the settings.
  PERFORM keywright._forget_request();
  headers := nullif(current_setting('request.headers', true), '');
  header := current_setting('keywright.api_key_header');
  hint := 'Send one API key that is live in the header ' || header || '.';
  IF headers IS NOT NULL THEN
    -- In whatever case it was sent; the blanks around a header's value are not part of it.
    BEGIN
      tokens := ARRAY(SELECT btrim(h.value, E' \t') FROM json_each_text(headers::json) AS h
                       WHERE lower(h.key COLLATE "C") = lower(header COLLATE "C"));
    EXCEPTION WHEN data_exception OR program_limit_exceeded OR feature_not_supported THEN
      RAISE SQLSTATE 'PT401' USING MESSAGE = 'Unauthorized', DETAIL = 'The headers of the request can not be read.', HINT = hint;
    END;
  END IF;
  IF cardinality(tokens) = 0 THEN
    IF current_setting('keywright.require_api_key')::boolean THEN
      RAISE SQLSTATE 'PT401' USING MESSAGE = 'Unauthorized', DETAIL = 'No API key was sent.', HINT = hint;
    END IF;
    RETURN;
  ELSIF cardinality(tokens) > 1 THEN
    RAISE SQLSTATE 'PT401' USING MESSAGE = 'Unauthorized', DETAIL = 'More than one API key was sent.', HINT = hint;
  END IF;
  BEGIN
    db_role := (SELECT r.db_role FROM keywright.begin_request(tokens[1]) AS r);
  EXCEPTION WHEN invalid_authorization_specification THEN
    RAISE SQLSTATE 'PT401' USING MESSAGE = 'Unauthorized', DETAIL = 'API key is not valid.', HINT = hint;
  END;
  IF db_role IS NULL THEN
    RETURN;
  END IF;
  fault := (SELECT CASE WHEN count(*) = 0 THEN 'does not exist'
                        WHEN bool_or(r.rolsuper OR r.rolbypassrls OR r.rolreplication OR r.rolcreaterole OR r.rolcreatedb
                                     OR EXISTS (SELECT FROM pg_roles AS s WHERE s.rolsuper AND pg_has_role(r.oid, s.oid, 'MEMBER')))
                        THEN 'is too powerful to be acted as' END
              FROM pg_roles AS r WHERE r.rolname = db_role);
  IF fault IS NULL THEN
    -- As the session's own role, whose right it is to set something, as it is when PostgREST switches to a role.
    PERFORM set_config('role', 'none', true);
    -- Those of the role in this database come last, and so win.
    settings := ARRAY(SELECT unnest(s.setconfig) FROM pg_db_role_setting AS s
                       WHERE s.setrole = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = db_role)
                         AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
                       ORDER BY s.setdatabase);
    IF cardinality(settings) > 0 THEN
      PERFORM set_config(p.name, substr(o.setting, strpos(o.setting, '=') + 1), true)
         FROM unnest(settings) WITH ORDINALITY AS o (setting, n)
         JOIN pg_settings AS p ON p.name = split_part(o.setting, '=', 1)
        WHERE p.context = 'user' OR p.context = 'superuser' AND has_parameter_privilege(p.name, 'SET')
        ORDER BY o.n;
    END IF;
    BEGIN
      PERFORM set_config('role', db_role, true);
    EXCEPTION WHEN insufficient_privilege OR invalid_parameter_value THEN
      fault := 'is not granted to the authenticator';
    END;
  END IF;
  IF fault IS NOT NULL THEN
    RAISE SQLSTATE 'PT403' USING MESSAGE = 'Forbidden', DETAIL = 'The Postgres role of the API key''s owner ' || fault || '.',
      HINT = 'The role is set by keywright.ensure_user(..., db_role => ...), and must be granted to the role PostgREST connects as.';
  END IF;
END
$$;
COMMENT ON FUNCTION keywright.check_request() IS
'For PostgREST''s db-pre-request. Forgets the key in force, then reads the header keywright.api_key_header (x-api-key) from request.headers. No such header: nothing more, or PT401 where keywright.require_api_key is on. A good key: the transaction acts for it (see begin_request), and as its owner''s db_role, if there is one, with the settings of that role that the session may set, but for search_path. Anything else ends the request. Works in READ ONLY transactions and on a standby.
The role of anonymous requests needs the capability requester, and so has every db_role; the role PostgREST connects as must be a member of each.
Errors: PT401 (HTTP 401) the key is required, empty, more than one, malformed, unknown, revoked or expired, or its owner is not active, or the headers are no JSON object; PT403 (HTTP 403) the owner''s db_role is gone, too powerful, or not granted to the authenticator. A failing look-up is an error of its own, never one of these.
Example: SELECT keywright.check_request();';
