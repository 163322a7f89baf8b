//! Steers the logits by two further models (δ-unlearning, Huang et al., arXiv:2404.11045).

use super::{Case, Restore, TreatError, Treated};
use crate::types::Offset;

/// The text stays as it is. A request has one offset: topics that name the same pair share it, with
/// the greater weight, and a topic with another pair goes on to its next treatment.
pub(super) fn apply(offset: &Offset, mut case: Case<'_>) -> Result<Treated, TreatError> {
    let earlier = case.request.offset.take();
    if earlier.as_ref().is_some_and(|it| it.pair != offset.pair) {
        return Err(TreatError::Taken { treatment: "offset" });
    }
    let alpha = earlier.map_or(offset.alpha, |it| it.alpha.max(offset.alpha));
    case.request.offset = Some(Offset { alpha, ..offset.clone() });
    let Case { request, continuation, .. } = case;
    Ok(Treated::Request { request, continuation, restore: Restore::default() })
}
