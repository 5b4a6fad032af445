//! Trying again what lost a race: inside Postgres, which has no row locks for its catalogs of roles and privileges, or against
//! what was planned.

use crate::error::Failure;
use pgrx::pg_sys::errcodes::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

const ATTEMPTS: usize = 50;

/// A deadlock may be the caller's own, by what its transaction did before, and then trying again does not end it.
const DEADLOCKS: usize = 2;

const STALE: usize = 10;

/// Runs a call, each time in a subtransaction of its own, until no race is lost. What a lost attempt did and locked is
/// let go. Any other error is the caller's.
pub fn patiently<'a, R>(call: impl Fn() -> Result<R, Failure<'a>>) -> Result<R, Failure<'a>> {
    let (mut deadlocks, mut stale) = (0, 0);
    for _ in 0..ATTEMPTS {
        match attempt(&call) {
            Ok(Err(Failure::Contended)) => (),
            Ok(result) => return result,
            Err(CaughtError::PostgresError(report)) if lost_a_race(&report) => (),
            Err(CaughtError::PostgresError(report)) if is_deadlock(&report) && deadlocks < DEADLOCKS => {
                deadlocks += 1;
            }
            Err(CaughtError::PostgresError(report)) if is_stale(&report) && stale < STALE => stale += 1,
            Err(error) => error.rethrow(),
        }
    }
    Err(Failure::Contended)
}

/// What was looked at has changed: a role is called otherwise now, say. If it stays so, that is the error.
fn is_stale(report: &ErrorReportWithLevel) -> bool {
    [
        Code::ERRCODE_UNDEFINED_OBJECT,
        Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Code::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
    ]
    .contains(&report.sql_error_code())
}

fn is_deadlock(report: &ErrorReportWithLevel) -> bool {
    report.sql_error_code() == Code::ERRCODE_T_R_DEADLOCK_DETECTED
}

fn lost_a_race(report: &ErrorReportWithLevel) -> bool {
    let message = report.message();
    match report.sql_error_code() {
        Code::ERRCODE_UNIQUE_VIOLATION => message.contains("pg_"),
        Code::ERRCODE_INTERNAL_ERROR => {
            message.starts_with("tuple concurrently ") || message.starts_with("cache lookup failed for role")
        }
        _ => false,
    }
}

fn attempt<'a, R>(call: &impl Fn() -> Result<R, Failure<'a>>) -> Result<Result<R, Failure<'a>>, CaughtError> {
    // SAFETY: a transaction is running, and functions that come here are PARALLEL UNSAFE. Memory context and resource owner
    // are put back as they were, whichever way the subtransaction ends; an error that was caught has left
    // Postgres's error state.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(call())))
            .catch_others(Err)
            .catch_rust_panic(Err)
            .execute();
        match result {
            Ok(Ok(_)) => pg_sys::ReleaseCurrentSubTransaction(),
            Ok(Err(_)) | Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}
