//! Trying again what lost a race inside Postgres: it has no row locks for its catalogs of roles and privileges.

use crate::error::Failure;
use pgrx::pg_sys::errcodes::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

const ATTEMPTS: usize = 50;

/// Runs a call, each time in a subtransaction of its own, until no race is lost. Locks of a lost attempt are
/// let go. Any other error is the caller's.
pub fn patiently<R>(call: impl Fn() -> R) -> Result<R, Failure<'static>> {
    for _ in 0..ATTEMPTS {
        match attempt(&call) {
            Ok(result) => return Ok(result),
            Err(CaughtError::PostgresError(report)) if lost_a_race(&report) => (),
            Err(error) => error.rethrow(),
        }
    }
    Err(Failure::Contended)
}

fn lost_a_race(report: &ErrorReportWithLevel) -> bool {
    let message = report.message();
    match report.sql_error_code() {
        Code::ERRCODE_T_R_DEADLOCK_DETECTED => true,
        Code::ERRCODE_UNIQUE_VIOLATION => message.contains("\"pg_"),
        Code::ERRCODE_INTERNAL_ERROR => {
            message.starts_with("tuple concurrently ") || message.starts_with("cache lookup failed for role")
        }
        _ => false,
    }
}

fn attempt<R>(call: &impl Fn() -> R) -> Result<R, CaughtError> {
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
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}
