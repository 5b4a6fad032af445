//! When keys were used and how verifications ended, noted in shared memory where the library is loaded with the server.
//!
//! `memory` is what is noted, `worker` writes it into the table `keywright.api_key_usage`, `touch` is for servers without.

mod memory;
mod metrics;
mod touch;
mod worker;

use crate::clock::Moment;
use crate::record::Record;
use crate::settings;
use keywright_core::usage::{NEVER, Packed};
use memory::Memory;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// What was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ApiKey,
    GatewayKey,
}

/// How its verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Active,
    Malformed,
    Unknown,
    WrongSecret,
    Expired,
    Revoked,
    UserInactive,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::ApiKey, Kind::GatewayKey];

    fn name(self) -> &'static str {
        match self {
            Kind::ApiKey => "api_key",
            Kind::GatewayKey => "gateway_key",
        }
    }

    fn counter(self, outcome: Outcome) -> usize {
        self as usize * Outcome::ALL.len() + outcome as usize
    }

    /// A gateway key is deleted where an API key is revoked, and belongs to nobody.
    fn ends(self) -> &'static [Outcome] {
        match self {
            Kind::ApiKey => &Outcome::ALL,
            Kind::GatewayKey => &Outcome::ALL[..=Outcome::Expired as usize],
        }
    }
}

impl Outcome {
    const ALL: [Outcome; 7] = [
        Outcome::Active,
        Outcome::Malformed,
        Outcome::Unknown,
        Outcome::WrongSecret,
        Outcome::Expired,
        Outcome::Revoked,
        Outcome::UserInactive,
    ];

    fn name(self) -> &'static str {
        match self {
            Outcome::Active => "active",
            Outcome::Malformed => "malformed",
            Outcome::Unknown => "unknown",
            Outcome::WrongSecret => "wrong-secret",
            Outcome::Expired => "expired",
            Outcome::Revoked => "revoked",
            Outcome::UserInactive => "user-inactive",
        }
    }
}

/// Called while the library is loaded.
pub fn start() {
    if settings::is_preloading() && settings::usage_slots() > 0 {
        memory::request();
        worker::register();
    }
}

#[inline]
fn tracked() -> Option<&'static Memory> {
    memory::get().filter(|_| settings::track_usage())
}

/// One more verification that ended like this.
#[inline]
pub fn count(kind: Kind, outcome: Outcome) {
    if let Some(memory) = tracked() {
        memory.count(kind, outcome);
    }
}

/// The same of an API key, and when a key that exists was presented, and used.
#[inline]
pub fn note_api_key(id: &str, at: Moment, outcome: impl FnOnce() -> Outcome) {
    if let Some(memory) = tracked() {
        note(memory, id, at, outcome());
    }
}

fn note(memory: &Memory, id: &str, at: Moment, outcome: Outcome) {
    memory.count(Kind::ApiKey, outcome);
    let Some(key) = Packed::of(id.as_bytes()) else { return };
    match outcome {
        // Who makes up ids must not get the others out of the memory; and it takes as long as for one that exists.
        Outcome::Unknown => memory.pass(key),
        _ => memory.note(key, at, outcome == Outcome::Active),
    }
}

/// last_used_at, last_presented_at
#[pg_extern(sql = false)]
fn noted_usage(key_id: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    let known = memory::get().zip(key_id.and_then(Packed::of)).and_then(|(memory, key)| memory.look(key));
    let moment = |moment: Moment| if moment == NEVER { None } else { moment.into_datum() };
    match known {
        Some((used, presented)) => Record::new(fcinfo, &[moment(used), moment(presented)]),
        None => Record::new(fcinfo, &[None, None]),
    }
}
