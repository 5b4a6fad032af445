//! Capabilities: what a role holds is a privilege itself, USAGE on the domain that stands for the capability, beside the privileges
//! it is made of. So the ledger of who holds what is Postgres's own.

mod upgrade;

use crate::error::{Failure, Fault};
use crate::lock::Lock;
use crate::retry::patiently;
use crate::{args, audit, spi};
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Oid};

const CAPABILITIES: [&str; 8] =
    ["authenticator", "requester", "verifier", "issuer", "auditor", "reconciler", "maintainer", "admin"];

/// A role as Postgres has it.
struct Role {
    oid: Oid,
    name: Vec<u8>,
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
    let (grantee, capability) = require_both(grantee, capability)?;
    let role = role_of(grantee)?.ok_or(Failure::NoRole { role: grantee })?;
    if missing(&role, capability).is_empty() {
        return Ok("unchanged");
    }
    queue();
    let missing = missing(&role, capability);
    if missing.is_empty() {
        return Ok("unchanged");
    }
    let outcome = if holds(&role, capability) { "updated" } else { "created" };
    for part in missing {
        grant(&role, &part);
    }
    note(outcome, &role, capability);
    Ok(outcome)
}

fn take_away<'a>(grantee: Option<&'a [u8]>, capability: Option<&[u8]>) -> Result<bool, Failure<'a>> {
    let (grantee, capability) = require_both(grantee, capability)?;
    let Some(role) = role_of(grantee)? else { return Ok(false) };
    if spare(&role, capability).is_empty() {
        return Ok(false);
    }
    queue();
    let spare = spare(&role, capability);
    for (part, grantor) in &spare {
        revoke(&role, part, *grantor);
    }
    if !spare.is_empty() {
        note("deleted", &role, capability);
    }
    Ok(!spare.is_empty())
}

/// One at a time: Postgres answers two GRANTs on one function at once with "tuple concurrently updated".
fn queue() {
    Lock::Access.wait(b"");
}

fn note(event: &str, role: &Role, capability: &str) {
    let id = [&spi::quoted(&role.name), &b" "[..], capability.as_bytes()].concat();
    audit::note(event, "access_grant", &id);
}

/// A privilege on an object, as GRANT names them.
struct Part {
    object: String,
    privilege: String,
}

impl Part {
    fn from_row(row: &spi::Row) -> Part {
        Part { object: row.must(1), privilege: row.must(2) }
    }
}

fn holds(role: &Role, capability: &str) -> bool {
    const HELD: &str = "SELECT FROM keywright._access AS a WHERE a.grantee = $1 AND a.capability = $2";
    !spi::read(HELD, &[role.oid.into(), capability.into()], |_| ()).is_empty()
}

/// What the capability needs and the role does not have in its own name. An owner has it.
fn missing(role: &Role, capability: &str) -> Vec<Part> {
    const MISSING: &str = r#"
        WITH held AS MATERIALIZED (SELECT p.object, p.privilege FROM keywright._privileges AS p WHERE p.grantee = $1)
        SELECT c.object, c.privilege
          FROM keywright._capability_privileges AS c, pg_catalog.pg_extension AS e
         WHERE c.capability = $2 AND e.extname = 'keywright' AND e.extowner <> $1
           AND (c.object, c.privilege) NOT IN (SELECT h.object, h.privilege FROM held AS h)
         ORDER BY c.object"#;
    spi::read(MISSING, &[role.oid.into(), capability.into()], Part::from_row)
}

/// What the role has of the capability, and by whom, unless another capability it holds needs it. It keeps the schema while
/// it has a function.
fn spare(role: &Role, capability: &str) -> Vec<(Part, Oid)> {
    const SPARE: &str = r#"
        WITH held AS MATERIALIZED (
          SELECT p.object, p.privilege, p.grantor FROM keywright._privileges AS p WHERE p.grantee = $1),
        needed AS MATERIALIZED (
          SELECT c.object, c.privilege
            FROM keywright._access AS a JOIN keywright._capability_privileges AS c ON c.capability = a.capability
           WHERE a.grantee = $1 AND a.capability <> $2),
        spare AS MATERIALIZED (
          SELECT h.object, h.privilege, h.grantor
            FROM held AS h JOIN keywright._capability_privileges AS c ON c.object = h.object AND c.privilege = h.privilege
           WHERE c.capability = $2
             AND (h.object, h.privilege) NOT IN (SELECT n.object, n.privilege FROM needed AS n))
        SELECT s.object, s.privilege, s.grantor
          FROM spare AS s
         WHERE s.object <> 'SCHEMA keywright'
            OR NOT EXISTS (SELECT FROM held AS h
                            WHERE h.object <> 'SCHEMA keywright'
                              AND (h.object, h.privilege) NOT IN (SELECT o.object, o.privilege FROM spare AS o))
         ORDER BY s.object, s.grantor"#;
    spi::read(SPARE, &[role.oid.into(), capability.into()], |row| (Part::from_row(row), row.must(3)))
}

fn grant(role: &Role, part: &Part) {
    let grant = format!("GRANT {} ON {} TO ", part.privilege, part.object);
    spi::utility(&[grant.into_bytes(), spi::quoted(&role.name)].concat());
}

/// With what the role passed on. Postgres takes away what the role in force granted: the owner, for a superuser, and else
/// that role itself.
fn revoke(role: &Role, part: &Part, grantor: Oid) {
    let revoke = format!("REVOKE {} ON {} FROM ", part.privilege, part.object);
    let statement = [revoke.as_bytes(), &spi::quoted(&role.name), b" CASCADE"].concat();
    let _acting = Acting::by(grantor);
    spi::utility(&statement);
}

/// While it lives, a role acts.
struct Acting {
    role: Oid,
    context: i32,
}

impl Acting {
    fn by(role: Oid) -> Acting {
        let mut before = Acting { role: pg_sys::InvalidOid, context: 0 };
        // SAFETY: what is in force is put back when this is dropped, also when an error unwinds. The context is that of a
        // SECURITY DEFINER function.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut before.role, &mut before.context);
            let context = before.context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
            pg_sys::SetUserIdAndSecContext(role, context);
        }
        before
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // SAFETY: what was in force before.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) }
    }
}

fn require_both<'a>(
    grantee: Option<&'a [u8]>,
    capability: Option<&[u8]>,
) -> Result<(&'a [u8], &'static str), Failure<'a>> {
    let mut faults = args::Faults::default();
    let grantee = faults.sift(args::required("grantee", grantee));
    let capability = faults.sift(require_capability(capability));
    grantee.zip(capability).ok_or_else(|| faults.into())
}

fn require_capability(capability: Option<&[u8]>) -> Result<&'static str, Fault> {
    let capability = args::required("capability", capability)?;
    CAPABILITIES.into_iter().find(|known| known.as_bytes() == capability).ok_or_else(|| {
        let hint =
            "The capabilities are authenticator, requester, verifier, issuer, auditor, reconciler, maintainer and admin.";
        Fault::new("capability", "There is no such capability.", hint)
    })
}

/// Nothing when there is no such role.
fn role_of(name: &[u8]) -> Result<Option<Role>, Failure<'_>> {
    const ROLE: &str = "SELECT oid, rolname::text FROM pg_catalog.pg_roles WHERE rolname = $1";
    require_free_name(name)?;
    Ok(spi::read(ROLE, &[spi::text(name)], |row| Role { oid: row.must(1), name: row.must(2) }).pop())
}

/// Refuses the names Postgres keeps for itself.
pub fn require_free_name(role: &[u8]) -> Result<(), Failure<'_>> {
    let reserved = role.starts_with(b"pg_") || role == b"public" || role == b"none" || role.is_empty();
    if reserved { Err(Failure::ReservedRole { role }) } else { Ok(()) }
}
