//! What was refused. An error takes everything its transaction wrote along, so the server's log is what keeps it.

use super::event::name_of;
use crate::request;
use keywright_core::printable::quoted;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{pg_extern, pg_sys};
use std::ffi::{CStr, CString, c_char, c_int};

/// A line in the server's log, which no client gets: what, and who.
pub fn refused(code: PgSqlErrorCode, message: &str) {
    // SAFETY: gives the five characters of a code in a static buffer.
    let state = unsafe { CStr::from_ptr(pg_sys::unpack_sql_state(code as c_int)) };
    line(&state.to_string_lossy(), message.as_bytes());
}

/// For errors that PL/pgSQL raises.
#[pg_extern(sql = false)]
fn note_refusal(sqlstate: Option<&str>, message: Option<&[u8]>) {
    line(sqlstate.unwrap_or_default(), message.unwrap_or_default());
}

fn line(sqlstate: &str, message: &[u8]) {
    // SAFETY: both are those of the session.
    let (session, role) = unsafe { (pg_sys::GetSessionUserId(), pg_sys::GetOuterUserId()) };
    let mut text = b"keywright refused: ".to_vec();
    text.extend_from_slice(message);
    let key = request::key_in_force().unwrap_or_default();
    let who = format!(
        "sqlstate={sqlstate} session_user={} role={} api_key_id={}",
        quoted(&name_of(session)),
        quoted(&name_of(role)),
        quoted(key.as_bytes())
    );
    if let (Ok(text), Ok(who)) = (CString::new(text), CString::new(who)) {
        log(&text, &who);
    }
}

/// Without the statement, which may hold a token, and so not by pgrx's own means.
fn log(message: &CStr, detail: &CStr) {
    unsafe extern "C-unwind" {
        fn errstart(level: c_int, domain: *const c_char) -> bool;
        fn errmsg_internal(format: *const c_char, ...) -> c_int;
        fn errdetail_internal(format: *const c_char, ...) -> c_int;
        fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    }
    // SAFETY: the sequence of a report; at this level none of them ends in an error. Format and arguments agree, and are
    // copied.
    unsafe {
        if errstart(pg_sys::LOG_SERVER_ONLY as c_int, std::ptr::null()) {
            errmsg_internal(c"%s".as_ptr(), message.as_ptr());
            errdetail_internal(c"%s".as_ptr(), detail.as_ptr());
            pg_sys::errhidestmt(true);
            pg_sys::errhidecontext(true);
            errfinish(c"refusal.rs".as_ptr(), 0, c"note_refusal".as_ptr());
        }
    }
}
