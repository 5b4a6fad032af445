//! Drift: what is not as the services of this database need it.

use super::preflight::preflight;
use super::{carry_out, desired, world};
use crate::record::Rows;
use crate::{args, spi};
use keywright_core::authenticator::findings::{GRANTOR, Severity, identifier};
use keywright_core::authenticator::ledger::{Entry, Kind, Need};
use keywright_core::authenticator::plan::{State, World};
use keywright_core::authenticator::{Desired, Oid};
use keywright_core::printable::quoted;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

const RECONCILE: &str = "SELECT * FROM keywright.reconcile_authenticators();";

#[derive(Debug)]
pub struct Drift {
    service: Option<String>,
    code: &'static str,
    object: String,
    message: String,
    hint: String,
}

#[pg_extern(sql = false)]
fn authenticator_status(fcinfo: pg_sys::FunctionCallInfo) -> Result<Rows, ErrorReport> {
    let rows = Rows::new(fcinfo);
    for drift in all() {
        rows.push(&[
            drift.service.into_datum(),
            drift.code.into_datum(),
            drift.object.into_datum(),
            drift.message.into_datum(),
            drift.hint.into_datum(),
        ]);
    }
    Ok(rows)
}

pub fn all() -> Vec<Drift> {
    let services = desired::all();
    let world = world::look(&services);
    let mut drift = Vec::new();
    for service in &services {
        let meant = world.meant(service);
        drift.extend(differences(&world, service, |name| meant.get(name).copied()));
    }
    for service in world.ledger.services(world.database.oid) {
        if !desired::is_there(&service) {
            let held = world.ledger.claimed_by(world.database.oid, &service);
            drift.extend(held.map(|entry| left_over(&world, Some(&service), entry)));
        }
    }
    for (object, message, hint) in unnoted(&world) {
        if !drift.iter().any(|known: &Drift| known.object == object) {
            drift.push(Drift { service: None, code: "not_noted", object, message, hint });
        }
    }
    let orphans = world.ledger.entries.iter().filter(|entry| entry.claims.is_empty());
    drift.extend(orphans.map(|entry| left_over(&world, None, entry)));
    drift
}

/// Memberships that keywright_grantor granted and that the ledger does not know: each with what is said of it and what to do. It is
/// ours, but another database's service may need it whose entry was lost.
pub fn unnoted(world: &World) -> Vec<(String, String, String)> {
    const GRANTED: &str = r#"
        SELECT m.roleid, m.member, r.rolname::text, o.rolname::text
          FROM pg_catalog.pg_auth_members AS m
          JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
          JOIN pg_catalog.pg_roles AS o ON o.oid = m.member
         WHERE m.grantor = $1 ORDER BY 3, 4"#;
    let Some(grantor) = world.grantor.filter(|_| world.by_grantor) else { return Vec::new() };
    let rows = spi::read(GRANTED, &[pg_sys::Oid::from(grantor).into()], |row| {
        let oid = |column| row.must::<pg_sys::Oid>(column).to_u32();
        let need = Need { kind: Kind::Membership, member: oid(2), object: oid(1) };
        let name = |column| args::readable(&row.must::<Vec<u8>>(column));
        (need, name(3), name(4))
    });
    let unknown = rows.into_iter().filter(|(need, ..)| world.ledger.get(*need).is_none());
    unknown
        .map(|(_, role, member)| {
            (
                format!("{role} to {member}"),
                format!(
                    "membership of {} in {} was granted by {GRANTOR}, and the ledger does not know for which service",
                    quoted(member.as_bytes()),
                    quoted(role.as_bytes())
                ),
                format!(
                    "{RECONCILE} in the database whose service needs it, or: REVOKE {} FROM {} GRANTED BY {GRANTOR};",
                    identifier(&role),
                    identifier(&member)
                ),
            )
        })
        .collect()
}

/// True when a service has all it needs, and every name means the role that has it now.
pub fn is_settled(service: &Desired) -> bool {
    let world = world::look(std::slice::from_ref(service));
    let mut names = service.roles().into_iter().chain([service.connect_as.as_str()]);
    names.all(|name| world.role_of(&service.service, name) == world.graph.find(name))
        && differences(&world, service, |name| world.graph.find(name))
            .iter()
            .all(|difference| difference.code == "settings_unread")
}

fn differences(world: &World, desired: &Desired, resolve: impl Fn(&str) -> Option<Oid>) -> Vec<Drift> {
    let service = Some(desired.service.clone());
    let mut drift: Vec<Drift> = preflight(world, desired, &resolve)
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error || finding.code == "settings_unread")
        .map(|finding| Drift {
            service: service.clone(),
            code: finding.code,
            object: finding.object,
            message: finding.message,
            hint: finding.hint,
        })
        .collect();
    let needs = world.needs(desired, &resolve);
    let is_another = |name: &str| world.ledger.is_gone(world.database.oid, &desired.service, name);
    for (need, named_member, named_object) in &needs {
        let member = world.graph.name(need.member);
        let role = world.graph.name(need.object);
        let shown = (quoted(member.as_bytes()), quoted(role.as_bytes()));
        let noted = world
            .ledger
            .get(*need)
            .is_some_and(|entry| entry.claimed_by(world.database.oid, &desired.service));
        let (code, object, message) = match (need.kind, world.state(*need)) {
            (_, State::There) if noted => continue,
            (Kind::Membership, State::There) => (
                "not_noted",
                format!("{role} to {member}"),
                format!("membership of {} in {} is not noted for the service", shown.0, shown.1),
            ),
            (_, State::There) => (
                "not_noted",
                member.to_owned(),
                format!("what role {} has is not noted for the service", shown.0),
            ),
            (Kind::Membership, State::Missing) => (
                "membership_missing",
                format!("{role} to {member}"),
                format!("role {} has not been granted {} for the service", shown.0, shown.1),
            ),
            (Kind::Membership, State::Altered) => (
                "membership_altered",
                format!("{role} to {member}"),
                format!(
                    "membership of {} in {} has other options than it was granted with",
                    shown.0, shown.1
                ),
            ),
            (Kind::Noinherit, _) => {
                ("inherits_again", member.to_owned(), format!("role {} is not NOINHERIT", shown.0))
            }
            (Kind::Connect, _) => (
                "connect_missing",
                member.to_owned(),
                format!(
                    "role {} may not connect to database {}",
                    shown.0,
                    quoted(world.database.name.as_bytes())
                ),
            ),
        };
        let hint = match is_another(&named_member.name) || is_another(&named_object.name) {
            true => {
                "Another role has the name now: call keywright.grant_authenticator for the service again, or keywright.allow_authenticator."
            }
            false => RECONCILE,
        };
        drift.push(Drift { service: service.clone(), code, object, message, hint: hint.into() });
    }
    let held = world.ledger.claimed_by(world.database.oid, &desired.service);
    for entry in held.filter(|entry| !needs.iter().any(|(need, ..)| *need == entry.need())) {
        drift.push(left_over(world, service.as_deref(), entry));
    }
    drift
}

fn left_over(world: &World, service: Option<&str>, entry: &Entry) -> Drift {
    let member = carry_out::named(world, &entry.member);
    let (object, what) = match entry.kind {
        Kind::Membership => {
            let role = carry_out::named(world, &entry.object);
            (
                format!("{role} to {member}"),
                format!("role {} granted to {}", identifier(&role), identifier(&member)),
            )
        }
        Kind::Noinherit => (member.clone(), format!("NOINHERIT of role {}", identifier(&member))),
        Kind::Connect => (member.clone(), format!("CONNECT of role {}", identifier(&member))),
    };
    Drift {
        service: service.map(str::to_owned),
        code: "left_over",
        object,
        message: format!("{what} is no longer needed"),
        hint: RECONCILE.into(),
    }
}
