-- Authenticators: what a service such as PostgREST needs of roles that are not ours.
--
-- The tables hold what is wanted and who may have it. What was granted is in the ledger, which belongs to the
-- cluster as the roles do: a setting of the role keywright_grantor.

CREATE TABLE keywright.authenticators (
  service text COLLATE pg_catalog."C" CONSTRAINT authenticators_pkey PRIMARY KEY
    CONSTRAINT authenticators_service_check CHECK (
      pg_catalog.octet_length(service) OPERATOR(pg_catalog.<=) 64
      AND service OPERATOR(pg_catalog.~) '^[a-z0-9]+(-[a-z0-9]+)*$'),
  connect_as text COLLATE pg_catalog."C" NOT NULL,
  anon_role text COLLATE pg_catalog."C",
  jwt_roles text[] COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT authenticators_jwt_roles_check CHECK (
      coalesce(pg_catalog.array_ndims(jwt_roles), 1) OPERATOR(pg_catalog.=) 1
      AND pg_catalog.array_position(jwt_roles, NULL) IS NULL),
  schemas text[] COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT authenticators_schemas_check CHECK (
      coalesce(pg_catalog.array_ndims(schemas), 1) OPERATOR(pg_catalog.=) 1
      AND pg_catalog.array_position(schemas, NULL) IS NULL),
  noinherit boolean NOT NULL,
  managed_by text,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE keywright.authenticators ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.authenticators', '');
COMMENT ON TABLE keywright.authenticators IS
'What services need of Postgres roles, by name. May be replicated: each node grants its own by reconcile_authenticators.';
COMMENT ON COLUMN keywright.authenticators.service IS '1 to 64 lower case letters and digits in groups joined by single dashes.';
COMMENT ON COLUMN keywright.authenticators.connect_as IS 'The role the service logs in as.';
COMMENT ON COLUMN keywright.authenticators.anon_role IS 'The role of requests without a JWT; null: there are none.';
COMMENT ON COLUMN keywright.authenticators.jwt_roles IS 'The roles a JWT may name.';
COMMENT ON COLUMN keywright.authenticators.schemas IS 'The schemas the service offers; the first is the default.';
COMMENT ON COLUMN keywright.authenticators.noinherit IS 'Whether connect_as is made NOINHERIT.';
COMMENT ON COLUMN keywright.authenticators.managed_by IS 'The reconciler that owns this service.';
COMMENT ON COLUMN keywright.authenticators.created_at IS 'When the service was first granted.';
COMMENT ON COLUMN keywright.authenticators.updated_at IS 'When the row last changed.';
COMMENT ON CONSTRAINT authenticators_pkey ON keywright.authenticators IS 'A service is described once.';
COMMENT ON INDEX keywright.authenticators_pkey IS 'A service is described once.';
COMMENT ON CONSTRAINT authenticators_jwt_roles_check ON keywright.authenticators IS 'A plain list of names.';
COMMENT ON CONSTRAINT authenticators_schemas_check ON keywright.authenticators IS 'A plain list of names.';
COMMENT ON CONSTRAINT authenticators_service_check ON keywright.authenticators IS 'The form of a service''s name.';

-- By name and by number: a dump carries the names, and a restore looks the numbers up, row by row. Where a name means nobody
-- the row has no number, and allows nothing.
CREATE TABLE keywright.authenticator_allowances (
  connect_as text COLLATE pg_catalog."C" NOT NULL,
  role text COLLATE pg_catalog."C" NOT NULL,
  connect_as_oid oid,
  role_oid oid,
  allowed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT authenticator_allowances_key UNIQUE (connect_as_oid, role_oid)
);
ALTER TABLE keywright.authenticator_allowances ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.authenticator_allowances',
  'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = connect_as_oid AND r.rolname = connect_as) AND EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = role_oid AND r.rolname = role)');
COMMENT ON TABLE keywright.authenticator_allowances IS
'Which role a reconciler may make an authenticator, and which roles it may grant to it. An allowance is the role''s, not its name''s. A role that was dropped or renamed is not dumped.';
COMMENT ON COLUMN keywright.authenticator_allowances.connect_as IS 'What the role a service may log in as was called when it was allowed.';
COMMENT ON COLUMN keywright.authenticator_allowances.role IS 'What a role that may be granted to it was called then.';
COMMENT ON COLUMN keywright.authenticator_allowances.connect_as_oid IS 'The role a service may log in as. Null: nobody had the name when the row was restored.';
COMMENT ON COLUMN keywright.authenticator_allowances.role_oid IS 'A role that may be granted to it. Null: as above.';
COMMENT ON COLUMN keywright.authenticator_allowances.allowed_at IS 'When an administrator allowed it.';
COMMENT ON CONSTRAINT authenticator_allowances_key ON keywright.authenticator_allowances IS 'A pair is allowed once.';
COMMENT ON INDEX keywright.authenticator_allowances_key IS 'A pair is allowed once.';

CREATE FUNCTION keywright._resolve_allowance() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.connect_as_oid := (SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = NEW.connect_as);
  NEW.role_oid := (SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = NEW.role);
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION keywright._resolve_allowance() IS 'Internal. Looks up the roles of an allowance, also when it is restored.';
CREATE TRIGGER resolve BEFORE INSERT ON keywright.authenticator_allowances
  FOR EACH ROW EXECUTE FUNCTION keywright._resolve_allowance();
ALTER TABLE keywright.authenticator_allowances ENABLE ALWAYS TRIGGER resolve;
COMMENT ON TRIGGER resolve ON keywright.authenticator_allowances IS 'A dump has the names of roles; their numbers are another cluster''s.';

CREATE FUNCTION keywright.preflight_authenticator(
  connect_as text, anon_role text, jwt_roles text[] DEFAULT '{}', schemas text[] DEFAULT '{public}')
RETURNS TABLE (severity text, code text, object text, message text, hint text)
LANGUAGE c STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'preflight_authenticator_wrapper';
COMMENT ON FUNCTION keywright.preflight_authenticator(text, text, text[], text[]) IS
'Looks at everything grant_authenticator would need, and changes nothing. Works in READ ONLY transactions and on a standby.
Arguments: as for grant_authenticator.
Result: a row a finding, none when there is nothing to say. severity: error (grant_authenticator refuses), warning (something will not work, or is weaker than it looks) or notice (grant_authenticator mends it); code (a stable word); object (the role or schema); message; hint (what to do, a statement where there is one).
Errors: 22023 an argument is null, or text that can not be in this database''s encoding.
Example: SELECT severity, message, hint FROM keywright.preflight_authenticator(''app'', ''web_anon'', ''{web_user}'', ''{api}'');';

-- Invoker on purpose, here and in reconcile_authenticators and allow_authenticator: what a caller could grant by hand needs no
-- allowance, and inside SECURITY DEFINER nobody can tell who called. They change over to the rights of their owner by themselves.
CREATE FUNCTION keywright._grant_authenticator(
  service text, connect_as text, anon_role text, jwt_roles text[], schemas text[], noinherit boolean, managed_by text)
RETURNS TABLE (action text, object text, outcome text, reason text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_authenticator_wrapper';
COMMENT ON FUNCTION keywright._grant_authenticator(text, text, text, text[], text[], boolean, text) IS
'Internal. What grant_authenticator does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.grant_authenticator(
  service text, connect_as text, anon_role text, jwt_roles text[] DEFAULT '{}', schemas text[] DEFAULT '{public}',
  noinherit boolean DEFAULT true, managed_by text DEFAULT NULL)
RETURNS TABLE (action text, object text, outcome text, reason text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY SELECT * FROM keywright._grant_authenticator(
    service, connect_as, anon_role, jwt_roles, schemas, noinherit, managed_by);
  IF NOT FOUND THEN
    PERFORM keywright._require_name('authenticators_service_check', service);
  END IF;
END
$$;
COMMENT ON FUNCTION keywright.grant_authenticator(text, text, text, text[], text[], boolean, text) IS
'Makes sure that a role can serve as the authenticator of a service: that it is a member of the roles it switches to (PostgreSQL 16 and later: WITH INHERIT FALSE, SET TRUE, granted by keywright_grantor), may connect to this database, and is NOINHERIT. Records what it changed, for revoke_authenticator to undo. Called with other roles it moves the service: all of it becomes visible at the commit. Never makes, drops or re-passwords a role of yours.
Arguments: service (its name); connect_as (the role it logs in as); anon_role (the role of requests without a JWT; null: there are none); jwt_roles (the roles a JWT may name); schemas (at least one, each an element of its own; the first is the default); noinherit (whether connect_as is made NOINHERIT); managed_by (the reconciler that owns the service; null: nobody).
Who may: whoever holds the capability, for roles that allow_authenticator names, or that the caller could grant by hand (ADMIN OPTION, superuser).
Result: a row a change: action, object, outcome (done; present: it was there already and is only noted; undone, left, gone for what the service needed before), reason; store service, where roles need no change but the service is stored otherwise, as with other schemas. No row when nothing changed, and then nothing was written. Parallel callers all succeed, in all databases of the cluster.
Errors: whatever preflight_authenticator calls an error, all findings together: 42704 no such role, 42939 reserved name, 42501 a role that is too powerful or not allowed, 22023 the same role twice, 55000 anything else or several kinds; 42710 another manager''s, or keywright_grantor is not as keywright made it; 23514 the service''s name breaks its rule; 22023 a malformed argument; 40001 somebody else kept changing the same roles; 42501 also where the owner of keywright is no superuser any more. DETAIL of any other error names the step.
Example: SELECT * FROM keywright.grant_authenticator(''rest'', ''app'', ''web_anon'', ''{web_user}'', ''{api}'');';

CREATE FUNCTION keywright.revoke_authenticator(service text, managed_by text DEFAULT NULL)
RETURNS TABLE (action text, object text, outcome text, reason text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'revoke_authenticator_wrapper';
COMMENT ON FUNCTION keywright.revoke_authenticator(text, text) IS
'Undoes what grant_authenticator changed for a service and no other service, in any database of the cluster, still needs; and forgets the service with its settings. What was there before, or was changed by somebody else since, is left. Can be called again: a service that is not there gives no row.
Arguments: service; managed_by (the calling reconciler: a service of another one is refused; null: nobody is asked).
Result: a row each: action, object, outcome (undone; left; gone: somebody else undid it), reason.
Errors: 22023 malformed argument; 42710 the service belongs to another manager; 40001 somebody else kept changing the same roles. DETAIL of any other error names the step.
Example: SELECT * FROM keywright.revoke_authenticator(''rest'');';

CREATE FUNCTION keywright.authenticator_status()
RETURNS TABLE (service text, code text, object text, message text, hint text)
LANGUAGE c STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'authenticator_status_wrapper';
COMMENT ON FUNCTION keywright.authenticator_status() IS
'How the roles of this cluster differ from what the services of this database need. Works in READ ONLY transactions and on a standby.
Result: a row a difference, none when in sync: service (null for what was granted for a database that is gone), code, object, message, hint. reconcile_authenticators mends membership_missing, membership_altered, inherits_again, connect_missing, not_noted and left_over; settings_unread says that PostgREST may not read its settings; the other codes are errors of preflight_authenticator, which are for the owner of the role to mend.
Errors: none of its own.
Example: SELECT * FROM keywright.authenticator_status();';

CREATE FUNCTION keywright.reconcile_authenticators()
RETURNS TABLE (service text, action text, object text, outcome text, reason text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'reconcile_authenticators_wrapper';
COMMENT ON FUNCTION keywright.reconcile_authenticators() IS
'Brings this cluster to what the services of this database need: grants what is missing, undoes what no service needs any more. For a job, and for a node to which keywright.authenticators is replicated. Writes nothing when there is nothing to do.
Who may: whoever holds the capability. What a service has not been granted in this cluster yet, as on a node it was replicated to, needs an allowance or a caller who could grant it by hand, as with grant_authenticator.
Result: as for grant_authenticator, with the service. action check: what reason says is for the owner of the role to mend; outcome refused: nothing is done for the service meanwhile; left: the rest is done.
Errors: 42710 keywright_grantor is not as keywright made it; 40001 somebody else kept changing the same roles. DETAIL of any other error names the step.
Example: SELECT * FROM keywright.reconcile_authenticators();';

CREATE FUNCTION keywright.list_authenticators()
RETURNS TABLE (service text, connect_as text, anon_role text, jwt_roles text[], schemas text[], noinherit boolean,
               managed_by text, created_at timestamptz, updated_at timestamptz)
LANGUAGE c STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'list_authenticators_wrapper';
COMMENT ON FUNCTION keywright.list_authenticators() IS
'Lists the services, each role by the name it has now.
Errors: none of its own.
Example: SELECT * FROM keywright.list_authenticators();';

CREATE FUNCTION keywright.allow_authenticator(connect_as text, roles text[]) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'allow_authenticator_wrapper';
COMMENT ON FUNCTION keywright.allow_authenticator(text, text[]) IS
'Lets holders of the capability reconciler make a role an authenticator and grant these roles to it, and no others. An allowance is the role''s: one that is dropped and made again has none.
Arguments: connect_as (the role services may log in as); roles (all that may be granted to it, 1 to 128).
Who may: a superuser, or who has the ADMIN OPTION on each of them, and so could grant them by hand.
Result: created, updated or unchanged. What is granted already stays granted.
Errors: 42704 no such role; 42939 a reserved name; 42501 the caller could not grant it; 22023 a malformed argument.
Example: SELECT keywright.allow_authenticator(''app'', ''{web_anon,web_user}'');';

CREATE FUNCTION keywright.disallow_authenticator(connect_as text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'disallow_authenticator_wrapper';
COMMENT ON FUNCTION keywright.disallow_authenticator(text) IS
'Ends what allow_authenticator allowed. What is granted already stays granted: see revoke_authenticator.
Result: true when this call ended it, false when nothing was allowed or there is no such role.
Errors: 42939 a reserved name; 22023 malformed argument.
Example: SELECT keywright.disallow_authenticator(''app'');';

CREATE FUNCTION keywright.list_allowed_authenticators()
RETURNS TABLE (connect_as text, roles text[])
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT c.rolname::text, array_agg(r.rolname::text ORDER BY r.rolname)
    FROM keywright.authenticator_allowances AS a
    JOIN pg_catalog.pg_roles AS c ON c.oid = a.connect_as_oid
    JOIN pg_catalog.pg_roles AS r ON r.oid = a.role_oid
   GROUP BY c.rolname
   ORDER BY c.rolname
$$;
COMMENT ON FUNCTION keywright.list_allowed_authenticators() IS
'Lists which roles a reconciler may make an authenticator, and what it may grant to each.
Errors: none of its own.
Example: SELECT * FROM keywright.list_allowed_authenticators();';
