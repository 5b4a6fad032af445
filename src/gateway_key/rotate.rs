//! rotate_gateway_key: a successor at once, the predecessor for a while.

use super::mint::{self, holder, queue, supersede};
use crate::args::Faults;
use crate::error::Failure;
use crate::record::Rows;
use crate::{args, clock};
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

#[pg_extern(sql = false)]
fn rotate_gateway_key(
    name: Option<&[u8]>,
    grace: Option<Interval>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let mut faults = Faults::default();
    let name = faults.sift(args::required("name", name));
    let grace = faults.sift(args::duration("grace", grace));
    let (Some(name), Some(grace)) = (name, grace) else { return Err(Failure::from(faults).into()) };
    let gone = || Failure::NoGatewayKey { name };
    holder(name).ok_or_else(gone)?;
    queue(name);
    let old = holder(name).ok_or_else(gone)?;
    let now = clock::now();
    let end = grace.after(now);
    supersede(old.id, now, end);
    let stored_name = name.to_ascii_lowercase();
    // What replaces a key queues, so the name is free for us.
    let new = mint::insert(&stored_name, old.manager.as_deref().map(str::as_bytes))?.ok_or_else(gone)?;
    Ok(Rows::one(
        fcinfo,
        &[
            new.id.into_datum(),
            stored_name.into_datum(),
            new.minted.public.into_datum(),
            new.minted.token.expose().into_datum(),
            new.created_at.into_datum(),
            old.id.into_datum(),
            end.into_datum(),
        ],
    ))
}
