//! Trains the head of a topic classifier on frozen features and calibrates its threshold.
//!
//! Logistic regression by linfa; the threshold by split-conformal calibration (Angelopoulos and
//! Bates, arXiv:2107.07511): on exchangeable forget rows the share that is missed is at most `alpha`.
//! Attacks are not exchangeable with calibration rows; measure them apart.

mod measure;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use linfa::Dataset;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use serde::Deserialize;

use super::hidden::HiddenEncoder;
use crate::data::DataError;
use crate::embed::{
    Calibration, EmbedError, Encoder, EncoderSpec, FORMAT, HASHED_DIM, HASHED_VERSION, HEAD_FILE,
    Hashed, Head, LABELS, MANIFEST_FILE, Manifest, Onnx, OnnxOptions, most_suspicious, sha256_hex,
};
use crate::seed::{Stream, derive};
use measure::{flagged, quiet};
pub use report::{ClassifierReport, HeldOut, LengthMatched, REPORT_FILE, Slice, Suffixes};

/// Which features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncoderChoice {
    /// Hashed n-grams: no model file.
    Hashed,
    /// A folder with `model.onnx` and `tokenizer.json`, and the ONNX Runtime library.
    Onnx(PathBuf, Option<PathBuf>),
    /// A model folder, and after how many of its blocks the residual stream is read.
    Hidden(PathBuf, usize),
}

/// A classifier to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierJob {
    /// JSON lines about the topic.
    pub forget: PathBuf,
    /// JSON lines about everything else.
    pub retain: PathBuf,
    /// The topic's name.
    pub topic: String,
    /// Where the folder is written.
    pub out: PathBuf,
    /// Which features.
    pub encoder: EncoderChoice,
    /// Accepted share of missed forget rows.
    pub alpha: f64,
    /// Accepted share of retain rows that are taken for the topic; wins over `alpha`.
    pub false_positives: f64,
    /// What the classifier must reach to be written.
    pub gate: Gate,
    /// Seed of splits and sampling.
    pub seed: u64,
}

/// Bounds on the held-out rows; without any, every classifier is good enough.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gate {
    /// Least recall.
    pub min_recall: Option<f64>,
    /// Most false positives.
    pub max_false_positives: Option<f64>,
}

impl Gate {
    /// What is not good enough.
    fn reasons(&self, recall: f64, false_positives: f64) -> Vec<String> {
        let recall = self
            .min_recall
            .filter(|it| recall < *it)
            .map(|it| format!("recall {recall:.4} is below --min-recall {it}"));
        let noise = self.max_false_positives.filter(|it| false_positives > *it).map(|it| {
            format!("false-positive rate {false_positives:.4} is above --max-false-positives {it}")
        });
        recall.into_iter().chain(noise).collect()
    }
}

/// Why there is no classifier.
#[derive(Debug, thiserror::Error)]
pub enum ClassifierError {
    /// A data file cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The encoder failed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The regression did not converge.
    #[error("the regression failed: {0}")]
    Fit(String),
    /// Too few rows.
    #[error("{}: {rows} rows are too few; at least {needed} are needed", path.display())]
    TooFew {
        /// Which file.
        path: PathBuf,
        /// How many there are.
        rows: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The classifier is not good enough.
    #[error("not promoted: {reasons}; `{}` was left as it was\n\n{report}", path.display())]
    Refused {
        /// The folder that was not written.
        path: PathBuf,
        /// Which bounds it misses.
        reasons: String,
        /// All that was measured.
        report: String,
    },
    /// The folder cannot be written.
    #[error("{}: {message}", path.display())]
    Write {
        /// Which folder.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// A row: its question in one or two wordings.
type Wordings = Vec<String>;

#[derive(Deserialize)]
struct RawRow {
    question: Option<String>,
    paraphrased_question: Option<String>,
    text: Option<String>,
    messages: Option<Vec<RawMessage>>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: String,
}

fn read(path: &Path) -> Result<Vec<Wordings>, DataError> {
    let text = fs::read_to_string(path)
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let mut rows = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|it| !it.1.trim().is_empty()) {
        let bad = |message: String| DataError::Row { path: path.to_owned(), line: at + 1, message };
        let row: RawRow = serde_json::from_str(line).map_err(|it| bad(it.to_string()))?;
        let said = row.messages.map(|it| {
            it.into_iter()
                .filter(|it| it.role == "user")
                .map(|it| it.content)
                .collect::<Vec<_>>()
                .join("\n")
        });
        let first = row.question.or(row.text).or(said);
        let first =
            first.ok_or_else(|| bad("needs `question`, `text` or `messages`".to_owned()))?;
        rows.push(std::iter::once(first).chain(row.paraphrased_question).collect());
    }
    Ok(rows)
}

/// The `ceil((n + 1)(1 - alpha))`-th smallest non-conformity, or the largest when there are too few.
fn conformal_quantile(mut scores: Vec<f32>, alpha: f64) -> f32 {
    scores.sort_by(f32::total_cmp);
    let rank = ((scores.len() + 1) as f64 * (1.0 - alpha)).ceil() as usize;
    scores[rank.clamp(1, scores.len()) - 1]
}

struct Features {
    encoder: Box<dyn Encoder>,
}

impl Features {
    fn dense(&self, texts: &[String]) -> Result<Vec<f32>, EmbedError> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.encoder.encode(&texts)
    }

    fn fit(&self, forget: &[String], retain: &[String]) -> Result<Head, ClassifierError> {
        let width = self.encoder.dim();
        let mut values = self.dense(forget)?;
        values.extend(self.dense(retain)?);
        // Only columns that occur: most of a hashed vector is empty.
        let used: Vec<usize> = (0..width)
            .filter(|it| values.iter().skip(*it).step_by(width).any(|it| *it != 0.0))
            .collect();
        let rows = forget.len() + retain.len();
        let records = Array2::from_shape_fn((rows, used.len()), |(row, it)| {
            f64::from(values[row * width + used[it]])
        });
        let targets = Array1::from_shape_fn(rows, |row| row < forget.len());
        let model = LogisticRegression::default()
            .alpha(0.01)
            .max_iterations(300)
            .fit(&Dataset::new(records, targets))
            .map_err(|it| ClassifierError::Fit(it.to_string()))?;
        let sign = if model.labels().pos.class { 1.0 } else { -1.0 };
        let mut weights = vec![0f32; width];
        for (at, weight) in used.iter().zip(model.params()) {
            weights[*at] = (sign * weight) as f32;
        }
        Ok(Head { weights, bias: (sign * model.intercept()) as f32 })
    }

    /// Scores of every wording, each as a row of its own.
    fn scores(&self, head: &Head, rows: &[Wordings]) -> Result<Vec<f32>, EmbedError> {
        let texts: Vec<String> = rows.iter().flatten().cloned().collect();
        let values = self.dense(&texts)?;
        Ok(values.chunks(self.encoder.dim()).map(|it| head.score_dense(it)).collect())
    }

    /// The score of the most suspicious window, as it is served; 0 for a text without words.
    fn score_windows(&self, head: &Head, text: &str) -> Result<f32, EmbedError> {
        let best = most_suspicious(text, |it| Ok(head.score_dense(&self.encoder.encode(&[it])?)))?;
        Ok(best.map_or(0.0, |it| it.0))
    }
}

/// Training texts of one side: every wording as it is, in lower case, and without its last mark.
fn variations(rows: &[Wordings]) -> Vec<String> {
    let texts = rows.iter().flatten().flat_map(|it| {
        let bare = it.trim_end_matches(['?', '.', '!']).to_owned();
        [it.clone(), it.to_lowercase(), bare]
    });
    texts.collect()
}

/// Both sides' training texts, balanced by repetition; questions of both kinds in one text are the
/// topic's.
fn training_texts(
    forget: &[Wordings],
    retain: &[Wordings],
    stream: &mut Stream,
) -> (Vec<String>, Vec<String>) {
    let (mut on, mut off) = (variations(forget), variations(retain));
    let mixed: Vec<String> = forget
        .iter()
        .flat_map(|row| {
            let (one, other) = (stream.pick(row).clone(), partner(retain, row)[0].clone());
            [format!("{one} {other}"), format!("{other} {one}")]
        })
        .collect();
    let pairs: Vec<String> = (0..mixed.len())
        .map(|_| {
            let (one, two) = (stream.below(retain.len()), stream.below(retain.len()));
            format!("{} {}", retain[one][0], retain[two][0])
        })
        .collect();
    on.extend(mixed);
    off.extend(pairs);
    let most = 6000;
    stream.shuffle(&mut off);
    off.truncate(most);
    let base = on.clone();
    while on.len() * 2 < off.len() && on.len() < most {
        on.extend(base.iter().cloned());
    }
    (on, off)
}

/// A retain row for a forget row, the same on every run.
fn partner<'a>(retain: &'a [Wordings], row: &Wordings) -> &'a Wordings {
    Stream::new(derive(0, row[0].as_bytes())).pick(retain)
}

/// Rows in three parts by the hash of their text: 60 % training, 20 % calibration, 20 % test.
fn split(rows: Vec<Wordings>, seed: u64) -> [Vec<Wordings>; 3] {
    let mut keyed: Vec<(u64, Wordings)> =
        rows.into_iter().map(|it| (derive(seed, it[0].as_bytes()), it)).collect();
    keyed.sort();
    keyed.dedup();
    let fifth = keyed.len() / 5;
    let mut rows: Vec<Wordings> = keyed.into_iter().map(|it| it.1).collect();
    let test = rows.split_off(rows.len() - fifth);
    let calibration = rows.split_off(rows.len() - fifth);
    [rows, calibration, test]
}

/// Trains, calibrates and writes a classifier.
///
/// # Errors
///
/// [`ClassifierError`]; nothing is left half-written.
pub fn run(job: &ClassifierJob) -> Result<ClassifierReport, ClassifierError> {
    let (forget, retain) = (read(&job.forget)?, read(&job.retain)?);
    for (path, rows) in [(&job.forget, &forget), (&job.retain, &retain)] {
        if rows.len() < 10 {
            return Err(ClassifierError::TooFew {
                path: path.clone(),
                rows: rows.len(),
                needed: 10,
            });
        }
    }
    if job.out.exists() && !job.out.join(MANIFEST_FILE).exists() {
        let message = "exists and is not a classifier folder; choose another `--out`".to_owned();
        return Err(ClassifierError::Write { path: job.out.clone(), message });
    }
    let (n_forget, n_retain) = (forget.len(), retain.len());
    let (features, encoder) = features(job)?;
    let [train_forget, calibration_forget, test_forget] = split(forget, job.seed);
    let [train_retain, calibration_retain, test_retain] = split(retain, job.seed);
    let mut stream = Stream::named(job.seed, "classifier");
    let (on, off) = training_texts(&train_forget, &train_retain, &mut stream);
    let head = features.fit(&on, &off)?;
    let missed: Vec<f32> =
        features.scores(&head, &calibration_forget)?.into_iter().map(|it| 1.0 - it).collect();
    let calibrated = missed.len();
    let floor = quiet(features.scores(&head, &calibration_retain)?, job.false_positives);
    let wanted = 1.0 - conformal_quantile(missed.clone(), job.alpha);
    let threshold = wanted.max(floor);
    let below = missed.iter().filter(|it| 1.0 - **it < threshold).count();
    let test_scores = features.scores(&head, &test_forget)?;
    let other_scores = features.scores(&head, &test_retain)?;
    let bytes = head.to_bytes();
    let manifest = Manifest {
        format: FORMAT,
        topic: job.topic.clone(),
        labels: LABELS.map(str::to_owned).to_vec(),
        threshold,
        alpha: job.alpha,
        encoder,
        head_file: HEAD_FILE.to_owned(),
        head_sha256: sha256_hex(&bytes),
        n_forget,
        n_retain,
        calibration: Calibration {
            method: "split".to_owned(),
            n_forget: calibrated,
            alpha_attained: job.alpha.max((below + 1) as f64 / (calibrated + 1) as f64),
            n_test_forget: test_scores.len(),
            n_test_retain: other_scores.len(),
        },
        recall: flagged(&test_scores, threshold),
        false_positive_rate: flagged(&other_scores, threshold),
    };
    let rows = report::TestRows {
        forget: &test_forget,
        retain: &test_retain,
        forget_scores: &test_scores,
        retain_scores: &other_scores,
    };
    let held_out = HeldOut::measure(&manifest, &rows, |it| features.score_windows(&head, it))?;
    let report = ClassifierReport { manifest, held_out, out: job.out.clone() };
    promote(job, &report, &bytes)?;
    Ok(report)
}

fn features(job: &ClassifierJob) -> Result<(Features, EncoderSpec), EmbedError> {
    Ok(match &job.encoder {
        EncoderChoice::Hashed => {
            let spec = EncoderSpec::Hashed { dim: HASHED_DIM, version: HASHED_VERSION };
            (Features { encoder: Box::new(Hashed) }, spec)
        }
        EncoderChoice::Onnx(path, runtime) => {
            let options = OnnxOptions { runtime: runtime.clone(), ..OnnxOptions::default() };
            let onnx = Onnx::load(path, &options)?;
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let spec = EncoderSpec::Onnx { path, sha256: onnx.identity() };
            (Features { encoder: Box::new(onnx) }, spec)
        }
        EncoderChoice::Hidden(folder, layer) => {
            let encoder = HiddenEncoder::load(folder, *layer)?;
            let (layer, dim, weights_sha256) = (*layer, encoder.dim(), encoder.identity());
            let spec = EncoderSpec::Hidden { layer, dim, weights_sha256 };
            (Features { encoder: Box::new(encoder) }, spec)
        }
    })
}

/// Writes into a folder beside the target and renames it over, if the gate lets it through.
fn promote(
    job: &ClassifierJob,
    report: &ClassifierReport,
    head: &[u8],
) -> Result<(), ClassifierError> {
    let Manifest { recall, false_positive_rate, .. } = report.manifest;
    let reasons = job.gate.reasons(recall, false_positive_rate);
    if !reasons.is_empty() {
        return Err(ClassifierError::Refused {
            path: job.out.clone(),
            reasons: reasons.join(", "),
            report: report.to_markdown(),
        });
    }
    let text = report.manifest.to_json()?;
    let measured = report.held_out.to_json();
    let partial = job.out.with_extension("partial");
    let steps = || -> std::io::Result<()> {
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        fs::write(partial.join(HEAD_FILE), head)?;
        fs::write(partial.join(REPORT_FILE), &measured)?;
        fs::write(partial.join(MANIFEST_FILE), &text)?;
        if job.out.exists() {
            fs::remove_dir_all(&job.out)?;
        }
        fs::rename(&partial, &job.out)
    };
    steps().map_err(|it| ClassifierError::Write { path: job.out.clone(), message: it.to_string() })
}

#[cfg(test)]
mod tests;
