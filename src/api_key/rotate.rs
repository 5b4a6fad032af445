//! rotate_api_key: a successor at once, the predecessor for a while.

use super::mint::{self, Wanted};
use crate::args::Faults;
use crate::error::{Failure, Fault};
use crate::record::Rows;
use crate::{args, clock, settings, spi, user};
use keywright_core::duration::Duration;
use keywright_core::printable::is_hidden;
use keywright_core::token::is_key_id;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

struct Predecessor {
    name: String,
    expires_at: pg_sys::TimestampTz,
    revoked: bool,
    superseded_by: Option<String>,
    scopes: Vec<String>,
    allow_list: Vec<String>,
    lifetime: Result<Duration, &'static str>,
    managed_by: Option<String>,
}

#[pg_extern(sql = false)]
fn rotate_api_key(
    key_id: Option<&[u8]>,
    grace: Option<Interval>,
    username: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let mut faults = Faults::default();
    let key_id = faults.sift(require_key_id(key_id));
    let grace = faults.sift(args::duration("grace", grace));
    let (Some(key_id), Some(grace)) = (key_id, grace) else { return Err(Failure::from(faults).into()) };
    let gone = || Failure::NoApiKey { key_id: key_id.as_bytes() };
    let owner = user::owner_of(key_id).filter(|owner| owner.is_called(username)).ok_or_else(gone)?;
    let user = owner.hold()?;
    user.require_active()?;
    user.require_in_snapshot()?;
    let old = lock(key_id).ok_or_else(gone)?;
    let now = clock::now();
    old.require_live(key_id, now)?;

    // A restore or a superuser may have written it.
    let unfit = |rule: &str| Failure::NotLive {
        key_id,
        why: format!("Its lifetime is unfit for a successor. {rule}"),
        hint: "Mint another key with keywright.mint_api_key.".into(),
    };
    let wanted = Wanted {
        name: old.name.as_bytes(),
        scopes: old.scopes,
        allow_list: old.allow_list,
        lifetime: old.lifetime.map_err(unfit)?,
        managed_by: old.managed_by.as_deref().map(str::as_bytes),
    };
    // A cap that was lowered since must not keep anybody from rotating.
    let latest = mint::latest(now, settings::max_api_key_lifetime()?);
    let expires_at = wanted.lifetime.after(now).min(latest);
    let old_end = grace.after(now).min(old.expires_at);
    let minted = mint::new_token()?;
    supersede(key_id, &minted.public, now, old_end);
    if !mint::insert(&user, &wanted, &minted, now, expires_at)? {
        // The lock on the predecessor keeps the name free for us.
        return Err(gone().into());
    }
    Ok(Rows::one(
        fcinfo,
        &[
            minted.public.into_datum(),
            minted.token.expose().into_datum(),
            expires_at.into_datum(),
            key_id.into_datum(),
            old_end.into_datum(),
        ],
    ))
}

impl Predecessor {
    fn require_live<'a>(&self, key_id: &'a str, now: pg_sys::TimestampTz) -> Result<(), Failure<'a>> {
        let (why, hint) = if self.revoked {
            ("It is revoked.", "Mint another key with keywright.mint_api_key.".into())
        } else if let Some(successor) = &self.superseded_by {
            ("It was rotated already.", format!("Rotate its successor, \"{successor}\"."))
        } else if self.expires_at <= now {
            ("It is expired.", "Mint another key with keywright.mint_api_key.".into())
        } else {
            return Ok(());
        };
        Err(Failure::NotLive { key_id, why: why.into(), hint })
    }
}

fn lock(key_id: &str) -> Option<Predecessor> {
    const LOCK: &str = r#"
        SELECT name, expires_at, revoked_at IS NOT NULL, superseded_by, scopes, allow_list, lifetime, managed_by
          FROM keywright.api_keys WHERE key_id = $1 FOR UPDATE"#;
    spi::write(LOCK, &[key_id.into()], |row| Predecessor {
        name: row.must(1),
        expires_at: row.must(2),
        revoked: row.must(3),
        superseded_by: row.get(4),
        scopes: row.must(5),
        allow_list: row.must(6),
        lifetime: args::length(&row.must(7)),
        managed_by: row.get(8),
    })
    .pop()
}

fn supersede(key_id: &str, successor: &str, now: pg_sys::TimestampTz, end: pg_sys::TimestampTz) {
    const SUPERSEDE: &str = r#"
        UPDATE keywright.api_keys SET superseded_at = $3, superseded_by = $2, expires_at = $4 WHERE key_id = $1"#;
    spi::count(SUPERSEDE, &[key_id.into(), successor.into(), spi::time(now), spi::time(end)]);
}

/// A key_id of the right form. Anything else may be a token, and is not repeated.
pub fn require_key_id(key_id: Option<&[u8]>) -> Result<&str, Fault> {
    let key_id = args::required("key_id", key_id)?;
    str::from_utf8(key_id).ok().filter(|_| is_key_id(key_id)).ok_or_else(|| {
        let (sentence, hint) = match is_hidden(key_id) {
            true => ("It may be a token.", "Pass the key_id, never the token."),
            false => (
                "A key_id has 10 letters and digits.",
                "A key's name is not its key_id: see keywright.list_api_keys().",
            ),
        };
        Fault::new("key_id", sentence, hint)
    })
}
