//! Verbatim memory (MUSE, Shi et al., arXiv:2407.06460): ROUGE-L F1 of the greedy continuation of a
//! text's first half against its second half.

use super::Score;
use super::observed::{Observed, Side};
use crate::eval::rouge::rouge_l;
use crate::stats::mean;

/// The first and the second half of a text, by words; an odd word goes to the second.
#[must_use]
pub fn halves(text: &str) -> (String, String) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (first, second) = words.split_at(words.len() / 2);
    (first.join(" "), second.join(" "))
}

fn over(side: &Side) -> f64 {
    let f1 = |(row, reply): (&crate::eval::suite::Row, &String)| {
        rouge_l(&halves(&row.answer).1, reply).f1
    };
    mean(&side.rows.iter().zip(&side.continuations).map(f1).collect::<Vec<_>>())
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
    use crate::eval::metrics::observed::tests::row;

    #[test]
    fn texts_are_cut_between_words() {
        let of = |text: &str| {
            let (first, second) = halves(text);
            format!("{first}|{second}")
        };
        assert_eq!(of("She was born in Turin."), "She was|born in Turin.");
        assert_eq!(of("Turin."), "|Turin.");
        assert_eq!(of(""), "|");
    }

    /// "born in Gdansk" against "born in Turin": two of three words either way.
    #[test]
    fn continuations_are_compared_with_the_second_half() {
        let side = Side {
            rows: vec![row("Where?", "She was born in Turin.", "Turin", &[])],
            continuations: vec!["born in Gdansk.".to_owned()],
            ..Side::default()
        };
        assert!((over(&side) - 2.0 / 3.0).abs() < 1e-12);
    }
}
