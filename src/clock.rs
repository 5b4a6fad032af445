//! Moments, as microseconds of a timestamptz. The clock is the wall's, never that of the transaction's start.

use crate::own::Own;
use crate::spi;
use pgrx::pg_sys;
use std::cell::Cell;

pub type Moment = pg_sys::TimestampTz;

pub fn now() -> Moment {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

static LAST_STATEMENT: Own<Cell<Moment>> = Own::new(Cell::new(0));

/// When this call began, as far as other sessions are concerned: when its statement reached the server (or
/// its transaction began, if that was later, as it is in a procedure after a COMMIT). A second call in the
/// same statement began when it was made, or a loop that tries again would never see anything new.
pub fn call_started() -> Moment {
    let statement = statement_started();
    if LAST_STATEMENT.replace(statement) == statement { now() } else { statement }
}

fn statement_started() -> Moment {
    // SAFETY: both read the transaction's own state.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp().max(pg_sys::GetCurrentTransactionStartTimestamp()) }
}

/// True when a row with this xmin, made at `created_at` by another session, was not there yet when the call began. The row is
/// older than the commit that shows it, so that the moment alone would miss a commit that came just after the call began.
pub fn came_up_since(started: Moment, created_at: Moment, xmin: pg_sys::TransactionId) -> bool {
    created_at >= started || started == statement_started() && !statement_saw(xmin)
}

/// True when the transaction had committed when the snapshot of the client's statement was taken, or where no statement has
/// one of its own.
fn statement_saw(xmin: pg_sys::TransactionId) -> bool {
    // SAFETY: the portal that runs is the client's statement, and its query and snapshot live as long as it runs. An xid of a row
    // that can be seen is one of a transaction the server knows.
    unsafe {
        if pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 {
            return true;
        }
        let query = pg_sys::ActivePortal.as_ref().and_then(|portal| portal.queryDesc.as_ref());
        let snapshot = query.map_or(std::ptr::null_mut(), |query| query.snapshot);
        snapshot.is_null()
            || (*snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC
            || !pg_sys::XidInMVCCSnapshot(xmin, snapshot)
    }
}

/// How long a call that mints waits for calls that were made at the same moment.
const GATHERING: f64 = 0.1;

static GATHERED: Own<Cell<Moment>> = Own::new(Cell::new(0));

/// Gives calls that were sent together with this one the time to arrive: a backend may have to wait for a
/// processor before it reads its statement. Those that arrive before the new key is there learn that they
/// competed; one that came a moment later could only take the winner for dead and rotate once more. Where no other session is
/// connected to this database, nobody can have sent anything. Once a transaction: callers that make the same calls in
/// one statement already queue at the first key.
pub fn gather() {
    // SAFETY: reads the transaction's own state, and counts under a lock.
    let (transaction, alone) = unsafe {
        (pg_sys::GetCurrentTransactionStartTimestamp(), pg_sys::CountDBBackends(pg_sys::MyDatabaseId) <= 1)
    };
    if !alone && GATHERED.replace(transaction) != transaction {
        spi::read("SELECT pg_catalog.pg_sleep($1)", &[GATHERING.into()], |_| ());
    }
}
