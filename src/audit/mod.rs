//! What changed and who did it: noted in the transaction that changes it, and told to whoever listens.
//!
//! Triggers on every table do the noting, so that no function can forget it and no statement by hand escapes it.

mod event;
mod prune;
mod refusal;
mod trigger;

pub use event::note;
pub use refusal::refused;

use crate::own::Own;
use std::cell::Cell;

static SUMMED: Own<Cell<bool>> = Own::new(Cell::new(false));
static IMPORTING: Own<Cell<bool>> = Own::new(Cell::new(false));

/// Lets one event stand for all rows of a long statement, while `write` runs: for what follows another table, row by
/// row, and for what nobody could use any more.
pub fn summed<R>(write: impl FnOnce() -> R) -> R {
    with(&SUMMED, write)
}

/// Has a key that `write` inserts noted as imported, not as minted.
pub fn importing<R>(write: impl FnOnce() -> R) -> R {
    with(&IMPORTING, write)
}

/// Puts the mark back as it was, also when an error unwinds.
fn with<R>(mark: &'static Own<Cell<bool>>, write: impl FnOnce() -> R) -> R {
    struct Before(&'static Own<Cell<bool>>, bool);
    impl Drop for Before {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _before = Before(mark, mark.replace(true));
    write()
}
