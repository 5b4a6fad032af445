//! What there is: roles, memberships, who may connect, and the ledger, read in one place.

use crate::{args, spi};
use keywright_core::authenticator::findings::GRANTOR;
use keywright_core::authenticator::graph::{Graph, Membership, Privilege, Role};
use keywright_core::authenticator::ledger::{Entry, Kind, Ledger};
use keywright_core::authenticator::plan::{Connect, World};
use keywright_core::authenticator::{Desired, Oid, Party};
use pgrx::pg_sys;
use std::collections::{BTreeMap, BTreeSet};

/// From PostgreSQL 16 a membership has options, and is one of several by who granted it.
pub const BY_GRANTOR: bool = cfg!(not(feature = "pg15"));

/// The setting of keywright_grantor that is the ledger.
pub const LEDGER: &str = "keywright_ledger.entries";

#[cfg(feature = "pg15")]
const MEMBERSHIPS: &str = r#"
    SELECT m.roleid, m.member, m.grantor, m.admin_option, true, true, m.xmin::text::bigint
      FROM pg_catalog.pg_auth_members AS m
     WHERE m.member = ANY ($1) OR m.roleid = ANY ($2)"#;
#[cfg(not(feature = "pg15"))]
const MEMBERSHIPS: &str = r#"
    SELECT m.roleid, m.member, m.grantor, m.admin_option, m.inherit_option, m.set_option, m.xmin::text::bigint
      FROM pg_catalog.pg_auth_members AS m
     WHERE m.member = ANY ($1) OR m.roleid = ANY ($2)"#;

/// Everything that matters to these services and to what the ledger holds.
pub fn look(desired: &[Desired]) -> World {
    look_for(desired, ledger(), BTreeSet::new())
}

/// As `look`, for a ledger that is not written yet, and these roles.
pub fn look_at(ledger: &Ledger, roles: impl Iterator<Item = Oid>) -> World {
    look_for(&[], ledger.clone(), roles.collect())
}

fn look_for(desired: &[Desired], ledger: Ledger, also: BTreeSet<Oid>) -> World {
    const HERE: &str =
        "SELECT d.oid, d.datname::text FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()";
    let names: BTreeSet<&str> = desired
        .iter()
        .flat_map(|desired| desired.roles().into_iter().chain([desired.connect_as.as_str()]))
        .chain([GRANTOR])
        .collect();
    let entries = || ledger.entries.iter();
    let objects: BTreeSet<Oid> =
        entries().filter(|entry| entry.kind == Kind::Membership).map(|entry| entry.object.oid).collect();
    let noted: BTreeSet<Oid> =
        entries().map(|entry| entry.member.oid).chain(objects.clone()).chain(also).collect();
    let roles = roles(&names, &noted);
    let roles = with_privileges(roles);
    let memberships = memberships(roles.keys().copied(), objects);
    let grantor = roles.iter().find(|(_, role)| role.name == GRANTOR).map(|(oid, _)| *oid);
    let database = spi::read(HERE, &[], |row| party(row.must(1), row.must(2)))
        .pop()
        .unwrap_or(Party { oid: 0, name: String::new() });
    let connect = connect(roles.keys().copied());
    let mut world = World {
        graph: Graph { roles, memberships },
        ledger,
        database,
        connect,
        grantor,
        by_grantor: BY_GRANTOR,
    };
    let databases: BTreeSet<Oid> = databases().into_iter().map(|(oid, _)| oid).collect();
    let graph = &world.graph;
    world.ledger.prune(|role| graph.roles.contains_key(&role), |oid| databases.contains(&oid));
    world
}

/// The ledger as it is written, in the numbers of this cluster.
pub fn ledger() -> Ledger {
    const WRITTEN: &str = r#"
        SELECT pg_catalog.substr(c.entry, pg_catalog.length($2) + 2)
          FROM pg_catalog.pg_db_role_setting AS s
          JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
         CROSS JOIN pg_catalog.unnest(s.setconfig) AS c (entry)
         WHERE r.rolname = $1 AND s.setdatabase = 0 AND pg_catalog.starts_with(c.entry, $2 || '=')"#;
    const SYSTEM: &str = "SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() AS s";
    const ROLES: &str =
        "SELECT r.oid, r.rolname::text FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY ($1)";
    let system: String = spi::read(SYSTEM, &[], |row| row.must(1)).pop().unwrap_or_default();
    let written: Option<Vec<u8>> =
        spi::read(WRITTEN, &[GRANTOR.into(), LEDGER.into()], |row| row.must(1)).pop();
    let Some(ledger) = written.and_then(|json| Ledger::parse(&json)) else {
        return Ledger { system, ..Ledger::default() };
    };
    if ledger.system == system {
        return ledger;
    }
    let names: Vec<String> = ledger
        .entries
        .iter()
        .flat_map(|entry: &Entry| [entry.member.name.clone(), entry.object.name.clone()])
        .collect();
    let roles: Vec<(Oid, Vec<u8>)> = spi::read(ROLES, &[names.into()], numbered);
    let databases = databases();
    let of = |parties: &[(Oid, Vec<u8>)], name: &str| {
        parties.iter().find(|(_, bytes)| bytes == name.as_bytes()).map(|(oid, _)| *oid)
    };
    ledger.moved_to(&system, |name| of(&roles, name), |name| of(&databases, name))
}

/// Names as the shared catalogs have them, whatever the encoding of this database.
pub fn databases() -> Vec<(Oid, Vec<u8>)> {
    const DATABASES: &str = "SELECT d.oid, d.datname::text FROM pg_catalog.pg_database AS d";
    spi::read(DATABASES, &[], numbered)
}

fn numbered(row: &spi::Row) -> (Oid, Vec<u8>) {
    (row.must::<pg_sys::Oid>(1).to_u32(), row.must(2))
}

fn party(oid: pg_sys::Oid, name: Vec<u8>) -> Party {
    Party { oid: oid.to_u32(), name: name_of(oid, &name) }
}

/// A name of the catalog as text. One that this database can not read is shown by its number.
fn name_of(oid: pg_sys::Oid, name: &[u8]) -> String {
    args::name(name).map_or_else(|| format!("?{}", oid.to_u32()), str::to_owned)
}

/// The named and the numbered roles, and all they are members of.
fn roles(names: &BTreeSet<&str>, noted: &BTreeSet<Oid>) -> BTreeMap<Oid, Role> {
    const ROLES: &str = r#"
        WITH RECURSIVE reached (oid) AS (
          SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY ($1) OR r.oid = ANY ($2)
          UNION
          SELECT m.roleid FROM reached AS r JOIN pg_catalog.pg_auth_members AS m ON m.member = r.oid)
        SELECT r.oid, r.rolname::text, r.rolcanlogin, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication,
               r.rolbypassrls, r.rolinherit, coalesce(r.rolvaliduntil <= pg_catalog.clock_timestamp(), false),
               r.oid IN (SELECT e.extowner FROM pg_catalog.pg_extension AS e WHERE e.extname = 'keywright'
                         UNION ALL SELECT n.nspowner FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'keywright'),
               r.rolconnlimit = 0,
               r.oid = (SELECT d.datdba FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()),
               ARRAY(SELECT g.capability FROM keywright._access AS g
                      WHERE g.grantee = r.oid AND g.capability IN ('issuer', 'reconciler', 'admin') ORDER BY 1),
               ARRAY(SELECT p.parname FROM pg_catalog.pg_parameter_acl AS p, pg_catalog.aclexplode(p.paracl) AS a
                      WHERE a.grantee = r.oid AND a.privilege_type = 'ALTER SYSTEM' ORDER BY 1)
          FROM reached AS n JOIN pg_catalog.pg_roles AS r ON r.oid = n.oid"#;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    spi::read(ROLES, &[names.into(), numbers(noted.iter().copied()).into()], |row| {
        let oid: pg_sys::Oid = row.must(1);
        let name: Vec<u8> = row.must(2);
        let role = Role {
            name: name_of(oid, &name),
            unreadable: args::name(&name).is_none(),
            login: row.must(3),
            superuser: row.must(4),
            create_role: row.must(5),
            create_db: row.must(6),
            replication: row.must(7),
            bypass_rls: row.must(8),
            inherit: row.must(9),
            expired: row.must(10),
            owner: row.must(11),
            closed: row.must(12),
            database_owner: row.must(13),
            access: row.must(14),
            parameters: row.must(15),
            privileges: Vec::new(),
        };
        (oid.to_u32(), role)
    })
    .into_iter()
    .collect()
}

/// What roles were granted of the server and of keywright by hand, to them or to everybody.
fn with_privileges(mut roles: BTreeMap<Oid, Role>) -> BTreeMap<Oid, Role> {
    // What initdb granted is what everybody knows; what it took from PUBLIC is dangerous.
    const PRIVILEGES: &str = r#"
        SELECT x.grantee, x.code, x.privilege
          FROM (
            SELECT a.grantee, 'set_parameter' AS code, 'SET ON PARAMETER ' || p.parname AS privilege
              FROM pg_catalog.pg_parameter_acl AS p CROSS JOIN LATERAL pg_catalog.aclexplode(p.paracl) AS a
             WHERE a.privilege_type = 'SET'
            UNION ALL
            SELECT a.grantee, 'server_function', 'EXECUTE ON FUNCTION ' || p.oid::pg_catalog.regprocedure::text
              FROM pg_catalog.pg_proc AS p
              JOIN pg_catalog.pg_init_privs AS i ON i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid
             CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) AS a
             WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND a.grantee <> p.proowner
               AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(i.initprivs) AS n WHERE n.grantee IN (0, a.grantee))
            UNION ALL
            SELECT a.grantee, CASE n.nspname WHEN 'keywright' THEN 'keywright_privilege' ELSE 'catalog_privilege' END,
                   a.privilege_type || c.columns || ' ON TABLE ' || c.oid::pg_catalog.regclass::text
              FROM (SELECT c.oid, c.relnamespace, c.relowner, 0 AS attnum, '' AS columns, c.relacl AS acl FROM pg_catalog.pg_class AS c
                     WHERE c.relacl IS NOT NULL
                    UNION ALL
                    SELECT c.oid, c.relnamespace, c.relowner, t.attnum, ' (' || pg_catalog.quote_ident(t.attname) || ')', t.attacl
                      FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS t ON t.attrelid = c.oid
                     WHERE t.attacl IS NOT NULL) AS c
              JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             CROSS JOIN LATERAL pg_catalog.aclexplode(c.acl) AS a
             WHERE n.nspname IN ('pg_catalog', 'keywright') AND a.grantee <> c.relowner
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_init_privs AS i CROSS JOIN LATERAL pg_catalog.aclexplode(i.initprivs) AS n
                                WHERE i.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.objoid = c.oid AND i.objsubid = c.attnum
                                  AND n.grantee IN (0, a.grantee) AND n.privilege_type = a.privilege_type)
            UNION ALL
            SELECT a.grantee, 'keywright_privilege', 'EXECUTE ON FUNCTION ' || p.oid::pg_catalog.regprocedure::text
              FROM pg_catalog.pg_proc AS p CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) AS a
             WHERE p.pronamespace = 'keywright'::pg_catalog.regnamespace AND a.grantee <> p.proowner
               AND NOT EXISTS (SELECT FROM keywright._capability_functions AS f
                                WHERE pg_catalog.to_regprocedure('keywright.' || f.signature) = p.oid
                                  AND (f.capability IN ('authenticator', 'requester', 'verifier')
                                       OR EXISTS (SELECT FROM keywright._access AS g
                                                   WHERE g.grantee = a.grantee AND g.capability = f.capability)))
          ) AS x
         WHERE x.grantee = ANY ($1) OR x.grantee = 0
         ORDER BY x.code, x.privilege"#;
    let granted = spi::read(PRIVILEGES, &[numbers(roles.keys().copied()).into()], |row| {
        let privilege: Vec<u8> = row.must(3);
        (row.must::<pg_sys::Oid>(1).to_u32(), row.must::<String>(2), args::readable(&privilege))
    });
    for (grantee, code, what) in granted {
        for (_, role) in roles.iter_mut().filter(|(oid, _)| grantee == 0 || **oid == grantee) {
            if !role.superuser && !role.name.starts_with("pg_") {
                role.privileges.push(Privilege {
                    code: code.clone(),
                    what: what.clone(),
                    everybody: grantee == 0,
                });
            }
        }
    }
    roles
}

fn memberships(members: impl Iterator<Item = Oid>, objects: BTreeSet<Oid>) -> Vec<Membership> {
    spi::read(MEMBERSHIPS, &[numbers(members).into(), numbers(objects).into()], |row| {
        let oid = |column| row.must::<pg_sys::Oid>(column).to_u32();
        Membership {
            role: oid(1),
            member: oid(2),
            grantor: oid(3),
            admin: row.must(4),
            inherit: row.must(5),
            set: row.must(6),
            xmin: row.must::<i64>(7) as u32,
        }
    })
}

/// How roles may connect to this database, those that may at all.
fn connect(roles: impl Iterator<Item = Oid>) -> BTreeMap<Oid, Connect> {
    const CONNECT: &str = r#"
        SELECT r.oid, pg_catalog.bool_or(a.grantee = 0), pg_catalog.bool_or(a.grantee = r.oid),
               pg_catalog.bool_or(a.grantee = r.oid AND a.grantor = d.datdba AND r.oid <> d.datdba),
               pg_catalog.bool_or(a.grantee = r.oid AND a.grantor = d.datdba AND a.is_grantable)
          FROM pg_catalog.pg_database AS d
         CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
          JOIN pg_catalog.pg_roles AS r ON a.grantee IN (0, r.oid)
         WHERE d.datname = pg_catalog.current_database() AND a.privilege_type = 'CONNECT' AND r.oid = ANY ($1)
         GROUP BY r.oid"#;
    spi::read(CONNECT, &[numbers(roles).into()], |row| {
        let connect = Connect {
            everybody: row.must(2),
            itself: row.must(3),
            ours: row.must(4),
            grantable: row.must(5),
        };
        (row.must::<pg_sys::Oid>(1).to_u32(), connect)
    })
    .into_iter()
    .collect()
}

pub fn numbers(oids: impl IntoIterator<Item = Oid>) -> Vec<pg_sys::Oid> {
    oids.into_iter().map(pg_sys::Oid::from).collect()
}
