//! What a system user holds by ensure_system_user: roles globally, and one role in every organization.
//!
//! A new organization is bound in the transaction that makes it. For that, whoever makes one holds the type
//! `organization` (as of every resource that is written), and whoever changes what is wanted for all of them closes it: neither misses the other.

use crate::error::Failure;
use crate::spi;
use keywright_core::registry::nearest;
use pgrx::JsonB;
use pgrx::datum::Uuid;

/// What a system user is to hold; a list or a role that is missing stays as it is.
#[derive(Debug)]
pub struct Wanted {
    pub roles: Option<Vec<String>>,
    pub organization_role: Option<String>,
}

/// Binds every system user that has an organization_role to these organizations.
pub fn bind_to_organizations(ids: &[String]) {
    const BIND: &str = r#"
        INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type, resource_id, standing)
        SELECT u.user_id, u.organization_role, 'resource', 'organization', i.id, true
          FROM keywright.users AS u, unnest($1::text[]) AS i (id)
         WHERE u.organization_role IS NOT NULL AND u.deleted_at IS NULL
         ORDER BY i.id, u.user_id
        ON CONFLICT ON CONSTRAINT role_bindings_key DO NOTHING"#;
    const SOMEBODY: &str =
        "SELECT FROM keywright.users WHERE organization_role IS NOT NULL AND deleted_at IS NULL LIMIT 1";
    if !spi::read(SOMEBODY, &[], |_| ()).is_empty() {
        spi::count(BIND, &[ids.to_vec().into()]);
    }
}

/// Takes every role from a user that is deleted.
pub fn lose_all(user: Uuid) {
    const LOSE: &str = "DELETE FROM keywright.role_bindings WHERE user_id = $1";
    const HELD: &str = "SELECT FROM keywright.role_bindings WHERE user_id = $1 LIMIT 1";
    if !spi::read(HELD, &[user.into()], |_| ()).is_empty() {
        spi::count(LOSE, &[user.into()]);
    }
}

/// The roles that do not exist.
pub fn require_roles(wanted: &Wanted) -> Result<(), Failure<'static>> {
    const MISSING: &str = r#"
        SELECT n.name FROM unnest($1::text[]) AS n (name)
         WHERE NOT EXISTS (SELECT FROM keywright.roles AS r WHERE r.name = n.name) ORDER BY n.name"#;
    const NAMES: &str = "SELECT name FROM keywright.roles";
    let mut names = wanted.roles.clone().unwrap_or_default();
    names.extend(wanted.organization_role.clone().filter(|role| !role.is_empty()));
    if names.is_empty() {
        return Ok(());
    }
    match spi::read(MISSING, &[names.into()], |row| row.must::<String>(1)).into_iter().next() {
        None => Ok(()),
        Some(name) => {
            let known: Vec<String> = spi::read(NAMES, &[], |row| row.must(1));
            Err(Failure::NoSuchRole { nearest: nearest(&name, &known).map(str::to_owned), name })
        }
    }
}

/// A binding that is missing, or one too many.
struct Step {
    role: String,
    organization: Option<String>,
    bind: bool,
}

/// Brings the bindings of a system user in line; what changed, as the result column has it.
///
/// Only what this function bound is ever taken away: `standing`.
pub fn settle(
    user: Uuid,
    wanted: &Wanted,
    managed_by: Option<&[u8]>,
    user_changed: bool,
) -> Result<Vec<JsonB>, Failure<'static>> {
    const MANAGER: &str = "SELECT username, managed_by FROM keywright.users WHERE user_id = $1";
    const CLOSE: &str = "SELECT FROM keywright.resource_types WHERE type = 'organization' FOR UPDATE";
    // An organization that is being made does not see a user that has just been written, nor the other way.
    if !user_changed && steps(user, wanted).is_empty() {
        return Ok(Vec::new());
    }
    let named = |row: &spi::Row| (row.must::<String>(1), row.get::<String>(2));
    if let Some((username, Some(manager))) = spi::read(MANAGER, &[user.into()], named).pop()
        && Some(manager.as_bytes()) != managed_by
    {
        return Err(Failure::OtherManager { what: format!("user \"{username}\""), manager });
    }
    spi::write(CLOSE, &[], |_| ());
    let steps = steps(user, wanted);
    for step in &steps {
        if let Some(id) = &step.organization {
            require_in_snapshot(id)?;
        }
    }
    Ok(steps.iter().flat_map(|step| step.take(user)).collect())
}

fn steps(user: Uuid, wanted: &Wanted) -> Vec<Step> {
    const STEPS: &str = r#"
        WITH wanted AS (
          SELECT DISTINCT n.name AS role, NULL::text AS id
            FROM unnest($2::text[]) AS n (name)
           UNION ALL
          SELECT u.organization_role, r.id
            FROM keywright.users AS u, keywright.resources AS r
           WHERE u.user_id = $1 AND u.organization_role IS NOT NULL AND r.type = 'organization'),
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
    spi::read(STEPS, &[user.into(), wanted.roles.clone().into()], |row| Step {
        role: row.must(1),
        organization: row.get(2),
        bind: row.must(3),
    })
}

fn require_in_snapshot(id: &str) -> Result<(), Failure<'static>> {
    const SEEN: &str = "SELECT FROM keywright.resources WHERE type = 'organization' AND id = $1";
    match spi::read_in_transaction_snapshot(SEEN, &[id.into()]) {
        true => Ok(()),
        false => Err(Failure::NewerThanTransaction { what: format!("organization \"{id}\"") }),
    }
}

impl Step {
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
