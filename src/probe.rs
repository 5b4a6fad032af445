//! Rows by an index, under a snapshot of this very moment.
//!
//! No SQL is parsed and nothing is planned, so nobody's search_path, role or settings matter. The snapshot is
//! newer than that of the statement and of the transaction: what another session committed a microsecond ago
//! is seen, also inside REPEATABLE READ. Nothing is written and no transaction id is assigned.

use crate::error::Failure;
use pgrx::datum::Array;
use pgrx::{FromDatum, pg_sys};
use std::ffi::CStr;
use std::ptr::null_mut;

/// A table of ours and the index it is asked by.
#[derive(Debug)]
pub struct Keyed {
    pub table: &'static CStr,
    pub index: &'static CStr,
    /// The equality functions of the index's first columns' types: as many as it is asked by.
    pub equal: &'static [u32],
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

    /// A short text column, in an encoding that agrees with UTF-8.
    pub fn text(&self, column: i32) -> Option<&str> {
        self.bytes(column).and_then(|bytes| str::from_utf8(bytes).ok())
    }

    /// A column of type text[], however it is stored.
    pub fn texts(&self, column: i32) -> Vec<String> {
        // SAFETY: the datum is a text array; what it is converted to is owned.
        let texts: Option<Vec<Option<Vec<u8>>>> = self.get(column).and_then(|datum| unsafe {
            Array::<&[u8]>::from_polymorphic_datum(datum, false, pg_sys::TEXTOID)
                .map(|array| array.iter().map(|element| element.map(<[u8]>::to_vec)).collect())
        });
        texts.into_iter().flatten().flatten().filter_map(|bytes| String::from_utf8(bytes).ok()).collect()
    }

    pub fn time(&self, column: i32) -> Option<pg_sys::TimestampTz> {
        self.get(column).map(|datum| datum.value() as pg_sys::TimestampTz)
    }
}

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// A table that is open for look-ups.
#[derive(Debug)]
struct Open {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    equal: &'static [u32],
}

impl Open {
    fn new(keyed: &Keyed) -> Result<Open, Failure<'static>> {
        let (table, index) = oids(keyed)?;
        // SAFETY: opened and locked here, closed when the reader is dropped, or by the transaction's
        // resource owner on an error.
        unsafe {
            let table = pg_sys::table_open(table, LOCK);
            let index = pg_sys::index_open(index, LOCK);
            let slot = pg_sys::table_slot_create(table, null_mut());
            let open = Open { table, index, slot, equal: keyed.equal };
            if (*(*index).rd_index).indisvalid { Ok(open) } else { Err(broken(keyed.index)) }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // While an error unwinds, the resource owner releases everything.
        if !std::thread::panicking() {
            // SAFETY: opened in `new`, and no scan is left on them.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::index_close(self.index, LOCK);
                pg_sys::table_close(self.table, LOCK);
            }
        }
    }
}

/// Open tables and one snapshot for all look-ups in them.
#[derive(Debug)]
pub struct Reader<const N: usize> {
    snapshot: pg_sys::Snapshot,
    epoch: Epoch,
    open: [Open; N],
}

impl<const N: usize> Reader<N> {
    /// The snapshot is taken last: however long a lock had to be waited for, it is not older than the answer.
    pub fn new(tables: [&Keyed; N]) -> Result<Self, Failure<'static>> {
        let mut opened = Vec::with_capacity(N);
        for keyed in tables {
            opened.push(Open::new(keyed)?);
        }
        let open = opened.try_into().expect("as many tables as asked for");
        // SAFETY: for a relation that is no catalogue this is always a new snapshot, also in parallel mode
        // and on a standby. Registered, so that it outlives later invalidation messages.
        let (snapshot, epoch) = unsafe {
            let fresh = pg_sys::GetNonHistoricCatalogSnapshot(pg_sys::InvalidOid);
            let epoch = Epoch::of(&*fresh);
            (pg_sys::RegisterSnapshot(fresh), epoch)
        };
        Ok(Reader { snapshot, epoch, open })
    }

    /// What everything is read as of.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Asks the table with this position for the row with this key.
    pub fn find<R>(&self, table: usize, key: pg_sys::Datum, read: impl FnOnce(Option<&Row>) -> R) -> R {
        self.scan(table, [key], |found| read(found.next()))
    }

    /// Asks for the row with this key of two columns.
    pub fn find_pair<R>(
        &self,
        table: usize,
        key: [pg_sys::Datum; 2],
        read: impl FnOnce(Option<&Row>) -> R,
    ) -> R {
        self.scan(table, key, |found| read(found.next()))
    }

    /// Asks for every row with this key.
    pub fn each<const K: usize>(&self, table: usize, key: [pg_sys::Datum; K], mut read: impl FnMut(&Row)) {
        self.scan(table, key, |found| {
            while let Some(row) = found.next() {
                pgrx::check_for_interrupts!();
                read(row);
            }
        });
    }

    fn scan<const K: usize, R>(
        &self,
        table: usize,
        key: [pg_sys::Datum; K],
        read: impl FnOnce(&mut Found) -> R,
    ) -> R {
        let Open { table, index, slot, equal } = self.open[table];
        let mut scan_keys = [pg_sys::ScanKeyData::default(); K];
        // SAFETY: table, index and slot are open as long as `self` lives, and the scan ends here. The scan
        // keys' types are those of the index (`Keyed::equal`), their collation "C" like the columns'.
        unsafe {
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(table, index, self.snapshot, K as i32, 0);
            #[cfg(feature = "pg18")]
            let scan = pg_sys::index_beginscan(table, index, self.snapshot, null_mut(), K as i32, 0);
            for (at, (scan_key, key)) in scan_keys.iter_mut().zip(key).enumerate() {
                pg_sys::ScanKeyInit(
                    scan_key,
                    at as pg_sys::AttrNumber + 1,
                    pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                    pg_sys::Oid::from(equal[at]),
                    key,
                );
            }
            pg_sys::index_rescan(scan, scan_keys.as_mut_ptr(), K as i32, null_mut(), 0);
            let result = read(&mut Found { scan, row: Row { slot } });
            pg_sys::index_endscan(scan);
            result
        }
    }
}

/// The rows of a scan, one after the other.
struct Found {
    scan: pg_sys::IndexScanDesc,
    row: Row,
}

impl Found {
    fn next(&mut self) -> Option<&Row> {
        // SAFETY: `Reader::scan` lends this while the scan is open.
        let found = unsafe {
            pg_sys::index_getnext_slot(self.scan, pg_sys::ScanDirection::ForwardScanDirection, self.row.slot)
        };
        found.then_some(&self.row)
    }
}

impl<const N: usize> Drop for Reader<N> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: registered in `new`.
            unsafe { pg_sys::UnregisterSnapshot(self.snapshot) }
        }
    }
}

/// What a new snapshot would show: two epochs are equal when no transaction has ended and this one has written
/// nothing in between. That is how Postgres itself decides whether a snapshot can be taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    ended: u64,
    command: pg_sys::CommandId,
}

impl Epoch {
    pub fn now() -> Epoch {
        // SAFETY: a snapshot of this very moment, as in `Reader::new`, only looked at.
        Epoch::of(unsafe { &*pg_sys::GetNonHistoricCatalogSnapshot(pg_sys::InvalidOid) })
    }

    fn of(snapshot: &pg_sys::SnapshotData) -> Epoch {
        Epoch { ended: snapshot.snapXactCompletionCount, command: snapshot.curcid }
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
