//! Crashes in the middle of a storm: the whole server is killed, one process of it, or its disk is full. What a client was
//! told has happened, what it was not told has happened wholly or not at all, and Postgres finds nothing damaged.
//!
//! Eight clients write down what they were told, in the memory of the test. KEYWRIGHT_CRASH_CYCLES says how often the server
//! is killed (3), KEYWRIGHT_CRASH_SEED repeats the choices of a run, as far as the kernel lets it.

use keywright_tests::{Cluster, environment, one, program, succeed, wait_for};
use postgres::error::Severity;
use postgres::{Client, NoTls};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::env::var;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const CLIENTS: usize = 8;

/// All that makes a commit last is on; usage is written every second, in the middle of everything.
const SETTINGS: &str = "-c shared_preload_libraries=keywright -c keywright.usage_flush_interval=1s -c fsync=on \
     -c full_page_writes=on -c synchronous_commit=on -c log_line_prefix=%b:%e:";

// Chance

/// xorshift64*: a run is its seed.
struct Chance(u64);

impl Chance {
    fn seed() -> u64 {
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64;
        let seed = var("KEYWRIGHT_CRASH_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
        // Shown when the test fails.
        eprintln!("KEYWRIGHT_CRASH_SEED={seed}");
        seed
    }

    fn new(seed: u64, stream: usize) -> Chance {
        Chance((seed ^ (stream as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn one_of<T>(&mut self, all: &[T]) -> Option<T>
    where
        T: Copy,
    {
        (!all.is_empty()).then(|| all[self.below(all.len())])
    }
}

fn cycles() -> usize {
    var("KEYWRIGHT_CRASH_CYCLES").map_or(3, |cycles| cycles.parse().unwrap())
}

/// Waits for what has to come, and says what did not.
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let since = Instant::now();
    while !happened() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited for in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

// What clients do, and write down

#[derive(Debug)]
struct Key {
    id: String,
    name: String,
    /// Unknown when the answer that had it was lost.
    token: Option<String>,
    /// Its events.
    history: Vec<&'static str>,
    /// Superseded with a grace that outlasts the test.
    grace: bool,
}

impl Key {
    fn is(&self, event: &str) -> bool {
        self.history.contains(&event)
    }

    fn is_live(&self) -> bool {
        !self.is("revoked") && (!self.is("superseded") || self.grace)
    }
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Mint,
    Rotate {
        key: usize,
        grace: bool,
    },
    Revoke {
        key: usize,
    },
    Apply,
    /// The role the client's service shall have, or that it shall have none.
    Serve {
        role: Option<usize>,
    },
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Call::Mint => "mint",
            Call::Rotate { .. } => "rotate",
            Call::Revoke { .. } => "revoke",
            Call::Apply => "apply",
            Call::Serve { role: Some(_) } => "grant_authenticator",
            Call::Serve { role: None } => "revoke_authenticator",
        }
    }
}

/// What a client was told.
#[derive(Debug, Default)]
struct Journal {
    client: usize,
    keys: Vec<Key>,
    /// Tokens of the manifest that holds, and those of the ones before.
    tokens: Vec<String>,
    old_tokens: Vec<String>,
    /// Which manifest holds; 0: none.
    version: usize,
    role: Option<usize>,
    service_history: Vec<&'static str>,
    /// The call whose answer never came.
    unanswered: Option<Call>,
    told: BTreeMap<&'static str, u64>,
    /// Unanswered calls that had happened, and that had not.
    unanswered_that: [u64; 2],
}

const ROLES: usize = 3;

impl Journal {
    fn all() -> Vec<Journal> {
        (0..CLIENTS).map(|client| Journal { client, ..Journal::default() }).collect()
    }

    fn username(&self) -> String {
        format!("c{}", self.client)
    }

    /// Of the key that comes next.
    fn next_name(&self) -> String {
        format!("k-{}", self.keys.len())
    }

    /// Two services share a login, four of them the roles.
    fn login(&self) -> String {
        format!("login_{}", self.client % 2)
    }

    fn manifest_login(&self) -> String {
        format!("login_{}", 2 + self.client % 2)
    }

    fn choose(&self, chance: &mut Chance) -> Call {
        let which = |wanted: &dyn Fn(&Key) -> bool| -> Vec<usize> {
            (0..self.keys.len()).filter(|key| wanted(&self.keys[*key])).collect()
        };
        match chance.below(100) {
            0..25 => {
                let heads = which(&|key| !key.is("revoked") && !key.is("superseded"));
                let grace = chance.below(2) == 0;
                chance.one_of(&heads).map_or(Call::Mint, |key| Call::Rotate { key, grace })
            }
            25..50 => chance.one_of(&which(&Key::is_live)).map_or(Call::Mint, |key| Call::Revoke { key }),
            50..60 => Call::Apply,
            60..75 => {
                let others: Vec<Option<usize>> =
                    (0..ROLES).map(Some).chain([None]).filter(|role| *role != self.role).collect();
                Call::Serve { role: chance.one_of(&others).unwrap() }
            }
            _ => Call::Mint,
        }
    }

    /// Gives the tokens, and of a new key its id first.
    fn perform(&self, client: &mut Client, call: Call) -> Result<Vec<String>, postgres::Error> {
        match call {
            Call::Mint => {
                let sql = "SELECT key_id, token FROM keywright.mint_api_key($1, $2)";
                let row = client.query_one(sql, &[&self.username(), &self.next_name()])?;
                Ok(vec![row.get(0), row.get(1)])
            }
            Call::Rotate { key, grace } => {
                let grace = if grace { "1 day" } else { "0" };
                let sql =
                    format!("SELECT key_id, token FROM keywright.rotate_api_key($1, interval '{grace}')");
                let row = client.query_one(&sql, &[&self.keys[key].id])?;
                Ok(vec![row.get(0), row.get(1)])
            }
            Call::Revoke { key } => {
                let row = client.query_one("SELECT keywright.revoke_api_key($1)", &[&self.keys[key].id])?;
                assert!(row.get::<_, bool>(0), "it was live");
                Ok(Vec::new())
            }
            Call::Apply => {
                let sql = "SELECT token FROM keywright.apply($1::text::jsonb) WHERE token IS NOT NULL ORDER BY step";
                let rows = client.query(sql, &[&self.manifest(self.version + 1)])?;
                assert_eq!(rows.len(), 2, "tokens of an apply");
                Ok(rows.iter().map(|row| row.get(0)).collect())
            }
            Call::Serve { role: Some(role) } => {
                let sql = "SELECT keywright.grant_authenticator($1, $2, $3)";
                let service = format!("s{}", self.client);
                client.query(sql, &[&service, &self.login(), &format!("web_{role}")])?;
                Ok(Vec::new())
            }
            Call::Serve { role: None } => {
                let service = format!("s{}", self.client);
                client.query("SELECT keywright.revoke_authenticator($1)", &[&service])?;
                Ok(Vec::new())
            }
        }
    }

    /// A call has happened; its tokens are empty if nobody was told.
    fn note(&mut self, call: Call, answer: Option<(String, Option<String>)>, tokens: Vec<String>) {
        let key = |journal: &Journal, name: String| {
            let (id, token) = answer.unwrap();
            assert!(journal.keys.iter().all(|key| key.id != id));
            Key { id, name, token, history: vec!["minted"], grace: false }
        };
        match call {
            Call::Mint => {
                let new = key(self, self.next_name());
                self.keys.push(new);
            }
            Call::Rotate { key: old, grace } => {
                let new = key(self, self.keys[old].name.clone());
                self.keys[old].history.push("superseded");
                self.keys[old].grace = grace;
                self.keys.push(new);
            }
            Call::Revoke { key } => self.keys[key].history.push("revoked"),
            Call::Apply => {
                self.version += 1;
                self.old_tokens.append(&mut self.tokens);
                self.tokens = tokens;
            }
            Call::Serve { role } => {
                self.service_history.push(match (self.role, role) {
                    (None, _) => "created",
                    (_, None) => "deleted",
                    _ => "updated",
                });
                self.role = role;
            }
        }
    }

    fn told(&mut self, call: Call, answer: Vec<String>) {
        let [new, tokens] = match call {
            Call::Mint | Call::Rotate { .. } => [answer, Vec::new()],
            _ => [Vec::new(), answer],
        };
        self.note(call, new.first().map(|id| (id.clone(), new.get(1).cloned())), tokens);
        *self.told.entry(call.name()).or_default() += 1;
    }

    /// Everything in it is of this version, so that one takes the place of the other wholly.
    fn manifest(&self, version: usize) -> String {
        let tag = format!("{}-{version}", self.client);
        format!(
            r#"{{"manager": "m{client}", "prune": true,
                 "resources": [{{"type": "organization", "id": "o{tag}"}}],
                 "roles": [{{"name": "r{tag}", "permissions": ["project:read"]}}],
                 "scopes": [{{"name": "s{tag}:all", "permissions": ["project:*"]}}],
                 "users": [{{"username": "u{tag}", "kind": "service"}}],
                 "bindings": [{{"username": "u{tag}", "role": "r{tag}", "resource_type": "organization", "resource_id": "o{tag}"}}],
                 "api_keys": [{{"username": "u{tag}", "name": "ci", "scopes": ["all"]}}],
                 "gateway_keys": [{{"name": "g{tag}"}}],
                 "authenticators": [{{"service": "m{client}", "connect_as": "{login}", "anon_role": "web_{role}", "schemas": ["public"]}}]}}"#,
            client = self.client,
            login = self.manifest_login(),
            role = version % ROLES,
        )
    }

    /// What the manifest of a version makes, as audit and catalog call it.
    fn made_by(&self, version: usize) -> Vec<String> {
        let tag = format!("{}-{version}", self.client);
        vec![
            format!("resource organization:o{tag}"),
            format!("role r{tag}"),
            format!("scope s{tag}:all"),
            format!("user u{tag}"),
            format!("role_binding u{tag} r{tag} on organization:o{tag}"),
            format!("gateway_key g{tag}"),
        ]
    }

    /// The services of this client with login and role.
    fn services(&self) -> Vec<(String, String, usize)> {
        let own = self.role.map(|role| (format!("s{}", self.client), self.login(), role));
        let manifest = (self.version > 0)
            .then(|| (format!("m{}", self.client), self.manifest_login(), self.version % ROLES));
        own.into_iter().chain(manifest).collect()
    }
}

/// Once, before the first storm.
fn prepare(client: &mut Client) {
    client
        .batch_execute(
            "CREATE EXTENSION keywright; CREATE EXTENSION amcheck;
             SELECT keywright.ensure_user('c' || n, '', 'service') FROM generate_series(0, 7) AS n;
             CREATE ROLE login_0 LOGIN; CREATE ROLE login_1 LOGIN; CREATE ROLE login_2 LOGIN; CREATE ROLE login_3 LOGIN;
             CREATE ROLE web_0; CREATE ROLE web_1; CREATE ROLE web_2;
             REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
        )
        .unwrap();
}

// The storm

#[derive(Default)]
struct Storm {
    stop: AtomicBool,
    told: [AtomicU64; CLIENTS],
    refused: [AtomicU64; CLIENTS],
    verified: AtomicU64,
    codes: Mutex<BTreeSet<String>>,
}

/// Ends the storm also where its leader fails.
struct Calm<'a>(&'a Storm);

impl Drop for Calm<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Storm {
    /// Eight clients call until they are cut off, or the storm is over.
    fn rage(
        journals: &mut [Journal],
        connect: impl Fn() -> Client,
        seed: u64,
        lead: impl FnOnce(&Storm),
    ) -> Storm {
        let storm = Storm::default();
        let clients: Vec<Client> = journals.iter().map(|_| connect()).collect();
        thread::scope(|scope| {
            let _calm = Calm(&storm);
            for (journal, client) in journals.iter_mut().zip(clients) {
                let (storm, chance) = (&storm, Chance::new(seed, journal.client));
                scope.spawn(move || storm.client(client, journal, chance));
            }
            lead(&storm);
        });
        storm
    }

    fn client(&self, mut client: Client, journal: &mut Journal, mut chance: Chance) {
        let number = journal.client;
        while !self.stop.load(Ordering::Relaxed) {
            let call = journal.choose(&mut chance);
            journal.unanswered = Some(call);
            match journal.perform(&mut client, call) {
                Ok(answer) => {
                    journal.unanswered = None;
                    journal.told(call, answer);
                    self.told[number].fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    let (code, severity) = code(&error);
                    self.codes.lock().unwrap().insert(code.clone());
                    if severity != Some(Severity::Error) {
                        return;
                    }
                    // An error is an answer: it did not happen.
                    assert_eq!(code, "53100", "{call:?}: {error:?}");
                    journal.unanswered = None;
                    self.refused[number].fetch_add(1, Ordering::Relaxed);
                }
            }
            // What was told holds at once, and verifies whether or not anything can be written.
            let key = (!journal.keys.is_empty()).then(|| &journal.keys[chance.below(journal.keys.len())]);
            if let Some((key, token)) = key.and_then(|key| Some((key, key.token.as_ref()?))) {
                let sql = "SELECT active FROM keywright.verify_api_key($1)";
                match client.query_one(sql, &[token]) {
                    Ok(row) => assert_eq!(row.get::<_, bool>(0), key.is_live(), "{key:?}"),
                    Err(error) => {
                        let (code, severity) = code(&error);
                        assert_ne!(severity, Some(Severity::Error), "{error:?}");
                        self.codes.lock().unwrap().insert(code);
                        return;
                    }
                }
                self.verified.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn everybody(counts: &[AtomicU64]) -> bool {
        counts.iter().all(|count| count.load(Ordering::Relaxed) > 0)
    }
}

/// Without a severity: the connection is gone.
fn code(error: &postgres::Error) -> (String, Option<Severity>) {
    match error.as_db_error() {
        Some(error) => (error.code().code().into(), error.parsed_severity()),
        None => ("08006".into(), None),
    }
}

// What has to hold after a crash

/// A row of keywright.api_keys.
#[derive(Debug)]
struct Row {
    name: String,
    superseded_by: Option<String>,
    superseded: bool,
    revoked: bool,
    live: bool,
}

/// Compares everything with what the clients were told, and learns what became of the calls that nobody answered.
fn check(client: &mut Client, conninfo: &str, journals: &mut [Journal]) {
    let since: String = one(client, "SELECT clock_timestamp()::text");
    let mut rows = key_rows(client);
    let services: BTreeMap<String, String> = client
        .query("SELECT service, anon_role FROM keywright.list_authenticators()", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let objects = managed(client);
    let events = events(client);
    for journal in journals.iter_mut() {
        let rows = rows.remove(&journal.username()).unwrap_or_default();
        settle(journal, &rows, &services, &objects);
        check_keys(journal, &rows, &events);
        check_manifest(journal, &objects, &events);
    }
    check_tokens(client, journals);
    check_authenticators(client, journals, &services);
    let impossible: Vec<String> =
        client.query(IMPOSSIBLE, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(impossible.is_empty(), "{impossible:?}");
    check_worker(client, journals, &since);
    check_files(conninfo);
}

/// By the owner's name, and by id.
fn key_rows(client: &mut Client) -> HashMap<String, HashMap<String, Row>> {
    let sql = "SELECT u.username, k.key_id, k.name, k.superseded_by, k.superseded_at IS NOT NULL, k.revoked_at IS NOT NULL,
                      k.revoked_at IS NULL AND k.expires_at > clock_timestamp()
                 FROM keywright.api_keys AS k JOIN keywright.users AS u USING (user_id)";
    let mut found: HashMap<String, HashMap<String, Row>> = HashMap::new();
    for row in client.query(sql, &[]).unwrap() {
        let key = Row {
            name: row.get(2),
            superseded_by: row.get(3),
            superseded: row.get(4),
            revoked: row.get(5),
            live: row.get(6),
        };
        found.entry(row.get(0)).or_default().insert(row.get(1), key);
    }
    found
}

/// What each manager has.
fn managed(client: &mut Client) -> BTreeMap<String, BTreeSet<String>> {
    let sql = "SELECT managed_by, 'resource ' || type || ':' || id FROM keywright.resources WHERE managed_by IS NOT NULL
               UNION ALL SELECT managed_by, 'role ' || name FROM keywright.roles WHERE managed_by IS NOT NULL
               UNION ALL SELECT managed_by, 'scope ' || name FROM keywright.scopes WHERE managed_by IS NOT NULL
               UNION ALL SELECT managed_by, 'user ' || username FROM keywright.users WHERE managed_by IS NOT NULL AND deleted_at IS NULL
               UNION ALL SELECT b.managed_by, format('role_binding %s %s on %s:%s', u.username, b.role, b.resource_type, b.resource_id)
                           FROM keywright.role_bindings AS b JOIN keywright.users AS u USING (user_id) WHERE b.managed_by IS NOT NULL
               UNION ALL SELECT k.managed_by, 'api_key ' || u.username || '/' || k.name
                           FROM keywright.api_keys AS k JOIN keywright.users AS u USING (user_id)
                          WHERE k.managed_by IS NOT NULL AND k.revoked_at IS NULL AND k.superseded_at IS NULL
               UNION ALL SELECT managed_by, 'gateway_key ' || name FROM keywright.gateway_keys WHERE managed_by IS NOT NULL AND superseded_at IS NULL
               UNION ALL SELECT managed_by, 'authenticator ' || service || ' ' || anon_role FROM keywright.authenticators WHERE managed_by IS NOT NULL";
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in client.query(sql, &[]).unwrap() {
        let object: String = row.get(1);
        assert!(found.entry(row.get(0)).or_default().insert(object.clone()), "{object} is there twice");
    }
    found
}

/// What the audit says of each object, in its order.
fn events(client: &mut Client) -> HashMap<String, Vec<String>> {
    let sql = "SELECT kind || ' ' || CASE WHEN kind IN ('api_key', 'authenticator') OR name = '' THEN id ELSE name END,
                      array_agg(event ORDER BY occurred_at) FROM keywright.audit_events GROUP BY 1";
    client.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What became of the call that nobody answered.
fn settle(
    journal: &mut Journal,
    rows: &HashMap<String, Row>,
    services: &BTreeMap<String, String>,
    objects: &BTreeMap<String, BTreeSet<String>>,
) {
    let Some(call) = journal.unanswered.take() else { return };
    let unknown: Vec<&String> =
        rows.keys().filter(|id| journal.keys.iter().all(|key| key.id != **id)).collect();
    assert!(unknown.len() <= 1, "{call:?} made {unknown:?}");
    let new = unknown.first().map(|id| ((*id).clone(), None));
    let service = format!("s{}", journal.client);
    let role = services.get(&service).map(|role| role["web_".len()..].parse().unwrap());
    let happened = match call {
        Call::Mint => new.is_some(),
        Call::Rotate { key, .. } => rows[&journal.keys[key].id].superseded,
        Call::Revoke { key } => rows[&journal.keys[key].id].revoked,
        // Any of it: then all of it has to be there.
        Call::Apply => {
            let next = journal.made_by(journal.version + 1);
            let there = objects.get(&format!("m{}", journal.client));
            there.is_some_and(|there| next.iter().any(|object| there.contains(object)))
        }
        Call::Serve { role: wanted } => role == wanted,
    };
    if happened {
        journal.note(call, new, Vec::new());
    }
    journal.unanswered_that[usize::from(!happened)] += 1;
}

/// No key more, none less, each as its history says.
fn check_keys(journal: &Journal, rows: &HashMap<String, Row>, events: &HashMap<String, Vec<String>>) {
    assert_eq!(rows.len(), journal.keys.len(), "keys of {}: {rows:?}", journal.username());
    for key in &journal.keys {
        let row = rows.get(&key.id).unwrap_or_else(|| panic!("lost: {key:?}"));
        assert_eq!(row.name, key.name, "{key:?}: {row:?}");
        assert_eq!(row.superseded, key.is("superseded"), "{key:?}: {row:?}");
        assert_eq!(row.revoked, key.is("revoked"), "{key:?}: {row:?}");
        assert_eq!(row.live, key.is_live(), "{key:?}: {row:?}");
        if let Some(successor) = &row.superseded_by {
            assert_eq!(rows[successor].name, key.name, "{key:?}: {row:?}");
        }
        let events = events.get(&format!("api_key {}", key.id));
        assert_eq!(events.map_or(&[][..], |events| events), key.history, "events of {key:?}");
    }
    // Of each name one chain, at most one key of which was neither revoked nor superseded.
    let heads = rows.values().filter(|row| !row.revoked && !row.superseded).map(|row| &row.name);
    let mut seen = BTreeSet::new();
    assert!(heads.into_iter().all(|name| seen.insert(name)), "two holders of a name: {rows:?}");
}

/// The last manifest that was applied, all of it and nothing of another.
fn check_manifest(
    journal: &Journal,
    objects: &BTreeMap<String, BTreeSet<String>>,
    events: &HashMap<String, Vec<String>>,
) {
    let Journal { client, version, .. } = *journal;
    let mut expected = BTreeSet::new();
    if version > 0 {
        expected.extend(journal.made_by(version));
        expected.insert(format!("api_key u{client}-{version}/ci"));
        expected.insert(format!("authenticator m{client} web_{}", version % ROLES));
    }
    assert_eq!(objects.get(&format!("m{client}")).cloned().unwrap_or_default(), expected, "client {client}");
    for of in 1..=version + 1 {
        for object in journal.made_by(of) {
            let born = if object.starts_with("gateway_key") { "minted" } else { "created" };
            let expected = match of.cmp(&version) {
                std::cmp::Ordering::Less => vec![born, "deleted"],
                std::cmp::Ordering::Equal => vec![born],
                std::cmp::Ordering::Greater => vec![],
            };
            let events = events.get(&object).map_or(&[][..], |events| events);
            assert_eq!(events, expected, "events of {object}");
        }
    }
    let of_services = [
        ("m", {
            let mut history = vec!["updated"; version];
            if let Some(first) = history.first_mut() {
                *first = "created";
            }
            history
        }),
        ("s", journal.service_history.clone()),
    ];
    for (service, history) in of_services {
        let events = events.get(&format!("authenticator {service}{client}")).map_or(&[][..], |events| events);
        assert_eq!(events, history, "events of {service}{client}");
    }
}

/// Every token that somebody was told is good or dead, as it should be.
fn check_tokens(client: &mut Client, journals: &[Journal]) {
    let mut expected: Vec<(&str, bool)> = Vec::new();
    for journal in journals {
        expected.extend(journal.keys.iter().filter_map(|key| Some((key.token.as_deref()?, key.is_live()))));
        expected.extend(journal.tokens.iter().map(|token| (token.as_str(), true)));
        expected.extend(journal.old_tokens.iter().map(|token| (token.as_str(), false)));
    }
    let tokens: Vec<&str> = expected.iter().map(|(token, _)| *token).collect();
    let sql =
        "SELECT CASE WHEN starts_with(t.token, 'kwg_') THEN (keywright.verify_gateway_key(t.token)).active
                           ELSE (keywright.verify_api_key(t.token)).active END
                 FROM unnest($1::text[]) WITH ORDINALITY AS t (token, n) ORDER BY t.n";
    let active: Vec<bool> = client.query(sql, &[&tokens]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(active.len(), expected.len());
    for ((token, expected), active) in expected.into_iter().zip(active) {
        assert_eq!(active, expected, "token {token}");
    }
}

/// The ledger, a setting of keywright_grantor: what is granted, and for which services.
const LEDGER: &str = "
    SELECT concat_ws(' ', e ->> 'kind', e -> 'member' ->> 'name', CASE e ->> 'kind' WHEN 'membership' THEN e -> 'object' ->> 'name' END),
           ARRAY(SELECT c ->> 'service' FROM jsonb_array_elements(e -> 'claims') AS c ORDER BY 1)
      FROM pg_db_role_setting AS s
      JOIN pg_roles AS r ON r.oid = s.setrole AND r.rolname = 'keywright_grantor'
     CROSS JOIN unnest(s.setconfig) AS setting
     CROSS JOIN jsonb_array_elements(substr(setting, length('keywright_ledger.entries=') + 1)::jsonb -> 'entries') AS e
     WHERE starts_with(setting, 'keywright_ledger.entries=')";

/// The same as the catalog has it. Nobody but keywright grants these anything.
const GRANTED: &str = "
    SELECT 'membership ' || m.member::regrole || ' ' || m.roleid::regrole FROM pg_auth_members AS m
     WHERE starts_with(m.member::regrole::text, 'login_')
    UNION ALL
    SELECT 'noinherit ' || r.rolname FROM pg_roles AS r WHERE starts_with(r.rolname, 'login_') AND NOT r.rolinherit
    UNION ALL
    SELECT 'connect ' || a.grantee::regrole FROM pg_database AS d CROSS JOIN aclexplode(d.datacl) AS a
     WHERE d.datname = current_database() AND a.privilege_type = 'CONNECT' AND starts_with(a.grantee::regrole::text, 'login_')";

/// Tables, ledger and catalog say the same, and what the clients were told.
fn check_authenticators(client: &mut Client, journals: &[Journal], there: &BTreeMap<String, String>) {
    let mut services = BTreeMap::new();
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (service, login, role) in journals.iter().flat_map(Journal::services) {
        let wanted = [
            format!("membership {login} web_{role}"),
            format!("noinherit {login}"),
            format!("connect {login}"),
        ];
        for need in wanted {
            needs.entry(need).or_default().insert(service.clone());
        }
        services.insert(service, format!("web_{role}"));
    }
    assert_eq!(*there, services, "services");
    let ledger: BTreeMap<String, BTreeSet<String>> = client
        .query(LEDGER, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get::<_, Vec<String>>(1).into_iter().collect()))
        .collect();
    assert_eq!(ledger, needs, "ledger");
    let granted: Vec<String> = client.query(GRANTED, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(granted.len(), needs.len(), "granted: {granted:?}");
    assert_eq!(granted.iter().collect::<BTreeSet<_>>(), needs.keys().collect(), "granted");
    let grantor: bool =
        one(client, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'keywright_grantor')");
    assert_eq!(grantor, !needs.is_empty(), "keywright_grantor");
    if environment("PG_VERSION") != "15" {
        // It may grant what it granted, and nothing more; and everything was granted by it.
        let spare: i64 = one(
            client,
            "SELECT count(*) FROM pg_auth_members AS m WHERE CASE m.member::regrole::text
                WHEN 'keywright_grantor' THEN NOT m.admin_option OR m.inherit_option OR m.set_option OR NOT EXISTS (
                     SELECT FROM pg_auth_members AS o WHERE o.roleid = m.roleid AND o.grantor = m.member)
                ELSE starts_with(m.member::regrole::text, 'login_')
                     AND (m.grantor::regrole::text <> 'keywright_grantor' OR m.admin_option OR m.inherit_option OR NOT m.set_option) END",
        );
        assert_eq!(spare, 0, "memberships of keywright_grantor");
    }
    for function in ["authenticator_status", "reconcile_authenticators"] {
        let rows = client.query(&format!("SELECT t::text FROM keywright.{function}() AS t"), &[]).unwrap();
        assert!(
            rows.is_empty(),
            "{function}: {:?}",
            rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
        );
    }
}

/// States in which no call leaves a row.
const IMPOSSIBLE: &str = "
    SELECT 'half superseded: ' || key_id FROM keywright.api_keys WHERE (superseded_at IS NULL) <> (superseded_by IS NULL)
    UNION ALL
    SELECT 'successor of another: ' || o.key_id FROM keywright.api_keys AS o LEFT JOIN keywright.api_keys AS n ON n.key_id = o.superseded_by
     WHERE o.superseded_by IS NOT NULL AND (n.user_id, n.name) IS DISTINCT FROM (o.user_id, o.name)
    UNION ALL
    SELECT 'successor of two: ' || superseded_by FROM keywright.api_keys WHERE superseded_by IS NOT NULL GROUP BY superseded_by HAVING count(*) > 1
    UNION ALL
    SELECT 'no such owner: ' || key_id FROM keywright.api_keys AS k WHERE NOT EXISTS (SELECT FROM keywright.users AS u WHERE u.user_id = k.user_id)
    UNION ALL
    SELECT 'of a deleted owner: ' || key_id FROM keywright.api_keys AS k JOIN keywright.users AS u USING (user_id)
     WHERE u.deleted_at IS NOT NULL AND k.revoked_at IS NULL
    UNION ALL
    SELECT 'malformed: ' || key_id FROM keywright.api_keys
     WHERE octet_length(hashed_secret) <> 32 OR created_at > clock_timestamp() OR revoked_at > clock_timestamp() OR superseded_at > clock_timestamp()
    UNION ALL
    SELECT 'events of another story: ' || coalesce(k.key_id, e.id)
      FROM keywright.api_keys AS k
      FULL JOIN (SELECT id, array_agg(event ORDER BY event) AS events FROM keywright.audit_events WHERE kind = 'api_key' GROUP BY id) AS e
             ON e.id = k.key_id
     WHERE e.events IS DISTINCT FROM array_remove(ARRAY['minted', CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' END,
                                                        CASE WHEN k.superseded_at IS NOT NULL THEN 'superseded' END], NULL)
        OR k.key_id IS NULL
    UNION ALL
    SELECT 'usage without a key: ' || u.key_id FROM keywright.api_key_usage AS u
     WHERE NOT EXISTS (SELECT FROM keywright.api_keys AS k WHERE k.key_id = u.key_id)
    UNION ALL
    SELECT 'binding of a deleted user: ' || b.binding_id FROM keywright.role_bindings AS b JOIN keywright.users AS u USING (user_id) WHERE u.deleted_at IS NOT NULL";

/// The launcher is up, and what was verified since the crash gets into the table.
fn check_worker(client: &mut Client, journals: &[Journal], since: &str) {
    wait_for(
        client,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'keywright usage launcher'",
    );
    let presented: Vec<&str> = journals
        .iter()
        .flat_map(|journal| &journal.keys)
        .filter(|key| key.token.is_some())
        .map(|key| key.id.as_str())
        .collect();
    let sql = "SELECT count(*) FROM unnest($1::text[]) AS n (key_id)
                WHERE NOT EXISTS (SELECT FROM keywright.api_key_usage AS u
                                   WHERE u.key_id = n.key_id AND u.last_presented_at >= $2::text::timestamptz)";
    until("usage is written", || client.query_one(sql, &[&presented, &since]).unwrap().get::<_, i64>(0) == 0);
}

/// Every table and index of every database, and that every row is in its indexes.
fn check_files(conninfo: &str) {
    let mut amcheck = program("pg_amcheck");
    amcheck.args([
        "--all",
        "--install-missing",
        "--heapallindexed",
        "--rootdescend",
        "--maintenance-db",
        conninfo,
    ]);
    if environment("PG_VERSION") != "15" {
        amcheck.arg("--checkunique");
    }
    let output = amcheck.output().unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "pg_amcheck: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What was done, for whoever runs this by hand with --nocapture.
fn report(title: &str, crashes: usize, journals: &[Journal]) {
    let mut told: BTreeMap<&str, u64> = BTreeMap::new();
    let mut unanswered = [0; 2];
    for journal in journals {
        for (call, times) in &journal.told {
            *told.entry(call).or_default() += times;
        }
        (0..2).for_each(|which| unanswered[which] += journal.unanswered_that[which]);
    }
    let mut line = format!("{title}: {crashes} crashes; told {}", told.values().sum::<u64>());
    for (call, times) in told {
        _ = write!(line, ", {call} {times}");
    }
    eprintln!("{line}; unanswered that had happened {}, that had not {}", unanswered[0], unanswered[1]);
}

/// Nobody, no process of the server either, has met what should never be.
fn assert_no_bug(log: &str) {
    let bugs: Vec<&str> = log.lines().filter(|line| line.contains(":XX")).collect();
    assert!(bugs.is_empty(), "{bugs:?}");
}

// The whole tree, and a single process

fn postmaster(cluster: &Cluster) -> String {
    let file = fs::read_to_string(cluster.file("postmaster.pid")).unwrap();
    file.lines().next().unwrap().to_owned()
}

/// The parent of a process that is there.
fn parent(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1).map(String::from)
}

fn children(parent: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    all.filter(|pid| self::parent(pid).as_deref() == Some(parent)).collect()
}

/// Stopped first, so that it starts nobody whom nobody kills.
fn kill_tree(postmaster: &str) {
    succeed(Command::new("kill").args(["-STOP", postmaster]));
    let mut tree = children(postmaster);
    assert!(tree.len() > CLIENTS, "clients and workers: {tree:?}");
    tree.insert(0, postmaster.into());
    // One that has ended meanwhile does not matter.
    _ = Command::new("kill").arg("-KILL").args(&tree).output().unwrap();
    until("all are dead", || tree.iter().all(|pid| parent(pid).is_none()));
}

/// From 0.3 to 2 seconds.
fn random_moment(chance: &mut Chance) {
    thread::sleep(Duration::from_millis(300 + chance.below(1700) as u64));
}

/// What clients see when their server is gone, or before.
fn assert_cut_off(storm: &Storm, before: &[&str]) {
    let cut_off = ["08006", "57P01", "57P02", "57P03"];
    let codes = storm.codes.lock().unwrap();
    assert!(codes.iter().all(|code| [&cut_off, before].concat().contains(&code.as_str())), "{codes:?}");
}

#[test]
fn the_whole_server_is_killed() {
    let seed = Chance::seed();
    let cluster = Cluster::new(5631, SETTINGS);
    prepare(&mut cluster.connect("postgres"));
    let mut journals = Journal::all();
    for cycle in 0..cycles() {
        let seed = seed.wrapping_add(cycle as u64);
        let storm = Storm::rage(
            &mut journals,
            || cluster.connect("postgres"),
            seed,
            |_| {
                random_moment(&mut Chance::new(seed, CLIENTS));
                kill_tree(&postmaster(&cluster));
            },
        );
        assert_cut_off(&storm, &[]);
        cluster.start();
        check(&mut cluster.connect("postgres"), &cluster.conninfo("postgres"), &mut journals);
    }
    assert_no_bug(&cluster.log());
    report("whole server", cycles(), &journals);
    assert!(journals.iter().all(|journal| !journal.told.is_empty()));
}

#[test]
fn one_process_is_killed() {
    let seed = Chance::seed();
    let cluster = Cluster::new(5632, SETTINGS);
    prepare(&mut cluster.connect("postgres"));
    let mut journals = Journal::all();
    let before = postmaster(&cluster);
    for cycle in 0..cycles() {
        let seed = seed.wrapping_add(cycle as u64);
        let mut watcher = cluster.connect("postgres");
        // The first time keywright's own process, then a client's.
        let victims = match cycle {
            0 => "backend_type = 'keywright usage launcher'",
            _ => "backend_type = 'client backend' AND pid <> pg_backend_pid()",
        };
        let sql = format!("SELECT pid::text FROM pg_stat_activity WHERE {victims} ORDER BY pid");
        let storm = Storm::rage(
            &mut journals,
            || cluster.connect("postgres"),
            seed,
            |_| {
                let mut chance = Chance::new(seed, CLIENTS);
                random_moment(&mut chance);
                let pids: Vec<String> =
                    watcher.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
                succeed(Command::new("kill").args(["-KILL", &pids[chance.below(pids.len())]]));
                // Everybody else is sent away too.
                until("the watcher is cut off", || watcher.is_valid(Duration::from_secs(1)).is_err());
            },
        );
        assert_cut_off(&storm, &[]);
        until("the server is back", || cluster.try_connect("postgres").is_ok());
        assert_eq!(postmaster(&cluster), before, "the same server");
        check(&mut cluster.connect("postgres"), &cluster.conninfo("postgres"), &mut journals);
    }
    assert_no_bug(&cluster.log());
    report("one process", cycles(), &journals);
}

// A full disk

/// A cluster on two small file systems, one for the write-ahead log and one for the rest. They are mounted where only it and
/// a shell see them, and are gone with it.
struct SmallDisks {
    place: PathBuf,
    port: u16,
    shell: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What makes a command of the shell one of whoever runs the servers: never root.
    lend: String,
}

impl SmallDisks {
    fn new(port: u16) -> SmallDisks {
        let place = PathBuf::from(environment("PG_SERVER_LOG")).with_file_name(format!("port{port}"));
        let (mut enter, lend) = namespace();
        for mount in ["data", "wal"] {
            fs::create_dir_all(place.join(mount)).unwrap();
        }
        let mut shell = enter.arg("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = shell.stdin.take().unwrap();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        let mut disks = SmallDisks { place, port, shell, commands, answers, lend };
        disks.must(&format!("cd '{}'", disks.place.display()));
        disks.must("mount -t tmpfs -o size=80m,mode=1777 keywright data");
        disks.must("mount -t tmpfs -o size=40m,mode=1777 keywright wal");
        let initdb = "--username postgres --auth trust --no-locale --encoding UTF8 --no-sync";
        disks.must(&disks.lent(
            "initdb",
            &format!("{initdb} --pgdata data/pg --waldir '{}/wal/pg'", disks.place.display()),
        ));
        disks.start();
        disks
    }

    /// A program of the server in the shell.
    fn lent(&self, name: &str, arguments: &str) -> String {
        format!("{} '{}/{name}' {arguments}", self.lend, environment("PG_BINDIR"))
    }

    /// Runs a command in the shell; true if it ended well.
    fn run(&mut self, command: &str) -> bool {
        writeln!(self.commands, "{{ {command}; }} </dev/null >>'{}' 2>&1; echo $?", self.log_of("shell"))
            .unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer == "0\n"
    }

    fn must(&mut self, command: &str) {
        let done = self.run(command);
        assert!(done, "{command}: {}", fs::read_to_string(self.log_of("shell")).unwrap_or_default());
    }

    /// Beside the small disks, not on them.
    fn log_of(&self, whom: &str) -> String {
        self.place.with_extension(whom).to_str().unwrap().into()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_of("log")).unwrap()
    }

    fn start_command(&self) -> String {
        let settings = format!(
            "-c port={} -c listen_addresses= -c unix_socket_permissions=0700 -c unix_socket_directories={} \
             -c min_wal_size=32MB -c max_wal_size=32MB {SETTINGS}",
            self.port,
            environment("PGHOST"),
        );
        let log = self.log_of("log");
        self.lent(
            "pg_ctl",
            &format!("--pgdata data/pg --log '{log}' --wait --silent --options '{settings}' start"),
        )
    }

    fn start(&mut self) {
        self.must(&self.start_command());
    }

    /// Nothing more can be written on it.
    fn fill(&mut self, mount: &str) {
        assert!(!self.run(&format!("cat /dev/zero >>{mount}/ballast")), "{mount} takes everything");
    }

    fn free(&mut self, mount: &str) {
        self.must(&format!("rm {mount}/ballast"));
    }

    fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", environment("PGHOST"), self.port)
    }

    fn connect(&self) -> Client {
        Client::connect(&self.conninfo(), NoTls).unwrap()
    }
}

impl Drop for SmallDisks {
    fn drop(&mut self) {
        let stop = self.lent("pg_ctl", "--pgdata data/pg --mode immediate --silent stop");
        _ = writeln!(self.commands, "{stop} >/dev/null 2>&1; exit");
        _ = self.shell.wait();
        _ = fs::remove_dir_all(&self.place);
    }
}

/// A way to a place where file systems can be mounted, and from there to whoever runs the servers.
fn namespace() -> (Command, String) {
    let id = |what: &str| String::from_utf8(succeed(Command::new("id").arg(what))).unwrap().trim().to_owned();
    let (user, group, name) = (id("-u"), id("-g"), id("-un"));
    let ways: [(&[&str], String); 3] = [
        (&["unshare", "--mount"], "runuser -u postgres --".into()),
        (
            &["unshare", "--user", "--map-root-user", "--mount"],
            format!("unshare --user --map-user={user} --map-group={group}"),
        ),
        (&["sudo", "-n", "unshare", "--mount"], format!("runuser -u {name} --")),
    ];
    let mut said = String::new();
    for (way, lend) in ways.into_iter().skip(usize::from(user != "0")) {
        let command = || {
            let mut command = Command::new(way[0]);
            command.args(&way[1..]);
            command
        };
        let mount = "mount -t tmpfs -o size=1m keywright /mnt";
        match command().args(["sh", "-c", &format!("{mount} && {lend} true")]).output() {
            Ok(output) if output.status.success() => return (command(), lend),
            Ok(output) => _ = writeln!(said, "{way:?}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => _ = writeln!(said, "{way:?}: {error}"),
        }
    }
    panic!(
        "This test mounts a small file system. Run it as root, where user namespaces may mount, or where sudo asks for no \
         password:\n{said}"
    );
}

#[test]
fn the_disk_is_full() {
    const STEADY: i64 = 500;
    let seed = Chance::seed();
    let mut disks = SmallDisks::new(5633);
    let mut client = disks.connect();
    prepare(&mut client);
    client.batch_execute("SELECT keywright.ensure_user('steady', '', 'service')").unwrap();
    // Nobody has used these yet: to write that they were used takes room.
    let mint = format!(
        "SELECT k.key_id, k.token FROM generate_series(1, {STEADY}) AS n, keywright.mint_api_key('steady', 'k-' || n) AS k"
    );
    let (ids, tokens): (Vec<String>, Vec<String>) =
        client.query(&mint, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).unzip();
    client.execute("SELECT keywright.revoke_api_key($1)", &[&ids[0]]).unwrap();
    let verify = "SELECT count(*) FILTER (WHERE v.active), count(*) FROM unnest($1::text[]) AS t (token), keywright.verify_api_key(t.token) AS v";
    let written = "SELECT count(*) FROM keywright.api_key_usage WHERE key_id = ANY ($1)";
    let mut journals = Journal::all();

    // No room for tables: nothing can be changed any more, and whoever has changed nothing does not notice.
    let conninfo = disks.conninfo();
    let connect = || Client::connect(&conninfo, NoTls).unwrap();
    let log = disks.log_of("log");
    let storm = Storm::rage(&mut journals, connect, seed, |storm| {
        until("everybody was told something", || Storm::everybody(&storm.told));
        disks.fill("data");
        until("everybody was refused", || Storm::everybody(&storm.refused));
        // Also what was given back meanwhile.
        disks.fill("data");
        let before = storm.verified.load(Ordering::Relaxed);
        for client in [&mut client, &mut connect()] {
            let row = client.query_one(verify, &[&tokens]).unwrap();
            assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (STEADY - 1, STEADY));
        }
        until("the storm verifies", || storm.verified.load(Ordering::Relaxed) > before + 100);
        // keywright's own process can not write either, says so, and comes back: twice, to be sure.
        let failed = || {
            let log = fs::read_to_string(&log).unwrap();
            log.lines().filter(|line| line.starts_with("keywright usage flush:53100:")).count()
        };
        until("usage was refused", || failed() >= 2);
    });
    assert_eq!(*storm.codes.lock().unwrap(), BTreeSet::from(["53100".into()]));
    assert!(client.query_one(written, &[&ids]).unwrap().get::<_, i64>(0) < STEADY, "what was refused");
    disks.free("data");
    check(&mut disks.connect(), &conninfo, &mut journals);
    until("usage is written", || client.query_one(written, &[&ids]).unwrap().get::<_, i64>(0) == STEADY);
    // This session began before all that: no process has taken the server down.
    assert!(!disks.log().contains("terminating any other active server processes"), "{}", disks.log());
    drop(client);

    // No room for the write-ahead log: Postgres gives up, and may not even come back by itself.
    let storm = Storm::rage(&mut journals, connect, seed.wrapping_add(1), |storm| {
        until("everybody was told something", || Storm::everybody(&storm.told));
        disks.fill("wal");
        until("the server gives up", || disks.log().contains(":53100:PANIC:"));
        until("everybody is cut off", || storm.codes.lock().unwrap().contains("08006"));
    });
    assert_cut_off(&storm, &["53100"]);
    disks.free("wal");
    let start = disks.start_command();
    until("the server is back", || {
        disks.run(&start);
        Client::connect(&conninfo, NoTls).is_ok()
    });
    check(&mut disks.connect(), &conninfo, &mut journals);
    let row = disks.connect().query_one(verify, &[&tokens]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (STEADY - 1, STEADY));
    assert_no_bug(&disks.log());
    report("full disk", 1, &journals);
}
