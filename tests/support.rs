//! A database of its own for each test, on the cluster that scripts/with-cluster started.

pub mod rooms;

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

/// A cluster of its own beside the one that scripts/with-cluster started, gone at the end. It lies in that one's directory
/// and listens in the same place, on another port.
#[derive(Debug)]
pub struct Cluster {
    data: PathBuf,
    port: u16,
    settings: String,
    bindir: String,
}

impl Cluster {
    /// An empty one, with these settings.
    pub fn new(port: u16, settings: &str) -> Cluster {
        Self::place(port, settings).made(&[])
    }

    /// Of another version of Postgres. With checksums, which are the default of some: pg_upgrade wants both clusters alike.
    pub fn of(bindir: &str, port: u16) -> Cluster {
        let mut cluster = Self::place(port, "");
        cluster.bindir = bindir.into();
        cluster.made(&["--data-checksums"])
    }

    fn made(self, options: &[&str]) -> Cluster {
        let mut initdb = self.program("initdb");
        initdb.args([
            "--username",
            "postgres",
            "--auth",
            "trust",
            "--no-locale",
            "--encoding",
            "UTF8",
            "--no-sync",
        ]);
        succeed(initdb.args(options).arg("--pgdata").arg(&self.data));
        self.start();
        self
    }

    /// A hot standby of this one, or of the one of scripts/with-cluster.
    pub fn standby(port: u16, of: Option<&Cluster>) -> Cluster {
        Self::standby_with(port, of, "")
    }

    pub fn standby_with(port: u16, of: Option<&Cluster>, settings: &str) -> Cluster {
        let cluster = Self::place(port, settings);
        let primary = of.map_or(5432, |of| of.port).to_string();
        let mut backup = as_server("pg_basebackup");
        backup.args(["--host", &environment("PGHOST"), "--port", &primary, "--username", "postgres"]);
        backup.args(["--write-recovery-conf", "--checkpoint", "fast", "--no-sync", "--pgdata"]);
        succeed(backup.arg(&cluster.data));
        cluster.start();
        cluster
    }

    /// With other settings, after `stop`.
    pub fn again(of: &Cluster, settings: &str) -> Cluster {
        let cluster = Self::place(of.port, settings);
        cluster.start();
        cluster
    }

    fn place(port: u16, settings: &str) -> Cluster {
        let log = PathBuf::from(environment("PG_SERVER_LOG"));
        let bindir = environment("PG_BINDIR");
        Cluster { data: log.with_file_name(format!("port{port}")), port, settings: settings.into(), bindir }
    }

    /// Again, after `stop`.
    pub fn start(&self) {
        succeed(&mut self.start_command());
    }

    /// False when it does not come up.
    pub fn try_start(&self) -> bool {
        self.start_command().output().unwrap().status.success()
    }

    fn start_command(&self) -> Command {
        let settings = format!(
            "-c port={} -c listen_addresses= -c fsync=off -c unix_socket_permissions=0700 -c unix_socket_directories={} {}",
            self.port,
            environment("PGHOST"),
            self.settings
        );
        let mut start = self.pg_ctl();
        start.arg("--log").arg(self.data.with_extension("log"));
        start.args(["--wait", "--silent", "--options", &settings, "start"]);
        start
    }

    /// As when the machine is switched off, and on again.
    pub fn crash(&self) {
        let pid = std::fs::read_to_string(self.file("postmaster.pid")).unwrap();
        succeed(Command::new("kill").args(["-9", pid.lines().next().unwrap()]));
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(50));
            // The other processes notice, and end.
            if self.start_command().output().unwrap().status.success() {
                return;
            }
        }
        panic!("the server does not start: {}", self.log());
    }

    /// smart, fast or immediate.
    pub fn stop(&self, mode: &str) {
        succeed(self.pg_ctl().args(["--wait", "--silent", "--mode", mode, "stop"]));
    }

    /// What the server has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap()
    }

    /// A file in the data directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// All that is in `old`, for this one, which is new and empty. Both are stopped.
    pub fn pg_upgrade_from(&self, old: &Cluster) {
        let mut upgrade = self.program("pg_upgrade");
        upgrade.args([
            "--username",
            "postgres",
            "--no-sync",
            "--old-bindir",
            &old.bindir,
            "--new-bindir",
            &self.bindir,
        ]);
        upgrade.arg("--old-datadir").arg(&old.data).arg("--new-datadir").arg(&self.data);
        upgrade.args(["--socketdir", &environment("PGHOST")]);
        // Where it may write, and without what would lead it to the server of scripts/with-cluster.
        upgrade.current_dir(&old.data).env_remove("PGHOST").env_remove("PGPORT").env_remove("PGDATABASE");
        let output = upgrade.output().unwrap();
        // Its own words name a file; what went wrong is in there.
        let logs = || -> String {
            let mut find = Command::new("grep");
            find.args(["-rEh", "-A3", "error:|ERROR|FATAL"]).arg(self.file("pg_upgrade_output.d"));
            String::from_utf8_lossy(&find.output().unwrap().stdout).into_owned()
        };
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), logs());
    }

    fn program(&self, name: &str) -> Command {
        server_program(&self.bindir, name)
    }

    fn pg_ctl(&self) -> Command {
        let mut command = self.program("pg_ctl");
        command.arg("--pgdata").arg(&self.data);
        command
    }

    pub fn connect(&self, database: &str) -> Client {
        self.try_connect(database).unwrap()
    }

    pub fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        Client::connect(&self.conninfo(database), NoTls)
    }

    /// How another server reaches it.
    pub fn conninfo(&self, database: &str) -> String {
        format!("host={} port={} user=postgres dbname={database}", environment("PGHOST"), self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        _ = self.pg_ctl().args(["--mode", "immediate", "--silent", "stop"]).output();
        _ = std::fs::remove_dir_all(&self.data);
    }
}

/// A program of the server under test, run by whoever runs the servers: never root.
pub fn as_server(name: &str) -> Command {
    server_program(&environment("PG_BINDIR"), name)
}

fn server_program(bindir: &str, name: &str) -> Command {
    let program = PathBuf::from(bindir).join(name);
    let root = succeed(Command::new("id").arg("-u")).starts_with(b"0\n");
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

/// Waits until a query answers true.
pub fn wait_for(client: &mut Client, sql: &str) {
    assert!(becomes_true(client, sql), "never true: {sql}");
}

/// Whether it does within half a minute.
pub fn becomes_true(client: &mut Client, sql: &str) -> bool {
    (0..600).any(|attempt| {
        thread::sleep(Duration::from_millis(if attempt == 0 { 0 } else { 50 }));
        one::<bool>(client, sql)
    })
}

/// The metrics of a file of queries for postgres_exporter: those that have rows, and those that have none.
pub fn exporter_metrics(client: &mut Client, yaml: &str) -> [Vec<String>; 2] {
    let (mut entry, mut names, mut rows) = ("", [Vec::new(), Vec::new()], Vec::new());
    for line in yaml.lines().filter(|line| !line.starts_with('#')) {
        if let Some(query) = line.strip_prefix("  query: \"") {
            rows = client.query(query.strip_suffix('"').unwrap(), &[]).unwrap();
        } else if let Some(column) = line.strip_prefix("    - ") {
            let (column, described) = column.split_once(": ").unwrap();
            if described.starts_with("{usage: LABEL") {
                assert!(rows.iter().all(|row| row.try_get::<_, String>(column).is_ok()), "{column}");
            } else {
                assert!(rows.iter().all(|row| row.try_get::<_, f64>(column).is_ok()), "{column}");
                let usage = if column.ends_with("total") { "{usage: COUNTER" } else { "{usage: GAUGE" };
                assert!(described.starts_with(usage), "{column}");
                names[usize::from(rows.is_empty())].push(format!("{entry}_{column}"));
            }
        } else if !line.starts_with(' ') {
            entry = line.strip_suffix(':').unwrap();
        }
    }
    names
}

/// What scripts/with-cluster tells.
pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run by scripts/with-cluster"))
}

/// A program of the server under test, such as pg_dump.
pub fn program(name: &str) -> Command {
    Command::new(PathBuf::from(environment("PG_BINDIR")).join(name))
}

/// Runs it, and fails with its output if it fails.
pub fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success(), "{command:?}: {}", said.join("\n"));
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

/// A small generator: the same numbers in every run.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
