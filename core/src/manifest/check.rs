//! What a manifest says of types and scopes, against those that a database knows and its own.

use super::{Fault, Manifest};
use crate::printable::quoted;
use crate::registry::{Lazy, Registry};
use crate::{allow_list, list, permission, scope};
use std::collections::{HashMap, HashSet};

impl Manifest {
    /// Brings permissions, scopes and allow-lists into their one spelling, or says what is wrong with them.
    ///
    /// The types and scopes of the manifest count as known.
    pub fn normalize(&mut self, registry: &Registry) -> Vec<Fault> {
        let mut faults = self.two_meanings(registry);
        let registry = self.extend(registry);
        let registry = Lazy::new(|| registry);
        let mut permissions = Cache::new(|list| permission::normalize(list, &registry));
        for (at, role) in self.roles.iter_mut().enumerate() {
            permissions.settle(&mut role.permissions, &mut faults, || format!("$.roles[{at}].permissions"));
        }
        for (at, scope) in self.scopes.iter_mut().enumerate() {
            permissions.settle(&mut scope.permissions, &mut faults, || format!("$.scopes[{at}].permissions"));
        }
        let mut scopes = Cache::new(|list| scope::normalize(list, &registry));
        let mut allow_lists = Cache::new(|list| allow_list::normalize(list, &registry));
        for (at, key) in self.api_keys.iter_mut().enumerate() {
            scopes.settle(&mut key.scopes, &mut faults, || format!("$.api_keys[{at}].scopes"));
            allow_lists.settle(&mut key.allow_list, &mut faults, || format!("$.api_keys[{at}].allow_list"));
        }
        faults
    }

    /// Where the first word of a scope is a type, the scope's name would be a permission too.
    fn two_meanings(&self, registry: &Registry) -> Vec<Fault> {
        let own_types = self.resource_types.iter().map(|entry| entry.kind.as_str());
        let own_scopes = self.scopes.iter().map(|entry| entry.name.as_str());
        let types: HashSet<&str> = registry.types().chain(own_types).collect();
        let words: HashSet<&str> = registry.scopes().chain(own_scopes).filter_map(first_word).collect();
        let mut faults = Vec::new();
        for (at, entry) in self.resource_types.iter().enumerate() {
            if words.contains(entry.kind.as_str()) {
                let sentence = "The name of a scope begins with this word.".into();
                faults.push(Fault { path: format!("$.resource_types[{at}].type"), sentence });
            }
        }
        for (at, entry) in self.scopes.iter().enumerate() {
            if first_word(&entry.name).is_some_and(|word| types.contains(word)) {
                let sentence =
                    "It reads as a permission, because its first word is a type of resource.".into();
                faults.push(Fault { path: format!("$.scopes[{at}].name"), sentence });
            }
        }
        faults
    }

    fn extend(&self, registry: &Registry) -> Registry {
        let mut registry = registry.clone();
        let types = self.resource_types.iter().map(|entry| entry.kind.clone());
        registry.extend(types, self.scopes.iter().map(|entry| entry.name.clone()));
        registry
    }
}

fn first_word(scope: &str) -> Option<&str> {
    scope.split_once(':').map(|(word, _)| word)
}

/// Most keys have the same few lists.
struct Cache<F> {
    normalize: F,
    known: HashMap<Vec<String>, Result<Vec<String>, list::Faults>>,
}

impl<F: Fn(&[Option<&str>]) -> Result<Vec<String>, list::Faults>> Cache<F> {
    fn new(normalize: F) -> Self {
        Cache { normalize, known: HashMap::new() }
    }

    fn settle(&mut self, list: &mut Vec<String>, faults: &mut Vec<Fault>, path: impl Fn() -> String) {
        if !self.known.contains_key(list) {
            let texts: Vec<Option<&str>> = list.iter().map(|text| Some(text.as_str())).collect();
            self.known.insert(list.clone(), (self.normalize)(&texts));
        }
        match &self.known[list] {
            Ok(normal) => list.clone_from(normal),
            Err(wrong) => {
                let mut sentence = wrong.sentences.join(" ");
                let meant: Vec<String> = wrong.nearest.iter().map(|word| quoted(word.as_bytes())).collect();
                if !meant.is_empty() {
                    sentence.push_str(&format!(" Did you mean {}?", meant.join(", ")));
                }
                faults.push(Fault { path: path(), sentence });
            }
        }
    }
}
