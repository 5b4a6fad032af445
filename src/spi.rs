//! Our own statements: constant text, bound arguments, plans kept for the life of the session.
//!
//! Both kinds run under a snapshot of this moment, so that a function called inside REPEATABLE READ decides
//! on what is, not on what was when the transaction began.

use crate::error::Failure;
use crate::own::Own;
use keywright_core::duration::Duration;
use pgrx::datum::{DatumWithOid, Interval};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{FromDatum, IntoDatum, PgBuiltInOids, PgLogLevel, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{null, null_mut};

pub type Arg<'a> = DatumWithOid<'a>;

static PLANS: Own<RefCell<BTreeMap<&'static str, pg_sys::SPIPlanPtr>>> =
    Own::new(RefCell::new(BTreeMap::new()));
static WRITING: Own<Cell<bool>> = Own::new(Cell::new(false));

/// True while one of our own statements writes. Triggers that refuse writes by hand ask this.
pub fn writing() -> bool {
    WRITING.get()
}

/// Sets the mark and puts the earlier one back, also when an error unwinds.
struct Mark(bool);

impl Mark {
    fn set(to: bool) -> Mark {
        Mark(WRITING.replace(to))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        WRITING.set(self.0);
    }
}

/// A plan is kept while the tables grow: one that was made when they were small must not be to read all of them. Kept statements look
/// rows up, or read tables that stay small.
struct ByIndex {
    enable_seqscan: bool,
    jit_enabled: bool,
}

impl ByIndex {
    fn plan() -> ByIndex {
        // SAFETY: settings of this process, which has a single thread, put back when this is dropped, also when an error unwinds.
        unsafe {
            let before = ByIndex { enable_seqscan: pg_sys::enable_seqscan, jit_enabled: pg_sys::jit_enabled };
            pg_sys::enable_seqscan = false;
            // What there is no index for looks dear then, so dear that it would be compiled.
            pg_sys::jit_enabled = false;
            before
        }
    }
}

impl Drop for ByIndex {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            pg_sys::enable_seqscan = self.enable_seqscan;
            pg_sys::jit_enabled = self.jit_enabled;
        }
    }
}

/// A row of a result; columns count from 1.
#[derive(Debug)]
pub struct Row {
    types: Vec<pg_sys::Oid>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Row {
    pub fn get<T: FromDatum + IntoDatum>(&self, column: i32) -> Option<T> {
        let at = column as usize - 1;
        require(T::type_oid(), self.types[at]);
        // SAFETY: a value of the SPI result, of a type that is read so, which lives while rows are read. `T` is always an owned
        // type, so nothing outlives it.
        unsafe { T::from_datum(self.values[at], self.nulls[at]) }
    }

    /// A column that is never null.
    pub fn must<T: FromDatum + IntoDatum>(&self, column: i32) -> T {
        self.get(column).expect("column declared NOT NULL")
    }
}

/// A column of ours may have got another type by hand.
fn require(wanted: pg_sys::Oid, found: pg_sys::Oid) {
    let fits = wanted == found
        || matches!(
            (wanted, found),
            (pg_sys::BYTEAOID, pg_sys::TEXTOID)
                | (pg_sys::BYTEAARRAYOID, pg_sys::TEXTARRAYOID)
                | (pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID)
                | (pg_sys::OIDOID, pg_sys::REGROLEOID | pg_sys::REGCLASSOID | pg_sys::REGPROCEDUREOID)
        );
    if !fits {
        let object = format!("a column of the type {}", type_name(wanted));
        ErrorReport::from(Failure::Broken { object }).report(PgLogLevel::ERROR);
    }
}

fn type_name(oid: pg_sys::Oid) -> String {
    // SAFETY: a C string in the memory of the call, also for what is no type.
    unsafe { CStr::from_ptr(pg_sys::format_type_be(oid)) }.to_string_lossy().into_owned()
}

/// Text in whatever encoding the database has.
pub fn text<'a>(bytes: impl Into<Option<&'a [u8]>>) -> Arg<'a> {
    let bytes: Option<&[u8]> = bytes.into();
    // SAFETY: text and bytea are the same varlena.
    unsafe { DatumWithOid::new(bytes, PgBuiltInOids::TEXTOID.value()) }
}

/// As `text`, for bytes that do not live as long as the statement. They are copied into the memory of the call.
pub fn owned_text(bytes: &[u8]) -> Arg<'static> {
    // SAFETY: text and bytea are the same varlena.
    unsafe { DatumWithOid::new(bytes.to_vec(), PgBuiltInOids::TEXTOID.value()) }
}

/// A moment, as `clock::now` gives it.
pub fn time<'a>(moment: impl Into<Option<pg_sys::TimestampTz>>) -> Arg<'a> {
    // SAFETY: timestamptz is passed by value as the same 64-bit number.
    unsafe { DatumWithOid::new(moment.into(), PgBuiltInOids::TIMESTAMPTZOID.value()) }
}

pub fn interval<'a>(duration: Duration) -> Arg<'a> {
    as_interval(duration).into()
}

pub fn as_interval(duration: Duration) -> Interval {
    let (months, days, micros) = duration.parts();
    Interval::new(months, days, micros).unwrap_or_else(|_| unreachable!("no part is negative"))
}

/// Runs a statement that only reads. Writes nothing and takes no row lock.
pub fn read<T>(sql: &'static str, args: &[Arg], each: impl FnMut(&Row) -> T) -> Vec<T> {
    execute(sql, args, true, each)
}

/// True when a statement finds a row under the snapshot of the transaction. Always true in READ COMMITTED,
/// where there is no such thing, and nothing is asked.
pub fn read_in_transaction_snapshot(sql: &'static str, args: &[Arg]) -> bool {
    // SAFETY: the isolation level of the transaction; its snapshot has been taken, or is taken now.
    let snapshot = unsafe {
        if pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as i32 {
            return true;
        }
        pg_sys::GetTransactionSnapshot()
    };
    let mut found = 0;
    let _plans = ByIndex::plan();
    run(kept_plan(sql, args), args, snapshot, true, |rows, _| found = rows);
    found > 0
}

/// Runs a statement that writes or locks.
pub fn write<T>(sql: &'static str, args: &[Arg], each: impl FnMut(&Row) -> T) -> Vec<T> {
    let _mark = Mark::set(true);
    execute(sql, args, false, each)
}

/// Runs a statement that writes, for the number of rows it touched.
pub fn count(sql: &'static str, args: &[Arg]) -> u64 {
    let _mark = Mark::set(true);
    let mut touched = 0;
    let _plans = ByIndex::plan();
    run(kept_plan(sql, args), args, latest(), false, |processed, _| touched = processed);
    touched
}

/// As `read`, planned for this call: for lists of any length, and statements put together with quoted
/// identifiers. Sees what the command that is running has written.
pub fn read_once<T>(
    sql: &(impl AsRef<[u8]> + ?Sized),
    args: &[Arg],
    mut each: impl FnMut(&Row) -> T,
) -> Vec<T> {
    let mut rows = Vec::new();
    run(
        || prepare(sql, &types(args)),
        args,
        latest(),
        false,
        |_, table| collect(table, &mut each, &mut rows),
    );
    rows
}

/// As `write`, planned for this call.
pub fn write_once<T>(sql: &str, args: &[Arg], each: impl FnMut(&Row) -> T) -> Vec<T> {
    let _mark = Mark::set(true);
    read_once(sql, args, each)
}

/// As `count`, planned for this call.
pub fn count_once(sql: &str, args: &[Arg]) -> u64 {
    let _mark = Mark::set(true);
    let mut touched = 0;
    run(|| prepare(sql, &types(args)), args, latest(), false, |processed, _| touched = processed);
    touched
}

/// As `write`, for a statement that names the transition tables of the trigger that is running.
pub fn write_in_trigger(trigger: &pg_sys::TriggerData, sql: &'static str, args: &[Arg]) {
    let _mark = Mark::set(true);
    let plan = kept_plan(sql, args);
    let registered = || {
        let trigger: *const pg_sys::TriggerData = trigger;
        // SAFETY: connected to SPI; the trigger's data lives as long as the call, and so longer than the connection.
        unsafe { pg_sys::SPI_register_trigger_data(trigger.cast_mut()) };
        plan()
    };
    let _plans = ByIndex::plan();
    run(registered, args, latest(), false, |_, _| ());
}

/// Runs a statement that touches no row. The triggers it fires are queued behind those of the statement whose trigger is
/// running, as those of a foreign key's action are.
pub fn queue_triggers(sql: &'static str) {
    let plan = kept_plan(sql, &[]);
    // SAFETY: connected before and finished after; the plan takes no arguments; a trigger FOR EACH STATEMENT is running,
    // so there is a queue.
    let code = unsafe {
        pg_sys::SPI_connect();
        let code =
            pg_sys::SPI_execute_snapshot(plan(), null_mut(), null(), latest(), null_mut(), false, false, 0);
        pg_sys::SPI_finish();
        code
    };
    assert!(code >= 0, "statement failed with SPI code {code}");
}

/// A name as SQL has it, in double quotes where it needs them. Names of catalogs are in any encoding.
pub fn quoted(name: &[u8]) -> Vec<u8> {
    let name = CString::new(name).expect("name without a NUL");
    // SAFETY: what it returns is the name itself, or a C string in the memory of the call.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())).to_bytes().to_vec() }
}

/// Runs a utility statement, such as GRANT, whose text was put together with quoted identifiers, which may be in any
/// encoding.
pub fn utility(sql: &(impl AsRef<[u8]> + ?Sized)) {
    let sql = sql.as_ref();
    run(|| prepare(sql, &[]), &[], latest(), false, |_, _| ());
}

fn execute<T>(sql: &'static str, args: &[Arg], read_only: bool, mut each: impl FnMut(&Row) -> T) -> Vec<T> {
    let mut rows = Vec::new();
    let _plans = ByIndex::plan();
    run(kept_plan(sql, args), args, latest(), read_only, |_, table| collect(table, &mut each, &mut rows));
    rows
}

fn collect<T>(table: Option<&pg_sys::SPITupleTable>, each: &mut impl FnMut(&Row) -> T, rows: &mut Vec<T>) {
    let Some(table) = table else { return };
    // SAFETY: the descriptor of the result.
    let columns = unsafe { (*table.tupdesc).natts as usize };
    // SAFETY: as above.
    let types = (1..=columns as i32).map(|at| unsafe { pg_sys::SPI_gettypeid(table.tupdesc, at) }).collect();
    let mut row = Row { types, values: vec![pg_sys::Datum::null(); columns], nulls: vec![true; columns] };
    rows.reserve(table.numvals as usize);
    for at in 0..table.numvals as usize {
        // SAFETY: `vals` has `numvals` tuples of the shape `tupdesc`; there is room for as many values as it says.
        unsafe {
            let tuple = *table.vals.add(at);
            pg_sys::heap_deform_tuple(tuple, table.tupdesc, row.values.as_mut_ptr(), row.nulls.as_mut_ptr());
        }
        rows.push(each(&row));
    }
}

fn types(args: &[Arg]) -> Vec<pg_sys::Oid> {
    args.iter().map(Arg::oid).collect()
}

fn latest() -> pg_sys::Snapshot {
    // SAFETY: a transaction is running. The snapshot is used at once, before another one is taken.
    unsafe { pg_sys::GetLatestSnapshot() }
}

fn run(
    plan: impl FnOnce() -> pg_sys::SPIPlanPtr,
    args: &[Arg],
    snapshot: pg_sys::Snapshot,
    read_only: bool,
    result: impl FnOnce(u64, Option<&pg_sys::SPITupleTable>),
) {
    let mut values: Vec<pg_sys::Datum> = Vec::with_capacity(args.len());
    let mut nulls: Vec<c_char> = Vec::with_capacity(args.len());
    for arg in args {
        let datum = arg.datum();
        nulls.push(if datum.is_none() { b'n' } else { b' ' } as c_char);
        values.push(datum.map_or(pg_sys::Datum::null(), |datum| datum.sans_lifetime()));
    }
    // SAFETY: connected before and finished after; an error in between unwinds to the transaction, which
    // closes the connection. Values and nulls have as many entries as the plan has parameters, of their
    // types, and live until the statement has run.
    unsafe {
        pg_sys::SPI_connect();
        let plan = plan();
        let code = pg_sys::SPI_execute_snapshot(
            plan,
            values.as_mut_ptr(),
            nulls.as_ptr(),
            snapshot,
            null_mut(),
            read_only,
            true,
            0,
        );
        assert!(code >= 0, "statement failed with SPI code {code}");
        result(pg_sys::SPI_processed, pg_sys::SPI_tuptable.as_ref());
        pg_sys::SPI_finish();
    }
}

/// The plan of a constant statement, made once a session. Postgres makes it anew by itself when a table it
/// uses has changed.
fn kept_plan(sql: &'static str, args: &[Arg]) -> impl FnOnce() -> pg_sys::SPIPlanPtr {
    let types = types(args);
    move || {
        if let Some(plan) = PLANS.with_borrow(|plans| plans.get(sql).copied()) {
            return plan;
        }
        let plan = prepare(sql, &types);
        // SAFETY: a plan just made; keeping it moves it out of the procedure's memory.
        unsafe { pg_sys::SPI_keepplan(plan) };
        PLANS.with_borrow_mut(|plans| plans.insert(sql, plan));
        plan
    }
}

fn prepare(sql: impl AsRef<[u8]>, types: &[pg_sys::Oid]) -> pg_sys::SPIPlanPtr {
    let sql = CString::new(sql.as_ref()).expect("statement without a NUL");
    let mut types = types.to_vec();
    // SAFETY: connected to SPI; text and types are valid for the call, which copies them.
    let plan = unsafe { pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr()) };
    assert!(!plan.is_null(), "statement can not be prepared");
    plan
}

/// A column that SQL has brought into UTF-8; in a database in SQL_ASCII it may be anything.
pub fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// True when the transaction that wrote a row with this xmin is the current one.
pub fn is_own(xmin: pg_sys::TransactionId) -> bool {
    // SAFETY: looks at the transaction's own state.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(xmin) }
}

/// Text of any encoding as a result column.
pub fn text_datum(bytes: &[u8]) -> pg_sys::Datum {
    use pgrx::IntoDatum;
    bytes.into_datum().unwrap_or(pg_sys::Datum::null())
}
