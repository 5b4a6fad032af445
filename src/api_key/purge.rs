//! purge_api_keys: one bounded batch of keys that have been dead for long.

use crate::{args, audit, spi};
use pgrx::datum::Interval;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

/// Rows that go in one batch.
pub const MOST: i32 = 1_000_000;

#[pg_extern(sql = false)]
fn purge_api_keys(retention: Option<Interval>, batch: Option<i32>) -> Result<i64, ErrorReport> {
    // Two lists, so that each goes by its own index; by place, since what is locked does not move.
    const PURGE: &str = r#"
        WITH expired AS MATERIALIZED (
          SELECT ctid FROM keywright.api_keys
           WHERE expires_at < pg_catalog.clock_timestamp() - $1
           ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ), revoked AS MATERIALIZED (
          SELECT ctid FROM keywright.api_keys
           WHERE revoked_at < pg_catalog.clock_timestamp() - $1
           ORDER BY revoked_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM keywright.api_keys
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM expired UNION SELECT ctid FROM revoked LIMIT $2))"#;
    let retention = args::duration("retention", retention)?;
    let batch = args::within("batch", batch, MOST)?;
    Ok(audit::summed(|| spi::count(PURGE, &[retention.into(), batch.into()])) as i64)
}
