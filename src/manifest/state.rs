//! What there is, asked of the rooms: what the manifest names, and, when it prunes, what its manager owns.

use crate::api_key::declared as api_keys;
use crate::authenticator::{Caller, declared as authenticators};
use crate::clock::Moment;
use crate::error::Failure;
use crate::gateway_key::declared as gateway_keys;
use crate::resource::declared as resources;
use crate::role::declared as bindings;
use crate::user::{self, declared as users};
use crate::{args, clock, settings, spi};
use keywright_core::manifest::plan::{Pruned, Refusal};
use keywright_core::manifest::state::{Definition, KeyName, Owner, Place, ResourceType, State};
use keywright_core::manifest::{Manifest, UserKind};
use keywright_core::resource::{ORGANIZATION, Resource};
use pgrx::datum::Uuid;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What there is, and what speaks against the manifest that only a database can tell.
pub fn look(
    manifest: &Manifest,
    caller: &Caller,
    started: Moment,
) -> Result<(State, Vec<Refusal>), Failure<'static>> {
    let mut refusals = Vec::new();
    let manager = manifest.prune.then_some(manifest.manager.as_str());
    let found = users::find(&usernames(manifest), manager);
    let cap = if manifest.api_keys.is_empty() { None } else { settings::max_api_key_lifetime()? };
    let mut state = State {
        now: clock::now(),
        cap,
        types: types(),
        scopes: definitions(SCOPES),
        roles: definitions(ROLES),
        users: found.into_iter().map(|user| (user.username.to_ascii_lowercase(), user)).collect(),
        ..State::default()
    };
    state.resources = resources::find(&named_resources(manifest, &state), manager).into_iter().collect();
    if !manifest.resources.is_empty() {
        state.tracked = resources::tracked();
        below(manifest, &mut state);
    }
    let moved = manifest
        .resource_types
        .iter()
        .filter(|entry| state.types.get(&entry.kind).is_some_and(|found| found.parent != entry.parent_type));
    let moved: Vec<String> = moved.map(|entry| entry.kind.clone()).collect();
    if !moved.is_empty() {
        state.types_with_parents = resources::with_parents(&moved).into_iter().collect();
    }
    let holders = ids(&state, manifest.bindings.iter().map(|entry| entry.username.as_str()));
    state.bindings = bindings::find(holders, &manifest.manager, manifest.prune).into_iter().collect();
    let owners = ids(&state, manifest.api_keys.iter().map(|entry| entry.username.as_str()));
    state.api_keys = api_keys::find(owners, manager).into_iter().collect();
    if manifest.prune {
        let in_grace = api_keys::in_grace(&manifest.manager).into_iter();
        state.in_grace = in_grace.map(|(name, key)| (key.id.clone(), (name, key))).collect();
    }
    let names: Vec<String> = manifest.gateway_keys.iter().map(|entry| entry.name.clone()).collect();
    if !names.is_empty() || manager.is_some() {
        state.gateway_keys = gateway_keys::find(&names, manager).into_iter().collect();
    }
    let (found, refused) = authenticators::look(&manifest.authenticators, manager, caller);
    state.authenticators = found;
    refusals.extend(refused);
    standing(manifest, &mut state);
    verdicts(manifest, &mut state, started)?;
    refusals.extend(db_roles(manifest));
    if manifest.prune {
        needed(manifest, &mut state);
    }
    ownership(manifest, &mut state);
    Ok((state, refusals))
}

/// What lies below resources that move.
fn below(manifest: &Manifest, state: &mut State) {
    let moves = |entry: &&keywright_core::manifest::Resource| {
        let resource = Resource { kind: entry.kind.clone(), id: entry.id.clone() };
        let found = state.resources.get(&resource);
        found
            .zip(entry.parent_id.as_ref())
            .is_some_and(|(found, to)| !to.is_empty() && found.parent_id != *to)
    };
    let moved: Vec<Resource> = manifest
        .resources
        .iter()
        .filter(moves)
        .map(|entry| Resource { kind: entry.kind.clone(), id: entry.id.clone() })
        .collect();
    if moved.is_empty() {
        return;
    }
    for (above, (resource, found)) in resources::below(&moved) {
        state.below.push((above, resource.clone()));
        state.resources.entry(resource).or_insert(found);
    }
}

fn usernames(manifest: &Manifest) -> Vec<String> {
    let users = manifest.users.iter().map(|entry| entry.username.as_str());
    let bindings = manifest.bindings.iter().map(|entry| entry.username.as_str());
    let keys = manifest.api_keys.iter().map(|entry| entry.username.as_str());
    // Each spelling once, then each name.
    let spellings: HashSet<&str> = users.chain(bindings).chain(keys).collect();
    let names: HashSet<String> = spellings.into_iter().map(str::to_ascii_lowercase).collect();
    names.into_iter().collect()
}

fn ids<'a>(state: &State, usernames: impl Iterator<Item = &'a str>) -> Vec<Uuid> {
    let names: HashSet<&str> = usernames.collect();
    let found = names.iter().filter_map(|name| state.users.get(&name.to_ascii_lowercase()));
    found.filter_map(|user| args::uuid(user.id.as_bytes())).collect()
}

/// Those of the manifest, those they lie below, and those that bindings are on.
fn named_resources(manifest: &Manifest, state: &State) -> Vec<Resource> {
    let declared: HashMap<&str, Option<&str>> = manifest
        .resource_types
        .iter()
        .map(|entry| (entry.kind.as_str(), entry.parent_type.as_deref()))
        .collect();
    let parent_type = |kind: &str| match declared.get(kind) {
        Some(parent) => *parent,
        None => state.types.get(kind).and_then(|found| found.parent.as_deref()),
    };
    let mut named: HashSet<Resource> =
        manifest.bindings.iter().filter_map(|entry| entry.resource.clone()).collect();
    for entry in &manifest.resources {
        named.insert(Resource { kind: entry.kind.clone(), id: entry.id.clone() });
        if let Some((kind, id)) =
            parent_type(&entry.kind).zip(entry.parent_id.as_deref().filter(|id| !id.is_empty()))
        {
            named.insert(Resource { kind: kind.to_owned(), id: id.to_owned() });
        }
    }
    named.into_iter().collect()
}

fn types() -> HashMap<String, ResourceType> {
    const TYPES: &str =
        "SELECT t.type, t.parent_type, t.built_in, t.managed_by FROM keywright.resource_types AS t";
    let found = |row: &spi::Row| {
        let owner = Owner { built_in: row.must(3), manager: row.get(4) };
        (row.must(1), ResourceType { parent: row.get(2), owner })
    };
    spi::read(TYPES, &[], found).into_iter().collect()
}

const SCOPES: &str =
    "SELECT s.name, s.permissions, 0::smallint, s.built_in, s.managed_by FROM keywright.scopes AS s";
const ROLES: &str =
    "SELECT r.name, r.permissions, r.level, r.built_in, r.managed_by FROM keywright.roles AS r";

fn definitions(sql: &'static str) -> HashMap<String, Definition> {
    let found = |row: &spi::Row| {
        let owner = Owner { built_in: row.must(4), manager: row.get(5) };
        (row.must(1), Definition { permissions: row.must(2), level: row.must::<i16>(3).into(), owner })
    };
    spi::read(sql, &[], found).into_iter().collect()
}

/// What system users that are there hold too little or too much.
fn standing(manifest: &Manifest, state: &mut State) {
    let named: HashSet<Place> = manifest.bindings.iter().map(Place::of).collect();
    for entry in manifest.users.iter().filter(|entry| entry.kind == UserKind::System) {
        let name = entry.username.to_ascii_lowercase();
        if let Some(user) = state.users.get(&name).filter(|user| user.kind == "system") {
            let place = |role: &str, organization: Option<&str>| {
                Place::new(&name, role, organization.map(|id| (ORGANIZATION, id)))
            };
            let steps = users::standing(user, entry).into_iter();
            // What the manifest binds by name is no matter of the user's own roles.
            let own = steps.filter(|step| !named.contains(&place(&step.role, step.organization.as_deref())));
            let own: Vec<_> = own.collect();
            for step in &own {
                let place = place(&step.role, step.organization.as_deref());
                if step.bind { &mut state.standing_gained } else { &mut state.standing_lost }.insert(place);
            }
            let steps = own.iter().map(|step| step.to_string()).collect();
            state.standing.insert(name, steps);
        }
    }
}

fn verdicts(manifest: &Manifest, state: &mut State, started: Moment) -> Result<(), Failure<'static>> {
    for entry in &manifest.api_keys {
        if let Some(held) = &entry.existing_token {
            let name = KeyName::new(&entry.username, &entry.name);
            state.api_key_verdicts.insert(name, api_keys::verdict(entry, held, started)?);
        }
    }
    for entry in &manifest.gateway_keys {
        if let Some(held) = &entry.existing_token {
            let verdict = gateway_keys::verdict(entry, held, started);
            state.gateway_key_verdicts.insert(entry.name.clone(), verdict);
        }
    }
    Ok(())
}

/// The Postgres roles that users act as must be there and have no power.
fn db_roles(manifest: &Manifest) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut known: HashMap<&str, Option<Refusal>> = HashMap::new();
    for (at, entry) in manifest.users.iter().enumerate() {
        let Some(role) = entry.db_role.as_deref().filter(|role| !role.is_empty()) else { continue };
        let refusal = known.entry(role).or_insert_with(|| {
            user::require_harmless_role(role.as_bytes()).err().map(|failure| failure.refusal(String::new()))
        });
        if let Some(refusal) = refusal {
            refusals.push(Refusal { path: format!("$.users[{at}].db_role"), ..refusal.clone() });
        }
    }
    refusals
}

/// What still needs that which would be pruned.
fn needed(manifest: &Manifest, state: &mut State) {
    let owned = Pruned::of(manifest, state);
    let ids = owned.users.iter().filter_map(|user| state.users.get(user)).map(|found| found.id.clone());
    state.users_in_use = users::with_others(ids.collect(), &manifest.manager).into_iter().collect();
    let all: Vec<Resource> = owned.resources.into_iter().collect();
    if !all.is_empty() {
        state.children = resources::children(&all);
        state.resources_in_use = bindings::others_on(&all, &manifest.manager).into_iter().collect();
    }
    let pruned = Pruned::of(manifest, state);
    let goes: Vec<Resource> =
        pruned.resources.iter().filter(|resource| pruned.goes(resource)).cloned().collect();
    roles_in_use(manifest, state, &pruned, &goes);
    if !pruned.scopes.is_empty() {
        let scopes: Vec<String> = pruned.scopes.iter().cloned().collect();
        let carried = api_keys::carried(&scopes);
        state.scopes_in_use = carried.into_iter().map(|scope| (scope, "API keys carry it.")).collect();
    }
    types_in_use(manifest, state, &pruned, &goes);
}

/// Who owns what somebody is about to lose the role of an owner on.
fn ownership(manifest: &Manifest, state: &mut State) {
    let pruned = Pruned::of(manifest, state);
    let owned = |place: &Place| {
        let (_, role, resource) = place.parts();
        let owns = |resource: &Resource| role.strip_suffix("-owner") == Some(&resource.kind);
        Some((role.to_owned(), resource.filter(owns)?))
    };
    let places: BTreeSet<(String, Resource)> =
        pruned.bindings.iter().chain(&state.standing_lost).filter_map(owned).collect();
    if !places.is_empty() {
        let places: Vec<(String, Resource)> = places.into_iter().collect();
        for (place, user) in bindings::owners(&places) {
            state.owners.entry(place).or_default().push(user);
        }
    }
}

/// A system user of the manifest loses the roles it holds by itself and is not to hold; that it is not to hold one that is
/// pruned is certain, for the manifest can not name it.
fn roles_in_use(manifest: &Manifest, state: &mut State, pruned: &Pruned, goes: &[Resource]) {
    const HELD: &str = r#"
        SELECT n.name FROM unnest($1::text[]) AS n (name)
         WHERE EXISTS (SELECT FROM keywright.role_bindings AS b
                        WHERE b.role = n.name AND NOT b.binding_id = ANY ($2::text[]::uuid[])
                          AND NOT b.user_id = ANY ($3::text[]::uuid[])
                          AND NOT (b.standing AND b.scope = 'global' AND b.user_id = ANY ($6::text[]::uuid[]))
                          AND NOT (b.standing AND b.scope <> 'global' AND b.user_id = ANY ($7::text[]::uuid[]))
                          AND NOT EXISTS (SELECT FROM unnest($4::text[], $5::text[]) AS r (kind, id)
                                           WHERE r.kind = b.resource_type AND r.id = b.resource_id))
            OR EXISTS (SELECT FROM keywright.users AS u
                        WHERE u.organization_role = n.name AND u.deleted_at IS NULL
                          AND NOT u.user_id = ANY ($3::text[]::uuid[]) AND NOT u.user_id = ANY ($7::text[]::uuid[]))"#;
    if pruned.roles.is_empty() {
        return;
    }
    let roles: Vec<String> = pruned.roles.iter().cloned().collect();
    let lost = pruned.bindings.iter().filter(|place| pruned.loses(place));
    let bindings: Vec<String> =
        lost.filter_map(|place| state.bindings.get(place)).map(|found| found.id.clone()).collect();
    let leaving = pruned.users.iter().filter(|user| pruned.leaves(user));
    let users: Vec<String> =
        leaving.filter_map(|user| state.users.get(user)).map(|found| found.id.clone()).collect();
    let settled = |which: fn(&keywright_core::manifest::User) -> bool| -> Vec<String> {
        let entries = manifest.users.iter().filter(|entry| entry.kind == UserKind::System && which(entry));
        let found = entries.filter_map(|entry| state.users.get(&entry.username.to_ascii_lowercase()));
        found.map(|found| found.id.clone()).collect()
    };
    let args = [
        roles.into(),
        bindings.into(),
        users.into(),
        column(goes, |at| &at.kind).into(),
        column(goes, |at| &at.id).into(),
        settled(|entry| entry.roles.is_some()).into(),
        settled(|entry| entry.organization_role.is_some()).into(),
    ];
    let held: Vec<String> = spi::read_once(HELD, &args, |row| row.must(1));
    state.roles_in_use = held.into_iter().map(|role| (role, "Users hold it.")).collect();
}

fn column(resources: &[Resource], of: fn(&Resource) -> &String) -> Vec<String> {
    resources.iter().map(|at| of(at).clone()).collect()
}

/// What the manifest names has other permissions and parents afterwards, none of which are of a type that is pruned.
fn types_in_use(manifest: &Manifest, state: &mut State, pruned: &Pruned, goes: &[Resource]) {
    const USED: &str = r#"
        SELECT n.name FROM unnest($1::text[]) AS n (name)
         WHERE EXISTS (SELECT FROM keywright.resources AS r
                        WHERE r.type = n.name
                          AND NOT EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS p (kind, id)
                                           WHERE p.kind = r.type AND p.id = r.id))
            OR EXISTS (SELECT FROM keywright.roles AS r, unnest(r.permissions) AS p
                        WHERE pg_catalog.split_part(p, ':', 1) = n.name AND NOT r.name = ANY ($4))
            OR EXISTS (SELECT FROM keywright.scopes AS s, unnest(s.permissions) AS p
                        WHERE pg_catalog.split_part(p, ':', 1) = n.name AND NOT s.name = ANY ($5))
            OR EXISTS (SELECT FROM keywright.api_keys AS k, unnest(k.scopes || k.allow_list) AS e
                        WHERE pg_catalog.split_part(e, ':', 1) = n.name)"#;
    if pruned.types.is_empty() {
        return;
    }
    let gone = |all: &HashSet<String>, used: &HashMap<String, &str>| -> Vec<String> {
        all.iter().filter(|name| !used.contains_key(*name)).cloned().collect()
    };
    let mut roles = gone(&pruned.roles, &state.roles_in_use);
    roles.extend(manifest.roles.iter().map(|entry| entry.name.clone()));
    let mut scopes = gone(&pruned.scopes, &state.scopes_in_use);
    scopes.extend(manifest.scopes.iter().map(|entry| entry.name.clone()));
    let types: Vec<String> = pruned.types.iter().cloned().collect();
    let args = [
        types.into(),
        column(goes, |at| &at.kind).into(),
        column(goes, |at| &at.id).into(),
        roles.into(),
        scopes.into(),
    ];
    let named: HashSet<&str> = manifest.resource_types.iter().map(|entry| entry.kind.as_str()).collect();
    let mut used: Vec<String> = spi::read_once(USED, &args, |row| row.must(1));
    let others = state.types.keys().filter(|kind| !named.contains(kind.as_str()));
    used.extend(others.filter(|kind| !pruned.types.contains(*kind)).cloned());
    // What stays keeps what lies above it.
    let mut stay: HashSet<String> = HashSet::new();
    while let Some(kind) = used.pop() {
        let parent = state.types.get(&kind).and_then(|found| found.parent.clone());
        if stay.insert(kind) {
            used.extend(parent);
        }
    }
    let why = "Resources, other types, roles, scopes or API keys name it.";
    let left = stay.into_iter().filter(|kind| pruned.types.contains(kind));
    state.types_in_use = left.map(|kind| (kind, why)).collect();
}
