//! Every failure a function of ours can report, and how it reads.
//!
//! Message: lower case, no full stop, names the object. DETAIL says why, HINT what to do.

use keywright_core::authenticator::findings::{Finding, GRANTOR, identifier};
use keywright_core::list::Faults;
use keywright_core::manifest::plan::Refusal;
use keywright_core::name::Broken;
use keywright_core::printable::quoted;
use keywright_core::resource::Resource;
use pgrx::PgLogLevel;
use pgrx::pg_sys::errcodes::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::ErrorReport;
use std::borrow::Cow;

/// Keeps backtraces out of DETAIL, where they would reach clients of a server whose environment happens to
/// have RUST_BACKTRACE. The standard library decides once, at the first capture, so that is made here.
pub fn no_backtraces() {
    const SETTING: &str = "RUST_LIB_BACKTRACE";
    let before = std::env::var_os(SETTING);
    // SAFETY: called while the library is loaded, when the process has a single thread.
    unsafe { std::env::set_var(SETTING, "0") };
    _ = std::backtrace::Backtrace::capture();
    match before {
        // SAFETY: as above.
        Some(value) => unsafe { std::env::set_var(SETTING, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(SETTING) },
    }
}

#[derive(Debug)]
pub enum Failure<'a> {
    /// Arguments are malformed.
    Arguments(Vec<Fault>),
    NoUser {
        username: &'a [u8],
    },
    NoApiKey {
        key_id: &'a [u8],
    },
    NoGatewayKey {
        name: &'a [u8],
    },
    NoRole {
        role: &'a [u8],
    },
    /// The role's name is reserved.
    ReservedRole {
        role: &'a [u8],
    },
    /// The role is too powerful to be acted as.
    PowerfulRole {
        role: &'a [u8],
        powers: String,
    },
    UserSuspended {
        username: &'a str,
    },
    UserOfOtherKind {
        username: &'a str,
        kind: &'a str,
        wanted: &'a str,
    },
    OtherManager {
        what: String,
        manager: String,
    },
    /// As `OtherManager`, where something was to end.
    NotYours {
        what: String,
        manager: String,
    },
    /// A key that is there already was to be imported as another.
    ImportedOtherwise {
        key_id: String,
        differs: Vec<String>,
    },
    NoResourceType {
        kind: String,
        nearest: Option<String>,
    },
    NoResource {
        resource: Resource,
    },
    /// No role of ours.
    NoSuchRole {
        name: String,
        nearest: Option<String>,
    },
    /// The extension's own is never changed.
    BuiltIn {
        what: String,
    },
    /// It can not go while something needs it.
    InUse {
        what: String,
        by: &'static str,
        hint: &'static str,
    },
    /// A type's parents can not change while there are some.
    HasParents {
        kind: String,
    },
    LastOwner {
        username: String,
        role: String,
        resource: Resource,
    },
    /// The granter may not grant this role there.
    NotGrantable {
        granter: String,
        role: String,
        why: String,
    },
    /// A good key that does not permit this.
    NotPermitted {
        /// In quotes.
        permission: String,
        uncovered: Vec<String>,
    },
    /// track_resource was not called as the trigger it is.
    NotSuchATrigger,
    NotAnAuditTrigger,
    NoColumn {
        column: String,
        table: String,
    },
    ColumnType {
        column: String,
        table: String,
    },
    NullId {
        table: String,
    },
    BadId {
        broken: Broken,
    },
    Truncate {
        table: String,
    },
    /// A key that is no longer live was to be rotated.
    NotLive {
        key_id: &'a str,
        why: String,
        hint: String,
    },
    /// The one answer to any token that does not verify.
    InvalidToken,
    NoRandomness,
    NoAuthenticator {
        service: String,
    },
    /// Roles or schemas a service can not use.
    Unfit {
        service: String,
        findings: Vec<Finding>,
    },
    /// Somebody changed the role that grants for us.
    GrantorAltered,
    /// Only a superuser writes the ledger, and the owner of keywright is none any more.
    OwnerPowerless {
        owner: Vec<u8>,
    },
    /// Sessions that have shown PostgREST a setting would go on showing an empty one.
    SettingShown {
        keys: Vec<String>,
        role: String,
        sessions: i64,
    },
    /// What speaks against a manifest, all of it.
    Manifest {
        refusals: Vec<Refusal>,
    },
    /// Others kept changing the same rows.
    Contended,
    /// Who allows a grant must be able to make it.
    CouldNotGrant {
        role: String,
    },
    /// A client tried to set what only a superuser may, when it connected.
    Overridden {
        setting: String,
    },
    /// It came up after the snapshot of this REPEATABLE READ transaction.
    NewerThanTransaction {
        what: String,
    },
    /// What only an upgrade script calls.
    NoUpgrade,
    /// A table or index of ours is not where it should be.
    Broken {
        object: String,
    },
}

impl From<Failure<'_>> for ErrorReport {
    #[track_caller]
    fn from(failure: Failure<'_>) -> Self {
        let of_a_change = !matches!(failure, Failure::InvalidToken | Failure::NotPermitted { .. });
        let (code, message, detail, hint) = failure.parts();
        if of_a_change {
            crate::audit::refused(code, &message);
        }
        let mut report = ErrorReport::new(code, message, "keywright");
        if !detail.is_empty() {
            report = report.set_detail(detail);
        }
        if !hint.is_empty() {
            report = report.set_hint(hint);
        }
        report
    }
}

/// For callers that can not return an error that is ready to be reported.
pub fn raise<T>(result: Result<T, ErrorReport>) -> T {
    match result {
        Ok(value) => value,
        Err(report) => {
            report.report(PgLogLevel::ERROR);
            unreachable!("an error that is reported does not come back")
        }
    }
}

const NULL: &str = "It must not be null.";

/// What is wrong with one argument: sentences, all of them.
#[derive(Debug)]
pub struct Fault {
    pub argument: &'static str,
    pub sentences: Vec<String>,
    pub hint: Cow<'static, str>,
    /// A name that breaks the rule of its CHECK constraint.
    pub is_name: bool,
}

impl Fault {
    pub fn new(
        argument: &'static str,
        sentence: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Fault {
        Fault { argument, sentences: vec![sentence.into()], hint: hint.into(), is_name: false }
    }

    /// An argument is null that must not be.
    pub fn null(argument: &'static str) -> Fault {
        Fault::new(argument, NULL, "Give a value, or leave the argument out if it has a default.")
    }

    pub fn name(argument: &'static str, broken: Broken) -> Fault {
        let sentences = broken.detail.lines().map(str::to_owned).collect();
        Fault { argument, sentences, hint: broken.hint.into(), is_name: true }
    }

    /// What is wrong with a list, with what its author may have meant before the general hint.
    pub fn list(argument: &'static str, faults: Faults, hint: &'static str) -> Fault {
        let meant: Vec<String> = faults.nearest.iter().map(|word| quoted(word.as_bytes())).collect();
        let hint = match meant.is_empty() {
            true => hint.into(),
            false => format!("Did you mean {}? {hint}", meant.join(", ")).into(),
        };
        Fault { argument, sentences: faults.sentences, hint, is_name: false }
    }
}

impl From<Fault> for Failure<'_> {
    fn from(fault: Fault) -> Self {
        Failure::Arguments(vec![fault])
    }
}

impl From<Fault> for ErrorReport {
    #[track_caller]
    fn from(fault: Fault) -> Self {
        Failure::from(fault).into()
    }
}

/// All of them in one message. Each sentence says which argument it is about, unless there is only one.
fn arguments(faults: &[Fault]) -> Parts {
    if let [Fault { argument, sentences, hint, .. }] = faults
        && *sentences == [NULL]
    {
        return parts(
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("{argument} must not be null"),
            "A null has no meaning here.",
            hint.as_ref(),
        );
    }
    let names: Vec<_> = faults.iter().map(|fault| fault.argument).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    let detail: Vec<String> = faults
        .iter()
        .flat_map(|fault| fault.sentences.iter().map(move |sentence| (fault.argument, sentence)))
        .map(
            |(argument, sentence)| {
                if faults.len() == 1 { sentence.clone() } else { format!("{argument}: {sentence}") }
            },
        )
        .collect();
    let mut hints: Vec<&str> = Vec::new();
    for hint in faults.iter().map(|fault| fault.hint.as_ref()).filter(|hint| !hint.is_empty()) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    parts(
        Code::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("{} {verb} not acceptable", names.join(", ")),
        detail.join("\n"),
        hints.join("\n"),
    )
}

/// The SQLSTATE of a finding.
pub fn code_of(finding: &str) -> &'static str {
    match kind_of(finding) {
        Code::ERRCODE_RESERVED_NAME => "42939",
        Code::ERRCODE_DUPLICATE_OBJECT => "42710",
        Code::ERRCODE_UNDEFINED_OBJECT => "42704",
        Code::ERRCODE_INVALID_PARAMETER_VALUE => "22023",
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE => "55000",
        _ => "42501",
    }
}

fn kind_of(finding: &str) -> Code {
    match finding {
        "reserved_name" => Code::ERRCODE_RESERVED_NAME,
        "grantor_altered" => Code::ERRCODE_DUPLICATE_OBJECT,
        "role_missing" => Code::ERRCODE_UNDEFINED_OBJECT,
        "same_role" | "schema_name" | "schema_exposed" | "no_schema" => Code::ERRCODE_INVALID_PARAMETER_VALUE,
        "nologin"
        | "schema_missing"
        | "search_path_missing"
        | "circular_membership"
        | "pre_request_missing"
        | "pre_request_denied" => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        _ => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
    }
}

/// All findings in one message. Findings of one kind have a code of their own.
fn unfit(service: &str, findings: &[Finding]) -> Parts {
    let first = kind_of(findings[0].code);
    let code = match findings.iter().all(|finding| kind_of(finding.code) == first) {
        true => first,
        false => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
    };
    let mut hints: Vec<&str> = Vec::new();
    for finding in findings {
        if !hints.contains(&finding.hint.as_str()) {
            hints.push(&finding.hint);
        }
    }
    let detail: Vec<String> =
        findings.iter().map(|finding| format!("{}: {}", finding.code, finding.message)).collect();
    let message = format!("authenticator {} can not be granted", quoted(service.as_bytes()));
    parts(code, message, detail.join("\n"), hints.join("\n"))
}

/// Everything in one message. Refusals of one kind have a code of their own.
fn manifest(refusals: &[Refusal]) -> Parts {
    let first = refusals.first().map_or("", |refusal| refusal.code);
    let code = match refusals.iter().all(|refusal| refusal.code == first) {
        true => state(first),
        false => Code::ERRCODE_INVALID_PARAMETER_VALUE,
    };
    let lines: Vec<String> =
        refusals.iter().map(|refusal| format!("{}: {}", refusal.path, refusal.sentence)).collect();
    let count = refusals.len();
    let message = format!("manifest can not be applied: {count} error{}", if count == 1 { "" } else { "s" });
    parts(
        code,
        message,
        lines.join("\n"),
        "Nothing was changed. See keywright.manifest_schema() for the form.",
    )
}

fn state(code: &str) -> Code {
    match code {
        "42704" => Code::ERRCODE_UNDEFINED_OBJECT,
        "42710" => Code::ERRCODE_DUPLICATE_OBJECT,
        "42501" => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "42939" => Code::ERRCODE_RESERVED_NAME,
        "23503" => Code::ERRCODE_FOREIGN_KEY_VIOLATION,
        "55000" => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        _ => Code::ERRCODE_INVALID_PARAMETER_VALUE,
    }
}

impl Failure<'_> {
    /// As one of several things that speak against a manifest.
    pub fn refusal(self, path: String) -> Refusal {
        let (code, message, detail, _) = self.parts();
        const KNOWN: [&str; 6] = ["42704", "42710", "42501", "42939", "23503", "55000"];
        let code = KNOWN.into_iter().find(|known| state(known) == code).unwrap_or("22023");
        Refusal { code, path, sentence: format!("{message}. {detail}") }
    }
}

/// A word without quotes, if that is what it is.
fn plain(word: &str) -> String {
    let shown = quoted(word.as_bytes());
    if shown.trim_matches('"') == word { word.to_owned() } else { shown }
}

type Parts = (Code, String, String, String);

fn parts(code: Code, message: String, detail: impl Into<String>, hint: impl Into<String>) -> Parts {
    (code, message, detail.into(), hint.into())
}

impl Failure<'_> {
    fn parts(self) -> Parts {
        match self {
            Failure::Arguments(faults) => arguments(&faults),
            Failure::NoUser { username } => parts(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("user {} does not exist", quoted(username)),
                "No living user has this name.",
                "Make it with keywright.ensure_user or keywright.ensure_system_user.",
            ),
            Failure::NoApiKey { key_id } => parts(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("API key {} does not exist", quoted(key_id)),
                "It was never minted, or it was purged.",
                "See keywright.list_api_keys(include_inactive => true).",
            ),
            Failure::NoGatewayKey { name } => parts(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("gateway key {} does not exist", quoted(name)),
                "No gateway key has this name or id.",
                "See keywright.list_gateway_keys().",
            ),
            Failure::NoRole { role } => parts(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("role {} does not exist", quoted(role)),
                "Postgres has no role of this name.",
                "Create the role first.",
            ),
            Failure::ReservedRole { role } => parts(
                Code::ERRCODE_RESERVED_NAME,
                format!("role name {} is reserved", quoted(role)),
                "PUBLIC, NONE and names that start with pg_ are Postgres's own.",
                "Name a role of your own.",
            ),
            Failure::PowerfulRole { role, powers } => parts(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("role {} is too powerful to be acted as", quoted(role)),
                powers,
                "Name a role without these attributes and memberships.",
            ),
            Failure::UserSuspended { username } => parts(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("user \"{username}\" is suspended"),
                "A suspended user can hold no new key.",
                format!("A reconciler ends it with: SELECT keywright.activate_user('{username}');"),
            ),
            Failure::UserOfOtherKind { username, kind, wanted } => parts(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("user \"{username}\" is a {kind} user"),
                format!("A {kind} user is never turned into a {wanted} user."),
                "Choose another username.",
            ),
            Failure::OtherManager { what, manager } => parts(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("{what} is managed by {}", quoted(manager.as_bytes())),
                "Only its manager changes it.",
                "Leave it to its manager, or choose another name.",
            ),
            Failure::NotYours { what, manager } => parts(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("{what} is managed by {}", quoted(manager.as_bytes())),
                "Another manager was named.",
                "Leave it to its manager, or pass that one's name as managed_by.",
            ),
            Failure::ImportedOtherwise { key_id, differs } => parts(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!(
                    "API key {} is there already and differs in {}",
                    quoted(key_id.as_bytes()),
                    differs.join(", ")
                ),
                "An import changes nothing of a key that is there.",
                "Import it with what keywright.list_api_keys shows, or revoke it and mint another.",
            ),
            Failure::NoResourceType { kind, nearest } => parts(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("resource type {} does not exist", quoted(kind.as_bytes())),
                "It is not registered.",
                match nearest {
                    Some(nearest) => format!("Did you mean \"{nearest}\"?"),
                    None => "Register it with keywright.register_resource_type.".into(),
                },
            ),
            Failure::NoResource { resource } => parts(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("{} {} does not exist", plain(&resource.kind), quoted(resource.id.as_bytes())),
                "No resource of this type has this id.",
                "Register it with keywright.ensure_resource.",
            ),
            Failure::NoSuchRole { name, nearest } => parts(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("role {} is not defined", quoted(name.as_bytes())),
                "No role of keywright has this name.",
                match nearest {
                    Some(nearest) => format!("Did you mean \"{nearest}\"?"),
                    None => "See keywright.list_roles(), or define it with keywright.define_role.".into(),
                },
            ),
            Failure::BuiltIn { what } => parts(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("{what} is built in"),
                "What the extension makes itself is the same in every database.",
                "Choose another name.",
            ),
            Failure::InUse { what, by, hint } => {
                parts(Code::ERRCODE_FOREIGN_KEY_VIOLATION, format!("{what} is in use"), by, hint)
            }
            Failure::HasParents { kind } => parts(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("resource type {} is registered with another parent type", quoted(kind.as_bytes())),
                "Resources of this type have parents.",
                "Take their parents away first, or choose another name.",
            ),
            Failure::LastOwner { username, role, resource: Resource { kind, id } } => parts(
                Code::ERRCODE_FOREIGN_KEY_VIOLATION,
                format!("user \"{username}\" is the last active owner of {kind} \"{id}\""),
                format!("No other active user holds the role \"{role}\" on it."),
                format!(
                    "Bind another owner first: SELECT keywright.bind_role(USERNAME, '{role}', '{kind}', '{id}');"
                ),
            ),
            Failure::NotGrantable { granter, role, why } => parts(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("user \"{granter}\" may not grant role \"{role}\" there"),
                why,
                "Let somebody grant it who holds a role of a smaller level there, with all its permissions.",
            ),
            Failure::NotPermitted { permission, uncovered } => parts(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission {permission} denied"),
                uncovered.join("\n"),
                "Ask for a key, or a role for its owner, that covers it.",
            ),
            Failure::NotSuchATrigger => parts(
                Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "track_resource was not called as a trigger it can be".into(),
                "It is for AFTER triggers FOR EACH STATEMENT, with the transition tables that their event has, and takes 2 to 4 arguments: type, id column, parent column, name column.",
                "Let keywright.track_table create the triggers.",
            ),
            Failure::NotAnAuditTrigger => parts(
                Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "_audit was not called as a trigger it can be".into(),
                "It is for AFTER triggers FOR EACH STATEMENT, with the transition tables that their event has.",
                "Its triggers come with the extension.",
            ),
            Failure::NoColumn { column, table } => parts(
                Code::ERRCODE_UNDEFINED_COLUMN,
                format!(
                    "column {} of table {} does not exist",
                    quoted(column.as_bytes()),
                    quoted(table.as_bytes())
                ),
                "keywright was told to track it.",
                "Call keywright.track_table with a column of the table, as it is spelled.",
            ),
            Failure::ColumnType { column, table } => parts(
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column {} of table {} can not be tracked",
                    quoted(column.as_bytes()),
                    quoted(table.as_bytes())
                ),
                "Its type is not one of uuid, smallint, integer, bigint, text and varchar, or a domain over these, or it is a virtual generated column.",
                "Track another column.",
            ),
            Failure::NullId { table } => parts(
                Code::ERRCODE_NOT_NULL_VIOLATION,
                format!("an id in table {} is null", quoted(table.as_bytes())),
                "A tracked row has an id.",
                "Declare the column NOT NULL.",
            ),
            Failure::BadId { broken } => {
                parts(Code::ERRCODE_CHECK_VIOLATION, broken.message, broken.detail, broken.hint)
            }
            Failure::Truncate { table } => parts(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("table {} is tracked and can not be truncated", quoted(table.as_bytes())),
                "TRUNCATE does not tell which rows go, so their resources would stay behind.",
                "Use DELETE, which is followed.",
            ),
            Failure::NotLive { key_id, why, hint } => parts(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("API key \"{key_id}\" is not live"),
                why,
                hint,
            ),
            Failure::InvalidToken => parts(
                Code::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
                "API key is not valid".into(),
                "",
                "An auditor finds the cause with keywright.explain_api_key.",
            ),
            Failure::NoRandomness => parts(
                Code::ERRCODE_SYSTEM_ERROR,
                "operating system gives no randomness".into(),
                "Nothing was minted.",
                "",
            ),
            Failure::NoAuthenticator { service } => parts(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("authenticator {} does not exist", quoted(service.as_bytes())),
                "No service has this name.",
                "Make it with keywright.grant_authenticator, or see keywright.list_authenticators().",
            ),
            Failure::Unfit { service, findings } => unfit(&service, &findings),
            Failure::Manifest { refusals } => manifest(&refusals),
            Failure::GrantorAltered => parts(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("role \"{GRANTOR}\" is not as keywright made it"),
                "It lacks the ledger, owns something, was granted something, can log in, has attributes, settings or members. Whoever acts as it could grant what it may grant.",
                "The finding grantor_altered of keywright.preflight_authenticator says what to do.",
            ),
            Failure::OwnerPowerless { owner } => parts(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("the owner of keywright, role {}, is not a superuser", quoted(&owner)),
                "The ledger of what authenticators were granted is a setting that only a superuser can write.",
                format!("ALTER ROLE {} SUPERUSER;", identifier(&String::from_utf8_lossy(&owner))),
            ),
            Failure::SettingShown { keys, role, sessions } => parts(
                Code::ERRCODE_OBJECT_IN_USE,
                format!("{} cannot be removed while PostgREST is connected", keys.join(", ")),
                format!(
                    "Role {} has {sessions} session(s) in this database. PostgREST would take what they have read before for empty, instead of what its file says.",
                    quoted(role.as_bytes())
                ),
                "Set the value that the file has. Or stop PostgREST, and its pooler, and remove it then.",
            ),
            Failure::Contended => parts(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "could not serialize access".into(),
                "Others keep changing the same objects, roles or privileges.",
                "Try again.",
            ),
            Failure::CouldNotGrant { role } => parts(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied to allow grants to role {}", quoted(role.as_bytes())),
                "Only who could grant these roles by hand may allow it: with the ADMIN OPTION on each of them, or as superuser.",
                "Ask a superuser.",
            ),
            Failure::Overridden { setting } => parts(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied to set parameter \"{setting}\""),
                "The value it should have was lost: it is out of range, or the client set one when it connected, which only a superuser may.",
                "Connect without this option (PGOPTIONS, options), and see pg_db_role_setting.",
            ),
            Failure::NewerThanTransaction { what } => parts(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "could not serialize access".into(),
                format!("{what} is newer than the snapshot of this transaction."),
                "Try the transaction again.",
            ),
            Failure::NoUpgrade => parts(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "no script of the extension is running".into(),
                "Privileges of what an upgrade makes are set by its script.",
                "Give access with keywright.grant_access.",
            ),
            Failure::Broken { object } => parts(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{object} is missing"),
                "The extension's objects were changed by hand.",
                "Restore it, or reinstall the extension.",
            ),
        }
    }
}

impl From<keywright_core::alphabet::NoRandomness> for Failure<'_> {
    fn from(_: keywright_core::alphabet::NoRandomness) -> Self {
        Failure::NoRandomness
    }
}
