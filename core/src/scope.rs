//! The scopes a key carries: permissions, and registered names of several.

use crate::list::{Faults, entries, is_word, uncovered};
use crate::permission::Permission;
use crate::printable::quoted;
use crate::registry::{Lazy, Registry};
use std::collections::BTreeSet;

/// The built-in scope that holds every permission.
pub const ALL: &str = "all";

/// A word, or two joined by a colon.
pub fn is_name(text: &str) -> bool {
    match text.split_once(':') {
        Some((left, right)) => is_word(left) && is_word(right),
        None => is_word(text),
    }
}

/// Scopes in their one spelling: lower case, sorted, without what another entry already covers. A name stays
/// a name, so that what it stands for can be changed in one place.
pub fn normalize<B: AsRef<[u8]>, F: FnOnce() -> Registry>(
    list: &[Option<B>],
    registry: &Lazy<F>,
) -> Result<Vec<String>, Faults> {
    let mut everything = None;
    let mut names = BTreeSet::new();
    let mut permissions = BTreeSet::new();
    let mut faults = Faults::default();
    for entry in entries(list, "scope")? {
        let text = entry.trim().to_ascii_lowercase();
        let permission = Permission::parse(&text);
        if text == ALL {
            everything = Some(text);
        } else if permission.as_ref().is_some_and(Permission::is_everything) {
            everything.get_or_insert(text);
        } else if is_name(&text) && registry.has_scope(&text) {
            names.insert(text);
        } else if let Some(permission) = permission {
            permission.look_up(entry, registry, &mut faults);
            permissions.insert(permission);
        } else {
            let shown = quoted(entry.as_bytes());
            faults.add(format!("{shown} is neither a registered scope nor of the form type:action."));
            faults.suggest(registry.nearest_scope(&text).map(str::to_owned));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    if let Some(everything) = everything {
        return Ok(vec![everything]);
    }
    let mut normal = uncovered(&permissions, Permission::covers);
    normal.extend(names);
    normal.sort();
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(scopes: &[&str]) -> Result<Vec<String>, Faults> {
        raw(&scopes.iter().map(|s| Some(s.as_bytes())).collect::<Vec<_>>())
    }

    fn raw(scopes: &[Option<&[u8]>]) -> Result<Vec<String>, Faults> {
        let registry = Lazy::new(|| {
            let types = ["project", "agent", "a"].map(String::from);
            Registry::new(types, ["all", "deploy", "coder:all"].map(String::from))
        });
        normalize(scopes, &registry)
    }

    #[test]
    fn one_spelling() {
        assert_eq!(norm(&["all"]).unwrap(), ["all"]);
        assert_eq!(norm(&[" ALL ", "project:read"]).unwrap(), ["all"]);
        assert_eq!(
            norm(&["Project:Read", "project:read", "agent:run"]).unwrap(),
            ["agent:run", "project:read"]
        );
        assert_eq!(norm(&["project:*", "project:read", "agent:read"]).unwrap(), ["agent:read", "project:*"]);
        assert_eq!(norm(&["*:read", "project:read", "project:write"]).unwrap(), ["*:read", "project:write"]);
        assert_eq!(norm(&["*:*", "project:read", "deploy"]).unwrap(), ["*:*"]);
        assert_eq!(norm(&["*:*", "all"]).unwrap(), ["all"]);
        assert_eq!(
            norm(&["project:read", "Deploy", "coder:all", "deploy"]).unwrap(),
            ["coder:all", "deploy", "project:read"]
        );
    }

    #[test]
    fn every_fault_is_reported() {
        assert_eq!(norm(&["project", "a:b", "a:b:c", "", ":", "%:read"]).unwrap_err().sentences.len(), 5);
        assert_eq!(norm(&[]).unwrap_err().sentences.len(), 1);
        assert_eq!(raw(&[None, Some(b"all"), Some(&[0xff])]).unwrap_err().sentences.len(), 2);
        assert_eq!(
            norm(&["all", "project:kwk_x", "a:b"]).unwrap_err().sentences,
            ["Entry 2 holds what may be a token."]
        );
        assert_eq!(raw(&[Some(b"a:b".as_slice()); 129]).unwrap_err().sentences.len(), 1);
        assert!(raw(&[Some(b"a:b".as_slice()); 128]).is_ok());
    }

    #[test]
    fn the_nearest_is_named() {
        let faults = norm(&["deplyo", "agnt:run", "zzz"]).unwrap_err();
        assert_eq!(faults.sentences.len(), 3);
        assert_eq!(faults.nearest, ["deploy", "agent:run"]);
    }
}
