//! How many rows there are, as the planner takes it: what `keywright.metrics` says of a table too large to count.

use pgrx::{pg_extern, pg_sys};
use std::ptr::null_mut;

/// The density that was last seen by VACUUM or ANALYZE, or else guessed from the width of a row, times the pages of now.
#[pg_extern(sql = false)]
fn estimated_rows(relation: Option<pg_sys::Oid>) -> Option<f64> {
    const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    let relation = relation?;
    let (mut pages, mut rows, mut all_visible) = (0, 0.0, 0.0);
    // SAFETY: opened with the lock that reading takes, or not there; it is told what to fill in, and no widths of columns.
    unsafe {
        let relation = pg_sys::try_relation_open(relation, LOCK);
        if relation.is_null() {
            return None;
        }
        pg_sys::estimate_rel_size(relation, null_mut(), &mut pages, &mut rows, &mut all_visible);
        pg_sys::relation_close(relation, LOCK);
    }
    Some(rows)
}
