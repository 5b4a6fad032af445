//! Does what was planned, and writes the ledger, all in the transaction of the caller.

use super::step;
use super::world::{BY_GRANTOR, LEDGER, databases, look_at};
use crate::error::Failure;
use crate::{args, audit, spi};
use keywright_core::authenticator::findings::GRANTOR;
use keywright_core::authenticator::graph::Membership;
use keywright_core::authenticator::ledger::{Kind, Ledger, Need};
use keywright_core::authenticator::plan::{FIRST_SUPERUSER, Outcome, Step, World};
use keywright_core::authenticator::{self, Desired, Party};
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::quote_literal;
use std::collections::BTreeSet;

/// One writer at a time in the whole cluster: the catalog that carries the ledger is shared by all databases, and so is a
/// lock of it. Nobody else takes this kind of lock on it but VACUUM.
pub fn queue() {
    utility("LOCK TABLE pg_catalog.pg_db_role_setting IN SHARE UPDATE EXCLUSIVE MODE");
}

/// Looks at roles that stay: nobody drops one of those that matter to a service, or to any, before the transaction ends, as a
/// grant alone would let them before PostgreSQL 16.
pub fn hold(look: impl Fn() -> World, service: Option<&str>, desired: &[Desired]) -> World {
    step::at("looking at roles");
    let mut held = BTreeSet::new();
    loop {
        let world = look();
        let matter = matter(&world, service, desired);
        if matter.is_subset(&held) {
            return world;
        }
        for role in &matter {
            // SAFETY: a transaction is running, at whose end the lock is let go.
            unsafe {
                let share = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
                pg_sys::LockSharedObject(pg_sys::AuthIdRelationId, Oid::from(*role), 0, share);
            }
        }
        held.extend(matter);
    }
}

fn matter(world: &World, service: Option<&str>, desired: &[Desired]) -> BTreeSet<authenticator::Oid> {
    let noted = world.ledger.entries.iter().filter(|entry| match service {
        Some(service) => entry.claimed_by(world.database.oid, service),
        None => true,
    });
    let noted = noted.flat_map(|entry| match entry.kind {
        Kind::Membership => vec![entry.member.oid, entry.object.oid],
        Kind::Noinherit | Kind::Connect => vec![entry.member.oid],
    });
    let named = desired.iter().flat_map(|desired| {
        let names = desired.roles().into_iter().chain([desired.connect_as.as_str()]);
        names.filter_map(|name| world.graph.find(name))
    });
    noted.chain(named).collect()
}

/// A statement that changes a role or a database.
fn utility(sql: &str) {
    step::at(sql);
    spi::utility(&sql);
}

/// The same, put together from words and identifiers in the encoding of the database.
fn statement(parts: &[&[u8]]) {
    let sql = parts.concat();
    step::at(String::from_utf8_lossy(&sql));
    spi::utility(&sql);
}

/// What a role is called now, quoted.
fn identifier(role: authenticator::Oid) -> Result<Vec<u8>, Failure<'static>> {
    const NAME: &str =
        "SELECT pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles AS r WHERE r.oid = $1";
    spi::read(NAME, &[Oid::from(role).into()], |row| row.must(1)).pop().ok_or(Failure::Contended)
}

fn this_database() -> Vec<u8> {
    const NAME: &str = "SELECT pg_catalog.quote_ident(pg_catalog.current_database())";
    spi::read(NAME, &[], |row| row.must(1)).pop().unwrap_or_default()
}

/// `before` is the ledger as it is written.
pub fn carry_out(world: &mut World, before: &Ledger, steps: &[Step]) -> Result<(), Failure<'static>> {
    let changes: Vec<&Step> =
        steps.iter().filter(|step| [Outcome::Done, Outcome::Undone].contains(&step.outcome)).collect();
    if changes.is_empty() && world.ledger == *before {
        return Ok(());
    }
    let noted_anew = world.ledger.entries.iter().any(|entry| before.get(entry.need()).is_none());
    if (noted_anew || changes.iter().any(|step| step.outcome == Outcome::Done)) && !is_clean(world) {
        return Err(Failure::GrantorAltered);
    }
    if world.grantor.is_none() && !world.ledger.is_empty() {
        utility(&format!("CREATE ROLE {GRANTOR} NOLOGIN"));
        utility(&format!(
            "COMMENT ON ROLE {GRANTOR} IS 'keywright: grants memberships to authenticators, and carries the ledger of what was granted'"
        ));
    }
    for step in &changes {
        change(world, step)?;
    }
    replace_plain(world, &changes)?;
    if BY_GRANTOR {
        tidy();
    } else {
        mark(world, &changes);
    }
    require_carried_out(world, &changes)?;
    for step in &changes {
        let (action, object) = describe(world, step);
        let event = if step.outcome == Outcome::Done { "granted" } else { "undone" };
        audit::note(
            event,
            "authenticator_grant",
            args::readable(format!("{action} {object}").as_bytes()).as_bytes(),
        );
    }
    let graph = &world.graph;
    let role = |oid| graph.roles.get(&oid).filter(|role| !role.unreadable).map(|role| role.name.clone());
    let databases = databases();
    let database = |oid| {
        let named = databases.iter().find(|(number, _)| *number == oid);
        named.and_then(|(_, name)| String::from_utf8(name.clone()).ok())
    };
    world.ledger.rename(role, database);
    write(&world.ledger);
    Ok(())
}

/// Statements name roles, and a role may be renamed while one runs: then it was another's, and all of it is taken back and
/// tried again.
fn require_carried_out(world: &World, changes: &[&Step]) -> Result<(), Failure<'static>> {
    step::at("looking at what was done");
    let now = look_at(&world.ledger, changes.iter().flat_map(|step| [step.need.member, step.need.object]));
    match changes.iter().all(|step| now.is_carried_out(step)) {
        true => Ok(()),
        false => Err(Failure::Contended),
    }
}

/// Whoever could become keywright_grantor, or owns a function as it, could grant what it may grant; and a role of that name may
/// be somebody else's. Ours carries the ledger, a setting that only a superuser can write, and nothing else: it owns nothing, in
/// no database, and nothing was granted to it but by us.
pub fn is_clean(world: &World) -> bool {
    const OURS: &str = r#"
        SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS c (entry)
                        WHERE s.setrole = r.oid AND s.setdatabase = 0 AND pg_catalog.starts_with(c.entry, $2 || '='))
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS c (entry)
                                WHERE s.setrole = r.oid AND NOT (s.setdatabase = 0 AND pg_catalog.starts_with(c.entry, $2 || '=')))
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = r.oid)
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_shdepend AS d
                                WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = r.oid
                                  AND d.classid <> 'pg_catalog.pg_auth_members'::pg_catalog.regclass)
          FROM pg_catalog.pg_roles AS r WHERE r.oid = $1"#;
    let Some(oid) = world.grantor else { return true };
    let role = &world.graph.roles[&oid];
    let powers =
        [role.login, role.superuser, role.create_role, role.create_db, role.replication, role.bypass_rls];
    !powers.contains(&true)
        && spi::read(OURS, &[Oid::from(oid).into(), LEDGER.into()], |row| row.must(1)).pop() == Some(true)
}

/// True when a role of that name has the ledger, which only a superuser can have given it.
fn is_attested() -> bool {
    const ATTESTED: &str = r#"
        SELECT FROM pg_catalog.pg_db_role_setting AS s
          JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
         CROSS JOIN pg_catalog.unnest(s.setconfig) AS c (entry)
         WHERE r.rolname = $1 AND s.setdatabase = 0 AND pg_catalog.starts_with(c.entry, $2 || '=')"#;
    !spi::read(ATTESTED, &[GRANTOR.into(), LEDGER.into()], |_| ()).is_empty()
}

fn change(world: &World, step: &Step) -> Result<(), Failure<'static>> {
    let Need { kind, member, object } = step.need;
    let undo = step.outcome == Outcome::Undone;
    let member = identifier(member)?;
    match (kind, undo) {
        (Kind::Noinherit, false) => statement(&[b"ALTER ROLE ", &member, b" NOINHERIT"]),
        (Kind::Noinherit, true) => statement(&[b"ALTER ROLE ", &member, b" INHERIT"]),
        (Kind::Connect, false) => {
            statement(&[b"GRANT CONNECT ON DATABASE ", &this_database(), b" TO ", &member])
        }
        (Kind::Connect, true) => {
            statement(&[b"REVOKE CONNECT ON DATABASE ", &this_database(), b" FROM ", &member]);
        }
        (Kind::Membership, false) if BY_GRANTOR => {
            let role = identifier(object)?;
            let may_grant = |edge: &Membership| {
                edge.role == object
                    && Some(edge.member) == world.grantor
                    && edge.admin
                    && edge.grantor == pg_sys::BOOTSTRAP_SUPERUSERID
            };
            if !world.graph.memberships.iter().any(may_grant) {
                statement(&[
                    b"GRANT ",
                    &role,
                    b" TO ",
                    GRANTOR.as_bytes(),
                    b" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
                ]);
            }
            let options: &[u8] = match world.is_used_to_grant(step.need) {
                true => b" WITH INHERIT FALSE, SET TRUE GRANTED BY ",
                false => b" WITH ADMIN FALSE, INHERIT FALSE, SET TRUE GRANTED BY ",
            };
            statement(&[b"GRANT ", &role, b" TO ", &member, options, GRANTOR.as_bytes()]);
        }
        (Kind::Membership, false) => statement(&[b"GRANT ", &identifier(object)?, b" TO ", &member]),
        (Kind::Membership, true) if BY_GRANTOR => {
            // Undone is what there is: ours, or what it was before rows were told apart.
            let by = match world.grantor.filter(|_| world.has_row(step.need)) {
                Some(_) => GRANTOR.as_bytes().to_vec(),
                None => identifier(FIRST_SUPERUSER)?,
            };
            statement(&[b"REVOKE ", &identifier(object)?, b" FROM ", &member, b" GRANTED BY ", &by]);
        }
        (Kind::Membership, true) => statement(&[b"REVOKE ", &identifier(object)?, b" FROM ", &member]),
    }
    Ok(())
}

/// What was granted before rows were told apart goes when it is granted as ours.
fn replace_plain(world: &mut World, changes: &[&Step]) -> Result<(), Failure<'static>> {
    let granted = |step: &&&Step| step.need.kind == Kind::Membership && step.outcome == Outcome::Done;
    for Step { need, .. } in changes.iter().filter(granted) {
        let entry = world.ledger.get(*need);
        if entry.and_then(|entry| world.plain_row(entry)).is_some_and(|row| !row.admin) {
            let [role, member, by] = [need.object, need.member, FIRST_SUPERUSER].map(identifier);
            statement(&[b"REVOKE ", &role?, b" FROM ", &member?, b" GRANTED BY ", &by?]);
        }
        if let (true, Some(entry)) = (BY_GRANTOR, world.ledger.get_mut(*need)) {
            entry.plain = false;
        }
    }
    Ok(())
}

/// The right to grant a role is given back when nothing granted by it is left.
fn tidy() {
    const SPARE: &str = r#"
        SELECT pg_catalog.quote_ident(r.rolname)
          FROM pg_catalog.pg_auth_members AS m
          JOIN pg_catalog.pg_roles AS g ON g.oid = m.member
          JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
         WHERE g.rolname = $1 AND m.grantor = 10
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS o WHERE o.roleid = m.roleid AND o.grantor = g.oid)"#;
    for role in spi::read(SPARE, &[GRANTOR.into()], |row| row.must::<Vec<u8>>(1)) {
        statement(&[b"REVOKE ", &role, b" FROM ", GRANTOR.as_bytes()]);
    }
}

/// Notes which rows are ours, where a row does not say who made it.
fn mark(world: &mut World, changes: &[&Step]) {
    const WRITTEN_BY: &str = r#"
        SELECT m.xmin::text::bigint FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = $1 AND m.member = $2"#;
    let granted = |step: &&&Step| step.need.kind == Kind::Membership && step.outcome == Outcome::Done;
    for step in changes.iter().filter(granted) {
        let args = [Oid::from(step.need.object).into(), Oid::from(step.need.member).into()];
        let written_by: Option<i64> = spi::read(WRITTEN_BY, &args, |row| row.must(1)).pop();
        if let Some(entry) = world.ledger.get_mut(step.need) {
            entry.mark = written_by.map(|transaction| transaction as u32);
        }
    }
}

/// The role that carries the ledger goes with the last entry. One that did not carry it is somebody else's.
fn write(ledger: &Ledger) {
    const USED: &str = r#"
        SELECT FROM pg_catalog.pg_shdepend AS d
          JOIN pg_catalog.pg_roles AS r ON r.oid = d.refobjid
         WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND r.rolname = $1 LIMIT 1"#;
    let unused = || spi::read(USED, &[GRANTOR.into()], |_| ()).is_empty();
    if ledger.is_empty() && !is_attested() {
        return;
    }
    if ledger.is_empty() && unused() {
        return utility(&format!("DROP ROLE IF EXISTS {GRANTOR}"));
    }
    let json = quote_literal(ledger.to_json());
    step::at("writing the ledger");
    spi::utility(&format!("ALTER ROLE {GRANTOR} SET {LEDGER} = {json}"));
}

/// How a step reads: what is done, and to what.
pub fn describe(world: &World, step: &Step) -> (&'static str, String) {
    let undo = ![Outcome::Done, Outcome::Present].contains(&step.outcome);
    let member = world.graph.name(step.need.member);
    match (step.need.kind, undo) {
        (Kind::Noinherit, false) => ("set noinherit", format!("role {member}")),
        (Kind::Noinherit, true) => ("set inherit", format!("role {member}")),
        (Kind::Connect, false) => ("grant connect", format!("database {} to {member}", world.database.name)),
        (Kind::Connect, true) => {
            ("revoke connect", format!("database {} from {member}", world.database.name))
        }
        (Kind::Membership, undo) => {
            let role = world.graph.name(step.need.object);
            match undo {
                false => ("grant role", format!("{role} to {member}")),
                true => ("revoke role", format!("{role} from {member}")),
            }
        }
    }
}

/// What a role is called now, or was when it was noted.
pub fn named(world: &World, party: &Party) -> String {
    match world.graph.roles.get(&party.oid) {
        Some(role) => role.name.clone(),
        None => party.name.clone(),
    }
}
