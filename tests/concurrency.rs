//! Any number of parallel callers: one winner, nobody with an error or a dead token.

use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use keywright_tests::{CALLERS, Database, Ensured, behind_a_lock, ensure, in_parallel, is_active, one};

fn outcomes(results: &[Ensured], outcome: &str) -> usize {
    results.iter().filter(|result| result.outcome == outcome).count()
}

/// One of them has the only live token, the others have none and know why.
fn one_winner(database: &Database, results: &[Ensured], outcome: &str, live: &str) {
    let mut client = database.connect();
    assert_eq!(outcomes(results, outcome), 1, "{results:?}");
    assert_eq!(outcomes(results, "concurrent"), CALLERS - 1, "{results:?}");
    let tokens: Vec<&String> = results.iter().filter_map(|result| result.token.as_ref()).collect();
    assert_eq!(tokens.len(), 1);
    assert!(is_active(&mut client, tokens[0]));
    assert_eq!(one::<i64>(&mut client, live), 1, "live keys");
}

const LIVE_API_KEYS: &str = "SELECT count(*) FROM keywright.list_api_keys('bot')";
const LIVE_GATEWAY_KEYS: &str = "SELECT count(*) FROM keywright.list_gateway_keys()";

#[test]
fn sixteen_callers_with_the_same_stale_token_end_with_one_live_key() {
    let database = Database::new("stale_token");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_system_user('bot')").unwrap();
    for round in 0..5 {
        let stale = ensure(&mut client, "keywright.ensure_api_key('bot', 'ci')").token.unwrap();
        client.batch_execute("SELECT keywright.revoke_user_api_keys('bot')").unwrap();
        // What the last round left behind makes no difference: with and without a key that holds the name.
        if round % 2 == 0 {
            client.batch_execute("SELECT keywright.mint_api_key('bot', 'ci')").unwrap();
        }
        let lock = "SELECT FROM keywright.users FOR UPDATE";
        let results = behind_a_lock(&database, lock, |client, _| {
            ensure(client, &format!("keywright.ensure_api_key('bot', 'ci', '{stale}')"))
        });
        one_winner(&database, &results, "rotated", LIVE_API_KEYS);
        // The winner died before it stored its token: the next call heals that.
        let healed = ensure(&mut client, &format!("keywright.ensure_api_key('bot', 'ci', '{stale}')"));
        assert_eq!((healed.outcome.as_str(), healed.reason.as_deref()), ("rotated", Some("revoked")));
        assert!(is_active(&mut client, &healed.token.unwrap()));
        assert_eq!(one::<i64>(&mut client, LIVE_API_KEYS), 1);
    }
}

#[test]
fn sixteen_first_callers_end_with_one_key() {
    let database = Database::new("first_callers");
    database.connect().batch_execute("SELECT keywright.ensure_system_user('bot')").unwrap();
    let results = behind_a_lock(&database, "SELECT FROM keywright.users FOR UPDATE", |client, _| {
        ensure(client, "keywright.ensure_api_key('bot', 'ci')")
    });
    one_winner(&database, &results, "minted", LIVE_API_KEYS);
}

#[test]
fn sixteen_unsynchronized_callers_leave_one_live_key_and_it_is_in_somebodys_hand() {
    let database = Database::new("free_running");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_system_user('bot')").unwrap();
    for _ in 0..10 {
        let results =
            in_parallel(&database, |client, _| ensure(client, "keywright.ensure_api_key('bot', 'ci')"));
        let live: Vec<&String> = results
            .iter()
            .filter_map(|result| result.token.as_ref())
            .filter(|token| is_active(&mut client, token))
            .collect();
        assert_eq!(live.len(), 1, "{results:?}");
        assert_eq!(one::<i64>(&mut client, LIVE_API_KEYS), 1);
    }
}

#[test]
fn sixteen_callers_that_hold_the_good_token_keep_it() {
    let database = Database::new("good_token");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_system_user('bot')").unwrap();
    let good = ensure(&mut client, "keywright.ensure_api_key('bot', 'ci')").token.unwrap();
    let results = in_parallel(&database, |client, _| {
        ensure(client, &format!("keywright.ensure_api_key('bot', 'ci', '{good}')"))
    });
    assert_eq!(outcomes(&results, "kept"), CALLERS);
    assert!(is_active(&mut client, &good));
}

#[test]
fn sixteen_gateways_end_with_one_key() {
    let database = Database::new("gateways");
    let mut client = database.connect();
    let stale = ensure(&mut client, "keywright.ensure_gateway_key('edge')").token.unwrap();
    ensure(&mut client, "keywright.ensure_gateway_key('edge')");
    let results = behind_a_lock(&database, "SELECT FROM keywright.gateway_keys FOR UPDATE", |client, _| {
        ensure(client, &format!("keywright.ensure_gateway_key('edge', '{stale}')"))
    });
    one_winner(&database, &results, "rotated", LIVE_GATEWAY_KEYS);
}

#[test]
fn sixteen_mints_of_one_name_end_with_one_key_and_fifteen_named_refusals() {
    let database = Database::new("mints");
    database.connect().batch_execute("SELECT keywright.ensure_system_user('bot')").unwrap();
    for (sql, constraint) in [
        ("SELECT token FROM keywright.mint_api_key('bot', 'ci')", "api_keys_name_idx"),
        ("SELECT token FROM keywright.mint_gateway_key('edge')", "gateway_keys_name_idx"),
    ] {
        let results = in_parallel(&database, |client, _| client.query_one(sql, &[]));
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            let error = error.as_db_error().unwrap();
            assert_eq!((error.code().code(), error.constraint()), ("23505", Some(constraint)));
        }
    }
}

#[test]
fn sixteen_ensured_users_all_succeed() {
    let database = Database::new("users");
    for round in 0..10 {
        let sql = format!("SELECT outcome FROM keywright.ensure_system_user('bot-{round}')");
        let results: Vec<String> = in_parallel(&database, |client, _| one(client, &sql));
        assert_eq!(results.iter().filter(|outcome| *outcome == "created").count(), 1, "{results:?}");
        assert_eq!(
            results.iter().filter(|outcome| *outcome == "unchanged").count(),
            CALLERS - 1,
            "{results:?}"
        );
    }
}

#[test]
fn sixteen_grants_all_succeed() {
    let database = Database::new("grants");
    let mut client = database.connect();
    for number in 0..CALLERS {
        _ = client.batch_execute(&format!("CREATE ROLE keywright_test_grants_{number}"));
    }
    for _ in 0..5 {
        in_parallel(&database, |client, number| {
            let same =
                one::<String>(client, "SELECT keywright.grant_access('keywright_test_grants_0', 'admin')");
            assert!(["created", "unchanged"].contains(&same.as_str()), "{same}");
            let own = format!("SELECT keywright.grant_access('keywright_test_grants_{number}', 'verifier')");
            one::<String>(client, &own);
        });
        assert_eq!(
            one::<i64>(&mut client, "SELECT count(*) FROM keywright.list_access()"),
            CALLERS as i64 + 1
        );
        in_parallel(&database, |client, number| {
            let own = format!("SELECT keywright.revoke_access('keywright_test_grants_{number}', 'verifier')");
            assert!(one::<bool>(client, &own));
            one::<bool>(client, "SELECT keywright.revoke_access('keywright_test_grants_0', 'admin')");
        });
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.access_status()"), 0);
    }
    for number in 0..CALLERS {
        client.batch_execute(&format!("DROP ROLE keywright_test_grants_{number}")).unwrap();
    }
}

#[test]
fn gateway_keys_under_every_kind_of_change_at_once_never_deadlock() {
    let database = Database::new("gateway_storm");
    let results = in_parallel(&database, |client, number| {
        let calls = [
            "SELECT keywright.ensure_gateway_key('edge')",
            "SELECT keywright.delete_gateway_key('edge')",
            "SELECT keywright.rotate_gateway_key('edge', '20 milliseconds')",
            "SELECT keywright.purge_gateway_keys()",
        ];
        let mut codes = Vec::new();
        for _ in 0..15 {
            if let Err(error) = client.batch_execute(calls[number % calls.len()]) {
                codes.push(error.as_db_error().unwrap().code().code().to_owned());
            }
        }
        codes
    });
    // Rotating what is just gone is an honest answer.
    assert!(results.iter().flatten().all(|code| code == "42704"), "{results:?}");
    assert!(one::<i64>(&mut database.connect(), LIVE_GATEWAY_KEYS) <= 16);
}

#[test]
fn grants_by_hand_at_the_same_moment_reach_nobody_as_an_internal_error() {
    let database = Database::new("grants_by_hand");
    let role = "keywright_test_by_hand";
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS {role}, {role}_2; CREATE ROLE {role}; CREATE ROLE {role}_2"
        ))
        .unwrap();
    let results = in_parallel(&database, |client, number| {
        let mut codes = Vec::new();
        for _ in 0..30 {
            let sql = match number % 4 {
                0 => format!("GRANT EXECUTE ON FUNCTION keywright.verify_api_key(text) TO {role}_2"),
                1 => format!("SELECT keywright.revoke_access('{role}', 'verifier')"),
                _ => format!("SELECT keywright.grant_access('{role}', 'verifier')"),
            };
            if let Err(error) = client.batch_execute(&sql)
                && number % 4 != 0
            {
                codes.push(error.as_db_error().unwrap().code().code().to_owned());
            }
        }
        codes
    });
    assert!(results.iter().all(Vec::is_empty), "{results:?}");
    client
        .batch_execute(&format!("SELECT keywright.revoke_access('{role}', 'verifier'); DROP OWNED BY {role}, {role}_2; DROP ROLE {role}, {role}_2"))
        .unwrap();
}

/// Whoever is second is refused by name, whatever the order of its names, and nobody is told of a deadlock.
#[test]
fn mints_of_the_same_names_in_another_order_do_not_deadlock() {
    let database = Database::new("many_names");
    database.connect().batch_execute("SELECT keywright.ensure_user('ada', '', 'service')").unwrap();
    for round in 0..4 {
        let ends = in_parallel(&database, |client, number| {
            let order = if number % 2 == 0 { "ASC" } else { "DESC" };
            let sql = format!(
                "SELECT count(*) FROM keywright.mint_api_keys(array_fill('ada'::text, '{{1000}}'),
                   ARRAY(SELECT 'r{round}-' || n FROM generate_series(1, 1000) AS n ORDER BY n {order}), lifetime => '1 hour')"
            );
            client.batch_execute(&sql).map_err(|error| error.code().unwrap().code().to_owned())
        });
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "{ends:?}");
        assert!(ends.iter().all(|end| end.as_ref().err().is_none_or(|code| code == "23505")), "{ends:?}");
    }
    // Names of keys that have expired go to a successor in the same order.
    database
        .connect()
        .batch_execute("UPDATE keywright.api_keys SET expires_at = clock_timestamp() WHERE name LIKE 'r0-%'")
        .unwrap();
    let ends = in_parallel(&database, |client, number| {
        let order = if number % 2 == 0 { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT count(*) FROM keywright.mint_api_keys(array_fill('ada'::text, '{{1000}}'),
               ARRAY(SELECT 'r0-' || n FROM generate_series(1, 1000) AS n ORDER BY n {order}))"
        );
        client.batch_execute(&sql).map_err(|error| error.code().unwrap().code().to_owned())
    });
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "{ends:?}");
    assert!(ends.iter().all(|end| end.as_ref().err().is_none_or(|code| code == "23505")), "{ends:?}");
}

/// Single calls that end many bindings or keys at once, each in an order of its own choice, would wait for each other.
#[test]
fn single_calls_that_end_many_rows_do_not_deadlock() {
    let database = Database::new("one_order");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE public.docs (id int PRIMARY KEY);
             SELECT keywright.register_resource_type('doc');
             SELECT keywright.track_table('public.docs', 'doc')",
        )
        .unwrap();
    let ended = |sql: &str, client: &mut postgres::Client| match client.batch_execute(sql) {
        Ok(()) => String::new(),
        Err(error) => error.as_db_error().map_or(error.to_string(), |error| error.code().code().to_owned()),
    };
    for _ in 0..6 {
        client
            .batch_execute(
                "INSERT INTO public.docs SELECT generate_series(1, 60);
                 SELECT keywright.ensure_user('u' || n, '') FROM generate_series(1, 60) AS n;
                 SELECT keywright.ensure_resource('organization', 'o' || n) FROM generate_series(1, 4) AS n;
                 SELECT keywright.ensure_resource('project', 'p' || n, 'o' || 1 + n % 4) FROM generate_series(1, 60) AS n;
                 SELECT keywright.bind_role('u' || n, 'auditor', 'doc', m::text) FROM generate_series(1, 60) AS n, generate_series(1, 60) AS m
                  ORDER BY random() LIMIT 1200;
                 SELECT keywright.bind_role('u' || n, 'auditor', 'project', 'p' || m) FROM generate_series(1, 60) AS n, generate_series(1, 60) AS m
                  ORDER BY random() LIMIT 1200;
                 SELECT count(*) FROM keywright.apply((SELECT jsonb_build_object('manager', 'm', 'api_keys', jsonb_agg(
                          jsonb_build_object('username', 'u' || n, 'name', 'k' || k) ORDER BY random())) FROM generate_series(1, 60) AS n, generate_series(1, 5) AS k))",
            )
            .unwrap();
        let results = in_parallel(&database, |client, number| {
            let mut codes = Vec::new();
            for step in 0..15 {
                let at = 1 + (step * 4 + number) % 60;
                let sql = match number % 5 {
                    0 => format!("SELECT keywright.delete_user('u{at}')"),
                    1 if step < 4 => {
                        format!("SELECT keywright.delete_resource('organization', 'o{}', true)", 1 + step)
                    }
                    1 => format!("SELECT keywright.delete_resource('project', 'p{at}')"),
                    2 => format!("DELETE FROM public.docs WHERE id % 15 = {step}"),
                    3 => r#"SELECT count(*) FROM keywright.apply('{"manager": "m", "prune": true}')"#
                        .to_owned(),
                    _ => format!("SELECT keywright.revoke_user_api_keys('u{at}')"),
                };
                codes.push(ended(&sql, client));
            }
            codes
        });
        let other: Vec<&String> =
            results.iter().flatten().filter(|code| !["", "42704"].contains(&code.as_str())).collect();
        assert!(other.is_empty(), "{other:?}");
    }
}

/// One caller's answer, by the clock of the clients.
struct Answer {
    sent: Instant,
    answered: Instant,
    token: Option<String>,
}

/// 24 callers are released together, in sessions that are there already. Who overlaps in time with the first to hold a token
/// never gets one that is dead by the end. KEYWRIGHT_STORM_ROUNDS says how often; 5 in the suite.
#[test]
fn a_storm_of_callers_leaves_no_overlapping_caller_with_a_dead_token() {
    const STORM: usize = 24;
    let rounds = std::env::var("KEYWRIGHT_STORM_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let database = Database::new("storm");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_system_user('bot')").unwrap();
    let calls = [
        "SELECT token FROM keywright.ensure_api_key('bot', 'ci')",
        "SELECT token FROM keywright.ensure_gateway_key('edge')",
        "SELECT token FROM keywright.ensure_operator_access('default', 'coder')",
        r#"SELECT max(token) FROM keywright.apply('{"manager": "plane", "users": [{"username": "bob", "kind": "system"}],
             "api_keys": [{"username": "bob", "name": "ci", "existing_token": null}]}'::jsonb)"#,
    ];
    // What is there once, such as the user, is no part of the race.
    for call in calls {
        assert!(one::<Option<String>>(&mut client, call).is_some());
    }
    let sessions: Vec<Mutex<postgres::Client>> = (0..STORM).map(|_| Mutex::new(database.connect())).collect();
    for call in calls {
        let mut overlapped = 0;
        for round in 0..rounds {
            let ready = Barrier::new(STORM);
            let answers: Vec<Answer> = thread::scope(|scope| {
                let threads: Vec<_> = sessions
                    .iter()
                    .map(|session| {
                        let ready = &ready;
                        scope.spawn(move || {
                            let mut session = session.lock().unwrap();
                            let statement = session.prepare(call).unwrap();
                            ready.wait();
                            let sent = Instant::now();
                            let token = session.query_one(&statement, &[]).unwrap().get(0);
                            Answer { sent, answered: Instant::now(), token }
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let held = answers.iter().filter(|answer| answer.token.is_some());
            let first = held.clone().min_by_key(|answer| answer.answered).expect("somebody has a token");
            let rivals: Vec<&Answer> = held
                .clone()
                .filter(|answer| !std::ptr::eq(*answer, first) && answer.sent < first.answered)
                .collect();
            for rival in &rivals {
                let [after_first, before_end] =
                    [rival.sent - first.sent.min(rival.sent), first.answered - rival.sent];
                eprintln!(
                    "{call}, round {round}: sent {after_first:?} after the first, {before_end:?} before its answer"
                );
            }
            assert!(rivals.is_empty(), "{call}, round {round}: {} more tokens", rivals.len());
            // Who was sent when the first had its answer is another call, and may have rotated.
            let last = held.max_by_key(|answer| answer.answered).unwrap();
            let overlap = answers.iter().all(|answer| answer.sent < first.answered);
            overlapped += usize::from(overlap);
            assert!(is_active(&mut client, last.token.as_ref().unwrap()), "{call}, round {round}");
        }
        assert!(overlapped > 0, "{call}: no round in which all overlapped");
    }
}

/// A loop waits for others once, not once a key.
#[test]
fn a_statement_that_makes_many_keys_waits_once() {
    let database = Database::new("many_in_one");
    let (mut client, _other) = (database.connect(), database.connect());
    client.batch_execute("SELECT keywright.ensure_system_user('bot')").unwrap();
    let began = Instant::now();
    let made: i64 = one(
        &mut client,
        "SELECT count(*) FROM generate_series(1, 300) AS n, LATERAL keywright.ensure_api_key('bot', 'k' || n) AS e WHERE e.outcome = 'minted'",
    );
    assert_eq!(made, 300);
    // 300 waits of a tenth of a second would be 30 seconds.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
