//! track_resource: the resources of one type follow the rows of an application's own table.
//!
//! The function runs with the extension owner's rights and must not run anything of the application's with them. So
//! it reads the rows of the statement itself, takes only types of Postgres's own, whose output functions are
//! Postgres's own too, and asks the table with the rights of the table's owner.

use super::kind::Kind as Type;
use super::store::{Stored, Wanted, changed, remove, rename, require_shallow, require_unmanaged, store};
use crate::error::Failure;
use crate::record::Nothing;
use crate::{args, audit, spi};
use keywright_core::text::Kind;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::spi::quote_identifier;
use pgrx::{pg_extern, pg_sys};
use std::collections::HashSet;
use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

/// Rows that are written in one statement.
const BATCH: usize = 10_000;

const TYPES: [pg_sys::Oid; 6] =
    [pg_sys::UUIDOID, pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::VARCHAROID];

#[pg_extern(sql = false)]
fn track_resource(fcinfo: pg_sys::FunctionCallInfo) -> Result<Nothing, ErrorReport> {
    let trigger = Trigger::of(fcinfo)?;
    audit::summed(|| match trigger.event() {
        Event::Insert => trigger.insert(),
        Event::Update => trigger.update(),
        Event::Delete => trigger.delete(),
        Event::Truncate => Err(Failure::Truncate { table: trigger.table() }),
    })?;
    Ok(Nothing)
}

/// What track_table asks of each column.
#[pg_extern(sql = false)]
fn require_trackable(tracked: Option<pg_sys::Oid>, column: Option<&[u8]>) -> Result<Nothing, ErrorReport> {
    const COLUMN: &str = r#"
        SELECT a.atttypid, a.attgenerated = 'v'
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped"#;
    // No table has the number 0, which pgrx hands on as null.
    const TABLE: &str = "SELECT coalesce($1::pg_catalog.regclass::text, '-')";
    let tracked = args::required("tracked", tracked)?;
    let column = args::required("id_column", column)?;
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = || {
        let table: Vec<Vec<u8>> = spi::read(TABLE, &[tracked.into()], |row| row.must(1));
        (words(column), words(&table.concat()))
    };
    let found =
        spi::read(COLUMN, &[tracked.into(), spi::text(column)], |row| (row.must(1), row.must(2))).pop();
    let Some((kind, is_virtual)) = found else {
        let (column, table) = shown();
        return Err(Failure::NoColumn { column, table }.into());
    };
    // SAFETY: looks a type up that a column has.
    if is_virtual || !TYPES.contains(&unsafe { pg_sys::getBaseType(kind) }) {
        let (column, table) = shown();
        return Err(Failure::ColumnType { column, table }.into());
    }
    Ok(Nothing)
}

/// Whoever calls this by itself can note no more than what the transaction did.
#[pg_extern(sql = false)]
fn note_tracked(tracked: Option<pg_sys::Oid>, outcome: Option<&str>) {
    const TRIGGERS: &str = r#"
        SELECT t.xmin, $1::pg_catalog.regclass::text
          FROM pg_catalog.pg_trigger AS t
         WHERE t.tgfoid = 'keywright.track_resource()'::pg_catalog.regprocedure
           AND t.tgrelid IN (SELECT $1 UNION ALL SELECT p.relid FROM pg_catalog.pg_partition_tree($1) AS p)"#;
    let made =
        spi::read(TRIGGERS, &[tracked.into()], |row| (spi::is_own(row.must(1)), row.must::<Vec<u8>>(2)));
    if let Some((_, table)) = made.iter().find(|(own, _)| *own) {
        let event = if outcome == Some("created") { "created" } else { "updated" };
        audit::note(event, "tracked_table", table);
    }
}

enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// A call by the trigger manager, and what the trigger was declared with.
struct Trigger<'a> {
    data: &'a pg_sys::TriggerData,
    args: Vec<&'a CStr>,
}

impl<'a> Trigger<'a> {
    fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<Trigger<'a>, Failure<'static>> {
        // SAFETY: fcinfo is that of the call; its context, if there is one, is a node that tells its type. A
        // TriggerData, its trigger and the trigger's arguments live as long as the call.
        let (data, args) = unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Failure::NotSuchATrigger);
            }
            let data = &*context.cast::<pg_sys::TriggerData>();
            let trigger = &*data.tg_trigger;
            let args = (0..trigger.tgnargs as usize).map(|at| CStr::from_ptr(*trigger.tgargs.add(at)));
            (data, args.collect::<Vec<_>>())
        };
        let trigger = Trigger { data, args };
        let truncate = matches!(trigger.event(), Event::Truncate);
        let after = data.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
        if !(2..=4).contains(&trigger.args.len()) || !(after || truncate) {
            return Err(Failure::NotSuchATrigger);
        }
        Ok(trigger)
    }

    fn event(&self) -> Event {
        match self.data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            _ => Event::Truncate,
        }
    }

    fn table(&self) -> String {
        // SAFETY: the relation of the trigger is open, and its name a C string in a fixed array.
        let name = unsafe { CStr::from_ptr((*(*self.data.tg_relation).rd_rel).relname.data.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    fn kind(&self) -> Result<Type, Failure<'static>> {
        Type::find(self.args[0].to_bytes())
    }

    fn arg(&self, at: usize) -> Option<&CStr> {
        self.args.get(at).copied().filter(|arg| !arg.is_empty())
    }

    fn insert(&self) -> Result<(), Failure<'static>> {
        let (kind, columns) = (self.kind()?, self.columns()?);
        if !self.is_only_inserted() {
            let ids = self.ids(New, &columns)?;
            return self.settle(&kind, &columns, ids);
        }
        let mut wanted = columns.wanted();
        let mut stored = Stored::new();
        for row in self.rows(New)? {
            row.read(&columns, &self.table())?.into(&mut wanted);
            if wanted.ids.len() == BATCH {
                flush(&kind, std::mem::replace(&mut wanted, columns.wanted()), &mut stored)?;
            }
        }
        flush(&kind, wanted, &mut stored)?;
        require_shallow(&kind, &stored)
    }

    fn delete(&self) -> Result<(), Failure<'static>> {
        let (kind, columns) = (self.kind()?, self.columns()?);
        let ids = self.ids(Old, &columns)?;
        self.settle(&kind, &columns, ids)
    }

    fn ids(&self, side: Side, columns: &Columns) -> Result<HashSet<String>, Failure<'static>> {
        let table = self.table();
        self.rows(side)?.map(|row| row.read(columns, &table).map(|row| row.id)).collect()
    }

    fn update(&self) -> Result<(), Failure<'static>> {
        let (kind, columns, table) = (self.kind()?, self.columns()?, self.table());
        let mut touched = HashSet::new();
        let mut renamed = Vec::new();
        // Both tables have a row for each row that was updated, in the same order.
        for (old, new) in self.rows(Old)?.zip(self.rows(New)?) {
            let (old, new) = (old.read(&columns, &table)?, new.read(&columns, &table)?);
            if old == new {
                continue;
            }
            if old.id != new.id {
                renamed.push((old.id.clone(), new.id.clone()));
            }
            touched.extend([old.id, new.id]);
        }
        if !renamed.is_empty() {
            let new = Wanted {
                ids: renamed.iter().map(|(_, new)| new.clone()).collect::<HashSet<_>>().into_iter().collect(),
                ..Wanted::default()
            };
            new.check(&kind)?;
            let old: Vec<String> = renamed.iter().map(|(old, _)| old.clone()).collect();
            require_unmanaged(&kind, &old)?;
            require_unmanaged(&kind, &new.ids)?;
            kind.hold(false)?;
            rename(&kind, &renamed);
        }
        self.settle(&kind, &columns, touched)
    }

    /// Makes these resources what the rows are now. A trigger or a foreign key's action may have changed a row
    /// again, and been followed, before the rows of this statement are looked at.
    fn settle(&self, kind: &Type, columns: &Columns, ids: HashSet<String>) -> Result<(), Failure<'static>> {
        let ids: Vec<String> = ids.into_iter().collect();
        let mut stored = Stored::new();
        for ids in ids.chunks(BATCH) {
            pgrx::check_for_interrupts!();
            let mut wanted = columns.wanted();
            let mut gone: HashSet<&String> = ids.iter().collect();
            for row in self.current(columns, ids) {
                gone.remove(&row.id);
                row.into(&mut wanted);
            }
            wanted.check(kind)?;
            let wanted = changed(kind, wanted);
            let gone: Vec<String> = gone.into_iter().cloned().collect();
            require_unmanaged(kind, &gone)?;
            require_unmanaged(kind, &wanted.ids)?;
            remove(kind, gone);
            store(kind, &wanted)?;
            wanted.note(kind, &mut stored);
        }
        require_shallow(kind, &stored)
    }

    /// The rows with these ids, in any partition.
    fn current(&self, columns: &Columns, ids: &[String]) -> Vec<Tracked> {
        const ROOT: &str = "SELECT coalesce(pg_catalog.pg_partition_root($1), $1)::pg_catalog.regclass::text";
        // SAFETY: the relation of the trigger is open.
        let oid = unsafe { (*self.data.tg_relation).rd_id };
        let root: String = spi::read(ROOT, &[oid.into()], |row| row.must(1)).pop().unwrap_or_default();
        let column = |at: usize| match self.arg(at) {
            Some(column) => format!("t.{}::text", quote_identifier(column.to_string_lossy())),
            None => "NULL::text".into(),
        };
        let id = quote_identifier(self.args[1].to_string_lossy());
        let sql = format!(
            "SELECT {}, {}, {} FROM {root} AS t WHERE t.{id} OPERATOR(pg_catalog.=) ANY ($1::text[]::{}[])",
            column(1),
            column(2),
            column(3),
            columns.id.type_name(),
        );
        let text = |row: &spi::Row, at| row.get::<Vec<u8>>(at);
        self.as_owner(|| {
            spi::read_once(&sql, &[ids.to_vec().into()], |row| Tracked {
                id: String::from_utf8(text(row, 1).unwrap_or_default()).unwrap_or_default(),
                parent: text(row, 2).and_then(|id| String::from_utf8(id).ok()),
                name: text(row, 3).map(|words| name(&words)),
            })
        })
    }

    /// With the rights of the table's owner and no more: planning a query may run functions of the application,
    /// such as those in the predicate of an index. Policies that hide rows from the owner are an error.
    fn as_owner<T>(&self, read: impl FnOnce() -> T) -> T {
        // SAFETY: the relation of the trigger is open. Both the user and the setting are put back, on an error by
        // the (sub)transaction that it ends.
        unsafe {
            let owner = (*(*self.data.tg_relation).rd_rel).relowner;
            let (mut user, mut context) = (pg_sys::InvalidOid, 0);
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            let settings = pg_sys::NewGUCNestLevel();
            pg_sys::set_config_option(
                c"row_security".as_ptr(),
                c"off".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
            let restricted = context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
            pg_sys::SetUserIdAndSecContext(owner, restricted);
            let rows = read();
            pg_sys::SetUserIdAndSecContext(user, context);
            pg_sys::AtEOXact_GUC(false, settings);
            rows
        }
    }

    /// True when this transaction has done nothing to the table but insert, so that its rows are still what they
    /// were when they were inserted. Postgres counts that for its statistics.
    fn is_only_inserted(&self) -> bool {
        // SAFETY: the relation of the trigger is open; its counters, if there are some, live as long as the
        // transaction.
        unsafe {
            let relation = &*self.data.tg_relation;
            let plain = (*relation.rd_rel).relkind == pg_sys::RELKIND_RELATION as c_char
                && !(*relation.rd_rel).relispartition;
            if !plain || relation.pgstat_info.is_null() {
                return false;
            }
            let mut counted = (*relation.pgstat_info).trans;
            while let Some(level) = counted.as_ref() {
                if level.tuples_updated != 0 || level.tuples_deleted != 0 {
                    return false;
                }
                counted = level.upper;
            }
            true
        }
    }

    fn columns(&self) -> Result<Columns, Failure<'static>> {
        let column = |at| self.arg(at).map(|name| self.column(name)).transpose();
        let id = column(1)?.ok_or(Failure::NotSuchATrigger)?;
        Ok(Columns { id, parent: column(2)?, name: column(3)? })
    }

    fn column(&self, name: &CStr) -> Result<Column, Failure<'static>> {
        let shown = || (name.to_string_lossy().into_owned(), self.table());
        // SAFETY: the descriptor is that of the open relation, and the number SPI_fnumber gives one of its.
        unsafe {
            let shape = (*self.data.tg_relation).rd_att;
            let number = pg_sys::SPI_fnumber(shape, name.as_ptr());
            if number <= 0 {
                let (column, table) = shown();
                return Err(Failure::NoColumn { column, table });
            }
            let kind = pg_sys::getBaseType(pg_sys::SPI_gettypeid(shape, number));
            if !TYPES.contains(&kind) || is_virtual(shape, number) {
                let (column, table) = shown();
                return Err(Failure::ColumnType { column, table });
            }
            let (mut output, mut varlena) = (pg_sys::InvalidOid, false);
            pg_sys::getTypeOutputInfo(kind, &mut output, &mut varlena);
            Ok(Column { number, kind, output })
        }
    }

    /// The rows of the statement, or the one row of a trigger FOR EACH ROW.
    fn rows(&self, side: Side) -> Result<Rows, Failure<'static>> {
        let data = self.data;
        let row_level = data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
        // SAFETY: all of the trigger's data lives as long as the call; the slot is dropped with the rows.
        unsafe {
            let shape = (*data.tg_relation).rd_att;
            if row_level {
                let is_update = matches!(self.event(), Event::Update);
                let tuple = if side == New && is_update { data.tg_newtuple } else { data.tg_trigtuple };
                let slot = pg_sys::MakeSingleTupleTableSlot(shape, &pg_sys::TTSOpsHeapTuple);
                return Ok(Rows { slot, from: From::Tuple(tuple) });
            }
            let store = if side == New { data.tg_newtable } else { data.tg_oldtable };
            if store.is_null() {
                return Err(Failure::NotSuchATrigger);
            }
            // A read pointer of our own: other triggers read the same rows.
            let pointer = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            let slot = pg_sys::MakeSingleTupleTableSlot(shape, &pg_sys::TTSOpsMinimalTuple);
            Ok(Rows { slot, from: From::Store(store, pointer) })
        }
    }
}

/// A virtual generated column has no value in a row as it is stored.
///
/// # Safety
/// `number` is that of a column of `shape`.
#[cfg(feature = "pg18")]
unsafe fn is_virtual(shape: pg_sys::TupleDesc, number: i32) -> bool {
    // SAFETY: as above.
    unsafe { (*pg_sys::TupleDescAttr(shape, number - 1)).attgenerated == b'v' as c_char }
}

/// There are none before PostgreSQL 18.
#[cfg(not(feature = "pg18"))]
unsafe fn is_virtual(_: pg_sys::TupleDesc, _: i32) -> bool {
    false
}

fn flush(kind: &Type, wanted: Wanted, stored: &mut Stored) -> Result<(), Failure<'static>> {
    pgrx::check_for_interrupts!();
    wanted.check(kind)?;
    require_unmanaged(kind, &wanted.ids)?;
    store(kind, &wanted)?;
    wanted.note(kind, stored);
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Old,
    New,
}
use Side::{New, Old};

struct Column {
    number: i32,
    kind: pg_sys::Oid,
    output: pg_sys::Oid,
}

impl Column {
    fn type_name(&self) -> &'static str {
        match self.kind {
            pg_sys::UUIDOID => "pg_catalog.uuid",
            pg_sys::INT2OID => "pg_catalog.int2",
            pg_sys::INT4OID => "pg_catalog.int4",
            pg_sys::INT8OID => "pg_catalog.int8",
            _ => "pg_catalog.text",
        }
    }
}

struct Columns {
    id: Column,
    parent: Option<Column>,
    name: Option<Column>,
}

impl Columns {
    fn wanted(&self) -> Wanted {
        Wanted {
            ids: Vec::new(),
            parents: self.parent.as_ref().map(|_| Vec::new()),
            names: self.name.as_ref().map(|_| Vec::new()),
            ..Wanted::default()
        }
    }
}

enum From {
    Tuple(pg_sys::HeapTuple),
    Store(*mut pg_sys::Tuplestorestate, i32),
}

/// Rows one after the other, all in one slot.
struct Rows {
    slot: *mut pg_sys::TupleTableSlot,
    from: From,
}

impl Drop for Rows {
    fn drop(&mut self) {
        // While an error unwinds, the transaction releases everything.
        if !std::thread::panicking() {
            // SAFETY: made in `Trigger::rows`.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) }
        }
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        // SAFETY: tuple and store live as long as the call; the slot is of the kind each needs.
        unsafe {
            match self.from {
                From::Tuple(tuple) if tuple.is_null() => return None,
                From::Tuple(tuple) => {
                    pg_sys::ExecStoreHeapTuple(tuple, self.slot, false);
                    self.from = From::Tuple(null_mut());
                }
                From::Store(store, pointer) => {
                    pg_sys::tuplestore_select_read_pointer(store, pointer);
                    if !pg_sys::tuplestore_gettupleslot(store, true, false, self.slot) {
                        return None;
                    }
                }
            }
        }
        Some(Row { slot: self.slot })
    }
}

/// The row that is in the slot now.
struct Row {
    slot: *mut pg_sys::TupleTableSlot,
}

#[derive(PartialEq)]
struct Tracked {
    id: String,
    parent: Option<String>,
    name: Option<String>,
}

impl Tracked {
    fn into(self, wanted: &mut Wanted) {
        wanted.push(self.id, self.parent, self.name);
    }
}

impl Row {
    fn read(&self, columns: &Columns, table: &str) -> Result<Tracked, Failure<'static>> {
        let id = self.text(&columns.id).ok_or_else(|| Failure::NullId { table: table.to_owned() })?;
        let text = |column: &Option<Column>| column.as_ref().and_then(|column| self.text(column));
        let parent = text(&columns.parent).map(ascii_or_utf8).transpose()?;
        Ok(Tracked { id: ascii_or_utf8(id)?, parent, name: text(&columns.name).map(|words| name(&words)) })
    }

    /// As the type's output function writes it.
    fn text(&self, column: &Column) -> Option<Vec<u8>> {
        let mut null = false;
        // SAFETY: the slot holds a row of the relation, the column is one of its, and the output function
        // that of its type. What it returns is a C string of ours.
        unsafe {
            let datum = pg_sys::slot_getattr(self.slot, column.number, &mut null);
            if null {
                return None;
            }
            let text: *mut c_char = pg_sys::OidOutputFunctionCall(column.output, datum);
            let bytes = CStr::from_ptr(text).to_bytes().to_vec();
            pg_sys::pfree(text.cast());
            Some(bytes)
        }
    }
}

/// A row is not refused because of its name: what does not fit is cut off, and what may be a token is not kept.
fn name(words: &[u8]) -> String {
    let mut name = args::readable(words).replace(|c: char| c.is_control(), "?");
    name.truncate(name.floor_char_boundary(128));
    if Kind::DisplayName.fault(name.as_bytes()).is_some() { String::new() } else { name }
}

fn ascii_or_utf8(id: Vec<u8>) -> Result<String, Failure<'static>> {
    match crate::args::name(&id) {
        Some(id) => Ok(id.to_owned()),
        None => Err(Failure::BadId {
            broken: keywright_core::name::Rule::ResourceId
                .check(&[0xff])
                .expect_err("what is not UTF-8 is refused"),
        }),
    }
}
