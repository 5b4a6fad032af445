//! Role bindings as a manifest has them, many in one statement.

use crate::spi;
use keywright_core::manifest;
use keywright_core::manifest::state::{Binding, Owner, Place};
use keywright_core::resource::Resource;
use pgrx::datum::Uuid;

fn from_row(row: &spi::Row) -> (Place, Binding) {
    let username: String = row.must(2);
    let (role, kind, id): (String, Option<String>, Option<String>) = (row.must(3), row.get(4), row.get(5));
    let owner = Owner { manager: row.get(7), built_in: false };
    let place = Place::new(&username, &role, kind.as_deref().zip(id.as_deref()));
    (place, Binding { id: row.must(1), username, standing: row.must(6), owner })
}

/// Those of these users, and all of a manager's. What is the manager's comes without its id, unless all of it is asked for.
pub fn find(users: Vec<Uuid>, manager: &str, all: bool) -> Vec<(Place, Binding)> {
    const HELD: &str = r#"
        SELECT CASE WHEN b.managed_by = $2 AND NOT b.standing THEN '' ELSE b.binding_id::text END, u.username, b.role, b.resource_type, b.resource_id, b.standing, b.managed_by
          FROM keywright.role_bindings AS b JOIN keywright.users AS u ON u.user_id = b.user_id
         WHERE b.user_id = ANY ($1)"#;
    const OWNED: &str = r#"
        SELECT b.binding_id::text, u.username, b.role, b.resource_type, b.resource_id, b.standing, b.managed_by
          FROM keywright.role_bindings AS b JOIN keywright.users AS u ON u.user_id = b.user_id
         WHERE b.managed_by = $1"#;
    let mut found = match users.is_empty() {
        true => Vec::new(),
        false => spi::read_once(HELD, &[users.into(), manager.into()], from_row),
    };
    if all {
        found.extend(spi::read_once(OWNED, &[manager.into()], from_row));
    }
    found
}

/// False when one came up meanwhile, or somebody or something it names went. What a system user has just been bound to by
/// its own roles is claimed.
pub fn create(entries: &[&manifest::Binding], manager: &str) -> bool {
    const CREATE: &str = r#"
        INSERT INTO keywright.role_bindings (user_id, role, scope, resource_type, resource_id, managed_by)
        SELECT u.user_id, n.role, CASE WHEN n.resource_type IS NULL THEN 'global' ELSE 'resource' END,
               n.resource_type, n.resource_id, $5
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n (username, role, resource_type, resource_id)
          JOIN keywright.users AS u ON pg_catalog.lower(u.username) = n.username AND u.deleted_at IS NULL
        ON CONFLICT ON CONSTRAINT role_bindings_key DO UPDATE SET standing = false, managed_by = $5
         WHERE role_bindings.standing"#;
    let part = |of: fn(&Resource) -> &String| -> Vec<Option<String>> {
        entries.iter().map(|entry| entry.resource.as_ref().map(|resource| of(resource).clone())).collect()
    };
    let usernames: Vec<String> = entries.iter().map(|entry| entry.username.to_ascii_lowercase()).collect();
    let roles: Vec<String> = entries.iter().map(|entry| entry.role.clone()).collect();
    let (kinds, ids) = (part(|resource| &resource.kind), part(|resource| &resource.id));
    let args = [usernames.into(), roles.into(), kinds.into(), ids.into(), manager.into()];
    spi::count_once(CREATE, &args) == entries.len() as u64
}

/// What ensure_system_user bound, or somebody else, is the manager's from now on.
///
/// False when one went meanwhile, or is another manager's by now and `others` are not to be taken over.
pub fn adopt(ids: &[String], manager: &str, others: bool) -> bool {
    const ADOPT: &str = r#"
        UPDATE keywright.role_bindings SET standing = false, managed_by = $2
         WHERE binding_id = ANY ($1::text[]::uuid[]) AND (coalesce(managed_by, $2) = $2 OR $3)"#;
    spi::count_once(ADOPT, &[ids.to_vec().into(), manager.into(), others.into()]) == ids.len() as u64
}

/// Those of these resources on which roles are held that this manager did not give.
pub fn others_on(resources: &[Resource], manager: &str) -> Vec<Resource> {
    const OTHERS: &str = r#"
        SELECT n.kind, n.id FROM unnest($1::text[], $2::text[]) AS n (kind, id)
         WHERE EXISTS (SELECT FROM keywright.role_bindings AS b
                        WHERE b.resource_type = n.kind AND b.resource_id = n.id AND NOT b.standing
                          AND b.managed_by IS DISTINCT FROM $3)"#;
    let column =
        |of: fn(&Resource) -> &String| -> Vec<String> { resources.iter().map(|at| of(at).clone()).collect() };
    let args = [column(|at| &at.kind).into(), column(|at| &at.id).into(), manager.into()];
    spi::read_once(OTHERS, &args, |row| Resource { kind: row.must(1), id: row.must(2) })
}

/// True when the transaction's snapshot lacks one of these roles: foreign keys look there.
pub fn newer(roles: &[String]) -> bool {
    const SEEN: &str = r#"
        SELECT FROM (SELECT pg_catalog.count(*) AS n FROM keywright.roles AS r WHERE r.name = ANY ($1)) AS c
         WHERE c.n = pg_catalog.cardinality($1)"#;
    !spi::read_in_transaction_snapshot(SEEN, &[roles.to_vec().into()])
}

/// False when one went meanwhile, or is another manager's by now.
pub fn delete(ids: &[String], manager: &str) -> bool {
    const DELETE: &str = r#"
        DELETE FROM keywright.role_bindings WHERE binding_id = ANY ($1::text[]::uuid[]) AND managed_by = $2"#;
    spi::count_once(DELETE, &[ids.to_vec().into(), manager.into()]) == ids.len() as u64
}

/// The users that own these resources, in lower case, with the role by which they do; and whether they are active.
pub fn owners(of: &[(String, Resource)]) -> Vec<((String, Resource), (String, bool))> {
    const OWNERS: &str = r#"
        SELECT b.role, b.resource_type, b.resource_id, pg_catalog.lower(u.username), u.status = 'active'
          FROM unnest($1::text[], $2::text[], $3::text[]) AS n (role, kind, id)
          JOIN keywright.role_bindings AS b ON b.role = n.role AND b.resource_type = n.kind AND b.resource_id = n.id
          JOIN keywright.users AS u ON u.user_id = b.user_id
         WHERE u.deleted_at IS NULL"#;
    let column = |part: fn(&(String, Resource)) -> &String| -> Vec<String> {
        of.iter().map(|at| part(at).clone()).collect()
    };
    let args = [column(|at| &at.0).into(), column(|at| &at.1.kind).into(), column(|at| &at.1.id).into()];
    spi::read_once(OWNERS, &args, |row| {
        ((row.must(1), Resource { kind: row.must(2), id: row.must(3) }), (row.must(4), row.must(5)))
    })
}
