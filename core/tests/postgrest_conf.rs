//! What is rendered is read back to the same values, by a reader of its own that follows the grammar of PostgREST's
//! configuration file: strings in double quotes with escapes, interpolated afterwards.

use keywright_core::postgrest::{Connection, check, render};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The value of a line, or nothing when PostgREST would refuse it.
fn read(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once(" = ")?;
    let right =
        key.split('-').all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric()));
    if !right || !key.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let Some(inner) = value.strip_prefix('"') else {
        let plain = ["true", "false"].contains(&value) || value.bytes().all(|b| b.is_ascii_digit());
        return plain.then(|| (key.to_owned(), value.to_owned()));
    };
    Some((key.to_owned(), interpolated(&unescaped(inner)?)?))
}

/// Up to the closing quote, which must be the end.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                c @ ('"' | '\\') => out.push(c),
                'u' => {
                    let code: String = chars.by_ref().take(4).collect();
                    out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                _ => return None,
            },
            c => out.push(c),
        }
    }
}

/// Nothing we write may be looked up: only doubled dollar signs are right.
fn interpolated(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '$' && chars.next() != Some('$') {
            return None;
        }
        out.push(c);
    }
    Some(out)
}

/// As libpq reads a part of a URI.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let hex = [rest.next()?, rest.next()?];
                u8::from_str_radix(str::from_utf8(&hex).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn connection(user: &str, database: &str, value: &str) -> Connection {
    Connection {
        user: user.into(),
        database: database.into(),
        hosts: vec!["db1:5432".into(), "[::1]:5433".into(), "/run/my sockets".into(), "db2".into()],
        target_session_attrs: "primary".into(),
        parameters: BTreeMap::from([("application_name".into(), value.into())]),
    }
}

/// Text as people choose it, and as an attacker would.
fn nasty() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\\PC$\"\\\\@/ :?#%&=(){}\n\t\r\u{1}\u{7f}]{0,40}",
        any::<String>().prop_map(|text| text.replace('\0', "")),
        proptest::sample::select(vec![
            "$",
            "$$",
            "$(HOME)",
            "${x}",
            "\\u0024(HOME)",
            "\"\nadmin-server-port = 1\n\"",
            "#;",
            "p@ss$w\"ord\\"
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn everything_is_read_back(user in nasty(), database in nasty(), password in nasty(), secret in nasty(), role in nasty(), schema in nasty(), value in nasty()) {
        let settings = BTreeMap::from([("jwt_aud".to_owned(), value.clone()), ("db_pool".to_owned(), "7".to_owned())]);
        let connection = connection(&user, &database, &value);
        prop_assert!(connection.faults().is_empty());
        let text = render(&connection, Some(&password), Some(&secret), Some(&role), std::slice::from_ref(&schema), Some("keywright.postgrest_config"), &settings);
        let read: BTreeMap<String, String> = text.split_terminator('\n').filter(|line| !line.starts_with('#')).map(|line| read(line).expect(line)).collect();
        prop_assert_eq!(&read["jwt-secret"], &secret);
        prop_assert_eq!(&read["db-anon-role"], &role);
        prop_assert_eq!(&read["db-schemas"], &schema);
        prop_assert_eq!(&read["jwt-aud"], &value);
        prop_assert_eq!(&read["db-pool"], "7");
        prop_assert_eq!(&read["db-max-rows"], "1000");
        prop_assert_eq!(read.len(), 8);

        let uri = read["db-uri"].strip_prefix("postgresql://").unwrap();
        let (login, rest) = uri.split_once('@').unwrap();
        let (name, secret) = login.split_once(':').unwrap();
        prop_assert_eq!(decoded(name), Some(user));
        prop_assert_eq!(decoded(secret), Some(password));
        let (hosts, rest) = rest.split_once('/').unwrap();
        prop_assert_eq!(hosts, "db1:5432,[::1]:5433,%2Frun%2Fmy%20sockets,db2");
        let (name, parameters) = rest.split_once('?').unwrap();
        prop_assert_eq!(decoded(name), Some(database));
        let (attrs, application) = parameters.split_once('&').unwrap();
        prop_assert_eq!(attrs, "target_session_attrs=primary");
        prop_assert_eq!(decoded(application.strip_prefix("application_name=").unwrap()), Some(value));
    }

    #[test]
    fn what_is_checked_is_checked_again_to_the_same(key in "[a-z_]{1,30}", value in nasty()) {
        if let Ok(checked) = check(&BTreeMap::from([(key, Some(value))]), &BTreeMap::new()) {
            prop_assert_eq!(check(&checked, &BTreeMap::new()), Ok(checked));
        }
    }
}

#[test]
fn without_secrets_there_are_none() {
    let text = render(
        &connection("app", "shop", "x"),
        None,
        None,
        Some("anon"),
        &["api".into()],
        None,
        &BTreeMap::new(),
    );
    assert!(text.starts_with("db-uri = \"postgresql://app@db1:5432,"));
    assert!(!text.contains("jwt-secret") && !text.contains("db-pre-config"));
}

#[test]
fn hosts() {
    for (host, right) in [
        ("db", true),
        ("db.example.org:1", true),
        ("10.0.0.1:65535", true),
        ("[2001:db8::1]", true),
        ("/run/postgresql", true),
        ("", false),
        ("db:", false),
        ("db:0", false),
        ("db:65536", false),
        ("db:+1", false),
        ("db, other", false),
        ("user@db", false),
        ("::1", false),
        ("[::1", false),
        ("[::1]x", false),
        ("[db]", false),
    ] {
        let hosts = vec![host.to_owned()];
        assert_eq!(Connection { hosts, ..connection("u", "d", "x") }.faults().is_empty(), right, "{host}");
    }
}
