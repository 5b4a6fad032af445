//! Whom the transaction acts for: in backend memory, for as long as the transaction lasts.
//!
//! There is one at most. What was in force is forgotten before another is entered, and comes back by nothing: entered in
//! a subtransaction, a context goes when that is rolled back, and then there is none.

use super::standing::{Patience, Standing};
use crate::authority::{self, Source};
use crate::error::Failure;
use crate::own::Own;
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
    patience: Patience,
}

impl Context {
    pub fn new(key_id: String, user_id: Uuid) -> Context {
        Context { key_id, user_id, known: None, patience: Patience::default() }
    }

    /// How the key stands now; nothing when it is no longer live.
    pub fn standing(&mut self) -> Result<Option<&mut Standing>, Failure<'static>> {
        self.refresh()?;
        Ok(self.live())
    }

    /// What is remembered is used only while a new snapshot would show the same. Otherwise it is forgotten, and what
    /// the key's standing was read from instead is handed on, so that one answer is of one moment.
    fn refresh(&mut self) -> Result<Option<Source>, Failure<'static>> {
        let now = Epoch::now();
        match &self.known {
            Some((epoch, _)) if *epoch == now => Ok(None),
            _ => self.look_again().map(Some),
        }
    }

    fn look_again(&mut self) -> Result<Source, Failure<'static>> {
        if let Some((_, Some(standing))) = self.known.take() {
            self.patience = standing.patience();
        }
        let source = authority::source()?;
        self.known = Some((source.epoch(), Standing::of(&self.key_id, &source, self.patience)));
        Ok(source)
    }

    fn live(&mut self) -> Option<&mut Standing> {
        let standing = self.known.as_mut().and_then(|(_, standing)| standing.as_mut());
        standing.filter(|standing| standing.is_live())
    }

    pub fn permits(
        &mut self,
        permission: &[u8],
        kind: Option<&[u8]>,
        id: Option<&[u8]>,
    ) -> Result<bool, Failure<'static>> {
        let source = self.refresh()?;
        let Some(standing) = self.live() else { return Ok(false) };
        if let Some(answer) = standing.permits(permission, kind, id, source.as_ref())? {
            return Ok(answer);
        }
        // Somebody committed between what was remembered and the look-up of a resource.
        let source = self.look_again()?;
        let Some(standing) = self.live() else { return Ok(false) };
        Ok(standing.permits(permission, kind, id, Some(&source))?.unwrap_or(false))
    }
}

/// With the depth of subtransactions it was entered at.
static ENTERED: Own<RefCell<Option<(i32, Context)>>> = Own::new(RefCell::new(None));

pub fn enter(context: Context) {
    // SAFETY: a transaction is running.
    let depth = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    ENTERED.set(Some((depth, context)));
}

/// Also what was entered further out: it is of an earlier request, and a rollback does not bring that back.
pub fn forget() {
    ENTERED.set(None);
}

/// A context that is being asked, put back when that is done or an error unwinds.
struct Taken(Option<(i32, Context)>);

impl Drop for Taken {
    fn drop(&mut self) {
        ENTERED.set(self.0.take());
    }
}

/// Asks the context in force; nothing when there is none.
///
/// It is taken out meanwhile: a backend that is terminated while it waits ends its transaction on top of this
/// call, and must not find it borrowed.
pub fn ask<R>(
    question: impl FnOnce(&mut Context) -> Result<R, Failure<'static>>,
) -> Result<Option<R>, Failure<'static>> {
    let mut taken = Taken(ENTERED.take());
    taken.0.as_mut().map(|(_, context)| question(context)).transpose()
}

/// What is known of the context in force without asking the database.
pub fn in_force<R>(look: impl FnOnce(&Context) -> R) -> Option<R> {
    ENTERED.with_borrow(|entered| entered.as_ref().map(|(_, context)| look(context)))
}

/// Called while the library is loaded, which happens before any context is entered.
pub fn watch_transactions() {
    // SAFETY: both are called for the life of the process, with the null they are given here.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), null_mut());
    }
}

/// For the callbacks, which must never panic. Nobody borrows while Postgres runs, so it is always free.
fn with_entered(change: impl FnOnce(&mut Option<(i32, Context)>)) {
    _ = ENTERED.try_borrow_mut().map(|mut entered| change(&mut entered));
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
        with_entered(|entered| *entered = None);
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
    with_entered(|entered| match (event, &mut *entered) {
        (SUBXACT_EVENT_ABORT_SUB, Some((at, _))) if *at >= depth => *entered = None,
        (SUBXACT_EVENT_COMMIT_SUB, Some((at, _))) if *at == depth => *at = depth - 1,
        _ => (),
    });
}
