//! ensure_api_key: keep the token that is handed in, or mint its successor.
//!
//! The state is read without a lock first; a token that is good is kept and nothing is written. Otherwise
//! the call queues behind others for the same key, and looks again. What it then finds tells whether
//! somebody minted while it ran: that one holds the live token, and minting again would kill it.

use super::mint::{self, Wanted};
use crate::args::Faults;
use crate::error::{Failure, Fault};
use crate::record::Record;
use crate::user::{self, User};
use crate::{args, clock, spi};
use keywright_core::digest;
use keywright_core::duration::Duration;
use keywright_core::manifest::{self, state};
use keywright_core::name::Rule;
use keywright_core::token::{ApiKey, stored};
use pgrx::datum::{Array, Interval, Uuid};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// The key that holds the name.
#[derive(Debug)]
struct Holder {
    key_id: String,
    created_at: pg_sys::TimestampTz,
    xmin: pg_sys::TransactionId,
    manager: Option<String>,
}

impl Holder {
    fn is_own(&self) -> bool {
        spi::is_own(self.xmin)
    }

    fn came_up_since(&self, started: pg_sys::TimestampTz) -> bool {
        !self.is_own() && clock::came_up_since(started, self.created_at, self.xmin)
    }
}

/// What is to be said of the token that was handed in.
#[derive(Debug)]
enum Verdict {
    Keep { key_id: String, expires_at: pg_sys::TimestampTz },
    Replace { reason: &'static str },
}

struct Call<'a> {
    user: User,
    wanted: Wanted<'a>,
    existing: Option<&'a [u8]>,
    renew_before: Duration,
    started: pg_sys::TimestampTz,
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)] // the arguments of the SQL function
fn ensure_api_key(
    username: Option<&[u8]>,
    name: Option<&[u8]>,
    existing_token: Option<&[u8]>,
    scopes: Option<Array<&[u8]>>,
    allow_list: Option<Array<&[u8]>>,
    lifetime: Option<Interval>,
    renew_before: Option<Interval>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let started = clock::call_started();
    let mut faults = Faults::default();
    let username = faults.sift(args::required("username", username));
    let name = args::ruled(Rule::ApiKeyName, name).map(str::as_bytes);
    let lifetime = args::required("lifetime", lifetime).and_then(args::lifetime);
    let renew_before = require_renew_before(renew_before, lifetime.as_ref().ok());
    let wanted = faults.sift_all(Wanted::new(name, &scopes, &allow_list, lifetime, managed_by))?;
    let renew_before = faults.sift(renew_before);
    let (Some(username), Some(wanted), Some(renew_before)) = (username, wanted, renew_before) else {
        faults.report_but_name()?;
        return Ok(Record::NONE);
    };
    let user = user::find(username)?;
    let existing = existing_token.and_then(stored);
    let call = Call { user, wanted, existing, renew_before, started };
    let outcome = call.run()?;
    Ok(Record::new(fcinfo, &outcome))
}

/// What ensure_api_key would say of a token, for a manifest. Whoever has no user yet, has no key.
pub fn judge(
    entry: &manifest::ApiKey,
    token: Option<&[u8]>,
    started: pg_sys::TimestampTz,
) -> Result<state::Verdict, Failure<'static>> {
    let Ok(user) = user::find(entry.username.as_bytes()) else {
        return Ok(state::Verdict::Replace("missing"));
    };
    let wanted = Wanted {
        name: entry.name.as_bytes(),
        scopes: entry.scopes.clone(),
        allow_list: entry.allow_list.clone(),
        lifetime: entry.lifetime,
        managed_by: None,
    };
    let renew_before = entry.renew_before.unwrap_or_default();
    let call = Call { user, wanted, existing: token, renew_before, started };
    Ok(match call.verdict() {
        Verdict::Keep { .. } => state::Verdict::Keep,
        Verdict::Replace { reason } => match call.holder() {
            Some(holder) if holder.came_up_since(started) => state::Verdict::Concurrent,
            _ => state::Verdict::Replace(reason),
        },
    })
}

/// key_id, token, outcome, reason, expires_at
type Columns = [Option<pg_sys::Datum>; 5];

impl Call<'_> {
    fn run(&self) -> Result<Columns, ErrorReport> {
        self.user.require_active()?;
        let before = self.holder();
        if let Verdict::Keep { key_id, expires_at } = self.verdict() {
            return Ok(self.kept(key_id, expires_at));
        }

        let user = self.user.hold()?;
        user.require_active()?;
        user.require_in_snapshot()?;
        self.queue();
        let holder = self.holder();
        if self.somebody_minted(before.as_ref(), holder.as_ref()) {
            return Ok(concurrent(holder));
        }
        match self.verdict() {
            Verdict::Keep { key_id, expires_at } => Ok(self.kept(key_id, expires_at)),
            Verdict::Replace { reason } => self.replace(holder, reason),
        }
    }

    /// Another call's key that came up while this one ran: it holds the name now and did not before, or it
    /// was made after this call had begun. A key of this very transaction is no other call's.
    fn somebody_minted(&self, before: Option<&Holder>, now: Option<&Holder>) -> bool {
        now.is_some_and(|now| {
            let new = before.is_none_or(|before| before.key_id != now.key_id);
            !now.is_own() && (new || now.came_up_since(self.started))
        })
    }

    fn replace(&self, holder: Option<Holder>, reason: &'static str) -> Result<Columns, ErrorReport> {
        if let Some(manager) = holder.as_ref().and_then(|holder| holder.manager.as_deref())
            && Some(manager.as_bytes()) != self.wanted.managed_by
        {
            let what = format!("API key \"{}\"", String::from_utf8_lossy(self.wanted.name));
            return Err(Failure::OtherManager { what, manager: manager.to_owned() }.into());
        }
        let had_one = self.was_there();
        if holder.as_ref().is_none_or(|holder| !holder.is_own()) {
            clock::gather();
        }
        let minted = mint::new_token()?;
        let now = clock::now();
        let expires_at = self.wanted.expires_at(now)?;
        // Only the key that was found to hold the name gives it up: if another call's key has come up since,
        // the insertion finds the name taken and leaves that key alone.
        if let Some(holder) = &holder {
            retire(&holder.key_id, &minted.public, reason, now);
        }
        if !mint::insert(&self.user, &self.wanted, &minted, now, expires_at)? {
            return Ok(concurrent(self.holder()));
        }
        self.end_grace(reason, now);
        Ok([
            minted.public.into_datum(),
            minted.token.expose().into_datum(),
            (if had_one { "rotated" } else { "minted" }).into_datum(),
            reason.into_datum(),
            expires_at.into_datum(),
        ])
    }

    fn kept(&self, key_id: String, expires_at: pg_sys::TimestampTz) -> Columns {
        [
            key_id.into_datum(),
            self.existing.map(spi::text_datum),
            "kept".into_datum(),
            None,
            expires_at.into_datum(),
        ]
    }

    fn name_args(&self) -> [spi::Arg<'_>; 2] {
        [self.user.id.into(), spi::text(self.wanted.name)]
    }

    fn holder(&self) -> Option<Holder> {
        const HOLDER: &str = r#"
            SELECT key_id, created_at, xmin, managed_by
              FROM keywright.api_keys
             WHERE user_id = $1 AND name = $2 AND revoked_at IS NULL AND superseded_at IS NULL"#;
        spi::read(HOLDER, &self.name_args(), |row| Holder {
            key_id: row.must(1),
            created_at: row.must(2),
            xmin: row.must(3),
            manager: row.get(4),
        })
        .pop()
    }

    /// Waits for whoever is replacing the key that holds the name. With no such key, the unique index makes
    /// the later insertion wait.
    fn queue(&self) {
        const QUEUE: &str = r#"
            SELECT FROM keywright.api_keys
             WHERE user_id = $1 AND name = $2 AND revoked_at IS NULL AND superseded_at IS NULL
               FOR UPDATE"#;
        spi::write(QUEUE, &self.name_args(), |_| ());
    }

    /// True when there was a key of this name before, live or dead.
    fn was_there(&self) -> bool {
        const THERE: &str = "SELECT FROM keywright.api_keys WHERE user_id = $1 AND name = $2 LIMIT 1";
        !spi::read(THERE, &self.name_args(), |_| ()).is_empty()
    }

    /// Revokes the keys of this name that were rotated away and still live.
    fn end_grace(&self, reason: &str, now: pg_sys::TimestampTz) {
        const END_GRACE: &str = r#"
            UPDATE keywright.api_keys
               SET revoked_at = $3, revoke_reason = 'replaced: ' || $4
             WHERE user_id = $1 AND name = $2 AND revoked_at IS NULL AND superseded_at IS NOT NULL AND expires_at > $3"#;
        let [user, name] = self.name_args();
        spi::count(END_GRACE, &[user, name, spi::time(now), reason.into()]);
    }

    /// What the token that was handed in is, in the order a reader would check it: its form, its secret,
    /// whose it is, whether it lives, whether it is what is wanted.
    fn verdict(&self) -> Verdict {
        const KEY: &str = r#"
            SELECT hashed_secret, user_id, name, revoked_at IS NOT NULL, superseded_at IS NOT NULL,
                   expires_at, scopes = $2, allow_list = $3
              FROM keywright.api_keys WHERE key_id = $1"#;
        let reason = 'replace: {
            let Some(token) = self.existing else { break 'replace "missing" };
            let Some(presented) = ApiKey::parse(token) else { break 'replace "malformed" };
            let args = [
                presented.id().into(),
                self.wanted.scopes.clone().into(),
                self.wanted.allow_list.clone().into(),
            ];
            let key = spi::read(KEY, &args, |row| Key {
                hashed_secret: row.must(1),
                user_id: row.must(2),
                name: row.must(3),
                revoked: row.must(4),
                superseded: row.must(5),
                expires_at: row.must(6),
                same_scopes: row.must(7),
                same_allow_list: row.must(8),
            });
            let Some(key) = key.first() else { break 'replace "unknown" };
            if !digest::matches(&presented.digest(), &key.hashed_secret) {
                break 'replace "unknown";
            }
            match key.fault(self) {
                Some(reason) => reason,
                None => {
                    return Verdict::Keep { key_id: presented.id().to_owned(), expires_at: key.expires_at };
                }
            }
        };
        Verdict::Replace { reason }
    }
}

/// Takes the name from the key that holds it: a live one is revoked, an expired one gives way.
fn retire(key_id: &str, successor: &str, reason: &str, now: pg_sys::TimestampTz) {
    const RETIRE: &str = r#"
        UPDATE keywright.api_keys
           SET revoked_at = CASE WHEN expires_at > $3 THEN $3 END,
               revoke_reason = CASE WHEN expires_at > $3 THEN 'replaced: ' || $4 END,
               superseded_at = $3, superseded_by = $2
         WHERE key_id = $1 AND revoked_at IS NULL AND superseded_at IS NULL"#;
    spi::count(RETIRE, &[key_id.into(), successor.into(), spi::time(now), reason.into()]);
}

/// The key a token names.
struct Key {
    hashed_secret: Vec<u8>,
    user_id: Uuid,
    name: String,
    revoked: bool,
    superseded: bool,
    expires_at: pg_sys::TimestampTz,
    same_scopes: bool,
    same_allow_list: bool,
}

impl Key {
    fn fault(&self, call: &Call) -> Option<&'static str> {
        let now = clock::now();
        let expired = self.expires_at <= now;
        [
            (self.user_id != call.user.id, "wrong-user"),
            (self.name.as_bytes() != call.wanted.name, "wrong-name"),
            (self.revoked, "revoked"),
            (self.superseded && expired, "superseded"),
            (expired, "expired"),
            (!self.same_scopes, "scopes-changed"),
            (!self.same_allow_list, "allow-list-changed"),
            (self.expires_at <= call.renew_before.after(now), "expiring"),
        ]
        .into_iter()
        .find_map(|(applies, reason)| applies.then_some(reason))
    }
}

fn concurrent(holder: Option<Holder>) -> Columns {
    let key_id = holder.map(|holder| holder.key_id);
    [key_id.into_datum(), None, "concurrent".into_datum(), None, None]
}

/// 0 or more, and shorter than the lifetime in any month and year, or every call would rotate.
fn require_renew_before(
    renew_before: Option<Interval>,
    lifetime: Option<&Duration>,
) -> Result<Duration, Fault> {
    let renew_before = args::duration("renew_before", renew_before)?;
    if lifetime.is_some_and(|lifetime| !renew_before.is_always_shorter_than(*lifetime)) {
        let rule = "It must be shorter than lifetime, or every call would rotate.";
        return Err(Fault::new("renew_before", rule, "Ask for a longer lifetime, or renew later."));
    }
    Ok(renew_before)
}
