//! Users, and the roles they hold.

use super::super::state::Place;
use super::super::{User, UserKind};
use super::change::Change;
use super::{Action, Kind, MISSING, Planner, TAKEN, missing};
use crate::resource::Resource;
use serde_json::Map;

impl Planner<'_> {
    pub fn users(&mut self) {
        for (at, entry) in self.manifest.users.iter().enumerate() {
            let path = |field: &str| format!("$.users[{at}]{field}");
            let roles = entry.roles.iter().flatten().enumerate();
            let roles = roles.map(|(n, role)| (format!(".roles[{n}]"), role));
            let organization_role = entry.organization_role.iter().filter(|role| !role.is_empty());
            let organization_role = organization_role.map(|role| (".organization_role".to_owned(), role));
            let unknown: Vec<_> =
                roles.chain(organization_role).filter(|(_, role)| !self.knows_role(role)).collect();
            for (field, role) in unknown {
                self.refuse(MISSING, path(&field), missing("role", role, self.pruned.roles.contains(role)));
            }
            self.user(at, entry);
        }
    }

    fn user(&mut self, at: usize, entry: &User) {
        let key = entry.username.to_ascii_lowercase();
        let mut change = Change::default();
        let Some(found) = self.state.users.get(&key) else {
            change.set("kind", &entry.kind.as_str());
            change.set_some("email", &entry.email);
            change.set_some("display_name", &entry.display_name);
            change.set_some("db_role", &entry.db_role);
            if let Some(roles) = &entry.roles {
                change.set("roles", roles);
            }
            change.set_some("organization_role", &entry.organization_role);
            return self.push(Action::Create, Kind::User, at, &entry.username, change.0);
        };
        if found.kind != entry.kind.as_str() {
            let sentence = format!("It is a {} user, and never turned into another kind.", found.kind);
            return self.refuse(TAKEN, format!("$.users[{at}].kind"), sentence);
        }
        change.differ_some("email", &found.email, &entry.email);
        change.differ_some("display_name", &found.display_name, &entry.display_name);
        change.differ_some("db_role", &found.db_role, &entry.db_role);
        change.differ_some("organization_role", &found.organization_role, &entry.organization_role);
        if entry.kind == UserKind::System {
            if !found.active {
                change.differ("status", &"suspended", &"active");
            }
            if let Some(steps) = self.state.standing.get(&key).filter(|steps| !steps.is_empty()) {
                change.set("roles", steps);
            }
        }
        let id = found.id.clone();
        let username = &found.username;
        if let Some(step) =
            self.settle(Kind::User, at, username, &found.owner, change, || format!("$.users[{at}]"))
        {
            step.id = Some(id);
        }
    }

    pub fn bindings(&mut self) {
        for (at, entry) in self.manifest.bindings.iter().enumerate() {
            let path = |field: &str| format!("$.bindings[{at}]{field}");
            let place = Place::of(entry);
            let found = self.state.bindings.get(&place);
            let settled = found.is_some_and(|found| {
                !found.standing && found.owner.manager.as_ref() == Some(&self.manifest.manager)
            });
            // What it names is there too, and stays when nothing is pruned.
            if settled && !self.manifest.prune {
                continue;
            }
            let key = entry.username.to_ascii_lowercase();
            let before = self.refusals.len();
            if !self.knows_user(&key) {
                self.refuse(
                    MISSING,
                    path(".username"),
                    missing("user", &entry.username, self.pruned.users.contains(&key)),
                );
            }
            if !self.knows_role(&entry.role) {
                self.refuse(
                    MISSING,
                    path(".role"),
                    missing("role", &entry.role, self.pruned.roles.contains(&entry.role)),
                );
            }
            if let Some(resource) = entry.resource.as_ref().filter(|resource| !self.knows_resource(resource))
            {
                self.refuse(
                    MISSING,
                    path(".resource_id"),
                    missing(&resource.kind, &resource.id, self.pruned.resources.contains(resource)),
                );
            }
            if settled || self.refusals.len() > before {
                continue;
            }
            let name = || binding_name(&entry.username, &entry.role, entry.resource.as_ref());
            let Some(found) = found else {
                self.push(Action::Create, Kind::Binding, at, name(), Map::new());
                continue;
            };
            let mut change = Change::default();
            if found.standing {
                change.differ("standing", &true, &false);
            }
            let id = found.id.clone();
            if let Some(step) = self.settle(Kind::Binding, at, &name(), &found.owner, change, || path("")) {
                step.id = Some(id);
            }
        }
    }
}

pub fn binding_name(username: &str, role: &str, resource: Option<&Resource>) -> String {
    match resource {
        Some(resource) => format!("{username} {role} on {resource}"),
        None => format!("{username} {role}"),
    }
}
