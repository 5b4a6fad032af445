//! PostgREST's configuration of a service: kept settings, read by PostgREST from the database, and its file.

use crate::args::Faults;
use crate::error::{Failure, Fault};
use crate::own::Own;
use crate::record::Rows;
use crate::{args, authenticator, spi};
use keywright_core::authenticator::Desired;
use keywright_core::postgrest::{self, Connection};
use keywright_core::printable::quoted;
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{AnyElement, IntoDatum, PgBuiltInOids, pg_extern, pg_sys};
use std::cell::RefCell;
use std::collections::BTreeMap;

const OBJECT: &str = "Give a JSON object.";

const PRE_CONFIG: &str = "keywright.postgrest_config";

type Settings = BTreeMap<String, Option<String>>;

#[pg_extern(sql = false)]
fn set_postgrest_settings(
    service: Option<&[u8]>,
    settings: Option<AnyElement>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Rows, ErrorReport> {
    let rows = Rows::new(fcinfo);
    let mut faults = Faults::default();
    let wanted = faults.sift(args::required("settings", settings).and_then(|it| object_of("settings", it)));
    for (key, outcome) in set(service, "settings", wanted, faults)? {
        rows.push(&[key.into_datum(), outcome.into_datum()]);
    }
    Ok(rows)
}

#[pg_extern(sql = false)]
fn set_postgrest_setting(
    service: Option<&[u8]>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<&'static str, ErrorReport> {
    let mut faults = Faults::default();
    let key = faults.sift(args::text("key", key).map(str::to_owned));
    let value = value.map(|value| args::text("value", Some(value)).map(str::to_owned));
    let value = faults.sift(value.transpose());
    let wanted = key.zip(value).map(|setting| (Settings::from([setting]), Vec::new()));
    let changes = set(service, "setting", wanted, faults)?;
    Ok(changes.first().map_or("unchanged", |(_, outcome)| outcome))
}

/// The members of a JSON object as text, whatever the encoding of the database; and what is wrong with the others, in sentences.
fn object_of(argument: &'static str, object: AnyElement) -> Result<(Settings, Vec<String>), Fault> {
    const KIND: &str = "SELECT pg_catalog.jsonb_typeof($1)";
    const MEMBERS: &str = r#"
        SELECT e.key, e.value #>> '{}', pg_catalog.jsonb_typeof(e.value)
          FROM pg_catalog.jsonb_each($1) AS e (key, value) ORDER BY e.key COLLATE "C""#;
    // SAFETY: the SQL declares the argument jsonb.
    let args = [unsafe { spi::Arg::new(object, PgBuiltInOids::JSONBOID.value()) }];
    let kind: Option<String> = spi::read(KIND, &args, |row| row.get(1)).pop().flatten();
    if kind.as_deref() != Some("object") {
        return Err(Fault::new(argument, "It is not an object.", OBJECT));
    }
    let mut settings = Settings::new();
    let mut wrong = Vec::new();
    let members: Vec<(Vec<u8>, Option<Vec<u8>>, String)> =
        spi::read(MEMBERS, &args, |row| (row.must(1), row.get(2), row.must(3)));
    for (key, value, kind) in members {
        let shown = quoted(&key);
        let readable =
            args::name(&key).is_some() && value.as_deref().is_none_or(|value| args::name(value).is_some());
        if kind == "array" || kind == "object" {
            wrong.push(format!("The value of {shown} is not a text, number or boolean."));
        } else if !readable {
            wrong.push(format!("{shown} has other characters than ASCII, which takes a database in UTF8."));
        } else {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
            settings.insert(text(key), value.map(text));
        }
    }
    Ok((settings, wrong))
}

/// `faults` are those found so far: without any of them there is something wanted.
fn set(
    service: Option<&[u8]>,
    argument: &'static str,
    wanted: Option<(Settings, Vec<String>)>,
    mut faults: Faults,
) -> Result<Vec<(String, &'static str)>, Failure<'static>> {
    const HOLD: &str = "SELECT FROM keywright.authenticators WHERE service = $1 FOR NO KEY UPDATE";
    const STORE: &str = r#"
        INSERT INTO keywright.postgrest_settings (service, key, value) VALUES ($1, $2, $3)
        ON CONFLICT ON CONSTRAINT postgrest_settings_pkey
        DO UPDATE SET value = excluded.value, updated_at = pg_catalog.clock_timestamp()"#;
    const REMOVE: &str = "DELETE FROM keywright.postgrest_settings WHERE service = $1 AND key = $2";
    const HINT: &str = "See docs.postgrest.org, Configuration; null removes a setting.";
    let service = faults.sift(args::required("service", service));
    let Some((wanted, mut sentences)) = wanted else { return Err(faults.into()) };
    let found = service.map(service_of);
    let before = match &found {
        Some(Ok(desired)) => stored(&desired.service),
        _ => BTreeMap::new(),
    };
    let checked = postgrest::check(&wanted, &before).unwrap_or_else(|wrong| {
        sentences.extend(wrong);
        Settings::new()
    });
    let path = wanted.get("db_extra_search_path").cloned().flatten();
    let path = path.map(|path| BTreeMap::from([("db_extra_search_path".to_owned(), path)]));
    for schema in authenticator::missing_of_search_path(&path.unwrap_or_default()) {
        sentences.push(format!("db_extra_search_path: Schema {} does not exist.", quoted(schema.as_bytes())));
    }
    if !sentences.is_empty() {
        faults.push(Fault { argument, sentences, hint: HINT.into(), is_name: false });
    }
    let Some(found) = found.filter(|_| faults.is_empty()) else { return Err(faults.into()) };
    let desired = found?;
    let service = desired.service.as_str();
    if differences(&checked, &before).is_empty() {
        return Ok(Vec::new());
    }
    // One writer of a service at a time.
    if spi::write(HOLD, &[service.into()], |_| ()).is_empty() {
        return Err(Failure::NoAuthenticator { service: service.to_owned() });
    }
    let changes = differences(&checked, &stored(service));
    require_unseen(&desired, &changes)?;
    for (key, _) in &changes {
        match checked[key].as_deref() {
            Some(value) => spi::count(STORE, &[service.into(), key.as_str().into(), value.into()]),
            None => spi::count(REMOVE, &[service.into(), key.as_str().into()]),
        };
    }
    if !changes.is_empty() {
        authenticator::notify(checked.contains_key("db_extra_search_path"));
    }
    Ok(changes)
}

/// PostgREST sees a setting that a session has shown it, and that is gone, as empty: with an empty db-pre-request the hook is off,
/// whatever the file says. So it is removed while there is no such session.
fn require_unseen(desired: &Desired, changes: &[(String, &'static str)]) -> Result<(), Failure<'static>> {
    const SESSIONS: &str = r#"
        SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity AS a
         WHERE a.usesysid = $1 AND a.datname = pg_catalog.current_database()"#;
    let removed = |(key, outcome): &&(String, &'static str)| {
        *outcome == "removed" && postgrest::is_in_database(key) && !postgrest::has_default(key)
    };
    let keys: Vec<String> = changes.iter().filter(removed).map(|(key, _)| key.clone()).collect();
    let Some(login) = authenticator::login_of(desired).filter(|_| !keys.is_empty()) else { return Ok(()) };
    let sessions: i64 =
        spi::read(SESSIONS, &[pg_sys::Oid::from(login).into()], |row| row.must(1)).pop().unwrap_or_default();
    match sessions {
        0 => Ok(()),
        _ => Err(Failure::SettingShown { keys, role: desired.connect_as.clone(), sessions }),
    }
}

fn differences(checked: &Settings, stored: &BTreeMap<String, String>) -> Vec<(String, &'static str)> {
    checked
        .iter()
        .filter_map(|(key, value)| {
            let outcome = match (value, stored.get(key)) {
                (Some(value), Some(old)) if value == old => return None,
                (None, None) => return None,
                (Some(_), None) => "created",
                (Some(_), Some(_)) => "updated",
                (None, Some(_)) => "removed",
            };
            Some((key.clone(), outcome))
        })
        .collect()
}

/// The settings of a service. What this database can not read, because it came from another, is none.
pub fn stored(service: &str) -> BTreeMap<String, String> {
    const STORED: &str = "SELECT key, value FROM keywright.postgrest_settings WHERE service = $1";
    let text = |bytes: Vec<u8>| args::name(&bytes).map(str::to_owned);
    spi::read(STORED, &[service.into()], |row| Some((text(row.must(1))?, text(row.must(2))?)))
        .into_iter()
        .flatten()
        .collect()
}

fn service_of(service: &[u8]) -> Result<Desired, Failure<'static>> {
    let found = str::from_utf8(service).ok().and_then(authenticator::find_service);
    found.ok_or_else(|| Failure::NoAuthenticator { service: String::from_utf8_lossy(service).into_owned() })
}

/// What this session has shown PostgREST, and as which login.
static SHOWN: Own<RefCell<(u32, BTreeMap<String, String>)>> = Own::new(RefCell::new((0, BTreeMap::new())));

#[pg_extern(sql = false)]
fn postgrest_config() -> Result<(), ErrorReport> {
    const SET: &str = "SELECT pg_catalog.set_config('pgrst.' || $1, $2, true)";
    // SAFETY: looks at the session's own state.
    let login = unsafe { pg_sys::GetSessionUserId() }.to_u32();
    let mut served = authenticator::served_by(login)?;
    let named = crate::settings::service();
    if let Some(at) = served.iter().position(|(desired, _)| Some(&desired.service) == named.as_ref()) {
        served.swap(0, at);
    }
    let values = match served.first() {
        Some((desired, anon_role)) => {
            postgrest::in_database(&stored(&desired.service), anon_role.as_deref(), &desired.schemas)
        }
        None => BTreeMap::new(),
    };
    // What was shown and is gone would be empty, which PostgREST prefers to its file: then the hook is off. It stays as it was
    // while the session lasts.
    let (earlier, mut shown) = SHOWN.take();
    if earlier != login {
        shown.clear();
    }
    shown.extend(values);
    for (key, value) in &shown {
        spi::read_once(SET, &[key.as_str().into(), value.as_str().into()], |_| ());
    }
    SHOWN.set((login, shown));
    Ok(())
}

#[pg_extern(sql = false)]
fn render_postgrest_config(
    service: Option<&[u8]>,
    hosts: Option<Array<&[u8]>>,
    password: Option<&[u8]>,
    jwt_secret: Option<&[u8]>,
    target_session_attrs: Option<&[u8]>,
    parameters: Option<AnyElement>,
) -> Result<String, ErrorReport> {
    const MAY: &str = r#"
        SELECT FROM pg_catalog.pg_roles AS r
         WHERE r.rolname = $1
           AND pg_catalog.has_schema_privilege(r.oid, 'keywright', 'USAGE')
           AND pg_catalog.has_function_privilege(r.oid, 'keywright.postgrest_config()', 'EXECUTE')"#;
    let mut faults = Faults::default();
    let service = faults.sift(args::required("service", service));
    let found = service.map(service_of);
    let hosts = faults.sift(authenticator::list("hosts", &hosts));
    let password = faults.sift(secret("password", password)).flatten();
    let jwt_secret = faults.sift(secret("jwt_secret", jwt_secret)).flatten();
    let target = faults.sift(args::text("target_session_attrs", target_session_attrs));
    let parameters =
        faults.sift(args::required("parameters", parameters).and_then(|it| object_of("parameters", it)));
    let (parameters, wrong) = parameters.unwrap_or_default();
    let mut connection = Connection {
        user: String::new(),
        database: authenticator::database()?,
        // Something right stands for what was found wrong above.
        hosts: hosts.unwrap_or_else(|| vec!["localhost".to_owned()]),
        target_session_attrs: target.unwrap_or("any").to_owned(),
        parameters: parameters.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
    };
    let mut sentences: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let wrong = wrong.into_iter().map(|sentence| ("parameters", sentence));
    for (argument, sentence) in wrong.chain(connection.faults()) {
        sentences.entry(argument).or_default().push(sentence);
    }
    for (argument, sentences) in sentences {
        let hint = if argument == "parameters" { OBJECT } else { "" };
        faults.push(Fault { argument, sentences, hint: hint.into(), is_name: false });
    }
    let settings = match &found {
        Some(Ok(desired)) => stored(&desired.service),
        _ => BTreeMap::new(),
    };
    let is_base64 = settings.get("jwt_secret_is_base64").is_some_and(|value| value == "true");
    if let Some(sentence) = jwt_secret.and_then(|secret| postgrest::secret_fault(secret, is_base64)) {
        faults.push(Fault::new("jwt_secret", sentence, "RFC 7518 wants as many bits as the hash has."));
    }
    if password.is_some_and(str::is_empty) {
        faults.push(Fault::new("password", "It is empty.", "Null leaves it out."));
    }
    let Some(found) = found.filter(|_| faults.is_empty()) else {
        return Err(Failure::from(faults).into());
    };
    let desired = found?;
    let names = authenticator::current_names(&desired)?;
    connection.user = names[&desired.connect_as].clone();
    if authenticator::shares_its_login(&desired)? {
        let options = format!("-c keywright.service={}", desired.service);
        connection
            .parameters
            .entry("options".into())
            .and_modify(|given| *given = format!("{given} {options}"))
            .or_insert(options);
    }
    let may_read = !spi::read(MAY, &[connection.user.as_str().into()], |_| ()).is_empty();
    let text = postgrest::render(
        &connection,
        password,
        jwt_secret,
        desired.anon_role.as_ref().map(|name| names[name].as_str()),
        &desired.schemas,
        may_read.then_some(PRE_CONFIG),
        &settings,
    );
    Ok(text.as_str().to_owned())
}

/// A secret as text; a fault never repeats it.
fn secret<'a>(argument: &'static str, value: Option<&'a [u8]>) -> Result<Option<&'a str>, Fault> {
    value.map(|value| args::text(argument, Some(value))).transpose()
}
