//! verify_gateway_key: as for API keys, with one table to ask.

use crate::clock;
use crate::probe::{Keyed, Reader, Row};
use crate::record::Record;
use crate::usage::{self, Kind, Outcome};
use keywright_core::digest::{self, DIGEST_LEN, Digest};
use keywright_core::token::GatewayKey;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

static BY_PREFIX: Keyed = Keyed::new(
    c"gateway_keys",
    c"gateway_keys_secret_prefix_key",
    &[pg_sys::F_TEXTEQ],
    &[
        pg_sys::UUIDOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::BYTEAOID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZOID,
    ],
);

/// Columns of `keywright.gateway_keys`, as its CREATE TABLE has them.
mod column {
    pub const GATEWAY_KEY_ID: i32 = 1;
    pub const NAME: i32 = 2;
    pub const HASHED_SECRET: i32 = 4;
    pub const EXPIRES_AT: i32 = 7;
}

#[pg_extern(sql = false)]
fn verify_gateway_key(token: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) -> Result<Record, ErrorReport> {
    const NO_DIGEST: Digest = [0; DIGEST_LEN];
    let inactive = || Record::new(fcinfo, &[false.into_datum(), None, None]);
    let Some(presented) = token.and_then(GatewayKey::parse) else {
        usage::count(Kind::GatewayKey, Outcome::Malformed);
        return Ok(inactive());
    };
    let digest = presented.digest();
    let now = clock::now();
    let prefix = presented.prefix().into_datum().unwrap_or(pg_sys::Datum::null());
    Ok(Reader::new([&BY_PREFIX])?.find(0, prefix, |key| {
        let stored = key.and_then(|key| key.bytes(column::HASHED_SECRET)).unwrap_or(&NO_DIGEST);
        let right = digest::matches(&digest, stored);
        let live = key.is_some_and(|key| is_live(key, now));
        usage::count(Kind::GatewayKey, outcome(key.is_some(), right, live));
        match key {
            Some(key) if right & live => Record::new(
                fcinfo,
                &[true.into_datum(), key.get(column::GATEWAY_KEY_ID), key.get(column::NAME)],
            ),
            _ => inactive(),
        }
    }))
}

fn outcome(exists: bool, right: bool, live: bool) -> Outcome {
    match (exists, right, live) {
        (false, ..) => Outcome::Unknown,
        (_, false, _) => Outcome::WrongSecret,
        (_, _, false) => Outcome::Expired,
        _ => Outcome::Active,
    }
}

/// The key that holds its name does not expire; one that was rotated away does.
fn is_live(key: &Row, now: pg_sys::TimestampTz) -> bool {
    key.time(column::EXPIRES_AT).is_none_or(|end| now < end)
}
