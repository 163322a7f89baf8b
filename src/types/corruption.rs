//! Corruption of prompt embeddings as it travels with a request (ECO, Liu et al., arXiv:2406.07933).

use std::ops::Range;
use std::sync::Arc;

/// What happens to the embedding row of a masked token. `dims` counts embedding dimensions and is
/// capped at the model's width; `strength` is a standard deviation in units of the embedding
/// table's own standard deviation, so that one setting means the same on every model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CorruptionFunction {
    /// Adds N(0, strength²) to the first `dims` dimensions.
    NoiseFirst {
        /// Dimensions.
        dims: usize,
        /// Standard deviation.
        strength: f32,
    },
    /// Adds N(0, strength²) to one random set of `dims` dimensions, the same for all tokens.
    NoiseRandom {
        /// Dimensions.
        dims: usize,
        /// Standard deviation.
        strength: f32,
    },
    /// Adds N(0, strength²) to the `dims` dimensions of largest magnitude of each token.
    NoiseTop {
        /// Dimensions.
        dims: usize,
        /// Standard deviation.
        strength: f32,
    },
    /// Sets the `dims` dimensions of largest magnitude to zero.
    ZeroTop {
        /// Dimensions.
        dims: usize,
    },
    /// Negates the `dims` dimensions of largest magnitude.
    FlipTop {
        /// Dimensions.
        dims: usize,
    },
    /// Replaces the rows of a name by the rows of the entity's surrogate, a name that the model never saw.
    Substitute,
}

/// Somebody or something to be forgotten, and the name it is answered under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// The name, as the policy spells it.
    pub name: String,
    /// Other spellings of it.
    pub aliases: Vec<String>,
    /// A name that the model never saw, drawn deterministically from the policy.
    pub surrogate: String,
}

impl Entity {
    /// The name and the other spellings of it.
    pub fn spellings(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }
}

/// Which text of a request a span lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The text with this index in [`Request::texts`](super::Request::texts).
    Text(usize),
    /// The continuation that is being scored.
    Continuation,
}

/// A masked part of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpan {
    /// Which text.
    pub place: Place,
    /// Bytes of it, on character boundaries.
    pub span: Range<usize>,
    /// Index into [`Corruption::entities`] when the span is a name.
    pub entity: Option<usize>,
    /// What stands for the name under [`CorruptionFunction::Substitute`] where that is not the plain
    /// surrogate: the surrogate in the asker's writing.
    pub stand_in: Option<String>,
}

/// The corruption of one request: the same policy revision and prompt give the same rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Corruption {
    /// What happens to masked rows.
    pub function: CorruptionFunction,
    /// Masked spans; when empty, all tokens of the last user turn (or of the text) but the last one.
    pub spans: Vec<InputSpan>,
    /// The topic's names. The engine masks them in what the model generates too, so that a restated
    /// name does not hand the fact back.
    pub entities: Arc<Vec<Entity>>,
    /// Stream of the noise.
    pub seed: u64,
}
