//! API keys and gateway keys.

use super::super::ApiKey;
use super::super::state::{self, KeyName, Verdict};
use super::change::Change;
use super::{Action, Kind, MALFORMED, MISSING, NOT_READY, Planner, missing};

impl Planner<'_> {
    pub fn api_keys(&mut self) {
        for (at, entry) in self.manifest.api_keys.iter().enumerate() {
            let path = |field: &str| format!("$.api_keys[{at}]{field}");
            let owner = entry.username.to_ascii_lowercase();
            if !self.knows_user(&owner) {
                self.refuse(
                    MISSING,
                    path(".username"),
                    missing("user", &entry.username, self.pruned.users.contains(&owner)),
                );
                continue;
            }
            if let Some(scope) = entry.scopes.iter().find(|scope| self.pruned.scopes.contains(*scope)) {
                self.refuse(MISSING, path(".scopes"), missing("scope", scope, true));
            }
            self.require_types(&entry.scopes, || path(".scopes"));
            self.require_types(&entry.allow_list, || path(".allow_list"));
            let key = KeyName::new(&owner, &entry.name);
            let found = self.state.api_keys.get(&key);
            let reason = match (self.state.api_key_verdicts.get(&key), found) {
                (Some(Verdict::Concurrent), _) => Some(None),
                (Some(Verdict::Replace(reason)), _) => Some(Some(*reason)),
                (Some(Verdict::Keep), _) => None,
                (None, None) => Some(Some("missing")),
                (None, Some(found)) => renewal(entry, found, self.state.now).map(Some),
            };
            if reason.is_some() && !self.is_going_to_be_active(&owner) {
                self.refuse(NOT_READY, path(".username"), "The user is suspended, and can hold no new key.");
                continue;
            }
            // The lifetime of a key that is not minted does not matter.
            if let (Some(Some(_)), Some(cap)) = (reason, self.state.cap)
                && let Some(fault) = entry.lifetime.fault_under(cap)
            {
                self.refuse(MALFORMED, path(".lifetime"), fault);
            }
            self.api_key(at, found, reason);
        }
    }

    /// `reason` is why a key is minted; none within it: somebody else just did.
    fn api_key(&mut self, at: usize, found: Option<&state::ApiKey>, reason: Option<Option<&'static str>>) {
        let entry = &self.manifest.api_keys[at];
        let mut change = Change::default();
        let claim = match found {
            None => None,
            Some(found) => {
                let claim = self.claim(&found.owner, reason.is_some(), || format!("$.api_keys[{at}]"));
                if claim == Some(Action::Adopt) {
                    change.differ("managed_by", &found.owner.manager, &Some(self.manifest.manager.clone()));
                }
                if claim.is_none() {
                    return;
                }
                claim
            }
        };
        let action = match reason {
            None | Some(None) if claim == Some(Action::Adopt) => Action::Adopt,
            None => return,
            Some(None) => Action::Concurrent,
            Some(Some(reason)) => {
                change.set("reason", &reason);
                change.set("lifetime", &entry.lifetime.to_string());
                if reason == "scopes-changed" || found.is_none() {
                    change.set("scopes", &entry.scopes);
                }
                if reason == "allow-list-changed" || found.is_none() {
                    change.set("allow_list", &entry.allow_list);
                }
                if found.is_some() { Action::Rotate } else { Action::Mint }
            }
        };
        let name = format!("{}/{}", entry.username, entry.name);
        let id = found.map(|found| found.id.clone());
        self.push(action, Kind::ApiKey, at, name, change.0);
        if let Some(step) = self.steps.last_mut() {
            step.id = id;
        }
    }

    pub fn gateway_keys(&mut self) {
        for (at, entry) in self.manifest.gateway_keys.iter().enumerate() {
            let mut change = Change::default();
            let found = self.state.gateway_keys.get(&entry.name);
            let verdict = self.state.gateway_key_verdicts.get(&entry.name).copied();
            let claim = match found {
                None => None,
                Some(found) => {
                    let replace = !matches!(verdict, None | Some(Verdict::Keep));
                    let claim = self.claim(&found.owner, replace, || format!("$.gateway_keys[{at}]"));
                    if claim == Some(Action::Adopt) {
                        change.differ(
                            "managed_by",
                            &found.owner.manager,
                            &Some(self.manifest.manager.clone()),
                        );
                    }
                    if claim.is_none() {
                        continue;
                    }
                    claim
                }
            };
            let action = match (found, verdict) {
                (Some(_), None | Some(Verdict::Keep | Verdict::Concurrent))
                    if claim == Some(Action::Adopt) =>
                {
                    Action::Adopt
                }
                (_, Some(Verdict::Concurrent)) => Action::Concurrent,
                (None, _) => {
                    change.set("reason", &"missing");
                    Action::Mint
                }
                (Some(_), Some(Verdict::Replace(reason))) => {
                    change.set("reason", &reason);
                    Action::Rotate
                }
                _ => continue,
            };
            let id = found.map(|found| found.id.clone());
            self.push(action, Kind::GatewayKey, at, &entry.name, change.0);
            if let Some(step) = self.steps.last_mut() {
                step.id = id;
            }
        }
    }
}

/// Why the key that is there does not do; nothing when it does.
fn renewal(entry: &ApiKey, found: &state::ApiKey, now: i64) -> Option<&'static str> {
    if found.expires_at <= now {
        Some("expired")
    } else if found.scopes != entry.scopes {
        Some("scopes-changed")
    } else if found.allow_list != entry.allow_list {
        Some("allow-list-changed")
    } else if found.expires_at <= entry.renew_before.unwrap_or_default().after(now) {
        Some("expiring")
    } else {
        None
    }
}
