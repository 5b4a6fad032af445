//! What a client library sees of a broken rule: the fields of the protocol, not psql's rendering.

use keywright_tests::{Database, one};
use postgres::error::DbError;

fn refused(client: &mut postgres::Client, sql: &str) -> DbError {
    let error = client.batch_execute(sql).expect_err(sql);
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}")).clone()
}

const HASH: &str = "decode(repeat('ab', 32), 'hex')";

fn by_hand(name: &str, prefix: &str, hash: &str) -> String {
    format!(
        "INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret) VALUES ('{name}', '{prefix}', {hash})"
    )
}

#[test]
fn every_constraint_case_has_its_fields_and_shows_no_hash() {
    let database = Database::new("diagnostics");
    let mut client = database.connect();
    client.batch_execute(&by_hand("taken", "kwg_taken00", HASH)).unwrap();
    let other = "sha256('other')";
    let name = "gateway_keys_name_check";
    let prefix = "gateway_keys_secret_prefix_check";
    let hash = "gateway_keys_hashed_secret_check";
    let long = "a".repeat(65);
    let cases = [
        (by_hand("taken", "kwg_other00", other), "23505", "gateway_keys_name_idx"),
        (by_hand("other", "kwg_taken00", other), "23505", "gateway_keys_secret_prefix_key"),
        (by_hand("other", "kwg_other00", HASH), "23505", "gateway_keys_hashed_secret_key"),
        (by_hand("", "kwg_other00", HASH), "23514", name),
        (by_hand("a-", "kwg_other00", HASH), "23514", name),
        (by_hand("a--b", "kwg_other00", HASH), "23514", name),
        (by_hand("a_b", "kwg_other00", HASH), "23514", name),
        (by_hand("a b", "kwg_other00", HASH), "23514", name),
        (by_hand("-a", "kwg_other00", HASH), "23514", name),
        (by_hand("Upper", "kwg_other00", HASH), "23514", name),
        (by_hand(&long, "kwg_other00", HASH), "23514", name),
        (by_hand("other", "", HASH), "23514", prefix),
        (by_hand("other", "kwg_other0", HASH), "23514", prefix),
        (by_hand("other", "kwg_other012", HASH), "23514", prefix),
        (by_hand("other", "kwg_other00", "''"), "23514", hash),
        (by_hand("other", "kwg_other00", "decode(repeat('ab', 31), 'hex')"), "23514", hash),
        (by_hand("other", "kwg_other00", "decode(repeat('ab', 33), 'hex')"), "23514", hash),
        ("SELECT keywright.mint_gateway_key('taken')".into(), "23505", "gateway_keys_name_idx"),
        ("SELECT keywright.mint_gateway_key('Taken')".into(), "23514", name),
        ("SELECT keywright.ensure_gateway_key('a_b')".into(), "23514", name),
        ("SELECT keywright.ensure_user('a__b', '')".into(), "23514", "users_username_check"),
        ("SELECT keywright.ensure_system_user('')".into(), "23514", "users_username_check"),
        ("SELECT keywright.mint_api_key('x', 'A')".into(), "23514", "api_keys_name_check"),
        ("SELECT keywright.ensure_api_key('x', 'A')".into(), "23514", "api_keys_name_check"),
    ];
    for (sql, code, constraint) in cases {
        let error = refused(&mut client, &sql);
        assert_eq!(error.code().code(), code, "{sql}");
        assert_eq!(error.constraint(), Some(constraint), "{sql}");
        assert_eq!(error.schema(), Some("keywright"), "{sql}");
        assert!(error.table().is_some_and(|table| constraint.starts_with(table)), "{sql}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{sql}");
        assert!(error.detail().is_some_and(|detail| !detail.is_empty()), "{sql}");
        let shown = format!("{error:?}");
        assert!(
            !shown.contains("abab") && !shown.contains("Failing row") && !shown.contains("kwg_"),
            "{shown}"
        );
    }
    client.batch_execute(&by_hand(&"a".repeat(64), "kwg_other00", other)).unwrap();
}

#[test]
fn a_row_written_by_hand_is_never_printed() {
    let database = Database::new("by_hand");
    let mut client = database.connect();
    let user: String = one(&mut client, "SELECT user_id::text FROM keywright.ensure_user('x', '')");
    let columns = [
        "key_id",
        "user_id",
        "name",
        "hashed_secret",
        "expires_at",
        "scopes",
        "allow_list",
        "lifetime",
        "created_at",
    ];
    let user = format!("'{user}'");
    let good = ["'AAAAAAAAAA'", &user, "'n'", HASH, "now()", "'{all}'", "'{*:*}'", "'1 day'", "now()"];
    let bad: [(usize, &[&str]); 9] = [
        (0, &["'short'", "NULL"]),
        (1, &["NULL"]),
        (2, &["'N'", "NULL"]),
        (3, &["''", "NULL"]),
        (4, &["'infinity'", "NULL"]),
        (5, &["'{}'", "NULL"]),
        (6, &["array_fill('*:*'::text, ARRAY[129])", "NULL"]),
        (7, &["NULL"]),
        (8, &["NULL"]),
    ];
    for (at, values) in bad {
        for value in values {
            let mut row = good;
            row[at] = value;
            let sql = format!(
                "INSERT INTO keywright.api_keys ({}) VALUES ({})",
                columns.join(", "),
                row.join(", ")
            );
            let error = refused(&mut client, &sql);
            assert!(["23514", "23502", "22023"].contains(&error.code().code()), "{error:?}");
            assert!(!format!("{error:?}").contains("abab"), "{} = {value}: {error:?}", columns[at]);
        }
    }
    let sql = format!("INSERT INTO keywright.api_keys ({}) VALUES ({})", columns.join(", "), good.join(", "));
    client.batch_execute(&sql).unwrap();
}

#[test]
fn no_backtrace_and_no_token_in_an_error() {
    let database = Database::new("errors");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('x', '')").unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('x', 'n')");
    let secret = &token[15..];
    client.batch_execute("SET statement_timeout = '50ms'; SET lock_timeout = '20ms'").unwrap();
    let mut blocker = database.connect();
    let mut transaction = blocker.transaction().unwrap();
    transaction
        .batch_execute("LOCK TABLE keywright.users, keywright.api_keys, keywright.gateway_keys")
        .unwrap();
    // Each takes a token where it may be expected, or where it is a mistake.
    for call in [
        "verify_api_key($1)",
        "authenticate_api_key($1)",
        "explain_api_key($1)",
        "revoke_leaked_api_key($1)",
        "ensure_api_key('x', 'n', $1)",
        "ensure_gateway_key('n', $1)",
        "revoke_api_key($1)",
        "rotate_api_key($1)",
        "expire_api_key($1)",
        "suspend_user($1)",
        "delete_user($1)",
        "mint_api_key($1, 'n')",
        "mint_api_key('x', $1)",
        "import_api_key($1, 'n', 'OldKey0001', sha256('x'), now() + interval '1 day')",
        "import_api_key('x', $1, 'OldKey0001', sha256('x'), now() + interval '1 day')",
        "import_api_key('x', 'n', $1, sha256('x'), now() + interval '1 day')",
        "import_api_key('x', 'n', 'OldKey0001', convert_to($1, 'UTF8'), now() + interval '1 day')",
        "mint_gateway_key($1)",
        "rotate_gateway_key($1)",
        "delete_gateway_key($1)",
        "ensure_user($1, '')",
        "ensure_user('x', $1)",
        "grant_access($1, 'verifier')",
        "grant_access('postgres', $1)",
        "list_api_keys($1)",
    ] {
        for sql in [format!("SELECT keywright.{call}"), format!("SELECT * FROM keywright.{call}")] {
            let error = client.query(&sql, &[&token]).expect_err(&sql);
            let error = error.as_db_error().unwrap();
            let shown = format!("{error:?}");
            assert!(!shown.contains(secret), "{sql}: {shown}");
            assert!(!shown.contains("pgrx") && !shown.contains("stack backtrace"), "{sql}: {shown}");
            assert_ne!(error.code().code(), "XX000", "{sql}: {shown}");
        }
    }
}

#[test]
fn a_client_can_not_lift_the_cap_on_lifetimes_when_it_connects() {
    let database = Database::new("cap");
    let mut client = database.connect();
    let role = "keywright_test_cap";
    client
        .batch_execute(&format!(
            "SELECT keywright.ensure_user('x', '');
             DROP ROLE IF EXISTS {role};
             CREATE ROLE {role} LOGIN;
             SELECT keywright.grant_access('{role}', 'issuer');
             ALTER DATABASE {} SET keywright.max_api_key_lifetime = '1h'",
            database.name
        ))
        .unwrap();
    let long = "SELECT keywright.mint_api_key('x', 'long', lifetime => '1000 days')";
    let ensured = "SELECT keywright.ensure_api_key('x', 'long', lifetime => '1000 days')";
    for value in ["0", "-1", "1", "1d", "junk"] {
        let mut client = database.connect_as(role, &format!("-c keywright.max_api_key_lifetime={value}"));
        for sql in [long, ensured] {
            assert_eq!(refused(&mut client, sql).code().code(), "42501", "{value}");
        }
    }
    // Without the option the administrator's value holds, and nothing inside a session changes it.
    let mut client = database.connect_as(role, "");
    assert_eq!(refused(&mut client, long).code().code(), "22023");
    assert_eq!(refused(&mut client, "SET keywright.max_api_key_lifetime = 0").code().code(), "42501");
    client
        .batch_execute("RESET ALL; SELECT keywright.mint_api_key('x', 'short', lifetime => '1 hour')")
        .unwrap();
    // A superuser may lift it.
    let mut client = database.connect_as("postgres", "-c keywright.max_api_key_lifetime=0");
    client.batch_execute(long).unwrap();
    client
        .batch_execute(&format!("SELECT keywright.revoke_access('{role}', 'issuer'); DROP ROLE {role}"))
        .unwrap();
}

#[test]
fn a_user_newer_than_the_snapshot_is_a_serialization_failure() {
    let database = Database::new("newer");
    let mut old = database.connect();
    let mut transaction =
        old.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    transaction.batch_execute("SELECT 1").unwrap();
    database.connect().batch_execute("SELECT keywright.ensure_user('late', '')").unwrap();
    for sql in ["SELECT keywright.mint_api_key('late', 'a')", "SELECT keywright.ensure_api_key('late', 'a')"]
    {
        let mut savepoint = transaction.savepoint("s").unwrap();
        let error = savepoint.batch_execute(sql).expect_err(sql);
        assert_eq!(error.as_db_error().unwrap().code().code(), "40001", "{error:?}");
        savepoint.rollback().unwrap();
    }
}

/// What does not fit into work_mem goes into a temporary file, which is no place for tokens.
#[test]
fn tokens_that_are_minted_by_the_thousand_stay_in_memory() {
    let database = Database::new("many_tokens");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('ada', '', 'service')").unwrap();
    let mut bytes_of = |prefix: &str| -> i64 {
        let minted: i64 = one(
            &mut client,
            &format!(
                "SELECT count(token) FROM keywright.mint_api_keys(array_fill('ada'::text, '{{50000}}'),
                   ARRAY(SELECT '{prefix}' || n FROM generate_series(1, 50000) AS n))"
            ),
        );
        assert_eq!(minted, 50_000);
        client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
        one(&mut client, "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()")
    };
    assert_eq!(bytes_of("a"), 0, "bytes in temporary files");
    let reset =
        "ALTER FUNCTION keywright.mint_api_keys(text[],text[],text[],text[],interval,text) RESET work_mem";
    database.connect().batch_execute(reset).unwrap();
    assert!(bytes_of("b") > 0, "without its setting they would go there");
}

/// No more do those of a manifest, however little memory a statement may have.
#[test]
fn tokens_of_a_manifest_stay_in_memory() {
    let database = Database::new("manifest_tokens");
    let mut client = database.connect();
    client
        .batch_execute("SET work_mem = '64kB'; SELECT keywright.ensure_user('ada', '', 'service')")
        .unwrap();
    // The set stays as it is kept for the caller while the cursor is open; what was sorted on the way there is gone.
    client
        .batch_execute(
            "CREATE TABLE manifests AS SELECT jsonb_build_object('manager', 'm', 'api_keys',
               jsonb_agg(jsonb_build_object('username', 'ada', 'name', 'k' || i))) AS manifest FROM generate_series(1, 2000) AS i;
             BEGIN; DECLARE applied CURSOR FOR SELECT token FROM keywright.apply((SELECT manifest FROM manifests))",
        )
        .unwrap();
    assert!(one::<String>(&mut client, "FETCH applied").starts_with("kwk_"));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM pg_ls_tmpdir()"), 0, "temporary files");
}

/// What a superuser does by hand to our types and tables is told as such, and ends nothing.
#[test]
fn a_column_that_got_another_type_is_told_of() {
    let database = Database::new("other_types");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('ada', '', 'service')").unwrap();
    let row = client.query_one("SELECT key_id, token FROM keywright.mint_api_key('ada', 'k')", &[]).unwrap();
    let (id, token): (String, String) = (row.get(0), row.get(1));
    let calls = [
        format!("SELECT keywright.verify_api_key('{token}')"),
        format!("SELECT keywright.explain_api_key('{token}')"),
        "SELECT keywright.list_api_keys(include_inactive => true)".to_owned(),
        format!("SELECT keywright.rotate_api_key('{id}')"),
        format!("SELECT keywright.ensure_api_key('ada', 'k', '{token}')"),
    ];
    let columns = |of: &str| -> Vec<String> {
        let sql = format!(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = '{of}'::regclass AND attnum > 0 AND NOT attisdropped"
        );
        database.connect().query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let mut changes = Vec::new();
    for column in columns("keywright.verified_api_key") {
        for other in ["bigint", "interval", "bytea"] {
            changes
                .push(format!("ALTER TYPE keywright.verified_api_key ALTER ATTRIBUTE {column} TYPE {other}"));
        }
    }
    for table in ["api_keys", "users"] {
        for column in columns(&format!("keywright.{table}")) {
            for (other, value) in
                [("bigint", "7"), ("text", "'x'"), ("boolean", "true"), ("bigint[]", "'{7}'")]
            {
                changes.push(format!(
                    "ALTER TABLE keywright.{table} ALTER COLUMN {column} DROP DEFAULT, ALTER COLUMN {column} TYPE {other} USING {value}"
                ));
            }
        }
    }
    let mut told = 0;
    for change in changes {
        for call in &calls {
            client.batch_execute("BEGIN").unwrap();
            // Not every type can be had.
            if client.batch_execute(&change).is_ok()
                && let Err(error) = client.batch_execute(call)
            {
                let code = error.code().unwrap_or_else(|| panic!("{change}; {call}: {error}"));
                assert_ne!(code.code(), "XX000", "{change}; {call}: {error:?}");
                told += usize::from(code.code() == "55000");
            }
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
    assert!(told > 20, "{told}");
}
