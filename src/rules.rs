//! Checks the SQL side asks for.

use crate::error::Failure;
use crate::record::Record;
use crate::{args, spi};
use keywright_core::name::Rule;
use keywright_core::printable::quoted;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

const MOST_ROWS: i32 = 10_000;

#[pg_extern(sql = false)]
fn writing() -> bool {
    spi::writing()
}

#[pg_extern(sql = false)]
fn name_fault(
    constraint_name: Option<&str>,
    name: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let constraint = args::required("constraint_name", constraint_name)?;
    let rule = Rule::of_constraint(constraint)
        .ok_or_else(|| Failure::Broken { object: format!("rule {}", quoted(constraint.as_bytes())) })?;
    let name = args::required(rule.argument(), name)?;
    Ok(match args::check(rule, name) {
        Ok(_) => Record::NONE,
        Err(broken) => Record::new(
            fcinfo,
            &[
                rule.table().into_datum(),
                broken.message.into_datum(),
                broken.detail.into_datum(),
                broken.hint.into_datum(),
            ],
        ),
    })
}

#[pg_extern(sql = false)]
fn page_size(page_size: Option<i32>) -> Result<i32, ErrorReport> {
    Ok(args::within("page_size", page_size, MOST_ROWS)?)
}
