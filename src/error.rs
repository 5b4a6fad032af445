//! Every failure a function of ours can report, and how it reads.
//!
//! Message: lower case, no full stop, names the object. DETAIL says why, HINT what to do.

use keywright_core::printable::quoted;
use pgrx::pg_sys::errcodes::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::ErrorReport;

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
    /// An argument is null that must not be.
    Null {
        argument: &'static str,
    },
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
        manager: &'a str,
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
    /// A client tried to set the cap on lifetimes when it connected.
    CapOverridden,
    /// The user came up after the snapshot of this REPEATABLE READ transaction.
    NewerThanTransaction {
        username: &'a str,
    },
    /// A table or index of ours is not where it should be.
    Broken {
        object: String,
    },
}

impl From<Failure<'_>> for ErrorReport {
    #[track_caller]
    fn from(failure: Failure<'_>) -> Self {
        let (code, message, detail, hint) = failure.parts();
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

/// What is wrong with one argument: sentences, all of them.
#[derive(Debug)]
pub struct Fault {
    pub argument: &'static str,
    pub sentences: Vec<String>,
    pub hint: &'static str,
}

impl Fault {
    pub fn new(argument: &'static str, sentence: impl Into<String>, hint: &'static str) -> Fault {
        Fault { argument, sentences: vec![sentence.into()], hint }
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
    let hints: Vec<_> = faults.iter().map(|fault| fault.hint).filter(|hint| !hint.is_empty()).collect();
    parts(
        Code::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("{} {verb} not acceptable", names.join(", ")),
        detail.join("\n"),
        hints.join("\n"),
    )
}

type Parts = (Code, String, String, String);

fn parts(code: Code, message: String, detail: impl Into<String>, hint: impl Into<String>) -> Parts {
    (code, message, detail.into(), hint.into())
}

impl Failure<'_> {
    fn parts(self) -> Parts {
        match self {
            Failure::Null { argument } => parts(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("{argument} must not be null"),
                "A null has no meaning here.",
                "Give a value, or leave the argument out if it has a default.",
            ),
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
            Failure::CapOverridden => parts(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied to set parameter \"keywright.max_api_key_lifetime\"".into(),
                "The client set it when it connected, which only a superuser may.",
                "Connect without this option (PGOPTIONS, options).",
            ),
            Failure::NewerThanTransaction { username } => parts(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "could not serialize access".into(),
                format!("User \"{username}\" is newer than the snapshot of this transaction."),
                "Try the transaction again.",
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
