//! Replaces names by surrogates that the model never saw, and puts them back in the reply.

use std::collections::BTreeSet;

use super::{Case, TreatError, Treated, nameless, names, restore};
use crate::text::{last_first, normalise, other_orders};
use crate::types::{Entity, Place};

pub(super) fn apply(mut case: Case<'_>) -> Result<Treated, TreatError> {
    let found = names(&case)?;
    if found.is_empty() || !nameless(&case, &found).is_empty() {
        return Err(TreatError::Inapplicable { treatment: "alias" });
    }
    let seen: BTreeSet<usize> = found.iter().map(|it| it.2).collect();
    let mut texts = case.request.texts_mut();
    // From the back, so that earlier spans stay true.
    for (place, span, entity) in found.into_iter().rev() {
        let entity = &case.policy.entities[entity];
        match place {
            Place::Text(index) => {
                let text = texts.get_mut(index).expect("`names` checked the place");
                let with = surrogate(entity, text.as_str().get(span.clone()).unwrap_or_default());
                text.replace(span, &with);
            }
            Place::Continuation => {
                let text = case.continuation.as_mut().expect("`names` checked the place");
                let with = surrogate(entity, text.get(span.clone()).unwrap_or_default());
                text.replace_range(span, &with);
            }
        }
    }
    let restore = restore(case.policy, &seen);
    Ok(Treated::Request { request: case.request, continuation: case.continuation, restore })
}

/// The surrogate, put together as the name is.
fn surrogate(entity: &Entity, written: &str) -> String {
    let written = normalise(written).text;
    for (name, surrogate) in other_orders(&entity.name, &entity.surrogate) {
        if normalise(&name).text == written {
            return surrogate;
        }
    }
    let name = normalise(&entity.name).text;
    match (name.split_once(' '), name.rsplit_once(' ')) {
        // Over several strings of JSON.
        (Some((first, _)), Some((_, last)))
            if first != last && written.starts_with(last) && written.ends_with(first) =>
        {
            last_first(&entity.surrogate)
        }
        _ => entity.surrogate.clone(),
    }
}
