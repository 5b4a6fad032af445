//! What speaks against a service's roles and schemas, as far as only this database can tell.

use super::world::{BY_GRANTOR, look};
use crate::args::Faults;
use crate::error::{Failure, Fault};
use crate::record::Rows;
use crate::{args, spi};
use keywright_core::authenticator::findings::{Finding, GRANTOR, Severity, findings, identifier, literal};
use keywright_core::authenticator::ledger::{Kind, Need};
use keywright_core::authenticator::plan::World;
use keywright_core::authenticator::{Desired, Oid};
use keywright_core::printable::quoted;
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_extern, pg_sys};
use std::collections::BTreeMap;

#[pg_extern(sql = false)]
fn preflight_authenticator(
    connect_as: Option<&[u8]>,
    anon_role: Option<&[u8]>,
    jwt_roles: Option<Array<&[u8]>>,
    schemas: Option<Array<&[u8]>>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let mut faults = Faults::default();
    let connect_as = faults.sift(args::text("connect_as", connect_as));
    let anon_role = faults.sift(optional("anon_role", anon_role));
    let jwt_roles = faults.sift(list("jwt_roles", &jwt_roles));
    let schemas = faults.sift(list("schemas", &schemas));
    let (Some(connect_as), Some(anon_role), Some(jwt_roles), Some(schemas)) =
        (connect_as, anon_role, jwt_roles, schemas)
    else {
        return Err(Failure::from(faults).into());
    };
    let desired = Desired {
        service: String::new(),
        connect_as: connect_as.to_owned(),
        anon_role,
        jwt_roles,
        schemas,
        noinherit: true,
    };
    let world = look(std::slice::from_ref(&desired));
    let rows = Rows::new(fcinfo);
    for finding in preflight(&world, &desired, |name| world.graph.find(name)) {
        rows.push(&[
            finding.severity.as_str().into_datum(),
            finding.code.into_datum(),
            finding.object.into_datum(),
            finding.message.into_datum(),
            finding.hint.into_datum(),
        ]);
    }
    Ok(rows)
}

/// A name that may be left out.
pub fn optional(argument: &'static str, name: Option<&[u8]>) -> Result<Option<String>, Fault> {
    name.map(|name| args::text(argument, Some(name)).map(str::to_owned)).transpose()
}

/// A list of names; a null among them is none.
pub fn list(argument: &'static str, value: &Option<Array<&[u8]>>) -> Result<Vec<String>, Fault> {
    let elements = args::elements(argument, value)?;
    elements.iter().map(|name| Ok(args::text(argument, name.as_deref())?.to_owned())).collect()
}

/// Every finding, the worst first.
pub fn preflight(world: &World, desired: &Desired, resolve: impl Fn(&str) -> Option<Oid>) -> Vec<Finding> {
    let mut found = findings(&world.graph, desired, &resolve, BY_GRANTOR);
    let connect_as = resolve(&desired.connect_as);
    let roles: Vec<Oid> = desired.roles().into_iter().filter_map(&resolve).collect();
    schemas(&mut found, world, desired, &roles);
    if let Some(connect_as) = connect_as {
        connect(&mut found, world, connect_as);
        settings(&mut found, world, desired, connect_as);
        if desired.noinherit && !BY_GRANTOR {
            inheritance(&mut found, world, connect_as);
        }
        pre_request(&mut found, world, desired, connect_as, &roles);
    }
    if !super::carry_out::is_clean(world) {
        found.push(Finding {
            severity: Severity::Error,
            code: "grantor_altered",
            object: GRANTOR.into(),
            message: format!("role {GRANTOR} is not as keywright made it"),
            hint: format!(
                "If it is not keywright's, rename it: ALTER ROLE {GRANTOR} RENAME TO ...; it is made anew. If it is, take away \
                 what it owns and was granted, its members, attributes and other settings; where its ledger was reset, a superuser \
                 sets an empty one: ALTER ROLE {GRANTOR} SET keywright_ledger.entries = '';"
            ),
        });
    }
    if let Err(Failure::OwnerPowerless { owner }) = require_powerful_owner() {
        let owner = args::readable(&owner);
        found.push(Finding {
            severity: Severity::Error,
            code: "owner_not_superuser",
            message: format!(
                "the owner of keywright, role {}, is not a superuser: nothing can be granted or undone",
                quoted(owner.as_bytes())
            ),
            hint: format!("ALTER ROLE {} SUPERUSER;", identifier(&owner)),
            object: owner,
        });
    }
    found.sort_by_key(|finding| finding.severity);
    found
}

/// In a cluster of 16 or later a membership has an option of its own, and an upgrade sets it by what the member's attribute says.
fn inheritance(found: &mut Vec<Finding>, world: &World, connect_as: Oid) {
    let about = |kind, object| world.ledger.get(Need { kind, member: connect_as, object });
    let by_us = about(Kind::Noinherit, 0).is_some_and(|entry| entry.made);
    let role = &world.graph.roles[&connect_as];
    if !by_us && !role.inherit || role.name.starts_with("pg_") {
        return;
    }
    let edges = world.graph.memberships.iter().filter(|edge| edge.member == connect_as);
    for edge in edges.filter(|edge| !about(Kind::Membership, edge.role).is_some_and(|entry| entry.made)) {
        let (member, role) = (world.graph.name(connect_as), world.graph.name(edge.role));
        found.push(Finding {
            severity: Severity::Notice,
            code: "upgrade_inherit",
            object: member.to_owned(),
            message: format!(
                "an upgrade to PostgreSQL 16 or later leaves {} in {} WITH INHERIT FALSE, also when NOINHERIT is undone",
                quoted(member.as_bytes()),
                quoted(role.as_bytes())
            ),
            hint: format!(
                "If it is to inherit, after the upgrade: GRANT {} TO {} WITH INHERIT TRUE;",
                identifier(role),
                identifier(member)
            ),
        });
    }
}

/// The ledger is a setting that only a superuser writes, and the owner of keywright may be one no more.
pub fn require_powerful_owner() -> Result<(), Failure<'static>> {
    const OWNER: &str = r#"
        SELECT r.rolname::text FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user AND NOT r.rolsuper"#;
    match spi::read(OWNER, &[], |row| row.must::<Vec<u8>>(1)).pop() {
        Some(owner) => Err(Failure::OwnerPowerless { owner }),
        None => Ok(()),
    }
}

/// What is stored for PostgREST: whether it may read it, and whether the schemas of its search path are there.
fn settings(found: &mut Vec<Finding>, world: &World, desired: &Desired, connect_as: Oid) {
    const UNREAD: &str = r#"
        SELECT FROM pg_catalog.pg_roles AS r
         WHERE r.oid = $2 AND EXISTS (SELECT FROM keywright.postgrest_settings AS s WHERE s.service = $1)
           AND NOT (pg_catalog.has_schema_privilege(r.oid, 'keywright', 'USAGE')
                    AND pg_catalog.has_function_privilege(r.oid, 'keywright.postgrest_config()', 'EXECUTE'))"#;
    let args = [desired.service.as_str().into(), pg_sys::Oid::from(connect_as).into()];
    if !spi::read(UNREAD, &args, |_| ()).is_empty() {
        let role = world.graph.name(connect_as);
        found.push(Finding {
            severity: Severity::Warning,
            code: "settings_unread",
            object: role.to_owned(),
            message: format!(
                "role {} may not call keywright.postgrest_config: PostgREST goes on with its file alone",
                quoted(role.as_bytes())
            ),
            hint: format!("SELECT keywright.grant_access({}, 'authenticator');", literal(role)),
        });
    }
    for schema in missing_of_search_path(&crate::postgrest::stored(&desired.service)) {
        found.push(Finding {
            severity: Severity::Error,
            code: "search_path_missing",
            message: format!(
                "schema {} of db_extra_search_path does not exist: PostgREST would answer every request with 503",
                quoted(schema.as_bytes())
            ),
            hint: format!("CREATE SCHEMA {};", identifier(&schema)),
            object: schema,
        });
    }
}

/// The schemas of db_extra_search_path that are not there.
pub fn missing_of_search_path(settings: &BTreeMap<String, String>) -> Vec<String> {
    const EXISTS: &str = "SELECT FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $1";
    let path = settings.get("db_extra_search_path").map(String::as_str).unwrap_or_default();
    let names = path.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.filter(|name| spi::read(EXISTS, &[(*name).into()], |_| ()).is_empty()).map(str::to_owned).collect()
}

fn connect(found: &mut Vec<Finding>, world: &World, connect_as: Oid) {
    const CLOSED: &str = r#"
        SELECT FROM pg_catalog.pg_database AS d
         WHERE d.datname = pg_catalog.current_database() AND (d.datconnlimit = 0 OR NOT d.datallowconn)"#;
    if !spi::read(CLOSED, &[], |_| ()).is_empty() {
        let database = &world.database.name;
        found.push(Finding {
            severity: Severity::Warning,
            code: "database_closed",
            object: database.clone(),
            message: format!("database {} lets nobody in", quoted(database.as_bytes())),
            hint: format!(
                "ALTER DATABASE {} CONNECTION LIMIT -1 ALLOW_CONNECTIONS true;",
                identifier(database)
            ),
        });
    }
    const MAY: &str =
        "SELECT pg_catalog.has_database_privilege($1::oid, pg_catalog.current_database(), 'CONNECT')";
    if spi::read(MAY, &[pg_sys::Oid::from(connect_as).into()], |row| row.get(1)).pop() == Some(Some(false)) {
        let (role, database) = (world.graph.name(connect_as), &world.database.name);
        found.push(Finding {
            severity: Severity::Notice,
            code: "connect_denied",
            object: role.to_owned(),
            message: format!(
                "role {} may not connect to database {}",
                quoted(role.as_bytes()),
                quoted(database.as_bytes())
            ),
            hint: "keywright.grant_authenticator grants it.".into(),
        });
    }
}

fn schemas(found: &mut Vec<Finding>, world: &World, desired: &Desired, roles: &[Oid]) {
    const SCHEMA: &str = r#"
        SELECT pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
          FROM pg_catalog.pg_namespace AS n CROSS JOIN pg_catalog.unnest($2::oid[]) WITH ORDINALITY AS r (oid, at)
         WHERE n.nspname = $1
         ORDER BY r.at"#;
    const EXISTS: &str = "SELECT FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $1";
    let mut error = |code, schema: &str, message: String, hint: String| {
        found.push(Finding { severity: Severity::Error, code, object: schema.to_owned(), message, hint });
    };
    if desired.schemas.is_empty() {
        error("no_schema", "", "no schema is named".into(), "Name at least one schema.".into());
    }
    let mut without = Vec::new();
    for schema in &desired.schemas {
        let shown = quoted(schema.as_bytes());
        if schema.is_empty() || schema.contains(',') || schema.trim() != schema {
            let names: Vec<String> =
                schema.split(',').map(str::trim).filter(|name| !name.is_empty()).map(literal).collect();
            let hint = format!(
                "PostgREST splits db-schemas at commas and trims the names. Name one schema an element: ARRAY[{}].",
                names.join(", ")
            );
            error("schema_name", schema, format!("schema name {shown} can not be told to PostgREST"), hint);
        } else if ["pg_catalog", "information_schema"].contains(&schema.as_str()) {
            // `parseDbSchemas` of PostgREST 16.
            let hint = "Name the schemas of your own API.";
            error("schema_exposed", schema, format!("PostgREST does not expose schema {shown}"), hint.into());
        } else if spi::read(EXISTS, &[schema.as_str().into()], |_| ()).is_empty() {
            let hint = format!("CREATE SCHEMA {};", identifier(schema));
            let database = quoted(world.database.name.as_bytes());
            let message = format!("schema {shown} does not exist in database {database}");
            error("schema_missing", schema, message, hint);
        } else {
            let numbers = super::world::numbers(roles.iter().copied());
            // Null for a schema that has just been dropped.
            let may: Vec<Option<bool>> =
                spi::read(SCHEMA, &[schema.as_str().into(), numbers.into()], |row| row.get(1));
            without.extend(
                roles.iter().zip(may).filter(|(_, may)| *may == Some(false)).map(|(role, _)| (schema, *role)),
            );
        }
    }
    if desired.schemas.iter().any(|schema| schema == "keywright") {
        found.push(Finding {
            severity: Severity::Warning,
            code: "schema_exposed",
            object: "keywright".into(),
            message: "schema \"keywright\" would be exposed: what a role may call of it, anybody may call over HTTP as it".into(),
            hint: "Expose functions of your own that call what is needed.".into(),
        });
    }
    for (schema, role) in without {
        let role = world.graph.name(role);
        found.push(Finding {
            severity: Severity::Warning,
            code: "schema_usage",
            object: schema.clone(),
            message: format!(
                "role {} has no USAGE on schema {}",
                quoted(role.as_bytes()),
                quoted(schema.as_bytes())
            ),
            hint: format!("GRANT USAGE ON SCHEMA {} TO {};", identifier(schema), identifier(role)),
        });
    }
}

/// The function PostgREST calls before each request, as whatever role that has.
fn pre_request(found: &mut Vec<Finding>, world: &World, desired: &Desired, connect_as: Oid, roles: &[Oid]) {
    const NAMED: &str = r#"
        (SELECT pg_catalog.split_part(c.entry, '=', 2)
           FROM pg_catalog.pg_db_role_setting AS s CROSS JOIN pg_catalog.unnest(s.setconfig) AS c (entry)
           LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
          WHERE s.setrole = $1 AND (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
            AND pg_catalog.starts_with(c.entry, 'pgrst.db_pre_request=')
          ORDER BY s.setdatabase DESC LIMIT 1)
        UNION
        SELECT s.value
          FROM keywright.postgrest_settings AS s JOIN keywright.authenticators AS a ON a.service = s.service
         WHERE s.key = 'db_pre_request' AND CASE $3 WHEN '' THEN a.connect_as = $2 ELSE a.service = $3 END"#;
    // PostgREST splits at the first dot; without one the search path decides, which begins with the schemas.
    const MAY: &str = r#"
        SELECT pg_catalog.has_function_privilege(r.oid, f.oid, 'EXECUTE')
               AND pg_catalog.has_schema_privilege(r.oid, f.pronamespace, 'USAGE')
          FROM (SELECT p.oid, p.pronamespace
                  FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
                 WHERE p.proname = $1 AND n.nspname = ANY ($2) AND p.pronargs = p.pronargdefaults
                 ORDER BY pg_catalog.array_position($2, n.nspname::text) LIMIT 1) AS f
         CROSS JOIN pg_catalog.unnest($3::oid[]) WITH ORDINALITY AS r (oid, at)
         ORDER BY r.at"#;
    const FOUND: &str = r#"
        SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
         WHERE p.proname = $1 AND n.nspname = ANY ($2) AND p.pronargs = p.pronargdefaults"#;
    let name = world.graph.name(connect_as);
    let args = [pg_sys::Oid::from(connect_as).into(), name.into(), desired.service.as_str().into()];
    // What can not be read here is no function of this database.
    let text = |bytes: Vec<u8>| match args::name(&bytes) {
        Some(name) => name.to_owned(),
        None => bytes.iter().map(|byte| if byte.is_ascii() { *byte as char } else { '?' }).collect(),
    };
    let named: Vec<Option<String>> = spi::read(NAMED, &args, |row| row.get(1).map(text));
    for function in named.into_iter().flatten().filter(|function| !function.is_empty()) {
        let (schemas, name) = match function.split_once('.') {
            Some((schema, name)) => (vec![schema.to_owned()], name),
            None => {
                (desired.schemas.iter().cloned().chain(["public".to_owned()]).collect(), function.as_str())
            }
        };
        let shown = quoted(function.as_bytes());
        let args = [name.into(), schemas.into()];
        if spi::read(FOUND, &args, |_| ()).is_empty() {
            found.push(Finding {
                severity: Severity::Error,
                code: "pre_request_missing",
                object: function.clone(),
                message: format!("pre-request function {shown} does not exist"),
                hint: "Make it, or take the setting db_pre_request away.".into(),
            });
            continue;
        }
        let [name, schemas] = args;
        let args = [name, schemas, super::world::numbers(roles.iter().copied()).into()];
        let may: Vec<Option<bool>> = spi::read(MAY, &args, |row| row.get(1));
        for (role, _) in roles.iter().zip(may).filter(|(_, may)| *may == Some(false)) {
            let role = world.graph.name(*role);
            found.push(Finding {
                severity: Severity::Error,
                code: "pre_request_denied",
                object: function.clone(),
                message: format!(
                    "role {} may not execute the pre-request function {shown}",
                    quoted(role.as_bytes())
                ),
                hint: match function.strip_prefix("keywright.") {
                    Some(_) => format!("SELECT keywright.grant_access({}, 'requester');", literal(role)),
                    None => {
                        "Every request calls it as its role: grant EXECUTE on it, and USAGE on its schema."
                            .into()
                    }
                },
            });
        }
    }
}
