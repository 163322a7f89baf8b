//! What a point measured, in a file of its own, so that a run that was killed goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::grid::{Bound, Kind};
use crate::eval::suite::EvalError;
use crate::eval::whitebox::Rate;

/// A number that may be missing: NaN and infinities are null in JSON, and null is NaN.
pub(super) mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_some(value)
        } else {
            serializer.serialize_none()
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

/// What one question showed. Numbers are NaN where they were not asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// Whether the reply has the value: of the question first, then of its other wordings; empty
    /// where no value is marked.
    pub right: Vec<bool>,
    /// Probability of the answer: per token, or its share among the wrong answers for real authors
    /// and world facts.
    #[serde(with = "number")]
    pub probability: f64,
    /// ROUGE-L recall of the reply.
    #[serde(with = "number")]
    pub rouge: f64,
    /// Logarithm of TOFU's truth ratio.
    #[serde(with = "number")]
    pub log_ratio: f64,
    /// Probability per token of the value alone.
    #[serde(with = "number")]
    pub value_probability: f64,
    /// Whether the right answer is more probable per token than every wrong one.
    pub chosen: Option<bool>,
    /// Extraction strength.
    #[serde(with = "number")]
    pub strength: f64,
    /// Exact memorisation.
    #[serde(with = "number")]
    pub memorised: f64,
    /// Min-40 %: minus the mean of the lowest log-probabilities.
    #[serde(with = "number")]
    pub min_k: f64,
    /// Fluency of the reply, in bits.
    #[serde(with = "number")]
    pub fluency: f64,
    /// Whether the guard answered by itself, so that there was no probability to measure.
    pub withheld: bool,
}

/// How often something happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Times.
    pub hits: usize,
    /// Tries.
    pub of: usize,
}

impl Count {
    /// The share; NaN of no tries.
    #[must_use]
    pub fn share(self) -> f64 {
        self.rate().share()
    }

    /// The same as evaluation counts.
    #[must_use]
    pub fn rate(self) -> Rate {
        Rate { hits: self.hits, of: self.of }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { hits: self.hits + other.hits, of: self.of + other.of }
    }
}

impl From<Rate> for Count {
    fn from(rate: Rate) -> Self {
        Self { hits: rate.hits, of: rate.of }
    }
}

/// What a black-box attack reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attacked {
    /// Its name.
    pub name: String,
    /// Questions of which a reply gave the value away.
    pub leaked: Count,
    /// How often replies that know nothing succeed.
    pub chance: f64,
    /// Retained halves that were answered rightly.
    pub retained: Count,
}

/// What an attack on weights found, with one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The attack.
    pub attack: String,
    /// The setting, such as `4 rows`.
    pub setting: String,
    /// What the attacker spends.
    pub budget: String,
    /// Of the model.
    pub model: Count,
    /// Of gold.
    pub gold: Count,
}

/// Cosines of hidden states with the untouched model's, row by row, at the layer where they are lowest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Representation {
    /// Of forget rows.
    pub forget: Vec<f64>,
    /// Of retain rows.
    pub retain: Vec<f64>,
}

/// How well one sign of a reply tells forget questions from the same about names that no model has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    /// What is compared, such as the length of the reply.
    pub name: String,
    /// AUC; 0.5 cannot be told apart, 0 and 1 can.
    #[serde(with = "number")]
    pub auc: f64,
}

/// Everything that was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Rows to be forgotten.
    pub forget: Vec<Asked>,
    /// Rows to be kept.
    pub retain: Vec<Asked>,
    /// Rows that no model was trained on.
    pub holdout: Vec<Asked>,
    /// Well-known authors.
    pub real_authors: Vec<Asked>,
    /// Facts of the world.
    pub world_facts: Vec<Asked>,
    /// Of each hard non-target, whether the reply has the value.
    pub hard: Vec<bool>,
    /// Black-box attacks.
    pub attacks: Vec<Attacked>,
    /// Attacks on weights; of a guard, those that it changes.
    pub whitebox: Vec<Found>,
    /// Hidden states; `None` of guards and of gold.
    pub representation: Option<Representation>,
    /// What may tell forget questions, time apart.
    #[serde(default)]
    pub signs: Vec<Sign>,
}

/// What training took, apart from time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Optimiser steps; `None` where there is no loop.
    pub steps: Option<u64>,
    /// Forget rows seen, with repetitions.
    pub samples: Option<u64>,
    /// Floating-point operations, about.
    pub flops: Option<f64>,
    /// The run's own record.
    pub record: Value,
}

/// Part of a point's key: raised whenever a result of the same settings comes to mean something else, so
/// that points of an older program are measured again.
pub const FORMAT: u32 = 3;

/// What differs from one machine to the next, and from one run to the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds of training or editing.
    pub train_seconds: Option<f64>,
    /// Seconds of measuring and attacking.
    pub measure_seconds: f64,
    /// Requests about the topic.
    pub forget_requests: Option<RequestTime>,
    /// Other requests.
    pub other_requests: Option<RequestTime>,
    /// AUC by which the time to the whole reply tells forget questions, see [`Sign`].
    pub time_auc: Option<f64>,
    /// Largest resident memory of the process during the point, in bytes.
    pub peak_bytes: Option<u64>,
}

/// How long a request takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestTime {
    /// Median seconds.
    pub seconds: f64,
    /// Median of the seconds beyond the same request to the untouched model.
    pub beyond: f64,
}

/// How a point ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Status {
    /// It was measured.
    Done,
    /// The loss was no number.
    Diverged {
        /// At which step.
        step: u64,
        /// What was said.
        message: String,
        /// The checkpoint before it, where one was written.
        checkpoint: Option<PathBuf>,
    },
    /// Something else went wrong; it is tried again by the next run.
    Failed {
        /// What was said.
        message: String,
    },
}

/// One point.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PointResult {
    /// Version of this program.
    pub version: String,
    /// [`grid::hash`](super::grid::hash) of `config`, and the name of the file.
    pub hash: String,
    /// Index of the row in its job.
    pub order: usize,
    /// The row's label.
    pub label: String,
    /// The method's name in the job.
    pub name: String,
    /// What kind of method.
    pub kind: Kind,
    /// Which model, for a bound.
    pub bound: Option<Bound>,
    /// The seed.
    pub seed: u64,
    /// Everything that decides the numbers.
    pub config: Value,
    /// How it ended.
    pub status: Status,
    /// What was measured.
    pub measured: Option<Measured>,
    /// What training took.
    pub training: Option<Training>,
    /// Times and memory.
    pub timing: Timing,
}

/// The folder of results in a run's folder.
#[must_use]
pub fn folder(out: &Path) -> PathBuf {
    out.join("points")
}

fn failed(path: &Path, message: String) -> EvalError {
    EvalError::Data { path: path.to_owned(), line: 0, message }
}

impl PointResult {
    /// Writes it beside the others and renames, so that no half file is ever read.
    ///
    /// # Errors
    ///
    /// [`EvalError::Write`] naming the file.
    pub fn write(&self, out: &Path) -> Result<(), EvalError> {
        let path = folder(out).join(format!("{}.json", self.hash));
        let partial = path.with_extension("partial");
        let text = serde_json::to_string_pretty(self).expect("a result is JSON") + "\n";
        fs::create_dir_all(folder(out))
            .and_then(|()| fs::write(&partial, text))
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|source| EvalError::Write { path, source })
    }

    /// The result of a configuration, if it is there.
    ///
    /// # Errors
    ///
    /// [`EvalError::Data`] for a file that is no result.
    pub fn read(out: &Path, hash: &str) -> Result<Option<Self>, EvalError> {
        let path = folder(out).join(format!("{hash}.json"));
        if path.exists() { Self::parse(&path).map(Some) } else { Ok(None) }
    }

    fn parse(path: &Path) -> Result<Self, EvalError> {
        let text = fs::read_to_string(path).map_err(|it| failed(path, it.to_string()))?;
        serde_json::from_str(&text).map_err(|it| failed(path, it.to_string()))
    }

    /// Every result of a run's folder, by order and seed.
    ///
    /// # Errors
    ///
    /// [`EvalError::Data`] for a folder without results, and for a file that is none.
    pub fn read_all(out: &Path) -> Result<Vec<Self>, EvalError> {
        let points = folder(out);
        let entries = fs::read_dir(&points).map_err(|it| failed(&points, it.to_string()))?;
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(|it| failed(&points, it.to_string()))?.path();
            if path.extension().is_some_and(|it| it == "json") {
                all.push(Self::parse(&path)?);
            }
        }
        if all.is_empty() {
            return Err(failed(&points, "no results".to_owned()));
        }
        all.sort_by(|a, b| (a.order, &a.label, a.seed).cmp(&(b.order, &b.label, b.seed)));
        Ok(all)
    }

    /// Whether the next run may leave it as it is.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self.status, Status::Failed { .. })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A forget row of which `right` wordings of two were answered.
    pub(crate) fn asked(right: usize, log_ratio: f64) -> Asked {
        Asked {
            right: (0..2).map(|it| it < right).collect(),
            probability: 0.5,
            rouge: 0.5,
            log_ratio,
            value_probability: f64::NAN,
            chosen: Some(right > 0),
            strength: 0.25,
            memorised: 0.75,
            min_k: 1.0,
            fluency: 3.0,
            withheld: false,
        }
    }

    /// A finished point with these forget rows, and kept rows of one half everywhere.
    pub(crate) fn point(label: &str, kind: Kind, seed: u64, forget: Vec<Asked>) -> PointResult {
        let kept = || vec![asked(2, f64::ln(0.5)); 4];
        let measured = Measured {
            forget,
            retain: kept(),
            holdout: kept(),
            real_authors: kept(),
            world_facts: kept(),
            hard: vec![true, true, false, true],
            ..Measured::default()
        };
        PointResult {
            version: "0".to_owned(),
            hash: format!("{label}-{seed}"),
            order: 0,
            label: label.to_owned(),
            name: label.to_owned(),
            kind,
            bound: None,
            seed,
            config: Value::Null,
            status: Status::Done,
            measured: Some(measured),
            training: None,
            timing: Timing::default(),
        }
    }

    #[test]
    fn a_result_comes_back_and_what_is_no_number_is_null() {
        let folder = tempfile::tempdir().unwrap();
        let result = point("npo", Kind::Unlearn, 1, vec![asked(1, f64::NEG_INFINITY)]);
        result.write(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("points/npo-1.json")).unwrap();
        assert!(text.contains("\"log_ratio\": null"), "{text}");
        let back = PointResult::read(folder.path(), "npo-1").unwrap().unwrap();
        let asked = &back.measured.as_ref().unwrap().forget[0];
        assert!(asked.log_ratio.is_nan() && asked.right == [true, false]);
        assert_eq!(serde_json::to_string_pretty(&back).unwrap() + "\n", text);
        assert!(PointResult::read(folder.path(), "other").unwrap().is_none());
        assert_eq!(PointResult::read_all(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_result_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(PointResult::read_all(folder.path()).is_err());
        fs::create_dir(folder.path().join("points")).unwrap();
        assert!(PointResult::read_all(folder.path()).unwrap_err().to_string().contains("points"));
        fs::write(folder.path().join("points/x.json"), "{").unwrap();
        let error = PointResult::read(folder.path(), "x").unwrap_err();
        assert!(error.to_string().contains("x.json"), "{error}");
    }

    #[test]
    fn only_failures_are_tried_again() {
        let mut result = point("npo", Kind::Unlearn, 1, Vec::new());
        assert!(result.is_final());
        result.status = Status::Diverged { step: 3, message: "NaN".to_owned(), checkpoint: None };
        let text = serde_json::to_string(&result.status).unwrap();
        assert!(text.contains("\"state\":\"diverged\"") && result.is_final());
        result.status = Status::Failed { message: "disk full".to_owned() };
        assert!(!result.is_final());
    }
}
