//! What a step changes.

use serde_json::{Map, Value, json};

/// What a step changes, as people and programs read it: a new value, or an old and a new one.
#[derive(Debug, Default)]
pub struct Change(pub Map<String, Value>);

impl Change {
    pub fn set<T: serde::Serialize + ?Sized>(&mut self, field: &str, value: &T) {
        self.0.insert(field.into(), json!(value));
    }

    /// A property that is left as it is, is not mentioned; an empty text is none.
    pub fn set_some(&mut self, field: &str, value: &Option<String>) {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            self.set(field, value);
        }
    }

    pub fn differ<T: serde::Serialize + PartialEq>(&mut self, field: &str, from: &T, to: &T) {
        if from != to {
            self.0.insert(field.into(), json!({"from": from, "to": to}));
        }
    }

    pub fn differ_some(&mut self, field: &str, from: &str, to: &Option<String>) {
        if let Some(to) = to.as_deref().filter(|to| *to != from) {
            let shown = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
            self.0.insert(field.into(), json!({"from": shown(from), "to": shown(to)}));
        }
    }
}
