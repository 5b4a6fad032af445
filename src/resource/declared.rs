//! Resources as a manifest has them, many in one statement.

use super::depth::require_shallow;
use super::kind::Kind;
use super::store::{Stored, Wanted, remove, store, tracked_types};
use crate::error::Failure;
use crate::spi;
use keywright_core::manifest::state::{self, Owner};
use keywright_core::resource::Resource;
use std::collections::HashSet;

fn from_row(row: &spi::Row) -> (Resource, state::Resource) {
    let found = state::Resource {
        parent_type: row.must(3),
        parent_id: row.must(4),
        name: spi::utf8(row.must(5)),
        owner: Owner { manager: row.get(6), built_in: false },
    };
    (Resource { kind: row.must(1), id: row.must(2) }, found)
}

/// These, and those of a manager.
pub fn find(resources: &[Resource], manager: Option<&str>) -> Vec<(Resource, state::Resource)> {
    const NAMED: &str = r#"
        SELECT r.type, r.id, coalesce(r.parent_type, ''), coalesce(r.parent_id, ''), pg_catalog.convert_to(r.name, e.utf8), r.managed_by
          FROM unnest($1::text[], $2::text[]) AS n (kind, id)
          JOIN keywright.resources AS r ON r.type = n.kind AND r.id = n.id,
               (SELECT CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END) AS e (utf8)"#;
    const OWNED: &str = r#"
        SELECT r.type, r.id, coalesce(r.parent_type, ''), coalesce(r.parent_id, ''), pg_catalog.convert_to(r.name, e.utf8), r.managed_by
          FROM keywright.resources AS r, (SELECT CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END) AS e (utf8)
         WHERE r.managed_by = $1"#;
    let mut found = match resources.is_empty() {
        true => Vec::new(),
        false => spi::read_once(NAMED, &columns(resources), from_row),
    };
    if let Some(manager) = manager {
        found.extend(spi::read_once(OWNED, &[manager.into()], from_row));
    }
    found
}

pub(super) fn columns(resources: &[Resource]) -> [spi::Arg<'static>; 2] {
    let column =
        |of: fn(&Resource) -> &String| -> Vec<String> { resources.iter().map(|at| of(at).clone()).collect() };
    [column(|at| &at.kind).into(), column(|at| &at.id).into()]
}

/// The types whose resources follow a table of the application.
pub fn tracked() -> HashSet<String> {
    tracked_types().into_iter().collect()
}

/// Which of these lie above which resources.
pub fn children(of: &[Resource]) -> Vec<(Resource, Resource)> {
    const CHILDREN: &str = r#"
        SELECT r.parent_type, r.parent_id, r.type, r.id
          FROM unnest($1::text[], $2::text[]) AS n (kind, id)
          JOIN keywright.resources AS r ON r.parent_type = n.kind AND r.parent_id = n.id"#;
    let resource = |row: &spi::Row, at| Resource { kind: row.must(at), id: row.must(at + 1) };
    spi::read_once(CHILDREN, &columns(of), |row| (resource(row, 1), resource(row, 3)))
}

/// All that lies below these, however far, each with that one of these.
pub fn below(of: &[Resource]) -> Vec<(Resource, (Resource, state::Resource))> {
    const BELOW: &str = r#"
        WITH RECURSIVE below AS (
          SELECT n.kind AS top_type, n.id AS top_id, n.kind AS type, n.id, 0 AS steps
            FROM unnest($1::text[] COLLATE "C", $2::text[] COLLATE "C") AS n (kind, id)
           UNION ALL
          SELECT b.top_type, b.top_id, r.type, r.id, b.steps + 1
            FROM below AS b JOIN keywright.resources AS r ON r.parent_type = b.type AND r.parent_id = b.id
           WHERE b.steps <= 16)
        SELECT r.type, r.id, coalesce(r.parent_type, ''), coalesce(r.parent_id, ''), pg_catalog.convert_to(r.name, e.utf8), r.managed_by,
               b.top_type, b.top_id
          FROM below AS b JOIN keywright.resources AS r ON r.type = b.type AND r.id = b.id,
               (SELECT CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END) AS e (utf8)
         WHERE b.steps > 0"#;
    spi::read_once(BELOW, &columns(of), |row| {
        (Resource { kind: row.must(7), id: row.must(8) }, from_row(row))
    })
}

/// Those of these types of which a resource has a parent.
pub fn with_parents(types: &[String]) -> Vec<String> {
    const HELD: &str = r#"
        SELECT n.name FROM unnest($1::text[]) AS n (name)
         WHERE EXISTS (SELECT FROM keywright.resources AS r WHERE r.type = n.name AND r.parent_type IS NOT NULL)"#;
    spi::read_once(HELD, &[types.to_vec().into()], |row| row.must(1))
}

/// Types that are going to be written, one writer at a time.
pub fn queue(types: &[String]) {
    const QUEUE: &str = r#"
        SELECT FROM keywright.resource_types AS t WHERE t.type = ANY ($1) ORDER BY t.type FOR NO KEY UPDATE"#;
    spi::write_once(QUEUE, &[types.to_vec().into()], |_| ());
}

/// Holds what is referred to against deletion, what changes or may lose an owner against who else changes it, and what is
/// going to be deleted against everything.
pub fn hold(resources: &[Resource], owned: &[Resource], gone: &[Resource]) {
    const GONE: &str = r#"
        SELECT FROM keywright.resources AS r JOIN unnest($1::text[], $2::text[]) AS n (kind, id) ON r.type = n.kind AND r.id = n.id
         ORDER BY r.type, r.id FOR UPDATE OF r"#;
    const OWNED: &str = r#"
        SELECT FROM keywright.resources AS r JOIN unnest($1::text[], $2::text[]) AS n (kind, id) ON r.type = n.kind AND r.id = n.id
         ORDER BY r.type, r.id FOR NO KEY UPDATE OF r"#;
    const HOLD: &str = r#"
        SELECT FROM keywright.resources AS r JOIN unnest($1::text[], $2::text[]) AS n (kind, id) ON r.type = n.kind AND r.id = n.id
         ORDER BY r.type, r.id FOR KEY SHARE OF r"#;
    for (sql, resources) in [(GONE, gone), (OWNED, owned), (HOLD, resources)] {
        if !resources.is_empty() {
            spi::write_once(sql, &columns(resources), |_| ());
        }
    }
}

/// True when the transaction's snapshot lacks one of these: foreign keys look there.
pub fn newer(resources: &[Resource]) -> bool {
    const SEEN: &str = r#"
        SELECT FROM (SELECT pg_catalog.count(*) AS n FROM keywright.resources AS r
                       JOIN unnest($1::text[], $2::text[]) AS n (kind, id) ON r.type = n.kind AND r.id = n.id) AS c
         WHERE c.n = pg_catalog.cardinality($1)"#;
    !spi::read_in_transaction_snapshot(SEEN, &columns(resources))
}

/// Stores resources of one type, whole rows, for a manager. `require_all_shallow` comes after all of them.
///
/// False when somebody else has made or taken over one of them meanwhile.
pub fn put(kind: &str, wanted: Wanted, stored: &mut Vec<(Kind, Stored)>) -> Result<bool, Failure<'static>> {
    let kind = Kind::find(kind.as_bytes())?;
    wanted.check(&kind)?;
    let all = store(&kind, &wanted)? == wanted.ids.len() as u64;
    let mut noted = Stored::new();
    wanted.note(&kind, &mut noted);
    stored.push((kind, noted));
    Ok(all)
}

pub fn require_all_shallow(stored: &[(Kind, Stored)]) -> Result<(), Failure<'static>> {
    stored.iter().try_for_each(|(kind, stored)| require_shallow(kind, stored))
}

pub fn delete(resource: &Resource) -> Result<bool, Failure<'static>> {
    let kind = Kind::find(resource.kind.as_bytes())?;
    Ok(remove(&kind, vec![resource.id.clone()]) > 0)
}
