//! What is permitted: by the roles of a user, and by the scopes and the allow-list of a key.
//!
//! Everything is read under one snapshot of this moment. What is not found permits nothing.

mod authorize;
mod has_permission;

use crate::error::{Failure, Fault};
use crate::probe::{Keyed, Reader, Row};
use crate::{api_key, resource, user};
use keywright_core::allow_list::Entry;
use keywright_core::list;
use keywright_core::permission::Permission;
use keywright_core::printable::{is_hidden, looks_like_a_token, quoted};
use keywright_core::registry::Registry;
use keywright_core::resource::Resource;
use pgrx::datum::Uuid;
use pgrx::{IntoDatum, pg_sys};

static BINDINGS_BY_USER: Keyed = Keyed::new(
    c"role_bindings",
    c"role_bindings_key",
    &[pg_sys::F_UUID_EQ],
    &[pg_sys::UUIDOID, pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::TEXTOID],
);
static ROLES_BY_NAME: Keyed = Keyed::new(
    c"roles",
    c"roles_pkey",
    &[pg_sys::F_TEXTEQ],
    &[pg_sys::TEXTOID, pg_sys::TEXTARRAYOID, pg_sys::INT2OID],
)
.again_by(column::role::NAME);
static SCOPES_BY_NAME: Keyed =
    Keyed::new(c"scopes", c"scopes_pkey", &[pg_sys::F_TEXTEQ], &[pg_sys::TEXTOID, pg_sys::TEXTARRAYOID])
        .again_by(column::scope::NAME);

static TYPES_BY_NAME: Keyed =
    Keyed::new(c"resource_types", c"resource_types_pkey", &[pg_sys::F_TEXTEQ], &[pg_sys::TEXTOID])
        .again_by(column::kind::TYPE);

/// Positions in a `Source`; keys and owners come first, as verification has them.
pub const OWNERS: usize = 1;
const BINDINGS: usize = 2;
const ROLES: usize = 3;
const SCOPES: usize = 4;
pub const RESOURCES: usize = 5;

/// Columns, as the CREATE TABLE statements have them.
mod column {
    pub mod binding {
        pub const ROLE: i32 = 3;
        pub const RESOURCE_TYPE: i32 = 5;
        pub const RESOURCE_ID: i32 = 6;
    }
    pub mod role {
        pub const NAME: i32 = 1;
        pub const PERMISSIONS: i32 = 2;
        pub const LEVEL: i32 = 3;
    }
    pub mod kind {
        pub const TYPE: i32 = 1;
    }
    pub mod scope {
        pub const NAME: i32 = 1;
        pub const PERMISSIONS: i32 = 2;
    }
}

/// Every table an answer depends on, under one snapshot.
pub type Source = Reader<6>;

pub fn source() -> Result<Source, Failure<'static>> {
    Reader::new([
        &api_key::BY_ID,
        &user::BY_ID,
        &BINDINGS_BY_USER,
        &ROLES_BY_NAME,
        &SCOPES_BY_NAME,
        &resource::BY_ID,
    ])
}

/// A role somebody holds, globally or on one resource and what lies below it.
#[derive(Debug)]
pub struct Held {
    pub on: Option<Resource>,
    pub level: i16,
    pub permissions: Vec<Permission>,
}

impl Held {
    fn covers(&self, permission: &Permission) -> bool {
        self.permissions.iter().any(|held| held.covers(permission))
    }
}

/// What a user holds.
#[derive(Debug, Default)]
pub struct Roles(Vec<Held>);

impl Roles {
    pub fn of(user: Uuid, source: &Source) -> Roles {
        Self::of_datum(user.into_datum().unwrap_or(pg_sys::Datum::null()), source)
    }

    pub fn of_datum(user: pg_sys::Datum, source: &Source) -> Roles {
        let mut held = Vec::new();
        source.each(BINDINGS, [user], |binding| {
            let Some(role) = binding.get(column::binding::ROLE) else { return };
            source.find(ROLES, role, |role| {
                let Some(role) = role else { return };
                let (kind, id) = (
                    binding.text(column::binding::RESOURCE_TYPE),
                    binding.text(column::binding::RESOURCE_ID),
                );
                let on = match (binding.get(column::binding::RESOURCE_TYPE), kind.zip(id)) {
                    (None, _) => None,
                    (Some(_), Some((kind, id))) => Some(Resource { kind: kind.into(), id: id.into() }),
                    (Some(_), None) => return,
                };
                held.push(Held {
                    on,
                    level: role.get(column::role::LEVEL).map_or(i16::MAX, |level| level.value() as i16),
                    permissions: permissions(role, column::role::PERMISSIONS),
                });
            });
        });
        Roles(held)
    }

    /// Those that reach the end of this path: held globally or on any of it.
    pub fn reaching(&self, path: &[Resource]) -> impl Iterator<Item = &Held> {
        self.0.iter().filter(move |held| held.on.as_ref().is_none_or(|on| path.contains(on)))
    }

    /// Where a permission is held: globally, or on which resources.
    pub fn places(&self, permission: &Permission) -> impl Iterator<Item = Option<&Resource>> {
        self.0.iter().filter(move |held| held.covers(permission)).map(|held| held.on.as_ref())
    }

    pub fn are_on(&self, resource: &Resource) -> bool {
        self.0.iter().any(|held| held.on.as_ref() == Some(resource))
    }

    pub fn cover(&self, permission: &Permission, path: &[Resource]) -> bool {
        self.reaching(path).any(|held| held.covers(permission))
    }
}

/// What a key limits its owner to.
#[derive(Debug)]
pub struct Limits {
    pub scopes: Vec<Permission>,
    pub allow_list: Vec<Entry>,
}

impl Limits {
    pub fn of(key: &Row, source: &Source) -> Limits {
        let mut scopes = Vec::new();
        for scope in key.texts(api_key::column::SCOPES) {
            let name = scope.as_str().into_datum().unwrap_or(pg_sys::Datum::null());
            // A registered name counts as one; anything else is a permission, or nothing.
            source.find(SCOPES, name, |row| match row {
                Some(row) => scopes.extend(permissions(row, column::scope::PERMISSIONS)),
                None => scopes.extend(Permission::parse(&scope)),
            });
        }
        let allow_list = key.texts(api_key::column::ALLOW_LIST);
        Limits { scopes, allow_list: allow_list.iter().filter_map(|entry| Entry::parse(entry)).collect() }
    }

    pub fn in_scope(&self, permission: &Permission) -> bool {
        self.scopes.iter().any(|scope| scope.covers(permission))
    }

    /// True when some entry covers a resource of this path; without one, all of the permission's type.
    pub fn allow(&self, permission: &Permission, path: &[Resource]) -> bool {
        match path {
            [] => self.allow_list.iter().any(|entry| entry.permits(permission.kind(), "*")),
            path => path.iter().any(|at| self.allow_list.iter().any(|entry| entry.permits(&at.kind, &at.id))),
        }
    }
}

fn permissions(row: &Row, column: i32) -> Vec<Permission> {
    row.texts(column).iter().filter_map(|text| Permission::parse(text)).collect()
}

/// A resource and all it lies below, nearest first; empty for none.
pub fn path(resource: Option<Resource>, source: &Source) -> Vec<Resource> {
    path_until(resource, source, |_| false, |_| false)
}

/// As `path`, but no further up than is enough. What lies above is registered, as what a role is held on is known to be.
pub fn path_until(
    resource: Option<Resource>,
    source: &Source,
    is_held_on: impl Fn(&Resource) -> bool,
    is_enough: impl Fn(&[Resource]) -> bool,
) -> Vec<Resource> {
    let look = |at: &Resource| resource::look(source, RESOURCES, &at.kind, &at.id);
    let mut path: Vec<Resource> = resource.into_iter().collect();
    // What the last one names as its parent, once that is known.
    let mut named = None;
    while let Some(last) = path.last() {
        if path.len() > resource::MOST_ANCESTORS || is_enough(&path) {
            break;
        }
        let Some(parent) = named.take().unwrap_or_else(|| look(last).flatten()) else { break };
        if !is_held_on(&parent) {
            named = look(&parent);
            if named.is_none() {
                break;
            }
        }
        path.push(parent);
    }
    path
}

/// The registered types, which questions are about: to a slip of the pen the answer would be no, and to an owner yes. Actions are
/// whatever an application calls them, since a permission with an asterisk covers any.
pub struct Types(Reader<1>);

impl Types {
    pub fn read() -> Result<Types, Failure<'static>> {
        Reader::new([&TYPES_BY_NAME]).map(Types)
    }

    fn has(&self, kind: &str) -> bool {
        self.0.find(0, kind.into_datum().unwrap_or(pg_sys::Datum::null()), |row| row.is_some())
    }

    /// For the one that was meant.
    fn registry(&self) -> Registry {
        let mut names = Vec::new();
        self.0.each(0, [], |row| names.extend(row.text(column::kind::TYPE).map(str::to_owned)));
        Registry::new(names, [])
    }

    /// What an argument asks for.
    pub fn question(&self, permission: Option<&[u8]>) -> Result<Permission, Fault> {
        const HINT: &str = "Give type:action, such as project:read.";
        let text = crate::args::text("permission", permission)?;
        let asked = Permission::parse(text)
            .filter(|_| !looks_like_a_token(text.as_bytes()))
            .ok_or_else(|| Fault::new("permission", "It is not of the form type:action.", HINT))?;
        if asked.kind() == "*" || self.has(asked.kind()) {
            return Ok(asked);
        }
        let mut faults = list::Faults::default();
        asked.look_up(text, &self.registry(), &mut faults);
        Err(Fault::list("permission", faults, "See keywright.list_resource_types()."))
    }

    /// The type of a resource that is asked about.
    pub fn require(&self, argument: &'static str, kind: &[u8]) -> Result<(), Fault> {
        let name = str::from_utf8(kind).ok();
        if name.is_some_and(|name| self.has(name)) {
            return Ok(());
        }
        let registry = self.registry();
        let nearest =
            name.and_then(|name| registry.nearest_type(&name.to_ascii_lowercase()).map(str::to_owned));
        let nearest = nearest.filter(|_| !is_hidden(kind)).into_iter().collect();
        let sentences = vec![format!("{} is not a registered resource type.", quoted(kind))];
        Err(Fault::list(
            argument,
            list::Faults { sentences, nearest },
            "See keywright.list_resource_types().",
        ))
    }
}
