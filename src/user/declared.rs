//! Users as a manifest has them, many in one statement.

use super::ensure::settle_declared;
use super::standing;
use crate::error::Failure;
use crate::{args, spi};
use keywright_core::manifest::state::{Owner, User};
use keywright_core::manifest::{self, UserKind};

fn from_row(row: &spi::Row) -> User {
    User {
        id: row.must(1),
        username: row.must(2),
        kind: row.must(3),
        active: row.must(4),
        email: spi::utf8(row.must(5)),
        display_name: spi::utf8(row.must(6)),
        db_role: spi::utf8(row.must(7)),
        organization_role: row.must(8),
        owner: Owner { manager: row.get(9), built_in: false },
    }
}

/// Those of these names, in lower case, and those of a manager.
pub fn find(names: &[String], manager: Option<&str>) -> Vec<User> {
    const NAMED: &str = r#"
        SELECT u.user_id::text, u.username, u.kind, u.status = 'active', pg_catalog.convert_to(u.email, e.utf8),
               pg_catalog.convert_to(u.display_name, e.utf8), pg_catalog.convert_to(coalesce(u.db_role, ''), e.utf8),
               coalesce(u.organization_role, ''), u.managed_by
          FROM keywright.users AS u, (SELECT CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END) AS e (utf8)
         WHERE pg_catalog.lower(u.username) = ANY ($1) AND u.deleted_at IS NULL"#;
    const OWNED: &str = r#"
        SELECT u.user_id::text, u.username, u.kind, u.status = 'active', pg_catalog.convert_to(u.email, e.utf8),
               pg_catalog.convert_to(u.display_name, e.utf8), pg_catalog.convert_to(coalesce(u.db_role, ''), e.utf8),
               coalesce(u.organization_role, ''), u.managed_by
          FROM keywright.users AS u, (SELECT CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END) AS e (utf8)
         WHERE u.managed_by = $1 AND u.deleted_at IS NULL"#;
    let mut found = match names.is_empty() {
        true => Vec::new(),
        false => spi::read_once(NAMED, &[names.to_vec().into()], from_row),
    };
    if let Some(manager) = manager {
        found.extend(spi::read_once(OWNED, &[manager.into()], from_row));
    }
    found
}

/// Holds users: against deletion, and those that are going to change against everything.
pub fn hold(names: &[String], changing: &[String]) {
    const CHANGE: &str = r#"
        SELECT FROM keywright.users AS u
         WHERE pg_catalog.lower(u.username) = ANY ($1) AND u.deleted_at IS NULL ORDER BY u.user_id FOR NO KEY UPDATE"#;
    const HOLD: &str = r#"
        SELECT FROM keywright.users AS u
         WHERE pg_catalog.lower(u.username) = ANY ($1) AND u.deleted_at IS NULL ORDER BY u.user_id FOR SHARE"#;
    for (sql, names) in [(CHANGE, changing), (HOLD, names)] {
        if !names.is_empty() {
            spi::write_once(sql, &[names.to_vec().into()], |_| ());
        }
    }
}

/// Those of these users, in lower case, that own live keys or hold roles which this manager did not give them.
pub fn with_others(ids: Vec<String>, manager: &str) -> Vec<String> {
    const OTHERS: &str = r#"
        SELECT pg_catalog.lower(u.username) FROM keywright.users AS u
         WHERE u.user_id = ANY ($1::text[]::uuid[])
           AND (EXISTS (SELECT FROM keywright.api_keys AS k
                         WHERE k.user_id = u.user_id AND k.revoked_at IS NULL AND k.expires_at > pg_catalog.clock_timestamp()
                           AND k.managed_by IS DISTINCT FROM $2)
                OR EXISTS (SELECT FROM keywright.role_bindings AS b
                            WHERE b.user_id = u.user_id AND NOT b.standing AND b.managed_by IS DISTINCT FROM $2))"#;
    if ids.is_empty() {
        return Vec::new();
    }
    spi::read_once(OTHERS, &[ids.into(), manager.into()], |row| row.must(1))
}

/// True when the transaction's snapshot lacks one of these users: foreign keys look there.
pub fn newer(ids: &[String]) -> bool {
    const SEEN: &str = r#"
        SELECT FROM (SELECT pg_catalog.count(*) AS n FROM keywright.users AS u WHERE u.user_id = ANY ($1::text[]::uuid[])) AS c
         WHERE c.n = pg_catalog.cardinality($1)"#;
    !spi::read_in_transaction_snapshot(SEEN, &[ids.to_vec().into()])
}

/// What has to be bound and unbound for a system user that is there.
pub fn standing(user: &User, entry: &manifest::User) -> Vec<standing::Step> {
    let Some(id) = args::uuid(user.id.as_bytes()) else { return Vec::new() };
    standing::steps(id, &holdings(entry))
}

fn holdings(entry: &manifest::User) -> standing::Wanted {
    standing::Wanted { roles: entry.roles.clone(), organization_role: entry.organization_role.clone() }
}

/// False when one came up meanwhile.
pub fn create(entries: &[&manifest::User], manager: &str) -> bool {
    const CREATE: &str = r#"
        INSERT INTO keywright.users (username, kind, email, display_name, db_role, managed_by)
        SELECT n.username, n.kind, coalesce(n.email, ''), coalesce(n.display_name, ''), nullif(n.db_role, ''), $6
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
               AS n (username, kind, email, display_name, db_role)
        ON CONFLICT (pg_catalog.lower(username)) WHERE deleted_at IS NULL DO NOTHING"#;
    spi::count_once(CREATE, &columns(entries, None, manager)) == entries.len() as u64
}

/// False when one went meanwhile.
pub fn update(entries: &[(&manifest::User, String)], manager: &str) -> bool {
    const UPDATE: &str = r#"
        UPDATE keywright.users AS u
           SET email = coalesce(n.email, u.email), display_name = coalesce(n.display_name, u.display_name),
               db_role = CASE WHEN n.db_role IS NULL THEN u.db_role ELSE nullif(n.db_role, '') END,
               managed_by = $6, updated_at = pg_catalog.clock_timestamp()
          FROM unnest($7::text[]::uuid[], $3::text[], $4::text[], $5::text[]) AS n (user_id, email, display_name, db_role)
         WHERE u.user_id = n.user_id AND u.deleted_at IS NULL AND $1 IS NOT NULL AND $2 IS NOT NULL"#;
    let (entries, ids): (Vec<&manifest::User>, Vec<String>) = entries.iter().cloned().unzip();
    let count = ids.len() as u64;
    spi::count_once(UPDATE, &columns(&entries, Some(ids), manager)) == count
}

fn columns<'a>(entries: &[&manifest::User], ids: Option<Vec<String>>, manager: &'a str) -> Vec<spi::Arg<'a>> {
    let column = |of: fn(&manifest::User) -> &Option<String>| -> Vec<Option<String>> {
        entries.iter().map(|entry| of(entry).clone()).collect()
    };
    let usernames: Vec<String> = entries.iter().map(|entry| entry.username.clone()).collect();
    let kinds: Vec<&'static str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    let mut args = vec![
        usernames.into(),
        kinds.into(),
        column(|entry| &entry.email).into(),
        column(|entry| &entry.display_name).into(),
        column(|entry| &entry.db_role).into(),
        manager.into(),
    ];
    args.extend(ids.map(Into::into));
    args
}

/// Makes or mends a system user; somebody else's is taken over.
pub fn settle_system_user(entry: &manifest::User, manager: &str) -> Result<(), Failure<'static>> {
    debug_assert_eq!(entry.kind, UserKind::System);
    settle_declared(entry, &holdings(entry), manager)
}
