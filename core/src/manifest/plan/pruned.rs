//! What this manager owns and the manifest does not name.

use super::super::state::{KeyName, Owner, Place, State};
use super::super::{Manifest, User, UserKind};
use crate::resource::{ORGANIZATION, Resource};
use std::collections::{HashMap, HashSet};

/// What this manager owns and the manifest does not name. The manifest can not refer to it, even where it is left.
#[derive(Debug, Default)]
pub struct Pruned {
    pub types: HashSet<String>,
    pub scopes: HashSet<String>,
    pub roles: HashSet<String>,
    pub resources: HashSet<Resource>,
    pub users: HashSet<String>,
    pub bindings: HashSet<Place>,
    pub api_keys: HashSet<KeyName>,
    /// Keys in their grace, by their id, whose name the manifest does not have.
    pub in_grace: HashSet<String>,
    pub gateway_keys: HashSet<String>,
    pub authenticators: HashSet<String>,
    /// Those of the users that others gave keys or roles.
    pub users_left: HashSet<String>,
    /// Those of the resources below which others lie that stay, or on which others gave roles.
    pub resources_left: HashSet<Resource>,
    /// Those of the bindings that a system user of the manifest is to hold in any case.
    pub bindings_left: HashSet<Place>,
}

impl Pruned {
    pub fn of(manifest: &Manifest, state: &State) -> Pruned {
        let mut pruned = Pruned::default();
        if !manifest.prune {
            return pruned;
        }
        let ours = |owner: &Owner| owner.manager.as_ref() == Some(&manifest.manager);
        let lower = str::to_ascii_lowercase;
        let named: HashSet<&str> = manifest.resource_types.iter().map(|entry| entry.kind.as_str()).collect();
        pruned.types = owned(&state.types, |found| ours(&found.owner), |kind| named.contains(kind.as_str()));
        let named: HashSet<&str> = manifest.scopes.iter().map(|entry| entry.name.as_str()).collect();
        pruned.scopes =
            owned(&state.scopes, |found| ours(&found.owner), |name| named.contains(name.as_str()));
        let named: HashSet<&str> = manifest.roles.iter().map(|entry| entry.name.as_str()).collect();
        pruned.roles = owned(&state.roles, |found| ours(&found.owner), |name| named.contains(name.as_str()));
        let named: HashSet<(&str, &str)> =
            manifest.resources.iter().map(|entry| (entry.kind.as_str(), entry.id.as_str())).collect();
        pruned.resources = owned(
            &state.resources,
            |found| ours(&found.owner),
            |resource| named.contains(&(resource.kind.as_str(), resource.id.as_str())),
        );
        let named: HashSet<String> = manifest.users.iter().map(|entry| lower(&entry.username)).collect();
        pruned.users = owned(&state.users, |found| ours(&found.owner), |name| named.contains(name));
        let named: HashSet<Place> = manifest.bindings.iter().map(Place::of).collect();
        pruned.bindings = owned(&state.bindings, |found| ours(&found.owner), |place| named.contains(place));
        let named: HashSet<_> =
            manifest.api_keys.iter().map(|entry| KeyName::new(&entry.username, &entry.name)).collect();
        pruned.api_keys = owned(&state.api_keys, |found| ours(&found.owner), |key| named.contains(key));
        let goes = |name: &KeyName| !named.contains(name) && !pruned.api_keys.contains(name);
        let in_grace = state.in_grace.iter().filter(|(_, (name, _))| goes(name));
        pruned.in_grace = in_grace.map(|(id, _)| id.clone()).collect();
        let named: HashSet<&str> = manifest.gateway_keys.iter().map(|entry| entry.name.as_str()).collect();
        pruned.gateway_keys =
            owned(&state.gateway_keys, |found| ours(&found.owner), |name| named.contains(name.as_str()));
        let named: HashSet<&str> =
            manifest.authenticators.iter().map(|entry| entry.service.as_str()).collect();
        pruned.authenticators = owned(
            &state.authenticators,
            |found| found.is_there && ours(&found.owner),
            |service| named.contains(service.as_str()),
        );
        pruned.users_left = pruned.users.intersection(&state.users_in_use).cloned().collect();
        pruned.resources_left = pruned.resources_left(manifest, state);
        pruned.bindings_left = pruned.bindings_left(manifest, state);
        pruned
    }

    pub fn leaves(&self, user: &str) -> bool {
        self.users.contains(user) && !self.users_left.contains(user)
    }

    pub fn goes(&self, resource: &Resource) -> bool {
        self.resources.contains(resource) && !self.resources_left.contains(resource)
    }

    pub fn loses(&self, place: &Place) -> bool {
        self.bindings.contains(place) && !self.bindings_left.contains(place)
    }

    /// What has children that stay, stays.
    fn resources_left(&self, manifest: &Manifest, state: &State) -> HashSet<Resource> {
        let named: HashMap<(&str, &str), Option<&str>> = manifest
            .resources
            .iter()
            .map(|entry| ((entry.kind.as_str(), entry.id.as_str()), entry.parent_id.as_deref()))
            .collect();
        let mut above: HashMap<&Resource, &Resource> = HashMap::new();
        let mut stay: Vec<&Resource> = self.resources.intersection(&state.resources_in_use).collect();
        for (parent, child) in state.children.iter().filter(|(parent, _)| self.resources.contains(parent)) {
            let to = named.get(&(child.kind.as_str(), child.id.as_str())).copied().flatten();
            if self.resources.contains(child) {
                above.insert(child, parent);
            } else if to.is_none_or(|to| to == parent.id) {
                stay.push(parent);
            }
        }
        let mut left: HashSet<Resource> = HashSet::new();
        while let Some(resource) = stay.pop() {
            if left.insert(resource.clone()) {
                stay.extend(above.get(resource));
            }
        }
        left
    }

    /// Taking it away would only make room for the same binding by the user's own roles.
    fn bindings_left(&self, manifest: &Manifest, state: &State) -> HashSet<Place> {
        let system = manifest.users.iter().filter(|entry| entry.kind == UserKind::System);
        let users: HashMap<String, &User> =
            system.map(|entry| (entry.username.to_ascii_lowercase(), entry)).collect();
        let wanted = |place: &&Place| {
            let (user, role, resource) = place.parts();
            let Some(entry) = users.get(user) else { return false };
            match resource {
                None => entry.roles.iter().flatten().any(|wanted| wanted == role),
                Some(on) if on.kind == ORGANIZATION && !self.goes(&on) => {
                    let held = state.users.get(user).map(|found| found.organization_role.as_str());
                    entry.organization_role.as_deref().or(held) == Some(role)
                }
                Some(_) => false,
            }
        };
        self.bindings.iter().filter(wanted).cloned().collect()
    }
}

fn owned<K: Clone + Eq + std::hash::Hash, V>(
    all: &HashMap<K, V>,
    ours: impl Fn(&V) -> bool,
    named: impl Fn(&K) -> bool,
) -> HashSet<K> {
    all.iter().filter(|(key, found)| ours(found) && !named(key)).map(|(key, _)| key.clone()).collect()
}
