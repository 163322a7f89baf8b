//! What a text says about a topic.
//!
//! A [`Detector`] turns a text into [`Evidence`] and never decides: a policy does. That keeps each
//! of them a function from text to numbers, which one evaluation can measure at any threshold.

mod judge;
mod names;
mod neighbours;
mod probe;
mod shingles;
mod topic;

use std::error::Error;
use std::fmt::Debug;

pub use judge::{Ask, Judge, JudgeReply, Unanswered};
pub use names::Names;
pub use neighbours::Neighbours;
pub use probe::{Probe, States, Unread};
pub use shingles::Shingles;
pub use topic::Topic;

use crate::embed::EmbedError;
use crate::types::{Evidence, Place};

/// The detectors that a policy can name, and what each of them is.
pub const NAMES: &[(&str, &str)] = &[
    ("judge", "a language model that is asked whether a text is about the topic"),
    ("names", "names of the topic's entities, whole words, read through disguises of letters"),
    ("neighbours", "closeness to the nearest of the texts that somebody asked to have forgotten"),
    ("probe", "a calibrated linear head on the served model's own hidden states"),
    ("shingles", "runs of words that are copied from protected text"),
    ("topic", "a calibrated classifier of questions about the topic"),
];

/// Looks for one topic in one text.
pub trait Detector: Debug + Send + Sync {
    /// Its name in [`NAMES`].
    fn name(&self) -> &'static str;

    /// What it saw in `text`, which lies at `place`. Reads all of it, however long.
    ///
    /// # Errors
    ///
    /// [`DetectorError`] when it cannot say; the caller must not take that for innocence.
    fn inspect(&self, place: Place, text: &str) -> Result<Vec<Evidence>, DetectorError>;

    /// What no text shows on its own, but several in their order do. Cheap: it is not remembered.
    fn across(&self, _texts: &[(Place, String)]) -> Vec<Evidence> {
        Vec::new()
    }
}

/// Why a detector cannot be built or cannot say.
#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    /// A name is empty once normalised, and would match everywhere.
    #[error("name {name:?} of entity {entity} has no letters or digits")]
    EmptyName {
        /// Index of the entity.
        entity: usize,
        /// The name as given.
        name: String,
    },
    /// The names are too many for one automaton.
    #[error("cannot search for the names")]
    Search(#[from] aho_corasick::BuildError),
    /// The classifier is broken, or the encoder failed.
    #[error("classifier or encoder failed")]
    Classifier(#[from] EmbedError),
    /// The judge gave no verdict.
    #[error("the judge gave no verdict")]
    Judge(#[from] Unanswered),
    /// The judge's own server cannot be used.
    #[error("the judge's server cannot be used")]
    JudgeServer(#[source] Box<dyn Error + Send + Sync>),
    /// The served model does not show what the probe reads.
    #[error("the served model cannot be probed")]
    Model(#[from] Unread),
    /// The probe has no model to read.
    #[error("the probe has no model to read; it needs the in-process engine")]
    NoModel,
    /// A stored text has no words, and nothing would be near it.
    #[error("row {row} of the store has no words; remove it")]
    EmptyRow {
        /// Which row, from 1.
        row: usize,
    },
    /// No protected text is as long as a shingle, and nothing would be a copy.
    #[error("no protected text has {n} words; lower `n` or add text")]
    NothingProtected {
        /// Words in a shingle.
        n: usize,
    },
}
