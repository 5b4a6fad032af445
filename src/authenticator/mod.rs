//! Authenticators: what a service needs of roles that are not ours is granted, noted, and undone exactly.

mod allowance;
mod caller;
mod carry_out;
pub mod declared;
mod desired;
mod preflight;
mod status;
mod step;
mod world;

use crate::args::{self, Faults};
use crate::error::Failure;
use crate::manager::Claim;
use crate::record::Rows;
use crate::retry::patiently;
use carry_out::{carry_out, describe, hold, queue};
use desired::Wanted;
use keywright_core::authenticator::findings::{Finding, Severity, literal};
use keywright_core::authenticator::ledger::Kind;
use keywright_core::authenticator::plan::{Step, World};
use keywright_core::authenticator::{Desired, Oid};
use keywright_core::name::Rule;
use keywright_core::printable::quoted;
use keywright_core::text::Kind as Words;
use pgrx::datum::{Array, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

pub use caller::Caller;
pub use desired::{current_names, database, find as find_service, login_of, served_by, shares_its_login};
pub use preflight::{list, missing_of_search_path};

#[expect(clippy::too_many_arguments, reason = "one for each of the SQL function's, and fcinfo")]
#[pg_extern(sql = false)]
fn grant_authenticator(
    service: Option<&[u8]>,
    connect_as: Option<&[u8]>,
    anon_role: Option<&[u8]>,
    jwt_roles: Option<Array<&[u8]>>,
    schemas: Option<Array<&[u8]>>,
    noinherit: Option<bool>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let caller = Caller::enter(fcinfo);
    let rows = Rows::new(fcinfo);
    let mut faults = Faults::default();
    let service = faults.sift(args::ruled(Rule::ServiceName, service));
    let connect_as = faults.sift(args::text("connect_as", connect_as));
    let anon_role = faults.sift(preflight::optional("anon_role", anon_role));
    let jwt_roles = faults.sift(list("jwt_roles", &jwt_roles));
    let schemas = faults.sift(list("schemas", &schemas));
    let noinherit = faults.sift(args::required("noinherit", noinherit));
    let managed_by = faults.sift(args::words("managed_by", Words::Manager, managed_by));
    let (Some(service), Some(connect_as), Some(anon_role)) = (service, connect_as, anon_role) else {
        faults.report_but_name()?;
        return Ok(rows);
    };
    let (Some(jwt_roles), Some(schemas), Some(noinherit), Some(managed_by)) =
        (jwt_roles, schemas, noinherit, managed_by)
    else {
        return Err(Failure::from(faults).into());
    };
    let (service, connect_as) = (service.to_owned(), connect_as.to_owned());
    let desired = Desired::new(service, connect_as, anon_role, jwt_roles, schemas, noinherit);
    let wanted = Wanted { desired, managed_by };
    let (world, steps, stored) = step::named(|| patiently(|| grant(&wanted, &caller)))?;
    for step in &steps {
        push(&rows, &world, step, false);
    }
    if steps.is_empty() && stored {
        rows.push(&[
            "store service".into_datum(),
            wanted.desired.service.as_str().into_datum(),
            "done".into_datum(),
            "its roles are granted already".into_datum(),
        ]);
    }
    if !steps.is_empty() {
        warn(&rows, &world, &wanted.desired);
    }
    Ok(rows)
}

/// What NOINHERIT does not keep the authenticator from, because somebody else granted it so.
fn warn(rows: &Rows, world: &World, desired: &Desired) {
    let found = preflight::preflight(world, desired, |name| world.graph.find(name));
    for finding in found.into_iter().filter(|finding| finding.code == "inherits") {
        rows.push(&[
            "check".into_datum(),
            finding.object.into_datum(),
            "left".into_datum(),
            finding.message.into_datum(),
        ]);
    }
}

/// What was done, and whether the service was stored.
fn grant(wanted: &Wanted, caller: &Caller) -> Result<(World, Vec<Step>, bool), Failure<'static>> {
    let desired = &wanted.desired;
    let look = || world::look(std::slice::from_ref(desired));
    if wanted.is_settled()? {
        return Ok((look(), Vec::new(), false));
    }
    preflight::require_powerful_owner()?;
    queue();
    let mut world = hold(look, Some(&desired.service), std::slice::from_ref(desired));
    let stored = wanted.differs()?;
    let mut found = preflight::preflight(&world, desired, |name| world.graph.find(name));
    found.extend(not_allowed(&world, desired, |name| world.graph.find(name), caller, Asked::Now));
    require_fit(&desired.service, found)?;
    let written = world::ledger();
    world.ledger.welcome(world.database.oid, &desired.service, |_| true);
    let needs = world.needs(desired, |name| world.graph.find(name));
    let steps = world.settle(&desired.service, &needs);
    step::at("storing the service");
    wanted.store(stored);
    carry_out(&mut world, &written, &steps)?;
    if stored.is_some() || world.ledger != written {
        notify(stored.is_some());
    }
    Ok((world, steps, stored.is_some()))
}

#[pg_extern(sql = false)]
fn revoke_authenticator(
    service: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let mut faults = args::Faults::default();
    let service = faults.sift(args::required("service", service));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(service), Some(claim)) = (service, claim) else { return Err(Failure::from(faults).into()) };
    let rows = Rows::new(fcinfo);
    let Ok(service) = str::from_utf8(service) else { return Ok(rows) };
    let (world, steps) = step::named(|| patiently(|| revoke(service, claim)))?;
    for step in steps.iter().flatten() {
        push(&rows, &world, step, false);
    }
    if steps.is_none() {
        rows.push(&[
            "check".into_datum(),
            service.into_datum(),
            "left".into_datum(),
            "nothing is noted for this service in this cluster: what it was granted, if anything, is left"
                .into_datum(),
        ]);
    }
    Ok(rows)
}

/// No steps at all when the service was there and the ledger knows nothing of it.
fn revoke(service: &str, claim: Claim) -> Result<(World, Option<Vec<Step>>), Failure<'static>> {
    const HOLD: &str =
        "SELECT a.managed_by FROM keywright.authenticators AS a WHERE a.service = $1 FOR NO KEY UPDATE";
    let known = |world: &World| {
        desired::is_there(service)
            || world.ledger.services(world.database.oid).iter().any(|claimant| claimant == service)
    };
    let world = world::look(&[]);
    if !known(&world) {
        return Ok((world, Some(Vec::new())));
    }
    preflight::require_powerful_owner()?;
    queue();
    claim.hold(|| format!("authenticator {}", quoted(service.as_bytes())), HOLD, &[service.into()])?;
    let mut world = hold(|| world::look(&[]), Some(service), &[]);
    if !known(&world) {
        return Ok((world, Some(Vec::new())));
    }
    let noted = world.ledger.claimed_by(world.database.oid, service).next().is_some();
    let written = world::ledger();
    let steps = world.settle(service, &[]);
    world.ledger.welcome(world.database.oid, service, |_| true);
    step::at("forgetting the service");
    desired::forget(service);
    carry_out(&mut world, &written, &steps)?;
    notify(true);
    Ok((world, noted.then_some(steps)))
}

#[pg_extern(sql = false)]
fn reconcile_authenticators(fcinfo: pg_sys::FunctionCallInfo) -> Result<Rows, ErrorReport> {
    let caller = Caller::enter(fcinfo);
    let rows = Rows::new(fcinfo);
    let (world, steps, findings) = step::named(|| patiently(|| reconcile(&caller)))?;
    for step in &steps {
        push(&rows, &world, step, true);
    }
    for (object, message, _) in status::unnoted(&world) {
        rows.push(&[
            None,
            "check".into_datum(),
            object.into_datum(),
            "left".into_datum(),
            message.into_datum(),
        ]);
    }
    for (service, finding) in &findings {
        let outcome = if finding.is_danger() { "refused" } else { "left" };
        rows.push(&[
            service.as_str().into_datum(),
            "check".into_datum(),
            finding.object.as_str().into_datum(),
            outcome.into_datum(),
            finding.message.as_str().into_datum(),
        ]);
    }
    Ok(rows)
}

#[pg_extern(sql = false)]
fn list_authenticators(fcinfo: pg_sys::FunctionCallInfo) -> Result<Rows, ErrorReport> {
    const ABOUT: &str = r#"
        SELECT a.managed_by, a.created_at, a.updated_at FROM keywright.authenticators AS a WHERE a.service = $1"#;
    let rows = Rows::new(fcinfo);
    let mut services = desired::all();
    services.sort_by(|one, other| one.service.cmp(&other.service));
    let world = world::look(&services);
    for service in services {
        let (connect_as, anon_role, jwt_roles) = desired::listed(&service, &world);
        let about = crate::spi::read(ABOUT, &[service.service.as_str().into()], |row| {
            let moment = |column| row.get::<TimestampWithTimeZone>(column);
            (row.get::<Vec<u8>>(1).map(|manager| args::readable(&manager)), moment(2), moment(3))
        });
        for (managed_by, created_at, updated_at) in about {
            rows.push(&[
                service.service.as_str().into_datum(),
                connect_as.as_str().into_datum(),
                anon_role.as_deref().into_datum(),
                jwt_roles.clone().into_datum(),
                service.schemas.clone().into_datum(),
                service.noinherit.into_datum(),
                managed_by.into_datum(),
                created_at.into_datum(),
                updated_at.into_datum(),
            ]);
        }
    }
    Ok(rows)
}

type Plan = (World, Vec<Step>, Vec<(String, Finding)>);

fn reconcile(caller: &Caller) -> Result<Plan, Failure<'static>> {
    let desired = desired::all();
    let (world, steps, findings) = plan(world::look(&desired), &desired, caller);
    if steps.is_empty() && world.ledger == world::ledger() {
        return Ok((world, steps, findings));
    }
    preflight::require_powerful_owner()?;
    queue();
    let desired = desired::all();
    let held = hold(|| world::look(&desired), None, &desired);
    let (mut world, steps, findings) = plan(held, &desired, caller);
    let written = world::ledger();
    carry_out(&mut world, &written, &steps)?;
    if !steps.is_empty() {
        notify(false);
    }
    Ok((world, steps, findings))
}

/// What has to be done for every service, and what its owner has to mend.
fn plan(mut world: World, desired: &[Desired], caller: &Caller) -> Plan {
    let mut steps = Vec::new();
    let mut findings = Vec::new();
    let mut settled = Vec::new();
    for service in desired {
        let meant = world.meant(service);
        let resolve = |name: &str| meant.get(name).copied();
        let mut found = preflight::preflight(&world, service, resolve);
        found.extend(not_allowed(&world, service, resolve, caller, Asked::Before));
        let errors = found.into_iter().filter(|finding| finding.severity == Severity::Error);
        let errors: Vec<_> = errors.map(|finding| (service.service.clone(), finding)).collect();
        if !errors.iter().any(|(_, finding)| finding.is_danger()) {
            let needs = world.needs(service, resolve);
            steps.extend(world.claim_all(&service.service, &needs));
            world.ledger.welcome(world.database.oid, &service.service, |name| meant.contains_key(name));
            // While a name means nobody, what the service has may be what it means.
            if !errors.iter().any(|(_, finding)| finding.code == "role_missing") {
                settled.push((service.service.as_str(), needs));
            }
        }
        findings.extend(errors);
    }
    for (service, needs) in settled {
        steps.extend(world.release_rest(service, &needs));
    }
    for service in world.ledger.services(world.database.oid) {
        if !desired::is_there(&service) {
            steps.extend(world.settle(&service, &[]));
        }
    }
    let here = world.database.oid;
    world.ledger.gone.retain(|gone| gone.database.oid != here || desired::is_there(&gone.service));
    steps.extend(world.settle_orphans());
    (world, steps, findings)
}

fn push(rows: &Rows, world: &World, step: &Step, with_service: bool) {
    let (action, object) = describe(world, step);
    let service = Some(step.service.as_str()).filter(|service| !service.is_empty());
    let columns = [
        service.into_datum(),
        action.into_datum(),
        object.into_datum(),
        step.outcome.as_str().into_datum(),
        step.reason.as_deref().into_datum(),
    ];
    rows.push(if with_service { &columns } else { &columns[1..] });
}

/// Whether somebody asks for a service now, or a job for what was asked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Now,
    Before,
}

/// What nobody allowed, and the caller could not grant without us.
fn not_allowed(
    world: &World,
    desired: &Desired,
    resolve: impl Fn(&str) -> Option<Oid>,
    caller: &Caller,
    asked: Asked,
) -> Vec<Finding> {
    let Some(connect_as) = resolve(&desired.connect_as) else { return Vec::new() };
    let has = |role| {
        world.ledger.claimed_by(world.database.oid, &desired.service).any(|entry| {
            entry.kind == Kind::Membership && entry.member.oid == connect_as && entry.object.oid == role
        })
    };
    let mut found = Vec::new();
    let mut refuse = |name: &str| {
        found.push(Finding {
            severity: Severity::Error,
            code: "not_allowed",
            object: name.to_owned(),
            message: match name == desired.connect_as {
                true => format!("role {} is not allowed to be an authenticator", quoted(name.as_bytes())),
                false => format!(
                    "role {} is not allowed to be granted to {}",
                    quoted(name.as_bytes()),
                    quoted(desired.connect_as.as_bytes())
                ),
            },
            hint: format!(
                "An administrator allows it with: SELECT keywright.allow_authenticator({}, ARRAY[...]);",
                literal(&desired.connect_as)
            ),
        });
    };
    // A name that became another role's is not what was asked for, whoever runs the job.
    let could_grant = |name: &str, roles: &[Oid]| {
        let is_another = |name| world.ledger.is_gone(world.database.oid, &desired.service, name);
        let waits = asked == Asked::Before && (is_another(name) || is_another(&desired.connect_as));
        !waits && caller.could_grant(roles)
    };
    // A service of no role still changes its login.
    let serves = || {
        world
            .ledger
            .claimed_by(world.database.oid, &desired.service)
            .any(|entry| entry.member.oid == connect_as)
    };
    if desired.roles().is_empty()
        && !(serves() || allowance::allows_any(connect_as) || could_grant(&desired.connect_as, &[connect_as]))
    {
        refuse(&desired.connect_as);
    }
    for name in desired.roles() {
        let Some(role) = resolve(name) else { continue };
        if has(role) || allowance::is_allowed(connect_as, role) || could_grant(name, &[connect_as, role]) {
            continue;
        }
        refuse(name);
    }
    found
}

fn require_fit(service: &str, found: Vec<Finding>) -> Result<(), Failure<'static>> {
    let errors: Vec<Finding> =
        found.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::Unfit { service: service.to_owned(), findings: errors })
}

/// Tells every PostgREST of this database, when the transaction commits; not where the server's queue is filling up (`audit::event`).
pub fn notify(schemas: bool) {
    const NOTIFY: &str = "SELECT pg_catalog.pg_notify('pgrst', $1) WHERE (SELECT pg_catalog.pg_notification_queue_usage()) < 0.5";
    for what in ["reload config", "reload schema"].into_iter().take(if schemas { 2 } else { 1 }) {
        crate::spi::write(NOTIFY, &[what.into()], |_| ());
    }
}
