-- API keys: belong to a user, have scopes, an allow-list and an expiry.

CREATE TABLE keywright.api_keys (
  key_id text COLLATE pg_catalog."C" CONSTRAINT api_keys_pkey PRIMARY KEY
    CONSTRAINT api_keys_key_id_check CHECK (key_id OPERATOR(pg_catalog.~) '^[0-9A-Za-z]{10}$'),
  user_id uuid NOT NULL CONSTRAINT api_keys_user_id_fkey REFERENCES keywright.users (user_id),
  name text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT api_keys_name_check CHECK (
      pg_catalog.octet_length(name) OPERATOR(pg_catalog.<=) 64
      AND name OPERATOR(pg_catalog.~) '^[a-z0-9]+(-[a-z0-9]+)*$'),
  hashed_secret bytea NOT NULL
    CONSTRAINT api_keys_hashed_secret_check CHECK (pg_catalog.octet_length(hashed_secret) OPERATOR(pg_catalog.=) 32),
  expires_at timestamptz NOT NULL
    CONSTRAINT api_keys_expires_at_check CHECK (pg_catalog.isfinite(expires_at)),
  revoked_at timestamptz,
  scopes text[] NOT NULL
    CONSTRAINT api_keys_scopes_check CHECK (
      pg_catalog.cardinality(scopes) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.cardinality(scopes) OPERATOR(pg_catalog.<=) 128),
  allow_list text[] NOT NULL
    CONSTRAINT api_keys_allow_list_check CHECK (
      pg_catalog.cardinality(allow_list) OPERATOR(pg_catalog.<=) 128),
  lifetime interval NOT NULL,
  created_at timestamptz NOT NULL,
  revoke_reason text,
  superseded_at timestamptz,
  superseded_by text COLLATE pg_catalog."C",
  managed_by text
);
-- In line and never sampled: verification reads the hash without detoasting, and no copy of it gets into
-- the planner's statistics.
ALTER TABLE keywright.api_keys ALTER COLUMN hashed_secret SET STORAGE PLAIN;
ALTER TABLE keywright.api_keys ALTER COLUMN hashed_secret SET STATISTICS 0;
CREATE UNIQUE INDEX api_keys_name_idx ON keywright.api_keys (user_id, name)
  WHERE revoked_at IS NULL AND superseded_at IS NULL;
CREATE INDEX api_keys_user_id_idx ON keywright.api_keys (user_id, key_id);
CREATE INDEX api_keys_managed_idx ON keywright.api_keys (managed_by)
  WHERE managed_by IS NOT NULL AND revoked_at IS NULL AND superseded_at IS NULL;
CREATE INDEX api_keys_expires_at_idx ON keywright.api_keys (expires_at);
CREATE INDEX api_keys_revoked_at_idx ON keywright.api_keys (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX api_keys_allow_list_idx ON keywright.api_keys USING gin (allow_list COLLATE pg_catalog."C")
  WHERE revoked_at IS NULL AND allow_list OPERATOR(pg_catalog.<>) '{*:*}'::pg_catalog.text[];
ALTER TABLE keywright.api_keys ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.api_keys', '');

COMMENT ON TABLE keywright.api_keys IS
'API keys, dead ones included until they are purged. Row security without a policy closes the table to everybody but its owner, members of pg_read_all_data included.';
COMMENT ON COLUMN keywright.api_keys.key_id IS 'The public 10 characters of the token.';
COMMENT ON COLUMN keywright.api_keys.user_id IS 'The owner.';
COMMENT ON COLUMN keywright.api_keys.name IS '1 to 64 lower case letters and digits in groups joined by single dashes; one key of a name holds it at a time.';
COMMENT ON COLUMN keywright.api_keys.hashed_secret IS 'SHA-256 of the 22-character secret, 32 bytes. In no result of any function.';
COMMENT ON COLUMN keywright.api_keys.expires_at IS 'The key is dead from this moment on.';
COMMENT ON COLUMN keywright.api_keys.revoked_at IS 'When the key was revoked; final.';
COMMENT ON COLUMN keywright.api_keys.scopes IS 'What the key may do: permissions type:action, and names of scopes.';
COMMENT ON COLUMN keywright.api_keys.allow_list IS 'What the key may be used on: entries type:id. An entry goes with its resource; none: the key may be used on nothing.';
COMMENT ON COLUMN keywright.api_keys.lifetime IS 'The lifetime asked for; a rotation gives the successor the same.';
COMMENT ON COLUMN keywright.api_keys.created_at IS 'When the key was minted.';
COMMENT ON COLUMN keywright.api_keys.revoke_reason IS 'Why the key was revoked, in the words of who did it.';
COMMENT ON COLUMN keywright.api_keys.superseded_at IS 'When another key took over the name.';
COMMENT ON COLUMN keywright.api_keys.superseded_by IS 'The key that took over the name.';
COMMENT ON COLUMN keywright.api_keys.managed_by IS 'The reconciler that owns this key; an ensure call of another one never changes it.';
COMMENT ON INDEX keywright.api_keys_name_idx IS 'One key of a user holds a name at a time.';
COMMENT ON CONSTRAINT api_keys_name_check ON keywright.api_keys IS 'The form of an API key''s name.';
COMMENT ON CONSTRAINT api_keys_hashed_secret_check ON keywright.api_keys IS 'A SHA-256 hash has 32 bytes.';
COMMENT ON CONSTRAINT api_keys_pkey ON keywright.api_keys IS 'An id names one key.';
COMMENT ON CONSTRAINT api_keys_key_id_check ON keywright.api_keys IS 'The form of a key_id.';
COMMENT ON CONSTRAINT api_keys_user_id_fkey ON keywright.api_keys IS 'A key belongs to a user; the row of a deleted user stays.';
COMMENT ON CONSTRAINT api_keys_expires_at_check ON keywright.api_keys IS 'Every key expires.';
COMMENT ON CONSTRAINT api_keys_scopes_check ON keywright.api_keys IS '1 to 128 scopes; none would mean nothing.';
COMMENT ON CONSTRAINT api_keys_allow_list_check ON keywright.api_keys IS 'At most 128 entries. With none left the key is good for nothing.';
COMMENT ON INDEX keywright.api_keys_pkey IS 'Verification finds a key by it.';
COMMENT ON INDEX keywright.api_keys_user_id_idx IS 'The keys of a user, in pages.';
COMMENT ON INDEX keywright.api_keys_managed_idx IS 'Those that hold a name and belong to a manager.';
COMMENT ON INDEX keywright.api_keys_expires_at_idx IS 'For the purge of expired keys.';
COMMENT ON INDEX keywright.api_keys_revoked_at_idx IS 'For the purge of revoked keys.';
COMMENT ON INDEX keywright.api_keys_allow_list_idx IS 'The keys that name a resource which is deleted.';

CREATE FUNCTION keywright._api_keys_row_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  hint constant text := 'Let keywright.mint_api_key make the key.';
BEGIN
  IF tg_op = 'UPDATE' THEN
    IF old.revoked_at IS NOT NULL AND new.revoked_at IS DISTINCT FROM old.revoked_at THEN
      PERFORM keywright._refuse('55000', 'api_keys', '',
        format('API key "%s" is revoked and can not come back', old.key_id),
        'A revocation is final.', 'Mint another key.');
    END IF;
  END IF;
  PERFORM keywright._require_name('api_keys_name_check', new.name);
  IF octet_length(new.hashed_secret) IS DISTINCT FROM 32 THEN
    PERFORM keywright._refuse('23514', 'api_keys', 'api_keys_hashed_secret_check',
      'hash of an API key has the wrong length', 'A SHA-256 hash has 32 bytes.', hint);
  ELSIF new.key_id !~ '^[0-9A-Za-z]{10}$' THEN
    PERFORM keywright._refuse('23514', 'api_keys', 'api_keys_key_id_check',
      'key_id of an API key has the wrong form', 'A key_id has 10 letters and digits.', hint);
  ELSIF cardinality(new.scopes) NOT BETWEEN 1 AND 128 THEN
    PERFORM keywright._refuse('23514', 'api_keys', 'api_keys_scopes_check',
      'an API key has too few or too many scopes', 'A key has 1 to 128 scopes.', hint);
  ELSIF cardinality(new.allow_list) > 128 THEN
    PERFORM keywright._refuse('23514', 'api_keys', 'api_keys_allow_list_check',
      'the allow-list of an API key is too long', 'An allow-list has at most 128 entries.', hint);
  ELSIF NOT isfinite(new.expires_at) THEN
    PERFORM keywright._refuse('23514', 'api_keys', 'api_keys_expires_at_check',
      'expiry of an API key is not finite', 'Every key expires.', hint);
  ELSIF num_nulls(new.key_id, new.user_id, new.scopes, new.allow_list, new.expires_at, new.lifetime, new.created_at) > 0 THEN
    PERFORM keywright._refuse('23502', 'api_keys', '', 'an API key lacks a value',
      'Only revoked_at, revoke_reason, superseded_at, superseded_by and managed_by may be null.', hint);
  END IF;
  RETURN new;
END
$$;
COMMENT ON FUNCTION keywright._api_keys_row_check() IS
'Internal. Refuses a row written by hand without printing it, and keeps a revoked key revoked.';
-- The condition costs no PL/pgSQL call for a row that is right, so a restore of millions of rows stays fast.
CREATE TRIGGER api_keys_insert_check BEFORE INSERT ON keywright.api_keys
  FOR EACH ROW WHEN (NOT keywright._writing() AND (
    pg_catalog.octet_length(new.name) OPERATOR(pg_catalog.<=) 64
    AND new.name OPERATOR(pg_catalog.~) '^[a-z0-9]+(-[a-z0-9]+)*$'
    AND pg_catalog.octet_length(new.hashed_secret) OPERATOR(pg_catalog.=) 32
    AND new.key_id OPERATOR(pg_catalog.~) '^[0-9A-Za-z]{10}$'
    AND pg_catalog.cardinality(new.scopes) OPERATOR(pg_catalog.>=) 1
    AND pg_catalog.cardinality(new.scopes) OPERATOR(pg_catalog.<=) 128
    AND pg_catalog.cardinality(new.allow_list) OPERATOR(pg_catalog.<=) 128
    AND pg_catalog.isfinite(new.expires_at)
    AND pg_catalog.num_nulls(new.user_id, new.lifetime, new.created_at) OPERATOR(pg_catalog.=) 0) IS NOT TRUE)
  EXECUTE FUNCTION keywright._api_keys_row_check();
CREATE TRIGGER api_keys_update_check BEFORE UPDATE ON keywright.api_keys
  FOR EACH ROW WHEN (NOT keywright._writing()) EXECUTE FUNCTION keywright._api_keys_row_check();
COMMENT ON TRIGGER api_keys_insert_check ON keywright.api_keys IS 'Refuses a malformed row written by hand without printing it.';
COMMENT ON TRIGGER api_keys_update_check ON keywright.api_keys IS 'The same for a change, and keeps a revoked key revoked.';

-- By whatever way a resource goes. Keys are locked in one order, as by whoever else changes many.
CREATE FUNCTION keywright._end_allow_list_entries() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
BEGIN
  LOOP
    UPDATE keywright.api_keys AS k
       SET allow_list = ARRAY(
             SELECT e.entry FROM unnest(k.allow_list) WITH ORDINALITY AS e (entry, n)
              WHERE NOT EXISTS (SELECT FROM old_rows AS r WHERE r.type || ':' || r.id = e.entry COLLATE "C")
              ORDER BY e.n)
      FROM (SELECT l.key_id FROM keywright.api_keys AS l
             WHERE l.revoked_at IS NULL AND l.allow_list <> '{*:*}'::text[]
               AND l.allow_list COLLATE "C" && ARRAY(SELECT r.type || ':' || r.id FROM old_rows AS r)
             ORDER BY l.key_id FOR UPDATE) AS named
     WHERE k.key_id = named.key_id;
    -- A rotation that was waited for has made another key with the same list.
    EXIT WHEN NOT FOUND;
  END LOOP;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION keywright._end_allow_list_entries() IS
'Internal. Trigger function: what names a deleted resource goes from the allow-lists of API keys.';
CREATE TRIGGER resources_end_allow_list_entries AFTER DELETE ON keywright.resources
  REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION keywright._end_allow_list_entries();
COMMENT ON TRIGGER resources_end_allow_list_entries ON keywright.resources IS 'An entry of an allow-list goes with its resource.';

CREATE FUNCTION keywright._mint_api_key(
  username text, name text, scopes text[], allow_list text[], lifetime interval, managed_by text,
  OUT key_id text, OUT token text, OUT expires_at timestamptz)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'mint_api_key_wrapper';
COMMENT ON FUNCTION keywright._mint_api_key(text, text, text[], text[], interval, text) IS
'Internal. What mint_api_key does; nothing where the name is taken or only breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.mint_api_key(
  username text, name text, scopes text[] DEFAULT '{all}', allow_list text[] DEFAULT '{*:*}',
  lifetime interval DEFAULT '90 days', managed_by text DEFAULT NULL,
  OUT key_id text, OUT token text, OUT expires_at timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT m.key_id, m.token, m.expires_at INTO key_id, token, expires_at
    FROM keywright._mint_api_key(username, name, scopes, allow_list, lifetime, managed_by) AS m;
  IF key_id IS NULL THEN
    PERFORM keywright._require_name('api_keys_name_check', name);
    PERFORM keywright._refuse('23505', 'api_keys', 'api_keys_name_idx',
      format('user "%s" has a live API key named "%s" already', username, name),
      'One key of a user holds a name at a time.',
      'Rotate or revoke that key, choose another name, or call keywright.ensure_api_key.');
  END IF;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION keywright.mint_api_key(text, text, text[], text[], interval, text) IS
'Mints (creates) a new API key. The token is in the result and nowhere else; it can not be shown again.
Arguments: username (the owner); name (1 to 64 lower case letters, digits and single dashes, unique per user among live keys); scopes (registered scopes, and permissions type:action with a registered type, * on either side for any; 1 to 128); allow_list (entries type:id with a registered type, * on either side for any; 1 to 128); lifetime (an interval of at least 1 minute and at most 100 years, no part of it negative; under keywright.max_api_key_lifetime a year counts 365 days and a month 30, and no key lives longer than that); managed_by (the calling reconciler; null: none).
Result: key_id; token (43 characters, or 33 while keywright.api_key_brand is empty); expires_at.
Errors: 23514 api_keys_name_check; 23505 api_keys_name_idx; 22023 malformed argument, with the nearest registered scope or type; 42704 no such user; 55000 the user is suspended.
Example: SELECT key_id, token FROM keywright.mint_api_key(''ada'', ''ci'', scopes => ''{project:read}'', lifetime => ''90 days'');';

CREATE FUNCTION keywright._first_misnamed(names text[]) RETURNS integer
LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'first_misnamed_wrapper';
COMMENT ON FUNCTION keywright._first_misnamed(text[]) IS
'Internal. The position of the first name that no API key may have, from 1; null when there is none.';

CREATE FUNCTION keywright._mint_api_keys(
  usernames text[], names text[], scopes text[], allow_list text[], lifetime interval, managed_by text,
  OUT ordinality bigint, OUT username text, OUT name text, OUT key_id text, OUT token text, OUT expires_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'mint_api_keys_wrapper';
COMMENT ON FUNCTION keywright._mint_api_keys(text[], text[], text[], text[], interval, text) IS
'Internal. What mint_api_keys does once the names are known to be right; one row with an ordinality and nulls when that name is taken.';

-- The work_mem keeps the tokens in memory: a longer result would be written to a temporary file.
CREATE FUNCTION keywright.mint_api_keys(
  usernames text[], names text[], scopes text[] DEFAULT '{all}', allow_list text[] DEFAULT '{*:*}',
  lifetime interval DEFAULT '90 days', managed_by text DEFAULT NULL,
  OUT ordinality bigint, OUT username text, OUT name text, OUT key_id text, OUT token text, OUT expires_at timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1000
SET search_path = pg_catalog, pg_temp SET work_mem = '128MB'
AS $$
DECLARE
  misnamed constant integer := keywright._first_misnamed(names);
BEGIN
  IF misnamed IS NOT NULL THEN
    PERFORM keywright._require_name('api_keys_name_check', (SELECT n.name FROM unnest(names) WITH ORDINALITY AS n (name, at) WHERE n.at = misnamed));
  END IF;
  FOR ordinality, username, name, key_id, token, expires_at IN
    SELECT * FROM keywright._mint_api_keys(usernames, names, scopes, allow_list, lifetime, managed_by)
  LOOP
    IF key_id IS NULL THEN
      PERFORM keywright._refuse('23505', 'api_keys', 'api_keys_name_idx',
        (SELECT format('user "%s" has a live API key named "%s" already', u.username, n.name)
           FROM unnest(usernames) WITH ORDINALITY AS u (username, at)
           JOIN unnest(names) WITH ORDINALITY AS n (name, at) ON n.at = u.at
          WHERE u.at = ordinality),
        'One key of a user holds a name at a time. No key was minted.',
        'Rotate or revoke that key, or choose another name.');
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;
COMMENT ON FUNCTION keywright.mint_api_keys(text[], text[], text[], text[], interval, text) IS
'Mints many API keys in one statement: all of them or none. The tokens are in the result and nowhere else; they can not be shown again.
Arguments: usernames and names (as many of each, at most 100000: the owner and the name of each key); the others as for mint_api_key, the same for every key.
Result: a row per key, in order: ordinality (from 1), username, name, key_id, token, expires_at. No row for empty arrays. More than 1000 keys leave one audit event and one notification for all.
Errors: 23514 api_keys_name_check; 23505 api_keys_name_idx, also when a name is asked for twice; 22023 malformed argument; 42704 no such user; 55000 a user is suspended.
Example: SELECT username, name, token FROM keywright.mint_api_keys(''{ada,ada}'', ''{one,two}'');';

CREATE FUNCTION keywright._import_api_key(
  username text, name text, key_id text, digest bytea, expires_at timestamptz, created_at timestamptz, scopes text[],
  allow_list text[]) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'import_api_key_wrapper';
COMMENT ON FUNCTION keywright._import_api_key(text, text, text, bytea, timestamptz, timestamptz, text[], text[]) IS
'Internal. What import_api_key does; nothing where only the name breaks its rule, which it refuses itself; id-taken or name-taken when it can not.';

CREATE FUNCTION keywright.import_api_key(
  username text, name text, key_id text, digest bytea, expires_at timestamptz, created_at timestamptz DEFAULT NULL,
  scopes text[] DEFAULT '{all}', allow_list text[] DEFAULT '{*:*}') RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  outcome text;
BEGIN
  outcome := keywright._import_api_key(
    username, name, key_id, digest, expires_at, created_at, scopes, allow_list);
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('api_keys_name_check', name);
  ELSIF outcome = 'id-taken' THEN
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
Result: imported; or unchanged when the key is there already and is the same: nothing was written, and what has become of it since stays, a revocation too, until the key is purged: a key that is imported again after that lives again.
Errors: 23514 api_keys_name_check; 42710 the key is there already with another name, scopes, allow_list, expires_at or created_at (if given); 23505 api_keys_pkey another key has the id, api_keys_name_idx; 22023 malformed argument, or a digest that is none or of something that can be guessed, never repeated; 42704 no such user; 55000 the user is suspended.
Example: SELECT keywright.import_api_key(''ada'', ''old'', ''4hQx0mTz9B'', :''digest'', expires_at => now() + interval ''30 days'');';

CREATE FUNCTION keywright._ensure_api_key(
  username text, name text, existing_token text, scopes text[], allow_list text[], lifetime interval,
  renew_before interval, managed_by text,
  OUT key_id text, OUT token text, OUT outcome text, OUT reason text, OUT expires_at timestamptz)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'ensure_api_key_wrapper';
COMMENT ON FUNCTION keywright._ensure_api_key(text, text, text, text[], text[], interval, interval, text) IS
'Internal. What ensure_api_key does; nothing where only the name breaks its rule, which it refuses itself.';

CREATE FUNCTION keywright.ensure_api_key(
  username text, name text, existing_token text DEFAULT NULL, scopes text[] DEFAULT '{all}',
  allow_list text[] DEFAULT '{*:*}', lifetime interval DEFAULT '90 days', renew_before interval DEFAULT '0',
  managed_by text DEFAULT NULL,
  OUT key_id text, OUT token text, OUT outcome text, OUT reason text, OUT expires_at timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT e.key_id, e.token, e.outcome, e.reason, e.expires_at INTO key_id, token, outcome, reason, expires_at
    FROM keywright._ensure_api_key(
      username, name, existing_token, scopes, allow_list, lifetime, renew_before, managed_by) AS e;
  IF outcome IS NULL THEN
    PERFORM keywright._require_name('api_keys_name_check', name);
  END IF;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION keywright.ensure_api_key(text, text, text, text[], text[], interval, interval, text) IS
'Makes sure that whoever calls holds a live key of this name: keeps the token it is handed when it is this user''s live key of that name with these scopes and allow-list and more than renew_before left; otherwise mints a successor and revokes what went before, in one transaction. While other sessions are connected to the database, a call that mints waits 0.1 seconds first, so that calls made at the same moment are seen as such.
Arguments: as for mint_api_key; existing_token (what the caller has stored, white space around it does not count; null or empty: nothing); renew_before (rotate when no more than this is left; shorter than lifetime in any month and year). A key that is kept is not judged by lifetime.
Result: key_id; token (the one to use from now on; null when the outcome is concurrent); outcome kept (nothing was written), minted, rotated, or concurrent (another call for the same key minted while this one ran: read your store again and call again later); reason: null for kept, else missing, malformed, unknown, wrong-user, wrong-name, revoked, superseded, expired, scopes-changed, allow-list-changed or expiring; expires_at.
Errors: 23514 api_keys_name_check; 22023 malformed argument; 42704 no such user; 55000 the user is suspended; 42710 the key belongs to another manager.
Example: SELECT token, outcome, reason FROM keywright.ensure_api_key(''ada'', ''laptop'', :''token'', lifetime => ''90 days'', renew_before => ''14 days'');';

-- Per request or per row: these parse no SQL and read with the caller''s own rights nothing at all, so they
-- carry neither SECURITY DEFINER nor a search_path.
-- A type of its own, because Postgres puts together the row type of OUT parameters anew for each execution, which costs
-- as much as finding the key.
CREATE TYPE keywright.verified_api_key AS (
  active boolean, key_id text, user_id uuid, username text, name text, scopes text[], allow_list text[],
  expires_at timestamptz);
COMMENT ON TYPE keywright.verified_api_key IS 'What is known of a live API key (RFC 7662); of any other, that it is not active.';
COMMENT ON COLUMN keywright.verified_api_key.active IS 'True for a live key. Otherwise all else is null.';
COMMENT ON COLUMN keywright.verified_api_key.key_id IS 'The public 10 characters of the token.';
COMMENT ON COLUMN keywright.verified_api_key.user_id IS 'The owner.';
COMMENT ON COLUMN keywright.verified_api_key.username IS 'The owner''s name.';
COMMENT ON COLUMN keywright.verified_api_key.name IS 'The key''s name.';
COMMENT ON COLUMN keywright.verified_api_key.scopes IS 'What the key may do.';
COMMENT ON COLUMN keywright.verified_api_key.allow_list IS 'What the key may be used on.';
COMMENT ON COLUMN keywright.verified_api_key.expires_at IS 'The key is dead from this moment on.';

CREATE FUNCTION keywright.verify_api_key(token text) RETURNS keywright.verified_api_key
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
AS 'MODULE_PATHNAME', 'verify_api_key_wrapper';
COMMENT ON FUNCTION keywright.verify_api_key(text) IS
'Tells whether a token is a live API key, and whose (RFC 7662). Never raises on any input, writes nothing, and sees a revocation from the moment it commits, also inside a REPEATABLE READ or long transaction.
Arguments: token (anything).
Result: always one row: active; then, only if active, key_id, user_id, username, name, scopes, allow_list and expires_at. An inactive token gives nulls whatever the cause.
Errors: none, whatever the token.
Example: SELECT active, username, name, scopes FROM keywright.verify_api_key(:''token'');';

CREATE FUNCTION keywright.verify_api_keys(
  tokens text[],
  OUT ordinality bigint, OUT active boolean, OUT key_id text, OUT user_id uuid, OUT username text,
  OUT name text, OUT scopes text[], OUT allow_list text[], OUT expires_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 100
AS 'MODULE_PATHNAME', 'verify_api_keys_wrapper';
COMMENT ON FUNCTION keywright.verify_api_keys(text[]) IS
'verify_api_key for many tokens at once, all under one snapshot.
Result: one row per element, in order: ordinality (from 1), then the columns of verify_api_key. No row for a null or empty array.
Errors: none, whatever the tokens.
Example: SELECT ordinality, active, username FROM keywright.verify_api_keys(ARRAY[:''token'', ''anything'']);';

CREATE FUNCTION keywright.verify_api_key_digest(key_id text, digest bytea) RETURNS keywright.verified_api_key
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
AS 'MODULE_PATHNAME', 'verify_api_key_digest_wrapper';
COMMENT ON FUNCTION keywright.verify_api_key_digest(text, bytea) IS
'verify_api_key for callers that do not want to send the secret to the database.
Arguments: key_id (the 10 characters after the brand); digest (SHA-256 of the 22-character secret, 32 bytes). Whoever can read the stored hashes could pass one here: the caller must compute it from a token it was shown.
Result: the row of verify_api_key.
Errors: none, whatever the arguments.
Example: SELECT active, username FROM keywright.verify_api_key_digest(:''key_id'', :''digest'');';

CREATE FUNCTION keywright.authenticate_api_key(token text) RETURNS keywright.verified_api_key
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100
AS 'MODULE_PATHNAME', 'authenticate_api_key_wrapper';
COMMENT ON FUNCTION keywright.authenticate_api_key(text) IS
'verify_api_key that raises instead of answering false.
Result: the row of verify_api_key, active always true.
Errors: 28000 the token is not a live API key, one message whatever the cause.
Example: SELECT username, name, scopes FROM keywright.authenticate_api_key(:''token'');';

CREATE FUNCTION keywright.authorize_api_key(token text, permission text, resource text DEFAULT NULL)
RETURNS keywright.verified_api_key
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 200
AS 'MODULE_PATHNAME', 'authorize_api_key_wrapper';
COMMENT ON FUNCTION keywright.authorize_api_key(text, text, text) IS
'authenticate_api_key and a permission check in one call, under one snapshot. Permitted is what the scopes of the key, its allow-list and the roles of its owner all cover.
Arguments: token; permission (type:action); resource (type:id; null: everywhere). An entry of an allow-list and a role binding cover a resource and what lies below it. A resource that is not registered lies below nothing.
Result: the row of verify_api_key, active always true.
Errors: 22023 malformed permission or resource, or a type that is not registered, with the nearest one; 28000 the token is not a live API key, one message whatever the cause; 42501 the key is good and the permission not covered, DETAIL names it and by what it is not covered. A failing look-up is an error of its own, never one of these.
Example: SELECT username, name FROM keywright.authorize_api_key(:''token'', ''project:read'', ''project:rockets'');';

CREATE FUNCTION keywright.explain_api_key(
  token text,
  OUT cause text, OUT key_id text, OUT user_id uuid, OUT username text, OUT name text, OUT expires_at timestamptz,
  OUT revoked_at timestamptz, OUT revoke_reason text, OUT superseded_at timestamptz, OUT superseded_by text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'explain_api_key_wrapper';
COMMENT ON FUNCTION keywright.explain_api_key(text) IS
'The true cause why a token verifies or not, for an auditor.
Result: cause: active, missing, white-space, quoted, scheme or cut (a token with white space or quotes around it, with Bearer or the name of a header before it, or with its end missing; a client mends that), malformed (anything else: form or checksum), unknown, wrong-secret, revoked, superseded (rotated away and still presented: reuse), expired, user-suspended or user-deleted; then what is known of the key. With a wrong secret nothing but cause and key_id is told.
Errors: none, whatever the token.
Example: SELECT cause, key_id, revoke_reason FROM keywright.explain_api_key(:''token'');';

CREATE FUNCTION keywright.rotate_api_key(
  INOUT key_id text, grace interval DEFAULT '0', username text DEFAULT NULL,
  OUT token text, OUT expires_at timestamptz, OUT predecessor_id text, OUT predecessor_expires_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rotate_api_key_wrapper';
COMMENT ON FUNCTION keywright.rotate_api_key(text, interval, text) IS
'Mints a successor with the same name, scopes, allow-list and lifetime, capped by keywright.max_api_key_lifetime.
Arguments: key_id (the key to replace; it must be live); grace (how long the old token lives on, 0 to 100 years, no part of it negative; never past its own expiry); username (whose key it is: another''s is not there; null: anybody''s).
Result: key_id, token and expires_at of the successor; predecessor_id; predecessor_expires_at (when the old token dies).
Errors: 22023 malformed argument; 42704 no such key; 55000 the key is revoked, superseded or expired, or its owner suspended.
Example: SELECT token, predecessor_expires_at FROM keywright.rotate_api_key(:''key_id'', grace => ''1 hour'');';

CREATE FUNCTION keywright.revoke_api_key(
  key_id text, reason text DEFAULT NULL, username text DEFAULT NULL, managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'revoke_api_key_wrapper';
COMMENT ON FUNCTION keywright.revoke_api_key(text, text, text, text) IS
'Revokes a key for good (RFC 7009): dead for every session from the commit on. The row stays until it is purged.
Arguments: key_id; reason (free text for people; never put a token in it); username (whose key it is: another''s is not there; null: anybody''s); managed_by (the calling reconciler: a key of another one is refused; null: nobody is asked).
Result: true when this call revoked the key, false when it was revoked already or there is no such key.
Errors: 22023 malformed argument; 42710 the key belongs to another manager.
Example: SELECT keywright.revoke_api_key(:''key_id'', ''laptop stolen'');';

CREATE FUNCTION keywright.revoke_user_api_keys(
  username text, reason text DEFAULT NULL, managed_by text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'revoke_user_api_keys_wrapper';
COMMENT ON FUNCTION keywright.revoke_user_api_keys(text, text, text) IS
'Revokes every key of a user that is not revoked yet.
Arguments: username; reason (free text for people; never put a token in it); managed_by (the calling reconciler: if a key of another one is among them, none is revoked; null: nobody is asked).
Result: true when this call revoked one, false when there was none to revoke or there is no such user.
Errors: 22023 malformed argument; 42710 a key belongs to another manager.
Example: SELECT keywright.revoke_user_api_keys(''ada'', ''left the company'');';

CREATE FUNCTION keywright.revoke_leaked_api_key(token text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'revoke_leaked_api_key_wrapper';
COMMENT ON FUNCTION keywright.revoke_leaked_api_key(text) IS
'Revokes the key whose token was found in the wild; the reason is set to leaked. Both id and secret must be right; white space around the token does not count.
Result: true when something changed; false when the token is no key, or its key was revoked already (RFC 7009: no error).
Errors: none of its own, whatever the token.
Example: SELECT keywright.revoke_leaked_api_key(:''token'');';

CREATE FUNCTION keywright.expire_api_key(key_id text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'expire_api_key_wrapper';
COMMENT ON FUNCTION keywright.expire_api_key(text) IS
'Lets a key expire now. An earlier expiry is left as it is.
Result: true when this call ended the key, false when it was dead already or there is no such key.
Errors: 22023 malformed key_id.
Example: SELECT keywright.expire_api_key(:''key_id'');';

CREATE FUNCTION keywright.list_api_keys(
  OUT key_id text, OUT user_id uuid, INOUT username text DEFAULT NULL,
  include_inactive boolean DEFAULT false, after text DEFAULT NULL, page_size integer DEFAULT 100,
  OUT name text, OUT state text, OUT scopes text[], OUT allow_list text[], OUT created_at timestamptz,
  OUT expires_at timestamptz, OUT revoked_at timestamptz, OUT revoke_reason text,
  OUT superseded_at timestamptz, OUT superseded_by text, OUT managed_by text)
RETURNS SETOF record
-- Planned for the arguments of the call, so that what is null is no condition; and by indexes in the order of the page, at any
-- size. The owner's name is looked up by row, since a join would be planned otherwise for other sizes.
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_sort = off
AS $$
DECLARE
  owner_id constant uuid := CASE WHEN username IS NOT NULL THEN keywright._user_id(username) END;
BEGIN
  RETURN QUERY
  SELECT k.key_id, k.user_id, (SELECT u.username FROM keywright.users AS u WHERE u.user_id = k.user_id), k.name,
         CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
              WHEN k.superseded_at IS NOT NULL THEN 'superseded'
              WHEN k.expires_at <= clock_timestamp() THEN 'expired'
              ELSE 'active' END,
         k.scopes, k.allow_list, k.created_at, k.expires_at, k.revoked_at, k.revoke_reason,
         k.superseded_at, k.superseded_by, k.managed_by
    FROM keywright.api_keys AS k
   WHERE (list_api_keys.username IS NULL OR k.user_id = owner_id)
     AND (include_inactive OR (k.revoked_at IS NULL AND k.expires_at > clock_timestamp()))
     AND (after IS NULL OR k.key_id > after COLLATE "C")
   ORDER BY k.key_id
   LIMIT keywright._page_size(page_size);
END
$$;
COMMENT ON FUNCTION keywright.list_api_keys(text, boolean, text, integer) IS
'Lists API keys without any secret, by key_id.
Arguments: username (only this user''s keys; null: all); include_inactive (also keys that no longer live); after (the last key_id of the page before); page_size (rows, 1 to 10000).
Result: among others state: active, superseded (a successor holds the name; alive until expires_at), expired or revoked. No row when there is no such user.
Errors: 22023 page_size out of range.
Example: SELECT key_id, name, state, expires_at FROM keywright.list_api_keys(''ada'', include_inactive => true);';

CREATE FUNCTION keywright.purge_api_keys(retention interval DEFAULT '7 days', batch integer DEFAULT 10000) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'purge_api_keys_wrapper';
COMMENT ON FUNCTION keywright.purge_api_keys(interval, integer) IS
'Deletes keys that expired or were revoked longer than retention ago, one batch a call.
Arguments: retention (0 to 100 years, no part of it negative); batch (the most rows to delete, 1 to 1000000). Keys that another session holds are left for the next call.
Result: the number of keys deleted.
Errors: 22023 malformed argument.
Example: SELECT keywright.purge_api_keys(''30 days'');';
