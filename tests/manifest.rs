//! plan and apply against whole clusters: on a standby, many at once, beside everybody else, cut off half-way, and random
//! sequences of manifests against a simple model.

use keywright_tests::{CALLERS, Cluster, Database, behind_a_lock, environment, is_active, one, wait_for};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, IsolationLevel};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A step as plan and apply show it, and its token.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    step: i32,
    action: String,
    kind: String,
    name: String,
    change: String,
}

#[derive(Debug, PartialEq)]
struct Refused {
    code: String,
    detail: String,
}

fn call(client: &mut Client, function: &str, manifest: &str) -> Result<Vec<Row>, Refused> {
    applied(client, function, manifest).map(|rows| rows.into_iter().map(|(row, _)| row).collect())
}

fn applied(
    client: &mut Client,
    function: &str,
    manifest: &str,
) -> Result<Vec<(Row, Option<String>)>, Refused> {
    let token = if function == "apply" { "token" } else { "NULL::text" };
    let sql = format!(
        "SELECT step, action, kind, name, change::text, {token} FROM keywright.{function}($1::text::jsonb)"
    );
    let rows = client.query(&sql, &[&manifest]).map_err(|error| {
        let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
        Refused {
            code: error.code().code().into(),
            detail: format!("{} {}", error.message(), error.detail().unwrap_or_default()),
        }
    })?;
    let row = |row: postgres::Row| {
        let step = Row {
            step: row.get(0),
            action: row.get(1),
            kind: row.get(2),
            name: row.get(3),
            change: row.get(4),
        };
        (step, row.get(5))
    };
    Ok(rows.into_iter().map(row).collect())
}

fn apply(client: &mut Client, manifest: &str) -> Vec<Row> {
    call(client, "apply", manifest).unwrap_or_else(|refused| panic!("{manifest}: {refused:?}"))
}

/// The code a call ends with.
fn code(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => "00000".into(),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).code().code().into(),
    }
}

/// Everything there is that a manifest can speak of, by its name: whose it is, and what it is.
fn catalog(client: &mut Client) -> BTreeMap<String, (String, String)> {
    const CATALOG: &str = r#"
        SELECT 'resource_type ' || t.type, coalesce(t.managed_by, ''), coalesce(t.parent_type, '')
          FROM keywright.resource_types AS t WHERE NOT t.built_in
        UNION ALL
        SELECT 'role ' || r.name, coalesce(r.managed_by, ''), r.level || ' ' || r.permissions::text FROM keywright.roles AS r WHERE NOT r.built_in
        UNION ALL
        SELECT 'scope ' || s.name, coalesce(s.managed_by, ''), s.permissions::text FROM keywright.scopes AS s WHERE NOT s.built_in
        UNION ALL
        SELECT 'resource ' || r.type || ':' || r.id, coalesce(r.managed_by, ''), coalesce(r.parent_id, '') FROM keywright.resources AS r
        UNION ALL
        SELECT 'user ' || u.username, coalesce(u.managed_by, ''), u.kind || ' ' || u.email FROM keywright.users AS u WHERE u.deleted_at IS NULL
        UNION ALL
        SELECT 'role_binding ' || concat_ws(' ', u.username, b.role, 'on ' || b.resource_type || ':' || b.resource_id), coalesce(b.managed_by, ''), b.standing::text
          FROM keywright.role_bindings AS b JOIN keywright.users AS u USING (user_id)
        UNION ALL
        SELECT 'api_key ' || u.username || '/' || k.name, coalesce(k.managed_by, ''), k.scopes::text
          FROM keywright.api_keys AS k JOIN keywright.users AS u USING (user_id) WHERE k.revoked_at IS NULL AND k.superseded_at IS NULL
        UNION ALL
        SELECT 'gateway_key ' || k.name, coalesce(k.managed_by, ''), '' FROM keywright.gateway_keys AS k WHERE k.superseded_at IS NULL"#;
    let rows = client.query(CATALOG, &[]).unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let count = found.len();
    let found: BTreeMap<_, _> = found.into_iter().collect();
    assert_eq!(found.len(), count, "a name that is there twice");
    found
}

const WHOLE: &str = r#"{"manager": "one", "prune": true,
    "resource_types": [{"type": "page", "parent_type": "space"}, {"type": "space"}],
    "resources": [{"type": "page", "id": "p", "parent_id": "s"}, {"type": "space", "id": "s"}, {"type": "organization", "id": "acme"}],
    "roles": [{"name": "reader", "permissions": ["page:read"]}], "scopes": [{"name": "pages", "permissions": ["page:*"]}],
    "users": [{"username": "ann", "kind": "human", "email": "a@b.c"}, {"username": "bot", "kind": "system", "roles": ["auditor"], "organization_role": "organization-member"}],
    "bindings": [{"username": "ann", "role": "reader", "resource_type": "page", "resource_id": "p"}, {"username": "bot", "role": "reader"}],
    "api_keys": [{"username": "ann", "name": "ci", "scopes": ["pages"], "existing_token": null}, {"username": "bot", "name": "ci", "existing_token": ""}],
    "gateway_keys": [{"name": "edge", "existing_token": null}, {"name": "far"}]}"#;

#[test]
fn a_standby_plans_what_the_primary_applies() {
    let primary = Cluster::new(5470, "-c wal_level=replica");
    let mut client = primary.connect("postgres");
    client
        .batch_execute(
            "CREATE EXTENSION keywright; CREATE ROLE app LOGIN; CREATE ROLE anon; CREATE TABLE public.marks (mark int)",
        )
        .unwrap();
    let standby = Cluster::standby(5471, Some(&primary));
    let mut reader = standby.connect("postgres");
    let service = r#""authenticators": [{"service": "rest", "connect_as": "app", "anon_role": "anon"}]"#;
    let manifest = WHOLE.replacen('{', &format!("{{{service},"), 1);
    wait_for(&mut reader, "SELECT to_regclass('public.marks') IS NOT NULL");
    let planned = call(&mut reader, "plan", &manifest).unwrap();
    assert_eq!(planned.len(), 16);
    assert_eq!(call(&mut reader, "apply", &manifest).unwrap_err().code, "25006");
    assert_eq!(call(&mut client, "plan", &manifest).unwrap(), planned);
    assert_eq!(apply(&mut client, &manifest), planned);
    client.batch_execute("INSERT INTO public.marks VALUES (1)").unwrap();
    wait_for(&mut reader, "SELECT count(*) = 1 FROM public.marks");
    let kept = manifest.replace(", \"existing_token\": null", "").replace(", \"existing_token\": \"\"", "");
    assert_eq!(call(&mut reader, "plan", &kept).unwrap(), []);
    assert_eq!(call(&mut reader, "apply", &kept).unwrap(), []);
    let prune = r#"{"manager": "one", "prune": true}"#;
    let planned = call(&mut reader, "plan", prune).unwrap();
    assert_eq!(apply(&mut client, prune), planned);
}

#[test]
fn sixteen_applies_of_one_manifest_end_with_one_live_key_each() {
    let database = Database::new("manifest_sixteen");
    let mut client = database.connect();
    for round in 0..3 {
        let lock = "LOCK TABLE keywright.resource_types IN SHARE ROW EXCLUSIVE MODE";
        let results = behind_a_lock(&database, lock, |client, _| applied(client, "apply", WHOLE).unwrap());
        let tokens: Vec<String> = results.iter().flatten().filter_map(|(_, token)| token.clone()).collect();
        // The key without existing_token is minted once and for all.
        assert_eq!(tokens.len(), if round == 0 { 4 } else { 3 }, "{results:?}");
        assert!(tokens.iter().all(|token| is_active(&mut client, token)));
        let concurrent = results.iter().flatten().filter(|(row, _)| row.action == "concurrent").count();
        assert_eq!(concurrent, 3 * (CALLERS - 1));
        assert_eq!(catalog(&mut client).keys().filter(|name| name.contains("key")).count(), 4);
    }
}

#[test]
fn applies_at_once_end_as_one_of_the_two_orders() {
    let database = Database::new("manifest_orders");
    let mut client = database.connect();
    let with = |manager: &str, rest: &str| format!(r#"{{"manager": "{manager}", {rest}}}"#);
    let left = r#""resources": [{"type": "project", "id": "p"}, {"type": "project", "id": "l"}], "roles": [{"name": "r", "permissions": ["project:read"]}, {"name": "l", "permissions": ["agent:run"]}],
        "users": [{"username": "ann", "kind": "human", "email": "left@x.y"}, {"username": "sys", "kind": "system", "roles": ["auditor"]}, {"username": "leo", "kind": "human"}],
        "bindings": [{"username": "ann", "role": "r"}, {"username": "leo", "role": "l", "resource_type": "project", "resource_id": "l"}],
        "api_keys": [{"username": "ann", "name": "k", "existing_token": null}], "gateway_keys": [{"name": "g", "existing_token": null}, {"name": "l"}]"#;
    let right = r#""resources": [{"type": "project", "id": "p"}, {"type": "project", "id": "q"}], "roles": [{"name": "r", "permissions": ["project:*"], "level": 5}],
        "users": [{"username": "ann", "kind": "human", "email": "right@x.y"}, {"username": "sys", "kind": "system", "roles": ["owner"]}, {"username": "rex", "kind": "human"}],
        "bindings": [{"username": "ann", "role": "r"}, {"username": "sys", "role": "r"}, {"username": "rex", "role": "auditor"}],
        "api_keys": [{"username": "ann", "name": "k", "existing_token": null}, {"username": "rex", "name": "k"}], "gateway_keys": [{"name": "g", "existing_token": null}, {"name": "r"}]"#;
    let pairs = [
        (with("one", left), with("one", right)),
        (with("one", &format!("\"prune\": true, {left}")), with("one", &format!("\"prune\": true, {right}"))),
        (with("one", &format!("\"adopt\": true, {left}")), with("two", &format!("\"adopt\": true, {right}"))),
        (
            with("one", &format!("\"adopt\": true, \"prune\": true, {left}")),
            with("two", &format!("\"adopt\": true, \"prune\": true, {right}")),
        ),
    ];
    // Twice, because what the first left behind may be needed by what the second owns.
    let reset = |client: &mut Client| {
        for manager in ["one", "two", "one", "two"] {
            apply(client, &format!(r#"{{"manager": "{manager}", "prune": true}}"#));
        }
        assert_eq!(catalog(client), BTreeMap::new());
    };
    for (left, right) in &pairs {
        let mut orders = Vec::new();
        for order in [[left, right], [right, left]] {
            reset(&mut client);
            for manifest in order {
                apply(&mut client, manifest);
            }
            orders.push(catalog(&mut client));
        }
        for round in 0..rounds(6) {
            reset(&mut client);
            let count = if round % 2 == 0 { 2 } else { CALLERS };
            let ready = Barrier::new(count);
            let tokens: Vec<String> = thread::scope(|scope| {
                let threads: Vec<_> = (0..count)
                    .map(|number| {
                        let (ready, database) = (&ready, &database);
                        scope.spawn(move || {
                            let mut client = database.connect();
                            ready.wait();
                            let manifest = if number % 2 == 0 { left } else { right };
                            applied(&mut client, "apply", manifest).unwrap()
                        })
                    })
                    .collect();
                let rows = threads.into_iter().flat_map(|thread| thread.join().unwrap());
                rows.filter_map(|(_, token)| token).collect()
            });
            let after = catalog(&mut client);
            assert!(orders.contains(&after), "{left}\n{right}\n{after:#?}\n{orders:#?}");
            assert_eq!(
                tokens.iter().collect::<BTreeSet<_>>().len(),
                tokens.len(),
                "a token that was handed out twice"
            );
            // Whatever key is live is in somebody's hand.
            let live = tokens.iter().filter(|token| is_active(&mut client, token)).count();
            assert_eq!(live, after.keys().filter(|name| name.contains("_key ")).count());
        }
    }
    reset(&mut client);
}

/// As it was after CREATE EXTENSION, for the tables of which a manifest can speak.
fn empty(client: &mut Client) {
    const EMPTY: &str = "SET session_replication_role = replica; \
        DELETE FROM keywright.role_bindings; DELETE FROM keywright.api_keys; DELETE FROM keywright.gateway_keys; \
        DELETE FROM keywright.resources; DELETE FROM keywright.users; DELETE FROM keywright.roles WHERE NOT built_in; \
        DELETE FROM keywright.scopes WHERE NOT built_in; DELETE FROM keywright.resource_types WHERE NOT built_in; \
        RESET session_replication_role";
    client.batch_execute(EMPTY).unwrap();
}

fn rounds(usual: usize) -> usize {
    std::env::var("KEYWRIGHT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

#[test]
fn beside_everybody_else() {
    let database = Database::new("manifest_beside");
    let mut client = database.connect();
    let manifests = [
        WHOLE.to_owned(),
        r#"{"manager": "one", "prune": true, "users": [{"username": "ann", "kind": "human"}], "api_keys": [{"username": "ann", "name": "ci"}]}"#.into(),
        r#"{"manager": "two", "adopt": true, "roles": [{"name": "reader", "permissions": ["project:read"]}], "users": [{"username": "bot", "kind": "system", "roles": ["reader"]}],
            "bindings": [{"username": "bot", "role": "auditor"}], "api_keys": [{"username": "bot", "name": "ci", "existing_token": null}], "gateway_keys": [{"name": "edge"}]}"#.into(),
        r#"{"manager": "two", "prune": true}"#.into(),
    ];
    apply(&mut client, &manifests[0]);
    client.batch_execute("SELECT keywright.ensure_user('olaf', ''), keywright.ensure_user('olga', ''), keywright.ensure_resource('project', 'owned'),
        keywright.bind_role('olaf', 'project-owner', 'project', 'owned'), keywright.bind_role('olga', 'project-owner', 'project', 'owned')").unwrap();
    let others = [
        "SELECT keywright.ensure_api_key('ann', 'ci')",
        "SELECT keywright.ensure_api_key('bot', 'ci', scopes => '{pages}')",
        "SELECT keywright.bind_role('ann', 'reader', 'page', 'p')",
        "SELECT keywright.unbind_role('ann', 'reader', 'page', 'p')",
        "SELECT keywright.delete_user('ann')",
        "SELECT keywright.suspend_user('bot')",
        "SELECT keywright.define_role('reader', '{page:read}')",
        "SELECT keywright.delete_resource('page', 'p')",
        "SELECT keywright.ensure_resource('organization', 'later')",
        "SELECT keywright.ensure_system_user('bot', roles => '{owner}')",
        "SELECT keywright.delete_gateway_key('edge')",
        "SELECT keywright.ensure_gateway_key('edge')",
        "SELECT keywright.unbind_role('olaf', 'project-owner', 'project', 'owned'), keywright.bind_role('olga', 'project-owner', 'project', 'owned')",
        "SELECT keywright.unbind_role('olga', 'project-owner', 'project', 'owned'), keywright.bind_role('olaf', 'project-owner', 'project', 'owned')",
    ];
    let owned = r#"{"manager": "three", "prune": true, "adopt": true, "bindings": [{"username": "olaf", "role": "project-owner", "resource_type": "project", "resource_id": "owned"}]}"#;
    let unowned = r#"{"manager": "three", "prune": true}"#;
    let over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(rounds(8) as u64);
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let applies = manifests.iter().map(String::as_str).chain([owned, unowned]);
        let mut threads = Vec::new();
        for manifest in applies {
            let (database, over) = (&database, &over);
            threads.push(scope.spawn(move || {
                let mut client = database.connect();
                let mut codes = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let result = call(&mut client, "apply", manifest);
                    codes.push(format!(
                        "apply {}",
                        result.map_or_else(|refused| refused.code, |_| "00000".into())
                    ));
                }
                codes
            }));
        }
        for calls in others.chunks(4) {
            let (database, over) = (&database, &over);
            threads.push(scope.spawn(move || {
                let mut client = database.connect();
                let mut codes = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    codes.extend(calls.iter().map(|sql| format!("call {}", code(&mut client, sql))));
                }
                codes
            }));
        }
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
        for code in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            *codes.entry(code).or_default() += 1;
        }
    });
    let all: usize = codes.values().sum();
    let documented = ["00000", "22023", "23503", "40001", "40P01", "42704", "42710", "42501", "55000"];
    for (code, count) in &codes {
        assert!(documented.iter().any(|known| code.ends_with(known)), "{code}: {codes:?}");
        if code.ends_with("40P01") || code.ends_with("40001") {
            assert!(count * 50 < all, "{codes:?}");
        }
    }
    assert!(codes["apply 00000"] > 20, "{codes:?}");
    for (what, sql) in [
        (
            "keys of deleted users",
            "SELECT count(*) FROM keywright.api_keys AS k JOIN keywright.users AS u USING (user_id) WHERE u.deleted_at IS NOT NULL AND k.revoked_at IS NULL",
        ),
        (
            "bindings of deleted users",
            "SELECT count(*) FROM keywright.role_bindings AS b JOIN keywright.users AS u USING (user_id) WHERE u.deleted_at IS NOT NULL",
        ),
        (
            "resources without an owner",
            "SELECT 1 - least(count(*), 1) FROM keywright.role_bindings WHERE role = 'project-owner' AND resource_id = 'owned'",
        ),
    ] {
        assert_eq!(one::<i64>(&mut client, sql), 0, "{what}");
    }
    apply(&mut client, &WHOLE.replacen('{', "{\"adopt\": true, ", 1));
}

#[test]
fn under_an_older_snapshot_it_succeeds_or_is_to_be_tried_again() {
    let database = Database::new("manifest_snapshots");
    let mut client = database.connect();
    let changes = [
        "SELECT keywright.ensure_user('ann', '')",
        "SELECT keywright.ensure_user('ann', ''), keywright.define_role('reader', '{project:read}')",
        "SELECT keywright.register_resource_type('space'), keywright.register_resource_type('page', 'space'), keywright.ensure_resource('space', 's')",
        "SELECT FROM keywright.ensure_gateway_key('edge')",
        "SELECT keywright.ensure_system_user('bot'), keywright.ensure_resource('organization', 'acme')",
        "SELECT FROM keywright.ensure_system_user('bot'), keywright.ensure_api_key('bot', 'ci')",
        "SELECT FROM keywright.apply('{\"manager\": \"one\", \"users\": [{\"username\": \"ann\", \"kind\": \"human\"}], \"api_keys\": [{\"username\": \"ann\", \"name\": \"ci\"}]}')",
        "SELECT keywright.ensure_user('ann', ''); SELECT keywright.delete_user('ann')",
    ];
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        for change in changes {
            apply(&mut client, r#"{"manager": "one", "prune": true}"#);
            empty(&mut client);
            let mut other = database.connect();
            let mut transaction = other.build_transaction().isolation_level(level).start().unwrap();
            transaction.query("SELECT FROM keywright.users", &[]).unwrap();
            client.batch_execute(change).unwrap();
            let result = transaction.execute("SELECT FROM keywright.apply($1::text::jsonb)", &[&WHOLE]);
            match result.and_then(|_| transaction.commit()) {
                Ok(()) => (),
                Err(error) => assert_eq!(
                    error.as_db_error().map(|error| error.code().code()),
                    Some("40001"),
                    "{change}: {error:?}"
                ),
            }
            apply(&mut client, WHOLE);
        }
    }
}

#[test]
fn cut_off_half_way_nothing_is_half_done() {
    let database = Database::new("manifest_cut_off");
    let mut client = database.connect();
    let (with_users, without): (String, String) = client
        .query_one(
            "SELECT jsonb_build_object('manager', 'one', 'prune', true, 'users', jsonb_agg(jsonb_build_object('username', 'u' || n, 'kind', 'service')),
                    'api_keys', jsonb_agg(jsonb_build_object('username', 'u' || n, 'name', 'k')))::text, '{\"manager\": \"one\", \"prune\": true}'
               FROM generate_series(1, 3000) AS n",
            &[],
        )
        .map(|row| (row.get(0), row.get(1)))
        .unwrap();
    let mut cut = 0;
    for round in 0..rounds(8) {
        let manifest = if round % 2 == 0 { &with_users } else { &without };
        thread::scope(|scope| {
            let mut other = database.connect();
            let pid: i32 = one(&mut other, "SELECT pg_backend_pid()");
            let applying = scope.spawn(move || {
                other.execute("SELECT FROM keywright.apply($1::text::jsonb)", &[manifest]).is_err()
            });
            thread::sleep(Duration::from_millis(40 * (round as u64 + 1)));
            client.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
            cut += usize::from(applying.join().unwrap());
        });
        let counts = client.query_one("SELECT (SELECT count(*) FROM keywright.users WHERE deleted_at IS NULL), (SELECT count(*) FROM keywright.api_keys WHERE revoked_at IS NULL)", &[]).unwrap();
        let counts: (i64, i64) = (counts.get(0), counts.get(1));
        assert!(counts == (0, 0) || counts == (3000, 3000), "{counts:?}");
    }
    assert!(cut > 0);
}

#[test]
fn other_encodings() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = Database::with_encoding(&format!("manifest_{}", encoding.to_lowercase()), encoding);
        let mut client = database.connect();
        let planned = call(&mut client, "plan", WHOLE).unwrap();
        assert_eq!(apply(&mut client, WHOLE), planned);
        let foreign =
            r#"{"manager": "one", "users": [{"username": "ann", "kind": "human", "display_name": "é"}]}"#;
        let refused = call(&mut client, "plan", foreign).unwrap_err();
        assert_eq!(refused.code, "22023");
        assert!(refused.detail.contains("$: It holds other characters than ASCII"), "{}", refused.detail);
        client
            .batch_execute(
                "SET client_encoding = 'UTF8'; UPDATE keywright.users SET display_name = 'Zo' || chr(235) WHERE username = 'ann'",
            )
            .unwrap();
        let user =
            r#"{"manager": "one", "users": [{"username": "ann", "kind": "human", "display_name": "Zoe"}]}"#;
        let planned = call(&mut client, "plan", user).unwrap();
        let shown = if encoding == "LATIN1" { "Zoë" } else { "Zo?" };
        assert_eq!(planned[0].change, format!(r#"{{"display_name": {{"to": "Zoe", "from": "{shown}"}}}}"#));
        assert_eq!(apply(&mut client, user), planned);
        assert_eq!(call(&mut client, "plan", user).unwrap(), []);
    }
}

#[test]
fn a_token_that_is_handed_in_is_nowhere_to_be_read() {
    let database = Database::new("manifest_canary");
    let mut client = database.connect();
    client.batch_execute("LISTEN keywright").unwrap();
    apply(&mut client, &WHOLE.replace("\"existing_token\": null", "\"existing_token\": \"\""));
    let mut canaries = vec!["kwk_CANARYcanary".to_owned(), "kwg_CANARY".into()];
    let row = client.query_one("SELECT token FROM keywright.mint_api_key('ann', 'spare')", &[]).unwrap();
    canaries.push(row.get(0));
    let row = client.query_one("SELECT token FROM keywright.mint_gateway_key('spare')", &[]).unwrap();
    canaries.push(row.get(0));
    let mut said = String::new();
    for canary in &canaries {
        let held = WHOLE.replace("\"existing_token\": null", &format!("\"existing_token\": \"{canary}\""));
        for manifest in [
            held.clone(),
            held.replace("\"auditor\"", "\"nowhere\""),
            held.replace("\"one\"", "\"two\""),
            held.replace("\"existing_token\": \"\"", &format!("\"existing_token\": [\"{canary}\"]")),
            held.replace("\"existing_token\": \"\"", &format!("\"{canary}\": 1")),
            held.replace("\"pages\"", &format!("\"{canary}\"")),
            held.replace("\"edge\"", &format!("\"{canary}\"")),
            held.replace("a@b.c", canary),
            held.replace("\"acme\"", &format!("\"{canary}\"")),
        ] {
            for function in ["plan", "apply"] {
                let mut transaction = client.transaction().unwrap();
                let result = transaction.query(
                    &format!("SELECT step, action, kind, name, change::text FROM keywright.{function}($1::text::jsonb)"),
                    &[&manifest],
                );
                match result {
                    Ok(rows) if manifest == held => {
                        for row in rows {
                            said += &format!("{} {}\n", row.get::<_, String>(3), row.get::<_, String>(4));
                        }
                    }
                    Ok(_) => (),
                    Err(error) => said += &format!("{error:?}\n"),
                }
                transaction.rollback().unwrap();
            }
        }
        apply(&mut client, &held);
    }
    while let Some(notification) =
        client.notifications().timeout_iter(Duration::from_millis(200)).next().unwrap()
    {
        said += notification.payload();
    }
    said += &one::<String>(
        &mut client,
        "SELECT string_agg(to_jsonb(e)::text, ' ') FROM keywright.audit_events AS e",
    );
    said += &std::fs::read_to_string(environment("PG_SERVER_LOG")).unwrap_or_default();
    for canary in &canaries {
        assert!(!said.contains(canary.as_str()), "{canary}");
    }
}

/// A manifest out of a small universe: which objects it names and how is told by bits.
#[derive(Debug, Clone, Copy)]
struct Draw {
    manager: bool,
    prune: bool,
    adopt: bool,
    bits: u64,
}

/// What a manifest names: kind and name, with what the catalog is to hold. No value: it stays as it is.
struct Drawn {
    json: String,
    named: BTreeMap<String, Option<String>>,
    /// What the system user is to hold everywhere, if it is named.
    roles: Option<&'static [&'static str]>,
}

impl Draw {
    fn manager(self) -> &'static str {
        if self.manager { "one" } else { "two" }
    }

    fn draw(self) -> Drawn {
        let mut bits = self.bits;
        let mut flip = || {
            bits = bits.rotate_right(1);
            bits & 1 == 1
        };
        let mut named = BTreeMap::new();
        let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut add = |section: &'static str, entry: String, name: &str, value: Option<String>| {
            sections.entry(section).or_default().push(entry);
            named.insert(name.to_owned(), value);
        };
        if flip() {
            add("resource_types", r#"{"type": "ta"}"#.into(), "resource_type ta", Some(String::new()));
        }
        if flip() {
            let parent = if flip() { r#", "parent_type": "ta""# } else { "" };
            let value = if parent.is_empty() { "" } else { "ta" };
            add(
                "resource_types",
                format!(r#"{{"type": "tb"{parent}}}"#),
                "resource_type tb",
                Some(value.into()),
            );
        }
        if flip() {
            add("resources", r#"{"type": "ta", "id": "1"}"#.into(), "resource ta:1", None);
        }
        if flip() {
            let (parent, value) = match (flip(), flip()) {
                (true, true) => (r#", "parent_id": "1""#, Some("1".to_owned())),
                (true, false) => (r#", "parent_id": null"#, Some(String::new())),
                _ => ("", None),
            };
            add("resources", format!(r#"{{"type": "tb", "id": "1"{parent}}}"#), "resource tb:1", value);
        }
        if flip() {
            let kind = if flip() { "ta" } else { "project" };
            add(
                "roles",
                format!(r#"{{"name": "r", "permissions": ["{kind}:read"]}}"#),
                "role r",
                Some(format!("3 {{{kind}:read}}")),
            );
        }
        if flip() {
            let kind = if flip() { "tb" } else { "project" };
            add(
                "scopes",
                format!(r#"{{"name": "s", "permissions": ["{kind}:read"]}}"#),
                "scope s",
                Some(format!("{{{kind}:read}}")),
            );
        }
        for user in ["ann", "bo"] {
            if flip() {
                let (email, value) = match flip() {
                    true => (r#", "email": "x@y.z""#, Some("human x@y.z".to_owned())),
                    false => ("", None),
                };
                add(
                    "users",
                    format!(r#"{{"username": "{user}", "kind": "human"{email}}}"#),
                    &format!("user {user}"),
                    value,
                );
            }
        }
        let mut roles = None;
        if flip() {
            let (held, list): (&[&str], _) = match (flip(), flip()) {
                (true, true) => (&["auditor"], r#", "roles": ["auditor"]"#),
                (true, false) => (&[], r#", "roles": []"#),
                (false, _) => (&["owner"], ""),
            };
            roles = Some(held);
            add("users", format!(r#"{{"username": "sys", "kind": "system"{list}}}"#), "user sys", None);
        }
        for (user, role, on) in
            [("ann", "r", ""), ("ann", "r", "ta:1"), ("bo", "auditor", "tb:1"), ("sys", "auditor", "")]
        {
            if flip() {
                let place = match on.split_once(':') {
                    Some((kind, id)) => format!(r#", "resource_type": "{kind}", "resource_id": "{id}""#),
                    None => String::new(),
                };
                let name = format!(
                    "role_binding {user} {role}{}",
                    if on.is_empty() { String::new() } else { format!(" on {on}") }
                );
                add(
                    "bindings",
                    format!(r#"{{"username": "{user}", "role": "{role}"{place}}}"#),
                    &name,
                    Some("false".into()),
                );
            }
        }
        for user in ["ann", "sys"] {
            if flip() {
                let scope = if flip() && flip() { "s" } else { "all" };
                add(
                    "api_keys",
                    format!(r#"{{"username": "{user}", "name": "k", "scopes": ["{scope}"]}}"#),
                    &format!("api_key {user}/k"),
                    Some(format!("{{{scope}}}")),
                );
            }
        }
        if flip() {
            let held = if flip() { r#", "existing_token": null"# } else { "" };
            add("gateway_keys", format!(r#"{{"name": "g"{held}}}"#), "gateway_key g", Some(String::new()));
        }
        let sections: Vec<String> = sections
            .iter()
            .map(|(section, entries)| format!(r#""{section}": [{}]"#, entries.join(", ")))
            .collect();
        let json = format!(
            r#"{{"manager": "{}", "prune": {}, "adopt": {}{}{}}}"#,
            self.manager(),
            self.prune,
            self.adopt,
            if sections.is_empty() { "" } else { ", " },
            sections.join(", ")
        );
        Drawn { json, named, roles }
    }
}

/// What is to be there after an apply that succeeded; `left` is what it said it leaves.
fn expected(
    before: &BTreeMap<String, (String, String)>,
    draw: Draw,
    drawn: &Drawn,
    left: &BTreeSet<String>,
) -> BTreeMap<String, (String, String)> {
    let manager = draw.manager();
    let mut after = before.clone();
    for (name, value) in &drawn.named {
        let found = before.get(name).map(|(_, value)| value.clone());
        let new = match name.as_str() {
            "user ann" | "user bo" => "human ",
            "user sys" => "system ",
            _ => "",
        };
        let value = value.clone().or(found).unwrap_or_else(|| new.into());
        after.insert(name.clone(), (manager.into(), value));
    }
    for role in ["auditor", "owner"] {
        let own = format!("role_binding sys {role}");
        let Some(held) = drawn.roles.filter(|_| !drawn.named.contains_key(&own)) else { continue };
        if held.contains(&role) && !before.contains_key(&own) {
            after.insert(own, (String::new(), "true".into()));
        } else if !held.contains(&role) && before.get(&own).is_some_and(|(_, standing)| standing == "true") {
            after.remove(&own);
        }
    }
    if draw.prune {
        after.retain(|name, (owner, _)| {
            owner != manager || drawn.named.contains_key(name) || left.contains(name)
        });
    }
    // What belongs to users and lies on resources that are gone goes along.
    let there: BTreeSet<String> = after.keys().cloned().collect();
    after.retain(|name, _| match name.split_once(' ') {
        Some(("role_binding", binding)) => {
            let mut words = binding.split(' ');
            let user = words.next().unwrap_or_default();
            let resource = words.nth(2);
            there.contains(&format!("user {user}"))
                && resource.is_none_or(|resource| there.contains(&format!("resource {resource}")))
        }
        Some(("api_key", key)) => {
            there.contains(&format!("user {}", key.split_once('/').map_or("", |(user, _)| user)))
        }
        _ => true,
    });
    after
}

fn random_sequence(database: &Database, draws: &[Draw]) -> Result<usize, TestCaseError> {
    let mut client = database.connect();
    empty(&mut client);
    let mut succeeded = 0;
    for draw in draws {
        let drawn = draw.draw();
        let before = catalog(&mut client);
        let planned = call(&mut client, "plan", &drawn.json);
        prop_assert_eq!(&catalog(&mut client), &before);
        let done = call(&mut client, "apply", &drawn.json);
        prop_assert_eq!(&planned, &done, "{}", &drawn.json);
        let after = catalog(&mut client);
        let Ok(steps) = done else {
            prop_assert_eq!(&before, &after);
            continue;
        };
        succeeded += 1;
        let left: BTreeSet<String> = steps
            .iter()
            .filter(|step| step.action == "left")
            .map(|step| format!("{} {}", step.kind, step.name))
            .collect();
        prop_assert_eq!(&after, &expected(&before, *draw, &drawn, &left), "{}\n{:?}", &drawn.json, &steps);
        // What others own is there as it was.
        for (name, found) in
            before.iter().filter(|(_, (owner, _))| !owner.is_empty() && owner != draw.manager())
        {
            prop_assert!(
                drawn.named.contains_key(name) || after.get(name) == Some(found),
                "{} {}",
                &drawn.json,
                name
            );
        }
        let again = drawn.json.replace(r#", "existing_token": null"#, "");
        let rest = call(&mut client, "plan", &again).unwrap();
        prop_assert!(rest.iter().all(|step| step.action == "left"), "{} {:?}", &drawn.json, rest);
        let mut transaction = client.transaction().unwrap();
        transaction.execute("SELECT FROM keywright.apply($1::text::jsonb)", &[&again]).unwrap();
        let row = transaction.query_one("SELECT pg_current_xact_id_if_assigned() IS NULL", &[]).unwrap();
        prop_assert!(row.get::<_, bool>(0), "{}", &drawn.json);
        transaction.commit().unwrap();
    }
    Ok(succeeded)
}

/// KEYWRIGHT_SEQUENCES=2000 runs more of them.
#[test]
fn random_sequences_do_what_they_say() {
    let database = Database::new("manifest_random");
    let cases = std::env::var("KEYWRIGHT_SEQUENCES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    // Dense and sparse ones, and whole ones that are followed by what differs little.
    let bits = prop_oneof![
        any::<u64>(),
        (any::<u64>(), any::<u64>()).prop_map(|(a, b)| a | b),
        (any::<u64>(), any::<u64>()).prop_map(|(a, b)| a & b)
    ];
    let draw = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.7), bits)
        .prop_map(|(manager, prune, adopt, bits)| Draw { manager, prune, adopt, bits });
    let sequence = prop::collection::vec(draw, 1..8);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    });
    let succeeded = std::cell::Cell::new(0);
    runner
        .run(&sequence, |draws| {
            succeeded.set(succeeded.get() + random_sequence(&database, &draws)?);
            Ok(())
        })
        .unwrap();
    assert!(succeeded.get() > cases as usize / 4, "only {} of them could be applied", succeeded.get());
}
