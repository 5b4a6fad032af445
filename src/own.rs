//! What a process keeps for itself between calls.
//!
//! A backend has one thread, so a plain static is enough. A `thread_local!` is allocated by the C library at its first use, and
//! where memory has run out that ends the process.

use std::cell::RefCell;
use std::ops::Deref;

#[derive(Debug)]
pub struct Own<T>(T);

// SAFETY: Postgres calls us from one thread only, which pgrx checks at each call into it.
unsafe impl<T> Sync for Own<T> {}

impl<T> Own<T> {
    pub const fn new(value: T) -> Own<T> {
        Own(value)
    }
}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Own<RefCell<T>> {
    pub fn with_borrow<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.borrow())
    }

    pub fn with_borrow_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.borrow_mut())
    }

    pub fn set(&self, value: T) {
        self.replace(value);
    }
}
