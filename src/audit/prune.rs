//! prune_audit_events: by age, and nothing else.

use crate::{args, settings, spi};
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

const MOST: i32 = 1_000_000;

#[pg_extern(sql = false)]
fn prune_audit_events(batch: Option<i32>) -> Result<i64, ErrorReport> {
    // In hours: what a day is depends on the time zone of the session, which anyone may choose.
    const PRUNE: &str = r#"
        DELETE FROM keywright.audit_events AS e
         USING (SELECT o.occurred_at, o.event_id FROM keywright.audit_events AS o
                 WHERE o.occurred_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(hours => 24 * $1)
                 ORDER BY o.occurred_at, o.event_id LIMIT $2 FOR UPDATE SKIP LOCKED) AS d
         WHERE e.occurred_at = d.occurred_at AND e.event_id = d.event_id"#;
    let batch = args::within("batch", batch, MOST)?;
    let days = settings::audit_retention()?;
    let pruned = spi::count(PRUNE, &[days.into(), batch.into()]) as i64;
    if pruned > 0 {
        super::event::note_many("deleted", "audit_event", pruned);
    }
    Ok(pruned)
}
