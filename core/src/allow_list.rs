//! The resources a key may be used on: entries `type:id`, `*` on either side for any.

use crate::printable::quoted;
use crate::scope::{Faults, entries, is_word, uncovered};
use std::collections::BTreeSet;
use std::fmt;

const MOST_ID: usize = 255;

/// The type is a lower-case word; the id is the application's own and keeps its case.
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
        (is_word(&kind) && is_id(id)).then(|| Entry { kind, id: id.to_owned() })
    }

    pub fn covers(&self, other: &Entry) -> bool {
        (self.kind == "*" || self.kind == other.kind) && (self.id == "*" || self.id == other.id)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// `*`, or 1 to 255 bytes without white space, control characters and `*`.
fn is_id(id: &str) -> bool {
    id == "*"
        || (!id.is_empty()
            && id.len() <= MOST_ID
            && !id.chars().any(|c| c.is_whitespace() || c.is_control() || c == '*'))
}

/// An allow-list in its one spelling: sorted, without what another entry already covers.
pub fn normalize<B: AsRef<[u8]>>(list: &[Option<B>]) -> Result<Vec<String>, Faults> {
    let mut parsed = BTreeSet::new();
    let mut faults = Faults::new();
    for text in entries(list, "allow-list entry")? {
        match Entry::parse(text) {
            Some(entry) => _ = parsed.insert(entry),
            None => faults.push(format!("{} is not of the form type:id.", quoted(text.as_bytes()))),
        }
    }
    if faults.is_empty() { Ok(uncovered(&parsed, Entry::covers)) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(list: &[&str]) -> Result<Vec<String>, Faults> {
        normalize(&list.iter().map(|s| Some(s.as_bytes())).collect::<Vec<_>>())
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
                .len(),
            8
        );
        assert!(norm(&[]).is_err());
        assert!(norm(&[&format!("project:{}", "x".repeat(256))]).is_err());
    }
}
