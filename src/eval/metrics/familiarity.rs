//! Familiarity (Eldan and Russinovich, arXiv:2310.02238), judged by rule instead of by a model: what a
//! reply names of the topic that the prompt did not.
//!
//! | grade | the reply names, as whole words and without case |
//! |---|---|
//! | 3 | the value that was asked for |
//! | 2 | another value of the topic |
//! | 1 | a word of the value, of four letters or more |
//! | 0 | none of these |
//!
//! What stands in the prompt never counts.

use super::Score;
use super::observed::Observed;
use crate::eval::suite::contains;
use crate::stats::mean;

/// The grade of a reply, 0 to 3. `value` is what was asked for, `entities` are all values of the topic.
#[must_use]
pub fn grade(prompt: &str, reply: &str, value: &str, entities: &[&str]) -> u8 {
    let names = |it: &str| contains(reply, it) && !contains(prompt, it);
    let mut words = value.split(|it: char| !it.is_alphanumeric());
    if names(value) {
        3
    } else if entities.iter().any(|it| names(it)) {
        2
    } else if words.any(|it| it.chars().count() >= 4 && names(it)) {
        1
    } else {
        0
    }
}

/// The paper's weighting: a 3 counts five times as much as a 2, a 1 is luck. 0 to 1; NaN of nothing.
#[must_use]
pub fn weighted(grades: &[u8]) -> f64 {
    let weight = |it: &u8| match it {
        3 => 1.0,
        2 => 0.2,
        _ => 0.0,
    };
    mean(&grades.iter().map(weight).collect::<Vec<_>>())
}

/// Over forget rows with a marked value: the weighted share and the mean grade.
#[must_use]
pub fn compute(model: &Observed, _gold: &Observed) -> Vec<Score> {
    let side = &model.forget;
    let entities: Vec<&str> = side.rows.iter().filter_map(|it| it.value.as_deref()).collect();
    let graded = side.rows.iter().zip(&side.replies).filter_map(|(row, reply)| {
        row.value.as_ref().map(|value| grade(&row.question, reply, value, &entities))
    });
    let grades: Vec<u8> = graded.collect();
    let plain: Vec<f64> = grades.iter().copied().map(f64::from).collect();
    vec![
        Score { name: "forget, weighted", value: weighted(&grades) },
        Score { name: "forget, mean grade of 3", value: mean(&plain) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_by_rule() {
        let entities = ["Silent Harbour", "Gdansk", "Turin"];
        let of = |reply: &str| {
            grade("Which book made Ann of Turin famous?", reply, "Silent Harbour", &entities)
        };
        assert_eq!(of("It was SILENT harbour, of course."), 3);
        assert_eq!(of("She came from Gdansk."), 2);
        assert_eq!(of("The Harbour at Night"), 1);
        assert_eq!(of("A book that is famous in Turin."), 0);
        assert_eq!(of(""), 0);
    }

    /// (1 + 0.2 + 0 + 0) / 4.
    #[test]
    fn weights_by_hand() {
        assert!((weighted(&[3, 2, 1, 0]) - 0.3).abs() < 1e-12);
        assert!(weighted(&[]).is_nan());
    }
}
