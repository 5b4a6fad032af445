//! Services as a manifest has them.

use super::caller::Caller;
use super::desired::{self, Wanted};
use super::{Asked, describe, grant, not_allowed, preflight, queue, revoke, status, world};
use crate::error::{Failure, code_of};
use crate::manager::Claim;
use crate::{args, spi};
use keywright_core::authenticator::Desired;
use keywright_core::authenticator::findings::Severity;
use keywright_core::authenticator::ledger::Need;
use keywright_core::authenticator::plan::{Outcome, Step, World};
use keywright_core::manifest;
use keywright_core::manifest::plan::Refusal;
use keywright_core::manifest::state::{Authenticator, Owner};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// What is there of these services and of a manager's, what there is to grant and to undo, and what speaks against it.
pub fn look(
    entries: &[manifest::Authenticator],
    manager: Option<&str>,
    caller: &Caller,
) -> (HashMap<String, Authenticator>, Vec<Refusal>) {
    const OWNED: &str =
        "SELECT a.service FROM keywright.authenticators AS a WHERE a.managed_by = $1 ORDER BY a.service";
    let mut found = HashMap::new();
    let mut refusals = Vec::new();
    let mut granted = HashSet::new();
    let owned: Vec<String> = match manager {
        Some(manager) => spi::read(OWNED, &[manager.into()], |row| row.must(1)),
        None => Vec::new(),
    };
    if entries.is_empty() && owned.is_empty() {
        return (found, refusals);
    }
    let desired: Vec<Desired> = entries.iter().map(desired_of).collect();
    let mut world = world::look(&desired);
    for (at, desired) in desired.iter().enumerate() {
        let resolve = |name: &str| world.graph.find(name);
        let mut findings = preflight::preflight(&world, desired, resolve);
        findings.extend(not_allowed(&world, desired, resolve, caller, Asked::Now));
        findings.retain(|finding| finding.severity == Severity::Error);
        let needs = world.needs(desired, resolve);
        let steps = world.settle(&desired.service, &needs);
        let state = state(desired, described(&world, &steps, &mut granted));
        // Nothing is granted anew, so nothing speaks against it, as for grant_authenticator.
        if state.is_there && state.differs.is_empty() && status::is_settled(desired) {
            findings.clear();
        }
        refusals.extend(findings.into_iter().map(|finding| Refusal {
            code: code_of(finding.code),
            path: format!("$.authenticators[{at}]"),
            sentence: format!("{}: {}. {}", finding.code, finding.message, finding.hint),
        }));
        found.insert(desired.service.clone(), state);
    }
    for service in owned {
        if let Entry::Vacant(other) = found.entry(service) {
            let steps = world.settle(other.key(), &[]);
            let grants = described(&world, &steps, &mut granted);
            let owner = Owner { manager: manager.map(str::to_owned), built_in: false };
            other.insert(Authenticator { is_there: true, differs: Vec::new(), grants, owner });
        }
    }
    (found, refusals)
}

/// What a service before this one is granted, is there by then.
fn described(world: &World, steps: &[Step], granted: &mut HashSet<Need>) -> Vec<String> {
    let named = |step: &Step| {
        let (action, object) = describe(world, step);
        // A role belongs to the cluster, and its name may not fit the encoding of the database.
        let object = args::readable(object.as_bytes());
        match step.outcome {
            Outcome::Done if !granted.insert(step.need) => {
                format!("{action} {object}: {}", Outcome::Present.as_str())
            }
            Outcome::Done | Outcome::Undone => format!("{action} {object}"),
            outcome => format!("{action} {object}: {}", outcome.as_str()),
        }
    };
    steps.iter().map(named).collect()
}

fn state(desired: &Desired, grants: Vec<String>) -> Authenticator {
    let Some(stored) = desired::find(&desired.service) else {
        return Authenticator { is_there: false, grants, ..Authenticator::default() };
    };
    let manager = manager_of(&desired.service).flatten();
    let fields = [
        ("connect_as", stored.connect_as != desired.connect_as),
        ("anon_role", stored.anon_role != desired.anon_role),
        ("jwt_roles", stored.jwt_roles != desired.jwt_roles),
        ("schemas", stored.schemas != desired.schemas),
        ("noinherit", stored.noinherit != desired.noinherit),
    ];
    Authenticator {
        is_there: true,
        differs: fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect(),
        grants,
        owner: Owner { manager, built_in: false },
    }
}

fn desired_of(entry: &manifest::Authenticator) -> Desired {
    Desired::new(
        entry.service.clone(),
        entry.connect_as.clone(),
        entry.anon_role.clone(),
        entry.jwt_roles.clone(),
        entry.schemas.clone(),
        entry.noinherit,
    )
}

/// Grants what a service needs, for a manager; another manager's is taken over only if `others`.
pub fn put(
    entry: &manifest::Authenticator,
    manager: &str,
    others: bool,
    caller: &Caller,
) -> Result<(), Failure<'static>> {
    const ADOPT: &str = r#"
        UPDATE keywright.authenticators SET managed_by = $2, updated_at = pg_catalog.clock_timestamp()
         WHERE service = $1 AND managed_by IS DISTINCT FROM $2"#;
    queue();
    let owner = manager_of(&entry.service);
    if !others && owner.flatten().is_some_and(|owner| owner != manager) {
        return Err(Failure::Contended);
    }
    spi::count(ADOPT, &[entry.service.as_str().into(), manager.into()]);
    let wanted = Wanted { desired: desired_of(entry), managed_by: Some(manager.as_bytes()) };
    grant(&wanted, caller).map(|_| ())
}

pub fn remove(service: &str, manager: &str) -> Result<(), Failure<'static>> {
    queue();
    match manager_of(service).flatten().as_deref() == Some(manager) {
        true => revoke(service, Claim::NONE).map(|_| ()),
        false => Err(Failure::Contended),
    }
}

/// Nothing when there is no such service.
fn manager_of(service: &str) -> Option<Option<String>> {
    const MANAGER: &str = "SELECT a.managed_by FROM keywright.authenticators AS a WHERE a.service = $1";
    spi::read(MANAGER, &[service.into()], |row| row.get(1)).pop()
}
