//! What there is, as far as a manifest speaks of it or its manager owns it.

use crate::resource;
use std::collections::{HashMap, HashSet};

/// Who owns something.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Owner {
    pub manager: Option<String>,
    pub built_in: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ResourceType {
    pub parent: Option<String>,
    pub owner: Owner,
}

/// A role or a scope; a scope has no level.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    pub permissions: Vec<String>,
    pub level: i32,
    pub owner: Owner,
}

/// An empty text is none.
#[derive(Debug, Clone, Default)]
pub struct Resource {
    pub parent_type: String,
    pub parent_id: String,
    pub name: String,
    pub owner: Owner,
}

/// An empty text is none.
#[derive(Debug, Clone, Default)]
pub struct User {
    pub id: String,
    pub username: String,
    pub kind: String,
    pub active: bool,
    pub email: String,
    pub display_name: String,
    pub db_role: String,
    pub organization_role: String,
    pub owner: Owner,
}

#[derive(Debug, Clone, Default)]
pub struct Binding {
    pub id: String,
    /// The username as it is spelled, for people.
    pub username: String,
    /// Made by ensure_system_user.
    pub standing: bool,
    pub owner: Owner,
}

/// The key that holds a name.
#[derive(Debug, Clone, Default)]
pub struct ApiKey {
    pub id: String,
    pub username: String,
    pub scopes: Vec<String>,
    pub allow_list: Vec<String>,
    /// The key is dead from this moment on.
    pub expires_at: i64,
    pub owner: Owner,
}

#[derive(Debug, Clone, Default)]
pub struct GatewayKey {
    pub id: String,
    pub owner: Owner,
}

/// What is to be said of a token that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    Replace(&'static str),
    /// Somebody else has minted since the call began.
    Concurrent,
}

/// A service: what differs of its row, and what there is to grant or to undo. What speaks against it is a refusal.
#[derive(Debug, Clone, Default)]
pub struct Authenticator {
    pub is_there: bool,
    pub differs: Vec<&'static str>,
    pub grants: Vec<String>,
    pub owner: Owner,
}

/// A user in lower case, a role and maybe a resource, as one text: there are many, and this is the fastest to look up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(String);

impl Place {
    pub fn new(username: &str, role: &str, resource: Option<(&str, &str)>) -> Place {
        let (kind, id) = resource.unwrap_or_default();
        let mut text = String::with_capacity(username.len() + role.len() + kind.len() + id.len() + 3);
        text.push_str(username);
        text.make_ascii_lowercase();
        for part in [role, kind, id] {
            text.push('\0');
            text.push_str(part);
        }
        Place(text)
    }

    pub fn of(entry: &super::Binding) -> Place {
        let resource = entry.resource.as_ref().map(|resource| (resource.kind.as_str(), resource.id.as_str()));
        Place::new(&entry.username, &entry.role, resource)
    }

    /// The user, the role and the resource.
    pub fn parts(&self) -> (&str, &str, Option<resource::Resource>) {
        let mut parts = self.0.splitn(4, '\0');
        let mut next = || parts.next().unwrap_or_default();
        let (user, role, kind, id) = (next(), next(), next(), next());
        let resource = resource::Resource { kind: kind.to_owned(), id: id.to_owned() };
        (user, role, (!kind.is_empty()).then_some(resource))
    }
}

/// The user that owns a key, in lower case, and its name, as one text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

impl KeyName {
    pub fn new(username: &str, name: &str) -> KeyName {
        let mut text = String::with_capacity(username.len() + name.len() + 1);
        text.push_str(username);
        text.make_ascii_lowercase();
        text.push('\0');
        text.push_str(name);
        KeyName(text)
    }

    pub fn name(&self) -> &str {
        self.0.split_once('\0').map_or("", |(_, name)| name)
    }
}

/// Users go by the username in lower case.
#[derive(Debug, Default)]
pub struct State {
    /// Moments are microseconds since 2000.
    pub now: i64,
    /// The longest lifetime of a new API key, in microseconds.
    pub cap: Option<i64>,
    pub types: HashMap<String, ResourceType>,
    pub scopes: HashMap<String, Definition>,
    pub roles: HashMap<String, Definition>,
    pub users: HashMap<String, User>,
    pub resources: HashMap<resource::Resource, Resource>,
    pub bindings: HashMap<Place, Binding>,
    pub api_keys: HashMap<KeyName, ApiKey>,
    /// Keys of this manager that were rotated away and still live; by their id.
    pub in_grace: HashMap<String, (KeyName, ApiKey)>,
    pub gateway_keys: HashMap<String, GatewayKey>,
    pub authenticators: HashMap<String, Authenticator>,
    /// The types whose resources follow a table of the application.
    pub tracked: HashSet<String>,
    /// What is to be bound and unbound for system users that are there, as people read it.
    pub standing: HashMap<String, Vec<String>>,
    pub api_key_verdicts: HashMap<KeyName, Verdict>,
    pub gateway_key_verdicts: HashMap<String, Verdict>,
    /// Who owns the resources of which this manager may take an owner away: each role and resource with those users
    /// that hold it, in lower case, and whether they are active.
    pub owners: HashMap<(String, resource::Resource), Vec<(String, bool)>>,
    /// What system users of the manifest lose and get by their own roles.
    pub standing_lost: HashSet<Place>,
    pub standing_gained: HashSet<Place>,
    /// Types that are to get another parent type although resources of theirs have parents.
    pub types_with_parents: HashSet<String>,
    /// Resources that move, each with one that lies below it, however far.
    pub below: Vec<(resource::Resource, resource::Resource)>,
    /// Resources that may be pruned, each with one that lies right below it.
    pub children: Vec<(resource::Resource, resource::Resource)>,
    /// Users that may be pruned and that own live keys or hold roles that are not this manager's; resources on which such
    /// roles are held.
    pub users_in_use: HashSet<String>,
    pub resources_in_use: HashSet<resource::Resource>,
    /// Roles, scopes and types that may be pruned and that something else names, each with what does.
    pub roles_in_use: HashMap<String, &'static str>,
    pub scopes_in_use: HashMap<String, &'static str>,
    pub types_in_use: HashMap<String, &'static str>,
}
