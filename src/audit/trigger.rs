//! The trigger on every table: notes the rows of a statement, by one statement of its own.

use super::event::{actor, insert, returning, short};
use super::{IMPORTING, SUMMED};
use crate::error::Failure;
use crate::own::Own;
use crate::record::Nothing;
use crate::spi;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{pg_extern, pg_sys};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CStr;

/// Rows of one statement that have an event each where one could stand for all.
const EACH: i64 = 1_000;

/// A plan is made for the number of rows there are when it is made, and kept: that for a few would compare each row of many
/// with each.
const FEW: i64 = 100;

/// How the rows of a table are called; expressions over a row `r`.
struct Audited {
    table: &'static str,
    kind: &'static str,
    key: &'static [&'static str],
    id: &'static str,
    name: &'static str,
    user: &'static str,
    /// What one event for many rows is said to be about.
    all: &'static str,
    inserted: &'static str,
    /// What a change is, by `r.columns`, which are those that changed.
    updated: &'static str,
}

const PLAIN: Audited = Audited {
    table: "",
    kind: "",
    key: &[],
    id: "",
    name: "''",
    user: "NULL::uuid",
    all: "'*'",
    inserted: "'created'",
    updated: "'updated'",
};

const AUDITED: [Audited; 12] = [
    Audited {
        table: "users",
        kind: "user",
        key: &["user_id"],
        id: "r.user_id::text",
        name: "r.username",
        user: "r.user_id",
        updated: r#"CASE WHEN 'deleted_at' = ANY (r.columns) THEN 'deleted'
                         WHEN 'status' = ANY (r.columns) AND r.status = 'suspended' THEN 'suspended'
                         WHEN 'status' = ANY (r.columns) THEN 'activated'
                         ELSE 'updated' END"#,
        ..PLAIN
    },
    Audited { table: "resource_types", kind: "resource_type", key: &["type"], id: "r.type", ..PLAIN },
    Audited {
        table: "resources",
        kind: "resource",
        key: &["type", "id"],
        id: "r.type || ':' || r.id",
        name: "r.name",
        all: "r.type || ':*'",
        ..PLAIN
    },
    Audited { table: "roles", kind: "role", key: &["name"], id: "r.name", ..PLAIN },
    Audited { table: "scopes", kind: "scope", key: &["name"], id: "r.name", ..PLAIN },
    Audited {
        table: "role_bindings",
        kind: "role_binding",
        key: &["binding_id"],
        id: "r.binding_id::text",
        name: r#"pg_catalog.concat((SELECT u.username FROM keywright.users AS u WHERE u.user_id = r.user_id), ' ', r.role,
                   ' on ' || r.resource_type || ':' || r.resource_id)"#,
        user: "r.user_id",
        ..PLAIN
    },
    Audited {
        table: "api_keys",
        kind: "api_key",
        key: &["key_id"],
        id: "r.key_id",
        name: "pg_catalog.concat((SELECT u.username FROM keywright.users AS u WHERE u.user_id = r.user_id), '/', r.name)",
        user: "r.user_id",
        inserted: "'minted'",
        updated: r#"CASE WHEN 'revoked_at' = ANY (r.columns) THEN 'revoked'
                         WHEN 'superseded_at' = ANY (r.columns) THEN 'superseded'
                         WHEN 'expires_at' = ANY (r.columns) THEN 'expired'
                         ELSE 'updated' END"#,
        ..PLAIN
    },
    Audited {
        table: "gateway_keys",
        kind: "gateway_key",
        key: &["gateway_key_id"],
        id: "r.gateway_key_id::text",
        name: "r.name",
        inserted: "'minted'",
        updated: "CASE WHEN 'superseded_at' = ANY (r.columns) THEN 'superseded' ELSE 'updated' END",
        ..PLAIN
    },
    Audited {
        table: "authenticators",
        kind: "authenticator",
        key: &["service"],
        id: "r.service",
        name: "r.connect_as",
        ..PLAIN
    },
    Audited {
        table: "authenticator_allowances",
        kind: "authenticator_allowance",
        key: &["connect_as", "role"],
        id: "pg_catalog.concat(r.connect_as, ' ', r.role)",
        ..PLAIN
    },
    Audited {
        table: "postgrest_settings",
        kind: "postgrest_setting",
        key: &["service", "key"],
        id: "r.service || ' ' || r.key",
        ..PLAIN
    },
    Audited {
        table: "audit_events",
        kind: "audit_event",
        key: &["event_id"],
        id: "r.event_id::text",
        ..PLAIN
    },
];

#[pg_extern(sql = false)]
fn audit(fcinfo: pg_sys::FunctionCallInfo) -> Result<Nothing, ErrorReport> {
    // SAFETY: a context, if there is one, is a node that tells its type; a TriggerData lives as long as the call.
    let data = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(Failure::NotAnAuditTrigger.into());
        }
        &*context.cast::<pg_sys::TriggerData>()
    };
    // SAFETY: the relation of the trigger is open.
    let (relation, table) = unsafe {
        let relation = &*data.tg_relation;
        (relation, CStr::from_ptr((*relation.rd_rel).relname.data.as_ptr()))
    };
    let missing = || Failure::Broken { object: format!("audit of table {}", table.to_string_lossy()) };
    let audited = AUDITED.iter().find(|audited| audited.table.as_bytes() == table.to_bytes());
    let audited = audited.ok_or_else(missing)?;
    let operation = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
    let rows = if operation == pg_sys::TRIGGER_EVENT_DELETE { data.tg_oldtable } else { data.tg_newtable };
    let update = operation == pg_sys::TRIGGER_EVENT_UPDATE;
    let size = if operation == pg_sys::TRIGGER_EVENT_TRUNCATE {
        Size::Sum
    } else if rows.is_null() || (update && data.tg_oldtable.is_null()) {
        return Err(Failure::NotAnAuditTrigger.into());
    } else {
        // SAFETY: a transition table of the statement.
        let many = unsafe { pg_sys::tuplestore_tuple_count(rows) };
        if many == 0 {
            return Ok(Nothing);
        }
        match many {
            ..=FEW => Size::Few,
            _ if many > EACH && (SUMMED.get() || !spi::writing()) => Size::Sum,
            _ => Size::Many,
        }
    };
    spi::write_in_trigger(data, statement(relation, audited, operation, size), &actor(!spi::writing()));
    Ok(Nothing)
}

/// How many rows a statement has, and whether one event stands for them all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Size {
    Few,
    Many,
    Sum,
}

type Known = (u32, Vec<String>, pg_sys::TriggerEvent, Size, bool, bool);

/// The statement for a table and what happened to it, made once a session; and again when its columns are called otherwise.
fn statement(
    relation: &pg_sys::RelationData,
    audited: &Audited,
    operation: pg_sys::TriggerEvent,
    size: Size,
) -> &'static str {
    static STATEMENTS: Own<RefCell<BTreeMap<Known, &'static str>>> = Own::new(RefCell::new(BTreeMap::new()));
    let known = (relation.rd_id.to_u32(), names(relation), operation, size, spi::writing(), IMPORTING.get());
    let many = size == Size::Sum;
    if let Some(statement) = STATEMENTS.with_borrow(|statements| statements.get(&known).copied()) {
        return statement;
    }
    let body = match operation {
        pg_sys::TRIGGER_EVENT_TRUNCATE => truncated(audited),
        pg_sys::TRIGGER_EVENT_INSERT => plain(audited, "new_rows", inserted(audited), many),
        pg_sys::TRIGGER_EVENT_DELETE => plain(audited, "old_rows", deleted(audited), many),
        _ if many => plain(audited, "new_rows", "'updated'", many),
        _ => updated(audited, &known.1),
    };
    // A text of its own, because plans are kept by their text.
    let planned = if size == Size::Many { "-- for many rows\n" } else { "" };
    let text: &'static str =
        Box::leak(format!("{planned}WITH e AS ({}{body}{}", insert!(), returning!()).into_boxed_str());
    STATEMENTS.with_borrow_mut(|statements| statements.insert(known, text));
    text
}

/// A key whose token was made elsewhere was not minted.
fn inserted(audited: &Audited) -> &'static str {
    if audited.table == "api_keys" && IMPORTING.get() { "'imported'" } else { audited.inserted }
}

/// What a function deletes of these is dead already.
fn deleted(audited: &Audited) -> &'static str {
    if audited.table == "api_keys" && spi::writing() { "'purged'" } else { "'deleted'" }
}

fn truncated(audited: &Audited) -> String {
    format!("SELECT 'truncated', '{}', '*', '', NULL::uuid, '{{}}'::text[], 0, $2, $3, $4, $5", audited.kind)
}

fn plain(audited: &Audited, rows: &str, event: &str, many: bool) -> String {
    let Audited { kind, name, user, all, .. } = audited;
    let id = short(audited);
    match many {
        true => format!(
            "SELECT {event}, '{kind}', {all}, '', NULL::uuid, '{{}}'::text[], count(*), $2, $3, $4, $5 FROM {rows} AS r GROUP BY 3"
        ),
        false => format!(
            "SELECT {event}, '{kind}', {id}, {name}, {user}, '{{}}'::text[], 1, $2, $3, $4, $5 FROM {rows} AS r"
        ),
    }
}

fn short(audited: &Audited) -> String {
    short!("$id").replace("$id", audited.id)
}

/// Old and new rows belong together by their key; one whose key was changed by hand is gone, and another there.
fn updated(audited: &Audited, names: &[String]) -> String {
    let Audited { kind, name, user, inserted, updated, key, .. } = audited;
    let id = short(audited);
    let on: Vec<String> = key.iter().map(|key| format!("n.{key} = o.{key}")).collect();
    let row = |side: &str| names.iter().map(|name| format!("{side}.{name}")).collect::<Vec<_>>().join(", ");
    let changed: Vec<String> = names
        .iter()
        // What a function changes says enough; who changes nothing else by hand does so on purpose.
        .filter(|name| {
            !["updated_at", "status_changed_at", "end_changed_at"].contains(&name.as_str()) || !spi::writing()
        })
        .map(|name| format!("CASE WHEN o.{name} IS DISTINCT FROM n.{name} THEN '{name}' END"))
        .collect();
    let key = key[0];
    format!(
        r#"SELECT CASE WHEN r.was IS NULL THEN {inserted} ELSE {updated} END, '{kind}', {id}, {name}, {user},
                  CASE WHEN r.was IS NULL THEN '{{}}' ELSE r.columns END, 1, $2, $3, $4, $5
             FROM (SELECT {new}, o.{key}::text AS was, pg_catalog.array_remove(ARRAY[{changed}]::text[], NULL) AS columns
                     FROM new_rows AS n LEFT JOIN old_rows AS o ON {on}) AS r
            WHERE r.columns <> '{{}}'
            UNION ALL
           SELECT 'deleted', '{kind}', {id}, {name}, {user}, '{{}}'::text[], 1, $2, $3, $4, $5
             FROM (SELECT {old} FROM old_rows AS o
                    WHERE NOT EXISTS (SELECT FROM new_rows AS n WHERE {on})) AS r"#,
        new = row("n"),
        old = row("o"),
        changed = changed.join(", "),
        on = on.join(" AND "),
    )
}

/// The columns of a table, none of which needs quotes.
fn names(relation: &pg_sys::RelationData) -> Vec<String> {
    // SAFETY: the descriptor of an open relation, with as many attributes as it says.
    let all = unsafe {
        let shape = relation.rd_att;
        (1..=(*shape).natts).map(move |number| CStr::from_ptr(pg_sys::SPI_fname(shape, number)))
    };
    // What was dropped keeps its place under a name made of dots.
    all.map(|name| name.to_string_lossy().into_owned()).filter(|name| !name.starts_with('.')).collect()
}
