//! What `keywright.metrics` says of the memory.

use super::{Kind, memory};
use crate::record::{Rows, jsonb};
use pgrx::{IntoDatum, pg_extern, pg_sys};
use serde_json::json;

/// name, labels, value
#[pg_extern(sql = false)]
fn usage_metrics(fcinfo: pg_sys::FunctionCallInfo) -> Rows {
    // Moments count from 2000, in microseconds.
    const EPOCH: f64 = 946_684_800.0;
    let rows = Rows::new(fcinfo);
    let Some(memory) = memory::get() else { return rows };
    let push = |name: &str, labels, value: f64| {
        rows.push(&[name.into_datum(), Some(jsonb(&labels)), value.into_datum()]);
    };
    if let Some(own) = memory.own() {
        for (kind, outcome) in
            Kind::ALL.iter().flat_map(|kind| kind.ends().iter().map(move |end| (kind, *end)))
        {
            let labels = json!({ "kind": kind.name(), "outcome": outcome.name() });
            push("keywright_verifications_total", labels, own.total(*kind, outcome) as f64);
        }
        if let Some(at) = own.flushed_at() {
            push("keywright_usage_last_flush_timestamp_seconds", json!({}), at as f64 / 1e6 + EPOCH);
        }
    }
    let slots = memory.slots();
    for (state, number) in [("free", slots.free), ("clean", slots.clean), ("dirty", slots.dirty)] {
        push("keywright_usage_slots", json!({ "state": state }), number as f64);
    }
    push("keywright_usage_dropped_total", json!({}), memory.dropped() as f64);
    rows
}
