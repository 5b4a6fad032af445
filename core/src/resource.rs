//! A resource of the application: a type and an id.

use crate::list::is_word;
use std::fmt;

const MOST_ID: usize = 255;

/// How deep resources, and types of resources, may lie.
pub const MOST_ANCESTORS: usize = 16;

/// The built-in type in which system users hold a role everywhere.
pub const ORGANIZATION: &str = "organization";

/// The type is a lower-case word; the id is the application's own and keeps its case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    pub kind: String,
    pub id: String,
}

impl Resource {
    /// `type:id`, split at the first `:`; `None` when it is no resource.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.trim().split_once(':')?;
        let kind = kind.to_ascii_lowercase();
        (is_word(&kind) && is_id(id)).then(|| Resource { kind, id: id.to_owned() })
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// 1 to 255 bytes without white space, control characters and `*`: an id is never a pattern.
pub fn is_id(id: &str) -> bool {
    (1..=MOST_ID).contains(&id.len()) && !id.chars().any(|c| c.is_whitespace() || c.is_control() || c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsed_at_the_first_colon() {
        let parsed = Resource::parse("Project:A:b").unwrap();
        assert_eq!((parsed.kind.as_str(), parsed.id.as_str()), ("project", "A:b"));
        for bad in ["", ":", "project", "project:", "*:p", "project:*", "project:a b", "1a:b"] {
            assert_eq!(Resource::parse(bad), None, "{bad}");
        }
    }
}
