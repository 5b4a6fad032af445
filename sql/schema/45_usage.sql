-- When API keys were used.

-- Apart from the keys and without a foreign key: usage is this node's own, never rewrites what verification reads, and a row
-- left over after a key is harmless (keywright.maintain removes it). No column but the key is in an index, and a page is
-- half empty, so that an update stays on its page.
CREATE TABLE keywright.api_key_usage (
  key_id text COLLATE pg_catalog."C" CONSTRAINT api_key_usage_pkey PRIMARY KEY,
  last_used_at timestamptz,
  last_presented_at timestamptz NOT NULL
) WITH (fillfactor = 50);
ALTER TABLE keywright.api_key_usage ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.api_key_usage', '');
COMMENT ON TABLE keywright.api_key_usage IS
'When each API key was used, on this node, as of the last flush; keywright.key_usage adds what is in memory. Not to be replicated logically: each node writes its own.';
COMMENT ON COLUMN keywright.api_key_usage.key_id IS 'The API key.';
COMMENT ON COLUMN keywright.api_key_usage.last_used_at IS 'When the key was last accepted; null: never.';
COMMENT ON COLUMN keywright.api_key_usage.last_presented_at IS 'When its id was last presented, accepted or not.';
COMMENT ON CONSTRAINT api_key_usage_pkey ON keywright.api_key_usage IS 'One row a key.';
COMMENT ON INDEX keywright.api_key_usage_pkey IS 'One row a key.';

CREATE FUNCTION keywright._noted_usage(key_id text, OUT last_used_at timestamptz, OUT last_presented_at timestamptz)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'noted_usage_wrapper';
COMMENT ON FUNCTION keywright._noted_usage(text) IS
'Internal. What this node''s memory has of a key; nulls where it has nothing.';

CREATE FUNCTION keywright._usage_metrics(OUT name text, OUT labels jsonb, OUT value double precision)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'usage_metrics_wrapper';
COMMENT ON FUNCTION keywright._usage_metrics() IS
'Internal. The metrics that are kept in memory; no rows where keywright is not in shared_preload_libraries.';

CREATE FUNCTION keywright.key_usage(
  OUT key_id text, username text DEFAULT NULL, after text DEFAULT NULL, page_size integer DEFAULT 100,
  OUT last_used_at timestamptz, OUT last_presented_at timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  owner_id constant uuid := CASE WHEN username IS NOT NULL THEN keywright._user_id(username) END;
BEGIN
  IF NOT EXISTS (SELECT FROM keywright._usage_metrics()) THEN
    RAISE WARNING USING MESSAGE = 'this server does not note when API keys are used',
      DETAIL = 'A null says nothing: keywright is not in shared_preload_libraries.',
      HINT = 'Add it to shared_preload_libraries, and restart the server.';
  END IF;
  RETURN QUERY
  SELECT k.key_id, greatest(u.last_used_at, n.last_used_at), greatest(u.last_presented_at, n.last_presented_at)
    FROM (SELECT a.key_id FROM keywright.api_keys AS a
           WHERE (key_usage.username IS NULL OR a.user_id = owner_id) AND (after IS NULL OR a.key_id > after COLLATE "C")
           ORDER BY a.key_id LIMIT keywright._page_size(page_size)) AS k
    LEFT JOIN keywright.api_key_usage AS u ON u.key_id = k.key_id
   CROSS JOIN LATERAL keywright._noted_usage(k.key_id) AS n
   ORDER BY k.key_id;
END
$$;
COMMENT ON FUNCTION keywright.key_usage(text, text, integer) IS
'When API keys were used, as far as this node knows: what was written, and up to this moment what is in memory. Works in READ ONLY transactions and on a standby.
Arguments: username (only this user''s keys; null: all); after (the last key_id of the page before); page_size (rows, 1 to 10000).
Result: a row for every key that is not purged, dead or alive, by key_id: key_id; last_used_at (when it was last accepted); last_presented_at (when its id was last presented, also with a wrong secret, expired or revoked). Null: never, or not while it was noted; a warning says when this server does not note it. No row when there is no such user.
Errors: 22023 page_size out of range.
Example: SELECT key_id, last_used_at FROM keywright.key_usage(''ada'');';

CREATE FUNCTION keywright.touch_api_key(key_id text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'touch_api_key_wrapper';
COMMENT ON FUNCTION keywright.touch_api_key(text) IS
'Notes that a key was used, or if it is dead, presented: for servers where keywright is not in shared_preload_libraries, so that verification notes nothing, and for callers that remember what they verified. Where it is, this notes in memory as verification does. Where it is not, this writes, at most once a minute a key, and never waits for another call.
Arguments: key_id.
Result: true; false when there is no such key.
Errors: 22023 malformed key_id; 25006 on a standby and in a READ ONLY transaction, where there is something to write.
Example: SELECT keywright.touch_api_key(:''key_id'');';
