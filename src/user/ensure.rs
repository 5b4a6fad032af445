//! ensure_user and ensure_system_user: read without a lock first, write only what differs.

use super::standing;
use crate::args::Faults;
use crate::error::{Failure, Fault};
use crate::record::Record;
use crate::{args, spi};
use keywright_core::manifest;
use keywright_core::name::Rule;
use keywright_core::text::Kind;
use pgrx::JsonB;
use pgrx::datum::{Array, Uuid};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};

const KINDS: [&str; 2] = ["human", "service"];

/// What a user should be; null leaves a property as it is.
struct Wanted<'a> {
    username: &'a [u8],
    kind: &'a str,
    email: Option<&'a [u8]>,
    display_name: Option<&'a [u8]>,
    db_role: Option<&'a [u8]>,
    managed_by: Option<&'a [u8]>,
    organization_role: Option<&'a [u8]>,
    /// For a manifest, which has asked already whose the user is and whether an owner stays.
    planned: bool,
}

/// What it is.
struct Found {
    id: Uuid,
    username: String,
    kind: String,
    manager: Option<String>,
    differs: bool,
}

#[pg_extern(sql = false)]
fn ensure_system_user(
    username: Option<&[u8]>,
    email: Option<&[u8]>,
    roles: Option<Array<&[u8]>>,
    organization_role: Option<&[u8]>,
    display_name: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let mut faults = Faults::default();
    let username = faults.sift(args::ruled(Rule::Username, username));
    check_words(&mut faults, email, display_name, managed_by);
    let roles = roles.map(|roles| {
        roles.iter().map(|role| args::text("roles", role).map(str::to_owned)).collect::<Result<_, Fault>>()
    });
    let roles = faults.sift(roles.transpose());
    let role = organization_role.map(|role| args::text("organization_role", Some(role)).map(str::to_owned));
    let role = faults.sift(role.transpose());
    let (Some(username), Some(roles), Some(role), true) = (username, roles, role, faults.is_empty()) else {
        faults.report_but_name()?;
        return Ok(Record::NONE);
    };
    let holdings = standing::Wanted { roles, organization_role: role };
    standing::require_roles(&holdings, false)?;
    let wanted = Wanted {
        username: username.as_bytes(),
        kind: "system",
        email,
        display_name,
        db_role: None,
        managed_by,
        organization_role,
        planned: false,
    };
    let (id, outcome, changes) = settle_system_user(&wanted, &holdings)?;
    Ok(Record::new(fcinfo, &[id.into_datum(), outcome.into_datum(), json_array(changes).into_datum()]))
}

/// Reads first; writes with organizations closed, and the roles and the user held.
fn settle_system_user(
    wanted: &Wanted,
    holdings: &standing::Wanted,
) -> Result<(Uuid, &'static str, Vec<JsonB>), ErrorReport> {
    const HOLD: &str = "SELECT FROM keywright.users WHERE user_id = $1 AND deleted_at IS NULL FOR SHARE";
    if let Some(found) = look(wanted, spi::read)
        && !found.change_needed(wanted)?
    {
        if standing::is_settled(found.id, holdings) {
            return Ok((found.id, "unchanged", Vec::new()));
        }
        if !wanted.planned {
            standing::require_manager(found.id, wanted.managed_by)?;
        }
    }
    standing::close_organizations();
    standing::require_roles(holdings, true)?;
    loop {
        let (id, outcome) = settle(wanted)?;
        // Deleted by somebody else since: there is another one to make.
        if spi::write(HOLD, &[id.into()], |_| ()).is_empty() {
            continue;
        }
        require_in_transaction(id, wanted)?;
        let changes = standing::settle(id, holdings, wanted.planned)?;
        let outcome = if outcome == "unchanged" && !changes.is_empty() { "updated" } else { outcome };
        return Ok((id, outcome, changes));
    }
}

fn require_in_transaction(id: Uuid, wanted: &Wanted) -> Result<(), Failure<'static>> {
    const SEEN: &str = "SELECT FROM keywright.users WHERE user_id = $1";
    match spi::read_in_transaction_snapshot(SEEN, &[id.into()]) {
        true => Ok(()),
        false => Err(Failure::NewerThanTransaction {
            what: format!("User {}", keywright_core::printable::quoted(wanted.username)),
        }),
    }
}

/// As ensure_system_user, for a manifest, which knows already that the user is its manager's.
pub fn settle_declared(
    entry: &manifest::User,
    holdings: &standing::Wanted,
    manager: &str,
) -> Result<(), Failure<'static>> {
    let bytes = |text: &'_ Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec());
    let (email, display_name) = (bytes(&entry.email), bytes(&entry.display_name));
    let wanted = Wanted {
        username: entry.username.as_bytes(),
        kind: "system",
        email: email.as_deref(),
        display_name: display_name.as_deref(),
        db_role: None,
        managed_by: Some(manager.as_bytes()),
        organization_role: entry.organization_role.as_deref().map(str::as_bytes),
        planned: true,
    };
    standing::require_roles(holdings, false)?;
    crate::error::raise(settle_system_user(&wanted, holdings));
    Ok(())
}

fn json_array(elements: Vec<JsonB>) -> Option<JsonB> {
    const ARRAY: &str = "SELECT pg_catalog.to_jsonb($1)";
    spi::read(ARRAY, &[elements.into()], |row| row.must(1)).pop()
}

#[pg_extern(sql = false)]
fn ensure_user(
    username: Option<&[u8]>,
    kind: Option<&[u8]>,
    email: Option<&[u8]>,
    display_name: Option<&[u8]>,
    db_role: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let mut faults = Faults::default();
    let username = faults.sift(args::ruled(Rule::Username, username));
    let kind = faults.sift(args::required("kind", kind).and_then(|kind| {
        KINDS.into_iter().find(|known| known.as_bytes() == kind).ok_or_else(|| {
            let hint = "System users are made by keywright.ensure_system_user.";
            Fault::new("kind", "It must be human or service.", hint)
        })
    }));
    check_words(&mut faults, email, display_name, managed_by);
    let (Some(username), Some(kind), true) = (username, kind, faults.is_empty()) else {
        faults.report_but_name()?;
        return Ok(Record::NONE);
    };
    let username = username.as_bytes();
    if let Some(role) = db_role.filter(|role| !role.is_empty()) {
        require_harmless_role(role)?;
    }
    ensure(
        &Wanted {
            username,
            kind,
            email,
            display_name,
            db_role,
            managed_by,
            organization_role: None,
            planned: false,
        },
        fcinfo,
    )
}

fn ensure(wanted: &Wanted, fcinfo: pg_sys::FunctionCallInfo) -> Result<Record, ErrorReport> {
    let (id, outcome) = settle(wanted)?;
    Ok(Record::new(fcinfo, &[id.into_datum(), outcome.into_datum()]))
}

fn check_words(
    faults: &mut Faults,
    email: Option<&[u8]>,
    display_name: Option<&[u8]>,
    managed_by: Option<&[u8]>,
) {
    faults.sift(args::words("email", Kind::Email, email));
    faults.sift(args::words("display_name", Kind::DisplayName, display_name));
    faults.sift(args::words("managed_by", Kind::Manager, managed_by));
}

/// Goes round again only when another session made or deleted the user in between.
fn settle(wanted: &Wanted) -> Result<(Uuid, &'static str), ErrorReport> {
    loop {
        let Some(found) = look(wanted, spi::read) else {
            match insert(wanted) {
                Some(id) => return Ok((id, "created")),
                None => continue,
            }
        };
        if !found.change_needed(wanted)? {
            return Ok((found.id, "unchanged"));
        }
        // Under the lock the user may turn out to be as wanted already, or gone.
        let Some(found) = look_and_lock(wanted) else { continue };
        if !found.change_needed(wanted)? {
            return Ok((found.id, "unchanged"));
        }
        update(found.id, wanted);
        return Ok((found.id, "updated"));
    }
}

impl Found {
    fn from_row(row: &spi::Row) -> Found {
        Found {
            id: row.must(1),
            username: row.must(2),
            kind: row.must(3),
            manager: row.get(4),
            differs: row.must(5),
        }
    }

    fn change_needed<'a>(&'a self, wanted: &Wanted<'a>) -> Result<bool, Failure<'a>> {
        if self.kind != wanted.kind {
            return Err(Failure::UserOfOtherKind {
                username: &self.username,
                kind: &self.kind,
                wanted: wanted.kind,
            });
        }
        match &self.manager {
            Some(manager)
                if self.differs && !wanted.planned && Some(manager.as_bytes()) != wanted.managed_by =>
            {
                Err(Failure::OtherManager {
                    what: format!("user \"{}\"", self.username),
                    manager: manager.clone(),
                })
            }
            _ => Ok(self.differs),
        }
    }
}

/// The one place that says what counts as a difference. A user nobody manages is taken over by the first
/// manager who names itself.
macro_rules! look_sql {
    ($lock:literal) => {
        concat!(
            r#"SELECT user_id, username, kind, managed_by,
                      (kind = 'system' AND status <> 'active')
                   OR coalesce(email <> $2, false)
                   OR coalesce(display_name <> $3, false)
                   OR ($4 IS NOT NULL AND db_role IS DISTINCT FROM nullif($4, ''))
                   OR ($5 IS NOT NULL AND managed_by IS DISTINCT FROM $5)
                   OR ($6 IS NOT NULL AND organization_role IS DISTINCT FROM nullif($6, ''))
                 FROM keywright.users
                WHERE pg_catalog.lower(username) = pg_catalog.lower($1 COLLATE "C") AND deleted_at IS NULL"#,
            $lock
        )
    };
}

type Query = fn(&'static str, &[spi::Arg], fn(&spi::Row) -> Found) -> Vec<Found>;

fn look(wanted: &Wanted, query: Query) -> Option<Found> {
    query(look_sql!(""), &wanted.args(), Found::from_row).pop()
}

fn look_and_lock(wanted: &Wanted) -> Option<Found> {
    spi::write(look_sql!(" FOR NO KEY UPDATE"), &wanted.args(), Found::from_row).pop()
}

impl Wanted<'_> {
    fn args(&self) -> [spi::Arg<'_>; 6] {
        [
            spi::text(self.username),
            spi::text(self.email),
            spi::text(self.display_name),
            spi::text(self.db_role),
            spi::text(self.managed_by),
            spi::text(self.organization_role),
        ]
    }
}

fn insert(wanted: &Wanted) -> Option<Uuid> {
    const INSERT: &str = r#"
        INSERT INTO keywright.users (username, email, display_name, db_role, managed_by, organization_role, kind)
        VALUES ($1, coalesce($2, ''), coalesce($3, ''), nullif($4, ''), $5, nullif($6, ''), $7)
        ON CONFLICT (pg_catalog.lower(username)) WHERE deleted_at IS NULL DO NOTHING
        RETURNING user_id"#;
    let [a, b, c, d, e, f] = wanted.args();
    spi::write(INSERT, &[a, b, c, d, e, f, wanted.kind.into()], |row| row.must(1)).pop()
}

fn update(id: Uuid, wanted: &Wanted) {
    const UPDATE: &str = r#"
        UPDATE keywright.users
           SET email = coalesce($2, email),
               display_name = coalesce($3, display_name),
               db_role = CASE WHEN $4 IS NULL THEN db_role ELSE nullif($4, '') END,
               managed_by = coalesce($5, managed_by),
               organization_role = CASE WHEN $6 IS NULL THEN organization_role ELSE nullif($6, '') END,
               status = CASE WHEN kind = 'system' THEN 'active' ELSE status END,
               updated_at = pg_catalog.clock_timestamp()
         WHERE user_id = $1"#;
    let [_, b, c, d, e, f] = wanted.args();
    spi::count(UPDATE, &[id.into(), b, c, d, e, f]);
}

/// A user may act as a role only if that gives it no power over the server.
pub fn require_harmless_role(role: &[u8]) -> Result<(), Failure<'_>> {
    const POWERS: &str = r#"
        SELECT pg_catalog.concat_ws(', ',
                 CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
                 CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
                 CASE WHEN r.rolreplication THEN 'REPLICATION' END,
                 CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
                 CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
                 CASE WHEN NOT r.rolsuper THEN (
                   SELECT pg_catalog.string_agg('membership in superuser ' || s.rolname, ', ' ORDER BY s.rolname)
                     FROM pg_catalog.pg_roles AS s
                    WHERE s.rolsuper AND pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER')) END)
          FROM pg_catalog.pg_roles AS r
         WHERE r.rolname = $1"#;
    crate::access::require_free_name(role)?;
    match spi::read(POWERS, &[spi::text(role)], |row| args::readable(&row.must::<Vec<u8>>(1))).pop() {
        None => Err(Failure::NoRole { role }),
        Some(powers) if !powers.is_empty() => {
            Err(Failure::PowerfulRole { role, powers: format!("It has {powers}.") })
        }
        Some(_) => Ok(()),
    }
}
