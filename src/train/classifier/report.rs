//! What a classifier reaches on rows that it never saw: `report.json`, `report.md` and the ROC figure.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::cross::CurvePoint;
use super::folds::HeldOutOnce;
use super::measure::{calibration_error, flagged, length_matched, roc};
use super::reached::{Part, Reached, wide};
use crate::data::Wordings;
use crate::data::figure::{Figure, Line};
use crate::embed::{EmbedError, Manifest};
use crate::stats::auc;
use crate::text::disguise;

/// The report's name in the classifier folder.
pub const REPORT_FILE: &str = "report.json";

/// The same as Markdown.
pub const MARKDOWN_FILE: &str = "report.md";

/// Bins of the calibration error.
const BINS: usize = 15;

/// Most texts that are read in every disguise and with suffixes: they take twenty looks each.
const MOST_TEXTS: usize = 200;

/// Words that are appended between two looks, and looks at most.
const SUFFIX_STEP: usize = 5;
const SUFFIX_LOOKS: usize = 8;

/// Sentences without a topic, appended word after word.
const HARMLESS: [&str; 5] = [
    "Thank you very much for your help.",
    "I am asking out of curiosity and have all day.",
    "The weather is lovely here this morning.",
    "Please keep the answer short and friendly.",
    "By the way, my neighbour's cat likes to sleep on the kitchen table.",
];

/// Held-out rows of both sides with what the classifier gives to their texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct TestRows<'a> {
    pub(super) forget: &'a [Wordings],
    pub(super) retain: &'a [Wordings],
    pub(super) part: &'a Part,
    pub(super) reached: &'a Reached,
    pub(super) curve: &'a [CurvePoint],
    pub(super) once: Option<&'a HeldOutOnce>,
}

/// Measurements on the held-out test rows. What could not be measured is NaN, in JSON `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOut {
    /// The topic.
    pub topic: String,
    /// A text is flagged when its score is at least this.
    pub threshold: f32,
    /// Recall, false positives and area under the ROC curve.
    #[serde(flatten)]
    pub reached: Reached,
    /// Expected calibration error, 15 bins of equal width, at the mix of these rows.
    pub calibration_error: f64,
    /// The same area where length tells nothing.
    pub length_matched: LengthMatched,
    /// Recall of the classifier alone in every disguise.
    pub disguises: Vec<Slice>,
    /// What harmless words behind a text do.
    pub suffixes: Suffixes,
    /// What is learnt from how few rows.
    pub curve: Vec<CurvePoint>,
    /// Every row held out once, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub once: Option<HeldOutOnce>,
    /// The ROC curve: shares of retain and of forget texts that are flagged, from none to all.
    #[serde(skip)]
    pub roc: Vec<(f64, f64)>,
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

/// Flagged forget texts with harmless words behind them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suffixes {
    /// Texts that are flagged without a suffix.
    pub texts: usize,
    /// Share of them that got through with at most 5 words behind, with at most 10, and so on to 40.
    pub flipped: Vec<f64>,
    /// Share of them that some number of words gets through.
    pub flip_rate: f64,
}

impl HeldOut {
    /// Measures; `score` reads a text in windows, as it is served.
    pub(super) fn measure(
        manifest: &Manifest,
        rows: &TestRows<'_>,
        score: impl Fn(&str) -> Result<f32, EmbedError>,
    ) -> Result<Self, EmbedError> {
        let (forget, retain) = (&rows.part.forget, &rows.part.retain);
        let texts: Vec<&str> =
            rows.forget.iter().flatten().map(String::as_str).take(MOST_TEXTS).collect();
        let looks = texts.len() * (disguise::ALL.len() + 1 + SUFFIX_LOOKS);
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
            reached: rows.reached.clone(),
            calibration_error: calibration_error(forget, retain, BINS),
            length_matched: LengthMatched::measure(rows, &wide(forget), &wide(retain)),
            disguises: slices(&texts, manifest.threshold, score)?,
            suffixes: Suffixes::measure(&texts, manifest.threshold, score)?,
            curve: rows.curve.to_vec(),
            once: rows.once.cloned(),
            roc: roc(forget, retain),
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

    /// The ROC curve, beside what guessing reaches.
    #[must_use]
    pub fn figure(&self) -> Figure {
        let guessing = Line { name: "guessing".to_owned(), points: vec![(0.0, 0.0), (1.0, 1.0)] };
        let Reached { forget_texts, retain_texts, auc, .. } = &self.reached;
        let name = format!("classifier, AUC {auc:.4}");
        Figure {
            title: format!("{}: {forget_texts} and {retain_texts} texts", self.topic),
            x_label: "share of other texts that are flagged".to_owned(),
            y_label: "share of the topic's texts that are flagged".to_owned(),
            lines: vec![Line { name, points: self.roc.clone() }, guessing],
        }
    }
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
        let words: Vec<&str> = HARMLESS.iter().flat_map(|it| it.split(' ')).collect();
        let (mut flagged, mut flipped) = (0usize, [0usize; SUFFIX_LOOKS]);
        for text in texts {
            if score(text)? < threshold {
                continue;
            }
            flagged += 1;
            for look in 0..SUFFIX_LOOKS {
                let suffix = words[..SUFFIX_STEP * (look + 1)].join(" ");
                if score(&format!("{text} {suffix}"))? < threshold {
                    flipped[look..].iter_mut().for_each(|it| *it += 1);
                    break;
                }
            }
        }
        let share = |count: &usize| *count as f64 / flagged as f64;
        let flipped: Vec<f64> = flipped.iter().map(share).collect();
        let flip_rate = flipped[SUFFIX_LOOKS - 1];
        Ok(Self { texts: flagged, flipped, flip_rate })
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
        let mut row = |name: &str, value: String| out.push_str(&format!("| {name} | {value} |\n"));
        row("threshold", format!("{:.4}", it.threshold));
        row("miss rate vouched for", format!("{:.4}", calibration.alpha_attained));
        out += &it.reached.rows();
        let mut row = |name: &str, value: String| out.push_str(&format!("| {name} | {value} |\n"));
        let LengthMatched { pairs, auc } = &it.length_matched;
        row(&format!("AUC on {pairs} pairs of equal length"), format!("{auc:.4}"));
        let name = format!("expected calibration error, {BINS} bins");
        row(&name, format!("{:.4}", it.calibration_error));
        let Suffixes { texts, flipped, .. } = &it.suffixes;
        for (at, share) in flipped.iter().enumerate() {
            let most = SUFFIX_STEP * (at + 1);
            let name = format!("of {texts} flagged texts get through with {most} harmless words");
            row(&name, format!("{share:.4}"));
        }
        out.push_str(&it.reached.neighbours());
        if let Some(once) = &it.once {
            out.push_str(&once.to_markdown());
        }
        if !it.curve.is_empty() {
            out.push_str(
                "\n| forget rows | recall at 1 % false positives | lowest, highest | AUC | choices |\n\
                 |---:|---:|---:|---:|---:|\n",
            );
        }
        for CurvePoint { rows, seeds, recall, range: [low, high], auc } in &it.curve {
            let range = format!("{low:.4}, {high:.4}");
            out.push_str(&format!("| {rows} | {recall:.4} | {range} | {auc:.4} | {seeds} |\n"));
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

    /// Writes `report.json`, `report.md`, `roc.svg` and `roc.png` into a folder that exists.
    pub(super) fn write(&self, folder: &Path) -> std::io::Result<()> {
        let figure = self.held_out.figure();
        std::fs::write(folder.join(REPORT_FILE), self.held_out.to_json())?;
        std::fs::write(folder.join(MARKDOWN_FILE), self.to_markdown())?;
        std::fs::write(folder.join("roc.svg"), figure.to_svg())?;
        std::fs::write(folder.join("roc.png"), figure.to_png())
    }
}
