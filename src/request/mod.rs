//! The key a transaction acts for, and what row security policies ask of it.

mod context;
mod standing;

pub use context::watch_transactions;

use crate::error::Failure;
use crate::record::Record;
use crate::{api_key, authority, user};
use context::Context;
use pgrx::PgLogLevel;
use pgrx::datum::Uuid;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{FromDatum, IntoDatum, pg_extern, pg_sys};

#[pg_extern(sql = false)]
fn begin_request(token: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) -> Result<Record, ErrorReport> {
    context::forget();
    let presented = api_key::presented(token).ok_or(Failure::InvalidToken)?;
    let source = authority::source()?;
    let key_id = presented.0.to_owned();
    let (user_id, username) = api_key::verify(&source, presented, |columns, live| {
        let (_, owner) = live?;
        // SAFETY: the owner's id is a uuid, and a username a text; both are copied.
        let (id, name) = unsafe {
            (Uuid::from_datum(owner, false)?, columns[3].and_then(|name| Vec::<u8>::from_datum(name, false))?)
        };
        Some((id, name))
    })
    .ok_or(Failure::InvalidToken)?;
    let db_role = user::db_role(user_id, &source, authority::OWNERS);
    let columns = [
        key_id.as_str().into_datum(),
        user_id.into_datum(),
        Some(crate::spi::text_datum(&username)),
        db_role.map(|role| crate::spi::text_datum(&role)),
    ];
    context::enter(Context::new(key_id, user_id));
    warn_outside_a_block();
    Ok(Record::new(fcinfo, &columns))
}

/// As SET LOCAL does: the key is forgotten when the statement ends.
fn warn_outside_a_block() {
    // SAFETY: looks at the state of the transaction.
    if unsafe { !pg_sys::IsTransactionBlock() && !pg_sys::IsSubTransaction() } {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_NO_ACTIVE_SQL_TRANSACTION,
            "begin_request outside a transaction block is in force for this statement only",
            "begin_request",
        )
        .set_hint("BEGIN a transaction first.")
        .report(PgLogLevel::WARNING);
    }
}

/// A pooled connection can come with the transaction of somebody else still open.
#[pg_extern(sql = false)]
fn _forget_request() {
    context::forget();
}

/// The key the transaction acts for, whether it is still live or not.
pub fn key_in_force() -> Option<String> {
    context::in_force(|context| context.key_id.clone())
}

#[pg_extern(sql = false)]
fn current_user_id() -> Result<Option<Uuid>, ErrorReport> {
    Ok(context::ask(|context| Ok(context.standing()?.is_some().then_some(context.user_id)))?.flatten())
}

#[pg_extern(sql = false)]
fn current_api_key_id() -> Result<Option<String>, ErrorReport> {
    Ok(context::ask(|context| Ok(context.standing()?.is_some().then(|| context.key_id.clone())))?.flatten())
}

#[pg_extern(sql = false)]
fn current_scopes() -> Result<Option<Vec<String>>, ErrorReport> {
    Ok(context::ask(|context| Ok(context.standing()?.map(|standing| standing.names.clone())))?.flatten())
}

#[pg_extern(sql = false)]
fn is_permitted(
    permission: Option<&[u8]>,
    resource_type: Option<&[u8]>,
    resource_id: Option<&[u8]>,
) -> Result<bool, ErrorReport> {
    let permission = crate::args::required("permission", permission)?;
    let answer = context::ask(|context| context.permits(permission, resource_type, resource_id))?;
    Ok(answer.unwrap_or(false))
}
