//! track_resource: the resources of one type follow the rows of an application's own table.
//!
//! Two rules. An id that a statement deletes or changes loses what was bound to it, whatever comes in its place. And when
//! all triggers of the statement have run, the resources are what the rows are; no earlier does anybody ask how deep they
//! lie (`depth`).
//!
//! The function runs with the extension owner's rights and must not run anything of the application's with them. So
//! it reads the rows of the statement itself, takes only types of Postgres's own, whose output functions are
//! Postgres's own too, and asks the table with the rights of the table's owner.

use super::depth;
use super::kind::Kind as Type;
use super::store::{
    Stored, Wanted, changed, hold_bound, remove, require_unmanaged, root_and_args, store, store_new,
};
use crate::error::Failure;
use crate::record::Nothing;
use crate::{args, audit, spi};
use keywright_core::text::Kind;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_extern, pg_sys};
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, c_char};

/// Rows that are written in one statement.
const BATCH: usize = 10_000;

const TYPES: [pg_sys::Oid; 6] =
    [pg_sys::UUIDOID, pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::VARCHAROID];

#[pg_extern(sql = false)]
fn track_resource(fcinfo: pg_sys::FunctionCallInfo) -> Result<Nothing, ErrorReport> {
    let call = Call::of(fcinfo)?;
    audit::summed(|| match call.event() {
        Event::Insert => call.insert(),
        Event::Update => call.update(),
        Event::Delete => call.delete(),
        Event::Truncate => Err(Failure::Truncate { table: call.table.name() }),
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

/// A call by the trigger manager.
struct Call<'a> {
    data: &'a pg_sys::TriggerData,
    table: Table,
}

impl<'a> Call<'a> {
    fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<Call<'a>, Failure<'static>> {
        // SAFETY: fcinfo is that of the call; its context, if there is one, is a node that tells its type. A
        // TriggerData, its trigger and the trigger's arguments live as long as the call.
        let (data, args) = unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Failure::NotSuchATrigger);
            }
            let data = &*context.cast::<pg_sys::TriggerData>();
            let trigger = &*data.tg_trigger;
            let args =
                (0..trigger.tgnargs as usize).map(|at| CStr::from_ptr(*trigger.tgargs.add(at)).to_owned());
            (data, args.collect::<Vec<_>>())
        };
        let call = Call { data, table: Table { relation: data.tg_relation, args } };
        let truncate = matches!(call.event(), Event::Truncate);
        let after = data.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
        let each_row = data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
        if !(2..=4).contains(&call.table.args.len()) || !(after && !each_row || truncate) {
            return Err(Failure::NotSuchATrigger);
        }
        Ok(call)
    }

    fn event(&self) -> Event {
        match self.data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            _ => Event::Truncate,
        }
    }

    fn insert(&self) -> Result<(), Failure<'static>> {
        let (kind, columns) = (self.table.kind()?, self.table.columns()?);
        let name = self.table.name();
        if !self.table.is_only_inserted() {
            let ids = self.rows(New)?.map(|row| row.id(&columns, &name)).collect::<Result<_, _>>()?;
            return self.follow(&kind, &columns, ids, &HashSet::new(), false);
        }
        let mut stored = Stored::new();
        let mut rows = self.rows(New)?;
        loop {
            let mut wanted = columns.wanted();
            for row in rows.by_ref().take(BATCH) {
                row.read(&columns, &name)?.into(&mut wanted);
            }
            if wanted.ids.is_empty() {
                break;
            }
            pgrx::check_for_interrupts!();
            wanted.check_each(&kind)?;
            let own = wanted.take_own(&kind);
            if store_new(&kind, &wanted)? {
                wanted.note(&kind, &mut stored);
                note_own(own, &mut stored);
            } else {
                // Some of them were there.
                self.table.settle(&kind, &columns, &wanted.ids, &HashSet::new(), &mut stored)?;
            }
        }
        depth::judge_later(&kind, stored);
        Ok(())
    }

    fn delete(&self) -> Result<(), Failure<'static>> {
        let (kind, columns) = (self.table.kind()?, self.table.columns()?);
        let name = self.table.name();
        let ids: HashSet<String> =
            self.rows(Old)?.map(|row| row.id(&columns, &name)).collect::<Result<_, _>>()?;
        self.follow(&kind, &columns, ids.clone(), &ids, false)
    }

    fn update(&self) -> Result<(), Failure<'static>> {
        let (kind, columns, name) = (self.table.kind()?, self.table.columns()?, self.table.name());
        let (mut touched, mut lost) = (HashSet::new(), HashSet::new());
        if self.count(Old) == self.count(New) {
            // Each row was written into both as it was updated.
            for (old, new) in self.rows(Old)?.zip(self.rows(New)?) {
                let (old, new) = (old.read(&columns, &name)?, new.read(&columns, &name)?);
                if old == new {
                    continue;
                }
                if old.id != new.id {
                    lost.insert(old.id.clone());
                }
                touched.extend([old.id, new.id]);
            }
        } else {
            // A row was on its way to another partition, and a trigger there did not let it in: which one of the new
            // rows is which one of the old is not known.
            for row in self.rows(Old)? {
                lost.insert(row.id(&columns, &name)?);
            }
            touched.clone_from(&lost);
            for row in self.rows(New)? {
                touched.insert(row.id(&columns, &name)?);
            }
        }
        self.follow(&kind, &columns, touched, &lost, true)
    }

    /// Makes these resources what the rows are now. Of ids that changed it is said what was bound to them.
    fn follow(
        &self,
        kind: &Type,
        columns: &Columns,
        touched: HashSet<String>,
        lost: &HashSet<String>,
        warn: bool,
    ) -> Result<(), Failure<'static>> {
        if warn && !lost.is_empty() {
            let ids: Vec<String> = lost.iter().cloned().collect();
            let ended = hold_bound(kind, ids);
            if ended > 0 {
                let table = keywright_core::printable::quoted(self.table.name().as_bytes());
                let bindings =
                    if ended == 1 { "1 role binding".into() } else { format!("{ended} role bindings") };
                let message = format!("{bindings} ended, because ids in table {table} changed");
                ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "track_resource")
                    .set_detail("A binding is to an id. It does not follow a row to another id.")
                    .set_hint(
                        "Track the table by a key that does not change: see id_column of keywright.track_table.",
                    )
                    .report(PgLogLevel::WARNING);
            }
        }
        let mut stored = Stored::new();
        let touched: Vec<String> = touched.into_iter().collect();
        for ids in touched.chunks(BATCH) {
            pgrx::check_for_interrupts!();
            self.table.settle(kind, columns, ids, lost, &mut stored)?;
        }
        depth::judge_later(kind, stored);
        Ok(())
    }

    fn store(&self, side: Side) -> *mut pg_sys::Tuplestorestate {
        if side == New { self.data.tg_newtable } else { self.data.tg_oldtable }
    }

    fn count(&self, side: Side) -> i64 {
        let store = self.store(side);
        // SAFETY: a transition table lives as long as the call.
        if store.is_null() { 0 } else { unsafe { pg_sys::tuplestore_tuple_count(store) } }
    }

    /// The rows of the statement.
    fn rows(&self, side: Side) -> Result<Rows, Failure<'static>> {
        let store = self.store(side);
        if store.is_null() {
            return Err(Failure::NotSuchATrigger);
        }
        // SAFETY: all of the trigger's data lives as long as the call; the slot is dropped with the rows.
        unsafe {
            // A read pointer of our own: other triggers read the same rows.
            let pointer = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            let shape = (*self.data.tg_relation).rd_att;
            let slot = pg_sys::MakeSingleTupleTableSlot(shape, &pg_sys::TTSOpsMinimalTuple);
            Ok(Rows { slot, store, pointer })
        }
    }
}

/// A tracked table, or a partition of it, which is open, and what its triggers were declared with.
struct Table {
    relation: pg_sys::Relation,
    args: Vec<CString>,
}

/// Makes these resources what their rows are, where a table decides their type; those without a row stay. How many had to
/// be written.
pub fn settle_rows(kind: &Type, ids: &[String], stored: &mut Stored) -> Result<u64, Failure<'static>> {
    let Some((root, args)) = root_and_args(&kind.name) else { return Ok(0) };
    // SAFETY: the lock keeps the table; it is closed below, or by the (sub)transaction that an error ends.
    let relation = unsafe { pg_sys::table_open(root, pg_sys::AccessShareLock as i32) };
    let args = args.split(|byte| *byte == 0).filter_map(|arg| CString::new(arg).ok()).collect();
    let table = Table { relation, args };
    let columns = table.columns()?;
    let there: Vec<String> = table.current(&columns, ids)?.into_keys().collect();
    let written = table.settle(kind, &columns, &there, &HashSet::new(), stored)?;
    // SAFETY: opened above.
    unsafe { pg_sys::table_close(relation, pg_sys::NoLock as i32) };
    Ok(written)
}

impl Table {
    /// For people to read.
    fn name(&self) -> String {
        // SAFETY: the relation is open, and its name a C string in a fixed array.
        let name = unsafe { CStr::from_ptr((*(*self.relation).rd_rel).relname.data.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    fn kind(&self) -> Result<Type, Failure<'static>> {
        Type::find(self.args[0].to_bytes())
    }

    fn arg(&self, at: usize) -> Option<&CStr> {
        self.args.get(at).map(CString::as_c_str).filter(|arg| !arg.is_empty())
    }

    /// Makes these resources what the rows are now. A trigger or a foreign key's action may have changed a row again, and
    /// been followed, before the rows of this statement are looked at. Those that are lost begin anew in any case.
    fn settle(
        &self,
        kind: &Type,
        columns: &Columns,
        ids: &[String],
        lost: &HashSet<String>,
        stored: &mut Stored,
    ) -> Result<u64, Failure<'static>> {
        let current = self.current(columns, ids)?;
        let gone: Vec<String> =
            ids.iter().filter(|id| lost.contains(*id) || !current.contains_key(*id)).cloned().collect();
        let mut wanted = columns.wanted();
        for row in current.into_values() {
            row.into(&mut wanted);
        }
        wanted.check_each(kind)?;
        let own = wanted.take_own(kind);
        let mut written = 0;
        if !gone.is_empty() {
            require_unmanaged(kind, &gone)?;
            if !wanted.ids.is_empty() {
                kind.hold(wanted.parents.iter().flatten().any(Option::is_some))?;
            }
            written += remove(kind, gone);
        }
        let wanted = changed(kind, wanted);
        require_unmanaged(kind, &wanted.ids)?;
        written += store(kind, &wanted)?;
        wanted.note(kind, stored);
        note_own(own, stored);
        Ok(written)
    }

    /// The rows with these ids, in any partition. Where several have one id, until a deferred constraint is checked, and
    /// do not agree, the id has no parent.
    fn current(
        &self,
        columns: &Columns,
        ids: &[String],
    ) -> Result<HashMap<String, Tracked>, Failure<'static>> {
        const ROOT: &str = r#"
            SELECT CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || c.oid::pg_catalog.regclass::text
              FROM pg_catalog.pg_class AS c WHERE c.oid = coalesce(pg_catalog.pg_partition_root($1), $1)"#;
        // SAFETY: the relation is open.
        let oid = unsafe { (*self.relation).rd_id };
        let root = spi::read(ROOT, &[oid.into()], |row| row.must::<Vec<u8>>(1)).concat();
        let mut sql = b"SELECT ".to_vec();
        for at in 1..=3 {
            match self.arg(at) {
                Some(column) => {
                    sql.extend(b"t.");
                    sql.extend(spi::quoted(column.to_bytes()));
                    sql.extend(b"::text");
                }
                None => sql.extend(b"NULL::text"),
            }
            sql.extend(if at < 3 { &b", "[..] } else { b" FROM " });
        }
        sql.extend(root);
        sql.extend(b" AS t WHERE t.");
        sql.extend(spi::quoted(self.args[1].to_bytes()));
        sql.extend(
            format!(" OPERATOR(pg_catalog.=) ANY ($1::text[]::{}[])", columns.id.type_name()).as_bytes(),
        );
        type Found = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);
        let found: Vec<Found> = self.as_owner(|| {
            spi::read_once(&sql, &[ids.to_vec().into()], |row| (row.get(1), row.get(2), row.get(3)))
        });
        let mut current: HashMap<String, Tracked> = HashMap::with_capacity(found.len());
        for (id, parent, words) in found {
            let id = ascii_or_utf8(id.unwrap_or_default())?;
            let parent = parent.map(ascii_or_utf8).transpose()?;
            let name = words.map(|words| name(&words));
            match current.get_mut(&id) {
                Some(twin) => {
                    twin.parent = twin.parent.take().filter(|known| Some(known) == parent.as_ref());
                    twin.name = twin.name.take().min(name);
                }
                None => _ = current.insert(id.clone(), Tracked { id, parent, name }),
            }
        }
        Ok(current)
    }

    /// With the rights of the table's owner and no more: planning a query may run functions of the application,
    /// such as those in the predicate of an index. Policies that hide rows from the owner are an error.
    fn as_owner<T>(&self, read: impl FnOnce() -> T) -> T {
        // SAFETY: the relation is open. Both the user and the setting are put back, on an error by
        // the (sub)transaction that it ends.
        unsafe {
            let owner = (*(*self.relation).rd_rel).relowner;
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
        // SAFETY: the relation is open; its counters, if there are some, live as long as the
        // transaction.
        unsafe {
            let relation = &*self.relation;
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
        let shown = || (name.to_string_lossy().into_owned(), self.name());
        // SAFETY: the descriptor is that of the open relation, and the number SPI_fnumber gives one of its.
        unsafe {
            let shape = (*self.relation).rd_att;
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

/// What its row puts below itself is refused, unless the row says something else when the statement is over.
fn note_own(own: Vec<String>, stored: &mut Stored) {
    stored.extend(own.into_iter().map(|id| (id.clone(), Some(id))));
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

/// Rows one after the other, all in one slot.
struct Rows {
    slot: *mut pg_sys::TupleTableSlot,
    store: *mut pg_sys::Tuplestorestate,
    pointer: i32,
}

impl Drop for Rows {
    fn drop(&mut self) {
        // While an error unwinds, the transaction releases everything.
        if !std::thread::panicking() {
            // SAFETY: made in `Call::rows`.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) }
        }
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        // SAFETY: the store lives as long as the call; the slot is of the kind it needs.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot)
                .then_some(Row { slot: self.slot })
        }
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
    fn id(&self, columns: &Columns, table: &str) -> Result<String, Failure<'static>> {
        ascii_or_utf8(self.text(&columns.id).ok_or_else(|| Failure::NullId { table: table.to_owned() })?)
    }

    fn read(&self, columns: &Columns, table: &str) -> Result<Tracked, Failure<'static>> {
        let text = |column: &Option<Column>| column.as_ref().and_then(|column| self.text(column));
        let parent = text(&columns.parent).map(ascii_or_utf8).transpose()?;
        let name = text(&columns.name).map(|words| name(&words));
        Ok(Tracked { id: self.id(columns, table)?, parent, name })
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
