//! What has to be done so that what there is becomes what a manifest says. Decided without a database.
//!
//! What is made comes first, in the order things depend on each other; what is pruned comes last, in the opposite order.
//! So nothing is ever without what it needs, and the last owner of a resource may be replaced.

use super::state::{KeyName, Owner, Place, State, Verdict};
use super::{Manifest, User, UserKind};
use crate::printable::quoted;
use crate::resource::{MOST_ANCESTORS, ORGANIZATION, Resource};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};

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

const TOO_DEEP: &str = "It would make a circle, or more than 16 ancestors.";
const TOO_MANY_LEVELS: &str = "It would make a circle, or more than 16 levels of types.";

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
    pub gateway_keys: HashSet<String>,
    pub authenticators: HashSet<String>,
    /// Those of the resources below which others lie that stay.
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
        pruned.resources_left = pruned.resources_left(manifest, state);
        pruned.bindings_left = pruned.bindings_left(manifest, state);
        pruned
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
        let mut stay: Vec<&Resource> = Vec::new();
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

    fn types(&mut self) {
        let (manifest, state) = (self.manifest, self.state);
        let mut depths: Vec<(usize, usize)> = Vec::new();
        for (at, entry) in manifest.resource_types.iter().enumerate() {
            let path = |field: &str| format!("$.resource_types[{at}]{field}");
            if let Some(parent) = entry.parent_type.as_deref().filter(|parent| !self.knows_type(parent)) {
                self.refuse(MISSING, path(".parent_type"), missing("resource type", parent));
                continue;
            }
            match height(&entry.kind, |kind| self.parent_type(kind)) {
                Some(depth) => depths.push((depth, at)),
                None => self.refuse(MALFORMED, path(".parent_type"), TOO_MANY_LEVELS),
            }
        }
        self.require_few_levels_below(&depths);
        depths.sort_unstable();
        for (_, at) in depths {
            let entry = &manifest.resource_types[at];
            let Some(found) = state.types.get(&entry.kind) else {
                let mut change = Change::default();
                change.set("parent_type", &entry.parent_type);
                self.push(Action::Create, Kind::ResourceType, at, &entry.kind, change.0);
                continue;
            };
            let mut change = Change::default();
            change.differ("parent_type", &found.parent, &entry.parent_type);
            if state.types_with_parents.contains(&entry.kind) && found.parent != entry.parent_type {
                let path = format!("$.resource_types[{at}].parent_type");
                self.refuse(TAKEN, path, "Resources of this type have parents. Take those away first.");
                continue;
            }
            let path = || format!("$.resource_types[{at}]");
            self.settle(Kind::ResourceType, at, &entry.kind, &found.owner, change, path);
        }
    }

    /// What lies below a type that moves moves along.
    fn require_few_levels_below(&mut self, ready: &[(usize, usize)]) {
        let entries = &self.manifest.resource_types;
        let places: HashMap<&str, usize> =
            ready.iter().map(|&(_, at)| (entries[at].kind.as_str(), at)).collect();
        if places.is_empty() {
            return;
        }
        let mut faulty = BTreeSet::new();
        for kind in self.state.types.keys().filter(|kind| !self.named.types.contains_key(*kind)) {
            if height(kind, |kind| self.parent_type(kind)).is_some() {
                continue;
            }
            let mut above = Some(kind.as_str());
            for _ in 0..=MOST_ANCESTORS {
                above = above.and_then(|kind| self.parent_type(kind));
                let moved = above.and_then(|kind| places.get(kind));
                if let Some(at) = moved {
                    faulty.insert(*at);
                    break;
                }
            }
        }
        for at in faulty {
            self.refuse(MALFORMED, format!("$.resource_types[{at}].parent_type"), TOO_MANY_LEVELS);
        }
    }

    fn scopes(&mut self) {
        for (at, entry) in self.manifest.scopes.iter().enumerate() {
            self.require_types(&entry.permissions, || format!("$.scopes[{at}].permissions"));
            let mut change = Change::default();
            let Some(found) = self.state.scopes.get(&entry.name) else {
                change.set("permissions", &entry.permissions);
                self.push(Action::Create, Kind::Scope, at, &entry.name, change.0);
                continue;
            };
            change.differ("permissions", &found.permissions, &entry.permissions);
            self.settle(Kind::Scope, at, &entry.name, &found.owner, change, || format!("$.scopes[{at}]"));
        }
    }

    fn roles(&mut self) {
        for (at, entry) in self.manifest.roles.iter().enumerate() {
            self.require_types(&entry.permissions, || format!("$.roles[{at}].permissions"));
            let mut change = Change::default();
            let Some(found) = self.state.roles.get(&entry.name) else {
                change.set("permissions", &entry.permissions);
                change.set("level", &entry.level);
                self.push(Action::Create, Kind::Role, at, &entry.name, change.0);
                continue;
            };
            change.differ("permissions", &found.permissions, &entry.permissions);
            change.differ("level", &found.level, &entry.level);
            self.settle(Kind::Role, at, &entry.name, &found.owner, change, || format!("$.roles[{at}]"));
        }
    }

    fn resources(&mut self) {
        let (manifest, state) = (self.manifest, self.state);
        let mut ready: Vec<(usize, usize)> = Vec::new();
        for (at, entry) in manifest.resources.iter().enumerate() {
            let path = |field: &str| format!("$.resources[{at}]{field}");
            if !self.knows_type(&entry.kind) {
                self.refuse(MISSING, path(".type"), missing("resource type", &entry.kind));
                continue;
            }
            if state.tracked.contains(&entry.kind) {
                let sentence = "Resources of this type follow a table of the application.";
                self.refuse(TAKEN, path(".type"), sentence);
                continue;
            }
            if let Some(parent) = entry.parent_id.as_deref().filter(|id| !id.is_empty()) {
                let Some(kind) = self.parent_type(&entry.kind) else {
                    let sentence = format!("Resources of type \"{}\" have no parents.", entry.kind);
                    self.refuse(MALFORMED, path(".parent_id"), sentence);
                    continue;
                };
                let parent = Resource { kind: kind.to_owned(), id: parent.to_owned() };
                if !self.knows_resource(&parent) {
                    self.refuse(MISSING, path(".parent_id"), missing(&parent.kind, &parent.id));
                    continue;
                }
            }
            match self.ancestors(Resource { kind: entry.kind.clone(), id: entry.id.clone() }) {
                Some(depth) => ready.push((depth, at)),
                None => self.refuse(MALFORMED, path(".parent_id"), TOO_DEEP),
            }
        }
        self.require_shallow_below(&ready);
        ready.sort_unstable();
        for (_, at) in ready {
            self.resource(at);
        }
    }

    /// How many resources are going to lie above; nothing when there is a circle or too many.
    fn ancestors(&self, resource: Resource) -> Option<usize> {
        let above = |resource: &Resource| {
            let wanted = self.named.resources.get(resource).and_then(|parent| parent.as_deref());
            let found = || self.state.resources.get(resource).map(|found| found.parent_id.as_str());
            let id = wanted.or_else(found).filter(|id| !id.is_empty())?;
            Some(Resource { kind: self.parent_type(&resource.kind)?.to_owned(), id: id.to_owned() })
        };
        let (mut at, mut depth) = (resource, 0);
        while let Some(parent) = above(&at) {
            (at, depth) = (parent, depth + 1);
            if depth > MOST_ANCESTORS {
                return None;
            }
        }
        Some(depth)
    }

    /// What lies below something that moves moves along.
    fn require_shallow_below(&mut self, ready: &[(usize, usize)]) {
        let entries = &self.manifest.resources;
        let place = |at: usize| (entries[at].kind.as_str(), entries[at].id.as_str());
        let places: HashMap<(&str, &str), usize> = ready.iter().map(|&(_, at)| (place(at), at)).collect();
        let too_deep = |(moved, below): &&(Resource, Resource)| {
            !self.named.resources.contains_key(below)
                && places.contains_key(&(moved.kind.as_str(), moved.id.as_str()))
                && self.ancestors(below.clone()).is_none()
        };
        let moved: Vec<&Resource> =
            self.state.below.iter().filter(too_deep).map(|(moved, _)| moved).collect();
        let faulty: BTreeSet<usize> =
            moved.iter().filter_map(|at| places.get(&(at.kind.as_str(), at.id.as_str())).copied()).collect();
        for at in faulty {
            self.refuse(MALFORMED, format!("$.resources[{at}].parent_id"), TOO_DEEP);
        }
    }

    fn resource(&mut self, at: usize) {
        let entry = &self.manifest.resources[at];
        let resource = Resource { kind: entry.kind.clone(), id: entry.id.clone() };
        let name = resource.to_string();
        let mut change = Change::default();
        let Some(found) = self.state.resources.get(&resource) else {
            change.set_some("parent_id", &entry.parent_id);
            change.set_some("name", &entry.name);
            return self.push(Action::Create, Kind::Resource, at, name, change.0);
        };
        change.differ_some("parent_id", &found.parent_id, &entry.parent_id);
        change.differ_some("name", &found.name, &entry.name);
        self.settle(Kind::Resource, at, &name, &found.owner, change, || format!("$.resources[{at}]"));
    }

    fn users(&mut self) {
        for (at, entry) in self.manifest.users.iter().enumerate() {
            let path = |field: &str| format!("$.users[{at}]{field}");
            let roles = entry.roles.iter().flatten().enumerate();
            let roles = roles.map(|(n, role)| (format!(".roles[{n}]"), role));
            let organization_role = entry.organization_role.iter().filter(|role| !role.is_empty());
            let organization_role = organization_role.map(|role| (".organization_role".to_owned(), role));
            let unknown: Vec<_> =
                roles.chain(organization_role).filter(|(_, role)| !self.knows_role(role)).collect();
            for (field, role) in unknown {
                self.refuse(MISSING, path(&field), missing("role", role));
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

    fn bindings(&mut self) {
        for (at, entry) in self.manifest.bindings.iter().enumerate() {
            let path = |field: &str| format!("$.bindings[{at}]{field}");
            let key = entry.username.to_ascii_lowercase();
            let before = self.refusals.len();
            if !self.knows_user(&key) {
                self.refuse(MISSING, path(".username"), missing("user", &entry.username));
            }
            if !self.knows_role(&entry.role) {
                self.refuse(MISSING, path(".role"), missing("role", &entry.role));
            }
            if let Some(resource) = entry.resource.as_ref().filter(|resource| !self.knows_resource(resource))
            {
                self.refuse(MISSING, path(".resource_id"), missing(&resource.kind, &resource.id));
            }
            if self.refusals.len() > before {
                continue;
            }
            let place = Place::of(entry);
            let name = || binding_name(&entry.username, &entry.role, entry.resource.as_ref());
            let Some(found) = self.state.bindings.get(&place) else {
                self.push(Action::Create, Kind::Binding, at, name(), Map::new());
                continue;
            };
            let mut change = Change::default();
            if found.standing {
                change.differ("standing", &true, &false);
            }
            if found.owner.manager.as_ref() == Some(&self.manifest.manager) && !found.standing {
                continue;
            }
            let id = found.id.clone();
            if let Some(step) = self.settle(Kind::Binding, at, &name(), &found.owner, change, || path("")) {
                step.id = Some(id);
            }
        }
    }

    fn api_keys(&mut self) {
        for (at, entry) in self.manifest.api_keys.iter().enumerate() {
            let path = |field: &str| format!("$.api_keys[{at}]{field}");
            let owner = entry.username.to_ascii_lowercase();
            if !self.knows_user(&owner) {
                self.refuse(MISSING, path(".username"), missing("user", &entry.username));
                continue;
            }
            if let Some(scope) = entry.scopes.iter().find(|scope| self.pruned.scopes.contains(*scope)) {
                self.refuse(MISSING, path(".scopes"), missing("scope", scope));
            }
            self.require_types(&entry.scopes, || path(".scopes"));
            self.require_types(&entry.allow_list, || path(".allow_list"));
            let key = KeyName::new(&owner, &entry.name);
            let found = self.state.api_keys.get(&key);
            let reason = match (self.state.api_key_verdicts.get(&key), found) {
                (Some(Verdict::Concurrent), _) => Some(None),
                (Some(Verdict::Replace(reason)), _) => Some(Some(*reason)),
                (Some(Verdict::Keep), _) => None,
                (None, None) => Some(Some("missing")),
                (None, Some(found)) => renewal(entry, found).map(Some),
            };
            if reason.is_some() && !self.is_going_to_be_active(&owner) {
                self.refuse(NOT_READY, path(".username"), "The user is suspended, and can hold no new key.");
                continue;
            }
            self.api_key(at, found, reason);
        }
    }

    /// `reason` is why a key is minted; none within it: somebody else just did.
    fn api_key(
        &mut self,
        at: usize,
        found: Option<&super::state::ApiKey>,
        reason: Option<Option<&'static str>>,
    ) {
        let entry = &self.manifest.api_keys[at];
        let name = format!("{}/{}", entry.username, entry.name);
        let mut change = Change::default();
        let claim = match found {
            None => None,
            Some(found) => {
                let claim = self.claim(&found.owner, reason.is_some(), || format!("$.api_keys[{at}]"));
                if claim == Some(Action::Adopt) {
                    change.differ("managed_by", &found.owner.manager, &Some(self.manifest.manager.clone()));
                }
                if claim.is_none() {
                    return;
                }
                claim
            }
        };
        let action = match reason {
            None | Some(None) if claim == Some(Action::Adopt) => Action::Adopt,
            None => return,
            Some(None) => Action::Concurrent,
            Some(Some(reason)) => {
                change.set("reason", &reason);
                change.set("lifetime", &entry.lifetime.to_string());
                if reason == "scopes-changed" || found.is_none() {
                    change.set("scopes", &entry.scopes);
                }
                if reason == "allow-list-changed" || found.is_none() {
                    change.set("allow_list", &entry.allow_list);
                }
                if found.is_some() { Action::Rotate } else { Action::Mint }
            }
        };
        let id = found.map(|found| found.id.clone());
        self.push(action, Kind::ApiKey, at, name, change.0);
        if let Some(step) = self.steps.last_mut() {
            step.id = id;
        }
    }

    fn gateway_keys(&mut self) {
        for (at, entry) in self.manifest.gateway_keys.iter().enumerate() {
            let mut change = Change::default();
            let found = self.state.gateway_keys.get(&entry.name);
            let verdict = self.state.gateway_key_verdicts.get(&entry.name).copied();
            let claim = match found {
                None => None,
                Some(found) => {
                    let replace = !matches!(verdict, None | Some(Verdict::Keep));
                    let claim = self.claim(&found.owner, replace, || format!("$.gateway_keys[{at}]"));
                    if claim == Some(Action::Adopt) {
                        change.differ(
                            "managed_by",
                            &found.owner.manager,
                            &Some(self.manifest.manager.clone()),
                        );
                    }
                    if claim.is_none() {
                        continue;
                    }
                    claim
                }
            };
            let action = match (found, verdict) {
                (Some(_), None | Some(Verdict::Keep | Verdict::Concurrent))
                    if claim == Some(Action::Adopt) =>
                {
                    Action::Adopt
                }
                (_, Some(Verdict::Concurrent)) => Action::Concurrent,
                (None, _) => {
                    change.set("reason", &"missing");
                    Action::Mint
                }
                (Some(_), Some(Verdict::Replace(reason))) => {
                    change.set("reason", &reason);
                    Action::Rotate
                }
                _ => continue,
            };
            let id = found.map(|found| found.id.clone());
            self.push(action, Kind::GatewayKey, at, &entry.name, change.0);
            if let Some(step) = self.steps.last_mut() {
                step.id = id;
            }
        }
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

    fn delete(&mut self) {
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
            self.remove(Action::Delete, Kind::User, found.username.clone(), found.id.clone(), Map::new());
        }
        let mut resources: Vec<&Resource> = sorted(&pruned.resources);
        // Children first: what lies deeper goes before what it lies below.
        resources.sort_by_key(|resource| std::cmp::Reverse(self.depth(resource)));
        for resource in resources {
            let left = pruned.resources_left.contains(resource);
            let reason = left.then_some("Other resources lie below it.");
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
        let mut places: Vec<_> = self.state.owners.iter().collect();
        places.sort_by(|a, b| a.0.cmp(b.0));
        for ((role, resource), owners) in places {
            let place = |user: &str| Place::new(user, role, Some((&resource.kind, &resource.id)));
            let goes = |user: &str| pruned.loses(&place(user));
            let stays =
                |(user, active): &(String, bool)| *active && !goes(user) && !pruned.users.contains(user);
            let new = replaced.contains(&(role.as_str(), resource));
            let taken = owners.iter().any(|(user, _)| goes(user) && !pruned.users.contains(user));
            if taken && !new && !owners.iter().any(stays) && !pruned.goes(resource) {
                let sentence = format!(
                    "Pruning would take the last owner of {} {} away.",
                    resource.kind,
                    quoted(resource.id.as_bytes())
                );
                self.refuse(NEEDED, "$.bindings".into(), sentence);
            }
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

    /// What is pruned can not be named.
    fn require_types(&mut self, entries: &[String], path: impl Fn() -> String) {
        let gone = |kind: &&str| self.pruned.types.contains(*kind);
        if let Some(kind) = entries.iter().filter_map(|e| e.split_once(':')).map(|(kind, _)| kind).find(gone)
        {
            let sentence = missing("resource type", kind);
            self.refuse(MISSING, path(), sentence);
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

/// Why the key that is there does not do; nothing when it does.
fn renewal(entry: &super::ApiKey, found: &super::state::ApiKey) -> Option<&'static str> {
    let renew_before = entry.renew_before.map_or(0, |before| before.total_micros());
    if found.left <= 0 {
        Some("expired")
    } else if found.scopes != entry.scopes {
        Some("scopes-changed")
    } else if found.allow_list != entry.allow_list {
        Some("allow-list-changed")
    } else if i128::from(found.left) <= renew_before {
        Some("expiring")
    } else {
        None
    }
}

/// How many types lie above; nothing when there is a circle or too many.
fn height<'a>(kind: &'a str, parent_of: impl Fn(&str) -> Option<&'a str>) -> Option<usize> {
    let (mut at, mut depth) = (kind, 0);
    while let Some(parent) = parent_of(at).filter(|parent| *parent != at) {
        (at, depth) = (parent, depth + 1);
        if depth > MOST_ANCESTORS {
            return None;
        }
    }
    Some(depth)
}

fn owned<K: Clone + Eq + std::hash::Hash, V>(
    all: &HashMap<K, V>,
    ours: impl Fn(&V) -> bool,
    named: impl Fn(&K) -> bool,
) -> HashSet<K> {
    all.iter().filter(|(key, found)| ours(found) && !named(key)).map(|(key, _)| key.clone()).collect()
}

fn sorted<T: Ord>(set: &HashSet<T>) -> Vec<&T> {
    let mut all: Vec<&T> = set.iter().collect();
    all.sort();
    all
}

fn missing(what: &str, name: &str) -> String {
    format!("{} {} does not exist.", capital(what), quoted(name.as_bytes()))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

fn binding_name(username: &str, role: &str, resource: Option<&Resource>) -> String {
    match resource {
        Some(resource) => format!("{username} {role} on {resource}"),
        None => format!("{username} {role}"),
    }
}

/// What a step changes, as people and programs read it: a new value, or an old and a new one.
#[derive(Default)]
struct Change(Map<String, Value>);

impl Change {
    fn set<T: serde::Serialize + ?Sized>(&mut self, field: &str, value: &T) {
        self.0.insert(field.into(), json!(value));
    }

    /// A property that is left as it is, is not mentioned; an empty text is none.
    fn set_some(&mut self, field: &str, value: &Option<String>) {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            self.set(field, value);
        }
    }

    fn differ<T: serde::Serialize + PartialEq>(&mut self, field: &str, from: &T, to: &T) {
        if from != to {
            self.0.insert(field.into(), json!({"from": from, "to": to}));
        }
    }

    fn differ_some(&mut self, field: &str, from: &str, to: &Option<String>) {
        if let Some(to) = to.as_deref().filter(|to| *to != from) {
            let shown = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
            self.0.insert(field.into(), json!({"from": shown(from), "to": shown(to)}));
        }
    }
}
