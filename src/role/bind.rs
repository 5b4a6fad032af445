//! bind_role and unbind_role.

use super::no_such_role;
use crate::args::Faults;
use crate::authority::{self, Held, Roles};
use crate::error::{Failure, Fault};
use crate::manager::Claim;
use crate::record::{Record, Rows};
use crate::user::{self, User};
use crate::{args, resource, spi};
use keywright_core::permission::Permission;
use keywright_core::resource::Resource;
use keywright_core::text::Kind as Words;
use pgrx::datum::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// A role as it is to be granted.
struct Role {
    name: String,
    level: i16,
    permissions: Vec<Permission>,
}

impl Role {
    fn find(name: &str) -> Result<Role, Failure<'static>> {
        const FIND: &str = "SELECT name, level, permissions FROM keywright.roles WHERE name = $1";
        spi::read(FIND, &[name.into()], Role::from_row).pop().ok_or_else(|| no_such_role(name))
    }

    /// As `find`, and holds it as it is until the transaction ends.
    fn hold(name: &str) -> Result<Role, Failure<'static>> {
        const HOLD: &str = "SELECT name, level, permissions FROM keywright.roles WHERE name = $1 FOR SHARE";
        spi::write(HOLD, &[name.into()], Role::from_row).pop().ok_or_else(|| no_such_role(name))
    }

    fn from_row(row: &spi::Row) -> Role {
        let permissions: Vec<String> = row.must(3);
        Role {
            name: row.must(1),
            level: row.must(2),
            permissions: permissions.iter().filter_map(|text| Permission::parse(text)).collect(),
        }
    }

    fn require_in_snapshot(&self) -> Result<(), Failure<'static>> {
        const SEEN: &str = "SELECT FROM keywright.roles WHERE name = $1";
        match spi::read_in_transaction_snapshot(SEEN, &[self.name.as_str().into()]) {
            true => Ok(()),
            false => Err(Failure::NewerThanTransaction { what: format!("role \"{}\"", self.name) }),
        }
    }
}

/// A role TYPE-owner owns resources of that type.
fn owns(role: &str, resource: &Resource) -> bool {
    role.strip_suffix("-owner") == Some(resource.kind.as_str())
}

/// The same user holds a role once in a place.
struct Place<'a> {
    user: &'a User,
    role: &'a str,
    resource: Option<&'a Resource>,
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "the arguments of the SQL function")]
fn bind_role(
    username: Option<&[u8]>,
    role: Option<&[u8]>,
    resource_type: Option<&[u8]>,
    resource_id: Option<&[u8]>,
    granted_by: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let role = faults.sift(args::text("role", role));
    let resource = faults.sift_all(require_resource(resource_type, resource_id))?;
    let managed_by = faults.sift(args::words("managed_by", Words::Manager, managed_by));
    let (Some(username), Some(role), Some(resource), Some(managed_by)) =
        (username, role, resource, managed_by)
    else {
        return Err(Failure::from(faults).into());
    };
    let user = user::find(username)?;
    let role = Role::find(role)?;
    if let Some(resource) = &resource
        && !resource::exists(resource)
    {
        resource::kind::Kind::find(resource.kind.as_bytes())?;
        return Err(Failure::NoResource { resource: resource.clone() }.into());
    }
    let granter = granted_by.map(user::find).transpose()?;
    if let Some(granter) = &granter {
        require_may_grant(granter, &role, resource.clone())?;
    }
    let (id, outcome) =
        match (Place { user: &user, role: &role.name, resource: resource.as_ref() }).settled(managed_by) {
            Some(id) => (id, "unchanged"),
            None => bind(&user, &role.name, resource.as_ref(), granter.as_ref(), managed_by)?,
        };
    Ok(Rows::one(fcinfo, &[id.into_datum(), outcome.into_datum()]))
}

/// Decides anew with everybody concerned held.
fn bind<'a>(
    user: &'a User,
    role: &str,
    resource: Option<&Resource>,
    granter: Option<&'a User>,
    managed_by: Option<&[u8]>,
) -> Result<(Uuid, &'static str), Failure<'a>> {
    let user = user.hold()?;
    user.require_in_snapshot()?;
    let granter = granter.map(User::hold).transpose()?;
    if let Some(granter) = &granter {
        granter.require_in_snapshot()?;
    }
    let role = Role::hold(role)?;
    role.require_in_snapshot()?;
    if let Some(resource) = resource {
        resource::hold(resource)?;
    }
    if let Some(granter) = &granter {
        require_may_grant(granter, &role, resource.cloned())?;
    }
    let place = Place { user: &user, role: &role.name, resource };
    loop {
        if let Some(id) = place.insert(granter.as_ref(), managed_by) {
            return Ok((id, "created"));
        }
        if let Some(id) = place.settled(managed_by) {
            return Ok((id, "unchanged"));
        }
        if let Some(id) = place.claim(granter.as_ref(), managed_by) {
            return Ok((id, "updated"));
        }
    }
}

impl Place<'_> {
    fn args(&self) -> [spi::Arg<'_>; 4] {
        let part = |part: fn(&Resource) -> &str| spi::text(self.resource.map(|at| part(at).as_bytes()));
        [self.user.id.into(), self.role.into(), part(|at| &at.kind), part(|at| &at.id)]
    }

    /// The binding, when there is nothing to do about it.
    fn settled(&self, managed_by: Option<&[u8]>) -> Option<Uuid> {
        const SETTLED: &str = r#"
            SELECT binding_id FROM keywright.role_bindings
             WHERE user_id = $1 AND role = $2
               AND resource_type IS NOT DISTINCT FROM $3 AND resource_id IS NOT DISTINCT FROM $4
               AND NOT standing AND (managed_by IS NOT NULL OR $5 IS NULL)"#;
        let [a, b, c, d] = self.args();
        spi::read(SETTLED, &[a, b, c, d, spi::text(managed_by)], |row| row.must(1)).pop()
    }

    fn insert(&self, granter: Option<&User>, managed_by: Option<&[u8]>) -> Option<Uuid> {
        const INSERT: &str = r#"
            INSERT INTO keywright.role_bindings
                   (user_id, role, scope, resource_type, resource_id, granted_by, managed_by)
            VALUES ($1, $2, CASE WHEN $3 IS NULL THEN 'global' ELSE 'resource' END, $3, $4, $5, $6)
            ON CONFLICT ON CONSTRAINT role_bindings_key DO NOTHING
            RETURNING binding_id"#;
        let [a, b, c, d] = self.args();
        let granter: Option<Uuid> = granter.map(|granter| granter.id);
        spi::write(INSERT, &[a, b, c, d, granter.into(), spi::text(managed_by)], |row| row.must(1)).pop()
    }

    /// What ensure_system_user bound is the caller's from now on; what nobody managed is the manager's. Who grants it now
    /// granted it.
    fn claim(&self, granter: Option<&User>, managed_by: Option<&[u8]>) -> Option<Uuid> {
        const CLAIM: &str = r#"
            UPDATE keywright.role_bindings
               SET standing = false, managed_by = coalesce(managed_by, $5), granted_by = coalesce($6, granted_by)
             WHERE user_id = $1 AND role = $2
               AND resource_type IS NOT DISTINCT FROM $3 AND resource_id IS NOT DISTINCT FROM $4
            RETURNING binding_id"#;
        let [a, b, c, d] = self.args();
        let granter: Option<Uuid> = granter.map(|granter| granter.id);
        spi::write(CLAIM, &[a, b, c, d, spi::text(managed_by), granter.into()], |row| row.must(1)).pop()
    }
}

/// A granter holds there a role of a smaller level, and every permission of the one to be granted: nobody
/// gives more than they have.
fn require_may_grant(
    granter: &User,
    role: &Role,
    resource: Option<Resource>,
) -> Result<(), Failure<'static>> {
    let refuse = |why: String| {
        Err(Failure::NotGrantable { granter: granter.username.clone(), role: role.name.clone(), why })
    };
    if !granter.is_active() {
        return refuse("The granter is suspended.".into());
    }
    let source = authority::source()?;
    let path = authority::path(resource, &source);
    let roles = Roles::of(granter.id, &source);
    let Some(level) = roles.reaching(&path).map(|held: &Held| held.level).min() else {
        return refuse("The granter holds no role there.".into());
    };
    if level >= role.level {
        return refuse(format!("Its level is {}, the best the granter holds there is {level}.", role.level));
    }
    match role.permissions.iter().find(|permission| !roles.cover(permission, &path)) {
        Some(permission) => refuse(format!("The granter does not hold \"{permission}\" there.")),
        None => Ok(()),
    }
}

fn require_resource<'a>(kind: Option<&[u8]>, id: Option<&[u8]>) -> Result<Option<Resource>, Failure<'a>> {
    match (kind, id) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            let mut faults = Faults::default();
            let kind = faults.sift(part("resource_type", kind));
            let id = faults.sift(part("resource_id", id));
            let (Some(kind), Some(id)) = (kind, id) else { return Err(faults.into()) };
            Ok(Some(Resource { kind: kind.to_owned(), id: id.to_owned() }))
        }
        _ => {
            let sentence = "Of resource_type and resource_id only one is given.";
            Err(Fault::new("resource_id", sentence, "Give both, or neither for a global binding.").into())
        }
    }
}

fn part<'a>(argument: &'static str, text: Option<&'a [u8]>) -> Result<&'a str, Fault> {
    let text = args::text(argument, text)?;
    let hint = "Give both, or neither for a global binding.";
    if text.is_empty() { Err(Fault::new(argument, "It is empty.", hint)) } else { Ok(text) }
}

#[pg_extern(sql = false)]
fn unbind_role(
    username: Option<&[u8]>,
    role: Option<&[u8]>,
    resource_type: Option<&[u8]>,
    resource_id: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    const BOUND: &str = r#"
        SELECT FROM keywright.role_bindings
         WHERE user_id = $1 AND role = $2
           AND resource_type IS NOT DISTINCT FROM $3 AND resource_id IS NOT DISTINCT FROM $4"#;
    const HOLD: &str = r#"
        SELECT managed_by FROM keywright.role_bindings
         WHERE user_id = $1 AND role = $2
           AND resource_type IS NOT DISTINCT FROM $3 AND resource_id IS NOT DISTINCT FROM $4 FOR UPDATE"#;
    const UNBIND: &str = r#"
        DELETE FROM keywright.role_bindings
         WHERE user_id = $1 AND role = $2
           AND resource_type IS NOT DISTINCT FROM $3 AND resource_id IS NOT DISTINCT FROM $4"#;
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let role = faults.sift(args::text("role", role));
    let resource = faults.sift_all(require_resource(resource_type, resource_id))?;
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(username), Some(role), Some(resource), Some(claim)) = (username, role, resource, claim) else {
        return Err(Failure::from(faults).into());
    };
    let answer = |changed: bool, last: bool| Record::new(fcinfo, &[changed.into_datum(), last.into_datum()]);
    let Some(user) = user::look(username) else { return Ok(answer(false, false)) };
    let place = Place { user: &user, role, resource: resource.as_ref() };
    if spi::read(BOUND, &place.args(), |_| ()).is_empty() {
        return Ok(answer(false, false));
    }
    // The front says it, with the constraint.
    if resource.as_ref().is_some_and(|resource| require_other_owner(&user, role, resource).is_err()) {
        return Ok(answer(false, true));
    }
    // After the resource, as who deletes that does.
    let what = || format!("role \"{role}\" of user \"{}\"", user.username);
    let held = claim.hold(what, HOLD, &place.args())?;
    Ok(answer(held && spi::count(UNBIND, &place.args()) > 0, false))
}

/// Refuses to take a role on a resource from its last active owner. Those who ask do so one after the other.
pub fn require_other_owner(user: &User, role: &str, resource: &Resource) -> Result<(), Failure<'static>> {
    const QUEUE: &str = "SELECT FROM keywright.resources WHERE type = $1 AND id = $2 FOR NO KEY UPDATE";
    const OTHERS: &str = r#"
        SELECT FROM keywright.role_bindings AS b
          JOIN keywright.users AS u ON u.user_id = b.user_id
         WHERE b.user_id <> $1 AND b.role = $2 AND b.resource_type = $3 AND b.resource_id = $4
           AND u.deleted_at IS NULL AND u.status = 'active'
         LIMIT 1"#;
    if !owns(role, resource) {
        return Ok(());
    }
    spi::write(QUEUE, &[resource.kind.as_str().into(), resource.id.as_str().into()], |_| ());
    let args = [user.id.into(), role.into(), resource.kind.as_str().into(), resource.id.as_str().into()];
    match spi::read(OTHERS, &args, |_| ()).is_empty() {
        false => Ok(()),
        true => Err(Failure::LastOwner {
            username: user.username.clone(),
            role: role.to_owned(),
            resource: resource.clone(),
        }),
    }
}
