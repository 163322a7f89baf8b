//! Contrast-consistent search (Burns et al., arXiv:2212.03827): a direction along which two answers to
//! one question have opposite truth, found without labels.

use serde_json::Value;

use super::states::{Pair, moments, pairs, split, standardised};
use super::{Finding, Inspection, Rate};
use crate::engine::ops::dot;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::seed::Stream;

/// Random beginnings; the one with the lowest loss is kept.
const RESTARTS: usize = 10;

/// Steps over all pairs.
const EPOCHS: usize = 1000;

const LEARNING_RATE: f64 = 1e-3;
const WEIGHT_DECAY: f64 = 0.01;

/// A direction and an offset.
#[derive(Debug, Clone, PartialEq)]
struct Direction {
    /// Weights, then the bias.
    parameters: Vec<f64>,
}

impl Direction {
    /// Probability that an answer is true.
    fn probability(&self, state: &[f64]) -> f64 {
        let bias = self.parameters[state.len()];
        let sum = dot(state, &self.parameters[..state.len()]);
        1.0 / (1.0 + (-sum - bias).exp())
    }

    /// Mean over pairs of `min(p, q)^2 + (p - (1 - q))^2`, and its gradient.
    fn loss(&self, pairs: &[(Vec<f64>, Vec<f64>)]) -> (f64, Vec<f64>) {
        let (mut loss, mut gradient) = (0.0, vec![0.0; self.parameters.len()]);
        let share = 1.0 / pairs.len() as f64;
        for (first, second) in pairs {
            let (p, q) = (self.probability(first), self.probability(second));
            let gap = p + q - 1.0;
            loss += share * (p.min(q).powi(2) + gap * gap);
            let (mut of_p, mut of_q) = (2.0 * gap, 2.0 * gap);
            if p <= q {
                of_p += 2.0 * p;
            } else {
                of_q += 2.0 * q;
            }
            for (state, pull) in [(first, of_p * p * (1.0 - p)), (second, of_q * q * (1.0 - q))] {
                let pull = share * pull;
                gradient.iter_mut().zip(state).for_each(|(sum, it)| *sum += pull * it);
                gradient[state.len()] += pull;
            }
        }
        (loss, gradient)
    }

    /// The best of several searches by AdamW.
    fn search(pairs: &[(Vec<f64>, Vec<f64>)], stream: &mut Stream) -> Option<Self> {
        let width = pairs.first()?.0.len();
        let bound = (width as f64).sqrt().recip();
        let mut best: Option<(f64, Self)> = None;
        for _ in 0..RESTARTS {
            let draw = |_| bound * (2.0 * stream.uniform() - 1.0);
            let mut direction = Self { parameters: (0..=width).map(draw).collect() };
            direction.train(pairs);
            let loss = direction.loss(pairs).0;
            if best.as_ref().is_none_or(|it| loss < it.0) {
                best = Some((loss, direction));
            }
        }
        best.map(|it| it.1)
    }

    fn train(&mut self, pairs: &[(Vec<f64>, Vec<f64>)]) {
        let count = self.parameters.len();
        let (mut first, mut second) = (vec![0.0; count], vec![0.0; count]);
        let (mut beta1, mut beta2) = (1.0, 1.0);
        for _ in 0..EPOCHS {
            let (_, gradient) = self.loss(pairs);
            beta1 *= 0.9;
            beta2 *= 0.999;
            let moments = first.iter_mut().zip(&mut second);
            for ((value, gradient), (first, second)) in
                self.parameters.iter_mut().zip(gradient).zip(moments)
            {
                *first = 0.9 * *first + 0.1 * gradient;
                *second = 0.999 * *second + 0.001 * gradient * gradient;
                let step = (*first / (1.0 - beta1)) / ((*second / (1.0 - beta2)).sqrt() + 1e-8);
                *value -= LEARNING_RATE * (step + WEIGHT_DECAY * *value);
            }
        }
    }

    /// Whether the first answer is taken for the true one.
    fn prefers_first(&self, pair: &(Vec<f64>, Vec<f64>)) -> bool {
        self.probability(&pair.0) > self.probability(&pair.1)
    }
}

/// States less the mean of their side and by their deviation, as learnt from the first list.
fn normalised(learnt: &[Pair], pairs: &[Pair]) -> Vec<(Vec<f64>, Vec<f64>)> {
    let first = moments(learnt.iter().map(|it| &it.first));
    let second = moments(learnt.iter().map(|it| &it.second));
    let of = |it: &Pair| (standardised(&it.first, &first), standardised(&it.second, &second));
    pairs.iter().map(of).collect()
}

/// Accuracy on the second half of the pairs. A direction has no sign, so the better one counts.
fn rate(pairs: &[Pair], seed: u64, layer: usize) -> Option<Rate> {
    let (learnt, tested) = split(pairs, seed);
    let mut stream = Stream::named(seed, &format!("whitebox/ccs/{layer}"));
    let direction = Direction::search(&normalised(&learnt, &learnt), &mut stream)?;
    let judged = normalised(&learnt, &tested);
    let agrees = |(pair, state): &(&Pair, &(Vec<f64>, Vec<f64>))| {
        direction.prefers_first(state) == pair.first_is_right
    };
    let hits = tested.iter().zip(&judged).filter(agrees).count();
    Some(Rate { hits: hits.max(tested.len() - hits), of: tested.len() })
}

fn rates(teacher: &Teacher, it: &Inspection<'_>) -> Result<Vec<Rate>, MeasureError> {
    let few = || MeasureError::Rows("consistency needs two rows with wrong answers".to_owned());
    let layers = pairs(teacher, it.forget, it.seed)?;
    let of_layer = |(at, layer): (usize, &Vec<Pair>)| rate(layer, it.seed, at).ok_or_else(few);
    layers.iter().enumerate().map(of_layer).collect()
}

/// One finding per layer.
///
/// # Errors
///
/// [`MeasureError`].
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    let both =
        rates(it.model, it)?.into_iter().zip(it.once(it.gold, "ccs", || rates(it.gold, it))?);
    let finding = |(layer, (model, gold)): (usize, (Rate, Rate))| Finding {
        setting: format!("after block {}", layer + 1),
        budget: format!("{RESTARTS} restarts of {EPOCHS} steps, no labels"),
        of_guard: false,
        model,
        gold,
        detail: Value::Null,
    };
    Ok(both.enumerate().map(finding).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p = 1/2 without weights: min^2 = 1/4 and no gap. With p = 3/4 and q = 1/2, 1/4 + 1/16.
    #[test]
    fn loss_by_hand() {
        let indifferent = Direction { parameters: vec![0.0, 0.0] };
        let pairs = [(vec![1.0], vec![0.0])];
        assert!((indifferent.loss(&pairs).0 - 0.25).abs() < 1e-12);
        let leaning = Direction { parameters: vec![3f64.ln(), 0.0] };
        assert!((leaning.probability(&[1.0]) - 0.75).abs() < 1e-12);
        assert!((leaning.loss(&pairs).0 - (0.25 + 0.0625)).abs() < 1e-12);
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let pairs = [(vec![0.4, -1.0], vec![-0.2, 0.7]), (vec![1.5, 0.3], vec![-0.9, -0.1])];
        let direction = Direction { parameters: vec![0.8, -0.5, 0.1] };
        let (_, gradient) = direction.loss(&pairs);
        for (at, &found) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut direction = direction.clone();
                direction.parameters[at] += by;
                direction.loss(&pairs).0
            };
            let want = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((found - want).abs() < 1e-8, "{at}: {found} {want}");
        }
    }

    /// The truth is one coordinate of opposite sign in the two answers: found up to its name.
    #[test]
    fn a_consistent_coordinate_is_found() {
        let pair = |at: usize| {
            let first_is_right = at.is_multiple_of(3);
            let sign = if first_is_right { 1.0 } else { -1.0 };
            let other = (at % 5) as f64 / 10.0;
            Pair { first: vec![sign, other], second: vec![-sign, other], first_is_right }
        };
        let pairs: Vec<Pair> = (0..24).map(pair).collect();
        assert_eq!(rate(&pairs, 3, 0).unwrap(), Rate { hits: 12, of: 12 });
        assert_eq!(rate(&pairs[..1], 3, 0), None);
    }
}
