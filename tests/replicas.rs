//! A standby, asked everything there is; two servers of which one follows the other; rows that arrive in any order. The SQL is that of
//! docs/replicas.md.

use keywright_tests::{Cluster, Database, becomes_true, ensure, is_active, one, wait_for};
use postgres::Client;
use std::collections::BTreeSet;

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
    ("_note_refusal(text,text)", Reads("_note_refusal('22023', 'a test')")),
    // Only a trigger that this transaction made is noted, and here none can be made.
    ("_note_tracked(regclass,text)", Reads("_note_tracked('public.projects', 'created')")),
    ("_noted_usage(text)", Reads("_noted_usage('<ID>')")),
    (
        "_operator_key_to_revoke(text,text,text,text)",
        Reads("_operator_key_to_revoke('default', 'coder', 'coder-k8s-operator-', NULL)"),
    ),
    ("_page_size(integer)", Reads("_page_size(10)")),
    ("_refuse(text,text,text,text,text,text)", Raises("_refuse('22023', '', '', 'm', 'd', 'h')", "22023")),
    ("_register_resource_type(text,text,text)", Writes("_register_resource_type('new', NULL, NULL)")),
    ("_require_name(text,text)", Reads("_require_name('api_keys_name_check', 'good')")),
    ("_require_only_table(regclass,text)", Writes("_require_only_table('public.projects', 'project')")),
    ("_require_trackable(regclass,text)", Reads("_require_trackable('public.projects', 'id')")),
    (
        "_unbind_role(text,text,text,text,text)",
        Writes("_unbind_role('ada', 'project-editor', 'project', 'p1', NULL)"),
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
        "ensure_operator_access(text,text,text,interval,interval,text,text,text[],text,text[],text[],text)",
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
            "import_api_key('ada', (SELECT name FROM keywright.api_keys WHERE key_id = '<ID>'), '<ID>', sha256('<SECRET>'), (SELECT expires_at FROM keywright.api_keys WHERE key_id = '<ID>'))",
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
fn documented() -> [&'static str; 2] {
    let mut blocks = include_str!("../docs/replicas.md").split("```sql\n").skip(1);
    [(); 2].map(|()| blocks.next().unwrap().split("```").next().unwrap())
}

/// Two servers: the second copies what the first has.
struct Pair {
    nodes: [Cluster; 2],
}

impl Pair {
    /// `prepare` is what the first has before.
    fn new(ports: [u16; 2], prepare: &str) -> Pair {
        let nodes = ports.map(|port| Cluster::new(port, "-c wal_level=logical"));
        let [publish, copy] = documented();
        let pair = Pair { nodes };
        let [mut first, mut second] = pair.connect();
        for node in [&mut first, &mut second] {
            node.batch_execute(&format!("CREATE EXTENSION keywright; {publish}")).unwrap();
        }
        first.batch_execute(prepare).unwrap();
        let placeholder = "host=first.example dbname=shop user=replicator";
        assert!(copy.contains(placeholder));
        second.batch_execute(&copy.replace(placeholder, &pair.nodes[0].conninfo("postgres"))).unwrap();
        wait_for(&mut second, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel");
        pair
    }

    fn connect(&self) -> [Client; 2] {
        [self.nodes[0].connect("postgres"), self.nodes[1].connect("postgres")]
    }

    /// Waits until what the first has written is applied.
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

/// On 15 as on 18. Every table is either replicated or said not to be.
#[test]
fn one_way_what_is_done_on_one_counts_on_the_other() {
    let before = "SELECT keywright.ensure_user('ada', 'a@example.org'), keywright.ensure_user('bob', '');
        SELECT keywright.ensure_resource('organization', 'acme'), keywright.define_role('reader', '{project:read}');
        SELECT keywright.ensure_system_user('bot'), keywright.mint_api_key('ada', 'before')";
    let pair = Pair::new([5603, 5604], before);
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
    // A key that is given another end later, and one that is given an earlier one.
    let (later, _) = mint(&mut a, "ada", "later");
    for end in ["1 hour", "3 days"] {
        a.batch_execute(&format!(
            "UPDATE keywright.api_keys SET expires_at = clock_timestamp() + interval '{end}' WHERE key_id = '{later}'"
        ))
        .unwrap();
    }
    pair.converged();
    pair.went_well();
    b.batch_execute("DROP SUBSCRIPTION keywright").unwrap();
}

/// Each sequence of what a function or a person did to one row, in any order in which it may arrive, with a row among them
/// that was written without knowing of the rest.
#[test]
fn what_says_no_stays_in_whatever_order_rows_arrive() {
    let database = Database::new("replicas_no");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT keywright.ensure_user('ada', 'a@example.org'); SELECT keywright.mint_api_key('ada', 'k'); SELECT keywright.ensure_gateway_key('edge');
             CREATE TABLE public.users AS SELECT 0 AS n, u AS r FROM keywright.users AS u;
             CREATE TABLE public.api_keys AS SELECT 0 AS n, k AS r FROM keywright.api_keys AS k;
             CREATE TABLE public.gateway_keys AS SELECT 0 AS n, k AS r FROM keywright.gateway_keys AS k;",
        )
        .unwrap();
    let steps = [
        (
            "users",
            vec![
                "UPDATE keywright.users SET status = 'suspended', updated_at = now()",
                "UPDATE keywright.users SET status = 'active'",
                "UPDATE keywright.users SET status = 'suspended'",
                "UPDATE keywright.users SET deleted_at = clock_timestamp()",
            ],
        ),
        (
            "api_keys",
            vec![
                "UPDATE keywright.api_keys SET expires_at = clock_timestamp() + interval '1 hour'",
                "UPDATE keywright.api_keys SET expires_at = clock_timestamp() + interval '3 days'",
                "UPDATE keywright.api_keys SET expires_at = clock_timestamp(), superseded_at = clock_timestamp(), superseded_by = 'AAAAAAAAAA'",
                "UPDATE keywright.api_keys SET revoked_at = clock_timestamp(), revoke_reason = 'why'",
            ],
        ),
        (
            "gateway_keys",
            vec![
                "UPDATE keywright.gateway_keys SET superseded_at = clock_timestamp(), expires_at = clock_timestamp() + interval '1 day'",
                "UPDATE keywright.gateway_keys SET expires_at = clock_timestamp()",
            ],
        ),
    ];
    // `updated_at` and `managed_by` are as the last row has them.
    let no = [
        ("users", "concat_ws(' ', status, status_changed_at, deleted_at)"),
        (
            "api_keys",
            "concat_ws(' ', revoked_at, revoke_reason, superseded_at, superseded_by, expires_at, end_changed_at)",
        ),
        ("gateway_keys", "concat_ws(' ', superseded_at, expires_at)"),
    ];
    for ((table, steps), (_, no)) in steps.into_iter().zip(no) {
        for (n, step) in steps.iter().enumerate() {
            client
                .batch_execute(&format!(
                    "{step}; INSERT INTO public.{table} SELECT {n} + 1, t FROM keywright.{table} AS t"
                ))
                .unwrap();
        }
        // Written elsewhere, on top of what was there at first.
        let apart = steps.len() + 1;
        client
            .batch_execute(&format!(
                "INSERT INTO public.{table} SELECT {apart}, (jsonb_populate_record(r, '{{\"managed_by\": \"apart\"}}')) FROM public.{table} WHERE n = 0"
            ))
            .unwrap();
        let said: String = one(&mut client, &format!("SELECT {no} FROM keywright.{table}"));
        let set: String = one(
            &mut client,
            &format!(
                "SELECT string_agg(format('%1$I = (v.r).%1$I', attname), ', ') FROM pg_attribute WHERE attrelid = 'keywright.{table}'::regclass AND attnum > 0 AND NOT attisdropped"
            ),
        );
        for order in orders(apart) {
            for role in ["replica", "origin"] {
                // An engine that fires ordinary triggers too is told that a revoked key stays so: that is an error, and no way around.
                let mut transaction = client.transaction().unwrap();
                transaction.batch_execute("SET LOCAL session_replication_role = replica").unwrap();
                transaction
                    .batch_execute(&format!(
                        "ALTER TABLE keywright.{table} DISABLE TRIGGER no_stays; UPDATE keywright.{table} SET {set} FROM public.{table} AS v WHERE v.n = 0;
                         ALTER TABLE keywright.{table} ENABLE ALWAYS TRIGGER no_stays; SET LOCAL session_replication_role = {role}"
                    ))
                    .unwrap();
                if role == "origin" {
                    transaction
                        .batch_execute(&format!("ALTER TABLE keywright.{table} DISABLE TRIGGER USER; ALTER TABLE keywright.{table} ENABLE ALWAYS TRIGGER no_stays"))
                        .unwrap();
                }
                for n in &order {
                    transaction
                        .batch_execute(&format!(
                            "UPDATE keywright.{table} SET {set} FROM public.{table} AS v WHERE v.n = {n}"
                        ))
                        .unwrap();
                }
                let became: String = transaction
                    .query_one(&format!("SELECT {no} FROM keywright.{table}"), &[])
                    .unwrap()
                    .get(0);
                assert_eq!(became, said, "{table} {order:?} {role}");
            }
        }
    }
}

/// Every order of the numbers from 1.
fn orders(most: usize) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for n in 1..=most {
        all = all
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..=order.len())
                    .map(|at| {
                        let mut longer = order.clone();
                        longer.insert(at, n);
                        longer
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    all
}
