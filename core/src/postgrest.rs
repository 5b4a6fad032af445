//! PostgREST's configuration: which settings there are, what they may be, and how its file is written.
//!
//! Settings and their defaults: <https://docs.postgrest.org/en/stable/references/configuration.html>.

use crate::printable::{looks_like_a_token, quoted};
use std::collections::BTreeMap;
use std::fmt::Write;
use zeroize::Zeroizing;

const MOST_BYTES: usize = 4096;

/// The shortest secret HS256 takes (RFC 7518, 3.2).
const LEAST_SECRET: usize = 32;

#[derive(Debug, Clone, Copy)]
enum Form {
    Integer(i64, i64),
    Boolean,
    OneOf(&'static [&'static str]),
    /// At least one entry, separated by commas.
    List,
    /// A function, perhaps with its schema.
    Function,
    Uri,
    Text,
}

#[derive(Debug)]
struct Setting {
    key: &'static str,
    form: Form,
    /// Read from the database, and so without a restart.
    in_database: bool,
}

const fn here(key: &'static str, form: Form) -> Setting {
    Setting { key, form, in_database: true }
}

const fn file(key: &'static str, form: Form) -> Setting {
    Setting { key, form, in_database: false }
}

/// Sorted by key.
const SETTINGS: [Setting; 34] = [
    file("admin_server_host", Form::Text),
    file("admin_server_port", Form::Integer(1, 65_535)),
    here("client_error_verbosity", Form::OneOf(&["verbose", "minimal"])),
    here("db_aggregates_enabled", Form::Boolean),
    file("db_channel", Form::Text),
    file("db_channel_enabled", Form::Boolean),
    here("db_extra_search_path", Form::List),
    here("db_hoisted_tx_settings", Form::List),
    here("db_max_rows", Form::Integer(1, 10_000)),
    here("db_plan_enabled", Form::Boolean),
    file("db_pool", Form::Integer(1, 30)),
    file("db_pool_acquisition_timeout", Form::Integer(1, 3_600)),
    file("db_pool_automatic_recovery", Form::Boolean),
    file("db_pool_max_idletime", Form::Integer(1, 86_400)),
    file("db_pool_max_lifetime", Form::Integer(1, 86_400)),
    here("db_pre_request", Form::Function),
    here("db_prepared_statements", Form::Boolean),
    here("db_root_spec", Form::Function),
    here(
        "db_tx_end",
        Form::OneOf(&["commit", "commit-allow-override", "rollback", "rollback-allow-override"]),
    ),
    here("jwt_aud", Form::Text),
    file("jwt_cache_max_entries", Form::Integer(0, 1_000_000)),
    here("jwt_role_claim_key", Form::Text),
    here("jwt_secret_is_base64", Form::Boolean),
    file("log_level", Form::OneOf(&["crit", "error", "warn", "info", "debug"])),
    file("log_query", Form::Boolean),
    here("openapi_mode", Form::OneOf(&["follow-privileges", "ignore-privileges", "disabled"])),
    here("openapi_security_active", Form::Boolean),
    here("openapi_server_proxy_uri", Form::Uri),
    here("server_cors_allowed_origins", Form::List),
    file("server_host", Form::Text),
    file("server_port", Form::Integer(1, 65_535)),
    here("server_timing_enabled", Form::Boolean),
    here("server_trace_header", Form::Text),
    here("url_use_legacy_target_names", Form::Boolean),
];

/// What is set when nobody sets it: PostgREST itself has no limit of rows.
const DEFAULTS: [(&str, &str); 2] = [("db_max_rows", "1000"), ("db_pool", "10")];

fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The values in their one spelling, null for those to be removed, or everything that is wrong: first the
/// unknown keys, then the values, each sorted by key.
pub fn check(
    wanted: &BTreeMap<String, Option<String>>,
) -> Result<BTreeMap<String, Option<String>>, Vec<String>> {
    let mut checked = BTreeMap::new();
    let (mut unknown, mut wrong) = (Vec::new(), Vec::new());
    for (key, value) in wanted {
        let shown = quoted(key.as_bytes());
        let Some(setting) = setting(key) else {
            unknown.push(elsewhere(key).unwrap_or_else(|| format!("There is no setting {shown}.")));
            continue;
        };
        match value.as_deref().map(|value| spell(setting.form, value)).transpose() {
            Ok(value) => _ = checked.insert(key.clone(), value),
            Err(sentence) => wrong.push(format!("{key}: {sentence}")),
        }
    }
    unknown.append(&mut wrong);
    if unknown.is_empty() { Ok(checked) } else { Err(unknown) }
}

/// Settings that PostgREST has and that are given in another way.
fn elsewhere(key: &str) -> Option<String> {
    let how = match key {
        "db_anon_role" => "it is anon_role of keywright.grant_authenticator",
        "db_schemas" => "it is schemas of keywright.grant_authenticator",
        "jwt_secret" => "a secret is never stored, pass it to keywright.render_postgrest_config",
        "db_uri" => "keywright.render_postgrest_config makes it",
        "db_config" | "db_pre_config" => "keywright.render_postgrest_config decides it",
        _ => return None,
    };
    Some(format!("\"{key}\" is not set here: {how}."))
}

fn spell(form: Form, value: &str) -> Result<String, String> {
    if looks_like_a_token(value.as_bytes()) {
        return Err("It holds what may be a token.".into());
    }
    if value.len() > MOST_BYTES {
        return Err(format!("It is {} bytes long, at most {MOST_BYTES} are allowed.", value.len()));
    }
    if value.chars().any(char::is_control) {
        return Err("It has control characters.".into());
    }
    let value = value.trim();
    if value.is_empty() {
        return Err("It is empty; null removes a setting.".into());
    }
    match form {
        Form::Integer(least, most) => match value.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number.to_string()),
            _ => Err(format!("It must be a whole number from {least} to {most}.")),
        },
        Form::Boolean => match value {
            "true" | "false" => Ok(value.to_owned()),
            _ => Err("It must be true or false.".into()),
        },
        Form::OneOf(words) if words.contains(&value) => Ok(value.to_owned()),
        Form::OneOf(words) => Err(format!("It must be one of {}.", words.join(", "))),
        Form::List => {
            let entries: Vec<&str> =
                value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
            if entries.is_empty() { Err("It has no entry.".into()) } else { Ok(entries.join(", ")) }
        }
        Form::Function => {
            let parts: Vec<&str> = value.split('.').collect();
            let right = parts.len() <= 2 && parts.iter().all(|part| !part.is_empty() && part.trim() == *part);
            if right {
                Ok(value.to_owned())
            } else {
                Err("It must be a function, or schema.function.".into())
            }
        }
        Form::Uri => {
            let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
            let right = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains([' ', '?', '#', '@']));
            if right {
                Ok(value.to_owned())
            } else {
                Err("It must be an absolute http or https URI without user, query and fragment.".into())
            }
        }
        Form::Text => Ok(value.to_owned()),
    }
}

/// What `db-pre-config` sets, without the prefix `pgrst.`: defaults, the service, and its settings.
pub fn in_database(
    settings: &BTreeMap<String, String>,
    anon_role: &str,
    schemas: &[String],
) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = all(settings)
        .into_iter()
        .filter(|(key, _)| setting(key).is_some_and(|setting| setting.in_database))
        .collect();
    values.insert("db_anon_role".into(), anon_role.into());
    values.insert("db_schemas".into(), schemas.join(", "));
    values
}

fn all(settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let defaults = DEFAULTS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    defaults.chain(settings.iter().map(|(key, value)| (key.clone(), value.clone()))).collect()
}

/// How PostgREST reaches the database.
#[derive(Debug)]
pub struct Connection {
    pub user: String,
    pub database: String,
    /// `host`, `host:port`, `[address]:port`, or the directory of a socket.
    pub hosts: Vec<String>,
    pub target_session_attrs: String,
    /// More parameters of libpq, such as sslmode.
    pub parameters: BTreeMap<String, String>,
}

pub const SESSION_ATTRS: [&str; 6] =
    ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"];

/// Parameters of the URI that have arguments of their own.
const OWN: [&str; 7] = ["dbname", "host", "hostaddr", "password", "port", "target_session_attrs", "user"];

impl Connection {
    /// What is wrong with it, each with the argument it is about.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.hosts.is_empty() {
            faults.push(("hosts", "No host is given.".to_owned()));
        }
        for (at, host) in (1..).zip(&self.hosts) {
            if split_host(host).is_none() {
                faults.push((
                    "hosts",
                    format!("Entry {at} is not a host, host:port or directory of a socket."),
                ));
            }
        }
        if !SESSION_ATTRS.contains(&self.target_session_attrs.as_str()) {
            faults.push(("target_session_attrs", format!("It must be one of {}.", SESSION_ATTRS.join(", "))));
        }
        for key in self.parameters.keys() {
            let word = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let shown = quoted(key.as_bytes());
            if OWN.contains(&key.as_str()) {
                faults.push(("parameters", format!("{shown} has an argument of its own, or is known.")));
            } else if !word {
                faults.push(("parameters", format!("{shown} is not a parameter of libpq.")));
            }
        }
        faults
    }

    fn uri(&self, password: Option<&str>) -> Zeroizing<String> {
        let mut uri = Zeroizing::new(format!("postgresql://{}", encode(&self.user)));
        if let Some(password) = password {
            uri.push(':');
            uri.push_str(&Zeroizing::new(encode(password)));
        }
        let hosts: Vec<String> = self.hosts.iter().filter_map(|host| split_host(host)).collect();
        _ = write!(uri, "@{}/{}", hosts.join(","), encode(&self.database));
        _ = write!(uri, "?target_session_attrs={}", self.target_session_attrs);
        for (key, value) in &self.parameters {
            _ = write!(uri, "&{key}={}", encode(value));
        }
        uri
    }
}

/// A host as a URI has it, if it is one.
fn split_host(host: &str) -> Option<String> {
    if host.starts_with('/') {
        return Some(encode(host));
    }
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return None;
            }
            (format!("[{address}]"), port.strip_prefix(':').or_else(|| port.is_empty().then_some(""))?)
        }
        None => {
            let (name, port) = match host.split_once(':') {
                Some((_, "")) => return None,
                Some(parts) => parts,
                None => (host, ""),
            };
            let word =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            (word.then(|| name.to_owned())?, port)
        }
    };
    if port.is_empty() {
        return Some(name);
    }
    let number: u16 = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok())??;
    (number > 0).then(|| format!("{name}:{number}"))
}

/// RFC 3986: everything but unreserved characters is encoded, so no password can end the user part.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

pub fn secret_fault(secret: &str) -> Option<String> {
    let short = secret.chars().count() < LEAST_SECRET && !secret.starts_with('@');
    short.then(|| format!("It has fewer than {LEAST_SECRET} characters."))
}

/// The text of `postgrest.conf`.
pub fn render(
    connection: &Connection,
    password: Option<&str>,
    jwt_secret: Option<&str>,
    anon_role: &str,
    schemas: &[String],
    pre_config: Option<&str>,
    settings: &BTreeMap<String, String>,
) -> Zeroizing<String> {
    let mut lines = Zeroizing::new(String::new());
    let mut line = |key: &str, value: &str| {
        let value = Zeroizing::new(literal(value));
        _ = writeln!(lines, "{} = {}", key.replace('_', "-"), *value);
    };
    line("db_uri", &connection.uri(password));
    line("db_schemas", &schemas.join(", "));
    line("db_anon_role", anon_role);
    if let Some(pre_config) = pre_config {
        line("db_pre_config", pre_config);
    }
    if let Some(secret) = jwt_secret {
        line("jwt_secret", secret);
    }
    for (key, value) in all(settings) {
        match setting(&key).map(|setting| setting.form) {
            Some(Form::Integer(..) | Form::Boolean) => {
                _ = writeln!(lines, "{} = {value}", key.replace('_', "-"));
            }
            _ => {
                let value = literal(&value);
                _ = writeln!(lines, "{} = {value}", key.replace('_', "-"));
            }
        }
    }
    lines
}

/// A string of the configuration file. A dollar sign begins an interpolation, two are one.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '$' => out.push_str("$$"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
