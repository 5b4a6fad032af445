//! A database of its own for each test, on the cluster that scripts/with-cluster started.

use postgres::{Client, NoTls};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

/// A database with keywright in it, dropped at the end.
#[derive(Debug)]
pub struct Database {
    pub name: String,
}

impl Database {
    pub fn new(name: &str) -> Database {
        Self::with_encoding(name, "UTF8")
    }

    pub fn with_encoding(name: &str, encoding: &str) -> Database {
        let database = Self::empty(name, encoding);
        database.connect().batch_execute("CREATE EXTENSION keywright").unwrap();
        database
    }

    /// Without the extension.
    pub fn empty(name: &str, encoding: &str) -> Database {
        let name = format!("keywright_test_{name}");
        let mut client = connect("postgres");
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).unwrap();
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
        client.batch_execute(&create).unwrap();
        Database { name }
    }

    /// As the superuser.
    pub fn connect(&self) -> Client {
        connect(&self.name)
    }
}

impl Database {
    /// As another role, with start-up options.
    pub fn connect_as(&self, role: &str, options: &str) -> Client {
        let mut config = postgres::Config::new();
        config.host(&environment("PGHOST")).user(role).dbname(&self.name).options(options);
        config.connect(NoTls).unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        _ = connect("postgres").batch_execute(&drop);
    }
}

fn connect(database: &str) -> Client {
    Client::connect(&format!("host={} user=postgres dbname={database}", environment("PGHOST")), NoTls)
        .unwrap()
}

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run by scripts/with-cluster"))
}

/// A program of the server under test, such as pg_dump.
pub fn program(name: &str) -> Command {
    Command::new(PathBuf::from(environment("PG_BINDIR")).join(name))
}

/// Runs it, and fails with its output if it fails.
pub fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The first column of the first row.
pub fn one<T>(client: &mut Client, sql: &str) -> T
where
    T: for<'a> postgres::types::FromSql<'a>,
{
    client.query_one(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// A row of ensure_api_key or ensure_gateway_key.
#[derive(Debug)]
pub struct Ensured {
    pub token: Option<String>,
    pub outcome: String,
    pub reason: Option<String>,
}

pub fn ensure(client: &mut Client, sql: &str) -> Ensured {
    let row = client.query_one(&format!("SELECT token, outcome, reason FROM {sql}"), &[]).unwrap();
    Ensured { token: row.get(0), outcome: row.get(1), reason: row.get(2) }
}

pub fn is_active(client: &mut Client, token: &str) -> bool {
    let sql = if token.starts_with("kwg_") {
        "SELECT active FROM keywright.verify_gateway_key($1)"
    } else {
        "SELECT active FROM keywright.verify_api_key($1)"
    };
    client.query_one(sql, &[&token]).unwrap().get(0)
}

/// Sessions that call at once.
pub const CALLERS: usize = 16;

/// Runs `call` in 16 sessions at once.
pub fn in_parallel<T: Send>(
    database: &Database,
    call: impl Fn(&mut postgres::Client, usize) -> T + Sync + Send,
) -> Vec<T> {
    let ready = Barrier::new(CALLERS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (call, ready) = (&call, &ready);
                scope.spawn(move || {
                    let mut client = database.connect();
                    ready.wait();
                    call(&mut client, number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Makes all 16 wait behind a session that holds what they need, so that they truly overlap.
pub fn behind_a_lock<T: Send>(
    database: &Database,
    lock: &str,
    call: impl Fn(&mut postgres::Client, usize) -> T + Sync + Send,
) -> Vec<T> {
    let mut holder = database.connect();
    let mut transaction = holder.transaction().unwrap();
    transaction.batch_execute(lock).unwrap();
    thread::scope(|scope| {
        let callers = scope.spawn(|| in_parallel(database, call));
        let mut watcher = database.connect();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        for _ in 0..600 {
            if one::<i64>(&mut watcher, waiting) == CALLERS as i64 {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(one::<i64>(&mut watcher, waiting), CALLERS as i64, "callers that wait");
        transaction.rollback().unwrap();
        callers.join().unwrap()
    })
}
