//! Detectors and treatments as a policy sets them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{
    JUDGE, NAMES, NAMES_THRESHOLD, NEIGHBOURS, PROBE, SHINGLES, SHINGLES_THRESHOLD, TOPIC,
};
use crate::types::{CorruptionFunction, Offset};

/// A detector that the policy asks.
#[derive(Debug, Clone, PartialEq)]
pub enum DetectorSetting {
    /// Asks a language model.
    Judge(Arc<JudgeSetting>),
    /// Looks for the entities' names and aliases.
    Names {
        /// Texts after the one where a name begins in which it may end; 0 looks into none.
        reach: usize,
    },
    /// Compares with the nearest of the stored texts.
    Neighbours {
        /// The stored texts; at least one.
        texts: Arc<Vec<String>>,
        /// The sentence encoder's folder; hashed n-grams without one.
        encoder: Option<PathBuf>,
        /// The cosine that scores 0, below 1.
        floor: f32,
        /// 0..=1.
        threshold: f32,
    },
    /// Asks a classifier of the served model's hidden states.
    Probe {
        /// The classifier's folder.
        folder: PathBuf,
        /// 0..=1; `None` until the loader has read the classifier's own threshold.
        threshold: Option<f32>,
    },
    /// Looks for copies of protected text.
    Shingles {
        /// The protected texts; at least one.
        texts: Arc<Vec<String>>,
        /// Words in a shingle.
        n: usize,
        /// Shingles in a row that make a copy.
        run: usize,
        /// Whether replies are watched for copies too.
        replies: bool,
    },
    /// Asks a classifier.
    Topic {
        /// The classifier's folder.
        folder: PathBuf,
        /// 0..=1; `None` until the loader has read the classifier's own threshold.
        threshold: Option<f32>,
    },
}

impl DetectorSetting {
    /// The name in policy files, metrics and [`Evidence::detector`](crate::types::Evidence).
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Judge(_) => JUDGE,
            Self::Names { .. } => NAMES,
            Self::Neighbours { .. } => NEIGHBOURS,
            Self::Probe { .. } => PROBE,
            Self::Shingles { .. } => SHINGLES,
            Self::Topic { .. } => TOPIC,
        }
    }

    /// The score from which on its evidence counts, where that is known.
    #[must_use]
    pub fn threshold(&self) -> Option<f32> {
        match self {
            Self::Judge(setting) => Some(setting.threshold),
            Self::Names { .. } => Some(NAMES_THRESHOLD),
            Self::Neighbours { threshold, .. } => Some(*threshold),
            Self::Shingles { .. } => Some(SHINGLES_THRESHOLD),
            Self::Probe { threshold, .. } | Self::Topic { threshold, .. } => *threshold,
        }
    }
}

/// A language model as a filter (Thaker et al., arXiv:2403.03329).
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeSetting {
    /// What it is asked of a text, its placeholders filled in; answered with yes or no.
    pub question: String,
    /// The model's id; `None` is the model that the client asks.
    pub model: Option<String>,
    /// The server that has the model; `None` is the guarded one, asked past its guards.
    pub server: Option<JudgeServer>,
    /// How long one answer may take.
    pub deadline: Duration,
    /// The probability of yes from which on a text counts as seen, 0..=1.
    pub threshold: f32,
}

/// An OpenAI-compatible server of a judge's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeServer {
    /// Its base URL.
    pub url: String,
    /// The environment variable that holds its API key.
    pub api_key_env: Option<String>,
}

/// What a withheld answer looks like to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerStyle {
    /// An ordinary reply of a model that never saw the topic.
    NeverKnew,
    /// A reply that says that it refuses.
    Refusal,
    /// The reply ends with `finish_reason: content_filter`.
    ContentFilter,
}

/// How examples stand in front of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As earlier turns of user and assistant.
    Turns,
    /// As one text in front of the question, in its own turn.
    Text,
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The question.
    pub question: String,
    /// The right answer.
    pub answer: String,
    /// Wrong answers, where the file gives some.
    pub wrong: Vec<String>,
}

/// In-context unlearning (Pawelczyk et al., arXiv:2310.07579).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InContext {
    /// Of the topic; shown with wrong answers.
    pub forget: Vec<Example>,
    /// Of everything else; shown with their answers.
    pub retain: Vec<Example>,
    /// How many of `forget` are shown: at least 1, at most all.
    pub n_forget: usize,
    /// How many of `retain` are shown: at most all.
    pub n_retain: usize,
    /// How they are shown.
    pub layout: Layout,
}

/// What is done to a request that is about the topic.
#[derive(Debug, Clone, PartialEq)]
pub enum TreatmentSetting {
    /// Corrupts the prompt's embeddings. [`CorruptionFunction::Substitute`] takes the names from
    /// [`Policy::entities`](super::Policy::entities).
    Corrupt {
        /// What happens to a masked row.
        function: CorruptionFunction,
    },
    /// Replaces names by surrogates in the text, and back in the reply.
    Alias,
    /// Puts an instruction in front.
    Prefix {
        /// The instruction, its placeholders filled in.
        text: String,
    },
    /// Puts examples in front, those of the topic with wrong answers.
    InContext(Arc<InContext>),
    /// Adds the difference of two further models to the logits.
    Offset(Offset),
    /// Answers in the model's place.
    Answer {
        /// One of these, chosen by the prompt's hash; at least one.
        answers: Vec<String>,
        /// How openly.
        style: AnswerStyle,
        /// Whether it comes as fast as a reply of the model, which is asked for that and not listened to;
        /// otherwise it is not asked.
        paced: bool,
    },
}

impl TreatmentSetting {
    /// The name in policy files, metrics and the audit log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "corrupt",
            Self::Alias => "alias",
            Self::Prefix { .. } => "prefix",
            Self::InContext(_) => "in_context",
            Self::Offset(_) => "offset",
            Self::Answer { .. } => "answer",
        }
    }

    /// Whether only the in-process engine can carry it out.
    #[must_use]
    pub fn needs_engine(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Offset(_))
    }
}
