//! What a detector reports.

use std::ops::Range;

use super::Place;

/// The view of a text in which something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    /// The text as it came.
    Raw,
    /// After NFKC, case folding, and removal of zero-width characters and homoglyphs.
    Normalised,
    /// Normalised, with digits inside words read as letters, and with what was written apart, in quoted
    /// pieces or with letters drawn out put right.
    Respelled,
    /// With encodings, escapes, codes of letters, shifted alphabets or reversal undone; spans cover the
    /// encoded text.
    Decoded,
    /// Several texts together; the span is the part that lies in this one.
    Conversation,
}

/// One detector's report on one text. Detectors never decide: a policy does.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The detector's registry name.
    pub detector: &'static str,
    /// 0..=1; what it means is the detector's, the policy compares it with a threshold.
    pub score: f32,
    /// Which text.
    pub place: Place,
    /// Bytes of the original text, on character boundaries.
    pub span: Range<usize>,
    /// The view in which it was seen.
    pub view: View,
    /// Index of the topic's entity, when a name was seen.
    pub entity: Option<usize>,
}
