//! Requests as PostgREST makes them: one transaction each, in a session that is used again and again.
//!
//! What is emulated, with the place in PostgREST's source (version 17 in the making, which has hasql and its pool in `src/hasql`):
//! - `Hasql/Transaction/Private/Sessions.hs:20-33`: BEGIN, the statements, COMMIT; ABORT after a statement that failed, and nothing at
//!   all where it was BEGIN that failed.
//! - `Hasql/Pool.hs:207-233`: a connection whose session failed, or was ended by an exception, goes back to the pool as it is, unless
//!   the connection itself is gone. Newer versions first reset one that is in a transaction (`Hasql/Session/Core.hs:27-39`); hasql-pool 1.0
//!   with hasql 1.6, which PostgREST 14 is built with, does not.
//! - `PostgREST/MainTx.hs:86-99`, `Query/PreQuery.hs:31-59`: settings in one statement, the pre-request function, the query.
//! - `ApiRequest.hs:105` and `Query/SqlFragment.hs:574-579`: names of headers in lower case, in a map, so that the last of two wins.
//! - `Error.hs:546-599` with `App.hs:231`: the status of an error; 42501 is 401 for the anonymous role, which a request without a JWT is.

use keywright_tests::{Cluster, Database, Random, one, wait_for};
use postgres::{Client, Config, NoTls, SimpleQueryMessage};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ANON: &str = "keywright_test Anon \"1\"";
const WEB: &str = "keywright_test Web, User";
const OTHER: &str = "keywright_test_other'";
const REST: &str = "keywright_test Rest";

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Two users, each with a key, a Postgres role and a project of their own.
struct Api {
    database: Database,
    roles: Roles,
    ada: Key,
    bob: Key,
}

/// The cluster's, so each test has its own.
struct Roles {
    anon: String,
    web: String,
    other: String,
    rest: String,
}

struct Key {
    token: String,
    key_id: String,
    user_id: String,
}

impl Api {
    fn new(name: &str) -> Api {
        let database = Database::new(name);
        let mut client = database.connect();
        let roles = Roles {
            anon: format!("{ANON} {name}"),
            web: format!("{WEB} {name}"),
            other: format!("{OTHER} {name}"),
            rest: format!("{REST} {name}"),
        };
        let (anon, web, other, rest) =
            (ident(&roles.anon), ident(&roles.web), ident(&roles.other), ident(&roles.rest));
        client
            .batch_execute(&format!(
                "DROP ROLE IF EXISTS {rest}, {web}, {other}, {anon};
                 CREATE ROLE {anon} NOLOGIN; CREATE ROLE {web} NOLOGIN; CREATE ROLE {other} NOLOGIN;
                 CREATE ROLE {rest} LOGIN NOINHERIT NOCREATEDB NOCREATEROLE NOSUPERUSER;
                 GRANT {anon}, {web}, {other} TO {rest};
                 SELECT keywright.ensure_user('ada', '', db_role => {}), keywright.ensure_user('bob', '', db_role => {});
                 SELECT keywright.ensure_resource('project', 'p1'), keywright.ensure_resource('project', 'p2');
                 SELECT keywright.bind_role('ada', 'project-owner', 'project', 'p1'), keywright.bind_role('bob', 'project-viewer', 'project', 'p2');
                 CREATE SCHEMA api; GRANT USAGE ON SCHEMA api TO PUBLIC;
                 CREATE TABLE api.tasks (id integer, project text);
                 INSERT INTO api.tasks VALUES (1, 'p1'), (2, 'p2');
                 ALTER TABLE api.tasks ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY mine ON api.tasks USING (keywright.is_permitted('project:read', 'project', project))
                   WITH CHECK (keywright.is_permitted('project:update', 'project', project));
                 GRANT SELECT, INSERT ON api.tasks TO {web}, {other}, {anon};
                 CREATE VIEW api.me WITH (security_invoker) AS
                   SELECT current_user::text AS role, keywright.current_user_id()::text AS user_id,
                          keywright.current_api_key_id() AS key_id, (SELECT string_agg(id::text, ',') FROM api.tasks) AS tasks;
                 GRANT SELECT ON api.me TO PUBLIC;",
                literal(&roles.web),
                literal(&roles.other),
            ))
            .unwrap();
        for role in [&roles.anon, &roles.web, &roles.other] {
            client.query_one("SELECT keywright.grant_access($1, 'requester')", &[role]).unwrap();
        }
        let mut key = |user: &str| {
            let row = client
                .query_one(
                    "SELECT m.token, m.key_id, v.user_id::text
                       FROM keywright.mint_api_key($1, 'rest') AS m, LATERAL keywright.verify_api_key(m.token) AS v",
                    &[&user],
                )
                .unwrap();
            Key { token: row.get(0), key_id: row.get(1), user_id: row.get(2) }
        };
        let (ada, bob) = (key("ada"), key("bob"));
        Api { roles, database, ada, bob }
    }

    fn connect(&self) -> Client {
        self.database.connect_as(&self.roles.rest, "")
    }

    fn admin(&self, sql: &str) {
        self.database.connect().batch_execute(sql).unwrap();
    }

    fn get(&self, client: &mut Client, headers: &str) -> Answer {
        self.request(client, "GET", headers, "SELECT role, user_id, key_id, tasks FROM api.me")
    }

    fn request(&self, client: &mut Client, method: &str, headers: &str, query: &str) -> Answer {
        if let Err(error) = client.simple_query(begin(method)) {
            return Answer::error(&error);
        }
        let done = self.ask(client, method, headers, query);
        let done = match done {
            Ok(rows) => client.simple_query("COMMIT").map(|_| rows),
            Err(error) => {
                client.simple_query("ABORT").unwrap();
                Err(error)
            }
        };
        done.map_or_else(|error| Answer::error(&error), |rows| Answer::ok(&rows))
    }

    /// All of a request but its BEGIN and its end.
    fn ask(
        &self,
        client: &mut Client,
        method: &str,
        headers: &str,
        query: &str,
    ) -> Result<Vec<SimpleQueryMessage>, postgres::Error> {
        let settings = format!(
            "SELECT set_config('search_path', '\"api\", \"public\"', true), set_config('role', {anon}, true),
                    set_config('request.jwt.claims', {claims}, true), set_config('request.method', '{method}', true),
                    set_config('request.path', '/me', true), set_config('request.headers', {headers}, true),
                    set_config('request.cookies', '{{}}', true)",
            anon = literal(&self.roles.anon),
            claims = literal(&format!("{{\"role\":\"{}\"}}", self.roles.anon.replace('"', "\\\""))),
            headers = literal(headers),
        );
        client.simple_query(&settings)?;
        client.simple_query("SELECT \"keywright\".\"check_request\"()")?;
        client.simple_query(query)
    }

    /// A request that fails on PostgREST's own side after the pre-request function, or whose client is gone: nothing ends its transaction.
    fn dies(&self, client: &mut Client, method: &str, headers: &str, last_words: &str) {
        client.simple_query(begin(method)).unwrap();
        _ = self.ask(client, method, headers, last_words);
    }
}

fn begin(method: &str) -> &'static str {
    match method {
        "GET" => "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
        _ => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let Roles { anon, web, other, rest } = &self.roles;
        let drop =
            [rest, web, other, anon].map(|role| format!("DROP OWNED BY {r}; DROP ROLE {r}", r = ident(role)));
        let mut client = self.database.connect();
        for role in drop {
            _ = client.batch_execute(&role);
        }
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    role: String,
    user_id: Option<String>,
    key_id: Option<String>,
    tasks: Option<String>,
}

impl Answer {
    fn ok(rows: &[SimpleQueryMessage]) -> Answer {
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let get = |at: usize| row.and_then(|row| row.try_get(at).ok().flatten()).map(str::to_owned);
        Answer {
            status: 200,
            role: get(0).unwrap_or_default(),
            user_id: get(1),
            key_id: get(2),
            tasks: get(3),
        }
    }

    fn error(error: &postgres::Error) -> Answer {
        let db = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
        let status = status(db.code().code(), db.message());
        Answer { status, role: db.message().to_owned(), user_id: None, key_id: None, tasks: None }
    }
}

/// PostgREST's table, for a request without a token of its own.
fn status(code: &str, message: &str) -> u16 {
    match (code, &code[..2]) {
        (custom, "PT") => custom[2..].parse().unwrap_or(500),
        ("53400", _) => 500,
        ("57P01", _) | (_, "08" | "53") => 503,
        (_, "0L" | "0P" | "28") => 403,
        ("22023", _) if message.starts_with("role") && message.ends_with("does not exist") => 401,
        ("23503" | "23505", _) => 409,
        ("25006", _) => 405,
        (
            _,
            "25" | "2D" | "09" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0" | "HV" | "XX",
        ) => 500,
        ("42501", _) => 401,
        ("42883" | "42P01", _) => 404,
        ("42P17" | "21000", _) => 500,
        ("P0001", _) => 400,
        (_, "P0") => 500,
        _ => 400,
    }
}

fn header(value: &str) -> String {
    sent(&[("Accept", "*/*"), ("X-Api-Key", value)])
}

/// What arrives of these headers.
fn sent(headers: &[(&str, &str)]) -> String {
    let map: HashMap<String, &str> =
        headers.iter().map(|(name, value)| (name.to_lowercase(), *value)).collect();
    let fields: Vec<String> =
        map.iter().map(|(name, value)| format!("{}:{}", json(name), json(value))).collect();
    format!("{{{}}}", fields.join(","))
}

fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn anonymous(api: &Api) -> Answer {
    Answer { status: 200, role: api.roles.anon.clone(), user_id: None, key_id: None, tasks: None }
}

fn adas(api: &Api) -> Answer {
    Answer {
        status: 200,
        role: api.roles.web.clone(),
        user_id: Some(api.ada.user_id.clone()),
        key_id: Some(api.ada.key_id.clone()),
        tasks: Some("1".into()),
    }
}

fn bobs(api: &Api) -> Answer {
    Answer {
        status: 200,
        role: api.roles.other.clone(),
        user_id: Some(api.bob.user_id.clone()),
        key_id: Some(api.bob.key_id.clone()),
        tasks: Some("2".into()),
    }
}

#[test]
fn every_kind_of_key_gets_its_status() {
    let api = Api::new("requests");
    let mut client = api.connect();
    let (ada, bob) = (&api.ada.token, &api.bob.token);
    let junk = [
        "".into(),
        " ".into(),
        "nonsense".into(),
        "Zoë ключ 🔑".into(),
        "x".repeat(1_000_000),
        "kwk_AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAA000000".into(),
        "' OR true; --".into(),
        "\t ".into(),
        format!("\u{a0}{ada}"),
        format!("Bearer {ada}"),
        format!("{ada},{bob}"),
        ada.to_lowercase(),
        format!("{}{}", &ada[..42], if ada.ends_with('0') { '1' } else { '0' }),
        "\u{1}\u{7f}\"\\".into(),
    ];
    assert_eq!(api.get(&mut client, ""), anonymous(&api), "no headers at all");
    assert_eq!(api.get(&mut client, "{}"), anonymous(&api));
    assert_eq!(api.get(&mut client, "{\"authorization\":\"Bearer x\"}"), anonymous(&api));
    for value in &junk {
        assert_eq!(api.get(&mut client, &header(value)).status, 401, "{:.60}", value);
        assert_eq!(api.get(&mut client, "{}"), anonymous(&api), "the next one in the session");
    }
    for headers in
        ["{\"x-api-key\":null}", "{\"x-api-key\":7}", "{\"x-api-key\":[]}", "[", "[]", "7", "\"\"", "null"]
    {
        assert_eq!(api.get(&mut client, headers).status, 401, "{headers}");
    }
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(api.get(&mut client, &deep).status, 401, "nested deeper than the stack");
    // The last one arrives, whatever the others are.
    for (first, last, answer) in
        [(ada, bob, bobs(&api)), (bob, ada, adas(&api)), (&"nonsense".into(), ada, adas(&api))]
    {
        assert_eq!(api.get(&mut client, &sent(&[("x-api-key", first), ("X-API-Key", last)])), answer);
    }
    assert_eq!(api.get(&mut client, &sent(&[("x-api-key", ada), ("x-api-key", "nonsense")])).status, 401);
    for blank in [" ", "\t", " \t \t"] {
        assert_eq!(api.get(&mut client, &header(&format!("{blank}{ada}{blank}"))), adas(&api), "{blank:?}");
    }
    assert_eq!(api.get(&mut client, &header(ada)), adas(&api));
    assert_eq!(api.get(&mut client, &sent(&[("X-API-KEY", bob)])), bobs(&api));
    // A key that dies: at the next request.
    let mut dead = |sql: &str| {
        assert_eq!(api.get(&mut client, &header(bob)), bobs(&api), "before {sql}");
        api.admin(sql);
        assert_eq!(api.get(&mut client, &header(bob)).status, 401, "{sql}");
        assert_eq!(api.get(&mut client, "{}"), anonymous(&api));
    };
    dead("SELECT keywright.suspend_user('bob')");
    api.admin("SELECT keywright.activate_user('bob')");
    dead(&format!("SELECT keywright.revoke_api_key('{}')", api.bob.key_id));
    let mut admin = api.database.connect();
    let brief: String = one(&mut admin, "SELECT token FROM keywright.mint_api_key('ada', 'brief')");
    let past = "UPDATE keywright.api_keys SET expires_at = clock_timestamp() WHERE name = 'brief'";
    admin.batch_execute(past).unwrap();
    assert_eq!(api.get(&mut client, &header(&brief)).status, 401, "expired");
}

#[test]
fn a_role_that_can_not_be_taken_is_forbidden() {
    let api = Api::new("requests_role");
    let (web, rest) = (ident(&api.roles.web), ident(&api.roles.rest));
    let mut client = api.connect();
    let headers = header(&api.ada.token);
    let mut forbidden = |doing: String, undoing: String| {
        assert_eq!(api.get(&mut client, &headers), adas(&api), "before {doing}");
        api.admin(&doing);
        assert_eq!(api.get(&mut client, &headers).status, 403, "{doing}");
        assert_eq!(api.get(&mut client, "{}"), anonymous(&api), "after {doing}");
        api.admin(&undoing);
    };
    forbidden(format!("REVOKE {web} FROM {rest}"), format!("GRANT {web} TO {rest}"));
    for power in ["SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION"] {
        forbidden(format!("ALTER ROLE {web} {power}"), format!("ALTER ROLE {web} NO{power}"));
    }
    let boss = ident(&format!("{} boss", api.roles.web));
    forbidden(format!("CREATE ROLE {boss} SUPERUSER; GRANT {boss} TO {web}"), format!("DROP ROLE {boss}"));
    let renamed = ident(&format!("{} renamed", api.roles.web));
    forbidden(
        format!("ALTER ROLE {web} RENAME TO {renamed}"),
        format!("ALTER ROLE {renamed} RENAME TO {web}"),
    );
}

#[test]
fn a_write_is_checked_and_a_failing_request_leaves_nothing() {
    let api = Api::new("requests_write");
    let mut client = api.connect();
    let (ada, bob) = (header(&api.ada.token), header(&api.bob.token));
    let insert = |project: &str| format!("INSERT INTO api.tasks VALUES (9, '{project}')");
    assert_eq!(api.request(&mut client, "POST", &ada, &insert("p1")).status, 200);
    assert_eq!(api.request(&mut client, "POST", &ada, &insert("p2")).status, 401, "another's project");
    assert_eq!(api.request(&mut client, "POST", &bob, &insert("p2")).status, 401, "may read, not write");
    assert_eq!(api.request(&mut client, "POST", "{}", &insert("p1")).status, 401, "nobody");
    assert_eq!(api.get(&mut client, "{}"), anonymous(&api));
    assert_eq!(api.request(&mut client, "GET", &ada, &insert("p1")).status, 405, "GET is READ ONLY");
    // Whatever a request does to its session, the next one is who it says.
    for mischief in [
        "RESET ROLE",
        "SET ROLE NONE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SELECT set_config('request.headers', '{}', false)",
        "SET search_path = pg_temp",
        "DISCARD PLANS",
        "CREATE TEMP TABLE users (user_id uuid)",
        "SELECT 1/0",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s; SELECT 1/0",
    ] {
        _ = api.request(&mut client, "POST", &ada, mischief);
        assert_eq!(api.get(&mut client, "{}"), anonymous(&api), "after {mischief}");
        assert_eq!(api.get(&mut client, &bob), bobs(&api), "after {mischief}");
    }
    // Nor does a setting that a session may not change turn the check off.
    let refused = api.request(&mut client, "POST", &ada, "SET keywright.api_key_header = 'nothing'");
    assert_eq!(refused.status, 401);
    assert_eq!(api.get(&mut client, &header("nonsense")).status, 401);
}

#[test]
fn a_connection_that_comes_back_in_a_transaction_takes_no_key_along() {
    let api = Api::new("requests_open");
    let (ada, bob) = (header(&api.ada.token), header(&api.bob.token));
    let whose = "SELECT coalesce(keywright.current_user_id()::text, 'nobody')";
    for (last_words, begins) in [
        ("SELECT 1", true),
        ("SAVEPOINT s", true),
        ("SAVEPOINT s; SAVEPOINT t; RELEASE t", true),
        ("SAVEPOINT s; SELECT 1/0", false),
        ("SELECT 1/0", false),
    ] {
        let mut client = api.connect();
        // Each of these is answered as if nobody had been there before.
        let mut dies = |next: &str| {
            api.dies(&mut client, "GET", &ada, last_words);
            let answer = api.get(&mut client, next);
            // Nothing ends a transaction that has failed, because BEGIN fails in it.
            client.simple_query("ROLLBACK").unwrap();
            answer
        };
        let expected = |answer: Answer, or: u16| match begins {
            true => answer,
            false => Answer { status: or, ..dead() },
        };
        assert_eq!(plain(dies("{}")), plain(expected(anonymous(&api), 500)), "{last_words}");
        assert_eq!(plain(dies(&bob)), plain(expected(bobs(&api), 500)), "{last_words}");
        assert_eq!(dies(&header("nonsense")).status, if begins { 401 } else { 500 }, "{last_words}");
        assert_eq!(plain(dies("")), plain(expected(anonymous(&api), 500)), "{last_words}");
        // A write can not go on in what began READ ONLY: its BEGIN fails.
        api.dies(&mut client, "GET", &ada, last_words);
        assert_eq!(
            api.request(&mut client, "POST", "{}", "INSERT INTO api.tasks VALUES (9, 'p1')").status,
            500
        );
        client.simple_query("ROLLBACK").unwrap();
        if begins {
            api.dies(&mut client, "POST", &ada, last_words);
            let write = "INSERT INTO api.tasks VALUES (9, 'p1')";
            assert_eq!(api.request(&mut client, "POST", "{}", write).status, 401, "{last_words}");
            client.simple_query("ROLLBACK").unwrap();
        }
    }
    // A token that is refused leaves nobody, whatever is rolled back around it.
    let mut client = api.database.connect();
    let junk = "SELECT set_config('request.headers', '{\"x-api-key\":\"nonsense\"}', true)";
    let begin = format!("SELECT keywright.begin_request('{}')", api.ada.token);
    for call in ["SELECT keywright.check_request()", "SELECT keywright.begin_request('nonsense')"] {
        client.batch_execute(&format!("BEGIN; {begin}; {junk}; SAVEPOINT s")).unwrap();
        assert_eq!(one::<String>(&mut client, whose), api.ada.user_id);
        assert!(client.simple_query(call).is_err());
        client.batch_execute("ROLLBACK TO s").unwrap();
        assert_eq!(one::<String>(&mut client, whose), "nobody", "{call}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    // What the same request began before the savepoint stays.
    client.batch_execute(&format!("BEGIN; {begin}; SAVEPOINT s; SAVEPOINT t; ROLLBACK TO s")).unwrap();
    assert_eq!(one::<String>(&mut client, whose), api.ada.user_id);
    client.batch_execute("ROLLBACK").unwrap();
}

/// What a model knows of a session: how deep in savepoints it is, and who is in force since which depth.
#[derive(Default)]
struct Model {
    depth: Option<usize>,
    in_force: Option<(usize, usize)>,
}

/// Two connections, three keys, and every way a request can go or its transaction be left: nobody is ever the other.
#[test]
fn nobody_is_ever_the_other_wherever_requests_die() {
    let api = Api::new("requests_walk");
    let rest = ident(&api.roles.rest);
    api.admin(&format!("GRANT SELECT ON api.tasks TO {rest}; SELECT keywright.ensure_user('cleo', '');"));
    let mut admin = api.database.connect();
    admin.query_one("SELECT keywright.grant_access($1, 'requester')", &[&api.roles.rest]).unwrap();
    let minted =
        admin.query_one("SELECT token, key_id FROM keywright.mint_api_key('cleo', 'rest')", &[]).unwrap();
    let keys = [
        (api.ada.token.clone(), api.ada.key_id.clone()),
        (api.bob.token.clone(), api.bob.key_id.clone()),
        (minted.get(0), minted.get(1)),
    ];
    let whose = "SELECT keywright.current_api_key_id(), (SELECT string_agg(id::text, ',') FROM api.tasks)";
    let mut sessions: [(Client, Model); 2] = [0, 1].map(|_| (api.connect(), Model::default()));
    let mut chance = Random(0x9e37_79b9_7f4a_7c15);
    let mut answered = [0; 4];
    for step in 0..6_000 {
        let (client, model) = &mut sessions[chance.below(2)];
        let who = chance.below(5);
        let token = keys.get(who).map_or("nonsense", |key| &key.0);
        let aborted = client.simple_query("SELECT 1").is_err();
        let what = chance.below(12);
        match what {
            // A request, on whatever the connection came with; most of them end.
            0..=4 => {
                let method = ["GET", "POST"][chance.below(2)];
                let headers = if who == 3 { "{}".into() } else { header(token) };
                if client.simple_query(begin(method)).is_ok() {
                    let depth = *model.depth.get_or_insert(0);
                    let done = api.ask(client, method, &headers, "SELECT 1");
                    assert_eq!(done.is_ok(), who != 4, "{step}");
                    model.in_force = keys.get(who).map(|_| (depth, who));
                    let end = match (chance.below(3), done) {
                        (0, _) => None,
                        (_, Ok(_)) => Some("COMMIT"),
                        (_, Err(_)) => Some("ABORT"),
                    };
                    if let Some(end) = end {
                        let expected = model.in_force.map(|(_, who)| keys[who].1.clone());
                        if end == "COMMIT" {
                            assert_eq!(one::<Option<String>>(client, whose), expected, "{step}");
                            answered[who] += 1;
                        }
                        client.simple_query(end).unwrap();
                        *model = Model::default();
                    }
                } else if chance.below(2) == 0 {
                    // The pool gives it up, because it is old.
                    client.simple_query("ROLLBACK").unwrap();
                    *model = Model::default();
                }
            }
            5 if model.depth.is_some() && !aborted => {
                let depth = model.depth.map_or(1, |depth| depth + 1);
                client.simple_query(&format!("SAVEPOINT s{depth}")).unwrap();
                model.depth = Some(depth);
            }
            6 | 7 if model.depth.is_some_and(|depth| depth > 0) => {
                let to = 1 + chance.below(model.depth.unwrap_or(1));
                client.simple_query(&format!("ROLLBACK TO s{to}")).unwrap();
                model.depth = Some(to);
                model.in_force = model.in_force.filter(|(depth, _)| *depth < to);
            }
            8 if model.depth.is_some_and(|depth| depth > 0) && !aborted => {
                let to = 1 + chance.below(model.depth.unwrap_or(1));
                client.simple_query(&format!("RELEASE s{to}")).unwrap();
                model.depth = Some(to - 1);
                model.in_force = model.in_force.map(|(depth, who)| (depth.min(to - 1), who));
            }
            9 if !aborted => {
                let done = client.simple_query(&format!("SELECT keywright.begin_request('{token}')"));
                assert_eq!(done.is_ok(), who < 3, "{step}");
                model.in_force = model.depth.and_then(|depth| keys.get(who).map(|_| (depth, who)));
            }
            10 if chance.below(3) == 0 => _ = client.simple_query("SELECT 1/0"),
            11 if chance.below(2) == 0 => {
                client.simple_query(["COMMIT", "ROLLBACK"][chance.below(2)]).unwrap();
                *model = Model::default();
            }
            _ => (),
        }
        // What fails outside savepoints ends everything; inside, what was begun since the last one.
        if client.simple_query("SELECT 1").is_err() {
            let depth = model.depth.unwrap_or(0);
            model.in_force = model.in_force.filter(|(at, _)| depth > 0 && *at < depth);
            continue;
        }
        let row = client.query_one(whose, &[]).unwrap();
        let expected = model.in_force.map(|(_, who)| who);
        assert_eq!(
            row.get::<_, Option<String>>(0),
            expected.map(|who| keys[who].1.clone()),
            "{step}: {what}"
        );
        let tasks = expected.and_then(|who| [Some("1"), Some("2"), None][who]);
        assert_eq!(row.get::<_, Option<&str>>(1), tasks, "{step}: {what}");
    }
    assert!(answered.iter().all(|count| *count > 50), "{answered:?}");
}

fn dead() -> Answer {
    Answer { status: 500, role: String::new(), user_id: None, key_id: None, tasks: None }
}

/// Without the words of an error.
fn plain(answer: Answer) -> Answer {
    match answer.status {
        200 => answer,
        _ => Answer { status: answer.status, ..dead() },
    }
}

#[test]
fn a_request_without_a_key_can_be_refused() {
    let api = Api::new("requests_require");
    let rest = ident(&api.roles.rest);
    let set = |value: &str| api.admin(&format!("ALTER ROLE {rest} SET keywright.require_api_key = {value}"));
    set("on");
    let mut client = api.connect();
    for headers in ["", "{}", "{\"authorization\":\"Bearer x\"}"] {
        assert_eq!(api.get(&mut client, headers).status, 401, "{headers}");
    }
    assert_eq!(api.get(&mut client, &header(&api.ada.token)), adas(&api));
    // Not the session's to change.
    assert!(client.simple_query("SET keywright.require_api_key = off").is_err());
    assert_eq!(api.get(&mut client, "{}").status, 401);
    set("off");
    assert_eq!(api.get(&mut api.connect(), "{}"), anonymous(&api));
}

#[test]
fn the_settings_of_the_role_are_the_requests() {
    let api = Api::new("requests_settings");
    let (web, anon, rest) = (ident(&api.roles.web), ident(&api.roles.anon), ident(&api.roles.rest));
    let database = ident(&api.database.name);
    api.admin(&format!(
        "ALTER ROLE {web} SET statement_timeout = '7s'; ALTER ROLE {web} IN DATABASE {database} SET statement_timeout = '8s';
         ALTER ROLE {web} SET work_mem = '5MB'; ALTER ROLE {anon} SET work_mem = '6MB';
         ALTER ROLE {web} IN DATABASE postgres SET lock_timeout = '9s';
         ALTER ROLE {web} SET \"DateStyle\" = 'SQL, DMY'; ALTER ROLE {web} SET application_name = 'a=b ''c';
         ALTER ROLE {web} SET log_min_duration_statement = 3; ALTER ROLE {web} SET lc_messages = 'C';
         ALTER ROLE {web} SET role = {anon}; ALTER ROLE {web} SET keywright.api_key_header = 'nothing'"
    ));
    let mut client = api.connect();
    let settings = "SELECT concat_ws('|', current_user, current_setting('statement_timeout'), current_setting('work_mem'), current_setting('lock_timeout'),
        current_setting('DateStyle'), current_setting('application_name'), current_setting('log_min_duration_statement'), current_setting('keywright.api_key_header'))";
    let mut ask = |headers: &str| api.request(&mut client, "GET", headers, settings).role;
    let before = ask("{}");
    let hers = |logged: &str| format!("{}|8s|5MB|0|SQL, DMY|a=b 'c|{logged}|x-api-key", api.roles.web);
    assert_eq!(ask(&header(&api.ada.token)), hers("-1"), "what only a superuser may set is left out");
    assert_eq!(ask("{}"), before, "it was the transaction's");
    api.admin(&format!("GRANT SET ON PARAMETER log_min_duration_statement TO {rest}"));
    assert_eq!(ask(&header(&api.ada.token)), hers("3ms"), "as PostgREST does, where the login may set it");
    api.admin(&format!("REVOKE SET ON PARAMETER log_min_duration_statement FROM {rest}"));
    // A key that can not be taken as its role has changed nothing.
    api.admin(&format!("REVOKE {web} FROM {rest}"));
    assert_eq!(api.get(&mut client, &header(&api.ada.token)).status, 403);
    // And its statements end when the setting says so.
    api.admin(&format!(
        "GRANT {web} TO {rest}; ALTER ROLE {web} IN DATABASE {database} SET statement_timeout = '20ms'"
    ));
    assert_eq!(api.request(&mut client, "GET", &header(&api.ada.token), "SELECT pg_sleep(60)").status, 500);
}

/// Each of these goes to and fro between states, in one transaction a step: in no state is the first permitted, in all of them the
/// second. The first step is done once, before.
const STORMS: &[(&str, [&str; 2])] = &[
    // A parent moves while the role moves the other way, or along.
    (
        "moves",
        [
            "SELECT keywright.unbind_role('torn', 'reader', 'organization', 'o1'), keywright.bind_role('torn', 'reader', 'organization', 'o2'),
                    keywright.ensure_resource('project', 'moves-no', 'o1'), keywright.ensure_resource('project', 'moves-yes', 'o2')",
            "SELECT keywright.ensure_resource('project', 'moves-no', 'o2'), keywright.ensure_resource('project', 'moves-yes', 'o1'),
                    keywright.bind_role('torn', 'reader', 'organization', 'o1'), keywright.unbind_role('torn', 'reader', 'organization', 'o2')",
        ],
    ),
    // A role is defined anew while it is bound elsewhere.
    (
        "roles",
        [
            "SELECT keywright.define_role('one', '{project:read}'), keywright.define_role('other', '{project:update}'),
                    keywright.ensure_resource('project', 'roles-no', 'o4'), keywright.ensure_resource('project', 'roles-yes', 'o3')",
            "SELECT keywright.define_role('other', '{project:read}'), keywright.define_role('one', '{project:update}'),
                    keywright.ensure_resource('project', 'roles-no', 'o3'), keywright.ensure_resource('project', 'roles-yes', 'o4')",
        ],
    ),
    // A key comes to life while its user loses the role.
    (
        "lives",
        [
            "SELECT keywright.suspend_user('ended'), keywright.bind_role('ended', 'reader', 'organization', 'o5')",
            "SELECT keywright.activate_user('ended'), keywright.unbind_role('ended', 'reader', 'organization', 'o5')",
        ],
    ),
];

const TORN: &str = "moves-no,moves-yes,roles-no,roles-yes";

/// An answer is of one moment, whatever others commit meanwhile: of what no state permits nothing is, and of what all do everything is.
fn under_storms(primary: &(dyn Fn() -> Client + Sync), asked: &(dyn Fn() -> Client + Sync)) {
    let mut client = primary();
    client
        .batch_execute(
            "SELECT keywright.define_role(r, '{project:read}') FROM unnest('{reader,one,other}'::text[]) AS r;
             SELECT keywright.ensure_user('torn', ''), keywright.ensure_user('ended', '');
             SELECT keywright.ensure_resource('organization', 'o' || n) FROM generate_series(1, 5) AS n;
             SELECT keywright.ensure_resource('project', 'lives-no', 'o5');
             SELECT keywright.bind_role('torn', 'reader', 'organization', 'o2');
             SELECT keywright.bind_role('torn', 'one', 'organization', 'o3'), keywright.bind_role('torn', 'other', 'organization', 'o4');
             SELECT keywright.bind_role('ended', 'reader', 'organization', 'o5');",
        )
        .unwrap();
    for (_, [_, last]) in STORMS {
        client.batch_execute(last).unwrap();
    }
    let [torn, ended] = ["torn", "ended"].map(|user| {
        one::<String>(&mut client, &format!("SELECT token FROM keywright.mint_api_key('{user}', 'k')"))
    });
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storms: Vec<_> = STORMS
            .iter()
            .map(|(_, steps)| {
                scope.spawn(move || {
                    let mut client = primary();
                    for _ in 0..150 {
                        steps.iter().for_each(|step| client.batch_execute(step).unwrap());
                    }
                })
            })
            .collect();
        // Whatever else commits.
        scope.spawn(|| {
            let mut client = primary();
            client.batch_execute("CREATE TABLE public.noise (n integer)").unwrap();
            while !end.load(Ordering::Relaxed) {
                client.batch_execute("INSERT INTO public.noise VALUES (1)").unwrap();
            }
        });
        let askers: Vec<_> = [(&torn, TORN), (&torn, TORN), (&ended, "lives-no")]
            .map(|(token, ids)| {
                let end = &end;
                scope.spawn(move || {
                    let mut client = asked();
                    let mut asked = 0_i64;
                    while !end.load(Ordering::Relaxed) {
                        if client.batch_execute(&format!("BEGIN; SELECT keywright.begin_request('{token}')")).is_err() {
                            client.batch_execute("ROLLBACK").unwrap();
                            continue;
                        }
                        // Constant arguments would be asked for once.
                        let row = client
                            .query_one(
                                &format!("SELECT count(*), count(*) FILTER (WHERE permitted AND id LIKE '%-no'), count(*) FILTER (WHERE NOT permitted AND id LIKE '%-yes')
                                   FROM (SELECT id, keywright.is_permitted('project:read', 'project', id) AS permitted
                                           FROM generate_series(1, 500), unnest('{{{ids}}}'::text[]) AS id OFFSET 0) AS a"),
                                &[],
                            )
                            .unwrap();
                        client.batch_execute("COMMIT").unwrap();
                        let wrong: [i64; 2] = [row.get(1), row.get(2)];
                        asked += row.get::<_, i64>(0);
                        assert_eq!(wrong, [0, 0], "wrong yes, wrong no, of {asked}");
                    }
                    asked
                })
            })
            .into_iter()
            .collect();
        let storms: Vec<_> = storms.into_iter().map(|storm| storm.join()).collect();
        end.store(true, Ordering::Relaxed);
        assert!(storms.iter().all(Result::is_ok));
        let counts: Vec<i64> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
        assert!(counts.iter().all(|asked| *asked > 500), "{counts:?}");
    });
}

#[test]
fn one_answer_is_of_one_moment() {
    let database = Database::new("requests_moment");
    under_storms(&|| database.connect(), &|| database.connect());
}

#[test]
fn one_answer_is_of_one_moment_on_a_standby() {
    let primary = Cluster::new(5650, "-c wal_level=replica -c synchronous_commit=off");
    primary.connect("postgres").batch_execute("CREATE EXTENSION keywright").unwrap();
    let standby = Cluster::standby_with(
        5651,
        Some(&primary),
        "-c max_standby_streaming_delay=-1 -c hot_standby_feedback=on",
    );
    under_storms(&|| primary.connect("postgres"), &|| {
        let mut written = primary.connect("postgres");
        let at: String = one(&mut written, "SELECT pg_current_wal_insert_lsn()::text");
        written.batch_execute("SELECT pg_logical_emit_message(true, 'the', 'end')").unwrap();
        let mut client = standby.connect("postgres");
        wait_for(&mut client, &format!("SELECT pg_last_wal_replay_lsn() >= '{at}'"));
        client
    });
}

/// What was found out is used again: fewer than one page a row is looked at.
#[test]
fn an_answer_is_remembered_while_nothing_changes() {
    let api = Api::new("requests_remember");
    api.admin("SELECT keywright.ensure_resource('organization', 'o'), keywright.bind_role('ada', 'project-viewer', 'organization', 'o');
               SELECT keywright.ensure_resource('project', 'q' || n, 'o') FROM generate_series(1, 1000) AS n");
    let mut client = api.database.connect();
    let pages = |client: &mut Client, ids: &str| {
        client.batch_execute(&format!("BEGIN; SELECT keywright.begin_request('{}')", api.ada.token)).unwrap();
        let query = format!(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT json, TIMING off) SELECT count(*) FROM generate_series(1, 20000) AS n
              WHERE keywright.is_permitted('project:read', 'project', {ids})"
        );
        let plan: String = one(client, &format!("SELECT public.explained($x${query}$x$)"));
        client.batch_execute("COMMIT").unwrap();
        plan.parse::<i64>().unwrap()
    };
    client
        .batch_execute(
            "CREATE FUNCTION public.explained(query text) RETURNS text LANGUAGE plpgsql AS $$
             DECLARE plan json; BEGIN EXECUTE query INTO plan; RETURN plan->0->'Plan'->>'Shared Hit Blocks'; END $$",
        )
        .unwrap();
    // Other tests commit in other databases, which forgets; so it is tried until they let it be.
    for (ids, most) in [
        ("CASE WHEN n > 0 THEN 'q7' END", 2_000),
        ("'q' || n % 1000 + 1", 20_000),
        ("'none' || n % 10", 20_000),
    ] {
        let least = (0..20).map(|_| pages(&mut client, ids)).min().unwrap_or_default();
        assert!(least < most, "{ids}: {least} pages");
    }
}

/// What SECURITY.md warns of, as a session of PostgREST has it: its statements are prepared, under numbers
/// (`Hasql/PreparedStatementRegistry.hs`).
#[test]
fn who_runs_sql_of_their_own_can_take_the_hooks_place() {
    let api = Api::new("requests_replaced");
    let mut client = api.connect();
    let hook = "SELECT \"keywright\".\"check_request\"()";
    let anon = ident(&api.roles.anon);
    client.batch_execute(&format!("BEGIN; SET LOCAL ROLE {anon}; PREPARE \"2\" AS {hook}; COMMIT")).unwrap();
    let mut request = |call: &str, headers: &str, query: &str| {
        let set = format!("SELECT set_config('request.headers', {}, true)", literal(headers));
        client.simple_query("BEGIN").unwrap();
        let done = client
            .simple_query(&format!("SELECT set_config('role', {}, true)", literal(&api.roles.anon)))
            .and_then(|_| client.simple_query(&set))
            .and_then(|_| client.simple_query(call))
            .and_then(|_| client.simple_query(query));
        client.simple_query(if done.is_ok() { "COMMIT" } else { "ABORT" }).unwrap();
        done.map_or_else(|error| Answer::error(&error).status, |_| 200)
    };
    let bad = header("nonsense");
    assert_eq!(request("EXECUTE \"2\"", &bad, "SELECT 1"), 401);
    let mischief = "DEALLOCATE \"2\"; PREPARE \"2\" AS SELECT current_setting('request.headers')";
    assert_eq!(request("EXECUTE \"2\"", &header(&api.ada.token), mischief), 200);
    assert_eq!(request("EXECUTE \"2\"", &bad, "SELECT 1"), 200, "the warning is not true any more");
    // Without prepared statements there is nothing to replace.
    assert_eq!(request(hook, &bad, "SELECT 1"), 401);
}

#[test]
fn a_prepared_transaction_takes_no_key_along() {
    let api = Api::new("requests_prepared");
    let mut client = api.database.connect();
    let whose = "SELECT coalesce(keywright.current_user_id()::text, 'nobody')";
    let begin = format!("BEGIN; SELECT keywright.begin_request('{}')", api.ada.token);
    client.batch_execute(&begin).unwrap();
    assert_eq!(one::<String>(&mut client, whose), api.ada.user_id);
    client.batch_execute("PREPARE TRANSACTION 'keywright_test_requests'").unwrap();
    assert_eq!(one::<String>(&mut client, whose), "nobody");
    client.batch_execute("COMMIT PREPARED 'keywright_test_requests'").unwrap();
    // Nor does a procedure that commits.
    client
        .batch_execute(
            "CREATE PROCEDURE public.two(token text) LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM keywright.begin_request(token);
               COMMIT;
               IF keywright.current_user_id() IS NOT NULL THEN RAISE 'somebody'; END IF;
             END $$",
        )
        .unwrap();
    client.batch_execute(&format!("CALL public.two('{}')", api.ada.token)).unwrap();
}

#[test]
fn a_failing_look_up_is_that_failure() {
    let api = Api::new("requests_fault");
    let mut client = api.connect();
    let headers = header(&api.ada.token);
    assert_eq!(api.get(&mut client, &headers), adas(&api));
    let mut admin = api.database.connect();
    admin.batch_execute("BEGIN; LOCK TABLE keywright.roles IN ACCESS EXCLUSIVE MODE").unwrap();
    client.batch_execute("SET lock_timeout = '50ms'").unwrap();
    assert_eq!(api.get(&mut client, &headers).status, 500, "a lock that can not be had");
    client.batch_execute("RESET lock_timeout").unwrap();
    admin.batch_execute("ROLLBACK").unwrap();
    assert_eq!(api.get(&mut client, &headers), adas(&api));
}

/// pgbouncer in transaction mode, gone at the end.
struct Pooler {
    child: Child,
    dir: PathBuf,
}

impl Pooler {
    fn start(api: &Api, connections: usize) -> Pooler {
        // Short, because a socket's path may have 107 bytes at most; and pgbouncer's own user must get there.
        let dir = PathBuf::from(format!("/tmp/keywright-pool.{}", std::process::id()));
        _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let config = dir.join("pgbouncer.ini");
        let users = dir.join("users");
        std::fs::write(&users, format!("\"{}\" \"\"\n", api.roles.rest.replace('"', "\"\""))).unwrap();
        std::fs::write(
            &config,
            format!(
                "[databases]\n* = host={} port=5432\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {}\n\
                 auth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = {connections}\n\
                 max_client_conn = 100\nignore_startup_parameters = extra_float_digits\n",
                std::env::var("PGHOST").unwrap(),
                dir.display(),
                users.display(),
            ),
        )
        .unwrap();
        // It refuses to run as root, as a server does.
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = if root {
            assert!(Command::new("chown").args(["-R", "postgres"]).arg(&dir).status().unwrap().success());
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "/usr/sbin/pgbouncer", "-q"]);
            command
        } else {
            let mut command = Command::new("/usr/sbin/pgbouncer");
            command.arg("-q");
            command
        };
        let child = command.arg(&config).stderr(Stdio::null()).spawn().expect("pgbouncer is installed");
        let pooler = Pooler { child, dir };
        for _ in 0..100 {
            if pooler.config(api).connect(NoTls).is_ok() {
                return pooler;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("pgbouncer did not start");
    }

    fn config(&self, api: &Api) -> Config {
        let mut config = Config::new();
        config.host_path(&self.dir).port(6432).user(&api.roles.rest).dbname(&api.database.name);
        config
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // runuser hands a TERM on.
        _ = Command::new("kill").arg(self.child.id().to_string()).status();
        _ = self.child.wait();
        _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn behind_a_transaction_pooler_nobody_is_ever_the_other() {
    let api = Api::new("requests_pool");
    let pooler = Pooler::start(&api, 2);
    let servers = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for client_number in 0..8 {
            let (api, pooler, servers) = (&api, &pooler, &servers);
            scope.spawn(move || {
                let mut client = pooler.config(api).connect(NoTls).unwrap();
                for request in 0..25 {
                    let query =
                        "SELECT role, user_id, key_id, tasks, pg_backend_pid() FROM api.me, pg_sleep(0.001)";
                    let (headers, expected) = match (client_number + request) % 5 {
                        0 | 1 => (header(&api.ada.token), adas(api)),
                        2 | 3 => (header(&api.bob.token), bobs(api)),
                        _ => ("{}".into(), anonymous(api)),
                    };
                    assert_eq!(api.request(&mut client, "GET", &headers, query), expected);
                    if request % 7 == 0 {
                        let junk = api.request(&mut client, "GET", &header("nonsense"), query);
                        assert_eq!(junk.status, 401);
                    }
                    client.simple_query("BEGIN").unwrap();
                    if let Ok(rows) = client.simple_query("SELECT pg_backend_pid()") {
                        for row in rows {
                            if let SimpleQueryMessage::Row(row) = row {
                                servers.lock().unwrap().insert(row.get(0).unwrap().to_owned());
                            }
                        }
                    }
                    client.simple_query("COMMIT").unwrap();
                }
            });
        }
    });
    assert_eq!(servers.lock().unwrap().len(), 2, "server connections");
}
