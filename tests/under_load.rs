//! Verification while its tables and indexes are rebuilt, moved, renamed, dropped and made anew: never a crash, never a wrong
//! answer. What is missing at the moment is an error that says so.

use keywright_tests::{Database, wait_for};
use postgres::Client;
use postgres::error::SqlState;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const VERIFY: &str = "SELECT active, username FROM keywright.verify_api_key($1)";

/// What a DBA may do to the tables at any time, each in a transaction of its own.
const MOVES: &[&str] = &[
    "REINDEX INDEX keywright.api_keys_pkey",
    "REINDEX INDEX CONCURRENTLY keywright.api_keys_pkey",
    "REINDEX TABLE CONCURRENTLY keywright.users",
    "REINDEX TABLE keywright.users",
    "VACUUM FULL keywright.users",
    "VACUUM FULL keywright.api_keys",
    "CLUSTER keywright.api_keys USING api_keys_pkey",
    "CREATE INDEX CONCURRENTLY another ON keywright.api_keys (key_id) WHERE revoked_at IS NOT NULL",
    "DROP INDEX CONCURRENTLY keywright.another",
    "VACUUM keywright.users",
    "ANALYZE keywright.api_keys",
];

/// After these, tables are empty for whoever has an older snapshot.
const REWRITES: &[&str] = &[
    "ALTER TABLE keywright.users ADD COLUMN extra float DEFAULT random()",
    "ALTER TABLE keywright.users DROP COLUMN extra",
    "ALTER TABLE keywright.api_keys ADD COLUMN extra uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE keywright.api_keys DROP COLUMN extra",
];

/// While these are under way, something is missing.
const GAPS: &[&str] = &[
    "ALTER TABLE keywright.api_keys RENAME TO moved",
    "ALTER TABLE keywright.moved RENAME TO api_keys",
    "ALTER INDEX keywright.users_pkey RENAME TO moved",
    "ALTER INDEX keywright.moved RENAME TO users_pkey",
    "ALTER TABLE keywright.api_keys DROP CONSTRAINT api_keys_pkey",
    "ALTER TABLE keywright.api_keys ADD CONSTRAINT api_keys_pkey PRIMARY KEY (key_id)",
    "ALTER SCHEMA keywright RENAME TO moved",
    "ALTER SCHEMA moved RENAME TO keywright",
];

fn mint(client: &mut Client, username: &str, name: &str) -> (String, String) {
    let sql = "SELECT key_id, token FROM keywright.mint_api_key($1, $2)";
    let row = client.query_one(sql, &[&username, &name]).unwrap();
    (row.get(0), row.get(1))
}

struct Load {
    /// Everybody has prepared: only then is anything moved.
    ready: Barrier,
    stop: AtomicBool,
    right: AtomicU64,
    missing: AtomicU64,
}

impl Load {
    /// Verifies a key that lives and one that does not, again and again.
    fn verify(&self, client: &mut Client, live: &str, dead: &str) {
        let statement = client.prepare(VERIFY).unwrap();
        self.ready.wait();
        while !self.stop.load(Ordering::Relaxed) {
            for (token, active) in [(live, true), (dead, false)] {
                match client.query_one(&statement, &[&token]) {
                    Ok(row) => {
                        assert_eq!(row.get::<_, bool>(0), active);
                        assert_eq!(row.get::<_, Option<&str>>(1), active.then_some("steady"));
                        self.right.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        // What a call finds missing, or what Postgres does before it is called.
                        let expected =
                            [&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, &SqlState::INVALID_SCHEMA_NAME];
                        assert!(error.code().is_some_and(|code| expected.contains(&code)), "{error:?}");
                        self.missing.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Suspends a user and activates it again: the verification that comes after knows.
    fn suspend(&self, writer: &mut Client, reader: &mut Client, token: &str) {
        let statement = reader.prepare(VERIFY).unwrap();
        self.ready.wait();
        while !self.stop.load(Ordering::Relaxed) {
            for (change, active) in [("suspend_user", false), ("activate_user", true)] {
                // A rebuilt index and a writer may deadlock, as with any table.
                let sql = format!("SELECT keywright.{change}('restless')");
                while let Err(error) = writer.execute(&sql, &[]) {
                    assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{error:?}");
                }
                let row = reader.query_one(&statement, &[&token]).unwrap();
                assert_eq!(row.get::<_, bool>(0), active, "after {change}");
                self.right.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn under(database: &Database, statements: &[&str], least: Duration, with_writers: bool) -> Load {
    let mut client = database.connect();
    let (_, live) = mint(&mut client, "steady", "live");
    let (id, dead) = mint(&mut client, "steady", "dead");
    let (_, restless) = mint(&mut client, "restless", "key");
    client.execute("SELECT keywright.revoke_api_key($1)", &[&id]).unwrap();
    let load = Load {
        ready: Barrier::new(4 + usize::from(with_writers)),
        stop: AtomicBool::new(false),
        right: AtomicU64::new(0),
        missing: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| load.verify(&mut database.connect(), &live, &dead));
        }
        if with_writers {
            scope.spawn(|| load.suspend(&mut database.connect(), &mut database.connect(), &restless));
        }
        load.ready.wait();
        let begun = Instant::now();
        while begun.elapsed() < least {
            for statement in statements {
                // VACUUM and CONCURRENTLY give way to what they meet, once in a while.
                let done = (0..20).any(|_| match client.batch_execute(statement) {
                    Ok(()) => true,
                    Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => false,
                    Err(error) => panic!("{statement}: {error:?}"),
                });
                assert!(done, "{statement}");
            }
        }
        load.stop.store(true, Ordering::Relaxed);
    });
    load
}

fn database(name: &str) -> Database {
    let database = Database::new(name);
    database
        .connect()
        .batch_execute(
            "SELECT keywright.ensure_user('steady', '', 'service'), keywright.ensure_user('restless', '', 'service')",
        )
        .unwrap();
    database
}

#[test]
fn rebuilt_and_moved_tables_are_found_and_the_answer_is_right() {
    let database = database("rebuilt");
    let load = under(&database, MOVES, Duration::from_secs(6), true);
    assert_eq!(load.missing.into_inner(), 0, "nothing was missing at any time");
    assert!(load.right.into_inner() > 1000);
}

#[test]
fn rewritten_tables_are_not_empty() {
    let database = database("rewritten");
    let load = under(&database, REWRITES, Duration::from_secs(3), false);
    assert_eq!(load.missing.into_inner(), 0, "nothing was missing at any time");
    assert!(load.right.into_inner() > 1000);
}

#[test]
fn what_is_missing_is_an_error_and_found_again() {
    let database = database("missing");
    let load = under(&database, GAPS, Duration::from_secs(3), false);
    assert!(load.missing.into_inner() > 0, "something was missing for a while");
    assert!(load.right.into_inner() > 1000);
}

/// Nothing that was remembered of the old extension is believed of the new one.
#[test]
fn the_extension_is_dropped_and_made_anew_under_a_session_that_verified() {
    let database = database("anew");
    let (mut session, mut admin) = (database.connect(), database.connect());
    for round in 0..3 {
        let (_, token) = mint(&mut admin, "steady", "key");
        let active = |session: &mut Client, token: &str| -> bool {
            session.query_one("SELECT (keywright.verify_api_key($1)).active", &[&token]).unwrap().get(0)
        };
        assert!(active(&mut session, &token), "round {round}");
        admin
            .batch_execute(
                "DROP EXTENSION keywright; CREATE EXTENSION keywright;
                 SELECT keywright.ensure_user('steady', '', 'service')",
            )
            .unwrap();
        assert!(!active(&mut session, &token), "round {round}: the old key");
    }
}

/// Another table of the same name, whose columns are others, is not read.
#[test]
fn a_table_of_other_columns_is_refused() {
    let database = database("other_columns");
    let (mut session, mut admin) = (database.connect(), database.connect());
    let (_, token) = mint(&mut admin, "steady", "key");
    session.query_one(VERIFY, &[&token]).unwrap();
    admin
        .batch_execute(
            "ALTER TABLE keywright.api_keys RENAME TO moved;
             CREATE TABLE keywright.api_keys (key_id text COLLATE \"C\", user_id int, name int, hashed_secret int,
               expires_at int, revoked_at int, scopes int, allow_list int);
             ALTER INDEX keywright.api_keys_pkey RENAME TO moved_pkey;
             CREATE UNIQUE INDEX api_keys_pkey ON keywright.api_keys (key_id);
             INSERT INTO keywright.api_keys SELECT key_id, 1, 1, 1, 1, 1, 1, 1 FROM keywright.moved",
        )
        .unwrap();
    let error = session.query_one(VERIFY, &[&token]).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{error:?}");
}

/// A lock on what verification reads is gone with the call, also in a long transaction.
#[test]
fn a_long_transaction_that_verified_holds_up_nobody() {
    let database = database("long");
    let (mut session, mut admin) = (database.connect(), database.connect());
    let (_, token) = mint(&mut admin, "steady", "key");
    let mut transaction = session.transaction().unwrap();
    for _ in 0..3 {
        transaction.query_one(VERIFY, &[&token]).unwrap();
    }
    for statement in
        ["SET lock_timeout = '2s'", "VACUUM FULL keywright.api_keys", "VACUUM FULL keywright.users"]
    {
        admin.batch_execute(statement).unwrap();
    }
    assert!(transaction.query_one(VERIFY, &[&token]).unwrap().get::<_, bool>(0));
}

/// A session remembers where an owner's row was. Another one that stands there now is not taken for it.
#[test]
fn another_owner_in_the_same_place_is_not_taken_for_the_first() {
    let database = database("same_place");
    let (mut session, mut admin) = (database.connect(), database.connect());
    let (_, token) = mint(&mut admin, "steady", "key");
    let place = |admin: &mut Client, username: &str| -> String {
        let sql = "SELECT ctid::text FROM keywright.users WHERE username = $1";
        admin.query_one(sql, &[&username]).unwrap().get(0)
    };
    let owner = |session: &mut Client| -> (bool, Option<String>) {
        let row = session.query_one(VERIFY, &[&token]).unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!(owner(&mut session), (true, Some("steady".into())));
    let first = place(&mut admin, "steady");
    for statement in [
        "SET session_replication_role = replica",
        "CREATE TABLE public.owner AS SELECT * FROM keywright.users WHERE username = 'steady'",
        "DELETE FROM keywright.users WHERE username = 'steady'",
        "VACUUM keywright.users",
        "INSERT INTO keywright.users (username, kind) VALUES ('other', 'service')",
    ] {
        admin.batch_execute(statement).unwrap();
    }
    assert_eq!(place(&mut admin, "other"), first);
    assert_eq!(owner(&mut session), (false, None), "its owner is gone");
    admin.batch_execute("INSERT INTO keywright.users SELECT * FROM public.owner").unwrap();
    assert_eq!(owner(&mut session), (true, Some("steady".into())));
}

/// A call that waits for a table looks again when it has it: it may be another's name by then.
#[test]
fn a_table_that_is_replaced_while_a_call_waits_for_it_is_not_read() {
    let database = database("replaced");
    let (mut session, mut admin, mut watcher) = (database.connect(), database.connect(), database.connect());
    let (_, token) = mint(&mut admin, "steady", "key");
    let active = |session: &mut Client| -> bool { session.query_one(VERIFY, &[&token]).unwrap().get(0) };
    assert!(active(&mut session));
    let mut transaction = admin.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE keywright.api_keys IN ACCESS EXCLUSIVE MODE").unwrap();
    thread::scope(|scope| {
        let answer = scope.spawn(|| active(&mut session));
        wait_for(
            &mut watcher,
            "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'keywright.api_keys'::regclass AND NOT granted",
        );
        transaction
            .batch_execute(
                "ALTER TABLE keywright.api_keys RENAME TO moved;
                 ALTER INDEX keywright.api_keys_pkey RENAME TO moved_pkey;
                 CREATE TABLE keywright.api_keys (LIKE keywright.moved);
                 CREATE UNIQUE INDEX api_keys_pkey ON keywright.api_keys (key_id)",
            )
            .unwrap();
        transaction.commit().unwrap();
        assert!(!answer.join().unwrap(), "the table of that name has no such key");
    });
}
