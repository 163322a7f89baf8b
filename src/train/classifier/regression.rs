//! Logistic regression on sparse rows with weights, by L-BFGS.
//!
//! linfa, which fits every small regression here, takes dense records without weights: 6,000 rows of
//! 65,536 columns would be 3 GB, and evening out the classes by repetition doubles that.

use std::collections::VecDeque;

/// Steps whose curvature is remembered.
const MEMORY: usize = 10;
/// Most steps.
const STEPS: usize = 500;
/// The gradient's length, against that of the first one, at which the descent ends.
const TOLERANCE: f64 = 1e-6;
/// Least share of the slope's promise that a step must keep (Armijo).
const KEPT: f64 = 1e-4;
/// Shortest step that is tried.
const SHORTEST: f64 = 1e-12;

/// The non-zero elements of a row.
pub(super) type Sparse = Vec<(u32, f32)>;

/// Rows with their sides; both sides weigh as much as the larger one has rows.
#[derive(Debug)]
pub(super) struct Problem<'a> {
    /// Each row, and whether it is a positive.
    pub(super) rows: Vec<(&'a Sparse, bool)>,
    /// Factor of every column.
    pub(super) scales: &'a [f32],
    /// Weight of half the squared length of the weights; the bias is free.
    pub(super) penalty: f64,
}

impl Problem<'_> {
    /// Weights of the scaled columns, and the bias last.
    pub(super) fn solve(&self) -> Vec<f64> {
        let mut at = vec![0.0; self.scales.len() + 1];
        let (mut loss, mut gradient) = self.loss(&at);
        let enough = TOLERANCE * norm(&gradient);
        let mut memory = VecDeque::new();
        for _ in 0..STEPS {
            if norm(&gradient) <= enough {
                break;
            }
            let direction = descent(&gradient, &memory);
            let slope = dot(&gradient, &direction);
            let mut length = 1.0;
            let (next, next_loss, next_gradient) = loop {
                let next: Vec<f64> =
                    at.iter().zip(&direction).map(|(it, step)| it - length * step).collect();
                let (next_loss, next_gradient) = self.loss(&next);
                if next_loss <= loss - KEPT * length * slope {
                    break (next, next_loss, next_gradient);
                }
                length /= 2.0;
                if length < SHORTEST {
                    // No step descends any more: this is as low as the numbers go.
                    return at;
                }
            };
            let (moved, turned) = (difference(&next, &at), difference(&next_gradient, &gradient));
            let curvature = dot(&moved, &turned);
            if curvature > 0.0 {
                if memory.len() == MEMORY {
                    memory.pop_front();
                }
                memory.push_back((moved, turned, curvature));
            }
            (at, loss, gradient) = (next, next_loss, next_gradient);
        }
        at
    }

    /// The weighted sum of `ln(1 + exp(-margin))`, plus the penalty, and its gradient.
    fn loss(&self, at: &[f64]) -> (f64, Vec<f64>) {
        let (weights, bias) = at.split_at(self.scales.len());
        let positives = self.rows.iter().filter(|it| it.1).count() as f64;
        let negatives = self.rows.len() as f64 - positives;
        let larger = positives.max(negatives);
        let mut gradient: Vec<f64> = weights.iter().map(|it| self.penalty * it).collect();
        gradient.push(0.0);
        let mut loss = 0.5 * self.penalty * dot(weights, weights);
        for (row, positive) in &self.rows {
            let (sign, weight) =
                if *positive { (1.0, larger / positives) } else { (-1.0, larger / negatives) };
            let value = |at: usize, it: f32| f64::from(it) * f64::from(self.scales[at]);
            let sum: f64 =
                row.iter().map(|it| weights[it.0 as usize] * value(it.0 as usize, it.1)).sum();
            let margin = sign * (sum + bias[0]);
            // Neither exponential is of a positive number, so that none overflows.
            let small = (-margin.abs()).exp();
            loss += weight * (small.ln_1p() + (-margin).max(0.0));
            let wrong = if margin > 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
            let pull = -weight * sign * wrong;
            for (at, it) in row.iter() {
                gradient[*at as usize] += pull * value(*at as usize, *it);
            }
            gradient[self.scales.len()] += pull;
        }
        (loss, gradient)
    }
}

/// The gradient times the inverse of the curvature that the last steps saw (Nocedal, Mathematics of
/// Computation 35, 1980).
fn descent(gradient: &[f64], memory: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut direction = gradient.to_vec();
    let mut shares = Vec::with_capacity(memory.len());
    for (moved, turned, curvature) in memory.iter().rev() {
        let share = dot(moved, &direction) / curvature;
        add(&mut direction, turned, -share);
        shares.push(share);
    }
    let scale = match memory.back() {
        Some((_, turned, curvature)) => curvature / dot(turned, turned),
        None => 1.0 / norm(gradient).max(1.0),
    };
    direction.iter_mut().for_each(|it| *it *= scale);
    for ((moved, turned, curvature), share) in memory.iter().zip(shares.iter().rev()) {
        let back = dot(turned, &direction) / curvature;
        add(&mut direction, moved, share - back);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn add(to: &mut [f64], what: &[f64], factor: f64) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += factor * what);
}

#[cfg(test)]
mod tests {
    use linfa::Dataset;
    use linfa::traits::Fit;
    use linfa_logistic::LogisticRegression;
    use ndarray::{Array1, Array2};

    use super::*;

    /// Of +1 and -1 on either side the loss is `2 ln(1 + exp(-w)) + penalty w^2 / 2`, whose slope is 0
    /// at `w = 1` when the penalty is `2 / (1 + e)`.
    #[test]
    fn two_rows_by_hand() {
        let (up, down) = (vec![(0, 1.0)], vec![(0, -1.0)]);
        let penalty = 2.0 / (1.0 + std::f64::consts::E);
        let rows = vec![(&up, true), (&down, false)];
        let found = Problem { rows, scales: &[1.0], penalty }.solve();
        assert!((found[0] - 1.0).abs() < 1e-6 && found[1].abs() < 1e-6, "{found:?}");
        // A column of half the size, scaled by two, is the same column.
        let (up, down) = (vec![(0, 0.5)], vec![(0, -0.5)]);
        let rows = vec![(&up, true), (&down, false)];
        let found = Problem { rows, scales: &[2.0], penalty }.solve();
        assert!((found[0] - 1.0).abs() < 1e-6, "{found:?}");
    }

    /// Three negatives weigh as much as one positive: without a feature the bias is 0.
    #[test]
    fn sides_weigh_alike() {
        let (none, other) = (Vec::new(), vec![(0, 0.0)]);
        let rows = vec![(&none, true), (&none, false), (&other, false), (&other, false)];
        let found = Problem { rows, scales: &[1.0], penalty: 1.0 }.solve();
        assert!(found[1].abs() < 1e-9, "{found:?}");
    }

    /// On as many rows of either side, which then weigh 1 each, linfa finds the same.
    #[test]
    fn agrees_with_linfa() {
        let values = [
            [0.9, 0.0, 0.3],
            [0.4, 0.8, 0.0],
            [0.7, -0.2, 0.5],
            [0.0, 0.6, 0.1],
            [-0.3, 0.5, 0.6],
            [0.5, 0.4, -0.9],
        ];
        let rows: Vec<Sparse> = values
            .iter()
            .map(|it| it.iter().enumerate().map(|(at, it)| (at as u32, *it as f32)).collect())
            .collect();
        let sides = rows.iter().enumerate().map(|(at, it)| (it, at < 3)).collect();
        let found = Problem { rows: sides, scales: &[1.0; 3], penalty: 0.1 }.solve();
        let records = Array2::from_shape_fn((6, 3), |(row, at)| f64::from(values[row][at] as f32));
        let targets = Array1::from_shape_fn(6, |row| row < 3);
        let model = LogisticRegression::default()
            .alpha(0.1)
            .gradient_tolerance(1e-8)
            .fit(&Dataset::new(records, targets))
            .unwrap();
        let sign = if model.labels().pos.class { 1.0 } else { -1.0 };
        for (got, want) in found.iter().zip(model.params().iter().chain([&model.intercept()])) {
            assert!((got - sign * want).abs() < 1e-4, "{found:?} {want}");
        }
    }
}
