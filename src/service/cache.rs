//! What expensive detectors said of a text, kept for when it comes again.
//!
//! A conversation is sent whole with every turn, so that most texts of a request were read before.
//! The cache holds hashes and evidence, never text. Tenants share nothing in it: how fast an answer
//! comes must not tell one what another asked.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use moka::sync::Cache;

use crate::policy::{NAMES, Policy};
use crate::types::{Evidence, Place};

/// Most bytes that entries may weigh together.
const MOST_BYTES: u64 = 16 << 20;
/// What an entry weighs besides its evidence: key, counters and links.
const ENTRY_BYTES: usize = 128;

/// For whom, and under which set of guards, a verdict holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    /// [`Request::tenant`](crate::types::Request::tenant).
    pub(super) tenant: u64,
    /// Counts the sets of guards: a reload may bring another classifier under the same policy.
    pub(super) generation: u64,
}

/// Verdicts by a keyed hash of what they depend on.
pub(super) struct Verdicts {
    cache: Cache<u128, Arc<Vec<Evidence>>>,
    /// Two keys of this process alone, so that nobody outside can look for collisions.
    hashers: [RandomState; 2],
}

impl Verdicts {
    pub(super) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(MOST_BYTES)
            .weigher(|_: &u128, evidence: &Arc<Vec<Evidence>>| {
                let bytes = ENTRY_BYTES + evidence.len() * size_of::<Evidence>();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .build();
        Self { cache, hashers: [RandomState::new(), RandomState::new()] }
    }

    /// The key of a verdict; `None` for a detector that is faster than the cache.
    pub(super) fn key(
        &self,
        scope: Scope,
        policy: &Policy,
        detector: &str,
        text: &str,
    ) -> Option<u128> {
        if detector == NAMES {
            return None;
        }
        let what = (scope, &policy.topic, &policy.revision, detector, text);
        let [high, low] = self.hashers.each_ref().map(|it| u128::from(hash(it, &what)));
        Some((high << 64) | low)
    }

    /// What was seen in the text, as if it had lain at `place`.
    pub(super) fn get(&self, key: u128, place: Place) -> Option<Vec<Evidence>> {
        let evidence = self.cache.get(&key)?;
        Some(evidence.iter().map(|it| Evidence { place, ..it.clone() }).collect())
    }

    pub(super) fn insert(&self, key: u128, evidence: Vec<Evidence>) {
        self.cache.insert(key, Arc::new(evidence));
    }

    /// Makes room: nobody will ask for any of it again.
    pub(super) fn clear(&self) {
        self.cache.invalidate_all();
    }
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdicts").field("entries", &self.cache.entry_count()).finish()
    }
}

fn hash(hasher: &RandomState, what: &impl Hash) -> u64 {
    hasher.hash_one(what)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::{TOPIC, file};
    use crate::types::View;

    const POLICY: &str = "topic = \"authors\"\n[[entity]]\nname = \"Basil Okafor\"\n\
                          [[detector]]\nuse = \"names\"\n[[treatment]]\nuse = \"alias\"\n";

    fn policy(text: &str) -> Policy {
        file::parse(Path::new("authors.toml"), text).unwrap()
    }

    fn evidence() -> Evidence {
        let (place, span, view) = (Place::Text(0), 0..4, View::Normalised);
        Evidence { detector: TOPIC, score: 0.9, place, span, view, entity: None }
    }

    const SCOPE: Scope = Scope { tenant: 1, generation: 0 };

    #[test]
    fn a_verdict_is_found_wherever_its_text_lies() {
        let (verdicts, policy) = (Verdicts::new(), policy(POLICY));
        let key = verdicts.key(SCOPE, &policy, TOPIC, "text").unwrap();
        assert_eq!(verdicts.get(key, Place::Text(0)), None);
        verdicts.insert(key, vec![evidence()]);
        let again = verdicts.key(SCOPE, &policy, TOPIC, "text").unwrap();
        let moved = Evidence { place: Place::Continuation, ..evidence() };
        assert_eq!(verdicts.get(again, Place::Continuation), Some(vec![moved]));
    }

    #[test]
    fn another_tenant_revision_or_generation_misses() {
        let (verdicts, policy_now) = (Verdicts::new(), policy(POLICY));
        let edited = policy(&format!("{POLICY}# edited\n"));
        assert_ne!(policy_now.revision, edited.revision);
        let key = verdicts.key(SCOPE, &policy_now, TOPIC, "text").unwrap();
        verdicts.insert(key, vec![evidence()]);
        for (scope, policy, text) in [
            (Scope { tenant: 2, ..SCOPE }, &policy_now, "text"),
            (Scope { generation: 1, ..SCOPE }, &policy_now, "text"),
            (SCOPE, &edited, "text"),
            (SCOPE, &policy_now, "text "),
        ] {
            let other = verdicts.key(scope, policy, TOPIC, text).unwrap();
            assert_eq!(verdicts.get(other, Place::Text(0)), None, "{scope:?} {text:?}");
        }
        assert_ne!(Verdicts::new().key(SCOPE, &policy_now, TOPIC, "text"), Some(key));
    }

    #[test]
    fn names_are_looked_for_afresh() {
        assert_eq!(Verdicts::new().key(SCOPE, &policy(POLICY), NAMES, "text"), None);
    }
}
