//! What a system user holds by ensure_system_user: roles globally, and one role in every organization.
//!
//! A new organization is bound in the transaction that makes it. For that, whoever makes one and
//! whoever changes what a system user holds do so one at a time, by the type `organization`: neither misses the other.

use super::User;
use crate::error::Failure;
use crate::resource::ORGANIZATION;
use crate::{role, spi};
use keywright_core::resource::Resource;
use pgrx::JsonB;
use pgrx::datum::Uuid;
use std::fmt;

/// What a system user is to hold; a list or a role that is missing stays as it is.
#[derive(Debug)]
pub struct Wanted {
    pub roles: Option<Vec<String>>,
    pub organization_role: Option<String>,
}

/// Binds every system user that has an organization_role to these organizations.
pub fn bind_to_organizations(ids: &[String]) -> Result<(), Failure<'static>> {
    const SOMEBODY: &str =
        "SELECT FROM keywright.users WHERE organization_role IS NOT NULL AND deleted_at IS NULL LIMIT 1";
    // Whoever is being deleted is waited for.
    const HOLD: &str = r#"
        SELECT user_id, username FROM keywright.users
         WHERE organization_role IS NOT NULL AND deleted_at IS NULL ORDER BY user_id FOR SHARE"#;
    const BIND: &str = r#"
        INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type, resource_id, standing)
        SELECT u.user_id, u.organization_role, 'resource', 'organization', i.id, true
          FROM keywright.users AS u, unnest($1::text[]) AS i (id)
         WHERE u.user_id = ANY ($2)
         ORDER BY i.id, u.user_id
        ON CONFLICT ON CONSTRAINT role_bindings_key DO NOTHING"#;
    if spi::read(SOMEBODY, &[], |_| ()).is_empty() {
        return Ok(());
    }
    let users: Vec<(Uuid, String)> = spi::write(HOLD, &[], |row| (row.must(1), row.must(2)));
    for (user, username) in &users {
        require_in_snapshot(
            "SELECT FROM keywright.users WHERE user_id = $1",
            (*user).into(),
            "user",
            username,
        )?;
    }
    let users: Vec<Uuid> = users.into_iter().map(|(user, _)| user).collect();
    spi::count_once(BIND, &[ids.to_vec().into(), users.into()]);
    Ok(())
}

/// Takes every role from a user that is deleted.
pub fn lose_all(user: Uuid) {
    const LOSE: &str = "DELETE FROM keywright.role_bindings WHERE user_id = $1";
    if role::hold_bindings(&[user], &[], &[]) {
        spi::count(LOSE, &[user.into()]);
    }
}

/// Refuses roles that do not exist, and holds the others when something is going to be written.
pub fn require_roles(wanted: &Wanted, hold: bool) -> Result<(), Failure<'static>> {
    const EXISTING: &str = "SELECT name FROM keywright.roles WHERE name = ANY ($1)";
    const HOLD: &str = "SELECT name FROM keywright.roles WHERE name = ANY ($1) ORDER BY name FOR KEY SHARE";
    const SEEN: &str = "SELECT FROM keywright.roles WHERE name = $1";
    let mut names = wanted.roles.clone().unwrap_or_default();
    names.extend(wanted.organization_role.clone().filter(|role| !role.is_empty()));
    let args = [names.clone().into()];
    let existing: Vec<String> = match hold {
        true => spi::write(HOLD, &args, |row| row.must(1)),
        false => spi::read(EXISTING, &args, |row| row.must(1)),
    };
    for name in names {
        if !existing.contains(&name) {
            return Err(role::no_such_role(&name));
        }
        if hold {
            require_in_snapshot(SEEN, name.as_str().into(), "role", &name)?;
        }
    }
    Ok(())
}

/// Inside REPEATABLE READ a foreign key is checked under the old snapshot, where something newer is missing: that
/// is a serialization failure, not a broken reference.
fn require_in_snapshot(
    seen: &'static str,
    key: spi::Arg,
    what: &str,
    name: &str,
) -> Result<(), Failure<'static>> {
    match spi::read_in_transaction_snapshot(seen, &[key]) {
        true => Ok(()),
        false => Err(Failure::NewerThanTransaction { what: format!("{what} \"{name}\"") }),
    }
}

/// Keeps organizations from being made until the transaction ends.
pub fn close_organizations() {
    const CLOSE: &str = "SELECT FROM keywright.resource_types WHERE type = 'organization' FOR NO KEY UPDATE";
    spi::write(CLOSE, &[], |_| ());
}

/// A binding that is missing, or one too many.
#[derive(Debug)]
pub struct Step {
    pub role: String,
    pub organization: Option<String>,
    pub bind: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.bind { "bind" } else { "unbind" };
        match &self.organization {
            Some(id) => write!(f, "{verb} {} on organization:{id}", self.role),
            None => write!(f, "{verb} {}", self.role),
        }
    }
}

/// True when the bindings of a system user are as wanted.
pub fn is_settled(user: Uuid, wanted: &Wanted) -> bool {
    steps(user, wanted).is_empty()
}

/// Brings the bindings of a system user in line; what changed, as the result column has it. The user is held, and
/// no organization is being made meanwhile.
///
/// Only what this function bound is ever taken away: `standing`. The last owner stays; with `owners_stay` that is known already.
pub fn settle(user: Uuid, wanted: &Wanted, owners_stay: bool) -> Result<Vec<JsonB>, Failure<'static>> {
    const SEEN: &str = "SELECT FROM keywright.resources WHERE type = 'organization' AND id = $1";
    let steps = steps(user, wanted);
    if !owners_stay {
        for step in steps.iter().filter(|step| !step.bind) {
            if let Some(organization) = step.resource() {
                role::require_other_owner(&holder(user)?, &step.role, &organization)?;
            }
        }
    }
    for id in steps.iter().filter_map(|step| step.organization.as_deref()) {
        require_in_snapshot(SEEN, id.into(), "organization", id)?;
    }
    Ok(steps.iter().filter_map(|step| step.take(user)).collect())
}

fn holder(user: Uuid) -> Result<User, Failure<'static>> {
    const HOLDER: &str =
        "SELECT user_id, username, status = 'active' FROM keywright.users WHERE user_id = $1";
    spi::read(HOLDER, &[user.into()], User::from_row).pop().ok_or(Failure::Contended)
}

/// Refuses what another manager owns.
pub fn require_manager(user: Uuid, managed_by: Option<&[u8]>) -> Result<(), Failure<'static>> {
    const MANAGER: &str = "SELECT username, managed_by FROM keywright.users WHERE user_id = $1";
    let named = |row: &spi::Row| (row.must::<String>(1), row.get::<String>(2));
    match spi::read(MANAGER, &[user.into()], named).pop() {
        Some((username, Some(manager))) if Some(manager.as_bytes()) != managed_by => {
            Err(Failure::OtherManager { what: format!("user \"{username}\""), manager })
        }
        _ => Ok(()),
    }
}

/// What is missing and what is too many.
pub fn steps(user: Uuid, wanted: &Wanted) -> Vec<Step> {
    const STEPS: &str = r#"
        WITH wanted AS (
          SELECT DISTINCT n.name AS role, NULL::text AS id
            FROM unnest($2::text[]) AS n (name)
           UNION ALL
          SELECT u.organization_role, r.id
            FROM (SELECT nullif(coalesce($3, u.organization_role), '') AS organization_role
                    FROM keywright.users AS u WHERE u.user_id = $1) AS u, keywright.resources AS r
           WHERE u.organization_role IS NOT NULL AND r.type = 'organization'),
        held AS (
          SELECT b.role, b.resource_id AS id, b.standing
            FROM keywright.role_bindings AS b
           WHERE b.user_id = $1 AND (b.scope = 'global' OR b.resource_type = 'organization'))
        SELECT w.role, w.id, true
          FROM wanted AS w
         WHERE NOT EXISTS (SELECT FROM held AS h WHERE h.role = w.role AND h.id IS NOT DISTINCT FROM w.id)
         UNION ALL
        SELECT h.role, h.id, false
          FROM held AS h
         WHERE h.standing AND (h.id IS NOT NULL OR $2 IS NOT NULL)
           AND NOT EXISTS (SELECT FROM wanted AS w WHERE w.role = h.role AND w.id IS NOT DISTINCT FROM h.id)
         ORDER BY 2 NULLS FIRST, 1, 3"#;
    let args = [user.into(), wanted.roles.clone().into(), wanted.organization_role.clone().into()];
    spi::read(STEPS, &args, |row| Step { role: row.must(1), organization: row.get(2), bind: row.must(3) })
}

impl Step {
    pub fn resource(&self) -> Option<Resource> {
        self.organization.clone().map(|id| Resource { kind: ORGANIZATION.into(), id })
    }

    /// Nothing when somebody else was there first.
    fn take(&self, user: Uuid) -> Option<JsonB> {
        const BIND: &str = r#"
            INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type, resource_id, standing)
            SELECT $1, $2, CASE WHEN $3 IS NULL THEN 'global' ELSE 'resource' END,
                   CASE WHEN $3 IS NOT NULL THEN 'organization' END, $3, true
            ON CONFLICT ON CONSTRAINT role_bindings_key DO NOTHING
            RETURNING pg_catalog.jsonb_build_object('action', 'bound', 'role', role,
                        'resource_type', resource_type, 'resource_id', resource_id)"#;
        const UNBIND: &str = r#"
            DELETE FROM keywright.role_bindings
             WHERE user_id = $1 AND role = $2 AND standing AND resource_id IS NOT DISTINCT FROM $3
               AND resource_type IS NOT DISTINCT FROM CASE WHEN $3 IS NOT NULL THEN 'organization' END
            RETURNING pg_catalog.jsonb_build_object('action', 'unbound', 'role', role,
                        'resource_type', resource_type, 'resource_id', resource_id)"#;
        let args = [
            user.into(),
            self.role.as_str().into(),
            spi::text(self.organization.as_deref().map(str::as_bytes)),
        ];
        spi::write(if self.bind { BIND } else { UNBIND }, &args, |row| row.must(1)).pop()
    }
}
