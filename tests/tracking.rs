//! Tracked tables against a model: the resources are what the rows are, and nobody holds a role, or has an entry in an
//! allow-list, on a row whose id was not named for it.

use keywright_tests::{Database, one};
use postgres::{Client, error::SqlState};

const STEPS: u32 = 1_500;

/// Rows keep `uid` for life, whatever id they have. Roles and entries are noted in `named` with the row they were meant for.
const SETUP: &str = r#"
    CREATE SEQUENCE public.uids;
    CREATE TABLE public.a (id int PRIMARY KEY, parent int, region int, note text, uid bigint DEFAULT nextval('public.uids'));
    CREATE TABLE public.b (LIKE public.a INCLUDING DEFAULTS, PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE public.c (LIKE public.a INCLUDING DEFAULTS) PARTITION BY LIST (region);
    CREATE TABLE public.c1 PARTITION OF public.c FOR VALUES IN (1);
    CREATE TABLE public.c2 (uid bigint, note text, region int, parent int, id int NOT NULL);
    ALTER TABLE public.c ATTACH PARTITION public.c2 FOR VALUES IN (2);
    CREATE TABLE public.c3 PARTITION OF public.c DEFAULT;
    CREATE TABLE public.d (LIKE public.a INCLUDING DEFAULTS, PRIMARY KEY (id));
    CREATE RULE soft AS ON DELETE TO public.d WHERE old.note = 'soft' DO INSTEAD
      UPDATE public.d SET id = old.id + 100, note = 'gone' WHERE id = old.id;

    CREATE FUNCTION public.again() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF new.note = 'again' THEN
        EXECUTE format('UPDATE public.%I SET note = note || ''!'' WHERE uid = $1', tg_argv[0]) USING new.uid;
      ELSIF new.note = 'other' THEN
        EXECUTE format('UPDATE public.%I SET id = id + 50, note = ''moved'' WHERE uid = $1', tg_argv[0]) USING new.uid;
      ELSIF new.note = 'mend' THEN
        EXECUTE format('UPDATE public.%I SET parent = NULL, note = ''mended'' WHERE note = ''mend''', tg_argv[0]);
      END IF;
      RETURN NULL;
    END
    $$;
    CREATE FUNCTION public.door() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF new.note = 'drop' THEN RETURN NULL; END IF;
      IF new.note = 'shift' THEN new.id := new.id + 20; END IF;
      RETURN new;
    END
    $$;
    CREATE TRIGGER door BEFORE INSERT ON public.c2 FOR EACH ROW EXECUTE FUNCTION public.door();
    CREATE TRIGGER door BEFORE INSERT OR UPDATE ON public.a FOR EACH ROW EXECUTE FUNCTION public.door();

    CREATE FUNCTION public.nested(first text, second text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      BEGIN EXECUTE first; EXCEPTION WHEN OTHERS THEN NULL; END;
      EXECUTE second;
    END
    $$;
    CREATE FUNCTION public.deep(name text) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
      deepest integer;
    BEGIN
      EXECUTE format($q$
        WITH RECURSIVE seen AS (SELECT id, CASE WHEN min(parent) = max(parent) AND count(parent) = count(*) THEN min(parent) END AS parent FROM public.%I GROUP BY id),
          up AS (SELECT id, parent, 0 AS steps FROM seen
                  UNION ALL
                 SELECT up.id, s.parent, up.steps + 1 FROM up JOIN seen AS s ON s.id = up.parent WHERE up.steps <= 17)
        SELECT coalesce(max(steps), 0) FROM up$q$, name) INTO deepest;
      RETURN deepest > 16;
    END
    $$;

    SELECT keywright.ensure_user('u', '');
    CREATE TABLE public.named (name text, id text, uid bigint, PRIMARY KEY (name, id));
"#;

/// What is wrong, one row for each thing.
const WRONG: &str = r#"
    WITH rows AS (SELECT 'a' AS name, * FROM public.a UNION ALL SELECT 'b', * FROM public.b
                   UNION ALL SELECT 'c', * FROM public.c UNION ALL SELECT 'd', * FROM public.d),
    wanted AS (SELECT 'w' || name AS type, id::text, CASE WHEN min(parent) = max(parent) AND count(parent) = count(*) THEN min(parent)::text END AS parent
                 FROM rows GROUP BY name, id),
    there AS (SELECT type, id, parent_id FROM keywright.resources WHERE type IN ('wa', 'wb', 'wc', 'wd')),
    held AS (SELECT resource_type AS type, resource_id AS id FROM keywright.role_bindings WHERE resource_type IS NOT NULL),
    listed AS (SELECT split_part(e, ':', 1) AS type, split_part(e, ':', 2) AS id FROM keywright.api_keys AS k, unnest(k.allow_list) AS e WHERE k.revoked_at IS NULL)
    SELECT 'row without resource ' || w::text FROM (SELECT * FROM wanted EXCEPT SELECT * FROM there) AS w
     UNION ALL SELECT 'resource without row ' || w::text FROM (SELECT * FROM there EXCEPT SELECT * FROM wanted) AS w
     UNION ALL SELECT 'role on another row ' || h::text FROM held AS h
      WHERE NOT EXISTS (SELECT FROM public.named AS n JOIN rows AS r ON r.name = n.name AND r.id::text = n.id AND r.uid = n.uid WHERE 'w' || n.name = h.type AND n.id = h.id)
     UNION ALL SELECT 'entry for another row ' || l::text FROM (SELECT * FROM listed EXCEPT SELECT * FROM held) AS l
     UNION ALL SELECT 'role without entry ' || l::text FROM (SELECT * FROM held EXCEPT SELECT * FROM listed) AS l"#;

/// Roles that went though the row kept its id, where no two rows can have one id on the way.
const LOST: &str = r#"
    WITH rows AS (SELECT 'a' AS name, * FROM public.a UNION ALL SELECT 'd', * FROM public.d),
    gone AS (DELETE FROM public.named AS n
              WHERE NOT EXISTS (SELECT FROM keywright.role_bindings AS b WHERE b.resource_type = 'w' || n.name AND b.resource_id = n.id) RETURNING *)
    SELECT g::text FROM gone AS g JOIN rows AS r ON r.name = g.name AND r.id::text = g.id AND r.uid = g.uid"#;

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn id(&mut self) -> u64 {
        self.below(8) + 1
    }

    fn parent(&mut self) -> String {
        if self.below(4) == 0 { "NULL".into() } else { self.id().to_string() }
    }

    fn note(&mut self) -> &'static str {
        ["x", "x", "again", "other", "mend", "drop", "shift", "soft"][self.below(8) as usize]
    }

    fn row(&mut self) -> String {
        format!("({}, {}, {}, '{}')", self.id(), self.parent(), self.below(3) + 1, self.note())
    }

    /// One write of one kind.
    fn write(&mut self, table: &str) -> String {
        let (one, other) = (self.id(), self.id());
        match self.below(8) {
            0 => format!("INSERT INTO public.{table} (id, parent, region, note) VALUES {}", self.row()),
            1 => {
                format!(
                    "INSERT INTO public.{table} (id, parent, region, note) VALUES {}, {}",
                    self.row(),
                    self.row()
                )
            }
            2 => format!("UPDATE public.{table} SET id = {other}, note = '{}' WHERE id = {one}", self.note()),
            3 => format!(
                "UPDATE public.{table} SET id = CASE id WHEN {one} THEN {other} ELSE {one} END WHERE id IN ({one}, {other})"
            ),
            4 => format!(
                "UPDATE public.{table} SET parent = CASE id WHEN {one} THEN {} WHEN {other} THEN {} END, note = '{}' WHERE id IN ({one}, {other})",
                self.parent(),
                self.parent(),
                self.note()
            ),
            5 => format!("UPDATE public.{table} SET region = region % 3 + 1 WHERE id IN ({one}, {other})"),
            6 => format!(
                "UPDATE public.{table} SET region = region % 3 + 1, id = 9 - id, note = '{}' WHERE id > {one}",
                self.note()
            ),
            _ => format!("DELETE FROM public.{table} WHERE id IN ({one}, {other})"),
        }
    }

    /// A statement, of one or several writes.
    fn statement(&mut self, table: &str) -> String {
        match self.below(10) {
            0..=3 => self.write(table),
            4 => format!(
                "INSERT INTO public.{table} (id, parent, region, note) VALUES {} ON CONFLICT (id) DO UPDATE SET id = {}, parent = excluded.parent",
                self.row(),
                self.id()
            ),
            5 | 6 => format!(
                "MERGE INTO public.{table} AS t USING (VALUES ({}, 'd', 0), ({}, 'u', {}), ({}, 'p', {})) AS s (i, act, p) ON t.id = s.i
                   WHEN MATCHED AND s.act = 'd' THEN DELETE
                   WHEN MATCHED AND s.act = 'u' THEN UPDATE SET id = s.p
                   WHEN MATCHED THEN UPDATE SET parent = s.p
                   WHEN NOT MATCHED THEN INSERT (id, parent, region, note) VALUES (s.i, s.p, 1, 'x')",
                self.id(), self.id(), self.id(), self.id(), self.id()
            ),
            _ => {
                let (first, second, last) = (self.write(table), self.write(table), self.write(table));
                format!("WITH first AS ({first}), second AS ({second}) {last}")
            }
        }
    }
}

fn strings(client: &mut Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The SQLSTATE of a statement.
fn run(client: &mut impl postgres::GenericClient, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => "00000".into(),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).code().code().into(),
    }
}

/// What the application alone makes of a statement: its SQLSTATE, and whether a circle or more than 16 ancestors are left.
fn untracked(client: &mut Client, table: &str, sql: &str) -> (String, bool) {
    let mut transaction = client.transaction().unwrap();
    for event in ["insert", "update", "delete"] {
        transaction
            .batch_execute(&format!("ALTER TABLE public.{table} DISABLE TRIGGER keywright_track_{event}"))
            .unwrap();
    }
    let code = run(&mut transaction, &format!("{sql}; SET CONSTRAINTS ALL IMMEDIATE"));
    let deep = code == "00000"
        && transaction.query_one("SELECT public.deep($1)", &[&table]).unwrap().get::<_, bool>(0);
    (code, deep)
}

fn walk(seed: u64) {
    let database = Database::new(&format!("tracking_walk_{seed}"));
    let mut client = database.connect();
    client.batch_execute(SETUP).unwrap();
    for table in ["a", "b", "c", "d"] {
        client
            .batch_execute(&format!(
                "SELECT keywright.register_resource_type('w{table}', 'w{table}');
                 SELECT keywright.track_table('public.{table}', 'w{table}', 'id', 'parent', 'note');
                 CREATE TRIGGER again AFTER INSERT OR UPDATE ON public.{table} FOR EACH ROW EXECUTE FUNCTION public.again('{table}')"
            ))
            .unwrap();
    }
    let mut random = Random(seed);
    let (mut refused, mut done, mut ended) = (0, 0, 0);
    for step in 0..STEPS {
        let table = ["a", "b", "c", "d"][random.below(4) as usize];
        // Somebody is given a role on a row, by the id the row has now, and a key for it.
        if random.below(3) == 0 {
            let id = random.id();
            client
                .batch_execute(&format!(
                    "WITH n AS (INSERT INTO public.named SELECT '{table}', id::text, min(uid) FROM public.{table} WHERE id = {id} GROUP BY id HAVING count(*) = 1
                                ON CONFLICT DO NOTHING RETURNING id)
                     SELECT keywright.bind_role('u', 'auditor', 'w{table}', n.id), keywright.mint_api_key('u', 'k{step}', allow_list => ARRAY['w{table}:' || n.id]) FROM n"
                ))
                .unwrap();
        }
        let mut exact = true;
        let said = match random.below(12) {
            // Several statements, between which a deferred constraint may be broken.
            0 | 1 => {
                exact = false;
                let mut transaction = client.transaction().unwrap();
                let statements: Vec<String> = (0..3).map(|_| random.statement(table)).collect();
                let mut failed = false;
                for statement in &statements {
                    let mut savepoint = transaction.transaction().unwrap();
                    if run(&mut savepoint, statement) == "00000" {
                        savepoint.commit().unwrap();
                        let wrong = transaction.query(WRONG, &[]).unwrap();
                        let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
                        assert!(wrong.is_empty(), "seed {seed} step {step}: {statements:#?} {wrong:?}");
                    }
                }
                match transaction.commit() {
                    Ok(()) => (),
                    Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => failed = true,
                    Err(error) => panic!("{error:?}"),
                }
                format!("{statements:#?} failed: {failed}")
            }
            2 => {
                exact = false;
                let sql = format!(
                    "SELECT public.nested($a${}$a$, $a${}$a$)",
                    random.statement(table),
                    random.statement(table)
                );
                run(&mut client, &sql);
                sql
            }
            // What a replica's session writes is not followed, and touches nothing of keywright.
            3 => {
                let sql = random.statement(table);
                let mut transaction = client.transaction().unwrap();
                let state = "SELECT (SELECT count(*) FROM keywright.resources) || ' ' || (SELECT count(*) FROM keywright.role_bindings) || ' ' || (SELECT count(*) FROM keywright.audit_events)";
                let before: String = transaction.query_one(state, &[]).unwrap().get(0);
                transaction.batch_execute("SET LOCAL session_replication_role = replica").unwrap();
                if run(&mut transaction, &sql) == "00000" {
                    assert_eq!(before, transaction.query_one(state, &[]).unwrap().get::<_, String>(0));
                }
                sql
            }
            _ => {
                let sql = random.statement(table);
                let (code, deep) = untracked(&mut client, table, &sql);
                let real = run(&mut client, &sql);
                match (code.as_str(), deep) {
                    ("00000", true) => {
                        assert_eq!(real, "22023", "seed {seed} step {step}: not refused: {sql}");
                        refused += 1;
                    }
                    ("00000", false) => {
                        assert_eq!(real, "00000", "seed {seed} step {step}: {sql}");
                        done += 1;
                    }
                    _ => assert!(
                        real != "00000" && !real.starts_with("XX"),
                        "seed {seed} step {step}: {real} {sql}"
                    ),
                }
                sql
            }
        };
        let wrong = strings(&mut client, WRONG);
        assert!(wrong.is_empty(), "seed {seed} step {step}: {said} {wrong:#?}");
        let before: i64 = one(&mut client, "SELECT count(*) FROM public.named");
        let lost = strings(&mut client, LOST);
        assert!(!exact || lost.is_empty(), "seed {seed} step {step}: lost without need: {said} {lost:?}");
        ended += before - one::<i64>(&mut client, "SELECT count(*) FROM public.named");
        // So that there is room for more.
        if step % 50 == 49 {
            client.batch_execute(&format!("DELETE FROM public.{table} WHERE id > 8")).unwrap();
        }
    }
    // The walk has been where it was to go.
    assert!(refused > 10 && done > 300 && ended > 50, "{refused} {done} {ended}");
}

#[test]
fn resources_are_the_rows_and_no_role_moves_to_another_row() {
    walk(20_261_130);
}

#[test]
fn nor_on_another_walk() {
    walk(77);
}

/// Catalog names are bytes of the database's encoding.
#[test]
fn names_in_any_encoding() {
    let database = Database::with_encoding("tracking_latin1", "LATIN1");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE SCHEMA \"schön\"; CREATE TABLE \"schön\".\"größe\" (\"schlüssel\" int PRIMARY KEY, \"über\" int, \"na\"\"mé\" text);
             SELECT keywright.register_resource_type('t', 't');
             SELECT keywright.track_table('\"schön\".\"größe\"', 't', 'schlüssel', 'über', 'na\"mé');
             INSERT INTO \"schön\".\"größe\" VALUES (1, NULL, 'é'), (2, 1, 'x');
             UPDATE \"schön\".\"größe\" SET \"schlüssel\" = 3 WHERE \"schlüssel\" = 2;
             DELETE FROM \"schön\".\"größe\" WHERE \"schlüssel\" = 1",
        )
        .unwrap();
    let ids: String = one(
        &mut client,
        "SELECT string_agg(resource_id || '<' || parent_resource_id, ' ') FROM keywright.list_resources('t')",
    );
    assert_eq!(ids, "3<1");
    assert_eq!(run(&mut client, "TRUNCATE \"schön\".\"größe\""), "55000");
    assert_eq!(
        run(&mut client, "SELECT keywright.track_table('\"schön\".\"größe\"', 't', 'fehlt é')"),
        "42703"
    );
    client.batch_execute("CREATE TABLE \"schön\".\"zweite é\" (id int)").unwrap();
    assert_eq!(run(&mut client, "SELECT keywright.track_table('\"schön\".\"zweite é\"', 't')"), "42710");
}

#[test]
fn a_rotation_that_runs_meanwhile_keeps_no_entry() {
    let database = Database::new("tracking_rotation");
    let mut client = database.connect();
    client
        .batch_execute("SELECT keywright.ensure_user('u', ''), keywright.ensure_resource('project', 'p'), keywright.ensure_resource('project', 'q')")
        .unwrap();
    let key: String = one(
        &mut client,
        "SELECT key_id FROM keywright.mint_api_key('u', 'k', allow_list => '{project:p,project:q}')",
    );
    let mut other = database.connect();
    let mut rotation = other.transaction().unwrap();
    rotation.query(&format!("SELECT key_id FROM keywright.rotate_api_key('{key}')"), &[]).unwrap();
    std::thread::scope(|scope| {
        let deletion =
            scope.spawn(|| client.batch_execute("SELECT keywright.delete_resource('project', 'p')"));
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%delete_resource%' AND datname = current_database() AND pid <> pg_backend_pid())";
        keywright_tests::wait_for(&mut database.connect(), waits);
        rotation.commit().unwrap();
        deletion.join().unwrap().unwrap();
    });
    let lists = "SELECT string_agg(array_to_string(allow_list, ','), ' ') FROM keywright.api_keys";
    assert_eq!(one::<String>(&mut other, lists), "project:q project:q");
    // With the last entry nothing is left that the key is good for.
    other
        .batch_execute(
            "SELECT keywright.delete_resource('project', 'q'), keywright.ensure_resource('project', 'q')",
        )
        .unwrap();
    other.batch_execute("SELECT keywright.bind_role('u', 'owner')").unwrap();
    let left = "SELECT bool_and(allow_list = '{}') FROM keywright.api_keys";
    assert!(one::<bool>(&mut other, left));
}
