//! Which step an error stopped at: nothing is half done, and whoever reads the error should know what was under way.

use crate::own::Own;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgTryBuilder};
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;

static STEP: Own<RefCell<String>> = Own::new(RefCell::new(String::new()));

/// From here on, this is under way.
pub fn at(step: impl Into<String>) {
    STEP.replace(step.into());
}

/// Runs a call whose errors name the step.
pub fn named<R>(call: impl FnOnce() -> R) -> R {
    let mut call = Some(call);
    at("looking at roles");
    PgTryBuilder::new(AssertUnwindSafe(|| call.take().map(|call| call())))
        .catch_others(|error| match error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                let step = format!("Step: {}. Nothing was changed.", STEP.take());
                let detail =
                    report.detail().map_or_else(|| step.clone(), |detail| format!("{detail}\n{step}"));
                let code = report.sql_error_code();
                let mut named =
                    ErrorReport::new(code, report.message().to_owned(), "keywright").set_detail(detail);
                if let Some(hint) = report.hint() {
                    named = named.set_hint(hint.to_owned());
                }
                named.report(PgLogLevel::ERROR);
                None
            }
            panic @ CaughtError::RustPanic { .. } => panic.rethrow(),
        })
        .execute()
        .unwrap_or_else(|| unreachable!("an error was reported"))
}
