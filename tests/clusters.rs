//! More than one server: a standby, a restored cluster, and nodes that share what they want by logical replication.

use keywright_tests::{Cluster, Database, one, program, succeed, wait_for};
use postgres::Client;

fn code(client: &mut Client, sql: &str) -> String {
    match client.query(sql, &[]) {
        Ok(_) => "00000".into(),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).code().code().into(),
    }
}

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[test]
fn a_standby_answers_and_refuses_to_write() {
    let primary = Cluster::new(5440, "-c wal_level=replica");
    let mut client = primary.connect("postgres");
    client
        .batch_execute(
            "CREATE EXTENSION keywright; CREATE ROLE app LOGIN; CREATE ROLE app2 LOGIN; CREATE ROLE anon;
             SELECT keywright.grant_authenticator('rest', 'app', 'anon');
             SELECT keywright.set_postgrest_setting('rest', 'db_pool', '5'); SELECT keywright.grant_access('app', 'authenticator')",
        )
        .unwrap();
    let standby = Cluster::standby(5441, Some(&primary));
    let mut reader = standby.connect("postgres");
    wait_for(&mut reader, "SELECT pg_is_in_recovery() AND count(*) = 1 FROM keywright.list_authenticators()");
    assert!(
        texts(&mut reader, "SELECT code FROM keywright.preflight_authenticator('app', 'anon')").is_empty()
    );
    assert_eq!(
        texts(&mut reader, "SELECT code FROM keywright.preflight_authenticator('app', 'nobody')"),
        ["role_missing"]
    );
    assert!(texts(&mut reader, "SELECT code FROM keywright.authenticator_status()").is_empty());
    let metrics = "SELECT name || labels || value FROM keywright.metrics()";
    assert_eq!(texts(&mut reader, metrics), texts(&mut client, metrics));
    assert!(
        one::<String>(&mut reader, "SELECT keywright.render_postgrest_config('rest', '{h}')")
            .contains("db-pool = 5")
    );
    // What is as it should be needs no write; anything else is refused, and nothing is left behind.
    for (sql, expected) in [
        ("SELECT * FROM keywright.grant_authenticator('rest', 'app', 'anon')", "00000"),
        ("SELECT * FROM keywright.reconcile_authenticators()", "00000"),
        ("SELECT * FROM keywright.revoke_authenticator('nobody')", "00000"),
        ("SELECT * FROM keywright.grant_authenticator('rest', 'app2', 'anon')", "25006"),
        ("SELECT * FROM keywright.revoke_authenticator('rest')", "25006"),
        ("SELECT keywright.set_postgrest_setting('rest', 'db_pool', '5')", "00000"),
        ("SELECT keywright.set_postgrest_setting('rest', 'db_pool', '6')", "25006"),
        ("SELECT keywright.allow_authenticator('app', '{anon}')", "25006"),
    ] {
        assert_eq!(code(&mut reader, sql), expected, "{sql}");
    }
    // Drift that the standby sees is the primary's to mend.
    client.batch_execute("ALTER ROLE app INHERIT").unwrap();
    wait_for(&mut reader, "SELECT count(*) = 1 FROM keywright.authenticator_status()");
    assert_eq!(code(&mut reader, "SELECT * FROM keywright.reconcile_authenticators()"), "25006");
    // Promoted, it does.
    reader.batch_execute("SELECT pg_promote()").unwrap();
    wait_for(&mut reader, "SELECT NOT pg_is_in_recovery()");
    assert_eq!(
        texts(&mut reader, "SELECT action FROM keywright.reconcile_authenticators()"),
        ["set noinherit"]
    );
    assert!(texts(&mut reader, "SELECT code FROM keywright.authenticator_status()").is_empty());
}

#[test]
fn two_databases_share_a_role() {
    let cluster = Cluster::new(5445, "");
    cluster.connect("postgres").batch_execute("CREATE DATABASE shared_one").unwrap();
    cluster.connect("postgres").batch_execute("CREATE DATABASE shared_two").unwrap();
    let (mut a, mut b) = (cluster.connect("shared_one"), cluster.connect("shared_two"));
    for client in [&mut a, &mut b] {
        client.batch_execute("CREATE EXTENSION keywright").unwrap();
    }
    a.batch_execute("CREATE ROLE kws_app LOGIN; CREATE ROLE kws_anon").unwrap();
    let grant = "SELECT keywright.grant_authenticator('rest', 'kws_app', 'kws_anon')";
    let state = |client: &mut Client| -> (bool, bool) {
        let row = client
            .query_one("SELECT pg_has_role('kws_app', 'kws_anon', 'MEMBER'), rolinherit FROM pg_roles WHERE rolname = 'kws_app'", &[])
            .unwrap();
        (row.get(0), row.get(1))
    };
    for (first, last) in [(0, 1), (1, 0)] {
        a.batch_execute(grant).unwrap();
        b.batch_execute(grant).unwrap();
        let clients = [&mut a, &mut b];
        let rows = clients[first].query("SELECT outcome, reason FROM keywright.revoke_authenticator('rest') WHERE action <> 'revoke connect'", &[]).unwrap();
        for row in rows {
            assert_eq!(row.get::<_, &str>(0), "left");
            assert!(row.get::<_, &str>(1).starts_with("service \"rest\" of database \"shared_"));
        }
        assert_eq!(state(clients[last]), (true, false));
        clients[last].batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
        assert_eq!(state(clients[first]), (false, true));
    }
    // A database that is dropped needs nothing any more; the next reconcile of another undoes what was granted for it.
    b.batch_execute(grant).unwrap();
    a.batch_execute(
        "SELECT keywright.grant_authenticator('other', 'kws_app', 'kws_anon', noinherit => false)",
    )
    .unwrap();
    drop(b);
    a.batch_execute("DROP DATABASE shared_two WITH (FORCE)").unwrap();
    assert_eq!(state(&mut a), (true, false));
    let rows =
        a.query("SELECT service, action, outcome FROM keywright.reconcile_authenticators()", &[]).unwrap();
    let rows: Vec<(Option<&str>, &str, &str)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(rows, [(None, "set inherit", "undone")]);
    assert_eq!(state(&mut a), (true, true));
    a.batch_execute("SELECT keywright.revoke_authenticator('other')").unwrap();
    assert_eq!(state(&mut a), (false, true));
}

/// A dump of a whole cluster restored into another, where roles and databases have other numbers.
#[test]
fn a_restored_cluster_knows_what_was_granted() {
    let database = Database::new("restored");
    let mut client = database.connect();
    client
        .batch_execute(
            "DROP ROLE IF EXISTS kwr_app, kwr_anon, kwr_other;
             CREATE ROLE kwr_other; CREATE ROLE kwr_anon; CREATE ROLE kwr_app LOGIN;
             REVOKE CONNECT ON DATABASE keywright_test_restored FROM PUBLIC;
             GRANT kwr_other TO kwr_app;
             SELECT keywright.grant_authenticator('rest', 'kwr_app', 'kwr_anon')",
        )
        .unwrap();
    let target = Cluster::new(5442, "");
    let mut restored = target.connect("postgres");
    // Other numbers than where it comes from.
    restored.batch_execute("CREATE ROLE a; CREATE ROLE b; CREATE ROLE c").unwrap();
    let roles =
        String::from_utf8(succeed(program("pg_dumpall").arg("--roles-only").arg("--username=postgres")))
            .unwrap();
    let roles: Vec<&str> =
        roles.lines().filter(|line| line.contains("kwr_") || line.contains("keywright_grantor")).collect();
    restored.batch_execute(&roles.join("\n")).unwrap();
    let dump = succeed(program("pg_dump").args(["--create", "--username=postgres", &database.name]));
    let mut psql = program("psql");
    psql.args([
        "--no-psqlrc",
        "--quiet",
        "--set",
        "ON_ERROR_STOP=1",
        "--dbname",
        &target.conninfo("postgres"),
    ]);
    let mut child =
        psql.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), &dump).unwrap();
    assert!(child.wait().unwrap().success());

    let mut restored = target.connect(&database.name);
    assert!(texts(&mut restored, "SELECT s::text FROM keywright.authenticator_status() AS s").is_empty());
    let undone =
        texts(&mut restored, "SELECT action || ': ' || outcome FROM keywright.revoke_authenticator('rest')");
    assert_eq!(undone, ["revoke connect: undone", "set inherit: undone", "revoke role: undone"]);
    let left = texts(
        &mut restored,
        "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = 'kwr_app'::regrole",
    );
    assert_eq!(left, ["kwr_other"]);
    assert!(one::<bool>(&mut restored, "SELECT rolinherit FROM pg_roles WHERE rolname = 'kwr_app'"));
    // And here it is still as it was.
    assert!(texts(&mut client, "SELECT code FROM keywright.authenticator_status()").is_empty());
    client
        .batch_execute(
            "SELECT keywright.revoke_authenticator('rest'); DROP ROLE kwr_app, kwr_anon, kwr_other",
        )
        .unwrap();
}

/// What is wanted arrives by logical replication; each node grants its own, and keeps its own ledger.
#[test]
fn each_node_grants_what_is_replicated() {
    let nodes = [Cluster::new(5443, "-c wal_level=logical"), Cluster::new(5444, "-c wal_level=logical")];
    let [mut here, mut there] = [nodes[0].connect("postgres"), nodes[1].connect("postgres")];
    // Roles are each node's own, and have other numbers.
    there.batch_execute("CREATE ROLE first; CREATE ROLE second").unwrap();
    for node in [&mut here, &mut there] {
        node.batch_execute(
            "CREATE EXTENSION keywright; CREATE ROLE app LOGIN; CREATE ROLE app2 LOGIN; CREATE ROLE anon; CREATE ROLE web_user",
        )
        .unwrap();
    }
    here.batch_execute(
        "SELECT keywright.grant_authenticator('before', 'app', 'anon');
         CREATE PUBLICATION wanted FOR TABLE keywright.authenticators, keywright.postgrest_settings",
    )
    .unwrap();
    there
        .batch_execute(&format!(
            "CREATE SUBSCRIPTION wanted CONNECTION '{}' PUBLICATION wanted",
            nodes[0].conninfo("postgres")
        ))
        .unwrap();
    let is_member = |client: &mut Client, login: &str, role: &str| -> bool {
        one(
            client,
            &format!(
                "SELECT EXISTS (SELECT FROM pg_auth_members WHERE member = '{login}'::regrole AND roleid = '{role}'::regrole)"
            ),
        )
    };
    let status =
        "SELECT concat_ws(' ', service, code, object) FROM keywright.authenticator_status() ORDER BY 1";

    wait_for(&mut there, "SELECT count(*) = 1 FROM keywright.list_authenticators()");
    assert_eq!(
        texts(&mut there, status),
        ["before inherits_again app", "before membership_missing anon to app", "before not_noted app"]
    );
    there.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert!(texts(&mut there, status).is_empty() && is_member(&mut there, "app", "anon"));

    // Granted, moved, configured, and revoked there.
    here.batch_execute(
        "SELECT keywright.grant_authenticator('rest', 'app', 'anon', '{web_user}');
         SELECT keywright.set_postgrest_setting('rest', 'db_pool', '7')",
    )
    .unwrap();
    wait_for(&mut there, "SELECT count(*) = 2 FROM keywright.list_authenticators()");
    wait_for(&mut there, "SELECT keywright.render_postgrest_config('rest', '{h}') ~ 'db-pool = 7'");
    // Capabilities are the node's own.
    assert_eq!(
        texts(&mut there, "SELECT code FROM keywright.authenticator_status() WHERE code = 'settings_unread'")
            .len(),
        1
    );
    there.batch_execute("SELECT keywright.grant_access('app', 'authenticator')").unwrap();
    there.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert!(texts(&mut there, status).is_empty() && is_member(&mut there, "app", "web_user"));
    here.batch_execute("SELECT keywright.grant_authenticator('rest', 'app2', 'anon')").unwrap();
    wait_for(&mut there, "SELECT bool_or(connect_as = 'app2') FROM keywright.list_authenticators()");
    there.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert!(is_member(&mut there, "app2", "anon") && !is_member(&mut there, "app", "web_user"));
    assert!(is_member(&mut there, "app", "anon"), "the other service needs it");
    here.batch_execute("SELECT keywright.revoke_authenticator(service) FROM keywright.list_authenticators()")
        .unwrap();
    wait_for(&mut there, "SELECT count(*) = 0 FROM keywright.list_authenticators()");
    assert!(texts(&mut there, status).iter().all(|row| row.contains("left_over")));
    there.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    assert!(texts(&mut there, status).is_empty());
    for node in [&mut here, &mut there] {
        let left: i64 =
            one(node, "SELECT count(*) FROM pg_auth_members WHERE member::regrole::text LIKE 'app%'");
        assert_eq!(left, 0);
        assert!(!one::<bool>(
            node,
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'keywright_grantor')"
        ));
    }
    there.batch_execute("DROP SUBSCRIPTION wanted").unwrap();
}
