//! Resources, parents first.

use super::change::Change;
use super::{Action, Kind, MALFORMED, MISSING, Planner, TAKEN, missing};
use crate::resource::{MOST_ANCESTORS, Resource};
use std::collections::{BTreeSet, HashMap};

const TOO_DEEP: &str = "It would make a circle, or more than 16 ancestors.";

impl Planner<'_> {
    pub fn resources(&mut self) {
        let (manifest, state) = (self.manifest, self.state);
        let mut ready: Vec<(usize, usize)> = Vec::new();
        for (at, entry) in manifest.resources.iter().enumerate() {
            let path = |field: &str| format!("$.resources[{at}]{field}");
            if !self.knows_type(&entry.kind) {
                self.refuse(
                    MISSING,
                    path(".type"),
                    missing("resource type", &entry.kind, self.pruned.types.contains(&entry.kind)),
                );
                continue;
            }
            if state.tracked.contains(&entry.kind) {
                let sentence = "Resources of this type follow a table of the application.";
                self.refuse(TAKEN, path(".type"), sentence);
                continue;
            }
            if let Some(parent) = entry.parent_id.as_deref().filter(|id| !id.is_empty()) {
                let Some(kind) = self.parent_type(&entry.kind) else {
                    let sentence = format!("Resources of type \"{}\" have no parents.", entry.kind);
                    self.refuse(MALFORMED, path(".parent_id"), sentence);
                    continue;
                };
                let parent = Resource { kind: kind.to_owned(), id: parent.to_owned() };
                if !self.knows_resource(&parent) {
                    self.refuse(
                        MISSING,
                        path(".parent_id"),
                        missing(&parent.kind, &parent.id, self.pruned.resources.contains(&parent)),
                    );
                    continue;
                }
            }
            match self.ancestors(Resource { kind: entry.kind.clone(), id: entry.id.clone() }) {
                Some(depth) => ready.push((depth, at)),
                None => self.refuse(MALFORMED, path(".parent_id"), TOO_DEEP),
            }
        }
        self.require_shallow_below(&ready);
        ready.sort_unstable();
        for (_, at) in ready {
            self.resource(at);
        }
    }

    /// How many resources are going to lie above; nothing when there is a circle or too many.
    fn ancestors(&self, resource: Resource) -> Option<usize> {
        let above = |resource: &Resource| {
            let wanted = self.named.resources.get(resource).and_then(|parent| parent.as_deref());
            let found = || self.state.resources.get(resource).map(|found| found.parent_id.as_str());
            let id = wanted.or_else(found).filter(|id| !id.is_empty())?;
            Some(Resource { kind: self.parent_type(&resource.kind)?.to_owned(), id: id.to_owned() })
        };
        let (mut at, mut depth) = (resource, 0);
        while let Some(parent) = above(&at) {
            (at, depth) = (parent, depth + 1);
            if depth > MOST_ANCESTORS {
                return None;
            }
        }
        Some(depth)
    }

    /// What lies below something that moves moves along.
    fn require_shallow_below(&mut self, ready: &[(usize, usize)]) {
        let entries = &self.manifest.resources;
        let place = |at: usize| (entries[at].kind.as_str(), entries[at].id.as_str());
        let places: HashMap<(&str, &str), usize> = ready.iter().map(|&(_, at)| (place(at), at)).collect();
        let too_deep = |(moved, below): &&(Resource, Resource)| {
            !self.named.resources.contains_key(below)
                && places.contains_key(&(moved.kind.as_str(), moved.id.as_str()))
                && self.ancestors(below.clone()).is_none()
        };
        let moved: Vec<&Resource> =
            self.state.below.iter().filter(too_deep).map(|(moved, _)| moved).collect();
        let faulty: BTreeSet<usize> =
            moved.iter().filter_map(|at| places.get(&(at.kind.as_str(), at.id.as_str())).copied()).collect();
        for at in faulty {
            self.refuse(MALFORMED, format!("$.resources[{at}].parent_id"), TOO_DEEP);
        }
    }

    fn resource(&mut self, at: usize) {
        let entry = &self.manifest.resources[at];
        let resource = Resource { kind: entry.kind.clone(), id: entry.id.clone() };
        let name = resource.to_string();
        let mut change = Change::default();
        let Some(found) = self.state.resources.get(&resource) else {
            change.set_some("parent_id", &entry.parent_id);
            change.set_some("name", &entry.name);
            return self.push(Action::Create, Kind::Resource, at, name, change.0);
        };
        change.differ_some("parent_id", &found.parent_id, &entry.parent_id);
        change.differ_some("name", &found.name, &entry.name);
        self.settle(Kind::Resource, at, &name, &found.owner, change, || format!("$.resources[{at}]"));
    }
}
