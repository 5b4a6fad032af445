//! From a released version to this one: the catalog ends as a new installation's, and everything in it lives on.

use keywright_tests::rooms::{LISTED, catalog, fill, rows};
use keywright_tests::{Cluster, Database, is_active, one, program, succeed, wait_for};
use postgres::Client;
use std::collections::BTreeSet;

/// The first release, from which the chain of scripts begins.
const FIRST: &str = "CREATE EXTENSION keywright VERSION '0.1.0'";
const UPDATE: &str = "ALTER EXTENSION keywright UPDATE";
const IMPORT: &str = "import_api_key(text,text,text,bytea,timestamptz,timestamptz,text[],text[])";
const THIS: &str = env!("CARGO_PKG_VERSION");

/// The SQLSTATE, 00000 for none.
fn code(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => "00000".into(),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).code().code().into(),
    }
}

fn differences(one: &[String], other: &[String]) -> Vec<String> {
    let lacks = |these: &[String], those: &[String], side: &str| -> Vec<String> {
        these.iter().filter(|fact| !those.contains(fact)).map(|fact| format!("{side} {fact}")).collect()
    };
    [lacks(one, other, "only new:"), lacks(other, one, "only upgraded:")].concat()
}

/// More in the rooms than `fill` leaves: what is the cluster's, and so has names of its own in each test.
fn fill_all(client: &mut Client, prefix: &str) -> Vec<(String, bool)> {
    let tokens = fill(client);
    client
        .batch_execute(&format!(
            "CREATE ROLE {prefix}_app LOGIN; CREATE ROLE {prefix}_anon;
             SELECT keywright.grant_authenticator('rest', '{prefix}_app', '{prefix}_anon');
             SELECT keywright.allow_authenticator('{prefix}_app', '{{{prefix}_anon}}');
             SELECT keywright.set_postgrest_setting('rest', 'db_pool', '7');
             SELECT keywright.touch_api_key('{}');
             SELECT keywright.revoke_leaked_api_key('{}');
             SELECT keywright.apply('{{\"manager\": \"plane-b\", \"users\": [{{\"username\": \"declared\", \"kind\": \"service\", \"email\": \"\"}}]}}')",
            &tokens[0].0[4..14],
            tokens[1].0
        ))
        .unwrap();
    for capability in
        ["authenticator", "requester", "verifier", "issuer", "auditor", "reconciler", "maintainer", "admin"]
    {
        client
            .batch_execute(&format!(
                "CREATE ROLE {prefix}_{capability}; SELECT keywright.grant_access('{prefix}_{capability}', '{capability}')"
            ))
            .unwrap();
    }
    let mut tokens = tokens;
    tokens[1].1 = false;
    tokens
}

/// Who but the owner may call a function, by pg_proc.
fn callers(client: &mut Client, function: &str) -> String {
    let sql = format!(
        "SELECT coalesce(string_agg(coalesce(r.rolname, 'PUBLIC'), ' ' ORDER BY r.rolname), '') FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
           LEFT JOIN pg_roles AS r ON r.oid = a.grantee WHERE p.oid = 'keywright.{function}'::regprocedure AND a.grantee <> p.proowner"
    );
    one(client, &sql)
}

/// Those that are not internal.
fn routines(client: &mut Client) -> BTreeSet<String> {
    client
        .query(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace AND proname !~ '^_'",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// A catalog without who was given what by grant_access: a new installation has given nothing.
fn as_made(client: &mut Client) -> Vec<String> {
    client
        .batch_execute("SELECT keywright.revoke_access(grantee, capability) FROM keywright.list_access()")
        .unwrap();
    catalog(client)
}

#[test]
fn an_upgraded_catalog_is_a_new_ones_and_all_data_lives_on() {
    let cluster = Cluster::new(5681, "-c wal_level=replica");
    let mut client = cluster.connect("postgres");
    for name in ["new", "restored"] {
        client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    }
    client.batch_execute(FIRST).unwrap();
    let tokens = fill_all(&mut client, "up");
    // Gone without a word; and what an upgrade that drops a function leaves in the ledger.
    client
        .batch_execute(
            "CREATE ROLE up_gone; SELECT keywright.grant_access('up_gone', 'auditor'); DROP OWNED BY up_gone;
             INSERT INTO keywright.access_privileges VALUES ('up_auditor', 'ROUTINE keywright.was_there(text)')",
        )
        .unwrap();
    client
        .batch_execute("CREATE ROLE up_dropped; SELECT keywright.grant_access('up_dropped', 'auditor')")
        .unwrap();
    let dropped: String =
        one(&mut client, "SELECT '(' || oid || ',' FROM pg_roles WHERE rolname = 'up_dropped'");
    client.batch_execute("DROP OWNED BY up_dropped; DROP ROLE up_dropped").unwrap();
    let listed: String = one(&mut client, LISTED);
    let dump = std::env::temp_dir().join(format!("keywright-{}-first.dump", std::process::id()));
    succeed(
        program("pg_dump")
            .args(["--format=custom", "--dbname", &cluster.conninfo("postgres"), "--file"])
            .arg(&dump),
    );
    let before = rows(&mut client);
    let first = routines(&mut client);

    // Somebody's defaults, and another superuser: neither is seen afterwards.
    let standby = Cluster::standby(5682, Some(&cluster));
    let mut reader = standby.connect("postgres");
    assert!(is_active(&mut reader, &tokens[0].0));
    client
        .batch_execute(
            "CREATE ROLE up_dba SUPERUSER; CREATE ROLE up_favoured;
             ALTER DEFAULT PRIVILEGES FOR ROLE up_dba GRANT EXECUTE ON ROUTINES TO up_favoured;
             ALTER DEFAULT PRIVILEGES FOR ROLE up_dba GRANT SELECT ON TABLES TO up_favoured;
             SET SESSION AUTHORIZATION up_dba",
        )
        .unwrap();
    client.batch_execute(UPDATE).unwrap();
    client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    let installed = "SELECT extversion FROM pg_extension WHERE extname = 'keywright'";
    assert_eq!(one::<String>(&mut client, installed), THIS);
    assert_eq!(one::<String>(&mut client, "SELECT keywright.version()"), THIS);

    // Every row is there as it was, with a column that is new, but those of a role and of a function that are gone; new are the privileges of
    // new functions, and that they were given.
    let with_new_column = |row: String| match row.strip_suffix(')') {
        Some(row) if row.starts_with("users: ") => format!("{row},)"),
        _ => row,
    };
    let before: BTreeSet<String> = before.into_iter().map(with_new_column).collect();
    let after = rows(&mut client);
    let lost: Vec<_> = before.difference(&after).collect();
    let gone =
        |row: &str| row.starts_with("access_") && (row.contains("was_there") || row.contains(&dropped));
    assert!(lost.len() > 2 && lost.iter().all(|row| gone(row)), "{lost:?}");
    assert!(!after.iter().any(|row| gone(row)));
    let added: Vec<_> = after.difference(&before).collect();
    let new: Vec<_> = routines(&mut client).difference(&first).cloned().collect();
    assert!(new.contains(&"keywright.version()".to_owned()));
    assert!(
        added.iter().all(|row| {
            (row.starts_with("access_privileges: ")
                && new.iter().any(|routine| row.contains(&format!("ROUTINE {routine}"))))
                || (row.starts_with("audit_events: ") && row.contains("access_"))
        }),
        "{added:?}"
    );
    assert_eq!(one::<String>(&mut client, LISTED), listed);
    for (token, active) in &tokens {
        assert_eq!(is_active(&mut client, token), *active, "{token}");
    }
    assert!(one::<bool>(&mut client, "SELECT count(*) = 0 FROM keywright.authenticator_status()"));
    assert_eq!(
        code(
            &mut client,
            "UPDATE keywright.audit_events SET name = '' WHERE true; DELETE FROM keywright.audit_events"
        ),
        "42501"
    );

    // Who holds a capability may call what it has now; who lost all may not.
    assert_eq!(callers(&mut client, "version()"), "up_admin up_auditor up_maintainer up_reconciler");
    assert_eq!(
        callers(&mut client, "help(text)"),
        "up_admin up_auditor up_authenticator up_issuer up_maintainer up_reconciler up_requester up_verifier"
    );
    assert_eq!(callers(&mut client, IMPORT), "up_admin up_issuer up_reconciler");
    assert_eq!(callers(&mut client, "_admit(text[])"), "");
    client.batch_execute("SET SESSION AUTHORIZATION up_auditor").unwrap();
    assert_eq!(one::<String>(&mut client, "SELECT keywright.version()"), THIS);
    client.batch_execute("SET SESSION AUTHORIZATION up_verifier").unwrap();
    assert_eq!(code(&mut client, "SELECT keywright.version()"), "42501");
    client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    // The standby has it when it has replayed it.
    wait_for(
        &mut reader,
        "SELECT count(*) = 1 FROM pg_proc WHERE proname = 'version' AND pronamespace = 'keywright'::regnamespace",
    );
    assert_eq!(one::<String>(&mut reader, "SELECT keywright.version()"), THIS);
    for (token, active) in &tokens {
        assert_eq!(is_active(&mut reader, token), *active, "{token}");
    }

    // A dump of the upgraded database has these privileges: they are not taken for the extension's own.
    let schema =
        succeed(program("pg_dump").args(["--schema-only", "--dbname", &cluster.conninfo("postgres")]));
    let schema = String::from_utf8(schema).unwrap();
    for role in ["up_admin", "up_auditor", "up_maintainer", "up_reconciler"] {
        assert!(schema.contains(&format!("GRANT ALL ON FUNCTION keywright.version() TO {role};")), "{role}");
    }

    // A dump of the old one, restored where this version is: given again, once.
    succeed(
        program("pg_restore").args(["--exit-on-error", "--dbname", &cluster.conninfo("restored")]).arg(&dump),
    );
    std::fs::remove_file(&dump).unwrap();
    let mut restored = cluster.connect("restored");
    for (token, active) in &tokens {
        assert_eq!(is_active(&mut restored, token), *active, "{token}");
    }
    assert_eq!(one::<String>(&mut restored, installed), THIS);
    assert_eq!(callers(&mut restored, "version()"), "");
    let again = "SELECT keywright.grant_access(grantee, capability) FROM keywright.list_access()";
    restored.batch_execute(again).unwrap();
    assert_eq!(callers(&mut restored, "version()"), "up_admin up_auditor up_maintainer up_reconciler");

    // All that was given can be taken, and then nothing tells the three apart.
    let mut new = cluster.connect("new");
    new.batch_execute("CREATE EXTENSION keywright").unwrap();
    let new = catalog(&mut new);
    assert!(new.len() > 900, "{}", new.len());
    assert_eq!(differences(&new, &as_made(&mut client)), [""; 0]);
    assert_eq!(differences(&new, &as_made(&mut restored)), [""; 0]);
}

/// The library of this version, and the schema of the first: installed, but not upgraded yet.
#[test]
fn this_library_serves_the_schema_of_the_first_release() {
    // docs/errors.md has them. maintain can not be called in a transaction block, and a trigger function not at all.
    const DOCUMENTED: [&str; 13] = [
        "00000", "22023", "23503", "23505", "23514", "28000", "42501", "42704", "42710", "42939", "55000",
        "2D000", "39P01",
    ];
    let cluster = Cluster::new(5683, "-c shared_preload_libraries=keywright");
    let mut client = cluster.connect("postgres");
    client.batch_execute(FIRST).unwrap();
    let tokens = fill_all(&mut client, "old");
    for (token, active) in &tokens {
        assert_eq!(is_active(&mut client, token), *active, "{token}");
    }
    // Every function, with nothing, with the defaults, and in the manner of one who holds a token.
    const CALLS: &str = "
        SELECT CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE 'SELECT ' END || p.oid::regproc || '(' || a.arguments || ')'
          FROM pg_proc AS p CROSS JOIN LATERAL (VALUES
            ((SELECT coalesce(string_agg('NULL::' || format_type(t, NULL), ', ' ORDER BY n), '') FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, n))),
            ((SELECT coalesce(string_agg(CASE format_type(t, NULL) WHEN 'text' THEN quote_literal($1) WHEN 'text[]' THEN quote_literal(ARRAY[$1]) ELSE 'NULL' END || '::' || format_type(t, NULL), ', ' ORDER BY n), '')
                FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, n) WHERE n <= p.pronargs - p.pronargdefaults))) AS a (arguments)
         WHERE p.pronamespace = 'keywright'::regnamespace AND p.proname NOT LIKE '\\_%'";
    let mut calls = 0;
    for word in [tokens[0].0.as_str(), "alice", "edge-1", "rest"] {
        let texts: Vec<String> =
            client.query(CALLS, &[&word]).unwrap().iter().map(|row| row.get(0)).collect();
        for call in texts {
            client.batch_execute("BEGIN").unwrap();
            let code = code(&mut client, &call);
            assert!(DOCUMENTED.contains(&code.as_str()), "{call}: {code}");
            client.batch_execute("ROLLBACK").unwrap();
            calls += 1;
        }
    }
    assert!(calls > 600, "{calls}");
    client.batch_execute("CALL keywright.maintain()").unwrap();
    assert_eq!(
        one::<String>(
            &mut client,
            "SELECT labels ->> 'version' FROM keywright.metrics() WHERE name = 'keywright_info'"
        ),
        "0.1.0"
    );
    let warned = cluster.log();
    assert!(!warned.contains("XX000") && !warned.contains("PANIC"), "{warned}");
}

/// The upgrade waits for a transaction that writes and goes on to write elsewhere, and neither ends in a deadlock.
#[test]
fn a_transaction_goes_on_writing_while_the_upgrade_waits_for_it() {
    let database = Database::empty("upgraded_meanwhile", "UTF8");
    let mut client = database.connect();
    client.batch_execute(FIRST).unwrap();
    fill(&mut client);
    let mut writer = database.connect();
    writer.batch_execute("BEGIN; SELECT keywright.mint_gateway_key('meanwhile')").unwrap();
    let mut hasty = database.connect();
    hasty.batch_execute("SET lock_timeout = '300ms'").unwrap();
    let error = hasty.batch_execute(UPDATE).unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "55P03");
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| database.connect().batch_execute(UPDATE).unwrap());
        let waits = "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                      WHERE query = 'ALTER EXTENSION keywright UPDATE' AND NOT granted)";
        wait_for(&mut client, waits);
        writer.batch_execute("SELECT keywright.mint_api_key('alice', 'meanwhile')").unwrap();
        wait_for(&mut client, waits);
        writer.batch_execute("SELECT keywright.ensure_user('meanwhile', '')").unwrap();
        writer.batch_execute("COMMIT").unwrap();
        upgrade.join().unwrap();
    });
    let version: String = one(&mut client, "SELECT extversion FROM pg_extension WHERE extname = 'keywright'");
    assert_eq!(version, "0.2.0");
    assert_eq!(one::<String>(&mut client, "SHOW lock_timeout"), "0");
}

/// Sessions that were there before, with statements prepared, in transactions old and new.
#[test]
fn sessions_go_on_through_an_upgrade() {
    let database = Database::empty("upgraded_under", "UTF8");
    let mut client = database.connect();
    client
        .batch_execute(
            "DROP ROLE IF EXISTS kwup_early, kwup_late; CREATE ROLE kwup_early; CREATE ROLE kwup_late",
        )
        .unwrap();
    client.batch_execute(FIRST).unwrap();
    let tokens = fill(&mut client);
    let [mut idle, mut busy, mut repeatable, mut granting] = [(); 4].map(|()| database.connect());
    let asks = |session: &mut Client| {
        for (token, active) in &tokens {
            assert_eq!(is_active(session, token), *active, "{token}");
        }
        assert!(one::<bool>(session, "SELECT count(*) > 50 FROM keywright.list_api_keys(page_size => 1000)"));
        assert!(one::<bool>(
            session,
            "SELECT keywright.has_permission('alice', 'workspace:start', 'project', '1')"
        ));
    };
    let writes = |session: &mut Client, name: &str| {
        let minted: String =
            one(session, &format!("SELECT token FROM keywright.mint_api_key('alice', '{name}')"));
        assert!(is_active(session, &minted));
        session.batch_execute(&format!("SELECT keywright.revoke_api_key('{}')", &minted[4..14])).unwrap();
        assert!(!is_active(session, &minted));
        session
            .batch_execute("SELECT keywright.grant_access('kwup_early', 'issuer'), keywright.revoke_access('kwup_early', 'issuer')")
            .unwrap();
    };
    for session in [&mut idle, &mut busy, &mut repeatable] {
        asks(session);
        writes(session, "before");
    }
    // One has seen the database as it was, one has read, and one is about to give or take access: for the last two the upgrade waits.
    repeatable.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    busy.batch_execute("BEGIN").unwrap();
    asks(&mut busy);
    granting.batch_execute("BEGIN; LOCK TABLE keywright.access_grants IN SHARE ROW EXCLUSIVE MODE").unwrap();
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| database.connect().batch_execute(UPDATE).unwrap());
        let waits_for = |client: &mut Client, table: &str| {
            wait_for(
                client,
                &format!(
                    "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                      WHERE query = 'ALTER EXTENSION keywright UPDATE' AND NOT granted AND relation = 'keywright.{table}'::regclass)"
                ),
            );
        };
        waits_for(&mut client, "access_grants");
        // It holds up nobody yet. Who goes on with access does not end in a deadlock, and what is given is complete.
        asks(&mut idle);
        granting
            .batch_execute("SELECT keywright.grant_access('kwup_early', 'auditor'), keywright.revoke_access('kwup_early', 'auditor'), keywright.grant_access('kwup_early', 'auditor'); COMMIT")
            .unwrap();
        // Nor does who has read and goes on to write.
        waits_for(&mut client, "users");
        busy.batch_execute("SELECT keywright.mint_api_key('alice', 'meanwhile')").unwrap();
        asks(&mut busy);
        busy.batch_execute("COMMIT").unwrap();
        upgrade.join().unwrap();
    });
    assert_eq!(callers(&mut client, "version()"), "kwup_early");
    asks(&mut repeatable);
    repeatable.batch_execute("COMMIT").unwrap();
    for session in [&mut idle, &mut busy, &mut repeatable] {
        asks(session);
        writes(session, "after");
        assert_eq!(one::<String>(session, "SELECT keywright.version()"), THIS);
    }
    granting.batch_execute("SELECT keywright.grant_access('kwup_late', 'maintainer')").unwrap();
    assert_eq!(callers(&mut client, "version()"), "kwup_early kwup_late");
    // What an upgrade calls is not for anybody else.
    assert_eq!(code(&mut client, "SELECT keywright._admit('{version()}')"), "55000");
    assert_eq!(callers(&mut client, "version()"), "kwup_early kwup_late");
    client.batch_execute("DROP EXTENSION keywright CASCADE; DROP ROLE kwup_early, kwup_late").unwrap();
}
