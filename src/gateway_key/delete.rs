//! delete_gateway_key, by name or else by id; and what maintenance removes.

use super::mint::{holder, queue};
use crate::args::Faults;
use crate::error::Failure;
use crate::manager::Claim;
use crate::record::Rows;
use crate::{args, spi};
use pgrx::datum::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

#[derive(Debug)]
pub struct Deleted {
    id: Uuid,
    name: String,
    secret_prefix: String,
    created_at: pg_sys::TimestampTz,
    managed_by: Option<String>,
    held_the_name: bool,
}

#[pg_extern(sql = false)]
fn delete_gateway_key(
    name_or_id: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let mut faults = Faults::default();
    let name = faults.sift(args::required("name_or_id", name_or_id));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(name), Some(claim)) = (name, claim) else { return Err(Failure::from(faults).into()) };
    let rows = Rows::new(fcinfo);
    if let Some((deleted, last_heartbeat_at)) = delete_named(name, claim)? {
        rows.push(&[
            deleted.id.into_datum(),
            deleted.name.into_datum(),
            deleted.secret_prefix.into_datum(),
            deleted.created_at.into_datum(),
            last_heartbeat_at.into_datum(),
            deleted.managed_by.into_datum(),
        ]);
    }
    Ok(rows)
}

type Family = (Deleted, Option<pg_sys::TimestampTz>);

/// Nothing when there is no such key.
fn delete_named(name: &[u8], claim: Claim) -> Result<Option<Family>, Failure<'static>> {
    const HOLD: &str = "SELECT managed_by FROM keywright.gateway_keys WHERE gateway_key_id = $1 FOR UPDATE";
    let Some(family) = name_of(name) else { return Ok(None) };
    queue(family.as_bytes());
    // Under the lock: the key that holds the name may be another one by now, and name wins over id.
    let Some(id) = holder(name).map(|holder| holder.id).or_else(|| args::uuid(name)) else { return Ok(None) };
    let is_there = claim.hold(|| format!("gateway key \"{family}\""), HOLD, &[id.into()])?;
    Ok(if is_there { delete_family(id) } else { None })
}

/// A key, and with the key that holds a name those it superseded. Whoever calls has queued for the name.
pub fn delete_family(id: Uuid) -> Option<Family> {
    let deleted = delete(id)?;
    let last_heartbeat_at = forget_heartbeat(deleted.id);
    if deleted.held_the_name {
        delete_superseded(&deleted.name);
    }
    Some((deleted, last_heartbeat_at))
}

impl Deleted {
    fn from_row(row: &spi::Row) -> Deleted {
        Deleted {
            id: row.must(1),
            name: row.must(2),
            secret_prefix: row.must(3),
            created_at: row.must(4),
            managed_by: row.get(5),
            held_the_name: row.must(6),
        }
    }
}

/// The name of the key that is meant, whose family is to be queued for.
fn name_of(name_or_id: &[u8]) -> Option<String> {
    const NAME: &str = "SELECT name FROM keywright.gateway_keys WHERE gateway_key_id = $1";
    if holder(name_or_id).is_some() {
        return Some(String::from_utf8_lossy(name_or_id).into_owned());
    }
    spi::read(NAME, &[args::uuid(name_or_id)?.into()], |row| row.must(1)).pop()
}

fn delete(id: Uuid) -> Option<Deleted> {
    const DELETE: &str = r#"
        DELETE FROM keywright.gateway_keys WHERE gateway_key_id = $1
        RETURNING gateway_key_id, name, secret_prefix, created_at, managed_by, superseded_at IS NULL"#;
    spi::write(DELETE, &[id.into()], Deleted::from_row).pop()
}

/// Tokens that were rotated away die with the key that took their name.
fn delete_superseded(name: &str) {
    const DELETE: &str = r#"
        DELETE FROM keywright.gateway_keys
         WHERE pg_catalog.lower(name) = pg_catalog.lower($1 COLLATE "C") AND superseded_at IS NOT NULL"#;
    spi::count(DELETE, &[name.into()]);
}

/// Leaves the row, for maintenance to remove, while an open transaction holds it: a client that sits in a
/// transaction must not delay its own end.
fn forget_heartbeat(id: Uuid) -> Option<pg_sys::TimestampTz> {
    const LAST: &str =
        "SELECT last_heartbeat_at FROM keywright.gateway_key_heartbeats WHERE gateway_key_id = $1";
    const FORGET: &str = r#"
        DELETE FROM keywright.gateway_key_heartbeats
         WHERE gateway_key_id = (SELECT h.gateway_key_id FROM keywright.gateway_key_heartbeats AS h
                                  WHERE h.gateway_key_id = $1 FOR UPDATE SKIP LOCKED)"#;
    let last = spi::read(LAST, &[id.into()], |row| row.must(1)).pop();
    spi::count(FORGET, &[id.into()]);
    last
}

#[pg_extern(sql = false)]
fn purge_gateway_keys() -> i64 {
    const KEYS: &str = r#"
        DELETE FROM keywright.gateway_keys
         WHERE gateway_key_id IN (SELECT k.gateway_key_id FROM keywright.gateway_keys AS k
                                   WHERE k.expires_at <= pg_catalog.clock_timestamp() FOR UPDATE SKIP LOCKED)"#;
    const HEARTBEATS: &str = r#"
        DELETE FROM keywright.gateway_key_heartbeats
         WHERE gateway_key_id IN (
           SELECT h.gateway_key_id FROM keywright.gateway_key_heartbeats AS h
            WHERE NOT EXISTS (SELECT FROM keywright.gateway_keys AS k WHERE k.gateway_key_id = h.gateway_key_id)
              FOR UPDATE SKIP LOCKED)"#;
    let purged = spi::count(KEYS, &[]);
    spi::count(HEARTBEATS, &[]);
    purged as i64
}
