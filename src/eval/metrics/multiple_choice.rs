//! Multiple choice by log-probability, as lm-evaluation-harness grades it: every option is shown as the
//! answer, and the most probable one is chosen. Nothing is generated, so refusals do not help.

use super::observed::{Observed, Side};
use super::{Score, teacher::Scored};
use crate::stats::mean;

/// Log-probability of an option in nats: of all its tokens, without the end of the turn.
fn total(option: &Scored) -> f64 {
    option.answer().iter().map(|it| it.logprob).sum()
}

/// The same per token.
fn per_token(option: &Scored) -> f64 {
    total(option) / option.answer().len() as f64
}

/// Whether the first option beats all others.
fn right(options: &[Scored], score: fn(&Scored) -> f64) -> f64 {
    let own = score(&options[0]);
    f64::from(u8::from(options[1..].iter().all(|it| score(it) < own)))
}

fn over(side: &Side, value: impl Fn(&[Scored]) -> f64) -> f64 {
    let rows = side.options.iter().filter(|it| !it.is_empty());
    mean(&rows.map(|it| value(it)).collect::<Vec<_>>())
}

/// Accuracies over forget and retain rows, by whole log-probability and per token, and what guessing
/// reaches.
#[must_use]
pub fn compute(model: &Observed, _gold: &Observed) -> Vec<Score> {
    let (forget, retain) = (&model.forget, &model.retain);
    let score = |name, value| Score { name, value };
    vec![
        score("forget", over(forget, |it| right(it, total))),
        score("forget, per token", over(forget, |it| right(it, per_token))),
        score("forget, chance", over(forget, |it| 1.0 / it.len() as f64)),
        score("retain", over(retain, |it| right(it, total))),
        score("retain, per token", over(retain, |it| right(it, per_token))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::teacher::tests::token;

    fn option(logprobs: &[f64]) -> Scored {
        let mut tokens: Vec<_> = logprobs.iter().map(|it| token(*it, false)).collect();
        let content = tokens.len();
        tokens.push(token(-100.0, false));
        Scored { tokens, content }
    }

    /// -3 in three tokens against -2.5 in one: less probable, but more so per token.
    #[test]
    fn length_decides_between_the_two_scores() {
        let options = [option(&[-1.0, -1.0, -1.0]), option(&[-2.5])];
        assert_eq!((right(&options, total), right(&options, per_token)), (0.0, 1.0));
        let side = Side { options: vec![options.to_vec(), Vec::new()], ..Side::default() };
        assert!((over(&side, |it| 1.0 / it.len() as f64) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_tie_is_not_right() {
        assert_eq!(right(&[option(&[-1.0]), option(&[-1.0])], total), 0.0);
    }
}
