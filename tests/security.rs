//! The sentences of SECURITY.md that take more than one session, a program, or the files of a server to show.

use keywright_tests::{
    Cluster, Database, as_server, environment, is_active, one, program, succeed, wait_for,
};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, NoTls};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

/// Roles are the cluster's: each test has its own names.
fn make_role(client: &mut Client, role: &str, options: &str) {
    client.batch_execute(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN {options}")).unwrap();
}

/// The SQLSTATE, 00000 for none.
fn code(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => "00000".to_owned(),
        Err(error) => error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned()),
    }
}

/// As another role of a cluster of one's own.
fn connect_as(cluster: &Cluster, role: &str) -> Client {
    Client::connect(&cluster.conninfo("postgres").replace("user=postgres", &format!("user={role}")), NoTls)
        .unwrap()
}

fn version(client: &mut Client) -> i32 {
    one(client, "SELECT current_setting('server_version_num')::int")
}

/// What of a token is secret, and what is stored of it, in hexadecimal.
fn secret_and_hash(client: &mut Client, token: &str) -> (String, String) {
    let (secret, hashed) =
        if token.starts_with("kwg_") { (&token[11..37], token) } else { (&token[15..37], &token[15..37]) };
    let hash = client.query_one("SELECT encode(sha256($1::text::bytea), 'hex')", &[&hashed]).unwrap().get(0);
    (secret.to_owned(), hash)
}

/// How many files below `directory` hold these bytes.
fn files_with(directory: &Path, bytes: &[u8]) -> usize {
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["--recursive", "--files-with-matches", "--binary-files=text"]);
    let output =
        grep.args(["--fixed-strings", "-e"]).arg(OsStr::from_bytes(bytes)).arg(directory).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count()
}

/// Bytes of a hash that grep can be told to look for: neither the end of a line nor of an argument.
fn piece(hash: &str) -> Vec<u8> {
    let bytes: Vec<u8> =
        (0..hash.len()).step_by(2).map(|at| u8::from_str_radix(&hash[at..at + 2], 16).unwrap()).collect();
    bytes.windows(8).find(|window| !window.iter().any(|byte| [0, b'\n'].contains(byte))).unwrap().to_vec()
}

/// Whoever reads everything by a predefined role gets no dump with a row in it; a superuser's has the hashes, and no token.
#[test]
fn a_dump_holds_hashes_for_a_superuser_nothing_for_others_and_a_token_for_nobody() {
    let database = Database::new("security_dump");
    let mut client = database.connect();
    make_role(&mut client, "kw_security_reader", "IN ROLE pg_read_all_data");
    client.batch_execute("SELECT keywright.ensure_user('ada', 'ada@example.invalid')").unwrap();
    let mut secrets = Vec::new();
    for sql in ["mint_api_key('ada', 'k')", "ensure_api_key('ada', 'e')", "mint_gateway_key('edge')"] {
        let token: String = one(&mut client, &format!("SELECT token FROM keywright.{sql}"));
        secrets.push(secret_and_hash(&mut client, &token));
    }
    let dump = |arguments: &[&str]| program("pg_dump").args(arguments).arg(&database.name).output().unwrap();
    let refused = dump(&["--username=kw_security_reader"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("row-level security"), "{said}");
    let empty = dump(&["--username=kw_security_reader", "--enable-row-security"]);
    assert!(empty.status.success(), "{}", String::from_utf8_lossy(&empty.stderr));
    let whole = dump(&["--username=postgres"]);
    assert!(whole.status.success());
    let [refused, empty, whole] =
        [refused, empty, whole].map(|output| String::from_utf8(output.stdout).unwrap());
    assert!(empty.contains("COPY keywright.api_keys"));
    for (secret, hash) in &secrets {
        for (dump, hashes) in [(&refused, false), (&empty, false), (&whole, true)] {
            assert!(!dump.contains(secret.as_str()));
            assert_eq!(dump.contains(hash.as_str()), hashes);
        }
    }
    assert!(!empty.contains("ada") && !refused.contains("ada") && whole.contains("ada@example.invalid"));
    client.batch_execute("DROP ROLE kw_security_reader").unwrap();
}

/// What is restored is as it was when it was dumped: whatever was revoked since has to be revoked again.
#[test]
fn an_older_backup_brings_back_what_was_revoked_since() {
    let old = Database::new("security_older");
    let mut client = old.connect();
    client.batch_execute("SELECT keywright.ensure_user('ada', '')").unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'k')");
    let dump = succeed(program("pg_dump").arg(&old.name));
    client.batch_execute("SELECT keywright.revoke_user_api_keys('ada')").unwrap();
    assert!(!is_active(&mut client, &token));
    let restored = Database::empty("security_restored", "UTF8");
    let file = std::env::temp_dir().join(format!("keywright-{}-older.dump", std::process::id()));
    std::fs::write(&file, dump).unwrap();
    let mut psql = program("psql");
    psql.args(["-X", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", &restored.name, "--file"]);
    succeed(psql.arg(&file));
    std::fs::remove_file(&file).unwrap();
    let mut client = restored.connect();
    assert!(is_active(&mut client, &token));
    client.batch_execute("SELECT keywright.revoke_user_api_keys('ada')").unwrap();
    assert!(!is_active(&mut client, &token));
}

/// Tables, indexes, write-ahead log, statistics, state files; also what a role with REPLICATION copies, and what a member of
/// pg_execute_server_program or pg_read_server_files reads.
#[test]
fn the_disk_and_a_base_backup_hold_hashes_and_no_token() {
    let settings = "-c wal_level=replica -c shared_preload_libraries=keywright -c max_prepared_transactions=2 \
                    -c keywright.usage_flush_interval=1s";
    let cluster = Cluster::new(5761, settings);
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE EXTENSION keywright; SELECT keywright.ensure_user('ada', '')").unwrap();
    for (role, options) in [
        ("replicator", "REPLICATION"),
        ("runner", "IN ROLE pg_execute_server_program"),
        ("reader", "IN ROLE pg_read_server_files"),
        ("writer", "IN ROLE pg_write_server_files"),
    ] {
        make_role(&mut client, role, options);
    }
    let mut tokens: Vec<String> = Vec::new();
    for sql in [
        "mint_api_key('ada', 'a')",
        "ensure_api_key('ada', 'b')",
        "ensure_api_key('ada', 'b')",
        "ensure_operator_access('ns', 'cp')",
        "mint_gateway_key('g')",
        "ensure_gateway_key('h')",
        "rotate_gateway_key('g', '1 hour')",
        "apply('{\"manager\": \"m\", \"api_keys\": [{\"username\": \"ada\", \"name\": \"m\", \"scopes\": [\"all\"]}]}') WHERE token IS NOT NULL",
    ] {
        tokens.push(one(&mut client, &format!("SELECT token FROM keywright.{sql}")));
    }
    client.batch_execute("SET keywright.api_key_brand = ''").unwrap();
    let bare: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'bare')");
    tokens.push(format!("kwk_{bare}"));
    client.batch_execute("RESET keywright.api_key_brand").unwrap();
    // One that is rolled back, one in a transaction that is prepared: they were written as well.
    let mut transaction = client.transaction().unwrap();
    tokens.push(
        transaction
            .query_one("SELECT token FROM keywright.mint_api_key('ada', 'never')", &[])
            .unwrap()
            .get(0),
    );
    transaction.rollback().unwrap();
    client.batch_execute("SET keywright.notify = off; BEGIN").unwrap();
    tokens.push(one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'prepared')"));
    client.batch_execute("PREPARE TRANSACTION 'p'; CHECKPOINT").unwrap();
    // Shown in every way: as literals and as parameters, good and bad.
    for token in &tokens {
        is_active(&mut client, token);
        for function in ["verify_api_key", "authenticate_api_key", "begin_request", "explain_api_key"] {
            _ = client.batch_execute(&format!("SELECT keywright.{function}('{token}')"));
        }
    }
    let leaked: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'leaked')");
    client.query_one("SELECT keywright.revoke_leaked_api_key($1)", &[&leaked]).unwrap();
    tokens.push(leaked);
    let found: Vec<(String, String)> =
        tokens.iter().map(|token| secret_and_hash(&mut client, token)).collect();

    // Who may run programs reads the table's file, hash and all; who may read files, the server's log; who may write, anything.
    let path: String = one(&mut client, "SELECT pg_relation_filepath('keywright.api_keys')");
    client.batch_execute("CHECKPOINT").unwrap();
    let mut runner = connect_as(&cluster, "runner");
    let read = format!(
        "CREATE TEMP TABLE f (line text); COPY f FROM PROGRAM 'od -An -v -tx1 {path} | tr -d \" \\n\"'"
    );
    runner.batch_execute(&read).unwrap();
    let file: String = one(&mut runner, "SELECT line FROM f");
    let secret: String = found[0].0.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(file.contains(&found[0].1) && !file.contains(&secret));
    let log = cluster.file("").with_extension("log");
    let read =
        format!("CREATE TEMP TABLE f (line text); COPY f FROM '{}' WITH (DELIMITER E'\\x01')", log.display());
    let mut reader = connect_as(&cluster, "reader");
    assert_eq!(code(&mut reader, &read), "00000");
    assert!(one::<bool>(&mut reader, "SELECT count(*) > 0 FROM f"));
    let target = cluster.file("written_by_a_writer");
    let write = format!("COPY (SELECT 1) TO '{}'", target.display());
    assert_eq!(code(&mut reader, &write), "42501");
    assert_eq!(code(&mut connect_as(&cluster, "writer"), &write), "00000");
    assert!(target.exists());

    // A base backup by a role that has nothing but REPLICATION.
    let backup = cluster.file("").with_file_name("port5761_backup");
    let mut command = as_server("pg_basebackup");
    command.args(["--host", &environment("PGHOST"), "--port", "5761", "--username", "replicator"]);
    succeed(command.args(["--checkpoint", "fast", "--no-sync", "--pgdata"]).arg(&backup));
    let mut replicator = connect_as(&cluster, "replicator");
    assert_eq!(code(&mut replicator, "SELECT FROM keywright.api_keys"), "42501");
    wait_for(&mut client, "SELECT count(*) > 0 FROM keywright.api_key_usage WHERE last_used_at IS NOT NULL");
    drop((client, runner, reader, replicator));
    cluster.stop("fast");

    for directory in [&cluster.file(""), &backup] {
        for (secret, hash) in &found {
            assert_eq!(files_with(directory, secret.as_bytes()), 0, "a token is in a file");
            assert!(files_with(directory, &piece(hash)) > 0, "the search does not find what is there");
        }
    }
    // It would find one.
    cluster.start();
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE TABLE public.store AS SELECT token FROM keywright.mint_api_key('ada', 'stored'); CHECKPOINT").unwrap();
    let token: String = one(&mut client, "TABLE public.store");
    let (secret, _) = secret_and_hash(&mut client, &token);
    assert!(files_with(&cluster.file(""), secret.as_bytes()) >= 2, "table and write-ahead log");
    std::fs::remove_dir_all(&backup).unwrap();
}

/// A role that holds nothing here may still take any advisory lock, those of gateway keys too: their changes wait for it, and so a
/// deletion does. Verification and API keys do not.
#[test]
fn whoever_may_connect_holds_up_changes_of_gateway_keys_by_an_advisory_lock() {
    let database = Database::new("security_advisory");
    let mut client = database.connect();
    make_role(&mut client, "kw_security_nobody", "");
    let gateway = client
        .query_one("SELECT token, gateway_key_id::text FROM keywright.mint_gateway_key('edge')", &[])
        .unwrap();
    let (token, id): (String, String) = (gateway.get(0), gateway.get(1));
    client.batch_execute("SELECT keywright.ensure_user('ada', '')").unwrap();
    let key: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'k')");
    let mut nobody = database.connect_as("kw_security_nobody", "");
    for name in ["gateway key edge".to_owned(), format!("heartbeat {id}"), format!("usage {}", &key[4..14])] {
        let lock = format!("SELECT pg_advisory_lock(hashtextextended('keywright {name}', 0))");
        nobody.batch_execute(&lock).unwrap();
    }
    client.batch_execute("SET lock_timeout = '100ms'").unwrap();
    for change in ["ensure_gateway_key('edge')", "rotate_gateway_key('edge')", "delete_gateway_key('edge')"] {
        assert_eq!(code(&mut client, &format!("SELECT keywright.{change}")), "55P03", "{change}");
    }
    assert_eq!(code(&mut client, "SELECT keywright.mint_gateway_key('other')"), "00000");
    assert!(is_active(&mut client, &token) && is_active(&mut client, &key));
    // A first heartbeat and a first touch are told to be there, and not noted.
    assert!(one::<bool>(&mut client, &format!("SELECT keywright.heartbeat_gateway_key('{id}')")));
    assert!(one::<bool>(&mut client, &format!("SELECT keywright.touch_api_key('{}')", &key[4..14])));
    let noted = "SELECT (SELECT count(last_heartbeat_at) FROM keywright.list_gateway_keys()) + (SELECT count(last_used_at) FROM keywright.key_usage())";
    assert_eq!(one::<i64>(&mut client, noted), 0);
    assert_eq!(code(&mut client, "SELECT keywright.revoke_user_api_keys('ada')"), "00000");
    // Ending that session ends it.
    let end =
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'kw_security_nobody'";
    assert!(one::<bool>(&mut client, end));
    assert_eq!(code(&mut client, "SELECT keywright.delete_gateway_key('edge')"), "00000");
    assert!(!is_active(&mut client, &token));
    client.batch_execute("DROP ROLE kw_security_nobody").unwrap();
}

/// Any role hears ids and names, and may say the same on the channel. One that listens and sits in a transaction keeps the server's
/// queue from being emptied; when that is full, whoever would notify can not commit.
#[test]
fn whoever_may_connect_hears_names_tells_lies_and_can_fill_the_queue() {
    let limit = if environment("PG_VERSION") == "15" { "" } else { "-c max_notify_queue_pages=64" };
    let cluster = Cluster::new(5762, limit);
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE EXTENSION keywright; SELECT keywright.ensure_user('ada', '')").unwrap();
    make_role(&mut client, "nobody", "");
    let mut listener = connect_as(&cluster, "nobody");
    listener.batch_execute("LISTEN keywright").unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'laptop')");
    let (secret, hash) = secret_and_hash(&mut client, &token);
    let mut liar = connect_as(&cluster, "nobody");
    let lie = "SELECT pg_notify('keywright', '{\"event\" : \"revoked\", \"kind\" : \"api_key\", \"name\" : \"ada/laptop\"}')";
    liar.batch_execute(lie).unwrap();
    listener.batch_execute("SELECT 1").unwrap();
    let mut heard = Vec::new();
    while let Some(notification) = listener.notifications().iter().next().unwrap() {
        heard.push(notification.payload().to_owned());
    }
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(
        heard[0].contains("minted") && heard[0].contains("ada/laptop") && heard[0].contains(&token[4..14])
    );
    assert!(!heard[0].contains(&secret) && !heard[0].contains(&hash));
    assert!(heard[1].contains("revoked"));
    assert!(is_active(&mut client, &token));

    listener.batch_execute("BEGIN; SELECT 1").unwrap();
    let usage = "SELECT pg_notification_queue_usage() > 0";
    let full = "DO $$ BEGIN FOR n IN 1 .. 8 LOOP PERFORM pg_notify('other', n || repeat('x', 7000)); END LOOP; END $$";
    let mut ended = code(&mut liar, full);
    assert!(one::<bool>(&mut client, usage));
    // On 15 that takes eight gigabytes.
    if !limit.is_empty() {
        for _ in 0..20 {
            if ended == "00000" {
                ended = code(&mut liar, full);
            }
        }
        assert_eq!(ended, "54000");
        assert_eq!(code(&mut client, "SELECT keywright.revoke_user_api_keys('ada')"), "54000");
        assert!(is_active(&mut client, &token));
    }
    // Without notifications it commits; with that session ended the queue is empty again.
    client.batch_execute("SET keywright.notify = off; SELECT keywright.revoke_user_api_keys('ada')").unwrap();
    assert!(!is_active(&mut client, &token));
    client.batch_execute("RESET keywright.notify; SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'nobody'").unwrap();
    // Asking for it is also what empties it.
    wait_for(&mut client, "SELECT pg_notification_queue_usage() = 0");
    client.batch_execute("SELECT keywright.suspend_user('ada')").unwrap();
}

/// A member of pg_signal_backend ends anybody's session but a superuser's, and with it what was not committed: a revocation too. It
/// does not reach the process that notes usage.
#[test]
fn pg_signal_backend_ends_sessions_of_others_and_none_of_a_superuser() {
    let cluster = Cluster::new(5763, "-c shared_preload_libraries=keywright");
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE EXTENSION keywright; SELECT keywright.ensure_user('ada', '')").unwrap();
    make_role(&mut client, "killer", "IN ROLE pg_signal_backend");
    make_role(&mut client, "issuer", "");
    client.batch_execute("SELECT keywright.grant_access('issuer', 'issuer')").unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'k')");
    let mut issuer = connect_as(&cluster, "issuer");
    let mut killer = connect_as(&cluster, "killer");
    issuer.batch_execute("BEGIN; SELECT keywright.revoke_user_api_keys('ada')").unwrap();
    let pid: i32 = one(&mut issuer, "SELECT pg_backend_pid()");
    assert!(one::<bool>(&mut killer, &format!("SELECT pg_terminate_backend({pid}, 5000)")));
    assert!(issuer.batch_execute("COMMIT").is_err());
    assert!(is_active(&mut client, &token));
    let launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'keywright usage launcher'";
    wait_for(&mut client, &format!("SELECT EXISTS ({launcher})"));
    let launcher: i32 = one(&mut client, launcher);
    let superuser: i32 = one(&mut client, "SELECT pg_backend_pid()");
    for pid in [launcher, superuser] {
        for function in ["pg_terminate_backend", "pg_cancel_backend"] {
            assert_eq!(code(&mut killer, &format!("SELECT {function}({pid})")), "42501", "{function}");
        }
    }
    for call in ["verify_api_key('x')", "revoke_user_api_keys('ada')", "list_api_keys()"] {
        assert_eq!(code(&mut killer, &format!("SELECT keywright.{call}")), "42501");
    }
}

/// Whoever may lock the tables stops verification: it waits, and ends in an error that is neither yes nor no.
#[test]
fn a_role_that_may_lock_the_tables_stops_verification_and_turns_no_answer() {
    let database = Database::new("security_lock");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('ada', '')").unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'k')");
    client.batch_execute("SET lock_timeout = '100ms'").unwrap();
    let mut roles = vec!["pg_write_all_data"];
    if version(&mut client) >= 170_000 {
        roles.push("pg_maintain");
    }
    for predefined in roles {
        // Nobody but pg_write_all_data and pg_read_all_data may look into every schema.
        make_role(&mut client, "kw_security_locker", &format!("IN ROLE {predefined}"));
        client.batch_execute("GRANT USAGE ON SCHEMA keywright TO kw_security_locker").unwrap();
        let mut locker = database.connect_as("kw_security_locker", "");
        locker.batch_execute("BEGIN; LOCK TABLE keywright.api_keys IN ACCESS EXCLUSIVE MODE").unwrap();
        for function in ["verify_api_key", "authenticate_api_key", "begin_request", "revoke_leaked_api_key"] {
            let ended = code(&mut client, &format!("SELECT keywright.{function}('{token}')"));
            assert_eq!(ended, "55P03", "{function}");
        }
        locker.batch_execute("ROLLBACK").unwrap();
        assert!(is_active(&mut client, &token));
        drop(locker);
        client.batch_execute("DROP OWNED BY kw_security_locker; DROP ROLE kw_security_locker").unwrap();
    }
}

/// Where keywright is not preloaded, a literal of a statement that runs is in what pg_monitor sees, and a parameter is not. Nobody
/// else sees either.
#[test]
fn pg_monitor_sees_a_literal_that_is_not_redacted_and_no_parameter() {
    let database = Database::new("security_monitor");
    let mut client = database.connect();
    make_role(&mut client, "kw_security_monitor", "IN ROLE pg_monitor");
    make_role(&mut client, "kw_security_other", "");
    client.batch_execute("SELECT keywright.ensure_user('ada', '')").unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'k')");
    let (secret, _) = secret_and_hash(&mut client, &token);
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    let shown = format!("SELECT query FROM pg_stat_activity WHERE pid = {pid}");
    let mut monitor = database.connect_as("kw_security_monitor", "");
    let mut other = database.connect_as("kw_security_other", "");
    client.batch_execute(&format!("SELECT keywright.verify_api_key('{token}')")).unwrap();
    assert!(one::<String>(&mut monitor, &shown).contains(&secret));
    assert_eq!(one::<String>(&mut other, &shown), "<insufficient privilege>");
    assert!(is_active(&mut client, &token));
    let text: String = one(&mut monitor, &shown);
    assert!(text.contains("verify_api_key($1)") && !text.contains(&secret), "{text}");
    client.batch_execute("DROP ROLE kw_security_monitor, kw_security_other").unwrap();
}

/// The owner of the database, no superuser, can drop it with all that is in it.
#[test]
fn the_owner_of_the_database_can_drop_it() {
    let database = Database::new("security_owner");
    let mut client = database.connect();
    make_role(&mut client, "kw_security_dba", "");
    client.batch_execute(&format!("ALTER DATABASE {} OWNER TO kw_security_dba", database.name)).unwrap();
    let mut owner = database.connect_as("kw_security_dba", "");
    assert_eq!(code(&mut owner, "SELECT FROM keywright.users"), "42501");
    drop((client, owner));
    let elsewhere = format!("host={} user=kw_security_dba dbname=postgres", environment("PGHOST"));
    let mut owner = Client::connect(&elsewhere, NoTls).unwrap();
    let gone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{}'", database.name);
    wait_for(&mut owner, &gone);
    owner.batch_execute(&format!("DROP DATABASE {}", database.name)).unwrap();
    let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", database.name);
    assert_eq!(one::<i64>(&mut owner, &there), 0);
    drop(owner);
    Database::empty("security_after", "UTF8").connect().batch_execute("DROP ROLE kw_security_dba").unwrap();
}

/// Whoever makes ids up fills no memory: nothing is noted of them.
#[test]
fn an_id_that_does_not_exist_takes_no_place_in_memory() {
    let cluster =
        Cluster::new(5764, "-c shared_preload_libraries=keywright -c keywright.usage_flush_interval=1h");
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE EXTENSION keywright; SELECT keywright.ensure_user('ada', '')").unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'k')");
    let taken = "SELECT sum(value)::int FROM keywright.metrics() WHERE name = 'keywright_usage_slots' AND labels->>'state' <> 'free'";
    let ids = "SELECT count(*) FILTER (WHERE active) FROM keywright.verify_api_keys(ARRAY(SELECT lpad(n::text, 10, '0') || '-' || repeat('A', 22) FROM generate_series(1, 1000) AS n))";
    assert_eq!((one::<i64>(&mut client, ids), one::<i32>(&mut client, taken)), (0, 0));
    assert!(is_active(&mut client, &token));
    assert_eq!(one::<i32>(&mut client, taken), 1);
}

/// An update whose row is gone on the other node: 18 logs the row that came, with all of the hash but its last byte. 15 logs nothing.
#[test]
fn a_conflict_of_replication_is_logged_with_the_hash_by_18() {
    let nodes = [5765, 5766].map(|port| Cluster::new(port, "-c wal_level=logical"));
    let mut clients = nodes.each_ref().map(|node| node.connect("postgres"));
    for client in &mut clients {
        client.batch_execute("CREATE EXTENSION keywright").unwrap();
    }
    let [from, to] = &mut clients;
    from.batch_execute("CREATE PUBLICATION p FOR TABLE keywright.users, keywright.api_keys; SELECT keywright.ensure_user('ada', '')").unwrap();
    let token: String = one(from, "SELECT token FROM keywright.mint_api_key('ada', 'k')");
    let (secret, hash) = secret_and_hash(from, &token);
    let subscribe =
        format!("CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p", nodes[0].conninfo("postgres"));
    to.batch_execute(&subscribe).unwrap();
    let arrived = format!("SELECT EXISTS (SELECT FROM keywright.verify_api_key('{token}') WHERE active)");
    wait_for(to, &arrived);
    wait_for(to, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel");
    to.batch_execute("DELETE FROM keywright.api_keys").unwrap();
    from.batch_execute("SELECT keywright.revoke_user_api_keys('ada')").unwrap();
    let lsn: String = one(from, "SELECT pg_current_wal_lsn()::text");
    wait_for(
        from,
        &format!("SELECT replay_lsn >= '{lsn}' FROM pg_stat_replication WHERE application_name = 's'"),
    );
    let log = nodes[1].log();
    let logged = version(to) >= 180_000;
    assert_eq!(log.contains("conflict detected"), logged, "{log}");
    assert_eq!(log.contains(&hash[..62]), logged, "{log}");
    assert!(!log.contains(&hash) && !log.contains(&secret));
    to.batch_execute("DROP SUBSCRIPTION s").unwrap();
}

/// A verifier that sits in a transaction in which it called all it may holds up nobody who ends a key, nor a purge.
#[test]
fn a_verifier_in_an_open_transaction_holds_up_no_revocation() {
    let database = Database::new("security_verifier");
    let mut client = database.connect();
    make_role(&mut client, "kw_security_verifier", "");
    client
        .batch_execute("SELECT keywright.grant_access('kw_security_verifier', 'verifier'), keywright.ensure_user('ada', '')")
        .unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('ada', 'k')");
    let gateway = client
        .query_one("SELECT token, gateway_key_id::text FROM keywright.mint_gateway_key('edge')", &[])
        .unwrap();
    let (gateway, id): (String, String) = (gateway.get(0), gateway.get(1));
    client.batch_execute("SET lock_timeout = '2s'").unwrap();
    let mut verifier = database.connect_as("kw_security_verifier", "");
    // The first heartbeat and touch insert a row, later ones update it.
    for _ in 0..2 {
        verifier
            .batch_execute(&format!(
                "BEGIN; SELECT keywright.heartbeat_gateway_key('{id}'), keywright.touch_api_key('{}'), keywright.has_permission('ada', 'project:read');
                 SELECT keywright.verify_gateway_key('{gateway}'), keywright.authenticate_api_key('{token}'), keywright.begin_request('{token}')",
                &token[4..14]
            ))
            .unwrap();
        for call in [
            "rotate_gateway_key('edge')",
            "delete_gateway_key('edge')",
            "suspend_user('ada')",
            "revoke_user_api_keys('ada')",
            "delete_user('ada')",
            "purge_api_keys('0')",
            "purge_api_key_usage()",
            "purge_gateway_keys()",
        ] {
            let ended = code(&mut client, &format!("BEGIN; SELECT keywright.{call}"));
            client.batch_execute("ROLLBACK").unwrap();
            assert_eq!(ended, "00000", "{call}");
        }
        // Two minutes later a touch would write again.
        verifier.batch_execute("COMMIT").unwrap();
        client.batch_execute("UPDATE keywright.api_key_usage SET last_used_at = last_used_at - interval '2 minutes', last_presented_at = last_presented_at - interval '2 minutes'").unwrap();
    }
    drop(verifier);
    client.batch_execute("DROP OWNED BY kw_security_verifier; DROP ROLE kw_security_verifier").unwrap();
}
