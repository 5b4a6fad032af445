//! What an administrator lets a reconciler grant.

use super::caller::Caller;
use super::{preflight, world};
use crate::args::Faults;
use crate::definition::lock;
use crate::error::{Failure, Fault};
use crate::{args, spi};
use keywright_core::MAX_ENTRIES;
use keywright_core::authenticator::Oid;
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{pg_extern, pg_sys};

#[pg_extern(sql = false)]
fn allow_authenticator(
    connect_as: Option<&[u8]>,
    roles: Option<Array<&[u8]>>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<&'static str, ErrorReport> {
    // Only those that a dump would carry: a row whose role was renamed since is written anew.
    const HELD: &str = r#"
        SELECT a.role_oid FROM keywright.authenticator_allowances AS a
          JOIN pg_catalog.pg_roles AS c ON c.oid = a.connect_as_oid AND c.rolname = a.connect_as
          JOIN pg_catalog.pg_roles AS r ON r.oid = a.role_oid AND r.rolname = a.role
         WHERE a.connect_as_oid = $1 ORDER BY a.role_oid"#;
    const DROP: &str = r#"
        DELETE FROM keywright.authenticator_allowances AS a
         WHERE a.connect_as_oid = $1
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS c, pg_catalog.pg_roles AS r
                            WHERE c.oid = a.connect_as_oid AND c.rolname = a.connect_as
                              AND r.oid = a.role_oid AND r.rolname = a.role AND r.oid = ANY ($2))"#;
    const ALLOW: &str = r#"
        INSERT INTO keywright.authenticator_allowances (connect_as, role)
        SELECT c.rolname, r.rolname FROM pg_catalog.pg_roles AS c, pg_catalog.pg_roles AS r
         WHERE c.oid = $1 AND r.oid = ANY ($2) ON CONFLICT DO NOTHING"#;
    let caller = Caller::enter(fcinfo);
    let mut faults = Faults::default();
    let connect_as = faults.sift(args::text("connect_as", connect_as));
    let names = faults.sift(preflight::list("roles", &roles).and_then(|names| {
        if (1..=MAX_ENTRIES).contains(&names.len()) {
            return Ok(names);
        }
        let sentence = format!("It must name 1 to {MAX_ENTRIES} roles.");
        Err(Fault::new("roles", sentence, "keywright.disallow_authenticator ends it."))
    }));
    let (Some(connect_as), Some(names)) = (connect_as, names) else {
        return Err(Failure::from(faults).into());
    };
    let oid = require_role(connect_as)?;
    let mut wanted = names.iter().map(|name| require_role(name)).collect::<Result<Vec<Oid>, _>>()?;
    wanted.sort_unstable();
    wanted.dedup();
    let asked: Vec<Oid> = wanted.iter().copied().chain([oid]).collect();
    if !caller.could_grant(&asked) {
        return Err(Failure::CouldNotGrant { role: connect_as.to_owned() }.into());
    }
    let args: [spi::Arg; 2] = [pg_sys::Oid::from(oid).into(), world::numbers(wanted.iter().copied()).into()];
    let held = || -> Vec<Oid> { spi::read(HELD, &args[..1], |row| row.must::<pg_sys::Oid>(1).to_u32()) };
    if held() == wanted {
        return Ok("unchanged");
    }
    lock("authenticator_allowances");
    forget_the_gone();
    let before = held();
    if before == wanted {
        return Ok("unchanged");
    }
    spi::count(DROP, &args);
    spi::count(ALLOW, &args);
    Ok(if before.is_empty() { "created" } else { "updated" })
}

#[pg_extern(sql = false)]
fn disallow_authenticator(connect_as: Option<&[u8]>) -> Result<bool, ErrorReport> {
    const HELD: &str = "SELECT FROM keywright.authenticator_allowances WHERE connect_as_oid = $1 LIMIT 1";
    const DISALLOW: &str = "DELETE FROM keywright.authenticator_allowances WHERE connect_as_oid = $1";
    let connect_as = args::text("connect_as", connect_as)?;
    crate::access::require_free_name(connect_as.as_bytes())?;
    let Some(oid) = role_of(connect_as) else { return Ok(false) };
    let args: [spi::Arg; 1] = [pg_sys::Oid::from(oid).into()];
    if spi::read(HELD, &args, |_| ()).is_empty() {
        return Ok(false);
    }
    lock("authenticator_allowances");
    forget_the_gone();
    Ok(spi::count(DISALLOW, &args) > 0)
}

/// A number that was a role's may one day be another's.
fn forget_the_gone() {
    const GONE: &str = r#"
        DELETE FROM keywright.authenticator_allowances AS a
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = a.connect_as_oid)
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = a.role_oid)"#;
    spi::count(GONE, &[]);
}

pub fn allows_any(connect_as: Oid) -> bool {
    const ANY: &str = "SELECT FROM keywright.authenticator_allowances WHERE connect_as_oid = $1 LIMIT 1";
    !spi::read(ANY, &[pg_sys::Oid::from(connect_as).into()], |_| ()).is_empty()
}

pub fn is_allowed(connect_as: Oid, role: Oid) -> bool {
    const ALLOWED: &str =
        "SELECT FROM keywright.authenticator_allowances WHERE connect_as_oid = $1 AND role_oid = $2";
    let args = [pg_sys::Oid::from(connect_as).into(), pg_sys::Oid::from(role).into()];
    !spi::read(ALLOWED, &args, |_| ()).is_empty()
}

fn role_of(name: &str) -> Option<Oid> {
    const ROLE: &str = "SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = $1";
    spi::read(ROLE, &[name.into()], |row| row.must::<pg_sys::Oid>(1).to_u32()).pop()
}

fn require_role(name: &str) -> Result<Oid, Failure<'_>> {
    crate::access::require_free_name(name.as_bytes())?;
    role_of(name).ok_or(Failure::NoRole { role: name.as_bytes() })
}
