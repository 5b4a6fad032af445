//! explain_api_key: the true cause, for an auditor.

use crate::record::Rows;
use crate::{clock, spi};
use keywright_core::digest;
use keywright_core::slip::slip;
use keywright_core::token::ApiKey;
use pgrx::datum::Uuid;
use pgrx::{IntoDatum, pg_extern, pg_sys};

struct Key {
    hashed_secret: Vec<u8>,
    user_id: Uuid,
    username: String,
    name: String,
    expires_at: pg_sys::TimestampTz,
    revoked_at: Option<pg_sys::TimestampTz>,
    revoke_reason: Option<pg_sys::Datum>,
    superseded_at: Option<pg_sys::TimestampTz>,
    superseded_by: Option<String>,
    owner_suspended: bool,
    owner_deleted: bool,
}

#[pg_extern(sql = false)]
fn explain_api_key(token: Option<&[u8]>, fcinfo: pg_sys::FunctionCallInfo) -> Rows {
    let only = |cause: &str, key_id: Option<&str>| {
        let mut columns = [None; 10];
        columns[0] = cause.into_datum();
        columns[1] = key_id.into_datum();
        Rows::one(fcinfo, &columns)
    };
    let Some(token) = token.filter(|token| !token.is_empty()) else { return only("missing", None) };
    let Some(presented) = ApiKey::parse(token) else {
        let slip = slip(token);
        return only(slip.cause, slip.key_id);
    };
    let Some(key) = look(presented.id()) else { return only("unknown", Some(presented.id())) };
    if !digest::matches(&presented.digest(), &key.hashed_secret) {
        return only("wrong-secret", Some(presented.id()));
    }
    Rows::one(
        fcinfo,
        &[
            key.cause().into_datum(),
            presented.id().into_datum(),
            key.user_id.into_datum(),
            key.username.into_datum(),
            key.name.into_datum(),
            key.expires_at.into_datum(),
            key.revoked_at.into_datum(),
            key.revoke_reason,
            key.superseded_at.into_datum(),
            key.superseded_by.into_datum(),
        ],
    )
}

impl Key {
    fn cause(&self) -> &'static str {
        let expired = self.expires_at <= clock::now();
        [
            (self.revoked_at.is_some(), "revoked"),
            (self.superseded_at.is_some() && expired, "superseded"),
            (expired, "expired"),
            (self.owner_deleted, "user-deleted"),
            (self.owner_suspended, "user-suspended"),
        ]
        .into_iter()
        .find_map(|(applies, cause)| applies.then_some(cause))
        .unwrap_or("active")
    }
}

fn look(key_id: &str) -> Option<Key> {
    const KEY: &str = r#"
        SELECT k.hashed_secret, k.user_id, u.username, k.name, k.expires_at, k.revoked_at, k.revoke_reason,
               k.superseded_at, k.superseded_by, u.status <> 'active', u.deleted_at IS NOT NULL
          FROM keywright.api_keys AS k
          JOIN keywright.users AS u ON u.user_id = k.user_id
         WHERE k.key_id = $1"#;
    spi::read(KEY, &[key_id.into()], |row| Key {
        hashed_secret: row.must(1),
        user_id: row.must(2),
        username: row.must(3),
        name: row.must(4),
        expires_at: row.must(5),
        revoked_at: row.get(6),
        revoke_reason: row.get::<Vec<u8>>(7).map(|reason| spi::text_datum(&reason)),
        superseded_at: row.get(8),
        superseded_by: row.get(9),
        owner_suspended: row.must(10),
        owner_deleted: row.must(11),
    })
    .pop()
}
