//! How deep resources lie: no circle, and no more than 16 ancestors.
//!
//! Functions of ours ask at once (`require_shallow`). A statement on a tracked table may make on its way what it mends in
//! the end: one of its parts moves a folder below another that the next part moves away, a trigger of the application puts
//! a row right. So it is asked by a trigger of its own, which is queued behind all triggers of the statement
//! (`judge_later`), and comes again as long as one of them has written in between.

use super::kind::Kind;
use super::store::Stored;
use super::track::settle_rows;
use super::{BY_ID, BY_PARENT, MOST_ANCESTORS, each_child, parent};
use crate::error::{Failure, Fault};
use crate::own::Own;
use crate::probe::Reader;
use crate::record::Nothing;
use crate::{audit, spi};
use keywright_core::resource::Resource;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{pg_extern, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;

/// What statements that are not over yet have stored. Some may have failed meanwhile: then their level never comes.
static PENDING: Own<RefCell<Vec<Pending>>> = Own::new(RefCell::new(Vec::new()));

/// Resources of one type that a statement has stored.
struct Pending {
    level: Level,
    kind: String,
    stored: Stored,
    /// The command after which `stored` was so.
    at: pg_sys::CommandId,
    /// They were too deep at that time.
    refused: bool,
}

/// The statement whose triggers run: in a trigger that writes there is another one, of a greater depth.
#[derive(Clone, Copy, PartialEq)]
struct Level {
    transaction: u64,
    subtransaction: pg_sys::SubTransactionId,
    depth: i32,
}

impl Level {
    fn now() -> Level {
        const DEPTH: &str = "SELECT pg_catalog.pg_trigger_depth()";
        // SAFETY: looks at the transaction's own state.
        let (transaction, subtransaction) =
            unsafe { (pg_sys::GetTopFullTransactionIdIfAny().value, pg_sys::GetCurrentSubTransactionId()) };
        let depth = spi::read(DEPTH, &[], |row| row.must(1)).pop().unwrap_or(0);
        Level { transaction, subtransaction, depth }
    }
}

fn command() -> pg_sys::CommandId {
    // SAFETY: looks at the transaction's own state.
    unsafe { pg_sys::GetCurrentCommandId(false) }
}

/// Has these judged when the statement is over whose trigger is running.
pub fn judge_later(kind: &Kind, stored: Stored) {
    if !stored.is_empty() {
        queue(vec![Pending { level: Level::now(), kind: kind.name.clone(), stored, at: 0, refused: false }]);
    }
}

fn queue(mut pending: Vec<Pending>) {
    // Touches no row. It fires the trigger resources_depth, which the statement's own triggers go before.
    const QUEUE: &str = "UPDATE keywright.resources SET type = type WHERE false";
    spi::queue_triggers(QUEUE);
    pending.iter_mut().for_each(|pending| pending.at = command());
    PENDING.with_borrow_mut(|all| {
        all.retain(|known| known.level.transaction == pending[0].level.transaction);
        all.append(&mut pending);
    });
}

#[pg_extern(sql = false)]
fn judge_depth() -> Result<Nothing, ErrorReport> {
    let (level, now) = (Level::now(), command());
    let mut due: Vec<Pending> =
        PENDING.with_borrow_mut(|all| all.extract_if(.., |pending| pending.level == level).collect());
    let mut refused = false;
    audit::summed(|| {
        for pending in &mut due {
            let kind = Kind::find(pending.kind.as_bytes())?;
            // Nobody has written since, so it is still so.
            let settled = pending.at == now;
            if !settled {
                let own = pending.stored.iter().filter(|(id, parent)| parent.as_ref() == Some(id));
                let own: Vec<String> = own.map(|(id, _)| id.clone()).collect();
                pending.stored = read(&kind, &pending.stored);
                if !own.is_empty() {
                    settle_rows(&kind, &own, &mut pending.stored)?;
                }
            }
            if is_too_deep(&kind, &mut pending.stored)? {
                if settled && pending.refused {
                    return Err(too_far());
                }
                pending.refused = true;
                refused = true;
            }
        }
        Ok::<_, Failure>(())
    })?;
    if refused {
        due.retain(|pending| pending.refused);
        queue(due);
    }
    Ok(Nothing)
}

/// Whether one of these, or of what lies below them, is too deep. While a statement runs inside another one, resources
/// may be behind their rows: those above the one in question are looked at again.
fn is_too_deep(kind: &Kind, stored: &mut Stored) -> Result<bool, Failure<'static>> {
    while let Some(at) = too_deep(kind, stored)? {
        let mut above: HashMap<String, Vec<String>> = HashMap::new();
        for resource in lineage(at)? {
            above.entry(resource.kind).or_default().push(resource.id);
        }
        let mut written = 0;
        for (name, ids) in above {
            let other = Kind::find(name.as_bytes())?;
            let mut settled = Stored::new();
            written += settle_rows(&other, &ids, &mut settled)?;
            if other.name == kind.name {
                stored.extend(settled);
            }
        }
        if written == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A resource and what it lies below, as far up as it may be, and one more.
fn lineage(at: Resource) -> Result<Vec<Resource>, Failure<'static>> {
    let reader = Reader::new([&BY_ID])?;
    let mut path = vec![at];
    while path.len() <= MOST_ANCESTORS + 1 {
        let Some(last) = path.last() else { break };
        match parent(&reader, 0, &last.kind, &last.id) {
            Some(above) => path.push(above),
            None => break,
        }
    }
    Ok(path)
}

/// What these lie below now.
fn read(kind: &Kind, stored: &Stored) -> Stored {
    const READ: &str = "SELECT id, parent_id FROM keywright.resources WHERE type = $1 AND id = ANY ($2)";
    let ids: Vec<String> = stored.keys().cloned().collect();
    spi::read_once(READ, &[kind.name.as_str().into(), ids.into()], |row| (row.must(1), row.get(2)))
        .into_iter()
        .collect()
}

/// No circle, and no more than 16 ancestors, for these and whatever lies below them.
pub fn require_shallow(kind: &Kind, stored: &Stored) -> Result<(), Failure<'static>> {
    match too_deep(kind, stored)? {
        None => Ok(()),
        Some(_) => Err(too_far()),
    }
}

/// One that lies too deep: of these, or of whatever lies below them.
fn too_deep(kind: &Kind, stored: &Stored) -> Result<Option<Resource>, Failure<'static>> {
    const CHILDREN: &str = r#"
        SELECT r.type, r.id, r.parent_id FROM keywright.resources AS r
         WHERE r.parent_type = $1 AND r.parent_id = ANY ($2) AND NOT (r.type = $1 AND r.id = ANY ($2))"#;
    let Some(parent_kind) = kind.parent.as_ref().filter(|_| !stored.is_empty()) else { return Ok(None) };
    // What was just written is to be seen.
    // SAFETY: between two statements of ours.
    unsafe { pg_sys::CommandCounterIncrement() };
    let reader = Reader::new([&BY_ID, &BY_PARENT])?;
    let one = |id: &str| Some(Resource { kind: kind.name.clone(), id: id.to_owned() });
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
                    match depth(&reader, &above, &mut outside) {
                        Some(depth) => break depth + 1,
                        None => return Ok(one(id)),
                    }
                }
            }
            if path.len() > MOST_ANCESTORS + 1 {
                return Ok(one(id));
            }
        };
        for (below, at) in path.into_iter().rev().enumerate() {
            if base + below > MOST_ANCESTORS {
                return Ok(one(at));
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
            return Ok(Some(at));
        }
        each_child(&reader, 1, &at, |child| below.push((child, depth + 1)));
    }
    Ok(None)
}

/// How many ancestors a resource has; nothing where they are too many.
fn depth(reader: &Reader<2>, at: &Resource, depths: &mut HashMap<Resource, usize>) -> Option<usize> {
    let mut path = vec![at.clone()];
    let mut base = 0;
    while let Some(parent) = parent(reader, 0, &path[path.len() - 1].kind, &path[path.len() - 1].id) {
        if path.len() > MOST_ANCESTORS {
            return None;
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
    Some(depth)
}

fn too_far() -> Failure<'static> {
    let sentence = "It would make a circle, or more than 16 ancestors.";
    Fault::new("parent_id", sentence, "Choose a parent nearer to the top.").into()
}
