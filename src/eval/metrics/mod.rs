//! Metrics that need the model in the open: log-probabilities of every token, and greedy replies.
//!
//! The formulas are those of open-unlearning (arXiv:2506.12618), MUSE (arXiv:2407.06460), RWKU
//! (arXiv:2406.10890) and Who's Harry Potter (arXiv:2310.02238). A metric is a pure function of what
//! was observed of the model and of gold, the model that was retrained without the forget rows.

pub mod exact_memorisation;
pub mod extraction_strength;
pub mod familiarity;
pub mod fluency;
pub mod knowmem;
pub mod membership;
pub mod multiple_choice;
pub mod observed;
pub mod remembered;
pub mod report;
pub mod teacher;
pub mod value_probability;
pub mod verbmem;

use crate::engine::error::EngineError;
use crate::eval::suite::EvalError;
use crate::train::fit::TrainError;
use observed::Observed;

/// Why a model could not be measured in the open.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A data file cannot be used, or a result cannot be written.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Finetuning failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A tensor operation failed.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The rows do not hold what a measurement needs.
    #[error("{0}")]
    Rows(String),
}

/// A number of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// What it is over, such as `forget`.
    pub name: &'static str,
    /// NaN where there was nothing to measure.
    pub value: f64,
}

/// A way to measure a model.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name in reports.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Its numbers of a model (first) beside gold (second).
    pub compute: fn(&Observed, &Observed) -> Vec<Score>,
}

/// Every metric, in the order of reports.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "extraction_strength",
        about: "share of the answer that follows from the rest by greedy decoding",
        compute: extraction_strength::compute,
    },
    Metric {
        name: "exact_memorisation",
        about: "share of answer tokens that are the most probable ones",
        compute: exact_memorisation::compute,
    },
    Metric {
        name: "membership",
        about: "AUC by which forget rows pass for trained ones, and privleak against gold",
        compute: membership::compute,
    },
    Metric {
        name: "verbmem",
        about: "ROUGE-L F1 of the continuation of half an answer",
        compute: verbmem::compute,
    },
    Metric {
        name: "knowmem",
        about: "ROUGE-L F1 of the reply to the question",
        compute: knowmem::compute,
    },
    Metric {
        name: "multiple_choice",
        about: "how often the right answer is the most probable of its alternatives",
        compute: multiple_choice::compute,
    },
    Metric {
        name: "familiarity",
        about: "entities of the topic that replies name unprompted, by rule",
        compute: familiarity::compute,
    },
    Metric {
        name: "fluency",
        about: "entropy in bits of pairs and triples of words of replies",
        compute: fluency::compute,
    },
    Metric {
        name: "value_probability",
        about: "probability per token of the value asked for",
        compute: value_probability::compute,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        for (at, metric) in METRICS.iter().enumerate() {
            assert!(METRICS[..at].iter().all(|it| it.name != metric.name), "{}", metric.name);
            assert!(!metric.about.is_empty() && !metric.about.ends_with('.'));
        }
    }
}
