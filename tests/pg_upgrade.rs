//! pg_upgrade from another version of Postgres (PG_OLD_BINDIR) to the one under test.

use keywright_tests::rooms::{LISTED, catalog, fill, rows};
use keywright_tests::{Cluster, ensure, environment, is_active, one};
use postgres::Client;

/// What the roles of services are members of. Granted twice, it is there twice.
const MEMBERSHIPS: &str = "SELECT string_agg(roleid::regrole || ' to ' || member::regrole, ', ' ORDER BY roleid::regrole::text, member::regrole::text)
   FROM pg_auth_members WHERE member::regrole::text LIKE 'app%'";
const STATUS: &str = "SELECT count(*) FROM keywright.authenticator_status()";

/// PostgreSQL 15.20 notes a version with each column of any table, which 18.6, the newest 18 that can be had here, does not know:
/// its pg_upgrade fails on every cluster that has tables. Without it, the columns are as 15.19 would have made them.
const UNVERSIONED: &str = "SET allow_system_table_mods = on;
   UPDATE pg_attribute SET attoptions = nullif(ARRAY(SELECT o FROM unnest(attoptions) AS o WHERE o NOT LIKE 'pg\\_attver=%'), '{}') WHERE attoptions IS NOT NULL";

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[test]
fn everything_goes_along() {
    let old = Cluster::of(&environment("PG_OLD_BINDIR"), 5690);
    let mut client = old.connect("postgres");
    client.batch_execute("CREATE DATABASE first").unwrap();
    let old_version: i32 = one(&mut client, "SELECT current_setting('server_version_num')::int");
    let mut first = old.connect("first");
    client.batch_execute("CREATE EXTENSION keywright").unwrap();
    first.batch_execute("CREATE EXTENSION keywright").unwrap();
    for client in [&mut client, &mut first] {
        client
            .batch_execute("SELECT keywright.ensure_user('more-' || n, '') FROM generate_series(1, 40) AS n")
            .unwrap();
    }
    let mut tokens = fill(&mut client);
    let first_tokens = fill(&mut first);
    client
        .batch_execute(
            "CREATE ROLE app LOGIN; CREATE ROLE app2 LOGIN; CREATE ROLE anon; CREATE ROLE web_user; CREATE ROLE customers;
             GRANT customers TO app; GRANT web_user TO app2;
             REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
             SELECT keywright.grant_authenticator('rest', 'app', 'anon', '{web_user}');
             SELECT keywright.grant_authenticator('rest2', 'app2', 'anon', '{web_user}');
             SELECT keywright.allow_authenticator('app', '{anon}');
             SELECT keywright.set_postgrest_setting('rest', 'db_pool', '7');
             CREATE ROLE verifier; CREATE ROLE auditor; CREATE ROLE operator;
             SELECT keywright.grant_access('verifier', 'verifier'), keywright.grant_access('auditor', 'auditor'),
                    keywright.grant_access('operator', 'admin'), keywright.grant_access('app', 'authenticator');",
        )
        .unwrap();
    first
        .batch_execute(
            "SELECT keywright.grant_authenticator('rest', 'app', 'anon'); SELECT keywright.grant_access('auditor', 'auditor')",
        )
        .unwrap();
    let used = &tokens[0].0[4..14];
    client.batch_execute(&format!("SELECT keywright.touch_api_key('{used}')")).unwrap();
    // Since the last vacuum, and dead a moment before.
    let leaked = tokens[3].0.clone();
    client.batch_execute(&format!("SELECT keywright.revoke_leaked_api_key('{leaked}')")).unwrap();
    tokens[3].1 = false;
    assert_eq!(one::<i64>(&mut client, STATUS), 0);
    let state = [LISTED, MEMBERSHIPS].map(|sql| one::<String>(&mut client, sql));
    let before = [rows(&mut client), rows(&mut first)];
    for client in [&mut client, &mut first, &mut old.connect("template1")] {
        client.batch_execute(UNVERSIONED).unwrap();
    }
    drop((client, first));
    old.stop("fast");

    let new = Cluster::of(&environment("PG_BINDIR"), 5691);
    new.stop("fast");
    new.pg_upgrade_from(&old);
    new.start();
    let mut client = new.connect("postgres");
    let mut first = new.connect("first");

    // Every row as it was: users, keys, grants, events, usage.
    for (now, then) in [rows(&mut client), rows(&mut first)].iter().zip(&before) {
        assert!(then.len() > 200, "{}", then.len());
        assert_eq!(then.symmetric_difference(now).collect::<Vec<_>>(), [""; 0]);
    }
    for (client, tokens) in [(&mut client, &tokens), (&mut first, &first_tokens)] {
        for (token, active) in tokens {
            assert_eq!(is_active(client, token), *active, "{token}");
        }
    }
    assert_eq!([LISTED, MEMBERSHIPS].map(|sql| one::<String>(&mut client, sql)), state);
    assert!(one::<bool>(
        &mut client,
        &format!(
            "SELECT last_used_at IS NOT NULL FROM keywright.key_usage() WHERE key_id = '{}'",
            &tokens[0].0[4..14]
        )
    ));

    // Access is given and can be taken.
    client.batch_execute("SET SESSION AUTHORIZATION verifier").unwrap();
    assert!(is_active(&mut client, &tokens[0].0));
    assert!(client.batch_execute("SELECT keywright.list_users()").is_err());
    client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    assert!(one::<bool>(&mut client, "SELECT keywright.revoke_access('verifier', 'verifier')"));
    client.batch_execute("SET SESSION AUTHORIZATION verifier").unwrap();
    assert!(client.batch_execute("SELECT keywright.verify_api_key('x')").is_err());
    client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();

    // Services: in sync, or, where memberships are told apart by who granted them and were not before, to be granted as ours.
    let version: i32 = one(&mut client, "SELECT current_setting('server_version_num')::int");
    let newly = version >= 160_000 && old_version < 160_000;
    let drift = texts(
        &mut client,
        "SELECT concat_ws(' ', service, code, object) FROM keywright.authenticator_status() ORDER BY 1",
    );
    let missing = [
        "rest membership_missing anon to app",
        "rest membership_missing web_user to app",
        "rest2 membership_missing anon to app2",
        "rest2 membership_missing web_user to app2",
    ];
    assert_eq!(drift, if newly { &missing[..] } else { &[] });
    // Undone is what was granted in the old cluster, and what the customer had stays.
    client.batch_execute("SELECT keywright.revoke_authenticator('rest2')").unwrap();
    let memberships = |client: &mut Client| one::<String>(client, MEMBERSHIPS);
    assert_eq!(memberships(&mut client), "anon to app, customers to app, web_user to app, web_user to app2");
    for client in [&mut client, &mut first] {
        client.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
        assert_eq!(one::<i64>(client, STATUS), 0);
    }
    assert_eq!(memberships(&mut client), "anon to app, customers to app, web_user to app, web_user to app2");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.reconcile_authenticators()"), 0);
    client.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
    assert_eq!(memberships(&mut client), "anon to app, customers to app, web_user to app2");
    first.batch_execute("SELECT keywright.revoke_authenticator('rest')").unwrap();
    assert_eq!(memberships(&mut client), "customers to app, web_user to app2");
    assert!(one::<bool>(&mut client, "SELECT bool_and(rolinherit) FROM pg_roles WHERE rolname LIKE 'app%'"));
    assert!(!one::<bool>(
        &mut client,
        "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'keywright_grantor')"
    ));

    // It goes on: keys are made, an old one is revoked.
    let kept = ensure(
        &mut client,
        &format!(
            "keywright.ensure_api_key('operator', 'key-0', '{}', '{{project:read}}', '{{project:p1}}')",
            tokens[0].0
        ),
    );
    assert_eq!(kept.outcome, "kept");
    client.batch_execute(&format!("SELECT keywright.revoke_api_key('{}')", &tokens[0].0[4..14])).unwrap();
    assert!(!is_active(&mut client, &tokens[0].0));
    let auditors = "SELECT has_function_privilege('auditor', 'keywright.version()', 'EXECUTE')";
    assert!(one::<bool>(&mut first, auditors) && one::<bool>(&mut client, auditors));
    for client in [&mut client, &mut first] {
        client
            .batch_execute("SELECT keywright.revoke_access(grantee, capability) FROM keywright.list_access()")
            .unwrap();
    }
    // And then they are as a new one.
    new.connect("postgres").batch_execute("CREATE DATABASE made").unwrap();
    let mut made = new.connect("made");
    made.batch_execute("CREATE EXTENSION keywright").unwrap();
    let made = catalog(&mut made);
    for client in [&mut client, &mut first] {
        let moved = catalog(client);
        let differ: Vec<_> = made.iter().filter(|fact| !moved.contains(fact)).collect();
        assert_eq!((differ, moved.len()), (vec![], made.len()));
    }
}
