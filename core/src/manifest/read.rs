//! The reader: one function for each kind of entry.

use super::document::{
    default_allow_list, default_level, default_lifetime, default_noinherit, default_schemas, default_scopes,
};
use super::fault::{Fault, Path};
use super::json::Json;
use super::object::{At, Object, flag, identifier, list_of, name, or_empty, or_null, text, whole, words};
use super::{
    ApiKey, Authenticator, Binding, GatewayKey, Held, MOST_DEFINITIONS, MOST_ENTRIES, Manifest, Resource,
    ResourceType, Role, Scope, User, UserKind,
};
use crate::MAX_ENTRIES;
use crate::duration::Duration;
use crate::name::Rule;
use crate::resource;
use crate::secret::Secret;
use crate::text::Kind;
use crate::token::stored;
use serde_json::error::Category;

/// Reads the text of an interval, or says what is wrong with it.
pub type Interval = fn(&str) -> Result<Duration, &'static str>;

/// The manifest, or everything that is wrong with it: section by section, and in a section entry by entry.
///
/// Of a key that is given twice the last one counts, as in jsonb.
pub fn read(json: &[u8], interval: Interval) -> Result<Manifest, Vec<Fault>> {
    let (manifest, faults) = read_all(json, interval);
    manifest.filter(|_| faults.is_empty()).ok_or(faults)
}

/// As `read`, with what could be read: what is faulty is empty, and every entry is in its place. For looking on, so that what
/// only a database can find is said together with the faults.
pub fn read_all(json: &[u8], interval: Interval) -> (Option<Manifest>, Vec<Fault>) {
    let mut faults = Vec::new();
    let mut at = At { path: Path::Root, faults: &mut faults, interval };
    let manifest = match serde_json::from_slice(json) {
        Ok(document) => at.object(document, manifest),
        Err(error) => {
            // A database hands in nothing but JSON, so that this is what it is.
            let sentence = match error.classify() {
                Category::Syntax | Category::Data if error.to_string().contains("recursion limit") => {
                    "It is nested too deeply.".into()
                }
                Category::Syntax | Category::Data if error.to_string().contains("out of range") => {
                    "It holds a number that is out of range.".into()
                }
                _ => format!("It is not JSON: see line {}, column {}.", error.line(), error.column()),
            };
            at.fault(sentence)
        }
    };
    (manifest, faults)
}

fn manifest(document: &mut Object) -> Manifest {
    Manifest {
        manager: document.required("manager", words(Kind::Manager)).unwrap_or_default(),
        prune: document.or("prune", || false, flag),
        adopt: document.or("adopt", || false, flag),
        resource_types: document
            .section("resource_types", MOST_DEFINITIONS, resource_type, |entry| identity(&[&entry.kind])),
        resources: document
            .section("resources", MOST_ENTRIES, resource, |entry| identity(&[&entry.kind, &entry.id])),
        roles: document.section("roles", MOST_DEFINITIONS, role, |entry| identity(&[&entry.name])),
        scopes: document.section("scopes", MOST_DEFINITIONS, scope, |entry| identity(&[&entry.name])),
        users: document
            .section("users", MOST_ENTRIES, user, |entry| identity(&[&entry.username.to_ascii_lowercase()])),
        bindings: document.section("bindings", MOST_ENTRIES, binding, |entry| {
            let username = entry.username.to_ascii_lowercase();
            match &entry.resource {
                None => identity(&[&username, &entry.role]),
                Some(on) => identity(&[&username, &entry.role, &on.kind, &on.id]),
            }
        }),
        api_keys: document.section("api_keys", MOST_ENTRIES, api_key, |entry| {
            identity(&[&entry.username.to_ascii_lowercase(), &entry.name])
        }),
        gateway_keys: document
            .section("gateway_keys", MOST_DEFINITIONS, gateway_key, |entry| identity(&[&entry.name])),
        authenticators: document
            .section("authenticators", MOST_DEFINITIONS, authenticator, |entry| identity(&[&entry.service])),
    }
}

/// What no two entries have in common; none when a part is faulty.
fn identity(parts: &[&str]) -> Option<String> {
    let whole = parts.iter().all(|part| !part.is_empty());
    whole.then(|| parts.join("\0"))
}

fn resource_type(entry: &mut Object) -> ResourceType {
    ResourceType {
        kind: entry.name("type", Rule::ResourceType),
        parent_type: entry.optional("parent_type", or_null(name(Rule::ResourceType))),
    }
}

fn resource(entry: &mut Object) -> Resource {
    Resource {
        kind: entry.name("type", Rule::ResourceType),
        id: entry.name("id", Rule::ResourceId),
        parent_id: entry.optional("parent_id", or_empty(name(Rule::ResourceId))),
        name: entry.optional("name", or_empty(words(Kind::DisplayName))),
    }
}

fn role(entry: &mut Object) -> Role {
    Role {
        name: entry.name("name", Rule::RoleName),
        permissions: entry.required("permissions", entries).unwrap_or_default(),
        level: entry.or("level", default_level, whole(0, 9)),
    }
}

/// What permissions, scopes and allow-lists are made of. What they mean is looked up later.
fn entries(value: Json, at: &mut At) -> Option<Vec<String>> {
    list_of((1, MAX_ENTRIES), text)(value, at)
}

fn scope(entry: &mut Object) -> Scope {
    Scope {
        name: entry.name("name", Rule::ScopeName),
        permissions: entry.required("permissions", entries).unwrap_or_default(),
    }
}

/// What a system user holds that says nothing else: the defaults of ensure_system_user.
const SYSTEM_ROLE: &str = "owner";
const SYSTEM_ORGANIZATION_ROLE: &str = "organization-admin";

fn user(entry: &mut Object) -> User {
    let username = entry.name("username", Rule::Username);
    let kind = entry.required("kind", user_kind);
    let system = kind.map(|kind| kind == UserKind::System);
    for (key, fits, sentence) in [
        ("db_role", system != Some(true), "A system user has none."),
        ("roles", system != Some(false), "Only a system user has them here; see bindings."),
        ("organization_role", system != Some(false), "Only a system user has one."),
    ] {
        if entry.has(key) && !fits {
            entry.fault(key, sentence);
        }
    }
    User {
        username,
        kind: kind.unwrap_or(UserKind::Human),
        email: entry.optional("email", or_empty(words(Kind::Email))),
        display_name: entry.optional("display_name", or_empty(words(Kind::DisplayName))),
        db_role: entry.optional("db_role", or_empty(identifier)),
        roles: entry
            .optional("roles", list_of((0, usize::MAX), name(Rule::RoleName)))
            .or_else(|| (system == Some(true)).then(|| vec![SYSTEM_ROLE.to_owned()])),
        organization_role: entry
            .optional("organization_role", or_empty(name(Rule::RoleName)))
            .or_else(|| (system == Some(true)).then(|| SYSTEM_ORGANIZATION_ROLE.to_owned())),
    }
}

fn user_kind(value: Json, at: &mut At) -> Option<UserKind> {
    let word = text(value, at)?;
    let kind = UserKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    kind.or_else(|| at.fault("It must be human, service or system."))
}

fn binding(entry: &mut Object) -> Binding {
    let username = entry.name("username", Rule::Username);
    let role = entry.name("role", Rule::RoleName);
    let kind = entry.optional("resource_type", or_null(name(Rule::ResourceType)));
    let id = entry.optional("resource_id", or_null(name(Rule::ResourceId)));
    if kind.is_some() != id.is_some() {
        let missing = if id.is_none() { "resource_id" } else { "resource_type" };
        entry.fault_of_all(format!("{missing} is missing: resource_type and resource_id go together."));
    }
    let resource = (kind.is_some() || id.is_some())
        .then(|| resource::Resource { kind: kind.unwrap_or_default(), id: id.unwrap_or_default() });
    Binding { username, role, resource }
}

fn api_key(entry: &mut Object) -> ApiKey {
    let key = ApiKey {
        username: entry.name("username", Rule::Username),
        name: entry.name("name", Rule::ApiKeyName),
        scopes: entry.or("scopes", default_scopes, entries),
        allow_list: entry.or("allow_list", default_allow_list, entries),
        lifetime: entry.or("lifetime", default_lifetime, lifetime),
        renew_before: entry.optional("renew_before", duration),
        existing_token: entry.optional("existing_token", held),
    };
    // A faulty lifetime is read as none at all.
    let lifetime = Some(key.lifetime).filter(|lifetime| *lifetime != Duration::default());
    if lifetime
        .zip(key.renew_before)
        .is_some_and(|(lifetime, before)| !before.is_always_shorter_than(lifetime))
    {
        entry.fault("renew_before", "It must be shorter than lifetime.");
    }
    key
}

fn lifetime(value: Json, at: &mut At) -> Option<Duration> {
    let lifetime = duration(value, at)?;
    match lifetime.lifetime_fault() {
        None => Some(lifetime),
        Some((rule, hint)) => at.fault(format!("{rule} {hint}")),
    }
}

fn duration(value: Json, at: &mut At) -> Option<Duration> {
    (at.interval)(&text(value, at)?).map_or_else(|sentence| at.fault(sentence), Some)
}

/// The text moves into the secret, so that no copy of it is left behind.
fn held(value: Json, at: &mut At) -> Option<Held> {
    match value {
        Json::Null => Some(Held::Nothing),
        Json::Text(token) if stored(token.as_bytes()).is_none() => Some(Held::Nothing),
        Json::Text(token) => Some(Held::Token(Secret::new(token.into_owned()))),
        other => at.must_be(&other, "text or null"),
    }
}

fn gateway_key(entry: &mut Object) -> GatewayKey {
    GatewayKey {
        name: entry.name("name", Rule::GatewayKeyName),
        existing_token: entry.optional("existing_token", held),
    }
}

fn authenticator(entry: &mut Object) -> Authenticator {
    Authenticator {
        service: entry.name("service", Rule::ServiceName),
        connect_as: entry.identifier("connect_as"),
        anon_role: entry.optional("anon_role", |value, at| match value {
            Json::Null => None,
            value => identifier(value, at),
        }),
        jwt_roles: entry.or("jwt_roles", Vec::new, list_of((0, usize::MAX), identifier)),
        schemas: entry.or("schemas", default_schemas, list_of((1, usize::MAX), identifier)),
        noinherit: entry.or("noinherit", default_noinherit, flag),
    }
}
