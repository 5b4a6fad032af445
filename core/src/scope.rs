//! Permissions `type:action`, and the scopes a key carries.

use crate::MAX_ENTRIES;
use crate::printable::{looks_like_a_token, quoted};
use std::collections::BTreeSet;
use std::fmt;

/// The built-in scope that holds every permission.
pub const ALL: &str = "all";

const MOST: usize = 63;

/// `type:action`; `*` on either side stands for any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    kind: String,
    action: String,
}

impl Permission {
    /// Trims and lowers; `None` when it is no permission.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (kind, action) = text.split_once(':')?;
        (is_word(kind) && is_word(action))
            .then(|| Permission { kind: kind.to_owned(), action: action.to_owned() })
    }

    /// True when whoever holds `self` holds `other` too.
    pub fn covers(&self, other: &Permission) -> bool {
        (self.kind == "*" || self.kind == other.kind) && (self.action == "*" || self.action == other.action)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.action)
    }
}

/// `*`, or a lower-case letter followed by letters, digits, `_`, `.` and `-`: 1 to 63.
pub(crate) fn is_word(word: &str) -> bool {
    word == "*"
        || (word.len() <= MOST
            && word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b)))
}

/// Every entry that is wrong, each in a sentence.
pub type Faults = Vec<String>;

/// Scopes in their one spelling: lower case, sorted, without what another entry already covers.
pub fn normalize<B: AsRef<[u8]>>(scopes: &[Option<B>]) -> Result<Vec<String>, Faults> {
    let entries = entries(scopes, "scope")?;
    let mut all = false;
    let mut permissions = BTreeSet::new();
    let mut faults = Faults::new();
    for entry in entries {
        if entry.trim().eq_ignore_ascii_case(ALL) {
            all = true;
        } else if let Some(permission) = Permission::parse(entry) {
            permissions.insert(permission);
        } else {
            faults.push(format!(
                "{} is neither \"all\" nor of the form type:action.",
                quoted(entry.as_bytes())
            ));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    if all {
        return Ok(vec![ALL.to_owned()]);
    }
    Ok(uncovered(&permissions, Permission::covers))
}

/// The entries as text, or what is wrong with the list as a whole.
pub(crate) fn entries<'a, B: AsRef<[u8]>>(list: &'a [Option<B>], what: &str) -> Result<Vec<&'a str>, Faults> {
    if list.is_empty() {
        return Err(vec![format!("No {what} is given, which would permit nothing.")]);
    }
    if list.len() > MAX_ENTRIES {
        return Err(vec![format!("{} entries are given, at most {MAX_ENTRIES} are allowed.", list.len())]);
    }
    let texts: Vec<Option<&str>> = list
        .iter()
        .map(|entry| entry.as_ref().and_then(|bytes| str::from_utf8(bytes.as_ref()).ok()))
        .collect();
    let faults: Faults = (1..)
        .zip(&texts)
        .filter_map(|(at, text)| match text {
            None => Some(format!("Entry {at} is null or not text.")),
            Some(text) if looks_like_a_token(text.as_bytes()) => {
                Some(format!("Entry {at} holds what may be a token."))
            }
            Some(_) => None,
        })
        .collect();
    if faults.is_empty() { Ok(texts.into_iter().flatten().collect()) } else { Err(faults) }
}

/// The sorted texts of those members that no other member covers.
pub(crate) fn uncovered<T: Ord + fmt::Display>(
    set: &BTreeSet<T>,
    covers: impl Fn(&T, &T) -> bool,
) -> Vec<String> {
    let mut kept: Vec<String> = set
        .iter()
        .filter(|entry| !set.iter().any(|other| other != *entry && covers(other, entry)))
        .map(T::to_string)
        .collect();
    kept.sort();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(scopes: &[&str]) -> Result<Vec<String>, Faults> {
        normalize(&scopes.iter().map(|s| Some(s.as_bytes())).collect::<Vec<_>>())
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
        assert_eq!(norm(&["*:*", "project:read"]).unwrap(), ["*:*"]);
    }

    #[test]
    fn every_fault_is_reported() {
        assert_eq!(norm(&["project", "a:b", "a:b:c", "", ":", "%:read"]).unwrap_err().len(), 5);
        assert_eq!(norm(&[]).unwrap_err().len(), 1);
        assert_eq!(normalize(&[None, Some(b"all".as_slice()), Some(&[0xff])]).unwrap_err().len(), 2);
        assert_eq!(
            norm(&["all", "project:kwk_x", "a:b"]).unwrap_err(),
            ["Entry 2 holds what may be a token."]
        );
        assert_eq!(normalize(&vec![Some(b"a:b".as_slice()); 129]).unwrap_err().len(), 1);
        assert!(normalize(&vec![Some(b"a:b".as_slice()); 128]).is_ok());
    }

    #[test]
    fn wildcards_are_parsed_not_matched() {
        for bad in ["pro*:read", "project:re*d", "**:read", "project:%", "_:read", "project:.*"] {
            assert!(norm(&[bad]).is_err(), "{bad}");
        }
    }
}
