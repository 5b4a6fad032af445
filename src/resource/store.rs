//! Rows of `keywright.resources`, many in one statement: made, changed, renamed, removed.

use super::kind::Kind;
use super::{BY_ID, BY_PARENT, MOST_ANCESTORS, ORGANIZATION, each_child, parent};
use crate::error::{Failure, Fault};
use crate::probe::Reader;
use crate::{spi, user};
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
        for id in &self.ids {
            Rule::ResourceId.check(id.as_bytes()).map_err(|broken| Failure::BadId { broken })?;
            if !seen.insert(id.as_str()) {
                let sentence = "An id is there twice.";
                return Err(Fault::new("ids", sentence, "Resources of one type have different ids.").into());
            }
        }
        let own = |(id, parent): (&String, &Option<String>)| parent.as_ref() == Some(id);
        if kind.parent.as_ref() == Some(&kind.name)
            && self.ids.iter().zip(self.parents.iter().flatten()).any(own)
        {
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

/// Makes and changes resources; how many there were to make or change. `require_shallow` comes after all of them.
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

/// No circle, and no more than 16 ancestors, for these and whatever lies below them.
pub fn require_shallow(kind: &Kind, stored: &Stored) -> Result<(), Failure<'static>> {
    const CHILDREN: &str = r#"
        SELECT r.type, r.id, r.parent_id FROM keywright.resources AS r
         WHERE r.parent_type = $1 AND r.parent_id = ANY ($2) AND NOT (r.type = $1 AND r.id = ANY ($2))"#;
    let Some(parent_kind) = kind.parent.as_ref().filter(|_| !stored.is_empty()) else { return Ok(()) };
    // What was just written is to be seen.
    // SAFETY: between two statements of ours.
    unsafe { pg_sys::CommandCounterIncrement() };
    let reader = Reader::new([&BY_ID, &BY_PARENT])?;
    let mut outside = HashMap::new();
    let mut depths: HashMap<&str, usize> = HashMap::with_capacity(stored.len());
    for id in stored.keys() {
        // Up to one whose depth is known, or that lies below another resource, or below none.
        let mut path = vec![id.as_str()];
        let base = loop {
            let at = path[path.len() - 1];
            if let Some(depth) = depths.get(at) {
                path.pop();
                break depth + 1;
            }
            match stored.get(at).and_then(Option::as_ref) {
                None => break 0,
                Some(above) if *parent_kind == kind.name && stored.contains_key(above) => path.push(above),
                Some(above) => {
                    let above = Resource { kind: parent_kind.clone(), id: above.clone() };
                    break depth(&reader, &above, &mut outside)? + 1;
                }
            }
            if path.len() > MOST_ANCESTORS + 1 {
                return Err(too_deep());
            }
        };
        for (below, at) in path.into_iter().rev().enumerate() {
            if base + below > MOST_ANCESTORS {
                return Err(too_deep());
            }
            depths.insert(at, base + below);
        }
    }
    // Those below that were there before, or are of other types.
    let ids: Vec<String> = stored.keys().cloned().collect();
    let args = [kind.name.as_str().into(), ids.into()];
    let mut below: Vec<(Resource, usize)> = spi::read_once(CHILDREN, &args, |row| {
        let parent: String = row.must(3);
        let depth = depths.get(parent.as_str()).map_or(0, |depth| depth + 1);
        (Resource { kind: row.must(1), id: row.must(2) }, depth)
    });
    while let Some((at, depth)) = below.pop() {
        if depth > MOST_ANCESTORS {
            return Err(too_deep());
        }
        each_child(&reader, 1, &at, |child| below.push((child, depth + 1)));
    }
    Ok(())
}

/// How many ancestors a resource has.
fn depth(
    reader: &Reader<2>,
    at: &Resource,
    depths: &mut HashMap<Resource, usize>,
) -> Result<usize, Failure<'static>> {
    let mut path = vec![at.clone()];
    let mut base = 0;
    while let Some(parent) = parent(reader, 0, &path[path.len() - 1].kind, &path[path.len() - 1].id) {
        if path.len() > MOST_ANCESTORS {
            return Err(too_deep());
        }
        if let Some(known) = depths.get(&parent) {
            base = known + 1;
            break;
        }
        path.push(parent);
    }
    let depth = base + path.len() - 1;
    for (up, at) in path.into_iter().enumerate() {
        depths.insert(at, depth - up);
    }
    Ok(depth)
}

fn too_deep() -> Failure<'static> {
    let sentence = "It would make a circle, or more than 16 ancestors.";
    Fault::new("parent_id", sentence, "Choose a parent nearer to the top.").into()
}

/// Gives resources other ids; bindings, and children that no table decides, go along. Takes a detour where one's
/// new id is another's old one. An id that somebody else's resource has is not taken from it.
pub fn rename(kind: &Kind, pairs: &[(String, String)]) {
    const RENAME: &str = r#"
        UPDATE keywright.resources AS r SET id = n.new_id, updated_at = pg_catalog.clock_timestamp()
          FROM unnest($2::text[], $3::text[]) AS n (old_id, new_id)
         WHERE r.type = $1 AND r.id = n.old_id"#;
    const CHILDREN: &str = r#"
        UPDATE keywright.resources AS r SET parent_id = n.new_id, updated_at = pg_catalog.clock_timestamp()
          FROM unnest($2::text[], $3::text[]) AS n (old_id, new_id)
         WHERE r.parent_type = $1 AND r.parent_id = n.old_id AND r.type <> ALL ($4)"#;
    const DETOUR: &str = "SELECT 'renaming-' || pg_catalog.gen_random_uuid() || '-' || n FROM pg_catalog.generate_series(1, $1) AS n";
    let pairs = net(pairs, &existing(kind, pairs));
    let taken =
        existing(kind, &pairs.iter().map(|(_, new)| (new.clone(), String::new())).collect::<Vec<_>>());
    // One that is blocked stays where it is, and blocks in turn whoever wanted its id.
    let mut pairs = pairs;
    loop {
        let leaving: HashSet<String> = pairs.iter().map(|(old, _)| old.clone()).collect();
        let before = pairs.len();
        pairs.retain(|(_, new)| !taken.contains(new) || leaving.contains(new));
        if pairs.len() == before {
            break;
        }
    }
    let old: HashSet<&String> = pairs.iter().map(|(old, _)| old).collect();
    let (from, to): (Vec<String>, Vec<String>) = pairs.iter().cloned().unzip();
    if from.is_empty() {
        return;
    }
    let step = |from: Vec<String>, to: Vec<String>| {
        let args = [kind.name.as_str().into(), from.into(), to.into(), tracked_types().into()];
        spi::count_once(RENAME, &args[..3]);
        spi::count_once(CHILDREN, &args);
    };
    if to.iter().any(|id| old.contains(id)) {
        let detour: Vec<String> = spi::read(DETOUR, &[(from.len() as i32).into()], |row| row.must(1));
        step(from, detour.clone());
        step(detour, to);
    } else {
        step(from, to);
    }
}

/// Those of the first ids that are resources.
fn existing(kind: &Kind, pairs: &[(String, String)]) -> HashSet<String> {
    const EXISTING: &str = "SELECT id FROM keywright.resources WHERE type = $1 AND id = ANY ($2)";
    let ids: Vec<String> = pairs.iter().map(|(id, _)| id.clone()).collect();
    spi::read_once(EXISTING, &[kind.name.as_str().into(), ids.into()], |row| row.must(1))
        .into_iter()
        .collect()
}

/// From where each went in the end: a row that changed its id twice in one statement did so by way of an id that
/// was no resource's.
fn net(pairs: &[(String, String)], resources: &HashSet<String>) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::with_capacity(pairs.len());
    let mut now: HashMap<&String, usize> = HashMap::new();
    for (old, new) in pairs {
        let step = match now.remove(old).filter(|_| !resources.contains(old)) {
            Some(step) => {
                steps[step].1.clone_from(new);
                step
            }
            None => {
                steps.push((old.clone(), new.clone()));
                steps.len() - 1
            }
        };
        now.insert(new, step);
    }
    steps.retain(|(old, new)| old != new);
    steps
}

/// The types that tables decide: what such a resource lies below is for its own row to say.
pub fn tracked_types() -> Vec<String> {
    const TYPES: &str = r#"
        SELECT DISTINCT pg_catalog.encode(pg_catalog.substring(t.tgargs, 1, pg_catalog.position(t.tgargs, pg_catalog.decode('00', 'hex')) - 1), 'escape')
          FROM pg_catalog.pg_trigger AS t
         WHERE t.tgfoid = 'keywright.track_resource()'::pg_catalog.regprocedure"#;
    spi::read(TYPES, &[], |row| row.must(1))
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
    let args = [kind.name.as_str().into(), ids.into(), tracked_types().into()];
    let removed = spi::count(REMOVE, &args[..2]);
    spi::count(ORPHAN, &args);
    removed
}
