-- What keywright is measured against, each in its best form, in a database that has keywright and keys in it.
-- Run it by psql; the statements below are what a benchmark prepares.
CREATE SCHEMA bench;

-- The check as it is written by hand: one function, one look-up, built-in SHA-256, nothing written. Everything is
-- qualified instead of SET search_path, which would cost more than the look-up.
CREATE FUNCTION bench.verify(
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
CREATE FUNCTION bench.verify2(
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
