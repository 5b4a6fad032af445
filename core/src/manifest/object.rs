//! Reading JSON without stopping at the first fault.
//!
//! What is faulty is read as nothing or as an empty text. That never gets out, because a document with a fault is
//! refused as a whole.

use super::fault::{Fault, Path};
use super::json::Json;
use super::read::Interval;
use crate::name::Rule;
use crate::registry::nearest;
use crate::text::Kind;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The longest name Postgres has for a role or a schema.
const MOST_IDENTIFIER: usize = 63;

/// A place in the document, and where its faults go.
#[derive(Debug)]
pub struct At<'a> {
    pub path: Path<'a>,
    pub faults: &'a mut Vec<Fault>,
    pub interval: Interval,
}

impl At<'_> {
    /// Notes a fault. There is no value then.
    pub fn fault<T>(&mut self, sentence: impl Into<String>) -> Option<T> {
        self.faults.push(Fault { path: self.path.to_string(), sentence: sentence.into() });
        None
    }

    pub fn must_be<T>(&mut self, value: &Json, what: &str) -> Option<T> {
        let is = match value {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::Text(_) => "text",
            Json::List(_) => "a list",
            Json::Object(_) => "an object",
        };
        self.fault(format!("It is {is}, it must be {what}."))
    }

    pub fn object<T>(&mut self, value: Json, read: impl FnOnce(&mut Object) -> T) -> Option<T> {
        let Json::Object(members) = value else { return self.must_be(&value, "an object") };
        let mut object = Object {
            at: At { path: self.path, faults: self.faults, interval: self.interval },
            members,
            known: Vec::new(),
        };
        let entry = read(&mut object);
        object.refuse_unknown();
        Some(entry)
    }

    /// A list, each entry read at its own place.
    fn list<T>(
        &mut self,
        value: Json,
        (least, most): (usize, usize),
        mut read: impl FnMut(usize, Json, &mut At) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Json::List(entries) = value else { return self.must_be(&value, "a list") };
        if entries.len() < least {
            return self.fault("It is empty, it must have an entry.");
        }
        if entries.len() > most {
            return self.fault(format!("It has {} entries, at most {most} are allowed.", entries.len()));
        }
        let mut read_entry = |(index, entry)| {
            let path = Path::Index(&self.path, index);
            read(index, entry, &mut At { path, faults: self.faults, interval: self.interval })
        };
        let mut list = Vec::with_capacity(entries.len());
        list.extend(entries.into_iter().enumerate().filter_map(&mut read_entry));
        Some(list)
    }
}

/// An object that is being read. A key is known when somebody has asked for it.
#[derive(Debug)]
pub struct Object<'a> {
    at: At<'a>,
    members: Vec<(Cow<'a, str>, Json<'a>)>,
    known: Vec<&'static str>,
}

impl<'a> Object<'a> {
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Json, &mut At) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.take(key)?;
        let path = Path::Key(&self.at.path, key);
        read(value, &mut At { path, faults: self.at.faults, interval: self.at.interval })
    }

    pub fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Json, &mut At) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.fault(key, "It is missing.");
        }
        self.optional(key, read)
    }

    /// The value, or what it is when it is absent.
    pub fn or<T: Default>(
        &mut self,
        key: &'static str,
        default: impl FnOnce() -> T,
        read: impl FnOnce(Json, &mut At) -> Option<T>,
    ) -> T {
        let given = self.has(key);
        let value = self.optional(key, read);
        if given { value.unwrap_or_default() } else { default() }
    }

    pub fn name(&mut self, key: &'static str, rule: Rule) -> String {
        self.required(key, name(rule)).unwrap_or_default()
    }

    pub fn identifier(&mut self, key: &'static str) -> String {
        self.required(key, identifier).unwrap_or_default()
    }

    /// A list of objects of which no two are the same. Those without an identity are not compared.
    pub fn section<T>(
        &mut self,
        key: &'static str,
        most: usize,
        read: fn(&mut Object) -> T,
        identity: fn(&T) -> Option<String>,
    ) -> Vec<T> {
        let mut seen = HashMap::with_capacity(64);
        let mut read_entry = |index, value: Json, at: &mut At| {
            let Some(entry) = at.object(value, read) else { return Some(nothing(read, at.interval)) };
            match identity(&entry).map(|identity| seen.entry(identity)) {
                Some(Entry::Occupied(first)) => {
                    at.fault::<()>(format!("It is given already, at $.{key}[{}].", first.get()));
                }
                Some(Entry::Vacant(free)) => {
                    free.insert(index);
                }
                None => (),
            }
            Some(entry)
        };
        self.optional(key, |value, at| at.list(value, (0, most), &mut read_entry)).unwrap_or_default()
    }

    pub fn has(&self, key: &str) -> bool {
        self.members.iter().any(|(known, _)| known == key)
    }

    /// The last one, if the key is given twice.
    fn take(&mut self, key: &str) -> Option<Json<'a>> {
        let mut last = None;
        while let Some(at) = self.members.iter().rposition(|(known, _)| known == key) {
            let (_, value) = self.members.swap_remove(at);
            last.get_or_insert(value);
        }
        last
    }

    /// Notes a fault of one key.
    pub fn fault(&mut self, key: &str, sentence: &str) {
        let path = Path::Key(&self.at.path, key);
        At { path, faults: self.at.faults, interval: self.at.interval }.fault::<()>(sentence);
    }

    /// Notes a fault of the object as a whole.
    pub fn fault_of_all(&mut self, sentence: String) {
        self.at.fault::<()>(sentence);
    }

    fn refuse_unknown(mut self) {
        let mut members = std::mem::take(&mut self.members);
        if members.is_empty() {
            return;
        }
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        members.dedup_by(|(a, _), (b, _)| a == b);
        let known: Vec<String> = self.known.iter().map(|key| (*key).to_owned()).collect();
        for (key, _) in &members {
            let sentence = match nearest(key, &known) {
                Some(meant) => format!("There is no such key. Did you mean \"{meant}\"?"),
                None => "There is no such key.".into(),
            };
            self.fault(key, &sentence);
        }
    }
}

/// An entry that keeps the place of one that could not be read.
fn nothing<T>(read: fn(&mut Object) -> T, interval: Interval) -> T {
    let at = At { path: Path::Root, faults: &mut Vec::new(), interval };
    read(&mut Object { at, members: Vec::new(), known: Vec::new() })
}

pub fn text(value: Json, at: &mut At) -> Option<String> {
    match value {
        Json::Text(text) => Some(text.into_owned()),
        other => at.must_be(&other, "text"),
    }
}

pub fn flag(value: Json, at: &mut At) -> Option<bool> {
    match value {
        Json::Bool(flag) => Some(flag),
        other => at.must_be(&other, "true or false"),
    }
}

/// 2.0 is a whole number too, as in the JSON Schema.
pub fn whole(least: i32, most: i32) -> impl Fn(Json, &mut At) -> Option<i32> {
    move |value, at| {
        let what = || format!("a whole number from {least} to {most}");
        let Json::Number(number) = value else { return at.must_be(&value, &what()) };
        match number.fract() == 0.0 && (least.into()..=most.into()).contains(&number) {
            true => Some(number as i32),
            false => at.fault(format!("It must be {}.", what())),
        }
    }
}

pub fn name(rule: Rule) -> impl Fn(Json, &mut At) -> Option<String> {
    move |value, at| {
        let name = text(value, at)?;
        match rule.check(name.as_bytes()).err() {
            None => Some(name),
            Some(broken) => at.fault(format!("{} {}", broken.detail.replace('\n', " "), broken.hint)),
        }
    }
}

pub fn words(kind: Kind) -> impl Fn(Json, &mut At) -> Option<String> {
    move |value, at| {
        let words = text(value, at)?;
        let hint = match kind {
            Kind::Manager => "Give 1 to 63 printable ASCII characters without spaces.",
            _ => kind.hint(),
        };
        match kind.fault(words.as_bytes()) {
            None => Some(words),
            Some(fault) => at.fault(format!("{fault} {hint}")),
        }
    }
}

/// What Postgres calls a role or a schema.
pub fn identifier(value: Json, at: &mut At) -> Option<String> {
    let name = text(value, at)?;
    if name.is_empty() {
        at.fault("It is empty.")
    } else if name.len() > MOST_IDENTIFIER {
        at.fault(format!("It is {} bytes long, at most {MOST_IDENTIFIER} are allowed.", name.len()))
    } else if name.contains('\0') {
        at.fault("It holds a NUL character.")
    } else {
        Some(name)
    }
}

/// Null is the same as the empty text: none.
pub fn or_empty(
    read: impl FnOnce(Json, &mut At) -> Option<String>,
) -> impl FnOnce(Json, &mut At) -> Option<String> {
    |value, at| match value {
        Json::Null => Some(String::new()),
        Json::Text(text) if text.is_empty() => Some(String::new()),
        other => read(other, at),
    }
}

/// Null is the same as absent.
pub fn or_null(
    read: impl FnOnce(Json, &mut At) -> Option<String>,
) -> impl FnOnce(Json, &mut At) -> Option<String> {
    |value, at| if value == Json::Null { None } else { Some(read(value, at).unwrap_or_default()) }
}

pub fn list_of(
    length: (usize, usize),
    read: impl Fn(Json, &mut At) -> Option<String>,
) -> impl FnOnce(Json, &mut At) -> Option<Vec<String>> {
    move |value, at| at.list(value, length, |_, entry, at| read(entry, at))
}
