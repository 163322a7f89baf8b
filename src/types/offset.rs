//! A logit offset as it travels with a request (δ-unlearning, Huang et al., arXiv:2404.11045).

use std::path::PathBuf;
use std::sync::Arc;

/// Two models over the served model's vocabulary, by their folders.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OffsetPair {
    /// The one that speaks as is wanted: it never saw the topic, or has unlearned it.
    pub expert: PathBuf,
    /// The one that speaks as is not wanted.
    pub anti_expert: PathBuf,
}

/// What is added to the served model's logits at every token of a request:
/// `alpha * (logits of the expert - logits of the anti-expert)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Offset {
    /// The two models.
    pub pair: Arc<OffsetPair>,
    /// Weight of the difference; finite and above 0.
    pub alpha: f32,
}
