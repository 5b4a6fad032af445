//! suspend_user, activate_user and delete_user.

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

#[pg_extern(sql = false)]
fn delete_user(username: Option<&[u8]>) -> Result<Uuid, ErrorReport> {
    const DELETE: &str = r#"
        UPDATE keywright.users
           SET deleted_at = pg_catalog.clock_timestamp(), updated_at = pg_catalog.clock_timestamp()
         WHERE user_id = $1 AND deleted_at IS NULL"#;
    let username = args::required("username", username)?;
    let user = find(username)?;
    // The user first, then its keys: whoever mints holds the user, so no key can slip in between.
    if spi::count(DELETE, &[user.id.into()]) == 0 {
        return Err(Failure::NoUser { username }.into());
    }
    crate::api_key::revoke_all_of(user.id, Some(b"owner deleted"));
    Ok(user.id)
}
