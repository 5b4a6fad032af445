//! How a key stands at one moment, and what it permits: everything that is asked for each row of a query.

use crate::clock::{self, Moment};
use crate::error::Failure;
use crate::probe::{Epoch, Reader};
use crate::{api_key, authority, resource};
use authority::{Limits, Roles, Source, Types};
use keywright_core::allow_list::Entry;
use keywright_core::permission::Permission;
use keywright_core::resource::{Resource, is_id};
use std::collections::{HashMap, HashSet};

/// Answers that are remembered for one permission; more would be forgotten and begun anew.
const MOST_ANSWERS: usize = 250_000;

/// After so many look-ups it pays to read everything that is permitted at once, if it is no more than this many
/// times as much. If it is more, that is tried again after four times as many.
const LOOKUPS: usize = 64;
const TIMES: usize = 64;

/// What is read at once has paid when one in so many was asked for.
const WORTH: usize = 8;

/// Look-ups after which everything is read. Where others keep committing, all of it is forgotten again before it has paid:
/// then the next one waits for more look-ups, and finally for more than there is time for.
#[derive(Debug, Clone, Copy)]
pub struct Patience(usize);

impl Default for Patience {
    fn default() -> Patience {
        Patience(LOOKUPS)
    }
}

/// Permissions that are remembered; a policy names one or two.
const MOST_PERMISSIONS: usize = 16;

/// Things by type and id, asked for without making a copy of either.
type ByResource<T> = HashMap<String, HashMap<String, T>>;

#[derive(Debug)]
pub struct Standing {
    epoch: Epoch,
    /// The scopes as the key carries them.
    pub names: Vec<String>,
    expires_at: Moment,
    limits: Limits,
    roles: Roles,
    asked: Vec<Asked>,
    patience: Patience,
}

/// What is known of one permission.
#[derive(Debug)]
struct Asked {
    text: Vec<u8>,
    permission: Permission,
    /// Types of resources it was asked for, other than its own.
    kinds: HashSet<Vec<u8>>,
    in_scope: bool,
    /// The roles cover it everywhere.
    everywhere: bool,
    /// The roles cover it on these.
    places: ByResource<()>,
    answers: ByResource<Covered>,
    count: usize,
    lookups: usize,
    /// How many were read before they were asked for, and how often an answer was there already.
    read: usize,
    served: usize,
    /// Look-ups after which to read everything.
    patience: usize,
    /// Everything that is permitted is among the answers.
    complete: bool,
}

/// Whether allow-list and roles reach a resource.
#[derive(Debug, Clone, Copy, Default)]
struct Covered {
    allowed: bool,
    held: bool,
}

impl Covered {
    fn is_full(self) -> bool {
        self.allowed && self.held
    }

    fn and(self, other: Covered) -> Covered {
        Covered { allowed: self.allowed || other.allowed, held: self.held || other.held }
    }
}

const BY_ID: usize = 0;
const BY_PARENT: usize = 1;

fn reader() -> Result<Reader<2>, Failure<'static>> {
    Reader::new([&resource::BY_ID, &resource::BY_PARENT])
}

impl Standing {
    /// Nothing when the key is not live.
    pub fn of(key_id: &str, source: &Source, patience: Patience) -> Option<Standing> {
        api_key::look(source, key_id, |key, owner| Standing {
            epoch: source.epoch(),
            names: key.texts(api_key::column::SCOPES),
            expires_at: key.time(api_key::column::EXPIRES_AT).unwrap_or(Moment::MIN),
            limits: Limits::of(key, source),
            roles: Roles::of_datum(owner, source),
            asked: Vec::new(),
            patience,
        })
    }

    /// For when all of this is forgotten.
    pub fn patience(&self) -> Patience {
        let next = |asked: &Asked| match asked.read {
            0 => self.patience.0,
            read if asked.served * WORTH >= read => LOOKUPS,
            _ => asked.patience,
        };
        Patience(self.asked.iter().map(next).max().unwrap_or(self.patience.0))
    }

    pub fn is_live(&self) -> bool {
        clock::now() < self.expires_at
    }

    /// Nothing when a resource had to be looked up and the rest is of an earlier epoch. That can not be where `source` is
    /// given, which all of this was read from.
    pub fn permits(
        &mut self,
        permission: &[u8],
        kind: Option<&[u8]>,
        id: Option<&[u8]>,
        source: Option<&Source>,
    ) -> Result<Option<bool>, Failure<'static>> {
        let at = match self.asked.iter().position(|asked| asked.text == permission) {
            Some(at) => at,
            None => {
                let asked = self.ask(permission)?;
                if self.asked.len() >= MOST_PERMISSIONS {
                    self.asked.clear();
                }
                self.asked.push(asked);
                self.asked.len() - 1
            }
        };
        let (limits, epoch, asked) = (&self.limits, self.epoch, &mut self.asked[at]);
        if let Some(kind) = kind {
            asked.require_known(kind)?;
        }
        if !asked.in_scope {
            return Ok(Some(false));
        }
        match (kind, id) {
            (None, None) => Ok(Some(asked.everywhere && limits.allow(&asked.permission, &[]))),
            (Some(kind), Some(id)) => match (str::from_utf8(kind), str::from_utf8(id)) {
                (Ok(kind), Ok(id)) => {
                    Ok(asked.cover(limits, (epoch, source), kind, id)?.map(Covered::is_full))
                }
                _ => Ok(Some(false)),
            },
            _ => Ok(Some(false)),
        }
    }

    fn ask(&self, text: &[u8]) -> Result<Asked, Failure<'static>> {
        let permission = Types::read()?.question(Some(text))?;
        let mut places = ByResource::new();
        let mut everywhere = false;
        for place in self.roles.places(&permission) {
            match place {
                None => everywhere = true,
                Some(on) => {
                    places.entry(on.kind.clone()).or_default().insert(on.id.clone(), ());
                }
            }
        }
        Ok(Asked {
            text: text.to_vec(),
            in_scope: self.limits.in_scope(&permission),
            permission,
            kinds: HashSet::new(),
            everywhere,
            places,
            answers: ByResource::new(),
            count: 0,
            lookups: 0,
            read: 0,
            served: 0,
            patience: self.patience.0,
            complete: false,
        })
    }
}

impl Asked {
    fn require_known(&mut self, kind: &[u8]) -> Result<(), Failure<'static>> {
        if self.permission.kind().as_bytes() != kind && !self.kinds.contains(kind) {
            Types::read()?.require("resource_type", kind)?;
            self.kinds.insert(kind.to_vec());
        }
        Ok(())
    }

    /// Looks at the resource itself, then among the answers, then at those above.
    fn cover(
        &mut self,
        limits: &Limits,
        (epoch, source): (Epoch, Option<&Source>),
        kind: &str,
        id: &str,
    ) -> Result<Option<Covered>, Failure<'static>> {
        let own = self.own(limits, kind, id);
        // What can not be registered lies below nothing, and is not remembered.
        if own.is_full() || !is_id(id) {
            return Ok(Some(own));
        }
        if let Some(known) = get(&self.answers, kind, id) {
            self.served += 1;
            return Ok(Some(*known));
        }
        if self.complete {
            self.served += 1;
            return Ok(Some(own));
        }
        self.lookups += 1;
        if let Some(source) = source {
            return Ok(Some(self.look_up(limits, (source, authority::RESOURCES), kind, id).unwrap_or(own)));
        }
        let reader = reader()?;
        if reader.epoch() != epoch {
            return Ok(None);
        }
        if self.lookups >= self.patience {
            self.patience = self.lookups * 4;
            self.complete = self.read_all(limits, &reader);
        }
        Ok(Some(self.look_up(limits, (&reader, BY_ID), kind, id).unwrap_or(own)))
    }

    /// Goes up only as far as it takes. Nothing when it is not registered: that lies below nothing, nothing lies below it, and it is
    /// not remembered.
    fn look_up<const N: usize>(
        &mut self,
        limits: &Limits,
        (reader, table): (&Reader<N>, usize),
        kind: &str,
        id: &str,
    ) -> Option<Covered> {
        let mut parent = resource::look(reader, table, kind, id)?;
        let mut path = vec![(kind.to_owned(), id.to_owned(), self.own(limits, kind, id))];
        let mut above = Covered::default();
        while let Some(Resource { kind, id }) = parent.take() {
            if let Some(known) = get(&self.answers, &kind, &id) {
                above = *known;
                break;
            }
            let own = self.own(limits, &kind, &id);
            // A role is held on what is there; an allow-list names anything.
            if !own.is_full() || get(&self.places, &kind, &id).is_none() {
                let Some(next) = resource::look(reader, table, &kind, &id) else { break };
                parent = next.filter(|_| !own.is_full() && path.len() <= resource::MOST_ANCESTORS);
            }
            path.push((kind, id, own));
        }
        while let Some((kind, id, own)) = path.pop() {
            above = above.and(own);
            self.remember(kind, id, above);
        }
        Some(above)
    }

    /// Reads what lies below everything that is held, or allowed where all is held. False when that is too
    /// much, or can not be told from here.
    fn read_all(&mut self, limits: &Limits, reader: &Reader<2>) -> bool {
        let Some(roots) = self.roots(limits) else { return false };
        let mut left = (self.lookups * TIMES).min(MOST_ANSWERS - self.count.min(MOST_ANSWERS));
        let mut below = Vec::new();
        // Types of which some resource is a parent.
        let mut parents = HashMap::new();
        for root in roots {
            if let Some(covered) = self.look_up(limits, (reader, BY_ID), &root.kind, &root.id) {
                below.push((root, covered, 0));
            }
        }
        while let Some((at, above, depth)) = below.pop() {
            let mut children = Vec::new();
            resource::each_child(reader, BY_PARENT, &at, |child| children.push(child));
            for child in children {
                if left == 0 {
                    return false;
                }
                left -= 1;
                self.read += 1;
                let covered = above.and(self.own(limits, &child.kind, &child.id));
                let is_parent = match parents.get(&child.kind) {
                    Some(&known) => known,
                    None => {
                        let any = resource::has_children(reader, BY_PARENT, &child.kind);
                        parents.insert(child.kind.clone(), any);
                        any
                    }
                };
                if is_parent && depth < resource::MOST_ANCESTORS {
                    below.push((child.clone(), covered, depth + 1));
                }
                self.remember(child.kind, child.id, covered);
            }
        }
        true
    }

    /// Resources such that everything that is permitted is one of them or lies below one, if there are such.
    fn roots(&self, limits: &Limits) -> Option<Vec<Resource>> {
        if self.everywhere {
            return limits.allow_list.iter().map(Entry::resource).collect();
        }
        let places = self.places.iter();
        Some(
            places
                .flat_map(|(kind, ids)| ids.keys().map(|id| Resource { kind: kind.clone(), id: id.clone() }))
                .collect(),
        )
    }

    fn own(&self, limits: &Limits, kind: &str, id: &str) -> Covered {
        Covered {
            allowed: limits.allow_list.iter().any(|entry| entry.permits(kind, id)),
            held: self.everywhere || get(&self.places, kind, id).is_some(),
        }
    }

    fn remember(&mut self, kind: String, id: String, covered: Covered) {
        if self.count >= MOST_ANSWERS {
            self.answers.clear();
            self.count = 0;
            self.complete = false;
        }
        self.count += 1;
        match self.answers.get_mut(&kind) {
            Some(ids) => _ = ids.insert(id, covered),
            None => _ = self.answers.entry(kind).or_default().insert(id, covered),
        }
    }
}

fn get<'a, T>(map: &'a ByResource<T>, kind: &str, id: &str) -> Option<&'a T> {
    map.get(kind)?.get(id)
}
