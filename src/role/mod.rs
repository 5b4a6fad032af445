//! Roles, and who holds which one where.
//!
//! Lock order: the type of a resource, the user, the granter, the role, the resource.

mod bind;
pub mod declared;
mod define;

pub use define::{define, delete};

use crate::error::Failure;
use crate::spi;
use keywright_core::registry;

pub fn no_such_role(name: &str) -> Failure<'static> {
    const NAMES: &str = "SELECT name FROM keywright.roles";
    let names: Vec<String> = spi::read(NAMES, &[], |row| row.must(1));
    Failure::NoSuchRole { name: name.to_owned(), nearest: registry::nearest(name, &names).map(str::to_owned) }
}
