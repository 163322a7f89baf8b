//! Every row held out once: what a classifier of few rows reaches, with less luck in it than one
//! held-out fifth has.

use std::collections::HashSet;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::measure::{flagged, quiet, wilson};
use super::report::{AtRate, Hard, RATES, between, neighbours};
use super::{ClassifierJob, Readings, train};
use crate::data::Wordings;
use crate::embed::EmbedError;
use crate::seed::Stream;
use crate::stats::{auc, mean};

/// Measurements by classifiers of the same job, each of which is measured on the part of the rows that it
/// was not trained, calibrated or chosen on. Texts of all parts are counted together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOutOnce {
    /// How many classifiers.
    pub folds: usize,
    /// Forget texts, each wording counted.
    pub forget_texts: usize,
    /// Retain texts.
    pub retain_texts: usize,
    /// Share of forget texts that reach the threshold of the classifier that does not know them.
    pub recall: f64,
    /// Its 95 % interval.
    pub recall_interval: [f64; 2],
    /// Share of retain texts that do.
    pub false_positive_rate: f64,
    /// Its 95 % interval.
    pub false_positive_interval: [f64; 2],
    /// Recall where at most 1 and 2 % of a part's retain texts are flagged: none, where one is more.
    pub recall_at: Vec<AtRate>,
    /// Neighbours of the topic, each read by every classifier; the interval is that of one.
    pub hard: Vec<Hard>,
    /// Mean area under the ROC curve.
    pub auc: f64,
}

/// What one of the classifiers gives to texts that it does not know.
struct Part {
    forget: Vec<f32>,
    retain: Vec<f32>,
    hard: Vec<Vec<f32>>,
    threshold: f32,
}

impl Part {
    fn auc(&self) -> f64 {
        let wide = |it: &[f32]| -> Vec<f64> { it.iter().copied().map(f64::from).collect() };
        auc(&wide(&self.forget), &wide(&self.retain))
    }
}

/// The share of all texts that reach the threshold of their part.
fn together<'a>(parts: impl Iterator<Item = (&'a [f32], f32)>) -> f64 {
    let (hits, total) = parts.fold((0.0, 0), |(hits, total), (scores, threshold)| {
        (hits + flagged(scores, threshold) * scores.len() as f64, total + scores.len())
    });
    hits / total as f64
}

/// All rows but every `folds`-th, and these, counted from `fold`.
fn split(rows: &[Wordings], folds: usize, fold: usize) -> (Vec<Wordings>, Vec<Wordings>) {
    let (held_out, others): (Vec<_>, Vec<_>) =
        rows.iter().enumerate().partition(|it| it.0 % folds == fold);
    let rows = |part: Vec<(usize, &Wordings)>| part.into_iter().map(|it| it.1.clone()).collect();
    (rows(others), rows(held_out))
}

/// What of these rows is not known word for word.
fn unknown(mut rows: Vec<Wordings>, known: &HashSet<&str>) -> Vec<Wordings> {
    rows.iter_mut().for_each(|row| row.retain(|it| !known.contains(it.as_str())));
    rows
}

impl HeldOutOnce {
    /// Trains as many classifiers as there are folds, on all rows but every so many-th.
    pub(super) fn measure(
        readings: &mut Readings<'_>,
        job: &ClassifierJob,
        [forget, retain]: [&[Wordings]; 2],
        hard: &[(String, Vec<Wordings>)],
    ) -> Result<Option<Self>, EmbedError> {
        let folds = job.study.folds;
        if folds < 2 {
            return Ok(None);
        }
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} folds, {eta} left")
            .expect("the template is valid");
        let bar = ProgressBar::new(folds as u64).with_style(style);
        bar.tick();
        let mut parts = Vec::new();
        for fold in 0..folds {
            let [(about, our_part), (others, their_part)] =
                [forget, retain].map(|rows| split(rows, folds, fold));
            let known: HashSet<&str> =
                about.iter().chain(&others).flatten().map(String::as_str).collect();
            let mut stream = Stream::named(job.seed, &format!("classifier fold {fold}"));
            let trained = train(readings, job, [&about, &others], &mut stream)?;
            let mut given = |rows: &[Wordings]| readings.scores(&trained.head, rows);
            parts.push(Part {
                forget: given(&unknown(our_part, &known))?,
                retain: given(&unknown(their_part, &known))?,
                hard: hard.iter().map(|it| given(&it.1)).collect::<Result<_, EmbedError>>()?,
                threshold: trained.threshold,
            });
            bar.inc(1);
        }
        bar.finish_and_clear();
        let names: Vec<&str> = hard.iter().map(|it| it.0.as_str()).collect();
        Ok(Some(Self::of(&parts, &names)))
    }

    /// Short tables.
    pub(super) fn to_markdown(&self) -> String {
        let mut out =
            format!("\n| every row held out once ({} classifiers) | |\n|---|---:|\n", self.folds);
        let mut row = |name: &str, value: String| out.push_str(&format!("| {name} | {value} |\n"));
        let name = format!("recall on {} forget texts", self.forget_texts);
        row(&name, between(self.recall, self.recall_interval));
        let name = format!("false-positive rate on {} retain texts", self.retain_texts);
        row(&name, between(self.false_positive_rate, self.false_positive_interval));
        for AtRate { false_positives, recall, interval } in &self.recall_at {
            let name = format!("recall at {} % false positives", 100.0 * false_positives);
            row(&name, between(*recall, *interval));
        }
        row("AUC", format!("{:.4}", self.auc));
        out + &neighbours(&self.hard)
    }

    fn of(parts: &[Part], hard: &[&str]) -> Self {
        let forget_texts = parts.iter().map(|it| it.forget.len()).sum();
        let retain_texts = parts.iter().map(|it| it.retain.len()).sum();
        let recall = together(parts.iter().map(|it| (it.forget.as_slice(), it.threshold)));
        let alarms = together(parts.iter().map(|it| (it.retain.as_slice(), it.threshold)));
        let at_rate = |share: f64| {
            let there = |it: &Part| quiet(it.retain.clone(), share);
            let recall = together(parts.iter().map(|it| (it.forget.as_slice(), there(it))));
            AtRate { false_positives: share, recall, interval: wilson(recall, forget_texts) }
        };
        let near = |(at, name): (usize, &&str)| {
            let share = together(parts.iter().map(|it| (it.hard[at].as_slice(), it.threshold)));
            let texts = parts.first().map_or(0, |it| it.hard[at].len());
            let interval = wilson(share, texts);
            Hard { name: (*name).to_owned(), texts, false_positive_rate: share, interval }
        };
        Self {
            folds: parts.len(),
            forget_texts,
            retain_texts,
            recall,
            recall_interval: wilson(recall, forget_texts),
            false_positive_rate: alarms,
            false_positive_interval: wilson(alarms, retain_texts),
            recall_at: RATES.map(at_rate).to_vec(),
            hard: hard.iter().enumerate().map(near).collect(),
            auc: mean(&parts.iter().map(Part::auc).collect::<Vec<_>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thresholds of .5 and .3: 1 of 2 and 2 of 2 forget texts, 1 of 2 and 0 of 2 retain texts. At 50 %
    /// false positives the thresholds are just above .4 and .1: 1 and 2 of 2 again.
    #[test]
    fn every_part_has_its_own_threshold() {
        let parts = [
            Part {
                forget: vec![0.9, 0.2],
                retain: vec![0.6, 0.4],
                hard: vec![vec![0.7]],
                threshold: 0.5,
            },
            Part {
                forget: vec![0.4, 0.3],
                retain: vec![0.2, 0.1],
                hard: vec![vec![0.1]],
                threshold: 0.3,
            },
        ];
        let found = HeldOutOnce::of(&parts, &["near"]);
        assert_eq!((found.folds, found.forget_texts, found.retain_texts), (2, 4, 4));
        let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} {want}");
        close(found.recall, 0.75);
        close(found.false_positive_rate, 0.25);
        close(found.hard[0].false_positive_rate, 0.5);
        // At none of two the thresholds are above .6 and .2.
        close(found.recall_at[0].recall, 0.75);
        close(found.auc, f64::midpoint(0.5, 1.0));
    }

    /// A paraphrase of the third row is the second one's question, on which this fold trains.
    #[test]
    fn what_is_known_word_for_word_is_not_held_out() {
        let rows = [vec!["a"], vec!["b"], vec!["c", "b"]]
            .map(|row| row.into_iter().map(str::to_owned).collect::<Wordings>());
        let (others, held_out) = split(&rows, 2, 0);
        assert_eq!((others.len(), held_out.len()), (1, 2));
        let known = others.iter().flatten().map(String::as_str).collect();
        assert_eq!(unknown(held_out, &known), [vec!["a".to_owned()], vec!["c".to_owned()]]);
    }
}
