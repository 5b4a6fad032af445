//! The jobs of examples/jobs/pg_cron.sql, run by pg_cron itself. On PostgreSQL 15, for which there is a package.

use keywright_tests::{Cluster, environment, one, program, succeed};
use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

const PORT: u16 = 5450;

/// The recipe as it stands, but for the schedules.
fn recipe(schedule: &str) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/jobs/pg_cron.sql");
    let text = std::fs::read_to_string(file).unwrap();
    let changed = text.replace("'17 3 * * *',", schedule).replace("'*/5 * * * *',", schedule);
    assert_eq!(changed.matches(schedule).count(), 2);
    changed
}

fn run(text: &str) -> String {
    let file = std::env::temp_dir().join(format!("keywright-pg_cron-{}.sql", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let mut psql = program("psql");
    psql.args([
        "-X",
        "-h",
        &environment("PGHOST"),
        "-p",
        &PORT.to_string(),
        "-U",
        "postgres",
        "-d",
        "postgres",
    ]);
    let printed = succeed(psql.args(["-v", "database=odd shop", "-f"]).arg(&file));
    std::fs::remove_file(&file).unwrap();
    String::from_utf8(printed).unwrap()
}

/// Nothing is scheduled more often than once a minute.
fn wait_a_minute_for(client: &mut Client, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(100);
    while !one::<bool>(client, sql) {
        if Instant::now() > deadline {
            let runs = "SELECT coalesce(string_agg(r::text, ' '), 'no runs') FROM cron.job_run_details AS r";
            panic!("never true: {sql}; {}", one::<String>(client, runs));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_scheduled_jobs_run_as_roles_that_can_do_nothing_else() {
    let settings = format!(
        "-c shared_preload_libraries=pg_cron -c cron.database_name=postgres -c cron.host={}",
        environment("PGHOST")
    );
    let cluster = Cluster::new(PORT, &settings);
    let mut cron = cluster.connect("postgres");
    cron.batch_execute("CREATE DATABASE \"odd shop\"").unwrap();
    let mut shop = cluster.connect("'odd shop'");
    shop.batch_execute(
        "CREATE EXTENSION keywright; CREATE ROLE app LOGIN; CREATE ROLE anon;
         SELECT keywright.ensure_user('ada', ''), keywright.mint_api_key('ada', 'live');
         SELECT keywright.grant_authenticator('rest', 'app', 'anon');
         INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list, lifetime, created_at)
         SELECT 'dead' || lpad(n::text, 6, '0'), user_id, 'dead-' || n, sha256('x'),
                clock_timestamp() - CASE WHEN n = 1 THEN interval '6 days' ELSE '8 days' END,
                '{all}', '{*:*}', '1 day', clock_timestamp() - interval '9 days'
           FROM keywright.users, generate_series(1, 25000) AS n WHERE username = 'ada';
         ALTER ROLE app INHERIT",
    )
    .unwrap();
    assert!(run(&recipe("'* * * * *',")).contains("keywright-maintain"));

    let succeeded =
        "SELECT count(DISTINCT j.jobname) = 2 FROM cron.job_run_details AS r JOIN cron.job AS j USING (jobid)
                      WHERE r.status = 'succeeded' AND r.database = 'odd shop' AND j.username = r.username
                        AND (j.jobname, j.username) IN (('keywright-maintain', 'keywright_maintainer'),
                                                        ('keywright-reconcile', 'keywright_reconciler'))";
    wait_a_minute_for(&mut cron, succeeded);
    let left = "SELECT string_agg(name, ' ' ORDER BY name) FROM keywright.api_keys";
    assert_eq!(one::<String>(&mut shop, left), "dead-1 live");
    assert_eq!(one::<i64>(&mut shop, "SELECT count(*) FROM keywright.authenticator_status()"), 0);
    // More than one batch, by the job's own role.
    let events = "SELECT sum(affected)::bigint FROM keywright.audit_events WHERE event = 'purged' AND role_name = 'keywright_maintainer'";
    assert_eq!(one::<i64>(&mut shop, events), 24_999);
    assert!(one::<bool>(
        &mut cron,
        "SELECT bool_and(NOT rolsuper AND NOT rolcreaterole AND NOT rolbypassrls) AND count(*) = 2
           FROM pg_roles WHERE rolname ~ '^keywright_(maintainer|reconciler)$'"
    ));

    // Run again, the recipe puts the jobs to their own times, and shows how the last runs went.
    let shown = run(&recipe("'0 0 1 1 *',"));
    assert!(shown.contains("keywright_maintainer | succeeded"), "{shown}");
    let jobs = "SELECT count(*) = 2 AND bool_and(schedule = '0 0 1 1 *') FROM cron.job";
    assert!(one::<bool>(&mut cron, jobs));
    // A job that may no longer do its work says so.
    shop.batch_execute("SELECT keywright.revoke_access('keywright_maintainer', 'maintainer')").unwrap();
    cron.batch_execute("SELECT cron.alter_job(jobid, schedule => '* * * * *') FROM cron.job WHERE jobname = 'keywright-maintain'")
        .unwrap();
    wait_a_minute_for(
        &mut cron,
        "SELECT count(*) > 0 FROM cron.job_run_details WHERE status = 'failed' AND return_message ~ 'permission denied for schema keywright'",
    );
}
