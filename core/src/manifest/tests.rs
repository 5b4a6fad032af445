use super::*;
use crate::duration::Duration;
use crate::registry::Registry;
use crate::resource::Resource as On;
use crate::secret::Secret;
use proptest::prelude::*;
use serde_json::{Value, json};

const TOKEN: &str = "kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH";

fn example() -> Value {
    json!({
        "manager": "control-plane-a", "prune": false, "adopt": false,
        "resource_types": [{"type": "workspace", "parent_type": "project"}],
        "resources": [
            {"type": "organization", "id": "acme"},
            {"type": "project", "id": "p1", "parent_id": "acme"},
        ],
        "roles": [{"name": "deployer", "permissions": ["project:read", "workspace:*"], "level": 2}],
        "scopes": [{"name": "coder:all", "permissions": ["*:*"]}],
        "users": [{"username": "ci-bot", "kind": "service", "email": "", "db_role": null}],
        "bindings": [
            {"username": "ci-bot", "role": "deployer", "resource_type": "project", "resource_id": "p1"},
        ],
        "api_keys": [{
            "username": "ci-bot", "name": "ci", "scopes": ["project:read"],
            "allow_list": ["project:p1"], "lifetime": "30 days",
        }],
        "gateway_keys": [{"name": "edge-1"}],
        "authenticators": [{
            "service": "rest", "connect_as": "app", "anon_role": "web_anon", "jwt_roles": [], "schemas": ["api"],
        }],
    })
}

/// Every key there is.
fn full() -> Value {
    json!({
        "manager": "m", "prune": true, "adopt": true,
        "resource_types": [{"type": "workspace", "parent_type": "workspace"}, {"type": "box", "parent_type": null}],
        "resources": [{"type": "workspace", "id": "w:1", "parent_id": "w0", "name": "Zoë's"}],
        "roles": [{"name": "deployer", "permissions": ["project:read"], "level": 0}],
        "scopes": [{"name": "ci:deploy", "permissions": ["project:read"]}],
        "users": [
            {"username": "ann", "kind": "human", "email": "a@b", "display_name": "Ann", "db_role": "ann"},
            {"username": "sys", "kind": "system", "roles": ["auditor"], "organization_role": "deployer"},
        ],
        "bindings": [
            {"username": "ann", "role": "auditor", "resource_type": "workspace", "resource_id": "w:1"},
            {"username": "ann", "role": "auditor", "resource_type": null, "resource_id": null},
        ],
        "api_keys": [{
            "username": "ann", "name": "k", "scopes": ["all"], "allow_list": ["*:*"], "lifetime": "2 weeks",
            "renew_before": "3 days", "existing_token": TOKEN,
        }],
        "gateway_keys": [{"name": "g", "existing_token": null}],
        "authenticators": [{
            "service": "rest", "connect_as": "app", "anon_role": "anon", "jwt_roles": ["user"],
            "schemas": ["api"], "noinherit": false,
        }],
    })
}

fn parse(document: &Value) -> Result<Manifest, Vec<Fault>> {
    read(document.to_string().as_bytes(), interval)
}

/// Of the intervals of Postgres a few.
pub fn interval(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = text.split_once(' ').ok_or("It must be an interval.")?;
    let number = number.parse().map_err(|_| "It must be an interval.")?;
    match unit.trim_end_matches('s') {
        "year" => Duration::new(number * 12, 0, 0),
        "month" => Duration::new(number, 0, 0),
        "week" => Duration::new(0, number * 7, 0),
        "day" => Duration::new(0, number, 0),
        "second" => Duration::new(0, 0, i64::from(number) * 1_000_000),
        _ => Err("It must be an interval."),
    }
}

/// Faults as `path: sentence`.
fn faults(document: &Value) -> Vec<String> {
    lines(parse(document).unwrap_err())
}

fn lines(faults: Vec<Fault>) -> Vec<String> {
    faults.into_iter().map(|fault| format!("{}: {}", fault.path, fault.sentence)).collect()
}

/// The faults of a manifest with one section.
fn faults_in(section: &str, entries: Value) -> Vec<String> {
    faults(&json!({"manager": "m", section: entries}))
}

#[test]
fn the_example_is_read() {
    let manifest = parse(&example()).unwrap();
    assert_eq!(manifest.manager, "control-plane-a");
    assert_eq!(manifest.resource_types[0].parent_type.as_deref(), Some("project"));
    assert_eq!(manifest.resources[0].parent_id, None);
    assert_eq!(manifest.resources[1].parent_id.as_deref(), Some("acme"));
    assert_eq!(manifest.roles[0].level, 2);
    let user = &manifest.users[0];
    assert_eq!((user.kind, user.email.as_deref()), (UserKind::Service, Some("")));
    assert_eq!((user.db_role.as_deref(), user.display_name.as_deref()), (Some(""), None));
    assert_eq!(manifest.bindings[0].resource, Some(On { kind: "project".into(), id: "p1".into() }));
    assert_eq!(manifest.api_keys[0].lifetime, Duration::of_days(30));
    assert_eq!(manifest.authenticators[0].schemas, ["api"]);
}

#[test]
fn what_is_absent_has_a_default() {
    let manifest = parse(&json!({
        "manager": "m",
        "roles": [{"name": "r", "permissions": ["a:b"]}],
        "bindings": [{"username": "a", "role": "r"}],
        "api_keys": [{"username": "a", "name": "k"}],
        "gateway_keys": [{"name": "g"}],
        "authenticators": [{"service": "s", "connect_as": "c", "anon_role": "a"}],
    }))
    .unwrap();
    assert!(!manifest.prune && !manifest.adopt && manifest.users.is_empty());
    assert_eq!(manifest.roles[0].level, 3);
    assert_eq!(manifest.bindings[0].resource, None);
    let key = &manifest.api_keys[0];
    assert_eq!((key.scopes[0].as_str(), key.allow_list[0].as_str()), ("all", "*:*"));
    assert_eq!(key.lifetime.to_string(), "90 days");
    assert_eq!((key.renew_before, &key.existing_token), (None, &None));
    assert_eq!(manifest.gateway_keys[0].existing_token, None);
    let service = &manifest.authenticators[0];
    assert!(service.noinherit && service.jwt_roles.is_empty());
    assert_eq!(service.schemas, ["public"]);
}

#[test]
fn a_token_that_is_held_is_kept_and_never_shown() {
    let manifest = parse(&full()).unwrap();
    let held = manifest.api_keys[0].existing_token.clone();
    assert_eq!(held, Some(Held::Token(Secret::new(TOKEN.into()))));
    assert_ne!(held, Some(Held::Token(Secret::new("other".into()))));
    assert_eq!(manifest.gateway_keys[0].existing_token, Some(Held::Nothing));
    assert!(!format!("{manifest:?}").contains("0123456789"));
    let empty = parse(&json!({"manager": "m", "gateway_keys": [{"name": "g", "existing_token": ""}]}));
    assert_eq!(empty.unwrap().gateway_keys[0].existing_token, Some(Held::Nothing));
}

#[test]
fn the_document() {
    assert_eq!(
        lines(read(b"{\"a\"\n:}", interval).unwrap_err()),
        ["$: It is not JSON: see line 2, column 2."]
    );
    assert_eq!(lines(read(&b"[".repeat(5000), interval).unwrap_err()), ["$: It is nested too deeply."]);
    assert_eq!(
        lines(read(b"{\"a\": 1e400}", interval).unwrap_err()),
        ["$: It holds a number that is out of range."]
    );
    assert_eq!(lines(read(b"{} {}", interval).unwrap_err()), ["$: It is not JSON: see line 1, column 4."]);
    assert!(
        read(b"\xff", interval).is_err()
            && read(b"", interval).is_err()
            && read(&b"[".repeat(100_000), interval).is_err()
    );
    assert_eq!(faults(&json!([])), ["$: It is a list, it must be an object."]);
    assert_eq!(faults(&json!({})), ["$.manager: It is missing."]);
    assert_eq!(
        faults(&json!({"manager": "a b", "prune": null, "users": {}, "roles": null})),
        [
            "$.manager: It has other characters than printable ASCII. Give 1 to 63 printable ASCII characters without spaces.",
            "$.prune: It is null, it must be true or false.",
            "$.roles: It is null, it must be a list.",
            "$.users: It is an object, it must be a list.",
        ]
    );
    let many = vec![json!({"name": "g"}); MOST_DEFINITIONS + 1];
    assert_eq!(
        faults_in("gateway_keys", many.into()),
        ["$.gateway_keys: It has 1001 entries, at most 1000 are allowed."]
    );
}

#[test]
fn unknown_keys() {
    assert_eq!(
        faults(
            &json!({"manager": "m", "user": [], "odd key": 1, "kwk_x": 1, "bindings": [{"username": "a", "rôle": "r", "role": "r"}]})
        ),
        [
            "$.bindings[0][\"r?le\"]: There is no such key. Did you mean \"role\"?",
            "$[\"[redacted]\"]: There is no such key.",
            "$[\"odd key\"]: There is no such key.",
            "$.user: There is no such key. Did you mean \"users\"?",
        ]
    );
    assert_eq!(faults(&json!({"manager": "m", "a".repeat(1 << 20): 1})).len(), 1);
}

#[test]
fn resource_types_and_resources() {
    assert_eq!(
        faults(&json!({
            "manager": "m",
            "resource_types": [
                {"type": "A"}, {"type": "box", "parent_type": ""}, {"parent_type": 1}, "box", {"type": "box"},
            ],
            "resources": [
                {"type": "box", "id": "b", "parent_id": "", "name": null},
                {"type": "box", "id": "b"},
                {"type": "box", "id": "a b", "parent_id": "*", "name": "a\nb"},
                {"type": "box", "id": "B", "name": TOKEN},
            ],
        })),
        [
            "$.resource_types[0].type: A word is a lower case letter and at most 62 lower case letters, digits, dots, dashes and underscores. Use a word such as \"workspace\".",
            "$.resource_types[1].parent_type: A word is a lower case letter and at most 62 lower case letters, digits, dots, dashes and underscores. Use a word such as \"workspace\".",
            "$.resource_types[2].type: It is missing.",
            "$.resource_types[2].parent_type: It is a number, it must be text.",
            "$.resource_types[3]: It is text, it must be an object.",
            "$.resource_types[4]: It is given already, at $.resource_types[1].",
            "$.resources[1]: It is given already, at $.resources[0].",
            "$.resources[2].id: An id has 1 to 255 bytes, without white space, control characters and asterisks. Use the application's own id, such as a uuid or a number.",
            "$.resources[2].parent_id: An id has 1 to 255 bytes, without white space, control characters and asterisks. Use the application's own id, such as a uuid or a number.",
            "$.resources[2].name: It has control characters. Give at most 128 bytes of plain text.",
            "$.resources[3].name: It holds what may be a token. Give at most 128 bytes of plain text.",
        ]
    );
}

#[test]
fn roles_and_scopes() {
    assert_eq!(
        faults(&json!({
            "manager": "m",
            "roles": [
                {"name": "My_Role", "permissions": []},
                {"name": "r", "permissions": vec!["a:b"; 129], "level": 10},
                {"name": "r", "permissions": ["a:b", 1, null], "level": 1.5},
                {"name": "s", "permissions": "a:b", "level": "1"},
                {"name": "t", "level": -1},
            ],
            "scopes": [{"name": "a:b", "permissions": ["c:d"]}, {"name": "a:b", "permissions": ["c:d"]}],
        })),
        [
            "$.roles[0].name: It has upper case letters. It has other characters than letters, digits and dashes. Use 1 to 64 lower case letters and digits, in groups joined by single dashes: \"ci-deploy\".",
            "$.roles[0].permissions: It is empty, it must have an entry.",
            "$.roles[1].permissions: It has 129 entries, at most 128 are allowed.",
            "$.roles[1].level: It must be a whole number from 0 to 9.",
            "$.roles[2].permissions[1]: It is a number, it must be text.",
            "$.roles[2].permissions[2]: It is null, it must be text.",
            "$.roles[2].level: It must be a whole number from 0 to 9.",
            "$.roles[2]: It is given already, at $.roles[1].",
            "$.roles[3].permissions: It is text, it must be a list.",
            "$.roles[3].level: It is text, it must be a whole number from 0 to 9.",
            "$.roles[4].permissions: It is missing.",
            "$.roles[4].level: It must be a whole number from 0 to 9.",
            "$.scopes[1]: It is given already, at $.scopes[0].",
        ]
    );
    let whole = json!({"manager": "m", "roles": [{"name": "r", "permissions": ["a:b"], "level": 2.0}]});
    assert_eq!(parse(&whole).unwrap().roles[0].level, 2);
}

#[test]
fn users() {
    assert_eq!(
        faults_in(
            "users",
            json!([
                {"username": "ann", "kind": "human", "email": "ann", "db_role": "a".repeat(64)},
                {"username": "ann", "kind": "robot", "email": 1, "roles": [], "db_role": "a\0b"},
                {"username": "b", "kind": "service", "roles": ["R"], "organization_role": ""},
                {"username": "c", "kind": "system", "roles": ["r", "R"], "organization_role": "a_b", "db_role": null},
                {"kind": null},
                {"username": TOKEN, "kind": "human"},
                {"username": "Bob", "kind": "human"},
            ])
        ),
        [
            "$.users[0].email: It is not of the form name@domain. Give an address such as name@example.org, or an empty text for none.",
            "$.users[0].db_role: It is 64 bytes long, at most 63 are allowed.",
            "$.users[1].kind: It must be human, service or system.",
            "$.users[1].email: It is a number, it must be text.",
            "$.users[1].db_role: It holds a NUL character.",
            "$.users[1]: It is given already, at $.users[0].",
            "$.users[2].roles: Only a system user has them here; see bindings.",
            "$.users[2].organization_role: Only a system user has one.",
            "$.users[2].roles[0]: It has upper case letters. Use 1 to 64 lower case letters and digits, in groups joined by single dashes: \"ci-deploy\".",
            "$.users[3].db_role: A system user has none.",
            "$.users[3].roles[1]: It has upper case letters. Use 1 to 64 lower case letters and digits, in groups joined by single dashes: \"ci-deploy\".",
            "$.users[3].organization_role: It has other characters than letters, digits and dashes. Use 1 to 64 lower case letters and digits, in groups joined by single dashes: \"ci-deploy\".",
            "$.users[4].username: It is missing.",
            "$.users[4].kind: It is null, it must be text.",
            "$.users[5].username: It has upper case letters. Use 1 to 64 lower case letters and digits, in groups joined by one dash, underscore or dot: \"ada.lovelace\", or a uuid.",
            "$.users[6].username: It has upper case letters. Use 1 to 64 lower case letters and digits, in groups joined by one dash, underscore or dot: \"ada.lovelace\", or a uuid.",
        ]
    );
}

#[test]
fn bindings() {
    assert_eq!(
        faults_in(
            "bindings",
            json!([
                {"username": "a", "role": "r"},
                {"username": "a", "role": "r", "resource_type": "box", "resource_id": "b"},
                {"username": "a", "role": "r", "resource_type": null, "resource_id": null},
                {"username": "a", "role": "r", "resource_type": "box", "resource_id": "b"},
                {"username": "a", "role": "r", "resource_type": "box"},
                {"username": "a", "role": "r", "resource_type": null, "resource_id": "b"},
                {"username": "a", "role": "r", "resource_type": "", "resource_id": "b"},
                {"username": "a", "role": "r", "resource_type": "box", "resource_id": "B"},
            ])
        ),
        [
            "$.bindings[2]: It is given already, at $.bindings[0].",
            "$.bindings[3]: It is given already, at $.bindings[1].",
            "$.bindings[4]: resource_id is missing: resource_type and resource_id go together.",
            "$.bindings[5]: resource_type is missing: resource_type and resource_id go together.",
            "$.bindings[6].resource_type: A word is a lower case letter and at most 62 lower case letters, digits, dots, dashes and underscores. Use a word such as \"workspace\".",
        ]
    );
}

#[test]
fn keys() {
    let key = |more: Value| {
        let mut key = json!({"username": "a", "name": "k"});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        faults_in("api_keys", json!([key])).join("\n")
    };
    assert_eq!(key(json!({"scopes": []})), "$.api_keys[0].scopes: It is empty, it must have an entry.");
    assert_eq!(
        key(json!({"scopes": ["a:b", "c:d", true]})),
        "$.api_keys[0].scopes[2]: It is a boolean, it must be text."
    );
    assert_eq!(key(json!({"allow_list": null})), "$.api_keys[0].allow_list: It is null, it must be a list.");
    for lifetime in ["0 days", "59 seconds"] {
        assert_eq!(
            key(json!({"lifetime": lifetime})),
            "$.api_keys[0].lifetime: It must be at least 1 minute. A number without a unit is seconds: write '90 days' for days."
        );
    }
    assert_eq!(
        key(json!({"lifetime": "102 years"})),
        "$.api_keys[0].lifetime: It must be at most 100 years."
    );
    assert_eq!(key(json!({"lifetime": "-1 days"})), "$.api_keys[0].lifetime: No part of it may be negative.");
    assert_eq!(
        key(json!({"lifetime": "soon", "renew_before": "1 day"})),
        "$.api_keys[0].lifetime: It must be an interval."
    );
    assert_eq!(
        key(json!({"renew_before": "90 days"})),
        "$.api_keys[0].renew_before: It must be shorter than lifetime."
    );
    assert_eq!(
        key(json!({"lifetime": "1 month", "renew_before": "28 days"})),
        "$.api_keys[0].renew_before: It must be shorter than lifetime."
    );
    assert_eq!(
        key(json!({"existing_token": [TOKEN]})),
        "$.api_keys[0].existing_token: It is a list, it must be text or null."
    );
    assert_eq!(
        faults(&json!({
            "manager": "m",
            "api_keys": [
                {"username": "a", "name": "k"}, {"username": "a", "name": "l"}, {"username": "a", "name": "k"},
            ],
            "gateway_keys": [{"name": "g"}, {"name": ""}, {"name": ""}, {"name": "g", "existing_token": 1}],
        })),
        [
            "$.api_keys[2]: It is given already, at $.api_keys[0].",
            "$.gateway_keys[1].name: It is empty. Use 1 to 64 lower case letters and digits, in groups joined by single dashes: \"ci-deploy\".",
            "$.gateway_keys[2].name: It is empty. Use 1 to 64 lower case letters and digits, in groups joined by single dashes: \"ci-deploy\".",
            "$.gateway_keys[3].existing_token: It is a number, it must be text or null.",
            "$.gateway_keys[3]: It is given already, at $.gateway_keys[0].",
        ]
    );
    for fine in ["100 years", "60 seconds"] {
        let keys = json!([{"username": "a", "name": "k", "lifetime": fine, "renew_before": "0 days"}]);
        assert!(parse(&json!({"manager": "m", "api_keys": keys})).is_ok(), "{fine}");
    }
}

#[test]
fn authenticators() {
    assert_eq!(
        faults_in(
            "authenticators",
            json!([
                {"service": "a", "connect_as": "", "anon_role": "b", "jwt_roles": ["x", ""], "schemas": []},
                {"service": "a", "anon_role": "b", "noinherit": 0},
            ])
        ),
        [
            "$.authenticators[0].connect_as: It is empty.",
            "$.authenticators[0].jwt_roles[1]: It is empty.",
            "$.authenticators[0].schemas: It is empty, it must have an entry.",
            "$.authenticators[1].connect_as: It is missing.",
            "$.authenticators[1].noinherit: It is a number, it must be true or false.",
            "$.authenticators[1]: It is given already, at $.authenticators[0].",
        ]
    );
}

fn registry() -> Registry {
    Registry::new(["organization", "project"].map(String::from), ["all", "ci:deploy"].map(String::from))
}

#[test]
fn lists_have_one_spelling() {
    let mut document = example();
    document["roles"][0]["permissions"] = json!(["Workspace:*", "project:read", " workspace:read"]);
    document["api_keys"] = json!([
        {"username": "a", "name": "a", "scopes": ["Coder:all", "CI:deploy", "workspace:read"]},
        {"username": "a", "name": "b", "allow_list": ["workspace:w1", "Workspace:*"]},
    ]);
    let mut manifest = parse(&document).unwrap();
    assert_eq!(manifest.normalize(&registry()), []);
    assert_eq!(manifest.roles[0].permissions, ["project:read", "workspace:*"]);
    assert_eq!(manifest.api_keys[0].scopes, ["ci:deploy", "coder:all", "workspace:read"]);
    assert_eq!(manifest.api_keys[0].allow_list, ["*:*"]);
    assert_eq!(manifest.api_keys[1].scopes, ["all"]);
    assert_eq!(manifest.api_keys[1].allow_list, ["workspace:*"]);
    let before = manifest.clone();
    assert_eq!(manifest.normalize(&registry()), []);
    assert_eq!(manifest, before);
}

#[test]
fn what_is_not_registered() {
    let mut manifest = parse(&json!({
        "manager": "m",
        "roles": [{"name": "r", "permissions": ["projet:read", "x"]}],
        "scopes": [{"name": "s", "permissions": [TOKEN]}],
        "api_keys": [
            {"username": "a", "name": "a"},
            {"username": "a", "name": "b", "scopes": ["z"], "allow_list": ["boat:b"]},
            {"username": "a", "name": "c", "scopes": ["z"], "allow_list": ["a"]},
        ],
    }))
    .unwrap();
    assert_eq!(
        lines(manifest.normalize(&registry())),
        [
            "$.roles[0].permissions: \"projet\" is not a registered resource type. \"x\" is not of the form type:action. Did you mean \"project:read\"?",
            "$.scopes[0].permissions: Entry 1 holds what may be a token.",
            "$.api_keys[1].scopes: \"z\" is neither a registered scope nor of the form type:action. Did you mean \"s\"?",
            "$.api_keys[1].allow_list: \"boat\" is not a registered resource type.",
            "$.api_keys[2].scopes: \"z\" is neither a registered scope nor of the form type:action. Did you mean \"s\"?",
            "$.api_keys[2].allow_list: \"a\" is not of the form type:id.",
        ]
    );
}

#[test]
fn a_word_is_a_type_or_begins_a_scope() {
    let mut manifest = parse(&json!({
        "manager": "m",
        "resource_types": [{"type": "box"}, {"type": "ci"}, {"type": "coder"}],
        "scopes": [
            {"name": "project:all", "permissions": ["*:*"]},
            {"name": "coder:all", "permissions": ["*:*"]},
            {"name": "box", "permissions": ["*:*"]},
        ],
    }))
    .unwrap();
    assert_eq!(
        lines(manifest.normalize(&registry())),
        [
            "$.resource_types[1].type: The name of a scope begins with this word.",
            "$.resource_types[2].type: The name of a scope begins with this word.",
            "$.scopes[0].name: It reads as a permission, because its first word is a type of resource.",
            "$.scopes[1].name: It reads as a permission, because its first word is a type of resource.",
        ]
    );
}

/// KEYWRIGHT_WRITE_SCHEMA=1 writes the file.
#[test]
fn the_schema_is_published() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/manifest.schema.json");
    let generated = schema::publish();
    if std::env::var_os("KEYWRIGHT_WRITE_SCHEMA").is_some_and(|value| value == "1") {
        std::fs::write(path, &generated).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(published == generated, "run this test with KEYWRIGHT_WRITE_SCHEMA=1");
}

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&serde_json::from_str(&schema::publish()).unwrap()).unwrap()
}

#[test]
fn names_have_the_patterns_of_the_tables() {
    let sql = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/schema")).unwrap();
    let sql: String = sql.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let schema: Value = serde_json::from_str(&schema::publish()).unwrap();
    for (of, key) in [
        ("User", "username"),
        ("ApiKey", "name"),
        ("GatewayKey", "name"),
        ("Role", "name"),
        ("ResourceType", "type"),
        ("Scope", "name"),
        ("Authenticator", "service"),
    ] {
        let pattern = schema["$defs"][of]["properties"][key]["pattern"].as_str().unwrap();
        assert!(sql.contains(&format!(" '{pattern}'")), "{of}.{key}: {pattern}");
    }
}

/// Puts something else in the place of a value, or takes it away.
fn replace(document: &mut Value, pointer: &str, with: Option<Value>) {
    let (above, last) = pointer.rsplit_once('/').unwrap();
    match (document.pointer_mut(above), with) {
        (Some(Value::Object(members)), Some(value)) => _ = members.insert(last.into(), value),
        (Some(Value::Object(members)), None) => _ = members.remove(last),
        (Some(Value::Array(entries)), with) => {
            let at: usize = last.parse().unwrap();
            match with {
                Some(value) if at < entries.len() => entries[at] = value,
                None if at < entries.len() => _ = entries.remove(at),
                _ => (),
            }
        }
        _ => (),
    }
}

/// Pointers to everything below a value.
fn pointers(value: &Value, above: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(entries) => {
            entries.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect()
        }
        _ => return,
    };
    for (step, value) in below {
        let pointer = format!("{above}/{step}");
        found.push(pointer.clone());
        pointers(value, &pointer, found);
    }
}

#[test]
fn reader_and_schema_agree_on_structure() {
    let validator = validator();
    for document in [example(), full()] {
        assert!(parse(&document).is_ok() && validator.is_valid(&document));
        let mut places = Vec::new();
        pointers(&document, "", &mut places);
        for place in places {
            let shapes = [json!(null), json!(true), json!(1.5), json!([]), json!({}), json!({"x": 1})];
            for with in shapes.into_iter().map(Some).chain([None]) {
                let mut changed = document.clone();
                let is_object = document.pointer(&place).is_some_and(Value::is_object);
                match with {
                    // An unknown key.
                    Some(with) if is_object && with.is_number() => {
                        changed.pointer_mut(&place).unwrap()["x"] = with
                    }
                    with => replace(&mut changed, &place, with),
                }
                let read = parse(&changed);
                // The schema does not say that the two go together.
                let apart = place.ends_with("/resource_type") || place.ends_with("/resource_id");
                if !(apart && validator.is_valid(&changed)) {
                    assert_eq!(read.is_ok(), validator.is_valid(&changed), "{place}: {changed} {read:?}");
                }
            }
        }
    }
}

#[test]
fn reader_and_schema_know_the_same_keys() {
    let validator = validator();
    let schema: Value = serde_json::from_str(&schema::publish()).unwrap();
    let mut known = Vec::new();
    let mut asked = Vec::new();
    let full = full();
    for (section, value) in full.as_object().unwrap() {
        known.push(section.as_str());
        for entry in value.as_array().into_iter().flatten() {
            known.extend(entry.as_object().unwrap().keys().map(String::as_str));
        }
    }
    for definition in schema["$defs"].as_object().unwrap().values().chain([&schema]) {
        assert_eq!(definition["additionalProperties"], json!(false));
        asked.extend(definition["properties"].as_object().unwrap().keys().map(String::as_str));
    }
    known.sort_unstable();
    known.dedup();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(known, asked);
    assert!(validator.is_valid(&full));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..12).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,70}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-zA-Z0-9:_. @*\u{a0}\u{feff}\u{2003}\u{85}-]{0,6}".prop_map(Value::from),
        "[0-9]{1,3} (day|year|second)s?".prop_map(Value::from),
        proptest::sample::select(vec!["human", "system", "", "a", "a-b", "a:b", TOKEN]).prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("type|id|name|username|kind|role|x", inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        _ = read(&bytes, interval);
    }

    #[test]
    fn any_json_is_taken(section in "users|roles|api_keys|bindings|resources|x", value in any_json()) {
        _ = parse(&value);
        _ = parse(&json!({"manager": "m", section: [value]}));
    }

    #[test]
    fn what_the_reader_accepts_the_schema_accepts(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), proptest::option::of(any_json())), 1..4),
        whole in any::<bool>(),
    ) {
        thread_local!(static VALIDATOR: jsonschema::Validator = validator());
        let mut document = if whole { full() } else { example() };
        for (place, with) in changes {
            let mut places = Vec::new();
            pointers(&document, "", &mut places);
            if !places.is_empty() {
                replace(&mut document, place.get::<String>(&places), with);
            }
        }
        if let Ok(mut manifest) = parse(&document) {
            prop_assert!(VALIDATOR.with(|validator| validator.is_valid(&document)), "{}", document);
            _ = manifest.normalize(&registry());
        }
    }

    #[test]
    fn no_token_is_repeated(place in any::<proptest::sample::Index>()) {
        let mut document = full();
        let mut places = Vec::new();
        pointers(&document, "", &mut places);
        replace(&mut document, place.get::<String>(&places), Some(json!(TOKEN)));
        document["x"] = json!({TOKEN: TOKEN});
        document[TOKEN] = json!(TOKEN);
        prop_assert!(!faults(&document).join("\n").to_lowercase().contains("0123456789-abc"));
    }
}
