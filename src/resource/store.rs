//! Rows of `keywright.resources`, many in one statement: made, changed, removed.

use super::kind::Kind;
use super::{ORGANIZATION, depth::require_shallow};
use crate::error::{Failure, Fault};
use crate::{role, spi, user};
use keywright_core::name::Rule;
use keywright_core::resource::Resource;
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};

/// Resources of one type. A list that is missing leaves that property as it is.
#[derive(Debug, Default)]
pub struct Wanted {
    pub ids: Vec<String>,
    pub parents: Option<Vec<Option<String>>>,
    pub names: Option<Vec<Option<String>>>,
    /// Who owns them from now on. What another manager owns is left alone, unless `adopt`.
    pub manager: Option<String>,
    pub adopt: bool,
}

impl Wanted {
    pub fn push(&mut self, id: String, parent: Option<String>, name: Option<String>) {
        self.ids.push(id);
        if let Some(parents) = &mut self.parents {
            parents.push(parent);
        }
        if let Some(names) = &mut self.names {
            names.push(name);
        }
    }

    fn args<'a>(&self, kind: &'a Kind) -> [spi::Arg<'a>; 9] {
        [
            kind.name.as_str().into(),
            self.ids.clone().into(),
            self.parents.clone().unwrap_or_default().into(),
            self.names.clone().unwrap_or_default().into(),
            spi::text(kind.parent.as_deref().map(str::as_bytes)),
            self.parents.is_some().into(),
            self.names.is_some().into(),
            self.manager.clone().into(),
            self.adopt.into(),
        ]
    }

    /// What can be said without looking anything up.
    pub fn check(&self, kind: &Kind) -> Result<(), Failure<'static>> {
        let mut seen = HashSet::with_capacity(self.ids.len());
        if !self.ids.iter().all(|id| seen.insert(id.as_str())) {
            let sentence = "An id is there twice.";
            return Err(Fault::new("ids", sentence, "Resources of one type have different ids.").into());
        }
        let own = |(id, parent): (&String, &Option<String>)| parent.as_ref() == Some(id);
        if kind.parent.as_ref() == Some(&kind.name)
            && self.ids.iter().zip(self.parents.iter().flatten()).any(own)
        {
            return Err(
                Fault::new("parent_id", "It is the resource itself.", "Choose another parent.").into()
            );
        }
        self.check_each(kind)
    }

    /// Takes a parent away that is the resource itself; of which. No such row can be stored.
    pub fn take_own(&mut self, kind: &Kind) -> Vec<String> {
        let mut own = Vec::new();
        if kind.parent.as_ref() == Some(&kind.name) {
            for (id, parent) in self.ids.iter().zip(self.parents.iter_mut().flatten()) {
                own.extend(parent.take_if(|parent| parent == id));
            }
        }
        own
    }

    /// The same where two of one id, or one below itself, are no fault.
    pub fn check_each(&self, kind: &Kind) -> Result<(), Failure<'static>> {
        for id in &self.ids {
            Rule::ResourceId.check(id.as_bytes()).map_err(|broken| Failure::BadId { broken })?;
        }
        let has_parent = self.parents.iter().flatten().any(Option::is_some);
        if has_parent && kind.parent.is_none() {
            let sentence = format!("Resources of type \"{}\" have no parents.", kind.name);
            let hint = "Register the type with a parent_type, or leave the parent out.";
            return Err(Fault::new("parent_id", sentence, hint).into());
        }
        Ok(())
    }
}

/// Those that are not yet as wanted. Only reads.
pub fn changed(kind: &Kind, wanted: Wanted) -> Wanted {
    const CHANGED: &str = r#"
        SELECT n.id, n.parent_id, n.name
          FROM unnest($2::text[], $3::text[], $4::text[]) AS n (id, parent_id, name)
          LEFT JOIN keywright.resources AS r ON r.type = $1 AND r.id = n.id
         WHERE r.id IS NULL
            OR ($6 AND (r.parent_id IS DISTINCT FROM n.parent_id
                        OR r.parent_id IS NOT NULL AND r.parent_type IS DISTINCT FROM $5))
            OR ($7 AND r.name <> coalesce(n.name, ''))"#;
    let mut changed = Wanted {
        ids: Vec::new(),
        parents: wanted.parents.as_ref().map(|_| Vec::new()),
        names: wanted.names.as_ref().map(|_| Vec::new()),
        manager: wanted.manager.clone(),
        adopt: wanted.adopt,
    };
    for (id, parent, name) in
        spi::read_once(CHANGED, &wanted.args(kind)[..7], |row| (row.must(1), row.get(2), row.get(3)))
    {
        changed.push(id, parent, name);
    }
    changed
}

/// Refuses to touch what belongs to a manager, for callers that are none.
pub fn require_unmanaged(kind: &Kind, ids: &[String]) -> Result<(), Failure<'static>> {
    const MANAGED: &str = r#"
        SELECT id, managed_by FROM keywright.resources
         WHERE type = $1 AND id = ANY ($2) AND managed_by IS NOT NULL LIMIT 1"#;
    let args = [kind.name.as_str().into(), ids.to_vec().into()];
    match spi::read_once(MANAGED, &args, |row| (row.must::<String>(1), row.must::<String>(2))).pop() {
        None => Ok(()),
        Some((id, manager)) => {
            Err(Failure::OtherManager { what: format!("{} \"{id}\"", kind.name), manager })
        }
    }
}

/// Makes and changes resources; how many there were to make or change. `require_shallow`, or `judge_later`, comes after all of them.
pub fn store(kind: &Kind, wanted: &Wanted) -> Result<u64, Failure<'static>> {
    const STORE: &str = r#"
        INSERT INTO keywright.resources AS r (type, id, parent_type, parent_id, name, managed_by)
        SELECT $1, n.id, CASE WHEN n.parent_id IS NOT NULL THEN $5 END, n.parent_id, coalesce(n.name, ''), $8
          FROM unnest($2::text[], $3::text[], $4::text[]) AS n (id, parent_id, name)
         ORDER BY n.id
        ON CONFLICT (type, id) DO UPDATE
           SET parent_type = CASE WHEN $6 THEN excluded.parent_type ELSE r.parent_type END,
               parent_id = CASE WHEN $6 THEN excluded.parent_id ELSE r.parent_id END,
               name = CASE WHEN $7 THEN excluded.name ELSE r.name END,
               managed_by = coalesce($8, r.managed_by),
               updated_at = pg_catalog.clock_timestamp()
         WHERE ($8 IS NULL OR $9 OR coalesce(r.managed_by, $8) = $8)
           AND (($6 AND (r.parent_type, r.parent_id) IS DISTINCT FROM (excluded.parent_type, excluded.parent_id))
                OR ($7 AND r.name <> excluded.name)
                OR r.managed_by IS DISTINCT FROM coalesce($8, r.managed_by))"#;
    if wanted.ids.is_empty() {
        return Ok(0);
    }
    let moves = wanted.parents.iter().flatten().any(Option::is_some);
    kind.hold(moves)?;
    let stored = spi::count_once(STORE, &wanted.args(kind));
    if kind.name == ORGANIZATION {
        user::bind_to_organizations(&wanted.ids)?;
    }
    Ok(stored)
}

/// `store` of a list that is all there is to store.
pub fn store_all(kind: &Kind, wanted: Wanted) -> Result<u64, Failure<'static>> {
    let written = store(kind, &wanted)?;
    let mut stored = Stored::new();
    wanted.note(kind, &mut stored);
    require_shallow(kind, &stored)?;
    Ok(written)
}

/// Resources that were stored, and what they lie below.
pub type Stored = HashMap<String, Option<String>>;

impl Wanted {
    /// Adds what was just stored, where it matters how deep it lies.
    pub fn note(self, kind: &Kind, stored: &mut Stored) {
        if let Some(parents) = self.parents.filter(|_| !kind.nesting.is_empty()) {
            stored.extend(self.ids.into_iter().zip(parents));
        }
    }
}

/// Makes resources, none of which is there. False when one is, or two of them have one id.
pub fn store_new(kind: &Kind, wanted: &Wanted) -> Result<bool, Failure<'static>> {
    const STORE_NEW: &str = r#"
        INSERT INTO keywright.resources (type, id, parent_type, parent_id, name)
        SELECT $1, n.id, CASE WHEN n.parent_id IS NOT NULL THEN $5 END, n.parent_id, coalesce(n.name, '')
          FROM unnest($2::text[], $3::text[], $4::text[]) AS n (id, parent_id, name)
         ORDER BY n.id
        ON CONFLICT (type, id) DO NOTHING"#;
    kind.hold(wanted.parents.iter().flatten().any(Option::is_some))?;
    let stored = spi::count_once(STORE_NEW, &wanted.args(kind)[..5]);
    if kind.name == ORGANIZATION {
        user::bind_to_organizations(&wanted.ids)?;
    }
    Ok(stored == wanted.ids.len() as u64)
}

/// The types that tables decide: what such a resource lies below is for its own row to say.
pub fn tracked_types() -> Vec<String> {
    const TYPES: &str = r#"
        SELECT DISTINCT pg_catalog.encode(pg_catalog.substring(t.tgargs, 1, pg_catalog.position(t.tgargs, pg_catalog.decode('00', 'hex')) - 1), 'escape')
          FROM pg_catalog.pg_trigger AS t
         WHERE t.tgfoid = 'keywright.track_resource()'::pg_catalog.regprocedure"#;
    spi::read(TYPES, &[], |row| row.must(1))
}

/// The table that decides a type, and what its triggers were declared with, each followed by a NUL.
pub fn root_and_args(kind: &str) -> Option<(pg_sys::Oid, Vec<u8>)> {
    const TABLE: &str = r#"
        SELECT t.tgrelid, t.tgargs FROM pg_catalog.pg_trigger AS t
         WHERE t.tgfoid = 'keywright.track_resource()'::pg_catalog.regprocedure
           AND pg_catalog.substring(t.tgargs, 1, pg_catalog.octet_length($1) + 1)
               = pg_catalog.convert_to($1, 'SQL_ASCII') || pg_catalog.decode('00', 'hex')
         ORDER BY coalesce(pg_catalog.pg_partition_root(t.tgrelid), t.tgrelid) = t.tgrelid DESC LIMIT 1"#;
    spi::read(TABLE, &[kind.into()], |row| (row.must(1), row.must(2))).pop()
}

/// Holds resources against everybody; how many role bindings there are on them.
pub fn hold_bound(kind: &Kind, mut ids: Vec<String>) -> i64 {
    const HOLD: &str =
        "SELECT FROM keywright.resources WHERE type = $1 AND id = ANY ($2) ORDER BY id FOR UPDATE";
    const BOUND: &str = "SELECT pg_catalog.count(*) FROM keywright.role_bindings WHERE resource_type = $1 AND resource_id = ANY ($2)";
    ids.sort();
    let args = [kind.name.as_str().into(), ids.into()];
    spi::write_once(HOLD, &args, |_| ());
    spi::read_once(BOUND, &args, |row| row.must(1)).pop().unwrap_or(0)
}

/// Removes resources; bindings on them go along, children that no table decides lose their parent.
pub fn remove(kind: &Kind, mut ids: Vec<String>) -> u64 {
    const ORPHAN: &str = r#"
        UPDATE keywright.resources
           SET parent_type = NULL, parent_id = NULL, updated_at = pg_catalog.clock_timestamp()
         WHERE parent_type = $1 AND parent_id = ANY ($2) AND type <> ALL ($3)"#;
    const REMOVE: &str = "DELETE FROM keywright.resources WHERE type = $1 AND id = ANY ($2)";
    if ids.is_empty() {
        return 0;
    }
    ids.sort();
    let gone: Vec<Resource> =
        ids.iter().map(|id| Resource { kind: kind.name.clone(), id: id.clone() }).collect();
    role::hold_bindings(&[], &gone, &[]);
    let args = [kind.name.as_str().into(), ids.into(), tracked_types().into()];
    let removed = spi::count(REMOVE, &args[..2]);
    spi::count(ORPHAN, &args);
    removed
}
