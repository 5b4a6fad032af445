//! Types of resources: register_resource_type, delete_resource_type.

use super::{MOST_ANCESTORS, ORGANIZATION};
use crate::args::Outcome;
use crate::definition::{definition, lock, settle};
use crate::error::{Failure, Fault};
use crate::manager::Claim;
use crate::{args, scope, spi};
use keywright_core::name::Rule;
use keywright_core::text::Kind as Words;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

/// A registered type.
#[derive(Debug)]
pub struct Kind {
    pub name: String,
    pub parent: Option<String>,
    /// Which of this type and those above it lie below each other.
    pub nesting: Vec<String>,
}

impl Kind {
    pub fn find(name: &[u8]) -> Result<Kind, Failure<'static>> {
        Kind::look(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name).into_owned();
            let nearest = scope::registry().nearest_type(&name).map(str::to_owned);
            Failure::NoResourceType { kind: name, nearest }
        })
    }

    pub fn look(name: &[u8]) -> Option<Kind> {
        const FIND: &str = r#"
            WITH RECURSIVE above AS (
              SELECT t.type, t.parent_type, 0 AS steps FROM keywright.resource_types AS t WHERE t.type = $1
               UNION ALL
              SELECT t.type, t.parent_type, a.steps + 1
                FROM above AS a JOIN keywright.resource_types AS t ON t.type = a.parent_type
               WHERE a.type <> a.parent_type AND a.steps <= 17)
            SELECT type, parent_type, ARRAY(SELECT a.type FROM above AS a WHERE a.type = a.parent_type ORDER BY 1)
              FROM above WHERE steps = 0"#;
        let found = |row: &spi::Row| Kind { name: row.must(1), parent: row.get(2), nesting: row.must(3) };
        spi::read(FIND, &[spi::text(name)], found).pop()
    }

    /// Holds the type while resources of it are written: it is not changed or deleted meanwhile.
    ///
    /// One at a time are those who may move something where resources nest, because two could make a circle
    /// together (and nobody puts anything below meanwhile), and those who make organizations, whose system users
    /// are to be the same for all of them.
    pub fn hold(&self, moves: bool) -> Result<(), Failure<'static>> {
        const HOLD: &str = "SELECT parent_type FROM keywright.resource_types WHERE type = $1 FOR KEY SHARE";
        const QUEUE: &str =
            "SELECT parent_type FROM keywright.resource_types WHERE type = $1 FOR NO KEY UPDATE";
        const ABOVE: &str =
            "SELECT FROM keywright.resource_types WHERE type = ANY ($1) ORDER BY type FOR SHARE";
        let nests = self.parent.as_ref() == Some(&self.name);
        if moves && !nests && !self.nesting.is_empty() {
            spi::write(ABOVE, &[self.nesting.clone().into()], |_| ());
        }
        let queue = nests && moves || self.name == ORGANIZATION;
        let sql = if queue { QUEUE } else { HOLD };
        match spi::write(sql, &[self.name.as_str().into()], |row| row.get::<String>(1)).pop() {
            None => Err(Failure::NoResourceType { kind: self.name.clone(), nearest: None }),
            Some(parent) if parent != self.parent => {
                Err(Failure::NewerThanTransaction { what: format!("resource type \"{}\"", self.name) })
            }
            Some(_) => Ok(()),
        }
    }
}

#[pg_extern(sql = false)]
fn register_resource_type(
    name: Option<&[u8]>,
    parent: Option<&[u8]>,
    managed_by: Option<&[u8]>,
) -> Result<Outcome, ErrorReport> {
    let mut faults = args::Faults::default();
    let name = faults.sift(args::ruled(Rule::ResourceType, name));
    let managed_by = faults.sift(args::words("managed_by", Words::Manager, managed_by));
    let (Some(name), Some(managed_by)) = (name, managed_by) else {
        faults.report_but_name()?;
        return Ok(None);
    };
    Ok(Some(register(name, parent, managed_by, false)?))
}

pub fn register(
    name: &str,
    parent: Option<&[u8]>,
    managed_by: Option<&[u8]>,
    adopt: bool,
) -> Result<&'static str, Failure<'static>> {
    const LOOK: &str = r#"
        SELECT parent_type IS NOT DISTINCT FROM $2, built_in, managed_by
          FROM keywright.resource_types WHERE type = $1"#;
    const INSERT: &str =
        "INSERT INTO keywright.resource_types (type, parent_type, managed_by) VALUES ($1, $2, $3)";
    const UPDATE: &str = r#"
        UPDATE keywright.resource_types
           SET parent_type = $2, managed_by = coalesce($3, managed_by) WHERE type = $1"#;
    const HELD: &str = r#"
        SELECT FROM keywright.resources AS r
          JOIN keywright.resource_types AS t ON t.type = r.type
         WHERE r.type = $1 AND r.parent_type IS NOT NULL AND t.parent_type IS DISTINCT FROM $2 LIMIT 1"#;
    const CLOSE: &str = "SELECT FROM keywright.resource_types WHERE type = $1 FOR UPDATE";
    let parent = match parent {
        Some(parent) if parent != name.as_bytes() => Some(Kind::find(parent)?.name),
        parent => parent.map(|_| name.to_owned()),
    };
    let args = || -> [spi::Arg; 3] {
        [name.into(), spi::text(parent.as_deref().map(str::as_bytes)), spi::text(managed_by)]
    };
    let look = || spi::read(LOOK, &args()[..2], definition).pop();
    let insert = || {
        require_free_word(name)?;
        require_place(name, parent.as_deref())?;
        spi::count(INSERT, &args());
        Ok(())
    };
    let update = || {
        require_place(name, parent.as_deref())?;
        // Whoever writes resources of the type holds it.
        spi::write(CLOSE, &args()[..1], |_| ());
        if !spi::read(HELD, &args()[..2], |_| ()).is_empty() {
            return Err(Failure::HasParents { kind: name.to_owned() });
        }
        spi::count(UPDATE, &args());
        Ok(())
    };
    settle(&format!("resource type \"{name}\""), "resource_types", managed_by, adopt, look, insert, update)
}

/// A scope whose name begins with the word would become a permission.
fn require_free_word(name: &str) -> Result<(), Failure<'static>> {
    let taken =
        scope::registry().scopes().any(|scope| scope.split_once(':').is_some_and(|(word, _)| word == name));
    if taken {
        let sentence = "The name of a scope begins with this word.";
        return Err(Fault::new("type", sentence, "See keywright.list_scopes().").into());
    }
    Ok(())
}

/// The types above form no circle, but for a type whose resources nest, and are not too many; nor are those
/// that lie below.
fn require_place(name: &str, parent: Option<&str>) -> Result<(), Failure<'static>> {
    const ABOVE: &str = r#"
        WITH RECURSIVE above AS (
          SELECT $1::text COLLATE "C" AS type, 1 AS steps
           UNION ALL
          SELECT t.parent_type, a.steps + 1
            FROM above AS a JOIN keywright.resource_types AS t ON t.type = a.type
           WHERE t.parent_type <> t.type AND a.steps <= 17)
        SELECT type, steps FROM above"#;
    const BELOW: &str = r#"
        WITH RECURSIVE below AS (
          SELECT $1::text COLLATE "C" AS type, 0 AS steps
           UNION ALL
          SELECT t.type, b.steps + 1
            FROM below AS b JOIN keywright.resource_types AS t ON t.parent_type = b.type
           WHERE t.parent_type <> t.type AND b.steps <= 17)
        SELECT max(steps) FROM below"#;
    let Some(parent) = parent.filter(|parent| *parent != name) else { return Ok(()) };
    let above: Vec<(String, i32)> = spi::read(ABOVE, &[parent.into()], |row| (row.must(1), row.must(2)));
    let below: i32 = spi::read(BELOW, &[name.into()], |row| row.must(1)).pop().unwrap_or(0);
    let height = above.iter().map(|(_, steps)| *steps).max().unwrap_or(0) + below;
    let sentence = if above.iter().any(|(kind, _)| kind == name) {
        "It lies below this type itself."
    } else if height as usize > MOST_ANCESTORS {
        "There would be more than 16 levels of types above one."
    } else {
        return Ok(());
    };
    Err(Fault::new("parent_type", sentence, "See keywright.list_resource_types().").into())
}

#[pg_extern(sql = false)]
fn delete_resource_type(name: Option<&[u8]>, managed_by: Option<&[u8]>) -> Result<bool, ErrorReport> {
    let mut faults = args::Faults::default();
    let name = faults.sift(args::required("type", name));
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(name), Some(claim)) = (name, claim) else { return Err(Failure::from(faults).into()) };
    Ok(delete(name, claim)?)
}

pub fn delete(name: &[u8], claim: Claim) -> Result<bool, Failure<'static>> {
    const BUILT_IN: &str = "SELECT built_in FROM keywright.resource_types WHERE type = $1";
    const HOLD: &str = "SELECT managed_by FROM keywright.resource_types WHERE type = $1 FOR UPDATE";
    const USED: &str = r#"
        SELECT FROM keywright.resources WHERE type = $1
         UNION ALL
        SELECT FROM keywright.resource_types WHERE parent_type = $1 AND type <> $1
         UNION ALL
        SELECT FROM keywright.roles AS r, unnest(r.permissions) AS p WHERE pg_catalog.split_part(p, ':', 1) = $1
         UNION ALL
        SELECT FROM keywright.scopes AS s, unnest(s.permissions) AS p WHERE pg_catalog.split_part(p, ':', 1) = $1
         UNION ALL
        SELECT FROM keywright.api_keys AS k, unnest(k.scopes || k.allow_list) AS e WHERE pg_catalog.split_part(e, ':', 1) = $1
         LIMIT 1"#;
    const DELETE: &str = "DELETE FROM keywright.resource_types WHERE type = $1";
    let args = [spi::text(name)];
    let shown = || format!("resource type {}", keywright_core::printable::quoted(name));
    match spi::read(BUILT_IN, &args, |row| row.must(1)).pop() {
        None => return Ok(false),
        Some(true) => return Err(Failure::BuiltIn { what: shown() }),
        Some(false) => (),
    }
    // The table first, as whoever registers or defines does.
    lock("resource_types");
    if !claim.hold(shown, HOLD, &args)? {
        return Ok(false);
    }
    if !spi::read(USED, &args, |_| ()).is_empty() {
        let (by, hint) =
            ("Resources, other types, roles, scopes or API keys name it.", "Delete those first.");
        return Err(Failure::InUse { what: shown(), by, hint });
    }
    Ok(spi::count(DELETE, &args) > 0)
}
