//! A standby, asked everything there is; two nodes that replicate to each other. The SQL is that of docs/replicas.md.

use keywright_tests::{Cluster, becomes_true, ensure, environment, is_active, one, wait_for};
use postgres::Client;
use std::collections::BTreeSet;
use std::thread;

/// What a function does on a standby.
#[derive(Debug, Clone, Copy)]
enum On {
    /// Answers as on the primary.
    Reads(&'static str),
    /// Fails with 25006.
    Writes(&'static str),
    /// The first call would write and fails; the second has nothing to do and answers as on the primary.
    Both(&'static str, &'static str),
    /// Raises this, wherever it is called.
    Raises(&'static str, &'static str),
}
use On::{Both, Raises, Reads, Writes};

/// <TOKEN> and <ID> are of a live key, <SPENT> and <DEAD> of a revoked one, <GATEWAY> and <GATEWAY_ID> of a gateway key.
const FUNCTIONS: &[(&str, On)] = &[
    ("_admit(text[])", Raises("_admit('{}')", "55000")),
    ("_define_role(text,text[],integer,text)", Writes("_define_role('new', '{project:read}', 3, NULL)")),
    ("_define_scope(text,text[],text)", Writes("_define_scope('new', '{project:read}', NULL)")),
    (
        "_ensure_api_key(text,text,text,text[],text[],interval,interval,text)",
        Writes("_ensure_api_key('ada', 'new', NULL, '{all}', '{*:*}', '1 day', '0', NULL)"),
    ),
    ("_ensure_gateway_key(text,text,text)", Writes("_ensure_gateway_key('new', NULL, NULL)")),
    (
        "_ensure_resource(text,text,text,text,text)",
        Writes("_ensure_resource('project', 'new', NULL, NULL, NULL)"),
    ),
    (
        "_ensure_system_user(text,text,text[],text,text,text)",
        Writes("_ensure_system_user('new', '', '{}', '', '', NULL)"),
    ),
    (
        "_ensure_user(text,text,text,text,text,text)",
        Writes("_ensure_user('new', 'human', '', NULL, NULL, NULL)"),
    ),
    ("_estimated_rows(regclass)", Reads("_estimated_rows('keywright.users')")),
    ("_first_misnamed(text[])", Reads("_first_misnamed('{good,Bad}')")),
    ("_gateway_key_exists(text)", Raises("_gateway_key_exists('edge')", "23505")),
    (
        "_grant_authenticator(text,text,text,text[],text[],boolean,text)",
        Writes("_grant_authenticator('new', 'app', 'anon', '{}', '{public}', true, NULL)"),
    ),
    (
        "_import_api_key(text,text,text,bytea,timestamp with time zone,timestamp with time zone,text[],text[])",
        Writes(
            "_import_api_key('ada', 'new', 'NewKey0001', sha256('x'), now() + interval '1 day', NULL, '{all}', '{*:*}')",
        ),
    ),
    ("_manifest_schema_text()", Reads("_manifest_schema_text()")),
    (
        "_mint_api_key(text,text,text[],text[],interval,text)",
        Writes("_mint_api_key('ada', 'new', '{all}', '{*:*}', '1 day', NULL)"),
    ),
    (
        "_mint_api_keys(text[],text[],text[],text[],interval,text)",
        Writes("_mint_api_keys('{ada}', '{new}', '{all}', '{*:*}', '1 day', NULL)"),
    ),
    ("_forget_request()", Reads("_forget_request()")),
    ("_mint_gateway_key(text,text)", Writes("_mint_gateway_key('new', NULL)")),
    ("_name_fault(text,text)", Reads("_name_fault('api_keys_name_check', 'Bad')")),
    ("_note_conflict(text,text,text,text,uuid)", Writes("_note_conflict('deleted', 'user', 'a', 'b', NULL)")),
    ("_note_refusal(text,text)", Reads("_note_refusal('22023', 'a test')")),
    // Only a trigger that this transaction made is noted, and here none can be made.
    ("_note_tracked(regclass,text)", Reads("_note_tracked('public.projects', 'created')")),
    ("_noted_usage(text)", Reads("_noted_usage('<ID>')")),
    ("_page_size(integer)", Reads("_page_size(10)")),
    ("_refuse(text,text,text,text,text,text)", Raises("_refuse('22023', '', '', 'm', 'd', 'h')", "22023")),
    ("_register_resource_type(text,text,text)", Writes("_register_resource_type('new', NULL, NULL)")),
    ("_require_name(text,text)", Reads("_require_name('api_keys_name_check', 'good')")),
    ("_require_trackable(regclass,text)", Reads("_require_trackable('public.projects', 'id')")),
    (
        "_unbind_role(text,text,text,text,text)",
        Writes("_unbind_role('ada', 'project-editor', 'project', 'p1')"),
    ),
    ("_usage_metrics()", Reads("_usage_metrics()")),
    ("_user_id(text)", Reads("_user_id('ada')")),
    ("_writing()", Reads("_writing()")),
    ("activate_user(text,text)", Both("activate_user('sleeper')", "activate_user('ada')")),
    (
        "allow_authenticator(text,text[])",
        Both("allow_authenticator('app', '{postgres_like}')", "allow_authenticator('app', '{anon}')"),
    ),
    (
        "apply(jsonb)",
        Both(
            "apply('{\"manager\": \"m\", \"users\": [{\"username\": \"new\", \"kind\": \"human\"}]}')",
            "apply('{\"manager\": \"m\"}')",
        ),
    ),
    ("authenticate_api_key(text)", Reads("authenticate_api_key('<TOKEN>')")),
    ("authenticator_status()", Reads("authenticator_status()")),
    (
        "authorize_api_key(text,text,text)",
        Reads("authorize_api_key('<TOKEN>', 'project:read', 'project:p1')"),
    ),
    ("begin_request(text)", Reads("begin_request('<TOKEN>')")),
    (
        "bind_role(text,text,text,text,text,text)",
        Both("bind_role('ada', 'auditor')", "bind_role('ada', 'project-editor', 'project', 'p1')"),
    ),
    ("check_request()", Reads("check_request()")),
    ("current_api_key_id()", Reads("current_api_key_id()")),
    ("current_scopes()", Reads("current_scopes()")),
    ("current_user_id()", Reads("current_user_id()")),
    (
        "define_role(text,text[],integer,text)",
        Both("define_role('reader', '{project:*}')", "define_role('reader', '{project:read}')"),
    ),
    (
        "define_scope(text,text[],text)",
        Both("define_scope('deploy', '{project:*}')", "define_scope('deploy', '{project:read}')"),
    ),
    ("delete_gateway_key(text,text)", Both("delete_gateway_key('edge')", "delete_gateway_key('absent')")),
    (
        "delete_resource(text,text,boolean,text)",
        Both("delete_resource('project', 'p2')", "delete_resource('project', 'absent')"),
    ),
    (
        "delete_resource_type(text,text)",
        Both("delete_resource_type('page')", "delete_resource_type('absent')"),
    ),
    ("delete_role(text,text)", Both("delete_role('reader')", "delete_role('absent')")),
    ("delete_scope(text,text)", Both("delete_scope('deploy')", "delete_scope('absent')")),
    ("delete_user(text,text)", Both("delete_user('ada')", "delete_user('absent')")),
    ("disallow_authenticator(text)", Both("disallow_authenticator('app')", "disallow_authenticator('anon')")),
    (
        "ensure_api_key(text,text,text,text[],text[],interval,interval,text)",
        Both("ensure_api_key('ada', 'ci')", "ensure_api_key('ada', 'ci', '<TOKEN>')"),
    ),
    (
        "ensure_gateway_key(text,text,text)",
        Both("ensure_gateway_key('edge')", "ensure_gateway_key('edge', '<GATEWAY>')"),
    ),
    (
        "ensure_operator_access(text,text,text,interval,interval,text)",
        Both(
            "ensure_operator_access('default', 'coder')",
            "ensure_operator_access('default', 'coder', '<OPERATOR>')",
        ),
    ),
    (
        "ensure_resource(text,text,text,text,text)",
        Both("ensure_resource('project', 'new')", "ensure_resource('project', 'p1', 'acme')"),
    ),
    (
        "ensure_resources(text,text[],text[],text[])",
        Both("ensure_resources('project', '{p1,new}')", "ensure_resources('project', '{p1}')"),
    ),
    (
        "ensure_system_user(text,text,text[],text,text,text)",
        Both("ensure_system_user('new')", "ensure_system_user('bot')"),
    ),
    (
        "ensure_user(text,text,text,text,text,text)",
        Both("ensure_user('ada', 'new@example.org')", "ensure_user('ada', 'a@example.org')"),
    ),
    ("expire_api_key(text)", Both("expire_api_key('<ID>')", "expire_api_key('<DEAD>')")),
    ("explain_api_key(text)", Reads("explain_api_key('<SPENT>')")),
    ("grant_access(text,text)", Both("grant_access('app', 'issuer')", "grant_access('app', 'verifier')")),
    (
        "grant_authenticator(text,text,text,text[],text[],boolean,text)",
        Both("grant_authenticator('new', 'app', 'anon')", "grant_authenticator('rest', 'app', 'anon')"),
    ),
    (
        "has_permission(text,text,text,text)",
        Reads("has_permission('ada', 'project:update', 'project', 'p1')"),
    ),
    (
        "heartbeat_gateway_key(uuid)",
        Both(
            "heartbeat_gateway_key('<GATEWAY_ID>')",
            "heartbeat_gateway_key('00000000-0000-0000-0000-000000000000')",
        ),
    ),
    ("help(text)", Reads("help()")),
    (
        "import_api_key(text,text,text,bytea,timestamp with time zone,timestamp with time zone,text[],text[])",
        Both(
            "import_api_key('ada', 'new', 'NewKey0001', sha256('x'), now() + interval '1 day')",
            "import_api_key('ada', 'any', '<ID>', sha256('<SECRET>'), now() + interval '1 day')",
        ),
    ),
    ("is_permitted(text,text,text)", Reads("is_permitted('project:update', 'project', 'p1')")),
    ("key_usage(text,text,integer)", Reads("key_usage()")),
    ("list_access()", Reads("list_access()")),
    ("access_status()", Reads("access_status()")),
    ("list_allowed_authenticators()", Reads("list_allowed_authenticators()")),
    ("list_api_keys(text,boolean,text,integer)", Reads("list_api_keys(include_inactive => true)")),
    (
        "list_audit_events(text,text,uuid,text,timestamp with time zone,timestamp with time zone,uuid,integer)",
        Reads("list_audit_events()"),
    ),
    ("list_authenticators()", Reads("list_authenticators()")),
    ("list_gateway_keys()", Reads("list_gateway_keys()")),
    ("list_resource_types()", Reads("list_resource_types()")),
    ("list_resources(text,text,text,integer)", Reads("list_resources('project')")),
    ("list_role_bindings(text,text,text,text,uuid,integer)", Reads("list_role_bindings()")),
    ("list_roles()", Reads("list_roles()")),
    ("list_scopes()", Reads("list_scopes()")),
    ("list_users(boolean,text,integer)", Reads("list_users(true)")),
    ("maintain(interval,integer)", Writes("CALL")),
    ("manifest_schema()", Reads("manifest_schema()")),
    ("metrics()", Reads("metrics()")),
    ("mint_api_key(text,text,text[],text[],interval,text)", Writes("mint_api_key('ada', 'new')")),
    (
        "mint_api_keys(text[],text[],text[],text[],interval,text)",
        Both("mint_api_keys('{ada}', '{new}')", "mint_api_keys('{}', '{}')"),
    ),
    ("mint_gateway_key(text,text)", Writes("mint_gateway_key('new')")),
    ("needs_first_user()", Reads("needs_first_user()")),
    ("operator_key_name(text,text,text)", Reads("operator_key_name('default', 'coder')")),
    (
        "plan(jsonb)",
        Reads("plan('{\"manager\": \"m\", \"users\": [{\"username\": \"new\", \"kind\": \"human\"}]}')"),
    ),
    ("postgrest_config()", Reads("postgrest_config()")),
    ("preflight_authenticator(text,text,text[],text[])", Reads("preflight_authenticator('app', 'nobody')")),
    ("prune_audit_events(integer)", Writes("prune_audit_events()")),
    ("purge_api_key_usage(integer)", Writes("purge_api_key_usage()")),
    ("purge_api_keys(interval,integer)", Writes("purge_api_keys()")),
    ("purge_gateway_keys()", Writes("purge_gateway_keys()")),
    ("reconcile_authenticators()", Reads("reconcile_authenticators()")),
    (
        "register_resource_type(text,text,text)",
        Both("register_resource_type('new')", "register_resource_type('page')"),
    ),
    (
        "render_postgrest_config(text,text[],text,text,text,jsonb)",
        Reads("render_postgrest_config('rest', '{h}')"),
    ),
    ("revoke_access(text,text)", Both("revoke_access('app', 'verifier')", "revoke_access('app', 'issuer')")),
    ("revoke_api_key(text,text,text,text)", Both("revoke_api_key('<ID>')", "revoke_api_key('<DEAD>')")),
    (
        "revoke_authenticator(text,text)",
        Both("revoke_authenticator('rest')", "revoke_authenticator('absent')"),
    ),
    (
        "revoke_leaked_api_key(text)",
        Both("revoke_leaked_api_key('<TOKEN>')", "revoke_leaked_api_key('<SPENT>')"),
    ),
    (
        "revoke_operator_access(text,text,text,text)",
        Both("revoke_operator_access('default', 'coder')", "revoke_operator_access('default', 'absent')"),
    ),
    ("revoke_user_api_keys(text,text,text)", Writes("revoke_user_api_keys('sleeper')")),
    ("rotate_api_key(text,interval,text)", Writes("rotate_api_key('<ID>')")),
    ("rotate_gateway_key(text,interval)", Writes("rotate_gateway_key('edge')")),
    (
        "set_postgrest_setting(text,text,text)",
        Both(
            "set_postgrest_setting('rest', 'db_pool', '6')",
            "set_postgrest_setting('rest', 'db_pool', '5')",
        ),
    ),
    (
        "set_postgrest_settings(text,jsonb)",
        Both(
            "set_postgrest_settings('rest', '{\"db_pool\": 6}')",
            "set_postgrest_settings('rest', '{\"db_pool\": 5}')",
        ),
    ),
    ("suspend_user(text,text)", Both("suspend_user('ada')", "suspend_user('sleeper')")),
    ("touch_api_key(text)", Writes("touch_api_key('<ID>')")),
    ("track_table(regclass,text,text,text,text)", Writes("track_table('public.projects', 'page')")),
    (
        "unbind_role(text,text,text,text,text)",
        Both("unbind_role('ada', 'project-editor', 'project', 'p1')", "unbind_role('ada', 'auditor')"),
    ),
    ("verify_api_key(text)", Reads("verify_api_key('<TOKEN>')")),
    ("verify_api_key_digest(text,bytea)", Reads("verify_api_key_digest('<ID>', sha256('<SECRET>'))")),
    ("verify_api_keys(text[])", Reads("verify_api_keys('{<TOKEN>,<SPENT>,junk}')")),
    ("verify_gateway_key(text)", Reads("verify_gateway_key('<GATEWAY>')")),
    ("version()", Reads("version()")),
];

#[test]
fn a_standby_answers_every_function_or_refuses_to_write() {
    let primary = Cluster::new(5601, "-c wal_level=replica");
    let mut client = primary.connect("postgres");
    let names = everything(&mut client);
    let standby = Cluster::standby(5602, Some(&primary));
    let mut reader = standby.connect("postgres");
    replayed(&mut client, &mut reader);

    // No function is forgotten.
    let there: BTreeSet<String> = texts(
        &mut client,
        "SELECT replace(oid::regprocedure::text, 'keywright.', '') FROM pg_proc
          WHERE pronamespace = 'keywright'::regnamespace AND prorettype <> 'trigger'::regtype",
    )
    .into_iter()
    .collect();
    let listed: BTreeSet<String> = FUNCTIONS.iter().map(|(signature, _)| (*signature).to_owned()).collect();
    assert_eq!(there, listed);

    let fill =
        |call: &str| names.iter().fold(call.to_owned(), |call, (name, value)| call.replace(name, value));
    let before =
        texts(&mut reader, "SELECT r::text FROM keywright.list_audit_events(page_size => 10000) AS r");
    for (signature, on) in FUNCTIONS {
        let name = signature.split('(').next().unwrap();
        let calls = match *on {
            Reads(reads) => [Some((reads, None)), None],
            Writes(writes) => [Some((writes, Some("25006"))), None],
            Raises(raises, code) => [Some((raises, Some(code))), None],
            Both(writes, reads) => [Some((writes, Some("25006"))), Some((reads, None))],
        };
        for (call, expected) in calls.into_iter().flatten() {
            if call == "CALL" {
                let error = reader.batch_execute("CALL keywright.maintain()").unwrap_err();
                assert_eq!(error.as_db_error().unwrap().code().code(), "25006");
                continue;
            }
            assert!(call.starts_with(&format!("{name}(")), "{call} is not a call of {signature}");
            let call = fill(call);
            match (answer(&mut reader, &names, &call), expected) {
                (Ok(answered), None) => {
                    assert_eq!(Ok(answered), answer(&mut client, &names, &call), "{call}");
                }
                (Err(code), Some(expected)) => assert_eq!(code, expected, "{call}"),
                (got, expected) => panic!("{call}: {got:?} where {expected:?} was expected"),
            }
        }
    }
    let after =
        texts(&mut reader, "SELECT r::text FROM keywright.list_audit_events(page_size => 10000) AS r");
    assert_eq!(before, after);

    // Some of the answers are looked at, so that two wrong ones are not taken for a right one.
    let token = &names.iter().find(|(name, _)| *name == "<TOKEN>").unwrap().1;
    let id = &names.iter().find(|(name, _)| *name == "<ID>").unwrap().1;
    assert!(is_active(&mut reader, token));
    let spent = fill("SELECT (keywright.verify_api_key('<SPENT>')).active");
    assert!(!one::<bool>(&mut reader, &spent));

    // A revocation counts once it is replayed, in a transaction that is open since before too.
    let mut open = standby.connect("postgres");
    let mut transaction =
        open.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    let verify = "SELECT active FROM keywright.verify_api_key($1)";
    assert!(transaction.query_one(verify, &[token]).unwrap().get::<_, bool>(0));
    client.batch_execute(&format!("SELECT keywright.revoke_api_key('{id}')")).unwrap();
    replayed(&mut client, &mut reader);
    assert!(!transaction.query_one(verify, &[token]).unwrap().get::<_, bool>(0));
    assert!(!is_active(&mut reader, token));
    // Its own snapshot is still the old one.
    let revoked = format!("SELECT revoked_at IS NOT NULL FROM keywright.api_keys WHERE key_id = '{id}'");
    assert!(!transaction.query_one(&revoked, &[]).unwrap().get::<_, bool>(0));
    transaction.commit().unwrap();

    // Promoted, it mints and revokes. (That it writes usage is in tests/usage.rs.)
    reader.batch_execute("SELECT pg_promote()").unwrap();
    wait_for(&mut reader, "SELECT NOT pg_is_in_recovery()");
    let minted =
        reader.query_one("SELECT key_id, token FROM keywright.mint_api_key('ada', 'promoted')", &[]).unwrap();
    let (id, token): (String, String) = (minted.get(0), minted.get(1));
    assert!(is_active(&mut reader, &token));
    assert!(one::<bool>(&mut reader, &format!("SELECT keywright.touch_api_key('{id}')")));
    let used = format!("SELECT last_used_at IS NOT NULL FROM keywright.key_usage() WHERE key_id = '{id}'");
    assert!(one::<bool>(&mut reader, &used));
    assert!(one::<bool>(&mut reader, &format!("SELECT keywright.revoke_api_key('{id}')")));
    assert!(!is_active(&mut reader, &token));
}

/// One of each, and what the calls say of them.
fn everything(client: &mut Client) -> Vec<(&'static str, String)> {
    client
        .batch_execute(
            "CREATE EXTENSION keywright; CREATE ROLE app LOGIN; CREATE ROLE anon; CREATE ROLE postgres_like;
             CREATE TABLE public.projects (id text PRIMARY KEY);
             SELECT keywright.ensure_user('ada', 'a@example.org'), keywright.ensure_user('sleeper', ''), keywright.suspend_user('sleeper');
             SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('project', 'p1', 'acme');
             SELECT keywright.ensure_resource('project', 'p2', 'acme'), keywright.register_resource_type('page');
             SELECT keywright.ensure_system_user('bot'), keywright.define_role('reader', '{project:read}');
             SELECT keywright.define_scope('deploy', '{project:read}'), keywright.bind_role('ada', 'project-editor', 'project', 'p1');
             SELECT keywright.grant_access('app', 'verifier'), keywright.allow_authenticator('app', '{anon}');
             SELECT keywright.grant_authenticator('rest', 'app', 'anon');
             SELECT keywright.set_postgrest_setting('rest', 'db_pool', '5')",
        )
        .unwrap();
    let text = |client: &mut Client, sql: &str| one::<String>(client, sql);
    let operator = text(client, "SELECT token FROM keywright.ensure_operator_access('default', 'coder')");
    let token = ensure(client, "keywright.ensure_api_key('ada', 'ci')").token.unwrap();
    let spent = ensure(client, "keywright.ensure_api_key('ada', 'spent')").token.unwrap();
    let gateway = ensure(client, "keywright.ensure_gateway_key('edge')").token.unwrap();
    let dead = spent[4..14].to_owned();
    client.batch_execute(&format!("SELECT keywright.revoke_api_key('{dead}')")).unwrap();
    let gateway_id = text(client, "SELECT gateway_key_id::text FROM keywright.list_gateway_keys()");
    vec![
        ("<GATEWAY_ID>", gateway_id),
        ("<GATEWAY>", gateway),
        ("<OPERATOR>", operator),
        ("<SECRET>", token[15..37].to_owned()),
        ("<ID>", token[4..14].to_owned()),
        ("<TOKEN>", token),
        ("<SPENT>", spent),
        ("<DEAD>", dead),
    ]
}

/// What a call answers, in a transaction that acts for a key; or the error.
fn answer(client: &mut Client, names: &[(&str, String)], call: &str) -> Result<Vec<String>, String> {
    let token = &names.iter().find(|(name, _)| *name == "<TOKEN>").unwrap().1;
    let mut transaction = client.transaction().unwrap();
    let headers = format!(
        "SELECT set_config('request.headers', '{{\"x-api-key\": \"{token}\"}}', true), keywright.begin_request('{token}')"
    );
    transaction.batch_execute(&headers).unwrap();
    match transaction.query(&format!("SELECT r::text FROM keywright.{call} AS r"), &[]) {
        Ok(rows) => Ok(rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()),
        Err(error) => {
            Err(error.as_db_error().unwrap_or_else(|| panic!("{call}: {error:?}")).code().code().into())
        }
    }
}

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Waits until a standby has replayed all that is written.
fn replayed(primary: &mut Client, standby: &mut Client) {
    // What a commit without a flush has written is not sent before it is flushed.
    let written: String = one(primary, "SELECT pg_current_wal_insert_lsn()::text");
    primary.batch_execute("SELECT pg_logical_emit_message(true, 'the', 'end')").unwrap();
    wait_for(standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'"));
}

/// The statements of docs/replicas.md, in their order.
fn documented() -> [&'static str; 3] {
    let mut blocks = include_str!("../docs/replicas.md").split("```sql\n").skip(1);
    [(); 3].map(|()| blocks.next().unwrap().split("```").next().unwrap())
}

/// Two nodes: the second copies what the first has; the first gets what the second does where the version can.
struct Pair {
    nodes: [Cluster; 2],
}

const BOTH_WAYS: &str = "origin = none, ";

impl Pair {
    /// `prepare` is what the first has before.
    fn new(ports: [u16; 2], prepare: &str, both_ways: bool) -> Pair {
        let nodes = ports.map(|port| Cluster::new(port, "-c wal_level=logical"));
        let [publish, copy, follow] = documented();
        let pair = Pair { nodes };
        let [mut first, mut second] = pair.connect();
        for node in [&mut first, &mut second] {
            node.batch_execute(&format!("CREATE EXTENSION keywright; {publish}")).unwrap();
        }
        first.batch_execute(prepare).unwrap();
        let to = |statement: &str, host: &str, node: &Cluster| {
            let placeholder = format!("host={host}.example dbname=shop user=replicator");
            assert!(statement.contains(&placeholder) && statement.contains(BOTH_WAYS));
            let statement = statement.replace(&placeholder, &node.conninfo("postgres"));
            if both_ways { statement } else { statement.replace(BOTH_WAYS, "") }
        };
        second.batch_execute(&to(copy, "first", &pair.nodes[0])).unwrap();
        wait_for(&mut second, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel");
        if both_ways {
            first.batch_execute(&to(follow, "second", &pair.nodes[1])).unwrap();
            wait_for(&mut first, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel");
        }
        pair
    }

    fn connect(&self) -> [Client; 2] {
        [self.nodes[0].connect("postgres"), self.nodes[1].connect("postgres")]
    }

    /// Runs these on either node before it learns what the other did.
    fn apart(&self, [first, second]: [&str; 2]) {
        let [mut a, mut b] = self.connect();
        self.settle();
        for node in [&mut a, &mut b] {
            node.batch_execute("ALTER SUBSCRIPTION keywright DISABLE").unwrap();
            wait_for(
                node,
                "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%apply worker%' OR backend_type = 'logical replication worker'",
            );
        }
        for (node, sql) in [(&mut a, first), (&mut b, second)] {
            node.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        for node in [&mut a, &mut b] {
            node.batch_execute("ALTER SUBSCRIPTION keywright ENABLE").unwrap();
        }
        self.settle();
    }

    /// Waits until each has applied what the other has written.
    fn settle(&self) {
        for mut node in self.connect() {
            let written: String = one(&mut node, "SELECT pg_current_wal_insert_lsn()::text");
            node.batch_execute("SELECT pg_logical_emit_message(true, 'the', 'end')").unwrap();
            let applied = format!(
                "SELECT coalesce(bool_and(replay_lsn >= '{written}'), NOT EXISTS (SELECT FROM pg_replication_slots)) FROM pg_stat_replication"
            );
            assert!(becomes_true(&mut node, &applied), "never true: {applied}\n{}", self.what_happens());
        }
    }

    /// What the workers of either are at, and the logs.
    fn what_happens(&self) -> String {
        let views = [
            "pg_stat_replication",
            "pg_replication_slots",
            "pg_stat_subscription",
            "pg_stat_subscription_stats",
            "pg_stat_activity",
            "pg_locks",
        ];
        self.nodes.iter().zip(self.connect()).fold(String::new(), |told, (node, mut client)| {
            let rows =
                views.map(|view| texts(&mut client, &format!("SELECT v::text FROM {view} AS v")).join("\n"));
            format!("{told}\n{}\n{}", rows.join("\n\n"), node.log())
        })
    }

    /// Both have the same rows in every table that is published.
    fn converged(&self) {
        self.settle();
        let [mut a, mut b] = self.connect();
        let tables = texts(
            &mut a,
            "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'keywright' ORDER BY 1",
        );
        assert_eq!(tables.len(), 10);
        for table in tables {
            let built_in = match &*table {
                "roles" | "scopes" | "resource_types" => "WHERE NOT built_in",
                _ => "",
            };
            let rows = format!("SELECT t::text FROM keywright.{table} AS t {built_in} ORDER BY 1");
            assert_eq!(texts(&mut a, &rows), texts(&mut b, &rows), "{table}");
        }
    }

    /// No worker failed, and no hash is in a log.
    fn went_well(&self) {
        for (node, mut client) in self.nodes.iter().zip(self.connect()) {
            let log = node.log();
            assert!(!log.contains("ERROR") && !log.contains("conflict detected"), "{log}");
            for hash in
                texts(&mut client, "SELECT encode(hashed_secret, 'hex') FROM keywright.api_keys LIMIT 100")
            {
                assert!(!log.contains(&hash[..16]));
            }
        }
    }
}

fn mint(client: &mut Client, username: &str, name: &str) -> (String, String) {
    let minted = client
        .query_one("SELECT key_id, token FROM keywright.mint_api_key($1, $2)", &[&username, &name])
        .unwrap();
    (minted.get(0), minted.get(1))
}

/// Before 16 Postgres has no origin = none, and says so: nothing can go both ways.
fn is_refused(port: u16) -> bool {
    if environment("PG_VERSION").parse::<u32>().unwrap() >= 16 {
        return false;
    }
    let cluster = Cluster::new(port, "-c wal_level=logical");
    let error = cluster.connect("postgres").batch_execute(documented()[1]).unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "unrecognized subscription parameter: \"origin\"");
    true
}

/// On 15 as on 18. Every table is either replicated or said not to be.
#[test]
fn one_way_what_is_done_on_one_counts_on_the_other() {
    let before = "SELECT keywright.ensure_user('ada', 'a@example.org'), keywright.ensure_user('bob', '');
        SELECT keywright.ensure_resource('organization', 'acme'), keywright.define_role('reader', '{project:read}');
        SELECT keywright.ensure_system_user('bot'), keywright.mint_api_key('ada', 'before')";
    let pair = Pair::new([5603, 5604], before, false);
    let [mut a, mut b] = pair.connect();
    pair.converged();
    let local = texts(
        &mut a,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'keywright'::regnamespace AND relkind = 'r'
            AND relname NOT IN (SELECT tablename FROM pg_publication_tables) ORDER BY 1",
    );
    assert_eq!(
        local,
        ["api_key_usage", "audit_events", "authenticator_allowances", "gateway_key_heartbeats"]
    );
    let page = include_str!("../docs/replicas.md");
    assert!(local.iter().all(|table| page.contains(&format!("`{table}`"))));

    let (id, token) = mint(&mut a, "ada", "ci");
    let (_, of_bob) = mint(&mut a, "bob", "ci");
    let gateway = ensure(&mut a, "keywright.ensure_gateway_key('edge')").token.unwrap();
    pair.settle();
    b.batch_execute("LISTEN keywright").unwrap();
    let events = "SELECT count(*) FROM keywright.list_audit_events()";
    let before: i64 = one(&mut b, events);
    let mut open = pair.nodes[1].connect("postgres");
    let mut transaction =
        open.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    let verify = "SELECT active FROM keywright.verify_api_key($1)";
    for token in [&token, &of_bob] {
        assert!(is_active(&mut b, token));
        assert!(transaction.query_one(verify, &[token]).unwrap().get::<_, bool>(0));
    }
    assert!(is_active(&mut b, &gateway));
    // Dead there too, also for who has verified it before: nothing is remembered.
    a.batch_execute(&format!("SELECT keywright.revoke_api_key('{id}'), keywright.suspend_user('bob')"))
        .unwrap();
    a.batch_execute("SELECT keywright.delete_gateway_key('edge')").unwrap();
    pair.settle();
    for token in [&token, &of_bob] {
        assert!(!is_active(&mut b, token));
        assert!(!transaction.query_one(verify, &[token]).unwrap().get::<_, bool>(0));
    }
    assert!(!is_active(&mut b, &gateway));
    transaction.commit().unwrap();
    a.batch_execute("SELECT keywright.activate_user('bob')").unwrap();
    pair.settle();
    assert!(is_active(&mut b, &of_bob));
    // Permissions, and what they hang on.
    let permits = "SELECT keywright.has_permission('ada', 'project:read', 'project', 'p1')";
    a.batch_execute(
        "SELECT keywright.ensure_resource('project', 'p1', 'acme'), keywright.bind_role('ada', 'reader', 'organization', 'acme')",
    )
    .unwrap();
    pair.settle();
    assert!(one::<bool>(&mut b, permits));
    a.batch_execute("SELECT keywright.unbind_role('ada', 'reader', 'organization', 'acme')").unwrap();
    pair.settle();
    assert!(!one::<bool>(&mut b, permits));
    // Each change is noted where it was made, and not once more where it is applied.
    assert_eq!(one::<i64>(&mut b, events), before);
    assert!(b.notifications().is_empty());
    pair.converged();
    // What this node made for itself does not stop the worker.
    let here = [mint(&mut b, "ada", "clash").1, mint(&mut a, "ada", "clash").1];
    b.batch_execute("SELECT keywright.ensure_user('cyd', '')").unwrap();
    a.batch_execute("SELECT keywright.ensure_user('cyd', ''), keywright.revoke_user_api_keys('bob')")
        .unwrap();
    pair.settle();
    assert!(here.iter().all(|token| is_active(&mut b, token)) && !is_active(&mut b, &of_bob));
    assert_eq!(one::<i64>(&mut b, "SELECT count(*) FROM keywright.list_users() WHERE username = 'cyd'"), 1);
    pair.went_well();
    b.batch_execute("DROP SUBSCRIPTION keywright").unwrap();
}

#[test]
fn both_ways_minted_here_revoked_there_and_no_two_alike() {
    if is_refused(5605) {
        return;
    }
    let pair = Pair::new(
        [5605, 5606],
        "SELECT keywright.ensure_user('ada', ''), keywright.ensure_user('bob', '')",
        true,
    );
    let [mut a, mut b] = pair.connect();
    let (_, of_bob) = mint(&mut b, "bob", "there");
    for way in [[0, 1], [1, 0]] {
        let [mut here, mut there] = way.map(|node| pair.nodes[node].connect("postgres"));
        let (id, token) = mint(&mut here, "ada", &format!("from-{}", way[0]));
        pair.settle();
        assert!(is_active(&mut there, &token));
        there.batch_execute(&format!("SELECT keywright.revoke_api_key('{id}', 'seen there')")).unwrap();
        pair.settle();
        assert!(!is_active(&mut here, &token));
        let why = format!("SELECT revoke_reason FROM keywright.explain_api_key('{token}')");
        assert_eq!(one::<String>(&mut here, &why), "seen there");
    }
    pair.settle();
    a.batch_execute("SELECT keywright.suspend_user('bob')").unwrap();
    pair.settle();
    assert!(!is_active(&mut b, &of_bob));
    b.batch_execute("SELECT keywright.activate_user('bob')").unwrap();
    pair.settle();
    assert!(is_active(&mut a, &of_bob));

    // 10,000 on each, of the same users, at once: one by one in four sessions, and many in two.
    let tokens: Vec<String> = thread::scope(|scope| {
        let mut sessions = Vec::new();
        for node in 0..2 {
            for session in 0..6 {
                let pair = &pair;
                sessions.push(scope.spawn(move || {
                    let mut client = pair.nodes[node].connect("postgres");
                    let name = format!("n{node}-s{session}-");
                    let username = if session % 2 == 0 { "ada" } else { "bob" };
                    if session < 4 {
                        (0..250).map(|n| mint(&mut client, username, &format!("{name}{n}")).1).collect::<Vec<_>>()
                    } else {
                        (0..9)
                            .flat_map(|round| {
                                texts(
                                    &mut client,
                                    &format!(
                                        "SELECT token FROM keywright.mint_api_keys(array_fill('{username}'::text, '{{500}}'),
                                           ARRAY(SELECT '{name}{round}-' || n FROM generate_series(1, 500) AS n))"
                                    ),
                                )
                            })
                            .collect()
                    }
                }));
            }
        }
        sessions.into_iter().flat_map(|session| session.join().unwrap()).collect()
    });
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), 20_000);
    pair.converged();
    for node in [&mut a, &mut b] {
        let active = "SELECT count(*) FROM keywright.verify_api_keys($1) WHERE active";
        assert_eq!(node.query_one(active, &[&tokens]).unwrap().get::<_, i64>(0), 20_000);
    }
    // Revoked on one, all of them.
    b.batch_execute("SELECT keywright.revoke_user_api_keys('ada'), keywright.revoke_user_api_keys('bob')")
        .unwrap();
    pair.converged();
    for node in [&mut a, &mut b] {
        let active = "SELECT count(*) FROM keywright.verify_api_keys($1) WHERE active";
        assert_eq!(node.query_one(active, &[&tokens]).unwrap().get::<_, i64>(0), 0);
    }
    pair.went_well();
}

/// Every row of the table "When both nodes did it".
#[test]
fn both_ways_what_both_did_ends_the_same_on_both() {
    if is_refused(5607) {
        return;
    }
    let before = "SELECT keywright.ensure_user(u, '') FROM unnest('{ada,bob,cyd,dee,eve,fay}'::text[]) AS u;
        SELECT keywright.ensure_resource('organization', 'acme'), keywright.define_role('reader', '{project:read}')";
    let pair = Pair::new([5607, 5608], before, true);
    let [mut a, mut b] = pair.connect();
    let save = |sql: &str| {
        format!(
            "CREATE TABLE IF NOT EXISTS public.saved (what text, key_id text, token text); INSERT INTO public.saved {sql}"
        )
    };
    let saved = |client: &mut Client, what: &str| {
        let row =
            client.query_one("SELECT key_id, token FROM public.saved WHERE what = $1", &[&what]).unwrap();
        (row.get::<_, String>(0), row.get::<_, String>(1))
    };
    let state = |client: &mut Client, id: &str| {
        one::<String>(
            client,
            &format!(
                "SELECT state FROM keywright.list_api_keys(include_inactive => true) WHERE key_id = '{id}'"
            ),
        )
    };

    // The same name, on either node first.
    for (what, first) in [("one", 0), ("two", 1)] {
        let mint =
            save(&format!("SELECT '{what}', key_id, token FROM keywright.mint_api_key('ada', '{what}')"));
        let later = format!("SELECT pg_sleep(0.01); {mint}");
        if first == 0 {
            pair.apart([&mint, &later])
        } else {
            pair.apart([&later, &mint])
        }
        pair.converged();
        // The later one was made on the node whose statement came second, whatever it waited.
        let keys = [saved(&mut a, what), saved(&mut b, what)];
        for node in [&mut a, &mut b] {
            for (_, token) in &keys {
                assert!(is_active(node, token));
            }
            let states: Vec<String> = keys.iter().map(|(id, _)| state(node, id)).collect();
            assert_eq!(states, ["superseded", "active"], "{what}");
            let kept = format!("keywright.ensure_api_key('ada', '{what}', '{}')", keys[0].1);
            assert_eq!(ensure(node, &kept).outcome, "kept");
            let noted = format!(
                "SELECT count(*) FROM keywright.list_audit_events('api_key', '{}') WHERE event = 'superseded'",
                keys[0].0
            );
            assert_eq!(one::<i64>(node, &noted), 1);
        }
        // Each is revoked like any other, from either side, and a rotation of the name ends on both.
        b.batch_execute(&format!("SELECT keywright.revoke_api_key('{}')", keys[0].0)).unwrap();
        a.batch_execute(&format!("SELECT keywright.rotate_api_key('{}')", keys[1].0)).unwrap();
        pair.converged();
        for node in [&mut a, &mut b] {
            assert!(keys.iter().all(|(_, token)| !is_active(node, token)));
        }
    }

    // Gateway keys.
    let make = save("SELECT 'edge', gateway_key_id::text, token FROM keywright.mint_gateway_key('edge')");
    pair.apart([&make, &make]);
    pair.converged();
    let keys = [saved(&mut a, "edge"), saved(&mut b, "edge")];
    for node in [&mut a, &mut b] {
        assert!(keys.iter().all(|(_, token)| is_active(node, token)));
        let left = "SELECT count(*) FILTER (WHERE expires_at IS NULL) = 1 AND max(expires_at) > now() + interval '6 days' FROM keywright.list_gateway_keys()";
        assert!(one::<bool>(node, left));
    }
    b.batch_execute("SELECT keywright.delete_gateway_key('edge')").unwrap();
    pair.converged();
    assert!(keys.iter().all(|(_, token)| !is_active(&mut a, token)));

    // Revoked on one and rotated, expired or revoked on the other; whichever comes last.
    for (n, other) in
        ["rotate_api_key($, '1 hour')", "expire_api_key($)", "revoke_api_key($, 'other')"].iter().enumerate()
    {
        for revoked_on in [0, 1] {
            for revoked_first in [false, true] {
                let name = format!("r{n}-{revoked_on}-{revoked_first}");
                let (id, token) = mint_and_settle(&pair, &name);
                let revoke = format!(
                    "SELECT pg_sleep({}); SELECT keywright.revoke_api_key('{id}', 'one')",
                    if revoked_first { 0.0 } else { 0.01 }
                );
                let other = format!("SELECT keywright.{}", other.replace('$', &format!("'{id}'")));
                if revoked_on == 0 {
                    pair.apart([&revoke, &other])
                } else {
                    pair.apart([&other, &revoke])
                }
                pair.converged();
                for node in [&mut a, &mut b] {
                    assert!(!is_active(node, &token), "{name}");
                    let why = format!(
                        "SELECT revoked_at IS NOT NULL FROM keywright.api_keys WHERE key_id = '{id}'"
                    );
                    assert!(one::<bool>(node, &why), "{name}");
                }
            }
        }
    }

    // Suspended on one; on the other something else is changed, later or earlier.
    let keys = ["bob", "cyd"].map(|user| mint_of(&pair, user, "k"));
    pair.apart([
        "SELECT keywright.suspend_user('bob')",
        "SELECT keywright.ensure_user('bob', 'new@example.org')",
    ]);
    pair.apart([
        "SELECT keywright.ensure_user('cyd', 'new@example.org')",
        "SELECT keywright.suspend_user('cyd')",
    ]);
    pair.converged();
    for node in [&mut a, &mut b] {
        assert!(keys.iter().all(|(_, token)| !is_active(node, token)));
        let rows = "SELECT concat_ws(' ', username, status, email) FROM keywright.list_users() WHERE username IN ('bob', 'cyd') ORDER BY 1";
        assert_eq!(texts(node, rows), ["bob suspended new@example.org", "cyd suspended "]);
    }
    // Of two changes of status the later counts.
    pair.apart([
        "SELECT keywright.activate_user('bob'), keywright.suspend_user('bob')",
        "SELECT keywright.activate_user('bob')",
    ]);
    pair.converged();
    assert!(is_active(&mut a, &keys[0].1));

    // Deleted on one; on the other bound to a role, given a key, changed.
    let key = mint_of(&pair, "dee", "k");
    pair.apart([
        "SELECT keywright.delete_user('dee')",
        &save("SELECT 'late', key_id, token FROM keywright.mint_api_key('dee', 'late');
               SELECT keywright.ensure_user('dee', 'd@example.org'), keywright.bind_role('dee', 'reader', 'organization', 'acme')"),
    ]);
    pair.converged();
    let late = saved(&mut b, "late");
    for node in [&mut a, &mut b] {
        assert!(!is_active(node, &key.1) && !is_active(node, &late.1));
        assert_eq!(
            one::<i64>(node, "SELECT count(*) FROM keywright.list_role_bindings() WHERE username = 'dee'"),
            0
        );
        assert_eq!(one::<i64>(node, "SELECT count(*) FROM keywright.list_users() WHERE username = 'dee'"), 0);
    }

    // A user of one name is made on both, with a key, a role, and a change of it afterwards.
    let make = |what: &str| {
        save(&format!(
            "SELECT '{what}', u.user_id::text, '' FROM keywright.ensure_user('gus', '') AS u;
             INSERT INTO public.saved SELECT '{what}-key', key_id, token FROM keywright.mint_api_key('gus', 'k');
             SELECT keywright.bind_role('gus', 'reader'), keywright.ensure_user('gus', '{what}@example.org')"
        ))
    };
    pair.apart([&make("gus"), &make("gus")]);
    pair.converged();
    let ([first, _], [mut stays, goes]) = (
        [saved(&mut a, "gus").0, saved(&mut b, "gus").0],
        [saved(&mut a, "gus-key").1, saved(&mut b, "gus-key").1],
    );
    for node in [&mut a, &mut b] {
        assert_eq!(
            one::<String>(node, "SELECT user_id::text FROM keywright.list_users() WHERE username = 'gus'"),
            first
        );
        assert!(is_active(node, &stays) && !is_active(node, &goes));
        assert_eq!(
            one::<i64>(node, "SELECT count(*) FROM keywright.list_role_bindings() WHERE username = 'gus'"),
            1
        );
        assert_eq!(
            one::<String>(node, &format!("SELECT cause FROM keywright.explain_api_key('{goes}')")),
            "user-deleted"
        );
    }
    let again = ensure(&mut b, &format!("keywright.ensure_api_key('gus', 'k', '{goes}')"));
    assert_eq!((&*again.outcome, again.reason.as_deref()), ("rotated", Some("wrong-user")));
    pair.converged();
    stays = again.token.unwrap();
    assert!(is_active(&mut a, &stays));

    // What has a name of its own: the row that was written last.
    pair.apart([
        "SELECT keywright.define_role('new', '{project:read}'), keywright.define_scope('new', '{project:read}');
         SELECT keywright.register_resource_type('page'), keywright.ensure_resource('project', 'p1', 'acme', 'here');
         SELECT keywright.define_role('reader', '{project:read,agent:read}')",
        "SELECT pg_sleep(0.01);
         SELECT keywright.define_role('new', '{project:*}'), keywright.define_scope('new', '{project:*}');
         SELECT keywright.register_resource_type('page'), keywright.ensure_resource('project', 'p1', 'acme', 'there');
         SELECT keywright.define_role('reader', '{project:*}')",
    ]);
    pair.converged();
    for node in [&mut a, &mut b] {
        assert_eq!(
            texts(
                node,
                "SELECT permissions::text FROM keywright.list_roles() WHERE name IN ('new', 'reader') UNION ALL SELECT permissions::text FROM keywright.list_scopes() WHERE name = 'new'"
            ),
            ["{project:*}", "{project:*}", "{project:*}"]
        );
        assert_eq!(texts(node, "SELECT name FROM keywright.list_resources('project')"), ["there"]);
    }

    // One binding; unbound on one, it is gone on both.
    let bind =
        "SELECT keywright.bind_role('eve', 'reader', 'project', 'p1'), keywright.bind_role('fay', 'reader')";
    pair.apart([bind, bind]);
    pair.converged();
    assert_eq!(
        one::<i64>(
            &mut a,
            "SELECT count(*) FROM keywright.list_role_bindings() WHERE username IN ('eve', 'fay')"
        ),
        2
    );
    b.batch_execute("SELECT keywright.unbind_role('eve', 'reader', 'project', 'p1'), keywright.unbind_role('fay', 'reader')").unwrap();
    pair.converged();
    for node in [&mut a, &mut b] {
        assert!(!one::<bool>(
            node,
            "SELECT keywright.has_permission('eve', 'project:read', 'project', 'p1') OR keywright.has_permission('fay', 'project:read')"
        ));
    }

    // A name that is being minted while the other's arrives: it waits, and finds two.
    let mut holder = pair.nodes[0].connect("postgres");
    let mut transaction = holder.transaction().unwrap();
    transaction.batch_execute("SELECT keywright.mint_api_key('fay', 'at-once')").unwrap();
    mint(&mut b, "fay", "at-once");
    wait_for(
        &mut a,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type LIKE 'logical replication%'",
    );
    transaction.commit().unwrap();
    pair.converged();
    assert_eq!(
        one::<i64>(
            &mut a,
            "SELECT count(*) FROM keywright.list_api_keys('fay') WHERE state IN ('active', 'superseded')"
        ),
        2
    );
    pair.went_well();
}

fn mint_of(pair: &Pair, username: &str, name: &str) -> (String, String) {
    let minted = mint(&mut pair.nodes[0].connect("postgres"), username, name);
    pair.settle();
    minted
}

fn mint_and_settle(pair: &Pair, name: &str) -> (String, String) {
    mint_of(pair, "ada", name)
}
