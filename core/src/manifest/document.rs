//! What a manifest holds. The JSON Schema is made of these types and of their comments.

#[cfg(test)]
use super::{MOST_DEFINITIONS, MOST_ENTRIES, schema as form};
#[cfg(test)]
use crate::MAX_ENTRIES;
use crate::duration::Duration;
use crate::resource;
use crate::secret::Secret;
use crate::token::stored;

/// What a control plane wants to be there. A section that is absent is empty.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Manifest {
    /// Who manages what the manifest names: 1 to 63 printable ASCII characters without spaces.
    #[cfg_attr(test, schemars(with = "form::Manager"))]
    pub manager: String,
    /// Whether what this manager owns and the manifest does not name is taken away.
    #[cfg_attr(test, schemars(default))]
    pub prune: bool,
    /// Whether what another manager owns is taken over. What nobody manages is taken over in any case.
    #[cfg_attr(test, schemars(default))]
    pub adopt: bool,
    /// Types of resources, next to the built-in ones.
    #[cfg_attr(test, schemars(default, length(max = MOST_DEFINITIONS)))]
    pub resource_types: Vec<ResourceType>,
    /// Resources of the application.
    #[cfg_attr(test, schemars(default, length(max = MOST_ENTRIES)))]
    pub resources: Vec<Resource>,
    /// Roles, next to the built-in ones.
    #[cfg_attr(test, schemars(default, length(max = MOST_DEFINITIONS)))]
    pub roles: Vec<Role>,
    /// Scopes, next to the built-in ones.
    #[cfg_attr(test, schemars(default, length(max = MOST_DEFINITIONS)))]
    pub scopes: Vec<Scope>,
    /// Users, each once.
    #[cfg_attr(test, schemars(default, length(max = MOST_ENTRIES)))]
    pub users: Vec<User>,
    /// Who holds which role where.
    #[cfg_attr(test, schemars(default, length(max = MOST_ENTRIES)))]
    pub bindings: Vec<Binding>,
    /// API keys of users.
    #[cfg_attr(test, schemars(default, length(max = MOST_ENTRIES)))]
    pub api_keys: Vec<ApiKey>,
    /// Gateway keys.
    #[cfg_attr(test, schemars(default, length(max = MOST_DEFINITIONS)))]
    pub gateway_keys: Vec<GatewayKey>,
    /// What services such as PostgREST need of Postgres roles.
    #[cfg_attr(test, schemars(default, length(max = MOST_DEFINITIONS)))]
    pub authenticators: Vec<Authenticator>,
}

/// A type of resources.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct ResourceType {
    /// A lower case letter and at most 62 lower case letters, digits, dots, dashes and underscores.
    #[cfg_attr(test, schemars(rename = "type", with = "form::ResourceType"))]
    pub kind: String,
    /// The type that parents are of; the type itself where resources nest. Absent or null: there are no parents.
    #[cfg_attr(test, schemars(with = "Option<form::ResourceType>"))]
    pub parent_type: Option<String>,
}

/// A resource of the application.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Resource {
    /// Its type.
    #[cfg_attr(test, schemars(rename = "type", with = "form::ResourceType"))]
    pub kind: String,
    /// The application's own id: 1 to 255 bytes without white space, control characters and asterisks.
    #[cfg_attr(test, schemars(with = "form::ResourceId"))]
    pub id: String,
    /// The id of its parent. Absent: left as it is. Null or empty: none.
    #[cfg_attr(test, schemars(with = "Option<form::OrEmpty<form::ResourceId>>"))]
    pub parent_id: Option<String>,
    /// For people to read, at most 128 bytes. Absent: left as it is. Null or empty: none.
    #[cfg_attr(test, schemars(with = "Option<form::Words>"))]
    pub name: Option<String>,
}

/// A role: a named set of permissions that users hold.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Role {
    /// 1 to 64 lower case letters and digits in groups joined by single dashes.
    #[cfg_attr(test, schemars(with = "form::Name"))]
    pub name: String,
    /// 1 to 128 permissions type:action, * on either side for any.
    #[cfg_attr(test, schemars(length(min = 1, max = MAX_ENTRIES)))]
    pub permissions: Vec<String>,
    /// 0 to 9, 0 the highest. Whoever grants a role holds one of a smaller level.
    #[cfg_attr(test, schemars(default = "default_level", with = "form::Level"))]
    pub level: i32,
}

/// A scope: a named set of permissions that API keys carry.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Scope {
    /// A word, or two joined by a colon of which the first is no type of resources.
    #[cfg_attr(test, schemars(with = "form::ScopeName"))]
    pub name: String,
    /// 1 to 128 permissions type:action, * on either side for any.
    #[cfg_attr(test, schemars(length(min = 1, max = MAX_ENTRIES)))]
    pub permissions: Vec<String>,
}

/// A user: an identity that owns keys.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct User {
    /// 1 to 64 lower case letters and digits in groups joined by one dash, underscore or dot.
    #[cfg_attr(test, schemars(with = "form::Username"))]
    pub username: String,
    /// What kind of user it is.
    pub kind: UserKind,
    /// For contact, at most 254 bytes. Absent: left as it is. Null or empty: none.
    #[cfg_attr(test, schemars(with = "Option<form::Email>"))]
    pub email: Option<String>,
    /// For people to read, at most 128 bytes. Absent: left as it is. Null or empty: none.
    #[cfg_attr(test, schemars(with = "Option<form::Words>"))]
    pub display_name: Option<String>,
    /// The Postgres role a human or service acts as. Absent: left as it is. Null or empty: none.
    #[cfg_attr(test, schemars(with = "Option<form::OrEmpty<form::Identifier>>"))]
    pub db_role: Option<String>,
    /// The roles a system user holds everywhere. Absent: owner. Empty: none.
    #[cfg_attr(test, schemars(default, with = "Vec<form::Name>"))]
    pub roles: Option<Vec<String>>,
    /// The role a system user holds in every organization, also in those to come. Absent: organization-admin. Null or
    /// empty: none.
    #[cfg_attr(test, schemars(with = "Option<form::OrEmpty<form::Name>>"))]
    pub organization_role: Option<String>,
}

/// The kinds of user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename_all = "lowercase", inline))]
pub enum UserKind {
    Human,
    Service,
    System,
}

impl UserKind {
    pub const ALL: [UserKind; 3] = [UserKind::Human, UserKind::Service, UserKind::System];

    pub fn as_str(self) -> &'static str {
        match self {
            UserKind::Human => "human",
            UserKind::Service => "service",
            UserKind::System => "system",
        }
    }
}

/// A role that a user holds: on one resource, or everywhere.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Binding {
    /// The user.
    #[cfg_attr(test, schemars(with = "form::Username"))]
    pub username: String,
    /// The role.
    #[cfg_attr(test, schemars(with = "form::Name"))]
    pub role: String,
    #[cfg_attr(test, schemars(flatten, with = "form::Place"))]
    pub resource: Option<resource::Resource>,
}

/// An API key of a user.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct ApiKey {
    /// The user that owns it.
    #[cfg_attr(test, schemars(with = "form::Username"))]
    pub username: String,
    /// 1 to 64 lower case letters and digits in groups joined by single dashes.
    #[cfg_attr(test, schemars(with = "form::Name"))]
    pub name: String,
    /// 1 to 128 scopes: names of scopes, or permissions type:action.
    #[cfg_attr(test, schemars(default = "default_scopes", length(min = 1, max = MAX_ENTRIES)))]
    pub scopes: Vec<String>,
    /// 1 to 128 entries type:id, * on either side for any: the resources it may be used on.
    #[cfg_attr(test, schemars(default = "default_allow_list", length(min = 1, max = MAX_ENTRIES)))]
    pub allow_list: Vec<String>,
    /// How long a new key lives, such as "30 days", "8760h" or "1 year 6 months", as an interval of PostgreSQL: at least
    /// a minute and at most 100 years. A number without a unit is seconds.
    #[cfg_attr(test, schemars(default = "default_lifetime", with = "form::Duration"))]
    pub lifetime: Duration,
    /// It is renewed when no more than this is left, such as "1 week": 0 or more and shorter than lifetime, however long
    /// the months and years are.
    #[cfg_attr(test, schemars(default, with = "form::Duration"))]
    pub renew_before: Option<Duration>,
    /// The token that the caller has stored. Absent: whoever holds the live key, it is fine. Null or empty: the
    /// caller has none.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub existing_token: Option<Held>,
}

/// A gateway key.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct GatewayKey {
    /// 1 to 64 lower case letters and digits in groups joined by single dashes.
    #[cfg_attr(test, schemars(with = "form::Name"))]
    pub name: String,
    /// The token that the caller has stored. Absent: whoever holds the live key, it is fine. Null or empty: the
    /// caller has none.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub existing_token: Option<Held>,
}

/// What a caller has stored of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    Nothing,
    Token(Secret),
}

impl Held {
    /// The token in clear without white space around it, to be compared and no more.
    pub fn token(&self) -> Option<&[u8]> {
        match self {
            Held::Nothing => None,
            Held::Token(token) => stored(token.expose().as_bytes()),
        }
    }
}

/// What a service needs of Postgres roles.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Authenticator {
    /// 1 to 64 lower case letters and digits in groups joined by single dashes.
    #[cfg_attr(test, schemars(with = "form::Name"))]
    pub service: String,
    /// The Postgres role it logs in as.
    #[cfg_attr(test, schemars(with = "form::Identifier"))]
    pub connect_as: String,
    /// The Postgres role of requests without a token. Absent or null: there are none.
    #[cfg_attr(test, schemars(with = "Option<form::Identifier>"))]
    pub anon_role: Option<String>,
    /// The Postgres roles that tokens may name.
    #[cfg_attr(test, schemars(default, with = "Vec<form::Identifier>"))]
    pub jwt_roles: Vec<String>,
    /// The schemas it exposes, at least one.
    #[cfg_attr(test, schemars(default = "default_schemas", with = "Vec<form::Identifier>", length(min = 1)))]
    pub schemas: Vec<String>,
    /// Whether connect_as is kept from inheriting.
    #[cfg_attr(test, schemars(default = "default_noinherit"))]
    pub noinherit: bool,
}

pub(super) fn default_level() -> i32 {
    3
}

pub(super) fn default_scopes() -> Vec<String> {
    vec!["all".into()]
}

pub(super) fn default_allow_list() -> Vec<String> {
    vec!["*:*".into()]
}

pub(super) fn default_lifetime() -> Duration {
    Duration::of_days(90)
}

pub(super) fn default_schemas() -> Vec<String> {
    vec!["public".into()]
}

pub(super) fn default_noinherit() -> bool {
    true
}
