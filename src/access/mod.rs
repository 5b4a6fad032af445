//! Capabilities: a grant is a row, and the privileges it stands for are a ledger of what we gave.
//!
//! Undone is exactly what the ledger holds: a privilege the role had before is never in it.

mod upgrade;

use crate::error::{Failure, Fault};
use crate::retry::patiently;
use crate::{args, audit, spi};
use pgrx::pg_extern;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::spi::quote_identifier;

const CAPABILITIES: [&str; 8] =
    ["authenticator", "requester", "verifier", "issuer", "auditor", "reconciler", "maintainer", "admin"];
const SCHEMA: &str = "SCHEMA keywright";

/// A role as Postgres has it.
struct Role {
    oid: Oid,
    name: String,
}

#[pg_extern(sql = false)]
fn grant_access(grantee: Option<&[u8]>, capability: Option<&[u8]>) -> Result<&'static str, ErrorReport> {
    Ok(patiently(|| give(grantee, capability))?)
}

#[pg_extern(sql = false)]
fn revoke_access(grantee: Option<&[u8]>, capability: Option<&[u8]>) -> Result<bool, ErrorReport> {
    Ok(patiently(|| take_away(grantee, capability))?)
}

fn give<'a>(grantee: Option<&'a [u8]>, capability: Option<&[u8]>) -> Result<&'static str, Failure<'a>> {
    const HELD: &str = "SELECT FROM keywright.access_grants WHERE grantee = $1 AND capability = $2";
    const HOLD: &str =
        "INSERT INTO keywright.access_grants (grantee, capability) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let capability = require_capability(capability)?;
    let role = require_role(args::required("grantee", grantee)?)?;
    let args = [role.oid.into(), capability.into()];
    let is_held = || !spi::read(HELD, &args, |_| ()).is_empty();
    if is_held() && missing(&role, capability).is_empty() {
        return Ok("unchanged");
    }
    queue();
    let held = is_held();
    let missing = missing(&role, capability);
    if held && missing.is_empty() {
        return Ok("unchanged");
    }
    spi::count(HOLD, &args);
    for object in missing {
        grant(&role, &object);
    }
    if held {
        // No row of its own changed that would tell.
        let id = format!("{} {capability}", quote_identifier(&role.name));
        audit::note("updated", "access_grant", id.as_bytes());
    }
    Ok(if held { "updated" } else { "created" })
}

fn take_away<'a>(grantee: Option<&'a [u8]>, capability: Option<&[u8]>) -> Result<bool, Failure<'a>> {
    const HELD: &str = "SELECT FROM keywright.access_grants WHERE grantee = $1 AND capability = $2";
    const LET_GO: &str = "DELETE FROM keywright.access_grants WHERE grantee = $1 AND capability = $2";
    let capability = require_capability(capability)?;
    let role = require_role(args::required("grantee", grantee)?)?;
    let args = [role.oid.into(), capability.into()];
    if spi::read(HELD, &args, |_| ()).is_empty() {
        return Ok(false);
    }
    queue();
    if spi::count(LET_GO, &args) == 0 {
        return Ok(false);
    }
    for object in no_longer_needed(&role) {
        revoke(&role, &object);
    }
    Ok(true)
}

/// One at a time: Postgres answers two GRANTs on one function at once with "tuple concurrently updated".
/// Roles that are gone are forgotten on the way, and so are routines: an upgrade may drop one, and a dump of before may know it.
fn queue() {
    const GRANTS: &str = r#"
        DELETE FROM keywright.access_grants
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = grantee)"#;
    const PRIVILEGES: &str = r#"
        DELETE FROM keywright.access_privileges
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = grantee)"#;
    const ROUTINES: &str = r#"
        DELETE FROM keywright.access_privileges
         WHERE object LIKE 'ROUTINE %'
           AND pg_catalog.to_regprocedure(substr(object, length('ROUTINE ') + 1)) IS NULL"#;
    spi::utility("LOCK TABLE keywright.access_grants IN SHARE ROW EXCLUSIVE MODE");
    for gone in [GRANTS, PRIVILEGES, ROUTINES] {
        spi::count(gone, &[]);
    }
}

/// What the capability needs and the role does not have in its own name.
fn missing(role: &Role, capability: &str) -> Vec<String> {
    const MISSING: &str = r#"
        SELECT n.object
          FROM (SELECT 'SCHEMA keywright' AS object, s.nspacl AS acl, 'USAGE' AS privilege
                  FROM pg_catalog.pg_namespace AS s WHERE s.nspname = 'keywright'
                UNION ALL
                SELECT 'ROUTINE keywright.' || f.signature, p.proacl, 'EXECUTE'
                  FROM keywright._capability_functions AS f
                  JOIN pg_catalog.pg_proc AS p
                    ON p.oid = ('keywright.' || f.signature)::pg_catalog.regprocedure
                 WHERE f.capability = $2) AS n
         WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(n.acl) AS a
                            WHERE a.grantee = $1 AND a.privilege_type = n.privilege)
         ORDER BY n.object"#;
    spi::read(MISSING, &[role.oid.into(), capability.into()], |row| row.must(1))
}

/// What we gave the role and none of the capabilities it still holds needs.
fn no_longer_needed(role: &Role) -> Vec<String> {
    const SPARE: &str = r#"
        SELECT p.object
          FROM keywright.access_privileges AS p
         WHERE p.grantee = $1
           AND NOT EXISTS (
             SELECT FROM keywright.access_grants AS g
               JOIN keywright._capability_functions AS f ON f.capability = g.capability
              WHERE g.grantee = $1
                AND p.object IN ('ROUTINE keywright.' || f.signature, 'SCHEMA keywright'))
         ORDER BY p.object"#;
    spi::read(SPARE, &[role.oid.into()], |row| row.must(1))
}

fn grant(role: &Role, object: &str) {
    const NOTE: &str =
        "INSERT INTO keywright.access_privileges (grantee, object) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    spi::utility(&format!("GRANT {} ON {object} TO {}", privilege(object), quote_identifier(&role.name)));
    spi::count(NOTE, &[role.oid.into(), object.into()]);
}

fn revoke(role: &Role, object: &str) {
    const FORGET: &str = "DELETE FROM keywright.access_privileges WHERE grantee = $1 AND object = $2";
    spi::utility(&format!("REVOKE {} ON {object} FROM {}", privilege(object), quote_identifier(&role.name)));
    spi::count(FORGET, &[role.oid.into(), object.into()]);
}

fn privilege(object: &str) -> &'static str {
    if object == SCHEMA { "USAGE" } else { "EXECUTE" }
}

fn require_capability<'a>(capability: Option<&[u8]>) -> Result<&'static str, Failure<'a>> {
    let capability = args::required("capability", capability)?;
    CAPABILITIES.into_iter().find(|known| known.as_bytes() == capability).ok_or_else(|| {
        let hint =
            "The capabilities are authenticator, requester, verifier, issuer, auditor, reconciler, maintainer and admin.";
        Fault::new("capability", "There is no such capability.", hint).into()
    })
}

fn require_role(name: &[u8]) -> Result<Role, Failure<'_>> {
    const ROLE: &str = "SELECT oid, rolname::text FROM pg_catalog.pg_roles WHERE rolname = $1";
    require_free_name(name)?;
    spi::read(ROLE, &[spi::text(name)], |row| Role { oid: row.must(1), name: row.must(2) })
        .pop()
        .ok_or(Failure::NoRole { role: name })
}

/// Refuses the names Postgres keeps for itself.
pub fn require_free_name(role: &[u8]) -> Result<(), Failure<'_>> {
    let reserved = role.starts_with(b"pg_") || role == b"public" || role == b"none" || role.is_empty();
    if reserved { Err(Failure::ReservedRole { role }) } else { Ok(()) }
}
