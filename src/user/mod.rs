//! Users: identities that own keys.

pub mod declared;
mod ensure;
mod standing;
mod status;

pub use ensure::require_harmless_role;
pub use standing::{bind_to_organizations, lose_all};
pub use status::delete;

use crate::error::Failure;
use crate::manager::Claim;
use crate::probe::{Keyed, Reader};
use crate::spi;
use pgrx::datum::Uuid;
use pgrx::{IntoDatum, pg_extern, pg_sys};

/// How verification finds an owner.
pub static BY_ID: Keyed = Keyed::new(
    c"users",
    c"users_pkey",
    &[pg_sys::F_UUID_EQ],
    &[
        pg_sys::UUIDOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZOID,
    ],
)
.again_by(column::USER_ID);

/// Columns of `keywright.users`, as its CREATE TABLE has them.
pub mod column {
    pub const USER_ID: i32 = 1;
    pub const USERNAME: i32 = 2;
    pub const STATUS: i32 = 4;
    pub const DB_ROLE: i32 = 7;
    pub const DELETED_AT: i32 = 11;
}

pub const ACTIVE: &[u8] = b"active";

/// A living user.
#[derive(Debug)]
pub struct User {
    pub id: Uuid,
    pub username: String,
    active: bool,
}

impl User {
    fn from_row(row: &spi::Row) -> User {
        User { id: row.must(1), username: row.must(2), active: row.must(3) }
    }

    /// Holds this very user, as `hold` does.
    pub fn hold(&self) -> Result<User, Failure<'_>> {
        const HOLD: &str = r#"
            SELECT user_id, username, status = 'active'
              FROM keywright.users WHERE user_id = $1 AND deleted_at IS NULL FOR SHARE"#;
        let username = self.username.as_bytes();
        spi::write(HOLD, &[self.id.into()], User::from_row).pop().ok_or(Failure::NoUser { username })
    }

    /// Holds this user against every new key, waits for those that are being minted, and refuses another manager's. False
    /// when it was deleted meanwhile.
    pub fn close(&self, claim: Claim) -> Result<bool, Failure<'static>> {
        const CLOSE: &str = "SELECT managed_by FROM keywright.users WHERE user_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
        claim.hold(|| format!("user \"{}\"", self.username), CLOSE, &[self.id.into()])
    }

    /// Inside REPEATABLE READ the foreign key of a new key is checked under the old snapshot, where a newer
    /// user is missing: that is a serialization failure, not a broken reference.
    pub fn require_in_snapshot(&self) -> Result<(), Failure<'static>> {
        const SEEN: &str = "SELECT FROM keywright.users WHERE user_id = $1";
        match spi::read_in_transaction_snapshot(SEEN, &[self.id.into()]) {
            true => Ok(()),
            false => Err(Failure::NewerThanTransaction { what: format!("User \"{}\"", self.username) }),
        }
    }

    /// True when this is the user of this name, or no name is given.
    pub fn is_called(&self, username: Option<&[u8]>) -> bool {
        username.is_none_or(|username| self.username.as_bytes().eq_ignore_ascii_case(username))
    }

    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Refuses a suspended user.
    pub fn require_active(&self) -> Result<(), Failure<'_>> {
        if self.active { Ok(()) } else { Err(Failure::UserSuspended { username: &self.username }) }
    }
}

pub fn find(username: &[u8]) -> Result<User, Failure<'_>> {
    look(username).ok_or(Failure::NoUser { username })
}

pub fn look(username: &[u8]) -> Option<User> {
    const FIND: &str = r#"
        SELECT user_id, username, status = 'active'
          FROM keywright.users
         WHERE pg_catalog.lower(username) = pg_catalog.lower($1 COLLATE "C") AND deleted_at IS NULL"#;
    spi::read(FIND, &[spi::text(username)], User::from_row).pop()
}

/// As `find`, and holds the user as it is until the transaction ends. SHARE, because KEY SHARE would not
/// conflict with a deletion in flight, which changes no key column.
pub fn hold(username: &[u8]) -> Result<User, Failure<'_>> {
    const HOLD: &str = r#"
        SELECT user_id, username, status = 'active'
          FROM keywright.users
         WHERE pg_catalog.lower(username) = pg_catalog.lower($1 COLLATE "C") AND deleted_at IS NULL
           FOR SHARE"#;
    spi::write(HOLD, &[spi::text(username)], User::from_row).pop().ok_or(Failure::NoUser { username })
}

/// The Postgres role a user acts as.
pub fn db_role<const N: usize>(user: Uuid, reader: &Reader<N>, table: usize) -> Option<Vec<u8>> {
    let id = user.into_datum().unwrap_or(pg_sys::Datum::null());
    reader.find(table, id, |row| row?.bytes(column::DB_ROLE).map(<[u8]>::to_vec))
}

/// The living owner of an API key.
pub fn owner_of(key_id: &str) -> Option<User> {
    const OWNER: &str = r#"
        SELECT u.user_id, u.username, u.status = 'active'
          FROM keywright.api_keys AS k
          JOIN keywright.users AS u ON u.user_id = k.user_id
         WHERE k.key_id = $1 AND u.deleted_at IS NULL"#;
    spi::read(OWNER, &[key_id.into()], User::from_row).pop()
}

#[pg_extern(sql = false)]
fn user_id(username: Option<&[u8]>) -> Option<Uuid> {
    Some(look(username?)?.id)
}
