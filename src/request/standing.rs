//! How a key stands at one moment, and what it permits: everything that is asked for each row of a query.

use crate::clock::{self, Moment};
use crate::error::Failure;
use crate::probe::Reader;
use crate::{api_key, authority, resource};
use authority::{Limits, Roles};
use keywright_core::permission::Permission;
use std::collections::{HashMap, HashSet};

/// Answers that are remembered for one permission; more would be forgotten and begun anew.
const MOST_ANSWERS: usize = 100_000;

/// Permissions that are remembered; a policy names one or two.
const MOST_PERMISSIONS: usize = 64;

/// Things by type and id, asked for without making a copy of either.
type ByResource<T> = HashMap<String, HashMap<String, T>>;

#[derive(Debug)]
pub struct Standing {
    /// The scopes as the key carries them.
    pub names: Vec<String>,
    expires_at: Moment,
    limits: Limits,
    roles: Roles,
    asked: Vec<Asked>,
}

/// What is known of one permission.
#[derive(Debug)]
struct Asked {
    text: Vec<u8>,
    permission: Permission,
    in_scope: bool,
    /// The roles cover it everywhere.
    everywhere: bool,
    /// The roles cover it on these.
    places: ByResource<()>,
    answers: ByResource<Covered>,
    count: usize,
}

/// Whether allow-list and roles reach a resource.
#[derive(Debug, Clone, Copy, Default)]
struct Covered {
    allowed: bool,
    held: bool,
}

impl Standing {
    /// Nothing when the key is not live.
    pub fn of(key_id: &str) -> Result<Option<Standing>, Failure<'static>> {
        let source = authority::source()?;
        Ok(api_key::look(&source, key_id, |key, owner| Standing {
            names: key.texts(api_key::column::SCOPES),
            expires_at: key.time(api_key::column::EXPIRES_AT).unwrap_or(Moment::MIN),
            limits: Limits::of(key, &source),
            roles: Roles::of_datum(owner, &source),
            asked: Vec::new(),
        }))
    }

    pub fn is_live(&self) -> bool {
        clock::now() < self.expires_at
    }

    pub fn permits(
        &mut self,
        permission: &[u8],
        kind: Option<&[u8]>,
        id: Option<&[u8]>,
    ) -> Result<bool, Failure<'static>> {
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
        let (limits, asked) = (&self.limits, &mut self.asked[at]);
        if !asked.in_scope {
            return Ok(false);
        }
        match (kind, id) {
            (None, None) => Ok(asked.everywhere && limits.allow(&asked.permission, &[])),
            (Some(kind), Some(id)) => match (str::from_utf8(kind), str::from_utf8(id)) {
                (Ok(kind), Ok(id)) => {
                    let covered = asked.cover(limits, kind, id)?;
                    Ok(covered.allowed && covered.held)
                }
                _ => Ok(false),
            },
            _ => Ok(false),
        }
    }

    fn ask(&self, text: &[u8]) -> Result<Asked, Failure<'static>> {
        let permission = authority::question(Some(text))?;
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
            everywhere,
            places,
            answers: ByResource::new(),
            count: 0,
        })
    }
}

impl Asked {
    /// Looks at the resource itself, and at those above only as far as it takes.
    fn cover(&mut self, limits: &Limits, kind: &str, id: &str) -> Result<Covered, Failure<'static>> {
        let own = self.own(limits, kind, id);
        if own.allowed && own.held {
            return Ok(own);
        }
        if let Some(known) = get(&self.answers, kind, id) {
            return Ok(*known);
        }
        let reader = Reader::new([&resource::BY_ID])?;
        let mut path = vec![(kind.to_owned(), id.to_owned(), own)];
        let mut above = Covered::default();
        let mut seen = HashSet::new();
        while let Some((kind, id, own)) = path.last() {
            if own.allowed && own.held || path.len() > resource::MOST_ANCESTORS {
                break;
            }
            let Some(parent) = resource::parent(&reader, 0, kind, id) else { break };
            if let Some(known) = get(&self.answers, &parent.kind, &parent.id) {
                above = *known;
                break;
            }
            if !seen.insert(parent.clone()) {
                break;
            }
            let own = self.own(limits, &parent.kind, &parent.id);
            path.push((parent.kind, parent.id, own));
        }
        while let Some((kind, id, own)) = path.pop() {
            above = Covered { allowed: above.allowed || own.allowed, held: above.held || own.held };
            self.remember(kind, id, above);
        }
        Ok(above)
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
        }
        self.count += 1;
        self.answers.entry(kind).or_default().insert(id, covered);
    }
}

fn get<'a, T>(map: &'a ByResource<T>, kind: &str, id: &str) -> Option<&'a T> {
    map.get(kind)?.get(id)
}
