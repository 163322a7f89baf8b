//! What is done to a request that a policy ruled on: one file per treatment.
//!
//! A treatment never looks at a reply. What has to be undone there travels as [`Restore`] to
//! the [`window`](crate::window).
//!
//! To add one, write `treat/<name>.rs`, its variant of [`TreatmentSetting`] and its arms below.

mod alias;
mod answer;
mod corrupt;
mod in_context;
mod offset;
mod prefix;
mod stand_in;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::backend::Capabilities;
use crate::policy::{Policy, TreatmentSetting};
use crate::text::other_orders;
use crate::types::{Entity, Evidence, Finish, Place, Request};
use crate::window::{Kind, Replacement};

pub use answer::never_knew;
use stand_in::StandIn;

/// A request that was ruled on, and why.
#[expect(missing_debug_implementations, reason = "a closure has none")]
pub struct Case<'a> {
    /// The policy that ruled.
    pub policy: &'a Policy,
    /// What its detectors saw in `request` and `continuation`, with spans of these very texts.
    pub evidence: &'a [Evidence],
    /// The request, owned so that it can be rewritten.
    pub request: Request,
    /// The text to be scored, when there is one.
    pub continuation: Option<String>,
    /// Whether a text that a treatment wrote names anybody whom any policy hides.
    pub names_somebody: &'a dyn Fn(&str) -> bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one per request, taken apart where it is made")]
pub enum Treated {
    /// It goes to the backend, changed.
    Request {
        /// The changed request.
        request: Request,
        /// The changed continuation.
        continuation: Option<String>,
        /// What to put back in the reply.
        restore: Restore,
    },
    /// It is answered here.
    Reply {
        /// The whole reply, of every choice.
        text: String,
        /// How it ends.
        finish: Finish,
        /// Whether it is to take the time that the model would have taken.
        paced: bool,
    },
}

/// What has to be undone in a reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restore {
    /// Entities of the policy whose surrogates become their names again ([`own_names`]).
    pub entities: BTreeSet<usize>,
    /// What stood for a name in another writing, or misspelt, and becomes what the asker wrote.
    pub writings: Vec<Replacement>,
}

/// Why a treatment cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum TreatError {
    /// There is nothing in the request that it could change, so that the topic would pass.
    #[error("the treatment `{treatment}` finds nothing to change")]
    Inapplicable {
        /// Which one; the caller tries the next.
        treatment: &'static str,
    },
    /// Another topic's treatment has the one place in the request that this one needs.
    #[error("another topic took the place of the treatment `{treatment}`")]
    Taken {
        /// Which one; the caller tries the next.
        treatment: &'static str,
    },
    /// A span of the evidence does not lie in its text.
    #[error("evidence at {span:?} of {place:?} does not lie in that text")]
    Span {
        /// Which text.
        place: Place,
        /// The bytes.
        span: Range<usize>,
    },
}

/// What a treatment asks of a backend.
#[must_use]
pub fn needs(setting: &TreatmentSetting) -> Capabilities {
    let text = Capabilities::default();
    match setting {
        TreatmentSetting::Corrupt { .. } => Capabilities { embeddings: true, ..text },
        TreatmentSetting::Offset(_) => Capabilities { offsets: true, ..text },
        TreatmentSetting::Alias
        | TreatmentSetting::Prefix { .. }
        | TreatmentSetting::InContext(_)
        | TreatmentSetting::Answer { .. } => text,
    }
}

/// Applies a treatment.
///
/// # Errors
///
/// [`TreatError::Inapplicable`] or [`TreatError::Taken`] when the next treatment of the policy should be tried;
/// [`TreatError::Span`] when a detector is broken.
pub fn treat(setting: &TreatmentSetting, case: Case<'_>) -> Result<Treated, TreatError> {
    match setting {
        TreatmentSetting::Corrupt { function } => corrupt::apply(*function, case),
        TreatmentSetting::Alias => alias::apply(case),
        TreatmentSetting::Prefix { text } => Ok(prefix::apply(text, case)),
        TreatmentSetting::InContext(setting) => Ok(in_context::apply(setting, case)),
        TreatmentSetting::Offset(offset) => offset::apply(offset, case),
        TreatmentSetting::Answer { answers, style, paced } => {
            let (text, finish) = answer::apply(answers, *style, &case);
            Ok(Treated::Reply { text, finish, paced: *paced })
        }
    }
}

/// A name that was seen: in which text, where, and whose.
type Found = (Place, Range<usize>, usize);

/// Names seen in the texts of a case, each byte at most once, in order of place and position.
fn names(case: &Case<'_>) -> Result<Vec<Found>, TreatError> {
    let texts = case.request.texts();
    let mut found = Vec::new();
    for it in case.evidence {
        let Some(entity) = it.entity else { continue };
        let text = match it.place {
            Place::Text(index) => texts.get(index).copied(),
            Place::Continuation => case.continuation.as_deref(),
        };
        let lies = text.is_some_and(|text| text.get(it.span.clone()).is_some());
        if !lies || entity >= case.policy.entities.len() {
            return Err(TreatError::Span { place: it.place, span: it.span.clone() });
        }
        found.push((it.place, it.span.clone(), entity));
    }
    // Of overlapping spans the first one stays, of those that start together the longest.
    found.sort_by_key(|(place, span, _)| (*place, span.start, std::cmp::Reverse(span.end)));
    let mut last: Option<(Place, usize)> = None;
    found.retain(|(place, span, _)| {
        let free = last.is_none_or(|(before, end)| before != *place || end <= span.start);
        if free {
            last = Some((*place, span.end));
        }
        free && !span.is_empty()
    });
    Ok(found)
}

/// Evidence without a name in texts in which no name was seen.
fn nameless(case: &Case<'_>, found: &[Found]) -> Vec<(Place, Range<usize>)> {
    let named: BTreeSet<Place> = found.iter().map(|it| it.0).collect();
    let without = case.evidence.iter().filter(|it| it.entity.is_none());
    let spans = without.filter(|it| !it.span.is_empty() && !named.contains(&it.place));
    spans.map(|it| (it.place, it.span.clone())).collect()
}

/// Turns the surrogate of an entity, in any order of its words, back into the name.
pub fn own_names(entity: &Entity) -> impl Iterator<Item = Replacement> {
    let own = (entity.surrogate.clone(), entity.name.clone());
    let written = std::iter::once(own).chain(other_orders(&entity.surrogate, &entity.name));
    written.map(|(pattern, with)| Replacement { pattern, with, kind: Kind::Restore })
}

/// What is put back for names that were found, under what stands for them. An asker who only misspelt a name
/// reads it so again, and not in its right spelling.
fn restore(policy: &Policy, found: &[Found], stand_ins: &[Option<StandIn>]) -> Restore {
    let surrogate = |entity: usize| policy.entities[entity].surrogate.as_str();
    let all = || found.iter().map(|it| it.2).zip(stand_ins);
    let misspelt = |it: &Option<StandIn>| it.as_ref().is_some_and(|it| it.misspelt);
    let entities: BTreeSet<usize> = all().filter(|it| !misspelt(it.1)).map(|it| it.0).collect();
    let (mut writings, mut known) = (Vec::new(), entities.clone());
    for (entity, stand_in) in all() {
        let Some(stand_in) = stand_in else { continue };
        if stand_in.text != surrogate(entity) {
            writings.extend(stand_in.restore());
        }
        if known.insert(entity) {
            writings.extend(stand_in.restore_plain(&policy.entities[entity]));
        }
    }
    Restore { entities, writings }
}
