//! Whom the transaction acts for: in backend memory, for as long as the transaction lasts.
//!
//! Entered in a subtransaction, it goes when that is rolled back, and what was before is back.

use super::standing::Standing;
use crate::error::Failure;
use crate::probe::Epoch;
use pgrx::datum::Uuid;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::null_mut;

#[derive(Debug)]
pub struct Context {
    pub key_id: String,
    pub user_id: Uuid,
    /// What was found out, and in which epoch.
    known: Option<(Epoch, Option<Standing>)>,
}

impl Context {
    pub fn new(key_id: String, user_id: Uuid) -> Context {
        Context { key_id, user_id, known: None }
    }

    /// How the key stands now; nothing when it is no longer live. What is remembered is used only while a new
    /// snapshot would show the same.
    pub fn standing(&mut self) -> Result<Option<&mut Standing>, Failure<'static>> {
        let now = Epoch::now();
        if self.known.as_ref().is_none_or(|(epoch, _)| *epoch != now) {
            self.known = None;
            self.known = Some((now, Standing::of(&self.key_id)?));
        }
        let standing = self.known.as_mut().and_then(|(_, standing)| standing.as_mut());
        Ok(standing.filter(|standing| standing.is_live()))
    }
}

thread_local! {
    /// Each with the depth of subtransactions it was entered at; the last one counts.
    static ENTERED: RefCell<Vec<(i32, Context)>> = const { RefCell::new(Vec::new()) };
}

pub fn enter(context: Context) {
    // SAFETY: a transaction is running.
    let depth = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    ENTERED.with_borrow_mut(|entered| {
        entered.retain(|(at, _)| *at != depth);
        entered.push((depth, context));
    });
}

/// Asks the context in force; nothing when there is none.
pub fn ask<R>(
    question: impl FnOnce(&mut Context) -> Result<R, Failure<'static>>,
) -> Result<Option<R>, Failure<'static>> {
    ENTERED.with_borrow_mut(|entered| entered.last_mut().map(|(_, context)| question(context)).transpose())
}

/// Called while the library is loaded, which happens before any context is entered.
pub fn watch_transactions() {
    // SAFETY: both are called for the life of the process, with the null they are given here.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), null_mut());
    }
}

// SAFETY (both): Postgres calls them with the transaction's own state in order; they touch only memory of ours,
// and can not fail.
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _: *mut c_void) {
    use pg_sys::XactEvent::*;
    if matches!(
        event,
        XACT_EVENT_COMMIT
            | XACT_EVENT_ABORT
            | XACT_EVENT_PREPARE
            | XACT_EVENT_PARALLEL_COMMIT
            | XACT_EVENT_PARALLEL_ABORT
    ) {
        ENTERED.with_borrow_mut(Vec::clear);
    }
}

unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    // SAFETY: a transaction is running; during these events it is at the depth of the one that ends.
    let depth = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    ENTERED.with_borrow_mut(|entered| match event {
        SUBXACT_EVENT_ABORT_SUB => entered.retain(|(at, _)| *at < depth),
        SUBXACT_EVENT_COMMIT_SUB => {
            if entered.last().is_some_and(|(at, _)| *at == depth) {
                entered.retain(|(at, _)| *at != depth - 1);
                if let Some((at, _)) = entered.last_mut() {
                    *at = depth - 1;
                }
            }
        }
        _ => (),
    });
}
