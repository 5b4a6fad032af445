//! purge_api_keys: one bounded batch of keys that have been dead for long.

use crate::error::Failure;
use crate::{args, audit, clock, spi};
use pgrx::datum::Interval;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

/// Rows that go in one batch.
pub const MOST: i32 = 1_000_000;

#[pg_extern(sql = false)]
fn purge_api_keys(retention: Option<Interval>, batch: Option<i32>) -> Result<i64, ErrorReport> {
    // By place, since what is locked does not move; by a moment that an index can be searched for; and whatever that moment
    // is, nothing that lives.
    const EXPIRED: &str = r#"
        DELETE FROM keywright.api_keys
         WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM keywright.api_keys WHERE expires_at < $1 AND expires_at <= pg_catalog.clock_timestamp()
            ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))"#;
    const REVOKED: &str = r#"
        DELETE FROM keywright.api_keys
         WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM keywright.api_keys WHERE revoked_at < $1
            ORDER BY revoked_at LIMIT $2 FOR UPDATE SKIP LOCKED))"#;
    let mut faults = args::Faults::default();
    let retention = faults.sift(args::duration("retention", retention));
    let batch = faults.sift(args::within("batch", batch, MOST));
    let (Some(retention), Some(batch)) = (retention, batch) else { return Err(Failure::from(faults).into()) };
    let before = retention.before(clock::now());
    let delete = |sql, most: i64| audit::summed(|| spi::count(sql, &[spi::time(before), most.into()])) as i64;
    let batch = i64::from(batch);
    let expired = delete(EXPIRED, batch);
    let revoked = if expired < batch { delete(REVOKED, batch - expired) } else { 0 };
    Ok(expired + revoked)
}
