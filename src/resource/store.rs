//! Rows of `keywright.resources`, many in one statement: made, changed, renamed, removed.

use super::kind::Kind;
use super::{MOST_ANCESTORS, ORGANIZATION};
use crate::error::{Failure, Fault};
use crate::{spi, user};
use keywright_core::name::Rule;
use std::collections::HashSet;

/// Resources of one type. A list that is missing leaves that property as it is.
#[derive(Debug, Default)]
pub struct Wanted {
    pub ids: Vec<String>,
    pub parents: Option<Vec<Option<String>>>,
    pub names: Option<Vec<Option<String>>>,
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

    fn args<'a>(&self, kind: &'a Kind) -> [spi::Arg<'a>; 7] {
        [
            kind.name.as_str().into(),
            self.ids.clone().into(),
            self.parents.clone().unwrap_or_default().into(),
            self.names.clone().unwrap_or_default().into(),
            spi::text(kind.parent.as_deref().map(str::as_bytes)),
            self.parents.is_some().into(),
            self.names.is_some().into(),
        ]
    }

    /// What can be said without looking anything up.
    pub fn check(&self, kind: &Kind) -> Result<(), Failure<'static>> {
        let mut seen = HashSet::with_capacity(self.ids.len());
        for id in &self.ids {
            Rule::ResourceId.check(id.as_bytes()).map_err(|broken| Failure::BadId { broken })?;
            if !seen.insert(id.as_str()) {
                let sentence = "An id is there twice.";
                return Err(Fault::new("ids", sentence, "Resources of one type have different ids.").into());
            }
        }
        let own = |(id, parent): (&String, &Option<String>)| parent.as_ref() == Some(id);
        if kind.nests() && self.ids.iter().zip(self.parents.iter().flatten()).any(own) {
            return Err(
                Fault::new("parent_id", "It is the resource itself.", "Choose another parent.").into()
            );
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
    };
    for (id, parent, name) in
        spi::read(CHANGED, &wanted.args(kind), |row| (row.must(1), row.get(2), row.get(3)))
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
    match spi::read(MANAGED, &args, |row| (row.must::<String>(1), row.must::<String>(2))).pop() {
        None => Ok(()),
        Some((id, manager)) => {
            Err(Failure::OtherManager { what: format!("{} \"{id}\"", kind.name), manager })
        }
    }
}

/// Makes and changes resources; how many there were to make or change.
pub fn store(kind: &Kind, wanted: &Wanted) -> Result<u64, Failure<'static>> {
    const STORE: &str = r#"
        INSERT INTO keywright.resources AS r (type, id, parent_type, parent_id, name)
        SELECT $1, n.id, CASE WHEN n.parent_id IS NOT NULL THEN $5 END, n.parent_id, coalesce(n.name, '')
          FROM unnest($2::text[], $3::text[], $4::text[]) AS n (id, parent_id, name)
        ON CONFLICT (type, id) DO UPDATE
           SET parent_type = CASE WHEN $6 THEN excluded.parent_type ELSE r.parent_type END,
               parent_id = CASE WHEN $6 THEN excluded.parent_id ELSE r.parent_id END,
               name = CASE WHEN $7 THEN excluded.name ELSE r.name END,
               updated_at = pg_catalog.clock_timestamp()
         WHERE ($6 AND (r.parent_type, r.parent_id) IS DISTINCT FROM (excluded.parent_type, excluded.parent_id))
            OR ($7 AND r.name <> excluded.name)"#;
    if wanted.ids.is_empty() {
        return Ok(0);
    }
    kind.hold()?;
    let stored = spi::count(STORE, &wanted.args(kind));
    if kind.nests() && wanted.parents.is_some() {
        require_shallow(kind, &wanted.ids)?;
    }
    if kind.name == ORGANIZATION {
        user::bind_to_organizations(&wanted.ids);
    }
    Ok(stored)
}

/// No circle, and no more than 16 ancestors, for these and whatever lies below them.
fn require_shallow(kind: &Kind, ids: &[String]) -> Result<(), Failure<'static>> {
    const DEEPEST: &str = r#"
        WITH RECURSIVE above AS (
          SELECT r.id AS root, r.parent_id AS id, 0 AS steps
            FROM keywright.resources AS r WHERE r.type = $1 AND r.id = ANY ($2)
           UNION ALL
          SELECT a.root, r.parent_id, a.steps + 1
            FROM above AS a JOIN keywright.resources AS r ON r.type = $1 AND r.id = a.id
           WHERE a.steps <= 17),
        below AS (
          SELECT r.id AS root, r.id, 0 AS steps
            FROM keywright.resources AS r WHERE r.type = $1 AND r.id = ANY ($2)
           UNION ALL
          SELECT b.root, r.id, b.steps + 1
            FROM below AS b JOIN keywright.resources AS r ON r.parent_type = $1 AND r.parent_id = b.id
           WHERE b.steps <= 17)
        SELECT coalesce(max(a.steps + b.steps), 0)
          FROM (SELECT root, max(steps) AS steps FROM above GROUP BY root) AS a
          JOIN (SELECT root, max(steps) AS steps FROM below GROUP BY root) AS b USING (root)"#;
    let args = [kind.name.as_str().into(), ids.to_vec().into()];
    let deepest: i32 = spi::read(DEEPEST, &args, |row| row.must(1)).pop().unwrap_or(0);
    if deepest as usize > MOST_ANCESTORS {
        let sentence = "It would make a circle, or more than 16 ancestors.";
        return Err(Fault::new("parent_id", sentence, "Choose a parent nearer to the top.").into());
    }
    Ok(())
}

/// Gives resources other ids; bindings and children go along. Takes a detour where one's new id is another's
/// old one.
pub fn rename(kind: &Kind, pairs: &[(String, String)]) {
    const RENAME: &str = r#"
        UPDATE keywright.resources AS r SET id = n.new_id, updated_at = pg_catalog.clock_timestamp()
          FROM unnest($2::text[], $3::text[]) AS n (old_id, new_id)
         WHERE r.type = $1 AND r.id = n.old_id"#;
    const DETOUR: &str = "SELECT 'renaming-' || pg_catalog.gen_random_uuid() || '-' || n FROM pg_catalog.generate_series(1, $1) AS n";
    if pairs.is_empty() {
        return;
    }
    let step = |from: Vec<String>, to: Vec<String>| {
        spi::count(RENAME, &[kind.name.as_str().into(), from.into(), to.into()]);
    };
    let (from, to): (Vec<String>, Vec<String>) = pairs.iter().cloned().unzip();
    let old: HashSet<&String> = from.iter().collect();
    if to.iter().any(|id| old.contains(id)) {
        let detour: Vec<String> = spi::read(DETOUR, &[(pairs.len() as i32).into()], |row| row.must(1));
        step(from, detour.clone());
        step(detour, to);
    } else {
        step(from, to);
    }
}

/// Removes resources; bindings on them go along, children lose their parent.
pub fn remove(kind: &Kind, ids: Vec<String>) -> u64 {
    const REMOVE: &str = "DELETE FROM keywright.resources WHERE type = $1 AND id = ANY ($2)";
    if ids.is_empty() { 0 } else { spi::count(REMOVE, &[kind.name.as_str().into(), ids.into()]) }
}
