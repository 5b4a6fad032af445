//! What is pruned: last, and children first.

use super::super::state::Place;
use super::change::Change;
use super::definition::height;
use super::pruned::Pruned;
use super::user::binding_name;
use super::{Action, Kind, NEEDED, Planner, Step, Subject};
use crate::printable::quoted;
use crate::resource::{MOST_ANCESTORS, Resource};
use serde_json::{Map, Value};
use std::collections::HashSet;

impl Planner<'_> {
    pub fn delete(&mut self) {
        let state = self.state;
        let pruned = std::mem::take(&mut self.pruned);
        self.require_owners(&pruned);
        for service in sorted(&pruned.authenticators) {
            let mut change = Change::default();
            if let Some(found) = state.authenticators.get(service).filter(|found| !found.grants.is_empty()) {
                change.set("grants", &found.grants);
            }
            self.remove(Action::Revoke, Kind::Authenticator, service.clone(), service.clone(), change.0);
        }
        for name in sorted(&pruned.gateway_keys) {
            let id = state.gateway_keys[name].id.clone();
            self.remove(Action::Delete, Kind::GatewayKey, name.clone(), id, Map::new());
        }
        for key in sorted(&pruned.api_keys) {
            let found = &state.api_keys[key];
            let name = format!("{}/{}", found.username, key.name());
            self.remove(Action::Revoke, Kind::ApiKey, name, found.id.clone(), Map::new());
        }
        for id in sorted(&pruned.in_grace) {
            let (key, found) = &state.in_grace[id];
            let name = format!("{}/{}", found.username, key.name());
            let mut change = Change::default();
            change.set("reason", &"superseded");
            self.remove(Action::Revoke, Kind::ApiKey, name, id.clone(), change.0);
        }
        for place in sorted(&pruned.bindings) {
            let found = &state.bindings[place];
            let (_, role, resource) = place.parts();
            let name = binding_name(&found.username, role, resource.as_ref());
            let left = pruned.bindings_left.contains(place);
            let reason = left.then_some("The system user is to hold this role in any case.");
            self.remove_unless(Kind::Binding, name, found.id.clone(), reason);
        }
        for user in sorted(&pruned.users) {
            let found = &state.users[user];
            let left = pruned.users_left.contains(user);
            let reason = left.then_some("It has API keys or roles that this manager did not give it.");
            self.remove_unless(Kind::User, found.username.clone(), found.id.clone(), reason);
        }
        let mut resources: Vec<&Resource> = sorted(&pruned.resources);
        // Children first: what lies deeper goes before what it lies below.
        resources.sort_by_key(|resource| std::cmp::Reverse(self.depth(resource)));
        for resource in resources {
            let left = pruned.resources_left.contains(resource);
            let held = state.resources_in_use.contains(resource);
            let reason = left.then_some(match held {
                true => "Roles are held on it that this manager did not give.",
                false => "Other resources lie below it.",
            });
            let name = resource.to_string();
            self.remove_unless(Kind::Resource, name.clone(), name, reason);
        }
        for role in sorted(&pruned.roles) {
            self.remove_unless(Kind::Role, role.clone(), role.clone(), state.roles_in_use.get(role).copied());
        }
        for scope in sorted(&pruned.scopes) {
            self.remove_unless(
                Kind::Scope,
                scope.clone(),
                scope.clone(),
                state.scopes_in_use.get(scope).copied(),
            );
        }
        let parent_of = |kind: &str| state.types.get(kind).and_then(|found| found.parent.as_deref());
        let mut types: Vec<&String> = sorted(&pruned.types);
        types.sort_by_key(|kind| std::cmp::Reverse(height(kind, parent_of)));
        for kind in types {
            self.remove_unless(
                Kind::ResourceType,
                kind.clone(),
                kind.clone(),
                state.types_in_use.get(kind).copied(),
            );
        }
    }

    fn remove(&mut self, action: Action, kind: Kind, name: String, id: String, change: Map<String, Value>) {
        let subject = Subject::Pruned(id.clone());
        self.steps.push(Step { action, kind, name, change: change.into(), subject, id: Some(id) });
    }

    fn remove_unless(&mut self, kind: Kind, name: String, id: String, reason: Option<&'static str>) {
        let mut change = Change::default();
        let action = match reason {
            Some(reason) => {
                change.set("reason", &reason);
                Action::Left
            }
            None => Action::Delete,
        };
        self.remove(action, kind, name, id, change.0);
    }

    /// The last owner of a resource stays, unless the resource or the owner goes too.
    fn require_owners(&mut self, pruned: &Pruned) {
        let bindings = self.manifest.bindings.iter();
        let replaced: HashSet<(&str, &Resource)> = bindings
            .filter(|entry| self.is_going_to_be_active(&entry.username.to_ascii_lowercase()))
            .filter_map(|entry| Some((entry.role.as_str(), entry.resource.as_ref()?)))
            .collect();
        let gained: HashSet<(String, Resource)> = self
            .state
            .standing_gained
            .iter()
            .filter_map(|place| {
                let (_, role, resource) = place.parts();
                Some((role.to_owned(), resource?))
            })
            .collect();
        let mut refused = Vec::new();
        let mut places: Vec<_> = self.state.owners.iter().collect();
        places.sort_by(|a, b| a.0.cmp(b.0));
        for ((role, resource), owners) in places {
            let place = |user: &str| Place::new(user, role, Some((&resource.kind, &resource.id)));
            let unbound = |user: &str| self.state.standing_lost.contains(&place(user));
            let goes = |user: &str| pruned.loses(&place(user)) || unbound(user);
            let stays = |(user, active): &(String, bool)| *active && !goes(user) && !pruned.leaves(user);
            let new = replaced.contains(&(role.as_str(), resource))
                || gained.contains(&(role.clone(), resource.clone()));
            let taken = owners.iter().any(|(user, _)| goes(user) && !pruned.leaves(user));
            if taken && !new && !owners.iter().any(stays) && !pruned.goes(resource) {
                let mut users = self.manifest.users.iter();
                let at = users.position(|entry| unbound(&entry.username.to_ascii_lowercase()));
                let (path, cause) = match at {
                    Some(at) => (format!("$.users[{at}].organization_role"), "It"),
                    None => ("$.bindings".into(), "Pruning"),
                };
                let sentence = format!(
                    "{cause} would take the last owner of {} {} away.",
                    resource.kind,
                    quoted(resource.id.as_bytes())
                );
                refused.push((path, sentence));
            }
        }
        for (path, sentence) in refused {
            self.refuse(NEEDED, path, sentence);
        }
    }

    fn depth(&self, resource: &Resource) -> usize {
        let mut at = resource.clone();
        let mut depth = 0;
        while let Some(found) = self.state.resources.get(&at).filter(|found| !found.parent_id.is_empty()) {
            if depth > MOST_ANCESTORS {
                break;
            }
            at = Resource { kind: found.parent_type.clone(), id: found.parent_id.clone() };
            depth += 1;
        }
        depth
    }
}

fn sorted<T: Ord>(set: &HashSet<T>) -> Vec<&T> {
    let mut all: Vec<&T> = set.iter().collect();
    all.sort();
    all
}
