//! The manifest: everything a control plane wants to be there, in one JSON document.
//!
//! Reading one takes two steps. `read` needs no database, but for the spelling of intervals: it finds every fault of form. `normalize` brings the
//! lists into their one spelling, against what a database knows.

mod check;
mod document;
mod fault;
mod json;
mod object;
pub mod plan;
mod read;
#[cfg(test)]
mod schema;
pub mod state;
#[cfg(test)]
mod tests;

pub use document::{
    ApiKey, Authenticator, Binding, GatewayKey, Held, Manifest, Resource, ResourceType, Role, Scope, User,
    UserKind,
};
pub use fault::Fault;
pub use read::{Interval, read, read_all};

/// Most entries a section may have.
pub const MOST_ENTRIES: usize = 100_000;

/// Most of what is defined, or held by a lock, one by one.
pub const MOST_DEFINITIONS: usize = 1_000;
