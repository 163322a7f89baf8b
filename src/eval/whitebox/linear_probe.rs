//! A linear probe (Alain and Bengio, arXiv:1610.01644): logistic regression on hidden states that tells
//! right answers to forget questions from wrong ones. Half of the questions train it, the others test
//! it; there are as many right answers as wrong ones, so the majority is right half of the time. Under a
//! guard that corrupts, a probe of its forward pass is fitted and tested too.

use linfa::Dataset;
use linfa::traits::Fit as _;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use serde_json::Value;

use super::corrupted::Corrupted;
use super::states::{Pair, moments, pairs_through, split, standardised};
use super::{Finding, Inspection, Rate, passes};
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;

/// Strength of the L2 penalty on standardised states.
const PENALTY: f64 = 1.0;

/// Fewest pairs to learn from.
const FEWEST: usize = 4;

/// A regression on standardised states.
#[derive(Debug, Clone)]
pub struct Probe {
    scales: (Vec<f64>, Vec<f64>),
    weights: Vec<f64>,
    bias: f64,
}

fn samples(pairs: &[Pair]) -> Vec<(&Vec<f64>, bool)> {
    let both = pairs
        .iter()
        .flat_map(|it| [(&it.first, it.first_is_right), (&it.second, !it.first_is_right)]);
    both.collect()
}

impl Probe {
    /// Fits it to pairs.
    ///
    /// # Errors
    ///
    /// [`MeasureError::Rows`] for fewer than four pairs, or when the regression does not converge.
    pub fn fit(pairs: &[Pair]) -> Result<Self, MeasureError> {
        if pairs.len() < FEWEST {
            let message =
                format!("{} questions are too few for a probe; {FEWEST} are needed", pairs.len());
            return Err(MeasureError::Rows(message));
        }
        let samples = samples(pairs);
        let scales = moments(samples.iter().map(|it| it.0));
        let states: Vec<Vec<f64>> = samples.iter().map(|it| standardised(it.0, &scales)).collect();
        let shape = (states.len(), scales.0.len());
        let records = Array2::from_shape_fn(shape, |(row, column)| states[row][column]);
        let targets = Array1::from_shape_fn(samples.len(), |row| samples[row].1);
        let model = LogisticRegression::default()
            .alpha(PENALTY)
            .max_iterations(300)
            .fit(&Dataset::new(records, targets))
            .map_err(|it| MeasureError::Rows(format!("the probe failed: {it}")))?;
        let sign = if model.labels().pos.class { 1.0 } else { -1.0 };
        let weights = model.params().iter().map(|it| sign * it).collect();
        Ok(Self { scales, weights, bias: sign * model.intercept() })
    }

    /// Whether it takes an answer for a right one.
    #[must_use]
    pub fn accepts(&self, state: &[f64]) -> bool {
        let state = standardised(state, &self.scales);
        self.bias + state.iter().zip(&self.weights).map(|it| it.0 * it.1).sum::<f64>() > 0.0
    }

    /// How many answers of the pairs it judges rightly.
    #[must_use]
    pub fn rate(&self, pairs: &[Pair]) -> Rate {
        let samples = samples(pairs);
        let right = samples.iter().filter(|(state, right)| self.accepts(state) == *right);
        Rate { hits: right.count(), of: samples.len() }
    }
}

fn rates(
    teacher: &Teacher,
    corrupted: Option<&Corrupted<'_>>,
    it: &Inspection<'_>,
) -> Result<Vec<Rate>, MeasureError> {
    let of_layer = |layer: &Vec<Pair>| -> Result<Rate, MeasureError> {
        let (learnt, tested) = split(layer, it.seed);
        Ok(Probe::fit(&learnt)?.rate(&tested))
    };
    pairs_through(teacher, corrupted, it.forget, it.seed)?.iter().map(of_layer).collect()
}

/// One finding per layer, and one of the corrupted forward pass where there is one.
///
/// # Errors
///
/// [`MeasureError`].
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    let corrupted = it.corrupted()?;
    let gold = rates(it.gold, None, it)?;
    let mut findings = Vec::with_capacity(2 * gold.len());
    for (pass, corrupted) in passes(corrupted.as_ref()) {
        let both = rates(it.model, corrupted, it)?.into_iter().zip(&gold);
        findings.extend(both.enumerate().map(|(layer, (model, gold))| Finding {
            setting: format!("after block {}{pass}", layer + 1),
            budget: "labels of half of the questions".to_owned(),
            of_guard: corrupted.is_some(),
            model,
            gold: *gold,
            detail: Value::Null,
        }));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Right answers are above 10 in the second element; the first says nothing.
    fn pair(at: usize) -> Pair {
        let noise = (at % 3) as f64;
        let (right, wrong) = (vec![noise, 11.0 + noise], vec![noise, 9.0 - noise]);
        let first_is_right = at.is_multiple_of(2);
        let (first, second) = if first_is_right { (right, wrong) } else { (wrong, right) };
        Pair { first, second, first_is_right }
    }

    #[test]
    fn what_can_be_told_apart_is() {
        let pairs: Vec<Pair> = (0..12).map(pair).collect();
        let probe = Probe::fit(&pairs[..8]).unwrap();
        assert_eq!(probe.rate(&pairs[8..]), Rate { hits: 8, of: 8 });
        assert!(probe.accepts(&[0.0, 20.0]) && !probe.accepts(&[0.0, 0.0]));
        assert!(matches!(Probe::fit(&pairs[..3]), Err(MeasureError::Rows(_))));
    }

    /// The majority baseline: where both answers look alike, one of each two is judged rightly.
    #[test]
    fn answers_that_look_alike_give_half() {
        let alike = |it: usize| {
            let state = vec![it as f64, 1.0];
            Pair { first: state.clone(), second: state, first_is_right: it.is_multiple_of(2) }
        };
        let pairs: Vec<Pair> = (0..12).map(alike).collect();
        let probe = Probe::fit(&pairs[..8]).unwrap();
        assert_eq!(probe.rate(&pairs[8..]), Rate { hits: 4, of: 8 });
    }
}
