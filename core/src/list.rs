//! Lists of words a caller gives: every entry that is wrong is reported, and a list has one spelling.

use crate::MAX_ENTRIES;
use crate::printable::looks_like_a_token;
use std::collections::BTreeSet;
use std::fmt;

const MOST: usize = 63;

/// Everything that is wrong with a list, and what its author may have meant.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults {
    pub sentences: Vec<String>,
    pub nearest: Vec<String>,
}

impl Faults {
    pub fn is_empty(&self) -> bool {
        self.sentences.is_empty()
    }

    pub(crate) fn add(&mut self, sentence: String) {
        self.sentences.push(sentence);
    }

    pub(crate) fn suggest(&mut self, nearest: Option<String>) {
        self.nearest.extend(nearest);
    }
}

impl From<String> for Faults {
    fn from(sentence: String) -> Self {
        Faults { sentences: vec![sentence], nearest: Vec::new() }
    }
}

/// A lower-case letter followed by letters, digits, `_`, `.` and `-`: 1 to 63.
pub fn is_word(word: &str) -> bool {
    word.len() <= MOST
        && word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b))
}

/// The entries as text, or what is wrong with the list as a whole.
pub(crate) fn entries<'a, B: AsRef<[u8]>>(list: &'a [Option<B>], what: &str) -> Result<Vec<&'a str>, Faults> {
    if list.is_empty() {
        return Err(format!("No {what} is given, which would permit nothing.").into());
    }
    if list.len() > MAX_ENTRIES {
        return Err(format!("{} entries are given, at most {MAX_ENTRIES} are allowed.", list.len()).into());
    }
    let texts: Vec<Option<&str>> = list
        .iter()
        .map(|entry| entry.as_ref().and_then(|bytes| str::from_utf8(bytes.as_ref()).ok()))
        .collect();
    let mut faults = Faults::default();
    for (at, text) in (1..).zip(&texts) {
        match text {
            None => faults.add(format!("Entry {at} is null or not text.")),
            Some(text) if looks_like_a_token(text.as_bytes()) => {
                faults.add(format!("Entry {at} holds what may be a token."));
            }
            Some(_) => (),
        }
    }
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
