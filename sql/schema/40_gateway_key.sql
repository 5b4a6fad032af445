-- Gateway keys: belong to a deployment component, have a name and a heartbeat, no expiry.

CREATE TABLE keywright.gateway_keys (
  gateway_key_id uuid CONSTRAINT gateway_keys_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  name text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT gateway_keys_name_check CHECK (
      pg_catalog.octet_length(name) OPERATOR(pg_catalog.<=) 64
      AND name OPERATOR(pg_catalog.~) '^[a-z0-9]+(-[a-z0-9]+)*$'),
  secret_prefix text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT gateway_keys_secret_prefix_key UNIQUE
    CONSTRAINT gateway_keys_secret_prefix_check CHECK (pg_catalog.octet_length(secret_prefix) OPERATOR(pg_catalog.=) 11),
  hashed_secret bytea NOT NULL
    CONSTRAINT gateway_keys_hashed_secret_key UNIQUE
    CONSTRAINT gateway_keys_hashed_secret_check CHECK (pg_catalog.octet_length(hashed_secret) OPERATOR(pg_catalog.=) 32),
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  superseded_at timestamptz,
  expires_at timestamptz,
  managed_by text,
  CONSTRAINT gateway_keys_superseded_check CHECK ((superseded_at IS NULL) OPERATOR(pg_catalog.=) (expires_at IS NULL))
);
-- In line and never sampled, as for keywright.api_keys.
ALTER TABLE keywright.gateway_keys ALTER COLUMN hashed_secret SET STORAGE PLAIN;
ALTER TABLE keywright.gateway_keys ALTER COLUMN hashed_secret SET STATISTICS 0;
CREATE UNIQUE INDEX gateway_keys_name_idx ON keywright.gateway_keys (pg_catalog.lower(name))
  WHERE superseded_at IS NULL;
ALTER TABLE keywright.gateway_keys ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.gateway_keys', '');

COMMENT ON TABLE keywright.gateway_keys IS
'Keys of deployment components. Row security without a policy closes the table to everybody but its owner, members of pg_read_all_data included.';
COMMENT ON COLUMN keywright.gateway_keys.gateway_key_id IS 'Random; a rotation makes a new one.';
COMMENT ON COLUMN keywright.gateway_keys.name IS '1 to 64 lower case letters and digits in groups joined by single dashes; one key holds a name at a time.';
COMMENT ON COLUMN keywright.gateway_keys.secret_prefix IS 'The public first 11 characters of the token.';
COMMENT ON COLUMN keywright.gateway_keys.hashed_secret IS 'SHA-256 of the whole token, 32 bytes. In no result of any function.';
COMMENT ON COLUMN keywright.gateway_keys.created_at IS 'When the key was minted.';
COMMENT ON COLUMN keywright.gateway_keys.superseded_at IS 'When a successor took over the name; null for the key that holds it.';
COMMENT ON COLUMN keywright.gateway_keys.expires_at IS 'When a superseded key dies; null for the key that holds the name, which does not expire.';
COMMENT ON COLUMN keywright.gateway_keys.managed_by IS 'The reconciler that owns this key; an ensure call of another one never changes it.';
COMMENT ON INDEX keywright.gateway_keys_name_idx IS 'One key holds a name at a time.';
COMMENT ON CONSTRAINT gateway_keys_name_check ON keywright.gateway_keys IS 'The form of a gateway key''s name.';
COMMENT ON CONSTRAINT gateway_keys_secret_prefix_check ON keywright.gateway_keys IS 'The prefix has 11 characters.';
COMMENT ON CONSTRAINT gateway_keys_secret_prefix_key ON keywright.gateway_keys IS 'A prefix names one key.';
COMMENT ON CONSTRAINT gateway_keys_hashed_secret_check ON keywright.gateway_keys IS 'A SHA-256 hash has 32 bytes.';
COMMENT ON CONSTRAINT gateway_keys_hashed_secret_key ON keywright.gateway_keys IS 'A secret belongs to one key.';
COMMENT ON CONSTRAINT gateway_keys_pkey ON keywright.gateway_keys IS 'An id names one key.';
COMMENT ON CONSTRAINT gateway_keys_superseded_check ON keywright.gateway_keys IS 'A key expires if and only if it is superseded.';
COMMENT ON INDEX keywright.gateway_keys_pkey IS 'Heartbeats find a key by it.';
COMMENT ON INDEX keywright.gateway_keys_secret_prefix_key IS 'Verification finds a key by it.';
COMMENT ON INDEX keywright.gateway_keys_hashed_secret_key IS 'A secret belongs to one key.';

-- Apart from the keys and without a foreign key: a heartbeat is this node's own, never rewrites what
-- verification reads, and a row left over after a key is harmless (keywright.maintain removes it).
CREATE TABLE keywright.gateway_key_heartbeats (
  gateway_key_id uuid CONSTRAINT gateway_key_heartbeats_pkey PRIMARY KEY,
  last_heartbeat_at timestamptz NOT NULL
) WITH (fillfactor = 50);
ALTER TABLE keywright.gateway_key_heartbeats ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.gateway_key_heartbeats', '');
COMMENT ON TABLE keywright.gateway_key_heartbeats IS 'When each gateway key was last heard of, on this node.';
COMMENT ON COLUMN keywright.gateway_key_heartbeats.gateway_key_id IS 'The gateway key.';
COMMENT ON COLUMN keywright.gateway_key_heartbeats.last_heartbeat_at IS 'The last heartbeat.';
COMMENT ON CONSTRAINT gateway_key_heartbeats_pkey ON keywright.gateway_key_heartbeats IS 'One row a key.';
COMMENT ON INDEX keywright.gateway_key_heartbeats_pkey IS 'One row a key.';

CREATE FUNCTION keywright._gateway_keys_row_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  other constant uuid := new.gateway_key_id;
BEGIN
  -- One row by hand at a time, or the unique index would find a hash that the look-ups below can not see yet.
  PERFORM pg_advisory_xact_lock(hashtextextended('keywright gateway keys by hand', 0));
  PERFORM keywright._require_name('gateway_keys_name_check', new.name);
  IF octet_length(new.secret_prefix) IS DISTINCT FROM 11 THEN
    PERFORM keywright._refuse('23514', 'gateway_keys', 'gateway_keys_secret_prefix_check',
      'prefix of a gateway key has the wrong length', 'The prefix is the first 11 characters of the token.',
      'Let keywright.mint_gateway_key make the key.');
  END IF;
  IF octet_length(new.hashed_secret) IS DISTINCT FROM 32 THEN
    PERFORM keywright._refuse('23514', 'gateway_keys', 'gateway_keys_hashed_secret_check',
      'hash of a gateway key has the wrong length', 'A SHA-256 hash has 32 bytes.',
      'Let keywright.mint_gateway_key make the key.');
  END IF;
  IF (new.superseded_at IS NULL) <> (new.expires_at IS NULL) THEN
    PERFORM keywright._refuse('23514', 'gateway_keys', 'gateway_keys_superseded_check',
      'a gateway key has an expiry if and only if it is superseded', 'The key that holds a name does not expire.',
      'Call keywright.rotate_gateway_key or keywright.delete_gateway_key.');
  END IF;
  IF num_nulls(new.gateway_key_id, new.created_at) > 0 THEN
    PERFORM keywright._refuse('23502', 'gateway_keys', '', 'a gateway key lacks a value',
      'gateway_key_id and created_at must not be null.', 'Let keywright.mint_gateway_key make the key.');
  END IF;
  IF new.superseded_at IS NULL AND EXISTS (
    SELECT FROM keywright.gateway_keys AS k
     WHERE lower(k.name) = lower(new.name) AND k.superseded_at IS NULL AND k.gateway_key_id <> other
  ) THEN
    PERFORM keywright._gateway_key_exists(new.name);
  END IF;
  IF EXISTS (SELECT FROM keywright.gateway_keys AS k
              WHERE k.secret_prefix = new.secret_prefix AND k.gateway_key_id <> other) THEN
    PERFORM keywright._refuse('23505', 'gateway_keys', 'gateway_keys_secret_prefix_key',
      'another gateway key has this prefix', 'A prefix names one key.',
      'Let keywright.mint_gateway_key make the key.');
  END IF;
  IF EXISTS (SELECT FROM keywright.gateway_keys AS k
              WHERE k.hashed_secret = new.hashed_secret AND k.gateway_key_id <> other) THEN
    PERFORM keywright._refuse('23505', 'gateway_keys', 'gateway_keys_hashed_secret_key',
      'another gateway key has this secret', 'A secret belongs to one key.',
      'Let keywright.mint_gateway_key make the key.');
  END IF;
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._gateway_keys_row_check() IS
'Internal. Refuses a row written by hand without printing it: the native errors would show the hash.';
CREATE TRIGGER gateway_keys_row_check BEFORE INSERT OR UPDATE ON keywright.gateway_keys
  FOR EACH ROW WHEN (NOT keywright._writing()) EXECUTE FUNCTION keywright._gateway_keys_row_check();
COMMENT ON TRIGGER gateway_keys_row_check ON keywright.gateway_keys IS 'Refuses a malformed or duplicate row written by hand without printing it.';

CREATE FUNCTION keywright._gateway_key_exists(name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM keywright._refuse('23505', 'gateway_keys', 'gateway_keys_name_idx',
    format('gateway key "%s" exists already', name),
    'One key holds a name at a time.',
    'Choose another name, call keywright.rotate_gateway_key or keywright.ensure_gateway_key, or delete that key.');
END
$$;
COMMENT ON FUNCTION keywright._gateway_key_exists(text) IS
'Internal. Raises 23505 for a name that is taken.';

CREATE FUNCTION keywright._mint_gateway_key(
  name text, managed_by text,
  OUT gateway_key_id uuid, OUT secret_prefix text, OUT token text, OUT created_at timestamptz)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'mint_gateway_key_wrapper';
COMMENT ON FUNCTION keywright._mint_gateway_key(text, text) IS
'Internal. What mint_gateway_key does; nothing where the name is taken or only breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.mint_gateway_key(
  OUT gateway_key_id uuid, INOUT name text, managed_by text DEFAULT NULL,
  OUT secret_prefix text, OUT token text, OUT created_at timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT m.gateway_key_id, m.secret_prefix, m.token, m.created_at INTO gateway_key_id, secret_prefix, token, created_at
    FROM keywright._mint_gateway_key(name, managed_by) AS m;
  IF gateway_key_id IS NULL THEN
    PERFORM keywright._require_name('gateway_keys_name_check', name);
    PERFORM keywright._gateway_key_exists(name);
  END IF;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION keywright.mint_gateway_key(text, text) IS
'Mints a gateway key. The token is in the result and nowhere else; it can not be shown again.
Arguments: name (1 to 64 lower case letters, digits and single dashes); managed_by (the calling reconciler; null: none).
Result: gateway_key_id; name; secret_prefix (the public first 11 characters); token (43 characters); created_at.
Errors: 23514 gateway_keys_name_check; 23505 gateway_keys_name_idx; 22023 malformed argument.
Example: SELECT name, token FROM keywright.mint_gateway_key(''edge-2'');';

CREATE FUNCTION keywright._ensure_gateway_key(
  name text, existing_token text, managed_by text,
  OUT gateway_key_id uuid, OUT secret_prefix text, OUT token text, OUT outcome text, OUT reason text,
  OUT created_at timestamptz)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ensure_gateway_key_wrapper';
COMMENT ON FUNCTION keywright._ensure_gateway_key(text, text, text) IS
'Internal. What ensure_gateway_key does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.ensure_gateway_key(
  OUT gateway_key_id uuid, INOUT name text, existing_token text DEFAULT NULL, managed_by text DEFAULT NULL,
  OUT secret_prefix text, OUT token text, OUT outcome text, OUT reason text, OUT created_at timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT e.gateway_key_id, e.secret_prefix, e.token, e.outcome, e.reason, e.created_at
    INTO gateway_key_id, secret_prefix, token, outcome, reason, created_at
    FROM keywright._ensure_gateway_key(name, existing_token, managed_by) AS e;
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('gateway_keys_name_check', name);
  END IF;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION keywright.ensure_gateway_key(text, text, text) IS
'Makes sure that whoever calls holds the live gateway key of this name: keeps the token it is handed when it is, otherwise mints a successor and ends what went before, in one transaction. A call that mints first waits 0.1 seconds, as that of ensure_api_key does.
Arguments: name (as for mint_gateway_key); existing_token (what the caller has stored, white space around it does not count; null or empty: nothing); managed_by (the calling reconciler; null: none).
Result: gateway_key_id; name; secret_prefix; token (the one to use from now on; null when the outcome is concurrent); outcome kept (nothing was written), minted, rotated or concurrent (another call for the same key minted while this one ran: read your store again and call again later); reason: null for kept, else missing, malformed, unknown, wrong-name or superseded; created_at.
Errors: 23514 gateway_keys_name_check; 22023 malformed argument; 42710 the key belongs to another manager.
Example: SELECT token, outcome, reason FROM keywright.ensure_gateway_key(''edge-1'', :''token'');';

CREATE FUNCTION keywright.rotate_gateway_key(
  OUT gateway_key_id uuid, INOUT name text, grace interval DEFAULT '0',
  OUT secret_prefix text, OUT token text, OUT created_at timestamptz,
  OUT predecessor_id uuid, OUT predecessor_expires_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rotate_gateway_key_wrapper';
COMMENT ON FUNCTION keywright.rotate_gateway_key(text, interval) IS
'Mints a successor of the same name.
Arguments: name; grace (how long the old token lives on, 0 to 100 years, no part of it negative).
Result: as mint_gateway_key, then predecessor_id and predecessor_expires_at (when the old token dies, and heartbeats of its id with it).
Errors: 22023 malformed argument; 42704 no such key.
Example: SELECT token, predecessor_expires_at FROM keywright.rotate_gateway_key(''edge-1'', grace => ''1 hour'');';

CREATE FUNCTION keywright.list_gateway_keys()
RETURNS TABLE (
  gateway_key_id uuid, name text, secret_prefix text, created_at timestamptz, last_heartbeat_at timestamptz,
  managed_by text, expires_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT k.gateway_key_id, k.name, k.secret_prefix, k.created_at, h.last_heartbeat_at, k.managed_by, k.expires_at
    FROM keywright.gateway_keys AS k
    LEFT JOIN keywright.gateway_key_heartbeats AS h ON h.gateway_key_id = k.gateway_key_id
   WHERE k.expires_at IS NULL OR k.expires_at > clock_timestamp()
   ORDER BY k.created_at, k.gateway_key_id
$$;
COMMENT ON FUNCTION keywright.list_gateway_keys() IS
'Lists the gateway keys that verify, without any secret, oldest first.
Result: among others last_heartbeat_at (null: never heard of on this node) and expires_at (null, but for a rotated key within its grace).
Errors: none of its own.
Example: SELECT name, secret_prefix, last_heartbeat_at FROM keywright.list_gateway_keys();';

CREATE FUNCTION keywright.delete_gateway_key(
  name_or_id text,
  OUT gateway_key_id uuid, OUT name text, OUT secret_prefix text, OUT created_at timestamptz,
  OUT last_heartbeat_at timestamptz, INOUT managed_by text DEFAULT NULL)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'delete_gateway_key_wrapper';
COMMENT ON FUNCTION keywright.delete_gateway_key(text, text) IS
'Deletes a gateway key, and with the key that holds a name also those it superseded that are still in their grace.
Arguments: name_or_id (a name, without regard to case, or else a gateway_key_id); managed_by (the calling reconciler: a key of another one is refused; null: nobody is asked).
Result: the key that this call deleted; no row when there is no such key.
Errors: 22023 malformed argument; 42710 the key belongs to another manager.
Example: SELECT name FROM keywright.delete_gateway_key(''edge-1'');';

CREATE FUNCTION keywright.verify_gateway_key(
  token text, OUT active boolean, OUT gateway_key_id uuid, OUT name text)
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
AS 'MODULE_PATHNAME', 'verify_gateway_key_wrapper';
COMMENT ON FUNCTION keywright.verify_gateway_key(text) IS
'Tells whether a token is a live gateway key. Never raises on any input, writes nothing, and sees a deletion from the moment it commits.
Arguments: token (anything).
Result: always one row: active; then, only if active, gateway_key_id and name.
Errors: none, whatever the token.
Example: SELECT active, name FROM keywright.verify_gateway_key(:''token'');';

CREATE FUNCTION keywright.heartbeat_gateway_key(gateway_key_id uuid) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'heartbeat_gateway_key_wrapper';
COMMENT ON FUNCTION keywright.heartbeat_gateway_key(uuid) IS
'Notes that the holder of a key is alive. Call it every minute or so. It never waits for another heartbeat.
Result: true; false when the key is gone, so that a live session ends itself.
Errors: 22023 gateway_key_id is null.
Example: SELECT keywright.heartbeat_gateway_key(:''gateway_key_id'');';
