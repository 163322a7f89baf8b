//! Replaces names by surrogates that the model never saw, and puts them back in the reply.

use super::stand_in::stand_ins;
use super::{Case, TreatError, Treated, nameless, names, restore};
use crate::types::Place;

pub(super) fn apply(mut case: Case<'_>) -> Result<Treated, TreatError> {
    let found = names(&case)?;
    if found.is_empty() || !nameless(&case, &found).is_empty() {
        return Err(TreatError::Inapplicable { treatment: "alias" });
    }
    let stand_ins = stand_ins(&case, &found);
    let restore = restore(case.policy, &found, &stand_ins);
    let mut texts = case.request.texts_mut();
    // From the back, so that earlier spans stay true.
    for ((place, span, entity), with) in found.into_iter().zip(stand_ins).rev() {
        let with = with.as_ref().map_or(&case.policy.entities[entity].surrogate, |it| &it.text);
        match place {
            Place::Text(index) => {
                texts.get_mut(index).expect("`names` checked the place").replace(span, with);
            }
            Place::Continuation => {
                let text = case.continuation.as_mut().expect("`names` checked the place");
                text.replace_range(span, with);
            }
        }
    }
    Ok(Treated::Request { request: case.request, continuation: case.continuation, restore })
}
