//! What has to be done, in which order, and what speaks against it.

use super::super::state::{
    ApiKey, Binding, Definition, KeyName, Owner, Place, ResourceType, State, User, Verdict,
};
use super::super::tests::interval;
use super::super::{Manifest, read, state};
use super::{Action, Kind, Refusal, Step, plan};
use crate::resource::{MOST_ANCESTORS, Resource};
use serde_json::{Value, json};

const MANAGER: &str = "m";

fn manifest(sections: Value) -> Manifest {
    let mut document = json!({"manager": MANAGER});
    for (key, value) in sections.as_object().unwrap() {
        document[key] = value.clone();
    }
    read(document.to_string().as_bytes(), interval).unwrap()
}

fn ours() -> Owner {
    by(MANAGER)
}

fn by(manager: &str) -> Owner {
    Owner { manager: Some(manager.into()), built_in: false }
}

fn resource(kind: &str, id: &str) -> Resource {
    Resource { kind: kind.into(), id: id.into() }
}

/// A project, its owner and a viewer, all of it this manager's.
fn project() -> State {
    let mut state = State::default();
    state.types.insert("project".into(), ResourceType { parent: None, owner: built_in() });
    for role in ["project-owner", "project-viewer"] {
        state.roles.insert(role.into(), Definition { owner: built_in(), ..Definition::default() });
    }
    add_resource(&mut state, "project", "p", None);
    for user in ["ann", "bo"] {
        add_user(&mut state, user, "human");
    }
    bind(&mut state, "ann", "project-owner", "p");
    bind(&mut state, "bo", "project-viewer", "p");
    state
}

fn built_in() -> Owner {
    Owner { manager: None, built_in: true }
}

fn add_user(state: &mut State, name: &str, kind: &str) {
    let user = User {
        id: format!("id of {name}"),
        username: name.into(),
        kind: kind.into(),
        active: true,
        owner: ours(),
        ..User::default()
    };
    state.users.insert(name.into(), user);
}

fn add_resource(state: &mut State, kind: &str, id: &str, parent: Option<(&str, &str)>) {
    let (parent_type, parent_id) = parent.unwrap_or_default();
    let found = state::Resource {
        parent_type: parent_type.into(),
        parent_id: parent_id.into(),
        owner: ours(),
        ..state::Resource::default()
    };
    state.resources.insert(resource(kind, id), found);
    if let Some((kind_above, id_above)) = parent {
        state.children.push((resource(kind_above, id_above), resource(kind, id)));
    }
}

fn bind(state: &mut State, user: &str, role: &str, project: &str) {
    let binding =
        Binding { id: format!("{user} {role}"), username: user.into(), standing: false, owner: ours() };
    state.bindings.insert(Place::new(user, role, Some(("project", project))), binding);
    if role == "project-owner" {
        let place = (role.to_owned(), resource("project", project));
        state.owners.entry(place).or_default().push((user.into(), true));
    }
}

fn lines(steps: &[Step]) -> Vec<String> {
    steps
        .iter()
        .map(|step| format!("{} {} {}", step.action.as_str(), step.kind.as_str(), step.name))
        .collect()
}

fn planned(sections: Value, state: &State) -> Vec<String> {
    lines(&plan(&manifest(sections), state).unwrap())
}

fn refused(sections: Value, state: &State) -> Vec<String> {
    let said = |refusal: Refusal| format!("{} {}", refusal.code, refusal.path);
    plan(&manifest(sections), state).unwrap_err().into_iter().map(said).collect()
}

#[test]
fn made_in_the_order_of_dependencies_and_pruned_in_the_opposite() {
    let whole = json!({
        "gateway_keys": [{"name": "g"}],
        "api_keys": [{"username": "u", "name": "k"}],
        "bindings": [{"username": "u", "role": "r", "resource_type": "b", "resource_id": "2"}],
        "users": [{"username": "u", "kind": "human"}],
        "resources": [{"type": "b", "id": "2", "parent_id": "1"}, {"type": "a", "id": "1"}],
        "roles": [{"name": "r", "permissions": ["a:x"]}],
        "scopes": [{"name": "s", "permissions": ["a:x"]}],
        "resource_types": [{"type": "b", "parent_type": "a"}, {"type": "a"}],
    });
    let made = [
        "create resource_type a",
        "create resource_type b",
        "create scope s",
        "create role r",
        "create resource a:1",
        "create resource b:2",
        "create user u",
        "create role_binding u r on b:2",
        "mint api_key u/k",
        "mint gateway_key g",
    ];
    assert_eq!(planned(whole, &State::default()), made);

    let mut state = State::default();
    let a = ResourceType { parent: None, owner: ours() };
    let b = ResourceType { parent: Some("a".into()), owner: ours() };
    state.types.extend([("a".to_owned(), a), ("b".to_owned(), b)]);
    let definition = || Definition { owner: ours(), ..Definition::default() };
    state.roles.insert("r".into(), definition());
    state.scopes.insert("s".into(), definition());
    add_resource(&mut state, "a", "1", None);
    add_resource(&mut state, "b", "2", Some(("a", "1")));
    add_user(&mut state, "u", "human");
    let binding = Binding { username: "u".into(), owner: ours(), ..Binding::default() };
    state.bindings.insert(Place::new("u", "r", Some(("b", "2"))), binding);
    let key = ApiKey { username: "u".into(), owner: ours(), ..ApiKey::default() };
    state.api_keys.insert(KeyName::new("u", "k"), key);
    state.gateway_keys.insert("g".into(), state::GatewayKey { id: "1".into(), owner: ours() });
    let pruned = [
        "delete gateway_key g",
        "revoke api_key u/k",
        "delete role_binding u r on b:2",
        "delete user u",
        "delete resource b:2",
        "delete resource a:1",
        "delete role r",
        "delete scope s",
        "delete resource_type b",
        "delete resource_type a",
    ];
    assert_eq!(planned(json!({"prune": true}), &state), pruned);
    assert_eq!(planned(json!({}), &state), [""; 0]);
}

#[test]
fn only_what_is_ours_is_pruned() {
    let mut state = project();
    state.users.get_mut("ann").unwrap().owner = by("other");
    state.users.get_mut("bo").unwrap().owner = Owner::default();
    state.resources.get_mut(&resource("project", "p")).unwrap().owner = by("other");
    for binding in state.bindings.values_mut() {
        binding.owner = by("M");
    }
    assert_eq!(planned(json!({"prune": true}), &state), [""; 0]);
}

#[test]
fn the_last_owner_stays() {
    let state = project();
    let named = json!([{"username": "ann", "kind": "human"}, {"username": "bo", "kind": "human"}]);
    let resources = json!([{"type": "project", "id": "p"}]);
    let keep = |more: Value| {
        let mut sections = json!({"prune": true, "users": named, "resources": resources});
        for (key, value) in more.as_object().unwrap() {
            sections[key] = value.clone();
        }
        sections
    };
    assert_eq!(refused(keep(json!({})), &state), ["23503 $.bindings"]);
    let owner = |user: &str| json!([{"username": user, "role": "project-owner", "resource_type": "project", "resource_id": "p"}]);
    assert!(plan(&manifest(keep(json!({"bindings": owner("bo")}))), &state).is_ok());
    assert!(plan(&manifest(keep(json!({"users": [named[1]]}))), &state).is_ok());
    assert!(plan(&manifest(keep(json!({"resources": []}))), &state).is_ok());

    let mut suspended = project();
    suspended.users.get_mut("bo").unwrap().active = false;
    assert_eq!(refused(keep(json!({"bindings": owner("bo")})), &suspended), ["23503 $.bindings"]);

    let place = ("project-owner".to_owned(), resource("project", "p"));
    for (active, stays) in [(true, true), (false, false)] {
        let mut two = project();
        two.owners.get_mut(&place).unwrap().push(("another".into(), active));
        assert_eq!(plan(&manifest(keep(json!({}))), &two).is_ok(), stays);
    }

    let mut held = project();
    held.types.insert("agent".into(), ResourceType { parent: Some("project".into()), owner: built_in() });
    held.children.push((resource("project", "p"), resource("agent", "somebody's")));
    assert_eq!(refused(keep(json!({"resources": []})), &held), ["23503 $.bindings"]);
}

#[test]
fn what_others_lie_below_is_left_and_so_is_what_lies_above_it() {
    let mut state = State::default();
    let nests = ResourceType { parent: Some("f".into()), owner: built_in() };
    state.types.insert("f".into(), nests);
    add_resource(&mut state, "f", "1", None);
    add_resource(&mut state, "f", "2", Some(("f", "1")));
    add_resource(&mut state, "f", "3", Some(("f", "2")));
    add_resource(&mut state, "f", "4", None);
    state.children.push((resource("f", "2"), resource("f", "theirs")));
    let steps = ["delete resource f:3", "left resource f:2", "left resource f:1", "delete resource f:4"];
    assert_eq!(planned(json!({"prune": true}), &state), steps);
    let moved = json!({"prune": true, "resources": [{"type": "f", "id": "3", "parent_id": null}]});
    assert!(planned(moved, &state).contains(&"left resource f:2".to_owned()));

    state.children.pop();
    let stays = json!({"prune": true, "resources": [{"type": "f", "id": "3"}]});
    assert!(planned(stays, &state).contains(&"left resource f:1".to_owned()));
    let moved = json!({"prune": true, "resources": [{"type": "f", "id": "3", "parent_id": ""}]});
    assert!(planned(moved, &state).contains(&"delete resource f:1".to_owned()));
}

#[test]
fn what_is_in_use_is_left() {
    let mut state = State::default();
    state.types.insert("a".into(), ResourceType { parent: None, owner: ours() });
    state.roles.insert("r".into(), Definition { owner: ours(), ..Definition::default() });
    state.scopes.insert("s".into(), Definition { owner: ours(), ..Definition::default() });
    state.types_in_use.insert("a".into(), "used");
    state.roles_in_use.insert("r".into(), "used");
    state.scopes_in_use.insert("s".into(), "used");
    let steps = plan(&manifest(json!({"prune": true})), &state).unwrap();
    assert!(steps.iter().all(|step| step.action == Action::Left && step.change == json!({"reason": "used"})));
    assert_eq!(steps.len(), 3);
}

#[test]
fn what_is_pruned_can_not_be_named() {
    let mut state = project();
    state.types.insert("a".into(), ResourceType { parent: None, owner: ours() });
    state.scopes.insert("s".into(), Definition { owner: ours(), ..Definition::default() });
    let sections = json!({
        "prune": true,
        "resource_types": [{"type": "b", "parent_type": "a"}],
        "roles": [{"name": "r", "permissions": ["a:x"]}],
        "scopes": [{"name": "t", "permissions": ["a:*"]}],
        "resources": [{"type": "a", "id": "1"}],
        "users": [{"username": "bo", "kind": "human"}],
        "bindings": [{"username": "ann", "role": "project-viewer", "resource_type": "project", "resource_id": "p"}],
        "api_keys": [{"username": "bo", "name": "k", "scopes": ["s"], "allow_list": ["a:1"]}],
    });
    let expected = [
        "42704 $.resource_types[0].parent_type",
        "42704 $.scopes[0].permissions",
        "42704 $.roles[0].permissions",
        "42704 $.resources[0].type",
        "42704 $.bindings[0].username",
        "42704 $.bindings[0].resource_id",
        "42704 $.api_keys[0].scopes",
        "42704 $.api_keys[0].allow_list",
    ];
    assert_eq!(refused(sections, &state), expected);
}

#[test]
fn depths_and_circles() {
    let chain = |n: usize| -> Vec<Value> {
        (0..n)
            .map(|at| match at {
                0 => json!({"type": "t0"}),
                _ => json!({"type": format!("t{at}"), "parent_type": format!("t{}", at - 1)}),
            })
            .collect()
    };
    let state = State::default();
    let most = MOST_ANCESTORS + 1;
    assert_eq!(planned(json!({"resource_types": chain(most)}), &state).len(), most);
    let too_many = json!({"resource_types": chain(most + 1)});
    assert_eq!(refused(too_many, &state), [format!("22023 $.resource_types[{most}].parent_type")]);
    let circle =
        json!({"resource_types": [{"type": "a", "parent_type": "b"}, {"type": "b", "parent_type": "a"}]});
    assert_eq!(refused(circle, &state).len(), 2);

    let resources = |n: usize| -> Vec<Value> {
        (0..n)
            .map(|at| match at {
                0 => json!({"type": "f", "id": "0"}),
                _ => json!({"type": "f", "id": at.to_string(), "parent_id": (at - 1).to_string()}),
            })
            .rev()
            .collect()
    };
    let nests = json!([{"type": "f", "parent_type": "f"}]);
    let steps = planned(json!({"resource_types": nests, "resources": resources(most)}), &state);
    assert_eq!(steps[1..3], ["create resource f:0", "create resource f:1"]);
    let deep = json!({"resource_types": nests, "resources": resources(most + 1)});
    assert_eq!(refused(deep, &state), ["22023 $.resources[0].parent_id"]);
    let circle = json!({"resource_types": nests, "resources": [{"type": "f", "id": "1", "parent_id": "2"}, {"type": "f", "id": "2", "parent_id": "1"}]});
    assert_eq!(refused(circle, &state).len(), 2);
}

#[test]
fn what_lies_below_moves_along() {
    let mut state = State::default();
    for n in 0..=MOST_ANCESTORS {
        let parent = n.checked_sub(1).map(|above| format!("t{above}"));
        state.types.insert(format!("t{n}"), ResourceType { parent, owner: ours() });
    }
    let moved = json!({"resource_types": [{"type": "top"}, {"type": "t0", "parent_type": "top"}]});
    assert_eq!(refused(moved, &state), ["22023 $.resource_types[1].parent_type"]);

    let mut state = State::default();
    state.types.insert("f".into(), ResourceType { parent: Some("f".into()), owner: built_in() });
    for n in 0..=MOST_ANCESTORS {
        let above = n.checked_sub(1).map(|above| above.to_string());
        add_resource(&mut state, "f", &n.to_string(), above.as_deref().map(|above| ("f", above)));
        if n > 0 {
            state.below.push((resource("f", "0"), resource("f", &n.to_string())));
        }
    }
    let top = json!({"type": "f", "id": "top"});
    let moved = json!({"resources": [top, {"type": "f", "id": "0", "parent_id": "top"}]});
    assert_eq!(refused(moved, &state), ["22023 $.resources[1].parent_id"]);
    let cut = json!({"resources": [top, {"type": "f", "id": "0", "parent_id": "top"}, {"type": "f", "id": "9", "parent_id": null}]});
    assert!(plan(&manifest(cut), &state).is_ok());
}

#[test]
fn keys_are_renewed_for_a_reason() {
    let mut state = project();
    let key = |left: i64| ApiKey {
        id: "k".into(),
        username: "ann".into(),
        scopes: vec!["all".into()],
        allow_list: vec!["*:*".into()],
        expires_at: left,
        owner: ours(),
    };
    const DAY: i64 = 86_400_000_000;
    let reason = |entry: Value, state: &State| -> Option<String> {
        let mut wanted = json!({"username": "ann", "name": "k", "lifetime": "30 days"});
        for (field, value) in entry.as_object().unwrap() {
            wanted[field] = value.clone();
        }
        let steps = plan(&manifest(json!({"api_keys": [wanted]})), state).unwrap();
        steps.first().map(|step| match step.action {
            Action::Mint | Action::Rotate => step.change["reason"].as_str().unwrap().to_owned(),
            action => action.as_str().to_owned(),
        })
    };
    let name = || KeyName::new("ann", "k");
    assert_eq!(reason(json!({}), &state).as_deref(), Some("missing"));
    for (left, entry, expected) in [
        (DAY, json!({}), None),
        (0, json!({}), Some("expired")),
        (1, json!({}), None),
        (DAY, json!({"renew_before": "1 day"}), Some("expiring")),
        (DAY + 1, json!({"renew_before": "1 day"}), None),
        (DAY, json!({"scopes": ["project:read"]}), Some("scopes-changed")),
        (DAY, json!({"allow_list": ["project:p"]}), Some("allow-list-changed")),
    ] {
        state.api_keys.insert(name(), key(left));
        assert_eq!(reason(entry.clone(), &state).as_deref(), expected, "{left} {entry}");
    }
    // One that is kept is not judged by the lifetime of one that is not minted.
    state.cap = Some(20 * DAY);
    state.api_keys.insert(name(), key(DAY));
    assert_eq!(reason(json!({}), &state), None);
    state.api_keys.insert(name(), key(0));
    let too_long = json!({"api_keys": [{"username": "ann", "name": "k", "lifetime": "30 days"}]});
    assert_eq!(refused(too_long, &state), ["22023 $.api_keys[0].lifetime"]);
    assert_eq!(reason(json!({"lifetime": "20 days"}), &state).as_deref(), Some("expired"));
    state.cap = None;
    state.api_keys.insert(name(), key(DAY));
    for (verdict, expected) in [
        (Verdict::Keep, None),
        (Verdict::Replace("revoked"), Some("revoked")),
        (Verdict::Concurrent, Some("concurrent")),
    ] {
        state.api_key_verdicts.insert(name(), verdict);
        assert_eq!(reason(json!({}), &state).as_deref(), expected);
    }
    // Somebody else has just minted it for another manager: it is taken over as it is.
    state.api_keys.get_mut(&name()).unwrap().owner = by("other");
    let entry = json!({"adopt": true, "api_keys": [{"username": "ann", "name": "k"}]});
    let steps = plan(&manifest(entry), &state).unwrap();
    assert_eq!(steps[0].action, Action::Adopt);
    assert_eq!(steps[0].change, json!({"managed_by": {"from": "other", "to": "m"}}));
}

#[test]
fn a_suspended_user_gets_no_new_key_and_a_system_user_wakes() {
    let mut state = project();
    state.users.get_mut("ann").unwrap().active = false;
    let key = json!([{"username": "ann", "name": "k"}]);
    assert_eq!(refused(json!({"api_keys": key}), &state), ["55000 $.api_keys[0].username"]);
    add_user(&mut state, "ann", "system");
    state.users.get_mut("ann").unwrap().active = false;
    let users = json!([{"username": "ann", "kind": "system", "roles": [], "organization_role": null}]);
    let steps = planned(json!({"users": users, "api_keys": key}), &state);
    assert_eq!(steps, ["update user ann", "mint api_key ann/k"]);
}

#[test]
fn what_a_system_user_is_to_hold_in_any_case_is_left() {
    let mut state = State::default();
    state.roles.insert("r".into(), Definition { owner: built_in(), ..Definition::default() });
    add_user(&mut state, "s", "system");
    let binding = || Binding { id: "b".into(), username: "s".into(), standing: false, owner: ours() };
    state.bindings.insert(Place::new("s", "r", None), binding());
    state.bindings.insert(Place::new("s", "r", Some(("organization", "o"))), binding());
    let with = |entry: Value| {
        let mut user = json!({"username": "s", "kind": "system", "roles": [], "organization_role": null});
        for (field, value) in entry.as_object().unwrap() {
            user[field] = value.clone();
        }
        let steps = plan(&manifest(json!({"prune": true, "users": [user]})), &state).unwrap();
        let of_bindings = steps.into_iter().filter(|step| step.kind == Kind::Binding);
        of_bindings.map(|step| step.action).collect::<Vec<_>>()
    };
    assert_eq!(with(json!({})), [Action::Delete, Action::Delete]);
    assert_eq!(with(json!({"roles": ["r"]})), [Action::Left, Action::Delete]);
    assert_eq!(with(json!({"organization_role": "r"})), [Action::Delete, Action::Left]);
}

#[test]
fn a_system_user_gives_up_no_organization_of_which_it_is_the_last_owner() {
    let mut state = project();
    let role = Definition { owner: built_in(), ..Definition::default() };
    state.roles.insert("organization-owner".into(), role);
    add_resource(&mut state, "organization", "o", None);
    add_user(&mut state, "s", "system");
    let place = ("organization-owner".to_owned(), resource("organization", "o"));
    state.owners.insert(place.clone(), vec![("s".into(), true)]);
    state.standing_lost.insert(Place::new("s", "organization-owner", Some(("organization", "o"))));
    let users = json!([{"username": "s", "kind": "system", "roles": [], "organization_role": null}]);
    let alone = json!({"users": users});
    assert_eq!(refused(alone.clone(), &state), ["23503 $.users[0].organization_role"]);
    let binding = json!([{"username": "ann", "role": "organization-owner", "resource_type": "organization", "resource_id": "o"}]);
    assert!(plan(&manifest(json!({"users": users, "bindings": binding})), &state).is_ok());
    state.owners.insert(place, vec![("s".into(), true), ("bo".into(), true)]);
    assert!(plan(&manifest(alone), &state).is_ok());
}

#[test]
fn another_managers_is_taken_over_only_when_the_manifest_says_so() {
    let mut state = project();
    for user in state.users.values_mut() {
        user.owner = by("other");
    }
    let users = json!([{"username": "ann", "kind": "human", "email": "a@b.c"}]);
    assert_eq!(refused(json!({"users": users}), &state), ["42710 $.users[0]"]);
    let steps = plan(&manifest(json!({"users": users, "adopt": true})), &state).unwrap();
    assert_eq!(steps[0].action, Action::Adopt);
    assert_eq!(
        steps[0].change,
        json!({"managed_by": {"from": "other", "to": "m"}, "email": {"from": null, "to": "a@b.c"}})
    );
    state.users.get_mut("ann").unwrap().owner = Owner::default();
    assert_eq!(planned(json!({"users": users}), &state), ["adopt user ann"]);
}
