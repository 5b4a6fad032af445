//! Scopes, the registered names of several permissions that API keys carry, and the registry they are part of.

use crate::args::Outcome;
use crate::definition::{definition, lock, settle};
use crate::error::{Failure, Fault};
use crate::manager::Claim;
use crate::{args, spi};
use keywright_core::name::Rule;
use keywright_core::permission::{self, Permission};
use keywright_core::registry::{Lazy, Registry};
use keywright_core::scope::ALL;
use keywright_core::text::Kind;
use pgrx::datum::Array;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

/// The registered types and scopes; asked for when something has to be looked up in them.
pub fn registry() -> Lazy<fn() -> Registry> {
    const TYPES: &str = "SELECT type FROM keywright.resource_types";
    const SCOPES: &str = "SELECT name FROM keywright.scopes";
    Lazy::new(|| {
        let names = |sql| -> Vec<String> { spi::read(sql, &[], |row| row.must(1)) };
        Registry::new(names(TYPES), names(SCOPES))
    })
}

/// Permissions a role or a scope is to hold, in their one spelling.
pub fn permissions(list: &[Option<Vec<u8>>]) -> Result<Vec<String>, Fault> {
    const HINT: &str =
        "A permission is type:action with a registered type, such as project:read, project:* or *:*.";
    permission::normalize(list, &registry()).map_err(|faults| Fault::list("permissions", faults, HINT))
}

#[pg_extern(sql = false)]
fn define_scope(
    name: Option<&[u8]>,
    list: Option<Array<&[u8]>>,
    managed_by: Option<&[u8]>,
) -> Result<Outcome, ErrorReport> {
    let mut faults = args::Faults::default();
    let name = faults.sift(args::ruled(Rule::ScopeName, name));
    let permissions = faults.sift(args::elements("permissions", &list).and_then(|list| permissions(&list)));
    let managed_by = faults.sift(args::words("managed_by", Kind::Manager, managed_by));
    let (Some(name), Some(permissions), Some(managed_by)) = (name, permissions, managed_by) else {
        faults.report_but_name()?;
        return Ok(None);
    };
    Ok(Some(define(name, &permissions, managed_by, false)?))
}

pub fn define(
    name: &str,
    permissions: &[String],
    managed_by: Option<&[u8]>,
    adopt: bool,
) -> Result<&'static str, Failure<'static>> {
    const CARRIED: &str = "SELECT FROM keywright.api_keys WHERE $1 = ANY (scopes) LIMIT 1";
    const LOOK: &str = "SELECT permissions = $2, built_in, managed_by FROM keywright.scopes WHERE name = $1";
    const INSERT: &str = "INSERT INTO keywright.scopes (name, permissions, managed_by) VALUES ($1, $2, $3)";
    const UPDATE: &str = r#"
        UPDATE keywright.scopes
           SET permissions = $2, managed_by = coalesce($3, managed_by), updated_at = pg_catalog.clock_timestamp()
         WHERE name = $1"#;
    let args = || -> [spi::Arg; 3] { [name.into(), permissions.to_vec().into(), spi::text(managed_by)] };
    let look = || spi::read(LOOK, &args()[..2], definition).pop();
    let insert = || {
        // A type that is registered at this moment would give the name two meanings.
        lock("resource_types");
        if let Some((kind, _)) = name.split_once(':')
            && registry().has_type(kind)
        {
            let sentence = "It reads as a permission, because its first word is a type of resource.";
            return Err(Fault::new("name", sentence, "Choose a name with another first word.").into());
        }
        if !spi::read(CARRIED, &args()[..1], |_| ()).is_empty() {
            let sentence = "API keys carry it already, as a permission of a type that was deleted.";
            return Err(Fault::new("name", sentence, "Choose another name.").into());
        }
        hold_types("permissions", permissions)?;
        spi::count(INSERT, &args());
        Ok(())
    };
    let update = || {
        hold_types("permissions", permissions)?;
        spi::count(UPDATE, &args());
        Ok(())
    };
    settle(&format!("scope \"{name}\""), "scopes", managed_by, adopt, look, insert, update)
}

#[pg_extern(sql = false)]
fn delete_scope(name: Option<&[u8]>, managed_by: Option<&[u8]>) -> Result<bool, ErrorReport> {
    let mut faults = args::Faults::default();
    let name = faults.sift(args::required("name", name));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(name), Some(claim)) = (name, claim) else { return Err(Failure::from(faults).into()) };
    let Ok(name) = str::from_utf8(name) else { return Ok(false) };
    Ok(delete(name, claim)?)
}

pub fn delete(name: &str, claim: Claim) -> Result<bool, Failure<'static>> {
    const BUILT_IN: &str = "SELECT built_in FROM keywright.scopes WHERE name = $1";
    const HOLD: &str = "SELECT managed_by FROM keywright.scopes WHERE name = $1 FOR UPDATE";
    const CARRIED: &str = "SELECT FROM keywright.api_keys WHERE $1 = ANY (scopes) LIMIT 1";
    const DELETE: &str = "DELETE FROM keywright.scopes WHERE name = $1";
    match spi::read(BUILT_IN, &[name.into()], |row| row.must(1)).pop() {
        None => return Ok(false),
        Some(true) => return Err(Failure::BuiltIn { what: format!("scope \"{name}\"") }),
        Some(false) => (),
    }
    lock("scopes");
    if !claim.hold(|| format!("scope \"{name}\""), HOLD, &[name.into()])? {
        return Ok(false);
    }
    if !spi::read(CARRIED, &[name.into()], |_| ()).is_empty() {
        let (by, hint) = ("API keys carry it.", "Revoke and purge them first: see keywright.list_api_keys.");
        return Err(Failure::InUse { what: format!("scope \"{name}\""), by, hint });
    }
    Ok(spi::count(DELETE, &[name.into()]) > 0)
}

/// Holds the scopes a new key carries and the types they name, so that none is deleted before the key is there.
pub fn hold(scopes: &[String]) -> Result<(), Failure<'static>> {
    const HOLD: &str = "SELECT name FROM keywright.scopes WHERE name = ANY ($1) ORDER BY name FOR KEY SHARE";
    if scopes.iter().all(|name| name == ALL) {
        return Ok(());
    }
    let held: Vec<String> = spi::write(HOLD, &[scopes.to_vec().into()], |row| row.must(1));
    let permissions: Vec<String> = scopes.iter().filter(|name| !held.contains(name)).cloned().collect();
    if let Some(name) = permissions.iter().find(|name| Permission::parse(name).is_none()) {
        let sentence = format!("\"{name}\" has just been deleted.");
        return Err(Fault::new("scopes", sentence, "See keywright.list_scopes().").into());
    }
    hold_types("scopes", &permissions)
}

/// Holds the types that permissions or entries of an allow-list name, so that none is deleted before they are
/// stored.
pub fn hold_types(argument: &'static str, list: &[String]) -> Result<(), Failure<'static>> {
    const HOLD: &str =
        "SELECT type FROM keywright.resource_types WHERE type = ANY ($1) ORDER BY type FOR KEY SHARE";
    let kinds = || {
        list.iter()
            .filter_map(|entry| entry.split_once(':'))
            .map(|(kind, _)| kind)
            .filter(|kind| *kind != "*")
    };
    let wanted: Vec<String> = kinds().map(str::to_owned).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let held: Vec<String> = spi::write(HOLD, &[wanted.into()], |row| row.must(1));
    match kinds().find(|kind| !held.iter().any(|held| held == kind)) {
        None => Ok(()),
        Some(kind) => {
            let sentence = format!("Resource type \"{kind}\" has just been deleted.");
            Err(Fault::new(argument, sentence, "See keywright.list_resource_types().").into())
        }
    }
}
