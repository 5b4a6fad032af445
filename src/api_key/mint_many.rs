//! mint_api_keys: many keys in one statement, all or none.

use super::mint::{Wanted, new_token};
use crate::args::Faults;
use crate::error::{Failure, Fault};
use crate::record::Rows;
use crate::user::{self, User};
use crate::{args, audit, clock, spi};
use keywright_core::name::Rule;
use keywright_core::token::Minted;
use pgrx::datum::{Array, Interval, Uuid};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};
use std::collections::HashMap;

const MOST: usize = 100_000;

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "those of the SQL function")]
fn mint_api_keys(
    usernames: Option<Array<&[u8]>>,
    names: Option<Array<&[u8]>>,
    scopes: Option<Array<&[u8]>>,
    allow_list: Option<Array<&[u8]>>,
    lifetime: Option<Interval>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let mut faults = Faults::default();
    let usernames = faults.sift(every("usernames", &usernames));
    let names = faults.sift(every("names", &names));
    let lifetime = args::required("lifetime", lifetime).and_then(args::lifetime);
    let wanted = faults.sift_all(Wanted::new(Ok(b""), &scopes, &allow_list, lifetime, managed_by))?;
    let (Some(usernames), Some(names), Some(wanted)) = (usernames, names, wanted) else {
        return Err(Failure::from(faults).into());
    };
    if usernames.len() != names.len() {
        let rule = format!("There are {} usernames and {} names.", usernames.len(), names.len());
        return Err(Failure::from(Fault::new("names", rule, "Give as many names as usernames.")).into());
    }
    let rows = Rows::new(fcinfo);
    if names.is_empty() {
        return Ok(rows);
    }
    let now = clock::now();
    let expires_at = wanted.expires_at(now)?;
    let users = hold(&usernames)?;
    let owners: Vec<Uuid> =
        usernames.iter().map(|username| users[&username.to_ascii_lowercase()].id).collect();
    let minted = names.iter().map(|_| new_token()).collect::<Result<Vec<_>, _>>()?;
    crate::scope::hold(&wanted.scopes)?;
    crate::scope::hold_types("allow_list", &wanted.allow_list)?;
    let all: Vec<usize> = (0..names.len()).collect();
    let batch = Batch { owners, names, minted, wanted, now, expires_at };
    if batch.insert(&all) < all.len() as u64 {
        // An expired key never blocks its name.
        let missing = batch.missing();
        batch.release_expired(&missing);
        if batch.insert(&missing) < missing.len() as u64 {
            let taken = batch.missing().first().map_or(1, |at| *at as i64 + 1);
            rows.push(&[taken.into_datum(), None, None, None, None, None]);
            return Ok(rows);
        }
    }
    for ((ordinality, minted), (username, name)) in
        (1i64..).zip(&batch.minted).zip(usernames.iter().zip(&batch.names))
    {
        rows.push(&[
            ordinality.into_datum(),
            users[&username.to_ascii_lowercase()].username.as_str().into_datum(),
            Some(spi::text_datum(name)),
            minted.public.as_str().into_datum(),
            minted.token.expose().into_datum(),
            expires_at.into_datum(),
        ]);
    }
    Ok(rows)
}

/// Every element, none of which may be null.
fn every(argument: &'static str, value: &Option<Array<&[u8]>>) -> Result<Vec<Vec<u8>>, Fault> {
    let elements = args::elements(argument, value)?;
    if elements.len() > MOST {
        let rule = format!("It has {} elements, and at most {MOST} are allowed.", elements.len());
        return Err(Fault::new(argument, rule, "Mint more keys by more calls."));
    }
    let nulls = || Fault::new(argument, "An element is null.", "Give each key its owner and its name.");
    elements.into_iter().map(|element| element.ok_or_else(nulls)).collect()
}

/// The owners by their names in lower case, each held as it is until the transaction ends.
fn hold(usernames: &[Vec<u8>]) -> Result<HashMap<Vec<u8>, User>, ErrorReport> {
    let mut users = HashMap::new();
    for username in usernames {
        let name = username.to_ascii_lowercase();
        if let std::collections::hash_map::Entry::Vacant(entry) = users.entry(name) {
            let user = entry.insert(user::find(username)?);
            user.require_active()?;
        }
    }
    // One after the other by their ids, as everybody does who holds several.
    let mut order: Vec<Vec<u8>> = users.keys().cloned().collect();
    order.sort_by_key(|name| *users[name].id.as_bytes());
    for name in order {
        let user = users[&name].hold()?;
        user.require_active()?;
        user.require_in_snapshot()?;
    }
    Ok(users)
}

struct Batch<'a> {
    owners: Vec<Uuid>,
    names: Vec<Vec<u8>>,
    minted: Vec<Minted>,
    wanted: Wanted<'a>,
    now: pg_sys::TimestampTz,
    expires_at: pg_sys::TimestampTz,
}

impl Batch<'_> {
    /// How many of these were inserted: not those whose name another key holds. In the order of their names, as everybody does,
    /// so that two who want the same do not wait for each other.
    fn insert(&self, which: &[usize]) -> u64 {
        const INSERT: &str = r#"
            INSERT INTO keywright.api_keys
                   (key_id, user_id, name, hashed_secret, scopes, allow_list, lifetime, created_at, expires_at, managed_by)
            SELECT n.key_id, n.user_id, n.name, n.hashed_secret, $5, $6, $7, $8, $9, $10
              FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bytea[]) AS n (key_id, user_id, name, hashed_secret)
             ORDER BY n.user_id, n.name COLLATE "C"
            ON CONFLICT (user_id, name) WHERE revoked_at IS NULL AND superseded_at IS NULL DO NOTHING"#;
        let digests: Vec<Vec<u8>> = which.iter().map(|at| self.minted[*at].digest.to_vec()).collect();
        let args = [
            self.ids(which).into(),
            self.owners(which).into(),
            self.names(which).into(),
            digests.into(),
            self.wanted.scopes.clone().into(),
            self.wanted.allow_list.clone().into(),
            spi::interval(self.wanted.lifetime),
            spi::time(self.now),
            spi::time(self.expires_at),
            spi::text(self.wanted.managed_by),
        ];
        audit::summed(|| spi::count_once(INSERT, &args))
    }

    fn release_expired(&self, which: &[usize]) {
        const RELEASE: &str = r#"
            WITH held AS MATERIALIZED (
              SELECT k.key_id, n.successor
                FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n (user_id, name, successor)
                JOIN keywright.api_keys AS k ON k.user_id = n.user_id AND k.name = n.name COLLATE "C"
               WHERE k.revoked_at IS NULL AND k.superseded_at IS NULL AND k.expires_at <= $4
               ORDER BY n.user_id, n.name COLLATE "C" FOR UPDATE OF k
            )
            UPDATE keywright.api_keys AS k SET superseded_at = $4, superseded_by = h.successor
              FROM held AS h WHERE k.key_id = h.key_id"#;
        let args = [
            self.owners(which).into(),
            self.names(which).into(),
            self.ids(which).into(),
            spi::time(self.now),
        ];
        spi::count_once(RELEASE, &args);
    }

    /// Those that are not there, in order.
    fn missing(&self) -> Vec<usize> {
        const MISSING: &str = r#"
            SELECT n.at FROM unnest($1::text[]) WITH ORDINALITY AS n (key_id, at)
             WHERE NOT EXISTS (SELECT FROM keywright.api_keys AS k WHERE k.key_id = n.key_id)
             ORDER BY n.at"#;
        let all: Vec<usize> = (0..self.minted.len()).collect();
        spi::read_once(MISSING, &[self.ids(&all).into()], |row| row.must::<i64>(1) as usize - 1)
    }

    fn ids(&self, which: &[usize]) -> Vec<String> {
        which.iter().map(|at| self.minted[*at].public.clone()).collect()
    }

    fn owners(&self, which: &[usize]) -> Vec<Uuid> {
        which.iter().map(|at| self.owners[*at]).collect()
    }

    /// Known to be plain ASCII.
    fn names(&self, which: &[usize]) -> Vec<String> {
        which.iter().map(|at| String::from_utf8_lossy(&self.names[*at]).into_owned()).collect()
    }
}

/// The position of the first name that breaks its rule, from 1.
#[pg_extern(sql = false)]
fn first_misnamed(names: Option<Array<&[u8]>>) -> Option<i32> {
    let at = names?.iter().position(|name| name.is_some_and(|name| Rule::ApiKeyName.check(name).is_err()))?;
    Some(at as i32 + 1)
}
