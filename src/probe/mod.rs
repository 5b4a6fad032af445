//! Rows by an index, under a snapshot of this very moment.
//!
//! No SQL is parsed and nothing is planned, so nobody's search_path, role or settings matter. The snapshot is
//! newer than that of the statement and of the transaction: what another session committed a microsecond ago
//! is seen, also inside REPEATABLE READ. Nothing is written and no transaction id is assigned.
//!
//! Two things are remembered between calls, and neither can make an answer wrong: where tables and indexes are
//! (`Keyed`), which Postgres tells us to forget when one of them changes, and where rows were last found
//! (`Hint`), which are looked at there again under the snapshot of the call, or else searched for.

mod raw;

use crate::error::Failure;
use crate::own::Own;
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{FromDatum, PgLogLevel, pg_sys};
use raw::{Locator, Open, Place};
use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicUsize};

/// A table of ours and the index it is asked by.
#[derive(Debug)]
pub struct Keyed {
    table: &'static CStr,
    index: &'static CStr,
    /// The equality functions of the index's first columns' types: as many as it is asked by.
    equal: &'static [u32],
    /// The types of the table's first columns: as many as are read.
    columns: &'static [pg_sys::Oid],
    /// The column that a row is found again by, where it was found last time; 0 for a table whose rows are too many to
    /// remember places of.
    again_by: i32,
    known: Known,
}

/// Where table and index are, as of a generation of `WATCHED`.
#[derive(Debug)]
struct Known {
    generation: AtomicU32,
    table: AtomicU32,
    index: AtomicU32,
}

impl Keyed {
    pub const fn new(
        table: &'static CStr,
        index: &'static CStr,
        equal: &'static [u32],
        columns: &'static [pg_sys::Oid],
    ) -> Keyed {
        let known =
            Known { generation: AtomicU32::new(0), table: AtomicU32::new(0), index: AtomicU32::new(0) };
        Keyed { table, index, equal, columns, again_by: 0, known }
    }

    fn columns(&self) -> i32 {
        self.columns.len() as i32
    }

    /// Where the table is, if that is known in this generation; then the index is as well.
    fn known(&self, generation: u32) -> Option<pg_sys::Oid> {
        let is_known = self.known.generation.load(Relaxed) == generation;
        is_known.then(|| pg_sys::Oid::from(self.known.table.load(Relaxed)))
    }

    fn known_index(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.known.index.load(Relaxed))
    }

    /// Finds out where table and index are, by their names. Nothing is known afterwards if they move meanwhile.
    fn learn(&self) -> Result<(), Failure<'static>> {
        let generation = WATCHED.generation();
        let table = named(self.table)?;
        let Some(locked) = Locked::new(table) else { return Ok(()) };
        if WATCHED.generation() == generation {
            self.require_columns(locked.0)?;
            let Some(index) = self.find_index(locked.0)? else { return Ok(()) };
            self.known.table.store(table.to_u32(), Relaxed);
            self.known.index.store(index.to_u32(), Relaxed);
            self.known.generation.store(generation, Relaxed);
        }
        Ok(())
    }

    /// Columns are read by number, without asking what they are. Places are remembered of a heap table only.
    fn require_columns(&self, table: pg_sys::Relation) -> Result<(), Failure<'static>> {
        // SAFETY: an open table, and its descriptor.
        let fits = unsafe {
            let shape = (*table).rd_att;
            (*(*table).rd_rel).relam == pg_sys::HEAP_TABLE_AM_OID
                && (*shape).natts >= self.columns()
                && (1..).zip(self.columns).all(|(number, oid)| pg_sys::SPI_gettypeid(shape, number) == *oid)
        };
        if fits { Ok(()) } else { Err(broken(self.table)) }
    }

    /// The index of this name: a B-tree on this table that begins with columns of the types it is asked by, and is complete.
    /// Nothing when another one takes its place at this moment.
    fn find_index(&self, table: pg_sys::Relation) -> Result<Option<pg_sys::Oid>, Failure<'static>> {
        let generation = WATCHED.generation();
        let oid = named(self.index)?;
        let Some(locked) = Locked::new(oid) else { return Ok(None) };
        // SAFETY: an open relation; what is asked of an index is asked once it is known to be one.
        let serves = unsafe {
            let index = &*locked.0;
            (*index.rd_rel).relkind == pg_sys::RELKIND_INDEX as i8
                && (*index.rd_rel).relam == pg_sys::BTREE_AM_OID
                && (*index.rd_index).indrelid == (*table).rd_id
                && (*index.rd_index).indisvalid
                && (*index.rd_att).natts as usize >= self.equal.len()
                && (1..).zip(self.equal).all(|(number, equal)| {
                    pg_sys::SPI_gettypeid(index.rd_att, number) == type_compared_by(*equal)
                })
        };
        match serves {
            true => Ok(Some(oid)),
            // Rebuilt CONCURRENTLY: the name was the old one's when it was looked up.
            false if WATCHED.generation() != generation => Ok(None),
            false => Err(broken(self.index)),
        }
    }

    /// For a table of which the same few rows are asked again and again, by one column.
    pub const fn again_by(mut self, column: i32) -> Keyed {
        self.again_by = column;
        self
    }
}

/// The relations whose places are known. Postgres backends have one thread.
struct Watched {
    generation: AtomicU32,
    count: AtomicUsize,
    relations: [AtomicU32; 32],
}

static WATCHED: Watched = Watched {
    generation: AtomicU32::new(1),
    count: AtomicUsize::new(0),
    relations: [const { AtomicU32::new(0) }; 32],
};

impl Watched {
    fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    fn watch(&self, relation: pg_sys::Oid) {
        let count = self.count.load(Relaxed);
        let relation = relation.to_u32();
        if self.relations[..count].iter().any(|known| known.load(Relaxed) == relation) {
            return;
        }
        if count == self.relations.len() {
            self.forget();
            return;
        }
        self.relations[count].store(relation, Relaxed);
        self.count.store(count + 1, Relaxed);
    }

    fn has(&self, relation: pg_sys::Oid) -> bool {
        let relation = relation.to_u32();
        self.relations[..self.count.load(Relaxed)].iter().any(|known| known.load(Relaxed) == relation)
    }

    fn forget(&self) {
        self.count.store(0, Relaxed);
        // Generation 0 is that of what was never known.
        let next = self.generation().wrapping_add(1).max(1);
        self.generation.store(next, Relaxed);
    }
}

/// Called once, while the library is loaded.
pub fn watch_relations() {
    // SAFETY: both are called for the life of the process, with the null they are given here.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(at_relation_change), pg_sys::Datum::null());
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(at_schema_change), pg_sys::Datum::null());
    }
}

/// A relation was dropped, renamed, rewritten, reindexed or moved, in this session or in another; or any may have been.
// SAFETY (both): they touch only memory of ours, and can not fail.
unsafe extern "C-unwind" fn at_relation_change(_: pg_sys::Datum, relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid || WATCHED.has(relation) {
        WATCHED.forget();
    }
}

unsafe extern "C-unwind" fn at_schema_change(_: pg_sys::Datum, _: i32, _: u32) {
    WATCHED.forget();
}

/// A row that was found; valid inside the closure it is given to.
#[derive(Debug)]
pub struct Row {
    slot: *mut pg_sys::TupleTableSlot,
    columns: usize,
}

impl Row {
    /// The column with this number, in the order of CREATE TABLE from 1; one of `Keyed::columns`.
    pub fn get(&self, column: i32) -> Option<pg_sys::Datum> {
        let at = column as usize - 1;
        assert!(at < self.columns, "a column that is read");
        // SAFETY: the slot holds a row as long as `self` is lent out, taken apart into as many columns.
        unsafe {
            let slot = &*self.slot;
            (!*slot.tts_isnull.add(at)).then(|| *slot.tts_values.add(at))
        }
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

/// So often it is looked again for what others keep moving.
const ATTEMPTS: usize = 1000;

/// A relation that is watched, locked and open.
struct Locked(pg_sys::Relation);

impl Locked {
    /// Nothing when it is gone.
    fn new(oid: pg_sys::Oid) -> Option<Locked> {
        WATCHED.watch(oid);
        // SAFETY: a transaction is running; closed when this is dropped.
        let relation = unsafe { raw::lock(oid) };
        if relation.is_null() {
            WATCHED.forget();
            return None;
        }
        Some(Locked(relation))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // While an error unwinds, the resource owner releases everything.
        if !std::thread::panicking() {
            // SAFETY: from `new`.
            unsafe { raw::close(self.0) }
        }
    }
}

/// Open tables and one snapshot for all look-ups in them.
#[derive(Debug)]
pub struct Reader<const N: usize> {
    snapshot: pg_sys::Snapshot,
    epoch: Epoch,
    generation: u32,
    tables: [&'static Keyed; N],
    open: RefCell<[Open; N]>,
}

impl<const N: usize> Reader<N> {
    /// The snapshot is taken when every table is locked: one that is rewritten meanwhile would hide its rows from an
    /// older one.
    pub fn new(tables: [&'static Keyed; N]) -> Result<Self, Failure<'static>> {
        for _ in 0..ATTEMPTS {
            let generation = WATCHED.generation();
            let known = tables.map(|keyed| keyed.known(generation));
            if let Some(unknown) = known.iter().position(Option::is_none) {
                tables[unknown].learn()?;
                continue;
            }
            let oids = known.map(|oid| oid.unwrap_or(pg_sys::InvalidOid));
            // SAFETY: a transaction is running; all of it is let go below, or when this is dropped.
            let (open, snapshot, epoch) = unsafe { raw::enter(oids, generation) };
            let reader = Reader { snapshot, epoch, generation, tables, open: RefCell::new(open) };
            if !snapshot.is_null() {
                return Ok(reader);
            }
            WATCHED.forget();
        }
        Err(broken(tables[0].table))
    }

    /// What everything is read as of.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Asks the table with this position for the row with this key. There is room for one row of a table at a time.
    pub fn find<R>(&self, table: usize, key: pg_sys::Datum, read: impl FnOnce(Option<&Row>) -> R) -> R {
        let found = match self.tables[table].again_by {
            0 => self.search(table, &[key]).is_some(),
            column => self.search_again(table, key, column),
        };
        read(found.then(|| self.row(table)).as_ref())
    }

    /// Asks for the row with this key; when there is none, for any other, which takes as long: no row that was read just now, if
    /// possible, as that would be quicker. Tells whether it is the one.
    /// For one table only.
    pub fn find_or_other<R>(
        &self,
        table: usize,
        key: pg_sys::Datum,
        read: impl FnOnce(Option<&Row>, bool) -> R,
    ) -> R {
        let found = self.search(table, &[key]);
        let there = match found {
            Some(at) => {
                Seen::remember(self.place(table, at));
                true
            }
            None => self.fetch_other(table, key),
        };
        read(there.then(|| self.row(table)).as_ref(), found.is_some())
    }

    fn fetch_other(&self, table: usize, key: pg_sys::Datum) -> bool {
        let keyed = self.tables[table];
        let (number, page) = Hint::asked(keyed, key);
        {
            let open = &mut self.open.borrow_mut()[table];
            let (file, columns) = (locator(open.table), keyed.columns());
            // SAFETY: a heap table, open, that has the columns.
            if unsafe { raw::look_anywhere(open, file, (page, number), self.snapshot, columns) } {
                return true;
            }
        }
        if let Some(place) = Seen::any(number) {
            let open = &mut self.open.borrow_mut()[table];
            // SAFETY: a heap table, open, that has the columns.
            let is_there =
                unsafe { raw::look_again(open, locator(open.table), &place, self.snapshot, keyed.columns()) };
            if is_there {
                return true;
            }
        }
        // The first of all, but not again and again: there may be many dead ones before it.
        let first = if Seen::begin() { self.search(table, &[]) } else { None };
        if let Some(at) = first {
            Seen::remember(self.place(table, at));
        }
        first.is_some()
    }

    /// Asks for the row with this key of two columns.
    pub fn find_pair<R>(
        &self,
        table: usize,
        key: [pg_sys::Datum; 2],
        read: impl FnOnce(Option<&Row>) -> R,
    ) -> R {
        let found = self.search(table, &key).is_some();
        read(found.then(|| self.row(table)).as_ref())
    }

    /// Asks for every row with this key.
    pub fn each<const K: usize>(&self, table: usize, key: [pg_sys::Datum; K], mut read: impl FnMut(&Row)) {
        let (keyed, question) = (self.tables[table], self.question(table, &key));
        // SAFETY: open as long as `self` lives, with a key of the index's types; the scan ends here.
        unsafe {
            let (scan, open) = {
                let open = &mut self.open.borrow_mut()[table];
                let mut scan = raw::begin(open, keyed.known_index(), self.generation, question);
                if scan.is_null() {
                    self.open_index(keyed, open);
                    scan = raw::begin(open, pg_sys::InvalidOid, self.generation, question);
                }
                (scan, *open)
            };
            let row = Row { slot: open.slot, columns: keyed.columns.len() };
            while raw::next(scan, &open, self.snapshot, keyed.columns()) {
                pgrx::check_for_interrupts!();
                read(&row);
            }
            raw::end(scan);
        }
    }

    fn question<'a>(&self, table: usize, key: &'a [pg_sys::Datum]) -> raw::Question<'a> {
        let keyed = self.tables[table];
        raw::Question { snapshot: self.snapshot, columns: keyed.columns(), equal: keyed.equal, key }
    }

    /// The place where the index says the row is, which is in the table's slot then.
    fn search(&self, table: usize, key: &[pg_sys::Datum]) -> Option<pg_sys::ItemPointerData> {
        let (keyed, question) = (self.tables[table], self.question(table, key));
        let open = &mut self.open.borrow_mut()[table];
        // SAFETY: the table is open and has the columns, the index those of the key (`Keyed::learn`).
        unsafe {
            let place = raw::search(open, keyed.known_index(), self.generation, question);
            if !open.index.is_null() {
                return place;
            }
            self.open_index(keyed, open);
            raw::search(open, pg_sys::InvalidOid, self.generation, question)
        }
    }

    /// Opens the index that has the name now, after something moved. The table is locked, so it stays, and with it any index
    /// that was complete: who rebuilds or drops one CONCURRENTLY waits for all who hold the table.
    fn open_index(&self, keyed: &'static Keyed, open: &mut Open) {
        for _ in 0..ATTEMPTS {
            let generation = WATCHED.generation();
            let found = keyed.find_index(open.table).unwrap_or_else(|failure| raise(failure));
            let Some(oid) = found else { continue };
            // SAFETY: a transaction is running; closed by `raw::leave`, or right here.
            unsafe {
                let index = raw::lock(oid);
                if !index.is_null() && WATCHED.generation() == generation {
                    open.index = index;
                    return;
                }
                if !index.is_null() {
                    raw::close(index);
                }
            }
        }
        raise(broken(keyed.index))
    }

    /// As `search`, but looks first where the row was last time.
    fn search_again(&self, table: usize, key: pg_sys::Datum, column: i32) -> bool {
        let keyed = self.tables[table];
        let is_it =
            |row: &Row| row.get(column).is_some_and(|found| bytes_of(keyed, found) == bytes_of(keyed, key));
        if let Some(place) = Hint::of(keyed, key) {
            let open = &mut self.open.borrow_mut()[table];
            // SAFETY: a heap table, open, that has the columns.
            let is_there =
                unsafe { raw::look_again(open, locator(open.table), &place, self.snapshot, keyed.columns()) };
            if is_there && is_it(&Row { slot: open.slot, columns: keyed.columns.len() }) {
                return true;
            }
        }
        let Some(at) = self.search(table, &[key]) else { return false };
        Hint::remember(keyed, key, self.place(table, at));
        true
    }

    /// Where the row in the slot was found.
    fn place(&self, table: usize, at: pg_sys::ItemPointerData) -> Place {
        // SAFETY: the slot holds a row of a heap table, and so knows the buffer.
        let buffer = unsafe {
            let slot = self.open.borrow()[table].slot;
            (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).buffer
        };
        Place { at, buffer }
    }

    fn row(&self, table: usize) -> Row {
        Row { slot: self.open.borrow()[table].slot, columns: self.tables[table].columns.len() }
    }
}

impl<const N: usize> Drop for Reader<N> {
    fn drop(&mut self) {
        // While an error unwinds, the resource owner releases everything.
        if !std::thread::panicking() {
            // SAFETY: from `new` and what came after it, and nothing is used any more.
            unsafe { raw::leave(self.open.get_mut(), self.snapshot) }
        }
    }
}

/// Where a row was last found.
///
/// It is believed in nothing: the page must still be in that buffer, what stands there visible to the snapshot of the
/// call, and its key the one that is asked for. There is but one such row, so it is the one. Otherwise the index is asked.
#[derive(Debug, Clone, Copy)]
struct Hint {
    /// Some bits of table and key. Two may share them: then they forget each other.
    asked: u32,
    place: Place,
}

/// 1 MB a backend, of which only what is used is ever touched.
const HINTS: usize = 1 << 16;

static HINT: Own<[Cell<Hint>; HINTS]> =
    Own::new([const { Cell::new(Hint { asked: 0, place: Place::NOWHERE }) }; HINTS]);

impl Hint {
    fn of(keyed: &Keyed, key: pg_sys::Datum) -> Option<Place> {
        let (at, asked) = Self::asked(keyed, key);
        let hint = HINT[at].get();
        (hint.asked == asked && hint.place.buffer > 0).then_some(hint.place)
    }

    fn remember(keyed: &Keyed, key: pg_sys::Datum, place: Place) {
        let (at, asked) = Self::asked(keyed, key);
        HINT[at].set(Hint { asked, place });
    }

    fn asked(keyed: &Keyed, key: pg_sys::Datum) -> (usize, u32) {
        let seed = u64::from(keyed.known.table.load(Relaxed));
        let hash = bytes_of(keyed, key).chunks(8).fold(seed, |sum, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            (sum.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95)
        });
        ((hash >> 48) as usize % HINTS, (hash >> 16) as u32)
    }
}

/// Places of the rows that `find_or_other` found last: whatever stands there stands for a row that does not exist.
struct Seen {
    begun: Cell<usize>,
    count: Cell<usize>,
    places: [Cell<Place>; Seen::MOST],
}

static SEEN: Own<Seen> = Own::new(Seen {
    begun: Cell::new(0),
    count: Cell::new(0),
    places: [const { Cell::new(Place::NOWHERE) }; Seen::MOST],
});

impl Seen {
    const MOST: usize = 256;
    const BEGINNINGS: usize = 10;

    /// In place of all, when there were none that are there still.
    fn begin() -> bool {
        SEEN.count.set(0);
        SEEN.begun.set(SEEN.begun.get().saturating_add(1));
        SEEN.begun.get() <= Self::BEGINNINGS
    }

    fn remember(place: Place) {
        let count = SEEN.count.get();
        SEEN.places[count % Self::MOST].set(place);
        SEEN.count.set(count.wrapping_add(1).max(1));
    }

    /// One of them, by a number that has nothing to do with them.
    fn any(number: usize) -> Option<Place> {
        let count = SEEN.count.get().min(Self::MOST);
        (count > 0).then(|| SEEN.places[number % count].get())
    }
}

fn locator(table: pg_sys::Relation) -> Locator {
    // SAFETY: an open table.
    unsafe {
        #[cfg(feature = "pg15")]
        return (*table).rd_node;
        #[cfg(not(feature = "pg15"))]
        return (*table).rd_locator;
    }
}

/// The bytes two keys have in common if and only if they are equal: a uuid's, or a text's in the collation "C".
fn bytes_of(keyed: &Keyed, key: pg_sys::Datum) -> &'static [u8] {
    // SAFETY: a value of the type that the index is asked by: a uuid has 16 bytes; a text that is a key is in line. It is
    // only looked at, while both keys are there.
    unsafe {
        match keyed.equal[0] {
            pg_sys::F_UUID_EQ => std::slice::from_raw_parts(key.cast_mut_ptr::<u8>(), 16),
            _ => pgrx::varlena::varlena_to_byte_slice(key.cast_mut_ptr()),
        }
    }
}

fn type_compared_by(equal: u32) -> pg_sys::Oid {
    match equal {
        pg_sys::F_UUID_EQ => pg_sys::UUIDOID,
        _ => pg_sys::TEXTOID,
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
    const NONE: Epoch = Epoch { ended: 0, command: 0 };

    pub fn now() -> Epoch {
        // SAFETY: a snapshot of this very moment, as in `Reader::new`, only looked at.
        Epoch::of(unsafe { &*pg_sys::GetNonHistoricCatalogSnapshot(pg_sys::InvalidOid) })
    }

    /// Of a snapshot as it was taken. Postgres keeps the count where it may take the same one again, and sets it to 0 in a copy.
    fn of(snapshot: &pg_sys::SnapshotData) -> Epoch {
        debug_assert_ne!(snapshot.snapXactCompletionCount, 0, "a snapshot that is no copy");
        Epoch { ended: snapshot.snapXactCompletionCount, command: snapshot.curcid }
    }
}

/// A table of ours, by its name.
pub fn table(name: &CStr) -> pg_sys::Oid {
    named(name).unwrap_or_else(|failure| raise(failure))
}

fn named(name: &CStr) -> Result<pg_sys::Oid, Failure<'static>> {
    // SAFETY: plain catalogue look-ups by name.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c"keywright".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    if oid == pg_sys::InvalidOid { Err(broken(name)) } else { Ok(oid) }
}

/// For where an error can not be handed on.
fn raise(failure: Failure) -> ! {
    ErrorReport::from(failure).report(PgLogLevel::ERROR);
    unreachable!("an error was raised")
}

fn broken(name: &CStr) -> Failure<'static> {
    Failure::Broken { object: format!("keywright.{}", name.to_string_lossy()) }
}
