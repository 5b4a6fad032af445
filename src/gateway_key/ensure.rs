//! ensure_gateway_key: keep the token that is handed in, or mint its successor. As ensure_api_key does it.

use super::mint::{self, Holder, New, holder, queue, supersede};
use crate::args::Faults;
use crate::error::Failure;
use crate::record::Record;
use crate::{args, clock, spi};
use keywright_core::digest;
use keywright_core::name::Rule;
use keywright_core::text::Kind;
use keywright_core::token::{GatewayKey, stored};
use pgrx::datum::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// The key a token names.
#[derive(Debug)]
pub struct Key {
    id: Uuid,
    name: String,
    hashed_secret: Vec<u8>,
    created_at: pg_sys::TimestampTz,
    expires_at: Option<pg_sys::TimestampTz>,
}

/// gateway_key_id, secret_prefix, token, outcome, reason, created_at
type Columns = [Option<pg_sys::Datum>; 6];

#[pg_extern(sql = false)]
fn ensure_gateway_key(
    name: Option<&[u8]>,
    existing_token: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let started = clock::call_started();
    let mut faults = Faults::default();
    let name = faults.sift(args::ruled(Rule::GatewayKeyName, name));
    let managed_by = faults.sift(args::words("managed_by", Kind::Manager, managed_by));
    let (Some(name), Some(managed_by)) = (name, managed_by) else {
        faults.report_but_name()?;
        return Ok(Record::NONE);
    };
    let existing = existing_token.and_then(stored);
    let columns = ensure(name.as_bytes(), existing, managed_by, started)?;
    Ok(Record::new(fcinfo, &columns))
}

fn ensure(
    name: &[u8],
    existing: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    started: pg_sys::TimestampTz,
) -> Result<Columns, ErrorReport> {
    let before = holder(name);
    if let Ok(key) = verdict(name, existing) {
        return Ok(kept(key, existing));
    }
    queue(name);
    let now = holder(name);
    if let Some(other) = &now
        && !other.is_own()
        && (before.is_none_or(|before| before.id != other.id) || other.came_up_since(started))
    {
        return Ok(concurrent(now));
    }
    match verdict(name, existing) {
        Ok(key) => Ok(kept(key, existing)),
        Err(reason) => {
            let rotated = now.is_some();
            if now.as_ref().is_none_or(|now| !now.is_own()) {
                clock::gather();
            }
            let Some(new) = replace(name, managed_by, now)? else { return Ok(concurrent(holder(name))) };
            Ok([
                new.id.into_datum(),
                new.minted.public.into_datum(),
                new.minted.token.expose().into_datum(),
                (if rotated { "rotated" } else { "minted" }).into_datum(),
                reason.into_datum(),
                new.created_at.into_datum(),
            ])
        }
    }
}

/// A successor of the key that holds the name, if there is one; nothing when another call's has come up since.
pub fn replace(
    name: &[u8],
    managed_by: Option<&[u8]>,
    old: Option<Holder>,
) -> Result<Option<New>, Failure<'static>> {
    if let Some(manager) = old.as_ref().and_then(|old| old.manager.as_deref())
        && Some(manager.as_bytes()) != managed_by
    {
        let what = format!("gateway key \"{}\"", String::from_utf8_lossy(name));
        return Err(Failure::OtherManager { what, manager: manager.to_owned() });
    }
    // Only the key that was found to hold the name gives it up: if another call's key has come up since, the
    // insertion finds the name taken and leaves that key alone.
    let now = clock::now();
    if let Some(old) = &old {
        supersede(old.id, now, now);
    }
    let new = mint::insert(name, managed_by)?;
    if new.is_some() {
        end_grace(name, now);
    }
    Ok(new)
}

/// Ends the keys of this name that were rotated away and still live.
fn end_grace(name: &[u8], now: pg_sys::TimestampTz) {
    const END_GRACE: &str = r#"
        UPDATE keywright.gateway_keys SET expires_at = $2
         WHERE pg_catalog.lower(name) = pg_catalog.lower($1 COLLATE "C") AND expires_at > $2"#;
    spi::count(END_GRACE, &[spi::text(name), spi::time(now)]);
}

/// The live key of this name the token belongs to, or why there is none.
pub fn verdict(name: &[u8], existing: Option<&[u8]>) -> Result<Key, &'static str> {
    const KEY: &str = r#"
        SELECT gateway_key_id, name, hashed_secret, created_at, expires_at
          FROM keywright.gateway_keys WHERE secret_prefix = $1"#;
    let presented = GatewayKey::parse(existing.ok_or("missing")?).ok_or("malformed")?;
    let key = spi::read(KEY, &[presented.prefix().into()], |row| Key {
        id: row.must(1),
        name: row.must(2),
        hashed_secret: row.must(3),
        created_at: row.must(4),
        expires_at: row.get(5),
    })
    .pop()
    .ok_or("unknown")?;
    if !digest::matches(&presented.digest(), &key.hashed_secret) {
        return Err("unknown");
    }
    if !key.name.as_bytes().eq_ignore_ascii_case(name) {
        return Err("wrong-name");
    }
    if key.expires_at.is_some_and(|end| end <= clock::now()) {
        return Err("superseded");
    }
    Ok(key)
}

fn kept(key: Key, existing: Option<&[u8]>) -> Columns {
    let prefix = existing.map(|token| &token[..keywright_core::token::GATEWAY_PREFIX_LEN]);
    [
        key.id.into_datum(),
        prefix.map(spi::text_datum),
        existing.map(spi::text_datum),
        "kept".into_datum(),
        None,
        key.created_at.into_datum(),
    ]
}

fn concurrent(holder: Option<Holder>) -> Columns {
    let mut columns = [None; 6];
    columns[0] = holder.map(|holder| holder.id).into_datum();
    columns[3] = "concurrent".into_datum();
    columns
}
