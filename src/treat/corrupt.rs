//! Corrupts embedding rows of the prompt (ECO, Liu et al., arXiv:2406.07933).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Case, TreatError, Treated, nameless, names, restore};
use crate::types::{Corruption, CorruptionFunction, InputSpan};

/// Masks the names that were seen, and in a text without one what a classifier took for the topic.
/// Without any evidence, as when a detector has failed, the backend masks the whole turn.
///
/// A corruption that the request carries already, from another topic, keeps its function and seed
/// and gains this topic's spans and entities: a request has one corruption. A topic that asks for
/// the whole turn makes it the whole turn for both.
pub(super) fn apply(
    function: CorruptionFunction,
    mut case: Case<'_>,
) -> Result<Treated, TreatError> {
    let found = names(&case)?;
    let seen: BTreeSet<usize> = found.iter().map(|it| it.2).collect();
    let nameless = nameless(&case, &found);
    let spans: Vec<InputSpan> = found
        .into_iter()
        .map(|(place, span, entity)| InputSpan { place, span, entity: Some(entity) })
        .chain(nameless.into_iter().map(|(place, span)| InputSpan { place, span, entity: None }))
        .collect();
    let own = Corruption {
        function,
        spans,
        entities: Arc::clone(&case.policy.entities),
        seed: case.policy.seed,
    };
    case.request.corruption = Some(match case.request.corruption.take() {
        Some(earlier) => merge(earlier, own),
        None => own,
    });
    // Under substitution the model speaks of the surrogate; noise leaves no word to put back.
    let restore = match function {
        CorruptionFunction::Substitute => restore(case.policy, &seen),
        _ => Vec::new(),
    };
    Ok(Treated::Request { request: case.request, continuation: case.continuation, restore })
}

fn merge(mut earlier: Corruption, later: Corruption) -> Corruption {
    let offset = earlier.entities.len();
    let whole = earlier.spans.is_empty() || later.spans.is_empty();
    earlier.entities =
        earlier.entities.iter().chain(later.entities.iter()).cloned().collect::<Vec<_>>().into();
    let shifted = later
        .spans
        .into_iter()
        .map(|it| InputSpan { entity: it.entity.map(|index| index + offset), ..it });
    earlier.spans.extend(shifted);
    if whole {
        earlier.spans.clear();
    }
    earlier
}
