//! Exact memorisation (Tirumala et al., arXiv:2205.10770): the share of an answer's tokens that are
//! the most probable ones, each after the true tokens before it.

use super::observed::{Observed, Side};
use super::{Score, teacher::Token};
use crate::stats::mean;

/// The share of `tokens` that are the most probable ones. NaN of nothing.
#[must_use]
pub fn share(tokens: &[Token]) -> f64 {
    tokens.iter().filter(|it| it.is_argmax).count() as f64 / tokens.len() as f64
}

fn over(side: &Side) -> f64 {
    mean(&side.answers.iter().map(|it| share(it.answer())).collect::<Vec<_>>())
}

/// Means over forget and retain rows; the end of the turn is left out.
#[must_use]
pub fn compute(model: &Observed, _gold: &Observed) -> Vec<Score> {
    vec![
        Score { name: "forget", value: over(&model.forget) },
        Score { name: "retain", value: over(&model.retain) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::teacher::tests::token;

    #[test]
    fn three_of_four_by_hand() {
        let tokens = [true, false, true, true].map(|it| token(-1.0, it));
        assert!((share(&tokens) - 0.75).abs() < 1e-12);
        assert!(share(&[]).is_nan());
    }
}
