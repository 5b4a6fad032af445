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

/// Its tail: tells who listens. No more than names go out, and none is longer than 255 bytes.
macro_rules! returning {
    () => {
        r#" RETURNING event_id, event, kind, id, name, affected)
           SELECT pg_catalog.pg_notify('keywright', pg_catalog.json_build_object('event_id', e.event_id, 'event', e.event,
                    'kind', e.kind, 'id', e.id, 'name', e.name, 'affected', e.affected)::text)
             FROM e WHERE $1"#
    };
}
pub(super) use {insert, returning};

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

/// The name of a role, in the encoding of the database; its number when it was dropped meanwhile.
pub fn name_of(role: pg_sys::Oid) -> Vec<u8> {
    // SAFETY: looks a role up; the name is a C string in the memory of the call, or null.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { role.to_string().into_bytes() } else { CStr::from_ptr(name).to_bytes().to_vec() }
    }
}
