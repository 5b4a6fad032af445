//! Locks by name, until the transaction ends.
//!
//! Not those of pg_advisory_lock: every role that can connect may take those, and sit on them.

use crate::probe;
use pgrx::pg_sys;

/// What is locked.
#[derive(Debug, Clone, Copy)]
pub enum Lock {
    GatewayKeys = 1,
    FirstHeartbeat,
    FirstTouch,
    Access,
}

impl Lock {
    pub fn wait(self, name: &[u8]) {
        self.take(name, false);
    }

    /// False when somebody else has it.
    pub fn attempt(self, name: &[u8]) -> bool {
        self.take(name, true)
    }

    /// A lock on an object of no catalog: nothing else takes one.
    fn take(self, name: &[u8], or_not: bool) -> bool {
        let class = probe::table(c"gateway_keys");
        // SAFETY: a transaction is running. On a standby there is nothing to lock, for nothing will be written.
        unsafe {
            if pg_sys::RecoveryInProgress() {
                return true;
            }
            let tag = pg_sys::LOCKTAG {
                locktag_field1: pg_sys::MyDatabaseId.to_u32(),
                locktag_field2: class.to_u32(),
                locktag_field3: crc32fast::hash(name),
                locktag_field4: self as u16,
                locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
                locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
            };
            let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
            let taken = pg_sys::LockAcquire(&tag, mode, false, or_not);
            // What the last holder changed in the catalogs is looked at anew.
            pg_sys::AcceptInvalidationMessages();
            taken != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
        }
    }
}
