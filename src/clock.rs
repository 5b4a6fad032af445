//! Moments, as microseconds of a timestamptz. The clock is the wall's, never that of the transaction's start.

use crate::own::Own;
use crate::spi;
use pgrx::datum::Interval;
use pgrx::pg_sys;
use std::cell::Cell;

pub type Moment = pg_sys::TimestampTz;

pub fn now() -> Moment {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// `interval` after `moment` by the calendar of UTC, so that the session's time zone makes no difference.
pub fn after(moment: Moment, interval: Interval) -> Moment {
    const AFTER: &str = "SELECT ($1 AT TIME ZONE 'UTC' + $2) AT TIME ZONE 'UTC'";
    spi::read(AFTER, &[spi::time(moment), interval.into()], |row| row.must(1)).pop().unwrap_or(moment)
}

static LAST_STATEMENT: Own<Cell<Moment>> = Own::new(Cell::new(0));

/// When this call began, as far as other sessions are concerned: when its statement reached the server (or
/// its transaction began, if that was later, as it is in a procedure after a COMMIT). A second call in the
/// same statement began when it was made, or a loop that tries again would never see anything new.
pub fn call_started() -> Moment {
    // SAFETY: both read the transaction's own state.
    let statement = unsafe {
        pg_sys::GetCurrentStatementStartTimestamp().max(pg_sys::GetCurrentTransactionStartTimestamp())
    };
    if LAST_STATEMENT.replace(statement) == statement { now() } else { statement }
}

/// How long a rotation waits for calls that were made at the same moment.
const GATHERING: f64 = 0.1;

/// Gives calls that were sent together with this one the time to arrive: a backend may have to wait for a
/// processor before it reads its statement. Those that arrive before the successor is there learn that they
/// competed; one that came a moment later could only take the winner for dead and rotate once more.
pub fn gather() {
    spi::read("SELECT pg_catalog.pg_sleep($1)", &[GATHERING.into()], |_| ());
}
