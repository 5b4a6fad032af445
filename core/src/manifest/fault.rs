//! What is wrong with a manifest, and where.

use crate::printable::quoted;
use std::fmt;

/// One thing that is wrong. Neither part repeats what may be a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A JSON path, such as `$.users[3].username`; `$` for the document.
    pub path: String,
    pub sentence: String,
}

/// The way to a value. It costs nothing until it is written out.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => f.write_str("$"),
            Path::Index(above, at) => write!(f, "{above}[{at}]"),
            Path::Key(above, key) => {
                let shown = quoted(key.as_bytes());
                let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                    && shown.strip_prefix('"').and_then(|shown| shown.strip_suffix('"')) == Some(key);
                if plain { write!(f, "{above}.{key}") } else { write!(f, "{above}[{shown}]") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str) -> String {
        Path::Key(&Path::Index(&Path::Root, 7), key).to_string()
    }

    #[test]
    fn written_out() {
        assert_eq!(key("display_name2"), "$[7].display_name2");
        assert_eq!(key("odd key"), "$[7][\"odd key\"]");
        assert_eq!(key("a\u{7}b"), "$[7][\"a?b\"]");
        assert_eq!(key(""), "$[7][\"\"]");
        assert_eq!(key("2a"), "$[7][\"2a\"]");
        assert_eq!(key(&"a".repeat(65)), format!("$[7][\"{}...\"]", "a".repeat(64)));
    }

    #[test]
    fn what_may_be_a_token_is_not_repeated() {
        for token in ["kwk_x", "kwk_canary", "FxseHkf1GN5lYH2bD72AsI"] {
            assert_eq!(key(token), "$[7][\"[redacted]\"]");
        }
    }
}
