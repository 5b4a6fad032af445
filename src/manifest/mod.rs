//! plan and apply: one document says what is to be there.
//!
//! What has to be done is decided in `core/src/manifest/plan.rs`, on what `state` has read from the other rooms.
//! `carry_out` asks them to do it.

mod carry_out;
mod state;

use crate::authenticator::Caller;
use crate::error::Failure;
use crate::record::{Rows, Text, jsonb};
use crate::retry::patiently;
use crate::{args, clock, scope};
use carry_out::{carry_out, lock};
use keywright_core::manifest::plan::{Action, MALFORMED, Refusal, Step};
use keywright_core::manifest::state::State;
use keywright_core::manifest::{Fault, Manifest, plan as planning};
use keywright_core::secret::Secret;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{AnyElement, IntoDatum, pg_extern, pg_sys};
use std::collections::HashSet;

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

/// A manifest, and what is wrong with its form.
struct Declared {
    document: Manifest,
    faults: Vec<Refusal>,
    /// What is wrong with its lists of permissions, scopes and the like.
    lists: Vec<Refusal>,
}

impl Declared {
    /// What else speaks against entries whose form is right.
    fn refuse(&self, more: Vec<Refusal>) -> Failure<'static> {
        let entry = |path: &str| path.find(']').map_or(path.len(), |end| end + 1);
        let faulty: HashSet<&str> =
            self.faults.iter().map(|fault| &fault.path[..entry(&fault.path)]).collect();
        let more = self.lists.iter().cloned().chain(more);
        let more = more.filter(|refusal| !faulty.contains(&refusal.path[..entry(&refusal.path)]));
        Failure::Manifest { refusals: self.faults.iter().cloned().chain(more).collect() }
    }
}

fn read(json: AnyElement) -> Result<Declared, Failure<'static>> {
    let text = Text::of(json);
    let text = text.as_bytes();
    if args::name(text).is_none() {
        let sentence = "It holds other characters than ASCII, which takes a database in UTF8.";
        return Err(refused(vec![Fault { path: "$".into(), sentence: sentence.into() }]));
    }
    let (document, faults) = keywright_core::manifest::read_all(text, args::interval);
    // Without its manager nothing can be said of the rest.
    let is_of_entry = |fault: &Fault| fault.path.contains('[');
    let Some(mut document) = document.filter(|_| faults.iter().all(is_of_entry)) else {
        return Err(refused(faults));
    };
    let lists = refusals(document.normalize(&scope::registry()));
    Ok(Declared { document, faults: refusals(faults), lists })
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
    match planning::plan(&manifest.document, &state) {
        Ok(steps) if found.is_empty() && manifest.faults.is_empty() && manifest.lists.is_empty() => {
            Ok((state, steps))
        }
        Ok(_) => Err(manifest.refuse(found)),
        Err(more) => Err(manifest.refuse(found.into_iter().chain(more).collect())),
    }
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
