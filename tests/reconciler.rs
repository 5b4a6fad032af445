//! The reconciler in examples/: whatever happens to it or behind its back, the run after that ends well.

use keywright_tests::{Database, environment, is_active, one};
use postgres::Client;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, thread, time};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/reconciler/reconcile");

/// What the script runs. Each is a boundary at which it may be killed.
const COMMANDS: [&str; 8] = ["cat", "head", "mv", "psql", "rm", "sync", "tail", "tr"];

/// A control plane with its file, and commands that count themselves and kill the script when it is time.
struct Plane {
    database: Database,
    client: Client,
    directory: PathBuf,
    name: String,
}

impl Plane {
    fn new(test: &str) -> Plane {
        let database = Database::new(&format!("reconciler_{test}"));
        let mut client = database.connect();
        let role = format!("kwr_plane_{test}");
        client
            .batch_execute(&format!(
                "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; SELECT keywright.grant_access('{role}', 'reconciler');
                 SELECT keywright.ensure_resource('organization', 'acme')"
            ))
            .unwrap();
        let directory = std::env::temp_dir().join(format!("keywright-{}-{test}", std::process::id()));
        _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("bin")).unwrap();
        let bin = environment("PG_BINDIR");
        for command in COMMANDS {
            let real = if command == "psql" { format!("{bin}/psql") } else { format!("/bin/{command}") };
            let shim = format!(
                "#!/bin/sh\nn=$(($(/bin/cat '{0}/count' 2>/dev/null || echo 0) + 1)); echo $n > '{0}/count'\n\
                 [ $n = \"$KILL_BEFORE\" ] && kill -9 $SCRIPT_PID && exit 1\n{real} \"$@\"; s=$?\n\
                 [ $n = \"$KILL_AFTER\" ] && kill -9 $SCRIPT_PID\nexit $s\n",
                directory.display()
            );
            let path = directory.join("bin").join(command);
            fs::write(&path, shim).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Plane { database, client, directory, name: "coder".into() }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("token")
    }

    fn token(&self) -> String {
        fs::read_to_string(self.file()).unwrap_or_default().trim_end().to_owned()
    }

    fn command(&self, settings: &[(&str, &str)]) -> Command {
        _ = fs::remove_file(self.directory.join("count"));
        let mut command = Command::new("sh");
        command.args(["-c", "export SCRIPT_PID=$$; exec sh \"$0\"", SCRIPT]);
        let path = format!("{}:{}", self.directory.join("bin").display(), std::env::var("PATH").unwrap());
        let role = self.database.name.replace("keywright_test_reconciler", "kwr_plane");
        command
            .env("PATH", path)
            .envs([("PGUSER", role.as_str()), ("PGDATABASE", &self.database.name), ("NAMESPACE", "default")])
            .envs([("KILL_BEFORE", ""), ("KILL_AFTER", ""), ("NAME", self.name.as_str())])
            .env("TOKEN_FILE", self.file())
            .envs(settings.iter().copied());
        command
    }

    fn run(&self, settings: &[(&str, &str)]) -> Output {
        self.command(settings).output().unwrap()
    }

    fn runs_well(&self, settings: &[(&str, &str)]) -> String {
        let output = self.run(settings);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}");
        words
    }

    /// How many commands a run takes, without any harm.
    fn commands(&self) -> usize {
        fs::read_to_string(self.directory.join("count")).unwrap().trim().parse().unwrap()
    }

    fn live_keys(&mut self) -> i64 {
        one(&mut self.client, "SELECT count(*) FROM keywright.list_api_keys()")
    }

    /// One live key, in the file, and nothing beside it.
    fn is_well(&mut self, what: &str) {
        assert_eq!(self.live_keys(), 1, "{what}");
        let token = self.token();
        assert!(is_active(&mut self.client, &token), "{what}: the file holds the live key");
        let name: String = one(&mut self.client, "SELECT name FROM keywright.list_api_keys()");
        let wanted = format!("SELECT keywright.operator_key_name('default', '{}')", self.name);
        assert_eq!(name, one::<String>(&mut self.client, &wanted), "{what}");
        assert!(!self.directory.join("token.new").exists(), "{what}");
    }

    fn is_gone(&mut self, what: &str) {
        assert_eq!(self.live_keys(), 0, "{what}");
        for left in ["token", "token.new", "token.owner"] {
            assert!(!self.directory.join(left).exists(), "{what}: {left}");
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.directory);
    }
}

/// What can be there when a run begins.
const STATES: [&str; 8] = ["fresh", "kept", "lost", "malformed", "revoked", "stale", "renamed", "disabled"];

/// Makes a state out of a well one, and gives the settings of the run in it.
fn make(plane: &mut Plane, state: &str) -> Vec<(&'static str, &'static str)> {
    plane.runs_well(&[]);
    let file = plane.file();
    match state {
        "fresh" => {
            plane.runs_well(&[("ENABLED", "false")]);
        }
        "lost" => fs::remove_file(file).unwrap(),
        "malformed" => fs::write(file, b"\xff\xfe\x00 garbage '; DROP TABLE x; --\n").unwrap(),
        "revoked" => {
            plane
                .client
                .batch_execute("SELECT keywright.revoke_user_api_keys('coder-k8s-operator')")
                .unwrap();
        }
        "stale" => {
            // Another run has rotated, and its file is lost.
            let old = plane.token();
            fs::remove_file(&file).unwrap();
            plane.runs_well(&[]);
            fs::write(&file, old).unwrap();
        }
        "renamed" => plane.name = if plane.name == "coder" { "coder-two".into() } else { "coder".into() },
        "disabled" => return vec![("ENABLED", "false")],
        _ => (),
    }
    Vec::new()
}

#[test]
fn killed_anywhere_the_next_run_mends_it() {
    let mut plane = Plane::new("killed");
    let mut kills = 0;
    let mut round = 0;
    while kills < 300 {
        for state in STATES {
            let settings = make(&mut plane, state);
            // How long such a run is, measured once on a copy of it that is not harmed.
            plane.runs_well(&settings);
            let commands = plane.commands();
            for boundary in 1..=commands {
                for when in ["KILL_BEFORE", "KILL_AFTER"] {
                    if round > 0 && kills >= 300 {
                        return;
                    }
                    let settings = make(&mut plane, state);
                    let number = boundary.to_string();
                    let mut harmed = settings.clone();
                    let number: &'static str = Box::leak(number.into_boxed_str());
                    harmed.push((when, number));
                    let output = plane.run(&harmed);
                    kills += usize::from(output.status.code().is_none());
                    plane.runs_well(&settings);
                    let what = format!("round {round}, {state}, {when} {number}");
                    if state == "disabled" { plane.is_gone(&what) } else { plane.is_well(&what) }
                }
            }
        }
        round += 1;
    }
}

#[test]
fn killed_at_any_moment_the_next_run_mends_it() {
    let mut plane = Plane::new("moments");
    for round in 0..60 {
        let state = STATES[round % STATES.len()];
        let settings = make(&mut plane, state);
        let mut child = plane.command(&settings).spawn().unwrap();
        thread::sleep(time::Duration::from_micros(500 * (round as u64 * 7 % 120)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What the dead one asked for may still be under way: then this one is told to call again.
        while plane.run(&settings).status.code() == Some(75) {}
        plane.runs_well(&settings);
        if state == "disabled" { plane.is_gone(state) } else { plane.is_well(state) }
    }
}

/// What a control plane's operator does, one by one.
#[test]
fn as_an_operator_does() {
    let mut plane = Plane::new("operator");
    // Disabled from the start: nothing is made.
    plane.runs_well(&[("ENABLED", "false")]);
    plane.is_gone("disabled at first");
    assert_eq!(one::<i64>(&mut plane.client, "SELECT count(*) FROM keywright.list_users(true)"), 0);
    // Somebody else's file is left, enabled or not.
    fs::write(plane.file(), "theirs\n").unwrap();
    assert_eq!(plane.run(&[]).status.code(), Some(78));
    plane.runs_well(&[("ENABLED", "false")]);
    assert_eq!(plane.token(), "theirs");
    fs::remove_file(plane.file()).unwrap();
    // No database: an error, and no file.
    assert!(!plane.run(&[("PGHOST", "/nowhere")]).status.success());
    assert!(!plane.file().exists());
    // Enabled: a key, in a file that nobody else reads. Again: the same, and nothing is written.
    assert!(plane.runs_well(&[]).contains("minted"));
    assert_eq!(fs::metadata(plane.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let token = plane.token();
    assert!(plane.runs_well(&[]).contains("kept"));
    assert_eq!(plane.token(), token);
    let standing =
        "SELECT string_agg(role, ',' ORDER BY role) FROM keywright.list_role_bindings('coder-k8s-operator')";
    assert_eq!(one::<String>(&mut plane.client, standing), "organization-admin,owner");
    // White space around the token, as editors leave it, changes nothing.
    fs::write(plane.file(), format!("  {token} \n\n")).unwrap();
    assert!(plane.runs_well(&[]).contains("kept"));
    // A token that is revoked behind its back is noticed, though the file is there.
    make(&mut plane, "revoked");
    assert!(plane.runs_well(&[]).contains("rotated"));
    plane.is_well("revoked");
    // A failing revocation keeps the file, so that the next run knows; then both go.
    let before = plane.token();
    assert!(!plane.run(&[("ENABLED", "false"), ("PGHOST", "/nowhere")]).status.success());
    assert_eq!(plane.token(), before);
    plane.runs_well(&[("ENABLED", "false")]);
    plane.is_gone("disabled");
    // Lost, but the key is live: disabled without a file, it is revoked all the same.
    plane.runs_well(&[]);
    fs::remove_file(plane.file()).unwrap();
    plane.runs_well(&[("ENABLED", "false")]);
    plane.is_gone("disabled without the file");
}

/// Several control planes share the user, and never a key.
#[test]
fn control_planes_leave_each_other_alone() {
    let mut plane = Plane::new("planes");
    plane.runs_well(&[]);
    let mine = plane.token();
    let ensure = |client: &mut Client, namespace: &str, name: &str| -> String {
        one(client, &format!("SELECT token FROM keywright.ensure_operator_access('{namespace}', '{name}')"))
    };
    let others: Vec<String> =
        [("default", "other"), ("other", "coder"), ("defaultcoder", "x"), ("default", "coder ")]
            .iter()
            .map(|(namespace, name)| ensure(&mut plane.client, namespace, name))
            .collect();
    assert_eq!(plane.live_keys(), 5);
    // A token of another is not kept as one's own, and asking with it harms neither.
    let reason: String = one(
        &mut plane.client,
        &format!("SELECT reason FROM keywright.ensure_operator_access('default', 'other', '{mine}')"),
    );
    assert_eq!(reason, "wrong-name");
    assert!(is_active(&mut plane.client, &mine) && !is_active(&mut plane.client, &others[0]));
    plane.runs_well(&[("ENABLED", "false")]);
    assert!(!is_active(&mut plane.client, &mine));
    assert!(others[1..].iter().all(|token| is_active(&mut plane.client, token)));
    let revoke = "SELECT keywright.revoke_operator_access('other', 'coder')";
    assert!(one::<bool>(&mut plane.client, revoke));
    assert!(!one::<bool>(&mut plane.client, revoke));
    assert!(!is_active(&mut plane.client, &others[1]) && is_active(&mut plane.client, &others[2]));
    // Switched off under another name with this one's file: nothing of this one's ends, and the file stays.
    let mut other = Plane::new("switched");
    other.runs_well(&[]);
    let theirs = ensure(&mut other.client, "default", "gone");
    let run = other.run(&[("NAME", "gone"), ("ENABLED", "false")]);
    assert_eq!(run.status.code(), Some(78));
    assert!(!is_active(&mut other.client, &theirs));
    other.is_well("another was switched off");
    assert!(other.runs_well(&[]).contains("kept"));
    // Somebody's own account of that name is never turned into the system's.
    let human = "SELECT keywright.ensure_user('plane-b', ''); SELECT keywright.ensure_operator_access('a', 'b', prefix => 'plane-b-')";
    let error = plane.client.batch_execute(human).unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "42710");
    assert!(Path::new(SCRIPT).exists());
}
