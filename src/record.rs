//! Rows as the result of functions with OUT parameters.

use crate::error::Failure;
use crate::own::Own;
use keywright_core::secret::wipe;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary as guarded;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{AnyElement, IntoDatum, PgLogLevel, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

/// The row type of a function.
#[derive(Clone, Copy)]
enum Shape {
    /// That of OUT parameters: they never change without the function's oid changing, so it is kept for the process.
    Parameters(pg_sys::TupleDesc),
    /// A type of its own, which Postgres keeps, and knows when it changes.
    Named(pg_sys::Oid),
}

/// By function. A vector, for there are few.
static SHAPES: Own<RefCell<Vec<(pg_sys::Oid, Shape)>>> = Own::new(RefCell::new(Vec::new()));

/// The columns of `keywright.verified_api_key`, the only type of its own that a function returns.
const VERIFIED: [pg_sys::Oid; 8] = [
    pg_sys::BOOLOID,
    pg_sys::TEXTOID,
    pg_sys::UUIDOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::TIMESTAMPTZOID,
];

/// More columns than any function has.
const MOST: usize = 24;

/// A finished row; null stands for "no row".
#[derive(Debug)]
pub struct Record(Option<pg_sys::Datum>);

pgrx::impl_sql_translatable!(Record, "record");

impl Record {
    pub const NONE: Record = Record(None);

    /// A row of the calling function's OUT parameters. The columns are copied.
    ///
    /// `columns` must have the number and the types of the OUT parameters, which the SQL declares.
    pub fn new(fcinfo: pg_sys::FunctionCallInfo, columns: &[Option<pg_sys::Datum>]) -> Record {
        let (mut values, mut nulls) = split(columns);
        // SAFETY: a descriptor of the function's row type, held until the row is made; it has as many columns as both
        // arrays, and heap_form_tuple copies what it is given. Nothing behind the guard is dropped (`probe::raw`).
        let made = unsafe {
            let shape = shape(fcinfo);
            guarded(|| {
                let (descriptor, is_held) = match shape {
                    Shape::Parameters(descriptor) => (descriptor, false),
                    Shape::Named(oid) => (lookup_rowtype_tupdesc(oid, -1), true),
                };
                let fits = (*descriptor).natts as usize == columns.len()
                    && (!is_held
                        || (1..).zip(VERIFIED).all(|(number, oid)| SPI_gettypeid(descriptor, number) == oid));
                let made = fits.then(|| {
                    let tuple = heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
                    HeapTupleHeaderGetDatum((*tuple).t_data)
                });
                if is_held {
                    DecrTupleDescRefCount(descriptor);
                }
                made
            })
        };
        if made.is_none() {
            let object = "keywright.verified_api_key as it was installed".into();
            ErrorReport::from(Failure::Broken { object }).report(PgLogLevel::ERROR);
        }
        Record(made)
    }
}

// The bare functions behind those of `pg_sys`, for one guard around all.
unsafe extern "C-unwind" {
    fn lookup_rowtype_tupdesc(oid: pg_sys::Oid, modifier: i32) -> pg_sys::TupleDesc;
    fn SPI_gettypeid(descriptor: pg_sys::TupleDesc, number: i32) -> pg_sys::Oid;
    fn DecrTupleDescRefCount(descriptor: pg_sys::TupleDesc);
    fn heap_form_tuple(
        descriptor: pg_sys::TupleDesc,
        values: *mut pg_sys::Datum,
        nulls: *mut bool,
    ) -> pg_sys::HeapTuple;
    fn HeapTupleHeaderGetDatum(tuple: pg_sys::HeapTupleHeader) -> pg_sys::Datum;
}

// SAFETY: the datum was made in the memory context of the call, as the function's result must be.
unsafe impl BoxRet for Record {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.0 {
            // SAFETY: a composite datum of the function's own row type.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

/// JSON as a result column, in whatever encoding the database has. SQL_ASCII has no letters but those of ASCII.
pub fn jsonb(value: &serde_json::Value) -> pg_sys::Datum {
    // SAFETY: looks at the database's own state.
    let ascii = unsafe { pg_sys::GetDatabaseEncoding() } == pg_sys::pg_enc::PG_SQL_ASCII as i32;
    let mut text = String::new();
    for letter in value.to_string().chars() {
        match letter {
            letter if letter.is_ascii() => text.push(letter),
            _ if ascii => text.push('?'),
            letter => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                text.push_str(&format!("\\u{unit:04x}"));
            }),
        }
    }
    let text = CString::new(text).expect("JSON without a NUL");
    // SAFETY: the input function of jsonb takes a C string, and copies it.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[text.as_c_str().into_datum()]) }
        .expect("jsonb_in gives no null")
}

/// The text of a JSON argument, in UTF-8; in a database in SQL_ASCII whatever it holds. Zeroed when dropped, for it may hold a
/// token. Read without SQL, which would copy it five times.
#[derive(Debug)]
pub struct Text {
    start: *mut c_char,
    length: usize,
}

impl Text {
    /// `json` is a jsonb.
    pub fn of(json: AnyElement) -> Text {
        // SAFETY: the output function of jsonb gives a C string in the memory of the call, and so does the conversion, or
        // the same one where there is nothing to convert.
        unsafe {
            let text: &CStr = pgrx::direct_function_call(pg_sys::jsonb_out, &[Some(json.datum())])
                .expect("jsonb_out gives no null");
            let (mut start, length) = (text.as_ptr().cast_mut(), text.count_bytes());
            if pg_sys::GetDatabaseEncoding() != pg_sys::pg_enc::PG_SQL_ASCII as i32 {
                start = pg_sys::pg_server_to_any(start, length as i32, pg_sys::pg_enc::PG_UTF8 as i32);
            }
            Text { start, length: CStr::from_ptr(start).count_bytes() }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the string that was made above, which lives as long as the call.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: as above; nobody reads it any more.
        wipe(unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) });
    }
}

/// Rows of a set-returning function, collected in a tuplestore. They may hold tokens, so they stay in memory, however many there are.
#[derive(Debug)]
pub struct Rows {
    info: *mut pg_sys::ReturnSetInfo,
}

pgrx::impl_sql_translatable!(Rows, "record");

/// More than a tuplestore may take before it writes to a temporary file.
const KILOBYTES: i32 = i32::MAX;

impl Rows {
    pub fn new(fcinfo: pg_sys::FunctionCallInfo) -> Rows {
        // SAFETY: Postgres calls a function declared SETOF with a ReturnSetInfo, which InitMaterializedSRF
        // checks before it makes the tuplestore. Another one takes its place, in the same memory.
        unsafe {
            pg_sys::InitMaterializedSRF(fcinfo, 0);
            let info: *mut pg_sys::ReturnSetInfo = (*fcinfo).resultinfo.cast();
            let random =
                (*info).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random as i32 != 0;
            let before = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            pg_sys::tuplestore_end((*info).setResult);
            (*info).setResult = pg_sys::tuplestore_begin_heap(random, false, KILOBYTES);
            pg_sys::MemoryContextSwitchTo(before);
            Rows { info }
        }
    }

    /// The only row of a function that writes. Such a function returns a set: in `(f()).*` Postgres calls any other once for
    /// each column.
    pub fn one(fcinfo: pg_sys::FunctionCallInfo, columns: &[Option<pg_sys::Datum>]) -> Rows {
        let rows = Rows::new(fcinfo);
        rows.push(columns);
        rows
    }

    /// Adds a row; the columns are copied.
    pub fn push(&self, columns: &[Option<pg_sys::Datum>]) {
        let (mut values, mut nulls) = split(columns);
        // SAFETY: `info` is valid until the function returns, and both arrays have as many columns as its
        // descriptor.
        unsafe {
            let shape = (*self.info).setDesc;
            assert_eq!((*shape).natts as usize, columns.len(), "columns of a result");
            pg_sys::tuplestore_putvalues(
                (*self.info).setResult,
                shape,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}

// SAFETY: in materialize mode the result itself is ignored.
unsafe impl BoxRet for Rows {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        fcinfo.return_null()
    }
}

/// The result of an AFTER trigger: nothing that anybody looks at, but not a null.
#[derive(Debug)]
pub struct Nothing;

pgrx::impl_sql_translatable!(Nothing, "trigger");

// SAFETY: the result of an AFTER trigger is ignored; only the null flag is not.
unsafe impl BoxRet for Nothing {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: no pointer, and nobody follows it.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(0)) }
    }
}

fn split(columns: &[Option<pg_sys::Datum>]) -> ([pg_sys::Datum; MOST], [bool; MOST]) {
    let (mut values, mut nulls) = ([pg_sys::Datum::null(); MOST], [true; MOST]);
    for (at, column) in columns.iter().enumerate() {
        (values[at], nulls[at]) = (column.unwrap_or(pg_sys::Datum::null()), column.is_none());
    }
    (values, nulls)
}

/// # Safety
/// `fcinfo` is the one the current function was called with.
unsafe fn shape(fcinfo: pg_sys::FunctionCallInfo) -> Shape {
    // SAFETY: Postgres fills flinfo for every call by the function manager.
    let oid = unsafe { (*(*fcinfo).flinfo).fn_oid };
    let known = |shapes: &Vec<(pg_sys::Oid, Shape)>| {
        shapes.iter().find(|(function, _)| *function == oid).map(|(_, shape)| *shape)
    };
    if let Some(shape) = SHAPES.with_borrow(known) {
        return shape;
    }
    let (mut result, mut descriptor) = (pg_sys::InvalidOid, std::ptr::null_mut());
    // SAFETY: the copy is made in the context that lives as long as the process, and only then blessed.
    let shape = unsafe {
        match pg_sys::get_call_result_type(fcinfo, &mut result, &mut descriptor) {
            pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE if result != pg_sys::RECORDOID => Shape::Named(result),
            _ => {
                assert!(!descriptor.is_null(), "function has no OUT parameters");
                let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
                let copy = pg_sys::BlessTupleDesc(pg_sys::CreateTupleDescCopy(descriptor));
                pg_sys::MemoryContextSwitchTo(before);
                Shape::Parameters(copy)
            }
        }
    };
    SHAPES.with_borrow_mut(|shapes| shapes.push((oid, shape)));
    shape
}
