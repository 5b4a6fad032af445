//! Resources, roles and bindings under concurrency, at size, and when a look-up fails.

use keywright_tests::{CALLERS, Database, Random, behind_a_lock, in_parallel, one};
use postgres::Client;
use std::collections::{HashMap, HashSet};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

fn outcome(client: &mut Client, sql: &str) -> String {
    one(client, &format!("SELECT outcome FROM keywright.{sql}"))
}

fn code(client: &mut Client, sql: &str) -> String {
    match client.query(sql, &[]) {
        Ok(_) => "00000".into(),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).code().code().into(),
    }
}

/// Two calls at the same moment.
fn at_once<T: Send>(database: &Database, calls: [&(dyn Fn(&mut Client) -> T + Sync); 2]) -> [T; 2] {
    let ready = Barrier::new(2);
    thread::scope(|scope| {
        calls
            .map(|call| {
                let ready = &ready;
                scope.spawn(move || {
                    let mut client = database.connect();
                    ready.wait();
                    call(&mut client)
                })
            })
            .map(|thread| thread.join().unwrap())
    })
}

#[test]
fn the_same_call_by_many_makes_one() {
    let database = Database::new("permissions_same");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('u', '')").unwrap();
    let calls = [
        ("resource_types", "register_resource_type('workspace', 'project')"),
        ("resources", "ensure_resource('organization', 'acme')"),
        ("resources", "ensure_resource('project', 'p1', 'acme', 'First', 'plane')"),
        ("roles", "define_role('deployer', '{project:read}')"),
        ("scopes", "define_scope('deploy', '{project:read}')"),
        ("role_bindings", "bind_role('u', 'deployer', 'project', 'p1')"),
        ("role_bindings", "bind_role('u', 'deployer')"),
    ];
    for (table, call) in calls {
        let lock = format!("LOCK TABLE keywright.{table} IN SHARE ROW EXCLUSIVE MODE");
        let outcomes = behind_a_lock(&database, &lock, |client, _| outcome(client, call));
        let count = |wanted: &str| outcomes.iter().filter(|outcome| *outcome == wanted).count();
        assert_eq!((count("created"), count("unchanged")), (1, CALLERS - 1), "{call}: {outcomes:?}");
    }
    let outcomes = in_parallel(&database, |client, number| {
        let call =
            format!("ensure_resource('project', 'p1', name => 'name {number}', managed_by => 'plane')");
        outcome(client, &call)
    });
    assert!(outcomes.iter().all(|outcome| outcome == "updated"), "{outcomes:?}");
}

#[test]
fn of_two_last_owners_one_stays() {
    let database = Database::new("permissions_owner");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('a', ''), keywright.ensure_user('b', '')").unwrap();
    for round in 0..20 {
        client
            .batch_execute(&format!(
                "SELECT keywright.ensure_resource('project', 'p{round}');
                 SELECT keywright.bind_role(u, 'project-owner', 'project', 'p{round}') FROM unnest('{{a,b}}'::text[]) AS u"
            ))
            .unwrap();
        let unbind = |user: &'static str| {
            move |client: &mut Client| {
                code(
                    client,
                    &format!(
                        "SELECT keywright.unbind_role('{user}', 'project-owner', 'project', 'p{round}')"
                    ),
                )
            }
        };
        let mut codes = at_once(&database, [&unbind("a"), &unbind("b")]);
        codes.sort();
        assert_eq!(codes, ["00000", "23503"]);
    }
}

#[test]
fn two_writers_make_no_circle() {
    let database = Database::new("permissions_circle");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.register_resource_type('folder', 'folder')").unwrap();
    for round in 0..20 {
        client
            .batch_execute(&format!("SELECT keywright.ensure_resources('folder', '{{a{round},b{round}}}')"))
            .unwrap();
        let below = |child: &'static str, parent: &'static str| {
            move |client: &mut Client| {
                code(
                    client,
                    &format!(
                        "SELECT keywright.ensure_resource('folder', '{child}{round}', '{parent}{round}')"
                    ),
                )
            }
        };
        let mut codes = at_once(&database, [&below("a", "b"), &below("b", "a")]);
        codes.sort();
        assert_eq!(codes, ["00000", "22023"]);
    }
}

#[test]
fn no_organization_is_missed() {
    let database = Database::new("permissions_organizations");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE public.organizations (id text PRIMARY KEY);
             SELECT keywright.track_table('public.organizations', 'organization')",
        )
        .unwrap();
    for round in 0..8 {
        let outcomes = in_parallel(&database, |client, number| match number % 4 {
            0 => code(
                client,
                &format!("SELECT keywright.ensure_resource('organization', 'r{round}-{number}')"),
            ),
            1 => code(client, &format!("INSERT INTO public.organizations VALUES ('t{round}-{number}')")),
            2 => code(client, &format!("SELECT keywright.ensure_system_user('s{round}-{number}')")),
            _ => code(client, &format!("SELECT keywright.ensure_system_user('s{round}')")),
        });
        assert!(outcomes.iter().all(|code| code == "00000"), "{outcomes:?}");
    }
    let missed: i64 = one(
        &mut client,
        "SELECT count(*) FROM keywright.users AS u, keywright.resources AS r
          WHERE r.type = 'organization' AND NOT EXISTS (
            SELECT FROM keywright.role_bindings AS b
             WHERE b.user_id = u.user_id AND b.role = 'organization-admin' AND b.resource_type = r.type AND b.resource_id = r.id)",
    );
    assert_eq!(missed, 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.resources"), 8 * 8);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.users"), 8 * 5);
}

#[test]
fn bindings_end_with_their_user_and_resource() {
    let database = Database::new("permissions_ends");
    for round in 0..20 {
        let mut client = database.connect();
        client
            .batch_execute(&format!(
                "SELECT keywright.ensure_user('u{round}', ''), keywright.ensure_resource('project', 'p{round}')"
            ))
            .unwrap();
        let bind = |client: &mut Client| {
            code(
                client,
                &format!("SELECT keywright.bind_role('u{round}', 'project-viewer', 'project', 'p{round}')"),
            )
        };
        let end = |client: &mut Client| {
            let sql = match round % 2 {
                0 => format!("SELECT keywright.delete_user('u{round}')"),
                _ => format!("SELECT keywright.delete_resource('project', 'p{round}')"),
            };
            code(client, &sql)
        };
        let [bound, ended] = at_once(&database, [&bind, &end]);
        assert_eq!(ended, "00000");
        assert!(["00000", "42704"].contains(&bound.as_str()), "{bound}");
    }
    let left: i64 = one(&mut database.connect(), "SELECT count(*) FROM keywright.role_bindings");
    assert_eq!(left, 0);
}

#[test]
fn a_revocation_is_seen_in_the_middle_of_a_statement() {
    let database = Database::new("permissions_middle");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT keywright.ensure_user('u', ''), keywright.ensure_resource('project', 'p1');
             SELECT keywright.bind_role('u', 'project-viewer', 'project', 'p1')",
        )
        .unwrap();
    let endings = [
        "SELECT keywright.unbind_role('u', 'project-viewer', 'project', 'p1')",
        "SELECT keywright.suspend_user('u')",
        "SELECT keywright.revoke_user_api_keys('u')",
        "SELECT keywright.delete_resource('project', 'p1')",
    ];
    for end in endings {
        client
            .batch_execute(
                "SELECT keywright.activate_user('u'), keywright.ensure_resource('project', 'p1');
                 SELECT keywright.bind_role('u', 'project-viewer', 'project', 'p1')",
            )
            .unwrap();
        let token: String = one(&mut client, "SELECT token FROM keywright.ensure_api_key('u', 'k')");
        let permitted = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut client = database.connect();
                client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
                client.batch_execute(&format!("SELECT keywright.begin_request('{token}')")).unwrap();
                let permitted: Vec<bool> = client
                    .query(
                        "SELECT keywright.is_permitted('project:read', 'project', 'p' || 1 + n * 0), pg_sleep(0.01)
                           FROM generate_series(1, 100) AS n",
                        &[],
                    )
                    .unwrap()
                    .iter()
                    .map(|row| row.get(0))
                    .collect();
                permitted
            });
            thread::sleep(Duration::from_millis(300));
            database.connect().batch_execute(end).unwrap();
            reader.join().unwrap()
        });
        assert!(permitted[0] && !permitted[99], "{end}");
        let turn = permitted.iter().position(|yes| !yes).unwrap();
        assert!(permitted[turn..].iter().all(|yes| !yes), "{end}");
    }
}

#[test]
fn a_failing_look_up_is_neither_a_denial_nor_a_bad_token() {
    let database = Database::new("permissions_fault");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT keywright.ensure_user('u', ''), keywright.ensure_resource('project', 'p1');
             SELECT keywright.bind_role('u', 'project-viewer', 'project', 'p1')",
        )
        .unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('u', 'k')");
    let calls = [
        format!("SELECT keywright.authorize_api_key('{token}', 'project:read', 'project:p1')"),
        "SELECT keywright.authorize_api_key('kwk_AAAAAAAAAA-AAAAAAAAAAAAAAAAAAAAAA3Zxnsr', 'project:read', 'project:p1')".into(),
        format!("SELECT keywright.authorize_api_key('{token}', 'project:delete', 'project:p1')"),
        "SELECT keywright.has_permission('u', 'project:read', 'project', 'p1')".into(),
        format!("SELECT keywright.begin_request('{token}')"),
    ];
    assert_eq!(code(&mut client, &calls[0]), "00000");
    assert_eq!(code(&mut client, &calls[2]), "42501");
    let mut admin = database.connect();
    for table in ["api_keys", "users", "role_bindings", "roles", "scopes", "resources"] {
        for call in &calls {
            if call.contains("AAAAAAAAAA") && code(&mut client, call) == "28000" && table == "api_keys" {
                continue;
            }
            admin
                .batch_execute(&format!("BEGIN; LOCK TABLE keywright.{table} IN ACCESS EXCLUSIVE MODE"))
                .unwrap();
            client.batch_execute("SET lock_timeout = '20ms'").unwrap();
            let locked = code(&mut client, call);
            client.batch_execute("RESET lock_timeout; SET statement_timeout = '20ms'").unwrap();
            let late = code(&mut client, call);
            client.batch_execute("RESET statement_timeout").unwrap();
            admin.batch_execute("ROLLBACK").unwrap();
            // A token that is malformed needs no look-up to be told so.
            if !(call.contains("AAAAAAAAAA") && locked == "28000") {
                assert_eq!((locked.as_str(), late.as_str()), ("55P03", "57014"), "{table}: {call}");
            }
        }
    }
    let indexes =
        ["api_keys_pkey", "users_pkey", "role_bindings_key", "roles_pkey", "scopes_pkey", "resources_pkey"];
    for index in indexes {
        admin.batch_execute(&format!("ALTER INDEX keywright.{index} RENAME TO gone")).unwrap();
        assert_eq!(code(&mut client, &calls[0]), "55000", "{index}");
        assert_eq!(code(&mut client, &calls[2]), "55000", "{index}");
        admin.batch_execute(&format!("ALTER INDEX keywright.gone RENAME TO {index}")).unwrap();
    }
    let drop = "ALTER TABLE keywright.users DROP CONSTRAINT users_organization_role_fkey;
                ALTER TABLE keywright.role_bindings DROP CONSTRAINT role_bindings_role_fkey;
                ALTER TABLE keywright.roles DROP CONSTRAINT roles_pkey";
    admin.batch_execute(drop).unwrap();
    assert_eq!(code(&mut client, &calls[0]), "55000", "a dropped index");
    admin.batch_execute("ALTER TABLE keywright.roles ADD CONSTRAINT roles_pkey PRIMARY KEY (name)").unwrap();
    assert_eq!(code(&mut client, &calls[0]), "00000");
    admin.batch_execute("DROP TABLE keywright.role_bindings CASCADE").unwrap_err();
}

/// Sessions of the test that wait for a lock; other tests run beside it.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";

/// Somebody waits for a lock in `call`, and `meanwhile` happens before it is let go. What the call then says.
fn while_it_waits(
    database: &Database,
    begin: &str,
    call: &str,
    meanwhile: impl FnOnce(&mut Client),
) -> Result<bool, postgres::Error> {
    let mut holder = database.connect();
    thread::scope(|scope| {
        let mut client = database.connect();
        client.batch_execute(begin).unwrap();
        holder
            .batch_execute(
                "BEGIN; LOCK TABLE keywright.api_keys, keywright.resources IN ACCESS EXCLUSIVE MODE",
            )
            .unwrap();
        let waiter = scope.spawn(move || client.query_one(call, &[]).map(|row| row.get(0)));
        let mut watcher = database.connect();
        while one::<i64>(&mut watcher, WAITING) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        meanwhile(&mut holder);
        holder.batch_execute("COMMIT").unwrap();
        waiter.join().unwrap()
    })
}

#[test]
fn what_is_remembered_is_never_mixed_with_what_is_read() {
    let database = Database::new("permissions_torn");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT keywright.ensure_user('u', ''), keywright.ensure_resource('organization', 'o1'), keywright.ensure_resource('organization', 'o2');
             SELECT keywright.ensure_resource('project', 'p1', 'o1'), keywright.ensure_resource('project', 'p9', 'o2');
             SELECT keywright.bind_role('u', 'project-viewer', 'organization', 'o1')",
        )
        .unwrap();
    let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('u', 'k')");
    let begin = format!(
        "BEGIN; SELECT keywright.begin_request('{token}'); SELECT keywright.is_permitted('project:read', 'project', 'p1')"
    );
    let ask = "SELECT keywright.is_permitted('project:read', 'project', 'p9')";
    // Neither before nor after may u read p9.
    let moved = while_it_waits(&database, &begin, ask, |other| {
        other
            .batch_execute(
                "SELECT keywright.unbind_role('u', 'project-viewer', 'organization', 'o1');
                 SELECT keywright.ensure_resource('project', 'p9', 'o1')",
            )
            .unwrap();
    });
    assert!(!moved.unwrap());
    client.batch_execute("SELECT keywright.bind_role('u', 'project-viewer', 'organization', 'o1')").unwrap();
    let permitted = while_it_waits(&database, &begin, ask, |_| ());
    assert!(permitted.unwrap(), "the measure can fail");
    let suspended = while_it_waits(&database, &begin, ask, |other| {
        other.batch_execute("SELECT keywright.suspend_user('u')").unwrap();
    });
    assert!(!suspended.unwrap());
}

#[test]
fn a_backend_that_is_terminated_takes_nobody_along() {
    let database = Database::new("permissions_terminated");
    let mut bystander = database.connect();
    bystander
        .batch_execute("SELECT keywright.ensure_user('u', ''), keywright.ensure_resource('project', 'p1')")
        .unwrap();
    let token: String = one(
        &mut bystander,
        "SELECT token FROM keywright.mint_api_key('u', 'k', allow_list => '{project:p2}')",
    );
    let begin = format!("BEGIN; SELECT keywright.begin_request('{token}')");
    for ask in [
        "SELECT keywright.current_user_id() IS NULL",
        "SELECT keywright.current_scopes() IS NULL",
        "SELECT keywright.is_permitted('project:read', 'project', 'p1')",
    ] {
        let terminated = while_it_waits(&database, &begin, ask, |other| {
            let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            other.batch_execute(end).unwrap();
        });
        assert!(terminated.is_err(), "{ask}");
        // Every other backend would have gone with a crash.
        assert_eq!(one::<i32>(&mut bystander, "SELECT 1"), 1, "{ask}");
    }
    // An error inside leaves the context as it was, in the subtransaction around it too.
    bystander.batch_execute(&begin).unwrap();
    bystander
        .batch_execute(
            "DO $$ BEGIN PERFORM keywright.is_permitted('nonsense'); EXCEPTION WHEN OTHERS THEN NULL; END $$;
             DO $$ BEGIN ASSERT keywright.current_user_id() IS NOT NULL; END $$; COMMIT",
        )
        .unwrap();
}

#[test]
fn a_virtual_column_is_refused() {
    let database = Database::new("permissions_virtual");
    let mut client = database.connect();
    if one::<i32>(&mut client, "SELECT current_setting('server_version_num')::integer") < 180_000 {
        return;
    }
    client
        .batch_execute("CREATE TABLE public.t (id text, b text, parent text GENERATED ALWAYS AS (lower(b)) VIRTUAL, s text GENERATED ALWAYS AS (lower(b)) STORED)")
        .unwrap();
    assert_eq!(
        code(&mut client, "SELECT keywright.track_table('public.t', 'project', 'id', 'parent')"),
        "42804"
    );
    assert_eq!(code(&mut client, "SELECT keywright.track_table('public.t', 'project', 'parent')"), "42804");
    client.batch_execute("CREATE TRIGGER t AFTER INSERT ON public.t REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION keywright.track_resource('project', 'parent')").unwrap();
    assert_eq!(code(&mut client, "INSERT INTO public.t VALUES ('1', 'A')"), "42804");
    client.batch_execute("DROP TRIGGER t ON public.t; SELECT keywright.track_table('public.t', 'project', 's'); INSERT INTO public.t VALUES ('1', 'A')").unwrap();
    assert_eq!(
        one::<String>(&mut client, "SELECT resource_id FROM keywright.list_resources('project')"),
        "a"
    );
}

#[test]
fn a_user_that_is_deleted_holds_nothing_whatever_else_happens() {
    let database = Database::new("permissions_deleted");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.define_role('r', '{project:read}')").unwrap();
    for round in 0..15 {
        let codes = in_parallel(&database, |client, number| {
            let user = format!("s{}", number % 3);
            let sql = match number % 5 {
                0 => format!("SELECT keywright.delete_user('{user}')"),
                1 => format!("SELECT keywright.ensure_resource('organization', 'o{round}-{number}')"),
                2 => format!(
                    "SELECT keywright.ensure_system_user('{user}', roles => '{{r}}', organization_role => 'r')"
                ),
                3 => format!("SELECT keywright.ensure_system_user('{user}', roles => '{{}}')"),
                _ => format!("SELECT keywright.suspend_user('{user}')"),
            };
            code(client, &sql)
        });
        assert!(codes.iter().all(|code| code == "00000"), "{codes:?}");
    }
    let left = "SELECT count(*) FROM keywright.role_bindings AS b JOIN keywright.users AS u USING (user_id) WHERE u.deleted_at IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, left), 0);
    let missed = "SELECT count(*) FROM keywright.users AS u, keywright.resources AS r
       WHERE u.deleted_at IS NULL AND u.organization_role IS NOT NULL AND r.type = 'organization' AND NOT EXISTS (
         SELECT FROM keywright.role_bindings AS b WHERE b.user_id = u.user_id AND b.role = u.organization_role AND b.resource_id = r.id)";
    assert_eq!(one::<i64>(&mut client, missed), 0);
}

#[test]
fn nobody_waits_for_each_other_forever() {
    let database = Database::new("permissions_deadlock");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT keywright.ensure_user('u', ''), keywright.register_resource_type('nest', 'nest')",
        )
        .unwrap();
    for round in 0..10 {
        let codes = in_parallel(&database, |client, number| {
            let call = match number % 8 {
                0 => "define_role('r', '{project:read}')".into(),
                1 => "delete_role('r')".into(),
                2 => "define_scope('s', '{project:read}')".into(),
                3 => "delete_scope('s')".into(),
                4 => format!("register_resource_type('nest', 'nest', 'plane{round}')"),
                5 => format!("ensure_resource('nest', 'n{number}')"),
                6 => "ensure_resources('project', '{a,b,c,d,e,f}', names => '{1,2,3,4,5,6}')".into(),
                _ => "ensure_resources('project', '{f,e,d,c,b,a}', names => '{6,5,4,3,2,1}')".into(),
            };
            code(client, &format!("SELECT keywright.{call}"))
        });
        // 42710: the type has the first plane for its manager.
        assert!(codes.iter().all(|code| ["00000", "42710"].contains(&code.as_str())), "{codes:?}");
    }
    // The transaction of a reconciler: an organization and its user, many at once.
    let codes = in_parallel(&database, |client, number| {
        code(
            client,
            &format!(
                "DO $$ BEGIN PERFORM keywright.ensure_resource('organization', 'o{number}');
                             PERFORM keywright.ensure_system_user('bot{number}'); END $$"
            ),
        )
    });
    assert!(codes.iter().all(|code| code == "00000"), "{codes:?}");
}

#[test]
fn nothing_slips_in_while_a_scope_or_a_branch_is_deleted() {
    let database = Database::new("permissions_slip");
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT keywright.ensure_user('u', ''), keywright.define_scope('s', '{project:read}');
             SELECT keywright.ensure_resource('organization', 'o1'), keywright.ensure_resource('project', 'p1', 'o1')",
        )
        .unwrap();
    // Each waits for the other's transaction, and decides on what it did.
    let wait = |first: &str, second: &str| {
        let mut holder = database.connect();
        holder.batch_execute(&format!("BEGIN; {first}")).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| code(&mut database.connect(), second));
            let mut watcher = database.connect();
            while one::<i64>(&mut watcher, WAITING) == 0 {
                thread::sleep(Duration::from_millis(5));
            }
            holder.batch_execute("COMMIT").unwrap();
            waiter.join().unwrap()
        })
    };
    let register = "SELECT keywright.register_resource_type('t1'), keywright.register_resource_type('t2'), keywright.register_resource_type('t3')";
    client.batch_execute(register).unwrap();
    let mint = |kind: &str| format!("SELECT keywright.mint_api_key('u', 'key-{kind}', '{{{kind}:read}}')");
    let delete = |kind: &str| format!("SELECT keywright.delete_resource_type('{kind}')");
    assert_eq!(wait(&mint("t1"), &delete("t1")), "23503");
    assert_eq!(wait(&delete("t2"), &mint("t2")), "22023");
    assert_eq!(wait("SELECT keywright.define_role('t', '{t3:read}')", &delete("t3")), "23503");
    assert_eq!(
        wait("SELECT keywright.delete_scope('s')", "SELECT keywright.mint_api_key('u', 'k', '{s}')"),
        "22023"
    );
    let deleted = wait(
        "SELECT keywright.ensure_resource('agent', 'a1', 'p1')",
        "SELECT keywright.delete_resource('organization', 'o1', true)",
    );
    assert_eq!(deleted, "00000");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.resources"), 0);
    client.batch_execute("SELECT keywright.define_role('r', '{project:read}')").unwrap();
    let ensure = "SELECT keywright.ensure_system_user('s', roles => '{r}')";
    assert_eq!(wait("SELECT keywright.delete_role('r')", ensure), "42704");
    // Inside an older snapshot it is a serialization failure.
    let mut old = database.connect();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    client.batch_execute("SELECT keywright.ensure_system_user('new', roles => '{}'), keywright.define_role('newer', '{project:read}')").unwrap();
    assert_eq!(code(&mut old, "SELECT keywright.ensure_resource('organization', 'o2')"), "40001");
    old.batch_execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    client.batch_execute("SELECT keywright.define_role('newest', '{project:read}')").unwrap();
    assert_eq!(code(&mut old, "SELECT keywright.bind_role('u', 'newest')"), "40001");
}

/// What lies below what, as the test itself keeps it.
struct Tree {
    parents: HashMap<(String, String), (String, String)>,
    all: Vec<(String, String)>,
}

impl Tree {
    fn path(&self, resource: &(String, String)) -> Vec<(String, String)> {
        let mut path = vec![resource.clone()];
        while let Some(parent) = self.parents.get(path.last().unwrap()) {
            path.push(parent.clone());
        }
        path
    }
}

#[test]
fn answers_are_what_the_rules_say_on_any_tree() {
    let database = Database::new("permissions_tree");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.register_resource_type('folder', 'folder')").unwrap();
    let mut random = Random(7);
    let mut tree = Tree { parents: HashMap::new(), all: Vec::new() };
    let pair = |kind: &str, id: String| (kind.to_owned(), id);
    let mut depth = HashMap::new();
    // Folders in folders, and projects of organizations with their agents: enough for everything to be read at once.
    for n in 0..600 {
        let folder = pair("folder", format!("f{n}"));
        let parent = pair("folder", format!("f{}", random.below(n.max(1))));
        let level = if n == 0 || random.below(10) == 0 { 0 } else { depth[&parent.1] + 1 };
        if level > 0 && level <= 16 {
            tree.parents.insert(folder.clone(), parent);
        }
        depth.insert(folder.1.clone(), if level > 16 { 0 } else { level });
        tree.all.push(folder);
    }
    for n in 0..20 {
        tree.all.push(pair("organization", format!("o{n}")));
    }
    for n in 0..1500 {
        let project = pair("project", format!("p{n}"));
        tree.parents.insert(project.clone(), pair("organization", format!("o{}", random.below(20))));
        tree.all.push(project);
        let agent = pair("agent", format!("a{n}"));
        tree.parents.insert(agent.clone(), pair("project", format!("p{}", random.below(n + 1))));
        tree.all.push(agent);
    }
    let mut kinds: Vec<&str> = vec!["folder", "organization", "project", "agent"];
    for kind in kinds.drain(..) {
        let of_kind: Vec<_> = tree.all.iter().filter(|at| at.0 == kind).collect();
        let ids: Vec<&str> = of_kind.iter().map(|at| at.1.as_str()).collect();
        let parents: Option<Vec<Option<&str>>> = (kind != "organization").then(|| {
            of_kind.iter().map(|at| tree.parents.get(*at).map(|parent| parent.1.as_str())).collect()
        });
        client.query("SELECT keywright.ensure_resources($1, $2, $3)", &[&kind, &ids, &parents]).unwrap();
    }
    for round in 0..24 {
        let user = format!("u{round}");
        client.query("SELECT keywright.ensure_user($1, '')", &[&user]).unwrap();
        let mut places = HashSet::new();
        let everywhere = random.below(5) == 0;
        if everywhere {
            client.query("SELECT keywright.bind_role($1, 'auditor')", &[&user]).unwrap();
        }
        for _ in 0..random.below(4) {
            let at = tree.all[random.below(tree.all.len())].clone();
            client
                .query("SELECT keywright.bind_role($1, 'auditor', $2, $3)", &[&user, &at.0, &at.1])
                .unwrap();
            places.insert(at);
        }
        let allow_list: Vec<String> = match random.below(4) {
            0 => vec!["*:*".into()],
            1 => vec!["organization:*".into(), "folder:f3".into()],
            2 => vec![format!("*:{}", tree.all[random.below(tree.all.len())].1)],
            _ => (0..3)
                .map(|_| tree.all[random.below(tree.all.len())].clone())
                .map(|at| format!("{}:{}", at.0, at.1))
                .collect(),
        };
        let listed = |at: &(String, String)| {
            allow_list.iter().any(|entry| {
                let (kind, id) = entry.split_once(':').unwrap();
                (kind == "*" || kind == at.0) && (id == "*" || id == at.1)
            })
        };
        let token: String = client
            .query_one(
                "SELECT token FROM keywright.mint_api_key($1, 'k', '{all}', $2)",
                &[&user, &allow_list],
            )
            .unwrap()
            .get(0);
        let mut transaction = client.transaction().unwrap();
        transaction.query("SELECT keywright.begin_request($1)", &[&token]).unwrap();
        let rows = transaction
            .query(
                "SELECT type, id, keywright.is_permitted('project:read', type, id), keywright.has_permission($1, 'project:read', type, id)
                   FROM keywright.resources ORDER BY md5(id)",
                &[&user],
            )
            .unwrap();
        assert_eq!(rows.len(), tree.all.len());
        for row in rows {
            let at: (String, String) = (row.get(0), row.get(1));
            let path = tree.path(&at);
            let held = everywhere || path.iter().any(|at| places.contains(at));
            let allowed = path.iter().any(listed);
            assert_eq!(row.get::<_, bool>(3), held, "{user} {at:?} roles");
            assert_eq!(row.get::<_, bool>(2), held && allowed, "{user} {at:?} {places:?} {allow_list:?}");
        }
        for at in [&tree.all[0], &tree.all[700], &tree.all[3000]] {
            let path = tree.path(at);
            let permitted =
                (everywhere || path.iter().any(|at| places.contains(at))) && path.iter().any(listed);
            let mut inner = transaction.transaction().unwrap();
            let resource = format!("{}:{}", at.0, at.1);
            let answer = inner
                .query("SELECT keywright.authorize_api_key($1, 'project:read', $2)", &[&token, &resource]);
            assert_eq!(answer.is_ok(), permitted, "{user} {at:?}");
            drop(inner);
        }
        transaction.commit().unwrap();
    }
}

#[test]
fn a_large_copy_is_followed_and_can_be_rolled_back() {
    let database = Database::new("permissions_copy");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE public.organizations (id uuid PRIMARY KEY);
             CREATE TABLE public.projects (id uuid PRIMARY KEY, organization uuid REFERENCES public.organizations ON DELETE CASCADE);
             SELECT keywright.track_table('public.organizations', 'organization');
             SELECT keywright.track_table('public.projects', 'project', 'id', 'organization');
             INSERT INTO public.organizations SELECT gen_random_uuid() FROM generate_series(1, 10);
             CREATE TEMP TABLE source AS
               SELECT gen_random_uuid() AS id, (SELECT array_agg(id) FROM public.organizations)[n % 10 + 1] AS organization
                 FROM generate_series(1, 100000) AS n",
        )
        .unwrap();
    let mut data = Vec::new();
    std::io::Read::read_to_end(&mut client.copy_out("COPY source TO STDOUT").unwrap(), &mut data).unwrap();
    let copy = |client: &mut Client| {
        let mut writer = client.copy_in("COPY public.projects FROM STDIN").unwrap();
        std::io::Write::write_all(&mut writer, &data).unwrap();
        assert_eq!(writer.finish().unwrap(), 100_000);
    };
    let differing = "SELECT count(*) FROM public.projects AS p
                      FULL JOIN (SELECT * FROM keywright.resources WHERE type = 'project') AS r ON r.id = p.id::text
                     WHERE p.id IS NULL OR r.id IS NULL OR r.parent_id IS DISTINCT FROM p.organization::text";
    client.batch_execute("BEGIN").unwrap();
    copy(&mut client);
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM keywright.resources WHERE type = 'project'"), 0);
    copy(&mut client);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM keywright.resources WHERE type = 'project'"),
        100_000
    );
    assert_eq!(one::<i64>(&mut client, differing), 0);
    // Half of them go with their organizations, the rest move.
    client
        .batch_execute(
            "DELETE FROM public.organizations WHERE id IN (SELECT id FROM public.organizations ORDER BY id LIMIT 5);
             UPDATE public.projects SET organization = (SELECT min(id::text)::uuid FROM public.organizations)",
        )
        .unwrap();
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM keywright.resources WHERE type = 'project'"),
        50_000
    );
    assert_eq!(one::<i64>(&mut client, differing), 0);
}
