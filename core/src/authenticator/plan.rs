//! What has to be done so that services have what they need, and nothing else that was granted for them stays.

use super::graph::{Graph, Membership};
use super::ledger::{Claim, Entry, Kind, Ledger, Need};
use super::{Desired, Oid, Party};
use crate::printable::quoted;
use std::collections::BTreeMap;

/// The number of the first superuser, in whose name pg_upgrade and a restored dump grant what said nothing of who granted it.
pub const FIRST_SUPERUSER: Oid = 10;

/// What there is.
#[derive(Debug, Clone)]
pub struct World {
    pub graph: Graph,
    pub ledger: Ledger,
    /// This database.
    pub database: Party,
    /// Who may connect to this database, among those somebody asks about.
    pub connect: BTreeMap<Oid, Connect>,
    /// The role that grants, if there is one yet.
    pub grantor: Option<Oid>,
    /// Whether memberships are told apart by who granted them, and have options (PostgreSQL 16).
    pub by_grantor: bool,
}

/// How a role may connect to this database.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connect {
    pub everybody: bool,
    /// By anybody's grant.
    pub itself: bool,
    /// By the grant of the database's owner, as ours is.
    pub ours: bool,
    /// With the GRANT OPTION, which we never give.
    pub grantable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// To be granted.
    Done,
    /// Was there already; only noted.
    Present,
    /// To be undone.
    Undone,
    /// Stays, because it is not ours or still needed.
    Left,
    /// Was undone by somebody else.
    Gone,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Present => "present",
            Outcome::Undone => "undone",
            Outcome::Left => "left",
            Outcome::Gone => "gone",
        }
    }
}

/// One line of what is done for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub service: String,
    pub need: Need,
    pub outcome: Outcome,
    pub reason: Option<String>,
}

/// The state of something that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    There,
    /// Ours, but with other options than we gave it.
    Altered,
    Missing,
}

impl World {
    /// The role a service means by a name: the one it was granted for, or else the one that has the name.
    pub fn role_of(&self, service: &str, name: &str) -> Option<Oid> {
        self.ledger.role_of(self.database.oid, service, name).or_else(|| self.graph.find(name))
    }

    /// The roles a service means by its names. Where two names come to one role, because names have moved since, all that take
    /// part mean who has them now.
    pub fn meant(&self, desired: &Desired) -> BTreeMap<String, Oid> {
        let names = || desired.roles().into_iter().chain([desired.connect_as.as_str()]);
        let noted: BTreeMap<&str, Option<Oid>> =
            names().map(|name| (name, self.role_of(&desired.service, name))).collect();
        noted
            .iter()
            .filter_map(|(name, oid)| {
                let shared = noted.iter().any(|(other, number)| other != name && number == oid);
                let oid = if shared { self.graph.find(name) } else { *oid };
                Some(((*name).to_owned(), oid?))
            })
            .collect()
    }

    /// What a service needs, as far as its roles exist, with the names it uses.
    pub fn needs(
        &self,
        desired: &Desired,
        resolve: impl Fn(&str) -> Option<Oid>,
    ) -> Vec<(Need, Party, Party)> {
        let Some(member) = resolve(&desired.connect_as) else { return Vec::new() };
        let party = Party { oid: member, name: desired.connect_as.clone() };
        let nothing = Party { oid: 0, name: String::new() };
        let mut needs = Vec::new();
        let mut add = |kind, object: Party| {
            needs.push((Need { kind, member, object: object.oid }, party.clone(), object));
        };
        add(Kind::Connect, self.database.clone());
        if desired.noinherit {
            add(Kind::Noinherit, nothing);
        }
        for name in desired.roles() {
            if let Some(oid) = resolve(name) {
                add(Kind::Membership, Party { oid, name: name.to_owned() });
            }
        }
        needs
    }

    pub fn state(&self, need: Need) -> State {
        let there = |is| if is { State::There } else { State::Missing };
        match need.kind {
            Kind::Noinherit => there(!self.graph.roles.get(&need.member).is_some_and(|role| role.inherit)),
            Kind::Connect => {
                let connect = self.connect(need.member);
                there(connect.everybody || connect.itself)
            }
            Kind::Membership => match self.row(need) {
                None => State::Missing,
                Some(row)
                    if self.by_grantor && (row.inherit || !row.set || self.takes_back_admin(need, row)) =>
                {
                    State::Altered
                }
                Some(_) => State::There,
            },
        }
    }

    /// The row of a membership: ours, where rows are told apart.
    fn row(&self, need: Need) -> Option<&Membership> {
        let grantor = if self.by_grantor { Some(self.grantor?) } else { None };
        self.graph.membership(need.object, need.member, grantor)
    }

    pub fn has_row(&self, need: Need) -> bool {
        self.row(need).is_some()
    }

    /// What we granted before rows were told apart.
    pub fn plain_row(&self, entry: &Entry) -> Option<&Membership> {
        if !(self.by_grantor && entry.plain && entry.made && entry.kind == Kind::Membership) {
            return None;
        }
        self.graph.membership(entry.object.oid, entry.member.oid, Some(FIRST_SUPERUSER))
    }

    fn connect(&self, member: Oid) -> Connect {
        self.connect.get(&member).copied().unwrap_or_default()
    }

    /// The transaction that wrote a membership, where that is needed to tell it from another.
    pub fn mark(&self, need: Need) -> Option<u32> {
        if self.by_grantor || need.kind != Kind::Membership {
            return None;
        }
        self.row(need).map(|row| row.xmin)
    }

    /// Whether something that was noted is undone now that nobody needs it.
    fn undo(&self, entry: &Entry) -> (Outcome, Option<String>) {
        let left = |why: &str| (Outcome::Left, Some(why.to_owned()));
        if !entry.made {
            return left("it was there before");
        }
        let need = entry.need();
        match entry.kind {
            Kind::Noinherit if self.state(need) == State::Missing => left("somebody set INHERIT since"),
            Kind::Noinherit => (Outcome::Undone, None),
            Kind::Connect => match self.connect(need.member) {
                Connect { ours: false, .. } => (Outcome::Gone, Some("somebody revoked it since".into())),
                Connect { grantable: true, .. } => left("somebody gave it the GRANT OPTION since"),
                _ => (Outcome::Undone, None),
            },
            Kind::Membership => match self.row(need) {
                None if self.plain_row(entry).is_some_and(|row| row.admin) => {
                    left("somebody gave it the ADMIN option since")
                }
                None if self.plain_row(entry).is_some() => (Outcome::Undone, None),
                None => (Outcome::Gone, Some("somebody revoked it since".into())),
                Some(row) if row.admin && !self.by_grantor => left("somebody gave it the ADMIN option since"),
                Some(row) if row.admin && self.passed_on(need) => {
                    left("the member granted the role to others")
                }
                Some(row) if entry.mark.is_some_and(|mark| mark != row.xmin) => {
                    left("somebody granted it anew since")
                }
                Some(_) => (Outcome::Undone, None),
            },
        }
    }

    /// Whether a step was carried out: what was to be there is, and what was to go has gone.
    pub fn is_carried_out(&self, step: &Step) -> bool {
        let need = step.need;
        match step.outcome {
            Outcome::Done => self.state(need) == State::There,
            Outcome::Undone => match need.kind {
                Kind::Membership => self.row(need).is_none(),
                Kind::Noinherit => self.state(need) == State::Missing,
                Kind::Connect => !self.connect(need.member).ours,
            },
            Outcome::Present | Outcome::Left | Outcome::Gone => true,
        }
    }

    /// Whether somebody was granted a role by the member, for which it needs the ADMIN option it was given.
    pub fn is_used_to_grant(&self, need: Need) -> bool {
        self.row(need).is_some_and(|row| row.admin) && self.passed_on(need)
    }

    /// ADMIN is never given by us, and can be taken back while nobody has used it.
    fn takes_back_admin(&self, need: Need, row: &Membership) -> bool {
        row.admin && !self.passed_on(need)
    }

    fn passed_on(&self, need: Need) -> bool {
        self.graph.memberships.iter().any(|edge| edge.role == need.object && edge.grantor == need.member)
    }

    /// Notes what a service needs, and says what is missing of it.
    fn claim(&mut self, service: &str, need: Need, member: Party, object: Party) -> Option<Step> {
        let state = self.state(need);
        let mut claim = Claim {
            database: self.database.clone(),
            service: service.to_owned(),
            member: String::new(),
            object: String::new(),
        };
        claim.call(need.kind, &member, &object);
        let noted = self.ledger.get(need).is_some_and(|entry| entry.claimed_by(self.database.oid, service));
        if noted && state == State::There {
            return None;
        }
        let mark = self.mark(need);
        let known = self.ledger.get(need).is_some();
        if !known {
            // Rows of our own grantor are ours even if the ledger was lost.
            let made = self.by_grantor && need.kind == Kind::Membership && state != State::Missing;
            let claims = Vec::new();
            let kind = need.kind;
            let plain = false;
            self.ledger.entries.push(Entry { kind, member, object, made, mark, plain, claims });
        }
        let entry = self.ledger.get_mut(need)?;
        if !noted {
            entry.claims.push(claim);
        }
        if state != State::There {
            entry.made = true;
        }
        let made = entry.made;
        let (outcome, reason) = match state {
            State::There if made => (Outcome::Present, Some("another service has it already".to_owned())),
            State::There => (Outcome::Present, Some("it was there before".to_owned())),
            State::Missing => (Outcome::Done, None),
            State::Altered => (Outcome::Done, Some("somebody changed its options".to_owned())),
        };
        Some(Step { service: service.to_owned(), need, outcome, reason })
    }

    /// A service no longer needs something.
    fn release(&mut self, service: &str, need: Need) -> Option<Step> {
        let here = self.database.oid;
        let entry = self.ledger.get_mut(need)?;
        entry.claims.retain(|claim| claim.database.oid != here || claim.service != service);
        let entry = entry.clone();
        let (outcome, reason) = match entry.claims.first() {
            Some(claim) if claim.database.oid == here => {
                (Outcome::Left, Some(format!("service {} needs it", quoted(claim.service.as_bytes()))))
            }
            Some(claim) => {
                let (service, database) =
                    (quoted(claim.service.as_bytes()), quoted(claim.database.name.as_bytes()));
                (Outcome::Left, Some(format!("service {service} of database {database} needs it")))
            }
            None => {
                let undo = self.undo(&entry);
                self.ledger.entries.retain(|entry| entry.need() != need);
                undo
            }
        };
        Some(Step { service: service.to_owned(), need, outcome, reason })
    }

    /// Everything that has to be done so that a service has what it needs and nothing else: grants first.
    pub fn settle(&mut self, service: &str, wanted: &[(Need, Party, Party)]) -> Vec<Step> {
        let mut steps = self.claim_all(service, wanted);
        steps.extend(self.release_rest(service, wanted));
        steps
    }

    /// Notes all that a service needs. Where there are several, all of them do before one lets go of anything.
    pub fn claim_all(&mut self, service: &str, wanted: &[(Need, Party, Party)]) -> Vec<Step> {
        let mut steps = Vec::new();
        for (need, member, object) in wanted {
            steps.extend(self.claim(service, *need, member.clone(), object.clone()));
        }
        // The service may call a role by another name now.
        let here = self.database.oid;
        for (need, member, object) in wanted {
            let claims = self.ledger.get_mut(*need).into_iter().flat_map(|entry| &mut entry.claims);
            for claim in claims.filter(|claim| claim.database.oid == here && claim.service == service) {
                claim.call(need.kind, member, object);
            }
        }
        steps
    }

    /// Lets go of what a service does not need.
    pub fn release_rest(&mut self, service: &str, wanted: &[(Need, Party, Party)]) -> Vec<Step> {
        let mut steps = Vec::new();
        let held: Vec<Need> = self.ledger.claimed_by(self.database.oid, service).map(Entry::need).collect();
        for need in held {
            if !wanted.iter().any(|(wanted, ..)| *wanted == need) {
                steps.extend(self.release(service, need));
            }
        }
        steps
    }

    /// What was granted for databases that are gone.
    pub fn settle_orphans(&mut self) -> Vec<Step> {
        let (orphans, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ledger.entries).into_iter().partition(|entry| entry.claims.is_empty());
        self.ledger.entries = kept;
        orphans
            .into_iter()
            .map(|entry| {
                let (outcome, reason) = self.undo(&entry);
                Step { service: String::new(), need: entry.need(), outcome, reason }
            })
            .collect()
    }
}
