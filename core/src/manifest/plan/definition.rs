//! Types of resources, scopes and roles.

use super::change::Change;
use super::{Action, Kind, MALFORMED, MISSING, Planner, TAKEN, missing};
use crate::resource::MOST_ANCESTORS;
use std::collections::{BTreeSet, HashMap};

const TOO_MANY_LEVELS: &str = "It would make a circle, or more than 16 levels of types.";

impl Planner<'_> {
    pub fn types(&mut self) {
        let (manifest, state) = (self.manifest, self.state);
        let mut depths: Vec<(usize, usize)> = Vec::new();
        for (at, entry) in manifest.resource_types.iter().enumerate() {
            let path = |field: &str| format!("$.resource_types[{at}]{field}");
            if let Some(parent) = entry.parent_type.as_deref().filter(|parent| !self.knows_type(parent)) {
                self.refuse(
                    MISSING,
                    path(".parent_type"),
                    missing("resource type", parent, self.pruned.types.contains(parent)),
                );
                continue;
            }
            match height(&entry.kind, |kind| self.parent_type(kind)) {
                Some(depth) => depths.push((depth, at)),
                None => self.refuse(MALFORMED, path(".parent_type"), TOO_MANY_LEVELS),
            }
        }
        self.require_few_levels_below(&depths);
        depths.sort_unstable();
        for (_, at) in depths {
            let entry = &manifest.resource_types[at];
            let Some(found) = state.types.get(&entry.kind) else {
                let mut change = Change::default();
                change.set("parent_type", &entry.parent_type);
                self.push(Action::Create, Kind::ResourceType, at, &entry.kind, change.0);
                continue;
            };
            let mut change = Change::default();
            change.differ("parent_type", &found.parent, &entry.parent_type);
            if state.types_with_parents.contains(&entry.kind) && found.parent != entry.parent_type {
                let path = format!("$.resource_types[{at}].parent_type");
                self.refuse(TAKEN, path, "Resources of this type have parents. Take those away first.");
                continue;
            }
            let path = || format!("$.resource_types[{at}]");
            self.settle(Kind::ResourceType, at, &entry.kind, &found.owner, change, path);
        }
    }

    /// What lies below a type that moves moves along.
    fn require_few_levels_below(&mut self, ready: &[(usize, usize)]) {
        let entries = &self.manifest.resource_types;
        let places: HashMap<&str, usize> =
            ready.iter().map(|&(_, at)| (entries[at].kind.as_str(), at)).collect();
        if places.is_empty() {
            return;
        }
        let mut faulty = BTreeSet::new();
        for kind in self.state.types.keys().filter(|kind| !self.named.types.contains_key(*kind)) {
            if height(kind, |kind| self.parent_type(kind)).is_some() {
                continue;
            }
            let mut above = Some(kind.as_str());
            for _ in 0..=MOST_ANCESTORS {
                above = above.and_then(|kind| self.parent_type(kind));
                let moved = above.and_then(|kind| places.get(kind));
                if let Some(at) = moved {
                    faulty.insert(*at);
                    break;
                }
            }
        }
        for at in faulty {
            self.refuse(MALFORMED, format!("$.resource_types[{at}].parent_type"), TOO_MANY_LEVELS);
        }
    }

    pub fn scopes(&mut self) {
        for (at, entry) in self.manifest.scopes.iter().enumerate() {
            self.require_types(&entry.permissions, || format!("$.scopes[{at}].permissions"));
            let mut change = Change::default();
            let Some(found) = self.state.scopes.get(&entry.name) else {
                change.set("permissions", &entry.permissions);
                self.push(Action::Create, Kind::Scope, at, &entry.name, change.0);
                continue;
            };
            change.differ("permissions", &found.permissions, &entry.permissions);
            self.settle(Kind::Scope, at, &entry.name, &found.owner, change, || format!("$.scopes[{at}]"));
        }
    }

    pub fn roles(&mut self) {
        for (at, entry) in self.manifest.roles.iter().enumerate() {
            self.require_types(&entry.permissions, || format!("$.roles[{at}].permissions"));
            let mut change = Change::default();
            let Some(found) = self.state.roles.get(&entry.name) else {
                change.set("permissions", &entry.permissions);
                change.set("level", &entry.level);
                self.push(Action::Create, Kind::Role, at, &entry.name, change.0);
                continue;
            };
            change.differ("permissions", &found.permissions, &entry.permissions);
            change.differ("level", &found.level, &entry.level);
            self.settle(Kind::Role, at, &entry.name, &found.owner, change, || format!("$.roles[{at}]"));
        }
    }

    /// What is pruned can not be named.
    pub fn require_types(&mut self, entries: &[String], path: impl Fn() -> String) {
        let gone = |kind: &&str| self.pruned.types.contains(*kind);
        if let Some(kind) = entries.iter().filter_map(|e| e.split_once(':')).map(|(kind, _)| kind).find(gone)
        {
            let sentence = missing("resource type", kind, true);
            self.refuse(MISSING, path(), sentence);
        }
    }
}

/// How many types lie above; nothing when there is a circle or too many.
pub fn height<'a>(kind: &'a str, parent_of: impl Fn(&str) -> Option<&'a str>) -> Option<usize> {
    let (mut at, mut depth) = (kind, 0);
    while let Some(parent) = parent_of(at).filter(|parent| *parent != at) {
        (at, depth) = (parent, depth + 1);
        if depth > MOST_ANCESTORS {
            return None;
        }
    }
    Some(depth)
}
