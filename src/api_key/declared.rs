//! API keys as a manifest has them, many in one statement.

use super::ensure;
use super::mint::{expiry, new_token};
use crate::error::Failure;
use crate::{clock, spi};
use keywright_core::manifest;
use keywright_core::manifest::Held;
use keywright_core::manifest::state::{ApiKey, KeyName, Owner, Verdict};
use keywright_core::secret::Secret;
use pgrx::datum::{Interval, TimestampWithTimeZone, Uuid};
use pgrx::pg_sys;

/// The keys that hold a name: those of these users, by their ids, and those of a manager.
pub fn find(users: Vec<Uuid>, manager: Option<&str>) -> Vec<(KeyName, ApiKey)> {
    const HELD: &str = r#"
        SELECT k.key_id, u.username, k.name, k.scopes, k.allow_list, k.expires_at, k.managed_by
          FROM keywright.api_keys AS k JOIN keywright.users AS u ON u.user_id = k.user_id
         WHERE k.user_id = ANY ($1) AND k.revoked_at IS NULL AND k.superseded_at IS NULL"#;
    const OWNED: &str = r#"
        SELECT k.key_id, u.username, k.name, k.scopes, k.allow_list, k.expires_at, k.managed_by
          FROM keywright.api_keys AS k JOIN keywright.users AS u ON u.user_id = k.user_id
         WHERE k.managed_by = $1 AND k.revoked_at IS NULL AND k.superseded_at IS NULL"#;
    let mut found = match users.is_empty() {
        true => Vec::new(),
        false => spi::read_once(HELD, &[users.into()], from_row),
    };
    if let Some(manager) = manager {
        found.extend(spi::read_once(OWNED, &[manager.into()], from_row));
    }
    found
}

fn from_row(row: &spi::Row) -> (KeyName, ApiKey) {
    let (username, name): (String, String) = (row.must(2), row.must(3));
    let key_name = KeyName::new(&username, &name);
    let found = ApiKey {
        id: row.must(1),
        scopes: row.must(4),
        allow_list: row.must(5),
        expires_at: row.must(6),
        owner: Owner { manager: row.get(7), built_in: false },
        username,
    };
    (key_name, found)
}

/// A manager's keys that were rotated away and still live.
pub fn in_grace(manager: &str) -> Vec<(KeyName, ApiKey)> {
    const IN_GRACE: &str = r#"
        SELECT k.key_id, u.username, k.name, k.scopes, k.allow_list, k.expires_at, k.managed_by
          FROM keywright.api_keys AS k JOIN keywright.users AS u ON u.user_id = k.user_id
         WHERE k.managed_by = $1 AND k.revoked_at IS NULL AND k.superseded_at IS NOT NULL
           AND k.expires_at > pg_catalog.clock_timestamp()"#;
    spi::read_once(IN_GRACE, &[manager.into()], from_row)
}

/// What is to be said of the token that the caller has stored.
pub fn verdict(
    entry: &manifest::ApiKey,
    held: &Held,
    started: pg_sys::TimestampTz,
) -> Result<Verdict, Failure<'static>> {
    ensure::judge(entry, held.token(), started)
}

/// A key that is to be minted.
#[derive(Debug)]
pub struct New<'a> {
    pub entry: &'a manifest::ApiKey,
    /// The key that gives up the name, and why.
    pub predecessor: Option<(String, String)>,
}

/// The tokens, in order; nothing when somebody else changed one of these keys or their owners meanwhile.
pub fn mint(keys: &[New], manager: &str) -> Result<Option<Vec<Secret>>, Failure<'static>> {
    const RETIRE: &str = r#"
        UPDATE keywright.api_keys AS k
           SET revoked_at = CASE WHEN k.expires_at > $4 THEN $4 END,
               revoke_reason = CASE WHEN k.expires_at > $4 THEN 'replaced: ' || n.reason END,
               superseded_at = $4, superseded_by = n.successor
          FROM unnest($1::text[], $2::text[], $3::text[]) AS n (key_id, successor, reason)
         WHERE k.key_id = n.key_id AND k.revoked_at IS NULL AND k.superseded_at IS NULL"#;
    const END_GRACE: &str = r#"
        UPDATE keywright.api_keys AS k
           SET revoked_at = $4, revoke_reason = 'replaced: ' || n.reason
          FROM unnest($1::text[], $2::text[], $3::text[]) AS n (username, name, reason)
          JOIN keywright.users AS u ON pg_catalog.lower(u.username) = n.username AND u.deleted_at IS NULL
         WHERE k.user_id = u.user_id AND k.name = n.name AND k.revoked_at IS NULL AND k.superseded_at IS NOT NULL
           AND k.expires_at > $4"#;
    const MINT: &str = r#"
        INSERT INTO keywright.api_keys
               (key_id, user_id, name, hashed_secret, scopes, allow_list, lifetime, created_at, expires_at, managed_by)
        SELECT n.key_id, u.user_id, n.name, n.hashed_secret, n.scopes::text[], n.allow_list::text[], n.lifetime, $8,
               n.expires_at, $9
          FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::interval[],
                      $10::timestamptz[])
               AS n (key_id, username, name, hashed_secret, scopes, allow_list, lifetime, expires_at)
          JOIN keywright.users AS u
            ON pg_catalog.lower(u.username) = n.username AND u.deleted_at IS NULL AND u.status = 'active'
        ON CONFLICT (user_id, name) WHERE revoked_at IS NULL AND superseded_at IS NULL DO NOTHING"#;
    let now = clock::now();
    let ends =
        keys.iter().map(|key| expiry(key.entry.lifetime, now)?.try_into().map_err(|_| Failure::Contended));
    let ends = ends.collect::<Result<Vec<TimestampWithTimeZone>, Failure>>()?;
    let minted = keys.iter().map(|_| new_token()).collect::<Result<Vec<_>, _>>()?;
    let text = |of: &dyn Fn(&New) -> String| -> Vec<String> { keys.iter().map(of).collect() };
    let ids: Vec<String> = minted.iter().map(|minted| minted.public.clone()).collect();
    let reason = |key: &New| key.predecessor.as_ref().map_or("replaced", |(_, reason)| reason).to_owned();
    let replaced: Vec<(&(String, String), &String)> =
        keys.iter().zip(&ids).filter_map(|(key, id)| Some((key.predecessor.as_ref()?, id))).collect();
    if !replaced.is_empty() {
        let column = |of: &dyn Fn(&(String, String)) -> String| -> Vec<String> {
            replaced.iter().map(|(predecessor, _)| of(predecessor)).collect()
        };
        let successors: Vec<String> = replaced.iter().map(|(_, id)| (*id).clone()).collect();
        let args = [
            column(&|predecessor| predecessor.0.clone()).into(),
            successors.into(),
            column(&|predecessor| predecessor.1.clone()).into(),
            spi::time(now),
        ];
        if spi::count_once(RETIRE, &args) != replaced.len() as u64 {
            return Ok(None);
        }
    }
    // Also where no key holds the name: one that was rotated away may still live.
    let args = [
        text(&|key| key.entry.username.to_ascii_lowercase()).into(),
        text(&|key| key.entry.name.clone()).into(),
        text(&reason).into(),
        spi::time(now),
    ];
    spi::count_once(END_GRACE, &args);
    let digests: Vec<Vec<u8>> = minted.iter().map(|minted| minted.digest.to_vec()).collect();
    let lifetimes: Vec<Interval> = keys.iter().map(|key| spi::as_interval(key.entry.lifetime)).collect();
    let args = [
        ids.into(),
        text(&|key| key.entry.username.to_ascii_lowercase()).into(),
        text(&|key| key.entry.name.clone()).into(),
        digests.into(),
        text(&|key| array(&key.entry.scopes)).into(),
        text(&|key| array(&key.entry.allow_list)).into(),
        lifetimes.into(),
        spi::time(now),
        manager.into(),
        ends.into(),
    ];
    if spi::count_once(MINT, &args) != keys.len() as u64 {
        return Ok(None);
    }
    Ok(Some(minted.into_iter().map(|minted| minted.token).collect()))
}

/// How Postgres writes an array of texts.
fn array(texts: &[String]) -> String {
    let quoted: Vec<String> =
        texts.iter().map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    format!("{{{}}}", quoted.join(","))
}

/// False when one was revoked or superseded meanwhile, or is another manager's by now and `others` are not to be taken over.
pub fn adopt(ids: &[String], manager: &str, others: bool) -> bool {
    const ADOPT: &str = r#"
        UPDATE keywright.api_keys SET managed_by = $2
         WHERE key_id = ANY ($1) AND revoked_at IS NULL AND superseded_at IS NULL
           AND (coalesce(managed_by, $2) = $2 OR $3)"#;
    spi::count_once(ADOPT, &[ids.to_vec().into(), manager.into(), others.into()]) == ids.len() as u64
}

/// Keys that are pruned: those that hold their name, those in their grace, and what the former superseded. False when one of
/// them is dead, rotated or another manager's by now.
pub fn revoke(holders: &[String], in_grace: &[String], manager: &str) -> bool {
    const GRACE: &str = r#"
        UPDATE keywright.api_keys AS k
           SET revoked_at = pg_catalog.clock_timestamp(), revoke_reason = 'pruned'
          FROM keywright.api_keys AS p
         WHERE p.key_id = ANY ($1) AND k.user_id = p.user_id AND k.name = p.name AND NOT k.key_id = ANY ($2)
           AND k.revoked_at IS NULL AND k.superseded_at IS NOT NULL"#;
    const REVOKE: &str = r#"
        UPDATE keywright.api_keys
           SET revoked_at = pg_catalog.clock_timestamp(), revoke_reason = 'pruned'
         WHERE (key_id = ANY ($1) AND superseded_at IS NULL OR key_id = ANY ($2)) AND revoked_at IS NULL AND managed_by = $3"#;
    const HOLD: &str = r#"
        SELECT FROM keywright.api_keys AS k
         WHERE k.revoked_at IS NULL
           AND (k.key_id = ANY ($1 || $2)
                OR EXISTS (SELECT FROM keywright.api_keys AS p
                            WHERE p.key_id = ANY ($1) AND k.user_id = p.user_id AND k.name = p.name))
         ORDER BY k.key_id FOR NO KEY UPDATE OF k"#;
    let ids: [spi::Arg; 2] = [holders.to_vec().into(), in_grace.to_vec().into()];
    // In the order in which everybody takes several keys.
    spi::write_once(HOLD, &ids, |_| ());
    spi::count_once(GRACE, &ids);
    let [a, b] = ids;
    spi::count_once(REVOKE, &[a, b, manager.into()]) == (holders.len() + in_grace.len()) as u64
}

/// Those of these scopes that a key carries, live or dead.
pub fn carried(scopes: &[String]) -> Vec<String> {
    const CARRIED: &str = r#"
        SELECT n.name FROM unnest($1::text[]) AS n (name)
         WHERE EXISTS (SELECT FROM keywright.api_keys AS k WHERE n.name = ANY (k.scopes))"#;
    spi::read_once(CARRIED, &[scopes.to_vec().into()], |row| row.must(1))
}
