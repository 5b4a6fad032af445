//! What services need, as it is stored: by name.

use super::{status, world};
use crate::error::{Failure, Fault};
use crate::{args, spi};
use keywright_core::authenticator::plan::World;
use keywright_core::authenticator::{Desired, Oid};
use keywright_core::printable::quoted;
use pgrx::pg_sys;
use std::collections::BTreeMap;

/// What is asked for, and by whom.
pub struct Wanted<'a> {
    pub desired: Desired,
    pub managed_by: Option<&'a [u8]>,
}

/// How the row has to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    New,
    Other,
}

impl Wanted<'_> {
    /// True when there is nothing to do, by what is seen without any lock.
    pub fn is_settled(&self) -> Result<bool, Failure<'static>> {
        Ok(self.differs()?.is_none() && status::is_settled(&self.desired))
    }

    /// What has to be written, if this manager may.
    pub fn differs(&self) -> Result<Option<Change>, Failure<'static>> {
        const MANAGER: &str = r#"
            SELECT a.managed_by, $2 IS NOT DISTINCT FROM a.managed_by FROM keywright.authenticators AS a WHERE a.service = $1"#;
        let service = self.desired.service.as_str();
        let Some(found) = find(service) else { return Ok(Some(Change::New)) };
        let args = [service.into(), spi::text(self.managed_by)];
        let (manager, ours): (Option<Vec<u8>>, bool) =
            spi::read(MANAGER, &args, |row| (row.get(1), row.must(2))).pop().unwrap_or_default();
        let same = found == self.desired;
        match manager {
            Some(manager) if !same && !ours => {
                let manager = String::from_utf8_lossy(&manager).into_owned();
                let what = format!("authenticator {}", quoted(service.as_bytes()));
                Err(Failure::OtherManager { what, manager })
            }
            None if self.managed_by.is_some() => Ok(Some(Change::Other)),
            _ => Ok((!same).then_some(Change::Other)),
        }
    }

    pub fn store(&self, change: Option<Change>) {
        const INSERT: &str = r#"
            INSERT INTO keywright.authenticators
                   (service, connect_as, anon_role, jwt_roles, schemas, noinherit, managed_by)
            VALUES ($1, $2, $3, $4, $5, $6, $7)"#;
        const UPDATE: &str = r#"
            UPDATE keywright.authenticators
               SET connect_as = $2, anon_role = $3, jwt_roles = $4, schemas = $5, noinherit = $6,
                   managed_by = coalesce($7, managed_by), updated_at = pg_catalog.clock_timestamp()
             WHERE service = $1"#;
        let desired = &self.desired;
        let args: [spi::Arg; 7] = [
            desired.service.as_str().into(),
            desired.connect_as.as_str().into(),
            spi::text(desired.anon_role.as_deref().map(str::as_bytes)),
            desired.jwt_roles.clone().into(),
            desired.schemas.clone().into(),
            desired.noinherit.into(),
            spi::text(self.managed_by),
        ];
        match change {
            None => 0,
            Some(Change::New) => spi::count(INSERT, &args),
            Some(Change::Other) => spi::count(UPDATE, &args),
        };
    }
}

/// A row as JSON, which is UTF-8 whatever the encoding of the database and wherever the row comes from.
fn from_row(row: &spi::Row) -> Option<Desired> {
    let json: Vec<u8> = row.must(1);
    let mut desired: Desired = serde_json::from_slice(&json).ok()?;
    let lists = desired.jwt_roles.iter_mut().chain(&mut desired.schemas).chain(&mut desired.anon_role);
    for name in lists.chain([&mut desired.connect_as]) {
        // What this database has no name for is nobody's here.
        if args::name(name.as_bytes()).is_none() {
            *name = name.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        }
    }
    Some(desired)
}

pub fn is_there(service: &str) -> bool {
    const THERE: &str = "SELECT FROM keywright.authenticators AS a WHERE a.service = $1";
    !spi::read(THERE, &[service.into()], |_| ()).is_empty()
}

pub fn find(service: &str) -> Option<Desired> {
    const FIND: &str = r#"
        SELECT pg_catalog.convert_to(pg_catalog.to_json(a)::text, 'UTF8')
          FROM keywright.authenticators AS a WHERE a.service = $1"#;
    spi::read(FIND, &[service.into()], from_row).pop().flatten()
}

/// The oldest first.
pub fn all() -> Vec<Desired> {
    const ALL: &str = r#"
        SELECT pg_catalog.convert_to(pg_catalog.to_json(a)::text, 'UTF8')
          FROM keywright.authenticators AS a ORDER BY a.created_at, a.service"#;
    spi::read(ALL, &[], from_row).into_iter().flatten().collect()
}

pub fn forget(service: &str) {
    // First, though they would go with their service: the foreign key looks under the snapshot of the transaction.
    const SETTINGS: &str = "DELETE FROM keywright.postgrest_settings WHERE service = $1";
    const FORGET: &str = "DELETE FROM keywright.authenticators WHERE service = $1";
    spi::count(SETTINGS, &[service.into()]);
    spi::count(FORGET, &[service.into()]);
}

/// What the roles of a service are called now, by the names it was granted by.
pub fn current_names(desired: &Desired) -> Result<BTreeMap<String, String>, Failure<'static>> {
    let world = world::look(std::slice::from_ref(desired));
    let names = desired.roles().into_iter().chain([desired.connect_as.as_str()]);
    names.map(|name| Ok((name.to_owned(), current_name(&world, desired, name)?))).collect()
}

fn current_name(world: &World, desired: &Desired, name: &str) -> Result<String, Failure<'static>> {
    const EXACTLY: &str = "SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = $1 AND r.rolname = $2";
    let Some(oid) = world.meant(desired).get(name).copied() else { return Ok(name.to_owned()) };
    let now = world.graph.name(oid);
    if spi::read(EXACTLY, &[pg_sys::Oid::from(oid).into(), now.into()], |_| ()).is_empty() {
        let sentence = "A role of the service has a name with other characters than ASCII, which takes a database in UTF8.";
        return Err(Fault::new("service", sentence, "").into());
    }
    Ok(now.to_owned())
}

/// The services whose authenticator is this role, the oldest first, each with its anonymous role as it is called now.
pub fn served_by(login: Oid) -> Result<Vec<(Desired, Option<String>)>, Failure<'static>> {
    let services = all();
    let world = world::look(&services);
    services
        .into_iter()
        .filter(|desired| world.meant(desired).get(&desired.connect_as) == Some(&login))
        .map(|desired| {
            let anon_role = desired.anon_role.as_deref();
            let anon_role = anon_role.map(|name| current_name(&world, &desired, name)).transpose()?;
            Ok((desired, anon_role))
        })
        .collect()
}

/// How a service is listed: each role by the name it has now. What this database cannot read is shown as question marks.
pub fn listed(desired: &Desired, world: &World) -> (String, Option<String>, Vec<String>) {
    let meant = world.meant(desired);
    let now = |name: &String| match meant.get(name) {
        Some(oid) => args::readable(world.graph.name(*oid).as_bytes()),
        None => name.clone(),
    };
    let mut jwt_roles: Vec<String> = desired.jwt_roles.iter().map(now).collect();
    jwt_roles.sort();
    (now(&desired.connect_as), desired.anon_role.as_ref().map(now), jwt_roles)
}

/// The role a service logs in as.
pub fn login_of(desired: &Desired) -> Option<Oid> {
    world::look(std::slice::from_ref(desired)).meant(desired).get(&desired.connect_as).copied()
}

/// True when another service logs in as the same role.
pub fn shares_its_login(desired: &Desired) -> Result<bool, Failure<'static>> {
    match login_of(desired) {
        Some(login) => Ok(served_by(login)?.len() > 1),
        None => Ok(false),
    }
}

/// The name of this database, for whoever connects to it.
pub fn database() -> Result<String, Failure<'static>> {
    const NAME: &str = "SELECT pg_catalog.current_database()::text";
    let name: Option<Vec<u8>> = spi::read(NAME, &[], |row| row.get(1)).pop().flatten();
    match name.as_deref().and_then(args::name) {
        Some(name) => Ok(name.to_owned()),
        None => {
            let sentence =
                "The database has a name with other characters than ASCII, which takes one in UTF8.";
            Err(Fault::new("service", sentence, "").into())
        }
    }
}
