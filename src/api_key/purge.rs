//! purge_api_keys: one bounded batch of keys that have been dead for long.

use crate::clock::Moment;
use crate::{args, audit, spi};
use pgrx::datum::Interval;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

/// Rows that go in one batch.
pub const MOST: i32 = 1_000_000;

#[pg_extern(sql = false)]
fn purge_api_keys(retention: Option<Interval>, batch: Option<i32>) -> Result<i64, ErrorReport> {
    // By place, since what is locked does not move; and by a moment that an index can be searched for.
    const BEFORE: &str = "SELECT pg_catalog.clock_timestamp() - $1";
    const EXPIRED: &str = r#"
        DELETE FROM keywright.api_keys
         WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM keywright.api_keys WHERE expires_at < $1
            ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))"#;
    const REVOKED: &str = r#"
        DELETE FROM keywright.api_keys
         WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM keywright.api_keys WHERE revoked_at < $1
            ORDER BY revoked_at LIMIT $2 FOR UPDATE SKIP LOCKED))"#;
    let retention = args::duration("retention", retention)?;
    let batch = args::within("batch", batch, MOST)?;
    let Some(before) = spi::read(BEFORE, &[retention.into()], |row| row.must::<Moment>(1)).pop() else {
        return Ok(0);
    };
    let delete = |sql, most: i64| audit::summed(|| spi::count(sql, &[spi::time(before), most.into()])) as i64;
    let batch = i64::from(batch);
    let expired = delete(EXPIRED, batch);
    let revoked = if expired < batch { delete(REVOKED, batch - expired) } else { 0 };
    Ok(expired + revoked)
}
