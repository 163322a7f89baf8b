//! Recall, false positives and the like, of one classifier or of several together.

use serde::Serialize;

use super::measure::{flagged, quiet, wilson};
use crate::stats::{auc, mean};

/// Shares of false positives at which recall is reported.
const RATES: [f64; 2] = [0.01, 0.02];

/// What classifiers give to texts that they do not know. Texts of all of them are counted together, each at
/// its own classifier's threshold. What could not be measured is NaN, in JSON `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reached {
    /// Forget texts, each wording counted.
    pub forget_texts: usize,
    /// Retain texts.
    pub retain_texts: usize,
    /// Share of forget texts that are flagged.
    pub recall: f64,
    /// Its 95 % interval.
    pub recall_interval: [f64; 2],
    /// Share of retain texts that are flagged.
    pub false_positive_rate: f64,
    /// Its 95 % interval.
    pub false_positive_interval: [f64; 2],
    /// Recall where at most 1 and 2 % of a classifier's retain texts are flagged: none, where one is more.
    pub recall_at: Vec<AtRate>,
    /// Neighbours of the topic, which no training had.
    pub hard: Vec<Hard>,
    /// Area under the ROC curve, the mean of the classifiers'.
    pub auc: f64,
}

/// Recall at the threshold that a share of the retain texts reaches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtRate {
    /// The share.
    pub false_positives: f64,
    /// Share of forget texts that are flagged there.
    pub recall: f64,
    /// Its 95 % interval, as if the threshold were known.
    pub interval: [f64; 2],
}

/// Texts that are near the topic and none of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hard {
    /// The file's name.
    pub name: String,
    /// How many texts.
    pub texts: usize,
    /// Share that is flagged.
    pub false_positive_rate: f64,
    /// Its 95 % interval; of several classifiers, as if there were one.
    pub interval: [f64; 2],
}

/// The scores of one classifier.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) forget: Vec<f32>,
    pub(super) retain: Vec<f32>,
    /// One list for each file of hard non-targets.
    pub(super) hard: Vec<Vec<f32>>,
    /// A text is flagged when its score is at least this.
    pub(super) threshold: f32,
}

impl Part {
    fn auc(&self) -> f64 {
        auc(&wide(&self.forget), &wide(&self.retain))
    }
}

pub(super) fn wide(scores: &[f32]) -> Vec<f64> {
    scores.iter().map(|it| f64::from(*it)).collect()
}

/// The share of all texts that reach the threshold beside them.
fn together<'a>(parts: impl Iterator<Item = (&'a [f32], f32)>) -> f64 {
    let (hits, total) = parts.fold((0.0, 0), |(hits, total), (scores, threshold)| {
        (hits + flagged(scores, threshold) * scores.len() as f64, total + scores.len())
    });
    hits / total as f64
}

impl Reached {
    /// `hard` names the files of hard non-targets.
    pub(super) fn of(parts: &[Part], hard: &[&str]) -> Self {
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

    /// Rows of a Markdown table of two columns.
    pub(super) fn rows(&self) -> String {
        let row = |name: &str, value: String| format!("| {name} | {value} |\n");
        let recall = format!("recall on {} held-out forget texts", self.forget_texts);
        let alarms = format!("false-positive rate on {} held-out retain texts", self.retain_texts);
        let mut out = row(&recall, between(self.recall, self.recall_interval));
        out += &row(&alarms, between(self.false_positive_rate, self.false_positive_interval));
        for AtRate { false_positives, recall, interval } in &self.recall_at {
            let name = format!("recall at {} % false positives", 100.0 * false_positives);
            out += &row(&name, between(*recall, *interval));
        }
        out + &row("AUC", format!("{:.4}", self.auc))
    }

    /// A table of the hard non-targets; nothing where there are none.
    pub(super) fn neighbours(&self) -> String {
        let mut out = String::new();
        if !self.hard.is_empty() {
            out += "\n| hard non-targets | texts | false-positive rate |\n|---|---:|---:|\n";
        }
        for Hard { name, texts, false_positive_rate, interval } in &self.hard {
            let share = between(*false_positive_rate, *interval);
            out += &format!("| {name} | {texts} | {share} |\n");
        }
        out
    }
}

/// A share and its interval.
fn between(share: f64, [low, high]: [f64; 2]) -> String {
    format!("{share:.4} ({low:.4} to {high:.4})")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thresholds of .5 and .3: 1 of 2 and 2 of 2 forget texts, 1 of 2 and 0 of 2 retain texts.
    #[test]
    fn every_part_has_its_own_threshold() {
        let part = |forget: [f32; 2], retain: [f32; 2], near, threshold| Part {
            forget: forget.to_vec(),
            retain: retain.to_vec(),
            hard: vec![vec![near]],
            threshold,
        };
        let parts =
            [part([0.9, 0.2], [0.6, 0.4], 0.7, 0.5), part([0.4, 0.3], [0.2, 0.1], 0.1, 0.3)];
        let found = Reached::of(&parts, &["near"]);
        assert_eq!((found.forget_texts, found.retain_texts), (4, 4));
        let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} {want}");
        close(found.recall, 0.75);
        close(found.false_positive_rate, 0.25);
        close(found.hard[0].false_positive_rate, 0.5);
        // At none of two the thresholds are above .6 and .2.
        close(found.recall_at[0].recall, 0.75);
        close(found.auc, f64::midpoint(0.5, 1.0));
    }
}
