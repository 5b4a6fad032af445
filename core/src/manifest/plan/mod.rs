//! What has to be done so that what there is becomes what a manifest says. Decided without a database.
//!
//! What is made comes first, in the order things depend on each other; what is pruned comes last, in the opposite order.
//! So nothing is ever without what it needs, and the last owner of a resource may be replaced.

mod change;
mod definition;
mod delete;
mod key;
mod pruned;
mod resource;
#[cfg(test)]
mod tests;
mod user;

pub use pruned::Pruned;

use super::state::{Owner, State};
use super::{Manifest, UserKind};
use crate::printable::quoted;
use crate::resource::Resource;
use change::Change;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ResourceType,
    Scope,
    Role,
    Resource,
    User,
    Binding,
    ApiKey,
    GatewayKey,
    Authenticator,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::ResourceType => "resource_type",
            Kind::Scope => "scope",
            Kind::Role => "role",
            Kind::Resource => "resource",
            Kind::User => "user",
            Kind::Binding => "role_binding",
            Kind::ApiKey => "api_key",
            Kind::GatewayKey => "gateway_key",
            Kind::Authenticator => "authenticator",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Create,
    Update,
    /// It was nobody's or another manager's, and is this one's from now on.
    Adopt,
    Mint,
    Rotate,
    Delete,
    Revoke,
    /// It would be pruned, but something else still needs it.
    Left,
    /// Another call has just minted this key.
    Concurrent,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Adopt => "adopt",
            Action::Mint => "mint",
            Action::Rotate => "rotate",
            Action::Delete => "delete",
            Action::Revoke => "revoke",
            Action::Left => "left",
            Action::Concurrent => "concurrent",
        }
    }
}

/// What a step is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// An entry of the section of its kind.
    Entry(usize),
    /// Something that is there, by its id; that of a resource is `type:id`.
    Pruned(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub action: Action,
    pub kind: Kind,
    pub name: String,
    pub change: Value,
    pub subject: Subject,
    /// What is there already: its id, for users, bindings and keys.
    pub id: Option<String>,
}

/// Why a manifest can not be applied: a SQLSTATE, where, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub path: String,
    pub sentence: String,
}

pub const MALFORMED: &str = "22023";
pub const MISSING: &str = "42704";
pub const TAKEN: &str = "42710";
pub const NEEDED: &str = "23503";
pub const NOT_READY: &str = "55000";

/// The steps, or everything that speaks against them.
pub fn plan(manifest: &Manifest, state: &State) -> Result<Vec<Step>, Vec<Refusal>> {
    let mut planner = Planner {
        manifest,
        state,
        steps: Vec::new(),
        refusals: Vec::new(),
        named: Named::of(manifest),
        pruned: Pruned::of(manifest, state),
    };
    planner.types();
    planner.scopes();
    planner.roles();
    planner.resources();
    planner.users();
    planner.bindings();
    planner.api_keys();
    planner.gateway_keys();
    planner.authenticators();
    planner.delete();
    if planner.refusals.is_empty() { Ok(planner.steps) } else { Err(planner.refusals) }
}

struct Planner<'a> {
    manifest: &'a Manifest,
    state: &'a State,
    steps: Vec<Step>,
    refusals: Vec<Refusal>,
    named: Named,
    pruned: Pruned,
}

/// What the manifest names, to be looked up.
struct Named {
    types: HashMap<String, Option<String>>,
    roles: HashSet<String>,
    users: HashMap<String, UserKind>,
    resources: HashMap<Resource, Option<String>>,
}

impl Named {
    fn of(manifest: &Manifest) -> Named {
        let resource = |entry: &super::Resource| Resource { kind: entry.kind.clone(), id: entry.id.clone() };
        Named {
            types: manifest
                .resource_types
                .iter()
                .map(|entry| (entry.kind.clone(), entry.parent_type.clone()))
                .collect(),
            roles: manifest.roles.iter().map(|entry| entry.name.clone()).collect(),
            users: manifest
                .users
                .iter()
                .map(|entry| (entry.username.to_ascii_lowercase(), entry.kind))
                .collect(),
            resources: manifest
                .resources
                .iter()
                .map(|entry| (resource(entry), entry.parent_id.clone()))
                .collect(),
        }
    }
}

impl<'a> Planner<'a> {
    fn refuse(&mut self, code: &'static str, path: String, sentence: impl Into<String>) {
        self.refusals.push(Refusal { code, path, sentence: sentence.into() });
    }

    fn push(
        &mut self,
        action: Action,
        kind: Kind,
        at: usize,
        name: impl Into<String>,
        change: Map<String, Value>,
    ) {
        let step = Step {
            action,
            kind,
            name: name.into(),
            change: change.into(),
            subject: Subject::Entry(at),
            id: None,
        };
        self.steps.push(step);
    }

    /// What has to be done about something that is there: nothing, an update, or to adopt it.
    fn claim(&mut self, owner: &Owner, differs: bool, path: impl Fn() -> String) -> Option<Action> {
        if owner.built_in {
            if differs {
                self.refuse(TAKEN, path(), "It is built in, and the same in every database.");
            }
            return None;
        }
        match &owner.manager {
            Some(manager) if *manager == self.manifest.manager => differs.then_some(Action::Update),
            Some(manager) if !self.manifest.adopt => {
                let sentence = format!(
                    "It is managed by {}. With \"adopt\": true this manager takes it over.",
                    quoted(manager.as_bytes())
                );
                self.refuse(TAKEN, path(), sentence);
                None
            }
            _ => Some(Action::Adopt),
        }
    }

    /// As `claim`, and notes the step.
    fn settle(
        &mut self,
        kind: Kind,
        at: usize,
        name: &str,
        owner: &Owner,
        mut change: Change,
        path: impl Fn() -> String,
    ) -> Option<&mut Step> {
        let action = self.claim(owner, !change.0.is_empty(), path)?;
        if action == Action::Adopt {
            change.differ("managed_by", &owner.manager, &Some(self.manifest.manager.clone()));
        }
        self.push(action, kind, at, name, change.0);
        self.steps.last_mut()
    }

    fn authenticators(&mut self) {
        for (at, entry) in self.manifest.authenticators.iter().enumerate() {
            let Some(found) = self.state.authenticators.get(&entry.service) else { continue };
            let mut change = Change::default();
            for field in &found.differs {
                let to = match *field {
                    "connect_as" => json!(entry.connect_as),
                    "anon_role" => json!(entry.anon_role),
                    "jwt_roles" => json!(entry.jwt_roles),
                    "schemas" => json!(entry.schemas),
                    _ => json!(entry.noinherit),
                };
                change.0.insert((*field).into(), to);
            }
            if !found.grants.is_empty() {
                change.set("grants", &found.grants);
            }
            if !found.is_there {
                self.push(Action::Create, Kind::Authenticator, at, &entry.service, change.0);
                continue;
            }
            let path = || format!("$.authenticators[{at}]");
            self.settle(Kind::Authenticator, at, &entry.service, &found.owner, change, path);
        }
    }

    fn knows_type(&self, kind: &str) -> bool {
        self.named.types.contains_key(kind)
            || self.state.types.contains_key(kind) && !self.pruned.types.contains(kind)
    }

    fn parent_type(&self, kind: &str) -> Option<&str> {
        match self.named.types.get(kind) {
            Some(parent) => parent.as_deref(),
            None => self.state.types.get(kind).and_then(|found| found.parent.as_deref()),
        }
    }

    fn knows_role(&self, role: &str) -> bool {
        self.state.roles.contains_key(role) && !self.pruned.roles.contains(role)
            || self.named.roles.contains(role)
    }

    fn knows_user(&self, user: &str) -> bool {
        self.state.users.contains_key(user) && !self.pruned.users.contains(user)
            || self.named.users.contains_key(user)
    }

    fn knows_resource(&self, resource: &Resource) -> bool {
        self.state.resources.contains_key(resource) && !self.pruned.resources.contains(resource)
            || self.named.resources.contains_key(resource)
    }

    fn is_going_to_be_active(&self, user: &str) -> bool {
        self.wakes(user) || self.state.users.get(user).is_none_or(|found| found.active)
    }

    /// A system user that is suspended is made active by the manifest itself.
    fn wakes(&self, user: &str) -> bool {
        self.named.users.get(user) == Some(&UserKind::System)
    }
}

/// Why something is not there: nobody has made it, or pruning would take it away.
fn missing(what: &str, name: &str, pruned: bool) -> String {
    let why = if pruned { "would be pruned: name it in the manifest." } else { "does not exist." };
    format!("{} {} {why}", capital(what), quoted(name.as_bytes()))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}
