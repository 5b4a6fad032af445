//! What there is: roles, memberships, who may connect, and the ledger, read in one place.

use crate::{args, spi};
use keywright_core::authenticator::findings::GRANTOR;
use keywright_core::authenticator::graph::{Graph, Membership, Role};
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
    let databases: BTreeSet<Oid> = databases().values().copied().collect();
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
        return Ledger { system, entries: Vec::new() };
    };
    if ledger.system == system {
        return ledger;
    }
    let names: Vec<String> = ledger
        .entries
        .iter()
        .flat_map(|entry: &Entry| [entry.member.name.clone(), entry.object.name.clone()])
        .collect();
    let roles: BTreeMap<String, Oid> = spi::read(ROLES, &[names.into()], |row| {
        let party = party(row.must(1), row.must(2));
        (party.name, party.oid)
    })
    .into_iter()
    .collect();
    let databases = databases();
    ledger.moved_to(&system, |name| roles.get(name).copied(), |name| databases.get(name).copied())
}

pub fn databases() -> BTreeMap<String, Oid> {
    const DATABASES: &str = "SELECT d.oid, d.datname::text FROM pg_catalog.pg_database AS d";
    spi::read(DATABASES, &[], |row| party(row.must(1), row.must(2)))
        .into_iter()
        .map(|party| (party.name, party.oid))
        .collect()
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
               r.oid = (SELECT e.extowner FROM pg_catalog.pg_extension AS e WHERE e.extname = 'keywright'),
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
        };
        (oid.to_u32(), role)
    })
    .into_iter()
    .collect()
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
