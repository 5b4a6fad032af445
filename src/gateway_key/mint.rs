//! mint_gateway_key, and the insertion every new key goes through.

use crate::args::Faults;
use crate::error::Failure;
use crate::lock::Lock;
use crate::record::Record;
use crate::{args, clock, spi};
use keywright_core::alphabet::OperatingSystem;
use keywright_core::name::Rule;
use keywright_core::text::Kind;
use keywright_core::token::{self, Minted};
use pgrx::datum::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// A key just made.
#[derive(Debug)]
pub struct New {
    pub id: Uuid,
    pub created_at: pg_sys::TimestampTz,
    pub minted: Minted,
}

#[pg_extern(sql = false)]
fn mint_gateway_key(
    name: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let mut faults = Faults::default();
    let name = faults.sift(args::ruled(Rule::GatewayKeyName, name));
    let managed_by = faults.sift(args::words("managed_by", Kind::Manager, managed_by));
    let (Some(name), Some(managed_by)) = (name, managed_by) else {
        faults.report_but_name()?;
        return Ok(Record::NONE);
    };
    Ok(match insert(name.as_bytes(), managed_by)? {
        None => Record::NONE,
        Some(new) => Record::new(
            fcinfo,
            &[
                new.id.into_datum(),
                new.minted.public.into_datum(),
                new.minted.token.expose().into_datum(),
                new.created_at.into_datum(),
            ],
        ),
    })
}

/// None when another key holds the name, also one that another session committed while this one waited.
/// A public prefix that is taken, 1 chance in 62^7 per key there is, is no reason to fail: the next is tried.
pub fn insert(name: &[u8], managed_by: Option<&[u8]>) -> Result<Option<New>, Failure<'static>> {
    const INSERT: &str = r#"
        INSERT INTO keywright.gateway_keys (name, secret_prefix, hashed_secret, managed_by)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING
        RETURNING gateway_key_id, created_at"#;
    loop {
        let minted = token::mint_gateway_key(&mut OperatingSystem)?;
        let args = [
            spi::text(name),
            minted.public.as_str().into(),
            minted.digest.as_slice().into(),
            spi::text(managed_by),
        ];
        let made = spi::write(INSERT, &args, |row| (row.must(1), row.must(2))).pop();
        if let Some((id, created_at)) = made {
            return Ok(Some(New { id, created_at, minted }));
        }
        if holder(name).is_some() {
            return Ok(None);
        }
    }
}

/// The key that holds a name.
#[derive(Debug)]
pub struct Holder {
    pub id: Uuid,
    pub created_at: pg_sys::TimestampTz,
    pub xmin: pg_sys::TransactionId,
    pub manager: Option<String>,
}

impl Holder {
    pub fn is_own(&self) -> bool {
        spi::is_own(self.xmin)
    }

    pub fn came_up_since(&self, started: pg_sys::TimestampTz) -> bool {
        !self.is_own() && clock::came_up_since(started, self.created_at, self.xmin)
    }

    fn from_row(row: &spi::Row) -> Holder {
        Holder { id: row.must(1), created_at: row.must(2), xmin: row.must(3), manager: row.get(4) }
    }
}

pub fn holder(name: &[u8]) -> Option<Holder> {
    const HOLDER: &str = r#"
        SELECT gateway_key_id, created_at, xmin, managed_by
          FROM keywright.gateway_keys
         WHERE pg_catalog.lower(name) = pg_catalog.lower($1 COLLATE "C") AND superseded_at IS NULL"#;
    spi::read(HOLDER, &[spi::text(name)], Holder::from_row).pop()
}

/// Waits until nobody else is replacing or deleting keys of this name. Whoever changes more than one row of a
/// name comes through here first, so that no two of them wait for each other.
pub fn queue(name: &[u8]) {
    Lock::GatewayKeys.wait(&name.to_ascii_lowercase());
}

/// Ends a key that held its name, at `end`.
pub fn supersede(id: Uuid, now: pg_sys::TimestampTz, end: pg_sys::TimestampTz) {
    const SUPERSEDE: &str =
        "UPDATE keywright.gateway_keys SET superseded_at = $2, expires_at = $3 WHERE gateway_key_id = $1";
    spi::count(SUPERSEDE, &[id.into(), spi::time(now), spi::time(end)]);
}
