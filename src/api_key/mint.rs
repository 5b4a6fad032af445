//! mint_api_key, and the insertion every new key goes through.

use crate::args::Faults;
use crate::clock::Moment;
use crate::error::{Failure, Fault};
use crate::record::Record;
use crate::user::{self, User};
use crate::{args, clock, settings, spi};
use keywright_core::alphabet::OperatingSystem;
use keywright_core::duration::{CENTURY, Duration};
use keywright_core::name::Rule;
use keywright_core::text::Kind;
use keywright_core::token::{self, Minted};
use keywright_core::{allow_list, scope};
use pgrx::datum::{Array, Interval};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// What a new key is to be.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub name: &'a [u8],
    pub scopes: Vec<String>,
    pub allow_list: Vec<String>,
    pub lifetime: Duration,
    pub managed_by: Option<&'a [u8]>,
}

impl<'a> Wanted<'a> {
    pub fn new(
        name: Result<&'a [u8], Fault>,
        scopes: &Option<Array<&[u8]>>,
        allow_list: &Option<Array<&[u8]>>,
        lifetime: Result<Duration, Fault>,
        managed_by: Option<&'a [u8]>,
    ) -> Result<Self, Failure<'static>> {
        let mut faults = Faults::default();
        let registry = crate::scope::registry();
        let name = faults.sift(name);
        let scopes = faults.sift(args::elements("scopes", scopes).and_then(|list| {
            scope::normalize(&list, &registry).map_err(|list| Fault::list("scopes", list, SCOPES))
        }));
        let allow_list = faults.sift(args::elements("allow_list", allow_list).and_then(|list| {
            allow_list::normalize(&list, &registry)
                .map_err(|list| Fault::list("allow_list", list, ALLOW_LIST))
        }));
        let lifetime = faults.sift(lifetime);
        let managed_by = faults.sift(args::words("managed_by", Kind::Manager, managed_by));
        let (Some(name), Some(scopes), Some(allow_list), Some(lifetime), Some(managed_by)) =
            (name, scopes, allow_list, lifetime, managed_by)
        else {
            return Err(faults.into());
        };
        Ok(Wanted { name, scopes, allow_list, lifetime, managed_by })
    }

    /// When a key minted now would expire, within the cap.
    pub fn expires_at(&self, now: pg_sys::TimestampTz) -> Result<pg_sys::TimestampTz, Failure<'static>> {
        expiry(self.lifetime, now)
    }
}

/// When a key of this lifetime minted now would expire, within the cap: a year is no more than 365 days of it and a month no more
/// than 30, also where they are longer.
pub fn expiry(lifetime: Duration, now: Moment) -> Result<Moment, Failure<'static>> {
    let cap = settings::max_api_key_lifetime()?;
    match cap.and_then(|cap| lifetime.fault_under(cap)) {
        Some(rule) => Err(Fault::new("lifetime", rule, "Ask for another lifetime.").into()),
        None => Ok(lifetime.after(now).min(latest(now, cap))),
    }
}

/// No key that is minted now lives longer.
pub fn latest(now: Moment, cap: Option<i64>) -> Moment {
    now.saturating_add(cap.unwrap_or(CENTURY))
}

#[pg_extern(sql = false)]
fn mint_api_key(
    username: Option<&[u8]>,
    name: Option<&[u8]>,
    scopes: Option<Array<&[u8]>>,
    allow_list: Option<Array<&[u8]>>,
    lifetime: Option<Interval>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let name = args::ruled(Rule::ApiKeyName, name).map(str::as_bytes);
    let lifetime = args::required("lifetime", lifetime).and_then(args::lifetime);
    let wanted = faults.sift_all(Wanted::new(name, &scopes, &allow_list, lifetime, managed_by))?;
    let (Some(username), Some(wanted)) = (username, wanted) else {
        faults.report_but_name()?;
        return Ok(Record::NONE);
    };
    let now = clock::now();
    let expires_at = wanted.expires_at(now)?;
    let user = user::hold(username)?;
    user.require_active()?;
    user.require_in_snapshot()?;
    let minted = new_token()?;
    release_expired(&user, wanted.name, &minted.public, now);
    if !insert(&user, &wanted, &minted, now, expires_at)? {
        return Ok(Record::NONE);
    }
    Ok(Record::new(
        fcinfo,
        &[minted.public.into_datum(), minted.token.expose().into_datum(), expires_at.into_datum()],
    ))
}

pub fn new_token() -> Result<Minted, Failure<'static>> {
    Ok(token::mint_api_key(settings::api_key_form(), &mut OperatingSystem)?)
}

/// False when another key holds the name, also one that another session committed while this one waited.
pub fn insert(
    user: &User,
    wanted: &Wanted,
    minted: &Minted,
    now: pg_sys::TimestampTz,
    expires_at: pg_sys::TimestampTz,
) -> Result<bool, Failure<'static>> {
    const INSERT: &str = r#"
        INSERT INTO keywright.api_keys
               (key_id, user_id, name, hashed_secret, scopes, allow_list, lifetime, created_at, expires_at, managed_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (user_id, name) WHERE revoked_at IS NULL AND superseded_at IS NULL DO NOTHING"#;
    hold(wanted)?;
    let inserted = spi::count(
        INSERT,
        &[
            minted.public.as_str().into(),
            user.id.into(),
            spi::text(wanted.name),
            minted.digest.as_slice().into(),
            wanted.scopes.clone().into(),
            wanted.allow_list.clone().into(),
            spi::interval(wanted.lifetime),
            spi::time(now),
            spi::time(expires_at),
            spi::text(wanted.managed_by),
        ],
    );
    Ok(inserted > 0)
}

/// Holds what a new key names, so that none of it is deleted before the key is there.
pub fn hold(wanted: &Wanted) -> Result<(), Failure<'static>> {
    crate::scope::hold(&wanted.scopes)?;
    crate::scope::hold_types("allow_list", &wanted.allow_list)
}

/// An expired key never blocks its name: the new key takes over.
pub fn release_expired(user: &User, name: &[u8], successor: &str, now: pg_sys::TimestampTz) {
    const RELEASE: &str = r#"
        UPDATE keywright.api_keys
           SET superseded_at = $3, superseded_by = $4
         WHERE user_id = $1 AND name = $2 AND revoked_at IS NULL AND superseded_at IS NULL AND expires_at <= $3"#;
    spi::count(RELEASE, &[user.id.into(), spi::text(name), spi::time(now), successor.into()]);
}

const SCOPES: &str = "A scope is a registered name, such as all, or a permission type:action, such as project:read or project:*.";
const ALLOW_LIST: &str = "An entry is type:id, such as project:p1, project:* or *:*.";
