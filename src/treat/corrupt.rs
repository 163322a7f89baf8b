//! Corrupts embedding rows of the prompt (ECO, Liu et al., arXiv:2406.07933).

use std::sync::Arc;

use super::stand_in::stand_ins;
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
    let nameless = nameless(&case, &found);
    // Under substitution the model reads and speaks of the surrogate; noise leaves no word to put back.
    let (stand_ins, restore) = match function {
        CorruptionFunction::Substitute => {
            let stand_ins = stand_ins(&case, &found);
            let restore = restore(case.policy, &found, &stand_ins);
            (stand_ins, restore)
        }
        _ => Default::default(),
    };
    let mut stand_ins = stand_ins.into_iter().map(|it| it.map(|it| it.text));
    let mut spans: Vec<InputSpan> = Vec::new();
    for (place, span, entity) in found {
        let stand_in = stand_ins.next().flatten();
        spans.push(InputSpan { place, span, entity: Some(entity), stand_in });
    }
    spans.extend(nameless.into_iter().map(|(place, span)| InputSpan {
        place,
        span,
        entity: None,
        stand_in: None,
    }));
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
