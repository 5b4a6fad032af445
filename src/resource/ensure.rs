//! ensure_resource, ensure_resources, delete_resource.

use super::declared::columns;
use super::kind::Kind;
use super::store::{Wanted, changed, remove, require_unmanaged, store_all};
use super::{exists, hold};
use crate::args::Outcome;
use crate::error::{Failure, Fault};
use crate::manager::Claim;
use crate::{args, role, spi};
use keywright_core::name::Rule;
use keywright_core::resource::Resource;
use keywright_core::text::Kind as Words;
use pgrx::datum::Array;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn ensure_resource(
    kind: Option<&[u8]>,
    id: Option<&[u8]>,
    parent_id: Option<&[u8]>,
    words: Option<&[u8]>,
    managed_by: Option<&[u8]>,
) -> Result<Outcome, ErrorReport> {
    let mut faults = args::Faults::default();
    let kind = faults.sift(args::required("type", kind));
    let id = faults.sift(args::ruled(Rule::ResourceId, id));
    let parent_id = faults.sift(parent_id.map(|id| args::text("parent_id", Some(id))).transpose());
    let words = faults.sift(args::words("name", Words::DisplayName, words));
    let managed_by = faults.sift(args::words("managed_by", Words::Manager, managed_by));
    let (Some(kind), Some(id), Some(parent_id), Some(words), Some(managed_by)) =
        (kind, id, parent_id, words, managed_by)
    else {
        faults.report_but_name()?;
        return Ok(None);
    };
    let kind = Kind::find(kind)?;
    let wanted = Wanted {
        ids: vec![id.to_owned()],
        parents: parent_id.map(|id| vec![(!id.is_empty()).then(|| id.to_owned())]),
        names: words.map(|words| vec![Some(args::readable(words))]),
        manager: managed_by.map(|manager| String::from_utf8_lossy(manager).into_owned()),
        adopt: false,
    };
    wanted.check(&kind)?;
    let parent = wanted.parents.iter().flatten().flatten().next();
    let parent = parent.zip(kind.parent.clone()).map(|(id, kind)| Resource { kind, id: id.clone() });
    let resource = Resource { kind: kind.name.clone(), id: id.to_owned() };
    let manage = Manage { resource: &resource, managed_by };
    let wanted = changed(&kind, wanted);
    if wanted.ids.is_empty() && !manage.needed(false)? {
        return Ok(Some("unchanged"));
    }
    // Before the parent: where resources nest, one writer at a time.
    kind.hold(parent.is_some())?;
    if let Some(parent) = parent {
        hold(&parent)?;
    }
    manage.needed(true)?;
    let was_there = exists(&resource);
    let written = store_all(&kind, wanted)? + manage.note();
    Ok(Some(match (written, was_there) {
        (0, _) => "unchanged",
        (_, true) => "updated",
        (_, false) => "created",
    }))
}

/// Who manages a resource: nobody's is taken over by the first manager who names itself.
struct Manage<'a> {
    resource: &'a Resource,
    managed_by: Option<&'a [u8]>,
}

impl Manage<'_> {
    /// True when the manager has to be noted; refuses another manager's.
    fn needed(&self, lock: bool) -> Result<bool, Failure<'static>> {
        const LOOK: &str = "SELECT managed_by FROM keywright.resources WHERE type = $1 AND id = $2";
        const LOCK: &str =
            "SELECT managed_by FROM keywright.resources WHERE type = $1 AND id = $2 FOR NO KEY UPDATE";
        let manager = |row: &spi::Row| row.get::<String>(1);
        let found =
            if lock { spi::write(LOCK, &self.key(), manager) } else { spi::read(LOOK, &self.key(), manager) };
        match found.into_iter().next().flatten() {
            Some(manager) if lock && Some(manager.as_bytes()) != self.managed_by => {
                let what = format!("{} \"{}\"", self.resource.kind, self.resource.id);
                Err(Failure::OtherManager { what, manager })
            }
            manager => Ok(manager.is_none() && self.managed_by.is_some()),
        }
    }

    fn note(&self) -> u64 {
        const NOTE: &str = r#"
            UPDATE keywright.resources SET managed_by = $3, updated_at = pg_catalog.clock_timestamp()
             WHERE type = $1 AND id = $2 AND managed_by IS NULL"#;
        if self.managed_by.is_none() {
            return 0;
        }
        let [kind, id] = self.key();
        spi::count(NOTE, &[kind, id, spi::text(self.managed_by)])
    }

    fn key(&self) -> [spi::Arg<'_>; 2] {
        [self.resource.kind.as_str().into(), self.resource.id.as_str().into()]
    }
}

/// A list of ids, each with its null. An id that is not UTF-8 is none, whatever the database's encoding.
fn ids(argument: &'static str, list: &Array<&[u8]>) -> Result<Vec<Option<String>>, Fault> {
    list.iter().map(|id| id.map(|id| Ok(args::text(argument, Some(id))?.to_owned())).transpose()).collect()
}

#[pg_extern(sql = false)]
fn ensure_resources(
    kind: Option<&[u8]>,
    list: Option<Array<&[u8]>>,
    parent_ids: Option<Array<&[u8]>>,
    names: Option<Array<&[u8]>>,
) -> Result<i64, ErrorReport> {
    let mut faults = args::Faults::default();
    let kind = faults.sift(args::required("type", kind));
    let ids_given = faults.sift(args::required("ids", list.as_ref()).and_then(|list| {
        let Some(ids) = ids("ids", list)?.into_iter().collect::<Option<Vec<String>>>() else {
            return Err(Fault::new("ids", "An id is null.", "Every resource has an id."));
        };
        Ok(ids)
    }));
    let parents = faults.sift(parent_ids.as_ref().map(|list| ids("parent_ids", list)).transpose());
    let names: Option<Vec<Option<String>>> =
        names.as_ref().map(|list| list.iter().map(|words| words.map(args::readable)).collect());
    let mut words = names.iter().flatten().flatten().map(|name| name.as_bytes());
    faults.sift(words.try_for_each(|name| args::words("names", Words::DisplayName, Some(name)).map(|_| ())));
    let (Some(kind), Some(ids), Some(parents), true) = (kind, ids_given, parents, faults.is_empty()) else {
        return Err(Failure::from(faults).into());
    };
    let kind = Kind::find(kind)?;
    let fits = |list: &Option<Vec<_>>| list.as_ref().is_none_or(|list| list.len() == ids.len());
    if !fits(&parents) || !fits(&names) {
        let sentence = "The arrays have different lengths.";
        return Err(Fault::new("ids", sentence, "Give a parent and a name, or a null, for each id.").into());
    }
    let wanted = Wanted { ids, parents, names, ..Wanted::default() };
    wanted.check(&kind)?;
    let wanted = changed(&kind, wanted);
    require_unmanaged(&kind, &wanted.ids)?;
    Ok(store_all(&kind, wanted)? as i64)
}

#[pg_extern(sql = false)]
fn delete_resource(
    kind: Option<&[u8]>,
    id: Option<&[u8]>,
    with_children: Option<bool>,
    managed_by: Option<&[u8]>,
) -> Result<bool, ErrorReport> {
    const HOLD: &str = "SELECT managed_by FROM keywright.resources WHERE type = $1 AND id = $2 FOR UPDATE";
    const CHILDREN: &str =
        "SELECT FROM keywright.resources WHERE parent_type = $1 AND parent_id = $2 LIMIT 1";
    const BELOW: &str = r#"
        SELECT r.type, r.id, r.managed_by FROM keywright.resources AS r JOIN unnest($1::text[], $2::text[]) AS d (type, id)
            ON r.parent_type = d.type AND r.parent_id = d.id
         ORDER BY r.type, r.id FOR UPDATE OF r"#;
    const DELETE: &str = r#"
        DELETE FROM keywright.resources AS r USING unnest($1::text[], $2::text[]) AS d (type, id)
         WHERE r.type = d.type AND r.id = d.id"#;
    let mut faults = args::Faults::default();
    let with_children = faults.sift(args::required("with_children", with_children));
    let kind = faults.sift(args::required("type", kind));
    let id = faults.sift(args::required("id", id));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(with_children), Some(kind), Some(id), Some(claim)) = (with_children, kind, id, claim) else {
        return Err(Failure::from(faults).into());
    };
    let (Some(kind), Ok(id)) = (Kind::look(kind), str::from_utf8(id)) else { return Ok(false) };
    let resource = Resource { kind: kind.name.clone(), id: id.to_owned() };
    if !exists(&resource) {
        return Ok(false);
    }
    let args = [resource.kind.as_str().into(), id.into()];
    // Nothing can be put below it from here on.
    kind.hold(true)?;
    let what = |kind: &str, id: &str| format!("{kind} \"{id}\"");
    if !claim.hold(|| what(&resource.kind, id), HOLD, &args)? {
        return Ok(false);
    }
    if with_children {
        // Level by level: whoever is just putting something below holds what it lies below, and is waited for.
        let mut level = vec![resource.clone()];
        let mut gone: Vec<Resource> = level.clone();
        while !level.is_empty() {
            let below = |row: &spi::Row| -> (Resource, Option<Vec<u8>>) {
                (Resource { kind: row.must(1), id: row.must(2) }, row.get(3))
            };
            let found = spi::write_once(BELOW, &columns(&level), below);
            level = Vec::new();
            for (at, manager) in found {
                claim.require(|| what(&at.kind, &at.id), manager)?;
                // A circle, which only rows written by hand can make, ends.
                if !gone.contains(&at) {
                    level.push(at);
                }
            }
            gone.extend(level.iter().cloned());
        }
        // All bindings in one order.
        role::hold_bindings(&[], &gone, &[]);
        spi::count_once(DELETE, &columns(&gone[1..]));
    } else if !spi::read(CHILDREN, &args, |_| ()).is_empty() {
        let what = what(&resource.kind, id);
        let hint = "Delete those first, or pass with_children => true.";
        return Err(Failure::InUse { what, by: "Other resources lie below it.", hint }.into());
    }
    Ok(remove(&kind, vec![id.to_owned()]) > 0)
}
