//! The ledger: what services need of the roles of this cluster, and what of it was granted for them.
//!
//! Roles belong to the cluster, so the ledger does too: each entry says which service of which database needs
//! it. It is kept as JSON, in ASCII, because databases differ in their encodings.

use super::{Oid, Party};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The member may switch to the object, a role.
    Membership,
    /// The member does not inherit.
    Noinherit,
    /// The member may connect to the object, a database.
    Connect,
}

/// One thing that can be granted and undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Need {
    pub kind: Kind,
    pub member: Oid,
    pub object: Oid,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub database: Party,
    pub service: String,
    /// What the service calls them; they may be called otherwise now.
    pub member: String,
    pub object: String,
}

impl Claim {
    /// Notes what the service calls the roles; only a membership's object is one.
    pub fn call(&mut self, kind: Kind, member: &Party, object: &Party) {
        self.member.clone_from(&member.name);
        if kind == Kind::Membership {
            self.object.clone_from(&object.name);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub kind: Kind,
    pub member: Party,
    pub object: Party,
    /// Granted by us; otherwise it was there before.
    pub made: bool,
    /// The transaction that wrote our row, where nothing else tells it from somebody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Granted by us where rows did not say by whom, in a cluster this one was restored or upgraded from. Once they do, it is
    /// a row of the first superuser's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
    pub claims: Vec<Claim>,
}

impl Entry {
    pub fn need(&self) -> Need {
        Need { kind: self.kind, member: self.member.oid, object: self.object.oid }
    }

    pub fn claimed_by(&self, database: Oid, service: &str) -> bool {
        self.claims.iter().any(|claim| claim.database.oid == database && claim.service == service)
    }
}

/// A name by which a service was granted a role that is gone. Who has the name now is another role, and waits until somebody
/// grants it or allows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    pub database: Party,
    pub service: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The cluster whose numbers these are.
    pub system: String,
    pub entries: Vec<Entry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Gone>,
}

impl Ledger {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.gone.is_empty()
    }

    /// Notes the names of roles that are gone.
    fn mourn(&mut self, is_there: impl Fn(Kind, &Party, &Party) -> (bool, bool)) {
        for entry in &self.entries {
            let (member, object) = is_there(entry.kind, &entry.member, &entry.object);
            for claim in &entry.claims {
                let names = [(member, &claim.member), (object, &claim.object)];
                for (_, name) in names.into_iter().filter(|(is_there, _)| !is_there) {
                    let (database, service, name) =
                        (claim.database.clone(), claim.service.clone(), name.clone());
                    let gone = Gone { database, service, name };
                    if !self.gone.contains(&gone) {
                        self.gone.push(gone);
                    }
                }
            }
        }
    }

    /// True when a service had a role of this name, and that role is gone.
    pub fn is_gone(&self, database: Oid, service: &str, name: &str) -> bool {
        self.gone
            .iter()
            .any(|gone| gone.database.oid == database && gone.service == service && gone.name == name)
    }

    /// Whoever has these names now is who is meant.
    pub fn welcome(&mut self, database: Oid, service: &str, is_meant: impl Fn(&str) -> bool) {
        self.gone
            .retain(|gone| gone.database.oid != database || gone.service != service || !is_meant(&gone.name));
    }

    pub fn parse(json: &[u8]) -> Option<Ledger> {
        serde_json::from_slice(json).ok()
    }

    pub fn to_json(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut ascii = String::with_capacity(json.len());
        for unit in json.chars() {
            if unit.is_ascii() {
                ascii.push(unit);
            } else {
                for half in unit.encode_utf16(&mut [0; 2]) {
                    _ = write!(ascii, "\\u{half:04x}");
                }
            }
        }
        ascii
    }

    /// The ledger of another cluster, restored into this one: its numbers mean nothing here, its names do.
    pub fn moved_to(
        mut self,
        system: &str,
        role: impl Fn(&str) -> Option<Oid>,
        database: impl Fn(&str) -> Option<Oid>,
    ) -> Ledger {
        if self.system == system {
            return self;
        }
        let known = |kind, member: &Party, object: &Party| {
            (role(&member.name).is_some(), kind != Kind::Membership || role(&object.name).is_some())
        };
        self.mourn(known);
        let renumber = |party: Party, number: &dyn Fn(&str) -> Option<Oid>| {
            number(&party.name).map(|oid| Party { oid, name: party.name })
        };
        let entries = self.entries.into_iter().filter_map(|entry| {
            let object = match entry.kind {
                Kind::Membership => renumber(entry.object, &role)?,
                Kind::Connect => renumber(entry.object, &database)?,
                Kind::Noinherit => entry.object,
            };
            let claims = entry.claims.into_iter().filter_map(|claim| {
                Some(Claim { database: renumber(claim.database.clone(), &database)?, ..claim })
            });
            let claims = claims.collect();
            let plain = entry.plain || (entry.made && entry.mark.is_some());
            Some(Entry { member: renumber(entry.member, &role)?, object, claims, mark: None, plain, ..entry })
        });
        let entries = entries.collect();
        let gone = self
            .gone
            .into_iter()
            .filter_map(|gone| Some(Gone { database: renumber(gone.database, &database)?, ..gone }));
        Ledger { system: system.to_owned(), entries, gone: gone.collect() }
    }

    /// Forgets roles and databases that are gone. An entry that was made and that nobody needs is left, to be undone.
    pub fn prune(&mut self, role: impl Fn(Oid) -> bool, database: impl Fn(Oid) -> bool) {
        for entry in &mut self.entries {
            entry.claims.retain(|claim| database(claim.database.oid));
        }
        self.mourn(|kind, member, object| (role(member.oid), kind != Kind::Membership || role(object.oid)));
        self.gone.retain(|gone| database(gone.database.oid));
        self.entries.retain(|entry| {
            role(entry.member.oid)
                && match entry.kind {
                    Kind::Membership => role(entry.object.oid),
                    Kind::Connect => database(entry.object.oid),
                    Kind::Noinherit => true,
                }
                && (entry.made || !entry.claims.is_empty())
        });
    }

    pub fn get(&self, need: Need) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.need() == need)
    }

    pub fn get_mut(&mut self, need: Need) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.need() == need)
    }

    /// What a service needs by what is written here.
    pub fn claimed_by(&self, database: Oid, service: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.claimed_by(database, service))
    }

    /// The role a service was granted for by this name, whatever it is called now.
    pub fn role_of(&self, database: Oid, service: &str, name: &str) -> Option<Oid> {
        self.claimed_by(database, service)
            .flat_map(|entry| {
                let claim = entry
                    .claims
                    .iter()
                    .filter(move |claim| claim.database.oid == database && claim.service == service);
                claim.flat_map(|claim| {
                    let object =
                        (entry.kind == Kind::Membership).then_some((&claim.object, entry.object.oid));
                    [Some((&claim.member, entry.member.oid)), object].into_iter().flatten()
                })
            })
            .find(|(called, _)| *called == name)
            .map(|(_, oid)| oid)
    }

    /// Writes down what roles and databases are called now, by which another cluster will know them.
    pub fn rename(&mut self, name: impl Fn(Oid) -> Option<String>, database: impl Fn(Oid) -> Option<String>) {
        for gone in &mut self.gone {
            if let Some(name) = database(gone.database.oid) {
                gone.database.name = name;
            }
        }
        for entry in &mut self.entries {
            let connect = (entry.kind == Kind::Connect).then_some(&mut entry.object);
            for party in connect.into_iter().chain(entry.claims.iter_mut().map(|claim| &mut claim.database)) {
                if let Some(name) = database(party.oid) {
                    party.name = name;
                }
            }
            let roles =
                [Some(&mut entry.member), (entry.kind == Kind::Membership).then_some(&mut entry.object)];
            for party in roles.into_iter().flatten() {
                if let Some(name) = name(party.oid) {
                    party.name = name;
                }
            }
        }
    }

    /// The services of a database that claim anything.
    pub fn services(&self, database: Oid) -> Vec<String> {
        let mut services: Vec<String> = self
            .entries
            .iter()
            .flat_map(|entry| &entry.claims)
            .filter(|claim| claim.database.oid == database)
            .map(|claim| claim.service.clone())
            .collect();
        services.sort();
        services.dedup();
        services
    }
}
