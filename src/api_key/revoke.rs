//! Ways a key dies before its time, and expire_api_key, which moves that time.

use super::rotate::require_key_id;
use crate::args::Faults;
use crate::error::Failure;
use crate::manager::Claim;
use crate::{args, spi, user};
use keywright_core::digest;
use keywright_core::text::Kind;
use keywright_core::token::{ApiKey, stored};
use pgrx::datum::Uuid;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn revoke_api_key(
    key_id: Option<&[u8]>,
    reason: Option<&[u8]>,
    username: Option<&[u8]>,
    managed_by: Option<&[u8]>,
) -> Result<bool, ErrorReport> {
    const HOLD: &str = "SELECT managed_by FROM keywright.api_keys WHERE key_id = $1 AND revoked_at IS NULL FOR NO KEY UPDATE";
    let mut faults = Faults::default();
    let key_id = faults.sift(require_key_id(key_id));
    let reason = faults.sift(args::words("reason", Kind::Reason, reason));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(key_id), Some(reason), Some(claim)) = (key_id, reason, claim) else {
        return Err(Failure::from(faults).into());
    };
    if !is_live(key_id) || !is_of(key_id, username) {
        return Ok(false);
    }
    let what = || format!("API key \"{key_id}\"");
    Ok(claim.hold(what, HOLD, &[key_id.into()])? && revoke(key_id, reason))
}

#[pg_extern(sql = false)]
fn revoke_user_api_keys(
    username: Option<&[u8]>,
    reason: Option<&[u8]>,
    managed_by: Option<&[u8]>,
) -> Result<bool, ErrorReport> {
    const HOLD: &str = r#"
        SELECT managed_by, key_id FROM keywright.api_keys
         WHERE user_id = $1 AND revoked_at IS NULL ORDER BY key_id FOR NO KEY UPDATE"#;
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let reason = faults.sift(args::words("reason", Kind::Reason, reason));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(username), Some(reason), Some(claim)) = (username, reason, claim) else {
        return Err(Failure::from(faults).into());
    };
    let Some(user) = user::look(username) else { return Ok(false) };
    if !user.close(Claim::NONE)? {
        return Ok(false);
    }
    if managed_by.is_some() {
        let keys = spi::write_once(HOLD, &[user.id.into()], |row| (row.get(1), row.must::<String>(2)));
        for (manager, key_id) in keys {
            claim.require(|| format!("API key \"{key_id}\""), manager)?;
        }
    }
    Ok(revoke_all_of(user.id, reason))
}

#[pg_extern(sql = false)]
fn delete_user(username: Option<&[u8]>, managed_by: Option<&[u8]>) -> Result<Option<Uuid>, ErrorReport> {
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(username), Some(claim)) = (username, claim) else { return Err(Failure::from(faults).into()) };
    Ok(delete_named(username, claim)?)
}

/// The id of who was deleted; nothing when there was nobody.
pub fn delete_named(username: &[u8], claim: Claim) -> Result<Option<Uuid>, Failure<'static>> {
    let Some(user) = user::look(username) else { return Ok(None) };
    // The user first, then its keys: whoever mints holds the user, so no key can slip in between.
    if !user.close(claim)? || !user::delete(user.id) {
        return Ok(None);
    }
    // Bindings before keys, as everybody.
    user::lose_all(user.id);
    revoke_all_of(user.id, Some(b"owner deleted"));
    Ok(Some(user.id))
}

#[pg_extern(sql = false)]
fn revoke_leaked_api_key(token: Option<&[u8]>) -> bool {
    const HASH: &str = "SELECT hashed_secret FROM keywright.api_keys WHERE key_id = $1";
    let Some(presented) = token.and_then(stored).and_then(ApiKey::parse) else { return false };
    let stored: Option<Vec<u8>> = spi::read(HASH, &[presented.id().into()], |row| row.must(1)).pop();
    stored.is_some_and(|stored| digest::matches(&presented.digest(), &stored))
        && revoke(presented.id(), Some(b"leaked"))
}

#[pg_extern(sql = false)]
fn expire_api_key(key_id: Option<&[u8]>) -> Result<bool, ErrorReport> {
    const LIVE: &str = r#"
        SELECT FROM keywright.api_keys
         WHERE key_id = $1 AND revoked_at IS NULL AND expires_at > pg_catalog.clock_timestamp()"#;
    const EXPIRE: &str = r#"
        UPDATE keywright.api_keys
           SET expires_at = pg_catalog.clock_timestamp()
         WHERE key_id = $1 AND revoked_at IS NULL AND expires_at > pg_catalog.clock_timestamp()"#;
    let key_id = require_key_id(key_id)?;
    Ok(!spi::read(LIVE, &[key_id.into()], |_| ()).is_empty() && spi::count(EXPIRE, &[key_id.into()]) > 0)
}

/// True when the living user of this name owns the key, or no name is given.
fn is_of(key_id: &str, username: Option<&[u8]>) -> bool {
    username.is_none() || user::owner_of(key_id).is_some_and(|owner| owner.is_called(username))
}

fn is_live(key_id: &str) -> bool {
    const LIVE: &str = "SELECT FROM keywright.api_keys WHERE key_id = $1 AND revoked_at IS NULL";
    !spi::read(LIVE, &[key_id.into()], |_| ()).is_empty()
}

/// True when the key was not revoked before. Asks first: a call that changes nothing writes nothing.
fn revoke(key_id: &str, reason: Option<&[u8]>) -> bool {
    const REVOKE: &str = r#"
        UPDATE keywright.api_keys
           SET revoked_at = pg_catalog.clock_timestamp(), revoke_reason = $2
         WHERE key_id = $1 AND revoked_at IS NULL"#;
    is_live(key_id) && spi::count(REVOKE, &[key_id.into(), spi::text(reason)]) > 0
}

/// Revokes every key of a user that is not revoked yet; true when there was one.
fn revoke_all_of(user: Uuid, reason: Option<&[u8]>) -> bool {
    const LIVE: &str = "SELECT FROM keywright.api_keys WHERE user_id = $1 AND revoked_at IS NULL LIMIT 1";
    // In the order in which everybody takes several keys.
    const HOLD: &str = r#"
        SELECT FROM keywright.api_keys
         WHERE user_id = $1 AND revoked_at IS NULL ORDER BY key_id FOR NO KEY UPDATE"#;
    const REVOKE: &str = r#"
        UPDATE keywright.api_keys
           SET revoked_at = pg_catalog.clock_timestamp(), revoke_reason = $2
         WHERE user_id = $1 AND revoked_at IS NULL"#;
    if spi::read(LIVE, &[user.into()], |_| ()).is_empty() {
        return false;
    }
    spi::write(HOLD, &[user.into()], |_| ());
    spi::count(REVOKE, &[user.into(), spi::text(reason)]) > 0
}
