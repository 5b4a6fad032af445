//! import_api_key: a key whose token was made elsewhere and has the bare form, or is checked by its digest.
//!
//! No more than minting: whoever may mint for a user could make the same key with a secret of keywright's choice.

use super::mint::{self, Wanted};
use super::rotate::require_key_id;
use crate::args::{self, Faults, Outcome};
use crate::error::{Failure, Fault};
use crate::user::{self, User};
use crate::{audit, clock, settings, spi};
use keywright_core::digest;
use keywright_core::duration::{CENTURY, Duration};
use keywright_core::name::Rule;
use pgrx::datum::{Array, Uuid};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{pg_extern, pg_sys};

const DAY: i64 = 86_400_000_000;

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "those of the SQL function")]
fn import_api_key(
    username: Option<&[u8]>,
    name: Option<&[u8]>,
    key_id: Option<&[u8]>,
    digest: Option<&[u8]>,
    expires_at: Option<pg_sys::TimestampTz>,
    created_at: Option<pg_sys::TimestampTz>,
    scopes: Option<Array<&[u8]>>,
    allow_list: Option<Array<&[u8]>>,
) -> Result<Outcome, ErrorReport> {
    let now = clock::now();
    let said = created_at;
    let created_at = created_at.unwrap_or(now);
    let cap = settings::max_api_key_lifetime()?;
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let key_id = faults.sift(require_key_id(key_id));
    let digest = args::required("digest", digest);
    let digest =
        faults.sift(digest.and_then(|it| require_digest(it, key_id.unwrap_or_default()).map(|()| it)));
    let times = args::required("expires_at", expires_at).and_then(|expires_at| {
        require_expiry(expires_at, now, cap)
            .and_then(|()| require_creation(created_at, expires_at, now))
            .and_then(|()| between(created_at, expires_at))
    });
    let name = args::ruled(Rule::ApiKeyName, name).map(str::as_bytes);
    let wanted = faults.sift_all(Wanted::new(name, &scopes, &allow_list, times, None))?;
    let (Some(username), Some(key_id), Some(digest), Some(expires_at), Some(wanted)) =
        (username, key_id, digest, expires_at, wanted)
    else {
        faults.report_but_name()?;
        return Ok(None);
    };

    let key = Key { user: user::find(username)?, key_id, digest, wanted, now, created_at, said, expires_at };
    if let Some(outcome) = key.found()? {
        return Ok(Some(outcome));
    }
    key.user.require_active()?;
    let user = key.user.hold()?;
    user.require_active()?;
    user.require_in_snapshot()?;
    key.release_expired();
    Ok(Some(if key.insert()? { "imported" } else { key.found()?.unwrap_or("name-taken") }))
}

struct Key<'a> {
    user: User,
    key_id: &'a str,
    digest: &'a [u8],
    wanted: Wanted<'a>,
    now: pg_sys::TimestampTz,
    created_at: pg_sys::TimestampTz,
    /// The creation that was said, if any.
    said: Option<pg_sys::TimestampTz>,
    expires_at: pg_sys::TimestampTz,
}

impl Key<'_> {
    /// The key of this id, if there is one: what was imported once stays, and a revocation since stays with it. So does the
    /// shorter life of one that was rotated away.
    fn found(&self) -> Result<Option<&'static str>, Failure<'static>> {
        const FOUND: &str = r#"
            SELECT user_id, hashed_secret,
                   pg_catalog.array_remove(ARRAY[
                     CASE WHEN name <> $2 THEN 'name' END,
                     CASE WHEN scopes <> $3 THEN 'scopes' END,
                     CASE WHEN allow_list <> $4 THEN 'allow_list' END,
                     CASE WHEN expires_at <> $5 AND superseded_at IS NULL THEN 'expires_at' END,
                     CASE WHEN created_at <> $6 THEN 'created_at' END], NULL)
              FROM keywright.api_keys WHERE key_id = $1"#;
        let args = [
            self.key_id.into(),
            spi::text(self.wanted.name),
            self.wanted.scopes.clone().into(),
            self.wanted.allow_list.clone().into(),
            spi::time(self.expires_at),
            spi::time(self.said),
        ];
        let found: Vec<(Uuid, Vec<u8>, Vec<String>)> =
            spi::read(FOUND, &args, |row| (row.must(1), row.must(2), row.must(3)));
        let Some((owner, stored, differs)) = found.into_iter().next() else { return Ok(None) };
        let right = self.digest.try_into().is_ok_and(|digest| digest::matches(&digest, &stored));
        if !right || owner != self.user.id {
            return Ok(Some("id-taken"));
        }
        match differs.is_empty() {
            true => Ok(Some("unchanged")),
            false => Err(Failure::ImportedOtherwise { key_id: self.key_id.to_owned(), differs }),
        }
    }

    /// An expired key never blocks its name.
    fn release_expired(&self) {
        mint::release_expired(&self.user, self.wanted.name, self.key_id, self.now);
    }

    /// False when another key has the id or holds the name.
    fn insert(&self) -> Result<bool, Failure<'static>> {
        const INSERT: &str = r#"
            INSERT INTO keywright.api_keys
                   (key_id, user_id, name, hashed_secret, scopes, allow_list, lifetime, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT DO NOTHING"#;
        mint::hold(&self.wanted)?;
        let args = [
            self.key_id.into(),
            self.user.id.into(),
            spi::text(self.wanted.name),
            self.digest.into(),
            self.wanted.scopes.clone().into(),
            self.wanted.allow_list.clone().into(),
            spi::interval(self.wanted.lifetime),
            spi::time(self.created_at),
            spi::time(self.expires_at),
        ];
        Ok(audit::importing(|| spi::count(INSERT, &args)) > 0)
    }
}

fn require_digest(digest: &[u8], key_id: &str) -> Result<(), Fault> {
    const HINT: &str = "Pass SHA-256 of a random secret, as bytea; decode it where it is stored as text.";
    match digest::fault(digest, key_id) {
        None => Ok(()),
        Some(fault) => Err(Fault::new("digest", fault, HINT)),
    }
}

/// What is left of the key is no longer than that of one minted now could be.
fn require_expiry(
    expires_at: pg_sys::TimestampTz,
    now: pg_sys::TimestampTz,
    cap: Option<i64>,
) -> Result<(), Fault> {
    const HINT: &str = "Every key expires, and one that is dead need not be imported.";
    let left = expires_at.saturating_sub(now);
    let rule = match cap {
        _ if left <= 0 || left > CENTURY => "It must be in the future, at most 100 years from now.".into(),
        Some(cap) if left > cap => {
            format!(
                "It must be at most {} seconds from now (keywright.max_api_key_lifetime).",
                cap / 1_000_000
            )
        }
        _ => return Ok(()),
    };
    Err(Fault::new("expires_at", rule, HINT))
}

fn require_creation(
    created_at: pg_sys::TimestampTz,
    expires_at: pg_sys::TimestampTz,
    now: pg_sys::TimestampTz,
) -> Result<(), Fault> {
    if created_at > now || expires_at.saturating_sub(created_at) > CENTURY {
        let rule = "It must be in the past, at most 100 years before expires_at.";
        return Err(Fault::new("created_at", rule, "Leave it out if it is not known."));
    }
    Ok(())
}

/// As days and what is left of one. Both moments are less than a century apart.
fn between(from: pg_sys::TimestampTz, to: pg_sys::TimestampTz) -> Result<Duration, Fault> {
    let micros = to - from;
    Duration::new(0, (micros / DAY) as i32, micros % DAY).map_err(|rule| Fault::new("expires_at", rule, ""))
}
