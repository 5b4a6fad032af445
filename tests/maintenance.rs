//! The jobs: what they do in batches, what an interruption leaves, and who may run them.

use keywright_tests::{Database, environment, exporter_metrics, is_active, one, program, succeed, wait_for};
use postgres::Client;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const DEAD: i64 = 50_000;
const BATCH: i64 = 200;

/// A database with a role that only maintains, and is reached by `night`.
fn database(name: &str) -> (Database, String) {
    let database = Database::new(name);
    let role = format!("keywright_test_night_{name}");
    database
        .connect()
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; SELECT keywright.grant_access('{role}', 'maintainer');
             SELECT keywright.ensure_user('ada', '')"
        ))
        .unwrap();
    (database, role)
}

fn night(database: &Database, role: &str) -> Client {
    database.connect_as(role, "-c application_name=night")
}

/// Keys that expired a month ago.
fn dead_keys(client: &mut Client, number: i64) {
    client
        .batch_execute(&format!(
            "SET keywright.notify = off;
             INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list, lifetime, created_at)
             SELECT 'dead' || lpad(n::text, 6, '0'), user_id, 'dead-' || n, sha256('x'), clock_timestamp() - interval '30 days',
                    '{{all}}', '{{*:*}}', '1 day', clock_timestamp() - interval '31 days'
               FROM keywright.users, generate_series(1, {number}) AS n WHERE username = 'ada';
             ANALYZE keywright.api_keys"
        ))
        .unwrap();
}

fn dead(client: &mut Client) -> i64 {
    one(client, "SELECT count(*) FROM keywright.api_keys WHERE expires_at < clock_timestamp()")
}

fn code(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => "00000".into(),
        // The client may see that the connection has ended before it reads why.
        Err(error) if error.is_closed() => "57P01".into(),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).code().code().into(),
    }
}

#[test]
fn a_purge_shows_how_far_it_is_and_can_be_interrupted_anywhere() {
    let (database, role) = database("interrupted");
    let mut admin = database.connect();
    dead_keys(&mut admin, DEAD);
    let live: String =
        one(&mut admin, "SELECT token FROM keywright.mint_api_key('ada', 'live', lifetime => '1 day')");
    let edge: String = one(&mut admin, "SELECT token FROM keywright.mint_gateway_key('edge')");
    let just_dead =
        "SELECT count(keywright.expire_api_key(key_id)) FROM keywright.mint_api_key('ada', 'yesterday')";
    assert_eq!(one::<i64>(&mut admin, just_dead), 1);

    // Cancelled, then terminated: each in the middle, after other sessions have seen some of it done.
    for (end, sqlstate, floor) in
        [("pg_cancel_backend", "57014", DEAD * 3 / 4), ("pg_terminate_backend", "57P01", DEAD / 2)]
    {
        let mut caller = night(&database, &role);
        let pid: i32 = one(&mut caller, "SELECT pg_backend_pid()");
        let before = dead(&mut admin);
        let call = thread::spawn(move || {
            let ended = code(&mut caller, &format!("CALL keywright.maintain(batch => {BATCH})"));
            (ended, caller)
        });
        let progress = format!(
            "SELECT coalesce(substring(application_name FROM '^keywright.maintain: ([0-9]+) API keys purged$')::bigint, -1)
               FROM pg_stat_activity WHERE pid = {pid}"
        );
        let (mut told, mut left) = (Vec::new(), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            told.push(one::<i64>(&mut admin, &progress));
            left.push(dead(&mut admin));
            if left[left.len() - 1] < floor {
                break;
            }
            assert!(Instant::now() < deadline, "{told:?} {left:?}");
        }
        admin.execute(&format!("SELECT {end}($1)"), &[&pid]).unwrap();
        let (ended, mut caller) = call.join().unwrap();
        assert_eq!(ended, sqlstate);
        // The count falls while it runs, and what it tells is what had been committed by then.
        assert!(left.windows(2).all(|pair| pair[1] <= pair[0]), "{left:?}");
        assert!(told.iter().any(|told| *told > 0), "{told:?}");
        for (told, left) in told.iter().zip(&left).filter(|(told, _)| **told >= 0) {
            assert!(told % BATCH == 0 && *told <= before - left, "told {told}, purged {}", before - left);
        }
        // Whole batches stay, and nothing half done.
        let left = dead(&mut admin);
        assert!(left > 1 && left < floor, "{left}");
        assert_eq!((left - 1) % BATCH, 0, "{left} left");
        if end == "pg_cancel_backend" {
            let name = format!("SELECT application_name FROM pg_stat_activity WHERE pid = {pid}");
            assert_eq!(one::<String>(&mut admin, &name), "night");
            assert_eq!(one::<String>(&mut caller, "SHOW application_name"), "night");
        }
    }

    let mut caller = night(&database, &role);
    caller.batch_execute("CALL keywright.maintain()").unwrap();
    assert_eq!(one::<String>(&mut caller, "SHOW application_name"), "night");
    // All but the one that has not been dead for long; the living are as they were.
    assert_eq!(dead(&mut admin), 1);
    assert_eq!(one::<i64>(&mut admin, "SELECT count(*) FROM keywright.api_keys"), 2);
    assert!(is_active(&mut admin, &live) && is_active(&mut admin, &edge));
    // All of them noted, under the role that called.
    let events = format!(
        "SELECT sum(affected)::bigint FROM keywright.audit_events WHERE event = 'purged' AND role_name = '{role}'"
    );
    assert_eq!(one::<i64>(&mut admin, &events), DEAD);
    // Called in a transaction it can not commit, and does nothing.
    assert_eq!(code(&mut caller, "BEGIN; CALL keywright.maintain('0')"), "2D000");
    caller.batch_execute("ROLLBACK").unwrap();
    assert_eq!(dead(&mut admin), 1);
    assert_eq!(one::<String>(&mut caller, "SHOW application_name"), "night");
}

#[test]
fn two_at_once_share_the_work() {
    let (database, role) = database("at_once");
    let mut admin = database.connect();
    dead_keys(&mut admin, 5_000);
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let mut caller = night(&database, &role);
            thread::spawn(move || code(&mut caller, "CALL keywright.maintain(batch => 50)"))
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), "00000");
    }
    // Each may have ended while another held the last of them, so once more.
    night(&database, &role).batch_execute("CALL keywright.maintain()").unwrap();
    assert_eq!(dead(&mut admin), 0);
}

#[test]
fn old_audit_events_go_and_nobody_but_a_superuser_says_what_is_old() {
    let (database, role) = database("retention");
    let mut admin = database.connect();
    let boss = "keywright_test_boss_retention";
    admin
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {boss}; CREATE ROLE {boss} LOGIN; SELECT keywright.grant_access('{boss}', 'admin');
             INSERT INTO keywright.audit_events (occurred_at, event, kind, id, by_hand, session_user_name, role_name)
             SELECT clock_timestamp() - days * interval '1 day', 'created', 'user', days || '-' || n, false, 'x', 'x'
               FROM unnest(ARRAY[400, 100, 20]) AS days, generate_series(1, 2500) AS n"
        ))
        .unwrap();
    let ages = |client: &mut Client| -> Vec<(i64, i64)> {
        [400, 100, 20]
            .map(|days| {
                (
                    days,
                    one(
                        client,
                        &format!("SELECT count(*) FROM keywright.audit_events WHERE id LIKE '{days}-%'"),
                    ),
                )
            })
            .to_vec()
    };
    // Neither in the session, nor for itself or the database. Until the library is loaded Postgres knows no better than to
    // let anyone set it: then it counts for nothing, and nothing is pruned.
    let mut admins = database.connect_as(boss, "");
    admins.batch_execute("SELECT keywright.metrics()").unwrap();
    for sql in [
        "SET keywright.audit_retention = 1".to_owned(),
        "SET LOCAL keywright.audit_retention = 1".to_owned(),
        "SELECT set_config('keywright.audit_retention', '1', false)".to_owned(),
        format!("ALTER ROLE {boss} SET keywright.audit_retention = 1"),
        format!("ALTER DATABASE {} SET keywright.audit_retention = 1", database.name),
    ] {
        assert_eq!(code(&mut admins, &sql), "42501", "{sql}");
    }
    // Retention is of keys, and shortens no memory.
    admins.batch_execute("CALL keywright.maintain('0', 1000)").unwrap();
    assert_eq!(ages(&mut admin), [(400, 0), (100, 2500), (20, 2500)]);
    let mut early = database.connect_as(boss, "");
    early.batch_execute("SET keywright.audit_retention = 1").unwrap();
    for client in [&mut early, &mut database.connect_as(boss, "-c keywright.audit_retention=1")] {
        assert_eq!(code(client, "CALL keywright.maintain('0')"), "42501");
    }
    assert_eq!(ages(&mut admin), [(400, 0), (100, 2500), (20, 2500)]);
    // The superuser's word counts, for the maintainer too.
    admin
        .batch_execute(&format!("ALTER DATABASE {} SET keywright.audit_retention = 90", database.name))
        .unwrap();
    night(&database, &role).batch_execute("CALL keywright.maintain(batch => 1000)").unwrap();
    assert_eq!(ages(&mut admin), [(400, 0), (100, 0), (20, 2500)]);
    // What was pruned is itself noted.
    let noted = "SELECT sum(affected)::bigint FROM keywright.list_audit_events('audit_event') WHERE event = 'deleted'";
    assert_eq!(one::<i64>(&mut admin, noted), 5000);
}

#[test]
fn progress_is_told_while_events_are_pruned() {
    let (database, role) = database("pruning");
    let mut admin = database.connect();
    admin
        .batch_execute(
            "INSERT INTO keywright.audit_events (occurred_at, event, kind, id, by_hand, session_user_name, role_name)
             SELECT clock_timestamp() - interval '2 years', 'created', 'user', n::text, false, 'x', 'x'
               FROM generate_series(1, 3) AS n",
        )
        .unwrap();
    // Held by somebody, an event is left alone; so the last batch is held by a lock on the table.
    let mut holder = database.connect();
    let mut held = holder.transaction().unwrap();
    held.batch_execute("LOCK TABLE keywright.audit_events IN SHARE MODE").unwrap();
    let mut caller = night(&database, &role);
    let call = thread::spawn(move || code(&mut caller, "CALL keywright.maintain(batch => 1)"));
    wait_for(
        &mut admin,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'
            AND application_name = 'keywright.maintain: 0 audit events pruned'",
    );
    held.rollback().unwrap();
    assert_eq!(call.join().unwrap(), "00000");
    assert_eq!(
        one::<i64>(
            &mut admin,
            "SELECT count(*) FROM keywright.audit_events WHERE kind = 'user' AND id ~ '^[0-9]$'"
        ),
        0
    );
}

/// The commands of the file, as cron gives them to the shell.
fn cron_commands() -> Vec<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/jobs/crontab");
    let lines = std::fs::read_to_string(file).unwrap();
    let jobs = lines.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit() || c == '*'));
    jobs.map(|line| line.splitn(6, ' ').nth(5).unwrap().to_owned()).collect()
}

fn sh(command: &str, database: &Database, also: &[(&str, &str)]) -> std::process::Output {
    let path = format!("{}:{}", environment("PG_BINDIR"), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env_clear().env("PATH", path).env("PGHOST", environment("PGHOST"));
    shell.env("PGDATABASE", &database.name).envs(also.iter().copied()).output().unwrap()
}

#[test]
fn the_lines_of_the_crontab_run_as_they_stand() {
    let (database, _) = database("crontab");
    let mut admin = database.connect();
    admin
        .batch_execute(
            "DROP ROLE IF EXISTS keywright_maintainer, keywright_reconciler, keywright_test_cron_app, keywright_test_cron_anon;
             CREATE ROLE keywright_maintainer LOGIN; CREATE ROLE keywright_reconciler LOGIN;
             CREATE ROLE keywright_test_cron_app LOGIN; CREATE ROLE keywright_test_cron_anon;
             SELECT keywright.grant_access('keywright_maintainer', 'maintainer'),
                    keywright.grant_access('keywright_reconciler', 'reconciler');
             SELECT keywright.grant_authenticator('rest', 'keywright_test_cron_app', 'keywright_test_cron_anon');
             ALTER ROLE keywright_test_cron_app INHERIT",
        )
        .unwrap();
    dead_keys(&mut admin, 30);
    let commands = cron_commands();
    assert_eq!(commands.len(), 2);
    let quiet = |command: &str| {
        let output = sh(command, &database, &[]);
        assert!(output.status.success(), "{command}: {output:?}");
        // cron mails what is printed.
        assert!(output.stderr.is_empty(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(quiet(&commands[0]), "");
    assert_eq!(dead(&mut admin), 0);
    assert!(quiet(&commands[1]).contains("set noinherit"));
    assert_eq!(one::<i64>(&mut admin, "SELECT count(*) FROM keywright.authenticator_status()"), 0);
    for command in &commands {
        assert_eq!(quiet(command), "", "nothing to do, nothing to say");
        // cron takes an unescaped percent sign for a line break, and these hold no secret.
        assert!(!command.contains('%') && !command.contains("kwk_"), "{command}");
        // What fails says so, and by its exit status.
        let absent = sh(command, &database, &[("PGDATABASE", "keywright_test_absent")]);
        assert_eq!(
            (absent.status.code(), absent.stderr.is_empty()),
            (Some(2), false),
            "{command}: {absent:?}"
        );
    }
    admin.batch_execute("SELECT keywright.revoke_access('keywright_maintainer', 'maintainer')").unwrap();
    let refused = sh(&commands[0], &database, &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("permission denied"), "{refused:?}");
    succeed(
        program("psql")
            .args(["-X", "-d", &database.name, "-U", "postgres", "-c"])
            .arg("SELECT keywright.revoke_authenticator('rest')"),
    );
}

fn example(name: &str) -> String {
    format!("{}/../examples/metrics/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A database in which every metric has a value.
fn measured(name: &str) -> (Database, String) {
    let (database, role) = database(name);
    let mut admin = database.connect();
    dead_keys(&mut admin, 3);
    admin
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}_app, {role}_anon; CREATE ROLE {role}_app LOGIN; CREATE ROLE {role}_anon;
             SELECT keywright.mint_api_key('ada', 'live');
             SELECT keywright.heartbeat_gateway_key(gateway_key_id) FROM keywright.mint_gateway_key('edge');
             SELECT keywright.grant_authenticator('rest', '{role}_app', '{role}_anon')"
        ))
        .unwrap();
    (database, role)
}

const SERIES: &str = "SELECT string_agg(DISTINCT name, ' ' ORDER BY name) FROM keywright.metrics()";

#[test]
fn the_text_for_the_collector_is_as_prometheus_reads_it() {
    let (database, role) = measured("textfile");
    let mut admin = database.connect();
    let mut psql = program("psql");
    psql.args(["-X", "-q", "-h", &environment("PGHOST"), "-U", &role, "-d", &database.name, "-f"]);
    let text = String::from_utf8(succeed(psql.arg(example("textfile.sql")))).unwrap();
    let mut names = Vec::new();
    let mut series = 0;
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            names.push(typed.strip_suffix(" gauge").unwrap());
            continue;
        }
        series += 1;
        let (key, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
        let name = key.split('{').next().unwrap();
        // A series stands below the line of its type.
        assert_eq!(names.last(), Some(&name), "{line}");
        assert!(name == key || key.ends_with("\"}"), "{line}");
    }
    assert_eq!(names.join(" "), one::<String>(&mut admin, SERIES));
    assert_eq!(series, one::<i64>(&mut admin, "SELECT count(*) FROM keywright.metrics()"));
    assert!(text.contains("\nkeywright_api_keys{state=\"current\"} 4\n"), "{text}");
    assert!(text.contains("\nkeywright_authenticator_differences{service=\"rest\"} 0\n"), "{text}");
    admin.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
}

#[test]
fn the_queries_for_the_exporter_name_every_metric() {
    let (database, role) = measured("queries");
    let mut watcher = night(&database, &role);
    let yaml = std::fs::read_to_string(example("queries.yaml")).unwrap();
    let [mut names, empty] = exporter_metrics(&mut watcher, &yaml);
    // These are told where keywright is in shared_preload_libraries, which tests/usage.rs looks at.
    assert!(
        empty
            .iter()
            .all(|name| name.starts_with("keywright_usage_") || name == "keywright_verifications_total"),
        "{empty:?}"
    );
    names.push("keywright_info".into());
    names.sort();
    assert_eq!(names.join(" "), one::<String>(&mut watcher, SERIES));
    database.connect().batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
}
