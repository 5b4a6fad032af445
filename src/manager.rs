//! Whose an object is, where something ends.

use crate::args;
use crate::error::{Failure, Fault};
use crate::spi;
use keywright_core::text::Kind;

/// The manager a caller means. Null asks nothing: what an incident takes must not wait for the name of a manager. An
/// object that nobody manages is anybody's to end.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a>(Option<&'a [u8]>);

impl<'a> Claim<'a> {
    pub const NONE: Claim<'static> = Claim(None);

    pub fn of(managed_by: Option<&'a [u8]>) -> Result<Claim<'a>, Fault> {
        args::words("managed_by", Kind::Manager, managed_by).map(Claim)
    }

    /// Refuses what another manager has.
    pub fn require(
        self,
        what: impl FnOnce() -> String,
        manager: Option<Vec<u8>>,
    ) -> Result<(), Failure<'static>> {
        match (self.0, manager) {
            (Some(own), Some(manager)) if own != manager => {
                Err(Failure::NotYours { what: what(), manager: args::readable(&manager) })
            }
            _ => Ok(()),
        }
    }

    /// Runs a statement that holds what is about to end and gives its manager; refuses what another manager has. False
    /// when there is nothing any more.
    pub fn hold(
        self,
        what: impl FnOnce() -> String,
        sql: &'static str,
        args: &[spi::Arg],
    ) -> Result<bool, Failure<'static>> {
        match spi::write(sql, args, |row| row.get(1)).pop() {
            None => Ok(false),
            Some(manager) => self.require(what, manager).map(|()| true),
        }
    }
}
