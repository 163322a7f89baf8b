//! Probability of what was asked for alone. A whole answer is probable for the words of its template;
//! its value is what has to be known.

use super::observed::{Observed, Side};
use super::{Score, teacher::Token};
use crate::eval::suite::Row;
use crate::stats::mean;

/// Geometric mean of the probabilities of the tokens that hold bytes of `value` where it last stands in
/// `answer`; `None` when it does not stand there.
#[must_use]
pub fn probability(tokens: &[Token], answer: &str, value: &str) -> Option<f64> {
    let start = answer.rfind(value).filter(|_| !value.is_empty())?;
    let end = start + value.len();
    let own = tokens.iter().filter(|it| it.span.start < end && it.span.end > start);
    let logprobs: Vec<f64> = own.map(|it| it.logprob).collect();
    (!logprobs.is_empty()).then(|| mean(&logprobs).exp())
}

fn over(side: &Side) -> f64 {
    let of = |(row, scored): (&Row, &super::teacher::Scored)| {
        probability(scored.answer(), &row.answer, row.value.as_deref()?)
    };
    mean(&side.rows.iter().zip(&side.answers).filter_map(of).collect::<Vec<_>>())
}

/// Means over forget and retain rows with a marked value.
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

    /// "In Gdansk.": the value lies in " Gda" and "nsk", of probabilities 1/2 and 1/8.
    #[test]
    fn only_the_values_tokens_count() {
        let parts = [(0..2, 0.9f64), (2..6, 0.5), (6..9, 0.125), (9..10, 0.1)];
        let tokens = parts.map(|(span, it)| Token { span, ..token(it.ln(), false) });
        let found = probability(&tokens, "In Gdansk.", "Gdansk").unwrap();
        assert!((found - 0.25).abs() < 1e-12);
        assert_eq!(probability(&tokens, "In Gdansk.", "Turin"), None);
        assert_eq!(probability(&tokens, "In Gdansk.", ""), None);
    }
}
