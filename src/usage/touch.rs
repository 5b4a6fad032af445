//! touch_api_key: for servers that do not have the library from their start, and for who remembers what was verified.

use crate::api_key::require_key_id;
use crate::lock::Lock;
use crate::{clock, spi};
use keywright_core::usage::Packed;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn touch_api_key(key_id: Option<&[u8]>) -> Result<bool, ErrorReport> {
    const LIVES: &str = r#"
        SELECT revoked_at IS NULL AND expires_at > pg_catalog.clock_timestamp()
          FROM keywright.api_keys WHERE key_id = $1"#;
    // One that is dead was presented, not used.
    const FRESH: &str = r#"
        SELECT coalesce(CASE WHEN $2 THEN last_used_at ELSE last_presented_at END
                        > pg_catalog.clock_timestamp() - interval '1 minute', false)
          FROM keywright.api_key_usage WHERE key_id = $1"#;
    // Skipped when another call is writing it: it says the same.
    const TOUCH: &str = r#"
        UPDATE keywright.api_key_usage
           SET last_used_at = CASE WHEN $2 THEN greatest(last_used_at, pg_catalog.clock_timestamp()) ELSE last_used_at END,
               last_presented_at = greatest(last_presented_at, pg_catalog.clock_timestamp())
         WHERE key_id = (SELECT u.key_id FROM keywright.api_key_usage AS u WHERE u.key_id = $1 FOR UPDATE SKIP LOCKED)"#;
    const FIRST: &str = r#"
        INSERT INTO keywright.api_key_usage (key_id, last_used_at, last_presented_at)
        SELECT $1, CASE WHEN $2 THEN t.now END, t.now
          FROM (SELECT pg_catalog.clock_timestamp() AS now) AS t
        ON CONFLICT DO NOTHING"#;
    let id = require_key_id(key_id)?;
    let Some(lives) = spi::read(LIVES, &[id.into()], |row| row.must::<bool>(1)).pop() else {
        return Ok(false);
    };
    if let Some((memory, key)) = super::tracked().zip(Packed::of(id.as_bytes())) {
        memory.note(key, clock::now(), lives);
        return Ok(true);
    }
    let args = [id.into(), lives.into()];
    match spi::read(FRESH, &args, |row| row.must::<bool>(1)).pop() {
        // The lock is only ever tried: whoever has it writes the first row, and nobody waits for that.
        None if Lock::FirstTouch.attempt(id.as_bytes()) => _ = spi::count(FIRST, &args),
        None => (),
        Some(false) => _ = spi::count(TOUCH, &args),
        Some(true) => (),
    }
    Ok(true)
}

#[pg_extern(sql = false)]
fn purge_api_key_usage(batch: Option<i32>) -> Result<i64, ErrorReport> {
    const PURGE: &str = r#"
        DELETE FROM keywright.api_key_usage
         WHERE key_id IN (
           SELECT u.key_id FROM keywright.api_key_usage AS u
            WHERE NOT EXISTS (SELECT FROM keywright.api_keys AS k WHERE k.key_id = u.key_id)
            LIMIT $1 FOR UPDATE SKIP LOCKED)"#;
    let batch = crate::args::within("batch", batch, crate::api_key::MOST_PURGED)?;
    Ok(spi::count(PURGE, &[batch.into()]) as i64)
}
