//! What is measured: a function a row or two of the report.

use crate::keys::{self, connect};
use crate::report::{Bound, Figure, save};
use crate::rounds::{Random, Variant, interleave, median};
use crate::wire::{Session, environment, pin, pin_thread};
use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const VERIFY: &str = "SELECT * FROM keywright.verify_api_key($1)";
const ROW: &str = "SELECT key_id, user_id, name, hashed_secret, scopes, allow_list, expires_at, revoked_at
                     FROM keywright.api_keys WHERE key_id = $1";

/// A database with 100,000 keys, of which the last tenth is expired or revoked.
const MIDDLE: &str = "keys_middle";
const MIDDLE_KEYS: u64 = 100_000;
const LIVE: u64 = MIDDLE_KEYS / 10 * 9;
const SMALL: &str = "keys_small";
const SMALL_KEYS: u64 = 10_000;
/// The first fifth of it is expired.
const LARGE: &str = "keys_large";

fn large_keys() -> u64 {
    std::env::var("KEYWRIGHT_BENCH_KEYS").map_or(10_000_000, |keys| keys.parse().expect("a number of keys"))
}

pub fn fill(count: u64) {
    keys::database(MIDDLE, count, 0);
}

pub fn call(what: &str, calls: usize) {
    if what == "text" {
        let mut client = connect(MIDDLE);
        for number in 0..calls {
            let sql = format!("SELECT relname, relkind FROM pg_class WHERE oid = {}", number % 1000);
            client.simple_query(&sql).expect("a row or none");
        }
        return;
    }
    let mut session = Session::new(MIDDLE);
    let statement = session.prepare(if what == "verify" { VERIFY } else { ROW });
    for number in 0..calls as u64 {
        let number = number * 37 % 1000;
        let text = if what == "verify" { keys::token(number) } else { keys::id(number) };
        session.call(&statement, &[text.as_bytes()]);
    }
}

pub fn all(file: &Path) {
    let begun = Instant::now();
    let step = |what: &str| println!("{:6.0} s  {what}", begun.elapsed().as_secs_f64());
    step("filling databases");
    keys::database(SMALL, SMALL_KEYS, 0);
    keys::database(MIDDLE, MIDDLE_KEYS, 0);
    keys::database(LARGE, large_keys(), large_keys() / 5);
    let mut client = connect(MIDDLE);
    client.batch_execute(include_str!("../baselines.sql")).expect("baselines");
    prepare(&mut client);
    // One core for a client and its server at a time: what is measured is work, not where the scheduler puts it.
    let crowd = Crowd::new();
    pin(std::process::id(), "0");

    let mut figures = Vec::new();
    let only = std::env::var("KEYWRIGHT_BENCH_ONLY").ok();
    let mut measure = |what: &str, measured: &dyn Fn() -> Vec<Figure>| {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|only| only == what)) {
            return;
        }
        step(what);
        let measured = measured();
        for figure in &measured {
            println!("          {figure}");
        }
        figures.extend(measured);
    };
    measure("single calls", &single);
    measure("without the round trip", &in_server);
    measure("many clients", &|| crowded(&crowd));
    measure("sizes", &sizes);
    measure("usage tracking", &tracking);
    measure("outcomes", &outcomes);
    measure("batches", &batches);
    measure("authorization", &authorization);
    measure("row security", &row_security);
    measure("pages", &pages);
    measure("minting", &minting);
    measure("purging", &purging);
    measure("what a million verifications write", &writes);
    save(file, &figures);
}

/// Dead keys, roles and resources three levels deep.
fn prepare(client: &mut postgres::Client) {
    client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO keywright.resources (type, id) SELECT 'organization', 'o' || n FROM generate_series(0, 99) AS n;
             INSERT INTO keywright.resources (type, id, parent_type, parent_id)
               SELECT 'project', 'p' || n, 'organization', 'o' || n % 100 FROM generate_series(0, 999) AS n;
             INSERT INTO keywright.resources (type, id, parent_type, parent_id)
               SELECT 'agent', 'a' || n, 'project', 'p' || n % 1000 FROM generate_series(0, 9999) AS n;
             INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type, resource_id)
               SELECT user_id, 'organization-admin', 'resource', 'organization', 'o' || substr(username, 6)::int % 100
                 FROM keywright.users;",
        )
        .expect("roles and resources");
    let state = |client: &mut postgres::Client, set: &str, numbers: std::ops::Range<u64>| {
        let ids: Vec<String> = numbers.map(keys::id).collect();
        let update = format!("UPDATE keywright.api_keys SET {set} WHERE key_id = ANY ($1)");
        client.execute(&update, &[&ids]).expect("dead keys");
    };
    let half = LIVE + (MIDDLE_KEYS - LIVE) / 2;
    state(client, "expires_at = '2020-01-01'", LIVE..half);
    state(client, "revoked_at = '2026-01-02'", half..MIDDLE_KEYS);
    client.batch_execute("VACUUM (FREEZE, ANALYZE)").expect("vacuum");
}

/// A statement called with one argument after the other.
struct Caller {
    session: Session,
    statement: crate::wire::Statement,
    arguments: Vec<Vec<String>>,
    at: usize,
}

impl Caller {
    fn new(database: &str, sql: &str, arguments: Vec<Vec<String>>) -> Caller {
        let mut session = Session::new(database);
        session.pin("0");
        let statement = session.prepare(sql);
        Caller { session, statement, arguments, at: 0 }
    }

    fn set(mut self, setting: &str) -> Caller {
        self.session.execute(&format!("SET {setting}"));
        self
    }

    fn run(&mut self, calls: usize) {
        for _ in 0..calls {
            let arguments: Vec<&[u8]> = self.arguments[self.at].iter().map(String::as_bytes).collect();
            assert!(self.session.call(&self.statement, &arguments) > 0, "a call that answers nothing");
            self.at = (self.at + 1) % self.arguments.len();
        }
    }

    fn variant(mut self, name: &'static str, calls: usize) -> Variant<'static> {
        Variant::new(name, calls, move |calls| self.run(calls))
    }
}

/// So many random keys, as one argument each.
fn random(seed: u64, numbers: std::ops::Range<u64>, of: impl Fn(u64) -> String) -> Vec<Vec<String>> {
    let mut random = Random::new(seed);
    (0..20_000).map(|_| vec![of(numbers.start + random.below(numbers.end - numbers.start))]).collect()
}

fn tokens(seed: u64) -> Vec<Vec<String>> {
    random(seed, 0..LIVE, keys::token)
}

fn verify(database: &str) -> Caller {
    Caller::new(database, VERIFY, tokens(1)).set("keywright.track_usage = off")
}

fn single() -> Vec<Figure> {
    let rates = interleave(
        vec![
            verify(MIDDLE).variant("verify_api_key", 200),
            Caller::new(MIDDLE, ROW, random(1, 0..LIVE, keys::id)).variant("row by its primary key", 200),
            Caller::new(MIDDLE, "SELECT * FROM bench.verify($1)", tokens(1)).variant("PL/pgSQL", 200),
            Caller::new(MIDDLE, "SELECT * FROM bench.verify_bare($1)", tokens(1))
                .variant("PL/pgSQL, barest", 200),
            Caller::new(MIDDLE, "SELECT $1::text", tokens(1)).variant("SELECT 1", 200),
            Caller::new(MIDDLE, "SELECT keywright.verify_api_key($1)", tokens(1))
                .set("keywright.track_usage = off")
                .variant("verify_api_key as a value", 200),
        ],
        1000,
    );
    let against = |other, name: &str, least| {
        Figure::new(
            "verify_api_key, 1 client, 100,000 keys",
            name,
            rates.ratio(0, other),
            Bound::Least(least),
        )
        .rates(rates.rate(0), rates.rate(other))
    };
    vec![
        against(1, "prepared SELECT of the row by its primary key", 0.95),
        against(2, "PL/pgSQL with sha256, the same answer", 1.8),
        against(3, "PL/pgSQL with sha256, barest form", f64::NAN),
        against(4, "SELECT $1: the round trip itself", f64::NAN),
        Figure::new(
            "SELECT verify_api_key(..) as one value",
            "prepared SELECT of the row by its primary key",
            rates.ratio(5, 1),
            Bound::Least(f64::NAN),
        )
        .rates(rates.rate(5), rates.rate(1)),
    ]
}

/// What a call costs in the server, where it is called for row after row.
fn in_server() -> Vec<Figure> {
    const LOOP: &str = "FROM bench.tokens AS t, LATERAL";
    let variant = |name, function: &str| {
        let sql = format!("SELECT count(v.active) {LOOP} {function}(t.token) AS v WHERE t.n < $1::text::int");
        Caller::new(MIDDLE, &sql, vec![vec!["2000".into()]])
            .set("keywright.track_usage = off")
            .variant(name, 1)
    };
    let mut client = connect(MIDDLE);
    client.batch_execute("CREATE TABLE bench.tokens (n int, token text)").expect("tokens");
    for (n, token) in (0i32..).zip(tokens(3).into_iter().take(2000)) {
        client.execute("INSERT INTO bench.tokens VALUES ($1, $2)", &[&n, &token[0]]).expect("a token");
    }
    let rates = interleave(
        vec![
            variant("verify_api_key", "keywright.verify_api_key"),
            variant("PL/pgSQL", "bench.verify"),
            variant("PL/pgSQL, barest", "bench.verify_bare"),
        ],
        100,
    );
    let against = |other, name: &str| {
        Figure::new("verify_api_key for row after row", name, rates.ratio(0, other), Bound::Least(f64::NAN))
            .rates(rates.rate(0) * 2000.0, rates.rate(other) * 2000.0)
    };
    vec![against(1, "PL/pgSQL with sha256, the same answer"), against(2, "PL/pgSQL with sha256, barest form")]
}

/// Eight clients with one key, on every core.
struct Crowd {
    work: Vec<mpsc::Sender<usize>>,
    done: mpsc::Receiver<()>,
}

const CLIENTS: usize = 8;

impl Crowd {
    fn new() -> Crowd {
        let (finished, done) = mpsc::channel();
        let work = (0..CLIENTS)
            .map(|client| {
                let (work, calls) = mpsc::channel();
                let finished = finished.clone();
                thread::spawn(move || {
                    let mut caller = None;
                    for count in calls {
                        let caller = caller.get_or_insert_with(|| {
                            // As many on each core.
                            let core = (client % cores()).to_string();
                            pin_thread(&core);
                            let mut session = Session::new(MIDDLE);
                            session.pin(&core);
                            let statement = session.prepare(VERIFY);
                            (session, statement, keys::token(7))
                        });
                        for _ in 0..count {
                            caller.0.call(&caller.1, &[caller.2.as_bytes()]);
                        }
                        finished.send(()).expect("somebody waits");
                    }
                });
                work
            })
            .collect();
        Crowd { work, done }
    }

    fn run(&self, calls: usize) {
        for work in &self.work {
            work.send(calls / CLIENTS).expect("a client works");
        }
        for _ in &self.work {
            self.done.recv().expect("a client works");
        }
    }
}

fn crowded(crowd: &Crowd) -> Vec<Figure> {
    let cores = cores();
    let mut old = connect(MIDDLE);
    let mut transaction = old
        .build_transaction()
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .start()
        .expect("an old snapshot");
    transaction.query("SELECT count(*) FROM keywright.api_keys", &[]).expect("an old snapshot");
    let rates = interleave(
        vec![
            Variant::new("8 clients", 16_000, |calls| crowd.run(calls)),
            verify(MIDDLE).variant("1 client", 4000),
        ],
        40,
    );
    vec![
        Figure::new(
            "the same, 8 clients, one key, an old snapshot held open, usage tracking on",
            &format!("1 client, random keys, tracking off; per core ({cores})"),
            rates.ratio(0, 1) / cores as f64,
            Bound::Least(0.95),
        )
        .rates(rates.rate(0) / cores as f64, rates.rate(1)),
    ]
}

fn sizes() -> Vec<Figure> {
    let large = large_keys();
    let of =
        |database, sql, arguments| Caller::new(database, sql, arguments).set("keywright.track_usage = off");
    let rates = interleave(
        vec![
            of(LARGE, VERIFY, random(5, large / 5..large, keys::token)).variant("large", 200),
            of(SMALL, VERIFY, random(5, 0..SMALL_KEYS, keys::token)).variant("small", 200),
            of(LARGE, ROW, random(5, large / 5..large, keys::id)).variant("row, large", 200),
            of(SMALL, ROW, random(5, 0..SMALL_KEYS, keys::id)).variant("row, small", 200),
        ],
        1000,
    );
    let against = |one, other, what: &str, name: &str, least| {
        Figure::new(
            &format!("{what}, {} keys", separated(large)),
            name,
            rates.ratio(one, other),
            Bound::Least(least),
        )
        .rates(rates.rate(one), rates.rate(other))
    };
    vec![
        against(0, 1, "verify_api_key", "10,000 keys", 0.9),
        against(2, 3, "the row by its primary key", "10,000 keys", f64::NAN),
        against(0, 2, "verify_api_key", "the row by its primary key, as many keys", f64::NAN),
    ]
}

fn tracking() -> Vec<Figure> {
    let rates = interleave(
        vec![
            verify(MIDDLE).set("keywright.track_usage = on").variant("on", 200),
            verify(MIDDLE).variant("off", 200),
        ],
        1500,
    );
    vec![
        Figure::new("usage tracking on", "off", rates.ratio(0, 1), Bound::Least(0.97))
            .rates(rates.rate(0), rates.rate(1)),
    ]
}

fn outcomes() -> Vec<Figure> {
    let half = LIVE + (MIDDLE_KEYS - LIVE) / 2;
    let of = |arguments| Caller::new(MIDDLE, VERIFY, arguments).set("keywright.track_usage = off");
    let wrong = |number: u64| keys::token_of(&keys::id(number), &keys::secret(number + 1));
    let unknown = |number: u64| keys::token(number + 1_000_000_000_000);
    let rates = interleave(
        vec![
            of(tokens(9)).variant("hit", 200),
            of(random(9, 0..LIVE, unknown)).variant("miss", 200),
            of(random(9, 0..LIVE, wrong)).variant("wrong secret", 200),
            of(random(9, LIVE..half, keys::token)).variant("expired", 200),
            of(random(9, half..MIDDLE_KEYS, keys::token)).variant("revoked", 200),
        ],
        1000,
    );
    (1..rates.names.len())
        .map(|at| {
            let ratio = rates.ratio(at, 0);
            Figure::new(rates.names[at], "hit", ratio, Bound::Within(0.05))
                .rates(rates.rate(at), rates.rate(0))
        })
        .collect()
}

fn batches() -> Vec<Figure> {
    const KEYS: usize = 1000;
    let all: Vec<String> = tokens(11).into_iter().flatten().collect();
    let arrays = all.chunks(KEYS).map(|tokens| vec![format!("{{{}}}", tokens.join(","))]).collect();
    let batch = Caller::new(MIDDLE, "SELECT * FROM keywright.verify_api_keys($1)", arrays)
        .set("keywright.track_usage = off");
    let rates = interleave(vec![batch.variant("batch", 2), verify(MIDDLE).variant("single", 200)], 300);
    vec![
        Figure::new(
            "verify_api_keys, 1,000 tokens, a key",
            "verify_api_key, a key",
            rates.ratio(0, 1) * KEYS as f64,
            Bound::Least(5.0),
        )
        .rates(rates.rate(0) * KEYS as f64, rates.rate(1)),
    ]
}

fn authorization() -> Vec<Figure> {
    let mut random = Random::new(13);
    let questions = (0..20_000)
        .map(|_| {
            let number = random.below(LIVE);
            // An agent in a project in the organization that the key's owner administers.
            let agent = keys::user_of(number) % 100 + 100 * random.below(100);
            vec![keys::token(number), "agent:read".into(), format!("agent:a{agent}")]
        })
        .collect();
    let authorize = Caller::new(MIDDLE, "SELECT * FROM keywright.authorize_api_key($1, $2, $3)", questions)
        .set("keywright.track_usage = off");
    let rates =
        interleave(vec![authorize.variant("authorize", 200), verify(MIDDLE).variant("verify", 200)], 1000);
    vec![
        Figure::new(
            "authorize_api_key, the owner's binding 3 levels up",
            "verify_api_key",
            rates.ratio(0, 1),
            Bound::Least(0.7),
        )
        .rates(rates.rate(0), rates.rate(1)),
    ]
}

const POLICIES: &str = "policies";

/// Policies that ask for the resource of each of 100,000 rows, each query in a transaction of its own.
fn row_security() -> Vec<Figure> {
    keys::database(POLICIES, 1, 0);
    let mut client = connect(POLICIES);
    client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO keywright.resources (type, id) SELECT 'organization', 'o' || n FROM generate_series(0, 9) AS n;
             INSERT INTO keywright.resources (type, id, parent_type, parent_id)
               SELECT 'project', 'p' || n, 'organization', 'o' || n % 10 FROM generate_series(1, 100000) AS n;
             RESET session_replication_role;
             CREATE TABLE by_setting AS
               SELECT 'p' || n AS project, 'o' || n % 10 AS organization, 'a body of some length'::text AS body
                 FROM generate_series(1, 100000) AS n;
             CREATE TABLE by_request AS TABLE by_setting;
             CREATE TABLE by_user AS TABLE by_setting;
             ALTER TABLE by_setting ENABLE ROW LEVEL SECURITY;
             ALTER TABLE by_request ENABLE ROW LEVEL SECURITY;
             ALTER TABLE by_user ENABLE ROW LEVEL SECURITY;
             CREATE POLICY p ON by_setting USING (organization = current_setting('app.organization'));
             CREATE POLICY p ON by_request USING (keywright.is_permitted('project:read', 'project', project));
             CREATE POLICY p ON by_user USING (keywright.has_permission('one', 'project:read', 'project', project));
             CREATE TABLE noise (n integer);
             CREATE ROLE bench_web;
             GRANT SELECT ON by_setting, by_request, by_user TO bench_web;
             SELECT keywright.grant_access('bench_web', 'verifier'), keywright.ensure_user('one', '');
             SELECT keywright.bind_role('one', 'project-viewer', 'organization', 'o1');",
        )
        .expect("policies");
    client.batch_execute("VACUUM ANALYZE").expect("vacuum");
    let minted = client.query_one("SELECT token FROM keywright.mint_api_key('one', 'k')", &[]);
    let token: String = minted.expect("a token").get(0);
    let variant = |name, table: &str| {
        let mut session = Session::new(POLICIES);
        session.pin("0");
        session.execute(
            "SET ROLE bench_web; SET max_parallel_workers_per_gather = 0; SET app.organization = 'o1'",
        );
        let query = format!(
            "BEGIN; SELECT keywright.begin_request('{token}'); SELECT count(body) FROM {table}; COMMIT"
        );
        Variant::new(name, 1, move |calls| {
            for _ in 0..calls {
                session.execute(&query);
            }
        })
    };
    let asked = "a policy with is_permitted, 100,000 rows, each its own resource";
    let quiet = interleave(vec![variant("is_permitted", "by_request"), variant("setting", "by_setting")], 21);
    let end = AtomicBool::new(false);
    let busy = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = connect(POLICIES);
            while !end.load(Ordering::Relaxed) {
                client.batch_execute("INSERT INTO noise VALUES (1)").expect("a commit");
                thread::sleep(Duration::from_millis(10));
            }
        });
        let busy = interleave(vec![variant("is_permitted", "by_request"), variant("user", "by_user")], 5);
        end.store(true, Ordering::Relaxed);
        busy
    });
    vec![
        Figure::new(asked, "a column compared with current_setting", quiet.ratio(0, 1), Bound::Least(0.2))
            .rates(quiet.rate(0) * 100_000.0, quiet.rate(1) * 100_000.0),
        Figure::new(
            &format!("{asked}, a commit every 10 ms"),
            "a policy with has_permission",
            busy.ratio(0, 1),
            Bound::Least(0.5),
        )
        .rates(busy.rate(0) * 100_000.0, busy.rate(1) * 100_000.0),
    ]
}

fn pages() -> Vec<Figure> {
    const PAGE: &str = "SELECT * FROM keywright.list_api_keys(include_inactive => true, after => $1)";
    let large = large_keys();
    let rates = interleave(
        vec![
            Caller::new(LARGE, PAGE, vec![vec!["VVVVVVVVVV".into()]]).variant("middle", 20),
            Caller::new(SMALL, PAGE, vec![vec![String::new()]]).variant("first", 20),
            Caller::new(LARGE, PAGE, random(15, 0..large, keys::id)).variant("random", 20),
        ],
        300,
    );
    let against = |one, what: &str, least| {
        Figure::new(
            &format!("list_api_keys, {what} of {}", separated(large)),
            "the first page of 10,000",
            rates.ratio(one, 1),
            Bound::Least(least),
        )
        .rates(rates.rate(one), rates.rate(1))
    };
    vec![against(0, "a page in the middle", 0.8), against(2, "another page each time", f64::NAN)]
}

fn minting() -> Vec<Figure> {
    const KEYS: usize = 100_000;
    let round = RefCell::new(0);
    let names = |prefix: &str| {
        *round.borrow_mut() += 1;
        format!("{prefix}{}", round.borrow())
    };
    keys::database("minting", 0, 0);
    let mut client = connect("minting");
    client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO keywright.users (username, kind) SELECT 'user-' || n, 'service' FROM generate_series(0, 999) AS n;",
        )
        .expect("users");
    client.batch_execute(include_str!("../baselines.sql")).expect("baselines");
    let caller = |sql: &str| {
        let mut session = Session::new("minting");
        session.pin("0");
        let statement = session.prepare(sql);
        (session, statement)
    };
    let mut ours = caller(
        "SELECT * FROM keywright.mint_api_keys(
           ARRAY(SELECT 'user-' || n % 1000 FROM generate_series(1, 100000) AS n),
           ARRAY(SELECT $1::text || '-' || n FROM generate_series(1, 100000) AS n))",
    );
    let mut theirs = caller("SELECT * FROM bench.mint_many($1)");
    let rates = interleave(
        vec![
            Variant::new("mint_api_keys", 1, |_| {
                assert_eq!(ours.0.call(&ours.1, &[names("ours").as_bytes()]), KEYS);
            }),
            Variant::new("INSERT .. SELECT", 1, |_| {
                assert_eq!(theirs.0.call(&theirs.1, &[names("theirs").as_bytes()]), KEYS);
            }),
        ],
        6,
    );
    vec![
        Figure::new(
            "minting 100,000 keys in one statement",
            "INSERT .. SELECT of the same columns, hash and randomness",
            rates.ratio(0, 1),
            Bound::Least(0.6),
        )
        .rates(rates.rate(0) * KEYS as f64, rates.rate(1) * KEYS as f64),
    ]
}

fn purging() -> Vec<Figure> {
    const BATCH: usize = 10_000;
    let large = large_keys();
    let rounds = (large as usize / 10 / BATCH).min(40);
    let one = |sql: &str, setting: &str| {
        let mut session = Session::new(LARGE);
        session.execute(setting);
        session.pin("0");
        let statement = session.prepare(sql);
        (session, statement)
    };
    let mut ours = one("SELECT keywright.purge_api_keys('1 day', 10000)", "SET keywright.notify = on");
    // Without triggers, as a table of one's own has none.
    let mut theirs = one(
        "DELETE FROM keywright.api_keys WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM keywright.api_keys WHERE expires_at < clock_timestamp() - interval '1 day'
            ORDER BY expires_at LIMIT 10000))",
        "SET session_replication_role = replica",
    );
    let rates = interleave(
        vec![
            Variant::new("purge_api_keys", 1, |_| _ = ours.0.call(&ours.1, &[])),
            Variant::new("DELETE", 1, |_| _ = theirs.0.call(&theirs.1, &[])),
        ],
        rounds,
    );
    let mut caller = Caller::new(LARGE, VERIFY, random(17, large / 5..large, keys::token));
    let mut slices = |end: &dyn Fn(usize) -> bool| {
        let mut measured = Vec::new();
        while !end(measured.len()) {
            let begun = Instant::now();
            caller.run(500);
            measured.push(500.0 / begun.elapsed().as_secs_f64());
        }
        median(measured)
    };
    let alone = slices(&|slices| slices == 300);
    let finished = AtomicBool::new(false);
    let other = if cores() > 1 { "1" } else { "0" };
    let beside = thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = Session::new(LARGE);
            session.pin(other);
            let statement = session.prepare("SELECT keywright.purge_api_keys('1 day', 10000)");
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(6) {
                session.call(&statement, &[]);
            }
            finished.store(true, Ordering::Relaxed);
        });
        slices(&|_| finished.load(Ordering::Relaxed))
    });
    vec![
        Figure::new(
            &format!("purge of expired keys out of {}, a batch of 10,000", separated(large)),
            "DELETE of the same batch, no triggers",
            rates.ratio(0, 1),
            Bound::Least(0.9),
        )
        .rates(rates.rate(0) * BATCH as f64, rates.rate(1) * BATCH as f64),
        Figure::new("verify_api_key while a purge runs", "without", beside / alone, Bound::Least(0.8))
            .rates(beside, alone),
    ]
}

fn writes() -> Vec<Figure> {
    let mut client = connect(MIDDLE);
    // What the flush of usage writes is not the verification's.
    client
        .batch_execute("ALTER SYSTEM SET keywright.usage_flush_interval = '1h'")
        .and_then(|()| client.batch_execute("SELECT pg_reload_conf(); CHECKPOINT"))
        .expect("no flush meanwhile");
    thread::sleep(Duration::from_secs(3));
    let mut caller = Caller::new(MIDDLE, VERIFY, tokens(19));
    caller.run(1000);
    let mut state = || -> (i64, i64) {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint,
                          pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        let row = client.query_one(sql, &[]).expect("state");
        (row.get(0), row.get(1))
    };
    let before = state();
    caller.run(1_000_000);
    let after = state();
    vec![
        Figure::new("bytes of WAL of a million verifications", "-", (after.0 - before.0) as f64, Bound::Zero),
        Figure::new(
            "transaction ids of a million verifications",
            "-",
            (after.1 - before.1) as f64,
            Bound::Zero,
        ),
    ]
}

fn cores() -> usize {
    environment("PG_CORES").parse().expect("a number of cores")
}

fn separated(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
    groups.join(",")
}
