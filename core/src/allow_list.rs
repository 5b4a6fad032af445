//! The resources a key may be used on: entries `type:id`, `*` on either side for any.

use crate::list::{Faults, entries, is_word, uncovered};
use crate::printable::{is_hidden, quoted, quoted_of};
use crate::registry::{Lazy, Registry};
use crate::resource::{Resource, is_id};
use std::collections::BTreeSet;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    kind: String,
    id: String,
}

impl Entry {
    /// Split at the first `:`; `None` when it is no entry.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.trim().split_once(':')?;
        let kind = kind.to_ascii_lowercase();
        let well_formed = (kind == "*" || is_word(&kind)) && (id == "*" || is_id(id));
        well_formed.then(|| Entry { kind, id: id.to_owned() })
    }

    pub fn covers(&self, other: &Entry) -> bool {
        self.permits(&other.kind, &other.id)
    }

    /// True for a resource of this type and id. `*` as an id asks for all of the type.
    pub fn permits(&self, kind: &str, id: &str) -> bool {
        (self.kind == "*" || self.kind == kind) && (self.id == "*" || self.id == id)
    }

    /// The one resource it names, if it is one.
    pub fn resource(&self) -> Option<Resource> {
        (self.kind != "*" && self.id != "*")
            .then(|| Resource { kind: self.kind.clone(), id: self.id.clone() })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// An allow-list in its one spelling: sorted, without what another entry already covers.
pub fn normalize<B: AsRef<[u8]>, F: FnOnce() -> Registry>(
    list: &[Option<B>],
    registry: &Lazy<F>,
) -> Result<Vec<String>, Faults> {
    let mut parsed = BTreeSet::new();
    let mut faults = Faults::default();
    for text in entries(list, "allow-list entry")? {
        let Some(entry) = Entry::parse(text) else {
            faults.add(format!("{} is not of the form type:id.", quoted(text.as_bytes())));
            continue;
        };
        if entry.kind != "*" && !registry.has_type(&entry.kind) {
            let shown = quoted_of(text.as_bytes(), &entry.kind);
            faults.add(format!("{shown} is not a registered resource type."));
            let nearest = registry.nearest_type(&entry.kind).filter(|_| !is_hidden(text.as_bytes()));
            faults.suggest(nearest.map(|kind| format!("{kind}:{}", entry.id)));
        }
        parsed.insert(entry);
    }
    if faults.is_empty() { Ok(uncovered(&parsed, Entry::covers)) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(list: &[&str]) -> Result<Vec<String>, Faults> {
        let registry = Lazy::new(|| Registry::new(["project", "agent"].map(String::from), []));
        normalize(&list.iter().map(|s| Some(s.as_bytes())).collect::<Vec<_>>(), &registry)
    }

    #[test]
    fn one_spelling() {
        assert_eq!(norm(&["*:*", "project:p1"]).unwrap(), ["*:*"]);
        assert_eq!(norm(&["project:p2", "Project:p1", "project:p1"]).unwrap(), ["project:p1", "project:p2"]);
        assert_eq!(norm(&["project:*", "project:p1", "agent:P1"]).unwrap(), ["agent:P1", "project:*"]);
        assert_eq!(norm(&["project:a:b"]).unwrap(), ["project:a:b"]);
    }

    #[test]
    fn refused() {
        assert_eq!(
            norm(&["", ":", "project", "project:", "project:a b", "project:a*", "%:x", "project:\u{7}"])
                .unwrap_err()
                .sentences
                .len(),
            8
        );
        assert!(norm(&[]).is_err());
        assert!(norm(&[&format!("project:{}", "x".repeat(256))]).is_err());
        let unknown = norm(&["agnet:a1", "unknown:*"]).unwrap_err();
        assert_eq!((unknown.sentences.len(), unknown.nearest), (2, vec!["agent:a1".to_owned()]));
    }
}
