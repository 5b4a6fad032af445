//! API keys: belong to a user, have scopes, an allow-list and an expiry.
//!
//! Lock order, everywhere: the user, then its keys.

pub mod declared;
mod ensure;
mod explain;
mod import;
mod mint;
mod mint_many;
mod purge;
mod revoke;
mod rotate;
mod verify;

pub use purge::MOST as MOST_PURGED;
pub use revoke::delete_named;
pub use rotate::require_key_id;
pub use verify::{look, presented, verify};

use crate::probe::Keyed;
use pgrx::pg_sys;

/// How verification finds a key.
pub static BY_ID: Keyed = Keyed::new(
    c"api_keys",
    c"api_keys_pkey",
    &[pg_sys::F_TEXTEQ],
    &[
        pg_sys::TEXTOID,
        pg_sys::UUIDOID,
        pg_sys::TEXTOID,
        pg_sys::BYTEAOID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TEXTARRAYOID,
        pg_sys::TEXTARRAYOID,
    ],
);

/// Columns of `keywright.api_keys`, as its CREATE TABLE has them.
pub mod column {
    pub const KEY_ID: i32 = 1;
    pub const USER_ID: i32 = 2;
    pub const NAME: i32 = 3;
    pub const HASHED_SECRET: i32 = 4;
    pub const EXPIRES_AT: i32 = 5;
    pub const REVOKED_AT: i32 = 6;
    pub const SCOPES: i32 = 7;
    pub const ALLOW_LIST: i32 = 8;
}
