use super::findings::{Severity, findings};
use super::graph::{Graph, Membership, Role};
use super::ledger::{Claim, Entry, Kind, Ledger, Need};
use super::plan::{Connect, FIRST_SUPERUSER, Outcome, World};
use super::{Desired, Oid, Party};
use std::collections::BTreeMap;

const APP: Oid = 1;
const ANON: Oid = 2;
const USER: Oid = 3;
const GRANTOR: Oid = 9;
const HERE: Oid = 100;
const THERE: Oid = 101;

fn party(oid: Oid, name: &str) -> Party {
    Party { oid, name: name.into() }
}

fn edge(role: Oid, member: Oid, grantor: Oid) -> Membership {
    Membership { role, member, grantor, admin: false, inherit: false, set: true, xmin: 7 }
}

fn world(by_grantor: bool) -> World {
    let role = |name: &str, login| Role { name: name.into(), login, inherit: true, ..Role::default() };
    let roles = BTreeMap::from([
        (APP, role("app", true)),
        (ANON, role("anon", false)),
        (USER, role("user", false)),
        (GRANTOR, role("keywright_grantor", false)),
    ]);
    World {
        graph: Graph { roles, memberships: Vec::new() },
        ledger: Ledger { system: "1".into(), ..Ledger::default() },
        database: party(HERE, "shop"),
        connect: BTreeMap::from([(APP, Connect { everybody: true, ..Connect::default() })]),
        grantor: Some(GRANTOR),
        by_grantor,
    }
}

fn desired(service: &str) -> Desired {
    Desired {
        service: service.into(),
        connect_as: "app".into(),
        anon_role: Some("anon".into()),
        jwt_roles: vec!["user".into(), "anon".into()],
        schemas: vec!["public".into()],
        noinherit: true,
    }
}

const MEMBERSHIP: Need = Need { kind: Kind::Membership, member: APP, object: ANON };

fn settle(world: &mut World, service: &str, wanted: bool) -> Vec<(Kind, Oid, Outcome)> {
    let desired = desired(service);
    let needs = world.needs(&desired, |name| world.graph.find(name));
    world
        .settle(service, if wanted { &needs } else { &[] })
        .into_iter()
        .map(|step| (step.need.kind, step.need.object, step.outcome))
        .collect()
}

#[test]
fn two_names_never_mean_one_role() {
    let mut world = world(true);
    grant(&mut world, "a");
    // user has become "anon2", and another role is called "user" now.
    world.graph.roles.get_mut(&USER).unwrap().name = "anon2".into();
    world.graph.roles.insert(30, Role { name: "user".into(), ..Role::default() });
    let mut wanted = desired("a");
    assert_eq!(world.meant(&wanted)["user"], USER);
    wanted.jwt_roles.push("anon2".into());
    let meant = world.meant(&wanted);
    assert_eq!((meant["user"], meant["anon2"], meant["anon"]), (30, USER, ANON));
}

/// What carrying the steps out would do to the catalog.
fn carry_out(world: &mut World, steps: &[(Kind, Oid, Outcome)]) {
    for (kind, object, outcome) in steps {
        match (kind, outcome) {
            (Kind::Membership, Outcome::Done) => {
                let grantor = if world.by_grantor { GRANTOR } else { 10 };
                world.graph.memberships.retain(|edge| (edge.role, edge.grantor) != (*object, grantor));
                world.graph.memberships.push(edge(*object, APP, grantor));
                let need = Need { kind: Kind::Membership, member: APP, object: *object };
                let mark = world.mark(need);
                world.ledger.get_mut(need).unwrap().mark = mark;
            }
            (Kind::Membership, Outcome::Undone) => {
                let grantor = if world.by_grantor { GRANTOR } else { 10 };
                world.graph.memberships.retain(|edge| (edge.role, edge.grantor) != (*object, grantor));
            }
            (Kind::Noinherit, Outcome::Done) => world.graph.roles.get_mut(&APP).unwrap().inherit = false,
            (Kind::Noinherit, Outcome::Undone) => world.graph.roles.get_mut(&APP).unwrap().inherit = true,
            _ => (),
        }
    }
}

fn grant(world: &mut World, service: &str) -> Vec<(Kind, Oid, Outcome)> {
    let steps = settle(world, service, true);
    carry_out(world, &steps);
    steps
}

fn revoke(world: &mut World, service: &str) -> Vec<(Kind, Oid, Outcome)> {
    let steps = settle(world, service, false);
    carry_out(world, &steps);
    steps
}

#[test]
fn granted_once_and_undone() {
    for by_grantor in [false, true] {
        let mut world = world(by_grantor);
        let done = [
            (Kind::Connect, HERE, Outcome::Present),
            (Kind::Noinherit, 0, Outcome::Done),
            (Kind::Membership, ANON, Outcome::Done),
            (Kind::Membership, USER, Outcome::Done),
        ];
        assert_eq!(grant(&mut world, "a"), done);
        assert_eq!(grant(&mut world, "a"), []);
        assert_eq!(revoke(&mut world, "a").iter().filter(|step| step.2 == Outcome::Undone).count(), 3);
        assert!(world.ledger.entries.is_empty() && world.graph.memberships.is_empty());
        assert_eq!(revoke(&mut world, "a"), []);
    }
}

#[test]
fn the_last_service_takes_it_along() {
    for by_grantor in [false, true] {
        let mut world = world(by_grantor);
        grant(&mut world, "a");
        assert!(grant(&mut world, "b").iter().all(|step| step.2 == Outcome::Present));
        assert!(revoke(&mut world, "a").iter().all(|step| step.2 == Outcome::Left));
        assert_eq!(revoke(&mut world, "b").iter().filter(|step| step.2 == Outcome::Undone).count(), 3);
    }
}

#[test]
fn another_database_counts_until_it_is_gone() {
    let mut world = world(false);
    grant(&mut world, "a");
    let elsewhere = Claim {
        database: party(THERE, "other"),
        service: "a".into(),
        member: "app".into(),
        object: "anon".into(),
    };
    world.ledger.get_mut(MEMBERSHIP).unwrap().claims.push(elsewhere);
    assert!(revoke(&mut world, "a").contains(&(Kind::Membership, ANON, Outcome::Left)));
    world.ledger.prune(|_| true, |database| database == HERE);
    let orphans = world.settle_orphans();
    assert_eq!(orphans.len(), 1);
    assert_eq!((orphans[0].need, orphans[0].outcome), (MEMBERSHIP, Outcome::Undone));
    assert!(world.ledger.entries.is_empty());
}

#[test]
fn what_the_customer_granted_stays() {
    // Before us, and after we and they have both let go once.
    let mut early = world(false);
    early.graph.memberships.push(edge(ANON, APP, 10));
    grant(&mut early, "a");
    assert!(revoke(&mut early, "a").contains(&(Kind::Membership, ANON, Outcome::Left)));

    let mut anew = world(false);
    grant(&mut anew, "a");
    anew.graph.memberships.iter_mut().for_each(|edge| edge.xmin = 8);
    assert!(revoke(&mut anew, "a").contains(&(Kind::Membership, ANON, Outcome::Left)));

    let mut admin = world(false);
    grant(&mut admin, "a");
    admin.graph.memberships.iter_mut().for_each(|edge| edge.admin = true);
    assert!(revoke(&mut admin, "a").contains(&(Kind::Membership, ANON, Outcome::Left)));

    // Side by side with ours.
    let mut both = world(true);
    both.graph.memberships.push(edge(ANON, APP, 10));
    assert!(grant(&mut both, "a").contains(&(Kind::Membership, ANON, Outcome::Done)));
    revoke(&mut both, "a");
    assert_eq!(both.graph.memberships.len(), 1);

    let mut gone = world(true);
    grant(&mut gone, "a");
    gone.graph.memberships.clear();
    assert!(revoke(&mut gone, "a").contains(&(Kind::Membership, ANON, Outcome::Gone)));
}

#[test]
fn inherit_is_restored_only_where_it_is_as_we_set_it() {
    let mut world = world(true);
    grant(&mut world, "a");
    world.graph.roles.get_mut(&APP).unwrap().inherit = true;
    assert!(revoke(&mut world, "a").contains(&(Kind::Noinherit, 0, Outcome::Left)));
    world.graph.roles.get_mut(&APP).unwrap().inherit = false;
    grant(&mut world, "a");
    assert!(revoke(&mut world, "a").contains(&(Kind::Noinherit, 0, Outcome::Left)));
}

#[test]
fn a_ledger_is_read_back_and_is_ascii() {
    let mut world = world(true);
    grant(&mut world, "a");
    world.ledger.entries[0].member.name = "naïve \"€\" 𐍈\\".into();
    let json = world.ledger.to_json();
    assert!(json.is_ascii());
    assert_eq!(Ledger::parse(json.as_bytes()), Some(world.ledger));
    assert_eq!(Ledger::parse(b"{"), None);
}

#[test]
fn a_ledger_of_another_cluster_is_read_by_names() {
    let mut world = world(false);
    grant(&mut world, "a");
    let roles = |name: &str| Some(50 + name.len() as Oid).filter(|_| name != "user");
    let moved = world.ledger.clone().moved_to("2", roles, |name| (name == "shop").then_some(200));
    let member: Vec<(Kind, Oid, Oid, Option<u32>)> = moved
        .entries
        .iter()
        .map(|entry: &Entry| (entry.kind, entry.member.oid, entry.object.oid, entry.mark))
        .collect();
    let expected =
        [(Kind::Connect, 53, 200, None), (Kind::Noinherit, 53, 0, None), (Kind::Membership, 53, 54, None)];
    assert_eq!(member, expected);
    assert!(moved.entries.iter().all(|entry| entry.claims[0].database.oid == 200));
    // The same cluster: numbers, also where the names have changed.
    assert_eq!(world.ledger.clone().moved_to("1", |_| None, |_| None), world.ledger);
}

#[test]
fn a_renamed_role_is_found_by_the_ledger() {
    let mut world = world(true);
    grant(&mut world, "a");
    world.graph.roles.get_mut(&APP).unwrap().name = "renamed".into();
    assert_eq!(world.role_of("a", "app"), Some(APP));
    assert_eq!(world.role_of("b", "app"), None);
    // Another service, which calls it by the new name, changes nothing for the first.
    let mut other = desired("b");
    other.connect_as = "renamed".into();
    let needs = world.needs(&other, |name| world.graph.find(name));
    world.settle("b", &needs);
    assert_eq!((world.role_of("a", "app"), world.role_of("b", "renamed")), (Some(APP), Some(APP)));
    world.ledger.prune(|role| role != APP, |_| true);
    assert_eq!(world.role_of("a", "app"), None);
}

#[test]
fn chains_are_followed_and_circles_end() {
    let mut world = world(true);
    let graph = &mut world.graph;
    graph.roles.insert(20, Role { name: "link".into(), ..Role::default() });
    graph.roles.insert(21, Role { name: "root".into(), superuser: true, ..Role::default() });
    graph.roles.insert(22, Role { name: "middle".into(), ..Role::default() });
    graph.memberships.extend([
        edge(20, ANON, 10),
        edge(22, 20, 10),
        edge(20, 22, 10),
        edge(21, 22, 10),
        edge(20, 21, 10),
    ]);
    let found = findings(graph, &desired("a"), |name| graph.find(name), true);
    let errors: Vec<&str> = found
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| finding.code)
        .collect();
    assert_eq!(errors, ["leads_to_superuser"]);
    // A membership that gives nothing leads nowhere.
    graph.memberships.iter_mut().for_each(|edge| edge.set = false);
    assert!(findings(graph, &desired("a"), |name| graph.find(name), true).is_empty());
}

/// pg_upgrade from 15: whose a row is, it did not say there, and here it is the first superuser's.
#[test]
fn what_was_granted_before_rows_were_told_apart_is_undone() {
    let moved = || {
        let mut old = world(false);
        old.graph.memberships.push(edge(USER, APP, 50));
        grant(&mut old, "a");
        let number = |name: &str| {
            Some(match name {
                "app" => APP,
                "anon" => ANON,
                "user" => USER,
                _ => HERE,
            })
        };
        let mut new = world(true);
        new.ledger = old.ledger.moved_to("2", number, number);
        new.graph.roles.get_mut(&APP).unwrap().inherit = false;
        new.graph.memberships = vec![edge(ANON, APP, FIRST_SUPERUSER), edge(USER, APP, FIRST_SUPERUSER)];
        new
    };
    let of = |steps: &[(Kind, Oid, Outcome)]| -> Vec<(Oid, Outcome)> {
        steps.iter().filter(|step| step.0 == Kind::Membership).map(|step| (step.1, step.2)).collect()
    };
    let mut world = moved();
    assert_eq!(of(&settle(&mut world, "a", false)), [(ANON, Outcome::Undone), (USER, Outcome::Left)]);
    // Nobody has the row any more, or it is more than what we granted.
    let mut world = moved();
    world.graph.memberships.clear();
    assert_eq!(of(&settle(&mut world, "a", false)), [(ANON, Outcome::Gone), (USER, Outcome::Left)]);
    let mut world = moved();
    world.graph.memberships[0].admin = true;
    assert_eq!(of(&settle(&mut world, "a", false)), [(ANON, Outcome::Left), (USER, Outcome::Left)]);
    // Granted as ours, it takes the place of the old row; what the customer granted stays.
    let mut world = moved();
    assert_eq!(of(&settle(&mut world, "a", true)), [(ANON, Outcome::Done), (USER, Outcome::Done)]);
    let plain = |world: &World, object| {
        let entry = world.ledger.get(Need { object, ..MEMBERSHIP }).unwrap();
        world.plain_row(entry).is_some()
    };
    assert!(plain(&world, ANON) && !plain(&world, USER));
}
