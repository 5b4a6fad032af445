//! Everything keywright can decide without a database.
//!
//! Input arrives as bytes: a database may be in any encoding, and a token may be anything at all.
#![forbid(unsafe_code)]

pub mod allow_list;
pub mod alphabet;
pub mod authenticator;
pub mod digest;
pub mod duration;
pub mod list;
pub mod manifest;
pub mod name;
pub mod operator_name;
pub mod permission;
pub mod postgrest;
pub mod printable;
pub mod redact;
pub mod registry;
pub mod resource;
pub mod scope;
pub mod secret;
pub mod slip;
pub mod text;
pub mod token;
pub mod uri;
pub mod usage;

/// Most entries a key's scopes or its allow-list may have.
pub const MAX_ENTRIES: usize = 128;
