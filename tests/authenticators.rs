//! Authenticators under concurrency, under timeouts, and beside a customer who grants and revokes as well.

use keywright_tests::{CALLERS, Database, one};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What Postgres has of the roles whose names begin so: memberships, attributes, CONNECT. Version-neutral.
fn catalog(client: &mut Client, prefix: &str, databases: &[&str]) -> Vec<String> {
    const CATALOG: &str = r#"
        SELECT replace(x, $1, '') FROM (
          SELECT format('%s in %s admin=%s inherit=%s set=%s%s', m.member::regrole, m.roleid::regrole, m.admin_option,
                        to_jsonb(m) ->> 'inherit_option', to_jsonb(m) ->> 'set_option',
                        CASE m.grantor::regrole::text WHEN 'keywright_grantor' THEN ' by keywright' ELSE '' END)
            FROM pg_auth_members AS m WHERE m.roleid::regrole::text LIKE $1 || '%'
          UNION ALL
          SELECT format('%s inherit=%s', r.rolname, r.rolinherit) FROM pg_roles AS r WHERE r.rolname LIKE $1 || '%'
          UNION ALL
          SELECT format('%s connects to %s grantable=%s', a.grantee::regrole, d.datname, a.is_grantable)
            FROM pg_database AS d, aclexplode(d.datacl) AS a
           WHERE d.datname = ANY ($2) AND a.grantee::regrole::text LIKE $1 || '%') AS t (x)
         ORDER BY 1"#;
    let rows = client.query(CATALOG, &[&prefix, &databases]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Changes whenever a row of these catalogs is written, as far as roles with these names and this database matter.
fn fingerprint(client: &mut Client, prefix: &str) -> String {
    const FINGERPRINT: &str = r#"
        SELECT md5(string_agg(x, ',' ORDER BY x)) FROM (
          SELECT concat_ws(' ', 'r', xmin, oid) AS x FROM pg_authid WHERE rolname LIKE '%PREFIX%'
          UNION ALL
          SELECT concat_ws(' ', 'm', m.xmin, m.roleid, m.member, m.grantor) FROM pg_auth_members AS m
           WHERE m.roleid::regrole::text LIKE '%PREFIX%'
          UNION ALL
          SELECT e::text FROM pg_db_role_setting AS s, unnest(s.setconfig) AS c, jsonb_array_elements(substr(c, 26)::jsonb -> 'entries') AS e
           WHERE c LIKE 'keywright_ledger.entries=%' AND e::text LIKE '%PREFIX%'
          UNION ALL
          SELECT concat_ws(' ', 'd', d.xmin, d.datacl::text) FROM pg_database AS d WHERE d.datname = current_database()
          UNION ALL
          SELECT concat_ws(' ', 'a', a.xmin, a.service) FROM keywright.authenticators AS a) AS t"#;
    one::<Option<String>>(client, &FINGERPRINT.replace("PREFIX", prefix)).unwrap_or_default()
}

fn drop_roles(client: &mut Client, prefix: &str) {
    let roles =
        client.query("SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '%'", &[&prefix]).unwrap();
    for role in roles {
        let role: String = role.get(0);
        let databases = client
            .query(
                "SELECT d.datname::text FROM pg_database AS d, aclexplode(d.datacl) AS a WHERE a.grantee = $1::text::regrole",
                &[&role],
            )
            .unwrap();
        for database in databases {
            let database: String = database.get(0);
            client.batch_execute(&format!("REVOKE ALL ON DATABASE {database} FROM {role}")).unwrap();
        }
        client.batch_execute(&format!("DROP ROLE {role}")).unwrap();
    }
}

fn version(client: &mut Client) -> i32 {
    one(client, "SELECT current_setting('server_version_num')::integer / 10000")
}

#[test]
fn many_callers_in_two_databases_all_succeed() {
    let databases = [Database::new("callers_one"), Database::new("callers_two")];
    let mut client = databases[0].connect();
    drop_roles(&mut client, "kwc_");
    client
        .batch_execute(
            "CREATE ROLE kwc_app LOGIN; CREATE ROLE kwc_app2 LOGIN; CREATE ROLE kwc_anon; CREATE ROLE kwc_user; CREATE ROLE kwc_other;
             REVOKE CONNECT ON DATABASE keywright_test_callers_one, keywright_test_callers_two FROM PUBLIC",
        )
        .unwrap();
    let ready = Barrier::new(CALLERS + 1);
    let over = AtomicBool::new(false);
    const ROUNDS: usize = 50;
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (ready, databases) = (&ready, &databases);
                scope.spawn(move || {
                    let mut client = databases[number % 2].connect();
                    let mut errors = Vec::new();
                    for round in 0..ROUNDS {
                        ready.wait();
                        // The same service, one of its own, and one that comes and goes.
                        let call = match (number / 2) % 4 {
                            0 => "grant_authenticator('shared', 'kwc_app', 'kwc_anon', '{kwc_user}')"
                                .to_owned(),
                            1 => format!("grant_authenticator('own-{number}', 'kwc_app', 'kwc_anon')"),
                            2 if round % 2 == 0 => {
                                format!("grant_authenticator('own-{number}', 'kwc_app2', 'kwc_user')")
                            }
                            2 => format!("revoke_authenticator('own-{number}')"),
                            _ if round % 3 == 0 => "revoke_authenticator('shared')".to_owned(),
                            _ => "reconcile_authenticators()".to_owned(),
                        };
                        let result = client.batch_execute(&format!("SELECT keywright.{call}"));
                        errors.extend(result.err().map(|error| format!("{call}: {error:?}")));
                    }
                    errors
                })
            })
            .collect();
        // A customer grants and alters the same roles meanwhile.
        let customer = scope.spawn(|| {
            let mut client = databases[0].connect();
            while !over.load(Ordering::Relaxed) {
                for statement in [
                    "GRANT kwc_other TO kwc_app",
                    "ALTER ROLE kwc_app CONNECTION LIMIT 50",
                    "REVOKE kwc_other FROM kwc_app",
                    "GRANT TEMPORARY ON DATABASE keywright_test_callers_one TO kwc_app2",
                    "REVOKE TEMPORARY ON DATABASE keywright_test_callers_one FROM kwc_app2",
                ] {
                    // Postgres itself may answer this to who alters the same role at once.
                    if let Err(error) = client.batch_execute(statement) {
                        let message = error.as_db_error().unwrap().message();
                        assert!(message.starts_with("tuple concurrently "), "{statement}: {message}");
                    }
                }
            }
        });
        for _ in 0..ROUNDS {
            ready.wait();
        }
        let errors: Vec<String> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        customer.join().unwrap();
        assert!(errors.is_empty(), "{errors:?}");
    });
    for database in &databases {
        let mut client = database.connect();
        client.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.authenticator_status()"), 0);
        client
            .batch_execute(
                "SELECT keywright.revoke_authenticator(service) FROM keywright.list_authenticators()",
            )
            .unwrap();
    }
    let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    let left = catalog(&mut client, "kwc_", &names);
    assert_eq!(
        left,
        ["anon inherit=t", "app inherit=t", "app2 inherit=t", "other inherit=t", "user inherit=t"]
    );
    drop_roles(&mut client, "kwc_");
}

#[test]
fn a_move_leaves_no_instant_in_which_a_request_fails() {
    let database = Database::new("move");
    let mut client = database.connect();
    drop_roles(&mut client, "kwm_");
    client
        .batch_execute(
            "CREATE ROLE kwm_app LOGIN; CREATE ROLE kwm_app2 LOGIN; CREATE ROLE kwm_a; CREATE ROLE kwm_b",
        )
        .unwrap();
    client.batch_execute("SELECT keywright.grant_authenticator('rest', 'kwm_app', 'kwm_a')").unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // One authenticator, whose anonymous role moves; and a service that moves altogether. What is asked second was there
        // before what is asked first was taken away.
        let requests = scope.spawn(|| {
            let mut sessions = ["kwm_app", "kwm_app2"].map(|role| database.connect_as(role, ""));
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                let mut try_all = || {
                    sessions.iter_mut().any(|session| {
                        ["kwm_a", "kwm_b"].iter().any(|role| {
                            session
                                .batch_execute(&format!("BEGIN; SET LOCAL ROLE {role}; SELECT 1; COMMIT"))
                                .is_ok()
                                || session.batch_execute("ROLLBACK").is_err()
                        })
                    })
                };
                // Twice, because a move may come between the first answer and the second.
                assert!(try_all() || try_all(), "no role can be switched to");
                asked += 1;
            }
            asked
        });
        for round in 0..60 {
            let (login, role) =
                [("kwm_app", "kwm_b"), ("kwm_app2", "kwm_a"), ("kwm_app2", "kwm_b"), ("kwm_app", "kwm_a")]
                    [round % 4];
            client
                .batch_execute(&format!("SELECT keywright.grant_authenticator('rest', '{login}', '{role}')"))
                .unwrap();
        }
        over.store(true, Ordering::Relaxed);
        assert!(requests.join().unwrap() > 60);
    });
    client.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
    drop_roles(&mut client, "kwm_");
}

#[test]
fn a_failure_in_the_middle_changes_nothing_and_names_the_step() {
    let database = Database::new("middle");
    let mut client = database.connect();
    drop_roles(&mut client, "kwh_");
    client
        .batch_execute(
            "CREATE ROLE kwh_app LOGIN; CREATE ROLE kwh_app2 LOGIN; CREATE ROLE kwh_a; CREATE ROLE kwh_b; CREATE ROLE kwh_c;
             REVOKE CONNECT ON DATABASE keywright_test_middle FROM PUBLIC;
             SELECT keywright.grant_authenticator('rest', 'kwh_app', 'kwh_a', '{kwh_b}')",
        )
        .unwrap();
    let mut victim = database.connect();
    let calls = [
        "SELECT keywright.grant_authenticator('rest', 'kwh_app2', 'kwh_c', '{kwh_a,kwh_b}')",
        "SELECT keywright.grant_authenticator('rest', 'kwh_app', 'kwh_a', '{kwh_b}')",
    ];
    let (mut cancelled, mut done) = (0, 0);
    for round in 0..200 {
        let before = fingerprint(&mut client, "kwh_");
        // From far too short to almost long enough, in tenths of a millisecond.
        let delay = 0.0002 + f64::from(round % 50) * 0.0002;
        let call = calls[done % 2];
        let pid: i32 = one(&mut victim, "SELECT pg_backend_pid()");
        let result = thread::scope(|scope| {
            let call = scope.spawn(|| victim.batch_execute(call));
            thread::sleep(std::time::Duration::from_secs_f64(delay));
            client.execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
            call.join().unwrap()
        });
        match result {
            Ok(()) => done += 1,
            Err(error) => {
                let error = error.as_db_error().unwrap();
                assert_eq!(error.code().code(), "57014", "{error:?}");
                assert_eq!(fingerprint(&mut client, "kwh_"), before, "{error:?}");
                cancelled += 1;
            }
        }
        _ = victim.batch_execute("SELECT 1");
    }
    assert!(cancelled > 10, "{cancelled} cancelled, {done} done");
    // A lock that is not had, and a role dropped by somebody who has not committed yet.
    let grant = "SET lock_timeout = '50ms'; SELECT keywright.grant_authenticator('rest', 'kwh_app', 'kwh_c')";
    for (lock, step) in [
        (
            "LOCK TABLE pg_db_role_setting IN SHARE UPDATE EXCLUSIVE MODE",
            "LOCK TABLE pg_catalog.pg_db_role_setting",
        ),
        ("DROP ROLE kwh_c", "looking at roles"),
        ("LOCK TABLE keywright.authenticators", "looking at roles"),
    ] {
        let before = fingerprint(&mut client, "kwh_");
        let mut holder = database.connect();
        let mut transaction = holder.transaction().unwrap();
        transaction.batch_execute(lock).unwrap();
        // Other tests queue in the same cluster, and then it may be the queue that is waited for too long.
        let named = (0..100).any(|_| {
            let error = victim.batch_execute(grant).unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "55P03", "{error:?}");
            error.detail().is_some_and(|detail| detail.contains(step))
        });
        assert!(named, "{step}");
        transaction.rollback().unwrap();
        assert_eq!(fingerprint(&mut client, "kwh_"), before);
    }
    victim.batch_execute("RESET lock_timeout; SELECT keywright.revoke_authenticator('rest')").unwrap();
    drop_roles(&mut client, "kwh_");
}

#[test]
fn a_role_dropped_meanwhile_is_a_finding() {
    let database = Database::new("dropped");
    let mut client = database.connect();
    drop_roles(&mut client, "kwd_");
    for _ in 0..20 {
        client.batch_execute("CREATE ROLE kwd_app LOGIN; CREATE ROLE kwd_anon").unwrap();
        let mut dropper = database.connect();
        let mut transaction = dropper.transaction().unwrap();
        transaction.batch_execute("DROP ROLE kwd_anon").unwrap();
        let mut caller = database.connect();
        let code = thread::scope(|scope| {
            let call = scope.spawn(move || {
                let result = caller
                    .batch_execute("SELECT keywright.grant_authenticator('rest', 'kwd_app', 'kwd_anon')");
                result.map_err(|error| error.as_db_error().unwrap().code().code().to_owned())
            });
            keywright_tests::wait_for(
                &mut client,
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
            );
            transaction.commit().unwrap();
            call.join().unwrap()
        });
        assert_eq!(code.unwrap_err(), "42704");
        drop_roles(&mut client, "kwd_");
    }
}

#[test]
fn postgrest_hears_of_what_changed_and_of_nothing_else() {
    let database = Database::new("notified");
    let mut client = database.connect();
    drop_roles(&mut client, "kwn_");
    client
        .batch_execute(
            "CREATE ROLE kwn_app LOGIN; CREATE ROLE kwn_anon; CREATE ROLE kwn_user; CREATE SCHEMA ext",
        )
        .unwrap();
    let mut listener = database.connect();
    listener.batch_execute("LISTEN pgrst").unwrap();
    let both: &[&str] = &["reload config", "reload schema"];
    let config: &[&str] = &["reload config"];
    for (statement, heard) in [
        ("SELECT keywright.grant_authenticator('rest', 'kwn_app', 'kwn_anon')", both),
        ("SELECT keywright.grant_authenticator('rest', 'kwn_app', 'kwn_anon')", &[]),
        ("SELECT keywright.preflight_authenticator('kwn_app', 'nobody')", &[]),
        ("SELECT keywright.set_postgrest_setting('rest', 'db_max_rows', '42')", config),
        ("SELECT keywright.set_postgrest_setting('rest', 'db_max_rows', '42')", &[]),
        ("SELECT keywright.set_postgrest_settings('rest', '{\"db_max_rows\": 42, \"db_pool\": null}')", &[]),
        ("BEGIN; SELECT keywright.set_postgrest_setting('rest', 'db_max_rows', '43'); ROLLBACK", &[]),
        ("SELECT keywright.set_postgrest_setting('rest', 'db_extra_search_path', 'public, ext')", both),
        ("SELECT * FROM keywright.reconcile_authenticators()", &[]),
        ("ALTER ROLE kwn_app INHERIT; SELECT * FROM keywright.reconcile_authenticators()", config),
        ("SELECT keywright.grant_authenticator('rest', 'kwn_app', 'kwn_anon', '{kwn_user}')", both),
        ("SELECT keywright.revoke_authenticator('rest')", both),
        ("SELECT keywright.revoke_authenticator('rest')", &[]),
    ] {
        client.batch_execute(statement).unwrap();
        // What comes before this has all come.
        client.batch_execute("NOTIFY pgrst, 'end'").unwrap();
        let mut payloads = Vec::new();
        while payloads.last().is_none_or(|last| last != "end") {
            let notification = listener.notifications().blocking_iter().next().unwrap().unwrap();
            payloads.push(notification.payload().to_owned());
        }
        payloads.pop();
        assert_eq!(payloads, heard, "{statement}");
    }
    drop_roles(&mut client, "kwn_");
}

/// What PostgREST reads from the database, by its own statement (`queryDbSettings` in `Config/Database.hs` of 14.14 and 16.2):
/// what is not in the result is the file's, and what is empty there is not.
fn read_by_postgrest(client: &mut Client) -> std::collections::BTreeMap<String, String> {
    const READ: &str = r#"
        WITH role_setting AS (
          SELECT setdatabase AS database, unnest(setconfig) AS setting
            FROM pg_catalog.pg_db_role_setting
           WHERE setrole = quote_ident(CURRENT_USER)::regrole::oid
             AND setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = CURRENT_CATALOG))),
        kv_settings AS (
          SELECT database, substr(setting, 1, strpos(setting, '=') - 1) AS k, substr(setting, strpos(setting, '=') + 1) AS v
            FROM role_setting
          UNION
          SELECT null AS database, x AS k, current_setting(x, true) AS v
            FROM unnest($1::text[]) x JOIN keywright.postgrest_config() _ ON TRUE)
        SELECT DISTINCT ON (key) replace(k, 'pgrst.', '') AS key, v AS value
          FROM kv_settings WHERE k = ANY ($1) AND v IS NOT NULL ORDER BY key, database DESC NULLS LAST"#;
    let names: Vec<String> = [
        "db_anon_role",
        "db_max_rows",
        "db_pre_request",
        "db_schemas",
        "jwt_aud",
        "openapi_mode",
        "server_cors_allowed_origins",
    ]
    .map(|name| format!("pgrst.{name}"))
    .into();
    let mut transaction = client.build_transaction().read_only(true).start().unwrap();
    let rows = transaction.query(READ, &[&names]).unwrap();
    transaction.commit().unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn a_setting_that_is_gone_is_never_empty_for_postgrest() {
    let database = Database::new("gone_settings");
    let mut client = database.connect();
    drop_roles(&mut client, "kwg_");
    client
        .batch_execute(
            "CREATE ROLE kwg_app LOGIN; CREATE ROLE kwg_anon;
             SELECT keywright.grant_access('kwg_app', 'authenticator');
             SELECT keywright.grant_authenticator('rest', 'kwg_app', 'kwg_anon')",
        )
        .unwrap();
    const SET: &str = r#"SELECT keywright.set_postgrest_settings('rest', '{"db_pre_request": "keywright.check_request", "jwt_aud": "shop",
        "server_cors_allowed_origins": "https://shop.example", "openapi_mode": "disabled"}')"#;
    const REMOVE: &str = r#"SELECT keywright.set_postgrest_settings('rest', '{"db_pre_request": null, "jwt_aud": null,
        "server_cors_allowed_origins": null, "openapi_mode": null}')"#;
    client.batch_execute(SET).unwrap();
    let mut pool = [database.connect_as("kwg_app", ""), database.connect_as("kwg_app", "")];
    for session in &mut pool {
        assert_eq!(read_by_postgrest(session)["db_pre_request"], "keywright.check_request");
    }
    // Refused while somebody may have read it; another value is there at once, in every session.
    assert_eq!(code(&mut client, REMOVE), "55006");
    client
        .batch_execute(
            r#"SELECT keywright.set_postgrest_settings('rest', '{"jwt_aud": "other", "db_max_rows": null}')"#,
        )
        .unwrap();
    for session in &mut pool {
        let read = read_by_postgrest(session);
        assert_eq!(
            (read["db_pre_request"].as_str(), read["jwt_aud"].as_str()),
            ("keywright.check_request", "other")
        );
    }
    // Gone in whatever way, it stays what it was in a session that has read it, and is the file's in one that has not.
    client.batch_execute("DELETE FROM keywright.postgrest_settings").unwrap();
    for session in &mut pool {
        let read = read_by_postgrest(session);
        assert_eq!(
            (read["db_pre_request"].as_str(), read["jwt_aud"].as_str()),
            ("keywright.check_request", "other")
        );
        assert!(read.values().all(|value| !value.is_empty()), "{read:?}");
    }
    let mut fresh = database.connect_as("kwg_app", "");
    let read = read_by_postgrest(&mut fresh);
    assert!(!read.contains_key("db_pre_request") && !read.contains_key("jwt_aud"), "{read:?}");
    assert_eq!(read["db_anon_role"], "kwg_anon");
    client.batch_execute(SET).unwrap();
    read_by_postgrest(&mut fresh);
    client.batch_execute("SELECT * FROM keywright.revoke_authenticator('rest')").unwrap();
    for session in pool.iter_mut().chain([&mut fresh]) {
        let read = read_by_postgrest(session);
        assert_eq!(read["db_pre_request"], "keywright.check_request");
        assert!(read.values().all(|value| !value.is_empty()), "{read:?}");
    }
    // With nobody connected it is removed, and everybody who comes then reads the file's.
    client.batch_execute("SELECT keywright.grant_authenticator('rest', 'kwg_app', 'kwg_anon')").unwrap();
    client.batch_execute(SET).unwrap();
    drop((pool, fresh));
    let gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'kwg_app')";
    keywright_tests::wait_for(&mut client, gone);
    client.batch_execute(REMOVE).unwrap();
    let read = read_by_postgrest(&mut database.connect_as("kwg_app", ""));
    assert!(
        !read.contains_key("db_pre_request") && !read.contains_key("server_cors_allowed_origins"),
        "{read:?}"
    );
    client
        .batch_execute(
            "SELECT * FROM keywright.revoke_authenticator('rest'); SELECT keywright.revoke_access('kwg_app', 'authenticator')",
        )
        .unwrap();
    drop_roles(&mut client, "kwg_");
}

#[test]
fn an_owner_without_superuser_is_told() {
    let database = Database::new("weak_owner");
    let mut client = database.connect();
    drop_roles(&mut client, "kww_");
    client
        .batch_execute(
            "DROP EXTENSION keywright; CREATE ROLE kww_owner SUPERUSER; CREATE ROLE kww_app LOGIN; CREATE ROLE kww_anon;
             SET ROLE kww_owner; CREATE EXTENSION keywright; RESET ROLE; ALTER ROLE kww_owner NOSUPERUSER",
        )
        .unwrap();
    let found = client
        .query("SELECT severity, object, hint FROM keywright.preflight_authenticator('kww_app', 'kww_anon') WHERE code = 'owner_not_superuser'", &[])
        .unwrap();
    let found: Vec<(String, String, String)> =
        found.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let told = ("error".to_owned(), "kww_owner".to_owned(), "ALTER ROLE kww_owner SUPERUSER;".to_owned());
    assert_eq!(found, [told]);
    let error = client
        .batch_execute("SELECT keywright.grant_authenticator('rest', 'kww_app', 'kww_anon')")
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.hint()), ("42501", Some("ALTER ROLE kww_owner SUPERUSER;")));
    client.batch_execute("ALTER ROLE kww_owner SUPERUSER; SELECT keywright.grant_authenticator('rest', 'kww_app', 'kww_anon'); ALTER ROLE kww_owner NOSUPERUSER").unwrap();
    assert_eq!(code(&mut client, "SELECT keywright.revoke_authenticator('rest')"), "42501");
    client.batch_execute("ALTER ROLE kww_owner SUPERUSER; SELECT keywright.revoke_authenticator('rest'); DROP EXTENSION keywright; DROP OWNED BY kww_owner").unwrap();
    drop_roles(&mut client, "kww_");
}

/// Where Postgres runs an unprivileged role's code while a superuser works, the superuser's rights are not lent to it.
#[test]
fn a_superusers_maintenance_lends_nobody_its_rights() {
    let database = Database::new("maintenance");
    let mut client = database.connect();
    drop_roles(&mut client, "kwv_");
    client
        .batch_execute(
            "CREATE ROLE kwv_evil LOGIN; CREATE ROLE kwv_rich; GRANT CREATE ON DATABASE keywright_test_maintenance TO kwv_evil;
             SELECT keywright.grant_access('kwv_evil', 'reconciler')",
        )
        .unwrap();
    let mut evil = database.connect_as("kwv_evil", "");
    evil.batch_execute(
        r#"CREATE SCHEMA evil;
           CREATE TABLE evil.t (x integer);
           CREATE FUNCTION evil.gain(x integer) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
           BEGIN
             BEGIN
               PERFORM keywright.grant_authenticator('evil', 'kwv_evil', 'kwv_rich');
               RETURN 'gained';
             EXCEPTION WHEN OTHERS THEN
               RETURN sqlstate;
             END;
           END $$;
           INSERT INTO evil.t VALUES (1);
           CREATE INDEX ON evil.t (evil.gain(x))"#,
    )
    .unwrap();
    for statement in
        ["REINDEX TABLE evil.t", "VACUUM FULL evil.t", "ANALYZE evil.t", "CLUSTER evil.t USING t_gain_idx"]
    {
        client.batch_execute(statement).unwrap();
        assert!(
            !one::<bool>(&mut client, "SELECT pg_has_role('kwv_evil', 'kwv_rich', 'MEMBER')"),
            "{statement}"
        );
    }
    client.batch_execute("DROP SCHEMA evil CASCADE; SELECT keywright.revoke_access('kwv_evil', 'reconciler'); DROP OWNED BY kwv_evil").unwrap();
    drop_roles(&mut client, "kwv_");
}

fn code(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => "00000".into(),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).code().code().into(),
    }
}

fn is_member(client: &mut Client, login: &str, role: &str) -> bool {
    one(client, &format!("SELECT pg_has_role('{login}', '{role}', 'MEMBER')"))
}

/// Somebody's code that runs with its owner's rights has no more than these, whosever statement sets it off.
#[test]
fn a_superusers_statement_lends_nobody_its_rights() {
    let database = Database::new("deputy");
    let mut client = database.connect();
    drop_roles(&mut client, "kwe_");
    client
        .batch_execute(
            "CREATE ROLE kwe_evil LOGIN; CREATE ROLE kwe_admin LOGIN; CREATE ROLE kwe_rich;
             SELECT keywright.grant_access('kwe_evil', 'reconciler'), keywright.grant_access('kwe_admin', 'admin');
             CREATE TABLE public.customers (id integer PRIMARY KEY); INSERT INTO public.customers VALUES (1), (2);
             GRANT REFERENCES ON public.customers TO kwe_evil;
             CREATE SCHEMA evil AUTHORIZATION kwe_evil; CREATE SCHEMA adm AUTHORIZATION kwe_admin",
        )
        .unwrap();
    let mut evil = database.connect_as("kwe_evil", "");
    evil.batch_execute(
        "CREATE TABLE evil.notes (id integer REFERENCES public.customers ON DELETE CASCADE);
         INSERT INTO evil.notes VALUES (1);
         CREATE FUNCTION evil.gain() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM keywright.grant_authenticator('pwn', 'kwe_evil', 'kwe_rich'); RETURN old; END $$;
         CREATE TRIGGER t BEFORE DELETE ON evil.notes FOR EACH ROW EXECUTE FUNCTION evil.gain();
         CREATE FUNCTION evil.definer() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN PERFORM keywright.grant_authenticator('pwn', 'kwe_evil', 'kwe_rich'); END $$;
         CREATE FUNCTION evil.reconcile() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN PERFORM keywright.reconcile_authenticators(); END $$",
    )
    .unwrap();
    let mut admin = database.connect_as("kwe_admin", "");
    admin
        .batch_execute(
            "CREATE FUNCTION adm.allow() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN PERFORM keywright.allow_authenticator('kwe_evil', '{kwe_rich}'); END $$",
        )
        .unwrap();
    for statement in
        ["DELETE FROM public.customers WHERE id = 1", "SELECT evil.definer()", "SELECT adm.allow()"]
    {
        assert_eq!(code(&mut client, statement), "42501", "{statement}");
    }
    // A service that arrived from elsewhere is granted by who could grant it, and by nobody whose code that one runs.
    client
        .batch_execute(
            "INSERT INTO keywright.authenticators (service, connect_as, anon_role, jwt_roles, schemas, noinherit)
             VALUES ('r', 'kwe_evil', 'kwe_rich', '{}', '{public}', true)",
        )
        .unwrap();
    client.batch_execute("SELECT evil.reconcile()").unwrap();
    evil.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert!(!is_member(&mut client, "kwe_evil", "kwe_rich"));
    client.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert!(is_member(&mut client, "kwe_evil", "kwe_rich"));
    client
        .batch_execute(
            "SELECT keywright.revoke_authenticator('r'); DROP SCHEMA evil, adm CASCADE;
             SELECT keywright.revoke_access('kwe_evil', 'reconciler'), keywright.revoke_access('kwe_admin', 'admin');
             DROP OWNED BY kwe_evil, kwe_admin",
        )
        .unwrap();
    drop_roles(&mut client, "kwe_");
}

/// What was allowed to one role is not another's because it has its name, or one that looks like it.
#[test]
fn a_name_taken_over_takes_nothing_over() {
    let database = Database::with_encoding("names", "LATIN1");
    let mut client = database.connect();
    drop_roles(&mut client, "kwo_");
    client
        .batch_execute(
            "CREATE ROLE kwo_app LOGIN; CREATE ROLE kwo_anon; CREATE ROLE kwo_user; CREATE ROLE kwo_plane LOGIN;
             SELECT keywright.allow_authenticator('kwo_app', '{kwo_anon,kwo_user}'), keywright.grant_access('kwo_plane', 'reconciler')",
        )
        .unwrap();
    let mut plane = database.connect_as("kwo_plane", "");
    let grant = "SELECT keywright.grant_authenticator('rest', 'kwo_app', 'kwo_anon')";
    assert_eq!(code(&mut plane, grant), "00000");
    // Dropped and made again.
    client.batch_execute("DROP ROLE kwo_app; CREATE ROLE kwo_app LOGIN").unwrap();
    assert_eq!(code(&mut plane, grant), "42501");
    let outcome: String = one(&mut plane, "SELECT outcome FROM keywright.reconcile_authenticators()");
    assert_eq!(outcome, "refused");
    assert!(!is_member(&mut client, "kwo_app", "kwo_anon"));
    client.batch_execute("SELECT keywright.allow_authenticator('kwo_app', '{kwo_anon,kwo_user}')").unwrap();
    plane.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert!(is_member(&mut client, "kwo_app", "kwo_anon"));
    // A name that this database can not read is shown by its number, and nobody is meant by that.
    client.batch_execute("ALTER ROLE kwo_app RENAME TO \"kwo_würde\"").unwrap();
    let number: u32 = one(&mut client, "SELECT oid FROM pg_roles WHERE rolname LIKE 'kwo_w%'");
    let squatter = format!("?{number}");
    client.batch_execute(&format!("CREATE ROLE \"{squatter}\" LOGIN")).unwrap();
    let grant = format!("SELECT keywright.grant_authenticator('x', '{squatter}', 'kwo_user')");
    assert_eq!(code(&mut plane, &grant), "42501");
    client.batch_execute("ALTER ROLE \"kwo_würde\" INHERIT").unwrap();
    plane.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert_eq!(one::<i64>(&mut plane, "SELECT count(*) FROM keywright.authenticator_status()"), 0);
    // Other things that somebody may have put there in this encoding are findings, and stop nothing else.
    client
        .batch_execute(
            "ALTER ROLE \"kwo_würde\" SET pgrst.db_pre_request = 'public.fé';
             UPDATE keywright.authenticators SET managed_by = 'é' WHERE service = 'rest'",
        )
        .unwrap();
    let codes: String = one(&mut plane, "SELECT string_agg(code, ',') FROM keywright.authenticator_status()");
    assert_eq!(codes, "pre_request_missing");
    plane.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert_eq!(
        code(&mut client, "SELECT keywright.grant_authenticator('rest', 'kwo_user', 'kwo_anon')"),
        "42710"
    );
    plane.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
    let state = "SELECT rolinherit AND NOT EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) FROM pg_roles AS r WHERE oid = ";
    assert!(one::<bool>(&mut client, &format!("{state}{number}")));
    client
        .batch_execute(&format!(
            "ALTER ROLE \"kwo_würde\" RENAME TO kwo_app; DROP ROLE \"{squatter}\"; SELECT keywright.revoke_access('kwo_plane', 'reconciler')"
        ))
        .unwrap();
    drop_roles(&mut client, "kwo_");
}

/// A membership that gives nothing gives no ADMIN OPTION either.
#[test]
fn an_admin_option_out_of_reach_allows_nothing() {
    let database = Database::new("reach");
    let mut client = database.connect();
    drop_roles(&mut client, "kwa_");
    client
        .batch_execute(
            "CREATE ROLE kwa_app LOGIN; CREATE ROLE kwa_rich; CREATE ROLE kwa_team; CREATE ROLE kwa_plane LOGIN NOINHERIT;
             GRANT kwa_app, kwa_rich TO kwa_team WITH ADMIN OPTION; GRANT kwa_team TO kwa_plane;
             SELECT keywright.grant_access('kwa_plane', 'reconciler')",
        )
        .unwrap();
    let mut plane = database.connect_as("kwa_plane", "");
    let grant = "SELECT keywright.grant_authenticator('rest', 'kwa_app', 'kwa_rich')";
    if version(&mut client) >= 16 {
        assert_ne!(code(&mut plane, "GRANT kwa_rich TO kwa_app"), "00000");
    }
    assert_eq!(code(&mut plane, grant), "42501");
    // In reach, it does.
    client.batch_execute("GRANT kwa_rich, kwa_app TO kwa_plane WITH ADMIN OPTION").unwrap();
    assert_eq!(code(&mut plane, grant), "00000");
    plane.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
    client.batch_execute("SELECT keywright.revoke_access('kwa_plane', 'reconciler')").unwrap();
    drop_roles(&mut client, "kwa_");
}

/// Names are swapped all the while; what was granted goes again, from whoever had it.
#[test]
fn a_role_renamed_meanwhile_is_not_mistaken_for_another() {
    let database = Database::new("swapped");
    let mut client = database.connect();
    drop_roles(&mut client, "kwx_");
    client.batch_execute("CREATE ROLE kwx_a LOGIN; CREATE ROLE kwx_b LOGIN; CREATE ROLE kwx_anon").unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut swapper = database.connect();
            while !over.load(Ordering::Relaxed) {
                // Postgres answers who alters the same role at once with an internal error.
                _ = swapper.batch_execute(
                    "BEGIN; ALTER ROLE kwx_a RENAME TO kwx_t; ALTER ROLE kwx_b RENAME TO kwx_a; ALTER ROLE kwx_t RENAME TO kwx_b; COMMIT",
                );
                _ = swapper.batch_execute("ROLLBACK");
            }
        });
        for _ in 0..150 {
            client
                .batch_execute("SELECT keywright.grant_authenticator('rest', 'kwx_a', 'kwx_anon')")
                .unwrap();
            client.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    let left = catalog(&mut client, "kwx_", &[&database.name]);
    assert_eq!(left, ["a inherit=t", "anon inherit=t", "b inherit=t"]);
    drop_roles(&mut client, "kwx_");
}

/// Several services change at once, as replication brings them: what one lets go of and another needs stays.
#[test]
fn a_reconcile_takes_nothing_that_another_service_needs() {
    let database = Database::new("handover");
    let mut client = database.connect();
    drop_roles(&mut client, "kwi_");
    client
        .batch_execute(
            "CREATE ROLE kwi_app LOGIN; CREATE ROLE kwi_bob LOGIN; CREATE ROLE kwi_anon; CREATE ROLE kwi_user;
             SELECT keywright.grant_authenticator('a', 'kwi_app', 'kwi_anon');
             UPDATE keywright.authenticators SET connect_as = 'kwi_bob', anon_role = 'kwi_user' WHERE service = 'a';
             INSERT INTO keywright.authenticators (service, connect_as, anon_role, jwt_roles, schemas, noinherit)
             VALUES ('b', 'kwi_app', 'kwi_anon', '{}', '{public}', true);
             SELECT * FROM keywright.reconcile_authenticators()",
        )
        .unwrap();
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.authenticator_status()"), 0);
    assert!(is_member(&mut client, "kwi_app", "kwi_anon") && is_member(&mut client, "kwi_bob", "kwi_user"));
    client
        .batch_execute("SELECT keywright.revoke_authenticator('a'), keywright.revoke_authenticator('b')")
        .unwrap();
    assert_eq!(
        catalog(&mut client, "kwi_", &[&database.name]),
        ["anon", "app", "bob", "user"].map(|role| format!("{role} inherit=t"))
    );
    drop_roles(&mut client, "kwi_");
}

/// Each service keeps the role it was granted for, whatever others call it.
#[test]
fn services_that_share_a_role_follow_its_names() {
    let database = Database::new("shared_names");
    let mut client = database.connect();
    drop_roles(&mut client, "kwf_");
    client
        .batch_execute(
            "CREATE ROLE kwf_app LOGIN; CREATE ROLE kwf_anon; CREATE ROLE kwf_user;
             SELECT keywright.grant_authenticator('a', 'kwf_app', 'kwf_anon');
             ALTER ROLE kwf_app RENAME TO kwf_app2;
             SELECT keywright.grant_authenticator('b', 'kwf_app2', 'kwf_anon');
             ALTER ROLE kwf_app2 RENAME TO kwf_app3;
             CREATE ROLE kwf_app2 LOGIN;
             SELECT * FROM keywright.reconcile_authenticators()",
        )
        .unwrap();
    let status = "SELECT count(*) FROM keywright.authenticator_status()";
    assert_eq!(one::<i64>(&mut client, status), 0);
    assert!(!is_member(&mut client, "kwf_app2", "kwf_anon"));
    let rows = client
        .query("SELECT * FROM keywright.revoke_authenticator('a') WHERE outcome <> 'left'", &[])
        .unwrap();
    assert!(rows.is_empty() && is_member(&mut client, "kwf_app3", "kwf_anon"));
    client.batch_execute("SELECT keywright.revoke_authenticator('b')").unwrap();
    // Two roles swap their names, and the service is asked for again by name: the names mean what they mean now.
    client
        .batch_execute(
            "SELECT keywright.grant_authenticator('a', 'kwf_app3', 'kwf_anon', '{kwf_user}');
             ALTER ROLE kwf_anon RENAME TO kwf_t; ALTER ROLE kwf_user RENAME TO kwf_anon; ALTER ROLE kwf_t RENAME TO kwf_user",
        )
        .unwrap();
    let anon = |client: &mut Client| -> String {
        one(
            client,
            "SELECT substring(keywright.render_postgrest_config('a', '{h}') FROM 'db-anon-role = \"([^\"]*)')",
        )
    };
    assert_eq!(anon(&mut client), "kwf_user");
    client
        .batch_execute("SELECT keywright.grant_authenticator('a', 'kwf_app3', 'kwf_anon', '{kwf_user}')")
        .unwrap();
    assert_eq!(anon(&mut client), "kwf_anon");
    client.batch_execute("SELECT keywright.revoke_authenticator('a')").unwrap();
    drop_roles(&mut client, "kwf_");
}

/// A schema that comes and goes is a finding or none, and never an error.
#[test]
fn a_schema_dropped_meanwhile_is_a_finding() {
    let database = Database::new("flicker");
    let mut client = database.connect();
    drop_roles(&mut client, "kwz_");
    client.batch_execute("CREATE ROLE kwz_app LOGIN; CREATE ROLE kwz_anon").unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut other = database.connect();
            while !over.load(Ordering::Relaxed) {
                other.batch_execute("CREATE SCHEMA flicker").unwrap();
                other.batch_execute("DROP SCHEMA flicker").unwrap();
            }
        });
        for _ in 0..1500 {
            client
                .batch_execute("SELECT * FROM keywright.preflight_authenticator('kwz_app', 'kwz_anon', '{}', '{flicker}')")
                .unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    drop_roles(&mut client, "kwz_");
}

/// Roles are dropped and made again while services are reconciled: no error, and no membership of a role that is gone.
#[test]
fn a_role_dropped_while_services_are_reconciled() {
    let database = Database::new("dropping");
    let mut client = database.connect();
    drop_roles(&mut client, "kwq_");
    client
        .batch_execute(
            "CREATE ROLE kwq_app LOGIN; CREATE ROLE kwq_x; CREATE ROLE kwq_d;
             SELECT keywright.grant_authenticator('rest', 'kwq_app', 'kwq_x', '{kwq_d}')",
        )
        .unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut dropper = database.connect();
            while !over.load(Ordering::Relaxed) {
                // What Postgres says to who drops a role that is just being granted is not ours.
                _ = dropper.batch_execute("DROP ROLE kwq_d");
                _ = dropper.batch_execute("CREATE ROLE kwq_d");
            }
        });
        let callers = [0, 1].map(|_| {
            scope.spawn(|| {
                let mut caller = database.connect();
                for _ in 0..400 {
                    caller.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
                }
            })
        });
        for caller in callers {
            caller.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    let orphans = "SELECT count(*) FROM pg_auth_members AS m WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = m.roleid)";
    assert_eq!(one::<i64>(&mut client, orphans), 0);
    client.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
    drop_roles(&mut client, "kwq_");
}

/// What is wanted may arrive in any shape: one reconcile does what can be done, and takes nothing that may be meant.
#[test]
fn one_reconcile_is_enough_whatever_arrives() {
    let database = Database::new("arrives");
    let mut client = database.connect();
    drop_roles(&mut client, "kwj_");
    client
        .batch_execute(
            "CREATE ROLE kwj_app LOGIN; CREATE ROLE kwj_anon; CREATE ROLE kwj_x;
             SELECT keywright.grant_authenticator('rest', 'kwj_app', 'kwj_anon', '{kwj_x}');
             ALTER ROLE kwj_x RENAME TO kwj_y; CREATE ROLE kwj_x;
             UPDATE keywright.authenticators SET jwt_roles = '{kwj_x,kwj_y}'",
        )
        .unwrap();
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.authenticator_status()"), 1);
    client.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert!(is_member(&mut client, "kwj_app", "kwj_x") && is_member(&mut client, "kwj_app", "kwj_y"));
    let before = fingerprint(&mut client, "kwj_");
    client.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert_eq!(fingerprint(&mut client, "kwj_"), before);
    // A name that nobody has: what the service has may be what it means.
    client
        .batch_execute(
            "UPDATE keywright.authenticators SET jwt_roles = '{kwj_x,kwj_z}'; SELECT * FROM keywright.reconcile_authenticators()",
        )
        .unwrap();
    assert!(is_member(&mut client, "kwj_app", "kwj_y"));
    for list in ["{kwj_x,NULL}", "{{kwj_x,kwj_y}}"] {
        assert_eq!(
            code(&mut client, &format!("UPDATE keywright.authenticators SET jwt_roles = '{list}'")),
            "23514"
        );
    }
    client.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
    drop_roles(&mut client, "kwj_");
}

/// A deadlock that the caller's own transaction is part of ends, and soon.
#[test]
fn a_deadlock_of_the_callers_own_ends() {
    let database = Database::new("deadlock");
    let mut client = database.connect();
    drop_roles(&mut client, "kwl_");
    client.batch_execute("CREATE ROLE kwl_a LOGIN; CREATE ROLE kwl_b LOGIN; CREATE ROLE kwl_anon").unwrap();
    let (mut first, mut second) = (database.connect(), database.connect());
    first.batch_execute("BEGIN; SELECT keywright.grant_authenticator('a', 'kwl_a', 'kwl_anon')").unwrap();
    second.batch_execute("BEGIN; ALTER ROLE kwl_b CONNECTION LIMIT 5").unwrap();
    let codes = thread::scope(|scope| {
        let waits = scope.spawn(|| code(&mut first, "ALTER ROLE kwl_b CONNECTION LIMIT 3"));
        thread::sleep(std::time::Duration::from_millis(200));
        let asks = code(&mut second, "SELECT keywright.grant_authenticator('b', 'kwl_b', 'kwl_anon')");
        second.batch_execute("ROLLBACK").unwrap();
        [waits.join().unwrap(), asks]
    });
    assert!(codes.iter().any(|code| code == "40P01"), "{codes:?}");
    first.batch_execute("ROLLBACK").unwrap();
    drop_roles(&mut client, "kwl_");
}

/// A step of a customer's day, or of ours.
#[derive(Debug, Clone)]
enum Step {
    Grant {
        database: usize,
        service: usize,
        login: usize,
        anon: usize,
        jwt: Option<usize>,
        noinherit: bool,
    },
    Revoke {
        database: usize,
        service: usize,
    },
    Reconcile {
        database: usize,
    },
    CustomerGrants {
        login: usize,
        role: usize,
        admin: bool,
        inherit: Option<bool>,
        set: Option<bool>,
    },
    CustomerRevokes {
        login: usize,
        role: usize,
    },
    CustomerRevokesAdmin {
        login: usize,
        role: usize,
    },
    /// Ours, by its grantor's name; from PostgreSQL 16.
    CustomerRevokesOurs {
        login: usize,
        role: usize,
    },
    CustomerAltersOurs {
        login: usize,
        role: usize,
        admin: bool,
        inherit: bool,
        set: bool,
    },
    CustomerInherit {
        login: usize,
        inherit: bool,
    },
    CustomerConnect {
        database: usize,
        login: usize,
        grant: bool,
    },
    CustomerConnectForAll {
        database: usize,
        grant: bool,
    },
    CustomerDropsAndMakesAnew {
        login: usize,
    },
    CustomerRenames {
        login: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let two = || 0..2_usize;
    let role = || 0..3_usize;
    prop_oneof![
        5 => (two(), two(), two(), role(), prop::option::of(role()), any::<bool>())
            .prop_map(|(database, service, login, anon, jwt, noinherit)| Step::Grant { database, service, login, anon, jwt, noinherit }),
        3 => (two(), two()).prop_map(|(database, service)| Step::Revoke { database, service }),
        3 => two().prop_map(|database| Step::Reconcile { database }),
        4 => (two(), role(), any::<bool>(), prop::option::of(any::<bool>()), prop::option::of(any::<bool>()))
            .prop_map(|(login, role, admin, inherit, set)| Step::CustomerGrants { login, role, admin, inherit, set }),
        3 => (two(), role()).prop_map(|(login, role)| Step::CustomerRevokes { login, role }),
        1 => (two(), role()).prop_map(|(login, role)| Step::CustomerRevokesAdmin { login, role }),
        1 => (two(), role()).prop_map(|(login, role)| Step::CustomerRevokesOurs { login, role }),
        1 => (two(), role(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(login, role, admin, inherit, set)| Step::CustomerAltersOurs { login, role, admin, inherit, set }),
        3 => (two(), any::<bool>()).prop_map(|(login, inherit)| Step::CustomerInherit { login, inherit }),
        2 => (two(), two(), any::<bool>()).prop_map(|(database, login, grant)| Step::CustomerConnect { database, login, grant }),
        1 => (two(), any::<bool>()).prop_map(|(database, grant)| Step::CustomerConnectForAll { database, grant }),
        1 => two().prop_map(|login| Step::CustomerDropsAndMakesAnew { login }),
        1 => two().prop_map(|login| Step::CustomerRenames { login }),
    ]
}

/// Roles kwp_*, to which everything happens, and roles kwt_*, to which happens what the customer alone does.
struct Twins {
    clients: [Client; 2],
    databases: [String; 2],
    version: i32,
    /// Whether the logins have their other name.
    renamed: [bool; 2],
    /// Whether some login was dropped and made anew.
    made_anew: bool,
}

const REAL: &str = "kwp_";
const TWIN: &str = "kwt_";

impl Twins {
    fn begin(&mut self) {
        for client in &mut self.clients {
            client
                .batch_execute(
                    "SELECT keywright.revoke_authenticator(service) FROM keywright.list_authenticators()",
                )
                .unwrap();
        }
        for prefix in [REAL, TWIN] {
            drop_roles(&mut self.clients[0], prefix);
            let roles =
                ["l0 LOGIN", "l1 LOGIN", "r0", "r1", "r2"].map(|role| format!("CREATE ROLE {prefix}{role};"));
            self.clients[0].batch_execute(&roles.concat()).unwrap();
        }
        self.renamed = [false, false];
        self.made_anew = false;
        let [one, two] = self.databases.clone();
        self.run(&format!("GRANT CONNECT ON DATABASE {one}, {two} TO PUBLIC"));
    }

    fn run(&mut self, sql: &str) {
        self.clients[0].batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn asks(&mut self, sql: &str) -> bool {
        one(&mut self.clients[0], sql)
    }

    fn login(&self, login: usize) -> String {
        format!("{}{login}", if self.renamed[login] { "x" } else { "l" })
    }

    fn is_member(&mut self, prefix: &str, login: usize, role: usize) -> bool {
        let login = self.login(login);
        self.asks(&format!(
            "SELECT EXISTS (SELECT FROM pg_auth_members WHERE roleid = '{prefix}r{role}'::regrole AND member = '{prefix}{login}'::regrole)"
        ))
    }

    /// Whether the ledger says that something of a login was made by us, and still is needed.
    fn made(&mut self, kind: &str, login: usize, database: Option<usize>) -> bool {
        let login = self.login(login);
        let object = database.map_or(String::new(), |database| {
            format!(
                "AND (e -> 'object' ->> 'oid')::oid = (SELECT oid FROM pg_database WHERE datname = '{}')",
                self.databases[database]
            )
        });
        self.asks(&format!(
            "SELECT EXISTS (SELECT FROM pg_db_role_setting AS s, unnest(s.setconfig) AS c, jsonb_array_elements(substr(c, 26)::jsonb -> 'entries') AS e
              WHERE c LIKE 'keywright_ledger.entries=%' AND e ->> 'kind' = '{kind}' AND (e ->> 'made')::boolean
                AND (e -> 'member' ->> 'oid')::oid = '{REAL}{login}'::regrole {object})"
        ))
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Grant { database, service, login, anon, jwt, noinherit } => {
                let jwt = jwt.map_or(String::new(), |jwt| format!("{REAL}r{jwt}"));
                let login = self.login(login);
                let sql = format!(
                    "SELECT keywright.grant_authenticator('s{service}', '{REAL}{login}', '{REAL}r{anon}', '{{{jwt}}}', noinherit => {noinherit})"
                );
                self.clients[database].batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
                let again = self.clients[database].query(&sql, &[]).unwrap();
                assert!(again.is_empty(), "{sql} twice");
            }
            Step::Revoke { database, service } => {
                self.clients[database]
                    .batch_execute(&format!("SELECT keywright.revoke_authenticator('s{service}')"))
                    .unwrap();
            }
            Step::Reconcile { database } => {
                let client = &mut self.clients[database];
                client.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
                let status =
                    // A name that became another role's waits to be granted anew.
                    client.query("SELECT s::text FROM keywright.authenticator_status() AS s WHERE code <> 'role_missing' AND NOT ($1 AND hint LIKE 'Another role has the name now%')", &[&self.made_anew]).unwrap();
                let status: Vec<String> = status.iter().map(|row| row.get(0)).collect();
                assert!(status.is_empty(), "{status:?}");
                let before = fingerprint(client, REAL);
                client.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
                assert_eq!(fingerprint(client, REAL), before, "the second reconcile wrote");
            }
            Step::CustomerGrants { login, role, admin, inherit, set } => {
                self.customer_grants(login, role, admin, inherit, set)
            }
            Step::CustomerRevokes { login, role } => {
                let login = self.login(login);
                for prefix in [REAL, TWIN] {
                    self.run(&format!("REVOKE {prefix}r{role} FROM {prefix}{login}"));
                }
            }
            Step::CustomerRevokesAdmin { login, role } => {
                let name = self.login(login);
                // Before 16 this rewrites the row even where there is no such option, and leaves no other trace.
                let has = self.asks(&format!(
                    "SELECT EXISTS (SELECT FROM pg_auth_members AS m WHERE roleid = '{REAL}r{role}'::regrole AND member = '{REAL}{name}'::regrole AND admin_option)"
                ));
                if has || self.version >= 16 {
                    for prefix in [REAL, TWIN] {
                        self.run(&format!("REVOKE ADMIN OPTION FOR {prefix}r{role} FROM {prefix}{name}"));
                    }
                }
            }
            Step::CustomerRevokesOurs { login, role } => {
                if self.has_ours(login, role) {
                    let login = self.login(login);
                    self.run(&format!(
                        "REVOKE {REAL}r{role} FROM {REAL}{login} GRANTED BY keywright_grantor"
                    ));
                }
            }
            Step::CustomerAltersOurs { login, role, admin, inherit, set } => {
                if self.has_ours(login, role) {
                    let login = self.login(login);
                    self.run(&format!("GRANT {REAL}r{role} TO {REAL}{login} WITH ADMIN {admin}, INHERIT {inherit}, SET {set} GRANTED BY keywright_grantor"));
                }
            }
            Step::CustomerInherit { login, inherit } => {
                // While it is NOINHERIT for us, nobody else's NOINHERIT can be told from it.
                let unseen = !inherit && self.made("noinherit", login, None);
                let login = self.login(login);
                let word = if inherit { "INHERIT" } else { "NOINHERIT" };
                self.run(&format!("ALTER ROLE {REAL}{login} {word}"));
                if !unseen {
                    self.run(&format!("ALTER ROLE {TWIN}{login} {word}"));
                }
            }
            Step::CustomerConnect { database, login, grant } => {
                let unseen = grant && self.made("connect", login, Some(database));
                let login = self.login(login);
                let database = self.databases[database].clone();
                let (verb, to) = if grant { ("GRANT", "TO") } else { ("REVOKE", "FROM") };
                self.run(&format!("{verb} CONNECT ON DATABASE {database} {to} {REAL}{login}"));
                if !unseen {
                    self.run(&format!("{verb} CONNECT ON DATABASE {database} {to} {TWIN}{login}"));
                }
            }
            Step::CustomerConnectForAll { database, grant } => {
                let database = self.databases[database].clone();
                let (verb, to) = if grant { ("GRANT", "TO") } else { ("REVOKE", "FROM") };
                self.run(&format!("{verb} CONNECT ON DATABASE {database} {to} PUBLIC"));
            }
            Step::CustomerDropsAndMakesAnew { login } => {
                self.made_anew = true;
                let login = self.login(login);
                let [one, two] = self.databases.clone();
                for prefix in [REAL, TWIN] {
                    self.run(&format!(
                        "REVOKE CONNECT ON DATABASE {one}, {two} FROM {prefix}{login}; DROP ROLE {prefix}{login}; CREATE ROLE {prefix}{login} LOGIN"
                    ));
                }
            }
            Step::CustomerRenames { login } => {
                let before = self.login(login);
                self.renamed[login] = !self.renamed[login];
                let after = self.login(login);
                for prefix in [REAL, TWIN] {
                    self.run(&format!("ALTER ROLE {prefix}{before} RENAME TO {prefix}{after}"));
                }
            }
        }
    }

    fn has_ours(&mut self, login: usize, role: usize) -> bool {
        let login = self.login(login);
        self.version >= 16
            && self.asks(&format!(
                "SELECT EXISTS (SELECT FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.grantor AND g.rolname = 'keywright_grantor'
                  WHERE roleid = '{REAL}r{role}'::regrole AND member = '{REAL}{login}'::regrole)"
            ))
    }

    fn customer_grants(
        &mut self,
        login: usize,
        role: usize,
        admin: bool,
        inherit: Option<bool>,
        set: Option<bool>,
    ) {
        let name = self.login(login);
        let with_admin = if admin { " WITH ADMIN OPTION" } else { "" };
        if self.version < 16 {
            // A plain grant of what is there already leaves no trace.
            let unseen = !admin && self.is_member(REAL, login, role) && !self.is_member(TWIN, login, role);
            self.run(&format!("GRANT {REAL}r{role} TO {REAL}{name}{with_admin}"));
            if !unseen {
                self.run(&format!("GRANT {TWIN}r{role} TO {TWIN}{name}{with_admin}"));
            }
            return;
        }
        // What is not said is taken from the member, which may be NOINHERIT for us: the twin is told.
        let default = self.asks(&format!("SELECT rolinherit FROM pg_roles WHERE rolname = '{REAL}{name}'"));
        let twin_inherit = inherit.or((!self.is_member(TWIN, login, role)).then_some(default));
        for (prefix, inherit) in [(REAL, inherit), (TWIN, twin_inherit)] {
            let options: Vec<String> = [
                admin.then(|| "ADMIN TRUE".to_owned()),
                inherit.map(|inherit| format!("INHERIT {inherit}")),
                set.map(|set| format!("SET {set}")),
            ]
            .into_iter()
            .flatten()
            .collect();
            let with =
                if options.is_empty() { String::new() } else { format!(" WITH {}", options.join(", ")) };
            self.run(&format!("GRANT {prefix}r{role} TO {prefix}{name}{with}"));
        }
    }

    /// After all services are gone, everything is as the customer alone would have made it.
    fn end(&mut self) {
        for client in &mut self.clients {
            client
                .batch_execute(
                    "SELECT keywright.revoke_authenticator(service) FROM keywright.list_authenticators()",
                )
                .unwrap();
        }
        let databases = self.databases.clone();
        let databases: Vec<&str> = databases.iter().map(String::as_str).collect();
        let real = catalog(&mut self.clients[0], REAL, &databases);
        let twin = catalog(&mut self.clients[0], TWIN, &databases);
        assert_eq!(real, twin);
        assert!(!self.made("membership", 0, None) && !self.made("membership", 1, None));
    }
}

fn twins(name: &str) -> (Twins, [Database; 2]) {
    let databases = [Database::new(&format!("{name}_one")), Database::new(&format!("{name}_two"))];
    let mut clients = [databases[0].connect(), databases[1].connect()];
    let version = version(&mut clients[0]);
    let names = [databases[0].name.clone(), databases[1].name.clone()];
    (Twins { clients, databases: names, version, renamed: [false, false], made_anew: false }, databases)
}

/// KEYWRIGHT_SEQUENCES says how many; 200 in the suite.
#[test]
fn the_customers_catalog_is_what_the_customer_made_it() {
    let (twins, _databases) = twins("twins");
    let twins = std::cell::RefCell::new(twins);
    let cases = std::env::var("KEYWRIGHT_SEQUENCES").map_or(200, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let result = TestRunner::new(config).run(
        &prop::collection::vec(prop::option::weighted(0.9999, step()), 30),
        |steps| {
            let mut twins = twins.borrow_mut();
            twins.begin();
            for step in steps.iter().flatten() {
                twins.take(step);
            }
            twins.end();
            Ok(())
        },
    );
    if let Err(error) = result {
        panic!("{error}");
    }
    let mut twins = twins.into_inner();
    drop_roles(&mut twins.clients[0], REAL);
    drop_roles(&mut twins.clients[0], TWIN);
}
