//! has_permission: what the roles of a user cover.

use super::{Roles, Types, path, source};
use crate::args::Faults;
use crate::error::Failure;
use crate::user::User;
use crate::{args, user};
use keywright_core::resource::Resource;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn has_permission(
    username: Option<&[u8]>,
    permission: Option<&[u8]>,
    resource_type: Option<&[u8]>,
    resource_id: Option<&[u8]>,
) -> Result<bool, ErrorReport> {
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let types = Types::read()?;
    let permission = faults.sift(types.question(permission));
    let kind = faults.sift(resource_type.map_or(Ok(()), |kind| types.require("resource_type", kind)));
    drop(types);
    let (Some(username), Some(permission), Some(())) = (username, permission, kind) else {
        return Err(Failure::from(faults).into());
    };
    let Some(user) = user::look(username).filter(User::is_active) else { return Ok(false) };
    let resource = match (resource_type, resource_id) {
        (None, None) => None,
        (Some(kind), Some(id)) => match (str::from_utf8(kind), str::from_utf8(id)) {
            (Ok(kind), Ok(id)) => Some(Resource { kind: kind.into(), id: id.into() }),
            _ => return Ok(false),
        },
        _ => return Ok(false),
    };
    let source = source()?;
    Ok(Roles::of(user.id, &source).cover(&permission, &path(resource, &source)))
}
