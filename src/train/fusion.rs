//! Fits the weights of a policy's `[fusion]` table: logistic regression of "about the topic" on every
//! detector's best score.
//!
//! As calibrated as the texts are like those to come: with as many texts about the topic among them,
//! and none that a detector was trained on.

use linfa::Dataset;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

/// The fused score from which on a text counts as seen.
const THRESHOLD: f64 = 0.5;
/// Weight of the penalty; without one, scores that tell everything have no best weights.
const PENALTY: f64 = 0.01;
const DIGITS: f64 = 1e4;

/// Weights, and what they reach on the texts that they were fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct FusionFit {
    /// What the weighted scores are added to; below 0.
    pub bias: f64,
    /// Each detector with its weight, none below 0, in the order given.
    pub weights: Vec<(String, f64)>,
    /// Texts about the topic that reach the threshold, and all of them.
    pub seen: (usize, usize),
    /// The same of the other texts.
    pub false_alarms: (usize, usize),
}

/// Why there are no weights.
#[derive(Debug, thiserror::Error)]
pub enum FusionError {
    /// One side has no texts.
    #[error("there are no texts {0}; both sides are needed")]
    Empty(&'static str),
    /// No detector's score is higher on the topic.
    #[error("the scores do not tell the topic from the rest; change the detectors or the texts")]
    Uninformative,
    /// The regression did not converge.
    #[error("the regression failed: {0}")]
    Fit(String),
}

/// Fits a bias and a weight per detector. `forget` and `other` hold one row per text, with one best
/// score per detector; a score that is not a number counts as 1. A detector whose weight would be
/// below 0 gets 0, because more evidence must not free a request.
///
/// # Errors
///
/// [`FusionError`].
///
/// # Panics
///
/// When a row has not one score per detector.
pub fn fit(
    detectors: &[&str],
    forget: &[Vec<f32>],
    other: &[Vec<f32>],
) -> Result<FusionFit, FusionError> {
    for (side, rows) in [("about the topic", forget), ("about anything else", other)] {
        if rows.is_empty() {
            return Err(FusionError::Empty(side));
        }
        assert!(rows.iter().all(|it| it.len() == detectors.len()), "one score per detector");
    }
    let mut used: Vec<usize> = (0..detectors.len()).collect();
    let (bias, fitted) = loop {
        if used.is_empty() {
            return Err(FusionError::Uninformative);
        }
        let (bias, weights) = regress(forget, other, &used)?;
        if weights.iter().all(|it| *it >= 0.0) {
            break (rounded(bias), weights);
        }
        let mut signs = weights.iter().map(|it| *it >= 0.0);
        used.retain(|_| signs.next().unwrap_or_default());
    };
    let mut weights = vec![0.0; detectors.len()];
    for (at, weight) in used.into_iter().zip(fitted) {
        weights[at] = rounded(weight);
    }
    // The file would not be accepted: it treats nothing, or everything.
    if bias >= 0.0 || bias + weights.iter().sum::<f64>() < 0.0 {
        return Err(FusionError::Uninformative);
    }
    let reached = |rows: &[Vec<f32>]| {
        let score = |row: &Vec<f32>| {
            let weighted = row.iter().zip(&weights).map(|(score, weight)| number(*score) * weight);
            1.0 / (1.0 + (-(bias + weighted.sum::<f64>())).exp())
        };
        (rows.iter().filter(|it| score(it) >= THRESHOLD).count(), rows.len())
    };
    let (seen, false_alarms) = (reached(forget), reached(other));
    let named = detectors.iter().map(|it| (*it).to_owned()).zip(weights).collect();
    Ok(FusionFit { bias, weights: named, seen, false_alarms })
}

/// Bias and weights of the used columns.
fn regress(
    forget: &[Vec<f32>],
    other: &[Vec<f32>],
    used: &[usize],
) -> Result<(f64, Vec<f64>), FusionError> {
    let rows: Vec<&Vec<f32>> = forget.iter().chain(other).collect();
    let records =
        Array2::from_shape_fn((rows.len(), used.len()), |(row, it)| number(rows[row][used[it]]));
    let targets = Array1::from_shape_fn(rows.len(), |row| row < forget.len());
    let model = LogisticRegression::default()
        .alpha(PENALTY)
        .max_iterations(300)
        .fit(&Dataset::new(records, targets))
        .map_err(|it| FusionError::Fit(it.to_string()))?;
    let sign = if model.labels().pos.class { 1.0 } else { -1.0 };
    Ok((sign * model.intercept(), model.params().iter().map(|it| sign * it).collect()))
}

/// A score as the policy counts it.
fn number(score: f32) -> f64 {
    if score.is_nan() { 1.0 } else { f64::from(score) }
}

fn rounded(value: f64) -> f64 {
    (value * DIGITS).round() / DIGITS
}

impl FusionFit {
    /// The table for the policy's file, with what it reaches as a comment.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let ((seen, about), (alarms, other)) = (self.seen, self.false_alarms);
        let mut out = format!(
            "# Fitted on {about} texts about the topic, {seen} of which it treats, and {other} others, \
             of which {alarms}.\n[fusion]\nthreshold = {THRESHOLD}\nbias = {:.4}\n\n[fusion.weights]\n",
            self.bias
        );
        for (detector, weight) in &self.weights {
            out.push_str(&format!("{detector} = {weight:.4}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[(usize, &[f32])]) -> Vec<Vec<f32>> {
        list.iter().flat_map(|(times, row)| vec![row.to_vec(); *times]).collect()
    }

    #[track_caller]
    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 0.02, "{got} is not {want}");
    }

    #[test]
    fn one_detectors_weight_is_a_difference_of_log_odds() {
        // It fires on 9 of 10 and on 1 of 10: without a penalty ln(1/9) and 2 ln(9) = 4.394.
        let forget = rows(&[(9, &[1.0]), (1, &[0.0])]);
        let other = rows(&[(1, &[1.0]), (9, &[0.0])]);
        let fit = fit(&["names"], &forget, &other).unwrap();
        // The penalised optimum by Newton's method in numpy.
        near(fit.bias, -2.150_327);
        near(fit.weights[0].1, 4.300_654);
        assert_eq!((fit.seen, fit.false_alarms), ((9, 10), (1, 10)));
    }

    #[test]
    fn two_detectors_share_the_evidence() {
        let forget =
            rows(&[(4, &[1.0, 0.9]), (4, &[0.0, 0.8]), (1, &[0.0, 0.2]), (1, &[1.0, 0.1])]);
        let other = rows(&[(6, &[0.0, 0.3]), (2, &[0.0, 0.1]), (1, &[1.0, 0.2]), (1, &[0.0, 0.9])]);
        let fit = fit(&["names", "topic"], &forget, &other).unwrap();
        // By Newton's method in numpy.
        near(fit.bias, -2.942_942);
        near(fit.weights[0].1, 2.360_171);
        near(fit.weights[1].1, 4.812_467);
        assert_eq!((fit.seen, fit.false_alarms), ((8, 10), (2, 10)));
    }

    #[test]
    fn a_detector_that_speaks_against_the_topic_gets_no_weight() {
        let forget = rows(&[(9, &[1.0, 0.0]), (1, &[0.0, 0.0])]);
        let other = rows(&[(1, &[1.0, 1.0]), (6, &[0.0, 1.0]), (3, &[0.0, 0.0])]);
        let fit = fit(&["names", "topic"], &forget, &other).unwrap();
        // What is left is the first test.
        near(fit.weights[0].1, 4.300_654);
        assert_eq!(fit.weights[1], ("topic".to_owned(), 0.0));
    }

    #[test]
    fn a_score_that_is_no_number_counts_as_seen() {
        let other = rows(&[(10, &[0.0])]);
        let nan = fit(&["topic"], &rows(&[(10, &[f32::NAN])]), &other).unwrap();
        assert_eq!(nan, fit(&["topic"], &rows(&[(10, &[1.0])]), &other).unwrap());
    }

    #[test]
    fn what_tells_nothing_is_an_error() {
        let (low, high) = (rows(&[(5, &[0.1])]), rows(&[(5, &[0.9])]));
        assert!(matches!(fit(&["topic"], &low, &high), Err(FusionError::Uninformative)));
        assert!(matches!(fit(&["topic"], &[], &high), Err(FusionError::Empty(_))));
        assert!(matches!(fit(&["topic"], &low, &[]), Err(FusionError::Empty(_))));
    }

    #[test]
    fn the_table_is_toml() {
        let fit = FusionFit {
            bias: -4.0,
            weights: vec![("names".to_owned(), 6.25), ("topic".to_owned(), 0.0)],
            seen: (79, 80),
            false_alarms: (0, 720),
        };
        assert_eq!(
            fit.to_toml(),
            "# Fitted on 80 texts about the topic, 79 of which it treats, and 720 others, of which 0.\n\
             [fusion]\nthreshold = 0.5\nbias = -4.0000\n\n[fusion.weights]\nnames = 6.2500\n\
             topic = 0.0000\n"
        );
        assert!(fit.to_toml().parse::<toml::Table>().is_ok());
    }
}
