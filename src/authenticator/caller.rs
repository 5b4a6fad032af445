//! Who calls, and what they could grant by hand.

use crate::spi;
use keywright_core::authenticator::Oid;
use pgrx::pg_sys;

/// True when the caller could grant these roles without us: a superuser, or who has the ADMIN OPTION on each.
///
/// The caller is the role in force outside this function. Where Postgres runs somebody's code on a superuser's behalf (an
/// index expression during VACUUM, say) it says so, and then the session's rights are not the caller's.
pub fn could_grant(roles: &[Oid]) -> bool {
    const ADMIN: &str = "SELECT pg_catalog.pg_has_role($1::oid, $2::oid, 'MEMBER WITH ADMIN OPTION')";
    // SAFETY: these look at the session's own state.
    let (caller, restricted) = unsafe { (pg_sys::GetOuterUserId(), pg_sys::InSecurityRestrictedOperation()) };
    // SAFETY: looks a role up by its number.
    if restricted || unsafe { pg_sys::superuser_arg(caller) } {
        return !restricted;
    }
    roles.iter().all(|role| {
        spi::read(ADMIN, &[caller.into(), pg_sys::Oid::from(*role).into()], |row| row.must(1)).pop()
            == Some(true)
    })
}
