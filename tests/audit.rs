//! What is noted, who is told, and what the server's log keeps of what was refused.

use keywright_tests::{Database, environment, in_parallel, is_active, one, program};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use std::collections::HashSet;
use std::time::Duration;

/// The payloads that have come by now, after what is under way.
fn notified(client: &mut Client) -> Vec<String> {
    client.batch_execute("").unwrap();
    let mut notifications = client.notifications();
    notifications
        .timeout_iter(Duration::from_millis(200))
        .map(|n| Ok(n.payload().to_owned()))
        .collect()
        .unwrap()
}

fn listener(database: &Database) -> Client {
    let mut client = database.connect();
    client.batch_execute("LISTEN keywright").unwrap();
    client
}

fn events(client: &mut Client) -> i64 {
    one(client, "SELECT count(*) FROM keywright.audit_events")
}

/// A role of the cluster that can log in, with capabilities here; gone at the end.
struct Role<'a> {
    name: &'a str,
    database: &'a Database,
}

impl<'a> Role<'a> {
    fn new(database: &'a Database, name: &'a str, capabilities: &[&str]) -> Role<'a> {
        let mut client = database.connect();
        let quoted = name.replace('"', "\"\"");
        client
            .batch_execute(&format!("DROP ROLE IF EXISTS \"{quoted}\"; CREATE ROLE \"{quoted}\" LOGIN"))
            .unwrap();
        for capability in capabilities {
            client.query_one("SELECT keywright.grant_access($1, $2)", &[&name, capability]).unwrap();
        }
        Role { name, database }
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let quoted = self.name.replace('"', "\"\"");
        let drop = format!("DROP OWNED BY \"{quoted}\"; DROP ROLE \"{quoted}\"");
        _ = self.database.connect().batch_execute(&drop);
    }
}

/// What the server's log has of a session so far; other tests write into it too.
fn log_of(client: &mut Client) -> Vec<String> {
    let mark = format!(" [{}] ", one::<i32>(client, "SELECT pg_backend_pid()"));
    let log = std::fs::read(environment("PG_SERVER_LOG")).unwrap();
    String::from_utf8_lossy(&log).lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect()
}

/// The tables that the triggers are written for are there.
#[test]
fn the_code_and_the_schema_name_the_same_tables() {
    let source = include_str!("../src/audit/trigger.rs");
    let named: HashSet<String> = source
        .split("table: \"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap_or_default().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let database = Database::new("audit_tables");
    let mut client = database.connect();
    let sql = "SELECT DISTINCT relname::text FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE tgfoid = 'keywright._audit()'::regprocedure";
    let watched: HashSet<String> = client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(named, watched);
    assert!(named.len() > 10);
}

/// A canary: tokens and their hashes are in no event, no notification and no line about a refusal.
#[test]
fn no_secret_is_noted_told_or_logged() {
    let database = Database::new("audit_canary");
    let mut client = database.connect();
    let mut listener = listener(&database);
    client
        .batch_execute(
            "SELECT keywright.ensure_user('u', ''); SELECT keywright.register_resource_type('t');
             CREATE TABLE public.tracked (id text PRIMARY KEY);
             DROP ROLE IF EXISTS kw_canary_app, kw_canary_anon; CREATE ROLE kw_canary_app LOGIN; CREATE ROLE kw_canary_anon;
             SELECT keywright.grant_authenticator('rest', 'kw_canary_app', 'kw_canary_anon')",
        )
        .unwrap();
    let mut tokens: Vec<String> = Vec::new();
    for sql in [
        "mint_api_key('u', 'one')",
        "ensure_api_key('u', 'two')",
        "ensure_api_key('u', 'two')",
        "ensure_operator_access('ns', 'cp', prefix => 'canary-')",
        "mint_gateway_key('g')",
        "ensure_gateway_key('h')",
        "ensure_gateway_key('h')",
        "rotate_gateway_key('g')",
    ] {
        tokens.push(one(&mut client, &format!("SELECT token FROM keywright.{sql}")));
    }
    let id: String = one(&mut client, "SELECT key_id FROM keywright.list_api_keys('u') WHERE name = 'one'");
    tokens.push(one(&mut client, &format!("SELECT token FROM keywright.rotate_api_key('{id}', '1 hour')")));
    client.batch_execute("SET keywright.api_key_brand = ''").unwrap();
    let bare: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('u', 'bare')");
    client.batch_execute("RESET keywright.api_key_brand").unwrap();
    // Each in every place where a name or words belong; most are refused.
    for token in tokens.clone().iter().chain([&bare]) {
        for call in [
            "ensure_user($1, '')",
            "ensure_user('x', $1)",
            "ensure_user('x', '', display_name => $1)",
            "ensure_user('x', '', managed_by => $1)",
            "ensure_user('x', '', db_role => $1)",
            "ensure_system_user($1)",
            "ensure_system_user('y', roles => ARRAY[$1])",
            "ensure_system_user('y', organization_role => $1)",
            "suspend_user($1)",
            "activate_user($1)",
            "delete_user($1)",
            "mint_api_key($1, 'n')",
            "mint_api_key('u', $1)",
            "mint_api_key('u', 'n', ARRAY[$1])",
            "mint_api_key('u', 'n', allow_list => ARRAY['t:' || $1])",
            "import_api_key($1, 'n', 'OldKey0001', sha256('x'), now() + interval '1 day')",
            "import_api_key('u', $1, 'OldKey0001', sha256('x'), now() + interval '1 day')",
            "import_api_key('u', 'n', $1, sha256('x'), now() + interval '1 day')",
            "import_api_key('u', 'n', 'OldKey0001', convert_to($1, 'UTF8'), now() + interval '1 day')",
            "ensure_api_key('u', $1)",
            "rotate_api_key($1)",
            "revoke_api_key($1)",
            "expire_api_key($1)",
            "revoke_user_api_keys($1)",
            "revoke_user_api_keys('u', $1)",
            "mint_gateway_key($1)",
            "ensure_gateway_key($1)",
            "rotate_gateway_key($1)",
            "delete_gateway_key($1)",
            "register_resource_type($1)",
            "register_resource_type('v', $1)",
            "delete_resource_type($1)",
            "ensure_resource('t', $1)",
            "ensure_resource($1, 'r')",
            "ensure_resource('t', 'r', name => $1)",
            "ensure_resource('t', 'r', $1)",
            "ensure_resources('t', ARRAY[$1])",
            "ensure_resources('t', '{r}', names => ARRAY[$1])",
            "delete_resource('t', $1)",
            "track_table('public.tracked', 't', $1)",
            "track_table('public.tracked', 't', 'id', $1)",
            "track_table('public.tracked', $1)",
            "define_role($1, '{t:read}', 3)",
            "define_role('r', ARRAY[$1], 3)",
            "define_scope($1, '{t:read}')",
            "delete_role($1)",
            "delete_scope($1)",
            "bind_role('u', $1)",
            "bind_role($1, 'owner')",
            "bind_role('u', 'auditor', 't', $1)",
            "unbind_role('u', 'auditor', 't', $1)",
            "ensure_operator_access($1, 'cp', prefix => 'canary-')",
            "ensure_operator_access('ns', 'cp', prefix => $1)",
            "revoke_operator_access($1, 'cp')",
            "grant_authenticator($1, 'kw_canary_app', 'kw_canary_anon')",
            "grant_authenticator('x', $1, 'kw_canary_anon')",
            "grant_authenticator('x', 'kw_canary_app', 'kw_canary_anon', schemas => ARRAY[$1])",
            "revoke_authenticator($1)",
            "allow_authenticator($1, '{kw_canary_anon}')",
            "allow_authenticator('kw_canary_app', ARRAY[$1])",
            "disallow_authenticator($1)",
            "set_postgrest_setting($1, 'db_pool', '1')",
            "set_postgrest_setting('rest', $1, '1')",
            "set_postgrest_setting('rest', 'jwt_aud', $1)",
            "grant_access($1, 'verifier')",
            "grant_access('kw_canary_app', $1)",
            "revoke_access('kw_canary_app', $1)",
        ] {
            _ = client.query(&format!("SELECT * FROM keywright.{call}"), &[token]);
        }
        _ = client.query("INSERT INTO public.tracked VALUES ($1)", &[token]);
    }
    client.query_one("SELECT keywright.revoke_leaked_api_key($1)", &[&tokens[0]]).unwrap();
    client.batch_execute("SELECT keywright.revoke_user_api_keys('u'), keywright.delete_gateway_key('g'), keywright.delete_user('u')").unwrap();
    client.batch_execute("SELECT keywright.purge_api_keys('0'), keywright.revoke_authenticator('rest'); DROP ROLE kw_canary_app, kw_canary_anon").unwrap();
    tokens.push(bare);
    let rows: String = one(
        &mut client,
        "SELECT string_agg(e::text || convert_to(e::text, 'UTF8')::text, E'\\n') FROM keywright.audit_events AS e",
    );
    let told = notified(&mut listener).join("\n");
    let mut refused = log_of(&mut client);
    refused.retain(|line| line.contains("keywright refused: ") || line.contains("sqlstate="));
    assert!(
        rows.lines().count() > 20 && told.lines().count() > 20 && refused.len() > 500,
        "{}",
        refused.len()
    );
    for token in &tokens {
        let secret = if token.starts_with("kwk_") { &token[15..37] } else { &token[11..] };
        let mut hidden =
            vec![token.clone(), token.to_lowercase(), secret.to_owned(), token[20..30].to_owned()];
        for hashed in [token.as_str(), secret] {
            for encoding in ["hex", "base64", "escape"] {
                let hash: String = client
                    .query_one(&format!("SELECT encode(sha256($1::text::bytea), '{encoding}')"), &[&hashed])
                    .unwrap()
                    .get(0);
                hidden.push(hash.chars().take(12).collect());
            }
        }
        for hidden in hidden {
            for (place, text) in [("events", &rows), ("notifications", &told), ("log", &refused.join("\n"))] {
                assert!(!text.contains(&hidden), "{place} have a piece of a token: {hidden}");
            }
        }
    }
}

#[test]
fn who_listens_learns_of_a_revocation_at_its_commit() {
    let database = Database::new("audit_listen");
    let mut client = database.connect();
    let mut listener = listener(&database);
    client.batch_execute("SELECT keywright.ensure_user('u', '')").unwrap();
    let row = client.query_one("SELECT key_id, token FROM keywright.mint_api_key('u', 'n')", &[]).unwrap();
    let (id, token): (String, String) = (row.get(0), row.get(1));
    assert_eq!(notified(&mut listener).len(), 2);
    let mut transaction = client.transaction().unwrap();
    transaction.query_one("SELECT keywright.revoke_api_key($1, 'gone')", &[&id]).unwrap();
    assert!(notified(&mut listener).is_empty());
    assert!(is_active(&mut listener, &token));
    transaction.commit().unwrap();
    // Whoever has the notification and asks gets the new answer, on any connection.
    let payload = listener.notifications().blocking_iter().next().unwrap().unwrap().payload().to_owned();
    assert!(!is_active(&mut listener, &token));
    assert!(!is_active(&mut database.connect(), &token));
    let told: bool = client
        .query_one(
            "SELECT p ->> 'event' = 'revoked' AND p ->> 'kind' = 'api_key' AND p ->> 'id' = $2 AND p ->> 'name' = 'u/n'
                    AND p ->> 'affected' = '1' AND (SELECT count(*) FROM jsonb_object_keys(p)) = 6
                    AND EXISTS (SELECT FROM keywright.list_audit_events('api_key', $2) AS e WHERE e.event_id = (p ->> 'event_id')::uuid)
               FROM (SELECT $1::text::jsonb AS p) AS j",
            &[&payload, &id],
        )
        .unwrap()
        .get(0);
    assert!(told, "{payload}");
    // Rolled back, refused, or nothing new: nobody is told.
    client.batch_execute("BEGIN; SELECT keywright.suspend_user('u'); ROLLBACK").unwrap();
    client.batch_execute("SELECT keywright.rotate_api_key('0123456789')").unwrap_err();
    client
        .batch_execute("SELECT keywright.ensure_user('u', ''), keywright.revoke_user_api_keys('u')")
        .unwrap();
    assert!(notified(&mut listener).is_empty());
    // One for each change, also of one transaction.
    client.batch_execute("BEGIN; SELECT keywright.suspend_user('u'); SELECT keywright.activate_user('u'); SELECT keywright.suspend_user('u'); COMMIT").unwrap();
    let told = notified(&mut listener);
    assert_eq!(told.iter().collect::<HashSet<_>>().len(), 3, "{told:?}");
}

#[test]
fn only_a_superuser_turns_notifications_off() {
    let database = Database::new("audit_notify");
    let role = Role::new(&database, "kw_audit_notify", &["reconciler"]);
    let mut super_client = database.connect();
    let mut listener = listener(&database);
    super_client.batch_execute("SELECT keywright.ensure_user('u', '')").unwrap();
    assert_eq!(notified(&mut listener).len(), 1);
    let change = |client: &mut Client| {
        client
            .batch_execute("SELECT keywright.suspend_user('u'); SELECT keywright.activate_user('u')")
            .unwrap();
    };
    // Before the library is loaded and after, in the session, as a default and in the start-up options.
    let mut client = database.connect_as(role.name, "");
    _ = client.batch_execute("SET keywright.notify = off");
    change(&mut client);
    assert_eq!(notified(&mut listener).len(), 2);
    client.batch_execute("SET keywright.notify = off").unwrap_err();
    client.batch_execute("SELECT set_config('keywright.notify', 'off', false)").unwrap_err();
    client.batch_execute(&format!("ALTER ROLE {} SET keywright.notify = off", role.name)).unwrap_err();
    change(&mut database.connect_as(role.name, "-c keywright.notify=off"));
    assert_eq!(notified(&mut listener).len(), 2);
    let mut early = database.connect_as(role.name, "");
    early.batch_execute(&format!("ALTER ROLE {} SET keywright.notify = off", role.name)).unwrap_err();
    // For a database: nobody is told, and all is noted.
    super_client
        .batch_execute(&format!("ALTER DATABASE {} SET keywright.notify = off", database.name))
        .unwrap();
    let before = events(&mut super_client);
    change(&mut database.connect_as(role.name, ""));
    assert!(notified(&mut listener).is_empty());
    assert_eq!(events(&mut super_client), before + 2);
    // Then a transaction can be prepared, and its events come with it.
    super_client
        .batch_execute("BEGIN; SELECT keywright.suspend_user('u'); PREPARE TRANSACTION 'x'")
        .unwrap_err();
    super_client.batch_execute("ROLLBACK; SET keywright.notify = off").unwrap();
    super_client
        .batch_execute("BEGIN; SELECT keywright.suspend_user('u'); PREPARE TRANSACTION 'keywright_audit'")
        .unwrap();
    assert_eq!(events(&mut super_client), before + 2);
    super_client.batch_execute("COMMIT PREPARED 'keywright_audit'").unwrap();
    assert_eq!(events(&mut super_client), before + 3);
}

#[test]
fn a_client_can_not_shorten_the_memory() {
    let database = Database::new("audit_retention");
    let role = Role::new(&database, "kw_audit_retention", &["admin"]);
    let mut client = database.connect();
    client
        .batch_execute(&format!("ALTER DATABASE {} SET keywright.audit_retention = 400", database.name))
        .unwrap();
    client
        .batch_execute(
            "INSERT INTO keywright.audit_events (occurred_at, event, kind, id, by_hand, session_user_name, role_name)
             SELECT clock_timestamp() - make_interval(days => d), 'created', 'user', d::text, true, 'x', 'x' FROM unnest('{2,380,410}'::int[]) AS d",
        )
        .unwrap();
    const PRUNE: &str = "SELECT keywright.prune_audit_events()";
    for value in ["1", "0", "1d", "junk", "365"] {
        let mut client = database.connect_as(role.name, &format!("-c keywright.audit_retention={value}"));
        let error = client.query(PRUNE, &[]).unwrap_err();
        assert_eq!(error.as_db_error().unwrap().code().code(), "42501", "{value}");
    }
    let mut early = database.connect_as(role.name, "");
    _ = early.batch_execute("SET keywright.audit_retention = 1");
    assert_eq!(one::<i64>(&mut early, PRUNE), 1);
    early.batch_execute("SET keywright.audit_retention = 1").unwrap_err();
    early.batch_execute(&format!("ALTER ROLE {} SET keywright.audit_retention = 1", role.name)).unwrap_err();
    let left: String = one(
        &mut client,
        "SELECT string_agg(id, ',' ORDER BY id) FROM keywright.audit_events WHERE role_name = 'x'",
    );
    assert_eq!(left, "2,380");
}

#[test]
fn a_notification_fits_whatever_is_named() {
    let database = Database::new("audit_long");
    let mut client = database.connect();
    let mut listener = listener(&database);
    // Each character takes six in JSON; or is of two, three, four bytes.
    for (number, character) in ["E'\\x01'", "'\"'", "'é'", "'語'", "'🔑'"].iter().enumerate() {
        client
            .batch_execute(&format!(
                "INSERT INTO keywright.authenticators (service, connect_as, anon_role, jwt_roles, schemas, noinherit)
                 VALUES ('s{number}', repeat({character}, 3000), 'b', '{{}}', '{{public}}', true);
                 INSERT INTO keywright.postgrest_settings (service, key, value) VALUES ('s{number}', repeat({character}, 600), 'v');
                 INSERT INTO keywright.resources (type, id, name) VALUES ('project', 'p{number}', repeat({character}, 100000))"
            ))
            .unwrap();
    }
    let types = format!("t{}", "y".repeat(62));
    client
        .batch_execute(&format!(
            "SELECT keywright.register_resource_type('{types}'); SELECT keywright.ensure_user('{u}', '');
             SELECT keywright.ensure_resource('{types}', repeat('\"', 255), name => repeat('語', 42)),
                    keywright.ensure_resource('{types}', repeat('🔑', 63));
             SELECT keywright.define_role('{r}', '{{*:read}}', 3);
             SELECT keywright.bind_role('{u}', '{r}', '{types}', repeat('\"', 255));
             SELECT keywright.mint_api_key('{u}', '{r}')",
            u = "u".repeat(32),
            r = "r".repeat(64),
        ))
        .unwrap();
    let told = notified(&mut listener);
    assert_eq!(told.len(), 15 + 7);
    for payload in told {
        assert!(payload.len() < 8000);
        let read: bool = client.query_one("SELECT $1::text::jsonb ? 'event_id'", &[&payload]).unwrap().get(0);
        assert!(read);
    }
    // Near the limit of what an index takes.
    client
        .batch_execute(
            "INSERT INTO keywright.postgrest_settings (service, key, value)
             SELECT 's0', left(string_agg(md5(n::text), ''), 2600), 'v' FROM generate_series(1, 100) AS n",
        )
        .unwrap();
}

/// A session of a role with each capability that writes, and what it is refused.
#[test]
fn a_refusal_is_a_line_in_the_log() {
    let database = Database::new("audit_refused");
    let role = Role::new(&database, "kw audit \"refused\"", &["reconciler", "admin"]);
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT keywright.ensure_user('u', '', managed_by => 'm'); SELECT keywright.ensure_user('s', '', 'service'); SELECT keywright.suspend_user('s');
             SELECT keywright.mint_api_key('u', 'n'); SELECT keywright.mint_gateway_key('g'); CREATE TABLE public.app (id text, odd point);
             SELECT keywright.ensure_system_user('op')",
        )
        .unwrap();
    let before = events(&mut client);
    let mut refused = database.connect_as(role.name, "");
    let cases = [
        ("ensure_user('a__b', '')", "23514"),
        ("ensure_user('u', 'x@y', managed_by => 'other')", "42710"),
        ("ensure_user(NULL, '')", "22023"),
        ("ensure_user('y', '', db_role => 'postgres')", "42501"),
        ("ensure_user('y', '', db_role => 'pg_monitor')", "42939"),
        ("ensure_system_user('u')", "42710"),
        ("suspend_user('u', 'other')", "42710"),
        ("activate_user(NULL)", "22023"),
        ("delete_user('u', 'other')", "42710"),
        ("mint_api_key('u', 'n')", "23505"),
        ("mint_api_key('s', 'n')", "55000"),
        ("mint_api_key('u', 'x', '{nonsense}')", "22023"),
        ("ensure_api_key('nobody', 'n')", "42704"),
        ("rotate_api_key('0123456789')", "42704"),
        ("revoke_api_key('short')", "22023"),
        ("expire_api_key('short')", "22023"),
        ("revoke_user_api_keys(NULL)", "22023"),
        ("purge_api_keys('-1 day')", "22023"),
        ("mint_gateway_key('g')", "23505"),
        ("ensure_gateway_key('G')", "23514"),
        ("delete_gateway_key(NULL)", "22023"),
        ("rotate_gateway_key('nothing')", "42704"),
        ("register_resource_type('Bad')", "23514"),
        ("delete_resource_type('project')", "42710"),
        ("ensure_resource('nothing', 'r')", "42704"),
        ("ensure_resource('project', 'a b')", "23514"),
        ("ensure_resources('project', '{a}', '{b,c}')", "22023"),
        ("delete_resource('nothing', NULL)", "22023"),
        ("track_table('public.app', 'project', 'absent')", "42703"),
        ("track_table('public.app', 'project', 'odd')", "42804"),
        ("track_table('public.app', 'nothing')", "42704"),
        ("track_table(NULL, 'project')", "22023"),
        ("define_role('owner', '{project:read}', 3)", "42710"),
        ("define_scope('all', '{project:read}')", "42710"),
        ("delete_role('owner')", "42710"),
        ("delete_scope('all')", "42710"),
        ("bind_role('u', 'nothing')", "42704"),
        ("bind_role('u', 'owner', granted_by => 's')", "42501"),
        ("ensure_operator_access('ns', '')", "22023"),
        ("revoke_operator_access('ns', '')", "22023"),
        ("grant_authenticator('A', 'x', 'y')", "23514"),
        ("grant_authenticator('a', 'nobody_1', 'nobody_2')", "42704"),
        ("allow_authenticator('postgres', '{pg_monitor}')", "42939"),
        ("disallow_authenticator('pg_monitor')", "42939"),
        ("set_postgrest_setting('nothing', 'db_pool', '5')", "42704"),
        ("set_postgrest_setting('nothing', 'db_pool', '500')", "22023"),
        ("grant_access('nobody_1', 'verifier')", "42704"),
        ("grant_access('postgres', 'all')", "22023"),
        ("revoke_access('pg_monitor', 'verifier')", "42939"),
        ("prune_audit_events(0)", "22023"),
    ];
    for (call, code) in cases {
        let error = refused.batch_execute(&format!("SELECT keywright.{call}")).expect_err(call);
        assert_eq!(error.as_db_error().unwrap().code().code(), code, "{call}: {error:?}");
    }
    let lines = log_of(&mut refused);
    let log = lines.join("\n");
    let heads: Vec<usize> =
        (0..lines.len()).filter(|at| lines[*at].contains("LOG:  keywright refused: ")).collect();
    assert_eq!(heads.len(), cases.len(), "{log}");
    for (at, (call, code)) in heads.iter().zip(cases) {
        let detail = &lines[at + 1];
        // What follows is the error itself, which has its statement by a setting of the server.
        assert!(lines[at + 2].contains("ERROR:  "), "{call}: {}", lines[at + 2]);
        let who = "session_user=\"kw audit \"refused\"\" role=\"kw audit \"refused\"\" api_key_id=\"\"";
        assert!(detail.contains(&format!("DETAIL:  sqlstate={code} {who}")), "{call}: {detail}");
    }
    assert_eq!(events(&mut client), before);

    // Caught, in a transaction that commits: the line is all there is. With what was done before, an event.
    refused
        .batch_execute(
            "DO $$ BEGIN
               PERFORM keywright.suspend_user('u');
               BEGIN PERFORM keywright.activate_user('u'); PERFORM keywright.rotate_api_key('0123456789'); EXCEPTION WHEN OTHERS THEN NULL; END;
               BEGIN PERFORM keywright.ensure_user('a__b', ''); EXCEPTION WHEN OTHERS THEN NULL; END;
             END $$",
        )
        .unwrap();
    let log = log_of(&mut refused).join("\n");
    assert_eq!(log.matches("keywright refused: ").count(), cases.len() + 2, "{log}");
    assert_eq!(events(&mut client), before + 1);
    // By hand, as a superuser.
    client.batch_execute("DELETE FROM keywright.users WHERE username = 'op'").unwrap_err();
    client.batch_execute("TRUNCATE keywright.audit_events").unwrap_err();
    let log = log_of(&mut client).join("\n");
    assert!(log.contains("keywright refused: system user \"op\" can not be changed by DELETE"), "{log}");
    assert!(log.contains("keywright refused: audit events can not be changed by TRUNCATE"), "{log}");
}

/// Roles belong to the cluster: their names may be in another encoding than the database.
#[test]
fn a_role_of_any_name_is_noted_so_that_it_can_be_read() {
    let latin = Database::with_encoding("audit_latin", "LATIN1");
    let utf8 = Database::new("audit_utf8");
    let ascii = Database::with_encoding("audit_ascii", "SQL_ASCII");
    let euc = Database::with_encoding("audit_euc", "EUC_JP");
    let mut maker = latin.connect();
    maker.batch_execute("DROP ROLE IF EXISTS \"kw_né\"; CREATE ROLE \"kw_né\" SUPERUSER").unwrap();
    let become_it = "DO $$ BEGIN EXECUTE format('SET SESSION AUTHORIZATION %I', (SELECT rolname FROM pg_roles WHERE rolname LIKE 'kw!_n%' ESCAPE '!')); END $$";
    for (database, shown) in
        [(&latin, "kw_n\\351"), (&utf8, "kw_n\\\\xe9"), (&ascii, "kw_n\\351"), (&euc, "kw_n\\\\xe9")]
    {
        // The driver can not: the server reports session_authorization to it, which is no UTF-8. Nor may the server convert it.
        let mut psql = program("psql");
        psql.env("PGCLIENTENCODING", "SQL_ASCII");
        psql.args(["-X", "--dbname", &database.name, "--command", "SELECT keywright.ensure_user('u', '')"]);
        psql.args(["--command", become_it, "--command", "SELECT keywright.suspend_user('u')"]);
        psql.args(["--command", "SELECT keywright.rotate_api_key('0123456789')"]);
        let output = psql.output().unwrap();
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("API key \"0123456789\" does not exist"),
            "{output:?}"
        );
        // In a client's encoding, whatever it is.
        let sql = "SELECT encode(convert_to(role_name, getdatabaseencoding()), 'escape') FROM keywright.list_audit_events(page_size => 1)";
        assert_eq!(one::<String>(&mut database.connect(), sql), shown, "{}", database.name);
    }
    maker.batch_execute("DROP ROLE \"kw_né\"").unwrap();
}

#[test]
fn parallel_changes_lose_no_event_and_wait_for_nobody() {
    let database = Database::new("audit_parallel");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.register_resource_type('t')").unwrap();
    let before = events(&mut client);
    let mut listener = listener(&database);
    in_parallel(&database, |client, number| {
        for n in 0..50 {
            let sql = format!(
                "SELECT keywright.ensure_resource('t', 'r-{number}-{n}'), keywright.ensure_user('u-{number}-{n}', '')"
            );
            client.batch_execute(&sql).unwrap();
        }
    });
    assert_eq!(events(&mut client), before + 16 * 50 * 2);
    assert_eq!(notified(&mut listener).len(), 16 * 50 * 2);
    // Prunes at once take each row once.
    client.batch_execute("ALTER TABLE keywright.audit_events DISABLE TRIGGER audit_events_guard; UPDATE keywright.audit_events SET occurred_at = occurred_at - interval '2 years'; ALTER TABLE keywright.audit_events ENABLE TRIGGER audit_events_guard").unwrap();
    let all = events(&mut client);
    let pruned = in_parallel(&database, |client, _| {
        let mut sum = 0;
        loop {
            let pruned: i64 = one(client, "SELECT keywright.prune_audit_events(37)");
            sum += pruned;
            if pruned == 0 {
                return sum;
            }
        }
    });
    assert_eq!(pruned.iter().sum::<i64>(), all);
}

/// A statement that was planned for one row takes many: not each with each.
#[test]
fn many_rows_after_few_are_not_compared_each_with_each() {
    let database = Database::new("audit_many");
    let mut client = database.connect();
    for name in ["a", "b", "c"] {
        client
            .batch_execute(&format!(
                "SELECT keywright.ensure_resources('project', '{{r1}}', NULL, '{{{name}}}')"
            ))
            .unwrap();
    }
    let many = |name: &str| {
        format!(
            "SELECT keywright.ensure_resources('project', array_agg('r' || n), NULL, array_agg('{name}'::text)) FROM generate_series(1, 20000) AS n"
        )
    };
    client.batch_execute(&many("x")).unwrap();
    client.batch_execute("SET statement_timeout = '15s'").unwrap();
    client.batch_execute(&many("y")).unwrap();
    let noted = "SELECT count(*) FROM keywright.audit_events WHERE event = 'updated' AND columns = '{name}'";
    assert_eq!(one::<i64>(&mut client, noted), 2 + 1 + 20_000);
}

#[test]
fn a_long_session_does_not_grow() {
    let database = Database::new("audit_memory");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('u', '')").unwrap();
    let change = |client: &mut Client, times: usize| {
        for _ in 0..times {
            client.batch_execute("SELECT keywright.suspend_user('u'), keywright.activate_user('u')").unwrap();
            client.batch_execute("SELECT keywright.rotate_api_key('0123456789')").unwrap_err();
        }
        one::<i64>(client, "SELECT sum(used_bytes)::bigint FROM pg_backend_memory_contexts")
    };
    let early = change(&mut client, 200);
    let late = change(&mut client, 2000);
    assert!(late < early + 200_000, "{early} {late}");
}

#[test]
fn the_extension_made_again_notes_in_a_session_that_noted_before() {
    let database = Database::new("audit_again");
    let mut client = database.connect();
    for _ in 0..3 {
        client
            .batch_execute(
                "SELECT keywright.ensure_user('u', ''), keywright.suspend_user('u');
                 INSERT INTO keywright.users (username, kind) VALUES ('v', 'human'); DELETE FROM keywright.users WHERE username = 'v'",
            )
            .unwrap();
        assert_eq!(events(&mut client), 4);
        client.batch_execute("DROP EXTENSION keywright; CREATE EXTENSION keywright").unwrap();
    }
}

/// A session that has noted changes of a table goes on when a column of it is called otherwise, or gone.
#[test]
fn what_is_kept_of_a_table_goes_when_its_columns_change() {
    let database = Database::new("audit_columns");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('ada', '', 'service')").unwrap();
    let ids: Vec<String> = ["one", "two", "three"]
        .map(|name| one(&mut client, &format!("SELECT key_id FROM keywright.mint_api_key('ada', '{name}')")))
        .into();
    let mut superuser = database.connect();
    let changes = ["", "RENAME COLUMN extra TO other", "DROP COLUMN other"];
    superuser.batch_execute("ALTER TABLE keywright.api_keys ADD COLUMN extra text").unwrap();
    for (id, change) in ids.iter().zip(changes) {
        if !change.is_empty() {
            superuser.batch_execute(&format!("ALTER TABLE keywright.api_keys {change}")).unwrap();
        }
        client.batch_execute(&format!("SELECT keywright.revoke_api_key('{id}')")).unwrap();
    }
    let revoked = "SELECT count(*) FROM keywright.audit_events WHERE kind = 'api_key' AND event = 'revoked'";
    assert_eq!(one::<i64>(&mut client, revoked), 3);
}
