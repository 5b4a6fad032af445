//! define_role and delete_role.

use crate::args::Outcome;
use crate::definition::{definition, lock, settle};
use crate::error::{Failure, Fault};
use crate::manager::Claim;
use crate::{args, scope, spi};
use keywright_core::name::Rule;
use keywright_core::text::Kind;
use pgrx::datum::Array;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn define_role(
    name: Option<&[u8]>,
    permissions: Option<Array<&[u8]>>,
    level: Option<i32>,
    managed_by: Option<&[u8]>,
) -> Result<Outcome, ErrorReport> {
    let mut faults = args::Faults::default();
    let name = faults.sift(args::ruled(Rule::RoleName, name));
    let permissions =
        faults.sift(args::elements("permissions", &permissions).and_then(|list| scope::permissions(&list)));
    let level = faults.sift(args::required("level", level).and_then(|level| match level {
        0..=9 => Ok(level),
        _ => {
            Err(Fault::new("level", "It must be from 0 to 9.", "0 is the highest level, 3 that of a viewer."))
        }
    }));
    let managed_by = faults.sift(args::words("managed_by", Kind::Manager, managed_by));
    let (Some(name), Some(permissions), Some(level), Some(managed_by)) =
        (name, permissions, level, managed_by)
    else {
        faults.report_but_name()?;
        return Ok(None);
    };
    Ok(Some(define(name, &permissions, level, managed_by, false)?))
}

pub fn define(
    name: &str,
    permissions: &[String],
    level: i32,
    managed_by: Option<&[u8]>,
    adopt: bool,
) -> Result<&'static str, Failure<'static>> {
    const LOOK: &str = r#"
        SELECT permissions = $2 AND level = $3, built_in, managed_by FROM keywright.roles WHERE name = $1"#;
    const INSERT: &str =
        "INSERT INTO keywright.roles (name, permissions, level, managed_by) VALUES ($1, $2, $3, $4)";
    const UPDATE: &str = r#"
        UPDATE keywright.roles
           SET permissions = $2, level = $3, managed_by = coalesce($4, managed_by),
               updated_at = pg_catalog.clock_timestamp()
         WHERE name = $1"#;
    let args = || -> [spi::Arg; 4] {
        [name.into(), permissions.to_vec().into(), level.into(), spi::text(managed_by)]
    };
    let write = |sql| {
        scope::hold_types("permissions", permissions)?;
        spi::count(sql, &args());
        Ok(())
    };
    let look = || spi::read(LOOK, &args()[..3], definition).pop();
    settle(&format!("role \"{name}\""), "roles", managed_by, adopt, look, || write(INSERT), || write(UPDATE))
}

#[pg_extern(sql = false)]
fn delete_role(name: Option<&[u8]>, managed_by: Option<&[u8]>) -> Result<bool, ErrorReport> {
    let mut faults = args::Faults::default();
    let name = faults.sift(args::required("name", name));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(name), Some(claim)) = (name, claim) else { return Err(Failure::from(faults).into()) };
    let Ok(name) = str::from_utf8(name) else { return Ok(false) };
    Ok(delete(name, claim)?)
}

pub fn delete(name: &str, claim: Claim) -> Result<bool, Failure<'static>> {
    const BUILT_IN: &str = "SELECT built_in FROM keywright.roles WHERE name = $1";
    const HOLD: &str = "SELECT managed_by FROM keywright.roles WHERE name = $1 FOR UPDATE";
    const HELD: &str = r#"
        SELECT FROM keywright.role_bindings WHERE role = $1
         UNION ALL
        SELECT FROM keywright.users WHERE organization_role = $1 AND deleted_at IS NULL
         LIMIT 1"#;
    const DELETE: &str = "DELETE FROM keywright.roles WHERE name = $1";
    match spi::read(BUILT_IN, &[name.into()], |row| row.must(1)).pop() {
        None => return Ok(false),
        Some(true) => return Err(Failure::BuiltIn { what: format!("role \"{name}\"") }),
        Some(false) => (),
    }
    // The table first, as whoever defines does; whoever binds it holds the row.
    lock("roles");
    if !claim.hold(|| format!("role \"{name}\""), HOLD, &[name.into()])? {
        return Ok(false);
    }
    if !spi::read(HELD, &[name.into()], |_| ()).is_empty() {
        let (by, hint) = (
            "Users hold it.",
            "Take it away from them with keywright.unbind_role: see keywright.list_role_bindings.",
        );
        return Err(Failure::InUse { what: format!("role \"{name}\""), by, hint });
    }
    Ok(spi::count(DELETE, &[name.into()]) > 0)
}
