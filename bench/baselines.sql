-- What keywright is measured against, each in its best form, in a database that has keywright and keys in it.
CREATE SCHEMA bench;

-- The check as it is written by hand, and well: one function with its rights and its search_path, one statement, built-in
-- SHA-256, nothing written. It gives the same answer as keywright.verify_api_key, the owner's name and state included.
CREATE FUNCTION bench.verify(
  token text,
  OUT active boolean, OUT key_id text, OUT user_id uuid, OUT username text, OUT name text,
  OUT scopes text[], OUT allow_list text[], OUT expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT true, k.key_id, k.user_id, u.username, k.name, k.scopes, k.allow_list, k.expires_at
    INTO active, key_id, user_id, username, name, scopes, allow_list, expires_at
    FROM keywright.api_keys AS k
    JOIN keywright.users AS u ON u.user_id = k.user_id
   WHERE k.key_id = substr(token, 5, 10)
     AND k.hashed_secret = sha256(substr(token, 16, 22)::bytea)
     AND k.revoked_at IS NULL AND k.expires_at > clock_timestamp()
     AND u.deleted_at IS NULL AND u.status = 'active';
  active := coalesce(active, false);
END
$$;

-- The barest there is: no checksum, no owner, no search_path.
CREATE FUNCTION bench.verify_bare(
  token text,
  OUT active boolean, OUT key_id text, OUT user_id uuid, OUT name text,
  OUT scopes text[], OUT allow_list text[], OUT expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
  SELECT true, k.key_id, k.user_id, k.name, k.scopes, k.allow_list, k.expires_at
    INTO active, key_id, user_id, name, scopes, allow_list, expires_at
    FROM keywright.api_keys AS k
   WHERE k.key_id OPERATOR(pg_catalog.=) pg_catalog.substr(token, 5, 10)
     AND k.hashed_secret OPERATOR(pg_catalog.=) pg_catalog.sha256(pg_catalog.substr(token, 16, 22)::bytea)
     AND k.revoked_at IS NULL
     AND k.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp();
  active := coalesce(active, false);
END
$$;

-- A table of the same columns, checks, indexes and reference, and 100,000 keys for it in one statement.
CREATE TABLE bench.api_keys (LIKE keywright.api_keys INCLUDING ALL);
ALTER TABLE bench.api_keys ADD FOREIGN KEY (user_id) REFERENCES keywright.users;
CREATE FUNCTION bench.mint_many(prefix text) RETURNS TABLE (key_id text, token text)
LANGUAGE sql AS $$
  WITH made AS MATERIALIZED (
    SELECT n, u.user_id,
           substr(translate(encode(uuid_send(gen_random_uuid()), 'base64'), '+/=', 'abc'), 1, 10) AS id,
           substr(translate(encode(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'base64'), '+/=', 'abc'), 1, 22) AS secret
      FROM generate_series(1, 100000) AS n JOIN keywright.users AS u ON u.username = 'user-' || n % 1000
  ), minted AS (
    INSERT INTO bench.api_keys
           (key_id, user_id, name, hashed_secret, scopes, allow_list, lifetime, created_at, expires_at)
    SELECT id, user_id, prefix || '-' || n, sha256(secret::bytea), '{all}', '{*:*}', '7 days', clock_timestamp(),
           clock_timestamp() + interval '7 days'
      FROM made
  )
  SELECT id, 'kwk_' || id || '-' || secret FROM made
$$;
