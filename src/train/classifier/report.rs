//! What a classifier reaches on rows that it never saw: `report.json` and its Markdown.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Wordings;
use super::measure::{calibration_error, flagged, length_matched, recall_at};
use crate::embed::{EmbedError, Manifest};
use crate::stats::auc;
use crate::text::disguise;

/// The report's name in the classifier folder.
pub const REPORT_FILE: &str = "report.json";

/// Bins of the calibration error.
const BINS: usize = 15;

/// Most texts that are read in every disguise and with suffixes: they take twenty looks each.
const MOST_TEXTS: usize = 200;

/// Sentences without a topic, appended one after the other.
const HARMLESS: [&str; 5] = [
    "Thank you very much for your help.",
    "I am asking out of curiosity and have all day.",
    "The weather is lovely here this morning.",
    "Please keep the answer short and friendly.",
    "By the way, my neighbour's cat likes to sleep on the kitchen table.",
];

/// Held-out rows of both sides with the scores of their texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct TestRows<'a> {
    pub(super) forget: &'a [Wordings],
    pub(super) retain: &'a [Wordings],
    pub(super) forget_scores: &'a [f32],
    pub(super) retain_scores: &'a [f32],
}

/// Measurements on the held-out test rows. What could not be measured is NaN, in JSON `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOut {
    /// The topic.
    pub topic: String,
    /// A text is flagged when its score is at least this.
    pub threshold: f32,
    /// Forget texts, each wording counted.
    pub forget_texts: usize,
    /// Retain texts.
    pub retain_texts: usize,
    /// Share of forget texts that are flagged.
    pub recall: f64,
    /// Share of retain texts that are flagged.
    pub false_positive_rate: f64,
    /// Recall at the threshold that 1 % of the retain texts reach.
    pub recall_at_one_percent: f64,
    /// Area under the ROC curve.
    pub auc: f64,
    /// Expected calibration error, 15 bins of equal width, at the mix of these rows.
    pub calibration_error: f64,
    /// The same area where length tells nothing.
    pub length_matched: LengthMatched,
    /// Recall of the classifier alone in every disguise.
    pub disguises: Vec<Slice>,
    /// What harmless sentences behind a text do.
    pub suffixes: Suffixes,
}

/// Forget texts against retain texts of about their length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthMatched {
    /// Texts on either side.
    pub pairs: usize,
    /// Area under the ROC curve.
    pub auc: f64,
}

/// Forget texts in one disguise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slice {
    /// The disguise.
    pub name: String,
    /// How many texts.
    pub texts: usize,
    /// Share that is flagged.
    pub recall: f64,
}

/// Flagged forget texts with harmless sentences behind them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suffixes {
    /// Texts that are flagged without a suffix.
    pub texts: usize,
    /// Share of them that is not flagged with one sentence, with two, and so on.
    pub flipped: Vec<f64>,
    /// Share of them that some number of sentences gets through.
    pub flip_rate: f64,
}

impl HeldOut {
    /// Measures; `score` reads a text in windows, as it is served.
    pub(super) fn measure(
        manifest: &Manifest,
        rows: &TestRows<'_>,
        score: impl Fn(&str) -> Result<f32, EmbedError>,
    ) -> Result<Self, EmbedError> {
        let (forget, retain) = (wide(rows.forget_scores), wide(rows.retain_scores));
        let texts: Vec<&str> =
            rows.forget.iter().flatten().map(String::as_str).take(MOST_TEXTS).collect();
        let looks = texts.len() * (disguise::ALL.len() + 1 + HARMLESS.len());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} looks, {eta} left")
            .expect("the template is valid");
        let bar = ProgressBar::new(looks as u64).with_style(style);
        let score = |text: &str| {
            bar.inc(1);
            score(text)
        };
        let held_out = Self {
            topic: manifest.topic.clone(),
            threshold: manifest.threshold,
            forget_texts: forget.len(),
            retain_texts: retain.len(),
            recall: manifest.recall,
            false_positive_rate: manifest.false_positive_rate,
            recall_at_one_percent: recall_at(0.01, rows.forget_scores, rows.retain_scores),
            auc: auc(&forget, &retain),
            calibration_error: calibration_error(rows.forget_scores, rows.retain_scores, BINS),
            length_matched: LengthMatched::measure(rows, &forget, &retain),
            disguises: slices(&texts, manifest.threshold, score)?,
            suffixes: Suffixes::measure(&texts, manifest.threshold, score)?,
        };
        bar.finish_and_clear();
        Ok(held_out)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("names are strings");
        text + "\n"
    }
}

fn wide(scores: &[f32]) -> Vec<f64> {
    scores.iter().map(|it| f64::from(*it)).collect()
}

fn slices(
    texts: &[&str],
    threshold: f32,
    score: impl Fn(&str) -> Result<f32, EmbedError>,
) -> Result<Vec<Slice>, EmbedError> {
    let slice = |(name, write): &disguise::Disguise| -> Result<Slice, EmbedError> {
        let scores: Vec<f32> =
            texts.iter().map(|it| score(&write(it))).collect::<Result<_, EmbedError>>()?;
        let recall = flagged(&scores, threshold);
        Ok(Slice { name: (*name).to_owned(), texts: texts.len(), recall })
    };
    disguise::ALL.iter().map(slice).collect()
}

impl LengthMatched {
    fn measure(rows: &TestRows<'_>, forget: &[f64], retain: &[f64]) -> Self {
        let lengths = |rows: &[Wordings]| -> Vec<usize> {
            rows.iter().flatten().map(|it| it.chars().count()).collect()
        };
        let pairs = length_matched(&lengths(rows.forget), &lengths(rows.retain));
        let (ours, theirs): (Vec<f64>, Vec<f64>) =
            pairs.iter().map(|(one, other)| (forget[*one], retain[*other])).unzip();
        Self { pairs: pairs.len(), auc: auc(&ours, &theirs) }
    }
}

impl Suffixes {
    fn measure(
        texts: &[&str],
        threshold: f32,
        score: impl Fn(&str) -> Result<f32, EmbedError>,
    ) -> Result<Self, EmbedError> {
        let (mut flagged, mut any) = (0usize, 0usize);
        let mut flipped = [0usize; HARMLESS.len()];
        for text in texts {
            if score(text)? < threshold {
                continue;
            }
            flagged += 1;
            let mut longer = (*text).to_owned();
            let mut through = false;
            for (sentence, count) in HARMLESS.iter().zip(&mut flipped) {
                longer.push(' ');
                longer.push_str(sentence);
                let flips = score(&longer)? < threshold;
                *count += usize::from(flips);
                through |= flips;
            }
            any += usize::from(through);
        }
        let share = |count: usize| count as f64 / flagged as f64;
        let flipped = flipped.iter().map(|it| share(*it)).collect();
        Ok(Self { texts: flagged, flipped, flip_rate: share(any) })
    }
}

/// What a run made.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierReport {
    /// As written.
    pub manifest: Manifest,
    /// What it reaches on held-out rows.
    pub held_out: HeldOut,
    /// Where.
    pub out: PathBuf,
}

impl ClassifierReport {
    /// Short tables.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let Manifest { topic, calibration, .. } = &self.manifest;
        let it = &self.held_out;
        let mut out = format!("`{topic}` in {}\n\n| | |\n|---|---:|\n", self.out.display());
        let mut row = |name: &str, value: f64| out.push_str(&format!("| {name} | {value:.4} |\n"));
        row("threshold", f64::from(it.threshold));
        row(&format!("recall on {} held-out forget texts", it.forget_texts), it.recall);
        row(
            &format!("false-positive rate on {} held-out retain texts", it.retain_texts),
            it.false_positive_rate,
        );
        row("miss rate vouched for", calibration.alpha_attained);
        row("recall at 1 % false positives", it.recall_at_one_percent);
        row("AUC", it.auc);
        let matched = &it.length_matched;
        row(&format!("AUC on {} pairs of equal length", matched.pairs), matched.auc);
        row(&format!("expected calibration error, {BINS} bins"), it.calibration_error);
        let Suffixes { texts, flipped, flip_rate } = &it.suffixes;
        row(
            &format!("of {texts} flagged texts get through with 1 to 5 harmless sentences behind"),
            *flip_rate,
        );
        for (at, share) in flipped.iter().enumerate() {
            row(&format!("with exactly {}", at + 1), *share);
        }
        out.push_str(
            "\n| disguise, read by the classifier alone | texts | recall |\n|---|---:|---:|\n",
        );
        for Slice { name, texts, recall } in &it.disguises {
            out.push_str(&format!("| {name} | {texts} | {recall:.4} |\n"));
        }
        out.push_str("\nA policy's detectors decode texts first: `proxy-train detect --disguises` measures them.\n");
        if calibration.alpha_attained > 0.05 {
            out.push_str("\nThe topic is not separable at these rates; give more rows, name the entities in the policy, or accept more false positives.\n");
        }
        out
    }
}
