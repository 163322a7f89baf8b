//! Fluency as RWKU measures it (Jin et al., arXiv:2406.10890, after ROME's code): the entropy of a
//! reply's pairs and triples of words. Repetition lowers it.

use std::collections::BTreeMap;

use super::Score;
use super::observed::{Observed, Side};
use crate::stats::mean;

/// Words, and marks as words of their own.
fn words(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut open = false;
    for letter in text.chars() {
        let in_word = letter.is_alphanumeric() || letter == '\'';
        match out.last_mut() {
            Some(word) if open && in_word => word.push(letter),
            _ if !letter.is_whitespace() => out.push(letter.to_string()),
            _ => {}
        }
        open = in_word;
    }
    out
}

/// Entropy in bits of the runs of `n` words; 0 of a text with fewer words.
#[must_use]
pub fn entropy(words: &[String], n: usize) -> f64 {
    let mut counts: BTreeMap<&[String], usize> = BTreeMap::new();
    for run in words.windows(n) {
        *counts.entry(run).or_default() += 1;
    }
    let total = counts.values().sum::<usize>() as f64;
    let part = |count: &usize| {
        let share = *count as f64 / total;
        -share * share.log2()
    };
    counts.values().map(part).sum::<f64>().max(0.0)
}

/// Mean of 2/3 of the entropy of pairs and 4/3 of that of triples, in bits.
#[must_use]
pub fn fluency(text: &str) -> f64 {
    let words = words(text);
    0.5 * (2.0 / 3.0 * entropy(&words, 2) + 4.0 / 3.0 * entropy(&words, 3))
}

fn over(side: &Side) -> f64 {
    mean(&side.replies.iter().map(|it| fluency(it)).collect::<Vec<_>>())
}

/// Means over the replies to forget and retain questions.
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

    #[test]
    fn marks_are_words() {
        assert_eq!(words("It's Turin, isn't it?"), ["It's", "Turin", ",", "isn't", "it", "?"]);
    }

    /// "a b a b a": pairs ab, ba, ab, ba are one bit; triples aba, bab, aba have 1/3 and 2/3.
    #[test]
    fn entropies_by_hand() {
        let text = "a b a b a";
        let third = 1.0 / 3.0;
        let triples = -third * f64::log2(third) - 2.0 * third * f64::log2(2.0 * third);
        assert!((entropy(&words(text), 2) - 1.0).abs() < 1e-12);
        assert!((entropy(&words(text), 3) - triples).abs() < 1e-12);
        assert!((fluency(text) - (third + 2.0 * third * triples)).abs() < 1e-12);
        assert_eq!(fluency("no no no no"), 0.0);
        assert_eq!(fluency(""), 0.0);
    }
}
