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
    /// Microseconds; 0 or less when it has expired.
    pub left: i64,
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

/// A user, a role and a place; the username in lower case.
pub type Place = (String, String, Option<resource::Resource>);

/// Users and keys go by the username in lower case.
#[derive(Debug, Default)]
pub struct State {
    pub types: HashMap<String, ResourceType>,
    pub scopes: HashMap<String, Definition>,
    pub roles: HashMap<String, Definition>,
    pub users: HashMap<String, User>,
    pub resources: HashMap<resource::Resource, Resource>,
    pub bindings: HashMap<Place, Binding>,
    pub api_keys: HashMap<(String, String), ApiKey>,
    pub gateway_keys: HashMap<String, GatewayKey>,
    pub authenticators: HashMap<String, Authenticator>,
    /// The types whose resources follow a table of the application.
    pub tracked: HashSet<String>,
    /// What is to be bound and unbound for system users that are there, as people read it.
    pub standing: HashMap<String, Vec<String>>,
    pub api_key_verdicts: HashMap<(String, String), Verdict>,
    pub gateway_key_verdicts: HashMap<String, Verdict>,
    /// Who owns the resources of which this manager may take an owner away: each role and resource with those active
    /// users that hold it, in lower case.
    pub owners: HashMap<(String, resource::Resource), Vec<String>>,
    /// Resources that lie below one that may be pruned.
    pub children: Vec<(resource::Resource, resource::Resource)>,
    /// Roles, scopes and types that may be pruned and that something else names, each with what does.
    pub roles_in_use: HashMap<String, &'static str>,
    pub scopes_in_use: HashMap<String, &'static str>,
    pub types_in_use: HashMap<String, &'static str>,
}
