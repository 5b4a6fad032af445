//! has_permission: what the roles of a user cover.

use super::{Roles, path, question, source};
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
    let username = args::required("username", username)?;
    let permission = question(permission)?;
    let user = user::find(username)?;
    if !user.is_active() {
        return Ok(false);
    }
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
