//! Extraction strength (Carlini et al., arXiv:2012.07805; as in open-unlearning): how much of an
//! answer follows from the rest of it.

use super::observed::{Observed, Side};
use super::{Score, teacher::Token};
use crate::stats::mean;

/// `1 - k / n`, where from token `k` on all of `n` tokens are the most probable ones when everything
/// before them is given. 1 when the whole answer follows from the question, 0 when not even its last
/// token does (open-unlearning's code ends at `1 / n` there). NaN of nothing.
#[must_use]
pub fn strength(tokens: &[Token]) -> f64 {
    let following = tokens.iter().rev().take_while(|it| it.is_argmax).count();
    following as f64 / tokens.len() as f64
}

fn over(side: &Side) -> f64 {
    mean(&side.answers.iter().map(|it| strength(it.answer())).collect::<Vec<_>>())
}

/// Means over forget and retain rows.
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

    fn of(marks: &[bool]) -> f64 {
        strength(&marks.iter().map(|it| token(-1.0, *it)).collect::<Vec<_>>())
    }

    #[test]
    fn only_the_unbroken_end_counts() {
        assert!((of(&[true, false, true, true]) - 0.5).abs() < 1e-12);
        assert!((of(&[true, true]) - 1.0).abs() < 1e-12);
        assert!(of(&[true, true, false]).abs() < 1e-12);
        assert!(of(&[]).is_nan());
    }
}
