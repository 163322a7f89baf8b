//! Replaces names by surrogates that the model never saw, and puts them back in the reply.

use std::collections::BTreeSet;

use super::{Case, TreatError, Treated, nameless, names, restore};
use crate::types::Place;

pub(super) fn apply(mut case: Case<'_>) -> Result<Treated, TreatError> {
    let found = names(&case)?;
    if found.is_empty() || !nameless(&case, &found).is_empty() {
        return Err(TreatError::Inapplicable { treatment: "alias" });
    }
    let seen: BTreeSet<usize> = found.iter().map(|it| it.2).collect();
    let mut texts = case.request.texts_mut();
    // From the back, so that earlier spans stay true.
    for (place, span, entity) in found.into_iter().rev() {
        let surrogate = &case.policy.entities[entity].surrogate;
        match place {
            Place::Text(index) => {
                texts.get_mut(index).expect("`names` checked the place").replace(span, surrogate);
            }
            Place::Continuation => {
                let text = case.continuation.as_mut();
                text.expect("`names` checked the place").replace_range(span, surrogate);
            }
        }
    }
    let restore = restore(case.policy, &seen);
    Ok(Treated::Request { request: case.request, continuation: case.continuation, restore })
}
