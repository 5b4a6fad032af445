//! Who calls, and what they could grant by hand.

use crate::spi;
use keywright_core::authenticator::Oid;
use pgrx::pg_sys;

/// The role that called, while the rights of the function's owner are in force.
///
/// Inside SECURITY DEFINER nobody can tell who called: the session's role is not it where somebody's function runs with its
/// owner's rights, as a trigger on a superuser's DELETE may. So functions that ask are SECURITY INVOKER and change over here.
#[derive(Debug)]
pub struct Caller {
    role: pg_sys::Oid,
    context: i32,
}

impl Caller {
    /// From here until it is dropped, the function's owner acts.
    pub fn enter(fcinfo: pg_sys::FunctionCallInfo) -> Caller {
        const OWNER: &str = "SELECT p.proowner FROM pg_catalog.pg_proc AS p WHERE p.oid = $1";
        // SAFETY: Postgres fills flinfo for every call by the function manager.
        let function = unsafe { (*(*fcinfo).flinfo).fn_oid };
        let owner: pg_sys::Oid = spi::read(OWNER, &[function.into()], |row| row.must(1))
            .pop()
            .expect("a function that is running");
        let mut caller = Caller { role: pg_sys::InvalidOid, context: 0 };
        // SAFETY: what is in force is put back when this is dropped; if an error ends the transaction, Postgres
        // does. The context is that of a SECURITY DEFINER function.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut caller.role, &mut caller.context);
            let context = caller.context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
            pg_sys::SetUserIdAndSecContext(owner, context);
        }
        caller
    }

    /// True when the caller could grant these roles without us: a superuser, or who has the ADMIN OPTION on each of them,
    /// by itself or by a role whose privileges it has.
    pub fn could_grant(&self, roles: &[Oid]) -> bool {
        const ADMIN: &str = r#"
            SELECT FROM pg_catalog.pg_auth_members AS m
             WHERE m.roleid = $2 AND m.admin_option AND pg_catalog.pg_has_role($1::oid, m.member, 'USAGE')"#;
        // SAFETY: looks a role up by its number.
        let superuser = unsafe { pg_sys::superuser_arg(self.role) };
        superuser
            || roles.iter().all(|role| {
                !spi::read(ADMIN, &[self.role.into(), pg_sys::Oid::from(*role).into()], |_| ()).is_empty()
            })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: what was in force before.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) }
    }
}
