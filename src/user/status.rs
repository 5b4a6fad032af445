//! suspend_user and activate_user, and the mark of a deleted user.

use super::find;
use crate::error::Failure;
use crate::{args, spi};
use pgrx::datum::Uuid;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn suspend_user(username: Option<&[u8]>) -> Result<bool, ErrorReport> {
    Ok(set_status(username, "suspended")?)
}

#[pg_extern(sql = false)]
fn activate_user(username: Option<&[u8]>) -> Result<bool, ErrorReport> {
    Ok(set_status(username, "active")?)
}

fn set_status<'a>(username: Option<&'a [u8]>, status: &str) -> Result<bool, Failure<'a>> {
    const DIFFERS: &str =
        "SELECT FROM keywright.users WHERE user_id = $1 AND deleted_at IS NULL AND status <> $2";
    const SET: &str = r#"
        UPDATE keywright.users
           SET status = $2, updated_at = pg_catalog.clock_timestamp()
         WHERE user_id = $1 AND deleted_at IS NULL AND status <> $2"#;
    let user = find(args::required("username", username)?)?;
    if spi::read(DIFFERS, &[user.id.into(), status.into()], |_| ()).is_empty() {
        return Ok(false);
    }
    Ok(spi::count(SET, &[user.id.into(), status.into()]) > 0)
}

/// Marks a user as deleted; false when it is so already. What it holds is its holder's to end.
pub fn delete(user: Uuid) -> bool {
    const DELETE: &str = r#"
        UPDATE keywright.users
           SET deleted_at = pg_catalog.clock_timestamp(), updated_at = pg_catalog.clock_timestamp()
         WHERE user_id = $1 AND deleted_at IS NULL"#;
    spi::count(DELETE, &[user.into()]) > 0
}
