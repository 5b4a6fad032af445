-- keywright's jobs by pg_cron, 1.4 or later. Run by psql, as a superuser, in the database that cron.database_name names, with
-- the name of the database keywright is in. It can be run again:
--
--   psql -X -d postgres -v database=shop -f pg_cron.sql
\set ON_ERROR_STOP on
\set QUIET on
SELECT current_database() AS cron_database \gset
CREATE EXTENSION IF NOT EXISTS pg_cron;

-- A role a job, each with the one capability its job needs. pg_cron logs in as them from the server's own host, at cron.host:
-- by a line of pg_hba.conf or by the .pgpass of the user the server runs as; or, with cron.use_background_workers = on, not at all.
SELECT format('CREATE ROLE %I LOGIN', role)
  FROM unnest(ARRAY['keywright_maintainer', 'keywright_reconciler']) AS role
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
\connect :"database"
SELECT keywright.grant_access('keywright_maintainer', 'maintainer'), keywright.grant_access('keywright_reconciler', 'reconciler') \g /dev/null
\connect :"cron_database"

-- Nightly, and every five minutes. By name, so that scheduling again changes the job. The times are UTC.
SELECT cron.schedule_in_database('keywright-maintain', '17 3 * * *',
  'CALL keywright.maintain()', :'database', 'keywright_maintainer') AS maintain;
SELECT cron.schedule_in_database('keywright-reconcile', '*/5 * * * *',
  'SELECT * FROM keywright.reconcile_authenticators()', :'database', 'keywright_reconciler') AS reconcile;

-- What to look at. status is succeeded or failed, and then return_message has the error. A row that stays running with nothing in
-- pg_stat_activity was cut short by the server's end; the next run does the rest.
SELECT j.jobname, j.username, d.status, d.return_message, d.start_time, d.end_time - d.start_time AS took
  FROM cron.job AS j LEFT JOIN LATERAL (
    SELECT * FROM cron.job_run_details AS r WHERE r.jobid = j.jobid ORDER BY r.start_time DESC LIMIT 1) AS d ON true
 WHERE j.jobname LIKE 'keywright-%' ORDER BY j.jobname;

-- To change one: SELECT cron.alter_job(jobid, schedule => '17 4 * * *') FROM cron.job WHERE jobname = 'keywright-maintain';
-- To stop one:   SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'keywright-maintain';
