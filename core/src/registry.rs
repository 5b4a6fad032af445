//! The types and scopes a database knows, so that a slip of the pen is told from a permission.

use std::cell::LazyCell;

#[derive(Debug, Default, Clone)]
pub struct Registry {
    pub types: Vec<String>,
    /// Names of scopes, `all` among them.
    pub scopes: Vec<String>,
}

/// Asked for only when a list has something that must be looked up.
pub type Lazy<F> = LazyCell<Registry, F>;

impl Registry {
    pub fn has_type(&self, kind: &str) -> bool {
        self.types.iter().any(|known| known == kind)
    }

    pub fn has_scope(&self, name: &str) -> bool {
        self.scopes.iter().any(|known| known == name)
    }

    pub fn nearest_type(&self, kind: &str) -> Option<&str> {
        nearest(kind, &self.types)
    }

    pub fn nearest_scope(&self, name: &str) -> Option<&str> {
        nearest(name, &self.scopes)
    }
}

/// Comparing takes time and memory by the length, and what is longer is no slip of the pen.
const MOST: usize = 256;

/// The known word with the fewest slips of the pen between, if they are few for its length.
pub fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    if word.len() > MOST {
        return None;
    }
    known
        .iter()
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
}
