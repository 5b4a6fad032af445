//! Gateway keys as a manifest has them.

use super::delete::delete_family;
use super::ensure::{replace, verdict as judge};
use super::mint::{Holder, holder, queue};
use crate::error::Failure;
use crate::spi;
use keywright_core::manifest::state::{GatewayKey, Owner, Verdict};
use keywright_core::manifest::{self, Held};
use keywright_core::secret::Secret;
use pgrx::pg_sys;

/// The keys that hold these names, and those of a manager.
pub fn find(names: &[String], manager: Option<&str>) -> Vec<(String, GatewayKey)> {
    const FIND: &str = r#"
        SELECT k.gateway_key_id::text, k.name, k.managed_by
          FROM keywright.gateway_keys AS k
         WHERE (pg_catalog.lower(k.name) = ANY ($1) OR k.managed_by = $2) AND k.superseded_at IS NULL"#;
    spi::read_once(FIND, &[names.to_vec().into(), manager.into()], |row| {
        let owner = Owner { manager: row.get(3), built_in: false };
        (row.must(2), GatewayKey { id: row.must(1), owner })
    })
}

/// What is to be said of the token that the caller has stored.
pub fn verdict(entry: &manifest::GatewayKey, held: &Held, started: pg_sys::TimestampTz) -> Verdict {
    match judge(entry.name.as_bytes(), held.token()) {
        Ok(_) => Verdict::Keep,
        Err(reason) => match holder(entry.name.as_bytes()) {
            None => Verdict::Replace(if reason == "superseded" { reason } else { "missing" }),
            Some(other) if other.came_up_since(started) => Verdict::Concurrent,
            Some(_) => Verdict::Replace(reason),
        },
    }
}

/// The token of a new key, which takes the name from the one that is planned to give it up; nothing when another key holds
/// the name by now.
pub fn mint(
    name: &str,
    predecessor: Option<&str>,
    manager: &str,
) -> Result<Option<Secret>, Failure<'static>> {
    let Some(holder) = queued(name, predecessor) else { return Ok(None) };
    give(name, manager);
    let holder = holder.map(|holder| Holder { manager: Some(manager.to_owned()), ..holder });
    Ok(replace(name.as_bytes(), Some(manager.as_bytes()), holder)?.map(|new| new.minted.token))
}

/// The key that holds a name, which nobody else changes from now on; nothing when it is another one than was planned.
fn queued(name: &str, planned: Option<&str>) -> Option<Option<Holder>> {
    queue(name.as_bytes());
    let holder = holder(name.as_bytes());
    (holder.as_ref().map(|holder| holder.id.to_string()).as_deref() == planned).then_some(holder)
}

/// False when another key holds the name by now.
pub fn adopt(name: &str, id: Option<&str>, manager: &str) -> bool {
    queued(name, id).flatten().is_some() && give(name, manager)
}

fn give(name: &str, manager: &str) -> bool {
    const ADOPT: &str = r#"
        UPDATE keywright.gateway_keys SET managed_by = $2
         WHERE pg_catalog.lower(name) = $1 AND superseded_at IS NULL AND managed_by IS DISTINCT FROM $2"#;
    spi::count(ADOPT, &[name.into(), manager.into()]) > 0
}

/// False when another key holds the name by now, or it is another manager's.
pub fn delete(name: &str, id: Option<&str>, manager: &str) -> bool {
    let ours = queued(name, id).flatten().filter(|holder| holder.manager.as_deref() == Some(manager));
    ours.is_some_and(|holder| delete_family(holder.id).is_some())
}
