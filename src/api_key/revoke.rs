//! Ways a key dies before its time, and expire_api_key, which moves that time.

use super::rotate::require_key_id;
use crate::error::Failure;
use crate::{args, spi, user};
use keywright_core::digest;
use keywright_core::text::Kind;
use keywright_core::token::ApiKey;
use pgrx::datum::Uuid;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn revoke_api_key(key_id: Option<&[u8]>, reason: Option<&[u8]>) -> Result<bool, ErrorReport> {
    let key_id = require_key_id(key_id)?;
    let reason = args::words("reason", Kind::Reason, reason)?;
    require_exists(key_id)?;
    Ok(revoke(key_id, reason))
}

#[pg_extern(sql = false)]
fn revoke_user_api_keys(username: Option<&[u8]>, reason: Option<&[u8]>) -> Result<bool, ErrorReport> {
    let reason = args::words("reason", Kind::Reason, reason)?;
    let user = user::find(args::required("username", username)?)?;
    user.close();
    Ok(revoke_all_of(user.id, reason))
}

#[pg_extern(sql = false)]
fn delete_user(username: Option<&[u8]>) -> Result<Uuid, ErrorReport> {
    Ok(delete_named(args::required("username", username)?)?)
}

pub fn delete_named(username: &[u8]) -> Result<Uuid, Failure<'_>> {
    let user = user::find(username)?;
    // The user first, then its keys: whoever mints holds the user, so no key can slip in between.
    if !user::delete(user.id) {
        return Err(Failure::NoUser { username });
    }
    revoke_all_of(user.id, Some(b"owner deleted"));
    user::lose_all(user.id);
    Ok(user.id)
}

#[pg_extern(sql = false)]
fn revoke_leaked_api_key(token: Option<&[u8]>) -> bool {
    const HASH: &str = "SELECT hashed_secret FROM keywright.api_keys WHERE key_id = $1";
    let Some(presented) = token.and_then(ApiKey::parse) else { return false };
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
    require_exists(key_id)?;
    Ok(!spi::read(LIVE, &[key_id.into()], |_| ()).is_empty() && spi::count(EXPIRE, &[key_id.into()]) > 0)
}

fn require_exists(key_id: &str) -> Result<(), Failure<'_>> {
    const EXISTS: &str = "SELECT FROM keywright.api_keys WHERE key_id = $1";
    match spi::read(EXISTS, &[key_id.into()], |_| ()).is_empty() {
        true => Err(Failure::NoApiKey { key_id: key_id.as_bytes() }),
        false => Ok(()),
    }
}

/// True when the key was not revoked before. Asks first: a call that changes nothing writes nothing.
fn revoke(key_id: &str, reason: Option<&[u8]>) -> bool {
    const LIVE: &str = "SELECT FROM keywright.api_keys WHERE key_id = $1 AND revoked_at IS NULL";
    const REVOKE: &str = r#"
        UPDATE keywright.api_keys
           SET revoked_at = pg_catalog.clock_timestamp(), revoke_reason = $2
         WHERE key_id = $1 AND revoked_at IS NULL"#;
    !spi::read(LIVE, &[key_id.into()], |_| ()).is_empty()
        && spi::count(REVOKE, &[key_id.into(), spi::text(reason)]) > 0
}

/// Revokes every key of a user that is not revoked yet; true when there was one.
fn revoke_all_of(user: Uuid, reason: Option<&[u8]>) -> bool {
    const LIVE: &str = "SELECT FROM keywright.api_keys WHERE user_id = $1 AND revoked_at IS NULL LIMIT 1";
    const REVOKE: &str = r#"
        UPDATE keywright.api_keys
           SET revoked_at = pg_catalog.clock_timestamp(), revoke_reason = $2
         WHERE user_id = $1 AND revoked_at IS NULL"#;
    !spi::read(LIVE, &[user.into()], |_| ()).is_empty()
        && spi::count(REVOKE, &[user.into(), spi::text(reason)]) > 0
}
