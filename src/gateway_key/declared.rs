//! Gateway keys as a manifest has them.

use super::delete::delete_family;
use super::ensure::{replace, verdict as judge};
use super::mint::{holder, queue};
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
    let token = match held {
        Held::Nothing => None,
        Held::Token(token) => Some(token.expose().as_bytes()),
    };
    match judge(entry.name.as_bytes(), token) {
        Ok(_) => Verdict::Keep,
        Err(reason) => match holder(entry.name.as_bytes()) {
            None => Verdict::Replace(if reason == "superseded" { reason } else { "missing" }),
            Some(other) if !other.own && other.created_at >= started => Verdict::Concurrent,
            Some(_) => Verdict::Replace(reason),
        },
    }
}

/// The new key's id and token; nothing when somebody else was there first.
pub fn mint(name: &str, manager: &str) -> Result<Option<(String, Secret)>, Failure<'static>> {
    queue(name.as_bytes());
    adopt(name, manager);
    let new = replace(name.as_bytes(), Some(manager.as_bytes()), holder(name.as_bytes()))?;
    Ok(new.map(|new| (new.id.to_string(), new.minted.token)))
}

pub fn adopt(name: &str, manager: &str) -> bool {
    const ADOPT: &str = r#"
        UPDATE keywright.gateway_keys SET managed_by = $2
         WHERE pg_catalog.lower(name) = $1 AND superseded_at IS NULL AND managed_by IS DISTINCT FROM $2"#;
    spi::count(ADOPT, &[name.into(), manager.into()]) > 0
}

pub fn delete(name: &str) -> bool {
    queue(name.as_bytes());
    holder(name.as_bytes()).is_some_and(|holder| delete_family(holder.id).is_some())
}
