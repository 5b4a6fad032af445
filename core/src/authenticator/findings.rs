//! What speaks against a set of roles. Everything is found, not the first thing only.

use super::graph::{Graph, Membership, Role};
use super::{Desired, Oid};
use crate::printable::quoted;

/// The role that grants memberships and carries the ledger.
pub const GRANTOR: &str = "keywright_grantor";

/// Predefined roles that reach the server's own files and programs, and so everything.
const SERVER: [&str; 3] = ["pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is granted while it stands.
    Error,
    /// Something will not work, or is weaker than it looks.
    Warning,
    /// Granting mends it.
    Notice,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub code: &'static str,
    pub object: String,
    pub message: String,
    pub hint: String,
}

impl Finding {
    /// Nothing may be granted to or of such a role; anything else only keeps the service from working.
    pub fn is_danger(&self) -> bool {
        const HARMLESS: [&str; 9] = [
            "role_missing",
            "nologin",
            "no_schema",
            "schema_name",
            "schema_missing",
            "schema_exposed",
            "search_path_missing",
            "pre_request_missing",
            "pre_request_denied",
        ];
        self.severity == Severity::Error && !HARMLESS.contains(&self.code)
    }
}

/// What a role is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Authenticator,
    Anonymous,
    Jwt,
}

/// A role's way to the authenticator's powers, in the words of a finding.
struct Power {
    code: &'static str,
    chained: &'static str,
    is: fn(&Role) -> bool,
    what: &'static str,
    remedy: &'static str,
}

const POWERS: [Power; 5] = [
    Power {
        code: "superuser",
        chained: "leads_to_superuser",
        is: |role| role.superuser,
        what: "SUPERUSER",
        remedy: "NOSUPERUSER",
    },
    Power {
        code: "bypassrls",
        chained: "leads_to_bypassrls",
        is: |role| role.bypass_rls,
        what: "BYPASSRLS",
        remedy: "NOBYPASSRLS",
    },
    Power {
        code: "replication",
        chained: "leads_to_replication",
        is: |role| role.replication,
        what: "REPLICATION",
        remedy: "NOREPLICATION",
    },
    Power {
        code: "createrole",
        chained: "leads_to_createrole",
        is: |role| role.create_role,
        what: "CREATEROLE",
        remedy: "NOCREATEROLE",
    },
    Power {
        code: "createdb",
        chained: "leads_to_createdb",
        is: |role| role.create_db,
        what: "CREATEDB",
        remedy: "NOCREATEDB",
    },
];

/// The roles of a request for grants, looked at one by one and together. `options` tells whether memberships have
/// options of their own (PostgreSQL 16).
pub fn findings(
    graph: &Graph,
    desired: &Desired,
    resolve: impl Fn(&str) -> Option<Oid>,
    options: bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let connect_as = role(&mut found, graph, &desired.connect_as, Part::Authenticator, &resolve);
    if let Some(oid) = connect_as {
        authenticator(&mut found, graph, oid, options);
    }
    for name in desired.roles() {
        let part = if desired.anon_role.as_deref() == Some(name) { Part::Anonymous } else { Part::Jwt };
        if let Some(oid) = role(&mut found, graph, name, part, &resolve) {
            switched_to(&mut found, graph, oid, part, connect_as);
        }
    }
    found
}

/// Looks at one role by itself, and gives its number if there is anything more to be said of it.
fn role(
    found: &mut Vec<Finding>,
    graph: &Graph,
    name: &str,
    part: Part,
    resolve: &impl Fn(&str) -> Option<Oid>,
) -> Option<Oid> {
    let shown = quoted(name.as_bytes());
    if name.starts_with("pg_") || ["public", "none", "", GRANTOR].contains(&name) {
        found.push(Finding {
            severity: Severity::Error,
            code: "reserved_name",
            object: name.to_owned(),
            message: format!("role name {shown} is reserved"),
            hint: "Name a role of your own.".into(),
        });
        return None;
    }
    let Some(oid) = resolve(name) else {
        found.push(Finding {
            severity: Severity::Error,
            code: "role_missing",
            object: name.to_owned(),
            message: format!("role {shown} does not exist"),
            hint: match part {
                Part::Authenticator => format!("CREATE ROLE {} LOGIN NOINHERIT;", identifier(name)),
                _ => format!("CREATE ROLE {} NOLOGIN;", identifier(name)),
            },
        });
        return None;
    };
    let about = &graph.roles[&oid];
    let shown = quoted(about.name.as_bytes());
    for power in &POWERS {
        if (power.is)(about) {
            found.push(Finding {
                severity: severity(power.code, part),
                code: power.code,
                object: about.name.clone(),
                message: format!("role {shown} has {}", power.what),
                hint: match about.superuser {
                    true => "Name another role.".into(),
                    false => {
                        format!(
                            "Name another role, or: ALTER ROLE {} {};",
                            identifier(&about.name),
                            power.remedy
                        )
                    }
                },
            });
        }
    }
    if about.owner && !about.superuser {
        found.push(Finding {
            severity: Severity::Error,
            code: "owner",
            object: about.name.clone(),
            message: format!("role {shown} owns keywright"),
            hint: "Name another role.".into(),
        });
    }
    Some(oid)
}

/// Row security is for a role of a JWT to bypass, if its owner wants: the rest is nobody's who serves requests.
fn severity(code: &str, part: Part) -> Severity {
    match (code, part) {
        ("bypassrls" | "createdb", Part::Jwt) => Severity::Warning,
        _ => Severity::Error,
    }
}

fn authenticator(found: &mut Vec<Finding>, graph: &Graph, oid: Oid, options: bool) {
    let role = &graph.roles[&oid];
    let (object, shown) = (role.name.clone(), quoted(role.name.as_bytes()));
    if !role.login {
        found.push(Finding {
            severity: Severity::Error,
            code: "nologin",
            object: object.clone(),
            message: format!("role {shown} can not log in"),
            hint: format!("ALTER ROLE {} LOGIN;", identifier(&object)),
        });
    }
    if role.expired {
        found.push(Finding {
            severity: Severity::Warning,
            code: "password_expired",
            object: object.clone(),
            message: format!("the password of role {shown} has expired"),
            hint: format!("ALTER ROLE {} VALID UNTIL 'infinity';", identifier(&object)),
        });
    }
    if role.closed {
        found.push(Finding {
            severity: Severity::Warning,
            code: "connection_limit",
            object: object.clone(),
            message: format!("role {shown} has CONNECTION LIMIT 0"),
            hint: format!("ALTER ROLE {} CONNECTION LIMIT -1;", identifier(&object)),
        });
    }
    chains(found, graph, oid, Part::Authenticator);
    for edge in graph.memberships.iter().filter(|edge| options && edge.member == oid && edge.inherit) {
        let granted = graph.name(edge.role);
        found.push(Finding {
            severity: Severity::Warning,
            code: "inherits",
            object: object.clone(),
            message: format!(
                "role {shown} inherits from {}, whatever its NOINHERIT says",
                quoted(granted.as_bytes())
            ),
            hint: format!("GRANT {} TO {} WITH INHERIT FALSE;", identifier(granted), identifier(&object)),
        });
    }
}

fn switched_to(found: &mut Vec<Finding>, graph: &Graph, oid: Oid, part: Part, connect_as: Option<Oid>) {
    let role = &graph.roles[&oid];
    let (object, shown) = (role.name.clone(), quoted(role.name.as_bytes()));
    if connect_as == Some(oid) {
        found.push(Finding {
            severity: Severity::Error,
            code: "same_role",
            object,
            message: format!("role {shown} is the authenticator itself"),
            hint: "Name two different roles.".into(),
        });
        return;
    }
    if part == Part::Anonymous && role.login {
        found.push(Finding {
            severity: Severity::Warning,
            code: "anon_login",
            object: object.clone(),
            message: format!("anonymous role {shown} can log in"),
            hint: format!("ALTER ROLE {} NOLOGIN;", identifier(&object)),
        });
    }
    chains(found, graph, oid, part);
    let Some(connect_as) = connect_as else { return };
    let authenticator = quoted(graph.name(connect_as).as_bytes());
    if graph.reached(oid, |_| true).iter().any(|(role, _)| *role == connect_as) {
        found.push(Finding {
            severity: Severity::Error,
            code: "circular_membership",
            object: object.clone(),
            message: format!("role {shown} is a member of the authenticator {authenticator}"),
            hint: "Take that membership away.".into(),
        });
    }
    let is = |by: fn(&Membership) -> bool| graph.reached(connect_as, by).iter().any(|(role, _)| *role == oid);
    if is(|_| true) && !is(|edge| edge.set) {
        found.push(Finding {
            severity: Severity::Notice,
            code: "not_settable",
            object,
            message: format!("role {authenticator} is a member of {shown} but may not SET ROLE to it"),
            hint: "keywright.grant_authenticator grants a membership that lets it.".into(),
        });
    }
}

/// What a role can become or use by its memberships. One that gives nothing at all leads nowhere.
fn chains(found: &mut Vec<Finding>, graph: &Graph, start: Oid, part: Part) {
    let object = graph.name(start);
    possessions(found, object, &graph.roles[&start], "", part);
    for (oid, chain) in graph.reached(start, |edge| edge.set || edge.inherit || edge.admin) {
        let Some(role) = graph.roles.get(&oid) else { continue };
        // What a role it can become has is its own; the authenticator is there to become others.
        if part != Part::Authenticator {
            possessions(
                found,
                object,
                role,
                &format!(", by its membership in {}", quoted(role.name.as_bytes())),
                part,
            );
        }
        let way: Vec<String> = chain.iter().map(|role| quoted(graph.name(*role).as_bytes())).collect();
        let way = way.join(" and so of ");
        let mut add = |severity, code, what: &str| {
            found.push(Finding {
                severity,
                code,
                object: object.to_owned(),
                message: format!("role {} is a member of {way}, which {what}", quoted(object.as_bytes())),
                hint: format!("REVOKE {} FROM {};", identifier(graph.name(chain[0])), identifier(object)),
            });
        };
        for power in POWERS.iter().filter(|power| (power.is)(role)) {
            // An authenticator is there to switch to roles that may do more than it.
            if part != Part::Authenticator || !["bypassrls", "createdb"].contains(&power.code) {
                add(severity(power.code, part), power.chained, &format!("has {}", power.what));
            }
        }
        if role.owner && !role.superuser {
            add(Severity::Error, "leads_to_owner", "owns keywright");
        }
        if SERVER.contains(&role.name.as_str()) {
            add(Severity::Error, "leads_to_server", "reaches files or programs of the server");
        } else if role.name.starts_with("pg_") {
            let severity = if part == Part::Anonymous { Severity::Error } else { Severity::Warning };
            add(severity, "predefined_role", "is a predefined role");
        }
    }
}

/// What a role has, by itself or by a membership, that who serves requests should not have.
fn possessions(found: &mut Vec<Finding>, object: &str, role: &Role, way: &str, part: Part) {
    let severity = if part == Part::Anonymous { Severity::Error } else { Severity::Warning };
    let shown = quoted(object.as_bytes());
    let mut add = |severity, code, message: String, hint: String| {
        found.push(Finding { severity, code, object: object.to_owned(), message, hint });
    };
    if role.database_owner {
        let hint = "Let another role own the database.".into();
        add(severity, "database_owner", format!("role {shown} owns this database{way}"), hint);
    }
    for capability in &role.access {
        let hint = format!("SELECT keywright.revoke_access({}, '{capability}');", literal(&role.name));
        let message = format!("role {shown} holds the capability {capability} of keywright{way}");
        add(severity, "keywright_access", message, hint);
    }
    for parameter in &role.parameters {
        let message = format!("role {shown} may change the setting {parameter} for the whole server{way}");
        let hint = format!("REVOKE ALTER SYSTEM ON PARAMETER {parameter} FROM {};", identifier(&role.name));
        add(Severity::Error, "alter_system", message, hint);
    }
    for privilege in role.privileges.iter().filter(|privilege| way.is_empty() || !privilege.everybody) {
        let (code, severity) = match privilege.code.as_str() {
            "server_function" => ("server_function", Severity::Error),
            "catalog_privilege" => ("catalog_privilege", Severity::Error),
            "keywright_privilege" => ("keywright_privilege", severity),
            _ => ("set_parameter", if is_dangerous(&privilege.what) { Severity::Error } else { severity }),
        };
        let from = if privilege.everybody { "PUBLIC".to_owned() } else { identifier(&role.name) };
        let hint = format!("REVOKE {} FROM {from};", privilege.what);
        add(severity, code, format!("role {shown} was granted {}{way}", privilege.what), hint);
    }
}

/// Settings by which a session reaches past what it was granted, or past keywright.
fn is_dangerous(privilege: &str) -> bool {
    const DANGEROUS: [&str; 7] = [
        "allow_system_table_mods",
        "dynamic_library_path",
        "lo_compat_privileges",
        "session_preload_libraries",
        "session_replication_role",
        "extension_control_path",
        "jit_provider",
    ];
    let setting = privilege.rsplit(' ').next().unwrap_or_default();
    DANGEROUS.contains(&setting) || setting.starts_with("keywright")
}

/// A name as the argument of a function, for a statement somebody may copy.
pub fn literal(name: &str) -> String {
    let hidden = quoted(name.as_bytes()) == "\"[redacted]\"";
    if hidden { "'[redacted]'".into() } else { format!("'{}'", name.replace('\'', "''")) }
}

/// A name as SQL has it, for a statement somebody may copy.
pub fn identifier(name: &str) -> String {
    // Unquoted these mean whoever runs the statement.
    let somebody = ["current_role", "current_user", "session_user", "user"].contains(&name);
    let plain = !somebody
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let shown = quoted(name.as_bytes());
    if shown == "\"[redacted]\"" || shown.contains('?') && !name.contains('?') {
        return shown;
    }
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
