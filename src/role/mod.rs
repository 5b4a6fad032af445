//! Roles, and who holds which one where.
//!
//! Lock order: the type of a resource, the user, the granter, the role, the resource, bindings in the order of their ids.

mod bind;
pub mod declared;
mod define;

pub use bind::require_other_owner;
pub use define::{define, delete};

use crate::error::Failure;
use crate::spi;
use keywright_core::registry;
use keywright_core::resource::Resource;
use pgrx::datum::Uuid;

pub fn no_such_role(name: &str) -> Failure<'static> {
    const NAMES: &str = "SELECT name FROM keywright.roles";
    let names: Vec<String> = spi::read(NAMES, &[], |row| row.must(1));
    Failure::NoSuchRole { name: name.to_owned(), nearest: registry::nearest(name, &names).map(str::to_owned) }
}

/// Holds bindings that are going to be deleted, those of users, on resources, and by their ids, in the one order in which
/// everybody does. False when there is none.
pub fn hold_bindings(users: &[Uuid], resources: &[Resource], ids: &[String]) -> bool {
    const HOLD: &str = r#"
        SELECT FROM keywright.role_bindings AS b
         WHERE b.binding_id IN (
                 SELECT u.binding_id FROM keywright.role_bindings AS u WHERE u.user_id = ANY ($1)
                  UNION ALL
                 SELECT o.binding_id FROM unnest($2::text[], $3::text[]) AS r (kind, id)
                   JOIN keywright.role_bindings AS o ON o.resource_type = r.kind AND o.resource_id = r.id
                  UNION ALL
                 SELECT i.id::uuid FROM unnest($4::text[]) AS i (id))
         ORDER BY b.binding_id FOR UPDATE OF b"#;
    let column =
        |of: fn(&Resource) -> &String| -> Vec<String> { resources.iter().map(|at| of(at).clone()).collect() };
    let args = [
        users.to_vec().into(),
        column(|at| &at.kind).into(),
        column(|at| &at.id).into(),
        ids.to_vec().into(),
    ];
    !spi::write_once(HOLD, &args, |_| ()).is_empty()
}
