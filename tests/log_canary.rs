//! Tokens sent in every way there is, and where they are afterwards: with keywright among the libraries that are loaded with the server, and without.

use keywright_tests::{Cluster, environment, one, program, wait_for};
use postgres::{Client, Config, NoTls};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// The log in all its forms.
const FORMS: &str =
    "-c logging_collector=on -c log_directory=log -c log_filename=server.log -c log_rotation_age=0
    -c log_destination=stderr,csvlog,jsonlog -c pg_stat_statements.track=all";

/// All that writes or shows statements, as talkative as it can be.
const TALKATIVE: &str = "-c log_min_messages=debug1 -c log_statement=all -c log_min_duration_statement=0 -c log_duration=on
    -c log_error_verbosity=verbose -c log_min_error_statement=debug5 -c log_parameter_max_length_on_error=-1 -c log_connections=on
    -c auto_explain.log_min_duration=0 -c auto_explain.log_analyze=on -c auto_explain.log_verbose=on -c auto_explain.log_nested_statements=on
    -c pgaudit.log=all -c pgaudit.log_parameter=on -c pgaudit.log_relation=on";

/// The functions that take a token, each called with one in the place of `$1`.
const TAKING: [&str; 16] = [
    "keywright.verify_api_key($1)",
    "keywright.verify_api_keys(ARRAY[$1, 'nonsense', NULL])",
    "keywright.verify_gateway_key($1)",
    "keywright.authenticate_api_key($1)",
    "keywright.authorize_api_key($1, 'project:read', 'project:p1')",
    "keywright.begin_request($1)",
    "keywright.explain_api_key($1)",
    "keywright.revoke_leaked_api_key($1 || 'x')",
    "keywright.ensure_api_key('ada', 'held', $1, lifetime => '30 days')",
    "keywright.ensure_gateway_key('edge', $1)",
    "keywright.ensure_operator_access('prod', 'plane', $1)",
    "set_config('request.headers', jsonb_build_object('x-api-key', $1)::text, true), keywright.check_request()",
    // In the wrong place.
    "keywright.mint_api_key('ada', $1)",
    "keywright.revoke_api_key($1)",
    "keywright.ensure_user($1, $1)",
    "keywright.apply(jsonb_build_object('manager', $1, 'users', jsonb_build_array($1)))",
];

/// The functions that give one.
const GIVING: [&str; 9] = [
    "SELECT token FROM keywright.mint_api_key('ada', 'minted')",
    "SELECT token FROM keywright.mint_api_keys('{ada}', '{minted-too}')",
    "SELECT token FROM keywright.mint_gateway_key('edge')",
    "SELECT token FROM keywright.ensure_api_key('ada', 'ensured')",
    "SELECT token FROM keywright.ensure_gateway_key('edge-2')",
    "SELECT token FROM keywright.ensure_operator_access('prod', 'plane')",
    "SELECT r.token FROM keywright.list_api_keys() AS k, keywright.rotate_api_key(k.key_id, '1 day') AS r WHERE k.name = 'minted'",
    "SELECT token FROM keywright.rotate_gateway_key('edge', '1 day')",
    r#"SELECT token FROM keywright.apply('{"manager": "plane", "users": [{"username": "declared", "kind": "service", "email": ""}],
       "api_keys": [{"username": "declared", "name": "ci"}]}') WHERE token IS NOT NULL"#,
];

/// A token, and what of it nobody else may ever see: pieces that are in nothing else by chance.
struct Canary {
    token: String,
    pieces: Vec<String>,
}

impl Canary {
    fn new(token: String) -> Canary {
        let secret = token.find('-').map_or(11, |dash| dash + 1);
        let pieces = [0, 7, 14].map(|at| token[secret + at..][..8].to_owned()).into();
        Canary { token, pieces }
    }

    /// The same, of nobody's secret.
    fn wrong(&self) -> Canary {
        let secret = self.token.find('-').map_or(11, |dash| dash + 1);
        let wrong: String = self.token[secret..].chars().rev().collect();
        Canary::new(format!("{}{wrong}", &self.token[..secret]))
    }

    fn is_in(&self, text: &str) -> bool {
        self.pieces.iter().any(|piece| text.contains(piece))
    }
}

/// What the server told a client, other than results.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<String>>);

impl Told {
    fn note(&self, error: &postgres::error::DbError) {
        let position = match error.position() {
            Some(postgres::error::ErrorPosition::Internal { query, .. }) => query,
            _ => "",
        };
        let parts = [Some(error.message()), error.detail(), error.hint(), error.where_(), Some(position)];
        self.0.lock().unwrap().extend(parts.into_iter().flatten().chain(["\n"]));
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

struct Room {
    cluster: Cluster,
    client: Client,
    told: Told,
    canaries: Vec<Canary>,
}

fn config(cluster: &Cluster, told: &Told) -> Config {
    let mut config: Config = cluster.conninfo("postgres").parse().unwrap();
    let told = told.clone();
    config.notice_callback(move |notice| told.note(&notice));
    config
}

impl Room {
    fn new(port: u16, libraries: &[&str], settings: &str) -> Room {
        let parameters =
            if explains_parameters() { "-c auto_explain.log_parameter_max_length=-1" } else { "" };
        let settings =
            format!("-c shared_preload_libraries={} {FORMS} {settings} {parameters}", libraries.join(","));
        let settings = settings.split_whitespace().collect::<Vec<_>>().join(" ");
        let cluster = Cluster::new(port, &settings);
        let told = Told::default();
        let mut client = config(&cluster, &told).connect(NoTls).unwrap();
        for extension in ["keywright", "pg_stat_statements", "pgaudit"] {
            if extension == "keywright" || libraries.contains(&extension) {
                client.batch_execute(&format!("CREATE EXTENSION {extension}")).unwrap();
            }
        }
        client.batch_execute("SELECT keywright.ensure_user('ada', '')").unwrap();
        // What gives tokens is a part of it: nothing of them may be seen from here on.
        let mut tokens: Vec<String> = GIVING.iter().map(|sql| one(&mut client, sql)).collect();
        client.batch_execute("SET keywright.api_key_brand = ''").unwrap();
        tokens.push(one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'bare')"));
        client.batch_execute("RESET keywright.api_key_brand").unwrap();
        let mut canaries: Vec<Canary> = tokens.into_iter().map(Canary::new).collect();
        canaries.extend([0, 2, 9].map(|good| canaries[good].wrong()));
        Room { cluster, client, told, canaries }
    }

    /// Whatever comes of it.
    fn run(&mut self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql) {
            self.told.note(error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")));
            _ = self.client.batch_execute("ROLLBACK");
        }
    }

    fn run_bound(&mut self, sql: &str, token: &str) {
        if let Err(error) = self.client.query(sql, &[&token]) {
            self.told.note(error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")));
        }
    }

    /// The server's log in one of its forms.
    fn log(&self, form: &str) -> String {
        String::from_utf8(std::fs::read(self.cluster.file(&format!("log/server.{form}"))).unwrap()).unwrap()
    }

    fn see_statements(&mut self) {
        let statements: String =
            one(&mut self.client, "SELECT string_agg(query, E'\\n') FROM pg_stat_statements");
        self.seen(&statements, "pg_stat_statements");
        assert!(statements.contains("...[redacted]"), "{statements}");
    }

    fn seen(&self, text: &str, of: &str) {
        for canary in &self.canaries {
            if canary.is_in(text) {
                let lines: Vec<&str> = text.lines().filter(|line| canary.is_in(line)).take(5).collect();
                panic!("{} is in {of}: {lines:#?}", canary.token);
            }
        }
    }
}

/// Before 16 auto_explain shows no parameters.
fn explains_parameters() -> bool {
    !is_15()
}

fn is_15() -> bool {
    environment("PG_VERSION") == "15"
}

/// Debian has pgaudit for 15.
fn libraries(first: &str, last: &str) -> Vec<String> {
    let mut libraries = vec![first, "pg_stat_statements", "auto_explain"];
    if is_15() {
        libraries.push("pgaudit");
    }
    libraries.push(last);
    libraries.into_iter().filter(|name| !name.is_empty()).map(Into::into).collect()
}

/// A token in every way a client can send one.
fn send(room: &mut Room, number: usize) {
    let token = room.canaries[number].token.clone();
    for call in TAKING {
        let literal = call.replace("$1", &format!("'{token}'"));
        let bound = call.replace("$1", "$1::text");
        room.run(&format!("BEGIN; SELECT {literal}; ROLLBACK"));
        room.run_bound(&format!("SELECT {bound}"), &token);
        room.run(&format!("COPY (SELECT {literal}) TO '/dev/null'"));
        room.run(&format!("DO $do$ BEGIN PERFORM {literal}; END $do$"));
        room.run(&format!(
            "DO $do$ BEGIN EXECUTE 'SELECT ' || $sql$ {bound} $sql$ USING '{token}'; END $do$"
        ));
        room.run(&format!("SELECT {literal}, 1 / (random() * 0)::int"));
        room.run_bound(&format!("SELECT {bound}, 1 / (random() * 0)::int"), &token);
        room.run(&format!(
            "BEGIN; DECLARE c CURSOR FOR SELECT {literal}; FETCH ALL FROM c; CLOSE c; ROLLBACK"
        ));
        room.run(&format!(
            "PREPARE p (text) AS SELECT {bound}; EXECUTE p ('{token}'); EXECUTE p ('{token}')"
        ));
        room.run("DEALLOCATE ALL");
        room.run(&format!("PREPARE q AS SELECT {literal}; EXECUTE q; EXECUTE q"));
        room.run("DEALLOCATE ALL");
        room.run(&format!("EXPLAIN (ANALYZE, VERBOSE) SELECT {literal}"));
    }
    // In a statement that is prepared by the protocol, and run until its plan is kept.
    let statement = room
        .client
        .prepare(&format!("SELECT active, '{token}' FROM keywright.verify_api_key('{token}')"))
        .unwrap();
    room.see_statements();
    room.client.batch_execute("SELECT pg_stat_statements_reset()").unwrap();
    for _ in 0..7 {
        room.client.query(&statement, &[]).unwrap();
    }
    // Postgres's own messages repeat what they do not understand.
    for sql in [
        format!("SELEC '{token}'"),
        format!("SELECT '{token}"),
        format!("SELECT \"{token}\""),
        format!("SELECT 1; SELECT 2 FROM \"{token}\""),
        format!("SELECT '{token}'::int"),
        format!("SELECT '{token}'::jsonb"),
        format!("SELECT '{{\"a\": \"{token}\", b}}'::jsonb"),
        format!("SET \"x.{token}\" = 1"),
        format!("SET work_mem = '{token}'"),
        format!("SELECT \"f{token}\"('{token}')"),
        format!("CREATE TEMP TABLE t (a text CHECK (length(a) < 10)); INSERT INTO t VALUES ('{token}')"),
        format!("COPY t FROM PROGRAM 'echo {token}'"),
        format!(
            "DO $$ BEGIN RAISE NOTICE 'notice %', '{token}'; RAISE WARNING 'warning %', '{token}'; END $$"
        ),
        format!(
            "DO $$ BEGIN RAISE EXCEPTION 'this is %', '{token}' USING DETAIL = '{token}', HINT = 'or {token}'; END $$"
        ),
        format!("DO $$ BEGIN RAISE LOG 'log %', '{token}'; EXECUTE 'SELECT 1 FROM \"{token}\"'; END $$"),
        format!("LISTEN \"{token}\"; UNLISTEN *"),
        format!("SAVEPOINT \"{token}\""),
        format!("/* {token} */ SELECT 1, true, 2.5, 'of a shape that nothing else has'"),
        format!("SET debug_parallel_query = on; SELECT count(*) FROM pg_class WHERE relname = '{token}'"),
        format!("SET force_parallel_mode = on; SELECT count(*) FROM pg_class WHERE relname = '{token}'"),
    ] {
        room.run(&sql);
    }
    room.run_bound("SELECT $1::text::int", &token);
    room.run_bound("SELECT $1::text::jsonb", &token);
    room.run("DROP TABLE IF EXISTS t");
    room.run("RESET ALL");
}

/// What others see of a statement that runs for long, with a token in it.
fn watch(room: &mut Room, number: usize) {
    let token = room.canaries[number].token.clone();
    let told = room.told.clone();
    let mut watcher = room.cluster.connect("postgres");
    watcher.batch_execute("SET ROLE watcher").unwrap();
    let padding = "x".repeat(1024 - 90);
    for sql in [
        format!("SELECT pg_sleep(60), keywright.verify_api_key('{token}')"),
        format!("extended: SELECT pg_sleep(60), keywright.verify_api_key('{token}')"),
        format!("DO $$ BEGIN PERFORM pg_sleep(60), keywright.verify_api_key('{token}'); END $$"),
        format!(
            "BEGIN; DECLARE c CURSOR FOR SELECT pg_sleep(60), keywright.verify_api_key('{token}'); FETCH c"
        ),
        format!(
            "PREPARE p (text) AS SELECT pg_sleep(60), keywright.verify_api_key($1); EXECUTE p ('{token}')"
        ),
        format!("COPY (SELECT pg_sleep(60), keywright.verify_api_key('{token}')) TO '/dev/null'"),
        // Cut off in the middle of the token.
        format!("SELECT pg_sleep(60), /* {padding} */ keywright.verify_api_key('{token}')"),
    ] {
        let mut session = config(&room.cluster, &told).connect(NoTls).unwrap();
        let pid: i32 = one(&mut session, "SELECT pg_backend_pid()");
        std::thread::scope(|scope| {
            let running = scope.spawn(|| match sql.strip_prefix("extended: ") {
                Some(sql) => session.query(sql, &[]).unwrap_err(),
                None => session.batch_execute(&sql).unwrap_err(),
            });
            wait_for(
                &mut watcher,
                &format!(
                    "SELECT coalesce(wait_event = 'PgSleep', false) FROM pg_stat_activity WHERE pid = {pid}"
                ),
            );
            let shown: String = one(
                &mut watcher,
                "SELECT string_agg(concat_ws(' ', query, application_name), E'\\n') FROM pg_stat_activity",
            );
            room.seen(&shown, &format!("pg_stat_activity, of {sql}"));
            assert!(shown.contains("..."), "{shown}");
            watcher
                .batch_execute(&format!("RESET ROLE; SELECT pg_cancel_backend({pid}); SET ROLE watcher"))
                .unwrap();
            let error = running.join().unwrap();
            assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error:?}");
            told.note(error.as_db_error().unwrap());
        });
    }
}

/// The files of a server that hold any of them.
fn files_with(canaries: &[Canary], cluster: &Cluster) -> String {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--files-with-matches", "--binary-files=text", "--fixed-strings"]);
    for piece in canaries.iter().flat_map(|canary| &canary.pieces) {
        grep.args(["-e", piece]);
    }
    let output = grep.arg(cluster.file("")).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `sent`: the numbers of the canaries that are sent; the others were only handed out.
fn nothing_is_left(port: u16, libraries: Vec<String>, settings: &str, sent: &[usize]) {
    let libraries: Vec<&str> = libraries.iter().map(String::as_str).collect();
    let mut room = Room::new(port, &libraries, settings);
    room.client.batch_execute("CREATE ROLE watcher IN ROLE pg_read_all_stats").unwrap();
    for number in sent {
        send(&mut room, *number);
        let shown: String = one(
            &mut room.client,
            "SELECT string_agg(query, E'\\n') FROM pg_stat_activity WHERE pid <> pg_backend_pid() OR state = 'idle'",
        );
        room.seen(&shown, "pg_stat_activity");
    }
    for number in sent {
        watch(&mut room, *number);
    }
    room.see_statements();
    let told = room.told.text();
    room.seen(&told, "what the client was told");
    room.client.batch_execute("CHECKPOINT").unwrap();
    room.cluster.stop("fast");
    for form in ["log", "csv", "json"] {
        let log = room.log(form);
        room.seen(&log, form);
        // Which key it was can be told.
        for canary in sent.iter().map(|number| &room.canaries[*number]) {
            let brand = if canary.token.starts_with("kw") { 4 } else { 0 };
            let marked = format!("{}...[redacted]", &canary.token[..brand + 4]);
            assert!(log.contains(&marked), "{marked} in {form}");
        }
        let talkative = settings == TALKATIVE;
        for witness in ["statement: ", "parameters: ", "Query Text: ", "QUERY", "CONTEXT"] {
            assert!(form != "log" || log.contains(witness) || !talkative, "{witness}");
        }
        assert!(!libraries.contains(&"pgaudit") || !talkative || log.contains("AUDIT: "));
    }
    // Nor in any table, any file of statistics, or the write-ahead log.
    assert_eq!(files_with(&room.canaries, &room.cluster), "");
    room.cluster.start();
}

#[test]
fn no_token_is_in_what_the_server_writes_or_shows() {
    nothing_is_left(5791, libraries("keywright", ""), TALKATIVE, &[0, 2, 9, 10, 11]);
}

#[test]
fn the_order_of_the_libraries_does_not_matter() {
    nothing_is_left(5792, libraries("", "keywright"), TALKATIVE, &[0, 2]);
}

/// Then the log's hook is not what covers statements for others.
#[test]
fn a_server_that_logs_little_shows_as_little() {
    nothing_is_left(
        5795,
        vec!["pg_stat_statements".into(), "keywright".into()],
        "-c log_min_messages=notice",
        &[0],
    );
}

/// The limits that docs/log.md names, and databases of other encodings.
#[test]
fn what_redaction_can_not_do_is_as_documented() {
    const TOKEN: &str = "kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc";
    let cluster = Cluster::new(5794, "-c shared_preload_libraries=keywright");
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'").unwrap();
    let said = |client: &mut Client, sql: &str| {
        client.batch_execute(sql).unwrap_err().as_db_error().unwrap().message().to_owned()
    };
    let wrong = format!("SELECT '{TOKEN}'::int");
    let mark = "invalid input syntax for type integer: \"kwk_0a1B...[redacted]\"";
    assert_eq!(said(&mut client, &wrong), mark);
    assert_eq!(said(&mut cluster.connect("latin"), &wrong), mark);
    assert!(cluster.log().contains(mark));

    let from = cluster.log().len();
    client.batch_execute("SET log_min_messages = fatal").unwrap();
    assert!(said(&mut client, &wrong).contains(TOKEN));
    assert_eq!(&cluster.log()[from..], "");
    client.batch_execute("RESET ALL").unwrap();
    client.batch_execute("SET log_statement = 'all'").unwrap();
    // A part of a token is known only where the whole one was seen.
    let part = format!("SELECT '{}-{}'", &TOKEN[4..14], &TOKEN[15..30]);
    client.batch_execute(&part).unwrap();
    assert!(!cluster.log().contains(&TOKEN[15..30]));
    let mut another = cluster.connect("postgres");
    another.batch_execute("SET log_statement = 'all'").unwrap();
    another.batch_execute(&part).unwrap();
    assert!(cluster.log().contains(&TOKEN[4..30]));
    client.batch_execute(&format!("SET application_name = '{TOKEN}'")).unwrap();
    let name: String = one(
        &mut cluster.connect("postgres"),
        "SELECT string_agg(application_name, '') FROM pg_stat_activity",
    );
    assert!(name.contains(TOKEN));
}

/// Statements that have a token in them, or what looks like one, mean what they mean without keywright, to any client.
#[test]
fn a_statement_that_is_redacted_is_the_same_statement() {
    const TOKEN: &str = "kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc";
    let cluster = Cluster::new(
        5796,
        "-c shared_preload_libraries=keywright,pg_stat_statements -c pg_stat_statements.track=all -c pg_stat_statements.track_planning=on",
    );
    let mut client = cluster.connect("postgres");
    client
        .batch_execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE held (token text UNIQUE)")
        .unwrap();
    // A number less another, and a number less a column, as an id and a secret would look.
    assert_eq!(
        one::<String>(&mut client, "SELECT (1234567890-1234567890123456789012)::text"),
        "-1234567890122222221122"
    );
    let named =
        "SELECT 1700000000-lastmodifiedtimestampvalue FROM (SELECT 5 AS lastmodifiedtimestampvalue) AS q";
    assert_eq!(one::<i32>(&mut client, named), 1_699_999_995);
    client
        .batch_execute(&format!("CREATE FUNCTION public.named() RETURNS integer LANGUAGE sql AS $${named}$$; SELECT public.named()"))
        .unwrap();

    // What a client of another encoding is told has every character it needs.
    let mut latin = cluster.connect("postgres");
    latin.batch_execute("SET client_encoding = 'LATIN1'").unwrap();
    let insert = format!("INSERT INTO held VALUES ('{TOKEN}')");
    latin.batch_execute(&insert).unwrap();
    let code = |client: &mut Client, sql: &str| {
        client.batch_execute(sql).unwrap_err().as_db_error().unwrap().code().code().to_owned()
    };
    assert_eq!(code(&mut latin, &insert), "23505");
    latin.batch_execute(&format!("DO $$ BEGIN RAISE WARNING '%', '{TOKEN}'; END $$")).unwrap();
    for view in ["pg_stat_activity", "pg_stat_statements"] {
        latin.batch_execute(&format!("SELECT query FROM {view}")).unwrap();
    }

    // Where an error is: behind a token in the statement, and in another statement of the message.
    for sql in [
        format!("PREPARE p AS SELECT '{TOKEN}', nosuch"),
        format!("CREATE VIEW v AS SELECT '{TOKEN}', nosuch"),
        format!("SELECT '{TOKEN}'; SELECT '{TOKEN}', nosuch"),
    ] {
        let error = client.batch_execute(&sql).unwrap_err();
        let position = error.as_db_error().unwrap().position().cloned();
        let place = sql.find("nosuch").unwrap() as u32 + 1;
        assert_eq!(position, Some(postgres::error::ErrorPosition::Original(place)), "{sql}");
    }

    // A token in one of many statements of a message, before and behind others.
    let tokens = "SELECT 1 /* of many */; SELECT 'TOKEN', pg_sleep(0); DO $$ BEGIN PERFORM 'TOKEN'; END $$; /* TOKEN */ SELECT count(*) FROM held";
    client.batch_execute(&tokens.replace("TOKEN", TOKEN)).unwrap();
    // While a statement is planned it has no constants to be left out.
    client.batch_execute(&format!("SELECT token /* {TOKEN} */ FROM held; TABLE /* {TOKEN} */ held")).unwrap();
    let bound = client.prepare(&format!("SELECT '{TOKEN}' FROM held")).unwrap();
    client.batch_execute("SELECT pg_stat_statements_reset()").unwrap();
    client.query(&bound, &[]).unwrap();
    client.batch_execute(&tokens.replace("TOKEN", TOKEN)).unwrap();
    client.batch_execute(&format!("SELECT token /* {TOKEN} */ FROM held; TABLE /* {TOKEN} */ held")).unwrap();
    let kept: String =
        one(&mut cluster.connect("postgres"), "SELECT string_agg(query, E'\n') FROM pg_stat_statements");
    assert!(
        kept.contains("of many") && kept.contains("...[redacted]") && !kept.contains(&TOKEN[16..]),
        "{kept}"
    );

    // JSON is shown from the middle of a token on.
    let json = format!(r#"SELECT '{{"x-api-key":"{TOKEN}","host": tru}}'::jsonb"#);
    let error = client.batch_execute(&json).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert!(error.where_().unwrap().contains("...[redacted]"), "{error:?}");
    let log = cluster.log();
    assert!(!log.contains(&TOKEN[20..]), "{log}");
}

/// What remains without keywright among these libraries, as docs/log.md says, and what closes it.
#[test]
fn without_preloading_parameters_and_digests_keep_tokens_out() {
    let cluster = Cluster::new(5793, "-c shared_preload_libraries=pg_stat_statements,auto_explain");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute("CREATE EXTENSION keywright; CREATE EXTENSION pg_stat_statements; SELECT keywright.ensure_user('ada', '')")
        .unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'held')");
    let canary = Canary::new(token.clone());
    let wrong = Canary::new("kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc".into());

    // Settings, statement, whether the token is bound, and what has it then: the log, pg_stat_statements, pg_stat_activity.
    const LITERAL: &str = "SELECT active FROM keywright.verify_api_key('$1')";
    const IN_A_BLOCK: &str = "DO $$ BEGIN PERFORM keywright.verify_api_key('$1'); END $$";
    const FAILING: &str = "SELECT keywright.authenticate_api_key('$1')";
    const BOUND: &str = "SELECT active FROM keywright.verify_api_key($1)";
    const FAILING_BOUND: &str = "SELECT keywright.authenticate_api_key($1)";
    const DIGEST: &str = "SELECT active FROM keywright.verify_api_key_digest('ID', sha256('\\x'))";
    let cases = [
        ("", LITERAL, [false, false, true]),
        ("SET log_statement = 'all'", LITERAL, [true, false, true]),
        ("SET log_min_duration_statement = 0", LITERAL, [true, false, true]),
        ("", IN_A_BLOCK, [false, true, true]),
        ("PREPARE p (text) AS SELECT keywright.verify_api_key($1)", "EXECUTE p ('$1')", [false, false, true]),
        ("", FAILING, [true, false, true]),
        ("SET log_min_error_statement = 'panic'", FAILING, [false, false, true]),
        ("", BOUND, [false, false, false]),
        ("SET log_statement = 'all'", BOUND, [true, false, false]),
        ("SET log_min_duration_statement = 0", BOUND, [true, false, false]),
        ("SET log_statement = 'all'; SET log_parameter_max_length = 0", BOUND, [false; 3]),
        ("SET log_min_duration_statement = 0; SET log_parameter_max_length = 0", BOUND, [false; 3]),
        ("", FAILING_BOUND, [false; 3]),
        ("SET log_parameter_max_length_on_error = -1", FAILING_BOUND, [true, false, false]),
        ("SET auto_explain.log_min_duration = 0", BOUND, [explains_parameters(), false, false]),
        (
            "SET auto_explain.log_min_duration = 0; SET auto_explain.log_parameter_max_length = 0",
            BOUND,
            [false; 3],
        ),
        ("SET log_statement = 'all'; SET log_min_duration_statement = 0", DIGEST, [false; 3]),
    ];
    for (number, (settings, statement, expected)) in cases.into_iter().enumerate() {
        let canary = if statement.contains("authenticate") { &wrong } else { &canary };
        client.batch_execute("RESET ALL; SELECT pg_stat_statements_reset()").unwrap();
        let mut session = cluster.connect("postgres");
        let pid: i32 = one(&mut session, "SELECT pg_backend_pid()");
        for setting in settings
            .split("; ")
            .filter(|setting| explains_parameters() || !setting.contains("auto_explain.log_parameter"))
        {
            session.batch_execute(setting).unwrap();
        }
        let from = cluster.log().len();
        if statement.contains("'$1'") {
            _ = session.batch_execute(&statement.replace("$1", &canary.token));
        } else if statement.contains("$1") {
            _ = session.query(statement, &[&canary.token]);
        } else {
            session.batch_execute(&statement.replace("ID", &canary.token[4..14])).unwrap();
        }
        let shown: String =
            one(&mut client, &format!("SELECT query FROM pg_stat_activity WHERE pid = {pid}"));
        drop(session);
        let kept: String = one(&mut client, "SELECT string_agg(query, E'\\n') FROM pg_stat_statements");
        let found = [&cluster.log()[from..], &kept, &shown].map(|text| canary.is_in(text));
        assert_eq!(found, expected, "case {number}: {settings}; {statement}");
    }
}

const TOKEN: &str = "kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc";
const GATEWAY: &str = "kwg_9z8Y7x6aB3cD4eF5gH6iJ7kL8mN9oP0qR1sT2uV";

/// What a session shows in `pg_stat_activity` once it waits for its client again.
fn shown_by(watcher: &mut Client, pid: i32) -> String {
    wait_for(watcher, &format!("SELECT state LIKE 'idle%' FROM pg_stat_activity WHERE pid = {pid}"));
    one(watcher, &format!("SELECT query FROM pg_stat_activity WHERE pid = {pid}"))
}

/// Then no hook is called for it, and the log gets no message that could be covered.
#[test]
fn what_is_not_executed_is_covered_when_the_client_hears_of_it() {
    let cluster = Cluster::new(5797, "-c shared_preload_libraries=keywright -c log_min_messages=panic");
    let mut watcher = cluster.connect("postgres");
    let mut session = cluster.connect("postgres");
    let pid: i32 = one(&mut session, "SELECT pg_backend_pid()");
    let mut look = |session: &mut Client, what: &str| {
        let shown = shown_by(&mut watcher, pid);
        assert!(shown.contains("kwk_0a1B...[redacted]") && !shown.contains(&TOKEN[20..]), "{what}: {shown}");
        session.batch_execute("SELECT 'something else'").ok();
    };
    session.batch_execute(&format!("SELEC '{TOKEN}'")).unwrap_err();
    look(&mut session, "a statement that can't be parsed");
    session.batch_execute(&format!("/* {TOKEN} */")).unwrap();
    look(&mut session, "a comment");
    session.prepare(&format!("SELECT '{TOKEN}'::text")).unwrap();
    look(&mut session, "a statement that is prepared");
    session.batch_execute(&format!("BEGIN; SELECT 1 / 0; SELECT '{TOKEN}'")).unwrap_err();
    look(&mut session, "a statement behind one that fails");
    session.batch_execute(&format!("SELEC '{TOKEN}'")).unwrap_err();
    look(&mut session, "the same in a transaction that has failed");

    // A command of replication, which succeeds though there is no such slot.
    let mut psql = program("psql");
    psql.args(["--no-psqlrc", "--quiet", "--dbname"]);
    psql.arg(format!("{} replication=database application_name=walsender", cluster.conninfo("postgres")));
    let mut child =
        psql.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let command = format!("READ_REPLICATION_SLOT \"{TOKEN}\";\n");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), command.as_bytes()).unwrap();
    let found = "FROM pg_stat_activity WHERE application_name = 'walsender' AND query LIKE 'READ_%' AND state = 'idle'";
    wait_for(&mut watcher, &format!("SELECT EXISTS (SELECT {found})"));
    let shown: String = one(&mut watcher, &format!("SELECT query {found}"));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(shown.contains("kwk_0a1B...[redacted]") && !shown.contains(&TOKEN[20..]), "{shown}");
}

/// Tokens without anything between them, and parts of one that a message shows without the rest.
#[test]
fn tokens_that_touch_and_fragments_of_them_are_covered() {
    let cluster = Cluster::new(
        5798,
        "-c shared_preload_libraries=keywright,pg_stat_statements -c pg_stat_statements.track=all -c log_statement=all -c log_error_verbosity=verbose",
    );
    let mut watcher = cluster.connect("postgres");
    watcher.batch_execute("CREATE EXTENSION pg_stat_statements").unwrap();
    let bare = &TOKEN[4..37];
    let tokens = [TOKEN, GATEWAY, bare];
    let mut texts: Vec<String> = Vec::new();
    for (first, second) in tokens.iter().flat_map(|first| tokens.map(|second| (*first, second))) {
        for between in ["", "-", "_"] {
            texts.push(format!("SELECT '{first}{between}{second}'::int"));
            texts.push(format!("DO $$ BEGIN RAISE LOG '%', '{first}{between}{second}{first}'; END $$"));
        }
    }
    for token in tokens {
        let secret = &token[token.find('-').map_or(11, |dash| dash + 1)..];
        // libxml shows some 80 characters before the fault, and what its parser has read.
        for dots in [0, 42, 50, 60] {
            texts.push(format!("SELECT xmlparse(document '<a><key>{token}' || repeat('.', {dots}) || '<')"));
            texts.push(format!("SELECT xmlparse(document '<a {token}' || repeat('.', {dots}) || '<')"));
        }
        for from in [12, 16, 20] {
            let part = format!("substr('{token}', {from})");
            texts.push(format!(
                "DO $$ BEGIN RAISE EXCEPTION 'only %', {part} USING DETAIL = left({part}, 12), HINT = lower({part}); END $$"
            ));
        }
        texts.push(format!("/* {token} */ SELECT 5 - \"{secret}\""));
        texts.push(format!("/* {token} */ SELECT '{{\"a\": {secret}}}'::json"));
    }
    let mut told = String::new();
    for text in &texts {
        // In a session of its own, which has seen nothing before.
        let mut session = cluster.connect("postgres");
        let pid: i32 = one(&mut session, "SELECT pg_backend_pid()");
        if let Err(error) = session.batch_execute(text) {
            let error = error.as_db_error().unwrap();
            told += &format!(
                "{} {:?} {:?} {:?}\n",
                error.message(),
                error.detail(),
                error.hint(),
                error.where_()
            );
        }
        told += &shown_by(&mut watcher, pid);
    }
    // A part of a token that the session has not seen: bound, not logged, and shown from its middle on.
    if !told.contains("unsupported XML feature") {
        let mut session = cluster.connect("postgres");
        session.batch_execute("SET log_statement = 'none'").unwrap();
        let error = session
            .query(
                "SELECT xmlparse(document $1::text)::text",
                &[&format!("<a><key>{TOKEN}{}<", ".".repeat(42))],
            )
            .unwrap_err();
        told += error.as_db_error().unwrap().detail().unwrap();
        assert!(told.contains("\n[redacted]..."), "{told}");
    }
    assert!(!is_15() || !told.contains("unsupported XML feature"));
    let kept: String = one(&mut watcher, "SELECT string_agg(query, E'\\n') FROM pg_stat_statements");
    let log = cluster.log();
    for (place, text) in [("told", &told), ("pg_stat_statements", &kept), ("log", &log)] {
        let lower = text.to_ascii_lowercase();
        for token in [TOKEN, GATEWAY] {
            let secret = token[token.find('-').map_or(11, |dash| dash + 1)..].to_ascii_lowercase();
            for at in 0..secret.len() - 8 {
                let part = &secret[at..][..8];
                let lines: Vec<&str> = lower.lines().filter(|line| line.contains(part)).take(3).collect();
                assert!(lines.is_empty(), "{part} in {place}: {lines:#?}");
            }
        }
    }
    assert!(log.contains("kwk_0a1B...[redacted]kwg_9z8Y...[redacted]"));
}

/// Four times as many statements in one message take some four times as long.
#[test]
fn a_message_of_many_statements_takes_time_that_is_linear() {
    let cluster = Cluster::new(
        5799,
        "-c shared_preload_libraries=keywright,pg_stat_statements -c fsync=off -c log_min_messages=notice",
    );
    let mut client = cluster.connect("postgres");
    for statement in [
        format!("SELECT '{TOKEN}';"),
        "DO $$ BEGIN RAISE NOTICE 'noted'; END $$;".to_owned(),
        format!("SAVEPOINT \"{TOKEN}\";"),
        "SELECT 1;".to_owned(),
    ] {
        let mut time = |count: usize| {
            let text = format!("BEGIN; {}; ROLLBACK", statement.repeat(count));
            let once = |client: &mut Client| {
                let from = std::time::Instant::now();
                client.batch_execute(&text).unwrap();
                from.elapsed()
            };
            (0..3).map(|_| once(&mut client)).min().unwrap()
        };
        let (few, many) = (time(2_000), time(16_000));
        assert!(many < 30 * few, "{statement}: {few:?}, {many:?}");
    }
}
