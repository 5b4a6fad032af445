//! How a definition is settled: rare, so one at a time under a lock of its table.

use crate::error::Failure;
use crate::spi;

/// Something with a name that is defined once, as it is.
#[derive(Debug)]
pub struct Definition {
    pub same: bool,
    pub built_in: bool,
    pub manager: Option<String>,
}

impl Definition {
    /// True when it has to be written; nobody's is taken over by the first manager who names itself, somebody's by one
    /// who adopts it.
    fn change_needed(
        &self,
        what: &str,
        managed_by: Option<&[u8]>,
        adopt: bool,
    ) -> Result<bool, Failure<'static>> {
        let others = self.manager.as_deref().map(str::as_bytes) != managed_by;
        let claimed = others && (self.manager.is_none() || adopt) && managed_by.is_some() && !self.built_in;
        if self.same && !claimed {
            return Ok(false);
        }
        if self.built_in {
            return Err(Failure::BuiltIn { what: what.to_owned() });
        }
        match &self.manager {
            Some(manager) if others && !adopt => {
                Err(Failure::OtherManager { what: what.to_owned(), manager: manager.clone() })
            }
            _ => Ok(true),
        }
    }
}

/// Reads without a lock first, and writes only what differs.
///
/// `insert` and `update` run under the lock.
pub fn settle(
    what: &str,
    table: &str,
    managed_by: Option<&[u8]>,
    adopt: bool,
    look: impl Fn() -> Option<Definition>,
    insert: impl FnOnce() -> Result<(), Failure<'static>>,
    update: impl FnOnce() -> Result<(), Failure<'static>>,
) -> Result<&'static str, Failure<'static>> {
    if let Some(found) = look()
        && !found.change_needed(what, managed_by, adopt)?
    {
        return Ok("unchanged");
    }
    lock(table);
    match look() {
        None => insert().map(|()| "created"),
        Some(found) if found.change_needed(what, managed_by, adopt)? => update().map(|()| "updated"),
        Some(_) => Ok("unchanged"),
    }
}

/// Lets rows be referred to, and nothing else be written, until the transaction ends.
pub fn lock(table: &str) {
    spi::utility(&format!("LOCK TABLE keywright.{table} IN SHARE ROW EXCLUSIVE MODE"));
}

/// Same as wanted, built in, and by whom it is managed: the columns every definition is looked at by.
pub fn definition(row: &spi::Row) -> Definition {
    Definition { same: row.must(1), built_in: row.must(2), manager: row.get(3) }
}
