//! Membership inference: whether forget rows look trained, by the losses of their answers.
//!
//! Scores are higher where a text looks less like training data: the loss (Yeom et al.,
//! arXiv:1709.01604), the loss by the zlib length of the text (Carlini et al., arXiv:2012.07805), the
//! loss beyond gold's (the same), the least probable 40 % of the tokens (min-k, Shi et al.,
//! arXiv:2310.16789) and the same with the log-probabilities in units of their spread (min-k++, Zhang
//! et al., arXiv:2404.02936). The AUC is how often a row that was never trained scores above a forget
//! row: 1 is clear memory of the forget rows, 0.5 none.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::observed::{Observed, Side};
use super::{Score, teacher::Token};
use crate::stats::auc;

/// Share of tokens that min-k looks at.
pub const K: f64 = 0.4;

/// Smallest variance that min-k++ divides by.
const LEAST_VARIANCE: f64 = 1e-6;

/// Bytes of a text compressed by zlib at level 6.
#[must_use]
pub fn zlib_bytes(text: &str) -> usize {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    let written = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    written.expect("memory takes every byte").len()
}

/// Minus the mean of the lowest `share` of values, at least one of them. NaN of nothing.
fn lowest(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let kept = ((values.len() as f64 * share) as usize).clamp(1, values.len().max(1));
    -values.iter().take(kept).sum::<f64>() / kept.min(values.len()) as f64
}

/// Min-k: minus the mean of the lowest `share` of log-probabilities.
#[must_use]
pub fn min_k(tokens: &[Token], share: f64) -> f64 {
    lowest(tokens.iter().map(|it| it.logprob).collect(), share)
}

/// Min-k++: the same with each log-probability's distance from the mean over the vocabulary, in
/// standard deviations.
#[must_use]
pub fn min_k_plus_plus(tokens: &[Token], share: f64) -> f64 {
    let standard = |it: &Token| (it.logprob - it.mean) / it.variance.max(LEAST_VARIANCE).sqrt();
    lowest(tokens.iter().map(standard).collect(), share)
}

/// MUSE's privacy leakage in percent: how far `1 - AUC` is from gold's, relative to gold's. Below 0 the
/// forget rows are still known, above 0 they are avoided; infinite or NaN where gold's AUC is 1.
#[must_use]
pub fn privleak(auc: f64, gold: f64) -> f64 {
    100.0 * ((1.0 - auc) - (1.0 - gold)) / (1.0 - gold)
}

fn scores(side: &Side, of: impl Fn(&[Token]) -> f64) -> Vec<f64> {
    side.answers.iter().map(|it| of(&it.tokens)).collect()
}

fn losses(side: &Side) -> Vec<f64> {
    side.answers.iter().map(super::teacher::Scored::nll).collect()
}

fn by_zlib(side: &Side) -> Vec<f64> {
    let of = |(loss, row): (f64, &crate::eval::suite::Row)| loss / zlib_bytes(&row.answer) as f64;
    losses(side).into_iter().zip(&side.rows).map(of).collect()
}

fn beyond(side: &Side, gold: &Side) -> Vec<f64> {
    losses(side).into_iter().zip(losses(gold)).map(|it| it.0 - it.1).collect()
}

/// AUC of every score, and privleak by min-k.
#[must_use]
pub fn compute(model: &Observed, gold: &Observed) -> Vec<Score> {
    let of_min_k = |it: &Observed| {
        let score = |side| scores(side, |tokens| min_k(tokens, K));
        auc(&score(it.others()), &score(&it.forget))
    };
    let plus_plus = |side| scores(side, |tokens| min_k_plus_plus(tokens, K));
    let (others, forget) = (model.others(), &model.forget);
    let min_k_auc = of_min_k(model);
    let score = |name, value| Score { name, value };
    vec![
        score("AUC, loss", auc(&losses(others), &losses(forget))),
        score("AUC, zlib", auc(&by_zlib(others), &by_zlib(forget))),
        score("AUC, reference", auc(&beyond(others, gold.others()), &beyond(forget, &gold.forget))),
        score("AUC, min-40%", min_k_auc),
        score("AUC, min-40%++", auc(&plus_plus(others), &plus_plus(forget))),
        score("privleak", privleak(min_k_auc, of_min_k(gold))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::teacher::tests::token;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }

    /// 40 % of five tokens are two: the lowest are -4 and -3.
    #[test]
    fn the_least_probable_tokens_count() {
        let tokens = [-1.0, -4.0, -2.0, -3.0, -0.5].map(|it| token(it, false));
        near(min_k(&tokens, K), 3.5);
        near(min_k(&tokens[..1], K), 1.0);
        assert!(min_k(&[], K).is_nan());
    }

    /// (-3 - -2) / 2 = -0.5 and (-1 - -4) / 1 = 3; the lower half is the first. A variance of nothing
    /// is taken for 1e-6: a distance of 0.001 is one standard deviation.
    #[test]
    fn min_k_plus_plus_is_in_standard_deviations() {
        let spread = Token { mean: -2.0, variance: 4.0, ..token(-3.0, false) };
        let narrow = Token { mean: -4.0, variance: 1.0, ..token(-1.0, false) };
        near(min_k_plus_plus(&[spread, narrow], 0.5), 0.5);
        let certain = Token { mean: 0.0, variance: 0.0, ..token(-0.001, false) };
        near(min_k_plus_plus(&[certain], K), 1.0);
    }

    /// zlib's header and checksum are 6 bytes, an empty block 2, and one literal 1 more.
    #[test]
    fn short_texts_compress_to_known_lengths() {
        assert_eq!((zlib_bytes(""), zlib_bytes("a")), (8, 9));
        assert!(zlib_bytes(&"a".repeat(1000)) < 40);
    }

    /// AUC 0.9 leaves 0.1 where gold's 0.6 leaves 0.4: three quarters too little.
    #[test]
    fn privleak_is_relative_to_gold() {
        near(privleak(0.9, 0.6), -75.0);
        near(privleak(0.6, 0.6), 0.0);
        near(privleak(0.2, 0.6), 100.0);
    }
}
