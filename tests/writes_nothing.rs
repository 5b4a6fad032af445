//! Verifying, and ensuring what is so already, write nothing: no WAL, no transaction id, no row version.

use keywright_tests::{Database, ensure, one};
use postgres::Client;

const VERSIONS: &str = "SELECT concat_ws('|',
     (SELECT string_agg(u.ctid || ' ' || u.xmin || ' ' || u.xmax, ',' ORDER BY u.user_id) FROM keywright.users AS u),
     (SELECT string_agg(k.ctid || ' ' || k.xmin || ' ' || k.xmax, ',' ORDER BY k.key_id) FROM keywright.api_keys AS k),
     (SELECT string_agg(k.ctid || ' ' || k.xmin || ' ' || k.xmax, ',' ORDER BY k.name) FROM keywright.gateway_keys AS k),
     (SELECT string_agg(t.ctid || ' ' || t.xmin || ' ' || t.xmax, ',' ORDER BY t.type) FROM keywright.resource_types AS t),
     (SELECT string_agg(r.ctid || ' ' || r.xmin || ' ' || r.xmax, ',' ORDER BY r.type, r.id) FROM keywright.resources AS r),
     (SELECT string_agg(r.ctid || ' ' || r.xmin || ' ' || r.xmax, ',' ORDER BY r.name) FROM keywright.roles AS r),
     (SELECT string_agg(s.ctid || ' ' || s.xmin || ' ' || s.xmax, ',' ORDER BY s.name) FROM keywright.scopes AS s),
     (SELECT string_agg(b.ctid || ' ' || b.xmin || ' ' || b.xmax, ',' ORDER BY b.binding_id) FROM keywright.role_bindings AS b))";

/// WAL bytes the calls wrote. Other processes of the server may write too, so the least of some tries counts.
fn wal_of(client: &mut Client, calls: &[String]) -> i64 {
    let mut least = i64::MAX;
    for _ in 0..20 {
        let before: String = one(client, "SELECT pg_current_wal_insert_lsn()::text");
        for call in calls {
            client.batch_execute(call).unwrap();
        }
        let written: i64 = client
            .query_one(&format!("SELECT (pg_current_wal_insert_lsn() - '{before}')::bigint"), &[])
            .unwrap()
            .get(0);
        least = least.min(written);
    }
    least
}

#[test]
fn no_wal_no_transaction_id_no_row_version() {
    let database = Database::new("writes_nothing");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_system_user('bot', 'b@example.invalid')").unwrap();
    let token = ensure(&mut client, "keywright.ensure_api_key('bot', 'ci')").token.unwrap();
    client
        .batch_execute(
            "SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('project', 'p1', 'acme');
             SELECT keywright.define_role('deployer', '{project:read}'), keywright.define_scope('deploy', '{project:read}');
             SELECT keywright.register_resource_type('workspace', 'project'), keywright.bind_role('bot', 'deployer', 'project', 'p1');
             CREATE TABLE public.tracked (id integer PRIMARY KEY); INSERT INTO public.tracked VALUES (1);
             SELECT keywright.track_table('public.tracked', 'workspace')",
        )
        .unwrap();
    let gateway = ensure(&mut client, "keywright.ensure_gateway_key('edge')").token.unwrap();
    client.batch_execute("CREATE ROLE keywright_test_writes; SELECT keywright.grant_access('keywright_test_writes', 'admin')").unwrap();
    client.batch_execute("VACUUM (FREEZE, ANALYZE)").unwrap();
    let calls: Vec<String> = [
        format!("verify_api_key('{token}')"),
        "verify_api_key('junk')".into(),
        "verify_api_key('AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAA')".into(),
        format!("verify_api_keys(ARRAY['{token}', 'junk'])"),
        format!("authenticate_api_key('{token}')"),
        format!("explain_api_key('{token}')"),
        format!("verify_gateway_key('{gateway}')"),
        format!("ensure_api_key('bot', 'ci', '{token}')"),
        format!("ensure_gateway_key('edge', '{gateway}')"),
        "ensure_system_user('bot', 'b@example.invalid')".into(),
        "grant_access('keywright_test_writes', 'admin')".into(),
        "revoke_access('keywright_test_writes', 'verifier')".into(),
        "activate_user('bot')".into(),
        format!("authorize_api_key('{token}', 'project:read', 'project:p1')"),
        format!("begin_request('{token}')"),
        "check_request()".into(),
        "is_permitted('project:read', 'project', 'p1')".into(),
        "has_permission('bot', 'project:read', 'project', 'p1')".into(),
        "register_resource_type('workspace', 'project')".into(),
        "ensure_resource('project', 'p1', 'acme')".into(),
        "ensure_resources('project', '{p1}', '{acme}')".into(),
        "define_role('deployer', '{project:read}')".into(),
        "define_scope('deploy', '{project:read}')".into(),
        "bind_role('bot', 'deployer', 'project', 'p1')".into(),
        "unbind_role('bot', 'deployer')".into(),
        "delete_resource('project', 'absent')".into(),
        "delete_role('absent')".into(),
        "delete_scope('absent')".into(),
        "delete_resource_type('absent')".into(),
        "list_roles()".into(),
        "list_scopes()".into(),
        "list_resource_types()".into(),
        "list_resources('project')".into(),
        "list_role_bindings()".into(),
        "list_api_keys()".into(),
        "list_gateway_keys()".into(),
        "list_users()".into(),
        "list_access()".into(),
        "needs_first_user()".into(),
        "help()".into(),
    ]
    .into_iter()
    .map(|call| format!("SELECT keywright.{call}"))
    .collect();
    let before: String = one(&mut client, VERSIONS);
    for call in &calls {
        // In a transaction of its own that may not write.
        let mut transaction = client.build_transaction().read_only(true).start().unwrap();
        transaction.batch_execute(call).unwrap();
        let id: Option<String> =
            transaction.query_one("SELECT pg_current_xact_id_if_assigned()::text", &[]).unwrap().get(0);
        assert_eq!(id, None, "{call}");
        transaction.commit().unwrap();
    }
    assert_eq!(wal_of(&mut client, &calls), 0);
    assert_eq!(one::<String>(&mut client, VERSIONS), before);
    // The measure can fail: a write is seen.
    let write = "SELECT keywright.heartbeat_gateway_key(gateway_key_id) FROM keywright.list_gateway_keys()";
    assert!(wal_of(&mut client, &[write.to_owned()]) > 0);
    client.batch_execute("SELECT keywright.revoke_access('keywright_test_writes', 'admin'); DROP ROLE keywright_test_writes").unwrap();
}

/// A SELECT that meets dead rows tidies up their page, and writes. (With checksums Postgres also logs the page of which anybody first
/// learns that a row's transaction has committed.)
#[test]
fn dead_rows_are_left_to_vacuum() {
    let database = Database::new("dead_rows");
    let (mut client, mut writer) = (database.connect(), database.connect());
    client.batch_execute("SELECT keywright.ensure_user('ada', '', 'service')").unwrap();
    let tokens: Vec<String> = client
        .query(
            "SELECT token FROM keywright.mint_api_keys(array_fill('ada'::text, '{400}'),
               ARRAY(SELECT 'k' || n FROM generate_series(1, 400) AS n))",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    client.batch_execute("ALTER TABLE keywright.api_keys SET (autovacuum_enabled = off)").unwrap();
    client.batch_execute("VACUUM keywright.api_keys").unwrap();
    let statement = client.prepare("SELECT (keywright.verify_api_key($1)).active").unwrap();
    client.batch_execute("CREATE EXTENSION pg_walinspect").unwrap();
    for _ in 0..5 {
        writer.batch_execute("UPDATE keywright.api_keys SET revoke_reason = NULL").unwrap();
        writer.batch_execute("CHECKPOINT").unwrap();
        let before: String = one(&mut client, "SELECT pg_current_wal_insert_lsn()::text");
        for token in &tokens {
            assert!(client.query_one(&statement, &[token]).unwrap().get::<_, bool>(0));
        }
        writer.batch_execute("SELECT pg_logical_emit_message(true, 'the', 'end')").unwrap();
        let tidied = format!(
            "SELECT count(*) FROM pg_get_wal_records_info('{before}', pg_current_wal_flush_lsn())
              WHERE resource_manager LIKE 'Heap%' AND record_type LIKE 'PRUNE%'
                AND block_ref LIKE '%/' || pg_relation_filenode('keywright.api_keys') || ' %'"
        );
        assert_eq!(one::<i64>(&mut client, &tidied), 0, "pages tidied up");
    }
}
