//! Does what was planned, and writes the ledger, all in the transaction of the caller.

use super::step;
use super::world::{BY_GRANTOR, LEDGER, numbers};
use crate::error::Failure;
use crate::spi;
use keywright_core::authenticator::findings::GRANTOR;
use keywright_core::authenticator::ledger::{Kind, Ledger, Need};
use keywright_core::authenticator::plan::{Outcome, Step, World};
use keywright_core::authenticator::{self, Desired, Party};
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::{quote_identifier, quote_literal};
use std::collections::BTreeSet;

/// One writer at a time in the whole cluster: the catalog that carries the ledger is shared by all databases, and so is a
/// lock of it. Nobody else takes this kind of lock on it but VACUUM.
pub fn queue() {
    utility("LOCK TABLE pg_catalog.pg_db_role_setting IN SHARE UPDATE EXCLUSIVE MODE");
}

/// Looks at roles that stay: nobody drops one of those that matter to these services before the transaction ends, as a
/// grant alone would let them before PostgreSQL 16.
pub fn hold(look: impl Fn() -> World, services: &[&str], desired: &[Desired]) -> World {
    step::at("looking at roles");
    let mut held = BTreeSet::new();
    loop {
        let world = look();
        let matter = matter(&world, services, desired);
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

fn matter(world: &World, services: &[&str], desired: &[Desired]) -> BTreeSet<authenticator::Oid> {
    let noted = services.iter().flat_map(|service| world.ledger.claimed_by(world.database.oid, service));
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
    spi::utility(sql);
}

/// `before` is the ledger as it is written.
pub fn carry_out(world: &mut World, before: &Ledger, steps: &[Step]) -> Result<(), Failure<'static>> {
    let changes: Vec<&Step> =
        steps.iter().filter(|step| [Outcome::Done, Outcome::Undone].contains(&step.outcome)).collect();
    if changes.is_empty() && world.ledger == *before {
        return Ok(());
    }
    require_clean_grantor(world)?;
    if world.grantor.is_none() && !world.ledger.entries.is_empty() {
        utility(&format!("CREATE ROLE {GRANTOR} NOLOGIN"));
        utility(&format!(
            "COMMENT ON ROLE {GRANTOR} IS 'keywright: grants memberships to authenticators, and carries the ledger of what was granted'"
        ));
    }
    for step in &changes {
        change(world, step);
    }
    if BY_GRANTOR {
        tidy(&changes);
    } else {
        mark(world, &changes);
    }
    write(&world.ledger);
    Ok(())
}

/// Whoever could become keywright_grantor could grant what it may grant.
fn require_clean_grantor(world: &World) -> Result<(), Failure<'static>> {
    const MEMBERS: &str = "SELECT FROM pg_catalog.pg_auth_members WHERE roleid = $1 LIMIT 1";
    let Some(oid) = world.grantor else { return Ok(()) };
    let role = &world.graph.roles[&oid];
    let powers =
        [role.login, role.superuser, role.create_role, role.create_db, role.replication, role.bypass_rls];
    if powers.contains(&true) || !spi::read(MEMBERS, &[Oid::from(oid).into()], |_| ()).is_empty() {
        return Err(Failure::GrantorAltered);
    }
    Ok(())
}

fn change(world: &World, step: &Step) {
    let Need { kind, member, object } = step.need;
    let name = |role: authenticator::Oid| quote_identifier(world.graph.name(role));
    let member = name(member);
    let undo = step.outcome == Outcome::Undone;
    match (kind, undo) {
        (Kind::Noinherit, false) => utility(&format!("ALTER ROLE {member} NOINHERIT")),
        (Kind::Noinherit, true) => utility(&format!("ALTER ROLE {member} INHERIT")),
        (Kind::Connect, _) => {
            let database = quote_identifier(&world.database.name);
            let (verb, to) = if undo { ("REVOKE", "FROM") } else { ("GRANT", "TO") };
            utility(&format!("{verb} CONNECT ON DATABASE {database} {to} {member}"));
        }
        (Kind::Membership, false) if BY_GRANTOR => {
            let role = name(object);
            let may_grant = world.grantor.is_some_and(|grantor| {
                world
                    .graph
                    .memberships
                    .iter()
                    .any(|edge| edge.role == object && edge.member == grantor && edge.admin)
            });
            if !may_grant {
                utility(&format!("GRANT {role} TO {GRANTOR} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"));
            }
            utility(&format!(
                "GRANT {role} TO {member} WITH ADMIN FALSE, INHERIT FALSE, SET TRUE GRANTED BY {GRANTOR}"
            ));
        }
        (Kind::Membership, false) => utility(&format!("GRANT {} TO {member}", name(object))),
        (Kind::Membership, true) => {
            let by = if BY_GRANTOR { format!(" GRANTED BY {GRANTOR}") } else { String::new() };
            utility(&format!("REVOKE {} FROM {member}{by}", name(object)));
        }
    }
}

/// The right to grant a role is given back when nothing granted by it is left.
fn tidy(changes: &[&Step]) {
    const SPARE: &str = r#"
        SELECT r.rolname::text
          FROM pg_catalog.pg_auth_members AS m
          JOIN pg_catalog.pg_roles AS g ON g.oid = m.member
          JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
         WHERE g.rolname = $1 AND m.roleid = ANY ($2)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members AS o WHERE o.roleid = m.roleid AND o.grantor = g.oid)"#;
    let undone: BTreeSet<authenticator::Oid> = changes
        .iter()
        .filter(|step| step.need.kind == Kind::Membership && step.outcome == Outcome::Undone)
        .map(|step| step.need.object)
        .collect();
    if undone.is_empty() {
        return;
    }
    for role in spi::read(SPARE, &[GRANTOR.into(), numbers(undone).into()], |row| row.must::<String>(1)) {
        utility(&format!("REVOKE {} FROM {GRANTOR}", quote_identifier(role)));
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

/// The role that carries the ledger goes with the last entry.
fn write(ledger: &Ledger) {
    const USED: &str = r#"
        SELECT FROM pg_catalog.pg_shdepend AS d
          JOIN pg_catalog.pg_roles AS r ON r.oid = d.refobjid
         WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND r.rolname = $1 LIMIT 1"#;
    if !ledger.entries.is_empty() {
        let json = quote_literal(ledger.to_json());
        step::at("writing the ledger");
        spi::utility(&format!("ALTER ROLE {GRANTOR} SET {LEDGER} = {json}"));
    } else if spi::read(USED, &[GRANTOR.into()], |_| ()).is_empty() {
        utility(&format!("DROP ROLE IF EXISTS {GRANTOR}"));
    } else {
        utility(&format!("ALTER ROLE {GRANTOR} RESET {LEDGER}"));
    }
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

/// Everything that was noted with the name a role had then.
pub fn named(world: &World, party: &Party) -> String {
    match world.graph.roles.get(&party.oid) {
        Some(role) => role.name.clone(),
        None => party.name.clone(),
    }
}
