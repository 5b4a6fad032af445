//! Types of resources: register_resource_type, delete_resource_type.

use super::MOST_ANCESTORS;
use crate::definition::{definition, settle};
use crate::error::{Failure, Fault};
use crate::{args, scope, spi};
use keywright_core::text::Kind as Words;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

/// A registered type.
#[derive(Debug)]
pub struct Kind {
    pub name: String,
    pub parent: Option<String>,
}

impl Kind {
    pub fn find(name: &[u8]) -> Result<Kind, Failure<'static>> {
        const FIND: &str = "SELECT type, parent_type FROM keywright.resource_types WHERE type = $1";
        let found = |row: &spi::Row| Kind { name: row.must(1), parent: row.get(2) };
        spi::read(FIND, &[spi::text(name)], found).pop().ok_or_else(|| {
            let name = String::from_utf8_lossy(name).into_owned();
            let nearest = scope::registry().nearest_type(&name).map(str::to_owned);
            Failure::NoResourceType { kind: name, nearest }
        })
    }

    /// Resources of this type lie below each other.
    pub fn nests(&self) -> bool {
        self.parent.as_ref() == Some(&self.name)
    }

    /// Holds the type while resources of it are written: it is not deleted meanwhile, nor are the system users
    /// of all organizations changed. Where resources nest there is one writer at a time, because two could make
    /// a circle together.
    pub fn hold(&self) -> Result<(), Failure<'static>> {
        const HOLD: &str = "SELECT FROM keywright.resource_types WHERE type = $1 FOR KEY SHARE";
        const QUEUE: &str = "SELECT FROM keywright.resource_types WHERE type = $1 FOR NO KEY UPDATE";
        let held = spi::write(if self.nests() { QUEUE } else { HOLD }, &[self.name.as_str().into()], |_| ());
        match held.is_empty() {
            true => Err(Failure::NoResourceType { kind: self.name.clone(), nearest: None }),
            false => Ok(()),
        }
    }
}

#[pg_extern(sql = false)]
fn register_resource_type(
    name: Option<&str>,
    parent: Option<&[u8]>,
    managed_by: Option<&[u8]>,
) -> Result<&'static str, ErrorReport> {
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
    const CLOSE: &str = "LOCK TABLE keywright.resources IN SHARE ROW EXCLUSIVE MODE";
    let name = args::required("type", name)?;
    let managed_by = args::words("managed_by", Words::Manager, managed_by)?;
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
        spi::utility(CLOSE);
        if !spi::read(HELD, &args()[..2], |_| ()).is_empty() {
            return Err(Failure::HasParents { kind: name.to_owned() });
        }
        spi::count(UPDATE, &args());
        Ok(())
    };
    Ok(settle(&format!("resource type \"{name}\""), "resource_types", managed_by, look, insert, update)?)
}

/// A scope whose name begins with the word would become a permission.
fn require_free_word(name: &str) -> Result<(), Failure<'static>> {
    let taken = scope::registry()
        .scopes
        .iter()
        .any(|scope| scope.split_once(':').is_some_and(|(word, _)| word == name));
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
fn delete_resource_type(name: Option<&[u8]>) -> Result<bool, ErrorReport> {
    const BUILT_IN: &str = "SELECT built_in FROM keywright.resource_types WHERE type = $1";
    const HOLD: &str = "SELECT FROM keywright.resource_types WHERE type = $1 FOR UPDATE";
    const USED: &str = r#"
        SELECT FROM keywright.resources WHERE type = $1
         UNION ALL
        SELECT FROM keywright.resource_types WHERE parent_type = $1 AND type <> $1
         LIMIT 1"#;
    const DELETE: &str = "DELETE FROM keywright.resource_types WHERE type = $1";
    let name = args::required("type", name)?;
    let args = [spi::text(name)];
    let shown = || format!("resource type {}", keywright_core::printable::quoted(name));
    match spi::read(BUILT_IN, &args, |row| row.must(1)).pop() {
        None => return Ok(false),
        Some(true) => return Err(Failure::BuiltIn { what: shown() }.into()),
        Some(false) => (),
    }
    spi::write(HOLD, &args, |_| ());
    if !spi::read(USED, &args, |_| ()).is_empty() {
        let (by, hint) =
            ("Resources or other types are of it.", "Delete those first: see keywright.list_resources.");
        return Err(Failure::InUse { what: shown(), by, hint }.into());
    }
    Ok(spi::count(DELETE, &args) > 0)
}
