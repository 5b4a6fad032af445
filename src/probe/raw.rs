//! Trips into Postgres: what is done together behind one guard.
//!
//! pgrx guards each call on its own, which costs as much as a call like these. Here Postgres is called as C calls it, and
//! its errors jump over the functions of this file, so none of them may hold anything that is dropped: numbers,
//! pointers and borrowed arrays only.

use super::{Epoch, LOCK, WATCHED};
use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary as guarded;
use std::ptr::null_mut;

// The bare functions behind those of `pg_sys`, with the same signatures.
unsafe extern "C-unwind" {
    fn LockRelationOid(relation: pg_sys::Oid, mode: pg_sys::LOCKMODE);
    fn UnlockRelationOid(relation: pg_sys::Oid, mode: pg_sys::LOCKMODE);
    fn RelationIdGetRelation(relation: pg_sys::Oid) -> pg_sys::Relation;
    fn IsTransactionBlock() -> bool;
    fn relation_close(relation: pg_sys::Relation, mode: pg_sys::LOCKMODE);
    fn pgstat_init_relation(relation: pg_sys::Relation);
    fn GetNonHistoricCatalogSnapshot(relation: pg_sys::Oid) -> pg_sys::Snapshot;
    fn RegisterSnapshot(snapshot: pg_sys::Snapshot) -> pg_sys::Snapshot;
    fn UnregisterSnapshot(snapshot: pg_sys::Snapshot);
    fn table_slot_create(
        relation: pg_sys::Relation,
        list: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::TupleTableSlot;
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, count: i32);
    fn ExecStorePinnedBufferHeapTuple(
        tuple: pg_sys::HeapTuple,
        slot: *mut pg_sys::TupleTableSlot,
        buffer: pg_sys::Buffer,
    ) -> *mut pg_sys::TupleTableSlot;
    fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
    fn ScanKeyInit(
        entry: pg_sys::ScanKey,
        column: pg_sys::AttrNumber,
        strategy: pg_sys::StrategyNumber,
        procedure: pg_sys::RegProcedure,
        argument: pg_sys::Datum,
    );
    #[cfg(not(feature = "pg18"))]
    fn index_beginscan(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        keys: i32,
        orders: i32,
    ) -> pg_sys::IndexScanDesc;
    #[cfg(feature = "pg18")]
    fn index_beginscan(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        instrumentation: *mut pg_sys::IndexScanInstrumentation,
        keys: i32,
        orders: i32,
    ) -> pg_sys::IndexScanDesc;
    fn index_rescan(
        scan: pg_sys::IndexScanDesc,
        keys: pg_sys::ScanKey,
        count: i32,
        orders: pg_sys::ScanKey,
        order_count: i32,
    );
    fn index_getnext_tid(
        scan: pg_sys::IndexScanDesc,
        direction: pg_sys::ScanDirection::Type,
    ) -> pg_sys::ItemPointer;
    fn index_endscan(scan: pg_sys::IndexScanDesc);
    fn PrefetchSharedBuffer(
        file: pg_sys::SMgrRelation,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
    ) -> pg_sys::PrefetchBufferResult;
    fn ReadRecentBuffer(
        file: Locator,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
        buffer: pg_sys::Buffer,
    ) -> bool;
    fn ReadBuffer(relation: pg_sys::Relation, block: pg_sys::BlockNumber) -> pg_sys::Buffer;
    fn ReleaseBuffer(buffer: pg_sys::Buffer);
    fn LockBuffer(buffer: pg_sys::Buffer, mode: i32);
    fn heap_hot_search_buffer(
        place: pg_sys::ItemPointer,
        relation: pg_sys::Relation,
        buffer: pg_sys::Buffer,
        snapshot: pg_sys::Snapshot,
        tuple: pg_sys::HeapTuple,
        all_dead: *mut bool,
        first: bool,
    ) -> bool;
}

#[cfg(feature = "pg15")]
pub type Locator = pg_sys::RelFileNode;
#[cfg(not(feature = "pg15"))]
pub type Locator = pg_sys::RelFileLocator;

/// A table that is open for look-ups, its index and the slot rows come in: null until they are needed.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    pub table: pg_sys::Relation,
    pub index: pg_sys::Relation,
    pub slot: *mut pg_sys::TupleTableSlot,
}

impl Open {
    pub const NOTHING: Open = Open { table: null_mut(), index: null_mut(), slot: null_mut() };
}

/// Locks and opens a relation; null, and no lock, when it is gone.
///
/// # Safety
/// A transaction is running.
pub unsafe fn lock(relation: pg_sys::Oid) -> pg_sys::Relation {
    // SAFETY: the caller's promise; nothing here is dropped.
    unsafe { guarded(|| lock_bare(relation)) }
}

/// As try_relation_open does, but for a look into the catalog that is not needed: a relation that is gone has no entry.
///
/// # Safety
/// As for `lock`, behind a guard.
unsafe fn lock_bare(oid: pg_sys::Oid) -> pg_sys::Relation {
    // SAFETY: the lock is taken before the relation is looked at, so what is known of it is up to date.
    unsafe {
        LockRelationOid(oid, LOCK);
        let relation = RelationIdGetRelation(oid);
        if relation.is_null() {
            UnlockRelationOid(oid, LOCK);
        } else {
            pgstat_init_relation(relation);
        }
        relation
    }
}

/// Locks and opens these tables and takes a snapshot, which is null when some table is gone or is not what it was in
/// this generation. Its epoch is read before it is registered: the copy that is registered does not tell it.
///
/// # Safety
/// A transaction is running. What was opened and taken is given to `leave`.
pub unsafe fn enter<const N: usize>(
    tables: [pg_sys::Oid; N],
    generation: u32,
) -> ([Open; N], pg_sys::Snapshot, Epoch) {
    let mut open = [Open::NOTHING; N];
    let mut snapshot = null_mut();
    let mut epoch = Epoch::NONE;
    // SAFETY: the caller's promise; nothing here is dropped. For a relation that is no catalogue this is always a new
    // snapshot, also in parallel mode and on a standby. Registered, so that it outlives later invalidation messages.
    unsafe {
        guarded(|| {
            let mut complete = true;
            for at in 0..N {
                open[at].table = lock_bare(tables[at]);
                complete &= !open[at].table.is_null();
            }
            if complete && WATCHED.generation() == generation {
                let taken = GetNonHistoricCatalogSnapshot(pg_sys::InvalidOid);
                epoch = Epoch::of(&*taken);
                snapshot = RegisterSnapshot(taken);
            }
        });
    }
    (open, snapshot, epoch)
}

/// Closes and unlocks what is open, and lets go of the snapshot if there is one. Where the transaction ends with the
/// statement, the locks are left for it to let go of, which is cheaper.
///
/// # Safety
/// All of it is from `enter` and `search`, and given here once.
pub unsafe fn leave(open: &[Open], snapshot: pg_sys::Snapshot) {
    // SAFETY: the caller's promise; nothing here is dropped.
    unsafe {
        guarded(|| {
            let unlock = if IsTransactionBlock() { LOCK } else { pg_sys::NoLock as pg_sys::LOCKMODE };
            for &Open { table, index, slot } in open {
                if !slot.is_null() {
                    ExecDropSingleTupleTableSlot(slot);
                }
                if !index.is_null() {
                    relation_close(index, unlock);
                }
                if !table.is_null() {
                    relation_close(table, unlock);
                }
            }
            if !snapshot.is_null() {
                UnregisterSnapshot(snapshot);
            }
        });
    }
}

/// # Safety
/// The relation is from `lock`.
pub unsafe fn close(relation: pg_sys::Relation) {
    // SAFETY: the caller's promise; nothing here is dropped.
    unsafe { guarded(|| relation_close(relation, LOCK)) }
}

/// A look-up: how many columns of the row are wanted, and the key.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub snapshot: pg_sys::Snapshot,
    pub columns: i32,
    pub equal: &'a [u32],
    pub key: &'a [pg_sys::Datum],
}

/// # Safety
/// As for `search`, behind a guard.
unsafe fn begin_bare(open: &mut Open, question: &Question) -> pg_sys::IndexScanDesc {
    const MOST: usize = 2;
    let mut keys = [pg_sys::ScanKeyData::default(); MOST];
    let count = question.key.len().min(MOST);
    // SAFETY: table and index are open. The keys' types are those of the index's first columns, their collation "C" like
    // the columns'; the scan copies them.
    unsafe {
        if open.slot.is_null() {
            open.slot = table_slot_create(open.table, null_mut());
        }
        #[cfg(not(feature = "pg18"))]
        let scan = index_beginscan(open.table, open.index, question.snapshot, count as i32, 0);
        #[cfg(feature = "pg18")]
        let scan = index_beginscan(open.table, open.index, question.snapshot, null_mut(), count as i32, 0);
        for (at, entry) in keys.iter_mut().enumerate().take(count) {
            ScanKeyInit(
                entry,
                at as pg_sys::AttrNumber + 1,
                pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                pg_sys::Oid::from(question.equal[at]),
                question.key[at],
            );
        }
        index_rescan(scan, keys.as_mut_ptr(), count as i32, null_mut(), 0);
        scan
    }
}

/// The next row of a scan comes into the slot, taken apart. The place is the one the index gave.
///
/// Rows are not fetched as a scan does it, which tidies up pages on its way and so writes.
///
/// # Safety
/// The scan is one of this table, behind a guard.
unsafe fn next_bare(
    scan: pg_sys::IndexScanDesc,
    open: &Open,
    snapshot: pg_sys::Snapshot,
    columns: i32,
) -> Option<pg_sys::ItemPointerData> {
    // SAFETY: the place is copied before the scan moves on; what an index points to is in the table.
    unsafe {
        loop {
            let place = index_getnext_tid(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if place.is_null() {
                return None;
            }
            let place = *place;
            let buffer = ReadBuffer(open.table, block_of(place));
            if store_bare(open, place, buffer, snapshot, columns) {
                return Some(place);
            }
        }
    }
}

fn block_of(place: pg_sys::ItemPointerData) -> pg_sys::BlockNumber {
    (u32::from(place.ip_blkid.bi_hi) << 16) | u32::from(place.ip_blkid.bi_lo)
}

/// What stands at a place, if the snapshot sees it, comes into the slot, taken apart; otherwise the page is let go of.
///
/// # Safety
/// The table is an open heap table and has as many columns, the slot is one of it, and the buffer holds the place's page, pinned.
/// Behind a guard.
unsafe fn store_bare(
    open: &Open,
    mut place: pg_sys::ItemPointerData,
    buffer: pg_sys::Buffer,
    snapshot: pg_sys::Snapshot,
    columns: i32,
) -> bool {
    // SAFETY: the row is searched for while its page is pinned and locked; the slot, one for such rows as the table is of such,
    // takes over the pin; the row's own room is in the slot.
    unsafe {
        let tuple = &raw mut (*open.slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tupdata;
        LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
        let visible =
            heap_hot_search_buffer(&mut place, open.table, buffer, snapshot, tuple, null_mut(), true);
        LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as i32);
        if visible {
            ExecStorePinnedBufferHeapTuple(tuple, open.slot, buffer);
            slot_getsomeattrs_int(open.slot, columns);
        } else {
            ReleaseBuffer(buffer);
        }
        visible
    }
}

/// Opens the index, if it is not open and is still what it was in this generation; false otherwise.
///
/// # Safety
/// A transaction is running, behind a guard.
unsafe fn open_index_bare(open: &mut Open, index: pg_sys::Oid, generation: u32) -> bool {
    if open.index.is_null() && index != pg_sys::InvalidOid {
        // SAFETY: the caller's promise.
        unsafe {
            let found = lock_bare(index);
            if WATCHED.generation() == generation {
                open.index = found;
            } else if !found.is_null() {
                relation_close(found, LOCK);
            }
        }
    }
    !open.index.is_null()
}

/// The first row with this key comes into the slot, taken apart, and stays there until the next look-up. Opens the index
/// if it is not; nothing is searched, and the index is not open, if it is not what it was in this generation.
///
/// # Safety
/// The table is open and has as many columns as are wanted; the index is a B-tree on it over types that these functions
/// compare, and has as many columns as the key has values, which are of these types.
pub unsafe fn search(
    open: &mut Open,
    index: pg_sys::Oid,
    generation: u32,
    question: Question,
) -> Option<pg_sys::ItemPointerData> {
    let mut place = None;
    // SAFETY: the caller's promise; nothing here is dropped. The slot keeps the row's page pinned when the scan has ended.
    unsafe {
        guarded(|| {
            if open_index_bare(open, index, generation) {
                let scan = begin_bare(open, &question);
                place = next_bare(scan, open, question.snapshot, question.columns);
                index_endscan(scan);
            }
        });
    }
    place
}

/// A scan for every row with this key; null, if the index is not open and not what it was.
///
/// # Safety
/// As for `search`. The scan is given to `end`.
pub unsafe fn begin(
    open: &mut Open,
    index: pg_sys::Oid,
    generation: u32,
    question: Question,
) -> pg_sys::IndexScanDesc {
    let mut scan = null_mut();
    // SAFETY: the caller's promise; nothing here is dropped.
    unsafe {
        guarded(|| {
            if open_index_bare(open, index, generation) {
                scan = begin_bare(open, &question);
            }
        });
    }
    scan
}

/// # Safety
/// The scan is from `begin`, on the same table.
pub unsafe fn next(
    scan: pg_sys::IndexScanDesc,
    open: &Open,
    snapshot: pg_sys::Snapshot,
    columns: i32,
) -> bool {
    // SAFETY: the caller's promise; nothing here is dropped.
    unsafe { guarded(|| next_bare(scan, open, snapshot, columns).is_some()) }
}

/// # Safety
/// The scan is from `begin`, and given here once.
pub unsafe fn end(scan: pg_sys::IndexScanDesc) {
    // SAFETY: the caller's promise; nothing here is dropped.
    unsafe { guarded(|| index_endscan(scan)) }
}

/// A place in a table, and the buffer that held its page.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub at: pg_sys::ItemPointerData,
    pub buffer: pg_sys::Buffer,
}

impl Place {
    pub const NOWHERE: Place = Place {
        at: pg_sys::ItemPointerData { ip_blkid: pg_sys::BlockIdData { bi_hi: 0, bi_lo: 0 }, ip_posid: 0 },
        buffer: 0,
    };
}

/// The row that stands at a place comes into the slot, taken apart, if the buffer still holds that page of that file, and
/// the snapshot sees it.
///
/// # Safety
/// The table is open, is a heap table, has as many columns, and is stored in this file.
pub unsafe fn look_again(
    open: &mut Open,
    file: Locator,
    place: &Place,
    snapshot: pg_sys::Snapshot,
    columns: i32,
) -> bool {
    // SAFETY: the caller's promise; nothing here is dropped.
    unsafe { guarded(|| look_bare(open, file, place, snapshot, columns)) }
}

/// # Safety
/// As for `look_again`, behind a guard.
unsafe fn look_bare(
    open: &mut Open,
    file: Locator,
    place: &Place,
    snapshot: pg_sys::Snapshot,
    columns: i32,
) -> bool {
    let Place { at, buffer } = *place;
    // SAFETY: the caller's promise. The buffer is pinned only if it holds that page still.
    unsafe {
        if !ReadRecentBuffer(file, pg_sys::ForkNumber::MAIN_FORKNUM, block_of(at), buffer) {
            return false;
        }
        if open.slot.is_null() {
            open.slot = table_slot_create(open.table, null_mut());
        }
        store_bare(open, at, buffer, snapshot, columns)
    }
}

/// Whatever row stands at a place that these numbers choose comes into the slot, taken apart, if its page is in memory and the
/// snapshot sees it. Where the table ended when it was last measured is all that is asked: what is behind its end by now is in
/// no buffer.
///
/// # Safety
/// As for `look_again`.
pub unsafe fn look_anywhere(
    open: &mut Open,
    file: Locator,
    (page, row): (u32, usize),
    snapshot: pg_sys::Snapshot,
    columns: i32,
) -> bool {
    // In the table's first file, which is there as long as it is.
    const PAGES: u32 = pg_sys::RELSEG_SIZE;
    // SAFETY: the caller's promise; nothing here is dropped.
    unsafe {
        guarded(|| {
            let (measured, storage) = (&*(*open.table).rd_rel, (*open.table).rd_smgr);
            let pages = u32::try_from(measured.relpages).unwrap_or(0).min(PAGES);
            let rows = measured.reltuples as usize / (measured.relpages.max(1) as usize);
            if pages == 0 || rows == 0 || storage.is_null() {
                return false;
            }
            let (block, number) = (page % pages, (row % rows) as pg_sys::OffsetNumber + 1);
            let found = PrefetchSharedBuffer(storage, pg_sys::ForkNumber::MAIN_FORKNUM, block);
            let block = pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 };
            let at = pg_sys::ItemPointerData { ip_blkid: block, ip_posid: number };
            let place = Place { at, buffer: found.recent_buffer };
            found.recent_buffer > 0 && look_bare(open, file, &place, snapshot, columns)
        })
    }
}
