//! One event: its row, and its notification.

use crate::{request, settings, spi};
use pgrx::pg_sys;
use std::ffi::CStr;

/// The head of every statement that notes: what it selects are the columns, in this order.
macro_rules! insert {
    () => {
        r#"INSERT INTO keywright.audit_events
                  (event, kind, id, name, user_id, columns, affected, by_hand, session_user_name, role_name, api_key_id)
           "#
    };
}

/// At most 600 bytes of a text, which only rows written by hand exceed: an index entry and a notification have a limit.
macro_rules! short {
    ($text:literal) => {
        concat!(
            "CASE WHEN pg_catalog.octet_length(",
            $text,
            ") > 600 THEN pg_catalog.left(",
            $text,
            ", 150) ELSE ",
            $text,
            " END"
        )
    };
}

/// Its tail: tells who listens. No more than names go out, and nothing where the server's queue is filling up: when it is full, who
/// has told something can not commit, and a revocation must.
macro_rules! returning {
    () => {
        concat!(
            r#" RETURNING event_id, event, kind, id, name, affected)
           SELECT pg_catalog.pg_notify('keywright', pg_catalog.json_build_object('event_id', e.event_id, 'event', e.event,
                    'kind', e.kind, 'id', e.id, 'name', "#,
            short!("e.name"),
            r#", 'affected', e.affected)::text)
             FROM e WHERE $1 AND (SELECT pg_catalog.pg_notification_queue_usage()) < 0.5"#
        )
    };
}
pub(super) use {insert, returning, short};

/// Notes what no table of ours shows.
pub fn note(event: &str, kind: &str, id: &[u8]) {
    const NOTE: &str = concat!(
        "WITH e AS (",
        insert!(),
        "SELECT $6, $7, $8, '', NULL, '{}'::text[], 1, $2, $3, $4, $5",
        returning!()
    );
    let mut args = actor(false);
    args.extend([event.into(), kind.into(), spi::text(id)]);
    spi::count(NOTE, &args);
}

/// As `note`, one event for many objects.
pub fn note_many(event: &str, kind: &str, affected: i64) {
    const NOTE: &str = concat!(
        "WITH e AS (",
        insert!(),
        "SELECT $6, $7, '*', '', NULL, '{}'::text[], $8, $2, $3, $4, $5",
        returning!()
    );
    let mut args = actor(false);
    args.extend([event.into(), kind.into(), affected.into()]);
    spi::count(NOTE, &args);
}

/// The first five arguments of every such statement: whether to notify, by hand, and who acts.
pub fn actor(by_hand: bool) -> Vec<spi::Arg<'static>> {
    // SAFETY: both are those of the session, and always set.
    let (session, role) = unsafe { (pg_sys::GetSessionUserId(), pg_sys::GetOuterUserId()) };
    vec![
        settings::notify().into(),
        by_hand.into(),
        spi::owned_text(&name_of(session)),
        spi::owned_text(&name_of(role)),
        request::key_in_force().into(),
    ]
}

/// The name of a role; its number when it was dropped meanwhile. Roles belong to the cluster, so the name may be in another
/// encoding than the database: then it is escaped, or the row could not be read, dumped or restored.
pub fn name_of(role: pg_sys::Oid) -> Vec<u8> {
    // SAFETY: looks a role up; the name is a C string in the memory of the call, or null.
    let name = unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            return role.to_string().into_bytes();
        }
        CStr::from_ptr(name)
    };
    let length = name.count_bytes() as i32;
    // SAFETY: a string of this length; nothing is raised.
    let valid =
        unsafe { pg_sys::pg_verify_mbstr(pg_sys::GetDatabaseEncoding(), name.as_ptr(), length, true) };
    if valid { name.to_bytes().to_vec() } else { name.to_bytes().escape_ascii().to_string().into_bytes() }
}
