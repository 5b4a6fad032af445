//! pg_dump, a new database, pg_restore: what verified verifies, what was dead is dead, who had access has it.

use keywright_tests::rooms::{LISTED, fill};
use keywright_tests::{Database, is_active, one, program, succeed};
use postgres::Client;

const ACCESS: &str = "SELECT string_agg(grantee || '=' || capability, ',') FROM keywright.list_access() WHERE grantee LIKE 'keywright_test_dump%'";
const ACL: &str = "SELECT string_agg(p.oid::regprocedure || ' ' || a.grantee::regrole || ' ' || a.privilege_type, ',' ORDER BY p.oid::regprocedure::text, a.grantee)
   FROM pg_proc AS p, aclexplode(p.proacl) AS a WHERE p.pronamespace = 'keywright'::regnamespace AND a.grantee <> p.proowner";

fn restored(format: &str) {
    let roles = ["keywright_test_dump_verifier", "keywright_test_dump \"odd\" issuer"];
    let old = Database::new(&format!("dump_{format}"));
    let mut client = old.connect();
    for role in roles {
        let quoted = role.replace('"', "\"\"");
        let make = format!(
            "DO $$ BEGIN CREATE ROLE \"{quoted}\"; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        );
        client.batch_execute(&make).unwrap();
    }
    let login = format!("keywright_dumped_{format}");
    client.batch_execute(&format!("DROP ROLE IF EXISTS {login}; CREATE ROLE {login} LOGIN")).unwrap();
    for (role, capability) in [(roles[0], "verifier"), (roles[1], "issuer"), (roles[1], "auditor")] {
        client.query_one("SELECT keywright.grant_access($1, $2)", &[&role, &capability]).unwrap();
    }
    let tokens = fill(&mut client);
    let service = format!(
        "SELECT keywright.grant_authenticator('rest-{format}', '{login}', 'keywright_test_dump_verifier');
        SELECT keywright.set_postgrest_setting('rest-{format}', 'db_pool', '7');
        SELECT keywright.allow_authenticator('{login}', '{{keywright_test_dump_verifier}}');
        SELECT keywright.grant_access('{login}', 'authenticator')"
    );
    client.batch_execute(&service).unwrap();
    let before =
        [ACCESS, ACL, LISTED].map(|sql| one::<String>(&mut client, sql).replace(&old.name, "DATABASE"));

    let file = std::env::temp_dir().join(format!("keywright-{}-{format}.dump", std::process::id()));
    succeed(program("pg_dump").arg(format!("--format={format}")).arg("--file").arg(&file).arg(&old.name));
    let bytes = std::fs::read(&file).unwrap();
    for (token, _) in &tokens {
        let secret = &token.as_bytes()[token.len() - 20..];
        assert!(!bytes.windows(secret.len()).any(|part| part == secret), "a token is in the dump");
    }
    let new = Database::empty(&format!("restored_{format}"), "UTF8");
    let mut restore = if format == "plain" { program("psql") } else { program("pg_restore") };
    if format == "plain" {
        restore.args(["-X", "--quiet", "--set", "ON_ERROR_STOP=1", "--file"]).arg(&file);
    } else {
        restore.arg("--exit-on-error").arg(&file);
    }
    succeed(restore.arg("--dbname").arg(&new.name));
    std::fs::remove_file(&file).unwrap();

    let mut client = new.connect();
    for (token, active) in &tokens {
        assert_eq!(is_active(&mut client, token), *active, "{token}");
    }
    let after =
        [ACCESS, ACL, LISTED].map(|sql| one::<String>(&mut client, sql).replace(&new.name, "DATABASE"));
    assert_eq!(after, before);
    // What the service needs is there, and this database notes that it needs it too.
    let noted = "SELECT count(*) FILTER (WHERE code = 'not_noted') = count(*) AND count(*) > 0 FROM keywright.authenticator_status()";
    assert!(one::<bool>(&mut client, noted));
    client.batch_execute("SELECT * FROM keywright.reconcile_authenticators()").unwrap();
    let revoke = format!("SELECT keywright.revoke_authenticator('rest-{format}')");
    old.connect().batch_execute(&revoke).unwrap();
    let member = format!("SELECT pg_has_role('{login}', 'keywright_test_dump_verifier', 'MEMBER')");
    assert!(one::<bool>(&mut client, &member));
    client.batch_execute(&revoke).unwrap();
    assert!(!one::<bool>(&mut client, &member));
    // Grants are not only listed: they work, and can be taken back.
    client.batch_execute("SET SESSION AUTHORIZATION keywright_test_dump_verifier").unwrap();
    assert!(is_active(&mut client, &tokens[0].0));
    client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    assert!(one::<bool>(
        &mut client,
        "SELECT keywright.revoke_access('keywright_test_dump_verifier', 'verifier')"
    ));
    client.batch_execute("SET SESSION AUTHORIZATION keywright_test_dump_verifier").unwrap();
    assert!(client.query_one("SELECT keywright.verify_api_key('x')", &[]).is_err());
    client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    // Roles, resources and their bindings permit what they did, and the application's table is still followed.
    let permitted = |client: &mut Client, resource: &str| {
        let sql = "SELECT keywright.has_permission('alice', 'workspace:start', 'workspace', $1)";
        client.query_one(sql, &[&resource]).unwrap().get::<_, bool>(0)
    };
    client.batch_execute("SELECT keywright.ensure_resource('workspace', 'w1', '1'), keywright.ensure_resource('workspace', 'w2', '2')").unwrap();
    assert!(permitted(&mut client, "w1") && !permitted(&mut client, "w2"));
    client.batch_execute("INSERT INTO public.projects VALUES (3, 'acme'); UPDATE public.projects SET id = 10 WHERE id = 1; DELETE FROM public.projects WHERE id = 2").unwrap();
    assert_eq!(
        one::<String>(
            &mut client,
            "SELECT string_agg(resource_id, ',') FROM keywright.list_resources('project')"
        ),
        "10,3"
    );
    // What was bound to the id that was changed is gone.
    assert!(!permitted(&mut client, "w1"));
    client
        .batch_execute("INSERT INTO keywright.roles (name, permissions, level) VALUES ('owner', '{*:*}', 0)")
        .unwrap_err();
    // Inserts work, names are still taken, rules still hold, and a token of before can be kept or rotated.
    let fresh: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('alice', 'fresh')");
    assert!(is_active(&mut client, &fresh));
    assert!(client.query_one("SELECT keywright.mint_api_key('alice', 'key-1')", &[]).is_err());
    assert!(client.query_one("SELECT keywright.mint_gateway_key('edge-2')", &[]).is_err());
    assert!(client.batch_execute("DELETE FROM keywright.users WHERE kind = 'system'").is_err());
    let kept = client
        .query_one(
            "SELECT outcome FROM keywright.ensure_api_key('alice', 'key-1', $1, '{project:read}', '{project:p1}')",
            &[&tokens[1].0],
        )
        .unwrap();
    assert_eq!(kept.get::<_, String>(0), "kept");
}

#[test]
fn custom_format() {
    restored("custom");
}

#[test]
fn plain_format() {
    restored("plain");
}

/// The application's table alone is dumped, dropped and restored: bindings on its rows outlive that.
#[test]
fn a_tracked_table_alone() {
    let database = Database::new("dump_tracked");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE public.projects (id uuid PRIMARY KEY, title text);
             SELECT keywright.track_table('public.projects', 'project', name_column => 'title');
             INSERT INTO public.projects SELECT gen_random_uuid(), 'p' || n FROM generate_series(1, 100) AS n;
             SELECT keywright.ensure_user('u', '');
             SELECT keywright.bind_role('u', 'project-owner', 'project', id::text) FROM public.projects",
        )
        .unwrap();
    const STATE: &str = "SELECT string_agg(concat_ws(' ', resource_id, name), E'\\n') FROM keywright.list_resources('project', page_size => 1000)";
    const BINDINGS: &str =
        "SELECT string_agg(resource_id, ',' ORDER BY resource_id) FROM keywright.list_role_bindings('u')";
    let before = [STATE, BINDINGS].map(|sql| one::<String>(&mut client, sql));
    let file = std::env::temp_dir().join(format!("keywright-{}-tracked.dump", std::process::id()));
    succeed(
        program("pg_dump")
            .args(["--format=custom", "--table=public.projects", "--file"])
            .arg(&file)
            .arg(&database.name),
    );
    client.batch_execute("DROP TABLE public.projects").unwrap();
    let restore = |arguments: &[&str]| {
        succeed(
            program("pg_restore")
                .args(["--exit-on-error", "--dbname", &database.name])
                .args(arguments)
                .arg(&file),
        );
    };
    restore(&[]);
    assert_eq!([STATE, BINDINGS].map(|sql| one::<String>(&mut client, sql)), before);
    // The triggers came back with it. Rows that were missed meanwhile are registered by calling track_table again.
    client.batch_execute("INSERT INTO public.projects VALUES (gen_random_uuid(), 'followed')").unwrap();
    client.batch_execute("ALTER TABLE public.projects DISABLE TRIGGER USER; INSERT INTO public.projects VALUES (gen_random_uuid(), 'missed'); ALTER TABLE public.projects ENABLE TRIGGER USER").unwrap();
    let track = "SELECT resources_changed FROM keywright.track_table('public.projects', 'project', name_column => 'title')";
    assert_eq!((one::<i64>(&mut client, track), one::<i64>(&mut client, track)), (1, 0));
    let names = "SELECT count(*) FROM keywright.list_resources('project', page_size => 1000) WHERE name IN ('followed', 'missed')";
    assert_eq!(one::<i64>(&mut client, names), 2);
    // Only its rows: as DELETE and INSERT, each followed.
    client.batch_execute("DELETE FROM public.projects").unwrap();
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.list_role_bindings('u')"), 0);
    restore(&["--data-only"]);
    assert_eq!(one::<String>(&mut client, STATE), before[0]);
    std::fs::remove_file(&file).unwrap();
}

/// The role itself, with what it passed on to others: gone, so that nothing is in the way of DROP ROLE.
fn gone(database: &Database, role: &str) {
    database.connect().batch_execute(&format!("DROP OWNED BY {role}")).unwrap();
}

/// A role of the dump is missing where it is restored, and another one is called otherwise by now.
#[test]
fn a_role_that_is_missing_takes_nobody_along() {
    let (kept, lost, renamed) = ("keywright_dump_kept", "keywright_dump_lost", "keywright_dump_renamed");
    let old = Database::new("dump_roles");
    let mut client = old.connect();
    let roles = format!(
        "DROP ROLE IF EXISTS {kept}, {lost}, {renamed}, {renamed}_now;
         CREATE ROLE {kept}; CREATE ROLE {lost}; CREATE ROLE {renamed};
         SELECT keywright.grant_access('{kept}', 'verifier'), keywright.grant_access('{lost}', 'issuer'),
                keywright.grant_access('{renamed}', 'auditor');
         ALTER ROLE {renamed} RENAME TO {renamed}_now; CREATE ROLE {renamed}"
    );
    client.batch_execute(&roles).unwrap();
    let token: String = one(
        &mut client,
        "SELECT m.token FROM keywright.ensure_user('ada', '') AS u, keywright.mint_api_key('ada', 'ci') AS m",
    );
    let files = [&["--format=custom"][..], &["--format=custom", "--schema-only"], &["--format=plain"]].map(
        |options| {
            let name = format!("keywright-{}-roles{}.dump", std::process::id(), options.concat());
            let file = std::env::temp_dir().join(name);
            succeed(program("pg_dump").args(options).arg("--file").arg(&file).arg(&old.name));
            file
        },
    );
    gone(&old, lost);
    client.batch_execute(&format!("DROP ROLE {lost}")).unwrap();
    for (at, file) in files.iter().enumerate() {
        let new = Database::empty(&format!("restored_roles_{at}"), "UTF8");
        let plain = at == 2;
        let mut restore = program(if plain { "psql" } else { "pg_restore" });
        restore.arg("--dbname").arg(&new.name).args(plain.then_some(["-X", "--file"]).into_iter().flatten());
        let restored = restore.arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&restored.stderr).into_owned();
        let mut errors = said.lines().filter(|line| line.to_lowercase().contains("error: ")).peekable();
        assert!(errors.peek().is_some() && errors.all(|line| line.contains(lost)), "{said}");
        let mut client = new.connect();
        let access =
            "SELECT coalesce(string_agg(grantee || '=' || capability, ','), '') FROM keywright.list_access()";
        assert_eq!(one::<String>(&mut client, access), format!("{kept}=verifier,{renamed}_now=auditor"));
        // pg_restore sends what is granted on one object as one command, psql each grant by itself.
        let missing = "SELECT count(*) FROM keywright.access_status() WHERE code = 'missing'";
        assert_eq!(one::<i64>(&mut client, missing) == 0, plain);
        let again = "SELECT keywright.grant_access(grantee, capability) FROM keywright.list_access()";
        client.batch_execute(again).unwrap();
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.access_status()"), 0);
        assert_eq!(is_active(&mut client, &token), at != 1);
        for (role, capability) in [(kept, "verifier"), (&format!("{renamed}_now"), "auditor")] {
            let revoke = format!("SELECT keywright.revoke_access('{role}', '{capability}')");
            assert!(one::<bool>(&mut client, &revoke));
            let left = format!("SELECT has_schema_privilege('{role}', 'keywright', 'USAGE')");
            assert!(!one::<bool>(&mut client, &left));
        }
        std::fs::remove_file(file).unwrap();
    }
    for role in [kept, renamed, &format!("{renamed}_now")] {
        gone(&old, role);
        client.batch_execute(&format!("DROP ROLE {role}")).unwrap();
    }
}

/// Several jobs restore everything where foreign keys are not asked, as docs/operations.md says, and not without that.
#[test]
fn several_jobs() {
    let old = Database::new("dump_jobs");
    let mut client = old.connect();
    let tokens = fill(&mut client);
    client
        .batch_execute(
            "SELECT keywright.ensure_user('user-' || n, '') FROM generate_series(1, 3000) AS n;
             SELECT keywright.bind_role('user-' || n, 'auditor') FROM generate_series(1, 3000) AS n;
             SELECT count(*) FROM keywright.mint_api_keys(ARRAY(SELECT 'user-' || n FROM generate_series(1, 3000) AS n), ARRAY(SELECT 'ci' FROM generate_series(1, 3000)))",
        )
        .unwrap();
    let page = include_str!("../docs/operations.md");
    let from = page.find("SELECT 'api_key_usage' AS of").unwrap();
    let counts = &page[from..from + page[from..].find(';').unwrap()];
    let counts =
        format!("SELECT string_agg(concat(c.of, ' ', c.rows), ',' ORDER BY c.of) FROM ({counts}) AS c");
    let before: [String; 2] = [one(&mut client, LISTED), one(&mut client, &counts)];
    assert!(before[1].contains("api_keys 30"), "{}", before[1]);
    let folder = std::env::temp_dir().join(format!("keywright-{}-jobs.dump", std::process::id()));
    succeed(program("pg_dump").arg("--format=directory").arg("--file").arg(&folder).arg(&old.name));
    let setting = "PGOPTIONS='-c session_replication_role=replica' pg_restore --jobs=4 --exit-on-error";
    assert!(page.contains(setting));
    for jobs in ["1", "4", "8"] {
        let new = Database::empty(&format!("restored_jobs_{jobs}"), "UTF8");
        let mut restore = program("pg_restore");
        restore.args(["--exit-on-error", "--jobs", jobs, "--dbname", &new.name]).arg(&folder);
        if jobs != "1" {
            restore.env("PGOPTIONS", "-c session_replication_role=replica");
        }
        succeed(&mut restore);
        let mut client = new.connect();
        let after = [one::<String>(&mut client, LISTED), one::<String>(&mut client, &counts)];
        let [listed, counted] = after.map(|text| text.replace(&new.name, &old.name));
        assert_eq!(counted, before[1]);
        assert!(listed == before[0], "what is listed differs");
        for (token, active) in &tokens {
            assert_eq!(is_active(&mut client, token), *active, "{token}");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
