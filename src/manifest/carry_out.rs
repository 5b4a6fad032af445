//! Does what was planned. Whatever turns out to be otherwise than it was, ends the attempt: it is planned anew.

use crate::api_key::declared::{self as api_keys, New};
use crate::authenticator::{Caller, declared as authenticators};
use crate::error::Failure;
use crate::gateway_key::declared as gateway_keys;
use crate::manager::Claim;
use crate::resource::declared as resources;
use crate::resource::{ORGANIZATION, kind as types, store::Wanted};
use crate::role::{self, declared as bindings};
use crate::user::declared as users;
use crate::{api_key, args, clock, definition, scope};
use keywright_core::manifest::plan::{Action, Kind, Step, Subject};
use keywright_core::manifest::state::State;
use keywright_core::manifest::{Manifest, UserKind};
use keywright_core::resource::Resource;
use keywright_core::secret::Secret;
use std::collections::{BTreeSet, HashMap};

type Done = Result<(), Failure<'static>>;

/// Holds everything that matters, in the order everybody does: types, users, roles and scopes, resources. One apply
/// after the other, by the table of types.
pub fn lock(manifest: &Manifest, state: &State, steps: &[Step]) -> Done {
    definition::lock("resource_types");
    let mut written: BTreeSet<String> = manifest.resources.iter().map(|entry| entry.kind.clone()).collect();
    if manifest.users.iter().any(|entry| entry.kind == UserKind::System) {
        written.insert(ORGANIZATION.into());
    }
    let pruned = |kind: Kind| {
        steps.iter().filter(move |step| step.kind == kind).filter_map(|step| match &step.subject {
            Subject::Pruned(id) => Some(id.as_str()),
            Subject::Entry(_) => None,
        })
    };
    written.extend(pruned(Kind::Resource).filter_map(Resource::parse).map(|resource| resource.kind));
    resources::queue(&written.into_iter().collect::<Vec<_>>());
    let lower = |name: &String| name.to_ascii_lowercase();
    let named = manifest.bindings.iter().map(|entry| &entry.username);
    let named: BTreeSet<String> =
        named.chain(manifest.api_keys.iter().map(|entry| &entry.username)).map(lower).collect();
    let named: Vec<String> = named.into_iter().collect();
    let changing: BTreeSet<String> =
        steps.iter().filter(|step| step.kind == Kind::User).map(|step| lower(&step.name)).collect();
    users::hold(&named, &changing.into_iter().collect::<Vec<_>>());
    definition::lock("roles");
    definition::lock("scopes");
    let referred: Vec<Resource> = state.resources.keys().cloned().collect();
    let changing = steps.iter().filter(|step| step.kind == Kind::Resource);
    let changing = changing.filter_map(|step| Resource::parse(&step.name));
    let owned: Vec<Resource> =
        state.owners.keys().map(|(_, resource)| resource.clone()).chain(changing).collect();
    let gone: Vec<Resource> = pruned(Kind::Resource).filter_map(Resource::parse).collect();
    resources::hold(&referred, &owned, &gone);
    let ids = |kind: Kind| -> Vec<String> {
        let steps = steps.iter().filter(|step| step.kind == kind && step.action == Action::Delete);
        steps.filter_map(|step| step.id.clone()).collect()
    };
    let users = ids(Kind::User).iter().filter_map(|id| args::uuid(id.as_bytes())).collect::<Vec<_>>();
    role::hold_bindings(&users, &gone, &ids(Kind::Binding));
    require_in_snapshot(manifest, state, &referred)
}

/// Inside REPEATABLE READ foreign keys look under the snapshot of the transaction.
fn require_in_snapshot(manifest: &Manifest, state: &State, resources: &[Resource]) -> Done {
    let users: Vec<String> = state.users.values().map(|user| user.id.clone()).collect();
    let roles: BTreeSet<String> = manifest
        .bindings
        .iter()
        .map(|entry| entry.role.clone())
        .filter(|role| state.roles.contains_key(role))
        .collect();
    let newer = |what: &str| Err(Failure::NewerThanTransaction { what: format!("One of the {what}") });
    if users::newer(&users) {
        return newer("users");
    }
    if bindings::newer(&roles.into_iter().collect::<Vec<_>>()) {
        return newer("roles");
    }
    if resources::newer(resources) {
        return newer("resources");
    }
    Ok(())
}

/// The tokens that were minted, by the place of their steps.
pub fn carry_out(
    manifest: &Manifest,
    state: &State,
    steps: &[Step],
    caller: &Caller,
) -> Result<HashMap<usize, Secret>, Failure<'static>> {
    let mut work = Work { manifest, state, steps, caller, claimed: false, tokens: HashMap::new() };
    let mut from = 0;
    for steps in steps.chunk_by(|a, b| a.kind == b.kind && is_entry(a) == is_entry(b)) {
        pgrx::check_for_interrupts!();
        match is_entry(&steps[0]) {
            true => work.settle(from, steps)?,
            false => prune(steps, &manifest.manager)?,
        }
        from += steps.len();
    }
    Ok(work.tokens)
}

fn is_entry(step: &Step) -> bool {
    matches!(step.subject, Subject::Entry(_))
}

struct Work<'a> {
    manifest: &'a Manifest,
    state: &'a State,
    steps: &'a [Step],
    caller: &'a Caller,
    /// Whether the bindings that are there already have been claimed.
    claimed: bool,
    tokens: HashMap<usize, Secret>,
}

fn require(unchanged: bool) -> Done {
    if unchanged { Ok(()) } else { Err(Failure::Contended) }
}

/// The entries that steps are about.
fn entries<'a, T>(section: &'a [T], steps: &'a [Step]) -> impl Iterator<Item = (&'a T, &'a Step)> {
    steps.iter().filter_map(|step| match step.subject {
        Subject::Entry(at) => Some((&section[at], step)),
        Subject::Pruned(_) => None,
    })
}

impl Work<'_> {
    /// Steps of one kind; `from` is the place of the first.
    fn settle(&mut self, from: usize, steps: &[Step]) -> Done {
        let manifest = self.manifest;
        let manager = Some(manifest.manager.as_bytes());
        let adopt = |step: &Step| step.action == Action::Adopt;
        match steps[0].kind {
            Kind::ResourceType => {
                for (entry, step) in entries(&manifest.resource_types, steps) {
                    let parent_type = entry.parent_type.as_deref().map(str::as_bytes);
                    types::register(&entry.kind, parent_type, manager, adopt(step))?;
                }
            }
            Kind::Scope => {
                for (entry, step) in entries(&manifest.scopes, steps) {
                    scope::define(&entry.name, &entry.permissions, manager, adopt(step))?;
                }
            }
            Kind::Role => {
                for (entry, step) in entries(&manifest.roles, steps) {
                    role::define(&entry.name, &entry.permissions, entry.level, manager, adopt(step))?;
                }
            }
            Kind::Resource => self.resources(steps)?,
            Kind::User => self.users(steps)?,
            Kind::Binding => self.bindings(steps)?,
            Kind::ApiKey => self.api_keys(from, steps)?,
            Kind::GatewayKey => self.gateway_keys(from, steps)?,
            Kind::Authenticator => {
                for (entry, _) in entries(&manifest.authenticators, steps) {
                    authenticators::put(entry, &manifest.manager, manifest.adopt, self.caller)?;
                }
            }
        }
        Ok(())
    }

    /// One statement a type, parents first.
    fn resources(&self, steps: &[Step]) -> Done {
        let mut order: Vec<&str> = Vec::new();
        let mut wanted: HashMap<&str, Wanted> = HashMap::new();
        for (entry, _) in entries(&self.manifest.resources, steps) {
            let of_type = wanted.entry(&entry.kind).or_insert_with(|| {
                order.push(&entry.kind);
                Wanted {
                    ids: Vec::new(),
                    parents: Some(Vec::new()),
                    names: Some(Vec::new()),
                    manager: Some(self.manifest.manager.clone()),
                    adopt: self.manifest.adopt,
                }
            });
            let found =
                self.state.resources.get(&Resource { kind: entry.kind.clone(), id: entry.id.clone() });
            let settled = |to: &Option<String>, from: Option<&String>| {
                to.as_ref().or(from).filter(|text| !text.is_empty()).cloned()
            };
            let parent = settled(&entry.parent_id, found.map(|found| &found.parent_id));
            let name = settled(&entry.name, found.map(|found| &found.name));
            of_type.push(entry.id.clone(), parent, name);
        }
        let mut stored = Vec::new();
        for kind in order {
            if let Some(wanted) = wanted.remove(kind) {
                require(resources::put(kind, wanted, &mut stored)?)?;
            }
        }
        resources::require_all_shallow(&stored)
    }

    fn users(&mut self, steps: &[Step]) -> Done {
        let manager = self.manifest.manager.as_str();
        self.claim_bindings()?;
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for (entry, step) in entries(&self.manifest.users, steps) {
            match &step.id {
                _ if entry.kind == UserKind::System => (),
                None => new.push(entry),
                Some(id) => changed.push((entry, id.clone())),
            }
        }
        require(new.is_empty() || users::create(&new, manager))?;
        require(changed.is_empty() || users::update(&changed, manager))?;
        for (entry, _) in entries(&self.manifest.users, steps) {
            if entry.kind == UserKind::System {
                users::settle_system_user(entry, manager)?;
            }
        }
        Ok(())
    }

    /// Before users lose what they hold by their own roles.
    fn claim_bindings(&mut self) -> Done {
        if std::mem::replace(&mut self.claimed, true) {
            return Ok(());
        }
        let steps = self.steps.iter().filter(|step| step.kind == Kind::Binding && is_entry(step));
        let claimed: Vec<String> = steps.filter_map(|step| step.id.clone()).collect();
        require(claimed.is_empty() || bindings::adopt(&claimed, &self.manifest.manager, self.manifest.adopt))
    }

    fn bindings(&mut self, steps: &[Step]) -> Done {
        let manager = self.manifest.manager.as_str();
        self.claim_bindings()?;
        let all: Vec<_> = entries(&self.manifest.bindings, steps).collect();
        let new: Vec<_> = all.iter().filter(|(_, step)| step.id.is_none()).map(|(entry, _)| *entry).collect();
        require(new.is_empty() || bindings::create(&new, manager))
    }

    fn api_keys(&mut self, from: usize, steps: &[Step]) -> Done {
        let manager = self.manifest.manager.as_str();
        let (mut keys, mut places, mut adopted) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (entry, step)) in (from..).zip(entries(&self.manifest.api_keys, steps)) {
            match step.action {
                Action::Mint | Action::Rotate => {
                    let reason = step.change["reason"].as_str().unwrap_or_default().to_owned();
                    keys.push(New { entry, predecessor: step.id.clone().map(|id| (id, reason)) });
                    places.push(place);
                }
                Action::Adopt => adopted.extend(step.id.clone()),
                _ => (),
            }
        }
        require(adopted.is_empty() || api_keys::adopt(&adopted, manager, self.manifest.adopt))?;
        if keys.is_empty() {
            return Ok(());
        }
        if keys.iter().any(|key| key.entry.existing_token.is_some()) {
            clock::gather();
        }
        let minted = api_keys::mint(&keys, manager)?.ok_or(Failure::Contended)?;
        self.tokens.extend(places.into_iter().zip(minted));
        Ok(())
    }

    fn gateway_keys(&mut self, from: usize, steps: &[Step]) -> Done {
        let manager = self.manifest.manager.as_str();
        let mints = |step: &Step| [Action::Mint, Action::Rotate].contains(&step.action);
        let mut handed_in = entries(&self.manifest.gateway_keys, steps);
        if handed_in.any(|(entry, step)| mints(step) && entry.existing_token.is_some()) {
            clock::gather();
        }
        for (place, (entry, step)) in (from..).zip(entries(&self.manifest.gateway_keys, steps)) {
            match step.action {
                Action::Mint | Action::Rotate => {
                    let token = gateway_keys::mint(&entry.name, step.id.as_deref(), manager)?;
                    let token = token.ok_or(Failure::Contended)?;
                    self.tokens.insert(place, token);
                }
                Action::Adopt => require(gateway_keys::adopt(&entry.name, step.id.as_deref(), manager))?,
                _ => (),
            }
        }
        Ok(())
    }
}

fn prune(steps: &[Step], manager: &str) -> Done {
    let steps = || steps.iter().filter(|step| step.action != Action::Left);
    let ids: Vec<String> = steps().filter_map(|step| step.id.clone()).collect();
    let Some(first) = steps().next() else { return Ok(()) };
    match first.kind {
        Kind::Authenticator => ids.iter().try_for_each(|service| authenticators::remove(service, manager)),
        Kind::GatewayKey => steps()
            .try_for_each(|step| require(gateway_keys::delete(&step.name, step.id.as_deref(), manager))),
        Kind::ApiKey => {
            let id = |step: &Step| step.id.clone().unwrap_or_default();
            let (in_grace, holders): (Vec<&Step>, Vec<&Step>) =
                steps().partition(|step| !step.change["reason"].is_null());
            let ids = |steps: Vec<&Step>| -> Vec<String> { steps.into_iter().map(id).collect() };
            require(api_keys::revoke(&ids(holders), &ids(in_grace), manager))
        }
        Kind::Binding => require(bindings::delete(&ids, manager)),
        Kind::User => steps().try_for_each(|step| {
            require(api_key::delete_named(step.name.as_bytes(), Claim::NONE)?.is_some())
        }),
        Kind::Resource => steps().try_for_each(|step| {
            let resource = Resource::parse(&step.name).ok_or(Failure::Contended)?;
            require(resources::delete(&resource)?)
        }),
        Kind::Role => ids.iter().try_for_each(|name| require(role::delete(name, Claim::NONE)?)),
        Kind::Scope => ids.iter().try_for_each(|name| require(scope::delete(name, Claim::NONE)?)),
        Kind::ResourceType => {
            ids.iter().try_for_each(|kind| require(types::delete(kind.as_bytes(), Claim::NONE)?))
        }
    }
}
