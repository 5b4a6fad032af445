//! Permissions `type:action`, `*` on either side for any. Parsed, never matched as a pattern.

use crate::list::{Faults, entries, is_word, uncovered};
use crate::printable::{is_hidden, quoted, quoted_of};
use crate::registry::{Lazy, Registry};
use std::collections::BTreeSet;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    kind: String,
    action: String,
}

impl Permission {
    /// Trims and lowers; `None` when it is no permission.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (kind, action) = text.split_once(':')?;
        (is_side(kind) && is_side(action))
            .then(|| Permission { kind: kind.to_owned(), action: action.to_owned() })
    }

    /// True when whoever holds `self` holds `other` too.
    pub fn covers(&self, other: &Permission) -> bool {
        (self.kind == "*" || self.kind == other.kind) && (self.action == "*" || self.action == other.action)
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// True when it is about one action on one type.
    pub fn is_exact(&self) -> bool {
        self.kind != "*" && self.action != "*"
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.kind == "*" && self.action == "*"
    }

    /// Adds what is wrong when the type is not registered; `written` is what this was read from.
    pub fn look_up(&self, written: &str, registry: &Registry, faults: &mut Faults) {
        if self.kind != "*" && !registry.has_type(&self.kind) {
            let shown = quoted_of(written.as_bytes(), &self.kind);
            faults.add(format!("{shown} is not a registered resource type."));
            let nearest = registry.nearest_type(&self.kind).filter(|_| !is_hidden(written.as_bytes()));
            faults.suggest(nearest.map(|kind| format!("{kind}:{}", self.action)));
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.action)
    }
}

fn is_side(word: &str) -> bool {
    word == "*" || is_word(word)
}

/// Permissions in their one spelling: lower case, sorted, without what another one already covers.
pub fn normalize<B: AsRef<[u8]>, F: FnOnce() -> Registry>(
    list: &[Option<B>],
    registry: &Lazy<F>,
) -> Result<Vec<String>, Faults> {
    let mut permissions = BTreeSet::new();
    let mut faults = Faults::default();
    for entry in entries(list, "permission")? {
        match Permission::parse(entry) {
            Some(permission) => {
                if permission.kind != "*" {
                    permission.look_up(entry, registry, &mut faults);
                }
                permissions.insert(permission);
            }
            None => faults.add(format!("{} is not of the form type:action.", quoted(entry.as_bytes()))),
        }
    }
    if faults.is_empty() { Ok(uncovered(&permissions, Permission::covers)) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_parsed_not_matched() {
        for bad in
            ["pro*:read", "project:re*d", "**:read", "project:%", "_:read", "project:.*", "project", ""]
        {
            assert_eq!(Permission::parse(bad), None, "{bad}");
        }
        let parse = |text| Permission::parse(text).unwrap();
        assert!(parse("project:*").covers(&parse("project:read")));
        assert!(!parse("project:read").covers(&parse("project:*")));
        assert!(!parse("project:*").covers(&parse("project2:read")));
        assert!(parse("*:*").covers(&parse("a:b")));
    }

    #[test]
    fn types_must_be_registered() {
        let registry = Lazy::new(|| Registry::new(["project", "agent"].map(String::from), []));
        let faults =
            normalize(&[Some("projet:read"), Some("agent:run"), Some("x:y")], &registry).unwrap_err();
        assert_eq!(faults.sentences.len(), 2);
        assert_eq!(faults.nearest, ["project:read"]);
    }

    #[test]
    fn what_is_universal_asks_for_no_registry() {
        let registry = Lazy::new(|| panic!("asked"));
        assert_eq!(normalize(&[Some("*:*"), Some("*:read")], &registry).unwrap(), ["*:*"]);
    }
}
