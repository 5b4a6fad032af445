//! PostgREST's configuration: which settings there are, what they may be, and how its file is written.
//!
//! Settings and their defaults: <https://docs.postgrest.org/en/stable/references/configuration.html>. What PostgREST takes for
//! each is in its `Config.hs`, as of 14.14 (`src/PostgREST/Config.hs`) and 16.2 (`src/library/PostgREST/Config.hs`); the parser
//! is named beside each form here. A value that one of them refuses would have it ignore every setting of the database, or not
//! start, so it is refused here.

use crate::printable::{looks_like_a_token, quoted};
use crate::uri::Uri;
use std::collections::BTreeMap;
use std::fmt::Write;
use zeroize::Zeroizing;

const MOST_BYTES: usize = 4096;

/// The shortest secret HS256 takes (RFC 7518, 3.2).
const LEAST_SECRET: usize = 32;

#[derive(Debug, Clone, Copy)]
enum Form {
    /// `optInt` takes any number and falls back to its default for anything else; the limits are ours.
    Integer(i64, i64),
    /// `optBool`, which takes more spellings.
    Boolean,
    /// `parseTxEnd`, `parseOpenAPIMode`, `parseLogLevel` and, in 16, `parseErrorVerbosity` refuse any other word.
    OneOf(&'static [&'static str]),
    /// `splitOnCommas`: at least one entry, separated by commas, each trimmed.
    List,
    /// `parseCORSAllowedOrigins` splits at commas and takes anything; an entry that is no origin allows nobody.
    Origins,
    /// `toQi`: a function, perhaps with its schema.
    Function,
    /// `parseOpenAPIServerProxyURI`, `isMalformedProxyUri` in `Config/Proxy.hs`.
    ProxyUri,
    /// `optStringOrURI`: with a colon it has to be a URI.
    Audience,
    /// `parseRoleClaimKey`: `Config/JSPath.hs` in 14, which is `Config/DeprecatedJSPath.hs` in 16. The JSONPath that 16 takes as
    /// well is refused by 14.
    ClaimPath,
    /// `server-trace-header` is the name of a header.
    HeaderName,
    /// `optString`.
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
    here("jwt_aud", Form::Audience),
    file("jwt_cache_max_entries", Form::Integer(0, 1_000_000)),
    here("jwt_role_claim_key", Form::ClaimPath),
    // The secret is never read from the database, so how it is written is not either.
    file("jwt_secret_is_base64", Form::Boolean),
    file("log_level", Form::OneOf(&["crit", "error", "warn", "info", "debug"])),
    file("log_query", Form::Boolean),
    here("openapi_mode", Form::OneOf(&["follow-privileges", "ignore-privileges", "disabled"])),
    here("openapi_security_active", Form::Boolean),
    here("openapi_server_proxy_uri", Form::ProxyUri),
    here("server_cors_allowed_origins", Form::Origins),
    file("server_host", Form::Text),
    file("server_port", Form::Integer(1, 65_535)),
    here("server_timing_enabled", Form::Boolean),
    here("server_trace_header", Form::HeaderName),
    here("url_use_legacy_target_names", Form::Boolean),
];

/// `parseServerPort`.
const SERVER_PORT: &str = "3000";

/// What is set when nobody sets it: PostgREST itself has no limit of rows.
const DEFAULTS: [(&str, &str); 2] = [("db_max_rows", "1000"), ("db_pool", "10")];

fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The values in their one spelling, null for those to be removed, or everything that is wrong: first the
/// unknown keys, then the values, each sorted by key, then what does not go together with what is stored.
pub fn check(
    wanted: &BTreeMap<String, Option<String>>,
    stored: &BTreeMap<String, String>,
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
    let port = |key: &str| checked.get(key).cloned().unwrap_or_else(|| stored.get(key).cloned());
    let is_named = checked.contains_key("admin_server_port") || checked.contains_key("server_port");
    // `parseAdminServerPort`.
    if is_named && port("admin_server_port") == Some(port("server_port").unwrap_or(SERVER_PORT.into())) {
        unknown.push("admin_server_port: It is the same as server_port.".into());
    }
    if unknown.is_empty() { Ok(checked) } else { Err(unknown) }
}

/// True for what PostgREST reads from the database. Once a session has shown it such a setting, PostgREST sees it as empty, and
/// not as absent, when it is gone.
pub fn is_in_database(key: &str) -> bool {
    setting(key).is_some_and(|setting| setting.in_database)
}

/// True for a setting that has a value also when nobody sets it.
pub fn has_default(key: &str) -> bool {
    DEFAULTS.iter().any(|(named, _)| *named == key)
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
        Form::Origins => {
            let entries: Vec<&str> =
                value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
            match entries.iter().find(|entry| !is_origin(entry)) {
                _ if entries.is_empty() => Err("It has no entry.".into()),
                Some(wrong) => Err(format!(
                    "{} is no origin, as browsers send it: a scheme, ://, a host in lower case, perhaps a port.",
                    quoted(wrong.as_bytes())
                )),
                None => Ok(entries.join(", ")),
            }
        }
        Form::ProxyUri => match Uri::parse(value) {
            Some(uri) if is_proxy(&uri) => Ok(value.to_owned()),
            _ => Err("It must be an absolute http or https URI without user, query and fragment.".into()),
        },
        Form::Audience if value.contains(':') && Uri::parse(value).is_none() => {
            Err("It has a colon, so it must be a URI.".into())
        }
        Form::Audience => Ok(value.to_owned()),
        Form::ClaimPath if is_claim_path(value) => Ok(value.to_owned()),
        Form::ClaimPath => Err(
            "It must be a path that PostgREST 14 and 16 both take, such as .role, .\"https://shop.example/role\" or .roles[0].".into(),
        ),
        Form::HeaderName => {
            let right = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            if right { Ok(value.to_owned()) } else { Err("It must be the name of a header.".into()) }
        }
        Form::Text => Ok(value.to_owned()),
    }
}

fn port_is_right(port: Option<&str>) -> bool {
    port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_origin(text: &str) -> bool {
    Uri::parse(text).is_some_and(|uri| {
        let plain = uri.path.is_empty() && uri.query.is_none() && uri.fragment.is_none();
        plain
            && !text.bytes().any(|b| b.is_ascii_uppercase())
            && uri.authority.is_some_and(|to| {
                to.user.is_none() && !to.host.is_empty() && to.host != "*" && port_is_right(to.port)
            })
    })
}

fn is_proxy(uri: &Uri) -> bool {
    let scheme = uri.scheme.to_ascii_lowercase();
    let to = uri.authority.as_ref();
    ["http", "https"].contains(&scheme.as_str())
        && uri.query.is_none()
        && uri.fragment.is_none()
        && to.is_some_and(|to| to.user.is_none() && !to.host.is_empty() && port_is_right(to.port))
}

/// `pJSPath`: keys and indexes, at the end perhaps a filter. Letters without quotes are ASCII here.
fn is_claim_path(path: &str) -> bool {
    let mut rest = path;
    while !rest.is_empty() {
        let after = if let Some(key) = rest.strip_prefix('.') {
            let word = |c: char| c.is_ascii_alphanumeric() || "_$@".contains(c);
            let end = key.find(|c| !word(c)).unwrap_or(key.len());
            if end > 0 { Some(&key[end..]) } else { after_quoted(key) }
        } else if let Some(filter) = rest.strip_prefix("[?(") {
            return is_filter(filter);
        } else {
            rest.strip_prefix('[').and_then(|index| {
                let (digits, after) = index.split_once(']')?;
                let right = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
                right.then_some(after)
            })
        };
        let Some(after) = after else { return false };
        rest = after;
    }
    !path.is_empty()
}

/// `pFilterConditionParser` and what closes it.
fn is_filter(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('@') else { return false };
    let rest = rest.trim_start();
    let operator = ["==^", "==", "!=", "^==", "*=="].into_iter().find_map(|word| rest.strip_prefix(word));
    operator.and_then(|rest| after_quoted(rest.trim_start())) == Some(")]")
}

fn after_quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.split_once('"').map(|(_, after)| after)
}

/// What `db-pre-config` sets, without the prefix `pgrst.`: defaults, the service, and its settings.
pub fn in_database(
    settings: &BTreeMap<String, String>,
    anon_role: Option<&str>,
    schemas: &[String],
) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = all(settings)
        .into_iter()
        .filter(|(key, _)| setting(key).is_some_and(|setting| setting.in_database))
        .collect();
    // Empty is none, whatever the file says.
    values.insert("db_anon_role".into(), anon_role.unwrap_or_default().into());
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

/// What is wrong with a secret: `readSecretFile`, `decodeSecret` and `parseSecret`.
pub fn secret_fault(secret: &str, is_base64: bool) -> Option<String> {
    if let Some(file) = secret.strip_prefix('@') {
        let named = file.starts_with('/');
        return (!named).then(|| {
            "PostgREST takes what begins with @ for the name of a file: it must begin with @/.".into()
        });
    }
    if !is_base64 {
        let short = secret.chars().count() < LEAST_SECRET;
        return short.then(|| format!("It has fewer than {LEAST_SECRET} characters."));
    }
    match decoded_len(secret.trim()) {
        None => Some("It is not Base64, as jwt_secret_is_base64 says.".into()),
        Some(len) if len < LEAST_SECRET => Some(format!("It has fewer than {LEAST_SECRET} bytes.")),
        Some(_) => None,
    }
}

/// How many bytes Base64 stands for, in either alphabet, with its padding, for which a dot will do.
fn decoded_len(text: &str) -> Option<usize> {
    let body = text.trim_end_matches(['=', '.']);
    let padding = text.len() - body.len();
    let value = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let last = body.bytes().map(value).collect::<Option<Vec<u8>>>()?.pop()?;
    let whole = match padding {
        0 => true,
        1 => last & 0b11 == 0,
        2 => last & 0b1111 == 0,
        _ => false,
    };
    (whole && text.len().is_multiple_of(4)).then(|| text.len() / 4 * 3 - padding)
}

/// The text of `postgrest.conf`.
pub fn render(
    connection: &Connection,
    password: Option<&str>,
    jwt_secret: Option<&str>,
    anon_role: Option<&str>,
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
    if let Some(anon_role) = anon_role {
        line("db_anon_role", anon_role);
    }
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
    if !settings.contains_key("db_pre_request") {
        lines.push_str("# db-pre-request is not set: no API key is looked at. Name the hook here, not in the database alone.\n");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(key: &str, value: &str) -> bool {
        check(&BTreeMap::from([(key.to_owned(), Some(value.to_owned()))]), &BTreeMap::new()).is_ok()
    }

    #[test]
    fn what_postgrest_refuses_is_refused() {
        for (key, right, wrong) in [
            (
                "jwt_aud",
                vec!["shop", "https://shop.example", "urn:shop", "a b"],
                vec!["shop: east & west", ":x", "http://a b"],
            ),
            (
                "jwt_role_claim_key",
                vec![
                    ".role",
                    ".a.b_c.$d.@e",
                    ".\"https://x/role\"[0]",
                    "[0].a",
                    ".\"\"",
                    ".a[?(@ == \"x\")]",
                    ".a[?(@==^\"x\")]",
                    ".a[?(@  *==  \"b c\")]",
                ],
                vec![
                    "role is nonsense",
                    "role",
                    ".a..b[",
                    ".",
                    ".a.",
                    ".a b",
                    "[x]",
                    "[]",
                    "[1",
                    ".a[?(@ == \"x\")].b",
                    ".a[?(@ = \"x\")]",
                    ".a[?(@ == x)]",
                    ".a[?( @ == \"x\")]",
                    ".\"a",
                    "$.role",
                    ".a-b",
                ],
            ),
            (
                "openapi_server_proxy_uri",
                vec!["https://shop.example", "HTTP://shop.example:8443/base", "http://[::1]:80/"],
                vec![
                    "http://:80",
                    "ftp://x",
                    "shop",
                    "http://",
                    "http://x:0",
                    "http://x:65536",
                    "http://x:",
                    "http://u@x",
                    "http://x?",
                    "http://x?y",
                    "http://x#y",
                    "http:/x",
                    "http://a b",
                ],
            ),
            (
                "server_cors_allowed_origins",
                vec!["https://a", "https://a, http://b:8080,", "capacitor://localhost"],
                vec![
                    "not a url",
                    "https://a, b",
                    "*",
                    "https://a/",
                    "https://a/x",
                    "https://A",
                    "https://*",
                    "null",
                    "https://a:0",
                    "https://u@a",
                ],
            ),
            ("server_trace_header", vec!["X-Request-Id"], vec!["X Request", "a:b", "é"]),
            ("db_tx_end", vec!["rollback-allow-override"], vec!["abort"]),
            ("log_level", vec!["debug"], vec!["trace"]),
        ] {
            for value in right {
                assert!(takes(key, value), "{key} {value}");
            }
            for value in wrong {
                assert!(!takes(key, value), "{key} {value}");
            }
        }
    }

    #[test]
    fn ports_differ() {
        let ports = |wanted: &[(&str, Option<&str>)], stored: &[(&str, &str)]| {
            let wanted = wanted.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)));
            let stored = stored.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            check(&wanted.collect(), &stored.collect()).is_ok()
        };
        assert!(!ports(&[("admin_server_port", Some("3000"))], &[]));
        assert!(ports(&[("admin_server_port", Some("3001"))], &[]));
        assert!(!ports(&[("admin_server_port", Some("8080")), ("server_port", Some("08080"))], &[]));
        assert!(!ports(&[("server_port", Some("3001"))], &[("admin_server_port", "3001")]));
        assert!(!ports(&[("server_port", None)], &[("admin_server_port", "3000"), ("server_port", "3001")]));
        assert!(ports(&[("db_pool", Some("3"))], &[("admin_server_port", "3000")]));
    }

    #[test]
    fn secrets() {
        let plain = "a secret of at least 32 characters";
        assert_eq!(secret_fault(plain, false), None);
        assert!(secret_fault("short", false).is_some() && secret_fault(plain, true).is_some());
        assert_eq!(secret_fault("@/run/secret", false), None);
        assert!(secret_fault("@a-secret-that-begins-with-an-at-sign", false).is_some());
        let right = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        assert_eq!(secret_fault(right, true), None);
        assert_eq!(secret_fault(&right.replace('=', "."), true), None);
        for wrong in
            [right.trim_end_matches('='), "MDEyMzQ1Njc4OWFiY2RlZg==", &right.replace('Y', " "), "===="]
        {
            assert!(secret_fault(wrong, true).is_some(), "{wrong}");
        }
    }
}
