//! When keys were used: noted in memory, written by a worker, kept over a shutdown; and how verifications ended.

use keywright_tests::{Cluster, Database, exporter_metrics, one, program, succeed, wait_for};
use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

/// A worker that writes every second, and one that has no reason to write while a test runs.
const SOON: &str = "-c shared_preload_libraries=keywright -c keywright.usage_flush_interval=1s";
const LATE: &str = "-c shared_preload_libraries=keywright -c keywright.usage_flush_interval=1h";

struct Key {
    id: String,
    token: String,
}

impl Key {
    fn new(client: &mut Client, name: &str) -> Key {
        let sql = "SELECT key_id, token FROM keywright.mint_api_key('ada', $1)";
        let row = client.query_one(sql, &[&name]).unwrap();
        Key { id: row.get(0), token: row.get(1) }
    }

    fn wrong(&self) -> String {
        format!("{}-AAAAAAAAAAAAAAAAAAAAAA", self.id)
    }
}

fn create(client: &mut Client) {
    client.batch_execute("CREATE EXTENSION keywright; SELECT keywright.ensure_user('ada', '')").unwrap();
}

fn verify(client: &mut Client, token: &str) -> bool {
    client.query_one("SELECT active FROM keywright.verify_api_key($1)", &[&token]).unwrap().get(0)
}

/// Whether a key was used and presented, by what is told at this moment: u, p or both.
fn told(client: &mut Client, key: &Key) -> String {
    seen(client, key, "keywright.key_usage()")
}

/// The same, by what is written.
fn written(client: &mut Client, key: &Key) -> String {
    seen(client, key, "keywright.api_key_usage")
}

fn seen(client: &mut Client, key: &Key, of: &str) -> String {
    let sql = format!(
        "SELECT concat(CASE WHEN last_used_at > now() - interval '1 hour' THEN 'u' END,
                       CASE WHEN last_presented_at > now() - interval '1 hour' THEN 'p' END) FROM {of} WHERE key_id = $1"
    );
    client.query_opt(&sql, &[&key.id]).unwrap().map_or(String::new(), |row| row.get(0))
}

fn metric(client: &mut Client, name: &str, labels: &str) -> f64 {
    let sql = "SELECT max(value) FROM keywright.metrics() WHERE name = 'keywright_' || $1 AND labels @> $2::text::jsonb";
    client.query_one(sql, &[&name, &labels]).unwrap().get::<_, Option<f64>>(0).unwrap_or(-1.0)
}

/// All verifications, as kind:outcome=number where there were any.
fn verifications(client: &mut Client) -> String {
    one::<Option<String>>(
        client,
        "SELECT string_agg(labels ->> 'kind' || ':' || (labels ->> 'outcome') || '=' || value, ' ' ORDER BY labels)
           FROM keywright.metrics() WHERE name = 'keywright_verifications_total' AND value > 0",
    )
    .unwrap_or_default()
}

/// Waits until what was noted in this database is in the table.
fn flushed(client: &mut Client) {
    wait_for(
        client,
        "SELECT value = 0 FROM keywright.metrics() WHERE name = 'keywright_usage_slots' AND labels ->> 'state' = 'dirty'",
    );
}

#[test]
fn used_and_presented_are_noted_apart_and_written_forward_only() {
    let cluster = Cluster::new(5481, SOON);
    let mut client = cluster.connect("postgres");
    create(&mut client);
    let keys = ["good", "tried", "revoked", "expired", "idle", "of-the-past", "ahead"]
        .map(|name| Key::new(&mut client, name));
    let [good, tried, revoked, expired, idle, past, ahead] = &keys;
    client.execute("SELECT keywright.revoke_api_key($1)", &[&revoked.id]).unwrap();
    client.execute("SELECT keywright.expire_api_key($1)", &[&expired.id]).unwrap();
    assert!(verify(&mut client, &good.token));
    for token in [&tried.wrong(), &revoked.token, &expired.token] {
        assert!(!verify(&mut client, token));
    }
    // Told at once, in another session too, and then written as it was told.
    let mut other = cluster.connect("postgres");
    for _ in 0..2 {
        for (key, expected) in [(good, "up"), (tried, "p"), (revoked, "p"), (expired, "p"), (idle, "")] {
            assert_eq!(told(&mut other, key), expected, "{}", key.id);
        }
        let since = Instant::now();
        flushed(&mut other);
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
    for (key, expected) in [(good, "up"), (tried, "p"), (revoked, "p"), (expired, "p"), (idle, "")] {
        assert_eq!(written(&mut other, key), expected, "{}", key.id);
    }
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM keywright.key_usage() AS k JOIN keywright.api_key_usage AS u USING (key_id)
                                  WHERE (k.last_used_at, k.last_presented_at) IS NOT DISTINCT FROM (u.last_used_at, u.last_presented_at)"),
        4
    );

    // Forward only: what another one wrote later stays, and what it wrote earlier is overtaken.
    client
        .execute(
            "INSERT INTO keywright.api_key_usage VALUES ($1, '2100-01-01', '2100-01-01'), ($2, '2001-01-01', '2100-01-01'), ($3, '2100-01-01', '2001-01-01')",
            &[&idle.id, &past.id, &ahead.id],
        )
        .unwrap();
    for key in [idle, past, ahead] {
        assert!(verify(&mut client, &key.token));
    }
    let mut row = |key: &Key| -> String {
        let sql = "SELECT extract(year FROM last_used_at) || ' ' || extract(year FROM last_presented_at) FROM keywright.api_key_usage WHERE key_id = $1";
        flushed(&mut other);
        other.query_one(sql, &[&key.id]).unwrap().get(0)
    };
    assert_eq!(row(idle), "2100 2100");
    let this_year: String = one(&mut client, "SELECT extract(year FROM now())::text");
    assert_eq!(row(past), format!("{this_year} 2100"));
    assert_eq!(row(ahead), format!("2100 {this_year}"));

    // An update stays on its page and touches no index.
    for _ in 0..3 {
        assert!(verify(&mut client, &good.token) && !verify(&mut client, &tried.wrong()));
        flushed(&mut other);
    }
    let updates = "SELECT n_tup_upd >= 6 AND n_tup_hot_upd = n_tup_upd FROM pg_stat_user_tables WHERE relname = 'api_key_usage'";
    wait_for(&mut client, updates);
    // Who writes is gone when it has written.
    wait_for(
        &mut client,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'keywright usage flush'",
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'keywright usage launcher' AND datid IS NULL"
        ),
        1
    );
    assert!(
        metric(&mut client, "usage_last_flush_timestamp_seconds", "{}")
            > one::<f64>(&mut client, "SELECT extract(epoch FROM now() - interval '5 s')::float8")
    );

    // Both examples for Prometheus have them all.
    let [_, empty] = exporter_metrics(&mut client, include_str!("../examples/metrics/queries.yaml"));
    assert!(empty.iter().all(|name| !name.contains("usage") && !name.contains("verifications")), "{empty:?}");
    let textfile = cluster.file("textfile.sql");
    std::fs::write(&textfile, include_str!("../examples/metrics/textfile.sql")).unwrap();
    let mut psql = program("psql");
    psql.args(["-X", "-q", "-d", &cluster.conninfo("postgres"), "-f"]);
    let text = String::from_utf8(succeed(psql.arg(textfile))).unwrap();
    for name in ["verifications_total", "usage_dropped_total"] {
        assert!(text.contains(&format!("# TYPE keywright_{name} counter\nkeywright_{name}")), "{text}");
    }
    assert!(text.contains("# TYPE keywright_usage_slots gauge\n"), "{text}");

    // The size is fixed: 8 MB.
    let size: i64 =
        one(&mut client, "SELECT allocated_size FROM pg_shmem_allocations WHERE name = 'keywright usage'");
    assert!((7 << 20..=8 << 20).contains(&size), "{size}");
    assert_eq!(
        one::<f64>(
            &mut client,
            "SELECT sum(value) FROM keywright.metrics() WHERE name = 'keywright_usage_slots'"
        ),
        250_000.0
    );
    assert_eq!(metric(&mut client, "usage_dropped_total", "{}"), 0.0);
}

#[test]
fn what_can_not_be_written_yet_is_written_later() {
    const ROUNDS: Duration = Duration::from_millis(2_500);
    let dirty = r#"{"state": "dirty"}"#;
    let cluster = Cluster::new(5489, SOON);
    let [mut client, mut other] = [0; 2].map(|_| cluster.connect("postgres"));
    create(&mut client);
    // A key of a transaction that has yet to commit.
    client.batch_execute("BEGIN").unwrap();
    let key = Key::new(&mut client, "young");
    assert!(verify(&mut client, &key.token));
    thread::sleep(ROUNDS);
    assert_eq!(metric(&mut other, "usage_slots", dirty), 1.0);
    client.batch_execute("COMMIT").unwrap();
    flushed(&mut other);
    assert_eq!(written(&mut other, &key), "up");
    // The table is locked: nobody waits for it but the worker, and that not for long.
    client.batch_execute("BEGIN; LOCK TABLE keywright.api_key_usage IN ACCESS EXCLUSIVE MODE").unwrap();
    other.batch_execute("SET statement_timeout = '1s'").unwrap();
    assert!(verify(&mut other, &key.token));
    thread::sleep(ROUNDS);
    assert_eq!(metric(&mut other, "usage_slots", dirty), 1.0);
    assert!(cluster.log().contains("canceling statement due to lock timeout"));
    client.batch_execute("COMMIT").unwrap();
    flushed(&mut other);
    // A key that is used while the worker writes is written once more.
    client.batch_execute("BEGIN; LOCK TABLE keywright.api_key_usage IN SHARE ROW EXCLUSIVE MODE").unwrap();
    assert!(verify(&mut other, &key.token));
    wait_for(
        &mut other,
        "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND relation = 'keywright.api_key_usage'::regclass",
    );
    assert!(verify(&mut other, &key.token));
    client.batch_execute("COMMIT").unwrap();
    flushed(&mut other);
    let alike = "SELECT k.last_used_at = u.last_used_at FROM keywright.key_usage() AS k JOIN keywright.api_key_usage AS u USING (key_id)";
    assert!(one::<bool>(&mut other, alike));
    // No worker can be had.
    let workers: i64 = one(
        &mut client,
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'launcher' AND backend_type !~ 'autovacuum'",
    );
    drop((client, other));
    cluster.stop("fast");
    let few = Cluster::again(&cluster, &format!("{SOON} -c max_worker_processes={workers}"));
    let mut client = few.connect("postgres");
    assert!(verify(&mut client, &key.token));
    thread::sleep(ROUNDS);
    assert_eq!(metric(&mut client, "usage_slots", dirty), 1.0);
    assert_eq!(told(&mut client, &key), "up");
}

#[test]
fn as_many_as_the_memory_is_for() {
    const KEYS: i64 = 200_000;
    let cluster = Cluster::new(5490, LATE);
    let mut client = cluster.connect("postgres");
    create(&mut client);
    client
        .batch_execute(&format!(
            "SET keywright.notify = off;
             INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list, lifetime, created_at)
             SELECT lpad(n::text, 10, '0'), user_id, 'k-' || n, sha256('x'), clock_timestamp() + interval '1 day',
                    '{{all}}', '{{*:*}}', '1 day', clock_timestamp()
               FROM keywright.users, generate_series(1, {KEYS}) AS n;
             ANALYZE keywright.api_keys"
        ))
        .unwrap();
    let verified = format!(
        "SELECT count(*) FROM generate_series(1, {KEYS}) AS n, LATERAL keywright.verify_api_key_digest(lpad(n::text, 10, '0'), sha256('x')) AS v WHERE v.active"
    );
    assert_eq!(one::<i64>(&mut client, &verified), KEYS);
    // All of them in one interval, and none dropped.
    assert_eq!(metric(&mut client, "usage_slots", r#"{"state": "dirty"}"#), KEYS as f64);
    assert_eq!(metric(&mut client, "usage_dropped_total", "{}"), 0.0);
    // Nor over a shutdown, nor on the way into the table.
    cluster.stop("fast");
    cluster.start();
    let since = Instant::now();
    let mut client = cluster.connect("postgres");
    flushed(&mut client);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert_eq!(one::<i64>(&mut client, "SELECT count(last_used_at) FROM keywright.api_key_usage"), KEYS);
}

#[test]
fn verifications_are_counted_by_outcome_and_database() {
    let cluster = Cluster::new(5482, LATE);
    for name in ["one", "other"] {
        cluster.connect("postgres").batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    }
    let [mut client, mut other] = ["one", "other"].map(|name| cluster.connect(name));
    create(&mut client);
    create(&mut other);
    assert_eq!(verifications(&mut client), "");
    let series = "SELECT count(*) FROM keywright.metrics() WHERE name = 'keywright_verifications_total'";
    assert_eq!(one::<i64>(&mut client, series), 12);
    let [good, revoked, expired] = ["good", "revoked", "expired"].map(|name| Key::new(&mut client, name));
    client.execute("SELECT keywright.revoke_api_key($1)", &[&revoked.id]).unwrap();
    client.execute("SELECT keywright.expire_api_key($1)", &[&expired.id]).unwrap();
    client.batch_execute("SELECT keywright.ensure_user('bob', '')").unwrap();
    let bobs: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('bob', 'x')");
    client.batch_execute("SELECT keywright.suspend_user('bob')").unwrap();
    let gateway = |name: &str| format!("SELECT token FROM keywright.mint_gateway_key('{name}')");
    let [edge, gone] = ["edge", "gone"].map(|name| one::<String>(&mut client, &gateway(name)));
    let old: String = one(&mut client, &gateway("old"));
    client
        .batch_execute(
            "SELECT keywright.rotate_gateway_key('old'); SELECT keywright.delete_gateway_key('gone')",
        )
        .unwrap();

    let unknown = "AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAA";
    for (times, token) in [
        (1, &*good.token),
        (2, "junk"),
        (3, unknown),
        (4, &good.wrong()),
        (5, &revoked.token),
        (6, &expired.token),
        (7, &bobs),
    ] {
        for _ in 0..times {
            verify(&mut client, token);
        }
    }
    let all = "api_key:active=1 api_key:expired=6 api_key:malformed=2 api_key:revoked=5 api_key:unknown=3 \
               api_key:user-inactive=7 api_key:wrong-secret=4";
    assert_eq!(verifications(&mut client), all);
    // With a wrong secret it is a wrong secret, however the key stands.
    verify(&mut client, &revoked.wrong());
    verify(&mut client, &expired.wrong());
    client
        .query(
            "SELECT keywright.verify_gateway_key(t) FROM unnest($1::text[]) AS t",
            &[&vec![&edge, &gone, &old, &good.token]],
        )
        .unwrap();
    // Every way to verify counts, and one that counts in vain is none: look-ups of row security.
    let calls = [
        "SELECT * FROM keywright.verify_api_keys(ARRAY[$1, 'junk', NULL])",
        "SELECT * FROM keywright.verify_api_key_digest(left(right($1, 39), 10), sha256(convert_to(substr($1, 16, 22), 'UTF8')))",
        "SELECT * FROM keywright.verify_api_key_digest($1, '')",
        "SELECT * FROM keywright.authenticate_api_key($1)",
        "SELECT * FROM keywright.authorize_api_key($1, 'user:read')",
        "SELECT * FROM keywright.begin_request($1)",
        "SELECT keywright.is_permitted('user:read') FROM generate_series(1, 10) WHERE $1::text <> ''",
    ];
    for call in calls {
        // The user holds no role, so that one is refused, after the key was accepted.
        let result = client.query(call, &[&good.token]);
        assert_eq!(result.is_err(), call.contains("authorize"), "{call}");
    }
    assert_eq!(
        verifications(&mut client),
        "api_key:active=6 api_key:expired=6 api_key:malformed=5 api_key:revoked=5 api_key:unknown=3 api_key:user-inactive=7 \
         api_key:wrong-secret=6 gateway_key:active=1 gateway_key:expired=1 gateway_key:malformed=1 gateway_key:unknown=1"
    );
    // The other database has its own, and does not see the keys of this one.
    assert_eq!(verifications(&mut other), "");
    verify(&mut other, &good.token);
    assert_eq!(verifications(&mut other), "api_key:unknown=1");
    assert_eq!(one::<i64>(&mut other, "SELECT count(*) FROM keywright.key_usage()"), 0);

    // Switched off: neither usage nor counters.
    let before = verifications(&mut client);
    let fresh = Key::new(&mut client, "fresh");
    client.batch_execute("SET keywright.track_usage = off").unwrap();
    assert!(verify(&mut client, &fresh.token) && !verify(&mut client, "junk"));
    assert_eq!(told(&mut client, &fresh), "");
    assert_eq!(verifications(&mut client), before);
    client.batch_execute("RESET keywright.track_usage").unwrap();
    assert!(verify(&mut client, &fresh.token));
    assert_eq!(told(&mut client, &fresh), "up");
    // Ids that do not exist take no place: four keys and bob's are there.
    assert_eq!(metric(&mut client, "usage_slots", r#"{"state": "dirty"}"#), 5.0);
}

#[test]
fn a_shutdown_keeps_what_is_noted_and_a_crash_loses_only_that() {
    let cluster = Cluster::new(5483, LATE);
    let file = cluster.file("pg_stat/keywright_usage.stat");
    let mut client = cluster.connect("postgres");
    create(&mut client);
    let [kept, lost, touched] = ["kept", "lost", "touched"].map(|name| Key::new(&mut client, name));
    assert!(verify(&mut client, &kept.token));
    let before: String = one(&mut client, "SELECT string_agg(u::text, ' ') FROM keywright.key_usage() AS u");

    // Noted in memory: nothing is written, in transactions that may not write.
    client.batch_execute("VACUUM (FREEZE, ANALYZE)").unwrap();
    let calls = [
        format!("SELECT keywright.verify_api_key('{}')", kept.token),
        format!("SELECT keywright.authenticate_api_key('{}')", kept.token),
        format!("SELECT keywright.verify_api_keys('{{{},{},junk}}')", kept.token, kept.wrong()),
        format!("SELECT keywright.begin_request('{}')", kept.token),
    ];
    // Other processes of the server may write too, so the least of some tries counts.
    let wal = (0..20).map(|_| {
        let before: String = one(&mut client, "SELECT pg_current_wal_insert_lsn()::text");
        for call in &calls {
            let mut transaction = client.build_transaction().read_only(true).start().unwrap();
            transaction.batch_execute(call).unwrap();
            let id: Option<String> =
                transaction.query_one("SELECT pg_current_xact_id_if_assigned()::text", &[]).unwrap().get(0);
            assert_eq!(id, None, "{call}");
            transaction.commit().unwrap();
        }
        one::<i64>(&mut client, &format!("SELECT (pg_current_wal_insert_lsn() - '{before}')::bigint"))
    });
    assert_eq!(wal.min(), Some(0));
    assert_ne!(
        one::<String>(&mut client, "SELECT string_agg(u::text, ' ') FROM keywright.key_usage() AS u"),
        before
    );
    // So is what a caller touches.
    let touch = |client: &mut Client, key: &Key| -> bool {
        client.query_one("SELECT keywright.touch_api_key($1)", &[&key.id]).unwrap().get(0)
    };
    assert!(touch(&mut client, &touched));
    assert_eq!(told(&mut client, &touched), "up");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.api_key_usage"), 0);
    let noted: String = one(&mut client, "SELECT string_agg(u::text, ' ') FROM keywright.key_usage() AS u");

    cluster.stop("fast");
    assert!(file.exists());
    // A start that fails costs nothing.
    let rules = cluster.file("pg_hba.conf");
    let right = std::fs::read(&rules).unwrap();
    std::fs::write(&rules, "nonsense\n").unwrap();
    assert!(!cluster.try_start());
    std::fs::write(&rules, right).unwrap();
    cluster.start();
    let mut client = cluster.connect("postgres");
    assert_eq!(
        one::<String>(&mut client, "SELECT string_agg(u::text, ' ') FROM keywright.key_usage() AS u"),
        noted
    );
    // A server that starts writes at once what the last one kept.
    flushed(&mut client);
    assert_eq!(self::written(&mut client, &kept), "up");

    // A crash: what was written stays, what was not is lost, and the key lives.
    assert!(verify(&mut client, &lost.token));
    cluster.crash();
    let mut client = cluster.connect("postgres");
    assert_eq!((&*told(&mut client, &kept), &*told(&mut client, &lost)), ("up", ""));
    assert!(verify(&mut client, &lost.token));
    assert_eq!(told(&mut client, &lost), "up");

    // A backend that dies takes the memory with it, and the server makes it anew.
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    succeed(std::process::Command::new("kill").args(["-9", &pid.to_string()]));
    let mut client = reconnect(&cluster);
    assert_eq!((&*told(&mut client, &kept), &*told(&mut client, &lost)), ("up", ""));
    assert!(verify(&mut client, &lost.token));
    assert_eq!(told(&mut client, &lost), "up");
    wait_for(
        &mut client,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'keywright usage launcher'",
    );

    // A file that is damaged is told and left out.
    cluster.stop("fast");
    let mut bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{error}: {}", cluster.log()));
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    cluster.start();
    let mut client = cluster.connect("postgres");
    assert_eq!(told(&mut client, &lost), "");
    assert!(cluster.log().contains("keywright ignores pg_stat/keywright_usage.stat: it is damaged"));
}

/// The owner of a database can hold a lock on it for ever, and set what they like for whoever connects to it.
#[test]
fn the_owner_of_a_database_holds_up_neither_another_nor_a_stop() {
    let settings = "-c shared_preload_libraries=keywright -c max_prepared_transactions=2";
    let cluster = Cluster::new(5495, settings);
    let mut client = cluster.connect("postgres");
    let interval = |client: &mut Client, to: &str| {
        client.batch_execute(&format!("ALTER SYSTEM SET keywright.usage_flush_interval = '{to}'")).unwrap();
        client.batch_execute("SELECT pg_reload_conf()").unwrap();
    };
    interval(&mut client, "1h");
    wait_for(
        &mut client,
        "SELECT setting::int > 3000 FROM pg_settings WHERE name = 'keywright.usage_flush_interval'",
    );
    client.batch_execute("CREATE ROLE owner LOGIN").unwrap();
    for name in ["locked", "hurried"] {
        client.batch_execute(&format!("CREATE DATABASE {name} OWNER owner")).unwrap();
    }
    let noted = |database: &str| {
        let mut client = cluster.connect(database);
        create(&mut client);
        let key = Key::new(&mut client, "key");
        assert!(verify(&mut client, &key.token));
        key
    };
    let [here, locked, hurried] = ["postgres", "locked", "hurried"].map(noted);
    for timeout in
        ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"]
    {
        // The last one there is from 17 on.
        let is_known =
            one::<bool>(&mut client, &format!("SELECT current_setting('{timeout}', true) IS NOT NULL"));
        if is_known {
            client.batch_execute(&format!("ALTER DATABASE hurried SET {timeout} = '1ms'")).unwrap();
        }
    }
    client.batch_execute("ALTER DATABASE hurried SET default_transaction_read_only = on").unwrap();
    client
        .batch_execute("BEGIN; ALTER DATABASE locked RENAME TO renamed; PREPARE TRANSACTION 'lock'")
        .unwrap();

    interval(&mut client, "1s");
    wait_for(&mut client, "SELECT count(*) = 1 FROM keywright.api_key_usage");
    assert_eq!(written(&mut client, &here), "up");
    let patient = "-c statement_timeout=0 -c lock_timeout=0 -c transaction_timeout=0";
    let patient = match one::<i32>(&mut client, "SELECT current_setting('server_version_num')::int") {
        ..170_000 => patient.rsplit_once(" -c").unwrap().0,
        _ => patient,
    };
    let conninfo = format!("{} options='{patient}'", cluster.conninfo("hurried"));
    let mut client = Client::connect(&conninfo, postgres::NoTls).unwrap();
    wait_for(&mut client, "SELECT count(*) = 1 FROM keywright.api_key_usage");
    assert_eq!(written(&mut client, &hurried), "up");

    cluster.stop("fast");
    cluster.start();
    let mut client = cluster.connect("postgres");
    client.batch_execute("ROLLBACK PREPARED 'lock'").unwrap();
    let mut client = cluster.connect("locked");
    wait_for(&mut client, "SELECT count(*) = 1 FROM keywright.api_key_usage");
    assert_eq!(written(&mut client, &locked), "up");
}

/// The launcher is told to end while its worker waits.
#[test]
fn a_stop_that_comes_while_the_worker_waits_is_a_stop() {
    let cluster = Cluster::new(5496, &format!("{LATE} -c max_prepared_transactions=2"));
    let mut client = cluster.connect("postgres");
    create(&mut client);
    let key = Key::new(&mut client, "key");
    assert!(verify(&mut client, &key.token));
    client.batch_execute("BEGIN; LOCK TABLE keywright.api_key_usage; PREPARE TRANSACTION 'lock'").unwrap();
    const WAITS: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'keywright usage flush' AND wait_event_type = 'Lock'";
    // What was kept is written at once when the server starts. It waits for a second.
    let met = (0..20).any(|_| {
        cluster.stop("fast");
        cluster.start();
        let mut client = cluster.connect("postgres");
        (0..20).any(|_| {
            thread::sleep(Duration::from_millis(20));
            one(&mut client, WAITS)
        })
    });
    assert!(met, "the worker is never seen to wait");
    cluster.stop("fast");
    cluster.start();
    let mut client = cluster.connect("postgres");
    client.batch_execute("ROLLBACK PREPARED 'lock'").unwrap();
    cluster.stop("fast");
    cluster.start();
    let mut client = cluster.connect("postgres");
    flushed(&mut client);
    assert_eq!(written(&mut client, &key), "up");
}

/// A server that begins anew takes a moment.
fn reconnect(cluster: &Cluster) -> Client {
    for _ in 0..200 {
        thread::sleep(Duration::from_millis(50));
        if let Ok(mut client) = cluster.try_connect("postgres")
            && client.batch_execute("SELECT 1").is_ok()
        {
            return client;
        }
    }
    panic!("the server does not come back: {}", cluster.log());
}

#[test]
fn many_clients_on_one_key() {
    const CLIENTS: usize = 8;
    let cluster = Cluster::new(5484, SOON);
    let mut client = cluster.connect("postgres");
    create(&mut client);
    let key = Key::new(&mut client, "shared");
    assert!(verify(&mut client, &key.token));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'keywright usage'";
    let mut waiting = 0;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (cluster, key) = (&cluster, &key);
                scope.spawn(move || {
                    let mut client = cluster.connect("postgres");
                    let call = "SELECT count(*) FROM generate_series(1, 20000) AS n, LATERAL keywright.verify_api_key($1 || left(n::text, 0)) AS v WHERE v.active";
                    client.query_one(call, &[&key.token]).unwrap().get::<_, i64>(0)
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            waiting += one::<i64>(&mut client, waits);
        }
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 20_000);
        }
    });
    // With a lock that each takes for itself there are a hundred. A backend takes one for its first call.
    assert!(waiting < 10, "{waiting}");
    assert_eq!(verifications(&mut client), format!("api_key:active={}", CLIENTS * 20_000 + 1));
    flushed(&mut client);
    assert_eq!(written(&mut client, &key), "up");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.api_key_usage"), 1);
}

#[test]
fn a_full_memory_makes_room_and_says_what_it_lost() {
    let cluster = Cluster::new(5485, &format!("{LATE} -c keywright.usage_slots=64"));
    let mut client = cluster.connect("postgres");
    create(&mut client);
    client
        .batch_execute(
            "CREATE TABLE public.minted AS SELECT n, m.key_id, m.token FROM generate_series(1, 1000) AS n, LATERAL keywright.mint_api_key('ada', 'k-' || n) AS m",
        )
        .unwrap();
    let use_all = "SELECT count(*) FROM public.minted AS m, LATERAL keywright.verify_api_key(m.token) AS v WHERE v.active";
    let known = "SELECT count(*) FROM keywright.key_usage(page_size => 10000) WHERE last_used_at IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, use_all), 1000);
    // At most so many are in memory, and the rest is counted. The worker was woken once and then waits a second.
    let (dirty, clean) = (
        metric(&mut client, "usage_slots", r#"{"state": "dirty"}"#),
        metric(&mut client, "usage_slots", r#"{"state": "clean"}"#),
    );
    let dropped = metric(&mut client, "usage_dropped_total", "{}");
    assert!(dirty + clean <= 64.0 && dropped >= 1000.0 - 64.0 - 64.0 * 3.0, "{dirty} {clean} {dropped}");
    // It is woken although the interval is an hour, and what was not dropped is written.
    flushed(&mut client);
    // One that was dropped while it was written is counted and written.
    let known = one::<i64>(&mut client, known) as f64;
    assert!(known >= 1000.0 - metric(&mut client, "usage_dropped_total", "{}"), "{known}");
    // The last to come are the last to go.
    let last: i64 = one(
        &mut client,
        "SELECT count(*) FROM public.minted AS m JOIN keywright.api_key_usage AS u USING (key_id) WHERE m.n > 984",
    );
    assert_eq!(last, 16);
    // What is written makes room without a loss.
    let before = metric(&mut client, "usage_dropped_total", "{}");
    let some = "SELECT count(*) FROM public.minted AS m, LATERAL keywright.verify_api_key(m.token) AS v WHERE v.active AND m.n <= 20";
    assert_eq!(one::<i64>(&mut client, some), 20);
    assert_eq!(metric(&mut client, "usage_dropped_total", "{}"), before);
}

#[test]
fn a_standby_keeps_it_in_memory_and_writes_it_when_promoted() {
    let primary = Cluster::new(5486, &format!("{SOON} -c wal_level=replica"));
    let mut client = primary.connect("postgres");
    create(&mut client);
    let [here, there] = ["here", "there"].map(|name| Key::new(&mut client, name));
    let standby = Cluster::standby_with(5487, Some(&primary), SOON);
    let mut reader = standby.connect("postgres");
    wait_for(&mut reader, "SELECT pg_is_in_recovery() AND count(*) = 2 FROM keywright.list_api_keys()");
    assert!(verify(&mut client, &here.token) && verify(&mut reader, &there.token));
    flushed(&mut client);
    // Each node tells its own, and the standby what the primary has written.
    wait_for(&mut reader, "SELECT count(*) = 2 FROM keywright.key_usage() WHERE last_used_at IS NOT NULL");
    assert_eq!((&*told(&mut client, &here), &*told(&mut client, &there)), ("up", ""));
    assert_eq!((&*written(&mut reader, &here), &*written(&mut reader, &there)), ("up", ""));
    assert_eq!(metric(&mut reader, "usage_last_flush_timestamp_seconds", "{}"), -1.0);
    assert_eq!(verifications(&mut reader), "api_key:active=1");
    // What is touched there is noted, as what is verified.
    assert!(one::<bool>(&mut reader, &format!("SELECT keywright.touch_api_key('{}')", here.id)));
    // Also over its shutdown.
    standby.stop("fast");
    standby.start();
    let mut reader = standby.connect("postgres");
    assert_eq!(told(&mut reader, &there), "up");
    assert_eq!(written(&mut reader, &there), "");
    reader.batch_execute("SELECT pg_promote()").unwrap();
    wait_for(&mut reader, "SELECT NOT pg_is_in_recovery()");
    flushed(&mut reader);
    assert_eq!(written(&mut reader, &there), "up");
}

#[test]
fn a_database_or_extension_that_is_gone_is_left_alone() {
    let cluster = Cluster::new(5488, LATE);
    let mut admin = cluster.connect("postgres");
    for sql in ["CREATE DATABASE doomed", "CREATE DATABASE bare", "CREATE ROLE mallory LOGIN"] {
        admin.batch_execute(sql).unwrap();
    }
    let mut doomed = cluster.connect("doomed");
    create(&mut doomed);
    let key = Key::new(&mut doomed, "k");
    assert!(verify(&mut doomed, &key.token));
    drop(doomed);
    // What is noted holds nobody up.
    wait_for(&mut admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'doomed'");
    admin.batch_execute("CREATE DATABASE copy TEMPLATE doomed").unwrap();
    admin.batch_execute("DROP DATABASE doomed").unwrap();

    // The extension is dropped, and its name taken by somebody who waits for a superuser.
    let mut bare = cluster.connect("bare");
    create(&mut bare);
    let key = Key::new(&mut bare, "k");
    assert!(verify(&mut bare, &key.token));
    bare.batch_execute(
        "DROP EXTENSION keywright CASCADE; DROP SCHEMA IF EXISTS keywright CASCADE; GRANT CREATE ON DATABASE bare TO mallory;
         SET SESSION AUTHORIZATION mallory; CREATE SCHEMA keywright",
    )
    .unwrap();
    bare.batch_execute(&format!(
        "CREATE TABLE keywright.api_keys (key_id text COLLATE \"C\"); INSERT INTO keywright.api_keys VALUES ('{}');
         CREATE TABLE keywright.api_key_usage (key_id text COLLATE \"C\" PRIMARY KEY, last_used_at timestamptz, last_presented_at timestamptz);
         CREATE FUNCTION keywright.trap() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN ALTER ROLE mallory SUPERUSER; RETURN new; END$$;
         CREATE TRIGGER trap BEFORE INSERT ON keywright.api_key_usage FOR EACH ROW EXECUTE FUNCTION keywright.trap();
         GRANT ALL ON SCHEMA keywright TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA keywright TO PUBLIC",
        key.id
    ))
    .unwrap();
    let mut copy = cluster.connect("copy");
    assert_eq!(metric(&mut copy, "usage_slots", r#"{"state": "dirty"}"#), 2.0);
    // A server that starts writes at once.
    drop((admin, bare, copy));
    cluster.stop("fast");
    cluster.start();
    let mut copy = cluster.connect("copy");
    wait_for(
        &mut copy,
        "SELECT value = 0 FROM keywright.metrics() WHERE name = 'keywright_usage_slots' AND labels ->> 'state' = 'dirty'",
    );
    let mut bare = cluster.connect("bare");
    assert_eq!(one::<i64>(&mut bare, "SELECT count(*) FROM keywright.api_key_usage"), 0);
    assert!(!one::<bool>(&mut bare, "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"));
    assert_eq!(metric(&mut copy, "usage_slots", r#"{"state": "free"}"#), 250_000.0);
    assert!(!cluster.log().contains("ERROR") || !cluster.log().contains("mallory"), "{}", cluster.log());
}

#[test]
fn without_preloading_verification_notes_nothing_and_a_touch_writes_once_a_minute() {
    let database = Database::new("usage");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('ada', '')").unwrap();
    let key = Key::new(&mut client, "k");
    assert!(verify(&mut client, &key.token));
    assert_eq!(told(&mut client, &key), "");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright._usage_metrics()"), 0);
    assert!(client.batch_execute("SHOW keywright.usage_slots").is_err());
    let touch = format!("SELECT keywright.touch_api_key('{}')", key.id);
    // Never blocking: another session is about to write the first row, or holds it.
    let mut holder = database.connect();
    let mut other = database.connect();
    other.batch_execute("SET lock_timeout = '1ms'").unwrap();
    let mut transaction = holder.transaction().unwrap();
    transaction.batch_execute(&touch).unwrap();
    assert!(one::<bool>(&mut other, &touch));
    transaction.commit().unwrap();
    assert_eq!(told(&mut client, &key), "up");
    // Within a minute nothing is written.
    let version = "SELECT ctid::text || xmin FROM keywright.api_key_usage";
    let before: String = one(&mut client, version);
    assert!(one::<bool>(&mut client, &touch));
    let mut read_only = client.build_transaction().read_only(true).start().unwrap();
    read_only.batch_execute(&touch).unwrap();
    read_only.commit().unwrap();
    assert_eq!(one::<String>(&mut client, version), before);
    let age = "UPDATE keywright.api_key_usage SET last_used_at = now() - interval '61 s', last_presented_at = now() - interval '61 s'";
    client.batch_execute(age).unwrap();
    let mut transaction = holder.transaction().unwrap();
    transaction.batch_execute(&touch).unwrap();
    assert!(one::<bool>(&mut other, &touch));
    transaction.commit().unwrap();
    let touched = "SELECT last_used_at > now() - interval '10 s' FROM keywright.api_key_usage";
    assert!(one::<bool>(&mut client, touched));
}
