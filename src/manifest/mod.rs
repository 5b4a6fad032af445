//! plan and apply: one document says what is to be there.
//!
//! What has to be done is decided in `core/src/manifest/plan.rs`, on what `state` has read from the other rooms.
//! `carry_out` asks them to do it.

mod carry_out;
mod state;

use crate::authenticator::Caller;
use crate::error::Failure;
use crate::record::{Rows, jsonb};
use crate::retry::patiently;
use crate::{args, clock, scope, spi};
use carry_out::{carry_out, lock};
use keywright_core::manifest::plan::{Action, MALFORMED, Refusal, Step};
use keywright_core::manifest::state::State;
use keywright_core::manifest::{Fault, Manifest, plan as planning};
use keywright_core::secret::Secret;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{AnyElement, IntoDatum, PgBuiltInOids, pg_extern, pg_sys};

#[pg_extern(sql = false)]
fn manifest_schema_text() -> &'static str {
    include_str!("../../docs/manifest.schema.json")
}

#[pg_extern(sql = false)]
fn plan(manifest: Option<AnyElement>, fcinfo: pg_sys::FunctionCallInfo) -> Result<Rows, ErrorReport> {
    let started = clock::call_started();
    let caller = Caller::enter(fcinfo);
    let declared = read(args::required("manifest", manifest)?)?;
    let rows = Rows::new(fcinfo);
    let (_, steps) = decide(&declared, &caller, started)?;
    for (number, step) in (1i32..).zip(&steps) {
        rows.push(&columns(number, step));
    }
    Ok(rows)
}

#[pg_extern(sql = false)]
fn apply(manifest: Option<AnyElement>, fcinfo: pg_sys::FunctionCallInfo) -> Result<Rows, ErrorReport> {
    let started = clock::call_started();
    let caller = Caller::enter(fcinfo);
    let declared = read(args::required("manifest", manifest)?)?;
    let rows = Rows::new(fcinfo);
    for (number, (step, token)) in (1i32..).zip(patiently(|| attempt(&declared, &caller, started))?) {
        let mut columns = columns(number, &step).to_vec();
        columns.push(token.and_then(|token| token.expose().into_datum()));
        rows.push(&columns);
    }
    Ok(rows)
}

/// Reads without a lock first. Decides anew with everything held that matters.
fn attempt(
    manifest: &Declared,
    caller: &Caller,
    started: clock::Moment,
) -> Result<Vec<(Step, Option<Secret>)>, Failure<'static>> {
    let writes =
        |steps: &[Step]| steps.iter().any(|step| ![Action::Left, Action::Concurrent].contains(&step.action));
    let (state, steps) = decide(manifest, caller, started)?;
    if !writes(&steps) {
        return Ok(steps.into_iter().map(|step| (step, None)).collect());
    }
    lock(&manifest.document, &state, &steps)?;
    let (state, steps) = decide(manifest, caller, started)?;
    let mut tokens = carry_out(&manifest.document, &state, &steps, caller)?;
    Ok(steps.into_iter().enumerate().map(|(at, step)| (step, tokens.remove(&at))).collect())
}

/// A manifest that could be read, and what is wrong with its lists.
struct Declared {
    document: Manifest,
    faults: Vec<Refusal>,
}

fn read(json: AnyElement) -> Result<Declared, Failure<'static>> {
    const TEXT: &str = "SELECT pg_catalog.convert_to($1::text, CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)";
    // SAFETY: the SQL declares the argument jsonb.
    let args = [unsafe { spi::Arg::new(json, PgBuiltInOids::JSONBOID.value()) }];
    let text: Vec<u8> = spi::read(TEXT, &args, |row| row.must(1)).pop().unwrap_or_default();
    if args::name(&text).is_none() {
        let sentence = "It holds other characters than ASCII, which takes a database in UTF8.";
        return Err(refused(vec![Fault { path: "$".into(), sentence: sentence.into() }]));
    }
    let mut document = keywright_core::manifest::read(&text).map_err(refused)?;
    let faults = refusals(document.normalize(&scope::registry()));
    Ok(Declared { document, faults })
}

fn refusals(faults: Vec<Fault>) -> Vec<Refusal> {
    faults
        .into_iter()
        .map(|fault| Refusal { code: MALFORMED, path: fault.path, sentence: fault.sentence })
        .collect()
}

fn refused(faults: Vec<Fault>) -> Failure<'static> {
    Failure::Manifest { refusals: refusals(faults) }
}

fn decide(
    manifest: &Declared,
    caller: &Caller,
    started: clock::Moment,
) -> Result<(State, Vec<Step>), Failure<'static>> {
    let (state, found) = state::look(&manifest.document, caller, started)?;
    let mut refusals = manifest.faults.clone();
    refusals.extend(found);
    match planning::plan(&manifest.document, &state) {
        Ok(steps) if refusals.is_empty() => return Ok((state, steps)),
        Ok(_) => (),
        Err(more) => refusals.extend(more),
    }
    Err(Failure::Manifest { refusals })
}

/// step, action, kind, name, change
fn columns(number: i32, step: &Step) -> [Option<pg_sys::Datum>; 5] {
    [
        number.into_datum(),
        step.action.as_str().into_datum(),
        step.kind.as_str().into_datum(),
        args::readable(step.name.as_bytes()).into_datum(),
        Some(jsonb(&step.change)),
    ]
}
