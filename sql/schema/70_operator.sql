-- What the operator of a control plane calls: everything it needs, in one call.

CREATE FUNCTION keywright.operator_key_name(
  namespace text, name text, prefix text DEFAULT 'coder-k8s-operator-') RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'operator_key_name_wrapper';
COMMENT ON FUNCTION keywright.operator_key_name(text, text, text) IS
'The name of a control plane''s key: the prefix and 16 hexadecimal digits, FNV-1a-64 of namespace, a NUL byte and name. The same on every run, and different for each control plane.
Arguments: namespace and name of the control plane, as they are; prefix (the username and a dash).
Errors: 22023 namespace or name is empty, or the prefix is not a username of lower case letters, digits and single dashes, and a dash.
Example: SELECT keywright.operator_key_name(''default'', ''coder'');';

CREATE FUNCTION keywright.ensure_operator_access(
  namespace text, name text, existing_token text DEFAULT NULL, lifetime interval DEFAULT '365 days',
  renew_before interval DEFAULT NULL, prefix text DEFAULT 'coder-k8s-operator-', email text DEFAULT NULL,
  roles text[] DEFAULT NULL, organization_role text DEFAULT NULL, scopes text[] DEFAULT NULL,
  allow_list text[] DEFAULT NULL, managed_by text DEFAULT NULL,
  OUT user_id uuid, OUT key_id text, OUT key_name text, OUT token text, OUT outcome text, OUT reason text,
  OUT expires_at timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  owner text;
  kind text;
  its_scopes text[];
  its_allow_list text[];
BEGIN
  key_name := keywright.operator_key_name(namespace, name, prefix);
  owner := left(prefix, -1);
  -- What is not named is as it is; the first time it is the default.
  SELECT u.kind INTO kind
    FROM keywright.users AS u WHERE lower(u.username) = owner COLLATE "C" AND u.deleted_at IS NULL;
  IF NOT FOUND THEN
    email := coalesce(email, owner || '@coder-k8s.invalid');
    roles := coalesce(roles, '{owner}');
    organization_role := coalesce(organization_role, 'organization-admin');
  ELSIF kind <> 'system' THEN
    PERFORM keywright._refuse('42710', 'users', '', format('user "%s" is a %s user', owner, kind),
      format('A %s user is never turned into a system user.', kind),
      'Choose another prefix: it is the username and a dash.');
  END IF;
  user_id := (SELECT u.user_id
                FROM keywright.ensure_system_user(
                  owner, email, roles, organization_role, managed_by => ensure_operator_access.managed_by) AS u);
  SELECT coalesce(ensure_operator_access.scopes, k.scopes), coalesce(ensure_operator_access.allow_list, k.allow_list)
    INTO its_scopes, its_allow_list
    FROM (VALUES (true)) AS one
    LEFT JOIN LATERAL (
      SELECT o.scopes, o.allow_list FROM keywright.api_keys AS o
       WHERE o.user_id = ensure_operator_access.user_id AND o.name = key_name COLLATE "C"
       ORDER BY o.revoked_at IS NULL AND o.superseded_at IS NULL DESC, o.created_at DESC LIMIT 1) AS k ON true;
  SELECT k.key_id, k.token, k.outcome, k.reason, k.expires_at
    INTO key_id, token, outcome, reason, expires_at
    FROM keywright.ensure_api_key(
      owner, key_name, existing_token, coalesce(its_scopes, '{all}'), coalesce(its_allow_list, '{*:*}'), lifetime,
      coalesce(renew_before, least(interval '30 days', lifetime / 10)), managed_by) AS k;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION keywright.ensure_operator_access(text, text, text, interval, interval, text, text, text[], text, text[], text[], text) IS
'Everything the operator of a control plane needs, in one call: the system user, its standing in every organization, and a live key of its own. A reconciler calls it each time with the token it has stored, and stores the one it gets back. Nothing is written when nothing has to change.
Arguments: namespace and name of the control plane; existing_token (what is stored; null, empty or anything: white space around it does not count); lifetime of a new key; renew_before (rotate when no more than this is left; null: 30 days, or a tenth of lifetime if that is less); prefix (the username and a dash; control planes with the same one share the user, and never a key); email, roles and organization_role of the user (as for ensure_system_user; null: as they are, and for a new user the username at coder-k8s.invalid, owner and organization-admin); scopes and allow_list of the key (as for mint_api_key; null: those that the last key of this name has, and for the first key all and *:*); managed_by (the calling reconciler, of the user and of the key; null: as it is).
Result: user_id; key_id; key_name; token (the one to use from now on; null when the outcome is concurrent); outcome and reason as for ensure_api_key; expires_at.
Errors: 22023 malformed argument; 42704 no such role; 42710 the user is human or a service, or user or key belong to another manager.
Example: SELECT token, outcome, reason FROM keywright.ensure_operator_access(''default'', ''coder'', existing_token => :''token'');';

CREATE FUNCTION keywright._operator_key_to_revoke(namespace text, name text, prefix text, managed_by text) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'operator_key_to_revoke_wrapper';
COMMENT ON FUNCTION keywright._operator_key_to_revoke(text, text, text, text) IS
'Internal. As operator_key_name, and 22023 also for a malformed managed_by, all at once.';

CREATE FUNCTION keywright.revoke_operator_access(
  namespace text, name text, prefix text DEFAULT 'coder-k8s-operator-', managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  wanted constant text COLLATE "C" := keywright._operator_key_to_revoke(namespace, name, prefix, managed_by);
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
  SELECT coalesce(bool_or(keywright.revoke_api_key(k.key_id, 'operator access revoked', managed_by => revoke_operator_access.managed_by)), false) INTO revoked
    FROM keywright.api_keys AS k
   WHERE k.user_id = owner AND k.name = wanted AND k.revoked_at IS NULL;
  RETURN revoked;
END
$$;
COMMENT ON FUNCTION keywright.revoke_operator_access(text, text, text, text) IS
'Revokes the keys of a control plane, also one that was rotated and is in its grace. The user and the keys of other control planes stay. Can be called again.
Arguments: namespace and name of the control plane; prefix (as for ensure_operator_access); managed_by (the calling reconciler: a key of another one is refused; null: nobody is asked).
Result: true when this call revoked one, false when there was nothing to revoke.
Errors: 22023 malformed argument; 42710 a key belongs to another manager.
Example: SELECT keywright.revoke_operator_access(''default'', ''coder'');';
