//! suspend_user and activate_user, and the mark of a deleted user.

use super::look;
use crate::args::Faults;
use crate::error::Failure;
use crate::manager::Claim;
use crate::{args, spi};
use pgrx::datum::Uuid;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn suspend_user(username: Option<&[u8]>, managed_by: Option<&[u8]>) -> Result<bool, ErrorReport> {
    Ok(set_status(username, managed_by, "suspended")?)
}

#[pg_extern(sql = false)]
fn activate_user(username: Option<&[u8]>, managed_by: Option<&[u8]>) -> Result<bool, ErrorReport> {
    Ok(set_status(username, managed_by, "active")?)
}

fn set_status(
    username: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    status: &str,
) -> Result<bool, Failure<'static>> {
    const DIFFERS: &str =
        "SELECT FROM keywright.users WHERE user_id = $1 AND deleted_at IS NULL AND status <> $2";
    const SET: &str = r#"
        UPDATE keywright.users
           SET status = $2, updated_at = pg_catalog.clock_timestamp()
         WHERE user_id = $1 AND deleted_at IS NULL AND status <> $2"#;
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(username), Some(claim)) = (username, claim) else { return Err(faults.into()) };
    let Some(user) = look(username) else { return Ok(false) };
    let args = [user.id.into(), status.into()];
    if spi::read(DIFFERS, &args, |_| ()).is_empty() || !user.close(claim)? {
        return Ok(false);
    }
    Ok(spi::count(SET, &args) > 0)
}

/// Marks a user as deleted; false when it is so already. What it holds is its holder's to end. Its row stays, and refers to
/// no role, which could never be deleted then.
pub fn delete(user: Uuid) -> bool {
    const DELETE: &str = r#"
        UPDATE keywright.users
           SET deleted_at = pg_catalog.clock_timestamp(), updated_at = pg_catalog.clock_timestamp(), organization_role = NULL
         WHERE user_id = $1 AND deleted_at IS NULL"#;
    spi::count(DELETE, &[user.into()]) > 0
}
