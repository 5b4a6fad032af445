-- PostgREST's configuration of a service.

CREATE TABLE keywright.postgrest_settings (
  service text COLLATE pg_catalog."C" NOT NULL
    CONSTRAINT postgrest_settings_service_fkey REFERENCES keywright.authenticators (service) ON DELETE CASCADE,
  key text COLLATE pg_catalog."C" NOT NULL,
  value text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT postgrest_settings_pkey PRIMARY KEY (service, key)
);
ALTER TABLE keywright.postgrest_settings ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('keywright.postgrest_settings', '');
COMMENT ON TABLE keywright.postgrest_settings IS 'Settings of PostgREST that somebody set. No secret is ever one of them.';
COMMENT ON COLUMN keywright.postgrest_settings.service IS 'The service.';
COMMENT ON COLUMN keywright.postgrest_settings.key IS 'The setting, as PostgREST calls it in the database: with underscores, without pgrst.';
COMMENT ON COLUMN keywright.postgrest_settings.value IS 'Its value, in one spelling.';
COMMENT ON COLUMN keywright.postgrest_settings.updated_at IS 'When it was last changed.';
COMMENT ON CONSTRAINT postgrest_settings_pkey ON keywright.postgrest_settings IS 'A setting has one value.';
COMMENT ON INDEX keywright.postgrest_settings_pkey IS 'A setting has one value.';
COMMENT ON CONSTRAINT postgrest_settings_service_fkey ON keywright.postgrest_settings IS 'Settings go with their service.';

CREATE FUNCTION keywright.set_postgrest_settings(service text, settings jsonb)
RETURNS TABLE (key text, outcome text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'set_postgrest_settings_wrapper';
COMMENT ON FUNCTION keywright.set_postgrest_settings(text, jsonb) IS
'Sets settings of PostgREST for a service; settings that are not named stay. What changes is notified on the channel pgrst.
Arguments: service; settings (an object: keys as PostgREST calls them in the database, such as db_max_rows; text, number or boolean, null to remove one). A setting that PostgREST reads from the database is removed only while nobody is logged in to this database as connect_as: sessions that have read it would show it as empty, and PostgREST prefers that to its file. db_pool is 1 to 30 (default 10), db_max_rows 1 to 10000 (default 1000). jwt_secret is never stored, db_anon_role and db_schemas are arguments of grant_authenticator.
Result: a row a change: key, outcome (created, updated or removed). No row when nothing changed, and then nothing was written and nobody is notified.
Errors: 22023 with everything that is wrong, unknown keys first; 42704 no such service; 55006 a setting to be removed is in use.
Example: SELECT * FROM keywright.set_postgrest_settings(''rest'', ''{"db_max_rows": 500}'');';

CREATE FUNCTION keywright.set_postgrest_setting(service text, key text, value text) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'set_postgrest_setting_wrapper';
COMMENT ON FUNCTION keywright.set_postgrest_setting(text, text, text) IS
'Sets one setting of PostgREST for a service; null removes it.
Arguments: service; key (as for set_postgrest_settings); value (null to remove it).
Result: created, updated, removed or unchanged.
Errors: as for set_postgrest_settings.
Example: SELECT keywright.set_postgrest_setting(''rest'', ''db_max_rows'', ''500'');';

CREATE FUNCTION keywright.postgrest_config() RETURNS void
LANGUAGE c STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postgrest_config_wrapper';
COMMENT ON FUNCTION keywright.postgrest_config() IS
'For PostgREST''s db-pre-config. Sets pgrst.* for the transaction to the settings of the service whose authenticator this session logged in as; nothing for any other session. Where services share an authenticator, the setting keywright.service says which is meant (render_postgrest_config sees to it); without it the oldest. What a session has set once it sets again also when it is gone, because empty would mean more than the file to PostgREST. Works in READ ONLY transactions and on a standby.
Errors: none of its own.
Example: SELECT keywright.postgrest_config();';

CREATE FUNCTION keywright.render_postgrest_config(
  service text, hosts text[], password text DEFAULT NULL, jwt_secret text DEFAULT NULL,
  target_session_attrs text DEFAULT 'read-write', parameters jsonb DEFAULT '{}') RETURNS text
LANGUAGE c STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'render_postgrest_config_wrapper';
COMMENT ON FUNCTION keywright.render_postgrest_config(text, text[], text, text, text, jsonb) IS
'The text of postgrest.conf for a service. Stores nothing. Pass the secrets as bind parameters, and set log_parameter_max_length to 0 where statements are logged.
Arguments: service; hosts (host, host:port, [IPv6 address]:port or the directory of a socket, tried in this order); password (of connect_as; null: left out, never empty); jwt_secret (at least 32 characters, Base64 where jwt_secret_is_base64 says so, or @ and the path of a file; null: left out); target_session_attrs (any, read-write, read-only, primary, standby or prefer-standby); parameters (an object: more parameters of libpq, such as sslmode).
Result: the file. It names postgrest_config as db-pre-config if connect_as may call it: see the capability authenticator.
Errors: 42704 no such service; 22023 malformed arguments, all together, without repeating a secret.
Example: SELECT keywright.render_postgrest_config(''rest'', ''{db1.example:5432,db2.example:5432}'', parameters => ''{"sslmode": "verify-full"}'');';
