//! What a service needs of Postgres roles: what is wrong with them, what was granted, and what has to be done.

pub mod findings;
pub mod graph;
pub mod ledger;
pub mod plan;
#[cfg(test)]
mod tests;

/// The number Postgres knows a role or a database by; a name may change.
pub type Oid = u32;

/// A role or a database: its number, and what it was called when it was named.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Party {
    pub oid: Oid,
    pub name: String,
}

/// What a service asks for, roles by their names.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Desired {
    pub service: String,
    pub connect_as: String,
    /// None: requests without a JWT are refused.
    pub anon_role: Option<String>,
    pub jwt_roles: Vec<String>,
    pub schemas: Vec<String>,
    pub noinherit: bool,
}

impl Desired {
    /// With each name once; the anonymous role needs no other mention.
    pub fn new(
        service: String,
        connect_as: String,
        anon_role: Option<String>,
        mut jwt_roles: Vec<String>,
        all_schemas: Vec<String>,
        noinherit: bool,
    ) -> Desired {
        jwt_roles.sort();
        jwt_roles.dedup();
        jwt_roles.retain(|role| Some(role) != anon_role.as_ref());
        let mut schemas = Vec::new();
        for schema in all_schemas {
            if !schemas.contains(&schema) {
                schemas.push(schema);
            }
        }
        Desired { service, connect_as, anon_role, jwt_roles, schemas, noinherit }
    }

    /// The roles the authenticator switches to, each once.
    pub fn roles(&self) -> Vec<&str> {
        let mut roles: Vec<&str> = self.anon_role.as_deref().into_iter().collect();
        for role in &self.jwt_roles {
            if !roles.contains(&role.as_str()) {
                roles.push(role);
            }
        }
        roles
    }
}
