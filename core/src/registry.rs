//! The types and scopes a database knows, so that a slip of the pen is told from a permission.

use std::cell::{Cell, LazyCell};
use std::collections::HashSet;

#[derive(Debug, Default, Clone)]
pub struct Registry {
    types: HashSet<String>,
    scopes: HashSet<String>,
    compared: Cell<usize>,
}

/// A list of nothing but slips of the pen, held against everything there is, would take hours.
const MOST_COMPARED: usize = 200_000;

/// Asked for only when a list has something that must be looked up.
pub type Lazy<F> = LazyCell<Registry, F>;

impl Registry {
    /// The types, and the names of scopes, `all` among them.
    pub fn new(types: impl IntoIterator<Item = String>, scopes: impl IntoIterator<Item = String>) -> Self {
        Registry {
            types: types.into_iter().collect(),
            scopes: scopes.into_iter().collect(),
            compared: Cell::new(0),
        }
    }

    pub fn extend(
        &mut self,
        types: impl IntoIterator<Item = String>,
        scopes: impl IntoIterator<Item = String>,
    ) {
        self.types.extend(types);
        self.scopes.extend(scopes);
    }

    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.iter().map(String::as_str)
    }

    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(String::as_str)
    }

    pub fn has_type(&self, kind: &str) -> bool {
        self.types.contains(kind)
    }

    pub fn has_scope(&self, name: &str) -> bool {
        self.scopes.contains(name)
    }

    pub fn nearest_type(&self, kind: &str) -> Option<&str> {
        self.nearest(kind, &self.types)
    }

    pub fn nearest_scope(&self, name: &str) -> Option<&str> {
        self.nearest(name, &self.scopes)
    }

    /// Nothing once too much has been compared.
    fn nearest<'a>(&self, word: &str, known: &'a HashSet<String>) -> Option<&'a str> {
        let compared = self.compared.get().saturating_add(known.len());
        if compared > MOST_COMPARED {
            return None;
        }
        self.compared.set(compared);
        nearest(word, known)
    }
}

/// Comparing takes time and memory by the length, and what is longer is no slip of the pen.
const MOST: usize = 256;

/// The known word with the fewest slips of the pen between, if they are few for its length.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a String>) -> Option<&'a str> {
    if word.len() > MOST {
        return None;
    }
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), known.as_str()))
        .filter(|&(slips, known)| slips <= (word.len().max(known.len()) / 3).max(1))
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_near() {
        let known: Vec<String> = ["project", "agent", "session"].map(String::from).into();
        assert_eq!(nearest("projct", &known), Some("project"));
        assert_eq!(nearest("agnet", &known), Some("agent"));
        assert_eq!(nearest("workspace", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"a".repeat(300), &["a".repeat(299)]), None);
    }

    #[test]
    fn comparing_has_an_end() {
        let registry = Registry::new((0..1000).map(|n| format!("type{n}")), []);
        assert!((0..200).all(|_| registry.nearest_type("type1x").is_some()));
        assert_eq!(registry.nearest_type("type1x"), None);
        assert!(registry.has_type("type1"));
    }
}
