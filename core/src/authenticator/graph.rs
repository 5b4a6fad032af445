//! Postgres roles and their memberships.

use super::Oid;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Clone, Default)]
pub struct Role {
    /// A name that this database can not read is only shown, and nobody is meant by it.
    pub name: String,
    pub unreadable: bool,
    pub login: bool,
    pub superuser: bool,
    pub create_role: bool,
    pub create_db: bool,
    pub replication: bool,
    pub bypass_rls: bool,
    pub inherit: bool,
    /// Its password is no longer valid.
    pub expired: bool,
    /// It lets nobody in.
    pub closed: bool,
    /// It owns this extension.
    pub owner: bool,
    /// It owns this database.
    pub database_owner: bool,
    /// What of keywright it may do that is more than asking, and which settings of the server it may change.
    pub access: Vec<String>,
    pub parameters: Vec<String>,
    /// What it was granted of the server or of keywright, and nobody who serves requests should have.
    pub privileges: Vec<Privilege>,
}

#[derive(Debug, Clone)]
pub struct Privilege {
    pub code: String,
    /// As REVOKE has it.
    pub what: String,
    /// Granted to PUBLIC.
    pub everybody: bool,
}

/// A row of pg_auth_members. Before PostgreSQL 16 there is one a pair, which always lets SET ROLE, and the member's
/// own attribute says whether it inherits.
#[derive(Debug, Clone)]
pub struct Membership {
    pub role: Oid,
    pub member: Oid,
    pub grantor: Oid,
    pub admin: bool,
    pub inherit: bool,
    pub set: bool,
    /// The transaction that wrote the row.
    pub xmin: u32,
}

#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub roles: BTreeMap<Oid, Role>,
    pub memberships: Vec<Membership>,
}

impl Graph {
    pub fn find(&self, name: &str) -> Option<Oid> {
        self.roles.iter().find(|(_, role)| !role.unreadable && role.name == name).map(|(oid, _)| *oid)
    }

    pub fn name(&self, role: Oid) -> &str {
        self.roles.get(&role).map_or("", |role| &role.name)
    }

    /// Every role that leads to something for a member, each with the chain of roles by which it is reached.
    pub fn reached(&self, start: Oid, by: impl Fn(&Membership) -> bool) -> Vec<(Oid, Vec<Oid>)> {
        let mut seen = vec![(start, Vec::new())];
        let mut ahead = VecDeque::from([0]);
        while let Some(at) = ahead.pop_front() {
            let (member, chain) = seen[at].clone();
            for edge in self.memberships.iter().filter(|edge| edge.member == member && by(edge)) {
                if !seen.iter().any(|(role, _)| *role == edge.role) {
                    let mut chain: Vec<Oid> = chain.clone();
                    chain.push(edge.role);
                    ahead.push_back(seen.len());
                    seen.push((edge.role, chain));
                }
            }
        }
        seen.split_off(1)
    }

    /// The row of a membership that a grantor made.
    pub fn membership(&self, role: Oid, member: Oid, grantor: Option<Oid>) -> Option<&Membership> {
        self.memberships.iter().find(|edge| {
            edge.role == role
                && edge.member == member
                && grantor.is_none_or(|grantor| edge.grantor == grantor)
        })
    }
}
