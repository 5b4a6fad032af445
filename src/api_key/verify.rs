//! The hot path: take the token apart, find its row and its owner's, compare, answer.
//!
//! Unknown, wrong, revoked and expired get the same answer after the same work: a digest is computed and
//! compared, and both tables are asked, whatever has been found so far. Another key stands in for one that does not exist.

use super::{BY_ID, column};
use crate::clock;
use crate::error::Failure;
use crate::probe::{Reader, Row};
use crate::record::{Record, Rows};
use crate::usage::{self, Kind, Outcome};
use crate::user;
use keywright_core::digest::{self, DIGEST_LEN, Digest};
use keywright_core::token::{ApiKey, is_key_id};
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// active, key_id, user_id, username, name, scopes, allow_list, expires_at
type Columns = [Option<pg_sys::Datum>; 8];

/// Asked for when there is not one key, so that a miss costs what a hit costs.
const NOBODY: [u8; 16] = [0; 16];
const NO_DIGEST: Digest = [0; DIGEST_LEN];

const KEYS: usize = 0;
const OWNERS: usize = 1;

fn reader() -> Result<Reader<2>, Failure<'static>> {
    Reader::new([&BY_ID, &user::BY_ID])
}

#[pg_extern(sql = false)]
fn verify_api_key(token: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) -> Result<Record, ErrorReport> {
    let Some(presented) = presented(token) else { return Ok(Record::new(fcinfo, &inactive())) };
    Ok(verify(&reader()?, presented, |columns, _| Record::new(fcinfo, &columns)))
}

#[pg_extern(sql = false)]
fn authenticate_api_key(
    token: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let presented = presented(token).ok_or(Failure::InvalidToken)?;
    let record = verify(&reader()?, presented, |columns, live| live.map(|_| Record::new(fcinfo, &columns)));
    Ok(record.ok_or(Failure::InvalidToken)?)
}

#[pg_extern(sql = false)]
fn verify_api_key_digest(
    key_id: Option<&[u8]>,
    digest: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let id = key_id.filter(|id| is_key_id(id)).and_then(|id| str::from_utf8(id).ok());
    match id.zip(digest.and_then(|digest| digest.try_into().ok())) {
        Some(presented) => Ok(verify(&reader()?, presented, |columns, _| Record::new(fcinfo, &columns))),
        None => {
            usage::count(Kind::ApiKey, Outcome::Malformed);
            Ok(Record::new(fcinfo, &inactive()))
        }
    }
}

#[pg_extern(sql = false)]
fn verify_api_keys(
    tokens: Option<Array<&[u8]>>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let rows = Rows::new(fcinfo);
    let reader = reader()?;
    for (ordinality, token) in (1i64..).zip(tokens.iter().flat_map(Array::iter)) {
        pgrx::check_for_interrupts!();
        let push = |columns: Columns| {
            let mut row = vec![ordinality.into_datum()];
            row.extend(columns);
            rows.push(&row);
        };
        match presented(token) {
            Some(presented) => verify(&reader, presented, |columns, _| push(columns)),
            None => push(inactive()),
        }
    }
    Ok(rows)
}

pub fn presented(token: Option<&[u8]>) -> Option<(&str, Digest)> {
    let presented = token.and_then(ApiKey::parse).map(|key| (key.id(), key.digest()));
    if presented.is_none() {
        usage::count(Kind::ApiKey, Outcome::Malformed);
    }
    presented
}

/// Hands the answer to `emit` while the rows it points into are held: the columns and, for a live key, its row
/// and its owner's id. The reader's first two tables are those of keys and owners.
pub fn verify<const N: usize, R>(
    reader: &Reader<N>,
    (id, digest): (&str, Digest),
    emit: impl FnOnce(Columns, Option<(&Row, pg_sys::Datum)>) -> R,
) -> R {
    let now = clock::now();
    let key_id = id.into_datum().unwrap_or(pg_sys::Datum::null());
    reader.find_or_other(KEYS, key_id, |row, is_it| {
        let stored = row.and_then(|row| row.bytes(column::HASHED_SECRET)).unwrap_or(&NO_DIGEST);
        let right = digest::matches(&digest, stored);
        let live = row.is_some_and(|row| is_live(row, now));
        let owner_id = row.and_then(|row| row.get(column::USER_ID)).unwrap_or(NOBODY.as_ptr().into());
        let key = row.filter(|_| is_it);
        reader.find(OWNERS, owner_id, |owner| {
            let active = owner.is_some_and(is_active);
            usage::note_api_key(id, now, || outcome(key, right, live, active));
            match (key, owner) {
                (Some(key), Some(owner)) if right & live & active => {
                    emit(answer(key, owner), Some((key, owner_id)))
                }
                _ => emit(inactive(), None),
            }
        })
    })
}

/// What an auditor may know. With a wrong secret nothing else is told.
fn outcome(key: Option<&Row>, right: bool, live: bool, active: bool) -> Outcome {
    match key {
        None => Outcome::Unknown,
        Some(_) if !right => Outcome::WrongSecret,
        Some(key) if !live && key.get(column::REVOKED_AT).is_some() => Outcome::Revoked,
        Some(_) if !live => Outcome::Expired,
        Some(_) if !active => Outcome::UserInactive,
        Some(_) => Outcome::Active,
    }
}

/// Asks for a live key by its id alone, for one whose token was verified before. Hands over its row and its
/// owner's id.
pub fn look<const N: usize, R>(
    reader: &Reader<N>,
    id: &str,
    read: impl FnOnce(&Row, pg_sys::Datum) -> R,
) -> Option<R> {
    let now = clock::now();
    reader.find(KEYS, id.into_datum().unwrap_or(pg_sys::Datum::null()), |key| {
        let key = key.filter(|key| is_live(key, now))?;
        let owner = key.get(column::USER_ID)?;
        reader.find(OWNERS, owner, |row| row.filter(|row| is_active(row)).map(|_| read(key, owner)))
    })
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
