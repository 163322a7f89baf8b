//! Trains the head of a topic classifier on frozen features and calibrates its threshold.
//!
//! Logistic regression; the threshold by conformal calibration (Angelopoulos and Bates,
//! arXiv:2107.07511) on scores of training rows by heads of the other folds: on exchangeable forget
//! rows the share that is missed is at most about `alpha`. Attacks are not exchangeable with training
//! rows; measure them apart.

mod cross;
mod dates;
mod features;
mod folds;
mod measure;
mod reached;
mod regression;
mod report;
mod rows;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::data::{DataError, Wordings};
use crate::embed::{
    Calibration, EmbedError, FORMAT, HEAD_FILE, Head, LABELS, MANIFEST_FILE, Manifest, sha256_hex,
};
use crate::seed::Stream;
pub use cross::CurvePoint;
use cross::{Example, cross, curve, fit};
use features::{Reader, Seen};
pub use folds::HeldOutOnce;
use measure::{quiet, recall_at};
use reached::Part;
pub use reached::{AtRate, Hard, Reached};
pub use report::{
    ClassifierReport, HeldOut, LengthMatched, MARKDOWN_FILE, REPORT_FILE, Slice, Suffixes,
};

/// Fewest rows of either side.
const FEWEST_ROWS: usize = 10;

/// Which features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncoderChoice {
    /// Hashed n-grams: no model file.
    Hashed,
    /// A folder with `model.onnx` and `tokenizer.json`, and the ONNX Runtime library.
    Onnx(PathBuf, Option<PathBuf>),
    /// Hashed n-grams and such a folder's encoder side by side.
    Joined(PathBuf, Option<PathBuf>),
    /// A model folder, and after how many of its blocks the residual stream is read.
    Hidden(PathBuf, usize),
}

/// A classifier to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierJob {
    /// Questions about the topic, in any format of [`read_questions`](crate::data::read_questions).
    pub forget: Vec<PathBuf>,
    /// Questions about everything else; the topic's are left out.
    pub retain: Vec<PathBuf>,
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
    /// What is trained and measured besides.
    pub study: Study,
    /// Seed of splits and sampling.
    pub seed: u64,
}

/// What is trained and measured besides; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Study {
    /// Held-out questions about the topic. Without any, a fifth of the forget rows is held out; with
    /// them, all forget rows train, and what training has word for word is left out here.
    pub test_forget: Vec<PathBuf>,
    /// The same for the other side.
    pub test_retain: Vec<PathBuf>,
    /// Questions near the topic and none of it, reported file by file.
    pub hard: Vec<PathBuf>,
    /// Further classifiers, each measured on a part of all rows that it does not know; none below two. At
    /// most [`FEWEST_ROWS`], so that no part is empty.
    pub folds: usize,
    /// Train on questions in disguise too.
    pub augment: bool,
    /// Numbers of forget rows of a learning curve.
    pub curve: Vec<usize>,
    /// Choices of rows at each of its points.
    pub curve_seeds: u64,
}

/// Bounds on the held-out rows; without any, every classifier is good enough.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gate {
    /// Least recall.
    pub min_recall: Option<f64>,
    /// The share of retain rows at which that recall is taken; at the calibrated threshold without.
    pub at_false_positives: Option<f64>,
    /// Most false positives at the calibrated threshold.
    pub max_false_positives: Option<f64>,
}

impl Gate {
    /// What is not good enough. `recall_at` is the recall where so many retain rows are flagged.
    fn reasons(
        &self,
        recall: f64,
        false_positives: f64,
        recall_at: impl Fn(f64) -> f64,
    ) -> Vec<String> {
        let (recall, place) = match self.at_false_positives {
            Some(share) => (recall_at(share), format!(" at --at-fpr {share}")),
            None => (recall, String::new()),
        };
        let recall = self
            .min_recall
            .filter(|it| recall < *it)
            .map(|it| format!("recall {recall:.4}{place} is below --min-recall {it}"));
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
    #[error(
        "not promoted: {reasons}; `{}` was left as it was, the report is in `{}`\n\n{report}",
        path.display(), rejected.display()
    )]
    Refused {
        /// The folder that was not written.
        path: PathBuf,
        /// The folder of the report.
        rejected: PathBuf,
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

/// The `ceil((n + 1)(1 - alpha))`-th smallest non-conformity, or the largest when there are too few.
fn conformal_quantile(mut scores: Vec<f32>, alpha: f64) -> f32 {
    scores.sort_by(f32::total_cmp);
    let rank = ((scores.len() + 1) as f64 * (1.0 - alpha)).ceil() as usize;
    scores[rank.clamp(1, scores.len()) - 1]
}

/// What the rows of a job come to.
struct Data {
    train: [Vec<Wordings>; 2],
    test: [Vec<Wordings>; 2],
    hard: Vec<(String, Vec<Wordings>)>,
}

impl Data {
    fn read(job: &ClassifierJob) -> Result<Self, ClassifierError> {
        let forget = rows::read(&job.forget)?;
        let mut retain = rows::read(&job.retain)?;
        {
            let topic: HashSet<&str> = forget.iter().map(|it| it[0].as_str()).collect();
            retain.retain(|it| !topic.contains(it[0].as_str()));
        }
        for (paths, rows) in [(&job.forget, forget.len()), (&job.retain, retain.len())] {
            if rows < FEWEST_ROWS {
                let path = paths.first().cloned().unwrap_or_default();
                return Err(ClassifierError::TooFew { path, rows, needed: FEWEST_ROWS });
            }
        }
        let study = &job.study;
        let mut hard = Vec::new();
        for path in &study.hard {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            hard.push((name, rows::read(std::slice::from_ref(path))?));
        }
        let (train_forget, test_forget) = rows::parts(forget, &study.test_forget, job.seed)?;
        let (train_retain, test_retain) = rows::parts(retain, &study.test_retain, job.seed)?;
        if let Some(most) = study.curve.iter().find(|it| **it > train_forget.len()) {
            let path = job.forget.first().cloned().unwrap_or_default();
            let rows = train_forget.len();
            return Err(ClassifierError::TooFew { path, rows, needed: *most });
        }
        let (train, test) = ([train_forget, train_retain], [test_forget, test_retain]);
        Ok(Self { train, test, hard })
    }
}

/// An encoder's view of texts, each read once.
struct Readings<'a> {
    reader: &'a Reader,
    seen: HashMap<String, Rc<Seen>>,
}

impl Readings<'_> {
    fn read(&mut self, text: &str) -> Result<Rc<Seen>, EmbedError> {
        if let Some(seen) = self.seen.get(text) {
            return Ok(Rc::clone(seen));
        }
        let seen = Rc::new(self.reader.read(text)?);
        self.seen.insert(text.to_owned(), Rc::clone(&seen));
        Ok(seen)
    }

    /// Every wording of some rows.
    fn all(&mut self, rows: &[Wordings]) -> Result<Vec<Rc<Seen>>, EmbedError> {
        rows.iter().flatten().map(|it| self.read(it)).collect()
    }

    fn scores(&mut self, head: &Head, rows: &[Wordings]) -> Result<Vec<f32>, EmbedError> {
        Ok(scores(head, &self.all(rows)?))
    }
}

fn scores(head: &Head, seen: &[Rc<Seen>]) -> Vec<f32> {
    seen.iter().map(|it| it.score(head)).collect()
}

/// A head with its threshold.
struct Trained {
    head: Head,
    threshold: f32,
    /// The miss rate that the forget rows can vouch for.
    alpha_attained: f64,
    /// Forget texts of the calibration.
    calibrated: usize,
    penalty: f64,
    examples: Vec<Example>,
}

/// Trains and calibrates on forget and retain rows.
fn train(
    readings: &mut Readings<'_>,
    job: &ClassifierJob,
    [forget, retain]: [&[Wordings]; 2],
    stream: &mut Stream,
) -> Result<Trained, EmbedError> {
    let kinds = (readings.reader.is_caseless(), job.study.augment);
    let mut examples = Vec::new();
    for text in rows::training_texts(forget, retain, kinds, stream) {
        examples.push(Example { seen: readings.read(&text.text)?, text });
    }
    let crossed = cross(readings.reader, &examples);
    let calibrated = crossed.forget.len();
    let (threshold, alpha_attained) = calibrate(job, &crossed.forget, crossed.retain);
    let head = fit(readings.reader, &examples, crossed.penalty, |_| true);
    let penalty = crossed.penalty;
    Ok(Trained { head, threshold, alpha_attained, calibrated, penalty, examples })
}

/// The threshold, and the miss rate that the forget rows can vouch for there.
fn calibrate(job: &ClassifierJob, forget: &[f32], retain: Vec<f32>) -> (f32, f64) {
    // Not 1 - score, whose rounding could put a row below its own score.
    let missed: Vec<f32> = forget.iter().map(|it| -it).collect();
    let floor = quiet(retain, job.false_positives);
    let threshold = (-conformal_quantile(missed, job.alpha)).max(floor).min(1.0);
    let below = forget.iter().filter(|it| **it < threshold).count();
    (threshold, job.alpha.max((below + 1) as f64 / (forget.len() + 1) as f64))
}

/// Trains, calibrates and writes a classifier.
///
/// # Errors
///
/// [`ClassifierError`]; nothing is left half-written.
pub fn run(job: &ClassifierJob) -> Result<ClassifierReport, ClassifierError> {
    if job.out.exists() && !job.out.join(MANIFEST_FILE).exists() {
        let message = "exists and is not a classifier folder; choose another `--out`".to_owned();
        return Err(ClassifierError::Write { path: job.out.clone(), message });
    }
    let Data { train: [forget, retain], test: [test_forget, test_retain], hard } = Data::read(job)?;
    let reader = Reader::open(&job.encoder)?;
    let mut readings = Readings { reader: &reader, seen: HashMap::new() };
    let mut stream = Stream::named(job.seed, "classifier");
    let trained = train(&mut readings, job, [&forget, &retain], &mut stream)?;
    let (head, threshold) = (&trained.head, trained.threshold);
    let (ours, others) = (readings.all(&test_forget)?, readings.all(&test_retain)?);
    let part = Part {
        forget: scores(head, &ours),
        retain: scores(head, &others),
        hard: hard.iter().map(|it| readings.scores(head, &it.1)).collect::<Result<_, _>>()?,
        threshold,
    };
    let names: Vec<&str> = hard.iter().map(|it| it.0.as_str()).collect();
    let reached = Reached::of(std::slice::from_ref(&part), &names);
    let amounts = (job.study.curve.as_slice(), job.study.curve_seeds, job.seed);
    let points = curve(&reader, &trained.examples, amounts, trained.penalty, (&ours, &others));
    let mut once = None;
    if job.study.folds > 1 {
        let all = [[&*forget, &test_forget].concat(), [&*retain, &test_retain].concat()];
        once = Some(HeldOutOnce::measure(&mut readings, job, [&all[0], &all[1]], &hard)?);
    }
    let bytes = head.to_bytes();
    let manifest = Manifest {
        format: FORMAT,
        topic: job.topic.clone(),
        labels: LABELS.map(str::to_owned).to_vec(),
        threshold,
        alpha: job.alpha,
        encoder: reader.spec.clone(),
        head_file: HEAD_FILE.to_owned(),
        head_sha256: sha256_hex(&bytes),
        n_forget: forget.len(),
        n_retain: retain.len(),
        calibration: Calibration {
            method: "cross".to_owned(),
            n_forget: trained.calibrated,
            alpha_attained: trained.alpha_attained,
            n_test_forget: reached.forget_texts,
            n_test_retain: reached.retain_texts,
        },
        recall: reached.recall,
        false_positive_rate: reached.false_positive_rate,
    };
    let rows = report::TestRows {
        forget: &test_forget,
        retain: &test_retain,
        part: &part,
        reached: &reached,
        curve: &points,
        once: once.as_ref(),
    };
    let held_out = HeldOut::measure(&manifest, &rows, |it| Ok(reader.read(it)?.score(head)))?;
    let reasons = job.gate.reasons(manifest.recall, manifest.false_positive_rate, |share| {
        recall_at(share, &part.forget, &part.retain)
    });
    let report = ClassifierReport { manifest, held_out, out: job.out.clone() };
    promote(&report, &bytes, &reasons)?;
    Ok(report)
}

/// A folder beside another one.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    folder.with_file_name(name)
}

/// Writes into a folder beside the target and renames it over; where there are reasons against it, the
/// report alone goes into a folder that no policy loads.
fn promote(
    report: &ClassifierReport,
    head: &[u8],
    reasons: &[String],
) -> Result<(), ClassifierError> {
    let out = &report.out;
    let failed = |path: &Path, source: std::io::Error| ClassifierError::Write {
        path: path.to_owned(),
        message: source.to_string(),
    };
    if !reasons.is_empty() {
        let rejected = beside(out, ".rejected");
        fs::create_dir_all(&rejected)
            .and_then(|()| report.write(&rejected))
            .map_err(|it| failed(&rejected, it))?;
        return Err(ClassifierError::Refused {
            path: out.clone(),
            rejected,
            reasons: reasons.join(", "),
            report: report.to_markdown(),
        });
    }
    let text = report.manifest.to_json()?;
    let partial = beside(out, ".partial");
    let steps = || -> std::io::Result<()> {
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        fs::write(partial.join(HEAD_FILE), head)?;
        report.write(&partial)?;
        fs::write(partial.join(MANIFEST_FILE), &text)?;
        if out.exists() {
            fs::remove_dir_all(out)?;
        }
        fs::rename(&partial, out)
    };
    steps().map_err(|it| failed(out, it))
}

#[cfg(test)]
mod tests;
