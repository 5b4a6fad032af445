//! Resources: things of the application that permissions speak of, each with an optional parent.
//!
//! Lock order: the type, then resources.

pub mod declared;
mod depth;
mod ensure;
pub mod kind;
pub mod store;
mod track;

use crate::error::Failure;
use crate::probe::{Keyed, Reader};
use crate::spi;
use keywright_core::resource::Resource;
use pgrx::{IntoDatum, pg_sys};

/// How a permission check finds a resource.
pub static BY_ID: Keyed = Keyed::new(c"resources", c"resources_pkey", BY_TWO, COLUMNS);

/// How what lies below one is found.
pub static BY_PARENT: Keyed = Keyed::new(c"resources", c"resources_parent_idx", BY_TWO, COLUMNS);

const BY_TWO: &[u32] = &[pg_sys::F_TEXTEQ; 2];
const COLUMNS: &[pg_sys::Oid] = &[pg_sys::TEXTOID; 4];

/// Columns of `keywright.resources`, as its CREATE TABLE has them.
mod column {
    pub const TYPE: i32 = 1;
    pub const ID: i32 = 2;
    pub const PARENT_TYPE: i32 = 3;
    pub const PARENT_ID: i32 = 4;
}

pub use keywright_core::resource::{MOST_ANCESTORS, ORGANIZATION};

/// What a resource names as its parent; nothing when it is not registered. A parent may not be.
pub fn look<const N: usize>(
    reader: &Reader<N>,
    table: usize,
    kind: &str,
    id: &str,
) -> Option<Option<Resource>> {
    let datum = |text: &str| text.into_datum().unwrap_or(pg_sys::Datum::null());
    reader.find_pair(table, [datum(kind), datum(id)], |row| {
        let row = row?;
        let parent = row.text(column::PARENT_TYPE).zip(row.text(column::PARENT_ID));
        Some(parent.map(|(kind, id)| Resource { kind: kind.to_owned(), id: id.to_owned() }))
    })
}

/// The parent of a resource, if there are both.
pub fn parent<const N: usize>(reader: &Reader<N>, table: usize, kind: &str, id: &str) -> Option<Resource> {
    look(reader, table, kind, id).flatten()
}

/// True when any resource of this type is a parent.
pub fn has_children<const N: usize>(reader: &Reader<N>, table: usize, kind: &str) -> bool {
    reader.find(table, kind.into_datum().unwrap_or(pg_sys::Datum::null()), |row| row.is_some())
}

/// Each resource right below one.
pub fn each_child<const N: usize>(
    reader: &Reader<N>,
    table: usize,
    parent: &Resource,
    mut each: impl FnMut(Resource),
) {
    let datum = |text: &str| text.into_datum().unwrap_or(pg_sys::Datum::null());
    reader.each(table, [datum(&parent.kind), datum(&parent.id)], |row| {
        if let (Some(kind), Some(id)) = (row.text(column::TYPE), row.text(column::ID)) {
            each(Resource { kind: kind.to_owned(), id: id.to_owned() });
        }
    });
}

pub fn exists(resource: &Resource) -> bool {
    const EXISTS: &str = "SELECT FROM keywright.resources WHERE type = $1 AND id = $2";
    !spi::read(EXISTS, &[resource.kind.as_str().into(), resource.id.as_str().into()], |_| ()).is_empty()
}

/// Holds a resource, so that it is not deleted before the transaction ends.
pub fn hold(resource: &Resource) -> Result<(), Failure<'static>> {
    const HOLD: &str = "SELECT FROM keywright.resources WHERE type = $1 AND id = $2 FOR KEY SHARE";
    const SEEN: &str = "SELECT FROM keywright.resources WHERE type = $1 AND id = $2";
    let args = [resource.kind.as_str().into(), resource.id.as_str().into()];
    if spi::write(HOLD, &args, |_| ()).is_empty() {
        return Err(Failure::NoResource { resource: resource.clone() });
    }
    match spi::read_in_transaction_snapshot(SEEN, &args) {
        true => Ok(()),
        false => {
            Err(Failure::NewerThanTransaction { what: format!("{} \"{}\"", resource.kind, resource.id) })
        }
    }
}
