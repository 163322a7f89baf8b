//! ROUGE-L between a reference and a reply, with the numbers of Python's `rouge-score`.
//!
//! C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. TOFU reports the
//! recall, so a reply that contains the answer and goes on is not punished.

use super::porter::stem;

/// How much of two texts is a common subsequence of words. Each in 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RougeL {
    /// Share of the reply's words.
    pub precision: f64,
    /// Share of the reference's words.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
}

/// ROUGE-L of `reply` against `reference`, stemmed. All zero where either has no word.
///
/// Equal to `RougeScorer(["rougeL"], use_stemmer=True).score(reference, reply)`.
#[must_use]
pub fn rouge_l(reference: &str, reply: &str) -> RougeL {
    let (reference, reply) = (tokens(reference), tokens(reply));
    if reference.is_empty() || reply.is_empty() {
        return RougeL::default();
    }
    let common = longest_common_subsequence(&reference, &reply) as f64;
    let precision = common / reply.len() as f64;
    let recall = common / reference.len() as f64;
    let sum = precision + recall;
    let f1 = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
    RougeL { precision, recall, f1 }
}

/// The words as ROUGE compares them: lower case, split at everything but `a-z` and `0-9` (so at
/// accented letters too), stemmed when longer than three characters.
#[must_use]
pub fn tokens(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|letter: char| !letter.is_ascii_lowercase() && !letter.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| if word.len() > 3 { stem(word) } else { word.to_owned() })
        .collect()
}

/// Length of the longest common subsequence, in one row of memory.
fn longest_common_subsequence(left: &[String], right: &[String]) -> usize {
    let mut row = vec![0usize; right.len() + 1];
    for word in left {
        let mut diagonal = 0;
        for (at, other) in right.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if word == other { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "the cat sat" against "the dog sat down": 2 words in common of 3 and of 4.
    #[test]
    fn counts_the_common_subsequence() {
        let score = rouge_l("The cat sat.", "the dog sat down");
        assert!((score.recall - 2.0 / 3.0).abs() < 1e-15, "{score:?}");
        assert!((score.precision - 0.5).abs() < 1e-15, "{score:?}");
        assert!((score.f1 - 4.0 / 7.0).abs() < 1e-15, "{score:?}");
    }

    #[test]
    fn order_matters() {
        assert!((rouge_l("a b c", "c b a").recall - 1.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn no_words_score_nothing() {
        for (reference, reply) in [("", "a"), ("a", ""), ("…", "!?"), ("a", "b")] {
            assert_eq!(rouge_l(reference, reply), RougeL::default());
        }
    }

    #[test]
    fn compares_stems_of_long_words_only() {
        assert_eq!(
            tokens("Café-owners' cats, was RUNNING 1990s"),
            ["caf", "owner", "cat", "was", "run", "1990"]
        );
        assert_eq!(tokens("dies"), ["die"]);
        assert_eq!(tokens("ads"), ["ads"]);
    }
}
