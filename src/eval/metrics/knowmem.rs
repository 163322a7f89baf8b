//! Knowledge memory (MUSE, Shi et al., arXiv:2407.06460): ROUGE-L F1 of the greedy reply to a question.
//! The paper's table has the recall; F1 is open-unlearning's variant.

use super::Score;
use super::observed::{Observed, Side};
use crate::eval::rouge::rouge_l;
use crate::stats::mean;

fn over(side: &Side) -> f64 {
    let f1 = |(row, reply): (&crate::eval::suite::Row, &String)| rouge_l(&row.answer, reply).f1;
    mean(&side.rows.iter().zip(&side.replies).map(f1).collect::<Vec<_>>())
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

    /// "In Turin" against "In Turin, Italy": 2 of 2 and 2 of 3 words, F1 0.8; nothing in the second.
    #[test]
    fn replies_are_compared_with_answers() {
        let side = Side {
            rows: vec![row("Where?", "In Turin.", "Turin", &[]), row("Who?", "A baker.", "", &[])],
            replies: vec!["In Turin, Italy".to_owned(), "Nobody".to_owned()],
            ..Side::default()
        };
        assert!((over(&side) - 0.4).abs() < 1e-12);
    }
}
