//! One row by a unique index, under a snapshot of this very moment.
//!
//! No SQL is parsed and nothing is planned, so nobody's search_path, role or settings matter. The snapshot is
//! newer than that of the statement and of the transaction: what another session committed a microsecond ago
//! is seen, also inside REPEATABLE READ. Nothing is written and no transaction id is assigned.

use crate::error::Failure;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ptr::null_mut;

/// A table of ours and the unique index it is asked by.
#[derive(Debug)]
pub struct Keyed {
    pub table: &'static CStr,
    pub index: &'static CStr,
    /// The equality function of the key's type.
    pub equal: u32,
}

/// A row that was found; valid inside the closure it is given to.
#[derive(Debug)]
pub struct Row {
    slot: *mut pg_sys::TupleTableSlot,
}

impl Row {
    /// The column with this number, in the order of CREATE TABLE from 1.
    pub fn get(&self, column: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        // SAFETY: the slot holds a tuple as long as `self` is lent out, and the number is one of the table's.
        let datum = unsafe { pg_sys::slot_getattr(self.slot, column, &mut null) };
        (!null).then_some(datum)
    }

    /// A text or bytea column that is stored in line.
    pub fn bytes(&self, column: i32) -> Option<&[u8]> {
        // SAFETY: such a column is a varlena that is neither compressed nor out of line (short, or STORAGE
        // PLAIN), and the slot keeps it pinned as long as `self` is lent out.
        self.get(column).map(|datum| unsafe { pgrx::varlena::varlena_to_byte_slice(datum.cast_mut_ptr()) })
    }

    pub fn time(&self, column: i32) -> Option<pg_sys::TimestampTz> {
        self.get(column).map(|datum| datum.value() as pg_sys::TimestampTz)
    }
}

/// Asks `keyed` for `key`, under `snapshot` or, if there is none yet, a new one; `read` gets the row and the
/// snapshot it was seen under.
pub fn find<R>(
    keyed: &Keyed,
    snapshot: Option<pg_sys::Snapshot>,
    key: pg_sys::Datum,
    read: impl FnOnce(Option<&Row>, pg_sys::Snapshot) -> R,
) -> Result<R, Failure<'static>> {
    let (table_oid, index_oid) = oids(keyed)?;
    const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: table and index are opened and locked before they are read and closed after; the scan and the
    // slot end before them; on an error the transaction's resource owner releases all of it. The scan key's
    // type is that of the index (`Keyed::equal`), its collation "C" like the columns'.
    unsafe {
        let table = pg_sys::table_open(table_oid, LOCK);
        let index = pg_sys::index_open(index_oid, LOCK);
        if !(*(*index).rd_index).indisvalid {
            return Err(broken(keyed.index));
        }
        // Registered, so that it outlives the invalidation messages of a later lock.
        let fresh = snapshot
            .is_none()
            .then(|| pg_sys::RegisterSnapshot(pg_sys::GetNonHistoricCatalogSnapshot(table_oid)));
        let snapshot = snapshot.or(fresh).unwrap_or(null_mut());
        let slot = pg_sys::table_slot_create(table, null_mut());
        #[cfg(not(feature = "pg18"))]
        let scan = pg_sys::index_beginscan(table, index, snapshot, 1, 0);
        #[cfg(feature = "pg18")]
        let scan = pg_sys::index_beginscan(table, index, snapshot, null_mut(), 1, 0);
        let mut scan_key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut scan_key,
            1,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(keyed.equal),
            key,
        );
        pg_sys::index_rescan(scan, &mut scan_key, 1, null_mut(), 0);
        let found = pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot);
        let result = read(found.then_some(&Row { slot }), snapshot);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::index_endscan(scan);
        if let Some(fresh) = fresh {
            pg_sys::UnregisterSnapshot(fresh);
        }
        pg_sys::index_close(index, LOCK);
        pg_sys::table_close(table, LOCK);
        Ok(result)
    }
}

fn oids(keyed: &Keyed) -> Result<(pg_sys::Oid, pg_sys::Oid), Failure<'static>> {
    // SAFETY: plain catalogue look-ups by name.
    let (schema, table, index) = unsafe {
        let schema = pg_sys::get_namespace_oid(c"keywright".as_ptr(), true);
        (
            schema,
            pg_sys::get_relname_relid(keyed.table.as_ptr(), schema),
            pg_sys::get_relname_relid(keyed.index.as_ptr(), schema),
        )
    };
    for (oid, name) in [(schema, c"schema"), (table, keyed.table), (index, keyed.index)] {
        if oid == pg_sys::InvalidOid {
            return Err(broken(name));
        }
    }
    Ok((table, index))
}

fn broken(name: &CStr) -> Failure<'static> {
    Failure::Broken { object: format!("keywright.{}", name.to_string_lossy()) }
}

/// The wall clock: never that of the transaction's start.
pub fn now() -> pg_sys::TimestampTz {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
