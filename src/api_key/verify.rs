//! The hot path: take the token apart, find its row and its owner's, compare, answer.
//!
//! Unknown, wrong, revoked and expired get the same answer after the same work: a digest is computed and
//! compared, and both tables are asked, whatever has been found so far.

use super::{BY_ID, column};
use crate::error::Failure;
use crate::probe::{self, Row};
use crate::record::{Record, Rows};
use crate::user;
use keywright_core::digest::{self, DIGEST_LEN, Digest};
use keywright_core::token::{ApiKey, is_key_id};
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// active, key_id, user_id, username, name, scopes, allow_list, expires_at
type Columns = [Option<pg_sys::Datum>; 8];

/// Asked for when there is no key, so that a miss costs what a hit costs.
const NOBODY: [u8; 16] = [0; 16];
const NO_DIGEST: Digest = [0; DIGEST_LEN];

#[pg_extern(sql = false)]
fn verify_api_key(token: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) -> Result<Record, ErrorReport> {
    Ok(verify(presented(token), None, |columns, _| Record::new(fcinfo, &columns))?)
}

#[pg_extern(sql = false)]
fn authenticate_api_key(
    token: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let record = verify(presented(token), None, |columns, active| {
        if active { Ok(Record::new(fcinfo, &columns)) } else { Err(Failure::InvalidToken) }
    })?;
    Ok(record?)
}

#[pg_extern(sql = false)]
fn verify_api_key_digest(
    key_id: Option<&[u8]>,
    digest: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let id = key_id.filter(|id| is_key_id(id)).and_then(|id| str::from_utf8(id).ok());
    let presented = id.zip(digest.and_then(|digest| digest.try_into().ok()));
    Ok(verify(presented, None, |[active, key_id, rest @ ..], _| {
        let mut columns = vec![key_id, active];
        columns.extend(rest);
        Record::new(fcinfo, &columns)
    })?)
}

#[pg_extern(sql = false)]
fn verify_api_keys(
    tokens: Option<Array<&[u8]>>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let rows = Rows::new(fcinfo);
    for (ordinality, token) in (1i64..).zip(tokens.iter().flat_map(Array::iter)) {
        verify(presented(token), None, |columns, _| {
            let mut row = vec![ordinality.into_datum()];
            row.extend(columns);
            rows.push(&row);
        })?;
    }
    Ok(rows)
}

fn presented(token: Option<&[u8]>) -> Option<(&str, Digest)> {
    ApiKey::parse(token?).map(|key| (key.id(), key.digest()))
}

/// Hands the answer to `emit` while the rows it points into are held.
fn verify<R>(
    presented: Option<(&str, Digest)>,
    snapshot: Option<pg_sys::Snapshot>,
    emit: impl FnOnce(Columns, bool) -> R,
) -> Result<R, Failure<'static>> {
    let Some((id, digest)) = presented else {
        return Ok(emit(inactive(), false));
    };
    let now = probe::now();
    let id = id.into_datum().unwrap_or(pg_sys::Datum::null());
    probe::find(&BY_ID, snapshot, id, |key, snapshot| {
        let stored = key.and_then(|key| key.bytes(column::HASHED_SECRET)).unwrap_or(&NO_DIGEST);
        let right = digest::matches(&digest, stored);
        let live = key.is_some_and(|key| is_live(key, now));
        let owner = key.and_then(|key| key.get(column::USER_ID)).unwrap_or(NOBODY.as_ptr().into());
        probe::find(&user::BY_ID, Some(snapshot), owner, |owner, _| match (key, owner) {
            (Some(key), Some(owner)) if right & live & is_active(owner) => emit(answer(key, owner), true),
            _ => emit(inactive(), false),
        })
    })?
}

/// A key is dead at `expires_at` itself.
fn is_live(key: &Row, now: pg_sys::TimestampTz) -> bool {
    key.get(column::REVOKED_AT).is_none() & key.time(column::EXPIRES_AT).is_some_and(|end| now < end)
}

fn is_active(owner: &Row) -> bool {
    owner.get(user::column::DELETED_AT).is_none() & (owner.bytes(user::column::STATUS) == Some(user::ACTIVE))
}

fn answer(key: &Row, owner: &Row) -> Columns {
    [
        true.into_datum(),
        key.get(column::KEY_ID),
        key.get(column::USER_ID),
        owner.get(user::column::USERNAME),
        key.get(column::NAME),
        key.get(column::SCOPES),
        key.get(column::ALLOW_LIST),
        key.get(column::EXPIRES_AT),
    ]
}

fn inactive() -> Columns {
    let mut columns = [None; 8];
    columns[0] = false.into_datum();
    columns
}
