//! Tokens are taken out of what Postgres writes or shows of statements, where the library is loaded with the server.
//!
//! - A message is changed where it lies, before it goes to the log or to the client.
//! - The text of a statement is covered in `pg_stat_activity`, in the log's STATEMENT, and for other libraries, which keep
//!   or write it: pg_stat_statements, auto_explain, pgaudit. What is executed has been read by then, and is not changed.
//! - What `pg_stat_activity` shows is covered before the client is answered, for what none of these hooks is called for: what can
//!   not be parsed or is not executed, and commands of replication.
//! - A part of a token that a message shows without the rest is known again by the tokens that were seen in statements.
//!
//! A statement that is one of many in a message is searched by itself, and the message is copied once: it takes time that is
//! linear in the length of the message.
//!
//! The hooks are called as C calls them, and errors of Postgres jump over them: none holds anything that is dropped while
//! it calls on.

use keywright_core::redact::{Fragments, holds_a_token, shorten_cut, shorten_xml};
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

// The bare functions behind those of `pg_sys`, with the same signatures.
unsafe extern "C-unwind" {
    fn MemoryContextAlloc(context: pg_sys::MemoryContext, size: pg_sys::Size) -> *mut std::ffi::c_void;
    fn palloc(size: pg_sys::Size) -> *mut std::ffi::c_void;
    fn check_log_of_query(report: *mut pg_sys::ErrorData) -> bool;
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// How messages are sent to the client: `PQcommMethods` of `libpq/libpq.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sending {
    comm_reset: unsafe extern "C-unwind" fn(),
    flush: unsafe extern "C-unwind" fn() -> c_int,
    flush_if_writable: unsafe extern "C-unwind" fn() -> c_int,
    is_send_pending: unsafe extern "C-unwind" fn() -> bool,
    putmessage: unsafe extern "C-unwind" fn(c_char, *const c_char, usize) -> c_int,
    putmessage_noblock: unsafe extern "C-unwind" fn(c_char, *const c_char, usize),
}

unsafe extern "C" {
    static mut PqCommMethods: *const Sending;
}

/// The hooks of other libraries, which are called after ours.
struct Before {
    log: pg_sys::emit_log_hook_type,
    analyze: pg_sys::post_parse_analyze_hook_type,
    planner: pg_sys::planner_hook_type,
    start: pg_sys::ExecutorStart_hook_type,
    utility: pg_sys::ProcessUtility_hook_type,
    sending: Sending,
}

static BEFORE: OnceLock<Before> = OnceLock::new();
static STARTUP_BEFORE: OnceLock<pg_sys::shmem_startup_hook_type> = OnceLock::new();
/// What Postgres sends with, instead of `Before::sending`.
static SENDING: OnceLock<Sending> = OnceLock::new();

/// What stands in the place of the client's statement, until the next one that holds a token; and that statement.
static COVERED: AtomicPtr<c_char> = AtomicPtr::new(null_mut());
static ORIGINAL: AtomicPtr<c_char> = AtomicPtr::new(null_mut());

/// Of the tokens that this process has seen.
static FRAGMENTS: Fragments = Fragments::new();

/// Called while the server loads its libraries.
pub fn start() {
    // SAFETY: a hook of a process that has a single thread.
    unsafe {
        _ = STARTUP_BEFORE.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

/// By now every library is loaded, so that ours are the first hooks to be called, whatever the order in
/// `shared_preload_libraries`. Called again when the server starts anew after a crash.
unsafe extern "C-unwind" fn on_startup() {
    // SAFETY: hooks of a process that has a single thread, each chained once.
    unsafe {
        if let Some(before) = STARTUP_BEFORE.get().copied().flatten() {
            before();
        }
        let before = Before {
            log: pg_sys::emit_log_hook,
            analyze: pg_sys::post_parse_analyze_hook,
            planner: pg_sys::planner_hook,
            start: pg_sys::ExecutorStart_hook,
            utility: pg_sys::ProcessUtility_hook,
            sending: *PqCommMethods,
        };
        let plans = before.planner.is_some();
        let sending = Sending { flush: on_flush, flush_if_writable: on_flush_if_writable, ..before.sending };
        if BEFORE.set(before).is_ok() {
            pg_sys::emit_log_hook = Some(on_log);
            pg_sys::post_parse_analyze_hook = Some(on_analyze);
            // Nobody else is shown the text while a statement is planned.
            if plans {
                pg_sys::planner_hook = Some(on_plan);
            }
            pg_sys::ExecutorStart_hook = Some(on_start);
            pg_sys::ProcessUtility_hook = Some(on_utility);
            PqCommMethods = SENDING.get_or_init(|| sending);
        }
    }
}

fn before() -> Option<&'static Before> {
    BEFORE.get()
}

/// Also in the postmaster and in processes without a database, and where memory has run out.
unsafe extern "C-unwind" fn on_log(report: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres hands over a report whose texts are its own copies, or null.
    unsafe {
        let texts = [
            (*report).message,
            (*report).detail,
            (*report).detail_log,
            (*report).hint,
            (*report).context,
            (*report).internalquery,
        ];
        for text in texts.iter().filter_map(|text| bytes(*text)) {
            FRAGMENTS.remember(text);
        }
        if needs_statement(report) && !cover_statement() {
            (*report).hide_stmt = true;
        }
        for text in texts {
            shorten(text, |text| FRAGMENTS.shorten(text));
        }
        shorten((*report).context, shorten_cut);
        shorten((*report).detail, shorten_xml);
        shorten((*report).detail_log, shorten_xml);
        cover_activity();
        if let Some(before) = before().and_then(|before| before.log) {
            before(report);
        }
    }
}

/// Where the statement is written, by Postgres or by others, and where the message is of a statement that nobody has seen yet.
/// Otherwise each of many statements with a notice would be a reason to search all of them.
unsafe fn needs_statement(report: *mut pg_sys::ErrorData) -> bool {
    // SAFETY: Postgres's report, which is only read.
    unsafe {
        (*report).elevel >= pg_sys::PGERROR as c_int
            || check_log_of_query(report)
            || before().is_some_and(|before| before.log.is_some())
    }
}

/// Called before the client is told that its message has been dealt with, whatever has become of it.
unsafe extern "C-unwind" fn on_flush() -> c_int {
    // SAFETY: this process's own entry, and the method that was there before.
    unsafe {
        cover_activity();
        before().map_or(0, |before| (before.sending.flush)())
    }
}

unsafe extern "C-unwind" fn on_flush_if_writable() -> c_int {
    // SAFETY: as above.
    unsafe {
        cover_activity();
        before().map_or(0, |before| (before.sending.flush_if_writable)())
    }
}

/// The first that is called for a statement, once it is parsed.
unsafe extern "C-unwind" fn on_analyze(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: Postgres hands over a state that lives as long as this call.
    unsafe {
        let part = Part::new((*query).stmt_location, (*query).stmt_len);
        (*state).p_sourcetext = cover((*state).p_sourcetext, part);
        if let Some(before) = before().and_then(|before| before.analyze) {
            before(state, query, jumble);
        }
    }
}

/// Also of a statement that was analyzed long ago, by a session that pg_stat_statements has forgotten since.
unsafe extern "C-unwind" fn on_plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: what Postgres hands over is handed on, to the hook that was there when this one was set.
    unsafe {
        let text = cover(text, Part::new((*query).stmt_location, (*query).stmt_len));
        match before().and_then(|before| before.planner) {
            Some(before) => before(query, text, options, parameters),
            None => pg_sys::standard_planner(query, text, options, parameters),
        }
    }
}

/// Also of a statement that was parsed long ago.
unsafe extern "C-unwind" fn on_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: Postgres hands over a description, which lives in the current memory context.
    unsafe {
        let statement = &*(*query).plannedstmt;
        let part = Part::new(statement.stmt_location, statement.stmt_len);
        (*query).sourceText = cover((*query).sourceText, part);
        match before().and_then(|before| before.start) {
            Some(before) => before(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
    }
}

unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: what Postgres hands over is handed on; the text is read for messages and for cursors only.
    unsafe {
        let next = before().and_then(|before| before.utility).unwrap_or(standard_ProcessUtility);
        let text = cover(text, Part::new((*statement).stmt_location, (*statement).stmt_len));
        next(statement, text, read_only_tree, context, parameters, environment, destination, completion);
    }
}

/// Which part of a text is the statement, as Postgres says it. Of many that came in one message the first stands for all of the text, so that each
/// part is searched twice at most.
struct Part {
    from: usize,
    /// 0 for all the rest.
    length: usize,
}

impl Part {
    fn new(location: c_int, length: c_int) -> Part {
        let from = usize::try_from(location).unwrap_or(0);
        Part { from, length: if from == 0 { 0 } else { usize::try_from(length).unwrap_or(0) } }
    }

    /// The text has to be the one that the part is of.
    unsafe fn of<'a>(&self, text: *const c_char) -> &'a [u8] {
        // SAFETY: the part of a C string, by Postgres's own parser.
        unsafe {
            let start = text.add(self.from);
            match self.length {
                0 => CStr::from_ptr(start).to_bytes(),
                length => std::slice::from_raw_parts(start.cast(), length),
            }
        }
    }
}

/// `text` itself, or a copy when there is a token in the statement; then it is covered elsewhere, too. Whoever shows or keeps more of the text than
/// the statement does it by a message.
unsafe fn cover(text: *const c_char, part: Part) -> *const c_char {
    // SAFETY: the caller hands over a C string or null; the copy has room for all of it, and lives as long as what runs it.
    unsafe {
        if text.is_null() {
            return text;
        }
        if !holds_a_token(part.of(text)) {
            // What is shown is the beginning of the whole text.
            if part.from > 0 {
                cover_activity();
            }
            return text;
        }
        let is_covered = cover_statement();
        cover_activity();
        // A portal shows its statement anew with each Execute message.
        let portal = pg_sys::ActivePortal.as_mut().filter(|portal| portal.sourceText == text);
        // Of many statements in a message all are covered by now. What is left of it when the message is over gets its own copy.
        let covered = COVERED.load(Relaxed);
        let is_message = ORIGINAL.load(Relaxed).cast_const() == text && pg_sys::debug_query_string == covered;
        if is_covered && is_message && portal.as_ref().is_none_or(|portal| !portal.visible) {
            return covered;
        }
        let size = CStr::from_ptr(text).count_bytes() + 1;
        let copy = match &portal {
            Some(portal) => MemoryContextAlloc(portal.portalContext, size),
            None => palloc(size),
        };
        let copy = copy.cast::<c_char>();
        copy.copy_from_nonoverlapping(text, size);
        let statement = part.of(copy);
        FRAGMENTS.blank(std::slice::from_raw_parts_mut(statement.as_ptr().cast_mut(), statement.len()));
        if let Some(portal) = portal {
            portal.sourceText = copy;
        }
        copy
    }
}

/// What the log writes as STATEMENT. False when there is no memory for it.
unsafe fn cover_statement() -> bool {
    // SAFETY: Postgres's pointer to the client's statement, which whoever wants to keep it copies.
    unsafe {
        let text = pg_sys::debug_query_string;
        let old = COVERED.load(Relaxed);
        if text == old {
            return true;
        }
        let Some(bytes) = bytes(text).filter(|bytes| holds_a_token(bytes)) else { return true };
        let Some(covered) = covered(bytes) else { return false };
        let covered = covered.into_raw();
        pg_sys::debug_query_string = covered;
        ORIGINAL.store(text.cast_mut(), Relaxed);
        COVERED.store(covered, Relaxed);
        if !old.is_null() {
            drop(CString::from_raw(old));
        }
        true
    }
}

/// What pg_stat_activity shows of this process.
unsafe fn cover_activity() {
    // SAFETY: the entry is this process's own, so nobody else writes it.
    unsafe {
        let Some(entry) = pg_sys::MyBEEntry.as_ref() else { return };
        let Some(shown) = bytes(entry.st_activity_raw).filter(|shown| holds_a_token(shown)) else { return };
        let (state, id) = (entry.st_state, entry.st_query_id);
        let covered = covered(shown);
        pg_sys::pgstat_report_activity(state, covered.as_deref().unwrap_or(c"").as_ptr());
        pg_sys::pgstat_report_query_id(id, true);
    }
}

/// A copy of a statement. None when there is no memory for it.
fn covered(bytes: &[u8]) -> Option<CString> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len() + 1).ok()?;
    copy.extend_from_slice(bytes);
    FRAGMENTS.blank(&mut copy);
    CString::new(copy).ok()
}

/// Changes a message where it lies.
unsafe fn shorten(text: *mut c_char, by: impl Fn(&mut [u8]) -> usize) {
    // SAFETY: the caller hands over a C string of its own or null; it only becomes shorter.
    unsafe {
        let Some(length) = bytes(text).map(<[u8]>::len) else { return };
        let length = by(std::slice::from_raw_parts_mut(text.cast(), length));
        text.add(length).write(0);
    }
}

unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller hands over a C string or null.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}
