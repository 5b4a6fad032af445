//! What changed and who did it: noted in the transaction that changes it, and told to whoever listens.
//!
//! Triggers on every table do the noting, so that no function can forget it and no statement by hand escapes it.

mod event;
mod prune;
mod refusal;
mod trigger;

pub use event::note;
pub use refusal::refused;

use std::cell::Cell;

thread_local! {
    static SUMMED: Cell<bool> = const { Cell::new(false) };
}

/// Lets one event stand for all rows of a long statement, while `write` runs: for what follows another table, row by
/// row, and for what nobody could use any more.
pub fn summed<R>(write: impl FnOnce() -> R) -> R {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            SUMMED.set(self.0);
        }
    }
    let _before = Before(SUMMED.replace(true));
    write()
}
