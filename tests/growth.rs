//! A session that began when there was little goes on as fast when there is much: none of its statements reads a whole table.

use keywright_tests::Cluster;
use postgres::Client;
use std::collections::BTreeMap;

/// Each with a number of its own, which stands for #.
const CALLS: &[&str] = &[
    r#"SELECT keywright.apply('{"manager": "m-#", "resources": [{"type": "project", "id": "applied-#"}],
        "users": [{"username": "applied-#", "kind": "service"}],
        "bindings": [{"username": "applied-#", "role": "project-viewer", "resource_type": "project", "resource_id": "applied-#"}],
        "api_keys": [{"username": "applied-#", "name": "ci", "scopes": ["all"], "lifetime": "30 days"}]}')"#,
    "SELECT keywright.ensure_resources('project', '{many-#}')",
    "SELECT keywright.ensure_user('many-#', '')",
    "SELECT keywright.mint_api_keys('{many-#}', '{minted}')",
    "SELECT keywright.ensure_user('user-#', '')",
    "SELECT keywright.ensure_user('user-#', '#@example.org')",
    "SELECT keywright.suspend_user('user-#'), keywright.activate_user('user-#')",
    "SELECT keywright.mint_api_key('user-#', 'minted')",
    "SELECT keywright.mint_api_key('ada', 'minted-#')",
    "SELECT keywright.ensure_api_key('user-#', 'ensured')",
    "SELECT keywright.ensure_api_key('user-#', 'kept', existing_token => token) FROM keywright.mint_api_key('user-#', 'kept')",
    "SELECT keywright.rotate_api_key(key_id) FROM keywright.mint_api_key('user-#', 'rotated')",
    "SELECT keywright.expire_api_key(key_id) FROM keywright.mint_api_key('user-#', 'expired')",
    "SELECT keywright.touch_api_key(key_id) FROM keywright.mint_api_key('user-#', 'touched')",
    "SELECT keywright.explain_api_key(token) FROM keywright.mint_api_key('user-#', 'explained')",
    "SELECT keywright.revoke_api_key(key_id) FROM keywright.mint_api_key('user-#', 'revoked')",
    "SELECT keywright.revoke_leaked_api_key(token) FROM keywright.mint_api_key('user-#', 'leaked')",
    "SELECT keywright.import_api_key('user-#', 'imported', 'n' || lpad('#', 9, '0'), sha256('#'), now() + interval '1 day')",
    "SELECT keywright.ensure_resource('project', 'p#')",
    "SELECT keywright.bind_role('user-#', 'project-viewer', 'project', 'p#')",
    "SELECT keywright.has_permission('user-#', 'project:read', 'project', 'p#')",
    "SELECT keywright.authorize_api_key(token, 'project:read', 'project:p#') FROM keywright.mint_api_key('user-#', 'asks')",
    "BEGIN; SELECT keywright.begin_request(token) FROM keywright.mint_api_key('user-#', 'requests'); SELECT keywright.is_permitted('project:read', 'project', 'p#'); COMMIT",
    "SELECT keywright.unbind_role('user-#', 'project-viewer', 'project', 'p#')",
    "SELECT keywright.delete_resource('project', 'p#')",
    "SELECT keywright.revoke_user_api_keys('user-#')",
    "SELECT keywright.ensure_gateway_key('gateway-#')",
    "SELECT keywright.delete_gateway_key('gateway-#')",
    "SELECT keywright.delete_user('user-#')",
];

/// As a worker of logical replication brings them.
const REPLICATED: &[&str] = &[
    "INSERT INTO keywright.users (user_id, username, kind, status, created_at, updated_at)
     SELECT gen_random_uuid(), 'here-#', 'human', 'active', now(), now()",
    "INSERT INTO keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list, lifetime, created_at)
     SELECT 'r' || lpad('#', 9, '0'), (SELECT user_id FROM keywright.users WHERE deleted_at IS NULL AND lower(username) = 'ada'), 'here-#', sha256('#'),
            now() + interval '1 day', '{all}', '{*:*}', '1 day', now()",
];

fn run(client: &mut Client, calls: &[&str], number: usize) {
    for call in calls {
        let call = call.replace('#', &number.to_string());
        client.batch_execute(&call).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
}

/// Rows that were read, by table.
fn read(client: &mut Client, how: &str) -> BTreeMap<String, i64> {
    client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    client
        .query(
            &format!("SELECT relname::text, {how} FROM pg_stat_user_tables WHERE schemaname = 'keywright'"),
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

#[test]
fn a_session_that_began_when_tables_were_small_reads_none_of_them_whole() {
    let cluster = Cluster::new(5620, "-c autovacuum=off");
    let mut first = cluster.connect("postgres");
    first.batch_execute("CREATE EXTENSION keywright; SELECT keywright.ensure_user('ada', '')").unwrap();
    // To Postgres a table of no page is one that nobody has measured yet.
    run(&mut first, CALLS, 1);
    first.batch_execute("VACUUM ANALYZE").unwrap();
    let (mut client, mut worker) = (cluster.connect("postgres"), cluster.connect("postgres"));
    worker.batch_execute("SET session_replication_role = replica").unwrap();
    for number in 100..112 {
        run(&mut client, CALLS, number);
        run(&mut worker, REPLICATED, number);
    }
    client
        .batch_execute(
            "SELECT keywright.ensure_user('more-' || n, ''), keywright.ensure_resource('project', 'more-' || n),
                    keywright.bind_role('more-' || n, 'project-viewer', 'project', 'more-' || n)
               FROM generate_series(1, 2000) AS n;
             SELECT count(*) FROM keywright.mint_api_keys(array_fill('ada'::text, '{2000}'), ARRAY(SELECT 'more-' || n FROM generate_series(1, 2000) AS n));
             SELECT count(*) FROM keywright.mint_api_keys(ARRAY(SELECT 'more-' || n FROM generate_series(1, 2000) AS n), array_fill('all'::text, '{2000}'))",
        )
        .unwrap();
    let mut whole = Vec::new();
    // A worker lives for as long as there is a subscription: it reads nothing in vain by an index either.
    let any = "seq_tup_read + idx_tup_fetch";
    for (client, calls, how) in [(&mut client, CALLS, "seq_tup_read"), (&mut worker, REPLICATED, any)] {
        for call in calls {
            let before = read(client, how);
            run(client, &[call], 200);
            let after = read(client, how);
            for (table, rows) in after {
                if rows - before[&table] >= 1000 {
                    whole.push(format!("{call}: {} rows of {table}", rows - before[&table]));
                }
            }
        }
    }
    assert!(whole.is_empty(), "{}", whole.join("\n"));
}
