//! A backend that runs out of memory loses its statement with 53200, and nothing else: not its session, and not the server.
//!
//! Each call is tried in a fresh session with ever more memory, until it succeeds. `KEYWRIGHT_MEMORY_STEPS` says how many levels there
//! are to each doubling: 2, or as many as there is time for.

use keywright_tests::{Cluster, as_server, one, succeed};
use postgres::Client;
use postgres::error::SqlState;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// In kilobytes, beyond what a session has when it begins.
const LEAST: f64 = 16.0;
const MOST: f64 = 2_000_000.0;

/// Where levels are few, a call that went well once will go well with more.
const SUCCESSES: usize = 3;

const PRELOADED: &str =
    "-c shared_preload_libraries=keywright -c keywright.usage_flush_interval=1h -c log_statement=all";

/// The clusters have their memory to themselves.
static ALONE: Mutex<()> = Mutex::new(());

struct Server {
    cluster: Cluster,
    /// Ends when any process of the server crashes.
    witness: Client,
    token: String,
    is_preloaded: bool,
}

impl Server {
    fn new(port: u16, settings: &str) -> Server {
        let cluster = Cluster::new(port, settings);
        let mut witness = cluster.connect("postgres");
        witness
            .batch_execute(
                "CREATE EXTENSION keywright;
                 SELECT keywright.ensure_user('ada', '');
                 SELECT keywright.register_resource_type(t) FROM unnest('{thing,row}'::text[]) AS t;
                 SELECT keywright.bind_role('ada', 'owner');
                 CREATE TABLE things (id text PRIMARY KEY);
                 SELECT keywright.track_table('things', 'row');
                 CREATE TABLE manifests AS
                   SELECT jsonb_build_object('manager', 'm', 'resources',
                            jsonb_agg(jsonb_build_object('type', 'thing', 'id', 'r' || i))) AS resources,
                          jsonb_build_object('manager', 'm', 'users', '[{\"username\": \"bob\", \"kind\": \"human\"}]'::jsonb, 'api_keys',
                            jsonb_agg(jsonb_build_object('username', 'bob', 'name', 'k' || i))) AS keys,
                          jsonb_build_object('manager', 'm', 'resources',
                            jsonb_agg(jsonb_build_object('type', 'row', 'id', 'r' || i))) AS wrong
                     FROM generate_series(1, 5000) AS i;",
            )
            .unwrap();
        let token = one(&mut witness, "SELECT token FROM keywright.mint_api_key('ada', 'verified')");
        Server { cluster, witness, token, is_preloaded: !settings.is_empty() }
    }

    /// Runs it with more and more memory. `reset` makes room for the next.
    fn try_levels(&mut self, call: &str) {
        let call = call.replace("TOKEN", &self.token);
        let steps: f64 = std::env::var("KEYWRIGHT_MEMORY_STEPS").map_or(2.0, |steps| steps.parse().unwrap());
        let (mut level, mut successes, mut refused) = (LEAST, 0, 0);
        while successes < SUCCESSES {
            assert!(level < MOST, "never succeeds: {call}");
            match self.try_level(&call, level as u64) {
                true => successes += 1,
                false => refused += 1,
            }
            level *= 2f64.powf(1.0 / steps);
        }
        eprintln!("{refused:4} times out of memory, then enough with {level:.0} kB: {}", shown(&call));
    }

    fn try_level(&mut self, call: &str, level: u64) -> bool {
        let mut client = self.cluster.connect("postgres");
        let process: i32 = one(&mut client, "SELECT pg_backend_pid()");
        client.batch_execute("BEGIN").unwrap();
        limit(process, Some(level));
        let result = client.batch_execute(call);
        limit(process, None);
        let code = result.as_ref().err().map(|error| error.code().cloned());
        let what = || format!("{} with {level} kB: {code:?}\n{}", shown(call), tail(&self.cluster.log()));
        // What the server says of a library that there is no room for.
        let unloaded = |error: &postgres::Error| {
            error.as_db_error().is_some_and(|error| error.message().starts_with("could not load library"))
        };
        let refused = result.as_ref().err().is_some_and(|error| {
            error.code() == Some(&SqlState::OUT_OF_MEMORY) || (!self.is_preloaded && unloaded(error))
        });
        assert!(result.is_ok() || refused, "{}", what());
        // The session goes on.
        client.batch_execute("ROLLBACK").unwrap_or_else(|error| panic!("{error}: {}", what()));
        let verify = "SELECT active FROM keywright.verify_api_key($1)";
        assert!(client.query_one(verify, &[&self.token]).unwrap().get::<_, bool>(0), "{}", what());
        assert_eq!(one::<String>(&mut client, "SHOW enable_seqscan"), "on", "{}", what());
        // So do the others.
        self.witness.batch_execute("SELECT 1").unwrap_or_else(|error| panic!("{error}: {}", what()));
        code.is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !thread::panicking() {
            let log = self.cluster.log();
            for never in
                ["terminated by signal", "exited with exit code 127", "PANIC", "ERRORDATA_STACK_SIZE"]
            {
                assert!(!log.contains(never), "{never}: {}", tail(&log));
            }
            assert!(!self.is_preloaded || !log.contains(&self.token[15..]), "a token in the log");
        }
    }
}

fn shown(call: &str) -> String {
    call.chars().take(200).collect()
}

fn tail(log: &str) -> String {
    let lines: Vec<String> = log.lines().map(|line| line.chars().take(300).collect()).collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Lets a process have so many kilobytes more than it has, or as many as it likes.
fn limit(process: i32, more: Option<u64>) {
    let size = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    };
    let limit = more.map_or("unlimited".into(), |more| ((size() + more) * 1024).to_string());
    // Who runs the server may do so, also where root may not.
    succeed(as_server("/usr/bin/prlimit").args(["--pid", &process.to_string(), &format!("--as={limit}:")]));
}

/// Each allocates with its input.
const CALLS: [&str; 13] = [
    "SELECT keywright.verify_api_key('TOKEN')",
    "SELECT count(*) FROM keywright.verify_api_keys(array_fill('TOKEN'::text, '{20000}'))",
    "SELECT keywright.begin_request('TOKEN'); SELECT keywright.is_permitted('thing:read', 'thing', 'x')",
    "SELECT count(token) FROM keywright.mint_api_keys(array_fill('ada'::text, '{5000}'),
       ARRAY(SELECT 'many' || i FROM generate_series(1, 5000) AS i))",
    "SELECT count(*) FROM keywright.plan((SELECT resources FROM public.manifests))",
    "SELECT count(*) FROM keywright.apply((SELECT resources FROM public.manifests))",
    "SELECT count(token) FROM keywright.apply((SELECT keys FROM public.manifests))",
    "SELECT keywright.ensure_resources('thing', ARRAY(SELECT 'e' || i FROM generate_series(1, 10000) AS i))",
    "INSERT INTO public.things SELECT 't' || i FROM generate_series(1, 10000) AS i",
    "SELECT count(*) FROM keywright.list_users(page_size => 1000), keywright.list_role_bindings(page_size => 1000),
       keywright.list_access()",
    // Errors of their own, one of them long, at the edge of what there is.
    "DO $$ BEGIN PERFORM keywright.plan(wrong) FROM public.manifests; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    "DO $$ BEGIN PERFORM keywright.mint_api_key('ada', repeat('x', 20000000)); EXCEPTION WHEN check_violation THEN NULL; END $$",
    "DO $$ BEGIN PERFORM keywright.revoke_api_key('0123456789'); EXCEPTION WHEN undefined_object THEN NULL; END $$",
];

#[test]
fn out_of_memory_ends_the_statement_and_nothing_else() {
    let _alone = ALONE.lock();
    let mut server = Server::new(5521, "");
    for call in &CALLS {
        server.try_levels(call);
    }
}

/// As the server loads it: the hooks around statements, and what is noted of keys.
#[test]
fn out_of_memory_with_the_library_preloaded() {
    let _alone = ALONE.lock();
    let mut server = Server::new(5522, PRELOADED);
    server.try_levels(CALLS[0]);
    server.try_levels(CALLS[1]);
    // A long statement with tokens in it: it is covered in the log, and in pg_stat_activity.
    let long = format!("SELECT length('TOKEN {} TOKEN')", "x".repeat(4_000_000));
    server.try_levels(&long);
    server.try_levels(&format!("{long}; SELECT 'TOKEN'; SELECT 1"));
}

/// The worker that writes when keys were used starts again, and writes all of it once there is memory.
#[test]
fn out_of_memory_in_the_worker() {
    let _alone = ALONE.lock();
    let settings = "-c shared_preload_libraries=keywright -c keywright.usage_flush_interval=1s";
    let mut server = Server::new(5523, settings);
    server
        .witness
        .batch_execute(
            "CREATE TABLE minted AS SELECT * FROM keywright.mint_api_keys(array_fill('ada'::text, '{20000}'),
               ARRAY(SELECT 'many' || i FROM generate_series(1, 20000) AS i))",
        )
        .unwrap();
    let pid = std::fs::read_to_string(server.cluster.file("postmaster.pid")).unwrap();
    let postmaster: i32 = pid.lines().next().unwrap().parse().unwrap();
    let [all, written] =
        ["minted", "keywright.api_key_usage"].map(|table| format!("SELECT count(*) FROM {table}"));
    for level in [512, 1024, 2048, 4096, 8192] {
        // A worker has what the server's first process may have.
        limit(postmaster, Some(level));
        let verify =
            "SELECT count(*) FROM keywright.verify_api_keys(ARRAY(SELECT token FROM minted)) WHERE active";
        assert_eq!(one::<i64>(&mut server.witness, verify), 20_000);
        thread::sleep(Duration::from_secs(3));
        limit(postmaster, None);
    }
    keywright_tests::wait_for(&mut server.witness, &format!("SELECT ({all}) <= ({written})"));
}
